# SPDX-License-Identifier: MIT
"""Losses of a head's outputs, and their gradients. The sums are computed by the C kernels."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import loss as kernels
from crnn._core.arrays import checked_ids, count_present, plain
from crnn.array_input import as_array, in_precision, real_numbers, with_missing
from crnn.checks import Array, as_number, check_number
from crnn.nn.slices import Slice
from crnn.text.windows import IGNORE_INDEX


class Loss(ABC):
    """A loss of outputs (T, B, V): one number for every row (t, b), the sum of the losses of the row's predictions.

    Conventions
    -----------
    Targets are arrays (T, B) or (T, B, N) that `check` has returned. A target that is missing has loss 0.

    Attributes
    ----------
    outputs : int
        V.
    """

    outputs: int

    @abstractmethod
    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        """Targets as the kernels take them; real ones are borrowed if possible. Raises ValueError, which calls them
        ``name``."""

    @abstractmethod
    def count(self, targets: Array) -> int:
        """Number of targets that are not missing."""

    @abstractmethod
    def present(self, targets: Array) -> Array:
        """bool (T, B): whether a row has a target that is not missing."""

    def weight(self, targets: Array) -> float:
        """The divisor that turns the sum of the losses into their mean."""
        return float(self.count(targets))

    def gain(self, targets: Sequence[Array], weights: Sequence[Array]) -> float:
        """The factor that makes the mean of all losses, multiplied by ``weights``, one that is divided by them.

        ``weights``, of the rows (T_i,) of targets (T_i, ...), have the mean 1, over which `weight` is as large as
        without them, unless it depends on the target.
        """
        return 1.0

    @abstractmethod
    def keep_only(self, targets: Array, wanted: Array) -> Array:
        """A copy of the targets in which those with ``wanted`` (T, B) False are missing."""

    @abstractmethod
    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        """Compute the losses and their gradient for the rows of ``part``.

        Parameters
        ----------
        losses : array (T, B)
            OVERWRITTEN.
        doutputs : array (T, B, V) or None
            OVERWRITTEN with the gradient of scale * (sum of the losses). May be ``outputs``. None: no gradient.
        outputs : array (T, B, V)
        targets : array (T, B) or (T, B, N)
        scale : float
        part : Slice
        """


def check_weights(weights: ArrayLike | None, size: int) -> Array | None:
    """Class weights as float64 (size,); None is returned as it is. Raises ValueError."""
    if weights is None:
        return None
    try:
        array = in_precision("class_weight", real_numbers("class_weight", weights), "float64")
    except (TypeError, ValueError):  # not numbers
        array = np.empty(0)
    if array.shape != (size,) or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(
            f"class_weight: expected {size} numbers of at least 0, in the order of the classes, got {weights!r:.200}"
        )
    return array


class CrossEntropy(Loss):
    """Softmax cross-entropy in nats: -log softmax(y)[target], one target of V classes for each row.

    A target of `IGNORE_INDEX` (-1) is missing. Weights and smoothing have the meaning of PyTorch's ``cross_entropy``.

    Parameters
    ----------
    classes : int
        V.
    weights : sequence of float, optional
        Weight of each class's loss, for a weighted mean.
    smoothing : float
        Fraction of the target probability that is spread evenly over all classes, in [0, 1). Szegedy et al. 2016.
    smooths_gradients_only : bool
        Smooth only the losses whose gradient is computed, so that an evaluation is of the targets alone.
    """

    weights: Array | None  # float64 (V,)
    smoothing: float
    smooths_gradients_only: bool

    def __init__(
        self,
        classes: int,
        weights: ArrayLike | None = None,
        smoothing: float = 0.0,
        *,
        smooths_gradients_only: bool = False,
    ) -> None:
        self.outputs = classes
        self.smooths_gradients_only = smooths_gradients_only
        self.weights = check_weights(weights, classes)
        self.smoothing = check_number("label_smoothing", smoothing, 0.0, 1.0)

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        array = with_missing(name, targets, IGNORE_INDEX)
        if array.dtype.kind not in "iu" or array.shape != (steps, batch):
            raise ValueError(
                f"{name}: expected integers of shape {(steps, batch)}, got {array.dtype} of shape {array.shape}"
            )
        return checked_ids(name, array, self.outputs, IGNORE_INDEX)

    def count(self, targets: Array) -> int:
        return count_present(targets, IGNORE_INDEX)

    def present(self, targets: Array) -> Array:
        return np.asarray(targets != IGNORE_INDEX)

    def weight(self, targets: Array) -> float:
        if self.weights is None:
            return float(self.count(targets))
        return kernels.sum(self.weights[targets[targets != IGNORE_INDEX]])

    def gain(self, targets: Sequence[Array], weights: Sequence[Array]) -> float:
        if self.weights is None:
            return 1.0
        labels, of_rows = np.concatenate(list(targets)), np.concatenate(list(weights))
        known = labels != IGNORE_INDEX
        of_classes = self.weights[labels[known]]
        weighted = kernels.sum(of_classes * of_rows[known])
        return kernels.sum(of_classes) / weighted if weighted else 1.0

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
            0.0 if doutputs is None and self.smooths_gradients_only else self.smoothing,
        )


class RealTargets(Loss):
    """Base of the losses with real targets (T, B, N). NaN = missing."""

    targets: int  # N

    def check(self, name: str, targets: ArrayLike, steps: int, batch: int, dtype: str) -> Array:
        array = as_array(name, targets)
        if array.dtype.kind not in "fiub" or array.shape != (steps, batch, self.targets):
            raise ValueError(
                f"{name}: expected numbers of shape {(steps, batch, self.targets)}, "
                f"got {array.dtype} of shape {array.shape}"
            )
        return plain(array, dtype)

    def count(self, targets: Array) -> int:
        return count_present(targets, IGNORE_INDEX)

    def present(self, targets: Array) -> Array:
        return np.asarray(~np.isnan(targets).all(axis=2))

    def keep_only(self, targets: Array, wanted: Array) -> Array:
        return np.where(wanted[:, :, None], targets, targets.dtype.type(np.nan))


class BinaryCrossEntropy(RealTargets):
    """Sigmoid cross-entropy in nats: V independent binary targets for each row, whose losses are summed.

    Parameters
    ----------
    labels : int
        V. Targets are in [0, 1].
    weights : sequence of float, optional
        Weight of the positive term of each label.
    """

    targets: int
    weights: Array | None  # float64 (V,)

    def __init__(self, labels: int, weights: ArrayLike | None = None) -> None:
        self.outputs = self.targets = labels
        self.weights = check_weights(weights, labels)

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


def class_loss(
    num_classes: int, multilabel: bool, weights: ArrayLike | None, smoothing: float
) -> CrossEntropy | BinaryCrossEntropy:
    """`CrossEntropy`, or with ``multilabel`` `BinaryCrossEntropy`, which has no label smoothing.

    Raises ValueError, which calls the arguments class_weight and label_smoothing.
    """
    loss = CrossEntropy(num_classes, weights, smoothing)  # checks both arguments
    if not multilabel:
        return loss
    if smoothing:
        raise ValueError(f"label_smoothing: expected 0 with multilabel, got {smoothing!r}")
    return BinaryCrossEntropy(num_classes, weights)


KINDS = {"mse": kernels.SQUARED, "mae": kernels.ABSOLUTE, "huber": kernels.HUBER, "quantile": kernels.QUANTILE}


def _is_level(level: object) -> bool:
    """Whether this is a number in (0, 1)."""
    number = as_number(level)
    return number is not None and 0 < number < 1


class Regression(RealTargets):
    """Losses of the errors e of N values for each row.

    Parameters
    ----------
    kind : {"mse", "mae", "huber", "quantile"}
        e**2; |e|; e**2 / 2 for |e| <= delta and delta * (|e| - delta/2) beyond; or the pinball loss of each quantile,
        with N outputs for the first quantile, then N for the next, and so on.
    values : int
        N.
    delta : float
        Above 0.
    quantiles : sequence of float
        Levels, each in (0, 1).
    """

    kind: str
    targets: int
    outputs: int
    quantiles: list[float]
    levels: list[float]  # Q: the quantiles that are predicted, or [0.5] for the other kinds
    delta: float
    parameters: list[float] | None  # of the kernel

    def __init__(self, kind: str, values: int, *, delta: float = 1.0, quantiles: Sequence[float] = (0.5,)) -> None:
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"loss: expected one of {', '.join(KINDS)}, got {kind!r}")
        self.kind, self.targets = kind, values
        if hasattr(quantiles, "__array__"):  # a Series, a tensor
            quantiles = np.asarray(quantiles).tolist()
        if not isinstance(quantiles, Sequence | np.ndarray) or not len(quantiles) or not all(map(_is_level, quantiles)):
            raise ValueError(f"quantiles: expected numbers between 0 and 1, got {quantiles!r:.200}")
        self.quantiles = [float(level) for level in quantiles]
        self.levels = self.quantiles if kind == "quantile" else [0.5]
        number = as_number(delta)
        if number is None or not 0 < number <= sys.float_info.max:
            raise ValueError(f"delta: expected a number above 0, got {delta!r:.200}")
        self.delta = number
        self.outputs = values * len(self.levels)
        self.parameters = [self.delta] if kind == "huber" else self.levels if kind == "quantile" else None

    def run(
        self, losses: Array, doutputs: Array | None, outputs: Array, targets: Array, scale: float, part: Slice
    ) -> None:
        parameters = None if self.parameters is None else np.array(self.parameters, outputs.dtype)
        kernels.regression_loss(
            losses, doutputs, outputs, targets, KINDS[self.kind], parameters, scale, part.b0, part.b1, part.lengths
        )
