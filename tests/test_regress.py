# SPDX-License-Identifier: MIT
"""Values and forecasts: units, holes, shapes, and what is fed back."""


import numpy as np
import pytest
from kernel_tools import assert_close, assert_same_bits
from task_tools import CELLS, LENGTHS, D, reals, regressor, values

import crnn


def fitted(rng, y, P=2, **options):
    model = regressor(P, **options)
    X = reals(rng, LENGTHS[: len(y)] if len(y) < len(LENGTHS) else LENGTHS)
    model.fit(X, y, epochs=1)
    return model, X


# ---- units ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
@pytest.mark.parametrize("pooling", [None, "last"])
def test_other_units_change_nothing_but_the_units(rng, loss, pooling):
    """Metres or millimetres, Celsius or Kelvin: the same weights, and predictions that say the same."""
    y = values(rng, [(2,) if pooling else (n, 2) for n in LENGTHS])
    factor, shift = 1024.0, 512.0  # exact in binary
    results = []
    for targets in (y, [each * factor + shift for each in y]):
        model, X = fitted(np.random.default_rng(4), targets, loss=loss, pooling=pooling, dtype="float64")
        results.append((model.flat_params.copy(), model.predict(X), model.evaluate(X, targets)))
    (weights, mine, result), (same, theirs, other) = results
    np.testing.assert_allclose(same, weights, rtol=1e-9)
    for one, another in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(another, one * factor + shift, rtol=1e-9)
    assert other.rmse == pytest.approx(result.rmse * factor)
    assert other.mae == pytest.approx(result.mae * factor)
    assert other.loss == pytest.approx(result.loss)


def test_without_scaling_x_and_y_are_taken_as_they_are(rng):
    y = values(rng, [(2,)] * 7)
    model, _ = fitted(rng, y, scale=False)
    for scaling in model.scalings.values():
        assert not scaling.mean.any()
        assert (scaling.std == 1).all()


def test_a_target_that_never_changes_is_predicted(rng):
    """Its deviation is 0: nothing is divided by it."""
    y = [[0.1, n] for n in LENGTHS]
    model, X = fitted(rng, y)
    assert model.scalings["y"].std[0] == 1
    assert np.isfinite(model.predict(X)).all()
    assert model.evaluate(X, y).mae < 10


def test_holes_in_targets_have_no_loss_and_no_gradient(rng):
    y = values(rng, [(2,)] * 7)
    model, X = fitted(rng, y, dtype="float64")
    full = model.predict(X)
    holes = [np.where(np.isnan(row), np.nan, p) for row, p in zip(y, full, strict=True)]
    result = model.evaluate(X, holes)
    assert result.count == 12
    assert result.mse < 1e-20
    assert result.loss < 1e-20


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_the_axis_of_a_single_value_may_be_left_out(rng, pooling):
    y = [rng.normal(size=() if pooling else n) for n in LENGTHS]
    weights = []
    for targets in (y, [each[..., None] for each in y], [each.tolist() for each in y]):
        model, X = fitted(np.random.default_rng(3), targets, 1, pooling=pooling)
        weights.append(model.flat_params.copy())
        predicted = model.predict(X)
        assert [each.shape for each in predicted] == [(1,) if pooling else (n, 1) for n in LENGTHS]
    assert_same_bits(weights[1], weights[0])
    assert_same_bits(weights[2], weights[0])


@pytest.mark.parametrize("pooling", [None, "last"])
def test_quantiles_have_an_axis_of_their_own_at_the_end(rng, pooling):
    X = rng.normal(size=(4, 6, D))
    model = regressor(2, loss="quantile", quantiles=[0.9, 0.1, 0.4], pooling=pooling)
    predicted = model.predict(X)
    assert predicted.shape == ((4, 2, 3) if pooling else (4, 6, 2, 3))
    for q in range(3):  # the blocks of the bias, one level after the other
        other = regressor(2, loss="quantile", quantiles=[0.9, 0.1, 0.4], pooling=pooling)
        other.params["b_y"][2 * q + 1] += 1
        moved = other.predict(X) - predicted
        np.testing.assert_allclose(moved[..., 1, q], 1, rtol=1e-5)
        assert np.count_nonzero(moved) == moved[..., 1, q].size


# ---- forecasts -----------------------------------------------------------------------------------------------------


def by_hand(model, series, n, middle=0):
    """The whole series is read again for every step."""
    series = np.asarray(series, float)
    steps = []
    for _ in range(n):
        out = model.predict([series])[0]
        out = out if model.pooling else out[-1]
        steps.append(out[..., middle] if model.loss == "quantile" else out)
        series = np.concatenate([series, steps[-1][None]])
    return np.array(steps)


@pytest.mark.parametrize("pooling", [None, "last"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options", [{}, {"trainable_initial_state": True, "num_layers": 2}, {"hidden_size": [4, 5]}], ids=repr
)
def test_a_forecast_is_predictions_fed_back(rng, dtype, cell, options, pooling):
    model = regressor(D, cell=cell, pooling=pooling, dtype=dtype.name, **options)
    X = [x + 20 for x in reals(rng)]
    model.fit(X, None if pooling is None else [x[-1] for x in X], epochs=1)
    ahead = model.forecast(X, 4)
    assert ahead.shape == (len(X), 4, D)
    for series, got in zip(X, ahead, strict=True):
        np.testing.assert_allclose(got, by_hand(model, series, 4), rtol=1e-4 if dtype == np.float32 else 1e-10)
        assert_same_bits(model.forecast(series, 4), got)
        assert_same_bits(model.forecast(series, 2), got[:2])


def test_quantiles_are_forecast_from_the_one_nearest_to_the_median(rng):
    model = regressor(D, loss="quantile", quantiles=[0.05, 0.6, 0.9], pooling=None, dtype="float64")
    X = reals(rng)
    model.fit(X, None, epochs=1)
    np.testing.assert_allclose(model.forecast(X[0], 3), by_hand(model, X[0], 3, middle=1), rtol=1e-10)


def test_a_series_of_one_value_a_step_needs_no_axis_for_it(rng):
    series = rng.normal(size=(3, 9))
    model = crnn.SequenceRegressor(1, hidden_size=4, pooling=None)
    model.fit(series, None, epochs=1)
    ahead = model.forecast(series, 5)
    assert ahead.shape == (3, 5, 1)
    assert_same_bits(model.forecast(series[:, :, None], 5), ahead)
    assert_same_bits(model.forecast(list(series), 5), ahead)
    assert_same_bits(model.forecast(series[1], 5), ahead[1])
    assert_same_bits(model.forecast(series[1][:, None], 5), ahead[1])


def test_learning_to_forecast_is_learning_the_next_step(rng):
    """y=None: the last step has no target, and what it would be compared with does not count."""
    X = reals(rng)
    nothing = np.full((1, D), np.nan)
    models = [regressor(D, pooling=None) for _ in range(2)]
    models[0].fit(X, None, epochs=2)
    models[1].fit(X, [np.concatenate([x[1:], nothing]) for x in X], epochs=2)
    assert_same_bits(models[0].flat_params, models[1].flat_params)
    assert models[0].evaluate(X).count == (sum(LENGTHS) - len(LENGTHS)) * D
    assert_close(models[0].scalings["y"].mean, np.concatenate([x[1:] for x in X]).mean(axis=0))


def test_a_forecast_leaves_the_model_and_the_series_alone(rng):
    model, X = regressor(D, pooling=None), reals(rng)
    before, series = model.flat_params.copy(), [x.copy() for x in X]
    model.forecast(X, 3)
    assert_same_bits(model.flat_params, before)
    for x, kept in zip(X, series, strict=True):
        assert_same_bits(x, kept)
