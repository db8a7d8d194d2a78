# SPDX-License-Identifier: MIT
"""What is done to series before a network reads them, against plain NumPy; and undone again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn.models.forecasting.season import lags_of, season_of
from crnn.models.forecasting.transformations import Chain, Difference, Gaps, Log, Scale

finite = st.floats(-1e6, 1e6)
columns = st.integers(1, 3)


def series(draw, least=1, values=finite):
    T, P = draw(st.integers(least, 30)), draw(columns)
    return np.array(draw(st.lists(values, min_size=T * P, max_size=T * P))).reshape(T, P)


@st.composite
def histories(draw, values=finite):
    return series(draw, 1, values), series(draw, 1, values)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(st.integers(1, 7), max_size=2))
def test_what_deviates_from_the_naive_forecast_is_put_back(data, lags):
    history = series(data.draw)
    ahead = np.array(data.draw(st.lists(finite, min_size=4, max_size=4)))[:, None] + np.zeros(history.shape[1])
    difference = Difference(lags)
    values = np.concatenate([history, ahead])
    deviation = difference.deviation(values, len(history), len(ahead))
    back = difference.undo(deviation, history)
    np.testing.assert_allclose(back, ahead, rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("lags", [(), (1,), (4,), (4, 1), (1, 1)])
def test_the_differences_of_the_naive_forecast_are_zero(lags):
    values = np.random.default_rng(3).normal(size=(17, 2))
    ahead = Difference(lags).naive(values, 9)
    differences = np.concatenate([values, ahead])
    for lag in lags:
        differences = differences[lag:] - differences[:-lag]
    np.testing.assert_allclose(differences[-9:], 0 if lags else ahead, atol=1e-12)


def test_naive_forecasts_repeat_the_last_season():
    values = np.array([[9.0], [1], [2], [4]])
    assert Difference((3,)).naive(values, 5)[:, 0].tolist() == [1, 2, 4, 1, 2]
    assert Difference((1,)).naive(values, 2)[:, 0].tolist() == [4, 4]
    assert Difference(()).naive(values, 2)[:, 0].tolist() == [0, 0]
    assert Difference((3, 1)).naive(values, 3)[:, 0].tolist() == [-4, -3, -1]  # 1 + (4 - 9), ...


@pytest.mark.parametrize("lags", [(), (1,), (5,), (5, 1)])
def test_differences_are_those_of_numpy(lags):
    values = np.random.default_rng(4).normal(size=(23, 3))
    expected = values
    for lag in lags:
        expected = expected[lag:] - expected[:-lag]
    np.testing.assert_allclose(Difference(lags).apply(values), expected, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=20))
def test_logarithms_are_those_of_numpy_and_undone(values):
    x = np.array(values)[:, None]
    logs = Log().apply(x)
    np.testing.assert_allclose(logs, np.log(x), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(Log().undo(logs, x), x, rtol=1e-12)


def test_logarithms_that_are_too_large_to_undo_stay_finite():
    assert np.isfinite(Log().undo(np.array([[1e6]]), np.zeros((1, 1)))).all()


@settings(deadline=None, max_examples=60)
@given(histories(st.floats(1e-3, 1e3)), st.booleans())
def test_a_chain_restores_what_it_has_changed(pair, logarithm):
    values, _ = pair
    P = values.shape[1]
    steps = [Gaps("carry"), *([Log()] if logarithm else []), Scale(np.arange(P) - 0.5, np.arange(P) + 0.25)]
    chain = Chain([*steps, Difference((1,))])
    np.testing.assert_allclose(chain.restore(chain.apply(values)), values, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(finite, st.just(np.nan)), min_size=1, max_size=30).filter(lambda v: not np.isnan(v).all()))
def test_gaps_are_filled_as_numpy_interpolates(values):
    x = np.array(values)[:, None]
    known = np.flatnonzero(~np.isnan(x[:, 0]))
    filled = Gaps("interpolate").apply(x)[:, 0]
    np.testing.assert_allclose(filled, np.interp(np.arange(len(x)), known, x[known, 0]), rtol=1e-9, atol=1e-6)
    carried = Gaps("carry").apply(x)[:, 0]
    for step, value in enumerate(carried):
        before = known[known <= step]
        assert value == (x[before[-1], 0] if len(before) else x[known[0], 0])


def test_filling_leaves_the_series_as_it_is():
    x = np.array([[1.0], [np.nan]])
    Gaps("carry").apply(x)
    assert np.isnan(x[1, 0])


# ---- the rules -------------------------------------------------------------------------------------------------------


def numbers(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def ar(n, *weights, seed=0):
    x, noise = np.zeros(n), numbers(n, seed)
    for t in range(2, n):
        x[t] = sum(weight * x[t - 1 - i] for i, weight in enumerate(weights)) + noise[t]
    return x


t = np.arange(400)
WEEK = np.array([0, 1, 2, 1.5, 3, 6, 5])
KINDS = {  # name: (series, season, lags)
    "a season of 12 with a trend": (0.1 * t + 5 * np.sin(2 * np.pi * t / 12) + numbers(400), 12, (1,)),
    "a season of 12 alone": (5 * np.sin(2 * np.pi * t / 12) + numbers(400), 12, ()),
    "weeks": (WEEK[t % 7] + 0.5 * numbers(400), 7, ()),
    "a season of 24 that is not a sine": ((t % 24 < 3) * 5.0 + 0.5 * numbers(400), 24, ()),
    "white noise": (numbers(400), 1, ()),
    "a random walk": (numbers(400).cumsum(), 1, (1,)),
    "a trend": (0.5 * t + numbers(400), 1, (1,)),
    "level shifts": (np.repeat(10 * numbers(16, 3), 25) + numbers(400), 1, (1,)),
    "a cycle without a clock": (ar(400, 1.6, -0.9), 1, ()),
    "an autoregression": (ar(400, 0.7), 1, ()),
    "a constant": (np.full(400, 3.0), 1, ()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_season_and_differences_are_found_in_series_of_every_kind(kind):
    x, season, lags = KINDS[kind]
    parts = [x[:, None]]
    assert season_of(parts, None) == season
    assert lags_of(parts, season, 12) == lags
    assert season_of([3.0 * x[:, None] - 100], None) == season  # whatever its units


def test_a_season_that_an_index_names_must_show_in_the_series():
    assert season_of([numbers(400)[:, None]], 12) == 1
    weak = numbers(400) + 1.0 * np.sin(2 * np.pi * t / 12)
    assert season_of([weak[:, None]], 12) == 12
    assert season_of([weak[:20, None]], 12) == 1  # less than three seasons


def test_most_series_decide():
    flat, waves = numbers(200)[:, None], KINDS["a season of 12 alone"][0][:200, None]
    assert season_of([waves, waves, flat], None) == 12
    assert season_of([waves, flat, flat], None) == 1
