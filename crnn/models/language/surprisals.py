# SPDX-License-Identifier: MIT
"""The surprisal of each token of many texts, computed in batches of texts of similar lengths. Independent of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from crnn import _parallel as parallel
from crnn._core.rows import Lengths
from crnn.checks import Array, Ids
from crnn.models.passes.predictor import Predictor
from crnn.nn.state import StateLike
from crnn.text.windows import IGNORE_INDEX

__all__ = ["surprisals"]

ROWS = 4096  # most steps of a batch, of all its sequences together
SMALL_ROWS = 16_384  # of a small network, for which the time between kernel calls matters
OUTPUT_BYTES = 1 << 21  # of the outputs of a small network in a batch, at most
PADDED = 1.25  # most times that a batch with padding may be larger than without


def surprisals(predictor: Predictor, sequences: Sequence[Ids], threads: int) -> list[Array]:
    """-log of the probability of each token but the first, in nats, of sequences that start from the initial state.

    Bit-identical to a computation of each alone.

    Parameters
    ----------
    predictor : Predictor
        Of logits for each step.
    sequences : list of int32 (N_i,)
        N_i at least 2.
    threads : int

    Returns
    -------
    list of array (N_i - 1,), fresh
    """
    windows = _Windows(predictor, threads)
    if len(sequences) == 1:
        losses = _of_one(windows, sequences[0])
        windows.end()
        return [losses]
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences)) - 1
    found: list[Array | None] = [None] * len(sequences)
    for chosen in _batches(lengths, _most_rows(predictor)):
        of_chosen = [sequences[i] for i in chosen]
        for i, losses in zip(chosen, _of_batch(windows, of_chosen, lengths[chosen]), strict=True):
            found[i] = losses
    windows.end()
    return cast("list[Array]", found)


def _most_rows(predictor: Predictor) -> int:
    """Most steps of a batch of many sequences. Twice as many take 7 % less time at H = 64."""
    step_bytes = predictor.net.output_size * np.dtype(predictor.net.dtype).itemsize
    return max(ROWS, min(SMALL_ROWS, OUTPUT_BYTES // step_bytes))


def _batches(lengths: Array, most: int) -> Iterator[list[int]]:
    """The indices of the sequences of each batch, the longest first.

    Those of about the same length are as many as padded to the longest have ``most`` steps: such batches often have the
    shape of the last one, and so its memory. Others have at most so many steps without padding, or are single.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        end = start + max(1, most // longest)
        chosen = order[start:end]
        if len(chosen) * longest > PADDED * lengths[chosen].sum():
            total = np.cumsum(lengths[order[start : start + most]])
            chosen = order[start : start + max(1, int(np.searchsorted(total, most, side="right")))]
        start += len(chosen)
        yield chosen.tolist()


def _of_batch(windows: _Windows, sequences: Sequence[Ids], lengths: Array) -> list[Array]:
    if len(sequences) == 1:
        return [_of_one(windows, sequences[0])]
    longest, steps = int(lengths[0]), int(lengths.sum())
    if longest * len(sequences) > PADDED * steps:
        packing = Lengths(lengths, longest, 1, packed=True)
        x = packing.pack_list([ids[:-1] for ids in sequences])
        targets = packing.pack_list([ids[1:] for ids in sequences])
        return packing.unpack_list(windows.losses(x, targets, packing))
    padding = Lengths(lengths, longest, 1)
    x, targets = padding.pad_ids(sequences, 0, 0), padding.pad_ids(sequences, 1, IGNORE_INDEX)
    return padding.unpad_list(windows.losses(x, targets, padding if steps < x.size else None))


def _of_one(windows: _Windows, ids: Ids) -> Array:
    """In windows of so many steps, so that a long text does not need memory for all its outputs."""
    parts: list[Array] = []
    state: StateLike | None = None
    for start in range(0, len(ids) - 1, ROWS):
        window = ids[start : start + ROWS + 1, None]
        parts.append(windows.losses(window[:-1], window[1:], None, state)[:, 0])
        state = windows.state
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Windows:
    """Computes the losses of windows. Memory is kept from one to the next, and for the next call if it is small."""

    def __init__(self, predictor: Predictor, threads: int) -> None:
        self._predictor, self._threads = predictor, threads
        self._workspace, self._weights = predictor.take_workspace(), predictor.head.packed()

    def end(self) -> None:
        """Keep the memory for the next call."""
        self._predictor.keep_workspace(self._workspace)

    @property
    def state(self) -> StateLike:
        """The state after the last window, valid until the next one."""
        assert self._workspace.tape is not None
        return self._workspace.tape.after.value

    def losses(self, x: Ids, targets: Ids, lengths: Lengths | None = None, state: StateLike | None = None) -> Array:
        """The losses (T, B) of ids and targets (T, B), packed or with padding if there are lengths, fresh."""
        net, head, workspace = self._predictor.net, self._predictor.head, self._workspace
        workspace.tape = net.run(x, state, lengths, self._threads, workspace.tape, None, keep=False)
        workspace.head = None  # that of another tape, maybe
        y, losses = workspace.tape.y.reshape(1, x.size, -1), np.empty((1, x.size), head.dtype)
        wanted = targets.reshape(1, -1)

        def rows(part: int) -> None:
            first, last = parallel.part_range(x.size, part, self._threads)
            head.row_losses(losses, y, wanted, self._weights, first, last)

        parallel.run(self._threads, rows)
        return losses.reshape(x.shape)
