# SPDX-License-Identifier: MIT
"""Streams of models that pool: after every step the bits of `predict` for the sequence so far."""

import copy
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import stir
from stream_tools import CELLS, SHAPES, stepwise

import crnn
from crnn.nn.state import state_arrays

cells = pytest.mark.parametrize("cell", CELLS)
poolings = pytest.mark.parametrize("pooling", ["max", "mean"])


def regressor(pooling, cell="gru", D=5, H=7, **options):
    options = {"scale": False, "trainable_initial_state": True, "seed": 1} | options
    model = crnn.SequenceRegressor(D, 2, H, cell=cell, pooling=pooling, **options)
    stir(model.flat_params)
    return model


def inputs(rng, model, *shape):
    return rng.normal(size=(*shape, model.net.input_size)).astype(model.dtype)


def prefixes(model, xs):
    """What `predict` says of xs[:1], xs[:2], ... all of xs: (T, V), in the dtype of the stream."""
    values = model.predict([xs[: t + 1] for t in range(len(xs))])
    dtype = model.stream().weights.io_dtype
    assert (values.astype(dtype) == values).all()
    return values.astype(dtype)


def same_state(one, other):
    for a, b in zip(state_arrays(one), state_arrays(other), strict=True):
        assert_same_bits(a, b)


# ---- the bits of predict ---------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
@cells
@poolings
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("D", "H", "options"), SHAPES, ids=str)
def test_every_prefix_has_the_bits_of_predict(rng, isa, cell, pooling, dtype, D, H, options):
    model = regressor(pooling, cell, D, H, dtype=dtype, **options)
    xs = inputs(rng, model, 14)
    expected = prefixes(model, xs)
    assert len(np.unique(expected[:, 0])) > 2 or H == [1]
    assert_same_bits(stepwise(model.stream(), xs), expected)
    assert_same_bits(model.stream().run(xs), expected)


@pytest.mark.thread_unsafe
@cells
@poolings
@pytest.mark.parametrize("embedding_size", [None, 1, 6])
def test_ids_have_the_bits_of_predict(rng, isa, cell, pooling, embedding_size):
    model = regressor(pooling, cell, 9, [16, 7], embedding_size=embedding_size)
    ids = rng.integers(9, size=14)
    expected = prefixes(model, ids)
    assert_same_bits(stepwise(model.stream(), ids), expected)
    assert_same_bits(model.stream().run(ids), expected)
    assert_same_bits(model.stream_batch(14).step(ids), model.stream_batch(14).step(ids.astype("u1")))


@poolings
@pytest.mark.parametrize("pieces", [[80], [1, 79], [31, 1, 0, 32, 16], [33, 47]], ids=str)
def test_runs_and_steps_mix(rng, pooling, pieces):
    model = regressor(pooling, "lstm", 5, [33, 17])
    xs = inputs(rng, model, 80)
    stream, got = model.stream(), []
    for end, n in zip(np.cumsum(pieces), pieces, strict=True):
        got.append(stream.run(xs[end - n : end]))
        if n == 1:
            stream = stream.copy()
    assert_same_bits(np.concatenate(got), prefixes(model, xs))


@poolings
@pytest.mark.parametrize("loss", ["mse", "quantile"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fitted_regressor_answers_in_the_targets_units(rng, dtype, loss, pooling):
    model = crnn.SequenceRegressor(3, 2, 9, loss=loss, pooling=pooling, dtype=dtype, seed=1)
    X = [rng.normal([1, -50, 3e4], [0.1, 7, 900], (12, 3)) for _ in range(8)]
    model.fit(X, [x.mean(0)[:2] * 3 + 8 for x in X], epochs=2)
    got, expected = stepwise(model.stream(), X[0]), model.predict([X[0][: t + 1] for t in range(12)])
    if loss == "quantile":
        got = got.reshape(12, -1, 2).transpose(0, 2, 1)  # blocks of the targets' columns, one for each level
    assert got.dtype == np.float64
    assert_same_bits(np.ascontiguousarray(got), np.asarray(expected))


@pytest.mark.parametrize("options", [{}, {"pooling": "mean"}, {"multilabel": True}], ids=str)
def test_a_classifier_with_the_defaults_streams_and_so_does_its_file(rng, tmp_path, options):
    X = [rng.normal([5, -3], [2, 9], (7, 2)) for _ in range(10)]
    y = rng.integers(2, size=(10, 3)) if "multilabel" in options else rng.integers(3, size=10)
    model = crnn.SequenceClassifier(hidden_size=8, seed=1, **options)
    model.fit(X, y, epochs=1)
    assert model.pooling == options.get("pooling", "max")
    model.save(tmp_path / "m.safetensors")
    for each in (model, crnn.load(tmp_path / "m.safetensors")):
        logits = stepwise(each.stream(), X[0]).astype(np.float32)  # nothing is lost: float32 computed them
        expected = model.predict_proba([X[0][: t + 1] for t in range(7)])
        assert_same_bits(each._targets.probabilities(logits), expected)


@poolings
def test_a_sequence_that_is_predicted_in_windows_has_the_bits_of_its_stream(rng, pooling):
    model = regressor(pooling, "lstm", 3, 40)
    xs = inputs(rng, model, 5000)
    last = model.stream().run(xs)[-1:]
    assert_same_bits(last, model.predict([xs]).astype("f4"))
    assert_same_bits(last, model.predict(np.repeat(xs[None], 9, axis=0))[4:5].astype("f4"))


@poolings
@pytest.mark.parametrize("kind", ["denormal", "huge"])
def test_special_inputs_have_the_bits_of_predict(rng, pooling, kind):
    """Denormal outputs count as zero; relu outputs that overflow stay infinite in the maximum and the sum."""
    model = regressor(pooling, "relu", trainable_initial_state=False)
    model.params["layer0.W_xh"][...] = np.abs(model.params["layer0.W_xh"])
    model.params["layer0.b_h"][...] = 0
    model.params["layer0.W_hh"][...] *= {"denormal": 1, "huge": 1e30}[kind]
    xs = np.abs(inputs(rng, model, 6)) * np.float32({"denormal": 1e-39, "huge": 1e20}[kind])
    with np.errstate(all="ignore"):
        expected = model.predict([xs[: t + 1] for t in range(6)]).astype("f4")
        stream = model.stream()
        assert_same_bits(stepwise(stream, xs), expected)
    pooled = stream.state[1]
    assert (pooled == 0).all() if kind == "denormal" else not np.isfinite(pooled).all()
    again = pickle.loads(pickle.dumps(stream))  # a state may be infinite
    same_state(again.state, stream.state)


# ---- many streams ------------------------------------------------------------------------------------------------


@cells
@poolings
def test_any_rows_in_any_order_while_the_others_wait(rng, cell, pooling):
    model, n = regressor(pooling, cell, 5, [7, 18]), 170
    xs = inputs(rng, model, n, 16)
    alone, expected = model.stream(), np.empty((n, 16, 2), np.float32)
    for row in range(n):
        alone.reset()
        expected[row] = alone.run(xs[row])
    assert_same_bits(expected[83], prefixes(model, xs[83]))
    batch, done = model.stream_batch(n), np.zeros(n, int)
    for size in [1, 2, 170, 7, 150, 3, 145, 144, 33]:
        start = rng.integers(n - size + 1)
        for rows in (rng.permutation(n)[:size], np.arange(start, start + size)):
            rows = rows[done[rows] < 16]
            assert_same_bits(batch.step(xs[rows, done[rows]], rows=rows), expected[rows, done[rows]])
            done[rows] += 1
    assert done.min() < done.max()


@poolings
@pytest.mark.parametrize("cell", ["lstm", "tanh"])
def test_rows_come_go_continue_and_are_copied(rng, cell, pooling):
    model = regressor(pooling, cell, 5, [7, 9])
    xs = inputs(rng, model, 12)
    expected, stream = prefixes(model, xs), model.stream()
    stepwise(stream, xs[:4])
    batch = model.stream_batch(2)
    batch.step(xs[[7, 8]])
    (row,) = batch.add(state=stream)
    batch.set_state(0, stream)
    batch.set_state(1, stream.state)
    assert_same_bits(batch.step(xs[[4, 4, 4]]), expected[[4, 4, 4]])
    assert_same_bits(stepwise(batch.stream(row), xs[5:]), expected[5:])
    batch.select([2, 0, 2, 1])
    assert_same_bits(batch.step(xs[[5] * 4]), expected[[5] * 4])
    states = batch.states([3, 1])
    batch.reset([3, 0])
    assert_same_bits(batch.step(xs[[6, 0, 0, 6]], rows=[1, 0, 3, 2]), expected[[6, 0, 0, 6]])
    batch.remove(1)
    assert batch.add(30).tolist()[:2] == [1, 4]  # more memory
    batch.set_states(states, rows=[1, 3])
    assert_same_bits(batch.step(xs[[6, 6]], rows=[1, 3]), expected[[6, 6]])
    assert_same_bits(batch.step(xs[[0]], rows=9), expected[[0]])
    again = pickle.loads(pickle.dumps(batch))
    assert_same_bits(again.step(xs[[7, 7]], rows=[1, 3]), expected[[7, 7]])


# ---- state -------------------------------------------------------------------------------------------------------


@cells
@poolings
@pytest.mark.parametrize("H", [[7, 7], [7, 9]], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_taken_and_set_goes_on_from_there(rng, cell, pooling, H, dtype):
    model = regressor(pooling, cell, 5, H, dtype=dtype)
    xs = inputs(rng, model, 20)
    expected, stream = prefixes(model, xs), model.stream()
    initial = stream.state
    assert_same_bits(stepwise(stream, xs[:10]), expected[:10])
    state, fork = stream.state, stream.copy()
    assert_same_bits(stepwise(stream, xs[10:]), expected[10:])
    stream.state = state
    same_state(stream.state, state)
    others = [stream, fork, copy.deepcopy(fork), pickle.loads(pickle.dumps(fork))]
    for other in others:
        assert_same_bits(stepwise(other, xs[10:]), expected[10:])
    stream.state = initial
    fork.reset()
    same_state(fork.state, initial)
    for other in (stream, fork):
        assert_same_bits(stepwise(other, xs), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_pooled_state_is_that_of_the_top_layers_outputs(rng, dtype):
    largest, mean = (regressor(pooling, "gru", 5, [9, 7], dtype=dtype) for pooling in ("max", "mean"))
    xs = inputs(rng, largest, 6)
    h = largest.net(xs[:, None])[0]
    one, other = largest.stream(), mean.stream()
    state, maximum = one.state
    assert [part.shape for part in state] == [(1, 9), (1, 7)]
    assert_same_bits(maximum, np.full((1, 7), -np.inf, dtype))
    state, total, steps = other.state
    assert_same_bits(total, np.zeros((1, 7), dtype))
    assert (steps.dtype, steps.tolist()) == (np.int64, [0])
    one.run(xs)
    other.run(xs)
    state, maximum = one.state
    assert_same_bits(state[1], h[-1])
    assert_same_bits(maximum, h.max(axis=0))
    state, total, steps = other.state
    expected = np.zeros_like(h[0])
    for h_t in h:
        expected = expected + h_t
    assert_same_bits(total, expected)
    assert steps.tolist() == [6]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mean_counts_beyond_what_float32_can_count(dtype):
    model = regressor("mean", "gru", 5, 7, dtype=dtype)
    model.params["W_hy"][...] = np.eye(7, 2)
    model.params["b_y"][...] = 0
    x = np.ones(5, dtype)
    for before in (2**24 - 2, 2**24 + 1, 2**31, 2**40 + 2**24 - 1):
        stream, total = model.stream(), np.full((1, 7), 3e6, dtype)
        stream.state = (stream.state[0], total, [before])
        for steps in range(before + 1, before + 4):
            y = stream.step(x)
            _, total, count = stream.state
            assert count.tolist() == [steps]
            assert_same_bits(y, (total * (1 / np.dtype(dtype).type(steps)))[0, :2])


STATE = np.zeros((1, 1, 7), "f4")
ROW = np.zeros((1, 7), "f4")


@pytest.mark.parametrize(
    ("pooling", "state", "error", "text"),
    [
        ("max", STATE, ValueError, "state: expected a tuple (state, maximum), got ndarray"),
        ("max", (STATE, ROW, [1]), ValueError, "state: expected a tuple (state, maximum), got tuple of 3"),
        ("max", (STATE, ROW[0]), ValueError, "state[1]: expected shape (1, 7), got (7,)"),
        ("max", (STATE[0], ROW), ValueError, "state[0]: expected shape (1, 1, 7), got (1, 7)"),
        ("max", (STATE, ROW + np.inf), ValueError, "state[1]: expected finite numbers, got inf at (0, 0)"),
        ("max", (STATE, ROW * np.nan), ValueError, "state[1]: expected finite numbers, got nan at (0, 0)"),
        ("max", (STATE, np.full((1, 7), 1e39)), ValueError, "state[1]: expected numbers that float32 can hold, got 1e"),
        ("max", (STATE - np.inf, ROW), ValueError, "state[0]: expected finite numbers, got -inf at (0, 0, 0)"),
        ("mean", (STATE, ROW), ValueError, "state: expected a tuple (state, sum, steps), got tuple of 2"),
        ("mean", (STATE, ROW - np.inf, [1]), ValueError, "state[1]: expected finite numbers, got -inf at (0, 0)"),
        ("mean", (STATE, ROW, 1), ValueError, "state[2]: expected shape (1,), got ()"),
        ("mean", (STATE, ROW, [1, 2]), ValueError, "state[2]: expected shape (1,), got (2,)"),
        ("mean", (STATE, ROW, [1.0]), TypeError, "state[2]: expected integers, got float64"),
        ("mean", (STATE, ROW, [-1]), ValueError, "state[2]: expected from 0 to 281474976710655 steps, got -1"),
        ("mean", (STATE, ROW, [2**48]), ValueError, "state[2]: expected from 0 to 281474976710655 steps, got 2814"),
        ("mean", (STATE, ROW, np.array([2**64 - 1], "u8")), ValueError, "state[2]: expected from 0 to 281474976710655"),
        ("mean", (STATE, ROW, None), TypeError, "state[2]: expected"),
    ],
)
def test_a_state_of_another_form_is_refused(rng, pooling, state, error, text):
    model = regressor(pooling)
    stream, batch = model.stream(), model.stream_batch(1)
    xs = inputs(rng, model, 3)
    stream.run(xs)
    batch.set_state(0, stream)
    before = stream.state
    with pytest.raises(error, match=re.escape(text)):
        stream.state = state
    for change in (batch.set_state, lambda row, state: batch.add(state=state)):
        with pytest.raises(error, match=re.escape(text)):
            change(0, state)
    same_state(stream.state, before)
    same_state(batch.state(0), before)


@poolings
def test_a_step_that_is_refused_changes_no_pooled_state(rng, pooling):
    model = regressor(pooling)
    xs = inputs(rng, model, 4)
    stream = model.stream()
    first = stepwise(stream, xs[:2])
    for wrong in (np.full(5, np.nan, "f4"), np.full(5, np.inf, "f4"), 5):
        with pytest.raises(ValueError, match="x: expected"):
            stream.step(wrong)
    assert_same_bits(np.concatenate([first, stepwise(stream, xs[2:])]), prefixes(model, xs))


# ---- weights -----------------------------------------------------------------------------------------------------


def test_weights_are_shared_by_models_of_the_same_pooling_only():
    model = regressor("max")
    weights, parts = model.stream().weights, model._stream_parts()
    assert model.stream().weights is weights
    assert weights.holds(parts)
    for pooling in ("mean", "last", None):
        assert not weights.holds(replace(parts, pooling=pooling))
    same = pickle.loads(pickle.dumps(weights))
    assert same.holds(parts)
    assert not same.holds(replace(parts, pooling="mean"))
    with pytest.raises(ValueError, match="pooling: expected one of None, 'last', 'max', 'mean', got 'flatten'"):
        crnn.stream.StreamWeights(replace(parts, pooling="flatten"))


def test_a_step_that_releases_the_gil_pools(rng):
    model = regressor("max", "lstm", 64, 256)  # 1.3 MB of weights
    xs = inputs(rng, model, 6)
    assert_same_bits(stepwise(model.stream(), xs), prefixes(model, xs))
