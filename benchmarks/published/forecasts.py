# SPDX-License-Identifier: MIT
"""Forecasts with defaults: co2 and El Nino of statsmodels, four series of CRNN_DATA, and six that are made up.

Five origins at the end of each series, 12 steps ahead of each and 12 apart; `crnn.Forecaster()` learns once, from what
lies before the first origin, with eight seeds. Beside it the last season and the last value, repeated; and, if
statsmodels is installed, exponential smoothing (ETS: damped trend, additive season) and SARIMA (1, 1, 1)(0, 1, 1) with
the season that the forecaster has found, or ARIMA (2, 1, 1) without one. Both are fitted again at each origin.

The default settings were chosen on the same series without their last 60 steps (12 or 24 of short ones).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.data import NoData, find, read_column
from benchmarks.published.work import Work

Array = NDArray[Any]

HORIZON, ORIGINS, SEEDS = 12, 5, 8


def co2() -> Array:
    """Monthly means of the weekly CO2 at Mauna Loa, 1958 to 2001; months without a value are interpolated."""
    table = statsmodels_data("co2")["co2"]
    values: Array = table.resample("MS").mean().interpolate().to_numpy()
    return values


def elnino() -> Array:
    """Monthly temperature of the sea surface, 1950 to 2010."""
    values = statsmodels_data("elnino").iloc[:, 1:].to_numpy(np.float64).ravel()
    return values[~np.isnan(values)]


def statsmodels_data(name: str) -> Any:
    """A table of statsmodels. Raises NoData if it is not installed."""
    try:
        import statsmodels.api as sm
    except ImportError:
        raise NoData(f"needs the package statsmodels for {name}") from None
    return getattr(sm.datasets, name).load_pandas().data


def made_up(kind: str) -> Array:
    """A series with known properties."""
    rng = np.random.default_rng(7)
    n, noise = np.arange(400), rng.normal(size=400)
    if kind == "random walk":
        return 100 + noise.cumsum()
    if kind == "white noise":
        return 5 + noise
    if kind == "trend":
        return 10 + 0.7 * n + 0.5 * noise
    if kind == "weeks":
        return 20 + 0.01 * n + np.array([0, 1.5, 3, 2.25, 4.5, 9, 7.5])[n % 7] + noise
    if kind == "level shifts":
        return np.repeat(8 * rng.normal(size=16), 25) + 0.7 * noise
    values = np.zeros(400)
    for step in range(2, 400):
        values[step] = 1.3 * values[step - 1] - 0.5 * values[step - 2] + noise[step]
    return values


SERIES: dict[str, Callable[[], Array]] = {
    "co2": co2,
    "elnino": elnino,
    **{name: lambda name=name: read_column(find(f"{name}.csv")) for name in ("airline", "sunspots", "lynx", "nile")},
    **{
        kind: lambda kind=kind: made_up(kind)
        for kind in ("random walk", "white noise", "trend", "weeks", "level shifts", "autoregression")
    },
}


def rmse_of_statsmodels(series: Array, season: int) -> dict[str, float]:
    """RMSE of ETS and SARIMA over the same origins; empty if statsmodels is not installed."""
    try:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing
        from statsmodels.tsa.statespace.sarimax import SARIMAX
    except ImportError:
        return {}
    seasonal = {"seasonal": "add", "seasonal_periods": season} if season > 1 else {}
    order: dict[str, Any] = {"order": (1, 1, 1), "seasonal_order": (0, 1, 1, season)}
    makers: dict[str, Callable[[Array], Any]] = {
        "ETS": lambda known: ExponentialSmoothing(known, trend="add", damped_trend=True, **seasonal).fit(),
        "SARIMA": lambda known: SARIMAX(known, **(order if season > 1 else {"order": (2, 1, 1)})).fit(disp=False),
    }
    found = {}
    for name, make in makers.items():
        errors = []
        for origin in range(len(series) - ORIGINS * HORIZON, len(series), HORIZON):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                errors.append(make(series[:origin]).forecast(HORIZON) - series[origin : origin + HORIZON])
        found[name] = float(np.sqrt(np.mean(np.square(errors))))
    return found


def run(work: Work) -> Iterator[str]:
    """Back-test every series. Yields the lines of the report; a series whose data are missing is named there."""
    names = ("naive", "last", "ETS", "SARIMA")
    others = "".join(f"{name:>9}" for name in names)
    yield f"{'RMSE':15}{'steps':>6}{'season':>7}{'Forecaster, range':>30}{others}  band"
    for name, load in SERIES.items():
        try:
            series = load()
        except NoData as missing:
            yield f"{name:15}{missing}"
            continue
        results = [
            crnn.Forecaster(HORIZON, seed=work.seed + k).backtest(series, origins=ORIGINS, progress=False)
            for k in range(SEEDS)
        ]
        own, naive = [result.rmse for result in results], results[0].naive
        assert naive is not None
        last = crnn.SeasonalNaive(1).backtest(series, HORIZON, ORIGINS)
        figures = {"naive": naive.rmse, "last": last.rmse, **rmse_of_statsmodels(series, naive.season)}
        others = "".join(f"{figures.get(each, np.nan):9.4g}" for each in names)
        shown = f"{np.mean(own):.4g}, {min(own):.4g} to {max(own):.4g}"
        coverage = np.mean([result.coverage for result in results])
        yield f"{name:15}{len(series):6}{naive.season:7}{shown:>30}{others}{coverage:6.0%}"
    work.report("see [forecasting](forecasting.md)")
