# SPDX-License-Identifier: MIT
"""Sequences from tables: rows made into sequences with their labels.

    wide: a row is a sequence, one value per step          a,0.1,0.3,0.2
    long: a row is a step; those of one id are a sequence  id,x,y,label
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.cli.tables.layout import Layout, Roles, roles_in, some_of
from crnn.cli.tables.rows import Rows, grouped, read_rows
from crnn.cli.tables.table import Row, Table, TableError

__all__ = ["Sequences", "read_sequences"]


@dataclass(eq=False)
class Sequences:
    """The sequences of a table.

    Attributes
    ----------
    name : str
        Of the table.
    x : list of arrays (T_i, D), of texts, or of lists of words
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
    unused : list of str
        Columns other than those of texts.
    """

    name: str
    x: list[Any]
    labels: list[Any] | None
    ids: list[str] | None
    lines: list[list[int]]
    times: list[list[str]] | None
    columns: list[str] | None
    layout: Layout
    unused: list[str] = field(default_factory=list)
    weights: list[Any] | None = None
    masks: list[Array] | None = None
    per_step: bool = False

    def __len__(self) -> int:
        return len(self.x)

    def chosen(self, indices: Sequence[int]) -> Sequences:
        """Some of the sequences."""

        def some(values: list[Any] | None) -> Any:
            return None if values is None else [values[i] for i in indices]

        names = ("x", "labels", "ids", "lines", "times", "weights", "masks")
        return replace(self, **{name: some(getattr(self, name)) for name in names})

    def present(self) -> Sequences:
        """Without the steps that are masked, then those with a weight above 0. Raises TableError if there are none."""
        found = self if self.masks is None else self._unmasked([np.flatnonzero(mask) for mask in self.masks])
        if found.weights is None:
            return found
        kept = [i for i, weight in enumerate(found.weights) if np.any(weight)]
        if not kept:
            raise TableError(f"sample_weight: expected at least one weight above 0 in {self.name}, got none")
        return found if len(kept) == len(found) else found.chosen(kept)

    def _unmasked(self, places: list[Array]) -> Sequences:
        """With these steps of each sequence only."""

        def some(values: list[Any] | None) -> Any:
            if values is None:
                return None
            return [[each[t] for t in those.tolist()] for each, those in zip(values, places, strict=True)]

        of_steps = {name: some(getattr(self, name)) for name in ("lines", "times")}
        if self.per_step:
            of_steps |= {"labels": some(self.labels), "weights": some(self.weights)}
        x = [each[those] for each, those in zip(self.x, places, strict=True)]
        return replace(self, x=x, masks=None, **of_steps)

    def describe(self) -> str:
        """What was read, for people."""
        if self.layout.text is not None:
            return self._describe_texts()
        steps = sorted(map(len, self.x))
        length = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}"
        places = self._places()
        names = self.columns or []
        values = f" of {len(names):,} value{'s' * (len(names) > 1)} ({some_of(names)})" if names else ""
        form = f"{self.layout.format} format: a row is a {'step' if self.layout.format == 'long' else 'sequence'}"
        s = "s" * (len(self) > 1)
        return f"{self.name}: {len(self):,} sequence{s} of {length} steps{values}; {', '.join([form, *places])}"

    def _places(self) -> list[str]:
        """What is in which column, for people."""
        layout = self.layout
        named = [("labels", layout.labels), ("ids", [layout.id]), ("times", [layout.time])]
        named += [("weights", [layout.weight]), ("the mask", [layout.mask])]
        return [f"{what} in column {some_of(names)}" for what, names in named if any(names)]

    def _describe_texts(self) -> str:
        layout = self.layout
        places = [f"texts in column {layout.text}", *self._places()]
        form = "a row is a word" if layout.format == "long" else "a row is a text"
        unused = [f"not used: {some_of(self.unused)}"] if self.unused else []
        return f"{self.name}: {len(self):,} text{'s' * (len(self) > 1)}; {form}, {', '.join([*places, *unused])}"


def read_sequences(
    path: Path,
    layout: Layout,
    *,
    labelled: bool | None,
    per_step: bool = False,
    texts: bool | None = None,
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
    texts : bool or None
        Whether the sequences are texts; None: if there is a column that says so.
    is_label : callable, optional
        Tells whether a column without a name, which may have labels, has some.

    Raises
    ------
    TableError
        The file is not as the layout says; the message names line and column.
    """
    with Table(path, layout.reading, layout.names) as table:
        roles = roles_in(table, layout, labelled=labelled, texts=texts, is_label=is_label)
        rows = read_rows(table, roles, several=len(roles.labels) > 1, weighed=labelled is True)
        is_long = layout.format == "long" or (
            layout.format == "auto" and (roles.time is not None or len(set(rows.ids)) < len(rows.ids))
        )
        if roles.mask is not None and (roles.text is not None or not is_long):
            what = "of a table of texts" if is_long else "in wide format, where a row is a sequence"
            raise TableError(f"mask: expected a column that says which steps are there, which there is none {what}")
        found = (_long if is_long else _wide)(table, roles, rows, layout, per_step=per_step)
        if roles.text is not None:
            found.unused = [name for i, name in enumerate(table.columns) if i not in roles.others]
        return found


def _wide(table: Table, roles: Roles, rows: Rows, layout: Layout, *, per_step: bool) -> Sequences:
    """Each row is a sequence (T, 1), or a text."""
    return Sequences(
        table.name,
        rows.texts if roles.text is not None else _wide_values(table, roles, rows),
        rows.labels or None,
        rows.ids or None,
        [[line] for line in rows.lines],
        [[each] for each in rows.times] or None,
        None,
        roles.named(table, layout, "wide"),
        weights=list(rows.weights) or None,
    )


def _wide_values(table: Table, roles: Roles, rows: Rows) -> list[Array]:
    """The steps (T_i, 1) of each row. Empty cells and NaN at its end are none. Raises TableError."""
    values, x = np.asarray(rows.values), list[Array]()
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
    return x


def _long(table: Table, roles: Roles, rows: Rows, layout: Layout, *, per_step: bool) -> Sequences:
    """Each row is a step (D,) or a word; the rows of one id are a sequence, or all rows if there are no ids."""
    groups = grouped(table, roles, rows)
    members = list(groups.values())
    names: list[str] | None = None
    masks = _masks(table, rows, members)
    if roles.text is not None:
        x: list[Any] = [[rows.texts[i].strip() for i in each] for each in members]
    else:
        names, values = _long_values(table, roles, rows)
        x = [values[each] for each in members]
    labels: list[Any] | None = None
    if rows.labels:
        labels = [[rows.labels[i] for i in each] for each in members]
    weights: list[Any] | None = None
    if rows.weights:
        weights = [np.array([rows.weights[i] for i in each]) for each in members]
    if not per_step:
        counted = [[i for i in each if not rows.mask or rows.mask[i]] for each in members]
        labels = labels and [_one_label(table, roles, rows, each) for each in counted]
        weights = weights and [_one_weight(table, roles, rows, each) for each in counted]
    return Sequences(
        table.name,
        x,
        labels,
        list(groups) if rows.ids else None,
        [[rows.lines[i] for i in each] for each in members],
        [[rows.times[i] for i in each] for each in members] if rows.times else None,
        names,
        replace(roles.named(table, layout, "long"), columns=tuple(names or ())),
        weights=weights,
        masks=masks,
        per_step=per_step,
    )


def _masks(table: Table, rows: Rows, members: list[list[int]]) -> list[Array] | None:
    """Which steps of each sequence count, bool (T_i,); None: all. Raises TableError for a sequence without any."""
    if not rows.mask:
        return None
    masks = [np.array([rows.mask[i] for i in each]) for each in members]
    for mask, each in zip(masks, members, strict=True):
        if not mask.any():
            of_id = f" of id {rows.ids[each[0]]!r:.100}" if rows.ids else ""
            where = table.at(rows.lines[each[0]])
            raise TableError(f"{where}: expected at least one step{of_id} that is there, got a mask of zeros only")
    return masks


def _long_values(table: Table, roles: Roles, rows: Rows) -> tuple[list[str], Array]:
    """The names of the columns of values, and the values (M, D) of all rows. Raises TableError."""
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
    return names, values


def _check_finite(table: Table, roles: Roles, rows: Rows, values: Array) -> None:
    """Raise TableError for a value that is missing or infinite."""
    finite = np.isfinite(values)
    if rows.mask:
        finite[~np.array(rows.mask)] = True  # not read
    if not finite.all():
        i, j = np.argwhere(~finite)[0].tolist()
        got = "an empty cell or NaN" if math.isnan(values[i, j]) else "infinity"
        column = (roles.values or [each for each in range(len(table.columns)) if each not in roles.others])[j]
        raise TableError(f"{table.at(rows.lines[i], column)}: expected a number, got {got}")


def _one_label(table: Table, roles: Roles, rows: Rows, of_sequence: list[int]) -> Any:
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


def _one_weight(table: Table, roles: Roles, rows: Rows, of_sequence: list[int]) -> float:
    """The weight of a sequence, which all of its rows have. Raises TableError if they have several."""
    first = of_sequence[0]
    for i in of_sequence:
        if rows.weights[i] != rows.weights[first]:
            where = table.at(rows.lines[i], roles.weight)
            raise TableError(
                f"{where}: expected the weight {rows.weights[first]:g} of line {rows.lines[first]}, because both are "
                f"of one sequence, got {rows.weights[i]:g}"
            )
    return rows.weights[first]
