# SPDX-License-Identifier: MIT
"""adding: the adding problem over 200 steps, by LSTM, GRU and tanh RNN; mean squared error.

Each step has a number, uniform in [0, 1), and a flag, which is 1 at two steps, one in each half, and 0 elsewhere. The
target, at the end, is the sum of the two flagged numbers. To answer 1 always costs the variance of that sum, 1/6.
Hochreiter, Schmidhuber 1997; as here: Le, Jaitly, Hinton 2015. Inputs and targets are as they are, not standardised.
The flow of the gradient from the last step to the first says why the tanh RNN does not learn it: nothing of it arrives.
A GRU's fades too before it learns, but its gates can open within the second half, and then reach further.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.report import show

Array = NDArray[Any]

STEPS, TRAIN, HELD_OUT, HIDDEN = 200, 10_000, 2_000, 32
EPOCHS = {"lstm": 8, "gru": 4, "tanh": 8}
BASELINE = 1 / 6
GOALS = {
    "lstm": "below 0.01; learnt by Le et al. 2015",
    "gru": "below 0.01",
    "tanh": f"{BASELINE:.4f}; not learnt by Le et al. 2015",
}


def sequences(rng: np.random.Generator, count: int, steps: int = STEPS) -> tuple[Array, Array]:
    """X (N, T, 2), numbers beside flags, and y (N,)."""
    X = np.zeros((count, steps, 2))
    X[:, :, 0] = rng.random((count, steps))
    half, every = steps // 2, np.arange(count)
    X[every, rng.integers(0, half, count), 1] = 1
    X[every, rng.integers(half, steps, count), 1] = 1
    return X, (X[:, :, 0] * X[:, :, 1]).sum(axis=1)


def run(seed: int) -> None:
    """Train the three, and print."""
    rng = np.random.default_rng(seed)
    X, y = sequences(rng, TRAIN)
    held_X, held_y = sequences(rng, HELD_OUT)
    show("answering 1 always", f"MSE {((held_y - 1) ** 2).mean():.4f}", f"{BASELINE:.4f}, the variance of the sum")
    for cell, epochs in EPOCHS.items():
        model = crnn.SequenceRegressor(2, 1, HIDDEN, cell=cell, forget_bias=3.0, scale=False, seed=seed)
        before = flow(model, held_X, held_y)
        rates = {"optimizer": crnn.optim.Adam(lr=5e-3), "schedule": crnn.optim.cosine()}
        model.fit(X, y, epochs=epochs, batch_size=25, **rates)
        show(f"{cell} {HIDDEN}", f"MSE {model.evaluate(held_X, held_y).mse:.4f}", GOALS[cell])
        show("  dL/dh untrained", before)
        show("  dL/dh trained", flow(model, held_X, held_y))


def flow(model: crnn.SequenceRegressor, X: Array, y: Array) -> str:
    """How the gradient of 100 sequences travels back."""
    found = crnn.gradient_flow(model, (X[:100], y[:100]))
    norms = found.norms[0]
    return f"{found.rate[0]:.3f} a step, first / last {norms[0] / norms[-1]:.1e}"
