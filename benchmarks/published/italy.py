# SPDX-License-Identifier: MIT
"""ItalyPowerDemand: is a day's demand for power one of summer or of winter? 67 days to learn from, 1,029 to test.

1-nearest-neighbour by Euclidean distance: 0.955 (UCR archive: Dau et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published import archive
from benchmarks.published.archive import Setting
from benchmarks.published.work import Work

NAME, PUBLISHED = "ItalyPowerDemand", 0.955
CANDIDATES = tuple(
    Setting(size, pooling, changes=True, epochs=epochs, weight_decay=decay)
    for pooling in ("last", "mean", "max", "flatten")
    for size in (16, 32)
    for epochs in (15, 30)
    for decay in (0.3, 1.0)
)
CHOSEN = Setting(16, "last", changes=True, epochs=15, weight_decay=0.3)


def choose(seed: int) -> Iterator[str]:
    """Compare the candidates on the training part. Yields the lines of the report."""
    return archive.choose(NAME, CANDIDATES, seed)


def run(work: Work) -> Iterator[str]:
    """Train on ItalyPowerDemand. Yields the lines of the report."""
    return archive.run(NAME, CHOSEN, PUBLISHED, work)
