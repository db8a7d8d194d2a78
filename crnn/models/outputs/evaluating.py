# SPDX-License-Identifier: MIT
"""The head's outputs for whole sequences in inference, and their losses."""

from __future__ import annotations

import numpy as np

from crnn._core import loss as kernels
from crnn.checks import Array, check_size, check_threads
from crnn.models.inputs.data import BLOCK_ROWS, SequenceData, Sequences, blocks, by_length, sequences_of, split_rows
from crnn.models.outputs.losses import Loss
from crnn.models.outputs.predictor import Predictor
from crnn.nn.slices import Slice

__all__ = ["losses_of", "outputs_of"]

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


def losses_of(loss: Loss, data: SequenceData, outputs: Sequences) -> tuple[float, int]:
    """Sum of the losses of outputs, weighted as the data are, in the order of the sequences; and number of targets."""
    total, count, dtype = 0.0, 0, outputs[0].dtype.name
    for start, stop in blocks(outputs, BLOCK_ROWS):
        out, targets = (np.concatenate(arrays[start:stop])[:, None] for arrays in (outputs, data.targets))
        wanted = loss.check("y", targets, len(targets), 1, dtype)
        losses = np.empty((len(out), 1), dtype)
        loss.run(losses, None, out, wanted, 1.0, ONE_ROW)
        if data.weights is not None:
            losses *= np.concatenate(data.weights[start:stop])[:, None]
        for of_sequence in split_rows(losses.reshape(-1), outputs[start:stop]):
            total += kernels.sum(of_sequence)
        count += loss.count(wanted)
    return total, count
