# SPDX-License-Identifier: MIT
"""Run: everything that changes while training, which is what a checkpoint stores."""

from __future__ import annotations

from crnn.checks import Array
from crnn.nn.state import StateLike
from crnn.optim import Optimizer
from crnn.training.log import TrainingLog
from crnn.training.protocols import Evaluation, Trainable

__all__ = ["Run"]


class Run:
    """The state of a training run.

    Attributes
    ----------
    model, optimizer, log
        Changed by every update.
    cut : dict of str to int
        How an epoch is split into windows, for which ``position`` is valid: windows, batch_size, bptt.
    best : array
        The weights of the best epoch so far; the initial weights until an epoch has been evaluated.
    update : int
        Number of updates done.
    position : int
        Number of windows done in the current epoch.
    state
        State after the last of these windows. None: the next window starts from the initial state.
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
        """Continue with the first window of the next epoch, from the initial state."""
        self.position, self.state = 0, None

    def record_validation(self, evaluation: Evaluation) -> None:
        """Log an evaluation of the current weights, and store them in `best` if they are the best so far."""
        if self.log.add_validation(evaluation.loss, evaluation.accuracy):
            self.best[...] = self.model.flat_params

    def restore_best(self) -> None:
        """Set the model's weights to those of the best epoch, if any epoch was evaluated."""
        if self.log.best is not None:
            self.model.flat_params[...] = self.best
