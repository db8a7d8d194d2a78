# SPDX-License-Identifier: MIT
"""predict and score of forecasters: the forecast, and R^2 of what came next."""

import numpy as np
import pytest

import crnn
from crnn.models.files import from_bytes

RNG = np.random.default_rng(3)
SERIES = np.sin(np.arange(80) / 3) + 0.1 * RNG.normal(size=80)
TWO = np.stack([SERIES, 2 * np.cos(np.arange(80) / 3) + RNG.normal(size=80)], axis=1)


def model(**options):
    return crnn.Forecaster(4, hidden_size=4, epochs=2, seed=0, **options)


def r_squared(values, predicted):
    return 1 - ((values - predicted) ** 2).sum(axis=0) / ((values - values.mean(axis=0)) ** 2).sum(axis=0)


def test_predict_is_the_forecast():
    fitted = model().fit(SERIES[:70])
    assert (fitted.predict() == fitted.forecast()).all()
    assert fitted.predict(9).tolist() == fitted.forecast(9).tolist()
    assert (fitted.predict(2, SERIES, threads=2) == fitted.forecast(2, SERIES)).all()
    naive = crnn.SeasonalNaive(6).fit(SERIES[:70])
    assert (naive.predict(9) == naive.forecast(9)).all()


def test_score_is_r_squared_of_what_came_next():
    fitted = model().fit(SERIES[:70])
    assert fitted.score(SERIES[70:]) == pytest.approx(r_squared(SERIES[70:], fitted.forecast(10)))
    assert from_bytes(fitted.to_bytes()).score(SERIES[70:]) == fitted.score(SERIES[70:])
    ahead = fitted.forecast(10)
    assert fitted.score(ahead) == 1
    assert fitted.score(ahead.tolist()) == 1
    fitted.update(SERIES[70:73])
    assert fitted.score(SERIES[73:]) == pytest.approx(r_squared(SERIES[73:], fitted.forecast(7)))


def test_score_is_the_mean_of_all_columns_and_series():
    fitted = model().fit(TWO[:70])
    expected = r_squared(TWO[70:], fitted.forecast(10))
    assert fitted.score(TWO[70:]) == pytest.approx(expected.mean())
    several = model().fit([SERIES[:70], SERIES[:60]])
    found = [r_squared(SERIES[a : a + 10], ahead) for a, ahead in zip((70, 60), several.forecast(10), strict=True)]
    assert several.score([SERIES[70:], SERIES[60:70]]) == pytest.approx(np.mean(found))
    naive = crnn.SeasonalNaive(6).fit(TWO[:70])
    assert naive.score(TWO[70:]) == pytest.approx(r_squared(TWO[70:], naive.forecast(10)).mean())


def test_missing_values_do_not_count():
    fitted = model().fit(SERIES[:70])
    values = SERIES[70:].copy()
    values[3] = np.nan
    there = ~np.isnan(values)
    assert fitted.score(values) == pytest.approx(r_squared(values[there], fitted.forecast(10)[there]))


def test_columns_that_are_known_ahead_are_given_and_past_ones_are_not_needed():
    known, past = np.arange(80) % 7 == 0, RNG.normal(size=(80, 2))
    fitted = model().fit(SERIES[:70], past=past[:70], future=known[:70])
    ahead = fitted.forecast(10, future=known[70:])
    assert fitted.score(SERIES[70:], known[70:]) == pytest.approx(r_squared(SERIES[70:], ahead))
    with pytest.raises(ValueError, match=r"^future: expected 10 rows of 1 columns, as in fit, got none"):
        fitted.score(SERIES[70:])


def test_with_pandas_the_index_follows_and_columns_are_found_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(TWO, pd.date_range("2026-01-01", periods=80), ["a", "b"])
    fitted = model().fit(frame[:70])
    expected = r_squared(TWO[70:], fitted.forecast(10).to_numpy()).mean()
    assert fitted.score(frame[70:]) == fitted.score(frame[70:][["b", "a"]]) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"^series: expected the index that follows, .* got "):
        fitted.score(frame[71:])
    with pytest.raises(ValueError, match=r"^series: expected the columns"):
        fitted.score(frame[70:].set_axis(["a", "c"], axis=1))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (SERIES[:1], "^series: expected at least 2 values in each column to compare with, got fewer"),
        ([1.0, np.nan, np.nan], "^series: expected at least 2 values in each column"),
        (TWO[:4], "^series: expected 1 columns, got 2"),
        ([SERIES[:4], SERIES[:4]], "^series: expected one series, as in fit, got a list of 2"),
        (np.full(3, np.inf), "^series: expected finite numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(series, message):
    fitted = model().fit(SERIES)
    with pytest.raises(ValueError, match=message):
        fitted.score(series)
    with pytest.raises(ValueError, match=message):
        crnn.SeasonalNaive(6).fit(SERIES).score(series)


def test_several_series_are_compared_with_as_many_of_one_length():
    fitted = model().fit([SERIES, SERIES[:60]])
    with pytest.raises(ValueError, match=r"^series: expected a list of 2 series, as in fit, got one series"):
        fitted.score(SERIES[:4])
    with pytest.raises(ValueError, match=r"^series\[1\]: expected 4 steps, as of series\[0\], got 5"):
        fitted.score([SERIES[:4], SERIES[:5]])


@pytest.mark.parametrize("n", [SERIES, [1, 2, 3], "12", 2.0])
def test_a_series_in_the_place_of_the_number_of_steps_is_refused_with_its_name(n):
    fitted = model().fit(SERIES)
    for act in (fitted.predict, fitted.forecast):
        with pytest.raises(ValueError, match=r"^n: expected a number of steps, an integer .* series=, past="):
            act(n)


def test_before_fit_both_say_that_it_is_missing():
    for act in (lambda each: each.predict(3), lambda each: each.score(SERIES)):
        with pytest.raises(ValueError, match="expected a call of fit before this"):
            act(model())
        with pytest.raises(ValueError, match="expected a call of fit before this"):
            act(crnn.SeasonalNaive())
