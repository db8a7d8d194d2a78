# SPDX-License-Identifier: MIT
"""Whole sequences: checks, and batches of sequences of similar lengths. Independent of models.

Sequences are real (T_i, D) or ids (T_i,). They are given as a list of arrays or, if all have the same length, as one
array (N, T, D) or (N, T).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np

from crnn._core.rows import Lengths
from crnn._parallel import part_range
from crnn.array_input import check_finite, in_precision, is_finite, items, real_numbers
from crnn.checks import Array, check_positive
from crnn.models.inputs.text_inputs import refuse_texts

KIND_OF = attrgetter("shape", "dtype")  # of an array
FEW = 16  # sequences, that are checked one by one
BLOCK_ROWS = 4096  # of short sequences that are converted together
# A list of arrays (T_i, ...), or one array (N, T, ...) if all sequences have the same length.
Sequences: TypeAlias = Any

SORTED_BATCHES = 32  # sequences of so many batches at a time are sorted by length: little padding, still shuffled


@dataclass(frozen=True)
class Batch:
    """A batch of sequences, time-major; packed if they have different lengths, see `crnn._core.rows.Lengths`."""

    x: Array  # (T, B, D) real, or ids (T, B); packed (1, M, D), or (1, M)
    lengths: Lengths | None = None  # None: all T
    target_lengths: Lengths | None = None  # with a target for every step, or several tokens; None: all equal
    weights: Array | None = None  # float64, of the targets (T, B), packed (1, M), or (1, B) with one for each sequence
    gain: float = 1.0  # factor of the mean of weighted losses, see `SequenceData`

    @property
    def size(self) -> int:
        """B."""
        return int(self.x.shape[1]) if self.lengths is None else self.lengths.B


def check_sequences(name: str, X: Any, input_size: int, *, ids: bool, real: bool = False) -> Sequences:
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
    X = items(name, X, "a list of arrays, or an array (N, T, D)")
    refuse_texts(name, X)
    if isinstance(X, np.ndarray):
        _check_shape(name, X, input_size)
    if len(X) == 0:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    check_steps(name, X)
    whole = _as_whole(X, input_size, ids, real)
    if whole is not None:
        return whole
    arrays = [real_numbers(f"{name}[{i}]", x) for i, x in enumerate(X)]
    if input_size == 1 and len(arrays) > 1 and all(array.shape == (1,) for array in arrays):
        raise ValueError(_ambiguous(name, (len(arrays), 1)))
    return [_check_sequence(f"{name}[{i}]", array, input_size, ids, real) for i, array in enumerate(arrays)]


def _check_shape(name: str, X: Array, input_size: int) -> None:
    """Raise ValueError unless an array can be sequences, (N, T, D) or (N, T), and is not clearly one sequence."""
    if X.ndim not in (2, 3):
        one = "; for one sequence write [x]. Reshape your data otherwise" if X.ndim == 1 and X.size else ""
        raise ValueError(f"{name}: expected shape (N, T, {input_size}), or ids (N, T), got {X.shape}{one}")
    if X.ndim == 2 and X.shape[1] == input_size and len(X) > 1 and (input_size == 1 or X.dtype.kind == "f"):
        raise ValueError(_ambiguous(name, X.shape))
    if X.ndim == 2 and input_size > 1 and X.dtype.kind == "f":
        expected = f"shape (N, T, {input_size}), or integer ids (N, T)"
        raise ValueError(f"{name}: expected {expected}, got {X.dtype} of shape {X.shape}")


def check_steps(name: str, X: Any) -> None:
    """Raise ValueError for an array of sequences without a step. Does not check D."""
    if isinstance(X, np.ndarray) and X.ndim == 2 and not X.shape[1]:
        raise ValueError(
            f"{name}: expected sequences of at least one step, got none: 0 feature(s) (shape={X.shape}) while a "
            "minimum of 1 is required."
        )


def _ambiguous(name: str, shape: tuple[int, ...]) -> str:
    """What to say of an array (T, D) in the place of sequences."""
    hint = f"write [x] for one sequence of {shape[0]} steps"
    if shape[1] == 1:
        hint += f", or x[:, :, None] for {shape[0]} sequences of one step"
    return f"{name}: expected shape (N, T, {shape[1]}), got {shape}; {hint} of {shape[1]} feature(s)"


def is_one_series(X: Any, input_size: int) -> bool:
    """Whether X, in the place of series, is a single one: an array or lists (T, D), or numbers (T,) if D is 1."""
    if isinstance(X, np.ndarray):
        return X.shape[1:] in ((), (input_size,))
    return len(X) > 0 and (all(np.ndim(x) == 0 for x in X) or all(_is_step(x, input_size) for x in X))


def _is_step(x: Any, input_size: int) -> bool:
    """Whether x is one step (D,) of a series: a list of numbers, or an array."""
    if isinstance(x, list | tuple):
        return len(x) == input_size and all(np.ndim(number) == 0 for number in x)
    return bool(np.shape(x) == (input_size,))


def check_given(name: str, y: Any, hint: str = "") -> None:
    """Raise ValueError if there are no targets y. ``hint``: what else could be meant."""
    if y is None:
        reason = "this model requires y to be passed, but the target y is None"  # in the words that scikit-learn knows
        raise ValueError(f"{name}: expected targets; {reason}{hint}")


def check_entries(name: str, y: Any, x: list[Array]) -> Any:
    """The entries of y, one for each of the sequences x: a list or an array. Raises TypeError and ValueError."""
    check_given(name, y)
    y = items(name, y, "a list or an array of targets")
    n = len(x)
    if len(y) != n:
        even = len(y) < n and len({len(each) for each in x}) == 1  # as the rows of a table, which may be meant as steps
        steps = f" of {len(x[0])} step{'s' * (len(x[0]) > 1)}" if even else ""
        hint = "; if its rows are steps, X is a list of arrays or DataFrames (T, D)" if even else ""
        raise ValueError(f"{name}: expected one entry for each of {n} sequences{steps}, got {len(y)}{hint}")
    return y


def _as_whole(X: Any, input_size: int, ids: bool, real: bool) -> Array | None:
    """Real sequences (N, T, D) or ids (N, T), or a list of many short ones of one shape, checked all at once.

    None if X is something else, or if a sequence is wrong: `_check_sequence` then says which and why.
    """
    first = X[0]
    short = isinstance(first, np.ndarray) and 0 < first.size < BLOCK_ROWS and first.dtype.kind in "fiub"
    many = isinstance(X, list) and len(X) > FEW and set(map(type, X)) == {np.ndarray}
    if short and many and len(set(map(KIND_OF, X))) == 1:
        X = np.concatenate(X).reshape(len(X), *first.shape)
    if type(X) is not np.ndarray or not X.size or X.dtype.itemsize > 8:  # a mask is needed, long double converted
        return None
    if X.ndim == 3 and X.shape[2] == input_size and X.dtype.kind in "fiub" and not ids:
        return np.asarray(X) if np.isfinite(X).all() else None
    if X.ndim == 2 and X.dtype.kind in "iu" and not real and (ids or input_size > 1):
        return X.astype(np.int32) if X.min() >= 0 and X.max() < input_size else None
    return None


def array_of(name: str, value: Any, dtype: Any = None) -> Array:
    """Labels as an array, masked ones as None. Raises ValueError, which calls them ``name``."""
    if isinstance(value, np.ma.MaskedArray):
        mask, value = np.ma.getmaskarray(value), np.array(value.data, object if np.ma.is_masked(value) else None)
        if value.dtype == object:
            value[mask] = None
    if hasattr(value, "detach"):  # a tensor
        value = value.detach()
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError):  # ragged, or not numbers
        raise ValueError(f"{name}: expected numbers in an array, got {value!r:.100}") from None


def _not_finite_hint(x: Array) -> str:
    """What to do with a sequence (T, D) that has NaN or inf."""
    kept = len(x)
    while kept and np.isnan(x[kept - 1]).all():
        kept -= 1
    if 0 < kept < len(x) and is_finite(x[:kept]):
        return f"; NaN and inf are no inputs: x[:{kept}] is the sequence without padding"
    return "; NaN and inf are no inputs: fill gaps, or skip these steps by mask="


def _check_sequence(name: str, x: Array, input_size: int, ids: bool, real: bool) -> Array:
    """One sequence, see `check_sequences`."""
    if x.ndim and len(x) == 0:
        raise ValueError(f"{name}: expected a sequence of at least one step, got none: shape {x.shape}")
    if not real and x.dtype.kind in "iu" and x.ndim == 1 and (ids or input_size > 1):  # one id carries no information
        if x.min() < 0 or x.max() >= input_size:
            raise ValueError(f"{name}: expected ids from 0 to {input_size - 1}, got {x.min()} to {x.max()}")
        return x.astype(np.int32)
    if ids:
        raise TypeError(f"{name}: expected integer ids (T,), got {x.dtype} of shape {x.shape}")
    if x.ndim == 1 and input_size == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] != input_size:
        hint = "; for one sequence write [x]" if x.shape == (input_size,) else ""
        or_ids = ", or integer ids (T,)" if x.ndim == 1 and not real and not hint else ""
        expected = f"numbers of shape (T, {input_size}){or_ids}"
        raise ValueError(f"{name}: expected {expected}, got {x.dtype} of shape {x.shape}{hint}")
    if not is_finite(x):
        check_finite(name, x, hint=_not_finite_hint(x))
    return in_precision(name, x, "float64") if x.dtype.itemsize > 8 else x


@dataclass(frozen=True)
class Series:
    """A lone series, of which data are windows, or what follows the first ``known`` steps."""

    values: Array  # (T, D), not standardised; borrowed
    known: int


class SequenceData:
    """Checked and standardised sequences of a model, and their targets. Borrows the arrays.

    Parameters
    ----------
    x : list of arrays, or one array if all sequences have the same length
        Real (T_i, D) in the model's precision, or int32 ids (T_i,).
    targets : list of arrays
        One per sequence: (T_i, ...), or with ``single`` (1, ...).
    single : bool
        One target per sequence instead of one per step.
    weights : list of arrays, optional
        Weights of the rows of each sequence's targets; their mean over all targets should be 1.
    gain : float
        Factor that makes the mean of the losses of all data one that is divided by the weights, if classes have some.

    Attributes
    ----------
    lengths : int array (N,)
        T_i.
    series : Series or None
        The lone series that the sequences are from.
    notes : list of str
        What the log of a training on them says.
    """

    x: Sequences
    targets: list[Array]
    single: bool
    lengths: Array
    weights: list[Array] | None
    gain: float
    series: Series | None
    notes: list[str]

    def __init__(
        self, x: Sequences, targets: list[Array], *, single: bool, weights: list[Array] | None = None, gain: float = 1.0
    ) -> None:
        self.notes, self.weights, self.gain = [], weights, gain
        self.x, self.targets, self.single, self.series = x, targets, single, None
        self.lengths = np.full(len(x), x.shape[1]) if isinstance(x, np.ndarray) else np.array(list(map(len, x)))

    def __len__(self) -> int:
        return len(self.x)

    def arrays(self) -> Iterator[Array]:
        """All arrays, inputs, targets and weights, for a digest; borrowed."""
        yield from self.x
        yield from self.targets
        yield from self.weights or ()

    def part(self, chosen: Sequence[int] | Array) -> SequenceData:
        """The sequences with the indices ``chosen``; borrowed."""
        x, targets = [self.x[i] for i in chosen], [self.targets[i] for i in chosen]
        weights = None if self.weights is None else [self.weights[i] for i in chosen]
        return SequenceData(x, targets, single=self.single, weights=weights, gain=self.gain)

    def neighbours(self, start: int, stop: int) -> SequenceData:
        """The sequences start .. stop-1; borrowed."""
        weights = None if self.weights is None else self.weights[start:stop]
        return SequenceData(
            self.x[start:stop], self.targets[start:stop], single=self.single, weights=weights, gain=self.gain
        )

    def batch(self, chosen: Array) -> tuple[Batch, Array]:
        """A batch of the sequences with these indices, and its targets; both fresh.

        Targets are (T, B, ...), packed (1, M, ...) if their numbers differ, or (1, B, ...) with one for each sequence.
        """
        inputs = self.inputs(chosen)
        if self.single:
            targets, target_lengths = np.ascontiguousarray(self._single_targets[chosen].swapaxes(0, 1)), None
        else:
            targets, target_lengths = batch_of([self.targets[i] for i in chosen])
        weights = None if self.weights is None else batch_of([self.weights[i] for i in chosen])[0]
        return Batch(inputs.x, inputs.lengths, target_lengths, weights, self.gain), targets

    @cached_property
    def _single_targets(self) -> Array:
        """(N, 1, ...): the targets of sequences with one for each, from which NumPy takes a batch in one call."""
        return np.stack(self.targets)

    def inputs(self, chosen: Array) -> Batch:
        """A batch of the sequences with these indices, without targets; fresh."""
        if isinstance(self.x, np.ndarray):
            return Batch(np.ascontiguousarray(self.x[chosen].swapaxes(0, 1)))
        return Batch(*batch_of([self.x[i] for i in chosen]))


def batch_of(arrays: Sequence[Array]) -> tuple[Array, Lengths | None]:
    """Arrays (T_i, ...) as one array (T, B, ...), or packed with their lengths if those differ; fresh."""
    counts = list(map(len, arrays))
    most = max(counts)
    if min(counts) == most:
        rows = np.concatenate(arrays).reshape(len(arrays), most, *arrays[0].shape[1:])
        return np.ascontiguousarray(rows.swapaxes(0, 1)), None
    lengths = Lengths(np.array(counts, np.int32), most, 1, packed=True)
    return lengths.pack_list(arrays), lengths


def sequences_of(array: Array, lengths: Lengths | None) -> list[Array]:
    """The rows (T_i, ...) of each sequence of an array (T, B, ...), or packed (1, M, ...); fresh."""
    if lengths is not None:
        return lengths.unpack_list(array)
    return list(array.swapaxes(0, 1).copy())


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

    @property
    def predictions(self) -> int:
        """Number of targets of an epoch, missing ones included."""
        return sum(map(len, self.data.targets))

    def epoch(self, number: int) -> Iterator[tuple[Batch, Array]]:
        """The batches and their targets of epoch ``number``, 1, 2, ...: the same at every call."""
        return map(self.data.batch, self.chosen(number))

    def sharded(self, shards: int, first: int, stop: int) -> ShardedBatches:
        """The shards first .. stop-1 of so many of each batch, as lists."""
        return ShardedBatches(self, shards, first, stop)

    def chosen(self, number: int) -> Iterator[Array]:
        """The indices of the sequences of each batch of epoch ``number``."""
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
            yield batches[index]


class ShardedBatches:
    """The batches of some shards of `SequenceBatches`: lists with one for each shard, None if it has no sequences.

    Parameters
    ----------
    batches : SequenceBatches
    shards : int
        Of a whole batch.
    first, stop : int
        The shards first .. stop-1 are given.
    """

    carries_state: bool = False
    seed: int
    predictions: int  # of all shards

    def __init__(self, batches: SequenceBatches, shards: int, first: int, stop: int) -> None:
        self._batches, self._shards, self._first, self._stop = batches, shards, first, stop
        self.seed, self.predictions = batches.seed, batches.predictions

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int) -> Iterator[tuple[list[Batch | None], list[Array | None]]]:
        """The shards of the batches of epoch ``number`` and their targets."""
        for chosen in self._batches.chosen(number):
            ranges = [part_range(len(chosen), shard, self._shards) for shard in range(self._first, self._stop)]
            pairs = [self._batches.data.batch(chosen[b0:b1]) if b1 > b0 else (None, None) for b0, b1 in ranges]
            yield [x for x, _ in pairs], [targets for _, targets in pairs]


def shuffled(draws: np.random.PCG64, n: int) -> Array:
    """A random permutation of 0 .. n-1 that is the same in every version of NumPy."""
    return np.argsort(draws.random_raw(n), kind="stable")


def by_length(lengths: Array, batch_size: int) -> Iterator[Array]:
    """The indices (B,) of batches of sequences with these lengths: all sequences once, longest first."""
    order = np.argsort(-lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def blocks(arrays: Sequences, most: int) -> Iterator[tuple[int, int]]:
    """Ranges start .. stop-1 of neighbouring arrays with at most so many rows together, or of a single one."""
    start, rows = 0, 0
    for i, array in enumerate(arrays):
        if i > start and rows + len(array) > most:
            yield start, i
            start, rows = i, 0
        rows += len(array)
    yield start, len(arrays)


def split_rows(rows: Array, like: Sequence[Array]) -> list[Array]:
    """Views of rows (M, ...): as many for each array as ``like`` has."""
    ends = np.cumsum([len(array) for array in like]).tolist()
    return [rows[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def by_rows(arrays: Sequences, convert: Callable[[Array], Array]) -> Sequences:
    """``convert(array)`` of arrays (T_i, ...), where it works row by row: short ones are converted together."""
    if isinstance(arrays, np.ndarray):
        flat = arrays.reshape(-1, *arrays.shape[2:])
        rows = [convert(flat[first : first + BLOCK_ROWS]) for first in range(0, len(flat), BLOCK_ROWS)]
        whole = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return whole.reshape(*arrays.shape[:2], *whole.shape[1:])
    converted: list[Array] = []
    for start, stop in blocks(arrays, BLOCK_ROWS):
        together = arrays[start:stop]
        if len(together) == 1:
            converted.append(convert(together[0]))
        else:
            converted += split_rows(convert(np.concatenate(together)), together)
    return converted
