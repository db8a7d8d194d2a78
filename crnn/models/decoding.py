# SPDX-License-Identifier: MIT
"""Decoding sequences from a first state, token by token: greedily, or by beam search. For SequenceToSequence.

Every row is computed independently, so results do not depend on what else is in the batch. Ties go to the smaller
token, and before that to the hypothesis that was better so far.
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
    """A sequence without its end, and its score: mean log-probability of a token, the end included, in nats."""

    tokens: list[int]
    score: float


class Steps:
    """The decoder one step at a time, for a batch of rows; ``mark`` is the token that starts and ends sequences."""

    def __init__(self, weights: StreamWeights, start: StateLike, rows: int, mark: int) -> None:
        self.batch: StreamBatch = StreamBatch(weights, rows)
        self.batch.set_states(start)
        self.mark: int = mark
        self.first: Array = np.full(rows, mark, np.int32)

    def __call__(self, tokens: Array | None) -> Array:
        """Logits (B, V) of what follows the tokens (B,), or of what comes first."""
        return self.batch.step(self.first if tokens is None else tokens)

    def continue_rows(self, rows: Array) -> None:
        """Row i of the next step continues from where row ``rows[i]`` of the last step stands."""
        self.batch.select(rows)


def log_probabilities(logits: Array) -> Array:
    """log softmax of logits (B, V), in float64."""
    best = logits.argmax(axis=1)
    surprisal = np.empty((1, len(logits)), logits.dtype)  # of the likeliest
    kernels.softmax_cross_entropy(
        surprisal, None, logits[None], best.astype(np.int32)[None], 1.0, IGNORE_INDEX, 0, len(logits)
    )
    largest = np.take_along_axis(logits, best[:, None], axis=1).astype(np.float64)
    logs: Array = (logits - largest) - surprisal[0][:, None]
    return logs


def greedy(steps: Steps, max_length: int, *, scored: bool) -> list[Hypothesis]:
    """The likeliest token each time, for every row. Scores are 0 unless asked for."""
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
        unfinished = np.flatnonzero(last != steps.mark)
        if len(unfinished) < len(live):
            live, last = live[unfinished], last[unfinished]
            steps.continue_rows(unfinished)
        for row, token in zip(live.tolist(), last.tolist(), strict=True):
            tokens[row].append(token)
        if not len(live):
            break
    return [Hypothesis(*each) for each in zip(tokens, (totals / counts).tolist(), strict=True)]


def beam_search(steps: Steps, max_length: int, width: int) -> list[Hypothesis]:
    """The best of the first ``width`` hypotheses that come to their end, for every row.

    Each step looks at the 2 * width best continuations of the ``width`` hypotheses: those among the first ``width``
    that end are finished, the first ``width`` that do not end are continued. Hypotheses that are unfinished at
    ``max_length`` count as they are.
    """
    live = list(range(len(steps.batch)))
    finished: list[list[Hypothesis]] = [[] for _ in live]
    hypotheses: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in live]
    last = None
    for length in range(1, max_length + 1):
        logs = log_probabilities(steps(last))
        vocab, before = logs.shape[1], len(logs) // len(live)
        unfinished, rows, follow = [], [], []
        for number, sequence in enumerate(live):
            old = hypotheses[sequence]
            sums = np.array([total for total, _ in old])[:, None] + logs[number * before : (number + 1) * before]
            new = []
            for rank, index in enumerate(_largest(sums.reshape(-1), 2 * width)):
                parent, token = divmod(index, vocab)
                total = float(sums[parent, token])
                if total == -np.inf:
                    break
                if token != steps.mark:
                    new.append((total, parent, token))
                elif rank < width:
                    finished[sequence].append(Hypothesis(old[parent][1], total / length))
            new = new[:width]
            if length == max_length:
                finished[sequence] += [Hypothesis([*old[p][1], token], total / length) for total, p, token in new]
            elif len(finished[sequence]) < width and new:
                new += [(-np.inf, *new[0][1:])] * (width - len(new))  # dead: there are fewer continuations than that
                hypotheses[sequence] = [(total, [*old[p][1], token]) for total, p, token in new]
                unfinished.append(sequence)
                rows += [number * before + parent for _, parent, _ in new]
                follow += [token for _, _, token in new]
        live = unfinished
        if not live:
            break
        steps.continue_rows(np.array(rows, np.int32))
        last = np.array(follow, np.int32)
    return [max(each, key=lambda written: written.score) for each in finished]


def _largest(values: Array, count: int) -> list[int]:
    """Places of the largest, in falling order; of equal ones the first."""
    count = min(count, len(values))
    smallest = np.partition(values, len(values) - count)[len(values) - count]
    places = np.flatnonzero(values >= smallest)
    chosen: list[int] = places[np.argsort(-values[places], kind="stable")][:count].tolist()
    return chosen
