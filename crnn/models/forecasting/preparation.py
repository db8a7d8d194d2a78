# SPDX-License-Identifier: MIT
"""From series to windows: the rules for what is not given, the transformations of each series, and training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn._core import loss as kernels
from crnn.array_input import shown
from crnn.checks import Array, as_integer, check_flag, check_size
from crnn.models.forecasting.memory import Remembered
from crnn.models.forecasting.naive import check_season
from crnn.models.forecasting.season import SEASONS, lags_of, season_of
from crnn.models.forecasting.series_input import SeriesInput
from crnn.models.forecasting.transformations import GAPS, Chain, Difference, Gaps, Log, Scale, Transformation
from crnn.models.forecasting.windows import (
    Layout,
    Steps,
    Window,
    inputs_of,
    targets_of,
    thinned,
    windows_in,
)
from crnn.models.inputs.held_out import AutoShare, checked_share, is_auto
from crnn.models.inputs.standardizer import Standardizer

LEAST_WINDOW = 24  # steps
LARGEST_LAG = 100_000
LARGEST_SIZE = 1_000_000  # horizon, season and window
LEAST_SPREAD = 0.1  # of differences, relative to their size: those of a plain trend hardly differ
LARGEST = 1e150  # of numbers whose squares are summed
SHARES = 20



@dataclass(frozen=True)
class Settings:
    """The arguments of a forecaster that say what is done to series, checked.

    Attributes
    ----------
    horizon : int
    season : int
        0: by the rule.
    lags : tuple of int, or None
        None: by the rule.
    logarithm : bool
    gaps : str
    window : int or None
    """

    horizon: int
    season: int
    lags: tuple[int, ...] | None
    logarithm: bool
    gaps: str
    window: int | None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Those of constructor arguments. Raises TypeError and ValueError."""
        gaps, window = arguments["gaps"], arguments["window"]
        if not isinstance(gaps, str) or gaps not in GAPS:
            raise ValueError(f"gaps: expected one of {', '.join(GAPS)}, got {shown(gaps)}")
        return cls(
            limited("horizon", check_size("horizon", arguments["horizon"])),
            limited("season", check_season(arguments["season"])),
            _checked_lags(arguments["difference"]),
            check_flag("logarithm", arguments["logarithm"]),
            gaps,
            None if window is None else limited("window", check_size("window", window)),
        )


def limited(name: str, size: int) -> int:
    """A number of steps that files may have. Raises ValueError."""
    if size > LARGEST_SIZE:
        raise ValueError(f"{name}: expected at most {LARGEST_SIZE:,} steps, got {size:,}")
    return size


def steps_ahead(n: Any) -> int:
    """A number of steps to forecast. Raises ValueError."""
    if as_integer(n) is None:
        expected = "a number of steps, an integer of at least 1"
        raise ValueError(f"n: expected {expected}, got {shown(n)}; series=, past= and future= are given by name")
    return limited("n", check_size("n", n))


def _checked_lags(difference: Any) -> tuple[int, ...] | None:
    """The lags of differences; None for "auto". Raises ValueError."""
    if isinstance(difference, str) and difference == "auto":
        return None
    if difference is None:
        return ()
    given = difference if isinstance(difference, list | tuple | np.ndarray) else [difference]
    lags = [as_integer(lag) for lag in given]
    found = tuple(lag for lag in lags if lag is not None and 0 < lag <= LARGEST_LAG)
    if len(found) < len(lags) or len(found) > 3:
        expected = "'auto', None, a lag of at least 1, or at most 3 of them"
        raise ValueError(f"difference: expected {expected}, got {shown(difference)}")
    return found


def label_of(given: SeriesInput, i: int) -> str:
    """What errors call a series."""
    return f"series[{i}]" if given.several else "series"


def check_values(given: SeriesInput, settings: Settings) -> None:
    """Raise ValueError if a column has no values, too large ones, or those whose logarithm cannot be taken."""
    for i, frame in enumerate(given.frames):
        known = ~np.isnan(frame.values)
        for name, values in ("series", frame.values), ("past", given.past[i]), ("future", given.future[i]):
            largest = np.fmax.reduce(np.abs(values), axis=None, initial=0.0)
            if largest > LARGEST:
                label = f"{name}[{i}]" if given.several else name
                raise ValueError(f"{label}: expected numbers whose variance float64 can hold, got {largest:g}")
        if not known.any(axis=0).all():
            raise ValueError(f"{label_of(given, i)}: expected at least one value in each column, got only missing ones")
    check_logarithm(given, settings)


def check_shape(given: SeriesInput) -> None:
    """Raise ValueError for an array with fewer steps than columns, whose rows are probably series."""
    T, P = given.frames[0].values.shape
    if T < P and not given.several and given.frames[0].axis is None:
        raise ValueError(
            f"series: expected a series (T, P) of at least P steps, got shape {(T, P)}; write list(x) for {T} series"
        )


def check_logarithm(given: SeriesInput, settings: Settings) -> None:
    """Raise ValueError for values whose logarithm is needed and cannot be taken."""
    for i, frame in enumerate(given.frames):
        if settings.logarithm and (frame.values <= 0).any():
            wrong = np.nanmin(frame.values)
            raise ValueError(f"{label_of(given, i)}: expected values above 0, for logarithm=True, got {wrong}")


AUTO_STEPS = AutoShare(0.2, 40)  # of series, in steps; docs/forecasting.md says how this was chosen


def held_out_steps(given: SeriesInput, valid: Any) -> list[int]:
    """How many steps at the end of each series are held out for validation. Raises ValueError."""
    lengths = [len(frame) for frame in given.frames]
    if valid is None:
        return [0] * len(lengths)
    if isinstance(valid, tuple | list):
        raise ValueError("valid: expected a share of the steps, 'auto' or None, got data")
    share = AUTO_STEPS.share if is_auto(valid) else checked_share(valid)
    if is_auto(valid) and max(lengths) < AUTO_STEPS.least:
        return [0] * len(lengths)
    steps = [round(share * n) for n in lengths]
    if not is_auto(valid) and not any(0 < count < n for count, n in zip(steps, lengths, strict=True)):
        raise ValueError(f"valid: expected a share that leaves some steps on both sides, got {valid!r}")
    return steps


def layout_for(given: SeriesInput, settings: Settings, stops: Sequence[int]) -> Layout:
    """The layout of windows; what is not given is learnt from the steps before ``stops`` of each series."""
    gaps = Gaps("interpolate")
    parts = [gaps.apply(frame.values[:stop]) for frame, stop in zip(given.frames, stops, strict=True)]
    if settings.logarithm:
        parts = [Log().apply(part) for part in parts]
    axis = given.frames[0].axis
    named = None if axis is None or axis.frequency is None else SEASONS.get(axis.frequency)
    season = settings.season or season_of(parts, named)
    lags = lags_of(parts, season, settings.horizon) if settings.lags is None else settings.lags
    columns = given.columns
    window = settings.window or max(2 * season if season > 1 else 0, LEAST_WINDOW)
    return Layout(
        settings.horizon, window, season, lags, columns.targets, columns.past, columns.future, settings.gaps == "mask"
    )


def chain_of(layout: Layout, gaps: str, logarithm: bool, mean: Array, std: Array) -> Chain:
    """The transformations of a series."""
    steps: list[Transformation] = [Gaps(gaps)]
    steps += [Log()] if logarithm else []
    return Chain([*steps, Scale(mean, std), Difference(layout.lags)])


def statistics_of(name: str, values: Array, layout: Layout, gaps: str, logarithm: bool) -> tuple[Array, Array]:
    """Mean of a series (T, P), and the standard deviation of its differences, or of itself if there are none.

    Raises ValueError, which calls the series ``name``.
    """
    P = values.shape[1]
    plain = chain_of(layout, gaps, logarithm, np.zeros(P), np.ones(P)).apply(values)
    scale = Standardizer(P)
    scale.learn(name, [plain])
    mean, std = scale.mean, scale.std
    if layout.lags and len(plain) > sum(layout.lags):
        differences, squares = Difference(layout.lags).apply(plain), np.zeros(P)
        kernels.column_squares(squares, np.ascontiguousarray(differences), np.zeros(P))
        size = np.sqrt(squares / len(differences))
        scale.learn(name, [differences])
        spread = np.where((differences != differences[:1]).any(axis=0), scale.std, 0.0)
        spread = np.maximum(spread, LEAST_SPREAD * size)
        std = np.where(spread > 0, spread, std)
    return mean, std


def remember(
    given: SeriesInput,
    layout: Layout,
    settings: Settings,
    stops: Sequence[int],
    scale: tuple[Array, Array] | None = None,
) -> list[Remembered]:
    """The series with the statistics that scale them: those of their steps before ``stops``, or ``scale``."""
    memory = []
    for i, (frame, stop) in enumerate(zip(given.frames, stops, strict=True)):
        mean, std = scale or statistics_of(
            label_of(given, i), frame.values[:stop], layout, settings.gaps, settings.logarithm
        )
        kept = (frame.flat, frame.columns, frame.axis)
        memory.append(Remembered(frame.values, given.past[i], given.future[i], mean, std, *kept))
    return memory


def steps_of(each: Remembered, layout: Layout, gaps: str, logarithm: bool) -> Steps:
    """A series as windows read it."""
    chain = chain_of(layout, gaps, logarithm, each.mean, each.std)
    fill = Gaps(gaps)
    return Steps(
        chain.apply(each.values), ~np.isnan(each.values), fill.apply(each.past), fill.apply(each.future), chain
    )


def training_windows(
    all_steps: Sequence[Steps], layout: Layout, stops: Sequence[int]
) -> tuple[list[Window], list[Window]]:
    """The windows to learn from, before ``stops`` of each series, and those to validate on, after it."""
    learn: list[Window] = []
    judge: list[Window] = []
    for steps, stop in zip(all_steps, stops, strict=True):
        first = max(1, min(layout.window, (stop - layout.horizon) // 2))
        learn += windows_in(layout, steps, first, stop)
        judge += windows_in(layout, steps, stop, len(steps)) if stop else []
    return thinned(learn), thinned(judge)


def ahead_of(windows: Sequence[Window], values: Sequence[Array], layout: Layout) -> Array:
    """What values (length + ahead, P) of windows are at the steps ahead, (M, H, P); NaN where there are fewer."""
    found = np.full((len(windows), layout.horizon, layout.targets), np.nan)
    for i, (window, each) in enumerate(zip(windows, values, strict=True)):
        found[i, : window.ahead] = each[window.length :]
    return found


def best_shares(wanted: Array, predicted: Array, *, squares: bool) -> Array:
    """The part of predictions (M, H, P) that is closest to what was wanted, of each column: 0, 1/20, ..., 1 (P,).

    Closest in the mean of the absolute, or of the squared errors; of equally close ones the largest. A forecast that
    follows the network only as far as its validation error justifies is not much worse than the naive one.
    """
    shares = np.ones(wanted.shape[2])
    for p in range(wanted.shape[2]):
        known = ~np.isnan(wanted[:, :, p])
        y, x = wanted[:, :, p][known], predicted[:, :, p][known]
        losses = []
        for k in range(SHARES, -1, -1):
            error = y - x * (k / SHARES)
            losses.append(kernels.sum_of_squares(error) if squares else kernels.sum(np.abs(error)))
        shares[p] = (SHARES - int(np.argmin(losses))) / SHARES
    return shares


def data_of(windows: Sequence[Window]) -> tuple[list[Array], list[Array]]:
    """Inputs and targets of windows."""
    return [inputs_of(window) for window in windows], [targets_of(window) for window in windows]
