# SPDX-License-Identifier: MIT
"""The head's outputs for whole sequences in inference, and their losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crnn._core import loss as kernels
from crnn.checks import Array, check_size, check_threads
from crnn.models.inputs.data import BLOCK_ROWS, SequenceData, Sequences, blocks, by_length, sequences_of, split_rows
from crnn.models.outputs.losses import Loss
from crnn.models.passes.predictor import Predictor
from crnn.nn.slices import Slice

__all__ = ["JudgedOutputs", "JudgedTokens", "outputs_of"]

OUTPUT_BYTES = 32 << 20  # of the outputs that an evaluation computes at a time, if no sequence has more

ONE_ROW = Slice(0, 1)  # of a batch of one sequence


def outputs_of(predictor: Predictor, data: SequenceData, batch_size: int, threads: int) -> Sequences:
    """The head's outputs for each sequence, fresh: (T_i, V), or with pooling (1, V)."""
    threads, equal, head = check_threads(threads), None, predictor.head
    if data.single or (data.lengths == data.lengths[0]).all():
        steps = 1 if data.single else int(data.lengths[0])
        equal = np.empty((len(data), steps, head.loss.outputs), head.dtype)
    unequal: list[Array] = [data.x[0]] * len(data)
    workspace = predictor.take_workspace() if isinstance(data.x, np.ndarray) else None  # batches of one shape
    for chosen in by_length(data.lengths, check_size("batch_size", batch_size)):
        batch = data.inputs(chosen)
        found = predictor.outputs(batch.x, batch.lengths, threads, workspace)
        if equal is not None:
            equal[chosen] = found.swapaxes(0, 1)
        else:
            for i, of_sequence in zip(chosen.tolist(), sequences_of(found, batch.lengths), strict=True):
                unequal[i] = of_sequence
    if workspace is not None and equal is not None:
        predictor.keep_workspace(workspace)
    return unequal if equal is None else equal


@dataclass
class JudgedTokens:
    """The most probable tokens (M_i,) of each sequence, the sum of the losses of all, and the number of targets."""

    tokens: Sequence[Array]
    total: float
    count: int

    def __iter__(self) -> Iterator[Array]:
        return iter(self.tokens)


class JudgedOutputs:
    """The head's outputs for each sequence, in their order, computed for some sequences at a time and then forgotten.

    Parameters
    ----------
    loss : Loss
    data : SequenceData
    outputs : callable
        From data to their outputs, as `outputs_of` returns them.
    itemsize : int
        Bytes of an output.

    Attributes
    ----------
    total : float
        Sum of the losses so far, weighted as the data are, in the order of the sequences.
    count : int
        Number of their targets.
    """

    total: float
    count: int

    def __init__(
        self, loss: Loss, data: SequenceData, outputs: Callable[[SequenceData], Sequences], itemsize: int
    ) -> None:
        self._loss, self._data, self._outputs = loss, data, outputs
        self._most_rows = max(1, OUTPUT_BYTES // (loss.outputs * itemsize))
        self.total, self.count = 0.0, 0

    def __iter__(self) -> Iterator[Array]:
        for part in self._parts():
            outputs = self._outputs(part)
            self._judge(part, outputs)
            yield from outputs
            del outputs

    def _parts(self) -> Iterator[SequenceData]:
        """Neighbouring sequences whose outputs together are few, or a single one."""
        data = self._data
        rows = np.ones(len(data), np.int64) if data.single else data.lengths
        if rows.sum() <= self._most_rows:
            yield data
            return
        ends = np.cumsum(rows)
        start = 0
        while start < len(data):
            before = 0 if start == 0 else ends[start - 1]
            stop = max(start + 1, int(np.searchsorted(ends, before + self._most_rows, side="right")))
            yield data.neighbours(start, stop)
            start = stop

    def _judge(self, data: SequenceData, outputs: Sequences) -> None:
        """Add the losses of these outputs."""
        dtype = outputs[0].dtype.name
        for start, stop in blocks(outputs, BLOCK_ROWS):
            out, targets = (np.concatenate(arrays[start:stop])[:, None] for arrays in (outputs, data.targets))
            wanted = self._loss.check("y", targets, len(targets), 1, dtype)
            losses = np.empty((len(out), 1), dtype)
            self._loss.run(losses, None, out, wanted, 1.0, ONE_ROW)
            if data.weights is not None:
                losses *= np.concatenate(data.weights[start:stop])[:, None]
            for of_sequence in split_rows(losses.reshape(-1), outputs[start:stop]):
                self.total += kernels.sum(of_sequence)
            self.count += self._loss.count(wanted)
