# SPDX-License-Identifier: MIT
"""Dropout masks from uniform random integers: the same on every machine and for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.checks import Array, check_seed

LEVELS = 1 << 16  # probabilities are rounded to 16 bits
DRAWS = 4  # from each 64-bit number of the generator
BLOCK = 1 << 18  # elements that are drawn at a time


def check_seeds(seed: int | list[int]) -> None:
    """Raise TypeError or ValueError unless this is a seed of `Masks`."""
    for number in seed if isinstance(seed, list) else [seed]:
        if type(number) is not int or number < 0:  # the check takes a microsecond
            check_seed("dropout_seed", number)


class Masks:
    """Inverted dropout: each element is 0 with probability p, otherwise 1 / (1 - p). Srivastava et al. 2014.

    Parameters
    ----------
    seed : int or list of int
        At least 0. Determines the sequence of masks.
    """

    def __init__(self, seed: int | list[int]) -> None:
        check_seeds(seed)
        self._seed = seed

    @cached_property
    def _raw(self) -> np.random.PCG64:
        """The generator. Made for the first mask: it costs 10 us, and most networks have no dropout."""
        return np.random.PCG64(self._seed)

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
        for block in _blocks(lengths, B, max(1, BLOCK // K), together=B * K % DRAWS == 0):
            start, size = block.low * K, block.size * K
            count = -(-(start % DRAWS + size) // DRAWS)
            raw = np.empty((block.steps, count), np.uint64)
            for step in range(block.steps):
                first = (start + step * B * K) // DRAWS
                self._raw.advance((first - numbers_before) % 2**128)
                raw[step] = self._raw.random_raw(count)
                numbers_before = first + count
            rows = self._mask(p, raw, start % DRAWS, size, dtype).reshape(-1, K)
            held = lengths.padded_rows()[block.packed] - block.low
            steps, row = np.divmod(held, B if block.steps > 1 else block.size)
            mask[0, block.packed] = rows[steps * block.size + row]
        self._raw.advance((-(-T * B * K // DRAWS) - numbers_before) % 2**128)
        return mask

    def draw_ids(self, p: float, V: int, ids: Array, dtype: str) -> Array:
        """The next mask of the V ids, as that of the ids (T, B): (T, B, 1)."""
        of_ids: Array = self.draw(p, (V,), dtype)[ids]
        return of_ids[:, :, None]

    def _mask(self, p: float, raw: Array, skip: int, count: int, dtype: str) -> Array:
        """Elements (..., count) from numbers (..., n) of the generator, after ``skip`` draws."""
        draws = raw.astype("<u8", copy=False).view("<u2")[..., skip : skip + count]
        dropped = min(round(p * LEVELS), LEVELS - 1)
        mask = (draws >= dropped).astype(dtype)
        mask *= mask.dtype.type(LEVELS / (LEVELS - dropped))
        return mask


class _Block(NamedTuple):
    """Some packed rows, and the rows t*B + b of padded arrays that they lie in: ``size`` rows from ``low`` on, and as
    many B, 2*B, ... rows later, in all ``steps`` times."""

    packed: slice
    low: int
    size: int
    steps: int = 1


def _blocks(lengths: Lengths, B: int, most: int, together: bool) -> Iterator[_Block]:
    """All packed rows in blocks of at most ``most`` padded rows, or B. Together these are not many more than M.

    Steps that at least half of the sequences have are taken whole. Of others, only the range in which sequences lie is
    taken; with ``together``, of several steps that have the same sequences.
    """
    padded, starts = lengths.padded_rows(), [*lengths.starts.tolist(), lengths.rows]
    t = 0
    while t < lengths.T and starts[t] < lengths.rows:
        stop, count = t + 1, starts[t + 1] - starts[t]
        if 2 * count >= B:
            while stop < lengths.T and stop - t < most // B and 2 * (starts[stop + 1] - starts[stop]) >= B:
                stop += 1
            yield _Block(slice(starts[t], starts[stop]), t * B, (stop - t) * B)
        else:
            rows = padded[starts[t] : starts[stop]]
            low, size = int(rows.min()), int(rows.max() - rows.min()) + 1
            if together:
                while stop < lengths.T and (stop - t) * size < most and starts[stop + 1] - starts[stop] == count:
                    stop += 1
            yield _Block(slice(starts[t], starts[stop]), low, size, stop - t)
        t = stop
