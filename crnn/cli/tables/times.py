# SPDX-License-Identifier: MIT
"""Times in tables: numbers, months as 2026-01, and ISO dates; whether they are evenly spaced, and how they continue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

__all__ = ["Axis", "axis_of", "seconds_of"]

_EPOCH = datetime(1970, 1, 1)
_MONTH = re.compile(r"(\d{4})-(\d{2})")
MOST_GAPS = 0.1  # of the steps of an axis; with more, times are not evenly spaced
_DAY = timedelta(days=1)


def seconds_of(cell: str, decimal: str = ".") -> float | None:
    """A time as a number that rises with it: a number itself, seconds for a date; None if it is no time."""
    number = _number(cell, decimal)
    if number is not None:
        return number
    date = _date(cell)
    if date is None:
        return None
    return (date.replace(tzinfo=None) - (date.utcoffset() or timedelta()) - _EPOCH).total_seconds()


def _number(cell: str, decimal: str) -> float | None:
    if "_" in cell:  # which Python allows in numbers
        return None
    try:
        found = float(cell if decimal == "." else cell.replace(decimal, "."))
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _date(cell: str) -> datetime | None:
    if _MONTH.fullmatch(cell):
        cell += "-01"
    try:
        return datetime.fromisoformat(cell)
    except ValueError:
        return None


@dataclass(frozen=True)
class Axis:
    """Evenly spaced times.

    Attributes
    ----------
    first : float or datetime
    step : float, timedelta or int
        Between two times; an int is a number of months.
    pattern : str
        A time as it is written.
    places : list of int
        The place of each row on the axis, from 0; some are left out where rows are missing.
    """

    first: float | datetime
    step: float | timedelta | int
    pattern: str
    places: list[int]

    @property
    def missing(self) -> int:
        """How many rows are missing."""
        return self.places[-1] + 1 - len(self.places)

    def label(self, place: int) -> str:
        """The time at a place, written as the others."""
        if not isinstance(self.first, datetime):
            assert isinstance(self.step, int | float)
            value = self.first + place * self.step
            return str(round(value)) if re.fullmatch(r"[+-]?\d+", self.pattern) else f"{value:.12g}"
        if isinstance(self.step, timedelta):
            date = self.first + place * self.step
        else:
            date = _months_later(self.first, place * int(self.step))
        if _MONTH.fullmatch(self.pattern):
            return f"{date:%Y-%m}"
        if len(self.pattern) == 10:
            return date.date().isoformat()
        clock = re.sub(r"(Z|[+-]\d\d:?\d\d)$", "", self.pattern[10:])
        text = date.isoformat(self.pattern[10], "seconds" if clock.count(":") > 1 else "minutes")
        return text.replace("+00:00", "Z") if self.pattern.endswith("Z") else text


def axis_of(times: Sequence[str], decimal: str = ".") -> Axis | None:
    """The axis of rising times; None if they are not evenly spaced, even with some rows missing."""
    if len(times) < 2:
        return None
    numbers = [_number(cell, decimal) for cell in times]
    if None not in numbers:
        values = [float(number) for number in numbers if number is not None]
        return _on_grid(values[0], min(b - a for a, b in pairwise(values)), times, [v - values[0] for v in values])
    dates = [_date(cell) for cell in times]
    known = [date for date in dates if date is not None]
    if len(known) < len(times) or len({date.tzinfo is None for date in known}) > 1:
        return None
    months = _monthly(known, times)
    if months is not None:
        return months
    since = [(date - known[0]).total_seconds() for date in known]
    step = min(b - a for a, b in pairwise(since))
    found = _on_grid(0.0, step, times, since)
    return found and replace(found, first=known[0], step=timedelta(seconds=step))


def _on_grid(first: float, step: float, times: Sequence[str], distances: Sequence[float]) -> Axis | None:
    """The axis of numbers at these distances from the first one, if all are multiples of a step."""
    places = [round(distance / step) for distance in distances]
    even = all(abs(distance - place * step) <= 1e-6 * step for distance, place in zip(distances, places, strict=True))
    axis = Axis(first, step, times[0], places)
    return axis if even and axis.missing <= MOST_GAPS * len(times) else None


def _monthly(dates: Sequence[datetime], times: Sequence[str]) -> Axis | None:
    """The axis of dates on one day of the month, or on its last day."""
    count = [12 * date.year + date.month for date in dates]
    distances = [b - a for a, b in pairwise(count)]
    if min(distances) < 1:
        return None
    axis = Axis(dates[0], min(distances), times[0], [(each - count[0]) // min(distances) for each in count])
    places = zip(dates, axis.places, strict=True)
    fits = all(date == _months_later(dates[0], place * min(distances)) for date, place in places)
    return axis if fits and axis.missing <= MOST_GAPS * len(times) else None


def _months_later(date: datetime, months: int) -> datetime:
    """The same day so many months later; the last one of a month, or of one that has no such day."""
    number = 12 * date.year + date.month - 1 + months
    first_of_next = datetime((number + 1) // 12, (number + 1) % 12 + 1, 1)
    last = (first_of_next - _DAY).day
    ends = (date + _DAY).day == 1
    return date.replace(year=number // 12, month=number % 12 + 1, day=last if ends else min(date.day, last))
