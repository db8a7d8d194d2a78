# SPDX-License-Identifier: MIT
"""JAX: a layer over a sequence, and the training step of a language model, as one jitted function each.

Layers are written twice: as a scan that JAX differentiates, and with the backward pass written by hand, which keeps the
gates and computes the gradient of W_hh in one product over all steps.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.training import Step
from benchmarks.contenders.training_task import BETA1, BETA2, CLIP, EPS, RATE, TrainingTask, Weights, Windows

Array = NDArray[Any]
Layer = Callable[[Any, Any, Any], Any]  # (xw (T, B, G*H), weights, state): h (T, B, H), state


# ---- one step of each cell, and its backward step --------------------------------------------------------------------
# forward (state, xw_t, weights): the next state, and what backward needs
# backward (dstate, kept, weights): gradients of xw_t and of h_{t-1} @ W_hh, and what the previous state gets directly


def _tanh_forward(state: Any, xw: Any, w: Any) -> Any:
    import jax.numpy as jnp

    h = jnp.tanh(xw + state[0] @ w["W_hh"])
    return (h,), (h,)


def _tanh_backward(dstate: Any, kept: Any, w: Any) -> Any:
    (dh,), (h,) = dstate, kept
    da = dh * (1 - h * h)
    return da, da, (0.0,)


def _lstm_forward(state: Any, xw: Any, w: Any) -> Any:
    import jax
    import jax.numpy as jnp

    h, c = state
    i, f, g, o = jnp.split(xw + h @ w["W_hh"], 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    next_c = f * c + i * g
    tanh_c = jnp.tanh(next_c)
    return (o * tanh_c, next_c), (i, f, g, o, tanh_c, c)


def _lstm_backward(dstate: Any, kept: Any, w: Any) -> Any:
    import jax.numpy as jnp

    (dh, dc), (i, f, g, o, tanh_c, c) = dstate, kept
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    gates = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)
    da = jnp.concatenate(gates, axis=-1)
    return da, da, (0.0, dc * f)


def _gru_forward(state: Any, xw: Any, w: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (h,) = state
    (xr, xz, xn), (ur, uz, un) = (jnp.split(part, 3, axis=-1) for part in (xw, h @ w["W_hh"]))
    r, z, un = jax.nn.sigmoid(xr + ur), jax.nn.sigmoid(xz + uz), un + w["b_hn"]
    n = jnp.tanh(xn + r * un)
    return ((1 - z) * n + z * h,), (r, z, n, un, h)


def _gru_backward(dstate: Any, kept: Any, w: Any) -> Any:
    import jax.numpy as jnp

    (dh,), (r, z, n, un, h) = dstate, kept
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * un * r * (1 - r), dh * (h - n) * z * (1 - z)
    return jnp.concatenate((dr, dz, dn), axis=-1), jnp.concatenate((dr, dz, dn * r), axis=-1), (dh * z,)


CELLS = {
    "tanh": (_tanh_forward, _tanh_backward),
    "lstm": (_lstm_forward, _lstm_backward),
    "gru": (_gru_forward, _gru_backward),
}


# ---- layers ----------------------------------------------------------------------------------------------------------


def scanned(cell: str, unroll: int) -> Layer:
    """A layer as a scan, which JAX differentiates."""
    import jax

    forward, _ = CELLS[cell]

    def layer(xw: Any, w: Any, state: Any) -> Any:
        def one(state: Any, xw: Any) -> Any:
            state, _ = forward(state, xw, w)
            return state, state[0]

        state, h = jax.lax.scan(one, state, xw, unroll=unroll)
        return h, state

    return layer


def by_hand(cell: str, unroll: int) -> Layer:
    """The same layer with its backward pass written by hand. The initial state has no gradient."""
    import jax
    import jax.numpy as jnp

    forward, backward = CELLS[cell]

    def run(xw: Any, w: Any, state: Any) -> Any:
        def one(state: Any, xw: Any) -> Any:
            state, kept = forward(state, xw, w)
            return state, (state[0], kept)

        after, (h, kept) = jax.lax.scan(one, state, xw, unroll=unroll)
        return (h, after), (h, kept, w, state)

    def reverse(saved: Any, gradients: Any) -> Any:
        (h, kept, w, state), (dh, dstate) = saved, gradients

        def one(dstate: Any, step: Any) -> Any:
            dh_t, kept_t = step
            dxw, du, direct = backward((dstate[0] + dh_t, *dstate[1:]), kept_t, w)
            return (du @ transposed + direct[0], *direct[1:]), (dxw, du)

        transposed = jax.lax.optimization_barrier(w["W_hh"].T)  # once, not in every step
        _, (dxw, du) = jax.lax.scan(one, dstate, (dh, kept), reverse=True, unroll=unroll)
        H = h.shape[-1]
        before, du = jnp.concatenate((state[0][None], h[:-1])).reshape(-1, H), du.reshape(-1, du.shape[-1])
        dw = {"W_hh": before.T @ du}
        if "b_hn" in w:
            dw["b_hn"] = du[:, -H:].sum(axis=0)
        return dxw, dw, jax.tree.map(jnp.zeros_like, state)

    layer: Any = jax.custom_vjp(lambda xw, w, state: run(xw, w, state)[0])
    layer.defvjp(run, reverse)
    return layer


def look_up(table: Any, ids: Any) -> Any:
    """Rows of a small table, whose gradient is a product with one-hot vectors."""
    import jax

    def reverse(saved: Any, gradient: Any) -> Any:
        ids, rows = saved
        one_hot = jax.nn.one_hot(ids.reshape(-1), rows)
        return one_hot.T @ gradient.reshape(-1, gradient.shape[-1]), None

    rows: Any = jax.custom_vjp(lambda table, ids: table[ids])
    rows.defvjp(lambda table, ids: (table[ids], (ids, len(table))), reverse)
    return rows(table, ids)


def _recurrent(params: Any, k: int) -> dict[str, Any]:
    names = {name: f"layer{k}.{name}" for name in ("W_hh", "b_hn")}
    return {name: params[full] for name, full in names.items() if full in params}


def _zeros(cell: str, B: int, H: int) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return tuple(jnp.zeros((B, H)) for _ in range(1 + (cell == "lstm")))  # distinct buffers: they are donated


def jax_layer(params: Mapping[str, Array], cell: str, x: Array, unroll: int = 1) -> Callable[[], Any]:
    """One layer forward over x (T, B, D), jitted."""
    import jax
    import jax.numpy as jnp

    layer, (_, B, _), H = scanned(cell, unroll), x.shape, len(params["layer0.W_hh"])

    def forward(weights: Any, x: Any) -> Any:
        xw = x @ weights["layer0.W_xh"] + weights["layer0.b_h"]
        return layer(xw, _recurrent(weights, 0), _zeros(cell, B, H))[0]

    jitted = jax.jit(forward)
    weights, given = {name: jnp.array(value) for name, value in params.items()}, jnp.array(x)
    return lambda: np.asarray(jitted(weights, given))


# ---- training --------------------------------------------------------------------------------------------------------


def jax_step(
    task: TrainingTask,
    start: Weights,
    windows: Windows,
    unroll: int = 1,
    *,
    hand_written: bool = False,
    one_hot: bool = False,
) -> Step:
    """One jitted function for the whole step; its buffers are donated.

    ``hand_written``: the layers' backward pass; ``one_hot``: the gradient of the rows of W_xh is a product.
    """
    import jax
    import jax.numpy as jnp

    layer = (by_hand if hand_written else scanned)(task.cell, unroll)
    rows = look_up if one_hot else operator.getitem  # whose gradient is XLA's scatter

    def loss(params: Any, x: Any, y: Any, states: Any) -> Any:
        after = []
        h: Any = params["embedding"][x] if task.embedding else None
        for k, state in enumerate(states):
            w, b = params[f"layer{k}.W_xh"], params[f"layer{k}.b_h"]
            xw = rows(w + b, x) if h is None else h @ w + b
            h, state = layer(xw, _recurrent(params, k), state)
            after.append(state)
        logits = h @ params["W_hy"] + params["b_y"]
        picked = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - picked).mean(), after

    def update(params: Any, m: Any, v: Any, count: Any, states: Any, x: Any, y: Any) -> Any:
        (value, states), grads = jax.value_and_grad(loss, has_aux=True)(params, x, y, states)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, CLIP / norm), grads)
        count = count + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        rate, root = RATE / (1 - BETA1**count), 1 / jnp.sqrt(1 - BETA2**count)
        params = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) * root + EPS), params, m, v)
        return params, m, v, count, states, value

    jitted = jax.jit(update, donate_argnums=(0, 1, 2, 3, 4))
    params = {name: jnp.array(value) for name, value in start.items()}
    carried = (
        params,
        jax.tree.map(jnp.zeros_like, params),
        jax.tree.map(jnp.zeros_like, params),
        jnp.float32(0),
        [_zeros(task.cell, task.batch, task.hidden) for _ in range(task.layers)],
    )
    source: Iterator[Any] = cycle([(jnp.array(x), jnp.array(y)) for x, y in windows])

    def step() -> float:
        nonlocal carried
        *after, value = jitted(*carried, *next(source))
        carried = tuple(after)
        return float(value)  # waits for the update

    return step
