# SPDX-License-Identifier: MIT
"""copy: ten symbols kept over 50 steps, then written; cross-entropy of a step.

The input is 10 symbols of an alphabet of 8, then 50 blanks of which the last is a marker, then 10 blanks; the target is
blank until the symbols must be written, in their order. Without a memory the best answer is blank for sure, then each
symbol with 1/8: 10 log(8) / (T + 20) nats a step. Hochreiter, Schmidhuber 1997; in this form and with this baseline:
Arjovsky, Shah, Bengio 2016. The gates' biases start as Tallec, Ollivier 2018 propose for such delays; from zero biases
the same training is still near the baseline.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.report import show

Array = NDArray[Any]

DELAY, SYMBOLS, ALPHABET = 50, 10, 8
TRAIN, HELD_OUT, HIDDEN, EPOCHS = 20_000, 2_000, 64, 15
BLANK, MARKER = ALPHABET, ALPHABET + 1
BASELINE = SYMBOLS * math.log(ALPHABET) / (DELAY + 2 * SYMBOLS)


def sequences(rng: np.random.Generator, count: int, delay: int = DELAY) -> tuple[Array, Array]:
    """Ids X and classes y, both (N, delay + 20)."""
    symbols = rng.integers(0, ALPHABET, (count, SYMBOLS))
    X = np.full((count, delay + 2 * SYMBOLS), BLANK)
    X[:, :SYMBOLS] = symbols
    X[:, -SYMBOLS - 1] = MARKER
    y = np.full_like(X, BLANK)
    y[:, -SYMBOLS:] = symbols
    return X, y


def run(seed: int) -> None:
    """Train, and print."""
    rng = np.random.default_rng(seed)
    X, y = sequences(rng, TRAIN)
    held_X, held_y = sequences(rng, HELD_OUT)
    model = crnn.SequenceTagger(ALPHABET + 2, ALPHABET + 1, HIDDEN, cell="gru", seed=seed)
    set_memories(model, rng)
    rates = {"optimizer": crnn.optim.Adam(lr=1e-2), "schedule": crnn.optim.cosine()}
    model.fit(X, y, epochs=EPOCHS, batch_size=20, **rates)
    found = model.predict(held_X)[:, -SYMBOLS:] == held_y[:, -SYMBOLS:]
    nats = model.evaluate(held_X, held_y).nats
    show(f"GRU {HIDDEN}, a step", f"{nats:.4f} nats", f"{BASELINE:.4f}: no memory, 10 log(8) / (T + 20)")
    show("symbols, all ten", f"{found.mean():.2%}, {found.all(axis=1).mean():.2%}", f"{1 / ALPHABET:.1%}: no memory")


def set_memories(model: crnn.SequenceTagger, rng: np.random.Generator) -> None:
    """Let units forget after 1 to T + 20 steps: biases of what is kept at log u. Tallec, Ollivier 2018."""
    keep = slice(HIDDEN, 2 * HIDDEN)  # of the gates r, z, n
    model.params["layer0.b_h"][keep] = np.log(rng.uniform(1, DELAY + 2 * SYMBOLS - 1, HIDDEN))
