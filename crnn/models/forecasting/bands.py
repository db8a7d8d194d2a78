# SPDX-License-Identifier: MIT
"""Bands: quantiles of a forecast, from the errors that a forecaster made on data that it has not learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np

from crnn._core import loss as kernels
from crnn.array_input import shown
from crnn.checks import Array, as_number

PARTS = 200  # of the levels from 0 to 1 that are kept
LEVELS = np.arange(1, PARTS) / PARTS


class Bands:
    """How far values are from forecasts, in the units of the standardised deviations.

    The error at step h ahead has its own size; the shape of the distribution is that of the errors of all steps
    together, each divided by its size.

    Attributes
    ----------
    sizes : array (H, P)
        Root mean square of the errors at each step.
    shape : array (PARTS - 1, P)
        Quantiles of the errors divided by their sizes, at the levels 1 / PARTS, 2 / PARTS, ...
    """

    sizes: Array
    shape: Array

    def __init__(self, sizes: Array, shape: Array) -> None:
        self.sizes, self.shape = sizes, shape

    @classmethod
    def of(cls, errors: Array) -> Bands:
        """Those of errors (M, H, P), value minus forecast; NaN = unknown. A step without any takes the last size."""
        _, H, P = errors.shape
        sizes, shape = np.zeros((H, P)), np.zeros((PARTS - 1, P))
        for p in range(P):
            for h in range(H):
                known = errors[:, h, p][~np.isnan(errors[:, h, p])]
                sizes[h, p] = root_mean_square(known) if len(known) else sizes[max(h - 1, 0), p]
            relative = errors[:, :, p] / np.where(sizes[:, p] > 0, sizes[:, p], 1.0)
            relative = np.sort(relative[~np.isnan(relative)])
            if len(relative):
                shape[:, p] = at_levels(relative)
        return cls(sizes, shape)

    @classmethod
    def alike(cls, errors: Array, steps: int) -> Bands:
        """Those of errors (M, P) that have the same distribution at so many steps."""
        bands = cls.of(errors[:, None])
        return cls(np.repeat(bands.sizes, steps, axis=0), bands.shape)

    @classmethod
    def of_windows(cls, errors: Array, separate: float) -> Bands:
        """Those of the errors (M, H, P) of overlapping windows, of which so many would fit one after the other.

        So few are known less well than a large sample; variances are raised by 2 / separate.
        """
        bands = cls.of(errors)
        return cls(bands.sizes * np.sqrt(1 + 2 / separate), bands.shape)

    def size_at(self, n: int, *, grows: bool) -> Array:
        """Sizes (n, P). Beyond the horizon H, where forecasts are made from forecasts, the variances add up if they
        grow; otherwise sizes stay what they are at H."""
        H = len(self.sizes)
        steps = np.arange(n)
        within, blocks = self.sizes[steps % H], steps // H
        if not grows:
            return np.where((blocks > 0)[:, None], self.sizes[-1], within)
        variances = within**2 + blocks[:, None] * self.sizes[-1] ** 2
        sizes: Array = np.sqrt(variances)
        return sizes

    def offsets(self, levels: Array, n: int, *, grows: bool) -> Array:
        """What to add to a forecast (n, P) for its quantiles at these levels (Q,): (Q, n, P)."""
        place = levels * PARTS - 1
        below = np.clip(np.floor(place).astype(int), 0, PARTS - 3)
        share = (place - below)[:, None]
        quantiles = self.shape[below] * (1 - share) + self.shape[below + 1] * share
        found: Array = quantiles[:, None, :] * self.size_at(n, grows=grows)
        return found


def root_mean_square(x: Array) -> float:
    return float(np.sqrt(kernels.sum_of_squares(np.ascontiguousarray(x)) / len(x)))


def at_levels(x: Array) -> Array:
    """The quantiles (PARTS - 1,) of ascending numbers (M,), of which number k is that of (k + 1) / (M + 1)."""
    place = np.clip(LEVELS * (len(x) + 1) - 1, 0, len(x) - 1)
    below = np.minimum(np.floor(place).astype(int), max(len(x) - 2, 0))
    above = np.minimum(below + 1, len(x) - 1)
    share = place - below
    found: Array = x[below] * (1 - share) + x[above] * share
    return found


def checked_levels(quantiles: Any) -> list[float]:
    """Levels of quantiles. Raises TypeError and ValueError."""
    if isinstance(quantiles, str) or not hasattr(quantiles, "__iter__"):
        raise TypeError(f"quantiles: expected a list of numbers, such as (0.1, 0.9), got {shown(quantiles)}")
    levels = [as_number(level) for level in quantiles]
    found = [level for level in levels if level is not None and LEVELS[0] <= level <= LEVELS[-1]]
    if not levels or len(found) < len(levels):
        lowest, highest = float(LEVELS[0]), float(LEVELS[-1])
        raise ValueError(f"quantiles: expected numbers from {lowest} to {highest}, got {shown(list(quantiles))}")
    return found
