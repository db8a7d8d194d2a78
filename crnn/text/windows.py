# SPDX-License-Identifier: MIT
"""Training windows of a text: contiguous streams of ids as columns of a batch, ``bptt`` steps at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from crnn._attributes import fixed_attributes
from crnn._normal import normal_draws
from crnn._parallel import part_range
from crnn.array_input import ids_1d
from crnn.checks import Ids, check_positive
from crnn.io.mapped import check_complete, mapping_of
from crnn.text.errors import TextError

__all__ = ["IGNORE_INDEX", "BPTTWindows", "contiguous_batches"]

IGNORE_INDEX = -1  # target of padding; ignored by the loss

# Of `VaryingWindows`: how many are half as long, the standard deviation and the least length, and what distinguishes
# their draws from others of the same seed.
_SHORT, _DEVIATION, _LEAST, _STREAM = 0.05, 5.0, 5, 0x6270

_BLOCK = 1 << 18  # ids that BPTTWindows copies at once: 1 MiB


@fixed_attributes()
class BPTTWindows:
    """Windows over contiguous streams of ids; made by `contiguous_batches`.

    Iterating yields ``len(windows)`` pairs ``(x, y)`` of inputs and targets, int32 (T, B), C order, read-only; every
    iteration starts from the first. Column b continues across windows, so the state can be carried. Ids are copied in
    blocks of many windows: memory use does not grow with the number of windows, and a window is two slices.

    Attributes
    ----------
    batch_size, bptt : int
        B, and T of all windows except the last, which may be shorter.
    steps : int
        Sum of T over all windows.
    predictions : int
        Targets that are not `IGNORE_INDEX`.
    dropped : int
        Predictions left out so that all streams have the same length; fewer than B, and 0 with
        ``drop_last=False``.
    """

    batch_size: int
    bptt: int
    steps: int
    predictions: int
    dropped: int

    def __init__(self, ids: npt.ArrayLike, batch_size: int, bptt: int, drop_last: bool = True) -> None:
        check_positive("batch_size", batch_size)
        check_positive("bptt", bptt)
        self._ids = ids_1d("ids", ids)
        self._mapping = mapping_of(self._ids)
        check_complete("ids", self._mapping)
        if self._ids.size <= batch_size:
            raise TextError(
                f"ids: expected at least {batch_size + 1} tokens for batch_size={batch_size} "
                f"(an input and its target in each stream), got {self._ids.size}"
            )
        if self._ids.dtype not in (np.uint8, np.uint16):  # others may hold ids that overflow int32 or are negative
            lowest, highest = self._ids.min(), self._ids.max()
            if lowest < 0 or highest >= 2**31:
                raise ValueError(f"ids: expected 0..{2**31 - 1}, got {lowest}..{highest}")
        self.batch_size, self.bptt = int(batch_size), int(bptt)
        length, extra = divmod(self._ids.size - 1, self.batch_size)
        self.dropped = extra if drop_last else 0
        extra -= self.dropped
        self.predictions = self._ids.size - 1 - self.dropped
        self.steps = length + (extra > 0)
        # The first `extra` streams are one step longer. The last target of a stream is the first input of the next one,
        # so no prediction is lost between two streams.
        self._starts = [b * length + min(b, extra) for b in range(self.batch_size)]
        self._full = extra or self.batch_size

    def __len__(self) -> int:
        return -(-self.steps // self.bptt)

    def __repr__(self) -> str:
        return (
            f"BPTTWindows({len(self)} windows, batch_size={self.batch_size}, bptt={self.bptt}, "
            f"predictions={self.predictions}, dropped={self.dropped})"
        )

    carries_state = True  # `fit` carries the state from window to window

    def epoch(self, number: int) -> Iterator[tuple[Ids, Ids]]:
        """The windows, which are the same in every epoch."""
        return iter(self)

    def sharded(self, shards: int, first: int, stop: int) -> ShardedWindows:
        """The windows of the shards first .. stop-1 of so many, as lists of their columns."""
        return ShardedWindows(self, [part_range(self.batch_size, shard, shards) for shard in range(first, stop)])

    def varying(self, seed: int) -> VaryingWindows:
        """Windows of random lengths over the same streams."""
        return VaryingWindows(self, seed)

    def streams_of_epoch(self, number: int, b0: int, b1: int) -> Iterator[tuple[Ids, Ids]]:
        """The columns b0 .. b1-1 of the windows of an epoch."""
        return self.of_streams(b0, b1)

    def __iter__(self) -> Iterator[tuple[Ids, Ids]]:
        return self.of_streams(0, self.batch_size)

    def of_streams(self, b0: int, b1: int, lengths: Sequence[int] | None = None) -> Iterator[tuple[Ids, Ids]]:
        """The columns b0 .. b1-1 of the windows. Other streams are not read. ``lengths``: of windows, if not bptt."""
        if lengths is not None:
            yield from self._of_lengths(b0, b1, lengths)
            return
        bptt = self.bptt
        span = bptt * max(1, _BLOCK // (bptt * self.batch_size))
        for first in range(0, self.steps, span):
            block = self._block(first, min(first + span, self.steps), b0, b1)
            inputs, targets = block[:-1], block[1:]
            for t in range(0, len(inputs), bptt):
                yield inputs[t : t + bptt], targets[t : t + bptt]

    def _of_lengths(self, b0: int, b1: int, lengths: Sequence[int]) -> Iterator[tuple[Ids, Ids]]:
        """`of_streams` for windows of these lengths, whose sum is `steps`."""
        first = read = 0
        for number, length in enumerate(lengths):
            if first == read:
                start, span = first, length
                for more in lengths[number + 1 :]:
                    if (span + more) * self.batch_size > _BLOCK:
                        break
                    span += more
                block, read = self._block(start, start + span, b0, b1), start + span
            t = first - start
            yield block[t : t + length], block[t + 1 : t + length + 1]
            first += length

    def _block(self, first: int, last: int, b0: int, b1: int) -> Ids:
        """Ids first..last (inclusive) of the streams b0 .. b1-1, (last - first + 1, b1 - b0)."""
        check_complete("ids", self._mapping)
        block = np.full((last - first + 1, b1 - b0), IGNORE_INDEX, np.int32)
        for b, start in enumerate(self._starts[b0:b1], b0):
            short = last == self.steps and b >= self._full  # its last target stays IGNORE_INDEX
            end = last if short else last + 1
            block[: end - first, b - b0] = self._ids[start + first : start + end]
        block.flags.writeable = False
        return block


class ShardedWindows:
    """The windows (x, y) of some shards of `BPTTWindows`: lists with int32 (T, columns of the shard) for each of them.

    Parameters
    ----------
    windows : BPTTWindows or VaryingWindows
    ranges : list of (int, int)
        The streams of each shard, one after another.
    """

    carries_state = True
    predictions: int  # of all shards

    def __init__(self, windows: BPTTWindows | VaryingWindows, ranges: list[tuple[int, int]]) -> None:
        self._windows, self._ranges, self.predictions = windows, ranges, windows.predictions

    def __len__(self) -> int:
        return len(self._windows)

    def epoch(self, number: int) -> Iterator[tuple[list[Ids], list[Ids]]]:
        """The windows of an epoch, counted from 1."""
        b0, b1 = self._ranges[0][0], self._ranges[-1][1]
        for window in self._windows.streams_of_epoch(number, b0, b1):
            x, y = ([array[:, start - b0 : stop - b0] for start, stop in self._ranges] for array in window)
            yield x, y


class VaryingWindows:
    """Windows of random lengths over the streams of `BPTTWindows`; their number is the same in every epoch.

    A length is drawn from a distribution that is nearly normal, with the mean bptt, or in one of twenty cases bptt / 2,
    and the standard deviation 5; it is at least 5 (Merity, Keskar, Socher 2017). All are then changed by the same, one
    step or so, that together they are as long as the streams.

    Parameters
    ----------
    windows : BPTTWindows
    seed : int
        Determines the lengths in every epoch.
    """

    carries_state = True
    batch_size: int
    bptt: int
    predictions: int
    seed: int

    def __init__(self, windows: BPTTWindows, seed: int) -> None:
        self._windows, self.seed = windows, seed
        self.batch_size, self.bptt, self.predictions = windows.batch_size, windows.bptt, windows.predictions
        mean = (1 - _SHORT / 2) * windows.bptt - 0.5  # lengths are rounded down
        self._count = min(windows.steps, max(1, round(windows.steps / mean)))

    def __len__(self) -> int:
        return self._count

    def lengths(self, epoch: int) -> list[int]:
        """The lengths of the windows of an epoch, counted from 1."""
        raw, count = np.random.PCG64([self.seed, epoch, 0, _STREAM]), self._count
        short = (raw.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53 < _SHORT
        drawn = np.where(short, self.bptt / 2, self.bptt) + _DEVIATION * normal_draws(raw, count)
        lengths = np.maximum(_LEAST, drawn.astype(np.int64))
        change = self._windows.steps - int(lengths.sum())
        lengths += np.diff(np.arange(count + 1) * change // count)
        lengths = np.maximum(1, lengths)
        while int(lengths.sum()) > self._windows.steps:  # of a very short text
            lengths[lengths.argmax()] -= 1
        found: list[int] = lengths.tolist()
        return found

    def epoch(self, number: int) -> Iterator[tuple[Ids, Ids]]:
        """The windows of an epoch, counted from 1."""
        return self.streams_of_epoch(number, 0, self.batch_size)

    def streams_of_epoch(self, number: int, b0: int, b1: int) -> Iterator[tuple[Ids, Ids]]:
        """The columns b0 .. b1-1 of the windows of an epoch."""
        return self._windows.of_streams(b0, b1, self.lengths(number))

    def sharded(self, shards: int, first: int, stop: int) -> ShardedWindows:
        """The windows of the shards first .. stop-1 of so many, as lists of their columns."""
        return ShardedWindows(self, [part_range(self.batch_size, shard, shards) for shard in range(first, stop)])


def contiguous_batches(ids: npt.ArrayLike, batch_size: int, bptt: int, *, drop_last: bool = True) -> BPTTWindows:
    """Split ids (N,) into B contiguous streams, and these into windows of T steps. Each target is the next id.

    The N - 1 predictions are divided among the streams. For training, all streams have the same length, and the last
    predictions, fewer than B, are dropped. For evaluation, ``drop_last=False`` makes every prediction exactly once:
    some streams are one step longer, the others end with the target `IGNORE_INDEX` (the input is a valid id).

    Parameters
    ----------
    ids : integers (N,)
        For example ``corpus.train``; may be memory-mapped. Borrowed.
    batch_size, bptt : int
        B and T.
    drop_last : bool

    Returns
    -------
    windows : BPTTWindows

    Raises
    ------
    TextError
        N is less than B + 1.
    TypeError, ValueError
        ``ids`` are not integers (N,) in the range of int32, or a size is wrong.

    Examples
    --------
    >>> windows = contiguous_batches([0, 1, 2, 3, 4, 5, 6, 7], batch_size=2, bptt=2)
    >>> windows
    BPTTWindows(2 windows, batch_size=2, bptt=2, predictions=6, dropped=1)
    >>> for x, y in windows:
    ...     print(x.tolist(), y.tolist())
    [[0, 3], [1, 4]] [[1, 4], [2, 5]]
    [[2, 5]] [[3, 6]]
    """
    return BPTTWindows(ids, batch_size, bptt, drop_last)
