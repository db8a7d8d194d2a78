# SPDX-License-Identifier: MIT
"""Losses: what a head's outputs are compared with, and the gradient of it. Thin: the sums are the kernels'."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn._core import loss as kernels
from crnn.cells import Slice
from crnn.text import IGNORE

Array = NDArray[Any]


class Loss(Protocol):
    """A loss of outputs (T, B, V). Each row (t, b) has one number, in nats for the losses of classes."""

    @property
    def outputs(self) -> int:
        """V, the outputs it needs."""
        ...

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        """Targets as the kernels take them, or an error that calls them ``name``."""
        ...

    def count(self, targets: Array, lengths: Array | None) -> float:
        """What the sum of the losses is divided by for their mean."""
        ...

    def last_only(self, targets: Array, lengths: Array | None) -> Array:
        """Targets of which only each sequence's last counts."""
        ...

    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        """losses (T, B), and the gradient of scale * their sum; doutputs may be outputs."""
        ...


class CrossEntropy:
    """Softmax cross-entropy with one class of V for each row: -log softmax(y)[target], in nats.

    A target of `IGNORE` (-1) has no loss.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @property
    def outputs(self) -> int:
        return self.classes

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        array = np.asarray(targets)
        if array.dtype.kind not in "iu" or array.shape != (steps, batch):
            raise ValueError(
                f"{name}: expected integers of shape {(steps, batch)}, got {array.dtype} of shape {array.shape}"
            )
        if array.dtype != np.int32 and (array.min() < IGNORE or array.max() >= self.classes):
            raise ValueError(
                f"{name}: expected ids from 0 to {self.classes - 1}, or {IGNORE} for none, "
                f"got {array.min()} to {array.max()}"
            )
        return np.ascontiguousarray(array, np.int32)  # int32 is checked where it is read

    def count(self, targets: Array, lengths: Array | None) -> float:
        return int(np.count_nonzero(targets != IGNORE))

    def last_only(self, targets: Array, lengths: Array | None) -> Array:
        return np.where(is_last(targets, lengths), targets, np.int32(IGNORE))

    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        kernels.softmax_cross_entropy(losses, doutputs, outputs, targets, scale, IGNORE, part.b0, part.b1)


def is_last(targets: Array, lengths: Array | None) -> Array:
    """bool (T, B): each sequence's last step."""
    T, B = targets.shape[:2]
    last = np.full(B, T) if lengths is None else np.asarray(lengths)
    flags: Array = np.arange(1, T + 1)[:, None] == last
    return flags
