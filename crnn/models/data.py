# SPDX-License-Identifier: MIT
"""Whole sequences: checks, and batches of sequences of similar lengths. Knows no model.

Sequences are real (T_i, D) or ids (T_i,). They are given as a list of arrays or, if all have the same length, as one
array (N, T, D) or (N, T).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array, check_positive
from crnn.text.errors import VocabError
from crnn.text.vocab import Vocab

SORTED_BATCHES = 32  # sequences of so many batches at a time are sorted by length: little padding, still shuffled


@dataclass(frozen=True)
class Batch:
    """A batch of sequences, time-major."""

    x: Array  # (T, B, D) real, or ids (T, B); padded with zeros
    lengths: Array | None  # int32 (B,); None: all T


def check_sequences(name: str, X: Any, input_size: int, *, ids: bool, real: bool = False) -> list[Array]:
    """The sequences X as arrays, real (T_i, D) or int32 ids (T_i,); real ones are borrowed if possible.

    Parameters
    ----------
    name : str
        What errors call X.
    X : list of arrays, or array
    input_size : int
        D, or the number of ids.
    ids, real : bool
        Accept only ids, or only real sequences.

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(X, str | bytes) or not isinstance(X, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list of arrays, or an array (N, T, D), got {type(X).__name__}")
    if isinstance(X, np.ndarray) and X.ndim not in (2, 3):
        raise ValueError(f"{name}: expected shape (N, T, {input_size}), or ids (N, T), got {X.shape}")
    if len(X) == 0:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    named = [(f"{name}[{i}]", x) for i, x in enumerate(X)]
    return [_check_sequence(each, array_of(each, x), input_size, ids, real) for each, x in named]


def array_of(name: str, value: Any, dtype: Any = None) -> Array:
    """``value`` as a NumPy array. Raises ValueError, which calls it ``name``."""
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError):  # ragged, or not numbers
        raise ValueError(f"{name}: expected numbers in an array, got {value!r:.100}") from None


def check_entries(name: str, y: Any, n: int) -> None:
    """Raise TypeError or ValueError unless y is a list or array with one entry for each of n sequences."""
    if isinstance(y, str | bytes | Mapping | Set) or not (hasattr(y, "__len__") and hasattr(y, "__getitem__")):
        raise TypeError(f"{name}: expected a list or an array of targets, got {type(y).__name__}")
    if len(y) != n:
        raise ValueError(f"{name}: expected one entry for each of {n} sequences, got {len(y)}")


def _check_sequence(name: str, x: Array, input_size: int, ids: bool, real: bool) -> Array:
    """One sequence, see `check_sequences`."""
    if not real and x.dtype.kind in "iu" and x.ndim == 1 and (ids or input_size > 1):  # one id carries no information
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


def encode_texts(name: str, texts: Any, vocab: Vocab) -> list[Array]:
    """Ids (T_i,) of each text. Raises TypeError, ValueError and VocabError, which name the text's index."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list of strings, got {type(texts).__name__}")
    if not len(texts):
        raise ValueError(f"{name}: expected at least one string, got none")
    encoded: list[Array] = []
    for i, text in enumerate(texts):
        try:
            encoded.append(vocab.encode(text))
        except (TypeError, VocabError) as error:
            raise type(error)(f"{name}[{i}]{str(error).removeprefix('text')}") from None
    return encoded


class SequenceData:
    """Checked and standardised sequences of a model, and their targets. Borrows the arrays.

    Parameters
    ----------
    x : list of arrays
        Real (T_i, D) in the model's precision, or int32 ids (T_i,).
    targets : list of arrays
        One per sequence: (T_i, ...), or with ``single`` (1, ...).
    single : bool
        One target per sequence instead of one per step.
    padding : float
        Value of a missing target.

    Attributes
    ----------
    lengths : int array (N,)
        T_i.
    """

    x: list[Array]
    targets: list[Array]
    single: bool
    padding: float
    lengths: Array

    def __init__(self, x: list[Array], targets: list[Array], *, single: bool, padding: float) -> None:
        self.x, self.targets, self.single, self.padding = x, targets, single, padding
        self.lengths = np.array([len(sequence) for sequence in x])

    def __len__(self) -> int:
        return len(self.x)

    def arrays(self) -> Iterator[Array]:
        """All arrays, inputs and targets, for a digest; borrowed."""
        yield from self.x
        yield from self.targets

    def part(self, chosen: Sequence[int] | Array) -> SequenceData:
        """The sequences with the indices ``chosen``; borrowed."""
        x, targets = [self.x[i] for i in chosen], [self.targets[i] for i in chosen]
        return SequenceData(x, targets, single=self.single, padding=self.padding)

    def batch(self, chosen: Array) -> tuple[Batch, Array]:
        """A batch of the sequences with these indices, and its targets (T, B, ...) or (1, B, ...); both fresh."""
        x = _pad_and_stack([self.x[i] for i in chosen], 0)
        targets = _pad_and_stack([self.targets[i] for i in chosen], self.padding)
        lengths = self.lengths[chosen]
        return Batch(x, None if (lengths == lengths[0]).all() else lengths.astype(np.int32)), targets


def _pad_and_stack(arrays: Sequence[Array], padding: float) -> Array:
    """Arrays (T_i, ...) as one array (T, B, ...), T the largest T_i."""
    longest = max(len(array) for array in arrays)
    stacked = np.full((longest, len(arrays), *arrays[0].shape[1:]), padding, arrays[0].dtype)
    for b, array in enumerate(arrays):
        stacked[: len(array), b] = array
    return stacked


class SequenceBatches:
    """The training batches of sequences, grouped by similar lengths. `len` is the number of batches of an epoch.

    Parameters
    ----------
    data : SequenceData
    batch_size : int
    seed : int
        With the epoch's number it determines the order of the batches and what they contain.
    """

    carries_state: bool = False  # for `fit`: each batch starts from the initial state
    data: SequenceData
    batch_size: int  # B of all batches but the last of a block
    seed: int

    def __init__(self, data: SequenceData, batch_size: int, seed: int) -> None:
        check_positive("batch_size", batch_size)
        self.data, self.batch_size, self.seed = data, min(batch_size, len(data)), seed

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def epoch(self, number: int) -> Iterator[tuple[Batch, Array]]:
        """The batches and their targets of epoch ``number``, 1, 2, ...: the same at every call."""
        draws = np.random.PCG64([self.seed, number])
        order = shuffled(draws, len(self.data))
        block_size = self.batch_size * SORTED_BATCHES
        batches: list[Array] = []
        for first in range(0, len(order), block_size):
            block = order[first : first + block_size]
            if len(set(self.data.lengths[block].tolist())) > 1:
                block = block[np.argsort(self.data.lengths[block], kind="stable")]
            batches += [block[b : b + self.batch_size] for b in range(0, len(block), self.batch_size)]
        for index in shuffled(draws, len(batches)):
            yield self.data.batch(batches[index])


def shuffled(draws: np.random.PCG64, n: int) -> Array:
    """A random permutation of 0 .. n-1 that is the same in every version of NumPy."""
    return np.argsort(draws.random_raw(n), kind="stable")


def by_length(data: SequenceData, batch_size: int) -> Iterator[tuple[Array, Batch, Array]]:
    """All sequences once, longest first: yields the indices (B,), the batch and its targets."""
    order = np.argsort(-data.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        yield chosen, *data.batch(chosen)
