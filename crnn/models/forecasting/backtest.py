# SPDX-License-Identifier: MIT
"""Back-testing: how good the forecasts of a method would have been, from several origins in the past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from crnn._core import loss as kernels
from crnn._float_mode import in_ieee_mode
from crnn.array_input import library_of
from crnn.checks import Array, check_flag, check_size
from crnn.models.forecasting.bands import checked_levels
from crnn.models.forecasting.frames import is_several, read

BAND = (0.1, 0.9)


class Method(Protocol):
    """What can be back-tested: `Forecaster`, `SeasonalNaive`."""

    @property
    def season_(self) -> int: ...

    def fresh(self) -> Self:
        """A copy that has not learnt anything."""
        ...

    @property
    def fit(self) -> Callable[..., Any]: ...

    def forecast(self, n: Any, series: Any, past: Any, future: Any, *, quantiles: Any) -> Any: ...


@dataclass(frozen=True)
class Backtest:
    """The errors of forecasts from several origins.

    Attributes
    ----------
    method : str
        The name of the class.
    season : int
        That it has used.
    origins : list of int
        Steps before each origin; of the longest series if there are several, whose origins are as far from their ends.
    horizon : int
        Steps ahead, n.
    forecasts, actual : arrays (S, O, n, P)
        Of S series, O origins and P columns; NaN in ``actual`` = missing.
    bands : array (S, O, n, P, 2)
        The lower and the upper quantile of each forecast.
    levels : tuple of two floats
        Their levels.
    naive : Backtest or None
        The same of `SeasonalNaive`, which has learnt from the same data.
    """

    method: str
    season: int
    origins: list[int]
    horizon: int
    forecasts: Array
    actual: Array
    bands: Array
    levels: tuple[float, float]
    naive: Backtest | None = None

    @property
    def errors(self) -> Array:
        """forecasts - actual, (S, O, n, P); NaN = missing."""
        return self.forecasts - self.actual

    @property
    def rmse(self) -> float:
        """Root mean square of all errors."""
        return _rmse(self.errors)

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        known = _known(self.errors)
        return kernels.sum(np.abs(known)) / max(len(known), 1)

    @property
    def rmse_by_origin(self) -> list[float]:
        """Root mean square of the errors from each origin."""
        return [_rmse(self.errors[:, i]) for i in range(len(self.origins))]

    @property
    def coverage(self) -> float:
        """Share of the values that lie in the band, which should be the difference of its levels."""
        known = ~np.isnan(self.actual)
        inside = (self.bands[..., 0] <= self.actual) & (self.actual <= self.bands[..., 1])
        return float((inside & known).sum()) / max(float(known.sum()), 1.0)

    def __repr__(self) -> str:
        rows = [self] if self.naive is None else [self, self.naive]
        lines = [f"{'':15}{'RMSE':>10}{'MAE':>10}{'band':>7}   RMSE by origin ({len(self.origins)} x {self.horizon})"]
        for each in rows:
            by_origin = " ".join(f"{value:.4g}" for value in each.rmse_by_origin)
            lines.append(f"{each.method:15}{each.rmse:10.4g}{each.mae:10.4g}{each.coverage:7.0%}   {by_origin}")
        return "\n".join(lines)


def _known(errors: Array) -> Array:
    found: Array = np.ascontiguousarray(errors[~np.isnan(errors)])
    return found


@in_ieee_mode
def _rmse(errors: Array) -> float:
    known = _known(errors)
    return float(np.sqrt(kernels.sum_of_squares(known) / max(len(known), 1)))


def back_test(
    method: Method,
    series: Any,
    past: Any,
    future: Any,
    horizon: int,
    *,
    origins: int,
    stride: int | None,
    refit: bool,
    levels: Any,
    options: dict[str, Any],
    forecast_options: dict[str, Any],
) -> Backtest:
    """The errors of a method, whose copy learns only from what lies before the first origin, see `Forecaster.backtest`.

    Raises TypeError and ValueError.
    """
    origins, refit = check_size("origins", origins), check_flag("refit", refit)
    stride = horizon if stride is None else check_size("stride", stride)
    low, high = _band(levels)
    frames = read("series", series)
    several = is_several(series)
    needed = horizon + stride * (origins - 1)
    for i, frame in enumerate(frames):
        if len(frame) <= needed + 1:
            name = f"series[{i}]" if several else "series"
            raise ValueError(
                f"{name}: expected more than {needed + 1} steps, for {origins} origins of {horizon} steps that are "
                f"{stride} apart, got {len(frame)}"
            )
    back = [needed - stride * i for i in range(origins)]  # from the end of each series

    def before(value: Any, left: int) -> Any:
        return _without_last(value, left, several)

    learner, found = method.fresh(), []
    for number, left in enumerate(back):
        if number == 0 or refit:
            learner = method.fresh()
            learner.fit(before(series, left), before(past, left), before(future, left), **options)
        known = before(series, left), before(past, left), before(future, left - horizon)
        ahead = learner.forecast(horizon, *known, quantiles=(low, 0.5, high), **forecast_options)
        point = learner.forecast(horizon, *known, quantiles=None, **forecast_options)
        found.append((_arrays(point, several, horizon, 1), _arrays(ahead, several, horizon, 3)))
    ends = [[len(frame) - left for left in back] for frame in frames]
    actual = [[frame.values[t : t + horizon] for t in of] for frame, of in zip(frames, ends, strict=True)]
    return Backtest(
        type(method).__name__,
        learner.season_,
        max(ends),
        horizon,
        np.stack([point[..., 0] for point, _ in found], axis=1),
        np.array(actual),
        np.stack([ahead[..., [0, 2]] for _, ahead in found], axis=1),
        (low, high),
    )


def _band(levels: Any) -> tuple[float, float]:
    found = checked_levels(levels)
    if len(found) != 2 or found[0] >= found[1]:
        raise ValueError(f"quantiles: expected the levels of a band, such as (0.1, 0.9), got {found!r:.200}")
    return found[0], found[1]


def _without_last(value: Any, steps: int, several: bool) -> Any:
    """A series, or several, without its last steps."""
    if value is None:
        return None
    if several:
        return [_without_last(each, steps, False) for each in value]
    if library_of(value) == "pandas":
        return value.iloc[: len(value) - steps]
    return value[: len(value) - steps]


def _arrays(ahead: Any, several: bool, n: int, levels: int) -> Array:
    """Forecasts as an array (S, n, P, levels)."""
    parts: Sequence[Any] = ahead if several else [ahead]
    return np.stack([np.asarray(part, np.float64).reshape(n, -1, levels) for part in parts])
