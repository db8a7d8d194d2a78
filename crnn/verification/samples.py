# SPDX-License-Identifier: MIT
"""Data made of PCG64's integers by exact arithmetic: the same in every version of NumPy and on every machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.text.corpus import TextCorpus
from crnn.text.reading import Unit

ALPHABET = "etaoin shr\n"


def integers(limit: int, *shape: int, seed: int) -> NDArray[np.int64]:
    """Integers from 0 to ``limit`` - 1."""
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    return (raw % np.uint64(limit)).astype(np.int64).reshape(shape)


def numbers(*shape: int, seed: int, dtype: str = "float64") -> NDArray[Any]:
    """Multiples of 2^-23 in [-1, 1)."""
    return ((integers(1 << 24, *shape, seed=seed) - (1 << 23)) * 2.0**-23).astype(dtype)


def text(length: int, seed: int) -> str:
    """Characters of which each depends on the one before it."""
    ids = [0]
    for drawn in integers(3, length - 1, seed=seed).tolist():
        ids.append((3 * ids[-1] + 1 + drawn) % len(ALPHABET))
    return "".join(ALPHABET[i] for i in ids)


def corpus(length: int, seed: int, unit: Unit = "char") -> TextCorpus:
    """A text in two parts, for training and validation."""
    return TextCorpus.from_text(ALPHABET + text(length, seed), unit=unit, valid=0.125, test=0.0)


def lengths(count: int) -> list[int]:
    """Different lengths of sequences, from 3 to 11."""
    return [3 + i * 5 % 9 for i in range(count)]
