# SPDX-License-Identifier: MIT
"""A benchmark row: what is measured, in which unit, and the ratios to reach. `benchmarks.all_rows` lists them all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.base.measure import Effort, Figure

ALL_CORES = "all"


@dataclass(frozen=True)
class Setting:
    """What a row is told: the number of threads every contender may use, and how long to measure."""

    threads: int
    effort: Effort
    quick: bool


@dataclass(frozen=True)
class Row:
    """One row: contenders that do the same work, measured in a separate process.

    ``goals``: by contender, the smallest ratio of our figure to theirs that meets the goal. Where ``lower`` is better,
    as for memory, the ratio is theirs to ours.
    """

    name: str
    unit: str
    run: Callable[[Setting], dict[str, Figure]]
    all_cores: bool = False
    goals: dict[str, float] = field(default_factory=dict)
    lower: bool = False
    long: bool = False  # takes minutes: runs only when named
    quick: bool = False  # part of a --quick run that names no rows

    @property
    def label(self) -> str:
        """Name of the row on the command line; with the suffix of all cores if it runs on them."""
        return f"{self.name}@{ALL_CORES}" if self.all_cores else self.name

    @property
    def threads(self) -> int:
        """Number of threads of the row on this machine."""
        return available_cores() if self.all_cores else 1


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
