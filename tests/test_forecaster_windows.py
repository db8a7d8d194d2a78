# SPDX-License-Identifier: MIT
"""What a forecaster's network reads and is asked, against loops over single numbers."""

import numpy as np
import pytest

from crnn.models.forecasting.bands import Bands
from crnn.models.forecasting.preparation import best_shares, training_windows
from crnn.models.forecasting.transformations import Chain, Difference, Scale
from crnn.models.forecasting.windows import Layout, Steps, inputs_of, targets_of, window_at

T, P, E, F = 23, 2, 3, 1
HORIZON, WINDOW = 5, 7


def steps_with(lags, seed=0):
    rng = np.random.default_rng(seed)
    known = rng.random((T, P)) > 0.2
    chain = Chain([Scale(np.zeros(P), np.ones(P)), Difference(lags)])
    return Steps(rng.normal(size=(T, P)), known, rng.normal(size=(T, E)), rng.normal(size=(T + 9, F)), chain)


def read(layout, steps, origin, t, p):
    """The inputs of step t that belong to column p, in order of their kinds."""
    x, m, ahead = steps.values[:, p], layout.season, t >= origin
    anchor = x[origin - 1] if 1 in layout.lags else 0.0

    def at(step):
        return x[step] if step >= 0 else anchor

    def season_before(k):
        step = t - k * m
        while step >= origin - (k - 1) * m:  # a season ahead whose own value before is not known yet
            step -= m
        return at(step) - anchor

    hidden = layout.mask and not ahead and not steps.known[t, p]
    zero = ahead or hidden
    found = [0.0 if zero else x[t] - anchor]
    found += [0.0 if zero else x[t] - at(t - 1)] if 1 in layout.lags else []
    found += [0.0 if zero else x[t] - at(t - m)] if m > 1 else []
    found += [season_before(1), season_before(2)] if m > 1 else []
    return [*found, float(not zero)]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("season", [1, 3, 4])
@pytest.mark.parametrize("lags", [(), (1,), (3, 1)])
@pytest.mark.parametrize("origin", [1, 2, 9, T])
def test_the_network_reads_what_is_known_at_the_origin(lags, season, mask, origin):
    layout = Layout(HORIZON, WINDOW, season, lags, P, E, F, mask)
    steps = steps_with(lags)
    found = inputs_of(window_at(layout, steps, origin, HORIZON))
    first = max(0, origin - WINDOW)
    rows = []
    for t in range(first, origin + HORIZON):
        by_kind = zip(*(read(layout, steps, origin, t, p) for p in range(P)), strict=True)
        row = [value for kind in by_kind for value in kind]
        row += [0.0] * E if t >= origin else steps.past[t].tolist()
        row += steps.future[t].tolist()
        rows.append([*row, (t - origin + 1) / HORIZON if t >= origin else 0.0])
    np.testing.assert_allclose(found, rows, atol=1e-12)
    assert found.shape[1] == layout.input_size


@pytest.mark.parametrize("lags", [(), (1,), (3, 1)])
def test_inputs_do_not_depend_on_what_comes_after_the_origin(lags):
    layout = Layout(HORIZON, WINDOW, 3, lags, P, E, F, True)
    steps, other = steps_with(lags), steps_with(lags)
    other.values[12:], other.known[12:], other.past[12:] = 99, True, 99
    assert (inputs_of(window_at(layout, steps, 12, 5)) == inputs_of(window_at(layout, other, 12, 5))).all()
    assert not (inputs_of(window_at(layout, steps, 13, 5)) == inputs_of(window_at(layout, other, 13, 5))).all()


@pytest.mark.parametrize(("lags", "naive"), [((), 0.0), ((1,), None)])
def test_targets_are_deviations_from_the_naive_forecast(lags, naive):
    layout = Layout(HORIZON, WINDOW, 1, lags, P, E, F, False)
    steps = steps_with(lags)
    y = targets_of(window_at(layout, steps, 10, HORIZON))
    assert np.isnan(y[:WINDOW]).all()
    expected = steps.values[10:15] - (steps.values[9] if naive is None else naive)
    np.testing.assert_allclose(y[WINDOW:], np.where(steps.known[10:15], expected, np.nan))


def test_windows_to_learn_from_end_before_those_to_validate_on():
    layout = Layout(HORIZON, WINDOW, 1, (1,), P, E, F, False)
    steps = [steps_with((1,)), steps_with((1,), 1)]
    learn, judge = training_windows(steps, layout, [15, T])
    assert learn
    assert judge
    assert all(window.origin + window.ahead <= (15 if window.steps is steps[0] else T) for window in learn)
    assert all(window.origin >= 15 and window.steps is steps[0] for window in judge)
    assert all(window.steps.known[window.origin - 1].all() for window in learn)


def test_shares_are_those_with_the_smallest_error():
    rng = np.random.default_rng(0)
    wanted, noise = rng.normal(size=(40, 3, 2)), rng.normal(size=(40, 3, 2))
    predicted = np.stack([wanted[..., 0] / 0.6, noise[..., 1]], axis=-1)
    wanted[0, 0] = np.nan
    for squares in False, True:
        shares = best_shares(wanted, predicted, squares=squares)
        assert shares[0] == 0.6
        losses = [
            np.nanmean(np.abs(wanted[..., 1] - k / 20 * predicted[..., 1]) ** (2 if squares else 1)) for k in range(21)
        ]
        assert shares[1] == np.argmin(losses) / 20


def test_bands_are_the_quantiles_of_the_errors():
    errors = np.random.default_rng(0).normal(size=(2000, 3, 1)) * np.array([1.0, 2, 4])[:, None]
    bands = Bands.of(errors)
    np.testing.assert_allclose(bands.sizes[:, 0], np.sqrt((errors[:, :, 0] ** 2).mean(axis=0)), rtol=1e-12)
    levels = np.array([0.05, 0.5, 0.9])
    relative = (errors / bands.sizes).ravel()
    expected = np.quantile(relative, levels)[:, None] * bands.sizes[:, 0]
    np.testing.assert_allclose(bands.offsets(levels, 3, grows=True)[..., 0], expected, atol=0.02)
    steady, growing = (bands.size_at(9, grows=grows)[:, 0] for grows in (False, True))
    np.testing.assert_allclose(steady[3:], bands.sizes[-1, 0])
    np.testing.assert_allclose(growing[6:] ** 2, bands.sizes[:, 0] ** 2 + 2 * bands.sizes[-1, 0] ** 2)
