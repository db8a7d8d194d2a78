# SPDX-License-Identifier: MIT
"""Writing sequences from a first state, token by token: greedily, or by beam search. For SequenceToSequence.

Every row is computed by itself, so that what is written does not depend on what else is in the batch. Ties go to the
smaller token, and before that to the hypothesis that was better so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crnn._core import loss as kernels
from crnn.checks import Array
from crnn.models.predictor import Predictor, Workspace
from crnn.nn.state import State
from crnn.text.windows import IGNORE_INDEX


@dataclass(frozen=True)
class Hypothesis:
    """A sequence without its end, and its score: mean log-probability of a token, the end included, in nats."""

    tokens: list[int]
    score: float


class Steps:
    """The decoder one step at a time, for B rows; ``mark`` is the token that begins and ends sequences."""

    def __init__(self, predictor: Predictor, before: State, mark: int, threads: int) -> None:
        self.predictor, self.mark, self.threads = predictor, mark, threads
        self._begin(before)

    def _begin(self, before: State) -> None:
        self.tokens = np.full((1, before.batch), self.mark, np.int32)
        self.tape, self.head = self.predictor.start(self.tokens, before.value, Workspace(), threads=self.threads)

    def __call__(self, tokens: Array | None) -> Array:
        """Logits (B, V) of what follows the tokens (B,), or of what comes first."""
        if tokens is not None:
            self.tokens[0] = tokens
        self.predictor.forward(self.tape, self.head, None)
        logits: Array = self.head.outputs[0]
        return logits

    def continue_rows(self, rows: Array) -> None:
        """The next step's rows continue these of the last step."""
        after = self.tape.after
        before = self.tape.before if len(rows) == after.batch else self.predictor.net.stack.new_state(len(rows))
        for (_, own), (_, theirs) in zip(before.parts, after.parts, strict=True):
            for mine, values in zip(own, theirs, strict=True):
                np.take(values, rows, axis=0, out=mine)
        if before is not self.tape.before:
            self._begin(before)


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
    live = np.arange(steps.tape.batch)
    tokens: list[list[int]] = [[] for _ in live]
    totals, counts = np.zeros(len(live)), np.zeros(len(live), np.int64)
    last = None
    for _ in range(max_length):
        logits = steps(last)
        last = logits.argmax(axis=1)
        if scored:
            totals[live] += log_probabilities(logits)[np.arange(len(live)), last]
        counts[live] += 1
        going = np.flatnonzero(last != steps.mark)
        live, last = live[going], last[going]
        for row, token in zip(live.tolist(), last.tolist(), strict=True):
            tokens[row].append(token)
        if not len(live):
            break
        steps.continue_rows(going)
    return [Hypothesis(*each) for each in zip(tokens, (totals / counts).tolist(), strict=True)]


def beam_search(steps: Steps, max_length: int, width: int) -> list[Hypothesis]:
    """The best of the first ``width`` hypotheses that come to their end, for every row.

    Each step looks at the 2 * width best continuations of the ``width`` hypotheses: those among the first ``width``
    that end are finished, the first ``width`` that do not end go on. What still goes on at ``max_length`` counts as
    it is.
    """
    live = list(range(steps.tape.batch))
    finished: list[list[Hypothesis]] = [[] for _ in live]
    hypotheses: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in live]
    last = None
    for length in range(1, max_length + 1):
        logs = log_probabilities(steps(last))
        vocab, before = logs.shape[1], len(logs) // len(live)
        going, rows, follow = [], [], []
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
                going.append(sequence)
                rows += [number * before + parent for _, parent, _ in new]
                follow += [token for _, _, token in new]
        live = going
        if not live:
            break
        steps.continue_rows(np.array(rows))
        last = np.array(follow, np.int32)
    return [max(each, key=lambda written: written.score) for each in finished]


def _largest(values: Array, count: int) -> list[int]:
    """Places of the largest, in falling order; of equal ones the first."""
    count = min(count, len(values))
    smallest = np.partition(values, len(values) - count)[len(values) - count]
    places = np.flatnonzero(values >= smallest)
    chosen: list[int] = places[np.argsort(-values[places], kind="stable")][:count].tolist()
    return chosen
