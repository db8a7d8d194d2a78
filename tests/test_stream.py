# SPDX-License-Identifier: MIT
"""Streams: the bits of `forward` a step at a time, what they take and refuse, and whose weights they have."""

import gc
import re
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import network, stir
from stream_tools import CELLS, DENSE, SHAPES, language_model, net_of, sequence, stepwise, whole

import crnn
from crnn._core import dispatch
from crnn.nn.state import state_arrays

cells = pytest.mark.parametrize("cell", CELLS)
shapes = pytest.mark.parametrize(("D", "H", "options"), SHAPES, ids=str)


# ---- the bits of forward -----------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
@cells
@shapes
def test_steps_have_the_bits_of_forward(rng, isa, cell, D, H, options):
    net, xs = net_of(cell, D, H, trainable_initial_state=True, **options), sequence(rng, 40, D)
    stream = net.stream()
    assert_same_bits(stepwise(stream, xs), whole(net, xs))
    _, after = net(xs[:, None])
    for mine, theirs in zip(state_arrays(stream.state), state_arrays(after), strict=True):
        assert_same_bits(mine, theirs)


@pytest.mark.thread_unsafe
@cells
@shapes
def test_ids_have_the_bits_of_forward(rng, isa, cell, D, H, options):
    net, ids = net_of(cell, D, H, **options), rng.integers(D, size=40)
    assert_same_bits(stepwise(net.stream(), ids), whole(net, ids))


@pytest.mark.thread_unsafe
@cells
@shapes
def test_float64_networks_have_the_bits_of_forward(rng, isa, cell, D, H, options):
    net = net_of(cell, D, H, trainable_initial_state=True, dtype="float64", **options)
    xs = rng.normal(size=(40, D))
    stream = net.stream()
    assert stream.weights.dtype == "float64"
    assert_same_bits(stepwise(stream, xs[:20]), whole(net, xs)[:20])
    assert_same_bits(stream.run(xs[20:]), whole(net, xs)[20:])
    _, after = net(xs[:, None])
    for mine, theirs in zip(state_arrays(stream.state), state_arrays(after), strict=True):
        assert_same_bits(mine, theirs)
    ids = rng.integers(D, size=40)
    assert_same_bits(stepwise(net.stream(), ids), whole(net, ids))


@pytest.mark.thread_unsafe
@cells
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"embedding_size": E} for E in (1, 6, 21)),
        {"embedding_size": 21, "tie_weights": True},
        {"hidden_size": [21, 9], "dense_layers": True, "embedding_size": 30, "tie_weights": True},
    ],
    ids=str,
)
def test_language_models_have_the_bits_of_forward(rng, isa, cell, dtype, options):
    model = language_model(cell, trainable_initial_state=True, dtype=dtype, **options)
    ids = rng.integers(len(model.vocab), size=30)
    logits, _ = model.forward(ids[:, None])
    assert_same_bits(stepwise(model.stream(), ids), logits[:, 0])
    assert_same_bits(model.stream().run(ids), logits[:, 0])


@cells
@pytest.mark.parametrize("pieces", [[80], [1, 79], [31, 1, 0, 32, 16], [33, 47]], ids=str)
@pytest.mark.parametrize("options", [{}, DENSE], ids=str)
def test_run_has_the_bits_of_steps(rng, cell, options, pieces):
    net, xs = net_of(cell, 5, [33, 17], trainable_initial_state=True, **options), sequence(rng, 80, 5)
    stream, got = net.stream(), []
    for end, n in zip(np.cumsum(pieces), pieces, strict=True):
        got.append(stream.run(xs[end - n : end]))
    assert_same_bits(np.concatenate(got), whole(net, xs))
    ids = rng.integers(5, size=80)
    assert_same_bits(net.stream().run(ids), whole(net, ids))


def test_steps_and_runs_mix(rng):
    net, xs = net_of("lstm"), sequence(rng, 60, 5)
    stream = net.stream()
    got = [stream.step(xs[0])[None], stream.run(xs[1:50]), stepwise(stream, xs[50:])]
    assert_same_bits(np.concatenate(got), whole(net, xs))


@pytest.mark.parametrize("pooling", ["last", None])
@pytest.mark.parametrize("loss", ["mse", "quantile"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_regressor_answers_in_the_targets_units(rng, dtype, loss, pooling):
    model = crnn.SequenceRegressor(3, 2, 9, loss=loss, pooling=pooling, dtype=dtype, seed=1)
    X = [rng.normal([1, -50, 3e4], [0.1, 7, 900], (12, 3)).astype(dtype) for _ in range(8)]
    y = [x[-1, :2] * 3 + 8 if pooling else x[:, :2] * 3 + 8 for x in X]
    model.fit(X, y, epochs=2)
    for x in X:
        got, predicted = stepwise(model.stream(), x), model.predict([x])[0]
        last = got.reshape(12, -1, 2)  # blocks of the targets' columns, one for each level
        last = last.transpose(0, 2, 1) if loss == "quantile" else last[:, 0]
        assert got.dtype == np.float64
        assert_same_bits(last[-1] if pooling else last, np.asarray(predicted))


@pytest.mark.parametrize("scale", [False, True])
def test_classifiers_and_taggers_answer_with_logits(rng, scale):
    X = [rng.normal([5, -3], [2, 9], (7, 2)).astype(np.float32) for _ in range(10)]
    tagger = crnn.SequenceTagger(2, 3, 8, scale=scale, seed=1)
    tagger.fit(X, [rng.integers(3, size=7) for _ in X], epochs=1)
    classifier = crnn.SequenceClassifier(2, 3, 8, pooling="last", scale=scale, seed=1)
    classifier.fit(X, rng.integers(3, size=10), epochs=1)
    for x in X:
        logits, last = stepwise(tagger.stream(), x), stepwise(classifier.stream(), x)[-1:]
        assert logits.dtype == last.dtype == (np.float64 if scale else np.float32)
        logits, last = logits.astype(np.float32), last.astype(np.float32)  # nothing is lost: float32 computed them
        assert_same_bits(tagger._targets.probabilities(logits), tagger.predict_proba([x])[0])
        assert_same_bits(classifier._targets.probabilities(last), classifier.predict_proba([x]))


@pytest.mark.parametrize("kind", ["denormal", "huge"])
def test_special_inputs_have_the_bits_of_forward(rng, kind):
    net, xs = net_of("lstm"), sequence(rng, 6, 5)
    xs *= {"denormal": 1e-40, "huge": 1e38}[kind]
    with np.errstate(all="ignore"):
        assert_same_bits(stepwise(net.stream(), xs), whole(net, xs))


def test_denormal_weights_have_the_bits_of_forward():
    """They are read as zero, in a look-up too."""
    net = net_of("relu", 5, 16)
    net.flat_params[...] = 0
    net.params["layer0.W_xh"][...] = 4e-39
    net.params["layer0.b_h"][...] = 1.5e-38
    for xs in (np.arange(5), np.eye(5, dtype=np.float32)):
        expected = whole(net, xs)
        assert (expected == np.float32(1.5e-38)).all()
        assert_same_bits(stepwise(net.stream(), xs), expected)


# ---- state -------------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("H", [[7, 7], [7, 9]], ids=str)
def test_a_state_taken_and_set_goes_on_from_there(rng, cell, H):
    net, xs = net_of(cell, 5, H), sequence(rng, 20, 5)
    stream = net.stream()
    first, state = stepwise(stream, xs[:10]), stream.state
    rest = stepwise(stream, xs[10:])
    assert_same_bits(np.concatenate([first, rest]), whole(net, xs))
    stream.state = state
    assert_same_bits(stepwise(stream, xs[10:]), rest)
    assert_same_bits(whole(net, xs[10:], state), rest)  # of the network's own form
    copy = net.stream()
    copy.state = net(xs[:10, None])[1]
    assert_same_bits(stepwise(copy, xs[10:]), rest)


def test_reset_goes_back_to_the_learnt_state(rng):
    net, xs = net_of("lstm", trainable_initial_state=True), sequence(rng, 9, 5)
    stream = net.stream()
    once = stepwise(stream, xs)
    stream.reset()
    assert_same_bits(stepwise(stream, xs), once)


def test_a_copy_leaves_its_source_alone(rng):
    net, xs = net_of("gru", H=[7, 9]), sequence(rng, 20, 5)
    stream = net.stream()
    stepwise(stream, xs[:10])
    fork = stream.copy()
    assert fork.weights is stream.weights
    stepwise(fork, xs[::-1])
    assert_same_bits(stepwise(stream, xs[10:]), whole(net, xs)[10:])


@pytest.mark.parametrize(
    ("cell", "state", "error", "text"),
    [
        ("gru", np.zeros((1, 2, 7), "f4"), ValueError, "state: expected shape (1, 1, 7), got (1, 2, 7)"),
        ("gru", np.full((1, 1, 7), np.nan), ValueError, "state: expected finite numbers, got nan at (0, 0, 0)"),
        ("gru", np.full((1, 1, 7), -1e39), ValueError, "state: expected numbers that float32 can hold, got -1e+39"),
        ("gru", np.zeros((1, 1, 7), complex), ValueError, "state: expected numbers, got complex128"),
        ("lstm", np.zeros((1, 1, 7), "f4"), ValueError, "state: expected a pair (h, c), got ndarray"),
        ("gru", None, ValueError, "state: expected shape (1, 1, 7), got ()"),
    ],
)
def test_a_state_of_another_form_is_refused(cell, state, error, text):
    stream = net_of(cell).stream()
    before = state_arrays(stream.state)
    with pytest.raises(error, match=re.escape(text)):
        stream.state = state
    for one, other in zip(state_arrays(stream.state), before, strict=True):
        assert_same_bits(one, other)


# ---- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id_",
    [3, np.int64(3), np.int8(3), np.uint64(3), np.array(3), np.array(3, np.uint8)],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)
def test_every_kind_of_integer_is_an_id(id_):
    net = net_of("gru")
    assert_same_bits(net.stream().step(id_), net.stream().step(3))
    assert_same_bits(language_model("gru").stream().step(id_), language_model("gru").stream().step(3))


@pytest.mark.parametrize("D", [4, 1])
def test_vectors_of_any_layout_are_taken(rng, D):
    net = net_of("gru", D)
    x = sequence(rng, 1, D)[0]
    expected = net.stream().step(x)
    spread = np.repeat(x, 2)[::2]
    read_only = x.copy()
    read_only.flags.writeable = False
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32)  # not aligned
    for given in (spread, read_only, shifted, x[::-1].copy()[::-1]):
        assert_same_bits(net.stream().step(given), expected)
    half = x.astype(np.float16)
    assert_same_bits(net.stream().step(half), net.stream().step(half.astype(np.float32)))
    assert_same_bits(net.stream().run(shifted[None])[0], expected)
    assert_same_bits(net.stream_batch(1).step(shifted[None])[0], expected)


@pytest.mark.parametrize("dtype", ["i4", "u1", "i8", ">i4", ">u2"])
def test_ids_of_any_type_and_layout_are_taken(dtype):
    net, ids = net_of("gru"), np.array([3, 1, 4, 0, 2], dtype)
    expected = net.stream().run([3, 1, 4, 0, 2])
    shifted = np.frombuffer(b"\0" + ids.tobytes(), np.uint8)[1:].view(dtype)  # not aligned
    for given in (ids, np.repeat(ids, 2)[::2], shifted):
        assert_same_bits(net.stream().run(given), expected)
        assert_same_bits(net.stream_batch(5).step(given, rows=given), net.stream_batch(5).step(given))


WRONG = [
    (np.full(5, 1e39), ValueError, "x: expected numbers that float32 can hold, got 1e+39 at 0"),
    (np.array([1, 2, np.nan, 0, 0]), ValueError, "x: expected finite numbers, got nan at 2"),
    (np.array([1, 2, 0, 0, -np.inf], "f4"), ValueError, "x: expected finite numbers, got -inf at 4"),
    (np.zeros(4, "f4"), ValueError, "x: expected float32 of shape (5,), got float32 of shape (4,)"),
    (np.zeros((1, 5), "f4"), ValueError, "x: expected float32 of shape (5,), got float32 of shape (1, 5)"),
    ([[1], [1, 2]], ValueError, "x: expected numbers in an array, got [[1], [1, 2]]"),
    (np.full(5, "a", object), TypeError, "x: expected numbers, got str 'a'"),
    (np.zeros(5, complex), ValueError, "x: expected numbers, got complex128"),
    (5, ValueError, "x: expected an id from 0 to 4, got 5"),
    (-1, ValueError, "x: expected an id from 0 to 4, got -1"),
    (10**30, ValueError, "x: expected an id from 0 to 4, got 10000"),
    (np.int64(-(2**40)), ValueError, "x: expected an id from 0 to 4, got -1099511627776"),
    (True, TypeError, "x: expected a float32 array of shape (5,), or an id, got bool True"),
    (1.0, TypeError, "x: expected a float32 array of shape (5,), or an id, got float 1.0"),
    (None, TypeError, "x: expected a float32 array of shape (5,), or an id, got NoneType None"),
    ("hello", TypeError, "x: expected a float32 array of shape (5,), or an id, got str 'hello'"),
]


@pytest.mark.parametrize(("x", "error", "text"), WRONG, ids=lambda value: f"{value!r:.20}")
def test_step_refuses_what_is_no_input_and_stays_where_it_is(rng, x, error, text):
    net, xs = net_of("lstm"), sequence(rng, 4, 5)
    stream = net.stream()
    first = stepwise(stream, xs[:2])
    with pytest.raises(error, match=re.escape(text)):
        stream.step(x)
    assert_same_bits(np.concatenate([first, stepwise(stream, xs[2:])]), whole(net, xs))


def test_a_lone_number_is_refused_with_what_to_write():
    stream = crnn.RNN(1, 4, seed=0).stream()
    with pytest.raises(TypeError, match=r"x: expected .* of shape \(1,\), or an id, got float 0.5; write \[x\]"):
        stream.step(0.5)
    assert_same_bits(stream.step([0.5]), crnn.RNN(1, 4, seed=0).stream().step(np.array([0.5], "f4")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_other_types_are_converted(dtype):
    def stepped(x):
        return net_of("lstm", dtype=dtype).stream().step(x)

    for values in ([1, 0, 3, 2, 1], [0.5, 0.25, 1, 0, -4]):
        expected = stepped(np.array(values, dtype))
        assert expected.dtype == dtype
        for given in (np.array(values), np.array(values, "f2"), values, tuple(values), np.array(values, object)):
            assert_same_bits(stepped(given), expected)
    state = net_of("lstm", dtype="float32").stream().state
    stream = net_of("lstm", dtype=dtype).stream()
    stream.state = tuple(part.astype("f8") for part in state)
    assert stream.state[0].dtype == dtype


def test_a_float64_stream_refuses_other_outputs():
    stream = net_of("lstm", dtype="float64").stream()
    with pytest.raises(TypeError, match=r"x: expected a float64 array of shape .*, or an id, got float 1.0"):
        stream.step(1.0)
    with pytest.raises(ValueError, match="out: expected writable C-contiguous float64 array"):
        stream.step(np.zeros(5), out=np.zeros(7, "f4"))
    assert_same_bits(stream.step(np.ones(5, np.float16)), net_of("lstm", dtype="float64").stream().step(np.ones(5)))


@pytest.mark.parametrize(
    ("xs", "error", "text"),
    [
        (np.zeros((3, 4), "f4"), ValueError, "xs: expected float32 of shape (T, 5), got float32 of shape (3, 4)"),
        (np.full((3, 5), 1e39), ValueError, "xs: expected numbers that float32 can hold, got 1e+39 at (0, 0)"),
        ([[0] * 5, [0, 0, 0, np.nan, 0]], ValueError, "xs: expected finite numbers, got nan at (1, 3)"),
        (np.zeros(5, "f4"), ValueError, "xs: expected float32 of shape (T, 5), got float32 of shape (5,)"),
        ([0, 5], ValueError, "xs: expected ids from 0 to 4, got 0 to 5"),
        (np.array([1, -1], "i4"), ValueError, "xs: expected ids from 0 to 4, got -1 at position 1"),
        ([2**40, 1], ValueError, "xs: expected ids from 0 to 4"),
        ([[1], [1, 2]], ValueError, "xs: expected numbers in an array"),
        ("hello", TypeError, "xs: expected numbers, got <U5"),
        (None, ValueError, "xs: expected float32 of shape (T, 5)"),
    ],
)
def test_run_refuses_what_is_no_input(xs, error, text):
    with pytest.raises(error, match=re.escape(text)):
        net_of("lstm").stream().run(xs)


def test_models_of_ids_refuse_vectors():
    for model in (language_model("gru"), net_of("gru", E=3)):
        with pytest.raises(TypeError, match="x: expected an integer id, got float32 array of shape"):
            model.stream().step(np.zeros(model.stream().input_size, "f4"))
        with pytest.raises(TypeError, match=r"xs: expected integer ids \(T,\), got float32 array"):
            model.stream().run(np.zeros((2, model.stream().input_size), "f4"))


@pytest.mark.parametrize(
    "out",
    [np.zeros(7), np.zeros(6, "f4"), np.zeros((1, 7), "f4"), np.zeros(14, "f4")[::2], [0.0] * 7, np.zeros(7, "i4")],
)
def test_an_output_buffer_that_does_not_fit_is_refused(out):
    stream = net_of("gru").stream()
    expected = r"out: expected writable C-contiguous float32 array of shape "
    with pytest.raises((TypeError, ValueError), match=expected + r"\(7,"):
        stream.step(np.zeros(5, "f4"), out=out)
    with pytest.raises((TypeError, ValueError), match=expected + r"\(2, 7"):
        stream.run(np.zeros((2, 5), "f4"), out=out)
    assert not state_arrays(stream.state)[0].any()


def test_out_is_written_and_returned(rng):
    net, xs = net_of("lstm"), sequence(rng, 4, 5)
    stream, out = net.stream(), np.full(7, np.nan, "f4")
    for x, expected in zip(xs, whole(net, xs), strict=True):
        assert stream.step(x, out=out) is out
        assert_same_bits(out, expected)
    many = np.full((4, 7), np.nan, "f4")
    assert net.stream().run(xs, out=many) is many
    assert_same_bits(many, whole(net, xs))


def test_out_may_be_x_in_a_step_but_not_in_a_run(rng):
    net, xs = net_of("gru", 7, [7, 7]), sequence(rng, 4, 7)
    expected, stream = whole(net, xs), net.stream()
    for x, y in zip(xs.copy(), expected, strict=True):
        assert_same_bits(stream.step(x, out=x), y)
    with pytest.raises(ValueError, match="out: expected an array that does not overlap xs"):
        net.stream().run(xs, out=xs)


def test_inputs_are_not_kept_nor_changed(rng):
    net, xs = net_of("gru"), sequence(rng, 4, 5)
    before = xs.copy()
    stream = net.stream()
    y = stream.step(xs[0])
    kept = y.copy()
    stream.run(xs)
    assert_same_bits(xs, before)
    assert_same_bits(y, kept)  # a fresh array each time


def test_a_stream_needs_weights():
    for make in (crnn.Stream, crnn.StreamBatch):
        for given in ((), (None,), (3,)):
            with pytest.raises(TypeError):
                make(*given)


# ---- which models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: network(bidirectional=True), "expected a network that reads forward, got bidirectional=True"),
        (
            lambda: crnn.SequenceRegressor(3, 2, pooling="flatten", steps=4),
            "expected pooling None, or one of 'last', 'mean', 'max', got 'flatten', which needs whole sequences",
        ),
        (
            lambda: crnn.SequenceClassifier(3, 2, bidirectional=True),
            "expected a network that reads forward, got bidirectional=True",
        ),
        (lambda: crnn.SequenceToSequence(3, 4), "expected a model with an output at every step"),
    ],
)
def test_models_that_have_no_streams_say_why(model, text):
    for make in (model().stream, model().stream_batch):
        with pytest.raises(ValueError, match=re.escape(text)):
            make()


def test_what_a_stream_says_of_itself():
    stream = language_model("lstm", embedding_size=6).stream()
    assert (stream.input_size, stream.output_size) == (12, 12)
    assert stream.weights.nbytes > 0
    contents = f"LanguageModel, input_size=12, output_size=12, {stream.weights.nbytes:,} bytes of weights"
    assert (repr(stream), repr(stream.weights)) == (f"TextStream({contents})", f"StreamWeights({contents})")


# ---- whose weights -----------------------------------------------------------------------------------------------


def test_streams_of_a_model_share_its_weights_while_any_lives():
    net = net_of("lstm")
    one, two = net.stream(), net.stream()
    assert one.weights is two.weights is net.stream_batch(2).weights
    alive = weakref.ref(one.weights)
    del one, two
    gc.collect()
    assert alive() is None


def test_training_on_changes_no_stream_but_the_next(rng):
    net, xs = net_of("lstm", trainable_initial_state=True), sequence(rng, 10, 5)
    stream, before = net.stream(), whole(net, xs)
    first = stepwise(stream, xs[:5])
    stir(net.flat_params, 7)
    assert_same_bits(np.concatenate([first, stepwise(stream, xs[5:])]), before)
    stream.reset()
    assert_same_bits(stepwise(stream, xs), before)
    assert net.stream().weights is not stream.weights
    assert_same_bits(stepwise(net.stream(), xs), whole(net, xs))


@cells
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("E", "tie_weights"), [(None, False), (21, False), (21, True)])
def test_a_change_of_any_bit_is_noticed(cell, dtype, E, tie_weights):
    """In every parameter: at its first and last place, and -0 for 0."""
    model = language_model(
        cell, hidden_size=[33, 21], embedding_size=E, tie_weights=tie_weights, trainable_initial_state=True, dtype=dtype
    )
    for name, values in model.params.items():
        for place in (0, values.size // 2, values.size - 1):
            values.flat[place] = 0
            stream = model.stream()
            assert model.stream().weights is stream.weights
            values.flat[place] = -0.0
            assert model.stream().weights is not stream.weights, (name, place)


@pytest.mark.thread_unsafe
def test_weights_are_in_memory_once_besides_the_models_own():
    net = net_of("lstm", 64, 256)
    tracemalloc.start()
    try:
        stream = net.stream()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stream.weights.nbytes < peak < 1.05 * stream.weights.nbytes


def test_learning_another_scaling_counts_as_a_change(rng):
    model = crnn.SequenceTagger(2, 3, 8, seed=1)
    weights = model.stream().weights
    model.scalings["x"].mean[...] = 3
    assert model.stream().weights is not weights


@pytest.mark.thread_unsafe
@pytest.mark.usefixtures("any_isa")
def test_streams_run_on_the_instruction_set_that_was_in_use():
    net = net_of("lstm")
    streams = []
    for name in dispatch.available_isas():
        dispatch.use_isa(name)
        streams.append(net.stream())
        assert streams[-1].weights.isa == name
    x = np.ones(5, "f4")
    for stream in streams:
        assert_same_bits(stream.step(x), whole(net, x[None])[0])


def test_a_stream_outlives_its_model(rng):
    net, xs = net_of("gru"), sequence(rng, 6, 5)
    expected, stream = whole(net, xs), net.stream()
    del net
    gc.collect()
    assert_same_bits(stepwise(stream, xs), expected)


# ---- memory and threads ------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
def test_steps_into_a_buffer_allocate_nothing():
    stream, x, out = net_of("lstm", 16, 32).stream(), np.ones(16, "f4"), np.empty(32, "f4")
    stream.step(x, out=out)
    tracemalloc.start()
    try:
        stream.step(x, out=out)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(1000):
            stream.step(x, out=out)
            stream.step(3, out=out)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 200  # the loop's own number
    assert peak - before < 1000


@pytest.mark.thread_unsafe
def test_streams_give_their_memory_back():
    net = net_of("lstm", 16, 64)
    keep = net.stream()
    tracemalloc.start()
    try:
        for _ in range(3):
            stream, batch = net.stream(), net.stream_batch(3)
            stream.run(np.ones((50, 16), "f4"))
            batch.add(50)
            del stream, batch
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            stream, batch = net.stream(), net.stream_batch(3)
            stream.run(np.ones((50, 16), "f4"))
            batch.add(50)
            stream.copy()
            del stream, batch
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2000
    assert keep.weights.nbytes > 0


def test_a_step_that_lets_other_threads_run_has_the_bits_of_forward(rng):
    net, xs = net_of("lstm", 64, 256), sequence(rng, 6, 64)  # 1.3 MB of weights
    assert_same_bits(stepwise(net.stream(), xs), whole(net, xs))
    ids = rng.integers(64, size=6)
    assert_same_bits(stepwise(net.stream(), ids), whole(net, ids))


def test_many_threads_with_streams_of_their_own(rng):
    net, xs = net_of("gru", 16, 32), sequence(rng, 200, 16)
    expected, results = whole(net, xs), [None] * 8

    def work(number):
        results[number] = stepwise(net.stream(), xs)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert_same_bits(result, expected)
