# SPDX-License-Identifier: MIT
"""Dropout masks from uniform random integers: the same on every machine and for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.checks import Array, check_seed

LEVELS = 1 << 16  # probabilities are rounded to 16 bits
DRAWS = 4  # from each 64-bit number of the generator
BLOCK = 1 << 18  # elements that are drawn at a time


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
        return self._mask(p, self._raw.random_raw(-(-count // DRAWS)), 0, count, dtype).reshape(shape)

    def draw_rows(
        self, p: float, T: int, B: int, K: int, dtype: str, *, same_for_all_steps: bool, lengths: Lengths | None
    ) -> Array:
        """The next mask of arrays (T, B, K), or of packed arrays (1, M, K) of sequences with ``lengths``.

        What an element is multiplied with does not depend on the layout. With ``same_for_all_steps`` the mask is
        (1, B, K) unless packed.
        """
        if same_for_all_steps:
            mask = self.draw(p, (1, B, K), dtype)
            return mask if lengths is None else mask[:, lengths.sequences()]
        if lengths is None:
            return self.draw(p, (T, B, K), dtype)
        mask = gemm.aligned_empty((1, lengths.rows, K), dtype)
        numbers_before = 0  # of the generator, drawn so far
        for first, last, row, end in _blocks(lengths, B, max(1, BLOCK // K)):
            start, stop = row * K, end * K
            self._raw.advance((start // DRAWS - numbers_before) % 2**128)
            numbers_before = -(-stop // DRAWS)
            raw = self._raw.random_raw(numbers_before - start // DRAWS)
            rows = self._mask(p, raw, start % DRAWS, stop - start, dtype).reshape(end - row, K)
            mask[0, first:last] = rows[lengths.padded_rows()[first:last] - row]
        self._raw.advance((-(-T * B * K // DRAWS) - numbers_before) % 2**128)
        return mask

    def _mask(self, p: float, raw: Array, skip: int, count: int, dtype: str) -> Array:
        """Elements (count,) from numbers of the generator, after ``skip`` draws."""
        draws = raw.astype("<u8", copy=False).view("<u2")[skip : skip + count]
        dropped = min(round(p * LEVELS), LEVELS - 1)
        mask = (draws >= dropped).astype(dtype)
        mask *= mask.dtype.type(LEVELS / (LEVELS - dropped))
        return mask


def _blocks(lengths: Lengths, B: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Blocks of packed rows with the range of rows t*B + b of padded arrays that they lie in: first, last, row, end.

    Most of a range is in sequences, or it is a part of one step: the ranges together are not much longer than M. A
    range has at most ``most`` rows, or B.
    """
    padded, starts = lengths.padded_rows(), [*lengths.starts.tolist(), lengths.rows]
    t = 0
    while t < lengths.T and starts[t] < lengths.rows:
        stop = t + 1
        if 2 * (starts[stop] - starts[t]) >= B:
            while stop < lengths.T and stop - t < most // B and 2 * (starts[stop + 1] - starts[stop]) >= B:
                stop += 1
            yield starts[t], starts[stop], t * B, stop * B
        else:
            rows = padded[starts[t] : starts[stop]]
            yield starts[t], starts[stop], int(rows.min()), int(rows.max()) + 1
        t = stop
