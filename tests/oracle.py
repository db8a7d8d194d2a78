# SPDX-License-Identifier: MIT
"""What crnn should compute, in plain float64 NumPy, written from the equations. Slow, and meant to be read.

    T time steps, B batch, D input size, H hidden size, V vocabulary, L layers; row vectors; time-major arrays

    layer      a[t] = x[t] W_xh + h[t-1] W_hh + b_h,   h[t] = act(a[t]),   h[-1] = h0;   its h is the next one's x
    head       y[t] = h[t] W_hy + b_y                  (h of the last layer)
    loss       sum over t, b of  -log softmax(y[t, b])[target[t, b]]

The gradient of the loss by any quantity is written ``d`` + its name and has its shape. Every backward function
takes the gradients of its forward function's results and returns those of its arguments.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# layer0.W_xh (D, H), layer0.W_hh (H, H), layer0.b_h (H,); the same for layer1, ...; W_hy (H, V), b_y (V,)
Params = dict[str, Array]


# ---- one layer ---------------------------------------------------------------------------------------------


def activate(a: Array, activation: str) -> Array:
    return np.tanh(a) if activation == "tanh" else np.maximum(a, 0)


def activation_slope(h: Array, activation: str) -> Array:
    """act'(a), told from h = act(a) alone: tanh' = 1 - tanh^2; the ReLU's is 1 where it is open."""
    return 1 - h * h if activation == "tanh" else (h > 0).astype(np.float64)


def recurrence_forward(xw: Array, h0: Array, W_hh: Array, activation: str) -> Array:
    """h (T, B, H) from xw (T, B, H), the input's share of every pre-activation, and h0 (B, H)."""
    h, h_before = np.empty_like(xw), h0
    for t in range(len(xw)):
        h[t] = activate(xw[t] + h_before @ W_hh, activation)
        h_before = h[t]
    return h


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


@dataclass
class Tape:
    """What the forward pass keeps for the way back."""

    inputs: list[Array]  # of each layer: (T, B, its input size)
    h: list[Array]  # of each layer: (T, B, H)
    h0: Array  # (L, B, H)
    y: Array  # (T, B, V)

    @property
    def state(self) -> Array:
        """The last h of each layer (L, B, H): the h0 of the next window."""
        return np.stack([h[-1] for h in self.h])


def layer_count(params: Params) -> int:
    return sum(name.endswith(".W_hh") for name in params)


def rnn_forward(params: Params, x: NDArray, h0: Array, activation: str = "tanh") -> Tape:
    """Run x over the layers and the head. x is (T, B, D), or ids (T, B), each of them a one-hot row."""
    if np.issubdtype(x.dtype, np.integer):
        x = one_hot(x, len(params["layer0.W_xh"]))
    inputs, hs = [], []
    for layer in range(layer_count(params)):
        W_xh, W_hh, b_h = (params[f"layer{layer}.{name}"] for name in ("W_xh", "W_hh", "b_h"))
        inputs.append(x)
        x = recurrence_forward(x @ W_xh + b_h, h0[layer], W_hh, activation)
        hs.append(x)
    return Tape(inputs, hs, h0, x @ params["W_hy"] + params["b_y"])


def rnn_backward(
    params: Params, tape: Tape, dy: Array, dstate: Array | None = None, activation: str = "tanh"
) -> tuple[Params, Array, Array]:
    """Full backpropagation through time: the gradients of all parameters, dx (T, B, D) and dh0 (L, B, H).

    dy (T, B, V) arrives at the outputs; dstate (L, B, H), if given, at the last h of each layer.
    """
    grads = {"W_hy": np.einsum("tbh,tbv->hv", tape.h[-1], dy), "b_y": dy.sum(axis=(0, 1))}
    dh = dy @ params["W_hy"].T
    dh0 = np.empty_like(tape.h0)
    for layer in reversed(range(len(tape.h))):
        name, h = f"layer{layer}", tape.h[layer]
        if dstate is not None:
            dh = dh.copy()
            dh[-1] += dstate[layer]
        da, dh0[layer] = recurrence_backward(dh, h, params[f"{name}.W_hh"], activation)
        h_before = np.concatenate([tape.h0[layer][None], h[:-1]])  # h[t-1] beside a[t]
        grads[f"{name}.W_xh"] = np.einsum("tbd,tbh->dh", tape.inputs[layer], da)
        grads[f"{name}.W_hh"] = np.einsum("tbk,tbh->kh", h_before, da)
        grads[f"{name}.b_h"] = da.sum(axis=(0, 1))
        dh = da @ params[f"{name}.W_xh"].T  # arrives at the layer below; below the first it is dx
    return grads, dh, dh0


# ---- update rules: from w, its state and the gradient g to the new w and state -----------------------------


def sgd(
    w: Array,
    velocity: Array,
    g: Array,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Array, Array]:
    """The velocity is a fading sum of gradients; Nesterov's form looks one step further along it."""
    g = g + weight_decay * w
    velocity = momentum * velocity + g
    return w - lr * (g + momentum * velocity if nesterov else velocity), velocity


def adagrad(
    w: Array, square_sum: Array, g: Array, *, lr: float, eps: float = 1e-10, weight_decay: float = 0.0
) -> tuple[Array, Array]:
    """Each weight's rate falls with the size of all its gradients so far."""
    g = g + weight_decay * w
    square_sum = square_sum + g**2
    return w - lr * g / (np.sqrt(square_sum) + eps), square_sum


def rmsprop(
    w: Array,
    square_avg: Array,
    velocity: Array,
    g: Array,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Adagrad that forgets: an average of recent squares in place of the sum of all."""
    g = g + weight_decay * w
    square_avg = alpha * square_avg + (1 - alpha) * g**2
    velocity = momentum * velocity + g / (np.sqrt(square_avg) + eps)
    return w - lr * velocity, square_avg, velocity


def adam(
    w: Array,
    m: Array,
    v: Array,
    g: Array,
    *,
    t: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Array, Array, Array]:
    """Update number t = 1, 2, ... by averages of g and g^2, freed of their bias towards zero, their start.

    Decoupled weight decay (AdamW) shrinks w by itself and leaves the averages alone.
    """
    if decoupled:
        w = w - lr * weight_decay * w
    else:
        g = g + weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


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
