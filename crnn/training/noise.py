# SPDX-License-Identifier: MIT
"""GradientNoise: random numbers that are added to the gradient of each update, with a variance that falls."""

from __future__ import annotations

import math

import numpy as np

from crnn._normal import normal_draws
from crnn.checks import Array
from crnn.optim.schedules import power

__all__ = ["GradientNoise"]

DECAY = 0.55
BLOCK = 1 << 15  # elements that are drawn at a time
STREAM = 0x6E6F  # distinguishes these draws from those of dropout, whose seeds are [seed, update] and [.., .., shard]


class GradientNoise:
    """Noise of variance eta / (1 + t)^0.55 at update t, from 0. Neelakantan et al. 2015 (arXiv 1511.06807).

    Draws are nearly normal, see `crnn._normal`. They depend on the seed and the update alone.
    """

    def __init__(self, eta: float, seed: int) -> None:
        self._eta, self._seed = eta, seed

    def deviation(self, update: int) -> float:
        """The standard deviation of the noise of an update, from 0."""
        return math.sqrt(self._eta / power(1.0 + update, DECAY))

    def add(self, grads: Array, update: int) -> None:
        """Add the noise of an update to the gradient (n,)."""
        raw, deviation = np.random.PCG64([self._seed, update, 0, STREAM]), self.deviation(update)
        for first in range(0, grads.size, BLOCK):
            block = grads[first : first + BLOCK]
            block += (normal_draws(raw, block.size) * deviation).astype(grads.dtype)
