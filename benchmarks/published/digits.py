# SPDX-License-Identifier: MIT
"""Digits pixel by pixel: 8 x 8 images of scikit-learn, read as sequences of 64 numbers, one after another.

The task of Le, Jaitly, Hinton 2015, who read MNIST's 784 pixels, at the size of these images. Of the 1,797 a network
learns from 1,000, chooses its epoch by 200, and is tested on 597. It decides after the last pixel. The norm of the
gradient per step back, and at the first pixel relative to the last, are measured as for the adding problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.adding import Contender, flow
from benchmarks.published.data import NoData
from benchmarks.published.work import Work

Array = NDArray[Any]

LEARNT, VALID, HIDDEN, EPOCHS = 1_000, 200, 64, 60

CONTENDERS = (
    Contender("IRNN", "relu", 1e-3, "identity"),
    Contender("LSTM", "lstm", 1e-2),
    Contender("GRU", "gru", 1e-2),
    Contender("tanh", "tanh", 1e-3),
)


def images() -> tuple[Array, Array]:
    """Pixels in [0, 1] (N, 64, 1), and the digits (N,). Raises NoData if scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise NoData("needs the package scikit-learn") from None
    found = load_digits()
    return (found.data / 16).astype(np.float32)[:, :, None], found.target


def run(work: Work) -> Iterator[str]:
    """Train several networks on the digits. Yields the lines of the report."""
    x, y = images()
    order = np.random.default_rng(work.seed).permutation(len(x))
    train, valid, test = (
        (x[part], y[part]) for part in np.split(order, [LEARNT, LEARNT + VALID])
    )
    yield f"{'':10}{'validation':>11}{'test':>7}   per step back, and |dL/dh_first| / |dL/dh_last|: untrained; trained"
    reported = []
    for who in CONTENDERS:
        model = crnn.SequenceClassifier(
            1, 10, hidden_size=HIDDEN, pooling="last", seed=work.seed, **who.options()
        )
        before = flow(model, valid)
        work.train(
            who.name,
            model,
            *train,
            valid=valid,
            patience=None,
            epochs=EPOCHS,
            optimizer=crnn.optim.Adam(lr=who.lr),
            seed=work.seed,
        )
        found = [model.evaluate(*part).accuracy for part in (valid, test)]
        reported.append(f"{who.name} {found[1]:.3f}")
        yield f"{who.name:10}{found[0]:11.3f}{found[1]:7.3f}   {before}; {flow(model, valid)}"
    work.report(f"accuracy: {', '.join(reported)}")
