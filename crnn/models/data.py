# SPDX-License-Identifier: MIT
"""Whole sequences: checked, scaled, and put together in batches of like lengths. Knows no model.

Sequences are real (T_i, D), or ids (T_i,), given as a list of arrays or, where all are equally long, as one array
(N, T, D) or (N, T).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn._core import loss as kernels
from crnn.checks import check_positive

Array = NDArray[Any]

SORTED_BATCHES = 32  # so many batches' sequences are sorted by length at a time: little padding, still shuffled


@dataclass(frozen=True)
class Batch:
    """Sequences side by side, time-major: x (T, B, D) real or (T, B) ids, padded with zeros."""

    x: Array
    lengths: Array | None  # (B,); None: all T


def check_sequences(name: str, X: Any, input_size: int, *, ids: bool, real: bool = False) -> list[Array]:
    """The sequences as arrays, real (T_i, D) or ids (T_i,). ``ids``, ``real``: only these will do."""
    if isinstance(X, str | bytes) or not isinstance(X, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list of arrays, or an array (N, T, D), got {type(X).__name__}")
    if isinstance(X, np.ndarray) and X.ndim not in (2, 3):
        raise ValueError(f"{name}: expected shape (N, T, {input_size}), or ids (N, T), got {X.shape}")
    if len(X) == 0:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    named = [(f"{name}[{i}]", x) for i, x in enumerate(X)]
    return [_check_sequence(each, array_of(each, x), input_size, ids, real) for each, x in named]


def array_of(name: str, value: Any, dtype: Any = None) -> Array:
    """NumPy's array of a value, or an error that calls it ``name``."""
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError):  # ragged, or no numbers
        raise ValueError(f"{name}: expected numbers in an array, got {value!r:.100}") from None


def check_entries(name: str, y: Any, n: int) -> None:
    """Raise unless y has an entry for each of n sequences."""
    if isinstance(y, str | bytes | Mapping | Set) or not (hasattr(y, "__len__") and hasattr(y, "__getitem__")):
        raise TypeError(f"{name}: expected a list or an array of targets, got {type(y).__name__}")
    if len(y) != n:
        raise ValueError(f"{name}: expected one entry for each of {n} sequences, got {len(y)}")


def _check_sequence(name: str, x: Array, input_size: int, ids: bool, real: bool) -> Array:
    if not real and x.dtype.kind in "iu" and x.ndim == 1 and (ids or input_size > 1):  # one id would say nothing
        if x.size == 0 or x.min() < 0 or x.max() >= input_size:
            got = f"{x.min()} to {x.max()}" if x.size else "none"
            raise ValueError(f"{name}: expected ids from 0 to {input_size - 1}, got {got}")
        return x.astype(np.int32)
    if ids:
        raise TypeError(f"{name}: expected integer ids (T,), got {x.dtype} of shape {x.shape}")
    if x.ndim == 1 and input_size == 1:
        x = x[:, None]
    if x.dtype.kind not in "fiub" or x.ndim != 2 or x.shape[1] != input_size or len(x) == 0:
        raise ValueError(f"{name}: expected numbers of shape (T, {input_size}), got {x.dtype} of shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return x


class Standardizer:
    """(x - mean) / deviation for each of D columns; sums in a fixed order, so the same everywhere.

    A column that never changes is only shifted.
    """

    def __init__(self, size: int) -> None:
        self.mean, self.std = np.zeros(size), np.ones(size)

    def learn(self, name: str, arrays: Sequence[Array]) -> None:
        """Take mean and deviation from arrays (T_i, D); NaN counts for nothing. An error calls them ``name``."""
        size = len(self.mean)
        sums, counts, squares = np.zeros(size), np.zeros(size), np.zeros(size)
        lowest, highest = np.full(size, np.nan), np.full(size, np.nan)
        rows = [np.ascontiguousarray(array, np.float64) for array in arrays]
        for array in rows:
            kernels.column_sums(sums, counts, array)
            lowest, highest = np.fmin(lowest, np.fmin.reduce(array)), np.fmax(highest, np.fmax.reduce(array))
        # A sum of equal numbers is rounded: their mean need not be one of them, nor their deviation from it zero.
        constant = lowest == highest
        mean = np.where(constant, lowest, sums / np.maximum(counts, 1))
        for array in rows:
            kernels.column_squares(squares, array, mean)
        deviation = np.sqrt(squares / np.maximum(counts, 1))
        if not np.isfinite(deviation).all():
            largest = np.fmax.reduce(np.fmax(-lowest, highest))
            raise ValueError(f"{name}: expected numbers whose squares have a sum, got some as large as {largest:g}")
        self.mean, self.std = mean, np.where(deviation > 0, deviation, 1.0)

    def apply(self, array: Array, dtype: str) -> Array:
        scaled: Array = ((array - self.mean) / self.std).astype(dtype)
        return scaled

    def undo(self, array: Array) -> Array:
        """From scaled values to the original ones, in float64."""
        return array.astype(np.float64) * self.std + self.mean


class SequenceData:
    """Sequences ready for a model, and their targets.

    Parameters
    ----------
    x : list of arrays
        Real (T_i, D) in the model's precision, or int32 ids (T_i,).
    targets : list of arrays
        One a sequence: of each step, (T_i, ...), or with ``single`` of the whole, (1, ...).
    padding
        What a target is where there is none.
    """

    def __init__(self, x: list[Array], targets: list[Array], *, single: bool, padding: float) -> None:
        self.x, self.targets, self.single, self.padding = x, targets, single, padding
        self.lengths = np.array([len(sequence) for sequence in x])

    def __len__(self) -> int:
        return len(self.x)

    def part(self, chosen: Sequence[int] | Array) -> SequenceData:
        """Some of the sequences."""
        x, targets = [self.x[i] for i in chosen], [self.targets[i] for i in chosen]
        return SequenceData(x, targets, single=self.single, padding=self.padding)

    def batch(self, chosen: Array) -> tuple[Batch, Array]:
        """Sequences side by side, and their targets (T, B, ...), or (1, B, ...)."""
        together = side_by_side([self.x[i] for i in chosen], 0)
        targets = side_by_side([self.targets[i] for i in chosen], self.padding)
        lengths = self.lengths[chosen]
        return Batch(together, None if (lengths == lengths[0]).all() else lengths.astype(np.int32)), targets


def side_by_side(arrays: Sequence[Array], padding: float) -> Array:
    """Arrays (T_i, ...) as one (T, B, ...)."""
    longest = max(len(array) for array in arrays)
    together = np.full((longest, len(arrays), *arrays[0].shape[1:]), padding, arrays[0].dtype)
    for b, array in enumerate(arrays):
        together[: len(array), b] = array
    return together


class SequenceBatches:
    """An epoch's batches, shuffled by ``seed`` and the epoch's number; sequences of like lengths go together."""

    carries_state = False  # for `fit`

    def __init__(self, data: SequenceData, batch_size: int, seed: int) -> None:
        check_positive("batch_size", batch_size)
        self.data, self.batch_size, self.seed = data, min(batch_size, len(data)), seed

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Batch, Array]]:
        """The batches of epoch 1, 2, ...: the same each time."""
        draws = np.random.PCG64([self.seed, number])
        order = shuffled(draws, len(self.data))
        span = self.batch_size * SORTED_BATCHES
        batches = []
        for first in range(0, len(order), span):
            block = order[first : first + span]
            if len(set(self.data.lengths[block].tolist())) > 1:
                block = block[np.argsort(self.data.lengths[block], kind="stable")]
            batches += [block[b : b + self.batch_size] for b in range(0, len(block), self.batch_size)]
        for index in shuffled(draws, len(batches)):
            yield self.data.batch(batches[index])


def shuffled(draws: np.random.PCG64, n: int) -> Array:
    """0 .. n-1 in an order that draws of 64 bits decide: the same in every version of NumPy."""
    return np.argsort(draws.random_raw(n), kind="stable")


def by_length(data: SequenceData, batch_size: int) -> Iterator[tuple[Array, Batch, Array]]:
    """All sequences once, longest first, so that batches hold like lengths: which they are, x and targets."""
    order = np.argsort(-data.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        yield chosen, *data.batch(chosen)
