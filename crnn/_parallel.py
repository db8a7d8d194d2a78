# SPDX-License-Identifier: MIT
"""Work in several threads. It is split over rows of the batch or columns of weights, and no sum is split, so results do
not depend on the number of threads."""

from __future__ import annotations

from crnn._core.threads import run

__all__ = ["part_range", "run"]


def part_range(n: int, part: int, parts: int, unit: int = 1) -> tuple[int, int]:
    """The range (start, stop) of 0 .. n-1 that belongs to ``part`` of ``parts``: multiples of ``unit``, or n."""
    units = -(-n // unit)
    return min(n, units * part // parts * unit), min(n, units * (part + 1) // parts * unit)
