# SPDX-License-Identifier: MIT
"""Losses: what a head's outputs are compared with, and the gradient of it. Thin: the sums are the kernels'."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import loss as kernels
from crnn.checks import Array
from crnn.nn.cells import Slice
from crnn.text.windows import IGNORE_INDEX


class Loss(ABC):
    """A loss of outputs (T, B, V): one number for every row (t, b), the sum over what the row predicts.

    Attributes
    ----------
    outputs : int
        V, the outputs it needs.
    """

    outputs: int

    @abstractmethod
    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        """Targets as the kernels take them, or an error that calls them ``name``."""

    @abstractmethod
    def count(self, targets: Array) -> int:
        """How many predictions the targets ask for."""

    def weight(self, targets: Array) -> float:
        """What the sum of the losses is divided by for their mean."""
        return float(self.count(targets))

    @abstractmethod
    def keep_only(self, targets: Array, wanted: Array) -> Array:
        """Targets without those where ``wanted`` (T, B) is False."""

    @abstractmethod
    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        """losses (T, B), and the gradient of scale * their sum; doutputs may be outputs."""


def check_weights(weights: ArrayLike | None, size: int) -> Array | None:
    """A weight for each class, in float64."""
    if weights is None:
        return None
    try:
        array = np.ascontiguousarray(weights, np.float64)
    except (TypeError, ValueError, OverflowError):  # no numbers
        array = np.empty(0)
    if array.shape != (size,) or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"class_weight: expected {size} numbers of at least 0, got {weights!r:.200}")
    return array


class CrossEntropy(Loss):
    """Softmax cross-entropy with one class of V for each row: -log softmax(y)[target], in nats.

    A target of `IGNORE_INDEX` (-1) has no loss. Weights and smoothing are those of PyTorch's ``cross_entropy``: the
    mean is weighted, and a share ``smoothing`` of the target is spread over all classes.
    """

    def __init__(self, classes: int, weights: ArrayLike | None = None, smoothing: float = 0.0) -> None:
        self.outputs = classes
        self.weights = check_weights(weights, classes)
        if not isinstance(smoothing, int | float) or not 0 <= smoothing < 1:
            raise ValueError(f"label_smoothing: expected a number of at least 0 and below 1, got {smoothing!r}")
        self.smoothing = float(smoothing)

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        array = np.asarray(targets)
        if array.dtype.kind not in "iu" or array.shape != (steps, batch):
            raise ValueError(
                f"{name}: expected integers of shape {(steps, batch)}, got {array.dtype} of shape {array.shape}"
            )
        if array.dtype != np.int32 and (array.min() < IGNORE_INDEX or array.max() >= self.outputs):
            raise ValueError(
                f"{name}: expected ids from 0 to {self.outputs - 1}, or {IGNORE_INDEX} for none, "
                f"got {array.min()} to {array.max()}"
            )
        return np.ascontiguousarray(array, np.int32)  # int32 is checked where it is read

    def count(self, targets: Array) -> int:
        return int(np.count_nonzero(targets != IGNORE_INDEX))

    def weight(self, targets: Array) -> float:
        if self.weights is None:
            return float(self.count(targets))
        return kernels.sum(self.weights[targets[targets != IGNORE_INDEX]])

    def keep_only(self, targets: Array, wanted: Array) -> Array:
        return np.where(wanted, targets, np.int32(IGNORE_INDEX))

    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        weights = None if self.weights is None else self.weights.astype(outputs.dtype)
        kernels.softmax_cross_entropy(
            losses,
            doutputs,
            outputs,
            targets,
            scale,
            IGNORE_INDEX,
            part.b0,
            part.b1,
            part.lengths,
            weights,
            self.smoothing,
        )


class RealTargets(Loss):
    """What losses with real targets (T, B, N) share. NaN: no target there."""

    targets: int  # N

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        array = np.asarray(targets)
        if array.dtype.kind not in "fiub" or array.shape != (steps, batch, self.targets):
            raise ValueError(
                f"{name}: expected numbers of shape {(steps, batch, self.targets)}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        return np.ascontiguousarray(array, dtype)

    def count(self, targets: Array) -> int:
        return targets.size - int(np.count_nonzero(np.isnan(targets)))

    def keep_only(self, targets: Array, wanted: Array) -> Array:
        return np.where(wanted[:, :, None], targets, targets.dtype.type(np.nan))


class BinaryCrossEntropy(RealTargets):
    """V yes-or-no questions for each row: the sum of -log(probability given to the answer), in nats.

    Targets lie between 0 (no) and 1 (yes). ``weights``: what a yes of each question weighs.
    """

    def __init__(self, questions: int, weights: ArrayLike | None = None) -> None:
        self.outputs = self.targets = questions
        self.weights = check_weights(weights, questions)

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        array = super().check(name, targets, steps, batch, dtype)
        if ((array < 0) | (array > 1)).any():
            raise ValueError(f"{name}: expected numbers from 0 to 1, or NaN, got {array.min()} to {array.max()}")
        return array

    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        weights = None if self.weights is None else self.weights.astype(outputs.dtype)
        kernels.sigmoid_cross_entropy(
            losses, doutputs, outputs, targets, scale, part.b0, part.b1, part.lengths, weights
        )


def class_loss(targets: Any, weights: ArrayLike | None, smoothing: float) -> CrossEntropy | BinaryCrossEntropy:
    """The loss of `ClassTargets`."""
    loss = CrossEntropy(targets.num_classes, weights, smoothing)  # checks both
    if not targets.multilabel:
        return loss
    if smoothing:
        raise ValueError(f"label_smoothing: expected 0 with multilabel, got {smoothing!r}")
    return BinaryCrossEntropy(targets.num_classes, weights)


KINDS = {"mse": kernels.SQUARED, "mae": kernels.ABSOLUTE, "huber": kernels.HUBER, "quantile": kernels.QUANTILE}


def is_level(level: object) -> bool:
    return isinstance(level, float | np.floating) and bool(0 < level < 1)


class Regression(RealTargets):
    """Errors of N values for each row.

    Parameters
    ----------
    kind : {"mse", "mae", "huber", "quantile"}
        e**2; |e|; e**2 / 2 up to ``delta`` and delta * (|e| - delta/2) beyond; or the pinball loss of ``quantiles``,
        whose outputs lie in blocks of N.
    """

    def __init__(self, kind: str, values: int, *, delta: float = 1.0, quantiles: Sequence[float] = (0.5,)) -> None:
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"loss: expected one of {', '.join(KINDS)}, got {kind!r}")
        self.kind, self.targets = kind, values
        if not isinstance(quantiles, Sequence | np.ndarray) or not len(quantiles) or not all(map(is_level, quantiles)):
            raise ValueError(f"quantiles: expected numbers between 0 and 1, got {quantiles!r:.200}")
        self.quantiles = [float(level) for level in quantiles]
        self.levels = self.quantiles if kind == "quantile" else [0.5]
        if not isinstance(delta, int | float) or isinstance(delta, bool) or not 0 < delta <= sys.float_info.max:
            raise ValueError(f"delta: expected a number above 0, got {delta!r:.200}")
        self.delta = float(delta)
        self.outputs = values * len(self.levels)
        self.parameters = {"huber": [self.delta], "quantile": self.levels}.get(kind)

    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        parameters = None if self.parameters is None else np.array(self.parameters, outputs.dtype)
        kernels.regression_loss(
            losses, doutputs, outputs, targets, KINDS[self.kind], parameters, scale, part.b0, part.b1, part.lengths
        )
