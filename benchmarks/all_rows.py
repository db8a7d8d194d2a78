# SPDX-License-Identifier: MIT
"""The list of benchmark rows, which the command, the report and the tests read."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.base.row import Row
from benchmarks.rows import (
    cells,
    gemm,
    latency,
    learn,
    lengths,
    long_and_short,
    many_streams,
    memory,
    online,
    sampling,
    sequence,
    stream,
    train,
    tutorial,
)

# In the order of the report. A new row is added to the ROWS of its module; a new module is added here.
LISTED = [
    *gemm.ROWS,
    *sequence.ROWS,
    *lengths.ROWS,
    *long_and_short.ROWS,
    *stream.ROWS,
    *many_streams.ROWS,
    *sampling.ROWS,
    *latency.ROWS,
    *train.ROWS,
    *online.ROWS,
    *cells.ROWS,
    *tutorial.ROWS,
    *memory.ROWS,
    *learn.ROWS,
]


def all_rows() -> list[Row]:
    """The distinct rows on this machine: with a single core, the rows at all cores repeat those on one thread."""
    distinct: dict[tuple[str, int], Row] = {}
    for row in LISTED:
        distinct.setdefault((row.name, row.threads), row)
    return list(distinct.values())


def select(rows: Iterable[Row], names: list[str], quick: bool) -> list[Row]:
    """Rows with these names, or with these prefixes (``train`` selects ``train-128``, ``train-256``, ...).

    A name selects a row on one thread and at all cores, ``train-128@1`` and ``train-128@all`` only one of them.
    """
    rows = list(rows)
    if not names:
        return [row for row in rows if not row.long and (row.quick or not quick)]
    selected: list[Row] = []
    for name in names:
        matching = [row for row in rows if name in (row.name, f"{row.name}@{row.threads}", row.label)]
        matching += [row for row in rows if row.name.startswith(name + "-")]
        if not matching:
            raise SystemExit(f"no row {name!r}; python -m benchmarks --list shows them all")
        selected += [row for row in matching if row not in selected]
    return selected
