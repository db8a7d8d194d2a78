# SPDX-License-Identifier: MIT
"""Models in fewer bits: rounding of weights, `quantize`, files, training refused, ``crnn quantize``."""

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crnn
import crnn.interop.torch
from crnn._core import gemm
from crnn.c_export.storage import STORAGES
from crnn.cli.command import main
from crnn.nn.cells import CELLS
from crnn.nn.precision import GRIDS, MULTIPLIERS, PRECISIONS, int4_parts, int8_parts, on_grid, rounded


def network(cell="lstm", layers=2, **options):
    return crnn.RNN(6, 20, layers, cell, seed=3, **options)


def inputs(steps=12, batch=3, size=6):
    return np.random.default_rng(5).standard_normal((steps, batch, size)).astype(np.float32)


def matrices(model):
    return {name: values for name, values in model.params.items() if values.ndim == 2}


# ---- rounding --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 20), st.integers(-36, 36), st.sampled_from([0, 1]))
def test_int8_is_the_nearest_multiple_of_a_scale_and_is_found_again(seed, K, N, exponent, axis):
    w = (np.random.default_rng(seed).standard_normal((K, N)) * 10.0**exponent).astype(np.float32)
    q, scale = int8_parts(w, axis)
    once = rounded(w, "int8", axis)
    exact = q.astype(np.float64) * np.expand_dims(scale.astype(np.float64), axis)
    assert (once == exact).all()  # q * s needs no rounding
    assert np.abs(q).max() <= 127
    wide = np.expand_dims(scale, axis).astype(np.float64)
    assert (np.abs(w - exact) <= 0.50001 * wide + np.where(wide, 0, np.abs(w))).all()
    largest = np.abs(w).max(axis=axis).astype(np.float64)
    assert np.where(scale > 0, largest / np.where(scale > 0, scale, 1), 127) == pytest.approx(127, abs=0.01)
    again = int8_parts(once, axis)
    assert (again[0] == q).all()
    assert (again[1] == scale).all()
    assert on_grid(once, "int8", axis)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 100), st.integers(1, 20), st.integers(-36, 36), st.sampled_from([0, 1]))
def test_int4_is_the_nearest_multiple_of_a_step_and_is_found_again(seed, K, N, exponent, axis):
    rng = np.random.default_rng(seed)
    w = (rng.standard_normal((K, N)) * 10.0 ** (exponent - rng.uniform(0, 1.5, (K, N)))).astype(np.float32)
    q, multiplier, scale = int4_parts(w, axis)
    once = rounded(w, "int4", axis)
    by_term = np.repeat(multiplier.astype(np.float64), 32, axis=axis).take(range(w.shape[axis]), axis)
    step = by_term * np.expand_dims(scale.astype(np.float64), axis)
    assert (once == q * step).all()  # q * g * s needs no rounding
    assert np.abs(q).max() <= 7
    assert set(multiplier.flat) <= set(MULTIPLIERS)
    assert (np.abs(w - q * step) <= 0.50001 * step + np.where(step, 0, np.abs(w))).all()
    for again, before in zip(int4_parts(once, axis), (q, multiplier, scale), strict=True):
        assert np.array_equal(again, before)
    assert on_grid(once, "int4", axis)


def test_int4_weights_on_both_sides_of_what_changes_a_multiplier_are_found_again():
    scale = np.float32(1 + 2**-15)
    edges = [np.float32(7 * g) * scale for g in MULTIPLIERS[:-1]]
    for largest in [*edges, *(np.nextafter(edge, np.float32(np.inf)) for edge in edges)]:
        w = np.zeros((64, 1), np.float32)
        w[0], w[40] = np.float32(126) * scale, -largest
        _, multiplier, found = int4_parts(w)
        assert found == scale
        assert multiplier[1, 0] == min(g for g in MULTIPLIERS if largest <= np.float32(7 * g) * scale)
        once = rounded(w, "int4")
        assert on_grid(once, "int4")
        assert gemm.Packed(64, 1, "float32", precision="int4").pack(once).holds(once)
    for less, more in pairwise(MULTIPLIERS):
        assert more * np.rint(7 * less / more) > 7 * less


def test_every_precision_has_a_grid_and_a_form_in_c():
    assert set(GRIDS) == set(PRECISIONS)
    assert set(STORAGES) == {"float32", *PRECISIONS}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_packing_rounds_as_quantize_does(precision):
    rng = np.random.default_rng(8)
    exponents = [-44.0, -38, -34, -31, -30.11, -30, -20, 0, 20, 37]
    w = (rng.standard_normal((7, 40)) * 10.0 ** np.tile(exponents, 4)).astype(np.float32)
    w[:, 3] = np.float32(2.0**-100)
    w[:, 5] = np.nextafter(np.float32(2.0**-100), np.float32(0))
    packed = gemm.Packed(7, 40, "float32", precision=precision)
    assert (packed.pack(w).unpacked() == rounded(w, precision)).all()
    transposed = gemm.Packed(40, 7, "float32", precision=precision).pack_transposed(w)
    assert (rounded(w, precision, axis=1) == transposed.unpacked().T).all()


def test_columns_without_a_scale_are_zero():
    w = np.array([[0, 1e-40, 3], [0, -1e-41, -1.5]], np.float32)
    q, scale = int8_parts(w)
    assert scale.tolist()[:2] == [0, 0]
    assert q[:, :2].tolist() == [[0, 0], [0, 0]]
    assert q[:, 2].tolist() == [127, -63]  # -63.5 less a little, because the scale is rounded up


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_bfloat16_is_the_nearest_number_of_8_bits_with_ties_to_even(numbers):
    w = np.array(numbers, np.float32)
    torch = pytest.importorskip("torch")
    wanted = torch.from_numpy(w.copy()).to(torch.bfloat16).to(torch.float32).numpy()
    tiny = np.finfo(np.float32).tiny
    wanted = np.where(np.abs(wanted) < tiny, np.float32(0), wanted)
    np.testing.assert_array_equal(rounded(w, "bf16"), wanted)


def test_bfloat16_of_some_numbers():
    w = np.array([1.0, 1.00390625, 1.01171875, -3.1415927, 1e-39, np.inf, np.nan], np.float32)
    assert rounded(w, "bf16").tolist()[:6] == [1.0, 1.0, 1.015625, -3.140625, 0.0, np.inf]
    assert np.isnan(rounded(w, "bf16")[6])


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_quantised_network_is_near_the_original_and_its_weights_are_on_the_grid(cell, precision):
    net, x = network(cell), inputs()
    before = net.flat_params.copy()
    small = net.quantize(precision)
    assert (net.flat_params == before).all()
    assert small.precision == precision
    assert net.precision is None
    y, wanted = small(x)[0], net(x)[0]
    assert not (y == wanted).all()
    assert np.abs(y - wanted).max() < (0.4 if precision == "int4" else 0.05) * max(1, np.abs(wanted).max())
    for name, values in net.params.items():
        expected = rounded(values, precision) if values.ndim == 2 else values
        assert (small.params[name] == expected).all(), name
    again = small.quantize(precision)
    assert again(x)[0].tobytes() == y.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_streams_and_whole_sequences_of_a_quantised_network_are_bit_identical(cell, precision):
    small, x = network(cell).quantize(precision), inputs(batch=1)
    y = small(x)[0][:, 0]
    stream = small.stream()
    assert np.stack([stream.step(x_t[0]) for x_t in x]).tobytes() == y.tobytes()
    assert small.stream().run(x[:, 0]).tobytes() == y.tobytes()
    batch = small.stream_batch(3)
    x3 = inputs(batch=3)
    ys = np.stack([batch.step(x_t) for x_t in x3])
    assert ys.tobytes() == small(x3)[0].tobytes()
    assert ys.tobytes() == small(x3, threads=2)[0].tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ids_and_embeddings_of_a_quantised_network_stream_as_they_are_computed_whole(precision):
    ids = np.random.default_rng(1).integers(0, 6, (15, 1))
    for options in {}, {"embedding_size": 5}:
        small = network("gru", **options).quantize(precision)
        y = small(ids)[0][:, 0]
        assert small.stream().run(ids[:, 0]).tobytes() == y.tobytes()
        many = np.tile(ids, (1, 4))  # the table of an embedding instead of the gathered rows
        assert small(many)[0][:, 2].tobytes() == y.tobytes()


def test_a_mapping_quantises_the_matrices_that_it_names():
    net = network()
    small = net.quantize({"layer1.W_hh": "int8", "layer0.W_xh": "bf16"})
    assert small.precision == {"layer1.W_hh": "int8", "layer0.W_xh": "bf16"}
    changed = [name for name in net.params if (small.params[name] != net.params[name]).any()]
    assert changed == ["layer0.W_xh", "layer1.W_hh"]


def test_matrices_that_a_second_call_does_not_name_keep_their_precision():
    net = network()
    once = net.quantize({"layer0.W_hh": "int8"})
    twice = once.quantize({"layer1.W_hh": "bf16"})
    assert twice.precision == {"layer0.W_hh": "int8", "layer1.W_hh": "bf16"}
    together = net.quantize(twice.precision)
    assert twice.flat_params.tobytes() == together.flat_params.tobytes()
    assert twice(inputs())[0].tobytes() == together(inputs())[0].tobytes()
    assert once.quantize({"layer0.W_hh": "bf16"}).precision == {"layer0.W_hh": "bf16"}
    assert net.quantize().quantize("bf16").precision == "bf16"
    with pytest.warns(UserWarning, match="stay as they are: "):
        kept = net.quantize().quantize("bf16", inputs(), tolerance=0)
    assert set(kept.precision.values() if isinstance(kept.precision, dict) else [kept.precision]) >= {"int8"}


def test_a_precision_that_was_read_can_be_changed_without_changing_the_model():
    lm = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=4)
    for model in (network(), lm, crnn.SequenceRegressor(3, 2, hidden_size=4)):
        small = model.quantize({"layer0.W_hh": "int8"})
        for wanted in (small.precision, small.config()["precision"]):
            wanted["layer0.W_xh"] = "int8"
            assert small.config()["precision"] == {"layer0.W_hh": "int8"}
            assert model.quantize(wanted).precision == wanted
    vocab = crnn.Vocab.from_text("abc")
    pairs = crnn.SequenceToSequence(hidden_size=4, source_vocab=vocab, target_vocab=vocab).quantize({"W_hy": "int8"})
    pairs.precision["encoder.layer0.W_hh"] = "int8"
    pairs.config()["precision"]["decoder.layer0.W_hh"] = "int8"
    assert pairs.config()["precision"] == {"W_hy": "int8"}
    assert lm.precision is None
    assert "precision='int8'" in repr(lm.quantize())
    assert "precision" not in repr(lm)


def test_calibration_keeps_matrices_in_float32_that_lose_too_much_and_says_which():
    net, x = network(), inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net.quantize("int8", x).precision == "int8"
    with pytest.warns(UserWarning, match=r"more than 0.0 stay in float32: layer0.W_xh \(0\.0") as warned:
        kept = net.quantize("int8", x, tolerance=0)
    assert warned[0].filename == __file__
    assert kept.precision is None
    assert kept.flat_params.tobytes() == net.flat_params.tobytes()
    outlier = network(layers=1)
    outlier.params["layer0.W_xh"][0] *= 300  # one input decides the scale of all outputs, but is always 0
    x[:, :, 0] = 0
    with pytest.warns(UserWarning, match=r"stay in float32: layer0.W_xh \("):
        part = outlier.quantize("int8", x)
    assert part.precision == {"layer0.W_hh": "int8"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_kind_of_model_is_quantised_saved_loaded_and_predicts(tmp_path, precision):
    rng = np.random.default_rng(0)
    X, path = [rng.standard_normal((n, 3)).astype(np.float32) for n in (5, 8, 6, 7)], tmp_path / "m"
    signs = [x[:, 0] > 0 for x in X]
    tokens = [np.array([0, 1, 2]), np.array([2, 1]), np.array([0]), np.array([1, 1])]
    models = [
        (crnn.SequenceClassifier(3, num_classes=2, hidden_size=8, cell="lstm").fit(X, [0, 1, 0, 1], epochs=1), X),
        (crnn.SequenceTagger(3, num_classes=2, hidden_size=8, cell="gru").fit(X, signs, epochs=1), X),
        (crnn.SequenceRegressor(3, output_size=1, hidden_size=8).fit(X, np.arange(4.0), epochs=1), X),
        (crnn.SequenceToSequence(3, output_size=3, hidden_size=8, cell="gru").fit(tokens, tokens, epochs=1), tokens),
    ]
    for model, data in models:
        pairs = isinstance(model, crnn.SequenceToSequence)
        small = model.quantize(precision, (tokens, tokens) if pairs else X, tolerance=1)
        small.save(path)
        loaded = crnn.load(path)
        assert type(loaded) is type(model)
        assert loaded.config() == small.config()
        assert loaded.flat_params.tobytes() == small.flat_params.tobytes()
        for a, b in zip(loaded.predict(data), small.predict(data), strict=True):
            assert np.array_equal(a, b)
        model.save(path.with_suffix(".whole"))
        assert path.stat().st_size < path.with_suffix(".whole").stat().st_size


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_language_model_in_fewer_bits_predicts_writes_and_is_saved(tmp_path, precision):
    corpus = crnn.TextCorpus.from_text("to be or not to be, " * 60, valid=0.1, test=0.1)
    for tied in False, True:
        options = {"embedding_size": 24, "tie_weights": True} if tied else {}
        model = crnn.LanguageModel(corpus.vocab, hidden_size=24, seed=1, **options)
        model.fit(corpus, epochs=3, batch_size=4, bptt=16, optimizer=crnn.optim.Adam(lr=1e-2))
        small = model.quantize(precision, "to be or not", tolerance=0.5)
        assert small.precision == precision
        lost = 0.3 if precision == "int4" else 0.05
        assert small.evaluate(corpus.test).nats == pytest.approx(model.evaluate(corpus.test).nats, abs=lost)
        stream = small.stream().feed("to be or ")
        ids = corpus.vocab.encode("to be or ")
        logits, _ = small.forward(ids[:, None])
        step = small.stream().run(ids)
        assert np.array_equal(step, logits[:, 0])
        assert isinstance(stream.generate(5), str)
        small.save(tmp_path / "m")
        assert crnn.load(tmp_path / "m").evaluate(corpus.test) == small.evaluate(corpus.test)


def test_a_forecaster_in_fewer_bits_forecasts(tmp_path):
    series = np.sin(np.arange(120) / 6) + np.arange(120) / 50
    model = crnn.Forecaster(hidden_size=8, window=24, season=1).fit(series, epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.quantize("int8", series, tolerance=1).precision == "int8"
        assert model.quantize("int8", (series[:80], None, None), tolerance=1).precision == "int8"
    with pytest.warns(UserWarning, match="layer0"):
        assert model.quantize("int8", series, tolerance=0).precision is None
    with pytest.raises(ValueError, match=r"calibration: expected a series or \(series, past, future\), got 4 entries"):
        model.quantize("int8", (series, None, None, None))
    small = model.quantize()
    assert small.forecast(6) == pytest.approx(model.forecast(6), abs=0.2)
    small.save(tmp_path / "m")
    assert (crnn.load(tmp_path / "m").forecast(6) == small.forecast(6)).all()


def test_a_frozen_copy_of_a_quantised_network_is_quantised_and_quantised_networks_are_packed_once():
    small, x = network().quantize({"layer0.W_hh": "int8"}), inputs()
    assert small.frozen().precision == small.precision
    y = small(x)[0]
    assert small(x)[0].tobytes() == y.tobytes()
    assert small.frozen()(x)[0].tobytes() == y.tobytes()
    for steps in 3, 12, 7:  # other tapes take the weights that are packed already
        assert small(x[:steps])[0].tobytes() == y[:steps].tobytes()
        assert small(x[:steps, :2], threads=2)[0].tobytes() == np.ascontiguousarray(y[:steps, :2]).tobytes()


@pytest.mark.parametrize("options", [{}, {"dense_layers": True}], ids=str)
def test_a_quantised_model_predicts_the_same_in_batches_of_any_shape_and_number(options):
    X = [np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32) for n in (5, 8, 6, 7, 8)]
    options = {"cell": "lstm", "bidirectional": True, "seed": 1, **options}
    model = crnn.SequenceClassifier(3, num_classes=4, hidden_size=[9, 8], **options)
    small = model.quantize()
    wanted = np.concatenate([small.predict_proba([x]) for x in X])
    for batch_size, threads in (1, 1), (2, 2), (5, 1), (5, 3):
        assert small.predict_proba(X, batch_size=batch_size, threads=threads).tobytes() == wanted.tobytes()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_holds_integers_scales_and_multipliers_or_bfloat16():
    net = network(layers=1)
    entries = {p: crnn.io.safetensors.parse(net.quantize(p).to_bytes())[0] for p in PRECISIONS}
    assert {name: entry["dtype"] for name, entry in entries["int8"].items()} == {
        "layer0.W_xh": "I8", "layer0.W_xh.scale": "F32", "layer0.W_hh": "I8", "layer0.W_hh.scale": "F32",
        "layer0.b_h": "F32",
    }  # fmt: skip
    assert {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries["int4"].items()} == {
        "layer0.W_xh": ("U8", (3, 80)), "layer0.W_xh.multiplier": ("U8", (1, 80)), "layer0.W_xh.scale": ("F32", (80,)),
        "layer0.W_hh": ("U8", (10, 80)), "layer0.W_hh.multiplier": ("U8", (1, 80)), "layer0.W_hh.scale": ("F32", (80,)),
        "layer0.b_h": ("F32", (80,)),
    }  # fmt: skip
    assert {name: entry["dtype"] for name, entry in entries["bf16"].items()} == {
        "layer0.W_xh": "BF16", "layer0.W_hh": "BF16", "layer0.b_h": "F32",
    }  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_parameters_of_a_quantised_model_are_read_only_also_from_a_file_and_a_constructor(tmp_path, precision):
    corpus = crnn.TextCorpus.from_text("to be or not to be")
    made = crnn.LanguageModel(corpus.vocab, hidden_size=8, seed=2, precision=precision)
    for name, values in made.params.items():
        assert values.ndim < 2 or on_grid(values, precision), name
    made.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    for small in network().quantize(precision), made, made.net, loaded, loaded.net:
        for values in small.flat_params, *small.params.values():
            with pytest.raises(ValueError, match="read-only"):
                values[...] = 1


def test_a_file_with_values_that_its_precision_cannot_hold_is_refused():
    tensors, header = network(layers=1).contents()
    for precision in PRECISIONS:
        wrong = header | {"config": header["config"] | {"precision": precision}}
        with pytest.raises(ValueError, match=r"layer0\.W_xh: expected values that .* can hold"):
            crnn.RNN.from_contents(wrong, tensors)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_matrix_of_another_dtype_in_a_file_is_refused_by_name(precision):
    tensors, header = network(layers=1).quantize(precision).contents()
    wrong = dict(tensors) | {"layer0.W_hh": tensors["layer0.W_hh"].astype(np.float64)}
    with pytest.raises(ValueError, match=r"layer0\.W_hh: expected float32 .* got float64"):
        crnn.RNN.from_contents(header, wrong)


@pytest.mark.parametrize("change", ["scale", "no scale", "shape", "kind"])
def test_scales_that_do_not_fit_are_refused(change):
    small = network(layers=1).quantize()
    tensors, header = small.contents()
    tensors = dict(tensors)
    if change == "scale":
        tensors["layer0.W_hh.scale"] = tensors["layer0.W_hh.scale"] * np.float32(1.0001)
    elif change == "no scale":
        del tensors["layer0.W_hh.scale"]
    elif change == "shape":
        tensors["layer0.W_hh.scale"] = tensors["layer0.W_hh.scale"][:-1]
    else:
        tensors["layer0.W_hh.scale"] = tensors["layer0.W_hh.scale"].astype(np.float64)
    with pytest.raises(ValueError, match=r"layer0\.W_hh"):
        crnn.RNN.from_contents(header, tensors)


def with_embedding(size=41):
    rng = np.random.default_rng(2)
    net = crnn.RNN(6, 35, 1, "gru", embedding_size=size, seed=3)
    net.params["embedding"][...] = rng.standard_normal((6, size))
    return net


def test_a_file_in_int4_holds_two_integers_in_a_byte_of_odd_numbers_of_terms_too():
    small = with_embedding().quantize("int4")
    tensors, header = small.contents()
    q, multiplier, scale = int4_parts(small.params["embedding"], 1)
    assert tensors["embedding"].shape == (6, 21)
    low, high = tensors["embedding"] & 15, tensors["embedding"] >> 4
    assert (low == q[:, ::2] + 8).all()
    assert (high[:, :-1] == q[:, 1::2] + 8).all()
    assert (high[:, -1] == 8).all()
    assert (tensors["embedding.multiplier"] == multiplier).all()
    assert multiplier.shape == (6, 2)
    assert (tensors["embedding.scale"] == scale).all()
    again = crnn.RNN.from_contents(header, tensors)
    assert again.flat_params.tobytes() == small.flat_params.tobytes()


@pytest.mark.parametrize("name", ["layer0.W_hh", "embedding"])
@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        (".scale", None, r"\.scale: expected float32 for an int4 matrix, got none"),
        (".multiplier", None, r"\.multiplier: expected uint8 for an int4 matrix, got none"),
        (".multiplier", lambda a: a.astype(np.int8), r"\.multiplier: expected uint8 .* got int8"),
        (".scale", lambda a: a.astype(np.float64), r"\.scale: expected float32 .* got float64"),
        (".scale", lambda a: a[:-1], r": expected pairs \(.*\), multipliers \(.*\) and scales \(N,\), got \("),
        (".scale", lambda a: a[:, None], ": expected pairs"),
        (".multiplier", lambda a: a.T, ": expected pairs"),
        (".multiplier", lambda a: a[:1, :1], ": expected pairs"),
        ("", lambda a: a[:-1], ": expected pairs"),
        ("", lambda a: a.T, ": expected pairs"),
        ("", lambda a: a[0], ": expected pairs"),
        (".scale", lambda a: a * np.float32(1.0001), ": expected int4 weights that quantising them again does not"),
        (".scale", lambda a: np.full_like(a, 3e38), ": expected int4 weights that quantising them again does not"),
        (".multiplier", lambda a: a + np.uint8(1), ": expected int4 weights that quantising them again does not"),
        (".multiplier", lambda a: a * np.uint8(0), ": expected int4 weights that quantising them again does not"),
        ("", lambda a: a * np.uint8(0), ": expected int4 weights that quantising them again does not"),
        ("", lambda a: a & np.uint8(15), ": expected int4 weights that quantising them again does not"),
    ],
)
def test_parts_of_an_int4_matrix_that_do_not_fit_are_refused(name, suffix, change, message):
    tensors, header = with_embedding().quantize("int4").contents()
    tensors = dict(tensors)
    changed = tensors.pop(name + suffix)
    if change is not None:
        tensors[name + suffix] = np.ascontiguousarray(change(changed))
    with pytest.raises(ValueError, match=rf"^{name}{message}".replace("layer0.", r"layer0\.")):
        crnn.RNN.from_contents(header, tensors)


def test_copies_and_pickles_are_quantised_too():
    import copy
    import pickle

    small = network().quantize({"layer0.W_hh": "int8"})
    for other in copy.deepcopy(small), pickle.loads(pickle.dumps(small)):
        assert other.precision == small.precision
        assert other(inputs())[0].tobytes() == small(inputs())[0].tobytes()


def test_a_quantised_model_is_exported_once_it_is_float32_again(tmp_path):
    small = network("gru", layers=1).quantize()
    with pytest.raises(ValueError, match=r"precision: expected a model in float32 or float64, got 'int8'.*astype"):
        crnn.interop.torch.save_file(small, tmp_path / "m")
    plain = small.astype("float32")
    assert plain.precision is None
    assert plain.flat_params.tobytes() == small.flat_params.tobytes()
    assert small.astype("float64").dtype == "float64"


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_training_a_quantised_model_is_refused_before_it_starts():
    corpus = crnn.TextCorpus.from_text("hello world. " * 30)
    small = crnn.LanguageModel(corpus.vocab, hidden_size=4, seed=1).quantize()
    before = small.flat_params.copy()
    with pytest.raises(ValueError, match="precision: expected None in a network that is trained, got 'int8'"):
        crnn.fit(small, corpus, epochs=1)
    with pytest.raises(ValueError, match="precision: expected None in a network that is trained"):
        small.fit(corpus, epochs=1)
    assert (small.flat_params == before).all()
    X = [np.ones((5, 3), np.float32), np.zeros((4, 3), np.float32)]
    for model in (
        crnn.SequenceClassifier(3, num_classes=2, hidden_size=4).quantize(),
        crnn.SequenceClassifier(hidden_size=4, precision="int8"),
    ):
        with pytest.raises(ValueError, match="precision: expected None in a network that is trained"):
            model.fit(X, [0, 1], epochs=1)
    with pytest.raises(ValueError, match="precision: expected None in a network that is trained"):
        crnn.Forecaster(hidden_size=4, precision="bf16").fit(np.arange(50.0))
    net = network().quantize()
    y, _, tape = net.forward(inputs())
    with pytest.raises(ValueError, match="precision: expected None"):
        net.backward(tape, np.ones_like(y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int2",), "precision: expected 'bf16', 'int8', 'int4', None, or a dict .* got 'int2'"),
        ((None,), "precision: expected 'bf16', 'int8', 'int4', or a dict"),
        (({"layer0.b_h": "int8"},), "precision: expected names of weight matrices, .* got 'layer0.b_h'"),
        (({"layer7.W_hh": "int8"},), "precision: expected weight matrices among layer0.W_xh, .* got 'layer7.W_hh'"),
        (({"layer0.W_hh": 8},), r"precision\['layer0.W_hh'\]: expected 'bf16', 'int8', 'int4', got 8"),
        ((8,), "precision: expected"),
    ],
)
def test_a_wrong_precision_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        network().quantize(*arguments)


def test_constructors_and_files_refuse_a_precision_for_matrices_that_are_not_there():
    with pytest.raises(ValueError, match=r"precision: expected weight matrices among layer0\.W_xh, .*, got 'W_hy'"):
        crnn.RNN(3, 4, precision={"W_hy": "int8"})
    with pytest.raises(ValueError, match=r"precision: expected weight matrices among .*, got 'layer7\.W_hh'"):
        crnn.SequenceClassifier(3, num_classes=2, hidden_size=4, precision={"layer7.W_hh": "bf16"})
    model = crnn.SequenceToSequence(3, output_size=3, hidden_size=8, precision={"encoder.layer0.W_hh": "int8"})
    assert model.encoder.precision == {"layer0.W_hh": "int8"}
    assert model.net.precision is None
    tensors, header = network(layers=1).contents()
    wrong = header | {"config": header["config"] | {"precision": {"layer3.W_hh": "int8"}}}
    with pytest.raises(ValueError, match=r"got 'layer3\.W_hh'"):
        crnn.RNN.from_contents(wrong, tensors)


def test_what_cannot_be_quantised_is_refused():
    with pytest.raises(ValueError, match="quantize: expected a float32 model, got float64"):
        network(dtype="float64").quantize()
    with pytest.raises(ValueError, match="precision: expected None for dtype 'float64', got 'int8'"):
        network(dtype="float64", precision="int8")
    net = network()
    net.params["layer0.W_hh"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"layer0\.W_hh: expected finite weights"):
        net.quantize()
    with pytest.raises(ValueError, match=r"tolerance: expected with calibration only, got 0\.1 without it"):
        network().quantize(tolerance=0.1)
    text = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=4)
    with pytest.raises(TypeError, match="calibration: expected one text, got 2 in a list"):
        text.quantize("int8", ["abc", "cab"])
    with pytest.raises(ValueError, match="tolerance: expected a number of at least 0"):
        network().quantize("int8", inputs(), tolerance=-1)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_crnn_quantize_writes_a_model_and_shows_sizes_times_and_losses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "to be or not to be, " * 60
    (tmp_path / "t.txt").write_text(text)
    corpus = crnn.TextCorpus.from_text(text, valid=0.1, test=0.1)
    crnn.LanguageModel(corpus.vocab, hidden_size=24, seed=1).save("m")
    assert main(["quantize", "m", "-o", "q", "--eval", "t.txt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == "int8"
    assert found["after"]["bytes"] == (tmp_path / "q").stat().st_size < found["before"]["bytes"]
    assert found["after"]["evaluation"]["nats"] == crnn.load("q").evaluate(corpus.vocab.encode(text)).nats
    assert found["after"]["step_us"] > 0
    assert main(["quantize", "m", "-o", "q"]) == 1
    assert "which exists" in capsys.readouterr().err
    assert main(["quantize", "m", "-o", "b", "--precision", "bf16", "--keep", "W_hy", "--eval", "t.txt"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["before", "after"]
    assert "us a step" in out
    assert "bits" in out
    assert crnn.load("b").config()["precision"] == {"layer0.W_xh": "bf16", "layer0.W_hh": "bf16"}
    assert main(["info", "q"]) == 0
    out = capsys.readouterr().out
    assert "layer0.W_hh  int8 (" in out
    assert "layer0.b_h   float32 (" in out
    assert main(["quantize", "m", "-o", "c", "--batch", "4"]) == 1
    assert "--batch: expected with --eval only, got 4 without it" in capsys.readouterr().err
    assert main(["quantize", "m", "-o", "c", "--keep", "layer9.W_hh"]) == 1
    assert "keep: expected one of layer0.W_xh, layer0.W_hh, W_hy, got layer9.W_hh" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
