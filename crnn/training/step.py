# SPDX-License-Identifier: MIT
"""UpdateStep: one update, from the loss of a window through its clipped gradient to the new weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crnn._core import optim as kernels
from crnn.checks import Array, check_finite
from crnn.nn.state import StateLike
from crnn.optim.optimizers import Optimizer, keeps_no_parameters, norm_of
from crnn.optim.schedules import Schedule, schedule_of_epoch
from crnn.training.config import TrainingConfig
from crnn.training.noise import GradientNoise
from crnn.training.protocols import Trainable, note_change, weights_of
from crnn.training.run import Diverged
from crnn.training.shards import Gradients
from crnn.training.sparse import SelectedRows

__all__ = ["UpdateStep"]


def steps_of(x: Any) -> int:
    """T of a window (T, B) of a text, or of the same in shards."""
    return len(x) if isinstance(x, np.ndarray) else len(x[0])


class UpdateStep:
    """Trains a model on one window at a time.

    Parameters
    ----------
    model : Trainable
    optimizer : Optimizer
    config : TrainingConfig
    total : int
        Number of updates of the whole run, for the schedule.
    gradients : Gradients, optional
        What computes the gradient, if not the model.

    Attributes
    ----------
    norm : float
        2-norm of the last gradient, after ``clip_value`` and before ``clip_norm``.
    lr : float
        Learning rate of the last update.
    before_update : callable or None
        Is called before an update changes the weights, when their loss and gradient are known to be finite.
    """

    model: Trainable
    optimizer: Optimizer
    config: TrainingConfig
    total: int
    gradients: Gradients
    workspace: object  # returned by the model's method ``workspace``; None if it has none
    norm: float
    lr: float
    before_update: Callable[[], object] | None
    schedule: Schedule | None

    def __init__(
        self,
        model: Trainable,
        optimizer: Optimizer,
        config: TrainingConfig,
        total: int,
        gradients: Gradients | None = None,
    ) -> None:
        self.model, self.optimizer, self.config, self.total = model, optimizer, config, total
        self.gradients = model if gradients is None else gradients
        new_workspace = getattr(model, "workspace", None)
        self.workspace = None if new_workspace is None else new_workspace()
        # a model need not know precisions
        self._precision = {} if config.precision is None else {"precision": config.precision}
        self._lends_parameters = keeps_no_parameters(optimizer)
        self._selected = SelectedRows.of(model, optimizer, config) if gradients is None else None
        self.norm = 0.0
        self.lr = optimizer.lr
        self.before_update = None
        self.schedule = self._of_run = config.new_schedule()
        self._noise = None if config.gradient_noise is None else GradientNoise(config.gradient_noise, config.seed)

    def begin_epoch(self, epoch: int, valid_losses: Sequence[float]) -> None:
        """Use the schedule of an epoch, counted from 1, after epochs with these validation losses."""
        self.schedule = schedule_of_epoch(self._of_run, epoch, valid_losses)

    def __call__(
        self, x: Any, targets: Any, state: StateLike | None, update: int, epoch: int
    ) -> tuple[float, int, StateLike]:
        """Train on a window. Updates are numbered from 0, epochs from 1.

        Returns what `Trainable.loss_and_gradients` returns. If the loss or the gradient is not finite, raises
        Diverged before the weights are changed.
        """
        grads, threads = self.model.flat_grads, self.config.threads
        if self._selected is not None:
            self._selected.clear(grads, threads)
        elif grads.flags.c_contiguous:
            kernels.clear(grads, threads)
        else:  # those of a user's model
            grads.fill(0)
        loss, count, state = self.gradients.loss_and_gradients(
            x,
            targets,
            state,
            reduction=self.config.reduction,
            threads=threads,
            workspace=self.workspace,
            dropout_seed=[self.config.seed, update],
            **self._precision,
        )
        if self._selected is not None:
            self._selected.take(x)
        self.norm = self._clipped_norm(grads)
        if not (math.isfinite(loss) and math.isfinite(self.norm)):
            problem = f"gradient's norm is {self.norm}" if math.isfinite(loss) else f"loss is {loss / max(count, 1)}"
            raise Diverged(f"{problem} at update {update + 1} (epoch {epoch})")
        if self.before_update is not None:
            self.before_update()
        limit = self.config.clip_norm
        factor = limit / self.norm if limit is not None and self.norm > limit else 1.0
        lr_scale = 1.0 if self.schedule is None else self.schedule(update, self.total)
        if type(lr_scale) is not float or not math.isfinite(lr_scale):
            lr_scale = check_finite("schedule", lr_scale)
        if self.config.random_bptt:
            lr_scale *= steps_of(x) / self.config.bptt
        if self._noise is not None:  # clipping would hide it
            grads *= grads.dtype.type(factor)
            self._noise.add(grads, update)
            factor = 1.0
        self.lr = self.optimizer.lr * lr_scale
        if self._lends_parameters:
            try:  # as `changing` does, which takes another microsecond
                params = weights_of(self.model)
                change = self.optimizer.update if self._selected is None else self._selected.update
                change(params, grads, factor=factor, lr_scale=lr_scale, threads=threads)
            finally:
                note_change(self.model)
        else:  # a user's own, which may keep the array
            self.optimizer.update(self.model.flat_params, grads, factor=factor, lr_scale=lr_scale)
        return loss, count, state

    def _clipped_norm(self, grads: Array) -> float:
        """Clip the elements of the gradient to ``clip_value``. Returns its 2-norm."""
        limit, threads = self.config.clip_value, self.config.threads
        if self._selected is not None:  # there is no limit
            return math.sqrt(self._selected.sum_of_squares(grads, threads))
        norm = norm_of(grads, threads)
        if limit is None or not math.isfinite(norm):  # clipping would hide an infinite element
            return norm
        return norm_of(grads, threads) if kernels.clip(grads, limit, threads) else norm
