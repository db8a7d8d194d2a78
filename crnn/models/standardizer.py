# SPDX-License-Identifier: MIT
"""Standardizer: columns of data brought to mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crnn._core import loss as kernels
from crnn.checks import Array


class Standardizer:
    """(x - mean) / std for each of D columns. Sums run in a fixed order, so the result is the same everywhere.

    A column that never changes is only shifted.
    """

    def __init__(self, size: int) -> None:
        self.mean, self.std = np.zeros(size), np.ones(size)

    def learn(self, name: str, arrays: Sequence[Array]) -> None:
        """Take mean and std from arrays (T_i, D); NaN is left out. An error calls them ``name``."""
        size = len(self.mean)
        sums, counts, squares = np.zeros(size), np.zeros(size), np.zeros(size)
        lowest, highest = np.full(size, np.nan), np.full(size, np.nan)
        rows = [np.ascontiguousarray(array, np.float64) for array in arrays]
        for array in rows:
            kernels.column_sums(sums, counts, array)
            lowest, highest = np.fmin(lowest, np.fmin.reduce(array)), np.fmax(highest, np.fmax.reduce(array))
        # A sum of equal numbers is rounded: their mean need not be one of them, nor their distance from it zero.
        constant = lowest == highest
        mean = np.where(constant, lowest, sums / np.maximum(counts, 1))
        for array in rows:
            kernels.column_squares(squares, array, mean)
        std = np.sqrt(squares / np.maximum(counts, 1))
        if not np.isfinite(std).all():
            largest = np.fmax.reduce(np.fmax(-lowest, highest))
            raise ValueError(f"{name}: expected numbers whose squares have a sum, got some as large as {largest:g}")
        self.mean, self.std = mean, np.where(std > 0, std, 1.0)

    def apply(self, array: Array, dtype: str) -> Array:
        scaled: Array = ((array - self.mean) / self.std).astype(dtype)
        return scaled

    def undo(self, array: Array) -> Array:
        """From scaled values to the original ones, in float64."""
        return array.astype(np.float64) * self.std + self.mean

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return not self.mean.any() and bool((self.std == 1).all())

    @property
    def statistics(self) -> tuple[Array, Array]:
        """Mean and std, as a file holds them."""
        return self.mean, self.std

    def set_statistics(self, name: str, mean: Array, std: Array) -> None:
        """Take over what a file holds; errors call it ``name``."""
        if (std <= 0).any():
            raise ValueError(f"{name}: expected numbers above 0")
        self.mean, self.std = mean, std
