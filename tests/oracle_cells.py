# SPDX-License-Identifier: MIT
"""The oracle's cells: one recurrent layer, in one direction, in plain float64 NumPy, written from the equations.

    h', c' the state before the step;   p = m * h', what the products with W_hh see: m is the recurrent dropout's mask
    a = xw + p W_hh in blocks of H columns, one for each gate;   xw = x W_xh + b_h

    tanh, relu   h = act(a)
    lstm         i, f, o = sigmoid(a_i, a_f, a_o),  g = tanh(a_g);   c = f * c' + i * g;   h = o * tanh(c)
    gru          r, z = sigmoid(a_r, a_z);   n = tanh(xw_n + r * (p W_hn + b_hn));   h = (1 - z) * n + z * h'
    original_gru the same with               n = tanh(xw_n + (r * p) W_hn)
    ln_lstm      n = (a - mean(a)) / sqrt(var(a) + 1e-5) in each block;   i, f, o = sigmoid(gain * n + bias),
                 g = tanh(gain * n + bias);   c = f * c' + min(i, 1 - f) * g;   h = o * c

A step takes the state before it and returns the state after it, each (h,) or (h, c), and what its way back needs.
A step back takes the gradient of the state after the step. It adds to the gradients of W_hh and b_hn, and returns
those of xw, of p, and of the state before along all paths but p.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
State = tuple[Array, ...]  # (h,), for an LSTM (h, c); each (B, H)
Params = dict[str, Array]

GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3, "original_gru": 3, "min_gru": 2, "ln_lstm": 4}
WITHOUT_W_HH = {"min_gru"}  # cells that have no product with the state before
WITH_C = {"lstm", "ln_lstm"}  # cells whose state is (h, c)
NORMALISED = {"ln_lstm"}  # cells whose gates have gains and biases after a normalisation


def activate(a: Array, activation: str) -> Array:
    return np.tanh(a) if activation == "tanh" else np.maximum(a, 0)


def activation_slope(h: Array, activation: str) -> Array:
    """act'(a), told from h = act(a) alone: tanh' = 1 - tanh^2; the ReLU's is 1 where it is open."""
    return 1 - h * h if activation == "tanh" else (h > 0).astype(np.float64)


def sigmoid(a: Array) -> Array:
    return np.exp(-np.logaddexp(0, -a))  # without overflow, and without 1 - 1 far below zero


def gates(a: Array, count: int) -> list[Array]:
    return np.split(a, count, axis=-1)


def concatenated(*blocks: Array) -> Array:
    return np.concatenate(blocks, axis=-1)


# ---- one step of each cell, there and back -------------------------------------------------------------------------


def simple_step(activation: str) -> Callable[..., tuple[State, State]]:
    def step(w: Params, xw: Array, p: Array, before: State) -> tuple[State, State]:
        h = activate(xw + p @ w["W_hh"], activation)
        return (h,), (h,)

    return step


def simple_step_back(activation: str) -> Callable[..., tuple[Array, Array, State]]:
    def back(w: Params, grads: Params, kept: State, p: Array, before: State, dafter: State) -> tuple[Any, ...]:
        (h,), (dh,) = kept, dafter
        da = dh * activation_slope(h, activation)
        grads["W_hh"] += p.T @ da
        return da, da @ w["W_hh"].T, (np.zeros_like(dh),)

    return back


def lstm_step(w: Params, xw: Array, p: Array, before: State) -> tuple[State, State]:
    a_i, a_f, a_g, a_o = gates(xw + p @ w["W_hh"], 4)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c = f * before[1] + i * g
    return (o * np.tanh(c), c), (i, f, g, o, c)


def lstm_step_back(
    w: Params, grads: Params, kept: State, p: Array, before: State, dafter: State
) -> tuple[Array, Array, State]:
    (i, f, g, o, c), (dh, dc) = kept, dafter
    dc = dc + dh * o * (1 - np.tanh(c) ** 2)  # c acts on what comes later and, through h, on this step
    da = concatenated(
        dc * g * i * (1 - i),
        dc * before[1] * f * (1 - f),
        dc * i * (1 - g * g),
        dh * np.tanh(c) * o * (1 - o),
    )
    grads["W_hh"] += p.T @ da
    return da, da @ w["W_hh"].T, (np.zeros_like(dh), dc * f)


def gru_step(w: Params, xw: Array, p: Array, before: State) -> tuple[State, State]:
    xw_r, xw_z, xw_n = gates(xw, 3)
    W_hr, W_hz, W_hn = gates(w["W_hh"], 3)
    r, z = sigmoid(xw_r + p @ W_hr), sigmoid(xw_z + p @ W_hz)
    if "b_hn" in w:
        q = p @ W_hn + w["b_hn"]
        n = np.tanh(xw_n + r * q)
    else:
        q = r * p
        n = np.tanh(xw_n + q @ W_hn)
    return ((1 - z) * n + z * before[0],), (r, z, n, q)


def gru_step_back(
    w: Params, grads: Params, kept: State, p: Array, before: State, dafter: State
) -> tuple[Array, Array, State]:
    (r, z, n, q), (dh,) = kept, dafter
    W_hr, W_hz, W_hn = gates(w["W_hh"], 3)
    dz = dh * (before[0] - n)
    da_z = dz * z * (1 - z)
    da_n = dh * (1 - z) * (1 - n * n)
    if "b_hn" in w:  # forward: a_n = xw_n + r * q,  q = p W_hn + b_hn
        dr, dq = da_n * q, da_n * r
        grads["b_hn"] += dq.sum(axis=0)
        dW_hn, dp = p.T @ dq, dq @ W_hn.T
    else:  # forward: a_n = xw_n + q W_hn,  q = r * p
        dq = da_n @ W_hn.T
        dr, dp = dq * p, dq * r
        dW_hn = q.T @ da_n
    da_r = dr * r * (1 - r)
    grads["W_hh"] += concatenated(p.T @ da_r, p.T @ da_z, dW_hn)
    return concatenated(da_r, da_z, da_n), dp + da_r @ W_hr.T + da_z @ W_hz.T, (dh * z,)


def min_gru_step(w: Params, xw: Array, p: Array, before: State) -> tuple[State, State]:
    a_z, a_n = gates(xw, 2)
    z, n = sigmoid(a_z), np.where(a_n >= 0, a_n + 0.5, sigmoid(a_n))
    return ((1 - z) * before[0] + z * n,), (z, n)


def min_gru_step_back(
    w: Params, grads: Params, kept: State, p: Array, before: State, dafter: State
) -> tuple[Array, Array, State]:
    (z, n), (dh,) = kept, dafter
    dn = dh * z
    da = concatenated(dh * (n - before[0]) * z * (1 - z), np.where(n >= 0.5, dn, dn * n * (1 - n)))
    return da, np.zeros_like(dh), (dh * (1 - z),)


def ln_lstm_step(w: Params, xw: Array, p: Array, before: State) -> tuple[State, State]:
    scales, n, z = [], [], []
    for name, a in zip("ifgo", gates(xw + p @ w["W_hh"], 4), strict=True):
        scales.append(1 / np.sqrt(a.var(axis=1, keepdims=True) + 1e-5))
        n.append((a - a.mean(axis=1, keepdims=True)) * scales[-1])
        z.append(n[-1] * w["gain_" + name] + w["bias_" + name])
    i, f, g, o = sigmoid(z[0]), sigmoid(z[1]), np.tanh(z[2]), sigmoid(z[3])
    c = f * before[1] + np.minimum(i, 1 - f) * g
    return (o * c, c), (*n, c, concatenated(*scales), i, f, g, o)


def ln_lstm_step_back(
    w: Params, grads: Params, kept: State, p: Array, before: State, dafter: State
) -> tuple[Array, Array, State]:
    *normal, c, scales, i, f, g, o = kept
    dh, dc = dafter
    dc = dc + dh * o
    limited = i > 1 - f  # by the forget gate; where both are equal, i is the smaller one
    dz = [
        np.where(limited, 0, dc * g) * i * (1 - i),
        (dc * before[1] - np.where(limited, dc * g, 0)) * f * (1 - f),
        dc * np.minimum(i, 1 - f) * (1 - g * g),
        dh * c * o * (1 - o),
    ]
    da = []
    for name, dz_gate, n, scale in zip("ifgo", dz, normal, gates(scales, 4), strict=True):
        grads["gain_" + name] += (dz_gate * n).sum(axis=0)
        grads["bias_" + name] += dz_gate.sum(axis=0)
        dn = dz_gate * w["gain_" + name]
        da.append(scale * (dn - dn.mean(axis=1, keepdims=True) - n * (dn * n).mean(axis=1, keepdims=True)))
    joined = concatenated(*da)
    grads["W_hh"] += p.T @ joined
    return joined, joined @ w["W_hh"].T, (np.zeros_like(dh), dc * f)


STEPS = {
    "tanh": (simple_step("tanh"), simple_step_back("tanh")),
    "relu": (simple_step("relu"), simple_step_back("relu")),
    "lstm": (lstm_step, lstm_step_back),
    "gru": (gru_step, gru_step_back),
    "original_gru": (gru_step, gru_step_back),  # without a b_hn
    "min_gru": (min_gru_step, min_gru_step_back),
    "ln_lstm": (ln_lstm_step, ln_lstm_step_back),
}


# ---- through time --------------------------------------------------------------------------------------------------


def steps_there(T: int, B: int, lengths: ArrayLike | None) -> NDArray[np.bool_]:
    """(T, B, 1): whether row b has a step t."""
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    return (np.arange(T)[:, None] < lengths)[..., None]


def turned_round(x: Array, lengths: ArrayLike | None) -> Array:
    """Every row's steps (T, B, ...) in reverse, the padding behind them where it was. Its own inverse."""
    turned = x.copy()
    for b, length in enumerate([len(x)] * x.shape[1] if lengths is None else np.asarray(lengths)):
        turned[:length, b] = x[:length, b][::-1]
    return turned


@dataclass
class Recurrence:
    """A pass of one cell over xw, for the way back."""

    cell: str
    weights: Params  # W_hh, and b_hn if the cell has one
    there: NDArray[np.bool_]  # (T, B, 1)
    mask: Array | float
    state: State  # each row's after its own last step
    h: Array  # (T, B, H), 0 at padded steps
    before: list[State] = field(default_factory=list)  # each step's state before it
    kept: list[State] = field(default_factory=list)


def cell_forward(
    cell: str,
    xw: Array,
    state: State,
    weights: Params,
    *,
    lengths: ArrayLike | None = None,
    mask: Array | None = None,
) -> Recurrence:
    """Run a cell over xw (T, B, G*H) from ``state``; ``weights`` holds W_hh (H, G*H), for some GRUs b_hn (H,).

    A row rests after its last step: its state stays, its h is 0.
    """
    T, B, _ = xw.shape
    there, H = steps_there(T, B, lengths), state[0].shape[1]
    run = Recurrence(cell, weights, there, 1.0 if mask is None else mask, state, np.empty((T, B, H)))
    step, _ = STEPS[cell]
    for t in range(T):
        before = run.state
        after, kept = step(weights, xw[t], run.mask * before[0], before)
        run.before.append(before)
        run.kept.append(kept)
        run.state = tuple(np.where(there[t], new, old) for new, old in zip(after, before, strict=True))
        run.h[t] = np.where(there[t], after[0], 0)
    return run


def cell_backward(run: Recurrence, dh: Array, dstate: State | None = None) -> tuple[Array, State, Params]:
    """dxw (T, B, G*H), dstate of the state before the first step, and the gradients of the weights.

    dh (T, B, H) arrives at every h, dstate at the state after the last step. What a padded step's dh holds is lost.
    """
    grads = {name: np.zeros_like(value) for name, value in run.weights.items()}
    d = tuple(np.zeros_like(part) for part in run.state) if dstate is None else dstate
    T, B, H = run.h.shape
    dxw = np.empty((T, B, GATES[run.cell] * H))
    _, step_back = STEPS[run.cell]
    for t in reversed(range(T)):
        there, before = run.there[t], run.before[t]
        dafter = tuple(np.where(there, part, 0) for part in (d[0] + dh[t], *d[1:]))
        dxw[t], dp, direct = step_back(run.weights, grads, run.kept[t], run.mask * before[0], before, dafter)
        dbefore = (direct[0] + run.mask * dp, *direct[1:])  # forward: p = mask * h'
        d = tuple(np.where(there, new, resting) for new, resting in zip(dbefore, d, strict=True))
    return dxw, d, grads
