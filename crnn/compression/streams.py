# SPDX-License-Identifier: MIT
"""Streams: the parts of a content that are predicted side by side, one symbol of each at a time."""

from __future__ import annotations

import numpy as np

from crnn.checks import Array, Ids

__all__ = ["Streams"]


class Streams:
    """n symbols in B consecutive parts of equal length, the first n % B of which have one symbol more.

    Step t is the t-th symbol of every part. The last step may be missing in the last parts.

    Parameters
    ----------
    size : int
        n, at least 1.
    count : int
        B, from 1 to n.
    """

    count: int
    steps: int  # of the longest part

    def __init__(self, size: int, count: int) -> None:
        length, longer = divmod(size, count)
        self.count, self.steps = count, length + (longer > 0)
        self._longer = longer or count
        parts = np.arange(count)
        self._starts = parts * length + np.minimum(parts, longer)

    def active(self, step: int) -> int:
        """How many of the parts, the first ones, have a symbol at this step."""
        return self._longer if step == self.steps - 1 else self.count

    def window(self, values: Array, start: int, steps: int) -> Ids:
        """The values (T, B) of so many steps, as int32; 0 where a part has none."""
        last = self._starts[-1]
        places = self._starts + np.arange(start, start + steps)[:, None]
        places[-1, self.active(start + steps - 1) :] = last
        found: Ids = values[places].astype(np.int32)
        found[-1, self.active(start + steps - 1) :] = 0
        return found

    def put(self, values: Array, start: int, symbols: Array) -> None:
        """Write the values (T, B) of the steps from ``start`` into values (n,)."""
        rows = len(symbols) - 1
        values[self._starts + np.arange(start, start + rows)[:, None]] = symbols[:rows]
        active = self.active(start + rows)
        values[self._starts[:active] + start + rows] = symbols[rows, :active]
