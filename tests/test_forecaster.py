# SPDX-License-Identifier: MIT
"""Forecaster and SeasonalNaive: what they learn, forecast, remember, and refuse."""

import copy
import pickle

import numpy as np
import pytest

import crnn
from crnn.models.files import from_bytes, to_bytes

QUICK = {"epochs": 2, "progress": False}
SMALL = {"hidden_size": 5, "seed": 3}


def wave(n=120, seed=0, level=20.0, season=12):
    t = np.arange(n)
    return level + 0.05 * t + 3 * np.sin(2 * np.pi * t / season) + 0.3 * np.random.default_rng(seed).normal(size=n)


def other_columns(n, seed=1):
    return np.random.default_rng(seed).normal(size=(n, 2))


@pytest.fixture(scope="module")
def fitted():
    return crnn.Forecaster(6, **SMALL).fit(wave(), **QUICK)


def test_forecasts_are_better_than_the_last_season_repeated():
    result = crnn.Forecaster(12, hidden_size=16, seed=0).backtest(wave(240), origins=4, epochs=40, progress=False)
    assert result.naive is not None
    assert result.rmse < 0.8 * result.naive.rmse
    assert result.season == 12


def test_the_shape_of_a_forecast_is_that_of_the_series(fitted):
    assert fitted.forecast().shape == (6,)
    assert fitted.forecast(4).dtype == np.float64
    assert fitted.forecast(4, quantiles=[0.1, 0.5, 0.9]).shape == (4, 3)
    two = crnn.Forecaster(6, **SMALL).fit(np.column_stack([wave(), wave(seed=1)]), **QUICK)
    assert two.forecast(4).shape == (4, 2)
    assert two.forecast(4, quantiles=[0.1, 0.9]).shape == (4, 2, 2)
    several = crnn.Forecaster(6, **SMALL).fit([wave(60), wave(90, 1), wave(70, 2)], **QUICK)
    assert [values.shape for values in several.forecast(4)] == [(4,)] * 3
    assert several.forecast(4, wave(50)).shape == (4,)


@pytest.mark.parametrize("n", [1, 5, 6])
def test_a_shorter_forecast_is_the_beginning_of_a_longer_one(fitted, n):
    assert (fitted.forecast(n) == fitted.forecast(20)[:n]).all()


def test_beyond_the_horizon_forecasts_continue_themselves(fitted):
    first = fitted.forecast(6)
    then = fitted.forecast(6, np.concatenate([wave(), first]))
    np.testing.assert_allclose(fitted.forecast(12)[6:], then, rtol=1e-6)


def test_new_values_are_added_as_if_they_had_been_in_the_series(fitted):
    model = copy.deepcopy(fitted)
    longer = wave(150)
    model.update(longer[120:131]).update(longer[131:])
    assert (model.forecast(8) == fitted.forecast(8, longer)).all()
    assert (fitted.forecast(8) == fitted.forecast(8, wave())).all()


def test_gaps_are_filled_alike_in_the_memory_and_in_a_series():
    series = wave(150)
    series[[5, 50, 51, 52, 83, 84, 85, 86, 90, 119, 120, 121, 139]] = np.nan
    for gaps in "interpolate", "carry", "mask":
        model = crnn.Forecaster(6, season=12, gaps=gaps, window=10, **SMALL).fit(series[:120], **QUICK)
        assert len(model.fitted.memory[0].values) == 120 - 82  # 35 steps, and back to one without a gap
        assert (model.forecast(6) == model.forecast(6, series[:120])).all()
        before = model.forecast(6, series)
        assert np.isfinite(before).all()
        assert (model.update(series[120:]).forecast(6) == before).all()


def test_masked_gaps_are_hidden_and_others_are_not():
    series = wave(150)
    series[140] = np.nan
    other = {}
    for gaps in "carry", "mask":
        model = crnn.Forecaster(6, gaps=gaps, **SMALL).fit(wave(120), **QUICK)
        carried = series.copy()
        carried[140] = carried[139]
        other[gaps] = (model.forecast(6, series) == model.forecast(6, carried)).all()
    assert other == {"carry": True, "mask": False}


def test_series_of_any_length_above_one_can_be_learnt():
    for n in range(2, 20):
        model = crnn.Forecaster(4, **SMALL).fit(wave(n), **QUICK)
        assert np.isfinite(model.forecast(9, quantiles=[0.1, 0.9])).all()


@pytest.mark.parametrize("series", [np.full(60, 3.0), np.zeros(60), wave(60) * 1e-300, wave(60) * 1e140])
def test_series_without_changes_or_of_odd_sizes_are_forecast(series):
    ahead = crnn.Forecaster(4, hidden_size=4).fit(series, **QUICK).forecast(4, quantiles=[0.1, 0.5, 0.9])
    assert np.isfinite(ahead).all()
    assert np.abs(ahead - series[-1]).max() <= 3 * np.ptp(series)


def test_one_network_learns_many_short_series():
    rng = np.random.default_rng(0)
    slopes = rng.uniform(-3, 3, 60)
    series = [100 * k + slopes[k] * np.arange(24) + 0.1 * rng.normal(size=24) for k in range(60)]
    model = crnn.Forecaster(4, hidden_size=8, seed=0).fit([each[:20] for each in series], epochs=15, progress=False)
    naive = np.mean([np.abs(each[20:] - each[19]).mean() for each in series])
    errors = [np.abs(ahead - each[20:]).mean() for ahead, each in zip(model.forecast(4), series, strict=True)]
    assert np.mean(errors) < naive / 4
    new = -500 + 2 * np.arange(20.0)  # a series that was not learnt
    assert np.abs(model.forecast(4, new) - (-500 + 2 * np.arange(20, 24))).max() < 2


def test_learning_does_not_use_targets_in_gaps():
    series = wave(100)
    series[30:70] = np.nan
    model = crnn.Forecaster(6, gaps="carry", **SMALL).fit(series, valid=None, **QUICK)
    other = series.copy()
    other[30:70] = series[29]
    filled = crnn.Forecaster(6, gaps="carry", **SMALL).fit(other, valid=None, **QUICK)
    assert not np.array_equal(model.flat_params, filled.flat_params)


@pytest.mark.parametrize("difference", [None, 1, 12, (12, 1), [1]])
def test_every_difference_is_undone(difference):
    model = crnn.Forecaster(6, difference=difference, **SMALL).fit(wave(), **QUICK)
    assert model.difference_ == tuple(np.atleast_1d([] if difference is None else difference).tolist())
    assert np.abs(model.forecast(6) - wave(126)[120:]).max() < 8


def test_the_logarithm_is_undone():
    series = np.exp(wave(120, level=2.0) / 3)
    model = crnn.Forecaster(6, logarithm=True, hidden_size=5, seed=3).fit(series, **QUICK)
    assert (model.forecast(30) > 0).all()
    assert np.abs(np.log(model.forecast(6)) * 3 - wave(126, level=2.0)[120:]).max() < 8
    with pytest.raises(ValueError, match=r"series: expected values above 0, for logarithm=True, got -1"):
        crnn.Forecaster(6, logarithm=True).fit(np.append(series, -1.0))
    with pytest.raises(ValueError, match=r"series: expected values above 0, for logarithm=True, got 0"):
        model.update([0.0])


def test_columns_known_ahead_are_learnt():
    rng = np.random.default_rng(4)
    promoted = (rng.random(260) < 0.3).astype(float)
    series = 10 + 4 * promoted + 0.1 * rng.normal(size=260)
    model = crnn.Forecaster(6, hidden_size=8, seed=0).fit(
        series[:240], future=promoted[:240], epochs=60, progress=False
    )
    ahead = model.forecast(20, future=promoted[240:])
    assert np.abs(ahead - series[240:]).mean() < 1
    assert (ahead == model.forecast(20, series[:240], future=promoted)).all()
    model.update(series[240:245], future=promoted[240:245])
    assert np.abs(model.forecast(15, future=promoted[245:]) - series[245:]).mean() < 1


def test_columns_known_so_far_are_learnt():
    rng = np.random.default_rng(4)
    leading = rng.normal(size=300)
    series = np.append(0.0, leading[:-1]) + 0.05 * rng.normal(size=300)
    model = crnn.Forecaster(1, hidden_size=8, seed=0)
    result = model.backtest(series, origins=40, past=leading, epochs=60, progress=False)
    assert result.rmse < 0.5 * model.backtest(series, origins=40, epochs=60, progress=False).rmse


# ---- saving, copying, repeating --------------------------------------------------------------------------------------


def copies(model):
    yield from_bytes(to_bytes(model))
    yield pickle.loads(pickle.dumps(model))
    yield copy.deepcopy(model)


@pytest.mark.parametrize("several", [False, True])
def test_copies_forecast_the_same_bits(several, tmp_path):
    series, n = wave(100), 100
    series[40:43] = np.nan
    past, future = other_columns(n), other_columns(n, 2)
    if several:
        series, past, future = [series, wave(n, 1)], [past, past], [future, future]
    model = crnn.Forecaster(6, gaps="mask", lr=0.003, **SMALL).fit(series, past, future, **QUICK)
    ahead = other_columns(8, 3)
    ahead = [ahead, ahead] if several else ahead
    expected = np.array(model.forecast(8, future=ahead, quantiles=[0.05, 0.9]))
    model.save(tmp_path / "m.safetensors")
    for other in [*copies(model), crnn.load(tmp_path / "m.safetensors")]:
        assert (np.array(other.forecast(8, future=ahead, quantiles=[0.05, 0.9])) == expected).all()
        assert other.get_params() == model.get_params()
        assert len(other.training_runs) == 1
        assert to_bytes(other) == to_bytes(model)


def test_fits_and_threads_give_the_same_bits():
    series = [wave(100), wave(80, 1)]
    one, two = (crnn.Forecaster(6, **SMALL).fit(series, threads=threads, **QUICK) for threads in (1, 2))
    assert to_bytes(one) == to_bytes(two)
    assert (np.array(one.forecast(9)) == np.array(two.forecast(9, threads=2))).all()
    assert to_bytes(one.fit(series, **QUICK)) == to_bytes(two)  # begins from the starting weights again


def test_warm_start_continues():
    model = crnn.Forecaster(6, **SMALL).fit(wave(), **QUICK)
    weights = model.flat_params.copy()
    model.fit(wave(130), warm_start=True, **QUICK)
    assert len(model.training_runs) == 2
    assert not np.array_equal(model.flat_params, weights)
    with pytest.raises(ValueError, match="warm_start: expected the columns, horizon and gaps of the last fit"):
        model.fit(np.column_stack([wave(), wave()]), warm_start=True, **QUICK)


def test_astype_changes_the_precision(fitted):
    double = fitted.astype("float64")
    assert double.flat_params.dtype == np.float64
    assert fitted.flat_params.dtype == np.float32
    np.testing.assert_allclose(double.forecast(), fitted.forecast(), rtol=1e-5)


def test_a_model_that_has_not_learnt_says_so():
    model = crnn.Forecaster(6)
    for use in (model.forecast, model.to_bytes, lambda: model.update([1.0]), lambda: model.flat_params):
        with pytest.raises(ValueError, match="Forecaster: expected a call of fit before this"):
            use()
    assert repr(model) == "Forecaster(horizon=6)"
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()


def test_an_interrupted_fit_keeps_what_was_learnt():
    model = crnn.Forecaster(6, **SMALL)

    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(wave(), on_epoch=stop, epochs=9, progress=False)
    assert np.isfinite(model.forecast(4)).all()


def test_a_resumed_fit_is_that_without_interruption(tmp_path):
    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    options = {"checkpoint": tmp_path / "run", "epochs": 5, "progress": False}
    whole = crnn.Forecaster(6, **SMALL).fit(wave(), epochs=5, progress=False)
    model = crnn.Forecaster(6, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(wave(), on_epoch=stop, **options)
    model = crnn.Forecaster(6, **SMALL).fit(wave(), resume=True, **options)
    assert (model.flat_params == whole.flat_params).all()
    assert (model.forecast() == whole.forecast()).all()


def test_a_forecaster_is_trained_by_its_own_fit_only():
    with pytest.raises(TypeError, match=r"model: expected one that .* got Forecaster; call its fit"):
        crnn.fit(crnn.Forecaster(6, **SMALL).fit(wave(), **QUICK), wave())


def test_a_refused_fit_changes_nothing(fitted):
    model = copy.deepcopy(fitted)
    before = to_bytes(model)
    for wrong in ({"lr": -1}, {"valid": 2.0}, {"future": wave(5)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model.fit(wave(130), **wrong)
    assert to_bytes(model) == before


# ---- bands -----------------------------------------------------------------------------------------------------------


def test_bands_are_in_order_and_grow(fitted):
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    bands = fitted.forecast(18, quantiles=levels)
    assert (np.diff(bands, axis=1) > 0).all()
    width = bands[:, -1] - bands[:, 0]
    assert width[6:12].mean() > width[:6].mean()  # from forecasts


def test_bands_cover_about_what_they_say():
    covered = []
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(size=300)
        model = crnn.Forecaster(4, season=1, difference=None, hidden_size=4, seed=0)
        covered.append(model.backtest(noise, origins=15, stride=4, quantiles=(0.1, 0.9), **QUICK).coverage)
    assert 0.7 < np.mean(covered) < 0.9


def test_without_validation_bands_are_those_of_the_naive_forecast():
    series = np.random.default_rng(0).normal(size=300).cumsum()
    model = crnn.Forecaster(3, season=1, difference=1, **SMALL).fit(series, valid=None, **QUICK)
    low, high = model.forecast(3, quantiles=(0.1, 0.9)).T
    half = (high - low) / 2
    changes = [np.std(series[h:] - series[:-h]) * 1.28 for h in (1, 2, 3)]
    np.testing.assert_allclose(half, changes, rtol=0.15)


@pytest.mark.parametrize("quantiles", [0.5, "0.5", [], [0], [1.0], [0.5, None], [np.nan]])
def test_levels_that_are_none_are_refused(fitted, quantiles):
    with pytest.raises((TypeError, ValueError), match=r"^quantiles: expected"):
        fitted.forecast(3, quantiles=quantiles)


# ---- back-testing ----------------------------------------------------------------------------------------------------


def test_back_tests_do_not_learn_from_what_lies_after_the_first_origin():
    series, model = wave(150), crnn.Forecaster(6, **SMALL)
    result = model.backtest(series, origins=3, **QUICK)
    other = series.copy()
    other[132:] += np.random.default_rng(1).normal(size=18)  # origins at 132, 138, 144
    changed = model.backtest(other, origins=3, **QUICK)
    assert result.origins == [132, 138, 144]
    assert (result.forecasts[:, 0] == changed.forecasts[:, 0]).all()
    assert (result.bands[:, 0] == changed.bands[:, 0]).all()
    assert not (result.forecasts[:, 1] == changed.forecasts[:, 1]).all()
    alone = crnn.Forecaster(6, **SMALL).fit(series[:132], **QUICK)
    assert (result.forecasts[0, 1, :, 0] == alone.forecast(6, series[:138])).all()
    assert model._fitted is None


def test_back_tests_can_learn_again_at_each_origin():
    series, model = wave(150), crnn.Forecaster(6, **SMALL)
    result = model.backtest(series, origins=2, refit=True, **QUICK)
    alone = crnn.Forecaster(6, **SMALL).fit(series[:144], **QUICK)
    assert (result.forecasts[0, 1, :, 0] == alone.forecast(6)).all()


def test_errors_of_a_back_test_are_those_of_its_forecasts():
    series = wave(150)
    series[147] = np.nan
    result = crnn.SeasonalNaive(12).backtest(series, 6, 3, stride=4)
    assert result.origins == [136, 140, 144]
    expected = np.array([series[o - 12 : o - 6] - series[o : o + 6] for o in result.origins])
    np.testing.assert_array_equal(result.errors[0, :, :, 0], expected)
    assert result.rmse == pytest.approx(np.sqrt(np.nanmean(expected**2)), rel=1e-12)
    assert result.mae == pytest.approx(np.nanmean(np.abs(expected)), rel=1e-12)
    assert result.rmse_by_origin == pytest.approx(np.sqrt(np.nanmean(expected**2, axis=1)).tolist(), rel=1e-12)
    assert "SeasonalNaive" in repr(result)


def test_several_series_are_back_tested_together():
    series, future = [wave(90), wave(120, 1)], [other_columns(90), other_columns(120)]
    result = crnn.Forecaster(6, **SMALL).backtest(series, origins=2, future=future, **QUICK)
    assert result.forecasts.shape == (2, 2, 6, 1)
    assert (result.actual[1, 1, :, 0] == series[1][-6:]).all()


@pytest.mark.parametrize(
    "wrong", [{"origins": 0}, {"stride": 0}, {"refit": 1}, {"horizon": 0}, {"quantiles": (0.9, 0.1)}]
)
def test_a_back_test_names_a_wrong_argument(wrong):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}: expected"):
        crnn.SeasonalNaive(12).backtest(wave(), **wrong)


def test_a_back_test_is_not_made_without_the_columns_that_the_model_knows():
    model = crnn.Forecaster(6, **SMALL).fit(wave(), past=other_columns(120), future=other_columns(120), **QUICK)
    with pytest.raises(ValueError, match=r"^past: expected the 2 columns that the model was trained with, got none"):
        model.backtest(wave(), future=other_columns(120), **QUICK)
    with pytest.raises(ValueError, match=r"^future: expected the 2 columns that the model was trained with, got none"):
        model.backtest(wave(), past=other_columns(120), **QUICK)


def test_a_forecast_is_at_most_a_million_steps_long(fitted):
    with pytest.raises(ValueError, match=r"^n: expected at most 1,000,000 steps, got 1,000,001"):
        fitted.forecast(1_000_001)


def test_a_back_test_needs_enough_steps():
    with pytest.raises(ValueError, match="series: expected more than 61 steps, for 5 origins of 12 steps"):
        crnn.SeasonalNaive(12).backtest(wave(60))


# ---- SeasonalNaive ---------------------------------------------------------------------------------------------------


def test_seasonal_naive_repeats_the_last_season_and_finds_it():
    series = wave(100)
    model = crnn.SeasonalNaive().fit(series)
    assert model.season_ == 12
    assert (model.forecast(20) == np.resize(series[-12:], 20)).all()
    assert (model.update([7.0]).forecast(12)[-1]) == 7.0
    gap = series.copy()
    gap[-5] = np.nan
    assert crnn.SeasonalNaive(12).fit(gap).forecast(12)[7] == series[-17]


def test_seasonal_naive_bands_are_those_of_seasonal_differences():
    series = np.random.default_rng(0).normal(size=2000)
    low, high = crnn.SeasonalNaive(4).fit(series).forecast(8, quantiles=(0.1, 0.9)).T
    half = (high - low) / 2
    spread = np.sqrt(2) * 1.2816
    np.testing.assert_allclose(half, [spread] * 4 + [spread * np.sqrt(2)] * 4, rtol=0.08)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exog", "exog: expected past, columns known up to the origin, or future"),
        ("future_covariates", "future_covariates: expected future"),
    ],
)
def test_columns_by_the_names_of_other_libraries_are_refused_with_ours(name, message):
    with pytest.raises(TypeError, match=message):
        crnn.Forecaster(4, **SMALL).fit(wave(60), **{name: wave(60)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"horizon": 0}, "horizon: expected an integer of at least 1, got 0"),
        ({"season": "year"}, "season: expected 'auto' or an integer of at least 1, got 'year'"),
        ({"season": 0}, "season: expected 'auto' or an integer of at least 1, got 0"),
        ({"difference": "1"}, "difference: expected 'auto', None, a lag of at least 1"),
        ({"difference": [1, 0]}, "difference: expected 'auto', None, a lag of at least 1"),
        ({"logarithm": 1}, "logarithm: expected True or False, got 1"),
        ({"gaps": "drop"}, "gaps: expected one of interpolate, carry, mask, got 'drop'"),
        ({"window": 0}, "window: expected an integer of at least 1, got 0"),
        ({"loss": "quantile"}, "loss: expected one of mae, mse, huber, got 'quantile'"),
        ({"bidirectional": True}, "Forecaster: unexpected argument 'bidirectional'"),
        ({"hidden_size": 0}, "hidden_size: expected an integer of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        crnn.Forecaster(**wrong)


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (None, "series: expected a series"),
        ("text", "series: expected a series"),
        ([], "series: expected"),
        (np.zeros((0, 2)), "series: expected a series"),
        (5.0, "series: expected a series"),
        ([1.0, np.inf] * 30, "series: expected finite numbers, or NaN for a gap, got infinity"),
        ([True, False] * 30, "series: expected a series"),
        (["a", "b"], "series"),
        ([np.nan] * 60, "series: expected at least one value in each column, got only missing ones"),
        ([wave(60), np.ones((60, 2))], r"series\[1\]: expected 1 columns, got 2"),
        ([wave(60), [np.nan] * 60], r"series\[1\]: expected at least one value"),
        ([3.0], "series: expected more steps"),
        ([[1.0], [2.0], [3.0]], r"series: expected more steps.*; write np\.array\(x\) if it is one series"),
        (np.ones((2, 60)), r"series: expected a series \(T, P\) of at least P steps, got shape \(2, 60\); write list"),
        (wave(60) * 1e200, "series: expected numbers whose variance float64 can hold, got"),
        ({"a": [1, 2]}, "series: expected"),
    ],
)
def test_wrong_series_are_refused(series, message):
    with pytest.raises((TypeError, ValueError), match=message):
        crnn.Forecaster(6, **SMALL).fit(series, **QUICK)


def test_wrong_columns_are_refused():
    model = crnn.Forecaster(6, **SMALL)
    with pytest.raises(ValueError, match="past: expected 120 rows, got 119"):
        model.fit(wave(), other_columns(119))
    with pytest.raises(ValueError, match="future: expected 120 rows, got 126"):
        model.fit(wave(), future=other_columns(126))
    with pytest.raises(ValueError, match=r"past\[1\]: expected 50 rows, got 60"):
        model.fit([wave(60), wave(50)], [other_columns(60), other_columns(60)])
    model.fit(wave(), other_columns(120), other_columns(120, 2), **QUICK)
    with pytest.raises(ValueError, match="future: expected 4 rows of 2 columns, as in fit, got none"):
        model.forecast(4)
    with pytest.raises(ValueError, match="future: expected 4 rows of 2 columns, got 5 rows of 2 columns"):
        model.forecast(4, future=other_columns(5))
    with pytest.raises(ValueError, match="future: expected 4 rows of 2 columns, got 4 rows of 1 columns"):
        model.forecast(4, future=other_columns(4)[:, 0])
    with pytest.raises(ValueError, match="past: expected with series"):
        model.forecast(4, past=other_columns(4), future=other_columns(4))
    with pytest.raises(ValueError, match="past: expected 130 rows of 2 columns, as in fit, got none"):
        model.forecast(4, wave(130), future=other_columns(134))
    with pytest.raises(ValueError, match="future: expected 134 rows, got 130"):
        model.forecast(4, wave(130), other_columns(130), other_columns(130))
    with pytest.raises(ValueError, match="past: expected 3 rows of 2 columns, as in fit, got none"):
        model.update(wave(3), future=other_columns(3))
    with pytest.raises(ValueError, match="future: expected none, because fit had none"):
        crnn.Forecaster(6, **SMALL).fit(wave(), **QUICK).forecast(4, future=other_columns(4))


def test_the_callers_arrays_are_neither_changed_nor_kept():
    series = wave()
    series[7] = np.nan
    before = series.copy()
    model = crnn.Forecaster(6, **SMALL).fit(series, **QUICK)
    expected = model.forecast()
    np.testing.assert_array_equal(series, before)
    series[...] = 0
    assert (model.forecast() == expected).all()


@pytest.mark.parametrize("part", ["layout", "names", "series", "arguments", "learning", "several"])
def test_a_damaged_file_is_refused(fitted, part):
    from crnn.io import model_file

    tensors, header = model_file.from_bytes("content", fitted.to_bytes())
    for damage in (None, 5, [], {}, "x", [{}], {"a": 1}):
        if damage == header["forecaster"][part]:
            continue
        wrong = header | {"forecaster": header["forecaster"] | {part: damage}}
        with pytest.raises(crnn.ModelFileError):
            from_bytes(model_file.to_bytes(tensors, wrong))


@pytest.mark.parametrize(("name", "value"), [("num_layers", 10**9), ("hidden_size", -1), ("seed", "x"), ("horizon", 7)])
def test_a_file_with_impossible_arguments_is_refused(fitted, name, value):
    from crnn.io import model_file

    tensors, header = model_file.from_bytes("content", fitted.to_bytes())
    header["forecaster"]["arguments"][name] = value
    with pytest.raises(crnn.ModelFileError):
        from_bytes(model_file.to_bytes(tensors, header))


@pytest.mark.parametrize("name", ["shares", "bands.sizes", "memory.values", "memory.std", "W_hy"])
def test_a_file_without_a_tensor_is_refused(fitted, name):
    from crnn.io import model_file

    tensors, header = model_file.from_bytes("content", fitted.to_bytes())
    for wrong in ({name: tensors[name][:0]}, {}):
        kept = {each: values for each, values in tensors.items() if each != name} | wrong
        with pytest.raises(crnn.ModelFileError, match=name):
            from_bytes(model_file.to_bytes(kept, header))


@pytest.mark.parametrize("name", ["horizon", "season", "window"])
def test_a_size_that_no_file_may_have_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected at most 1,000,000 steps, got 1,000,001"):
        crnn.Forecaster(**{name: 1_000_001})


def test_the_largest_season_can_be_saved_and_loaded(tmp_path):
    model = crnn.Forecaster(2, season=1_000_000, hidden_size=2, epochs=1).fit(np.arange(40.0) % 7)
    model.save(tmp_path / "m")
    assert crnn.load(tmp_path / "m").forecast(2).tolist() == model.forecast(2).tolist()


def test_options_of_an_embedding_are_none_of_a_forecaster():
    for name, value in ("embedding_size", 3), ("embedding_dropout", 0.1):
        with pytest.raises(TypeError, match=name):
            crnn.Forecaster(**{name: value})
