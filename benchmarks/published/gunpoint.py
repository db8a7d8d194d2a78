# SPDX-License-Identifier: MIT
"""GunPoint: does a hand draw a gun or point a finger? 50 series to learn from, 150 to test.

1-nearest-neighbour by Euclidean distance: 0.913 (UCR archive: Dau et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published import archive
from benchmarks.published.archive import Setting
from benchmarks.published.work import Work

NAME, PUBLISHED = "GunPoint", 0.913
CANDIDATES = (
    Setting(16, "max", changes=True),
    Setting(32, "last", changes=True),
    Setting(32, "mean", changes=False),
    Setting(32, "mean", changes=True),
    Setting(32, "max", changes=False),
    Setting(32, "max", changes=True),
    Setting(32, "max", changes=True, dropout=0.3),
    Setting(32, "max", changes=True, cell="lstm"),
)
CHOSEN = Setting(32, "max", changes=True)


def choose(seed: int) -> Iterator[str]:
    """Compare the candidates on the training part. Yields the lines of the report."""
    return archive.choose(NAME, CANDIDATES, seed)


def run(work: Work) -> Iterator[str]:
    """Train on GunPoint. Yields the lines of the report."""
    return archive.run(NAME, CHOSEN, PUBLISHED, work)
