# SPDX-License-Identifier: MIT
"""The score of a forecast: R^2 of the values that came after a series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.models.forecasting.memory import Remembered
from crnn.models.forecasting.series_input import Columns, read_all
from crnn.models.outputs.metrics import r_squared

__all__ = ["score_of"]

LEAST = 2  # values; the mean of one is itself


def score_of(
    series: Any, memory: Sequence[Remembered], columns: Columns, several: bool, forecast: Callable[[int], Any]
) -> float:
    """The mean of the R^2 of all series and columns.

    Parameters
    ----------
    series
        What came after the remembered series, as users give it.
    memory : list of Remembered
    columns : Columns
        That the forecaster knows.
    several : bool
        Whether a list of series was learnt.
    forecast : callable
        From a number of steps to the forecast, in the containers of the series.

    Raises
    ------
    TypeError, ValueError
        The series do not follow the remembered ones, or have no two values to compare with.
    """
    given = read_all(series, None, None, like=replace(columns, past=0, future=0), continues=True)
    if given.several != several or len(given.frames) != len(memory):
        expected = f"a list of {len(memory)} series" if several else "one series"
        got = f"a list of {len(given.frames)}" if given.several else "one series"
        raise ValueError(f"series: expected {expected}, as in fit, got {got}")
    n = len(given.frames[0])
    for i, (each, frame) in enumerate(zip(memory, given.frames, strict=True)):
        label = f"series[{i}]" if several else "series"
        if len(frame) != n:
            raise ValueError(f"{label}: expected {n} steps, as of series[0], got {len(frame)}")
        if (np.count_nonzero(~np.isnan(frame.values), axis=0) < LEAST).any():
            raise ValueError(f"{label}: expected at least {LEAST} values in each column to compare with, got fewer")
        each.check_follows(label, frame)
    found = forecast(n)
    scores = []
    for frame, ahead in zip(given.frames, found if several else [found], strict=True):
        predicted: Array = np.asarray(ahead, np.float64).reshape(n, -1)
        scores.append(r_squared(frame.values, predicted, np.ones(n)))
    return sum(scores) / len(scores)
