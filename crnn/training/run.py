# SPDX-License-Identifier: MIT
"""Run: what changes while training, which is all that a checkpoint has to hold."""

from __future__ import annotations

from crnn.checks import Array
from crnn.nn.state import StateLike
from crnn.optim import Optimizer
from crnn.training.log import TrainingLog
from crnn.training.protocols import Evaluation, Trainable

__all__ = ["Run"]


class Run:
    """A training as far as it has come.

    Attributes
    ----------
    model, optimizer, log
        Changed by every update.
    cut : dict of str to int
        How an epoch is cut into windows: what a position within it refers to.
    best : array
        The weights of the best epoch so far; those at the start until an epoch has been evaluated.
    update : int
        Updates done.
    position : int
        Windows done in the current epoch.
    state
        After the last of these windows; None: the next one starts from the initial state.
    """

    model: Trainable
    optimizer: Optimizer
    log: TrainingLog
    cut: dict[str, int]
    best: Array  # (n,), like the model's flat_params
    update: int
    position: int
    state: StateLike | None

    def __init__(self, model: Trainable, optimizer: Optimizer, log: TrainingLog, cut: dict[str, int]) -> None:
        self.model, self.optimizer, self.log, self.cut = model, optimizer, log, cut
        self.best = model.flat_params.copy()
        self.update = 0
        self.position = 0
        self.state = None

    def end_epoch(self) -> None:
        """All windows have been read: the next epoch starts from the first, with a fresh state."""
        self.position, self.state = 0, None

    def record_validation(self, evaluation: Evaluation) -> None:
        """Log an evaluation of the weights as they are, and keep them if they are the best so far."""
        if self.log.add_validation(evaluation.loss, evaluation.accuracy):
            self.best[...] = self.model.flat_params

    def restore_best(self) -> None:
        """Put the weights of the best epoch back into the model, if any epoch was evaluated."""
        if self.log.best is not None:
            self.model.flat_params[...] = self.best
