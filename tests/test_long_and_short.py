# SPDX-License-Identifier: MIT
"""One long sequence among many short ones: memory and work follow the sum of the lengths, and nothing else changes."""

import tracemalloc

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import stir
from task_tools import CELLS

import crnn
from crnn._core import cells, gemm
from crnn._core.rows import Lengths
from crnn.nn import stack as nn_stack
from crnn.nn import tape as nn_tape
from crnn.nn import windows

LENGTHS = [5, 3, 70, 5, 1, 5, 5, 2, 5, 9, 5]
EQUAL = [40] * 3
D = 4

each_cell = pytest.mark.parametrize("cell", CELLS)
both_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "two ways"])


@pytest.fixture(params=[1 << 8, 1 << 10, 1 << 30, None], ids=["windows of few steps", "windows", "one", "no window"])
def window_bytes(request, monkeypatch):
    monkeypatch.setattr(windows, "WHOLE_BYTES", -1 if request.param else 1 << 30)
    if request.param is None:
        return
    monkeypatch.setattr(windows, "OUTPUT_BYTES", request.param)
    monkeypatch.setattr(windows, "GATE_BYTES", request.param)


def reals(rng, lengths=LENGTHS):
    return [rng.normal(size=(n, D)) for n in lengths]


def model_of(kind, cell, **options):
    made = kind(D, 3, hidden_size=[7, 5], cell=cell, seed=1, **options)
    stir(made.flat_params)
    return made


MODELS = {
    "classifier": (crnn.SequenceClassifier, {"pooling": "last"}),
    "mean": (crnn.SequenceClassifier, {"pooling": "mean"}),
    "max": (crnn.SequenceClassifier, {"pooling": "max", "dtype": "float64"}),
    "tagger": (crnn.SequenceTagger, {"trainable_initial_state": True}),
    "regressor": (crnn.SequenceRegressor, {"pooling": None, "dtype": "float64"}),
    "dense": (crnn.SequenceClassifier, {"pooling": "last", "dense_layers": True}),
    "dense mean": (crnn.SequenceClassifier, {"pooling": "mean", "dense_layers": True}),
}


# ---- results ---------------------------------------------------------------------------------------------------------


@each_cell
@both_directions
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lengths", [LENGTHS, EQUAL], ids=["unequal", "equal"])
def test_a_prediction_has_the_bits_that_it_has_alone(rng, window_bytes, cell, bidirectional, name, lengths):
    kind, options = MODELS[name]
    model, X = model_of(kind, cell, bidirectional=bidirectional, **options), reals(rng, lengths)
    of = model.predict if name == "regressor" else model.predict_proba
    alone = [of([x])[0] for x in X]
    for threads in (1, 2):
        together = of(X, threads=threads)
        for got, wanted in zip(together, alone, strict=True):
            assert_same_bits(got, wanted)


@each_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("order", "dense_layers"), [("C", False), ("batch first", False), ("C", True)])
def test_a_padded_batch_has_the_bits_of_its_sequences(
    rng, window_bytes, cell, dtype, with_state, order, dense_layers
):
    options = {"dense_layers": dense_layers, "dtype": dtype.name, "trainable_initial_state": True}
    net = crnn.RNN(D, [7, 5], cell=cell, seed=2, **options)
    stir(net.flat_params)
    T, B = max(LENGTHS) + 2, len(LENGTHS)
    x = np.full((T, B, D), np.nan, dtype)
    for b, sequence in enumerate(reals(rng)):
        x[: len(sequence), b] = sequence
    state = None
    if with_state:
        state = [rng.uniform(-1, 1, size=(B, H)).astype(dtype) for H in (7, 5)]
        state = (state, [s * 2 for s in state]) if net.stack.cell.has_c else state
    given = x if order == "C" else np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    for threads in (1, 2, 3):
        y, after = net(given, state, lengths=LENGTHS, threads=threads)
        assert y.flags.writeable
        for b, n in enumerate(LENGTHS):
            parts = state if isinstance(state, tuple) else (state,)
            own = None if state is None else [[h[b : b + 1] for h in part] for part in parts]
            own = tuple(own) if isinstance(state, tuple) else own[0] if own else None
            alone, alone_after = net(np.ascontiguousarray(x[:n, b : b + 1]), own)
            assert_same_bits(y[:n, b : b + 1], alone)
            assert not y[n:, b].any()
            for whole, one in zip(flat_state(after), flat_state(alone_after), strict=True):
                assert_same_bits(whole[b : b + 1], one)


LITTLE_PADDING = [5, 3, 9, 5, 1, 5, 9, 2, 7, 9, 5]


@pytest.fixture(params=[1, 300, 1 << 30], ids=["chunks of one step", "chunks of a few steps", "one chunk"])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(nn_tape, "CHUNK_BYTES", request.param)
    monkeypatch.setattr(nn_stack, "CHUNK_BYTES", request.param)


@each_cell
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"dense_layers": True}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize("with_state", [False, True], ids=["initial state", "state"])
def test_a_batch_with_little_padding_has_the_bits_of_its_sequences(
    rng, chunk_bytes, cell, options, dtype, with_state
):
    net = crnn.RNN(D, [7, 5], cell=cell, dtype=dtype.name, trainable_initial_state=True, seed=2, **options)
    stir(net.flat_params)
    T, B = max(LITTLE_PADDING) + 2, len(LITTLE_PADDING)
    x = np.full((T, B, D), np.nan, dtype)
    for b, sequence in enumerate(reals(rng, LITTLE_PADDING)):
        x[: len(sequence), b] = sequence
    state = None
    if with_state:
        state = [rng.uniform(-1, 1, size=(B, H)).astype(dtype) for H in (7, 5) for _ in range(net.directions)]
        state = (state, [s * 2 for s in state]) if net.stack.cell.has_c else state
    for threads in (1, 2, 3):
        y, after = net(x, state, lengths=LITTLE_PADDING, threads=threads)
        for b, n in enumerate(LITTLE_PADDING):
            parts = state if isinstance(state, tuple) else (state,)
            own = None if state is None else [[h[b : b + 1] for h in part] for part in parts]
            own = tuple(own) if isinstance(state, tuple) else own[0] if own else None
            alone, alone_after = net(np.ascontiguousarray(x[:n, b : b + 1]), own)
            assert_same_bits(y[:n, b : b + 1], alone)
            assert not y[n:, b].any()
            for whole, one in zip(flat_state(after), flat_state(alone_after), strict=True):
                assert_same_bits(whole[b : b + 1], one)


@pytest.mark.parametrize("options", [{}, {"embedding_size": 3}], ids=["one-hot", "embedding"])
@pytest.mark.parametrize("lengths", [LITTLE_PADDING, LENGTHS], ids=["little padding", "much padding"])
def test_padding_may_have_any_values(rng, chunk_bytes, options, lengths):
    net = crnn.RNN(D, 5, cell="lstm", seed=1, **options)
    T, B = max(lengths), len(lengths)
    padding = np.arange(T)[:, None] >= lengths
    ids = rng.integers(D, size=(T, B))
    wanted, _ = net.forward(ids, lengths=lengths)[:2]
    for dtype, filling in (("i4", -1), ("i8", 2**40), ("u1", 255)):
        padded = ids.astype(dtype)
        padded[padding] = filling
        assert_same_bits(net(padded, lengths=lengths)[0], wanted)
    with pytest.raises(ValueError, match=r"^x: expected ids from 0 to 3, got"):
        net(np.where(padding, 0, ids + 1), lengths=lengths)
    if options:
        return
    x = rng.normal(size=(T, B, D)).astype("f4")
    wanted, _ = net.forward(x, lengths=lengths)[:2]
    for dtype, filling in (("f4", np.inf), ("f8", 1e300), ("f8", np.nan), ("O", None)):
        padded = x.astype(dtype)
        padded[padding] = filling
        assert_same_bits(net(padded, lengths=lengths)[0], wanted)
        assert_same_bits(net(np.asfortranarray(padded), lengths=lengths)[0], wanted)
    for wrong in (np.nan, np.inf):
        padded = np.where(padding[:, :, None], np.nan, x)
        padded[lengths[4] - 1, 4, 2] = wrong
        with pytest.raises(ValueError, match=f"^x: expected finite numbers, got {wrong}"):
            net(padded, lengths=lengths)


def flat_state(state):
    return [h for part in (state if isinstance(state, tuple) else (state,)) for h in part]


@each_cell
@both_directions
def test_the_gradients_of_a_padded_batch_ignore_padding_and_layout(rng, cell, bidirectional):
    """Against the sum over sequences, each alone; exactly, against the same batch with other padding."""
    net = crnn.RNN(D, 5, 2, cell, bidirectional=bidirectional, dtype="float64", dropout=0.0, seed=3)
    T, B = max(LENGTHS), len(LENGTHS)
    x, dy = rng.normal(size=(T, B, D)), rng.normal(size=(T, B, net.output_size))
    results = []
    for filling in (0.0, np.nan):
        padding = np.arange(T)[:, None] >= LENGTHS
        x[padding] = dy[padding] = filling
        net.flat_grads.fill(0)
        _, _, tape = net.forward(x, lengths=LENGTHS)
        dx, _ = net.backward(tape, dy)
        results.append((net.flat_grads.copy(), dx))
        assert not dx[padding].any()
    assert_same_bits(results[0][0], results[1][0])
    assert_same_bits(results[0][1], results[1][1])
    net.flat_grads.fill(0)
    for b, n in enumerate(LENGTHS):
        _, _, tape = net.forward(np.ascontiguousarray(x[:n, b : b + 1]))
        alone, _ = net.backward(tape, np.ascontiguousarray(dy[:n, b : b + 1]))
        assert_same_bits(results[0][1][:n, b : b + 1], alone)
    np.testing.assert_allclose(results[0][0], net.flat_grads, rtol=1e-9, atol=1e-12)


@each_cell
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_seq2seq_answers_do_not_depend_on_the_batch(rng, window_bytes, cell, bidirectional, threads):
    model = crnn.SequenceToSequence(6, 5, [7, 4], cell=cell, embedding_size=3, bidirectional=bidirectional, seed=0)
    stir(model.flat_params, 3)
    X = [rng.integers(6, size=n) for n in LENGTHS]
    y = [rng.integers(5, size=n) for n in LENGTHS[::-1]]
    together = model.predict(X, max_length=6, threads=threads)
    alone = [model.predict([x], max_length=6)[0] for x in X]
    assert [a.tolist() for a in together] == [a.tolist() for a in alone]
    assert model.evaluate(X, y, threads=threads) == model.evaluate(X, y, batch_size=1)


@each_cell
@pytest.mark.parametrize("pooling", [None, "last"])
def test_a_forecast_of_many_series_is_that_of_each(rng, window_bytes, cell, pooling):
    model = crnn.SequenceRegressor(1, 1, hidden_size=[7, 5], cell=cell, pooling=pooling, seed=0)
    stir(model.flat_params)
    series = [rng.normal(size=(n, 1)) for n in LENGTHS]
    together = model.forecast(series, 4)
    for got, one in zip(together, series, strict=True):
        assert_same_bits(got, model.forecast(one, 4))


# ---- many short ones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", [list, np.array, np.asfortranarray, "float32", "int64"], ids=str)
def test_many_short_sequences_have_the_results_that_each_has_alone(rng, name, form):
    kind, options = MODELS[name]
    model, X = model_of(kind, "gru", **options), rng.normal(size=(40, 3, D)).round(1)
    X = X.astype(form) if isinstance(form, str) else form(X)
    y = rng.normal(size=(40, 3, 3)) if name == "regressor" else rng.integers(3, size=(40, 3))
    y = y if model.pooling is None else y[:, 0]
    model.fit(X, y, epochs=1)
    of = model.predict if name == "regressor" else model.predict_proba
    for got, x in zip(of(X, batch_size=16), X, strict=True):
        assert_same_bits(got, of([x])[0])
    assert model.evaluate(X, y) == model.evaluate(list(X), list(y), batch_size=7)


@pytest.mark.parametrize("form", [list, np.array])
def test_one_wrong_sequence_among_many_is_named(rng, form):
    model, X = model_of(crnn.SequenceTagger, "gru"), rng.normal(size=(40, 3, D))
    X[17, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^X\[17\]: expected finite numbers, got nan"):
        model.predict(form(X))
    ids = rng.integers(D, size=(40, 3))
    ids[21, 2] = D
    with pytest.raises(ValueError, match=r"^X\[21\]: expected ids from 0 to 3, got"):
        model.predict(form(ids))


# ---- work ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """The number of rows (t, b) that the cells' kernels were given, forward and backward."""
    counts = {"forward": 0, "backward": 0}

    def counting(name, run):
        def counted(cell, arrays, *args):
            counts[name] += arrays["h"].shape[0] * arrays["h"].shape[1]
            return run(cell, arrays, *args)

        monkeypatch.setattr(cells, name, counted)

    counting("forward", cells.forward)
    counting("backward", cells.backward)
    return counts


@both_directions
@pytest.mark.parametrize("name", MODELS)
def test_no_row_of_padding_is_computed(rng, computed, name, bidirectional):
    kind, options = MODELS[name]
    model, X = model_of(kind, "gru", bidirectional=bidirectional, **options), reals(rng)
    whole = sum(LENGTHS) * 2 * (1 + bidirectional)  # two layers
    model.predict(X)
    assert computed["forward"] == whole
    y = [np.zeros((len(x), 3)) for x in X] if name == "regressor" else [np.zeros(len(x), int) for x in X]
    y = y if model.pooling is None else np.zeros(len(X), int)
    model.evaluate(X, y)
    assert computed["forward"] == 2 * whole
    model.fit(X, y, epochs=1, batch_size=4)
    assert computed == {"forward": 3 * whole, "backward": whole}


@both_directions
def test_a_padded_batch_costs_the_sum_of_its_lengths(rng, computed, bidirectional):
    net = crnn.RNN(D, 5, 2, "lstm", bidirectional=bidirectional, seed=0)
    x = rng.normal(size=(max(LENGTHS), len(LENGTHS), D)).astype("f4")
    whole = sum(LENGTHS) * 2 * (1 + bidirectional)
    net(x, lengths=LENGTHS)
    y, _, tape = net.forward(x, lengths=LENGTHS)
    net.backward(tape, y)
    assert computed == {"forward": 2 * whole, "backward": whole}


def test_no_row_of_padding_is_computed_between_unequal_sources_and_targets(rng, computed):
    model = crnn.SequenceToSequence(6, 5, 7, cell="gru", seed=0)
    X = [rng.integers(6, size=n) for n in LENGTHS]
    y = [rng.integers(5, size=n) for n in [1] * 10 + [90]]
    tokens = sum(map(len, y)) + len(y)  # with the token that ends each
    model.fit(X, y, epochs=1, batch_size=len(X))
    assert computed == {"forward": sum(LENGTHS) + tokens, "backward": sum(LENGTHS) + tokens}


# ---- memory ----------------------------------------------------------------------------------------------------------


def peak_of(run):
    """Bytes that a call has allocated at most at one time. NumPy reports its memory."""
    run()  # modules that are imported at first use
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LONG, SHORT, N, H = 10_000, 50, 256, 64


def long_and_short(rng):
    return [rng.normal(size=(SHORT, D)) for _ in range(N - 1)] + [rng.normal(size=(LONG, D))]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    X = long_and_short(rng)
    model = crnn.SequenceClassifier(D, 2, hidden_size=H, cell="lstm", pooling="last", seed=0)
    return model, X, np.arange(N) % 2


def test_prediction_takes_three_times_the_data_and_states(case):
    model, X, y = case
    data = sum(x.nbytes for x in X) + 2 * N * H * 4
    for run in (lambda: model.predict(X), lambda: model.predict_proba(X), lambda: model.evaluate(X, y)):
        assert peak_of(run) < 3 * data


def test_training_takes_what_the_rows_need(case):
    """Of each row: x, the gates, c, tanh(c), h and its gradient; of a padded batch it would be 110 times as much."""
    model, X, y = case
    rows = sum(map(len, X))
    kept = rows * 4 * (D + 4 * H + 4 * H)
    assert peak_of(lambda: model.fit(X, y, epochs=1, batch_size=N)) < 1.3 * kept + 1_000_000


@both_directions
def test_a_tagger_takes_what_the_rows_need(case, bidirectional):
    _, X, _ = case
    model = crnn.SequenceTagger(D, 2, hidden_size=16, cell="gru", bidirectional=bidirectional, seed=0)
    rows = sum(map(len, X))
    assert peak_of(lambda: model.predict(X)) < rows * 4 * (16 * 14 if bidirectional else 50) + 1_000_000


def test_a_padded_batch_takes_the_sum_of_its_lengths_besides_its_output(rng):
    X = long_and_short(rng)
    net = crnn.RNN(D, H, 2, "lstm", seed=0)
    x, lengths = np.zeros((LONG, N, D), np.float32), [len(x) for x in X]
    y, _ = net(x, lengths=lengths)
    rows = sum(lengths)
    inference = peak_of(lambda: net(x, lengths=lengths))
    assert inference < rows * 4 * (2 * D + 8) + 3_000_000  # x packed, and an index of its rows
    assert y.shape == (LONG, N, H)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_batch_with_little_padding_takes_little_besides_its_output(rng, layers):
    T, B = 2000, 40
    lengths = rng.integers(T // 2, T + 1, size=B)
    net = crnn.RNN(D, H, layers, "lstm", seed=0)
    x = np.zeros((T, B, D), np.float32)
    inference = peak_of(lambda: net(x, lengths=lengths))
    assert inference < T * B * 4 * H + (layers > 1) * sum(lengths) * 4 * (2 * D + 8) + 3_000_000


def test_a_batch_that_memory_cannot_hold_is_refused_with_its_size():
    with pytest.raises(MemoryError, match=r"no memory for a float32 array of shape \(1099511627776, 1024\), 450359962"):
        gemm.aligned_empty((2**40, 2**10), "float32")
    with pytest.raises(MemoryError, match=r"no memory for a float64 array of shape \(1048576, 2, 92233720368547758"):
        gemm.aligned_empty((2**20, 2, 2**63 - 1), "float64")
    lengths = Lengths([2**30] + [1] * 15, 2**30, 1)
    with pytest.raises(MemoryError, match=r"no memory for a float32 array of shape \(1073741824, 16, 1048576\)"):
        lengths.padded_zeros((2**20,), "float32")
