# SPDX-License-Identifier: MIT
"""Series from tables, for forecasts: a row is a step; targets, columns known up to now, and columns known ahead."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from crnn.checks import Array
from crnn.cli.configuration import Repeated
from crnn.cli.tables.layout import Roles, role, some_of
from crnn.cli.tables.rows import Rows, grouped, read_rows
from crnn.cli.tables.table import IDS, TIMES, Reading, Table, TableError, add_table_flags, reading_of
from crnn.cli.tables.times import Axis, axis_of

__all__ = ["SeriesColumns", "SeriesTable", "add_role_flags", "add_series_flags", "columns_of", "read_series"]


Arrays: TypeAlias = "list[Array] | Array"


@dataclass(frozen=True)
class SeriesColumns:
    """Which columns of a table are what, as far as that was said.

    Attributes
    ----------
    id, time : str or None
    target, past, future : tuple of str
    reading : Reading
    """

    id: str | None
    time: str | None
    target: tuple[str, ...]
    past: tuple[str, ...]
    future: tuple[str, ...]
    reading: Reading


@dataclass(frozen=True)
class OneSeries:
    """A series and its further columns. NaN = missing.

    Attributes
    ----------
    id : str
        "" if the table has no ids.
    values : array (T, P)
    past : array (T, E)
    future : array (T + ahead, F)
    axis : Axis or None
        Its times, if they are evenly spaced; the next ones are forecast.
    """

    id: str
    values: Array
    past: Array
    future: Array
    axis: Axis | None

    @property
    def ahead(self) -> int:
        """Rows after the end of the series, in which only what is known ahead is given."""
        return len(self.future) - len(self.values)

    def time_ahead(self, step: int) -> str:
        """The time of a forecast, from 1 for the next step; the number of the step if there are no times."""
        return str(step) if self.axis is None else self.axis.label(len(self.values) - 1 + step)


@dataclass(frozen=True)
class SeriesTable:
    """The series of a table.

    Attributes
    ----------
    name : str
    series : list of OneSeries
    columns : SeriesColumns
        As they were found: all that are used are named.
    unused : list of str
        Columns that are not.
    has_times : bool
    """

    name: str
    series: list[OneSeries]
    columns: SeriesColumns
    unused: list[str]
    has_times: bool

    def given(self, ahead: int = 0) -> tuple[Arrays, Arrays | None, Arrays | None]:
        """Series, past and future with the rows of so many steps ahead; lists of them if there are ids."""
        flat = len(self.columns.target) == 1
        values = [each.values[:, 0] if flat else each.values for each in self.series]
        past = [each.past for each in self.series] if self.columns.past else None
        future = [each.future[: len(each.values) + ahead] for each in self.series] if self.columns.future else None
        if self.columns.id is not None:
            return values, past, future
        return values[0], past and past[0], future and future[0]

    def describe(self) -> str:
        """What was read, for people."""
        columns, steps = self.columns, sorted(len(each.values) for each in self.series)
        count = "a series" if columns.id is None else f"{len(self.series):,} series (ids in column {columns.id})"
        length = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}"
        named = (("target", columns.target), ("known up to now", columns.past), ("known ahead", columns.future))
        parts = [f"{what}: {some_of(names)}" for what, names in named if names]
        gaps = sum(int(np.isnan(each.values).sum()) for each in self.series)
        parts += [f"{gaps:,} missing value{'s' * (gaps > 1)}"] if gaps else []
        if self.has_times:
            missing = sum(each.axis.missing for each in self.series if each.axis is not None)
            even = all(each.axis is not None for each in self.series)
            spaced = "evenly spaced" + f", {missing:,} rows missing" * bool(missing)
            parts.append(f"times in column {columns.time}, {spaced if even else 'not evenly spaced: a row is a step'}")
        parts += [f"not used: {some_of(self.unused)}"] if self.unused else []
        return f"{self.name}: {count} of {length} steps; {'; '.join(parts)}"


def add_role_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags of the columns that only series have."""
    helps = {
        "target": "column to forecast, by its name or number from 1; the only one that is left if not given",
        "past": "further column that is known up to now",
        "future": "column that is known ahead too: rows at the end that have no targets are steps ahead",
    }
    for name, help in helps.items():
        parser.add_argument(
            f"--{name}", action=Repeated, default=[], metavar="COLUMN", help=f"{help}; may be repeated"
        )


def add_series_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags that say which columns are what, and how the table is written."""
    add_role_flags(parser)
    parser.add_argument(
        "--id", metavar="COLUMN", help="column that says which series a row belongs to; id if there is one"
    )
    parser.add_argument(
        "--time", metavar="COLUMN", help=f"column of times, which must rise; {' or '.join(TIMES)} if there is one"
    )
    add_table_flags(parser, "utf-8")


def columns_of(arguments: argparse.Namespace, saved: Mapping[str, Any] | None = None) -> SeriesColumns:
    """The values of the flags that `add_series_flags` added; ``saved`` as in `reading_of`."""
    target, past, future = (tuple(getattr(arguments, name)) for name in ("target", "past", "future"))
    return SeriesColumns(arguments.id, arguments.time, target, past, future, reading_of(arguments, saved))


def read_series(path: Path, columns: SeriesColumns) -> SeriesTable:
    """The series of a file. Raises TableError if it is not as the columns say; the message names line and column."""
    names = [columns.id, columns.time, *columns.target, *columns.past, *columns.future]
    known = frozenset(name for name in names if name is not None and not name.isdecimal())
    with Table(path, columns.reading, known) as table:
        found = _found(table, columns)
        kinds = [found.target, found.past, found.future]
        values = tuple(table.column("column", each) for kind in kinds for each in kind)
        id, time = (None if each is None else table.column("column", each) for each in (found.id, found.time))
        roles = Roles(id, time, (), values)
        given = [*values, *(each for each in (id, time) if each is not None)]
        twice = next((each for i, each in enumerate(given) if each in given[:i]), None)
        if twice is not None:
            raise TableError(f"{table.name}: expected each column once, got {table.columns[twice]} for two purposes")
        rows = read_rows(table, roles, several=False)
        numbers = np.asarray(rows.values).reshape(len(rows.lines), len(values))
        _check_not_infinite(table, rows, values, numbers)
        groups = grouped(table, roles, rows)
        series = [_one(table, rows, numbers[each], each, key, list(map(len, kinds))) for key, each in groups.items()]
        unused = [name for i, name in enumerate(table.columns) if i not in given]
        return SeriesTable(table.name, series, found, unused, time is not None)


def _found(table: Table, columns: SeriesColumns) -> SeriesColumns:
    """The columns by their names, as the table has them. Raises TableError."""

    def named(option: str, given: Sequence[str]) -> tuple[str, ...]:
        return tuple(table.columns[table.column(option, each)] for each in given)

    id, time = role(table, "--id", columns.id, IDS), role(table, "--time", columns.time, TIMES)
    past, future = named("--past", columns.past), named("--future", columns.future)
    id_name, time_name = (None if each is None else table.columns[each] for each in (id, time))
    target = named("--target", columns.target)
    if not target:
        others = [name for name in table.columns if name not in {id_name, time_name, *past, *future}]
        if len(others) != 1:
            raise TableError(
                f"target: expected the column to forecast, such as --target {(others or table.columns)[-1]}; "
                f"{table.name} has the columns {some_of(table.columns)}"
            )
        target = (others[0],)
    return SeriesColumns(id_name, time_name, target, past, future, columns.reading)


def _check_not_infinite(table: Table, rows: Rows, columns: Sequence[int], numbers: Array) -> None:
    infinite = np.argwhere(np.isinf(numbers))
    if infinite.size:
        i, j = infinite[0].tolist()
        raise TableError(f"{table.at(rows.lines[i], columns[j])}: expected a number or an empty cell, got infinity")


def _one(
    table: Table, rows: Rows, numbers: Array, members: Sequence[int], id: str, sizes: Sequence[int]
) -> OneSeries:
    """The series of some rows. Rows that are missing on the axis of times become missing values."""
    axis = axis_of([rows.times[i] for i in members], table.decimal) if rows.times else None
    if axis is not None:
        spread = np.full((axis.places[-1] + 1, numbers.shape[1]), np.nan)
        spread[axis.places] = numbers
        numbers = spread
    P, E, _ = sizes
    values, past, future = numbers[:, :P], numbers[:, P : P + E], numbers[:, P + E :]
    known = np.flatnonzero(~np.isnan(values).all(axis=1))
    if not known.size:
        of_id = f" of id {id!r:.100}" if id else ""
        raise TableError(f"{table.at(rows.lines[members[0]])}: expected values of the target{of_id}, got none")
    T = int(known[-1]) + 1  # steps ahead begin after the last value that is known
    return OneSeries(id, values[:T].copy(), past[:T].copy(), future.copy(), axis)
