# SPDX-License-Identifier: MIT
"""What is done to a series before a network reads it, and undone to what it predicts. TRANSFORMATIONS has the order.

    Gaps         missing values are filled
    Log          the natural logarithm
    Scale        (x - mean) / std
    Difference   the deviation from the naive forecast, which continues the series with differences of 0

Sums are computed in a fixed order, and log and exp by crnn's own kernels, so results are bit-identical everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from crnn._core import vecmath
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.checks import Array
from crnn.models.inputs.standardizer import Standardizer

GAPS = ("interpolate", "carry", "mask")
LN2 = 0.6931471805599453  # log(2), whatever mode crnn is imported in
LARGEST_LOG = 709.0  # whose exp float64 can hold


class Transformation(ABC):
    """A reversible change of values (T, P), whose columns are treated alike."""

    @abstractmethod
    def apply(self, values: Array) -> Array:
        """The changed values (T, P), fresh."""

    @abstractmethod
    def undo(self, ahead: Array, history: Array) -> Array:
        """The values (n, P) whose change gives ``ahead``, fresh.

        ``history`` (T, P) are the values before them, as `apply` takes them.
        """


class Gaps(Transformation):
    """Missing values, NaN, are filled; there is nothing to undo.

    Parameters
    ----------
    how : {"interpolate", "carry", "mask"}
        Linearly between the known neighbours; or by the last known value, also for "mask", whose user hides them.
        Before the first known value that one is taken, after the last one the last.
    """

    how: str

    def __init__(self, how: str) -> None:
        self.how = how

    def apply(self, values: Array) -> Array:
        filled: Array = values.copy()
        for column in filled.T:
            missing = np.isnan(column)
            if missing.any():
                fill = interpolated if self.how == "interpolate" else carried
                column[...] = fill(column, ~missing)
        return filled

    def undo(self, ahead: Array, history: Array) -> Array:
        return ahead.copy()


def carried(column: Array, known: Array) -> Array:
    """A column (T,) whose unknown values are the last known one, at the start the first known one; 0 if none is."""
    steps = np.flatnonzero(known)
    if not len(steps):
        return np.zeros(len(column))
    before = np.searchsorted(steps, np.arange(len(column)), side="right") - 1
    filled: Array = column[steps[np.maximum(before, 0)]]
    return filled


def interpolated(column: Array, known: Array) -> Array:
    """A column (T,) whose unknown values lie on the line between the known neighbours; outside them as `carried`."""
    steps = np.flatnonzero(known)
    filled = carried(column, known)
    inside = np.flatnonzero(~known)
    inside = inside[(inside > steps[0]) & (inside < steps[-1])] if len(steps) else inside[:0]
    after = steps[np.searchsorted(steps, inside)]
    before = steps[np.searchsorted(steps, inside) - 1]
    share = (inside - before) / (after - before)
    filled[inside] = column[before] * (1 - share) + column[after] * share
    return filled


class Log(Transformation):
    """The natural logarithm, of values above 0."""

    def apply(self, values: Array) -> Array:
        mantissa, exponent = np.frexp(values)  # in [0.5, 1)
        logs = np.empty(values.size)
        vecmath.log1p(logs, np.ascontiguousarray(2 * mantissa - 1).reshape(-1))
        return logs.reshape(values.shape) + (exponent - 1) * LN2

    def undo(self, ahead: Array, history: Array) -> Array:
        values = np.empty(ahead.size)
        vecmath.exp(values, np.minimum(ahead, LARGEST_LOG).reshape(-1))
        return values.reshape(ahead.shape)


class Scale(Transformation):
    """(x - mean) / std of each column.

    Parameters
    ----------
    mean, std : array (P,)
    """

    standardizer: Standardizer

    def __init__(self, mean: Array, std: Array) -> None:
        self.standardizer = Standardizer(len(mean))
        self.standardizer.set_statistics("std", mean, std)

    def apply(self, values: Array) -> Array:
        return self.standardizer.apply(values, "float64")

    def undo(self, ahead: Array, history: Array) -> Array:
        return self.standardizer.undo(ahead)


class Difference(Transformation):
    """The deviation from the naive forecast: that in which the differences at all lags are 0.

    Parameters
    ----------
    lags : sequence of int
        (1,): the naive forecast repeats the last value; (12,): the last 12 values; (12, 1): it repeats them, raised by
        what the last value is above the value 12 steps before it. None: it is 0.
    """

    lags: tuple[int, ...]
    weights: dict[int, int]  # the naive forecast is the sum of weights[k] * (the value k steps before)

    def __init__(self, lags: Sequence[int]) -> None:
        self.lags = tuple(lags)
        product = {0: 1}  # coefficients of (1 - B**lag) * ..., where B is one step back
        for lag in self.lags:
            shifted = {power + lag: -factor for power, factor in product.items()}
            product = {power: product.get(power, 0) + shifted.get(power, 0) for power in {**product, **shifted}}
        self.weights = {power: -factor for power, factor in sorted(product.items()) if power and factor}

    @property
    def reach(self) -> int:
        """How many values before a step its difference depends on."""
        return sum(self.lags)

    def naive(self, history: Array, n: int) -> Array:
        """The naive forecast (n, P) after ``history`` (T, P); values before its start are taken to be its first one."""
        reach = self.reach
        values = np.zeros((reach + n, history.shape[1]))
        known = history[len(history) - min(reach, len(history)) :]
        if reach and len(known):
            values[:reach] = known[0]
            values[reach - len(known) : reach] = known
        for step in range(reach, reach + n):
            for lag, weight in self.weights.items():
                values[step] += weight * values[step - lag]
        return values[reach:]

    def apply(self, values: Array) -> Array:
        """The differences (T - reach, P) of values (T, P)."""
        reach = self.reach
        differences: Array = values[reach:].copy()
        for lag, weight in self.weights.items():
            differences -= weight * values[reach - lag : len(values) - lag]
        return differences

    def deviation(self, values: Array, origin: int, n: int) -> Array:
        """How far values[origin : origin + n] are from the naive forecast at ``origin``, (n', P) with n' <= n."""
        ahead: Array = values[origin : origin + n]
        return ahead - self.naive(values[:origin], len(ahead))

    def undo(self, ahead: Array, history: Array) -> Array:
        """The values (n, P) that deviate by ``ahead`` from the naive forecast after ``history``."""
        return ahead + self.naive(history, len(ahead))


TRANSFORMATIONS: tuple[type[Transformation], ...] = (Gaps, Log, Scale, Difference)  # in the order in which they apply


class Chain:
    """The transformations of a series, in order: to the values that a network reads, and back.

    Parameters
    ----------
    steps : sequence of Transformation
        In the order of TRANSFORMATIONS, the last one a `Difference`.
    """

    steps: list[Transformation]
    difference: Difference

    def __init__(self, steps: Sequence[Transformation]) -> None:
        self.steps = [step for step in steps if not isinstance(step, Difference)]
        (self.difference,) = (step for step in steps if isinstance(step, Difference))

    def apply(self, values: Array) -> Array:
        """Filled and scaled values (T, P) of a series, of which differences have not been taken."""
        for step in self.steps:
            values = step.apply(values)
        return values

    def restore(self, values: Array) -> Array:
        """Values (n, P) of a series from what `apply` returns, fresh."""
        for step in reversed(self.steps):
            values = step.undo(values, values)
        return values


for _each in (*TRANSFORMATIONS, Chain):
    public_methods_in_ieee_mode(_each)
