# SPDX-License-Identifier: MIT
"""The oracle's update rules: from w, its state and the gradient g to the new w and state."""

import numpy as np
from oracle_cells import Array


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


def pull(w: Array, anchor: Array, factors: Array, strength: float) -> Array:
    """Back towards the anchor by a part of the way for each weight, never beyond it."""
    return w + np.minimum(1, strength * factors) * (anchor - w)
