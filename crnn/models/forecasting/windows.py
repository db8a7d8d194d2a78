# SPDX-License-Identifier: MIT
"""Windows: what a network reads to forecast from an origin, and what it should answer. INPUTS lists what it reads.

A window is the last steps before an origin, then those of the horizon, in one sequence:

    past steps       values relative to the last one, changes, the values one and two seasons before, other columns
    steps ahead      0 for what is not known; the values one and two seasons before; columns that are known ahead
    target           at the steps ahead: the deviation of the value from the naive forecast; missing at past steps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crnn.checks import Array
from crnn.models.forecasting.transformations import Chain

SEASONS_READ = 2  # whose values a network sees at each step
MOST_WINDOWS = 10_000  # for training; more origins are thinned out evenly


@dataclass(frozen=True)
class Layout:
    """What windows of a forecaster are like.

    Attributes
    ----------
    horizon : int
        Steps ahead that the network forecasts at once.
    window : int
        Steps before an origin that it reads, at most.
    season : int
        1: none.
    lags : tuple of int
        Of the differences.
    targets, past, future : int
        P, and the numbers of columns that are known up to the origin, and ahead.
    mask : bool
        Whether filled gaps are hidden.
    """

    horizon: int
    window: int
    season: int
    lags: tuple[int, ...]
    targets: int
    past: int
    future: int
    mask: bool

    @property
    def wanders(self) -> bool:
        """Whether values are read relative to the last one, not to the mean."""
        return 1 in self.lags

    @property
    def reach(self) -> int:
        """Steps before an origin that a forecast depends on."""
        return max(self.window + SEASONS_READ * self.season + 1, sum(self.lags) + 1)

    @property
    def input_size(self) -> int:
        """D."""
        return sum(each.columns(self) for each in INPUTS)


@dataclass(frozen=True)
class Steps:
    """A series that windows are taken from.

    Attributes
    ----------
    values : array (T, P)
        As a `Chain` makes them.
    known : bool array (T, P)
        False: a gap.
    past : array (T, E)
    future : array (T + n, F)
    chain : Chain
    """

    values: Array
    known: Array
    past: Array
    future: Array
    chain: Chain

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Window:
    """A window of a series: ``length`` steps before ``origin``, ``ahead`` steps from there on."""

    layout: Layout
    steps: Steps
    origin: int
    length: int
    ahead: int

    @property
    def anchor(self) -> Array:
        """What values are read relative to (P,)."""
        last: Array = self.steps.values[self.origin - 1]
        return last if self.layout.wanders else np.zeros_like(last)

    def back(self, lag: int) -> Array:
        """The known values (length, P) so many steps before the past ones; before the series starts, the anchor."""
        first = self.origin - self.length - lag
        missing = min(max(-first, 0), self.length)
        found: Array = self.steps.values[max(first, 0) : max(self.origin - lag, 0)]
        return np.concatenate([np.broadcast_to(self.anchor, (missing, len(self.anchor))), found])

    def seasons_ago(self, seasons: int) -> Array:
        """The values (length + ahead, P) that many seasons before; of steps ahead, of the last known seasons."""
        season = self.layout.season
        h = np.arange(self.ahead)
        steps = self.origin + h - season * (h // season + seasons)
        ahead = self.steps.values[np.maximum(steps, 0)]
        ahead = np.where((steps >= 0)[:, None], ahead, self.anchor)
        return np.concatenate([self.back(seasons * season), ahead])

    def past_only(self, values: Array) -> Array:
        """Values (length, n) of the past steps, with 0 ahead."""
        return np.concatenate([values, np.zeros((self.ahead, values.shape[1]))])


@dataclass(frozen=True)
class Input:
    """Something that a network reads at each step: how many columns it has, and their values (length + ahead, n)."""

    name: str
    columns: Callable[[Layout], int]
    values: Callable[[Window], Array]


def _level(window: Window) -> Array:
    return _shown(window, window.back(0) - window.anchor)


def _change(window: Window) -> Array:
    return _shown(window, window.back(0) - window.back(1))


def _seasonal_change(window: Window) -> Array:
    return _shown(window, window.back(0) - window.back(window.layout.season))


def _shown(window: Window, values: Array) -> Array:
    """Values (length, P) of the past steps, 0 in hidden gaps."""
    return window.past_only(np.where(_known(window), values, 0.0) if window.layout.mask else values)


def _known(window: Window) -> Array:
    known: Array = window.steps.known[window.origin - window.length : window.origin]
    return known


def _seasons_ago(window: Window) -> Array:
    return np.concatenate([window.seasons_ago(k) - window.anchor for k in range(1, SEASONS_READ + 1)], axis=1)


def _observed(window: Window) -> Array:
    known = _known(window) if window.layout.mask else np.ones((window.length, window.layout.targets))
    return window.past_only(known)


def _past(window: Window) -> Array:
    return window.past_only(window.steps.past[window.origin - window.length : window.origin])


def _future(window: Window) -> Array:
    future: Array = window.steps.future[window.origin - window.length : window.origin + window.ahead]
    return future


def _place(window: Window) -> Array:
    place = np.arange(1, window.ahead + 1) / window.layout.horizon
    return np.concatenate([np.zeros(window.length), place])[:, None]


INPUTS = (
    Input("level", lambda layout: layout.targets, _level),
    Input("change", lambda layout: layout.targets * layout.wanders, _change),
    Input("seasonal change", lambda layout: layout.targets * (layout.season > 1), _seasonal_change),
    Input("seasons ago", lambda layout: SEASONS_READ * layout.targets * (layout.season > 1), _seasons_ago),
    Input("observed", lambda layout: layout.targets, _observed),
    Input("past", lambda layout: layout.past, _past),
    Input("future", lambda layout: layout.future, _future),
    Input("place ahead", lambda layout: 1, _place),
)


def window_at(layout: Layout, steps: Steps, origin: int, ahead: int) -> Window:
    """The window of a series with this origin."""
    return Window(layout, steps, origin, min(layout.window, origin), ahead)


def inputs_of(window: Window) -> Array:
    """x (length + ahead, D) of a window."""
    return np.concatenate([each.values(window) for each in INPUTS if each.columns(window.layout)], axis=1)


def targets_of(window: Window) -> Array:
    """y (length + ahead, P) of a window; missing at past steps and in gaps."""
    y = np.full((window.length + window.ahead, window.layout.targets), np.nan)
    steps, origin = window.steps, window.origin
    found = steps.chain.difference.deviation(steps.values, origin, window.ahead)
    y[window.length :] = np.where(steps.known[origin : origin + window.ahead], found, np.nan)
    return y


def windows_in(layout: Layout, steps: Steps, first: int, stop: int) -> list[Window]:
    """The windows whose steps ahead are in first .. stop-1 of a series and not all missing.

    If there is no room for a whole horizon, those with a part of it. Those right after a gap, whose last value is
    filled from what comes later, are left out if others are left.
    """
    last = stop - layout.horizon
    found = range(first, last + 1) if last >= first else range(first, stop)
    usable = [origin for origin in found if steps.known[origin : min(origin + layout.horizon, stop)].any()]
    origins = [origin for origin in usable if steps.known[origin - 1].all()] or usable
    return [window_at(layout, steps, origin, min(layout.horizon, stop - origin)) for origin in origins]


def thinned(windows: list[Window]) -> list[Window]:
    """At most `MOST_WINDOWS` of them, evenly spread."""
    if len(windows) <= MOST_WINDOWS:
        return windows
    chosen = np.linspace(0, len(windows) - 1, MOST_WINDOWS).round().astype(int)
    return [windows[k] for k in chosen.tolist()]


def with_forecast(window: Window, deviations: Array) -> Steps:
    """The series of a window with the steps ahead, from their deviations (ahead, P) from the naive forecast.

    The columns that are known up to the origin keep their last values.
    """
    steps = window.steps
    values = steps.chain.difference.undo(deviations, steps.values)
    past = np.repeat(steps.past[-1:], window.ahead, axis=0)
    return Steps(
        np.concatenate([steps.values, values]),
        np.concatenate([steps.known, np.ones(values.shape, bool)]),
        np.concatenate([steps.past, past]),
        steps.future,
        steps.chain,
    )
