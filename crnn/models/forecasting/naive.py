# SPDX-License-Identifier: MIT
"""SeasonalNaive: the last season, repeated. What every other forecast has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

import numpy as np

from crnn._attributes import fixed_attributes
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.array_input import shown
from crnn.checks import Array, as_integer, check_size
from crnn.models.forecasting.backtest import BAND, Backtest, Method, back_test
from crnn.models.forecasting.bands import Bands, checked_levels
from crnn.models.forecasting.frames import as_given
from crnn.models.forecasting.memory import Remembered
from crnn.models.forecasting.scoring import score_of
from crnn.models.forecasting.season import SEASONS, season_of
from crnn.models.forecasting.series_input import Columns, SeriesInput, read_all
from crnn.models.forecasting.transformations import Difference, Gaps, carried


def _checked_season(name: str, season: Any) -> Any:
    check_season(season)
    return season


@fixed_attributes({"season": _checked_season})
class SeasonalNaive:
    """Forecasts each step by the value one season before, or with ``season=1`` by the last value.

    It has the methods of `Forecaster`, to compare with. A gap is filled by the value one season before.

    Parameters
    ----------
    season : int or "auto"
        Steps of a season. "auto": as `Forecaster` finds it.

    Examples
    --------
    >>> import crnn
    >>> crnn.SeasonalNaive(season=3).fit([1, 2, 3, 4, 5, 6]).forecast(4)
    array([4., 5., 6., 4.])
    """

    season: int | str
    _season: int  # that is used
    _memory: list[Remembered]
    _several: bool
    _columns: Columns

    def __init__(self, season: int | str = "auto") -> None:
        self.season = season  # which checks it

    def __repr__(self) -> str:
        return f"SeasonalNaive(season={self.season!r})"

    @property
    def season_(self) -> int:
        """Steps of the season that is used; there is no such attribute before `fit`."""
        return self._season

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, as scikit-learn reads them."""
        return {"season": self.season}

    def fresh(self) -> Self:
        """A copy that has not learnt anything."""
        copy = type(self).__new__(type(self))
        learnt = ("_season", "_memory", "_several", "_columns")
        vars(copy).update(deepcopy({name: value for name, value in vars(self).items() if name not in learnt}))
        return copy

    def fit(self, series: Any, past: Any = None, future: Any = None, **options: Any) -> Self:
        """Find the season of a series, or of several, and remember them. Returns the model.

        Parameters
        ----------
        series
            As in `Forecaster.fit`. The other arguments are accepted, checked and not used.
        """
        given = read_all(series, past, future)
        filled = [Gaps("interpolate").apply(frame.values) for frame in given.frames]
        axis = given.frames[0].axis
        named = None if axis is None or axis.frequency is None else SEASONS.get(axis.frequency)
        self._season = season_of(filled, named) if isinstance(self.season, str) else check_season(self.season)
        self._memory, self._several, self._columns = remembered(given), given.several, given.columns
        return self

    def update(self, series: Any, past: Any = None, future: Any = None) -> Self:
        """Add the values that came after the remembered series. Returns the model."""
        if not hasattr(self, "_memory"):
            raise ValueError("SeasonalNaive: expected a call of fit before this")
        read_all(series, past, future, continues=True)  # checks columns that are not used
        given = read_all(series, None, None, like=replace(self._columns, past=0, future=0), continues=True)
        self._memory = continued(self._memory, given)
        return self

    def forecast(
        self,
        n: int,
        series: Any = None,
        past: Any = None,
        future: Any = None,
        *,
        quantiles: Sequence[float] | None = None,
        threads: int = 1,
    ) -> Any:
        """The next ``n`` steps of the series of `fit`, or of others. See `Forecaster.forecast`.

        Bands are those of the differences at the lag of the season; their variance grows with each season ahead.
        """
        n = check_size("n", n)
        levels = None if quantiles is None else checked_levels(quantiles)
        if not hasattr(self, "_memory"):
            raise ValueError("SeasonalNaive: expected a call of fit before this")
        memory, several = self._memory, self._several
        if series is not None:
            given = read_all(series, past, None)
            memory, several = remembered(given), given.several
        naive = Difference((self.season_,))
        found = []
        for each in memory:
            values = seasonally_filled(each.values, self.season_)
            point = naive.naive(values, n)
            axis = None if each.axis is None else each.axis
            if levels is not None:
                point = self._quantiles(values, point, levels)
            found.append(as_given(point, each.frame, axis, levels))
        return found if several else found[0]

    def predict(self, n: int, series: Any = None, past: Any = None, future: Any = None, *, threads: int = 1) -> Any:
        """The next ``n`` steps, as `forecast` returns them."""
        return self.forecast(n, series, past, future, threads=threads)

    def score(self, series: Any, future: Any = None) -> float:
        """R^2 of the forecast of the values that came after those of `fit`, see `Forecaster.score`."""
        if not hasattr(self, "_memory"):
            raise ValueError("SeasonalNaive: expected a call of fit before this")
        return score_of(series, self._memory, self._columns, self._several, self.forecast)

    def _quantiles(self, values: Array, point: Array, levels: list[float]) -> Array:
        """Quantiles (n, P, Q) around a forecast (n, P)."""
        if len(values) <= self.season_:
            raise ValueError(f"quantiles: expected a series of more than {self.season_} steps, got {len(values)}")
        bands = Bands.alike(values[self.season_ :] - values[: -self.season_], self.season_)
        return np.moveaxis(point + bands.offsets(np.array(levels), len(point), grows=True), 0, -1)

    def backtest(
        self,
        series: Any,
        horizon: int = 12,
        origins: int = 5,
        *,
        stride: int | None = None,
        refit: bool = False,
        past: Any = None,
        future: Any = None,
        quantiles: Sequence[float] = BAND,
    ) -> Backtest:
        """The errors of forecasts from several origins, see `Forecaster.backtest`."""
        return back_test(
            self, series, past, future, check_size("horizon", horizon),
            origins=origins, stride=stride, refit=refit, levels=quantiles, options={}, forecast_options={},
        )  # fmt: skip


public_methods_in_ieee_mode(SeasonalNaive)


def check_season(season: Any) -> int:
    """A season as a number; 0 for "auto". Raises ValueError."""
    if isinstance(season, str) and season == "auto":
        return 0
    number = as_integer(season)
    if number is None or number < 1:
        raise ValueError(f"season: expected 'auto' or an integer of at least 1, got {shown(season)}")
    return number


def back_test_beside_naive(
    method: Method, series: Any, past: Any, future: Any, horizon: int, options: dict[str, Any], **how: Any
) -> Backtest:
    """`back_test` of a method that is trained with ``options``, with that of `SeasonalNaive` with the same season.

    ``how``: origins, stride, refit and levels.
    """
    threads = {"threads": options["threads"]} if "threads" in options else {}
    own = back_test(method, series, past, future, horizon, options=options, forecast_options=threads, **how)
    naive = SeasonalNaive(own.season)
    baseline = back_test(naive, series, None, None, horizon, options={}, forecast_options={}, **how)
    return replace(own, naive=baseline)


def seasonally_filled(values: Array, season: int) -> Array:
    """Values (T, P) whose gaps have the value one season before; in the first season the last known value."""
    filled: Array = values.copy()
    missing = np.isnan(filled)
    for step in np.flatnonzero(missing.any(axis=1)).tolist():
        if step >= season:
            filled[step] = np.where(missing[step], filled[step - season], filled[step])
    for column in filled.T:
        column[...] = carried(column, ~np.isnan(column))
    return filled


def remembered(given: SeriesInput) -> list[Remembered]:
    """The series as a memory, which are not scaled."""
    P = given.columns.targets
    return [
        Remembered(each.values, past, future, np.zeros(P), np.ones(P), each.flat, each.columns, each.axis)
        for each, past, future in zip(given.frames, given.past, given.future, strict=True)
    ]


def continued(memory: Sequence[Remembered], given: SeriesInput) -> list[Remembered]:
    """A memory with more steps of each series. Raises ValueError."""
    if len(given.frames) != len(memory):
        raise ValueError(f"series: expected more values of each of {len(memory)} series, got {len(given.frames)}")
    found = []
    for i, (each, frame) in enumerate(zip(memory, given.frames, strict=True)):
        label = f"series[{i}]" if given.several else "series"
        each.check_follows(label, frame)
        axis = None if each.axis is None else each.axis.advanced(len(frame))
        found.append(each.extended(frame.values, given.past[i], given.future[i], axis))
    return found
