# SPDX-License-Identifier: MIT
"""What there is to measure: all rows, with the goals that the design sets for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmarks.measure import Effort, Figure

ALL_CORES = "all"


@dataclass(frozen=True)
class Setting:
    """What a row is told: how many threads everybody may use, and how long to measure."""

    threads: int
    effort: Effort
    quick: bool


@dataclass(frozen=True)
class Row:
    """One line of contenders, measured in a process of its own.

    ``goals``: how many times a contender's figure ours should be. Where ``lower`` is better, as for memory, how many
    times ours the contender's should be.
    """

    name: str
    unit: str
    run: Callable[[Setting], dict[str, Figure]]
    all_cores: bool = False
    goals: dict[str, float] = field(default_factory=dict)
    lower: bool = False
    only_named: bool = False  # too long for a run that names no rows
    quick: bool = False  # part of a --quick run that names no rows

    @property
    def label(self) -> str:
        return f"{self.name}@{ALL_CORES}" if self.all_cores else self.name

    @property
    def threads(self) -> int:
        return cores() if self.all_cores else 1


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def all_rows() -> list[Row]:
    from benchmarks import gemm, learn, lengths, memory, sequence, stream, stream_many, train, tutorial

    different: dict[tuple[str, int], Row] = {}  # with a single core, all cores are one thread
    for subject in (gemm, sequence, lengths, stream, stream_many, train, tutorial, memory, learn):
        for row in subject.ROWS:
            different.setdefault((row.name, row.threads), row)
    return list(different.values())


def select(rows: Iterable[Row], names: list[str], quick: bool) -> list[Row]:
    """Rows by name: all that are called so, or begin so (``train`` is ``train-128``, ``train-256``, ...)."""
    if not names:
        return [row for row in rows if not row.only_named and (row.quick or not quick)]
    chosen = []
    rows = list(rows)
    for name in names:
        found = [row for row in rows if name in (row.name, row.label) or row.name.startswith(name + "-")]
        if not found:
            raise SystemExit(f"no row {name!r}; python -m benchmarks --list shows them all")
        chosen += [row for row in found if row not in chosen]
    return chosen
