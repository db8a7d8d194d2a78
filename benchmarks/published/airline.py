# SPDX-License-Identifier: MIT
"""airline: passengers of 24 months, forecast from the 120 before them; errors in thousands of passengers.

The regressor reads the logarithm's change from the same month a year before, learns to predict the next one, and goes
on by itself for 24 months; each year's figure then stands on the last one's, observed or forecast. Beside it:
persistence, which repeats the last month, and the seasonal naive forecast, which repeats the last year.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.data import passengers
from benchmarks.published.report import show

Array = NDArray[Any]

AHEAD, YEAR, MODELS = 24, 12, 5
SETTINGS = [(8, 40, 24), (8, 60, 36), (8, 150, 36), (16, 60, 36), (16, 100, 60)]  # hidden, epochs, months a piece


def yearly_changes(series: Array) -> Array:
    """log x[t] - log x[t - 12]: (T - 12,)."""
    return np.log(series[YEAR:] / series[:-YEAR])


def go_on(series: Array, changes: Array) -> Array:
    """The values that follow a series when these are the next yearly changes."""
    values = series.tolist()
    for change in changes:
        values.append(values[-YEAR] * float(np.exp(change)))
    return np.array(values[len(series) :])


def naive(series: Array, ahead: int) -> dict[str, Array]:
    """Forecasts that learn nothing."""
    last_year = series[-YEAR:]
    return {
        "persistence": np.full(ahead, series[-1]),
        "seasonal naive": np.resize(last_year, ahead),
    }


def errors(forecast: Array, actual: Array) -> str:
    """RMSE and MAE, for a line."""
    error = forecast - actual
    return f"RMSE {np.sqrt((error**2).mean()):6.2f}, MAE {np.abs(error).mean():6.2f}"


def learn(known: Array, hidden: int, epochs: int, steps: int, seed: int) -> Array:
    """Train on all pieces of so many months' changes, and forecast 24 months."""
    changes = yearly_changes(known)[:, None]
    pieces = [changes[i : i + steps] for i in range(len(changes) - steps + 1)]
    model = crnn.SequenceRegressor(1, 1, hidden, cell="gru", pooling=None, seed=seed)
    rates = {"optimizer": crnn.optim.Adam(lr=1e-2), "schedule": crnn.optim.cosine()}
    model.fit(pieces, None, epochs=epochs, batch_size=8, **rates)
    return go_on(known, model.forecast(changes, AHEAD)[:, 0])


def choose(known: Array, seed: int) -> tuple[int, int, int]:
    """Of `SETTINGS`, the one whose models forecast the last 24 known months best, trained on those before."""

    def error(setting: tuple[int, int, int]) -> float:
        squares = [(learn(known[:-AHEAD], *setting, seed + k) - known[-AHEAD:]) ** 2 for k in range(3)]
        return float(np.mean(squares))

    return min(SETTINGS, key=error)


def run(seed: int) -> None:
    """Forecast, and print."""
    series = passengers()
    known, actual = series[:-AHEAD], series[-AHEAD:]
    setting = choose(known, seed)
    show("hidden, epochs, months a piece", ", ".join(map(str, setting)), "chosen on the 24 months before")
    show("GRU, fed back on itself", errors(learn(known, *setting, seed), actual))
    forecasts = [learn(known, *setting, seed + k) for k in range(MODELS)]
    show(f"mean forecast of {MODELS} such models", errors(np.mean(forecasts, axis=0), actual))
    for name, forecast in naive(known, AHEAD).items():
        show(name, errors(forecast, actual), "baseline, computed here")
