# SPDX-License-Identifier: MIT
"""Copy memory, T = 50: ten symbols, fifty blanks, a mark; then the ten symbols must be written down.

Hochreiter, Schmidhuber 1997; in this form Arjovsky, Shah, Bengio 2016: 8 symbols, a blank, a mark; T + 20 steps in all,
each with a target: the blank, except for the last ten. A model without memory answers blanks, then
guesses: 10 log(8) / (T + 20) nats per step.

The LSTM's forget gate starts at a bias of 4, which is log(T): it then remembers for about T steps (Tallec, Ollivier
2018).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.work import Work

Array = NDArray[Any]

BLANKS, LENGTH, SYMBOLS = 50, 10, 8
BLANK, MARK = 0, SYMBOLS + 1
TRAIN, TEST, EPOCHS, BATCH, HIDDEN = 30_000, 2_000, 4, 32, 128
BASELINE = LENGTH * math.log(SYMBOLS) / (BLANKS + 2 * LENGTH)


def make(n: int, blanks: int, seed: int | list[int]) -> tuple[Array, Array]:
    """Ids (n, blanks + 20), and a target for each of them."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(1, SYMBOLS + 1, (n, LENGTH))
    x = np.full((n, blanks + 2 * LENGTH), BLANK)
    y = x.copy()
    x[:, :LENGTH] = y[:, -LENGTH:] = symbols
    x[:, -LENGTH - 1] = MARK
    return x, y


def run(work: Work) -> Iterator[str]:
    """Train on the copy memory task. Yields the lines of the report."""
    x, y = make(TRAIN, BLANKS, [work.seed, 0])
    test_x, test_y = make(TEST, BLANKS, [work.seed, 1])
    yield f"{'':26}{'nats':>9}{'symbols right':>15}{'s':>6}"
    yield f"{'no memory (published)':26}{BASELINE:9.4f}{1 / SYMBOLS:15.1%}"
    reported = []
    for name, options in (("GRU", {"cell": "gru"}), ("LSTM", {"cell": "lstm", "forget_bias": 4.0})):
        started = time.perf_counter()
        model = crnn.SequenceTagger(MARK + 1, SYMBOLS + 1, hidden_size=HIDDEN, seed=work.seed, **options)
        work.train(
            name,
            model,
            x,
            y,
            valid=None,
            epochs=EPOCHS,
            batch_size=BATCH,
            clip_norm=1.0,
            optimizer=crnn.optim.Adam(lr=1e-2),
            schedule=crnn.optim.cosine(warmup=100),
        )
        nats = model.evaluate(test_x, test_y).nats
        right = (model.predict(test_x) == test_y)[:, -LENGTH:].mean()
        reported.append(f"{name} {nats:.3f}, {right:.0%}")
        yield f"{name:26}{nats:9.4f}{right:15.1%}{time.perf_counter() - started:6.0f}"
    work.report(f"nats a step, symbols correct: {'; '.join(reported)}")
