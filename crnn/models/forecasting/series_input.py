# SPDX-License-Identifier: MIT
"""SeriesInput: series and further columns as users pass them to learn or forecast from; read, checked, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.models.forecasting.frames import Frame, check_index, in_order, is_several, read, read_columns

# What other libraries call the further columns of a series.
OTHERS_NAMES = {
    **dict.fromkeys(("exog", "X", "xreg", "covariates"), "past, columns known up to the origin, or future"),
    "past_covariates": "past",
    "future_covariates": "future",
}


@dataclass(frozen=True)
class Columns:
    """How many columns a forecaster knows, and their names if they were given by pandas.

    Attributes
    ----------
    targets, past, future : int
    names : dict
        Names of the columns as strings, or None, by "series", "past" and "future".
    """

    targets: int
    past: int
    future: int
    names: dict[str, list[str] | None]


@dataclass(frozen=True)
class SeriesInput:
    """Series and their further columns.

    Attributes
    ----------
    frames : list of Frame
    several : bool
        Whether a list of series was given.
    past, future : lists of arrays (T, E) and (T + ahead, F)
    columns : Columns
    """

    frames: list[Frame]
    several: bool
    past: list[Array]
    future: list[Array]
    columns: Columns


def check_names(options: Iterable[str]) -> None:
    """Raise TypeError for a name that other libraries have for columns."""
    for name in options:
        if name in OTHERS_NAMES:
            raise TypeError(f"{name}: expected {OTHERS_NAMES[name]}")


def read_all(
    series: Any, past: Any, future: Any, *, ahead: int = 0, like: Columns | None = None, continues: bool = False
) -> SeriesInput:
    """Read series and other columns. ``ahead``: rows that ``future`` has after the end of the series.

    ``like`` : the columns of the series that were learnt; others are refused, and theirs are put in this order.
    ``continues`` : the series continue those that are remembered, whose index tells what follows.

    Raises TypeError and ValueError.
    """
    frames, several = read("series", series, axis=not continues), is_several(series)
    P = frames[0].values.shape[1] if like is None else like.targets
    for i, frame in enumerate(frames):
        if frame.values.shape[1] != P:
            label = f"series[{i}]" if several else "series"
            raise ValueError(f"{label}: expected {P} columns, got {frame.values.shape[1]}")
    names = _names(frames)
    if like is None and names is None:
        frames = _in_one_order("series", frames)
        names = _names(frames)
    if like is not None:
        frames = [_ordered(f"series[{i}]" if several else "series", each, like) for i, each in enumerate(frames)]
    further, counts, titles = {}, {}, {"series": names}
    for name, value, rows in (("past", past, 0), ("future", future, ahead)):
        found = read_columns(name, value, frames, several, [len(frame) + rows for frame in frames])
        if found is not None and like is None:
            found = _in_one_order(name, found)
        wanted = None if like is None else {"past": like.past, "future": like.future}[name]
        counts[name] = _checked_count(name, found, wanted, like, [len(frame) + rows for frame in frames])
        titles[name] = None if found is None else _names(found)
        further[name] = [
            _other_columns(f"{name}[{i}]" if several else name, name, i, frame, found, like, rows)
            for i, frame in enumerate(frames)
        ]
    columns = Columns(P, counts["past"], counts["future"], titles) if like is None else like
    return SeriesInput(frames, several, further["past"], further["future"], columns)


def _names(frames: Sequence[Frame]) -> list[str] | None:
    """The names of columns, if those of all frames are the same."""
    found = {None if frame.columns is None or frame.flat else tuple(map(str, frame.columns)) for frame in frames}
    names = found.pop() if len(found) == 1 else None
    return None if names is None else list(names)


def _in_one_order(name: str, frames: list[Frame]) -> list[Frame]:
    """Several frames whose columns have the same names, in the order of the first one.

    Raises ValueError if only some of the names are the same; if none are, columns are read by position.
    """
    first = frames[0].columns
    if first is None or frames[0].flat or len(set(map(str, first))) < len(first):
        return frames
    known = list(map(str, first))
    for i, frame in enumerate(frames):
        names = set(map(str, frame.columns or ()))
        if names & set(known) and names != set(known) and not frame.flat:
            raise ValueError(f"{name}[{i}]: expected the columns {known}, as in {name}[0], got {sorted(names)}")
    like = Columns(len(known), 0, 0, {"series": known})
    return [
        _ordered(f"{name}[{i}]", frame, like) if set(map(str, frame.columns or ())) == set(known) else frame
        for i, frame in enumerate(frames)
    ]


def _ordered(label: str, frame: Frame, like: Columns) -> Frame:
    names = like.names["series"]
    if frame.columns is None or names is None or frame.flat:
        return frame
    values = in_order(label, frame, names)
    columns = sorted(frame.columns, key=lambda column: names.index(str(column)))
    return Frame(values, frame.flat, columns, frame.axis, frame.index)


def _checked_count(
    name: str, found: Sequence[Frame] | None, wanted: int | None, like: Columns | None, rows: Sequence[int]
) -> int:
    """The number of other columns. Raises ValueError unless it is the number that was learnt."""
    count = 0 if found is None else found[0].values.shape[1]
    if wanted is not None and count != wanted:
        names = None if like is None else like.names[name]
        titles = f" {names}" if names else ""
        got = "none" if found is None else f"{len(found[0])} rows of {count} columns"
        raise ValueError(f"{name}: expected {rows[0]} rows of {wanted} columns{titles}, as in fit, got {got}")
    return count


def _other_columns(
    label: str, name: str, i: int, frame: Frame, found: list[Frame] | None, like: Columns | None, rows: int
) -> Array:
    """The other columns of a series (T + rows, E), in the order that was learnt."""
    if found is None:
        return np.zeros((len(frame) + rows, 0))
    index = frame.index
    if index is not None and rows and frame.axis is not None:
        index = index.append(frame.axis.after(rows))
    check_index(label, found[i], index)
    names = (like.names[name] if like is not None else None) or _names(found)
    return in_order(label, found[i], names)


def read_ahead(
    future: Any, n: int, frames: Sequence[Frame], several: bool, columns: Columns
) -> list[Array]:
    """The columns (n, F) that are known ahead of each remembered series. Raises TypeError and ValueError."""
    names = columns.names["future"]
    what = f"{n} rows of {columns.future} columns" + (f" {names}" if names else "")
    if future is None:
        if columns.future:
            raise ValueError(f"future: expected {what}, as in fit, got none")
        return [np.zeros((n, 0)) for _ in frames]
    if not columns.future:
        raise ValueError("future: expected none, because fit had none")
    found = read("future", future, what, bools=True, axis=False)
    if len(found) != len(frames) or is_several(future) != several:
        raise ValueError(f"future: expected {what} for each of {len(frames)} series, got {len(found)}")
    ahead = []
    for i, (given, frame) in enumerate(zip(found, frames, strict=True)):
        label = f"future[{i}]" if several else "future"
        if given.values.shape != (n, columns.future):
            got = f"{len(given)} rows of {given.values.shape[1]} columns"
            raise ValueError(f"{label}: expected {what}, got {got}")
        if given.index is not None and frame.axis is not None:
            check_index(label, given, frame.axis.after(n))
        ahead.append(in_order(label, given, names))
    return ahead
