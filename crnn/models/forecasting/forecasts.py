# SPDX-License-Identifier: MIT
"""Forecasts: the next steps of series, which a fitted forecaster computes a horizon at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.models.forecasting.files import Fitted
from crnn.models.forecasting.memory import Remembered
from crnn.models.forecasting.preparation import check_values, remember, steps_of
from crnn.models.forecasting.series_input import read_ahead, read_all
from crnn.models.forecasting.windows import inputs_of, window_at, with_forecast
from crnn.models.regressor import SequenceRegressor


def series_ahead(fitted: Fitted, n: int, series: Any, past: Any, future: Any) -> tuple[list[Remembered], bool]:
    """The series to forecast, with ``future`` known for n steps more, and whether they are a list.

    Arguments are those of `Forecaster.forecast`. Raises TypeError and ValueError.
    """
    if series is not None:
        given = read_all(series, past, future, ahead=n, like=fitted.columns)
        check_values(given, fitted.settings)
        scale = None if fitted.several else (fitted.memory[0].mean, fitted.memory[0].std)
        stops = [len(frame) for frame in given.frames]
        return remember(given, fitted.layout, fitted.settings, stops, scale), given.several
    if past is not None:
        raise ValueError("past: expected with series; update adds what has become known since fit")
    frames = [each.frame for each in fitted.memory]
    rows = read_ahead(future, n, frames, fitted.several, fitted.columns)
    extended = [np.concatenate([each.future, ahead]) for each, ahead in zip(fitted.memory, rows, strict=True)]
    memory = [replace(each, future=all_rows) for each, all_rows in zip(fitted.memory, extended, strict=True)]
    return memory, fitted.several


def forecasts(
    regressor: SequenceRegressor,
    fitted: Fitted,
    memory: Sequence[Remembered],
    n: int,
    levels: Sequence[float] | None,
    threads: int,
) -> list[Array]:
    """Forecasts (n, P), or with ``levels`` of quantiles (n, P, Q), of each series, in its units."""
    layout, settings = fitted.layout, fitted.settings
    all_steps = [steps_of(each, layout, settings.gaps, settings.logarithm) for each in memory]
    known = [len(steps) for steps in all_steps]
    while len(all_steps[0]) < known[0] + n:
        ahead = min(layout.horizon, known[0] + n - len(all_steps[0]))
        windows = [window_at(layout, steps, len(steps), ahead) for steps in all_steps]
        predicted = regressor.predict([inputs_of(window) for window in windows], threads=threads)
        all_steps = [
            with_forecast(window, fitted.shares * values[window.length :])
            for window, values in zip(windows, predicted, strict=True)
        ]
    found = []
    for steps, start in zip(all_steps, known, strict=True):
        point = steps.values[start:]
        if levels is None:
            found.append(steps.chain.restore(point))
            continue
        paths = point + fitted.bands.offsets(np.array(levels), n, grows=layout.wanders)
        found.append(np.stack([steps.chain.restore(path) for path in paths], axis=-1))
    return found
