# SPDX-License-Identifier: MIT
"""pandas in, pandas out: the index of a forecast continues that of the series."""

import pickle

import numpy as np
import pytest

import crnn
from crnn.models.files import from_bytes, to_bytes

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.interop

QUICK = {"epochs": 1, "progress": False}


def values(n=60):
    return np.sin(np.arange(n) / 3) + 0.1 * np.random.default_rng(0).normal(size=n)


def model(**options):
    return crnn.Forecaster(4, hidden_size=4, seed=0, **options)


INDEXES = {
    "months": lambda n: pd.date_range("2020-01-01", periods=n, freq="MS", name="month"),
    "days without a set frequency": lambda n: pd.DatetimeIndex(pd.date_range("2020-02-20", periods=n).to_numpy()),
    "business days": lambda n: pd.bdate_range("2024-01-04", periods=n),
    "hours in a time zone": lambda n: pd.date_range("2024-03-29 20:00", periods=n, freq="h", tz="Europe/Berlin"),
    "every 15 minutes": lambda n: pd.date_range("2024-03-29", periods=n, freq="15min"),
    "ends of quarters": lambda n: pd.date_range("1990-03-31", periods=n, freq="QE"),
    "periods": lambda n: pd.period_range("2001-11", periods=n, freq="M", name="p"),
    "weeks": lambda n: pd.period_range("2001-11", periods=n, freq="W"),
    "range": lambda n: pd.RangeIndex(5, 5 + 3 * n, 3, name="step"),
    "integers": lambda n: pd.Index(np.arange(n) * 10),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_forecasts_continue_the_index(kind):
    index = INDEXES[kind](70)
    series = pd.Series(values(70), index, name="load")
    fitted = model().fit(series[:60], **QUICK)
    for each in (fitted, from_bytes(to_bytes(fitted)), pickle.loads(pickle.dumps(fitted))):
        ahead = each.forecast(10)
        assert (ahead.index == index[60:]).all()
        assert (ahead.index.name, ahead.index.dtype) == (index.name, index.dtype)
        assert ahead.name == "load"
        assert (ahead.to_numpy() == fitted.forecast(10, series[:60].to_numpy())).all()
    naive = crnn.SeasonalNaive(1).fit(series[:60]).forecast(10)
    assert (naive.index == index[60:]).all()
    assert (naive == series.iloc[59]).all()
    fitted.update(series[60:63])
    assert (fitted.forecast(2).index == index[63:65]).all()


def test_quantiles_are_columns():
    series = pd.Series(values(), pd.period_range("2001-11", periods=60, freq="M"))
    bands = model().fit(series, **QUICK).forecast(3, quantiles=[0.1, 0.9])
    assert bands.columns.tolist() == [0.1, 0.9]
    assert bands.columns.name == "quantile"
    frame = pd.DataFrame({"a": values(), "b": values()}, series.index)
    bands = model().fit(frame, **QUICK).forecast(3, quantiles=[0.1, 0.9])
    assert bands.columns.tolist() == [("a", 0.1), ("a", 0.9), ("b", 0.1), ("b", 0.9)]
    assert bands["a"].shape == (3, 2)


def test_columns_are_found_by_name():
    index = pd.date_range("2024-01-01", periods=70, freq="D")
    frame = pd.DataFrame({"a": values(70), "b": values(70) ** 2}, index)
    known = pd.DataFrame({"x": np.arange(70.0), "y": values(70)}, index)
    fitted = model().fit(frame[:60], past=known[:60], future=known[:60], **QUICK)
    expected = fitted.forecast(10, future=known[60:])
    assert expected.columns.tolist() == ["a", "b"]
    pd.testing.assert_frame_equal(fitted.forecast(10, future=known[60:][["y", "x"]]), expected)
    turned = fitted.forecast(10, frame[:60][["b", "a"]], known[:60], known[["y", "x"]])
    pd.testing.assert_frame_equal(turned[["a", "b"]], expected)
    restored = from_bytes(to_bytes(fitted))
    pd.testing.assert_frame_equal(restored.forecast(10, future=known[60:]), expected)
    with pytest.raises(ValueError, match=r"future: expected the columns \['x', 'y'\], got \['x', 'z'\]"):
        fitted.forecast(10, future=known[60:].rename(columns={"y": "z"}))


def test_rows_of_another_index_are_refused():
    index = pd.date_range("2024-01-01", periods=70, freq="D")
    series, known = pd.Series(values(70), index), pd.DataFrame({"x": values(70)}, index)
    with pytest.raises(ValueError, match=r"past: expected the index .* write past\.loc"):
        model().fit(series[:60], past=known[5:65], **QUICK)
    fitted = model().fit(series[:60], future=known[:60], **QUICK)
    with pytest.raises(ValueError, match="future: expected the index"):
        fitted.forecast(4, future=known[61:65])
    with pytest.raises(ValueError, match="future: expected the index"):
        fitted.forecast(4, series[:60], future=known[1:65])
    with pytest.raises(ValueError, match="series: expected the index that follows"):
        fitted.update(series[61:64], future=known[61:64])
    with pytest.raises(ValueError, match=r"future: expected 4 rows of 1 columns \['x'\], as in fit, got none"):
        fitted.forecast(4)


DAYS = pd.date_range("2024-01-01", periods=60)
WITHOUT_DATES = r"series.reset_index\(drop=True\) for steps without dates"


@pytest.mark.parametrize(
    ("index", "hint"),
    [
        (pd.Index(list("abcdef") * 10), WITHOUT_DATES),
        (DAYS.strftime("%Y-%m-%d"), r"write series.index = pd.to_datetime\(series.index\) if these are dates"),
        (pd.date_range("2024-01-01", periods=61).delete(30), r"write series.asfreq\('D'\)"),
        (DAYS[::-1], r"write series.sort_index\(\)"),
        (DAYS[[1, 0, *range(2, 60)]], r"write series.sort_index\(\)"),
        (DAYS[[0, 0, *range(2, 60)]], "2024-01-01 00:00:00 is there twice"),
        (pd.Index(np.arange(60) ** 2), WITHOUT_DATES),
        (pd.Index(np.arange(60) / 2), WITHOUT_DATES),
    ],
)
def test_an_index_that_cannot_be_continued_is_refused_with_what_to_write(index, hint):
    series = pd.Series(values(), index)
    message = "series: expected an index of dates or periods with a frequency"
    with pytest.raises(ValueError, match=f"(?s){message}.*{hint}"):
        model().fit(series, **QUICK)


def test_a_groupby_is_refused_with_what_to_write():
    frame = pd.DataFrame({"id": [0, 1] * 30, "x": values()})
    with pytest.raises(TypeError, match=r"series: .* got SeriesGroupBy; write \[group for _, group in grouped\]"):
        model().fit(frame.groupby("id")["x"], **QUICK)


def test_columns_may_be_bools():
    index = pd.date_range("2024-01-01", periods=70)
    holiday = pd.Series(np.arange(70) % 7 == 0, index, name="holiday")
    known = pd.DataFrame({"holiday": holiday, "price": values(70)})
    series = pd.Series(values(70), index)[:60]
    for column in (holiday, known):
        as_bools = model().fit(series, future=column[:60], **QUICK).forecast(4, future=column[60:64])
        numbers = column.astype(float)
        as_numbers = model().fit(series, future=numbers[:60], **QUICK).forecast(4, future=numbers[60:64])
        assert (as_bools == as_numbers).all()
    with pytest.raises(ValueError, match=r"series: expected a series .*, got bool"):
        model().fit(holiday, **QUICK)


def test_the_index_names_the_season():
    month = pd.date_range("2001-01-01", periods=120, freq="MS")
    weak = pd.Series(np.sin(2 * np.pi * np.arange(120) / 12) + np.random.default_rng(0).normal(size=120), month)
    assert model().fit(weak, **QUICK).season_ == 12
    assert model().fit(weak.to_numpy(), **QUICK).season_ == 1


def test_gaps_and_back_tests_of_pandas():
    series = pd.Series(values(80), pd.date_range("2024-01-01", periods=80), dtype="Float64")
    series.iloc[20:25] = pd.NA
    result = model().backtest(series, origins=3, **QUICK)
    plain = model().backtest(series.to_numpy(np.float64, na_value=np.nan), origins=3, **QUICK)
    assert (result.forecasts == plain.forecasts).all()


def test_scikit_learn_clones_forecasters():
    base = pytest.importorskip("sklearn.base")
    copy = base.clone(crnn.Forecaster(7, lr=0.1, difference=(12, 1)).set_params(season=12))
    assert copy.get_params()["difference"] == (12, 1)
    assert repr(copy) == "Forecaster(horizon=7, season=12, difference=(12, 1), lr=0.1)"


def test_several_series_of_pandas():
    frames = [pd.Series(values(n), pd.date_range("2024-01-01", periods=n), name=str(n)) for n in (50, 60)]
    fitted = model().fit(frames, **QUICK)
    days = [frame.index[-1] + pd.Timedelta(days=1) for frame in frames]
    assert [ahead.index[0] for ahead in fitted.forecast(2)] == days
    several = pd.concat(frames, keys=["a", "b"])
    with pytest.raises(ValueError, match=r"series: .* an index of 2 levels"):
        model().fit(several)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_need_no_frequency_to_continue_a_series(rows):
    index = pd.DatetimeIndex(pd.date_range("2020-01-31", periods=64, freq="ME").to_numpy())  # as read from a file
    series, known = pd.Series(values(64), index), pd.DataFrame({"a": values(64), "b": values(64)}, index)
    more = slice(60, 60 + rows)
    fitted = model().fit(series[:60], past=known[["a"]][:60], future=known["b"][:60], **QUICK)
    assert (fitted.forecast(rows, future=known["b"][more]).index == index[more]).all()
    assert fitted.forecast(1, future=known["b"][60:61]).index == index[60:61]
    fitted.update(series[more], past=known[["a"]][more], future=known["b"][more])
    assert fitted.forecast(1, future=[0.5]).index == index[[60 + rows]]
    naive = crnn.SeasonalNaive(12).fit(series[:60]).update(series[more])
    assert naive.forecast(1).index == index[[60 + rows]]
    with pytest.raises(ValueError, match="series: expected the index that follows"):
        naive.update(series[more])
    with pytest.raises(ValueError, match="future: expected the index"):
        fitted.forecast(rows, future=known["b"][more])
