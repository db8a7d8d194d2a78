# SPDX-License-Identifier: MIT
"""adding: the adding problem over 200 steps, by LSTM, GRU and tanh RNN; mean squared error.

Each step has a number, uniform in [0, 1), and a flag, which is 1 at two steps, one in each half, and 0 elsewhere. The
target, at the end, is the sum of the two flagged numbers. To answer 1 always costs the variance of that sum, 1/6.
Hochreiter, Schmidhuber 1997; as here: Le, Jaitly, Hinton 2015. The flow of the gradient, from the last step to the
first, of each network before it learns says why the tanh RNN does not: what is left of it is too little to learn from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.report import show

Array = NDArray[Any]

STEPS, TRAIN, HELD_OUT, HIDDEN = 200, 10_000, 2_000, 32
EPOCHS = {"lstm": 12, "gru": 8, "tanh": 4}
BASELINE = 1 / 6


def sequences(rng: np.random.Generator, count: int, steps: int = STEPS) -> tuple[Array, Array]:
    """X (N, T, 2), numbers beside flags, and y (N,)."""
    X = np.zeros((count, steps, 2))
    X[:, :, 0] = rng.random((count, steps))
    half, every = steps // 2, np.arange(count)
    X[every, rng.integers(0, half, count), 1] = 1
    X[every, rng.integers(half, steps, count), 1] = 1
    return X, (X[:, :, 0] * X[:, :, 1]).sum(axis=1)
