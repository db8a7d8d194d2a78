# SPDX-License-Identifier: MIT
"""The surprisal of each token of many texts, computed in batches of texts of similar lengths. Independent of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from crnn.checks import Array, Ids
from crnn.models.inputs.data import batch_of, sequences_of
from crnn.models.outputs.predictor import Predictor, Workspace

__all__ = ["blocks_of", "surprisals"]

ROWS = 4096  # most steps of a batch, of all its sequences together
LOGITS = 1 << 20  # most elements of its logits
BLOCK_TOKENS = 1 << 16  # of texts that are sorted by length together

T = TypeVar("T")


def blocks_of(sequences: Iterable[tuple[T, Ids]]) -> Iterator[list[tuple[T, Ids]]]:
    """Neighbours in lists of `BLOCK_TOKENS` tokens or a little more, so that no more of them are in memory."""
    block: list[tuple[T, Ids]] = []
    tokens = 0
    for each in sequences:
        block.append(each)
        tokens += len(each[1])
        if tokens >= BLOCK_TOKENS:
            yield block
            block, tokens = [], 0
    if block:
        yield block


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
    most = max(1, min(ROWS, LOGITS // len(predictor.head.b_y)))
    found: dict[int, Array] = {}
    for chosen in _batches([len(ids) - 1 for ids in sequences], most):
        if len(chosen) == 1:
            found[chosen[0]] = _of_one(predictor, sequences[chosen[0]], most, threads)
        else:
            found.update(zip(chosen, _of_batch(predictor, [sequences[i] for i in chosen], threads), strict=True))
    return [found[i] for i in range(len(sequences))]


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """The indices of the sequences of each batch: longest first, with at most so many steps, or of a single one."""
    chosen: list[int] = []
    steps = 0
    for index in np.argsort(-np.array(lengths, np.int64), kind="stable").tolist():
        if chosen and steps + lengths[index] > most:
            yield chosen
            chosen, steps = [], 0
        chosen.append(index)
        steps += lengths[index]
    if chosen:
        yield chosen


def _of_batch(predictor: Predictor, sequences: Sequence[Ids], threads: int) -> list[Array]:
    x, lengths = batch_of([ids[:-1] for ids in sequences])
    targets, _ = batch_of([ids[1:] for ids in sequences])
    x = predictor.net.stack.check_input(x)
    tape, head = predictor.start(x, None, Workspace(), lengths=lengths, threads=threads)
    predictor.forward(tape, head, targets)
    return sequences_of(head.losses, lengths)


def _of_one(predictor: Predictor, ids: Ids, most: int, threads: int) -> Array:
    """In windows of so many steps, so that a long text does not need memory for all its logits."""
    workspace, state = Workspace(), None
    parts: list[Array] = []
    for start in range(0, len(ids) - 1, most):
        window = np.ascontiguousarray(ids[start : start + most + 1, None])
        x = predictor.net.stack.check_input(window[:-1])
        tape, head = predictor.start(x, state, workspace, threads=threads)
        predictor.forward(tape, head, window[1:])
        parts.append(head.losses[:, 0].copy())
        state = tape.after.value
    return np.concatenate(parts)
