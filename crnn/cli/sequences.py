# SPDX-License-Identifier: MIT
"""Sequences from tables: which column is what, and rows made into sequences with their labels.

    wide: a row is a sequence, one value per step          a,0.1,0.3,0.2
    long: a row is a step; those of one id are a sequence  id,x,y,label
"""

from __future__ import annotations

import argparse
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.cli.configuration import Repeated
from crnn.cli.table import IDS, LABELS, TIMES, Reading, Row, Table, TableError, add_table_flags, reading_of

__all__ = ["Layout", "Sequences", "add_layout_flags", "layout_of", "read_sequences", "some_of"]

SHOWN = 8  # columns or classes that a message names


@dataclass(frozen=True)
class Layout:
    """Which columns of a table are what, as far as that was said; None and empty: as the header names them.

    Attributes
    ----------
    format : {"auto", "wide", "long"}
    id, time : str or None
        The sequence that a step belongs to, and when it was.
    labels : tuple of str
    columns : tuple of str
        The values of a step; all other columns if none is given.
    reading : Reading
        How the table is written.
    optional : tuple of str
        Which of "id" and "time" a table need not have, although they are named.
    """

    format: str
    id: str | None
    time: str | None
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    reading: Reading
    optional: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All columns that were named, without those that were numbered."""
        given = filter(None, [self.id, self.time, *self.labels, *self.columns])
        return frozenset(name for name in given if not name.isdecimal())


@dataclass(eq=False)
class Sequences:
    """The sequences of a table.

    Attributes
    ----------
    name : str
        Of the table.
    x : list of arrays (T_i, D)
    labels : list or None
        Of each sequence, or of each step; as they are written, "" if there is none. None: the table has no such column.
    ids : list of str or None
    lines : list of lists of int
        The lines of each sequence's rows.
    times : list of lists of str or None
        As they are written.
    columns : list of str or None
        The names of the D columns; None of a wide table.
    layout : Layout
        As it was found: format and columns are named.
    """

    name: str
    x: list[Array]
    labels: list[Any] | None
    ids: list[str] | None
    lines: list[list[int]]
    times: list[list[str]] | None
    columns: list[str] | None
    layout: Layout

    def __len__(self) -> int:
        return len(self.x)

    def chosen(self, indices: Sequence[int]) -> Sequences:
        """Some of the sequences."""

        def some(values: list[Any] | None) -> Any:
            return None if values is None else [values[i] for i in indices]

        x, labels, ids = some(self.x), some(self.labels), some(self.ids)
        return Sequences(self.name, x, labels, ids, some(self.lines), some(self.times), self.columns, self.layout)

    def describe(self) -> str:
        """What was read, for people."""
        steps = sorted(map(len, self.x))
        length = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}"
        named = [("labels", self.layout.labels), ("ids", [self.layout.id]), ("times", [self.layout.time])]
        places = [f"{what} in column {some_of(names)}" for what, names in named if any(names)]
        names = self.columns or []
        values = f" of {len(names):,} value{'s' * (len(names) > 1)} ({some_of(names)})" if names else ""
        form = f"{self.layout.format} format: a row is a {'step' if self.layout.format == 'long' else 'sequence'}"
        return f"{self.name}: {len(self):,} sequences of {length} steps{values}; {', '.join([form, *places])}"


def add_layout_flags(
    parser: argparse._ActionsContainer, *, formats: bool = True, labels: bool = True, encoding: str = "utf-8"
) -> None:
    """Add the flags that say which columns are what, and how the table is written."""
    if formats:
        parser.add_argument(
            "--format",
            choices=["auto", "wide", "long"],
            default="auto",
            help="wide: a row is a sequence, one value per step; long: a row is a step; auto: long if ids repeat",
        )
    if labels:
        parser.add_argument(
            "--label",
            action=Repeated,
            default=[],
            metavar="COLUMN",
            help=f"column of the labels, by its name or number from 1; if not given one called {', '.join(LABELS)}, or "
            "without a header the first one. Repeated: several binary labels",
        )
    parser.add_argument(
        "--id", metavar="COLUMN", help="column that says which sequence a row belongs to; if not given one called id"
    )
    parser.add_argument(
        "--time",
        metavar="COLUMN",
        help=f"column of times, which must rise within a sequence; if not given one called {' or '.join(TIMES)}",
    )
    parser.add_argument(
        "--column", action=Repeated, default=[], metavar="COLUMN", help="column of values; all others if not given"
    )
    add_table_flags(parser, encoding)


def layout_of(arguments: argparse.Namespace, **changes: Any) -> Layout:
    """The values of the flags that `add_layout_flags` added."""
    found: dict[str, Any] = {
        "format": getattr(arguments, "format", "long"),
        "id": arguments.id,
        "time": arguments.time,
        "labels": tuple(getattr(arguments, "label", ())),
        "columns": tuple(arguments.column),
        "reading": reading_of(arguments),
    }
    return Layout(**(found | changes))


# ---- roles of columns ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """Indices of the columns of a table."""

    id: int | None
    time: int | None
    labels: tuple[int, ...]
    values: tuple[int, ...] | None  # None: all others

    @property
    def others(self) -> frozenset[int]:
        """Columns that are not values."""
        return frozenset([*self.labels, *[each for each in (self.id, self.time) if each is not None]])

    def values_of(self, row: Row) -> Sequence[int]:
        """The columns of a row's values."""
        if self.values is not None:
            return self.values
        return [each for each in range(len(row.cells)) if each not in self.others]

    def named(self, table: Table, layout: Layout, format: str) -> Layout:
        """The layout of a table in which these columns were found."""

        def name(column: int | None) -> str | None:
            return None if column is None else table.columns[column]

        labels = tuple(table.columns[each] for each in self.labels)
        return replace(layout, format=format, id=name(self.id), time=name(self.time), labels=labels)


def roles_in(
    table: Table, layout: Layout, *, labelled: bool | None, is_label: Callable[[str], bool] | None = None
) -> Roles:
    """The columns of a table. ``labelled``: whether labels are needed; None: they are read if they are there.

    Raises TableError for a column that the table does not have, or that is given two roles.
    """
    named = (("id", layout.id), ("time", layout.time))
    needed = {name: None if name in layout.optional and not table.has(given) else given for name, given in named}
    id = _role(table, "--id", needed["id"], IDS)
    time = _role(table, "--time", needed["time"], TIMES)
    wanted = () if labelled is False else layout.labels
    labels = [table.column("--label", each) for each in wanted if labelled or table.has(each)]
    if labels and not labelled and not table.has_header and is_label is not None:
        cells = [row[each].strip() for row in table.first_rows for each in labels if each < len(row)]
        labels = labels if all(map(is_label, cells)) else []
    if not layout.labels and labelled is not False:
        found = _role(table, "--label", None, LABELS)
        if found is None and not table.has_header and id is None and time is None and labelled:
            found = 0
        if found is None and labelled:
            raise TableError(
                f"label: expected the column of the labels, such as --label {table.columns[-1]}; {table.name} has the "
                f"columns {some_of(table.columns)}"
            )
        labels = [] if found is None else [found]
    values = tuple(table.column("--column", each) for each in layout.columns) or None
    roles = Roles(id, time, tuple(labels), values)
    nameless = [each for each in roles.values_of(Row(1, table.columns)) if not table.columns[each]]
    if nameless:
        where, hint = table.at(1, nameless[0]), "--column names the columns of values"
        raise TableError(f"{where}: expected a name, got none, as an index has; {hint}")
    given = [*labels, *(each for each in (id, time) if each is not None), *(values or ())]
    twice = next((each for i, each in enumerate(given) if each in given[:i]), None)
    if twice is not None:
        raise TableError(f"{table.name}: expected each column once, got {table.columns[twice]} for two purposes")
    return roles


def _role(table: Table, option: str, given: str | None, names: Sequence[str]) -> int | None:
    """The column that was given, or the only one with one of these names; None if there is none."""
    if given is not None:
        return table.column(option, given)
    if not table.has_header:
        return None
    found = [i for i, name in enumerate(table.columns) if name.lower() in names]
    if len(found) > 1:
        raise TableError(
            f"{table.name}: expected {option}, because {' and '.join(table.columns[i] for i in found)} could both be it"
        )
    return found[0] if found else None


# ---- reading ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Rows:
    """The rows of a table, as columns of their parts."""

    values: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    ids: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)


def read_sequences(
    path: Path,
    layout: Layout,
    *,
    labelled: bool | None,
    per_step: bool = False,
    is_label: Callable[[str], bool] | None = None,
) -> Sequences:
    """The sequences of a file.

    Parameters
    ----------
    path : Path
    layout : Layout
    labelled : bool or None
        Whether labels are needed; None: they are read if they are there.
    per_step : bool
        Whether each step has a label; otherwise each sequence has one.
    is_label : callable, optional
        Tells whether a column without a name, which may have labels, has some.

    Raises
    ------
    TableError
        The file is not as the layout says; the message names line and column.
    """
    with Table(path, layout.reading, layout.names) as table:
        roles = roles_in(table, layout, labelled=labelled, is_label=is_label)
        rows = _read(table, roles, several=len(roles.labels) > 1)
        is_long = layout.format == "long" or (
            layout.format == "auto" and (roles.time is not None or len(set(rows.ids)) < len(rows.ids))
        )
        if is_long:
            return _long(table, roles, rows, layout, per_step=per_step)
        return _wide(table, roles, rows, layout)


def _read(table: Table, roles: Roles, *, several: bool) -> _Rows:
    """All rows of a table, numbers as numbers."""
    rows, known = _Rows(), dict[str, str]()  # one string for all equal labels and ids
    plain = table.decimal == "."
    for row in table.rows():
        cells = row.cells
        columns = roles.values_of(row)
        try:
            numbers = [float(cells[each]) for each in columns] if plain else None
        except (ValueError, IndexError):
            numbers = None
        rows.values.extend([table.number(row, each) for each in columns] if numbers is None else numbers)
        rows.sizes.append(len(columns))
        rows.lines.append(row.line)

        def text(column: int, cells: list[str] = cells) -> str:
            cell = cells[column].strip() if column < len(cells) else ""
            return known.setdefault(cell, cell)

        if roles.id is not None:
            rows.ids.append(text(roles.id))
        if roles.time is not None:
            rows.times.append(text(roles.time))
        if roles.labels:
            found = [text(each) for each in roles.labels]
            rows.labels.append(found if several else found[0])
    if not rows.lines:
        raise TableError(f"{table.name}: expected at least one row below the header, got none")
    return rows


def _wide(table: Table, roles: Roles, rows: _Rows, layout: Layout) -> Sequences:
    """Each row is a sequence (T, 1). Empty cells and NaN at its end are no steps."""
    values, x = np.asarray(rows.values), []
    stops = np.cumsum(rows.sizes)
    for line, size, stop in zip(rows.lines, rows.sizes, stops.tolist(), strict=True):
        steps = values[stop - size : stop]
        there = np.flatnonzero(~np.isnan(steps))
        if not there.size:
            raise TableError(f"{table.at(line)}: expected a sequence of at least one number, got none")
        steps = steps[: there[-1] + 1]
        bad = np.flatnonzero(~np.isfinite(steps))
        if bad.size:
            columns = roles.values or [each for each in range(size + len(roles.others)) if each not in roles.others]
            got = "an empty cell or NaN" if math.isnan(steps[bad[0]]) else "infinity"
            raise TableError(f"{table.at(line, columns[bad[0]])}: expected a number, got {got} before the last one")
        x.append(steps[:, None].copy())
    return Sequences(
        table.name,
        x,
        rows.labels or None,
        rows.ids or None,
        [[line] for line in rows.lines],
        [[each] for each in rows.times] or None,
        None,
        roles.named(table, layout, "wide"),
    )


def _long(table: Table, roles: Roles, rows: _Rows, layout: Layout, *, per_step: bool) -> Sequences:
    """Each row is a step (D,); the rows of one id are a sequence, or all rows if there are no ids."""
    width = rows.sizes[0]
    for line, size in zip(rows.lines, rows.sizes, strict=True):
        if size != width:
            others = len(roles.others)
            raise TableError(
                f"{table.at(line)}: expected {width + others} cells, as in line {rows.lines[0]}, got {size + others}"
            )
    if not width:
        raise TableError(f"{table.name}: expected at least one column of values, got none")
    values = np.asarray(rows.values).reshape(len(rows.lines), width)
    names = [table.columns[each] for each in roles.values_of(Row(0, table.columns))]
    _check_finite(table, roles, rows, values)
    groups: dict[str, list[int]] = {}
    for i in range(len(rows.lines)):
        groups.setdefault(rows.ids[i] if rows.ids else "", []).append(i)
    if rows.ids and "" in groups:
        raise TableError(f"{table.at(rows.lines[groups[''][0]], roles.id)}: expected an id, got an empty cell")
    members = list(groups.values())
    if rows.times:
        _check_times(table, roles, rows, members)
    labels: list[Any] | None = None
    if rows.labels:
        labels = [[rows.labels[i] for i in each] for each in members]
        if not per_step:
            labels = [_one_label(table, roles, rows, each) for each in members]
    return Sequences(
        table.name,
        [values[each] for each in members],
        labels,
        list(groups) if rows.ids else None,
        [[rows.lines[i] for i in each] for each in members],
        [[rows.times[i] for i in each] for each in members] if rows.times else None,
        names,
        replace(roles.named(table, layout, "long"), columns=tuple(names)),
    )


def _check_finite(table: Table, roles: Roles, rows: _Rows, values: Array) -> None:
    """Raise TableError for a value that is missing or infinite."""
    finite = np.isfinite(values)
    if not finite.all():
        i, j = np.argwhere(~finite)[0].tolist()
        got = "an empty cell or NaN" if math.isnan(values[i, j]) else "infinity"
        column = (roles.values or [each for each in range(len(table.columns)) if each not in roles.others])[j]
        raise TableError(f"{table.at(rows.lines[i], column)}: expected a number, got {got}")


def _check_times(table: Table, roles: Roles, rows: _Rows, members: list[list[int]]) -> None:
    """Raise TableError unless times, numbers or dates, rise within each sequence."""
    for of_sequence in members:
        previous: float | None = None
        for i in of_sequence:
            where = table.at(rows.lines[i], roles.time)
            time = _time(rows.times[i], table.decimal)
            if time is None:
                raise TableError(f"{where}: expected a number or a date, as in 2026-01-31, got {rows.times[i]!r:.100}")
            if previous is not None and not time > previous:
                of_id = f" of id {rows.ids[i]!r:.100}" if rows.ids else ""
                raise TableError(f"{where}: expected a later time than in the row before{of_id}, got {rows.times[i]}")
            previous = time


def _time(cell: str, decimal: str) -> float | None:
    """A time as a number; None if it is none."""
    try:
        return float(cell if decimal == "." else cell.replace(decimal, "."))
    except ValueError:
        pass
    try:
        date = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return (date.replace(tzinfo=None) - (date.utcoffset() or _NO_OFFSET) - _EPOCH).total_seconds()


_EPOCH = datetime(1970, 1, 1)
_NO_OFFSET = _EPOCH - _EPOCH


def _one_label(table: Table, roles: Roles, rows: _Rows, of_sequence: list[int]) -> Any:
    """The label of a sequence, which all of its rows have. Raises TableError if they have several."""
    first = of_sequence[0]
    for i in of_sequence:
        if rows.labels[i] != rows.labels[first]:
            raise TableError(
                f"{table.at(rows.lines[i], roles.labels[0])}: expected the label {rows.labels[first]!r:.100} of line "
                f"{rows.lines[first]}, because both have the id {rows.ids[i]!r:.100}, got {rows.labels[i]!r:.100}; "
                "--task tag learns a label for every step"
                if rows.ids
                else f"{table.at(rows.lines[i], roles.labels[0])}: expected one label for all rows, because there are "
                f"no ids, got {rows.labels[i]!r:.100}; --id names the column that says which sequence a row is of"
            )
    return rows.labels[first]


def some_of(names: Iterable[str | None]) -> str:
    """Names in a row, not too many of them."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
