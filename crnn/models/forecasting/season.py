# SPDX-License-Identifier: MIT
"""What the training data decide of a forecaster: the season and the differences. docs/forecasting.md has the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from crnn._core import loss as kernels
from crnn.checks import Array

SERIES_READ = 20  # of many, evenly spread
STEPS_READ = 10_000  # the last ones
LONGEST = 400  # season that is looked for
PERIODS = 3  # of a season that a series must have at least
CORRELATION = 0.5  # at the lag of a season
LASTING = 0.75  # the part of it that is left at twice the lag: a season lasts, a cycle without a clock fades
NAMED_CORRELATION = 0.2  # at the lag that the frequency of an index names
BEST = 0.9  # of several lags the shortest one with this part of the highest correlation

SEASONS = {"h": 24, "D": 7, "B": 5, "W": 52, "M": 12, "Q": 4}  # by the frequency of an index, without a multiple


def voted(votes: Iterable[int]) -> int:
    """The most frequent of several numbers, if most agree on it; the smallest of equally frequent ones."""
    counted = Counter(votes)
    return min(counted, key=lambda number: (-counted[number], number))


def some_of(series: Sequence[Array]) -> list[Array]:
    """The last steps of at most `SERIES_READ` columns (T,) of series (T, P), evenly spread."""
    columns = [(i, j) for i, each in enumerate(series) for j in range(each.shape[1])]
    chosen = np.unique(np.linspace(0, len(columns) - 1, min(len(columns), SERIES_READ)).round().astype(int))
    return [np.ascontiguousarray(series[i][-STEPS_READ:, j]) for i, j in (columns[k] for k in chosen.tolist())]


def season_of(series: Sequence[Array], named: int | None) -> int:
    """The season of filled series (T_i, P), 1 if there is none.

    ``named`` : what the frequency of an index says; only this season is then considered.
    """
    return voted(_season_of_column(column, named) for column in some_of(series))


def _season_of_column(x: Array, named: int | None) -> int:
    most = len(x) // PERIODS
    lags = [lag for lag in (range(2, LONGEST + 1) if named is None else [named]) if 1 < lag <= most]
    rest = detrended(x)
    squares = kernels.sum_of_squares(rest)
    if not lags or not squares:
        return 1

    def correlation(lag: int) -> float:
        return kernels.sum(rest[lag:] * rest[: len(rest) - lag]) / (len(rest) - lag) / (squares / len(rest))

    least = CORRELATION if named is None else NAMED_CORRELATION
    found = {lag: correlation(lag) for lag in lags}
    peaks = {
        lag: height
        for lag, height in found.items()
        if height >= least and height > found.get(lag - 1, correlation(lag - 1))
        and height >= found.get(lag + 1, correlation(lag + 1))
    }  # fmt: skip
    lasting = [lag for lag in peaks if correlation(2 * lag) >= LASTING * peaks[lag]]
    if not lasting:
        return 1
    highest = max(peaks[lag] for lag in lasting)
    return min(lag for lag in lasting if peaks[lag] >= BEST * highest)


def detrended(x: Array) -> Array:
    """x (T,) without its mean and its linear trend."""
    place = np.arange(len(x)) - (len(x) - 1) / 2
    rest = x - kernels.sum(x) / len(x)
    squares = kernels.sum_of_squares(place)
    return rest - place * (kernels.sum(place * rest) / squares) if squares else rest


def without_season(x: Array, season: int) -> Array:
    """x (T,) without the mean of each place in the season."""
    if season <= 1:
        return x
    rest = x.copy()
    for place in range(min(season, len(x))):
        each = np.ascontiguousarray(x[place::season])
        rest[place::season] = each - kernels.sum(each) / len(each)
    return rest


def lags_of(series: Sequence[Array], season: int, horizon: int) -> tuple[int, ...]:
    """The lags of the differences of filled series (T_i, P): (1,), or none.

    Differences are taken if the last value is a better forecast than the mean, of the series without its season: in the
    mean of the squared errors over all origins and the steps of the horizon.
    """
    wanders = [_last_is_better(without_season(column, season), horizon) for column in some_of(series)]
    return (1,) if sum(wanders) * 2 > len(wanders) else ()


def _last_is_better(x: Array, horizon: int) -> bool:
    steps = range(1, max(2, min(horizon + 1, len(x) // 2)))
    if len(x) < 3:
        return True
    mean = kernels.sum(x) / len(x)
    of_mean = kernels.sum_of_squares(x - mean) / len(x)
    errors = [kernels.sum_of_squares(np.ascontiguousarray(x[h:] - x[:-h])) / (len(x) - h) for h in steps]
    return sum(errors) / len(errors) < of_mean


