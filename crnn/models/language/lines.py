# SPDX-License-Identifier: MIT
"""LineLearner: a language model that learns the lines of a log after it has scored them, but for unusual ones."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn._core import optim as kernels
from crnn._options import check_options, option
from crnn.checks import Array, Ids, check_probability, check_size
from crnn.models.language.rates import fresh_optimizer
from crnn.nn.learning.config import LearnerConfig
from crnn.optim.anchored import AnchoredUpdate
from crnn.text.windows import IGNORE_INDEX

__all__ = ["DEFAULTS", "OPTIONS", "LineLearner", "LinesConfig", "RecentScores"]

# Options of a learner that mean something here, and defaults that differ from a learner's.
OPTIONS = ("optimizer", "lr", "clip_norm", "clip_value", "decay", "max_change")
DEFAULTS: dict[str, Any] = {"optimizer": "adam", "lr": 2e-3, "max_change": 0.5}

LONGEST = 512  # tokens of a line that are learnt: memory grows with them


@dataclass(frozen=True, kw_only=True)
class LinesConfig:
    """Which lines are learnt, and when, checked."""

    every: int = option(
        32,
        check=check_size,
        help="Lines that are learnt by one update.",
        flag="--every",
    )
    skip: float = option(
        0.01,
        check=check_probability,
        help="Share of the last lines, those with the highest scores, that are not learnt, in [0, 1).",
        flag="--skip",
    )
    recent: int = option(
        3000,
        check=check_size,
        help="Lines that a score is compared with. The first tenth of so many is not learnt.",
        flag="--recent",
    )

    def __post_init__(self) -> None:
        check_options(self)


class RecentScores:
    """Tells unusual scores: those that are among the highest of the last ones.

    The rule has no scale and no threshold that could be wrong. Whatever happens, all but a share ``skip`` of the lines
    are usual; so what was unusual and becomes frequent, as everything does after a change, becomes usual when there
    have been more than ``skip * recent`` lines of it among the last ``recent``.

    Examples
    --------
    >>> scores = RecentScores(skip=0.1, recent=20)
    >>> usual = [scores.add(1.0 + i % 5) for i in range(20)]
    >>> scores.add(9.0), scores.add(9.5), scores.add(8.8), scores.add(2.0)
    (False, False, True, True)
    """

    count: int

    def __init__(self, skip: float, recent: int) -> None:
        self._skip, self._recent, self._first = skip, recent, recent // 10
        self._scores: deque[float] = deque()
        self._sorted: list[float] = []
        self.count = 0  # scores so far

    def add(self, score: float) -> bool:
        """Add a score. Returns whether it is usual; of the first tenth of ``recent`` scores none is."""
        if len(self._scores) == self._recent:
            del self._sorted[bisect_left(self._sorted, self._scores.popleft())]
        self._scores.append(score)
        insort(self._sorted, score)
        self.count += 1
        as_high = len(self._sorted) - bisect_left(self._sorted, score)
        return self.count > self._first and as_high > self._skip * len(self._sorted)


class LineLearner:
    """A copy of a language model that learns lines, each from the initial state, after they were scored.

    Lines are scored with `model`, and then passed to `add` in their order, with their scores. Usual ones
    (`RecentScores`) are collected; ``every`` of them are learnt by one update, from the gradient of the mean loss of
    their tokens. Others are not learnt. So a score never depends on the line itself or on later lines. What is learnt
    does not depend on how many lines are scored at once, if these are at most `room`.

    Parameters
    ----------
    model : LanguageModel
        Is copied; never changes.
    lines : LinesConfig
    config : LearnerConfig
        Of these, `OPTIONS` and ``threads`` are used.
    anchor : LanguageModel, optional
        The model near which the weights are held, of the same shape, if not ``model`` itself.

    Attributes
    ----------
    model : LanguageModel
        The copy, with the current weights.
    learnt, unusual, updates : int
        Lines that were collected or learnt, lines that were not, and updates so far.
    """

    model: Any
    lines: LinesConfig
    config: LearnerConfig
    learnt: int
    unusual: int
    updates: int

    def __init__(self, model: Any, lines: LinesConfig, config: LearnerConfig, anchor: Any = None) -> None:
        model.check_trainable()
        self.lines, self.config = lines, config
        self.model = model._changed(model._parameters.read_only())
        self._parameters = self.model._parameters
        self._update = AnchoredUpdate(
            self._parameters.flat,
            fresh_optimizer(config),
            clip_norm=config.clip_norm,
            clip_value=config.clip_value,
            decay=config.decay,
            max_change=config.max_change,
            anchor=None if anchor is None else _weights_like(model, anchor),
            threads=config.threads,
        )
        self._scores = RecentScores(lines.skip, lines.recent)
        self._collected: list[Ids] = []
        self._workspace = self.model.workspace()
        self.learnt = self.unusual = self.updates = 0

    @property
    def room(self) -> int:
        """Lines that may be scored before the next update may be due."""
        return self.lines.every - len(self._collected)

    def add(self, ids: Ids, score: float) -> bool:
        """Add a line (N,), with what precedes it, and its score. Returns whether it is learnt, now or later.

        One whose score is not finite is not learnt, and no other one is compared with it.
        """
        usual = math.isfinite(score) and self._scores.add(score)
        if not usual or len(ids) < 2:
            self.unusual += not usual
            return False
        self.learnt += 1
        self._collected.append(ids[: LONGEST + 1].copy())
        if len(self._collected) == self.lines.every:
            self._learn()
        return True

    def finish(self) -> None:
        """Learn the lines that have been collected since the last update, if there are any."""
        if self._collected:
            self._learn()

    def _learn(self) -> None:
        x, targets = _padded(self._collected)
        self._collected.clear()
        grads, threads = self._parameters.flat_grads, self.config.threads
        kernels.clear(grads, threads)
        self.model.loss_and_gradients(x, targets, threads=threads, workspace=self._workspace)
        if self._update(self._parameters.flat, grads):
            self.updates += 1
            self._parameters.changed()


def _padded(sequences: Sequence[Ids]) -> tuple[Ids, Array]:
    """Inputs and targets (T, B) of sequences (N_i,), the targets of padding being ignored."""
    longest = max(map(len, sequences)) - 1
    x = np.zeros((longest, len(sequences)), np.int32)
    targets = np.full(x.shape, IGNORE_INDEX, np.int32)
    for column, ids in enumerate(sequences):
        x[: len(ids) - 1, column] = ids[:-1]
        targets[: len(ids) - 1, column] = ids[1:]
    return x, targets


def _weights_like(model: Any, anchor: Any) -> Array:
    """The weights of a model that must have the shape of another one. Raises ValueError."""
    if type(anchor) is not type(model):
        raise ValueError(f"anchor: expected a model like {model!r}, got {anchor!r}")
    if anchor.vocab != model.vocab:
        missing = [token for token in model.vocab.tokens if token not in anchor.vocab]
        without = f", without {', '.join(map(repr, missing[:5]))}" if missing else ""
        raise ValueError(f"anchor: expected the model's vocabulary, {model.vocab!r}, got {anchor.vocab!r}{without}")
    here, there = model.config(), anchor.config()
    for name in dict.fromkeys([*here, *there]):
        if here.get(name) != there.get(name):
            raise ValueError(
                f"anchor: expected {name}={here.get(name)!r:.100}, as in the model, got {there.get(name)!r:.100}"
            )
    weights: Array = anchor._parameters.flat
    return weights
