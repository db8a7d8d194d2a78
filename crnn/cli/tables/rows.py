# SPDX-License-Identifier: MIT
"""Rows of a table as columns of their parts: numbers, ids, times and labels; grouped by id, with times that rise."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from crnn.cli.tables.layout import Roles
from crnn.cli.tables.table import Row, Table, TableError
from crnn.cli.tables.times import seconds_of

__all__ = ["Rows", "grouped", "read_rows"]


THERE = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}  # cells of a mask
NO_VALUES = "; --id names a column of ids, --text one of texts, --column those of values"


@dataclass(eq=False)
class Rows:
    """The rows of a table, as columns of their parts."""

    values: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    ids: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    weights: array[float] = field(default_factory=lambda: array("d"))
    mask: list[bool] = field(default_factory=list)  # which steps count


def read_rows(table: Table, roles: Roles, *, several: bool, weighed: bool = False) -> Rows:
    """All rows of a table, numbers as numbers. Raises TableError.

    ``several``: labels are lists. ``weighed``: read the weights too.
    """
    rows, known = Rows(), dict[str, str]()  # one string for all equal labels and ids
    by_size: dict[int, Sequence[int]] = {}  # the columns of values, by the number of cells
    plain = table.decimal == "."
    hint = "" if roles.values is not None else NO_VALUES

    def text(cells: list[str], column: int) -> str:
        cell = cells[column].strip() if column < len(cells) else ""
        return known.setdefault(cell, cell)

    for row in table.rows():
        cells = row.cells
        columns = by_size.get(len(cells))
        if columns is None:
            columns = by_size[len(cells)] = roles.values_of(row)
        try:
            plainly = plain and "_" not in "".join(cells)  # which Python allows in numbers
            numbers = [float(cells[each]) for each in columns] if plainly else None
        except (ValueError, IndexError):
            numbers = None
        rows.values.extend([table.number(row, each, hint) for each in columns] if numbers is None else numbers)
        rows.sizes.append(len(columns))
        rows.lines.append(row.line)
        if roles.id is not None:
            rows.ids.append(text(cells, roles.id))
        if roles.text is not None:
            cell = cells[roles.text] if roles.text < len(cells) else ""
            if not cell.strip():
                raise TableError(f"{table.at(row.line, roles.text)}: expected a text, got an empty cell")
            rows.texts.append(cell)
        if roles.time is not None:
            rows.times.append(text(cells, roles.time))
        if roles.weight is not None and weighed:
            rows.weights.append(_weight(table, row, roles.weight))
        if roles.mask is not None:
            rows.mask.append(_counts(table, row.line, roles.mask, text(cells, roles.mask)))
        if roles.labels:
            found = [text(cells, each) for each in roles.labels]
            rows.labels.append(found if several else found[0])
    if not rows.lines:
        raise TableError(f"{table.name}: expected at least one row below the header, got none")
    return rows


def _weight(table: Table, row: Row, column: int) -> float:
    """The weight in a row. Raises TableError."""
    weight = table.number(row, column)
    if not 0 <= weight < math.inf:
        got = "an empty cell or NaN" if math.isnan(weight) else f"{weight:g}"
        raise TableError(f"{table.at(row.line, column)}: expected a weight of at least 0, got {got}")
    return weight


def _counts(table: Table, line: int, column: int, cell: str) -> bool:
    """Whether a step counts, by the cell of its mask. Raises TableError."""
    found = THERE.get(cell.lower())
    if found is None:
        expected = "1 for a step that is there, or 0"
        raise TableError(f"{table.at(line, column)}: expected {expected}, got {cell!r:.100}")
    return found


def grouped(table: Table, roles: Roles, rows: Rows) -> dict[str, list[int]]:
    """The rows of each id, in the order of the table; of "" all rows if there are no ids. Times are checked.

    Raises TableError for an id that is empty, and for times that do not rise within an id.
    """
    groups: dict[str, list[int]] = {}
    for i in range(len(rows.lines)):
        groups.setdefault(rows.ids[i] if rows.ids else "", []).append(i)
    if rows.ids and "" in groups:
        raise TableError(f"{table.at(rows.lines[groups[''][0]], roles.id)}: expected an id, got an empty cell")
    if rows.times:
        for members in groups.values():
            _check_times(table, roles, rows, members)
    return groups


def _check_times(table: Table, roles: Roles, rows: Rows, members: Sequence[int]) -> None:
    """Raise TableError unless times, numbers or dates, rise."""
    previous: float | None = None
    for i in members:
        time = seconds_of(rows.times[i], table.decimal)
        if time is None:
            where = table.at(rows.lines[i], roles.time)
            raise TableError(f"{where}: expected a number or a date, as in 2026-01-31, got {rows.times[i]!r:.100}")
        if previous is not None and not time > previous:
            where, of_id = table.at(rows.lines[i], roles.time), f" of id {rows.ids[i]!r:.100}" if rows.ids else ""
            hint = "; sort the rows by time" + ("" if rows.ids else ", or name the column of sequences with --id")
            raise TableError(f"{where}: expected a later time than in the row before{of_id}, got {rows.times[i]}{hint}")
        previous = time
