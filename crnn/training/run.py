# SPDX-License-Identifier: MIT
"""Run: everything that changes while training, which is what a checkpoint stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from crnn.array_input import is_finite
from crnn.checks import Array
from crnn.nn.state import StateLike
from crnn.optim import Optimizer
from crnn.training.averaging import WeightAverage
from crnn.training.log import TrainingLog
from crnn.training.protocols import Evaluation, Trainable, changing, weights_of

__all__ = ["Diverged", "Run"]

MOST_RECORDS = 100  # of runs that a model keeps: some programs call fit for every new sample


class Diverged(FloatingPointError):
    """The loss, the gradient or the weights are NaN or infinite."""


class Run:
    """The state of a training run.

    Attributes
    ----------
    model, optimizer, log
        Changed by every update.
    cut : dict of str to int
        How an epoch is split into windows, for which ``position`` is valid: windows, batch_size, bptt.
    best : array
        The weights to keep: those of the best epoch so far; until one has been evaluated, those after the last epoch
        that gave a finite loss, at first the initial ones.
    best_epoch : int
        The epoch that they are of; 0 for the initial ones.
    earlier_runs : tuple of dict
        The records of runs that have trained the model before this one.
    test : Evaluation or None
        Of the weights to keep, on test data, when training is finished.
    rollbacks : int
        How often the run has returned to ``best``.
    average : WeightAverage or None
        Of the weights, if they are averaged; it is evaluated and kept in place of the current weights.
    unconfirmed : bool
        Whether the weights are those after an epoch that has not been evaluated, and their loss is not known yet.
    judged : bool
        Whether an epoch has been evaluated, so that ``best`` is of that epoch.
    update : int
        Number of updates done.
    position : int
        Number of windows done in the current epoch.
    carries_state : bool
        Whether each window of an epoch continues from the state after the previous one.
    state
        State after the last of these windows. None: the next window starts from the initial state.
    """

    model: Trainable
    optimizer: Optimizer
    log: TrainingLog
    cut: dict[str, int]
    carries_state: bool
    best: Array  # (n,), like the model's flat_params
    best_epoch: int
    earlier_runs: tuple[Mapping[str, Any], ...]
    test: Evaluation | None
    rollbacks: int
    average: WeightAverage | None
    unconfirmed: bool
    judged: bool
    update: int
    position: int
    state: StateLike | None

    def __init__(
        self, model: Trainable, optimizer: Optimizer, log: TrainingLog, cut: dict[str, int], *, carries_state: bool
    ) -> None:
        self.model, self.optimizer, self.log, self.cut = model, optimizer, log, cut
        self.carries_state = carries_state
        self.best = weights_of(model).copy()
        self.best_epoch = 0
        self.judged = False
        self.test = None
        self.earlier_runs = getattr(model, "training_runs", ())
        self._resumed: tuple[int, Mapping[str, Any]] | None = None  # update and record in the checkpoint
        self.rollbacks = 0
        self.average = None
        self.unconfirmed = False
        self.update = 0
        self.position = 0
        self.state = None

    def end_epoch(self) -> None:
        """Continue with the first window of the next epoch, from the initial state."""
        self.position, self.state = 0, None

    def check_weights(self) -> None:
        """Raise Diverged unless all weights are finite."""
        if not is_finite(weights_of(self.model)):
            raise Diverged(f"weights are NaN or infinite after update {self.update} (epoch {self.log.epochs + 1})")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the model has the average of its weights, if there is one."""
        average = None if self.average is None else self.average.array
        if average is None:
            yield
            return
        current = weights_of(self.model).copy()
        try:
            with changing(self.model) as weights:
                weights[...] = average
            yield
        finally:
            with changing(self.model) as weights:
                weights[...] = current

    def kept(self) -> Array:
        """The weights to keep now: those of the best epoch, or the latest if none was evaluated. Borrowed."""
        if self.judged:
            return self.best
        average = None if self.average is None else self.average.array
        return weights_of(self.model) if average is None else average

    def record_validation(self, evaluation: Evaluation | None) -> None:
        """Log an evaluation of the current weights, None if there is none. Keep them if they are the best so far."""
        if evaluation is None:
            self.unconfirmed = True
        elif self.log.add_validation(evaluation.loss, evaluation.accuracy):
            self.best[...] = weights_of(self.model)
            self.best_epoch, self.judged = self.log.epochs + 1, True

    def confirm(self) -> None:
        """The current weights gave a finite loss and gradient: keep them if they are those after an epoch."""
        if self.unconfirmed and not self.judged:
            self.best[...] = self.kept()
            self.best_epoch = self.log.epochs
        self.unconfirmed = False

    def keep_best(self) -> None:
        """Set the model's weights to those of the best epoch; if there is none, to finite ones."""
        kept = self.kept() if is_finite(self.kept()) else self.best
        if kept is not weights_of(self.model):
            with changing(self.model) as weights:
                weights[...] = kept

    def resume_records(self, records: tuple[Mapping[str, Any], ...]) -> None:
        """Set the records from those in a checkpoint, of which the last is that of this run."""
        self.earlier_runs, self._resumed = records[:-1], (self.update, records[-1]) if records else None

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Set the model's `Module.training_runs`: the earlier ones and this one, if there was an update."""
        if self._resumed is not None and self._resumed[0] == self.update:  # what is given now trained nothing
            before = self._resumed[1]
            record = {**record, **{name: before[name] for name in ("crnn", "settings", "command") if name in before}}
        if self.update:
            self.model.training_runs = (*self.earlier_runs, record)[-MOST_RECORDS:]

    def roll_back(self) -> str:
        """Return to `best`, with an optimizer without history, at the beginning of the current epoch.

        Training that has diverged cannot be resumed from where it is: the same windows would give the same NaN. Returns
        which weights these are.
        """
        with changing(self.model) as weights:
            weights[...] = self.best
        if self.average is not None:
            self.average.reset()
        self.rollbacks += 1
        self.unconfirmed = False
        self.optimizer.reset()
        self.update -= self.position
        self.end_epoch()
        if self.judged:
            return f"those of the best epoch, {self.best_epoch}"
        return f"those after epoch {self.best_epoch}" if self.best_epoch else "the initial ones"
