# SPDX-License-Identifier: MIT
"""Airline passengers, 1949 to 1960: two years are forecast from the ten before, month after month on its own forecasts.

Box, Jenkins 1970, series G. Ten networks learn the differences of the logarithm from all windows of a given length, and
each feeds its forecasts back as input; the forecast is their geometric mean. It is compared with persistence (the last
known month, repeated) and the seasonal naive forecast (the last known year, repeated). "Same month a year before"
uses the first of the two years to forecast the second, which no other method here may.

The setting is the best of several at forecasting two years from the first 6, 7 and 8 years: `--choose` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.data import find, read_column
from benchmarks.published.work import Work

Array = NDArray[Any]

YEAR, AHEAD = 12, 24
REPORT_MEMBERS, CHOICE_MEMBERS = 10, 5


@dataclass(frozen=True)
class Setting:
    """A model of the changes over ``lag`` months, trained on sequences of ``piece`` months."""

    lag: int
    piece: int
    hidden_size: int
    epochs: int = 60
    cell: str = "gru"

    def forecast(self, series: Array, n: int, seed: int) -> Array:
        """Train a network on a series (N,), and forecast the next n values (n,)."""
        logs = np.log(series)
        changes = (logs[self.lag :] - logs[: -self.lag])[:, None]
        piece = min(self.piece, len(changes))
        pieces = [changes[i : i + piece] for i in range(len(changes) - piece + 1)]
        model = crnn.SequenceRegressor(1, 1, hidden_size=self.hidden_size, cell=self.cell, pooling=None, seed=seed)
        model.fit(
            pieces,
            None,
            valid=None,
            epochs=self.epochs,
            batch_size=8,
            clip_norm=1.0,
            optimizer=crnn.optim.Adam(lr=1e-2),
            schedule=crnn.optim.cosine(warmup=10),
        )
        ahead = logs.tolist()
        for change in model.forecast(changes, n)[:, 0]:
            ahead.append(ahead[-self.lag] + change)
        return np.exp(ahead[-n:])


CANDIDATES = tuple(Setting(lag, piece, size) for lag in (1, YEAR) for piece in (24, 36, 48) for size in (8, 16, 32))
CHOSEN = Setting(YEAR, 48, 32)


def errors(forecast: Array, truth: Array) -> tuple[float, float]:
    """RMSE and MAE."""
    error = forecast - truth
    return float(np.sqrt((error**2).mean())), float(np.abs(error).mean())


def mean_of(forecasts: list[Array]) -> Array:
    """Geometric mean of several forecasts."""
    mean: Array = np.exp(np.mean(np.log(forecasts), axis=0))
    return mean


def choose(seed: int) -> Iterator[str]:
    """Compare all candidates on the training part. Yields the lines of the report."""
    known = read_column(find("airline.csv"))[:-AHEAD]
    results = []
    for setting in CANDIDATES:
        rmse = []
        for years in (6, 7, 8):
            start, stop = years * YEAR, years * YEAR + AHEAD
            members = [setting.forecast(known[:start], AHEAD, k) for k in range(seed, seed + CHOICE_MEMBERS)]
            rmse.append(errors(mean_of(members), known[start:stop])[0])
        results.append(np.mean(rmse))
        yield f"RMSE {results[-1]:5.1f} ({', '.join(f'{value:.1f}' for value in rmse)})  {setting}"
    yield f"chosen: {CANDIDATES[int(np.argmin(results))]}"


def run(work: Work) -> Iterator[str]:
    """Train on the airline passengers. Yields the lines of the report."""
    series = read_column(find("airline.csv"))
    known, truth = series[:-AHEAD], series[-AHEAD:]
    yield f"{'thousands of passengers':26}{'RMSE':>9}{'MAE':>9}{'s':>6}"
    naive = {
        "persistence": np.full(AHEAD, known[-1]),
        "seasonal naive": np.resize(known[-YEAR:], AHEAD),
        "same month a year before": series[-AHEAD - YEAR : -YEAR],
    }
    for name, forecast in naive.items():
        rmse, mae = errors(forecast, truth)
        yield f"{name:26}{rmse:9.1f}{mae:9.1f}"
    started = time.perf_counter()
    members = [CHOSEN.forecast(known, AHEAD, k) for k in range(work.seed, work.seed + REPORT_MEMBERS)]
    rmse, mae = errors(mean_of(members), truth)
    yield f"{f'{REPORT_MEMBERS} networks':26}{rmse:9.1f}{mae:9.1f}{time.perf_counter() - started:6.1f}"
    alone = [errors(member, truth)[0] for member in members]
    yield f"{'each of them alone':26}{np.mean(alone):9.1f}   from {min(alone):.1f} to {max(alone):.1f}"
    work.report(f"ensemble: RMSE {rmse:.1f}, MAE {mae:.1f}; single networks: RMSE {np.mean(alone):.1f} on average")
