# SPDX-License-Identifier: MIT
"""HeadReadout: the head of a model and its loss, for a learner."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crnn._core import gemm
from crnn.checks import Array
from crnn.models.outputs.head import Head, HeadTape
from crnn.models.outputs.losses import CrossEntropy, Loss, RealTargets
from crnn.nn.slices import Slice
from crnn.nn.tape import Tape
from crnn.text.windows import IGNORE_INDEX

__all__ = ["HeadReadout"]


class HeadReadout:
    """A head that gives an output for every step, see `crnn.nn.learning.readout.Readout`.

    Parameters
    ----------
    values, grads : mapping of str to array
        The model's parameters and gradients by name; borrowed.
    loss : Loss
    tie_weights : bool
    """

    rows: int

    def __init__(
        self, values: Mapping[str, Array], grads: Mapping[str, Array], loss: Loss, *, tie_weights: bool = False
    ) -> None:
        self._head = Head(values, grads, loss, tie_weights=tie_weights)  # without pooling: the last step so far is read
        self._loss = loss
        self._missing = IGNORE_INDEX if isinstance(loss, CrossEntropy) else np.nan
        self.rows = len(self._head.w)

    def new_tape(self, tape: Tape) -> HeadTape:
        return self._head.new_tape(tape)

    def new_targets(self, steps: int, batch: int) -> Array:
        loss = self._loss
        if isinstance(loss, RealTargets):
            targets: Array = gemm.aligned_empty((steps, batch, loss.targets), self._head.dtype)
        else:
            targets = gemm.aligned_empty((steps, batch), "int32")
        self.set_missing(targets)
        return targets

    def set_missing(self, targets: Array) -> None:
        targets.fill(self._missing)

    def check_targets(self, name: str, targets: Array) -> None:
        self._loss.check(name, targets, targets.shape[0], targets.shape[1], self._head.dtype)

    def weight(self, targets: Array) -> float:
        return self._loss.weight(targets)

    def pack(self, own: HeadTape) -> None:
        self._head.pack_forward(own)
        self._head.pack_backward(own)

    def share_packed(self, own: HeadTape, other: HeadTape) -> None:
        own.weights, own.weights_t = other.weights, other.weights_t

    def forward(self, own: HeadTape, y: Array, t0: int, t1: int, part: Slice) -> None:
        assert own.weights is not None  # it is not blocked
        gemm.linear_forward(own.outputs[t0:t1], y[t0:t1], own.weights, self._head.b_y, part.b0, part.b1)

    def outputs(self, own: HeadTape, tape: Tape) -> Array:
        return own.outputs

    def losses(self, own: HeadTape) -> Array:
        return own.losses

    def forward_losses(self, own: HeadTape, targets: Array, t0: int, t1: int, part: Slice) -> None:
        self._loss.run(own.losses[t0:t1], None, own.outputs[t0:t1], targets[t0:t1], 1.0, part)

    def backward(self, own: HeadTape, tape: Tape, targets: Array, scale: float, part: Slice) -> None:
        self._head.backward_rows(own, tape.dy, targets, scale, part)

    def weight_gradients(self, own: HeadTape, tape: Tape, scratch: Array, part: int, parts: int) -> None:
        self._head.weight_gradients(own, tape.y, scratch, part, parts, None)
