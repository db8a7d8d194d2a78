# SPDX-License-Identifier: MIT
"""What crnn should compute, in plain float64 NumPy, written from the equations. Slow, and meant to be read.

    T time steps, B batch, D input size, H hidden size, V vocabulary, L layers; row vectors; time-major arrays

    layer      h[t], c[t] from x[t], h[t-1], c[t-1] by its cell: see `oracle_cells`; its h is the next one's x
    dense      a layer's x is h of all layers below it side by side, and so is what the head reads
    reverse    the same over every row from its last step to its first; h concatenated to the forward direction's
    head       y[t] = h[t] W_hy + b_y                  (h of the last layer)
    loss       sum over t, b of  -log softmax(y[t, b])[target[t, b]]

The gradient of the loss by any quantity is written ``d`` + its name and has its shape. Every backward function
takes the gradients of its forward function's results and returns those of its arguments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from oracle_cells import (
    GATES,
    WITH_C,
    Array,
    Params,
    Recurrence,
    State,
    activation_slope,
    cell_backward,
    cell_forward,
    concatenated,
    steps_there,
    turned_round,
)
from oracle_optim import adagrad

# ---- a tanh or ReLU layer as its kernels have it: backwards from h alone ---------------------------------------


def recurrence_forward(xw: Array, h0: Array, W_hh: Array, activation: str) -> Array:
    """h (T, B, H) from xw (T, B, H), the input's share of every pre-activation, and h0 (B, H)."""
    return cell_forward(activation, xw, (h0,), {"W_hh": W_hh}).h


def recurrence_backward(dh: Array, h: Array, W_hh: Array, activation: str) -> tuple[Array, Array]:
    """da (T, B, H), the gradient at the pre-activations, and dh0 (B, H).

    h[t] acts twice: on what comes above it, which sends dh[t] back, and through W_hh on a[t+1].
    """
    da, from_later = np.empty_like(h), np.zeros_like(h[0])
    for t in reversed(range(len(h))):
        da[t] = (dh[t] + from_later) * activation_slope(h[t], activation)
        from_later = da[t] @ W_hh.T
    return da, from_later


# ---- loss --------------------------------------------------------------------------------------------------


def softmax(y: Array) -> Array:
    """Along the last axis. Subtracting the largest changes nothing but keeps exp from overflowing."""
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_hot(ids: NDArray[np.integer], size: int) -> Array:
    return np.eye(size)[ids]


def cross_entropy(y: Array, targets: NDArray[np.integer], ignore: int | None = None) -> tuple[Array, Array]:
    """The loss of each target in nats, and dy for their sum. Targets equal to ``ignore`` count for nothing."""
    counted = targets != ignore
    safe = np.where(counted, targets, 0)
    largest = y.max(axis=-1)
    log_sum = largest + np.log(np.exp(y - largest[..., None]).sum(axis=-1))
    losses = log_sum - np.take_along_axis(y, safe[..., None], axis=-1)[..., 0]
    dy = softmax(y) - one_hot(safe, y.shape[-1])
    return np.where(counted, losses, 0), np.where(counted[..., None], dy, 0)


# ---- the whole network -------------------------------------------------------------------------------------

# L * directions entries, layer * directions + direction: an array (L * directions, B, H), or a list of arrays
# (B, H of that layer) where sizes differ. An LSTM has a pair of them, (h, c).
States = Any


@dataclass
class Tape:
    """What the forward pass keeps for the way back."""

    inputs: list[Array]  # of each layer: (T, B, its input size)
    runs: list[Recurrence]  # of each layer and direction; the reverse ones see time turned round
    h: list[Array]  # of each layer: (T, B, H * directions)
    top: Array  # the last of them, dropped out, as the head sees it
    y: Array  # (T, B, V); without a head ``top``
    there: NDArray[np.bool_]  # (T, B, 1)
    ids: NDArray[np.integer] | None
    lengths: ArrayLike | None
    dropout: list[Array | float]  # of each layer
    dense: bool
    learned: bool  # whether the first state was h0 and c0 of the parameters

    @property
    def state(self) -> States:
        """After the last step of each row, the reverse direction's after the first: how the next window starts."""
        return packed_states([run.state for run in self.runs])


def packed_states(states: list[State]) -> States:
    """From one tuple for each layer and direction to the form that callers see."""
    parts = [
        np.stack(part) if len({entry.shape for entry in part}) == 1 else list(part)
        for part in zip(*states, strict=True)
    ]
    return parts[0] if len(parts) == 1 else tuple(parts)


def unpacked_states(states: States, cell: str) -> list[State]:
    parts = states if cell in WITH_C else [states]
    return [tuple(np.float64(part) for part in state) for state in zip(*parts, strict=True)]


def stack(params: Params) -> list[str]:
    """The names' prefixes of each layer and direction, in the order of the states."""
    layers = sum(name.startswith("layer") and name.endswith(".b_h") and "reverse" not in name for name in params)
    directions = ("", "reverse.") if "layer0.reverse.b_h" in params else ("",)
    return [f"layer{layer}.{direction}" for layer in range(layers) for direction in directions]


def recurrent_weights(params: Params, prefix: str) -> Params:
    """All of a layer that its steps use."""
    names = [name.removeprefix(prefix) for name in params if name.startswith(prefix)]
    apart = ("W_xh", "b_h", "h0", "c0")
    return {name: params[prefix + name] for name in names if "." not in name and name not in apart}


def first_states(params: Params, cell: str, B: int) -> tuple[list[State], bool]:
    """The parameters' learned ones, or zeros."""
    prefixes, parts = stack(params), ("h0", "c0") if cell in WITH_C else ("h0",)
    learned = f"{prefixes[0]}h0" in params
    zeros = {prefix: np.zeros(len(params[f"{prefix}b_h"]) // GATES[cell]) for prefix in prefixes}
    return [
        tuple(np.tile(params[prefix + part] if learned else zeros[prefix], (B, 1)) for part in parts)
        for prefix in prefixes
    ], learned


def rnn_forward(
    params: Params,
    x: NDArray,
    state: States | None = None,
    cell: str = "tanh",
    *,
    lengths: ArrayLike | None = None,
    dropout: Sequence[Array | None] | None = None,
    recurrent_dropout: Sequence[Array | None] | None = None,
    dense: bool = False,
) -> Tape:
    """Run x over the layers and the head. x is (T, B, D), or ids (T, B), each of them a one-hot row.

    The names in ``params`` tell the rest: layers and their sizes, two directions or one, the GRU's form, whether
    there are an embedding, a head, and first states to use where ``state`` is not given.

    ``dropout`` has a mask for each layer, (T, B, H * directions) or anything that broadcasts to it, for its output
    on the way to the next layer or, for the last, to the head, which may be left out; in a dense network for the
    outputs of all layers so far. ``recurrent_dropout`` has one, (B, H), for each layer and direction. A mask already
    contains the factor 1 / (1 - rate).

    What stands in x at padded steps does not matter. The head is applied there too, to an h of 0.
    """
    T, B = x.shape[:2]
    there, ids, prefixes = steps_there(T, B, lengths), None, stack(params)
    if np.issubdtype(x.dtype, np.integer):
        ids = np.where(there[..., 0], x, 0)
        x = params["embedding"][ids] if "embedding" in params else one_hot(ids, len(params["layer0.W_xh"]))
    x = np.where(there, np.float64(x), 0)
    learned = False
    if state is None:
        starts, learned = first_states(params, cell, B)
    else:
        starts = unpacked_states(state, cell)
    directions = 2 if "layer0.reverse.b_h" in params else 1
    layers = len(prefixes) // directions
    masks = [1.0 if mask is None else mask for mask in [*(dropout or []), *[None] * layers][:layers]]
    inputs, runs, hs, read = [], [], [], None
    for layer in range(layers):
        inputs.append(x)
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            prefix = prefixes[number]
            source = turned_round(x, lengths) if direction else x
            run = cell_forward(
                cell,
                source @ params[f"{prefix}W_xh"] + params[f"{prefix}b_h"],
                starts[number],
                recurrent_weights(params, prefix),
                lengths=lengths,
                mask=recurrent_dropout[number] if recurrent_dropout else None,
            )
            runs.append(run)
            outputs.append(turned_round(run.h, lengths) if direction else run.h)
        hs.append(concatenated(*outputs))
        read = concatenated(read, hs[-1]) if dense and layer else hs[-1]
        x = read * masks[layer]
    y = x @ params["W_hy"] + params["b_y"] if "W_hy" in params else x
    return Tape(inputs, runs, hs, x, y, there, ids, lengths, masks, dense, learned)


def rnn_backward(params: Params, tape: Tape, dy: Array, dstate: States | None = None) -> tuple[Params, Array, States]:
    """Full backpropagation through time: gradients of all parameters, dx (T, B, D), dstate before the first step.

    dy arrives at the outputs y; dstate, if given, at ``tape.state``. Without a head what dy holds at padded steps
    is lost. For ids dx is the gradient at their one-hot rows or embeddings.
    """
    grads = {name: np.zeros_like(value) for name, value in params.items()}
    if "W_hy" in params:
        grads["W_hy"] = np.einsum("tbh,tbv->hv", tape.top, dy)
        grads["b_y"] = dy.sum(axis=(0, 1))
        dy = dy @ params["W_hy"].T
    cell, prefixes = tape.runs[0].cell, stack(params)
    directions = len(tape.runs) // len(tape.h)
    arriving = [None] * len(tape.runs) if dstate is None else unpacked_states(dstate, cell)
    dstarts: list[State] = [()] * len(tape.runs)
    dx, further_above = np.float64(dy), 0.0
    for layer in reversed(range(len(tape.h))):
        x = tape.inputs[layer]
        dread = np.where(tape.there, dx * tape.dropout[layer], 0) + further_above
        own = tape.h[layer].shape[-1]
        further_above = dread[..., :-own] if tape.dense else 0.0  # at the outputs of the layers below this one
        dh = np.split(dread[..., -own:], directions, axis=-1)
        dx = np.zeros_like(x)
        for direction in range(directions):
            number = layer * directions + direction
            prefix, run = prefixes[number], tape.runs[number]
            turn = partial(turned_round, lengths=tape.lengths) if direction else np.asarray
            dxw, dstarts[number], of_weights = cell_backward(run, turn(dh[direction]), arriving[number])
            grads |= {prefix + name: grad for name, grad in of_weights.items()}
            dxw = turn(dxw)
            grads[f"{prefix}W_xh"] = np.einsum("tbd,tbg->dg", x, dxw)  # forward: xw = x W_xh + b_h
            grads[f"{prefix}b_h"] = dxw.sum(axis=(0, 1))
            dx = dx + dxw @ params[f"{prefix}W_xh"].T
            if tape.learned:
                for part, dstart in zip(("h0", "c0"), dstarts[number], strict=False):
                    grads[prefix + part] = dstart.sum(axis=0)
    if "embedding" in params:  # forward: x = embedding[ids]
        np.add.at(grads["embedding"], tape.ids, dx)
    return grads, dx, packed_states(dstarts)


# ---- the tutorial's character RNN --------------------------------------------------------------------------


def char_rnn_params(V: int, H: int = 100, seed: int = 0) -> Params:
    """The tutorial's start: small normal weights, biases of zero."""
    rng = np.random.default_rng(seed)
    shapes = {"layer0.W_xh": (V, H), "layer0.W_hh": (H, H), "W_hy": (H, V)}
    params = {name: 0.01 * rng.standard_normal(shape) for name, shape in shapes.items()}
    return params | {"layer0.b_h": np.zeros(H), "b_y": np.zeros(V)}


def train_char_rnn(
    params: Params, ids: NDArray[np.integer], updates: int, T: int = 25, lr: float = 0.1, clip: float = 5.0
) -> Iterator[float]:
    """Train ``params`` in place as min-char-rnn does, one window after the other; yields each window's loss.

    One tanh layer, batch of one. The loss is the sum over the window. The state is carried from window to window
    and is zero again when the text starts over. Gradients stop at the window's edge, are clipped by value, and go
    into Adagrad. The tutorial divides by sqrt(sum of squares + 1e-8): a sum that starts at 1e-8, and eps = 0.
    """
    square_sum = {name: np.full_like(value, 1e-8) for name, value in params.items()}
    fresh = np.zeros((1, 1, len(params["layer0.W_hh"])))
    start, state = 0, fresh
    for _ in range(updates):
        if start + T + 1 >= len(ids):
            start, state = 0, fresh
        window = ids[start : start + T + 1]
        tape = rnn_forward(params, window[:-1, None], state)
        losses, dy = cross_entropy(tape.y, window[1:, None])
        grads, _, _ = rnn_backward(params, tape, dy)
        for name, g in grads.items():
            params[name], square_sum[name] = adagrad(
                params[name], square_sum[name], np.clip(g, -clip, clip), lr=lr, eps=0
            )
        start, state = start + T, tape.state
        yield float(losses.sum())
