# SPDX-License-Identifier: MIT
"""Numbers stay the numbers they are: scaling in float64 everywhere, and nothing that is not finite comes in."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from kernel_tools import assert_same_bits

import crnn

T = 30


def offset_data(offset, width, D=2, seed=0, n=12):
    """Sequences (T, D) around a large number, and the next value of the first column as the target of each step."""
    rng = np.random.default_rng(seed)
    X = [offset + width * rng.normal(size=(T, D)).cumsum(axis=0) for _ in range(n)]
    return X, [np.append(x[1:, 0], x[-1, 0]) for x in X]


def regressor(X, Y, **options):
    model = crnn.SequenceRegressor(X[0].shape[1], hidden_size=8, pooling=None, seed=1, **options)
    model.fit(X, Y, epochs=2)
    return model


# A pressure sensor, a Unix time, targets as large as 1e9.
OFFSETS = [(101325.0, 0.01), (1.76e9, 60.0), (1e9, 1.0), (-1e9, 1e-3), (0.0, 1e-30), (5.0, 1e30)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("offset", "width"), OFFSETS)
def test_every_stream_of_a_scaled_model_has_the_bits_of_predict(offset, width, dtype):
    X, Y = offset_data(offset, width)
    model = regressor(X, Y, dtype=dtype)
    for x in X[:3]:
        expected = model.predict([x])[0]
        stream = model.stream()
        assert stream.weights.io_dtype == "float64"
        assert_same_bits(np.stack([stream.step(row) for row in x]), expected)
        assert_same_bits(model.stream().run(x), expected)
        assert_same_bits(model.stream().run(x.tolist()), expected)
    together = model.stream_batch(3)
    steps = np.stack([together.step(np.stack([x[t] for x in X[:3]])) for t in range(T)], axis=1)
    assert_same_bits(steps, np.stack(model.predict(X[:3])))


def test_the_difference_that_matters_survives():
    """Inputs that differ by less than float32 can tell at their size give different outputs."""
    X, Y = offset_data(101325.0, 0.001)
    model, x = regressor(X, Y), X[0]
    assert (x[1].astype("f4") == x[2].astype("f4")).all()
    assert (model.stream().step(x[1]) != model.stream().step(x[2])).all()


@settings(deadline=None, max_examples=40)
@draw(
    offset=st.floats(-1e9, 1e9),
    width=st.floats(1e-6, 1e6),
    kind=st.sampled_from(["regressor", "quantiles", "tagger", "classifier"]),
    cell=st.sampled_from(["gru", "lstm", "tanh", "min_gru"]),
    seed=st.integers(0, 99),
)
def test_predict_and_stream_agree_at_any_offset(offset, width, kind, cell, seed):
    X, Y = offset_data(offset, width, seed=seed, n=3)
    options = {"hidden_size": 5, "cell": cell, "seed": seed}
    if kind in ("regressor", "quantiles"):
        model = crnn.SequenceRegressor(2, loss="mse" if kind == "regressor" else "quantile", pooling=None, **options)
        model.fit(X, Y, epochs=1)
        expected = model.predict([X[0]])[0]
        got = model.stream().run(X[0])
        assert_same_bits(got if kind == "regressor" else got[:, None], expected)
        return
    if kind == "tagger":
        model = crnn.SequenceTagger(2, 2, **options)
        model.fit(X, [(y > offset).astype(int) for y in Y], epochs=1)
        assert (model.stream().run(X[0]).argmax(axis=1) == model.predict([X[0]])[0]).all()
    else:
        model = crnn.SequenceClassifier(2, 2, pooling="last", **options)
        model.fit(X, [0, 1, 0], epochs=1)
        assert model.stream().run(X[0])[-1].argmax() == model.predict([X[0]])[0]


def test_step_writes_float64_into_out_and_refuses_what_would_round():
    X, Y = offset_data(101325.0, 0.01)
    model, x = regressor(X, Y), X[0]
    out, stream, other = np.empty(1), model.stream(), model.stream()
    for row in x:
        assert stream.step(row, out=out) is out
        assert_same_bits(out, other.step(row))
    together = np.empty((T, 1))
    assert model.stream().run(x, out=together) is together
    assert_same_bits(together, model.predict([x])[0])
    for bad in (np.empty(1, "f4"), np.empty(2), np.empty((1, 1))):
        with pytest.raises(ValueError, match="out: expected writable C-contiguous float64 array"):
            stream.step(x[0], out=bad)
    square = crnn.SequenceRegressor(1, hidden_size=4, pooling=None, seed=0)
    square.fit([x[:, :1] for x in X], None, epochs=1)
    buffer = x[0, :1].copy()
    expected = square.stream().step(x[0, :1])
    square.stream().step(buffer, out=buffer)  # in place
    assert_same_bits(buffer, expected)


def test_models_of_float32_give_float64_only_if_they_scale():
    X, Y = offset_data(3.0, 1.0)
    assert regressor(X, Y).stream().step(X[0][0]).dtype == np.float64
    plain = regressor(X, Y, scale=False)
    assert plain.stream().weights.io_dtype == "float32"
    assert plain.stream().step(X[0][0]).dtype == np.float32
    assert_same_bits(plain.stream().run(X[0]).astype("f8"), plain.predict([X[0]])[0])
    new = crnn.SequenceRegressor(2, hidden_size=4)  # known before the data are: ones like 0 +- 1 would decide otherwise
    assert new.stream().weights.io_dtype == "float64"
    assert new.stream().weights.dtype == "float32"


def test_ids_of_a_model_with_real_targets_give_float64():
    ids, Y = [np.arange(6) % 4] * 8, list(1e9 + np.arange(8.0))
    for options in ({}, {"embedding_size": 3}):
        model = crnn.SequenceRegressor(4, hidden_size=5, seed=0, **options)
        model.fit(ids, Y, epochs=1)
        out = np.empty(1)
        stream = model.stream()
        for number in ids[0].tolist():
            stream.step(number, out=out)
        assert_same_bits(out, model.predict(ids[:1]))
        assert_same_bits(model.stream().run(ids[0])[-1], out)


def test_copies_and_pickles_of_scaled_streams_continue():
    X, Y = offset_data(1e9, 1.0)
    model, x = regressor(X, Y), X[0]
    stream = model.stream()
    stream.run(x[:10])
    batch = model.stream_batch(1)
    batch.set_state(0, stream)
    expected = model.predict([x])[0][10:]
    for twin in (stream.copy(), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert_same_bits(twin.run(x[10:]), expected)
    for twin in (batch, pickle.loads(pickle.dumps(batch))):
        assert_same_bits(np.concatenate([twin.step(row[None]) for row in x[10:]]), expected)


def test_a_stream_refuses_what_is_not_finite_when_it_is_scaled_and_keeps_its_state():
    X, Y = offset_data(1e3, 1e-3)
    model, x = regressor(X, Y), X[0]
    expected = model.predict([x])[0]
    stream, batch = model.stream(), model.stream_batch(2)
    first = stream.run(x[:5])
    batch.step(np.stack([x[0], x[0]]))
    for value, text in [(np.nan, "nan at"), (-np.inf, "-inf at"), (1e40, "standardised"), (1e300, "standard")]:
        bad = np.array([1e3, value])
        with pytest.raises(ValueError, match=f"x: expected finite numbers, got .*{text}"):
            stream.step(bad)
        with pytest.raises(ValueError, match=f"xs: expected finite numbers, got .*{text}"):
            stream.run([x[5], bad])
        with pytest.raises(ValueError, match=f"x: expected finite numbers, got .*{text}"):
            batch.step(np.stack([x[1], bad]))
    assert_same_bits(np.concatenate([first, stream.run(x[5:])]), expected)
    assert_same_bits(batch.step(np.stack([x[1], x[1]]))[0], expected[1])


def test_masked_entries_are_missing_to_streams_and_networks():
    net = crnn.RNN(3, 4, seed=0)
    row = np.ma.array([1, 2, 1e36], "f4", mask=[0, 0, 1])
    for use in (net.stream().step, lambda x: net(x[None, None]), lambda x: net.stream_batch(1).step(x[None])):
        with pytest.raises(ValueError, match="x: expected finite numbers, got nan at"):
            use(row)
    plain = np.ma.array([1, 2, 3], "f4")
    assert_same_bits(net.stream().step(plain), net.stream().step(np.array([1, 2, 3], "f4")))


TEXT_MODEL = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), hidden_size=4, seed=0)
IDS = np.arange(24) * 7 % 5
TAKES_IDS = {
    "text": lambda ids: TEXT_MODEL.evaluate(ids),
    "dynamic: statistics": lambda ids: TEXT_MODEL.evaluate("abc", dynamic={"statistics": ids}),
    "sequences[0]": lambda ids: TEXT_MODEL.surprisals([ids]),
    "ids": lambda ids: TEXT_MODEL.vocab.decode(ids),
    "ids of windows": lambda ids: TEXT_MODEL.windows(ids, 2, 3),
    "ids of a window": lambda ids: TEXT_MODEL.forward(ids[:, None]),
    "ids of losses": lambda ids: TEXT_MODEL.losses(ids[:, None], IDS[:, None]),
    "ids of training": lambda ids: copy.copy(TEXT_MODEL).fit(ids, batch_size=2, epochs=1),
    "valid": lambda ids: copy.copy(TEXT_MODEL).fit(IDS, valid=ids, batch_size=2, epochs=1),
    "text of a learner": lambda ids: TEXT_MODEL.learner().feed(ids),
}


@pytest.mark.parametrize("name", TAKES_IDS)
def test_an_id_cannot_be_masked(name):
    call, ids = TAKES_IDS[name], np.ma.array(IDS, mask=False)
    call(ids)
    ids[3] = np.ma.masked
    message = f"{name.partition(' of ')[0]}: expected ids, none of them masked, got 1 masked"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(ids)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_masked_targets_of_a_window_are_missing(dtype):
    x, mask = IDS.reshape(6, 4), np.arange(24).reshape(6, 4) % 5 == 1
    expected = TEXT_MODEL.losses(x, np.where(mask, -1, x))[0]
    assert_same_bits(TEXT_MODEL.losses(x, np.ma.array(x.astype(dtype), mask=mask))[0], expected)
    total, count, _ = copy.copy(TEXT_MODEL).loss_and_gradients(x, np.ma.array(x.astype(dtype), mask=mask))
    assert (total, count) == copy.copy(TEXT_MODEL).loss_and_gradients(x, np.where(mask, -1, x))[:2]
    assert count == 24 - mask.sum()


def test_lengths_and_numbers_of_a_gradient_check_cannot_be_masked():
    net, x = crnn.RNN(3, 4, seed=0), np.random.default_rng(0).normal(size=(5, 2, 3))
    with pytest.raises(ValueError, match=r"^lengths: expected integers of shape \(B,\), got float64"):
        net(x, lengths=np.ma.array([5, 2], mask=[0, 1]))
    with pytest.raises(ValueError, match="x: expected finite numbers, got nan at"):
        crnn.gradient_check(net, np.ma.array(x, mask=x > 1))


def test_a_model_whose_steps_release_the_gil_scales_too():
    X, Y = offset_data(1e9, 1.0, n=3)
    model = crnn.SequenceRegressor(2, 1, 300, pooling=None, seed=1)  # more than 256 KB of weights
    model.fit(X, Y, epochs=1)
    expected, out = model.predict([X[0]])[0], np.empty(1)
    stream, other = model.stream(), model.stream()
    for row, y in zip(X[0], expected, strict=True):
        assert_same_bits(stream.step(row), y)
        other.step(row, out=out)
        assert_same_bits(out, y)
        with pytest.raises(ValueError, match="x: expected finite numbers, got nan at 1"):
            stream.step(np.array([1.0, np.nan]))


# ---- models: what X and y may hold ---------------------------------------------------------------------------------


XS = [np.random.default_rng(i).normal(5, 2, (6, 3)) for i in range(8)]
VALUES = [float(x[-1, 0]) for x in XS]


def values_model():
    return crnn.SequenceRegressor(3, hidden_size=4, seed=0)


def weights_after(X, y, make=values_model):
    model = make()
    model.fit(X, y, epochs=2, batch_size=4)
    return model.flat_params.copy()


def test_masked_targets_are_missing_and_masked_inputs_refused():
    mask = [i == 2 for i in range(8)]
    missing = [np.nan if hidden else value for hidden, value in zip(mask, VALUES, strict=True)]
    expected = weights_after(XS, missing)
    filled = np.ma.array([1e36 if hidden else v for hidden, v in zip(mask, VALUES, strict=True)], mask=mask)
    assert_same_bits(weights_after(XS, filled), expected)
    with_none = [None if hidden else value for hidden, value in zip(mask, VALUES, strict=True)]
    assert_same_bits(weights_after(XS, with_none), expected)
    X = np.ma.array(np.stack(XS), mask=False)
    assert_same_bits(weights_after(X, VALUES), weights_after(XS, VALUES))
    X[3, 2, 1] = np.ma.masked
    for given in (X, list(X)):
        with pytest.raises(ValueError, match=r"X\[3\]: expected finite numbers, got nan at \(2, 1\)"):
            values_model().fit(given, VALUES)


def test_masked_labels_are_unlabelled():
    def make():
        return crnn.SequenceClassifier(3, 2, hidden_size=4, seed=0)

    def make_named():
        return crnn.SequenceClassifier(3, classes=["a", "b"], hidden_size=4, seed=0)

    labels, mask = np.array([0, 1] * 4), np.arange(8) == 2
    expected = weights_after(XS, np.where(mask, -1, labels), make)
    assert_same_bits(weights_after(XS, np.ma.array(labels, mask=mask), make), expected)
    names = np.array(["a", "b"])[labels]
    for given in (np.ma.array(names, mask=mask), [None if m else n for m, n in zip(mask, names, strict=True)],
                  [np.nan if m else n for m, n in zip(mask, names, strict=True)]):  # fmt: skip
        assert_same_bits(weights_after(XS, given, make_named), expected)
    steps = np.stack([labels[:6]] * 8)
    tagger = crnn.SequenceTagger(3, 2, hidden_size=4, seed=0)
    tagger.fit(XS, np.ma.array(steps, mask=steps == 1), epochs=1)
    other = crnn.SequenceTagger(3, 2, hidden_size=4, seed=0)
    other.fit(XS, np.where(steps == 1, -1, steps), epochs=1)
    assert_same_bits(tagger.flat_params, other.flat_params)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (["1.5"] * 8, "got <U3"),
        (np.array(["1.5"] * 8, object), "got (<U3|str)"),
        ([1j] * 8, "got complex128"),
        (np.arange(8).astype("M8[D]"), "got dates or times .*timedelta64"),
        (np.arange(8).astype("m8[s]"), "got dates or times"),
        ([True, False] * 4, "got bool; a classifier"),
        ([object()] * 8, "got object"),
        ([b"1"] * 8, r"got \|S1"),
    ],
)
def test_what_is_no_number_is_refused_as_a_target_and_as_an_input(y, text):
    model = values_model()
    before = model.flat_params.copy()
    with pytest.raises((TypeError, ValueError), match=rf"y\[0\]: expected numbers, {text}"):
        model.fit(XS, y)
    if "bool" not in text:
        with pytest.raises((TypeError, ValueError), match=r"X\[0\]: expected numbers, got"):
            model.fit([np.full((6, 3), entry) for entry in y], VALUES)
    assert_same_bits(model.flat_params, before)


@pytest.mark.parametrize("kind", ["f2", "f4", "i1", "u8", "i8", "g", ">f8", "O"])
def test_numbers_of_any_type_are_values(kind):
    X = [np.round(x).astype(kind) for x in XS]
    y = np.round(VALUES).astype(kind)
    expected = weights_after([np.round(x) for x in XS], np.round(VALUES))
    assert_same_bits(weights_after(X, y), expected)
    assert_same_bits(weights_after(np.stack(X), list(y)), expected)


@pytest.mark.parametrize("exponent", [-500, -900, -1000])
def test_numbers_whose_squares_underflow_are_scaled(exponent):
    tiny = [np.ldexp(x, exponent) for x in XS]
    plain = [np.ldexp(x, -exponent) for x in tiny]  # exactly the same numbers, times a power of two
    model, other = values_model(), values_model()
    model.fit(tiny, np.ldexp(VALUES, exponent), epochs=2)
    other.fit(plain, VALUES, epochs=2)
    assert_same_bits(model.flat_params, other.flat_params)
    assert_same_bits(model.predict(tiny), np.ldexp(other.predict(plain), exponent))
    stream = model.stream()
    assert_same_bits(stream.run(tiny[1])[-1], model.predict(tiny[1:2]))
    mixed = [np.column_stack([t[:, 0], p[:, 1:]]) for t, p in zip(tiny, plain, strict=True)]
    third = values_model()
    third.fit(mixed, VALUES, epochs=2)
    assert_same_bits(third.flat_params, other.flat_params)


def test_large_integers_are_numbers():
    X = [np.array([[2**63 + i], [2**64 - 1]], np.uint64) for i in range(0, 80000, 10000)]
    model = crnn.SequenceRegressor(1, hidden_size=4)
    model.fit(X, VALUES, epochs=1)
    assert np.isfinite(model.predict(X)).all()


def test_finite_numbers_that_overflow_when_scaled_or_rounded_are_refused():
    model = values_model()
    model.fit(XS, VALUES, epochs=1)
    bad = XS[1].copy()
    bad[3, 1] = 1e300
    for use in (model.predict, lambda X: model.evaluate(X, VALUES[:2])):
        with pytest.raises(ValueError, match=r"X\[1\]: .* that float32 can hold once scaled, got 1e\+300"):
            use([XS[0], bad])
    with pytest.raises(ValueError, match=r"y\[1\]: .* that float32 can hold once scaled, got -1e\+300"):
        model.evaluate(XS[:2], [1.0, -1e300])
    plain = crnn.SequenceRegressor(3, hidden_size=4, scale=False)
    with pytest.raises(ValueError, match=r"X\[1\]: expected numbers that float32 can hold"):
        plain.fit([XS[0], bad], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"y\[0\]: expected numbers that float32 can hold"):
        plain.fit(XS[:2], [1e40, 2.0])
    with pytest.raises(ValueError, match=r"y\[1\]: expected finite numbers, or NaN for none, got infinity"):
        plain.fit(XS[:2], [1.0, np.inf])


def test_one_series_is_read_the_same_way_everywhere_or_refused_with_a_hint():
    series = np.sin(np.arange(50) / 3)[:, None]
    model = crnn.SequenceRegressor(1, hidden_size=4, pooling=None, seed=0)
    model.fit([series], None, epochs=1)
    for X in (series, series.tolist(), np.ma.array(series)):
        for use in (model.predict, lambda X: model.evaluate(X, X), lambda X: model.fit(X, [0] * 50)):
            with pytest.raises(ValueError, match=r"X: .*\(50, 1\); write \[x\] for one sequence of 50 steps, or x\[:"):
                use(X)
    with pytest.raises(ValueError, match=r"X: expected shape .* got \(50,\); for one sequence write \[x\]"):
        model.predict(series[:, 0])
    ahead = model.forecast(series, 3)
    for same in (series[:, 0], series[:, 0].tolist()):
        assert_same_bits(model.forecast(same, 3), ahead)
    for several in ([series], series[None], series.T, [series[:, 0]]):
        assert_same_bits(model.forecast(several, 3), ahead[None])
    wide = crnn.SequenceRegressor(3, 3, hidden_size=4, pooling=None, seed=0)
    with pytest.raises(ValueError, match=r"X: .* got \(6, 3\); write \[x\] for one sequence of 6 steps"):
        wide.predict(XS[0])
    assert wide.forecast(XS[0], 2).shape == (2, 3)
