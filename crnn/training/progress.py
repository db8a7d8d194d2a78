# SPDX-License-Identifier: MIT
"""Progress: how far a run has come, for callbacks; Figures: the same for reporters; Pace: the time that is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crnn._float_mode import in_host_mode
from crnn.training.entries import Entry
from crnn.training.log import TrainingLog
from crnn.training.protocols import Trainable

__all__ = ["Callback", "Figures", "Pace", "Progress", "Sums", "asks_to_stop"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What ``on_update`` and ``on_epoch`` of `crnn.fit` are called with.

    Attributes
    ----------
    model
        The model that is trained, with its current weights.
    log : TrainingLog
        In ``on_epoch`` its last epoch is ``log.last``.
    epoch : int
        Number of the epoch that is under way, or in ``on_epoch`` has just ended, from 1.
    epochs : int
        Number of epochs of the whole run.
    update : int
        Number of updates done.
    updates : int
        Number of updates of the whole run.
    loss : float
        Mean training loss per target of the last update, or in ``on_epoch`` of the epoch.
    valid_loss : float or None
        Validation loss after the epoch; None in ``on_update`` and without validation data.
    lr : float
        Learning rate of the last update.
    grad_norm : float
        2-norm of the last gradient, after ``clip_value`` and before ``clip_norm``.
    """

    model: Trainable
    log: TrainingLog
    epoch: int
    epochs: int
    update: int
    updates: int
    loss: float
    valid_loss: float | None
    lr: float
    grad_norm: float


Callback = Callable[[Progress], bool | None]


def asks_to_stop(name: str, callback: Callback, progress: Progress) -> bool:
    """Call the callback of this name. Returns whether it returned True; raises TypeError for other values."""
    answer = in_host_mode(callback, progress)
    if answer is None or isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise TypeError(
        f"{name}: expected a function that returns True to stop training, or False or None to continue, got "
        f"{answer!r:.100}"
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What reporters show.

    Attributes
    ----------
    epoch, epochs, update, updates : int
        As in `Progress`.
    loss, speed : float or None
        Mean loss, and targets per second, over the last updates; None before the first one.
    counted : str
        What targets are: tokens of a text, or targets.
    grad_norm : float or None
        Of the last update.
    best : dict or None
        The epoch entry with the lowest validation loss.
    seconds : float
        Since the run was started or resumed.
    left : float or None
        Seconds until the last update at the present pace; None: unknown.
    at_most : bool
        Whether training may stop earlier, because validation losses no longer fall.
    evaluating : bool
        Whether the model is being evaluated, after an epoch.
    ended : str
        Why training has ended, such as "finished" or "stopped early"; empty while training continues.
    """

    epoch: int
    epochs: int
    update: int
    updates: int
    loss: float | None
    speed: float | None
    counted: str
    grad_norm: float | None
    best: Entry | None
    seconds: float
    left: float | None
    at_most: bool = False
    evaluating: bool = False
    ended: str = ""


class Pace:
    """The time that is left, from the recent pace: the last quarter of the run, but at least half a minute.

    Times of validation and of checkpoints count, because there will be more of them.
    """

    SHORTEST = 30.0  # seconds

    def __init__(self, update: int, now: float) -> None:
        self._started = self._now = now
        self._update = update
        self._updates = self._seconds = 0.0  # sums in which older ones count less

    def left(self, update: int, updates: int, now: float) -> float | None:
        """Seconds until the last of all updates; None before any was done."""
        passed = now - self._now
        if passed > 0:
            kept = math.exp(-passed / max(self.SHORTEST, (now - self._started) / 4))
            self._updates = self._updates * kept + update - self._update
            self._seconds = self._seconds * kept + passed
            self._now, self._update = now, update
        return None if self._updates <= 0 else (updates - update) * self._seconds / self._updates


class Sums:
    """Sum of the losses and number of targets since the last entry of the log."""

    def __init__(self) -> None:
        self.loss: float = 0.0
        self.count: int = 0
        self.started: float = time.perf_counter()
