# SPDX-License-Identifier: MIT
"""copy: ten symbols kept over 50 steps, then written; cross-entropy of a step.

The input is 10 symbols of an alphabet of 8, then 50 blanks of which the last is a marker, then 10 blanks; the target is
blank until the symbols must be written, in their order. Without a memory the best answer is blank for sure, then each
symbol with 1/8: 10 log(8) / (T + 20) nats a step. Hochreiter, Schmidhuber 1997; in this form and with this baseline:
Arjovsky, Shah, Bengio 2016.
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
