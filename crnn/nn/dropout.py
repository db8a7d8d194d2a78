# SPDX-License-Identifier: MIT
"""Dropout masks from uniform random integers: the same on every machine and for any number of threads."""

from __future__ import annotations

import numpy as np

from crnn.checks import Array, check_seed

LEVELS = 1 << 16  # probabilities are rounded to 16 bits: each 64-bit number of the generator gives four draws


class Masks:
    """Inverted dropout: each element is 0 with probability p, otherwise 1 / (1 - p). Srivastava et al. 2014.

    Parameters
    ----------
    seed : int or list of int
        At least 0. Determines the sequence of masks.
    """

    def __init__(self, seed: int | list[int]) -> None:
        numbers = seed if isinstance(seed, list) else [seed]
        for number in numbers:
            check_seed("dropout_seed", number)
        self._raw = np.random.PCG64(seed)

    def draw(self, p: float, shape: tuple[int, ...], dtype: str) -> Array:
        """The next mask: a fresh array of this shape and dtype."""
        count = int(np.prod(shape))
        raw = self._raw.random_raw(-(-count // 4)).astype("<u8", copy=False)
        draws = raw.view("<u2")[:count]
        dropped = min(round(p * LEVELS), LEVELS - 1)
        mask = (draws >= dropped).astype(dtype)
        mask *= mask.dtype.type(LEVELS / (LEVELS - dropped))
        return mask.reshape(shape)
