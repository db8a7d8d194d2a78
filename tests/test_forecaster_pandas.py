# SPDX-License-Identifier: MIT
"""pandas in, pandas out: the index of a forecast continues that of the series."""

import datetime
import functools
import pickle

import numpy as np
import pytest
from file_tools import edit

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


# ---- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "a string": "load",
    "none": None,
    "an integer": 7,
    "a large integer": 2**70,
    "an integer of NumPy": np.int64(7),
    "a float": 1.5,
    "NaN": float("nan"),
    "a bool": True,
    "a tuple": ("load", 3, None, (1.5, False)),
    "a Timestamp": pd.Timestamp("2026-01-31 12:00:00.000000001"),
    "a Timestamp in a time zone": pd.Timestamp("2026-01-31", tz="Europe/Berlin"),
    "a Period": pd.Period("2026-01", "M"),
    "a tuple with a Timestamp": ("load", pd.Timestamp("2026-01-31")),
    "a date": datetime.date(2026, 1, 31),
    "a datetime": datetime.datetime(2026, 1, 31, 12),
    "a datetime of NumPy": np.datetime64("2026-01-31", "ns"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_are_the_same_after_saving(kind):
    name = NAMES[kind]
    index = pd.date_range("2020-01-01", periods=60, freq="MS", name=name)
    fitted = model().fit(pd.Series(values(), index, name=name), **QUICK)
    for each in (fitted, from_bytes(to_bytes(fitted))):
        ahead = each.forecast(2)
        for found in (ahead.name, ahead.index.name):
            assert found == name or (found != found and name != name)
            assert isinstance(found, type(name)) or isinstance(name, np.generic)


@pytest.mark.parametrize(
    "columns",
    [
        pd.MultiIndex.from_tuples([("north", "load"), ("south", "load")]),
        pd.date_range("2026-01-31", periods=2, tz="UTC"),
        pd.period_range("2026-01", periods=2, freq="Q"),
        pd.Index([0.5, 1.5]),
        pd.Index(["load", 2]),
    ],
)
def test_columns_are_the_same_after_saving(columns):
    frame = pd.DataFrame(np.stack([values(), values() + 1], axis=1), columns=columns)
    fitted = model().fit(frame, **QUICK)
    loaded = from_bytes(to_bytes(fitted))
    assert loaded.forecast(2).columns.equals(columns)
    assert loaded.forecast(2, quantiles=[0.5]).equals(fitted.forecast(2, quantiles=[0.5]))
    assert loaded.update(frame.set_axis(range(60, 120))).forecast(2).columns.equals(columns)


@pytest.mark.parametrize("name", [pd.Interval(0, 1), frozenset({1}), ("load", object()), pd.NaT, b"load"])
def test_a_name_that_a_file_would_not_give_back_is_refused_by_fit(name):
    series = pd.Series(values(), name=name)
    with pytest.raises(ValueError, match=r"^series: expected a name that a file can hold: .* write its str\(\)"):
        model().fit(series, **QUICK)
    series = pd.Series(values(), pd.RangeIndex(60, name=name))
    with pytest.raises(ValueError, match=r"^series: expected an index with a name that a file can hold"):
        model().fit(series, **QUICK)


@pytest.mark.parametrize(
    "name",
    [
        {"tuple": "load"},
        {"bool": 1},
        {"float": 1.5},
        {"float": "much"},
        {"date": "2026-13-01"},
        {"period": ["x", "M"]},
        {"timestamp": ["2026-01-31", "Nowhere/At"]},
        {"timestamp": ["2026-01-31"]},
        {"timestamp": [1, None]},
        {"set": []},
        {"tuple": [1], "bool": True},
        ["load"],
        1.5,
        {},
        functools.reduce(lambda name, _: {"tuple": [name]}, range(12), "load"),
    ],
)
def test_a_file_with_other_things_in_the_place_of_names_is_refused(name, tmp_path):
    model().fit(pd.Series(values(), name="load"), **QUICK).save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: header["forecaster"]["series"][0].update(columns=[name]))
    with pytest.raises(crnn.ModelFileError, match="m: expected a name"):
        crnn.load(tmp_path / "m")


def test_columns_of_several_series_are_put_in_the_order_of_the_first():
    frames = [pd.DataFrame(np.stack([values(), 2 * values() + i], axis=1), columns=["a", "b"]) for i in range(2)]
    expected = model().fit(frames, past=frames, **QUICK)
    mixed = [frames[0], frames[1][["b", "a"]]]
    found = model().fit(mixed, past=mixed, **QUICK)
    for one, other in zip(expected.forecast(2), found.forecast(2), strict=True):
        assert one.equals(other)
    for name, given in {"series": (frames[:1], None), "past": (frames[:1], frames[:1])}.items():
        wrong = [frames[1].set_axis(["b", "c"], axis=1)]
        series, past = given[0] + (wrong if name == "series" else frames[:1]), given[1] and given[1] + wrong
        with pytest.raises(ValueError, match=rf"^{name}\[1\]: expected the columns .* as in {name}\[0\], got \['b'"):
            model().fit(series, past=past, **QUICK)
    others = [frames[0], frames[1].set_axis(["c", "d"], axis=1)]  # by position, because no name is the same
    assert [ahead.columns.tolist() for ahead in model().fit(others, **QUICK).forecast(1)] == [["a", "b"], ["c", "d"]]


# ---- the ends of what an index can count -----------------------------------------------------------------------------

LAST = 2**63 - 1
CANNOT_CONTINUE = r"^series: expected an index that continues for [0-9]+ steps, got one that ends at"


@pytest.mark.parametrize("index", [pd.RangeIndex(LAST - 61, LAST - 1), pd.RangeIndex(-LAST + 60, -LAST, -1)])
def test_a_forecast_beyond_the_integers_of_pandas_is_refused(index):
    fitted = model().fit(pd.Series(values(), index), **QUICK)
    for act in (fitted.forecast, from_bytes(to_bytes(fitted)).forecast):
        with pytest.raises(ValueError, match=CANNOT_CONTINUE):
            act(4)
    with pytest.raises(ValueError, match=CANNOT_CONTINUE):
        fitted.update(values(4))


def test_an_index_of_larger_integers_than_pandas_can_continue_is_refused_by_fit():
    index = pd.Index(np.arange(60, dtype=np.uint64) + np.uint64(2**63))
    with pytest.raises(ValueError, match=rf"^series: expected an index of integers of at most {LAST}, got {LAST + 60}"):
        model().fit(pd.Series(values(), index), **QUICK)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int8, "UInt16"])
def test_an_index_of_any_integers_may_fall(dtype):
    series = pd.Series(values(), pd.Index(np.arange(60)[::-1] + 3, dtype=dtype))
    assert model().fit(series, **QUICK).forecast(4).index.tolist() == [2, 1, 0, -1]


def test_integers_that_wrap_around_are_not_evenly_spaced():
    index = pd.Index(np.array([LAST - 1, LAST, -LAST - 1] * 20, np.int64))
    with pytest.raises(ValueError, match="or of evenly spaced integers"):
        model().fit(pd.Series(values(3), index[:3]), **QUICK)


def test_columns_of_an_update_are_found_by_their_names_by_a_seasonal_naive_forecaster_too():
    series = pd.DataFrame({"a": np.arange(10.0), "b": 100 + np.arange(10.0)})
    more = pd.DataFrame({"a": [10.0, 11.0], "b": [110.0, 111.0]}, index=[10, 11])
    by_order = [
        crnn.SeasonalNaive(2).fit(series).update(more[order]).forecast(2)[["a", "b"]].to_numpy()
        for order in (["a", "b"], ["b", "a"])
    ]
    np.testing.assert_array_equal(*by_order)
    with pytest.raises(ValueError, match=r"series: expected the columns"):
        crnn.SeasonalNaive(2).fit(series).update(more.rename(columns={"a": "c"}))
    with pytest.raises(ValueError, match="expected a call of fit"):
        crnn.SeasonalNaive(2).update(more)
