# SPDX-License-Identifier: MIT
"""Axes: where a value lies between the ends of an axis, which values get a tick, and how numbers are written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

__all__ = ["Scale", "duration", "is_drawable", "number", "scale_of", "thinned"]

LARGEST = 1e100  # larger numbers are drawn nowhere, because squares and quotients of them would overflow
_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))  # from which value on, and the unit of the labels


def is_drawable(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that an axis can have."""
    return isinstance(value, int | float) and abs(value) <= LARGEST


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``; if ``log``, both are positive."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies: 0 at ``low``, 1 at ``high``."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def has(self, value: object) -> TypeGuard[float]:
        """Whether a value can be drawn on this axis, inside or outside of its ends."""
        return is_drawable(value) and (not self.log or value >= 1 / LARGEST)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """About ``count`` round values on the axis, with their labels."""
        values = _log_ticks(self.low, self.high, count) if self.log else _round_steps(self.low, self.high, count)
        values = [value for value in values if -1e-9 <= self(value) <= 1 + 1e-9]
        labels = [label.replace("-", "−") for label in _labels(values)]
        return list(zip(values, labels, strict=True))


def scale_of(values: Iterable[float], *, log: bool = False, whole: bool = False) -> Scale:
    """An axis for all these values, the drawable ones; on a logarithmic axis, the positive ones.

    Its ends are round values, or with ``whole`` the extreme values themselves.
    """
    usable = list(filter(Scale(1, 2, log).has, values))
    low, high = (min(usable), max(usable)) if usable else (1.0, 10.0)
    if log:
        if high < 1.05 * low:
            low, high = low / 1.5, high * 1.5
        margin = 1.0 if whole else (high / low) ** 0.04
        return Scale(low / margin, high * margin, log=True)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    if whole:
        return Scale(low, high)
    step = _step(high - low, 5)
    return Scale(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def _step(length: float, count: int) -> float:
    """A round step of which about ``count`` make up a length."""
    rough = length / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough * 0.999), 10 * power)


def _round_steps(low: float, high: float, count: int) -> list[float]:
    step = _step(high - low, count)
    first = math.ceil(low / step - 1e-9)
    return [(first + number) * step for number in range(int((high - first * step) / step + 1e-6) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    decades = math.log10(high / low)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if decades < 0.7:
        return _round_steps(low, high, count)
    if decades < 2.5:
        factors = (1, 2, 5) if decades > 1.2 else (1, 2, 3, 4, 5, 7)
        return [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [10.0**power for power in range(first, last + 1, max(1, math.ceil(decades / count)))]


def _labels(values: Sequence[float]) -> list[str]:
    """The ticks of one axis, all in one unit and with enough decimals to distinguish them."""
    largest = max(map(abs, values), default=0.0)
    smallest = min((abs(value) for value in values if value), default=1.0)
    if largest >= 1e13 or largest < 1e-3 or (smallest < 1e-4 and largest / smallest > 1e3):
        return [_power(value) for value in values]
    unit, suffix = next(((unit, suffix) for start, unit, suffix in _UNITS if largest >= start), (1.0, ""))
    even = len({round(after - before, 12) for before, after in itertools.pairwise(values)}) <= 1
    if not even:  # logarithmic
        return [f"{value / unit:.6g}{suffix if value else ''}" for value in values]
    step = min((after - before for before, after in itertools.pairwise(values)), default=largest) / unit
    decimals = next((digits for digits in range(9) if abs(round(step, digits) - step) <= 1e-6 * step), 9)
    return [f"{value / unit:,.{decimals}f}{suffix}" if value else "0" for value in values]


def _power(value: float, digits: int = 3) -> str:
    """Such as 1e-5 or 2.5e+20, without superfluous zeros."""
    if not value:
        return "0"
    factor, power = f"{value:.{digits - 1}e}".split("e")
    return f"{float(factor):g}e{int(power)}"


def number(value: object, digits: int = 4) -> str:
    """A number as a table shows it: 4 significant digits, or all digits of the whole part in groups of three."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if value != value else "∞" if value > 0 else "−∞"
    if isinstance(value, int) or 10 ** (digits - 1) <= abs(value) < 1e15:
        text = f"{value:,.0f}"
    elif value and not 1e-4 <= abs(value) < 1e15:
        text = _power(value, digits)
    else:
        whole = math.floor(math.log10(abs(value))) + 1 if value else digits  # digits before the point
        text = f"{value:.{max(digits - whole, 0)}f}"
    return text.replace("-", "−")


def duration(seconds: object) -> str:
    """Such as 35 ms, 4.2 s, 3 min 20 s or 2 h 5 min."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        return number(None)
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.0095 else f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.{0 if seconds >= 10 or not seconds else 1 if seconds >= 1 else 2}f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def thinned(x: Sequence[float], y: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """At most ``most`` of the points, among them the lowest and the highest of each part, so that peaks stay."""
    if len(x) <= most:
        return list(x), list(y)
    parts, kept = max(most // 2 - 1, 1), {0, len(x) - 1}
    for part in range(parts):
        numbers = range(part * len(x) // parts, (part + 1) * len(x) // parts)
        finite = [n for n in numbers if is_drawable(y[n])]
        if finite:
            kept |= {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
        elif numbers:
            kept.add(numbers[0])
    order = sorted(kept)
    return [x[n] for n in order], [y[n] for n in order]
