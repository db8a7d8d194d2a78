# SPDX-License-Identifier: MIT
"""Dropout masks: comparisons of uniform draws, the same on every machine and for any number of threads."""

from __future__ import annotations

import numpy as np

from crnn.checks import Array, check_seed

STEPS = 1 << 16  # a probability is rounded to 16 bits: four draws from each number of the generator


class Masks:
    """Inverted dropout: each element is 0 with probability p, else 1 / (1 - p). Srivastava et al. 2014.

    The same ``seed``, an integer or several, gives the same masks in the order in which they are drawn.
    """

    def __init__(self, seed: int | list[int]) -> None:
        numbers = seed if isinstance(seed, list) else [seed]
        for number in numbers:
            check_seed("dropout_seed", number)
        self._raw = np.random.PCG64(seed)

    def draw(self, p: float, shape: tuple[int, ...], dtype: str) -> Array:
        count = int(np.prod(shape))
        raw = self._raw.random_raw(-(-count // 4)).astype("<u8", copy=False)
        draws = raw.view("<u2")[:count]
        dropped = min(round(p * STEPS), STEPS - 1)
        mask = (draws >= dropped).astype(dtype)
        mask *= mask.dtype.type(STEPS / (STEPS - dropped))
        return mask.reshape(shape)
