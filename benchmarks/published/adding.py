# SPDX-License-Identifier: MIT
"""The adding problem, T = 200: two of 200 numbers are marked, what is their sum?

Hochreiter, Schmidhuber 1997; in this form, and T = 200, Le, Jaitly, Hinton 2015. Numbers are uniform in [0, 1]; one
is marked in each half. Always answering 1 has an MSE of 2/12 = 0.1667.

1,200 updates for every cell. The tanh layer is trained twice: from the textbook's initial weights, uniform within
1/sqrt(H), and from orthogonal ones, which preserve the gradient for longer. The decay of the gradient of a sequence's
loss from the last step back to the first is measured before and after training, in float64.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.work import Work

Array = NDArray[Any]
Model = crnn.SequenceRegressor | crnn.SequenceClassifier

STEPS, TRAIN, TEST, EPOCHS, BATCH, HIDDEN = 200, 19_200, 2_000, 2, 32, 64
BASELINE = 2 / 12


@dataclass(frozen=True)
class Contender:
    """One network to train: cell, learning rate, and initialisation of W_hh and W_xh."""

    name: str
    cell: str
    lr: float
    recurrent_init: str = "orthogonal"
    input_init: str = "glorot"

    def options(self) -> dict[str, str]:
        """The arguments of a model."""
        return {"cell": self.cell, "recurrent_init": self.recurrent_init, "input_init": self.input_init}


CONTENDERS = (
    Contender("LSTM", "lstm", 1e-2),
    Contender("GRU", "gru", 1e-2),
    Contender("tanh, textbook weights", "tanh", 1e-3, "uniform"),
    Contender("tanh, orthogonal weights", "tanh", 1e-3),
)


def make(n: int, steps: int, seed: int | list[int]) -> tuple[Array, Array]:
    """Sequences (n, steps, 2) of numbers and marks, and sums (n, 1)."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, steps, 2), np.float32)
    x[:, :, 0] = rng.random((n, steps))
    rows = np.arange(n)
    first, second = rng.integers(0, steps // 2, n), rng.integers(steps // 2, steps, n)
    x[rows, first, 1] = x[rows, second, 1] = 1
    return x, (x[rows, first, 0] + x[rows, second, 0])[:, None]


def run(work: Work) -> Iterator[str]:
    """Train on the adding problem. Yields the lines of the report."""
    return compare(work, CONTENDERS, STEPS, HIDDEN, EPOCHS)


def compare(
    work: Work, contenders: Sequence[Contender], steps: int, hidden_size: int, epochs: int
) -> Iterator[str]:
    """Train several networks on the same sequences, and report their errors. Yields the lines of the report."""
    x, y = make(TRAIN, steps, [work.seed, 0])
    test = make(TEST, steps, [work.seed, 1])
    yield f"{'':26}{'MSE':>9}{'s':>6}   per step back, and |dL/dh_first| / |dL/dh_last|: untrained; trained"
    yield f"{'always 1 (published)':26}{BASELINE:9.4f}"
    found = []
    for who in contenders:
        started = time.perf_counter()
        model = crnn.SequenceRegressor(2, 1, hidden_size=hidden_size, seed=work.seed, **who.options())
        before = flow(model, test)
        work.train(
            who.name,
            model,
            x,
            y,
            valid=None,
            epochs=epochs,
            batch_size=BATCH,
            clip_norm=1.0,
            optimizer=crnn.optim.Adam(lr=who.lr),
            schedule=crnn.optim.cosine(warmup=100),
        )
        mse = model.evaluate(*test).mse
        found.append(f"{who.name} {mse:.4f}")
        seconds = time.perf_counter() - started
        yield f"{who.name:26}{mse:9.4f}{seconds:6.0f}   {before}; {flow(model, test)}"
    work.report(f"MSE: {', '.join(found)}")


def flow(model: Model, data: tuple[Array, Array]) -> str:
    """How the gradient vanishes. In float64, because it may be too small for float32."""
    x, y = data
    found = crnn.gradient_flow(model.astype("float64"), (x[:100], y[:100]))
    return f"{found.rate[0]:.3f}, {found.norms[0, 0] / found.norms[0, -1]:.0e}"
