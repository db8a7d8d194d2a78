# SPDX-License-Identifier: MIT
"""Greedy decoding and beam search, for SequenceToSequence.

Rows of a batch are computed independently, so results do not depend on the batch. Of equal scores, the continuation of
the hypothesis with the higher previous score wins, then the smaller token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crnn._core import loss as kernels
from crnn.checks import Array
from crnn.stream import StreamBatch, StreamWeights
from crnn.stream.state import StateLike
from crnn.text.windows import IGNORE_INDEX


@dataclass(frozen=True)
class Hypothesis:
    """A decoded sequence."""

    tokens: list[int]  # without the token that ends the sequence
    score: float  # mean log-probability per token in nats, the end included


class Steps:
    """The decoder, one step at a time for a batch of rows.

    Parameters
    ----------
    weights : StreamWeights
    start : state of ``rows`` rows
        Copied.
    rows : int
    boundary : int
        The token that starts and ends sequences.
    """

    batch: StreamBatch
    boundary: int
    first: Array  # int32 (B,): the tokens of the first step

    def __init__(self, weights: StreamWeights, start: StateLike, rows: int, boundary: int) -> None:
        self.batch = StreamBatch(weights, rows)
        self.batch.set_states(start)
        self.boundary = boundary
        self.first = np.full(rows, boundary, np.int32)

    def __call__(self, tokens: Array | None) -> Array:
        """Logits (B, V) of the tokens that follow ``tokens`` (B,); None: of the first tokens."""
        return self.batch.step(self.first if tokens is None else tokens)

    def continue_rows(self, rows: Array) -> None:
        """Replace the rows: new row i continues from the state of row ``rows[i]``."""
        self.batch.select(rows)


def decode(
    weights: StreamWeights,
    start: StateLike,
    rows: int,
    boundary: int,
    max_length: int,
    beam: int,
    *,
    scored: bool,
) -> list[Hypothesis]:
    """Decode ``rows`` sequences from their first states; arguments as in `Steps` and `SequenceToSequence.predict`.

    With ``beam`` > 1 the best of beam search and greedy decoding. Scores are 0 if neither ``scored`` nor ``beam`` > 1.
    """
    best = greedy(Steps(weights, start, rows, boundary), max_length, scored=scored or beam > 1)
    if beam == 1:
        return best
    found = beam_search(Steps(weights, start, rows, boundary), max_length, beam)
    return [max(pair, key=lambda hypothesis: hypothesis.score) for pair in zip(best, found, strict=True)]


def log_probabilities(logits: Array) -> Array:
    """log softmax of logits (B, V), fresh, in float64."""
    best = logits.argmax(axis=1)
    surprisal = np.empty((1, len(logits)), logits.dtype)  # of the most probable token
    kernels.softmax_cross_entropy(
        surprisal, None, logits[None], best.astype(np.int32)[None], 1.0, IGNORE_INDEX, 0, len(logits)
    )
    largest = np.take_along_axis(logits, best[:, None], axis=1).astype(np.float64)
    logs: Array = (logits - largest) - surprisal[0][:, None]
    return logs


def greedy(steps: Steps, max_length: int, *, scored: bool) -> list[Hypothesis]:
    """Choose the most probable token at every step, for every row, up to ``max_length`` tokens.

    Without ``scored`` all scores are 0.
    """
    live = np.arange(len(steps.batch))
    tokens: list[list[int]] = [[] for _ in live]
    totals, counts = np.zeros(len(live)), np.zeros(len(live), np.int64)
    last = None
    for _ in range(max_length):
        logits = steps(last)
        last = logits.argmax(axis=1)
        if scored:
            totals[live] += log_probabilities(logits)[np.arange(len(live)), last]
        counts[live] += 1
        unfinished = np.flatnonzero(last != steps.boundary)
        if len(unfinished) < len(live):
            live, last = live[unfinished], last[unfinished]
            steps.continue_rows(unfinished)
        for row, token in zip(live.tolist(), last.tolist(), strict=True):
            tokens[row].append(token)
        if not len(live):
            break
    return [Hypothesis(*each) for each in zip(tokens, (totals / counts).tolist(), strict=True)]


def beam_search(steps: Steps, max_length: int, width: int) -> list[Hypothesis]:
    """The best of the first ``width`` finished hypotheses of every row.

    Each step considers the 2 * width best continuations of a row's ``width`` hypotheses. Those among the first
    ``width`` that end the sequence are finished; the first ``width`` of the others are continued. At ``max_length``
    the unfinished hypotheses count as finished.
    """
    beams = [_Beam(width, steps.boundary) for _ in range(len(steps.batch))]
    live = beams
    last = None
    for length in range(1, max_length + 1):
        logs = log_probabilities(steps(last))
        size = len(logs) // len(live)  # hypotheses of each beam: 1 at the first step, then `width`
        unfinished: list[_Beam] = []
        rows: list[int] = []
        tokens: list[int] = []
        for number, beam in enumerate(live):
            parents, new_tokens = beam.extend(logs[number * size : (number + 1) * size], length, length == max_length)
            if new_tokens:
                unfinished.append(beam)
                rows += [number * size + parent for parent in parents]
                tokens += new_tokens
        live = unfinished
        if not live:
            break
        steps.continue_rows(np.array(rows, np.int32))
        last = np.array(tokens, np.int32)
    return [max(beam.finished, key=lambda hypothesis: hypothesis.score) for beam in beams]


class _Beam:
    """The hypotheses of one row: unfinished ones, best first, as (log-probability, tokens), and finished ones."""

    def __init__(self, width: int, boundary: int) -> None:
        self.width, self.boundary = width, boundary
        self.unfinished: list[tuple[float, list[int]]] = [(0.0, [])]
        self.finished: list[Hypothesis] = []

    def extend(self, logs: Array, length: int, at_limit: bool) -> tuple[list[int], list[int]]:
        """Append a token to the hypotheses; ``length`` is that of the sequences with it, ``at_limit`` the last one.

        ``logs`` (K, V) are the log-probabilities of the tokens after each of the K unfinished hypotheses. Returns for
        each new hypothesis the index of the one that it extends, and its last token; nothing if the search is over.
        """
        old = self.unfinished
        sums = np.array([total for total, _ in old])[:, None] + logs
        new: list[tuple[float, int, int]] = []  # log-probability, parent, token
        for rank, index in enumerate(_largest(sums.reshape(-1), 2 * self.width)):
            parent, token = divmod(index, logs.shape[1])
            total = float(sums[parent, token])
            if total == -np.inf:
                break
            if token != self.boundary:
                new.append((total, parent, token))
            elif rank < self.width:
                self.finished.append(Hypothesis(old[parent][1], total / length))
        new = new[: self.width]
        if at_limit:
            self.finished += [Hypothesis([*old[p][1], token], total / length) for total, p, token in new]
            return [], []
        if len(self.finished) >= self.width or not new:
            return [], []
        new += [(-np.inf, *new[0][1:])] * (self.width - len(new))  # impossible ones: every beam has the same size
        self.unfinished = [(total, [*old[p][1], token]) for total, p, token in new]
        return [parent for _, parent, _ in new], [token for _, _, token in new]


def _largest(values: Array, count: int) -> list[int]:
    """Indices of the ``count`` largest values (N,) in descending order; of equal values the first."""
    count = min(count, len(values))
    smallest = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= smallest)
    indices: list[int] = candidates[np.argsort(-values[candidates], kind="stable")][:count].tolist()
    return indices
