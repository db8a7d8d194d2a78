# SPDX-License-Identifier: MIT
"""Standardizer: scales columns of data to mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crnn._core import loss as kernels
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.array_input import is_finite
from crnn.checks import Array

SMALL = 1e-200  # sums of squares below this have terms that underflow
SHIFT = 600  # powers of two, exact, by which numbers of such sums are multiplied before


class Standardizer:
    """(x - mean) / std for each of D columns; the identity at first.

    The std of a constant column is taken as 1. Sums are computed in a fixed order, so statistics are bit-identical on
    every machine.
    """

    mean: Array  # float64 (D,)
    std: Array  # float64 (D,)

    def __init__(self, size: int) -> None:
        self.mean, self.std = np.zeros(size), np.ones(size)

    def learn(self, name: str, arrays: Sequence[Array], weights: Sequence[Array] | None = None) -> None:
        """Set mean and std to those of arrays (T_i, D); NaN is ignored. ``weights``: of the rows, arrays (T_i,).

        Raises ValueError, which calls the arrays ``name``, if the sum of the squares overflows.
        """
        size = len(self.mean)
        sums, counts, squares = np.zeros(size), np.zeros(size), np.zeros(size)
        lowest, highest = np.full(size, np.nan), np.full(size, np.nan)
        rows = [np.ascontiguousarray(array, np.float64) for array in arrays]
        shares = [None] * len(rows) if weights is None else [np.asarray(w, np.float64)[:, None] for w in weights]
        for array, w in zip(rows, shares, strict=True):
            if w is None:
                kernels.column_sums(sums, counts, array)
            else:
                kernels.column_sums(sums, np.zeros(size), array * w)
                kernels.column_sums(counts, np.zeros(size), np.where(np.isnan(array), np.nan, w))
            lowest, highest = np.fmin(lowest, np.fmin.reduce(array)), np.fmax(highest, np.fmax.reduce(array))
        # Sums are rounded: the computed mean of equal numbers may differ from them.
        constant = lowest == highest
        counts[counts == 0] = 1  # of a column without numbers
        mean = np.where(constant, lowest, sums / counts)
        for array, w in zip(rows, shares, strict=True):
            if w is None:
                kernels.column_squares(squares, array, mean)
            else:
                kernels.column_squares(squares, (array - mean) * np.sqrt(w), np.zeros(size))
        std = np.sqrt(squares / counts)
        if not np.isfinite(std).all():
            largest = np.fmax.reduce(np.fmax(-lowest, highest))
            raise ValueError(f"{name}: expected numbers whose variance float64 can hold, got {largest:g}")
        small = ~constant & (squares < SMALL)
        if small.any():
            std[small] = _small_deviations(rows, shares, small, mean, counts)
        self.mean, self.std = mean, np.where(std > 0, std, 1.0)

    def apply(self, array: Array, dtype: str) -> Array:
        """(array - mean) / std, fresh, in ``dtype``."""
        scaled: Array = ((array - self.mean) / self.std).astype(dtype)
        return scaled

    def apply_checked(self, array: Array, dtype: str) -> Array:
        """`apply` to finite numbers. Raises OverflowError if one is not finite in ``dtype`` once it is scaled."""
        with np.errstate(over="ignore"):
            scaled = self.apply(array, dtype)
        if not is_finite(scaled):
            raise OverflowError
        return scaled

    def apply_to_all(self, name: str, arrays: Sequence[Array], dtype: str) -> list[Array]:
        """`apply` to each of arrays (T_i, D), whose numbers are finite or NaN.

        Raises ValueError, which calls the arrays ``name``, if a number is not finite in ``dtype`` once it is scaled.
        """
        with np.errstate(over="ignore"):
            scaled = [self.apply(array, dtype) for array in arrays]
        for i, (array, each) in enumerate(zip(arrays, scaled, strict=True)):
            if not is_finite(each) and np.isinf(each).any():
                value, when = array[np.isinf(each)][0], "" if self.is_identity else " once scaled"
                raise ValueError(f"{name}[{i}]: expected numbers that {dtype} can hold{when}, got {value}")
        return scaled

    def undo(self, array: Array) -> Array:
        """array * std + mean, fresh, in float64."""
        return array.astype(np.float64) * self.std + self.mean

    @property
    def is_identity(self) -> bool:
        """Whether all means are 0 and all stds 1."""
        return not self.mean.any() and bool((self.std == 1).all())

    def set_statistics(self, name: str, mean: Array, std: Array) -> None:
        """Set mean and std, borrowed. Raises ValueError, which calls std ``name``, unless all are above 0."""
        if (std <= 0).any():
            raise ValueError(f"{name}: expected numbers above 0")
        self.mean, self.std = mean, std


def _small_deviations(
    rows: Sequence[Array], shares: Sequence[Array | None], chosen: Array, mean: Array, counts: Array
) -> Array:
    """The standard deviations of the ``chosen`` columns of arrays (T_i, D), whose squares underflow."""
    squares, centre = np.zeros(int(chosen.sum())), np.ldexp(mean[chosen], SHIFT)
    for array, w in zip(rows, shares, strict=True):
        large = np.ascontiguousarray(np.ldexp(array[:, chosen], SHIFT))
        if w is not None:
            large = (large - centre) * np.sqrt(w) + centre
        kernels.column_squares(squares, large, centre)
    std: Array = np.ldexp(np.sqrt(squares / counts[chosen]), -SHIFT)
    return std


public_methods_in_ieee_mode(Standardizer)
