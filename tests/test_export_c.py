# SPDX-License-Identifier: MIT
"""crnn.export_c: C files whose steps have the bits of streams, and what they refuse."""

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_export_tools import BUILDS, COMPILER, FUSED, STRICT, CModel, compiled, needs_compiler
from kernel_tools import assert_same_bits, fma32
from model_tools import stir
from oracle_quantised import int8_rows
from stream_tools import CELLS, DENSE, language_model, net_of

import crnn
from crnn._core import vecmath
from crnn.c_export import cells as recipes
from crnn.c_export import numbers, pieces
from crnn.c_export.files import source_of

pytestmark = pytest.mark.thread_unsafe  # they compile

EXAMPLES = Path(__file__).parents[1] / "examples" / "export_c"

each_build = pytest.mark.parametrize("build", BUILDS)
without_and_with_optimisation = pytest.mark.parametrize("build", ["O0", "O3"])


def standardised(model, D, rng):
    """The model with scaling that hides nothing."""
    model.scalings["x"].mean[...] = rng.normal(size=D) * 1e5
    model.scalings["x"].std[...] = rng.uniform(0.5, 2, D)
    if "y" in model.scalings:
        model.scalings["y"].mean[...] = rng.normal(size=len(model.scalings["y"].mean)) * 1e3
        model.scalings["y"].std[...] = rng.uniform(0.5, 2, len(model.scalings["y"].mean))
    return model


def stirred(model):
    stir(model.flat_params)
    return model


def inputs(rng, T, D, double):
    """Of every size: so small that products underflow, denormal, zero, large."""
    x = rng.normal(size=(T, D)) * np.resize([1, 1e-3, 1e-24, 0, 1, 1e-39, 30, 1e-13], T)[:, None]
    return x.astype(np.float64 if double else np.float32)


def assert_steps_alike(c, stream, xs, function="step"):
    for x in xs:
        assert_same_bits(c.step(x, function).astype(stream.weights.io_dtype), stream.step(x))


# ---- cells -----------------------------------------------------------------------------------------------------------


def test_every_cell_has_a_recipe():
    assert list(recipes.CELLS) == CELLS
    for name, recipe in recipes.CELLS.items():
        assert set(recipe.pieces) <= set(pieces.names())
        info = crnn.RNN(2, 3, cell=name).cell
        assert info == name


@needs_compiler
@each_build
@pytest.mark.parametrize("options", [{}, DENSE], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_of_any_cell_has_the_bits_of_a_stream(rng, tmp_path, build, cell, options):
    net = stirred(net_of(cell, 5, [33, 16, 7], trainable_initial_state=True, **options))
    c, stream = CModel(net, tmp_path, build), net.stream()
    assert_steps_alike(c, stream, inputs(rng, 40, 5, False))
    assert_steps_alike(c, stream, [3, 0, 4], "step_id")


@needs_compiler
@each_build
@pytest.mark.parametrize("cell", CELLS)
def test_states_that_fade_to_nothing_have_the_bits_of_a_stream(tmp_path, build, cell):
    net = net_of(cell, 2, 19)
    net.params["layer0.b_h"][:] = 0
    net.params["layer0.W_xh"][:] *= np.float32(1e-18)  # some below FLT_MIN after a product
    net.params["layer0.W_xh"][0, ::3] = 1e-39
    if "layer0.W_hh" in net.params:
        net.params["layer0.W_hh"][:] *= np.float32(1e-3)
    c, stream = CModel(net, tmp_path, build), net.stream()
    x = np.zeros((60, 2), np.float32)
    x[0], x[20], x[40] = 1e-6, -1e-20, 1
    assert_steps_alike(c, stream, x)


@needs_compiler
def test_growing_states_overflow_as_those_of_a_stream_do(rng, tmp_path):
    net = net_of("relu", 3, 5)
    net.params["layer0.W_hh"][:] = 1e6 * np.eye(5, dtype=np.float32)
    c, stream = CModel(net, tmp_path, "O0"), net.stream()
    for x in rng.uniform(1, 2, (12, 3)).astype(np.float32):
        y, expected = c.step(x), stream.step(x)
        assert_same_bits(np.nan_to_num(y, nan=-1), np.nan_to_num(expected, nan=-1))
    assert np.isinf(expected).any() or np.isnan(expected).any()


# ---- arithmetic ------------------------------------------------------------------------------------------------------

ARITHMETIC = """
#include <float.h>
#include <limits.h>
#include <stdint.h>
{pieces}
void fused_all(float *y, const float *a, const float *b, const float *c, int n);
void tanh_all(float *y, const float *x, int n);
void sigmoid_all(float *y, const float *x, int n);
void int8_all(int8_t *p, const float *x, int n);
void fused_all(float *y, const float *a, const float *b, const float *c, int n)
{{
    int i;
    for (i = 0; i < n; ++i)
        y[i] = multiply_add(a[i], b[i], c[i]);
}}
void tanh_all(float *y, const float *x, int n)
{{
    int i;
    for (i = 0; i < n; ++i)
        y[i] = tanh_of(x[i]);
}}
void sigmoid_all(float *y, const float *x, int n)
{{
    int i;
    for (i = 0; i < n; ++i)
        y[i] = sigmoid_of(x[i]);
}}
void int8_all(int8_t *p, const float *x, int n) {{ (void)to_int8(p, x, n); (void)add_int8_product; }}
"""


def hard_cases(rng, n):
    """Products that cancel c, that are half of its last bit but for less than a double holds, and others."""
    a, b = (rng.integers(1 << 23, 1 << 24, n).astype(np.float64) for _ in range(2))
    c = -(a * b) * (1 + rng.integers(-2, 3, n) * 2.0**-25)
    m, sign = rng.integers(0, 1 << 8, n), rng.choice([-1.0, 1.0], n)
    half_way, any_other = rng.random((2, n)) < 0.4
    a, b = np.where(half_way, (1 << 23) + m, a), np.where(half_way, (1 << 24) - 2 * m, b)  # 2^47 - 2 m^2
    c = np.where(half_way, sign * rng.integers(1 << 23, 1 << 24, n) * 2.0**48, c)
    c = np.where(any_other & ~half_way, sign * np.exp2(rng.uniform(20, 80, n)), c)
    scale = np.exp2(rng.integers(-110, -10, n))
    return [values.astype(np.float32) for values in (a * scale, b * scale, c * scale * scale)]


FLAGS = {"O0": ["-O0"], "O2": ["-O2"], "fma": ["-O2", "-ffp-contract=fast", *FUSED]}


@pytest.fixture(scope="module", params=FLAGS)
def arithmetic(request, tmp_path_factory):
    """The C functions on arrays."""
    folder = tmp_path_factory.mktemp("arithmetic")
    (folder / "a.c").write_text(ARITHMETIC.format(pieces=pieces.text_of({"tanh", "sigmoid", "int8"})))
    compiled([*COMPILER, *STRICT, *FLAGS[request.param], "-shared", "-fPIC", "a.c", "-o", "a.so"], folder)
    library = ctypes.CDLL(str(folder / "a.so"))

    def call(name, *inputs, dtype=np.float32):
        y = np.empty(len(inputs[0]), dtype)
        getattr(library, name)(*(each.ctypes.data_as(ctypes.c_void_p) for each in (y, *inputs)), len(y))
        return y

    return call


@needs_compiler
def test_a_multiply_add_is_rounded_once_on_any_machine(rng, arithmetic):
    a, b, c = (numbers.flushed(each) for each in hard_cases(rng, 200_000))
    y = arithmetic("fused_all", a, b, c)
    with np.errstate(over="ignore"):
        expected = fma32(a, b, c)
    size, least = np.abs(expected), np.float32(numbers.LEAST_NORMAL)
    assert 0.5 < (size > least).mean() < 0.95
    assert_same_bits(y[size > least], expected[size > least])
    assert not y[size < least].any()


@needs_compiler
def test_a_sum_is_zero_if_it_is_below_the_least_number_when_rounded_to_24_bits(arithmetic):
    # FLT_MIN (1 - 2^-26), (1 - 2^-25), a little less, (1 - 2^-24); denormal rounding gives FLT_MIN for all but the last
    product = np.array([2.0**-152, 2.0**-151, 2.0**-151 * (1 + 2.0**-20), 2.0**-150])
    a, b = np.full(4, np.float32(-(2.0**-75))), (product * 2.0**75).astype(np.float32)
    c = np.full(4, np.float32(numbers.LEAST_NORMAL))
    assert_same_bits(arithmetic("fused_all", a, b, c), c * np.float32([1, 1, 0, 0]))
    assert_same_bits(arithmetic("fused_all", -a, b, -c), -c * np.float32([1, 1, 0, 0]))


@needs_compiler
def test_numbers_become_integers_as_their_definition_says(rng, arithmetic):
    x = np.float32(rng.integers(-253, 254, 400_000) / 2 * np.float32(0.37))  # half-way but for a rounding
    x[:2] = 127 * np.float32(0.37), np.float32(1e-30)
    assert_same_bits(arithmetic("int8_all", x, dtype=np.int8), int8_rows(x[None])[0][0].astype(np.int8))


@needs_compiler
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_tanh_and_sigmoid_have_the_bits_of_the_kernels(rng, arithmetic, name):
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, *(np.float32(rng.normal(size=100_000) * size) for size in (0.1, 1, 4, 60))])
    expected = np.empty_like(x)
    getattr(vecmath, name)(expected, x)
    assert_same_bits(arithmetic(f"{name}_all", numbers.flushed(x)), expected)


@needs_compiler
@pytest.mark.parametrize("flag", ["-ffast-math", "-ffinite-math-only"])
def test_a_compiler_that_may_change_results_is_refused(tmp_path, flag):
    crnn.export_c(net_of("tanh"), tmp_path / "model.c")
    done = subprocess.run([*COMPILER, flag, "-c", "model.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "compile without -ffast-math" in done.stderr


def test_numbers_are_written_exactly(rng):
    values = rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.append(values[np.isfinite(values)], np.float32([0.0, -0.0, 1, -3, 0.5, 256, 3e38, 2**-149]))
    texts = list(numbers.floats(values))
    assert all(text.endswith("f") for text in texts)
    read = [float.fromhex(text[:-1]) if "x" in text else float(text[:-1]) for text in texts]
    assert_same_bits(np.array(read, np.float32), values)


# ---- weights in fewer bits -------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("build", ["O0", "O3"])
@pytest.mark.parametrize("cell", CELLS)
def test_matrices_in_fewer_bits_have_the_bits_of_a_stream(rng, tmp_path, build, cell):
    net = stirred(net_of(cell, 5, [33, 16, 6, 7], dense_layers=build == "O0"))
    matrices = [name for name in net.params if name.endswith(("W_xh", "W_hh"))]
    kinds = ["int8", "bf16", None, "int4", "int8"] if build == "O3" else ["bf16", "int8", "int4", None]
    small = net.quantize({name: kind for name, kind in zip(matrices, kinds, strict=False) if kind})
    c, stream = CModel(small, tmp_path, build), small.stream()
    assert_steps_alike(c, stream, inputs(rng, 40, 5, False))
    assert_steps_alike(c, stream, [3, 0, 4], "step_id")


@needs_compiler
@pytest.mark.parametrize("precision", ["int8", "bf16", "int4"])
@pytest.mark.parametrize("options", [{}, {"embedding_size": 21, "tie_weights": True}, {"embedding_size": 6}])
def test_a_language_model_in_fewer_bits_has_the_bits_of_a_stream(rng, tmp_path, precision, options):
    model = language_model("gru", **options).quantize(precision)
    c = CModel(model, tmp_path, "O3")
    assert_steps_alike(c, model.stream(), rng.integers(0, len(model.vocab), 30).tolist())
    weights = sum(values.size for name, values in model.params.items() if name.split(".")[-1].startswith(("W", "e")))
    elements = sum(each.nbytes for each in c.net.constants)
    assert elements < 4 * weights * (0.7 if precision == "bf16" else 0.6)  # with biases and scales


@needs_compiler
@each_build
def test_products_in_bf16_that_overflow_have_the_bits_of_a_stream(tmp_path, build):
    net = net_of("tanh", 2, 4)
    net.params["layer0.W_xh"][:] = np.float32(2.0**100) * np.array([[1.5], [-1]], np.float32)
    net = net.quantize("bf16")
    c, stream = CModel(net, tmp_path, build), net.stream()
    # 1.5 * 2^128 - 2^128 is a number after one rounding, and none if the products are rounded before
    assert_steps_alike(c, stream, np.array([[2**28, 2**28], [-(2**28), 2**27], [2**27, 2**28]], np.float32))


@needs_compiler
def test_an_infinite_state_in_int8_is_that_of_a_stream(rng, tmp_path):
    net = net_of("relu", 3, [5, 4])
    net.params["layer0.W_hh"][:] = 1e6 * np.eye(5, dtype=np.float32)
    net = net.quantize()
    c, stream = CModel(net, tmp_path, "O0"), net.stream()
    for x in rng.uniform(1, 2, (12, 3)).astype(np.float32):
        y, expected = c.step(x), stream.step(x)
        assert_same_bits(np.nan_to_num(y, nan=-1), np.nan_to_num(expected, nan=-1))
    assert np.isnan(expected).any()


def test_a_small_int8_gru_needs_less_than_8_kb_and_1_kb():
    model = crnn.SequenceTagger(10, 12, hidden_size=32, cell="gru", scale=False).quantize()
    net = source_of(model, "words", "words.h").network
    assert net.constant_bytes < 6 * 1024 + 512  # code takes 1.5 kB
    assert net.state_bytes < 1024
    text = "\n".join(source_of(model, "words", "words.h").source_lines())
    assert "SequenceTagger, gru 32, int8" in text


# ---- files -----------------------------------------------------------------------------------------------------------


def test_both_files_are_written_and_replaced_but_no_others(tmp_path):
    net = net_of("gru")
    crnn.export_c(net, tmp_path / "wave.c")
    before = (tmp_path / "wave.c").read_text()
    assert '#include "wave.h"' in before
    assert "int wave_step(" in (tmp_path / "wave.h").read_text()
    crnn.export_c(net, tmp_path / "wave.c", name="other")
    assert "int other_step(" in (tmp_path / "wave.h").read_text()
    for theirs in ("wave.h", "wave.c"):
        (tmp_path / theirs).write_text("int mine;")
        ours = (tmp_path / ("wave.c" if theirs == "wave.h" else "wave.h")).read_text()
        with pytest.raises(FileExistsError, match=rf"expected a new file, or one that export_c wrote, got .*{theirs}"):
            crnn.export_c(net, tmp_path / "wave.c")
        assert (tmp_path / theirs).read_text() == "int mine;"
        assert (tmp_path / ("wave.c" if theirs == "wave.h" else "wave.h")).read_text() == ours
        crnn.export_c(net, tmp_path / "wave.c", overwrite=True)
    assert (tmp_path / "wave.c").read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["wave.c", "wave.h"]


@pytest.mark.parametrize(
    ("model", "path", "options", "error", "message"),
    [
        (net_of("gru"), "wave.cc", {}, ValueError, r"path: expected a name that ends in \.c, got"),
        (net_of("gru"), "my-wave.c", {}, ValueError, "path: expected a name of letters.*; name= gives another"),
        (net_of("gru"), 'a"b.c', {"name": "wave"}, ValueError, "path: expected a name that #include can have"),
        (net_of("gru"), "a\nb.c", {"name": "wave"}, ValueError, "path: expected a name that #include can have"),
        (net_of("gru"), "wave.c", {"name": "2nd"}, ValueError, "name: expected a name of letters"),
        (net_of("gru"), "wave.c", {"name": 3}, ValueError, "name: expected a name of letters"),
        (object(), "wave.c", {}, TypeError, "model: expected a network or a model of crnn, got object"),
        (net_of("gru", dtype="float64"), "wave.c", {}, ValueError, r"expected float32, got float64; model\.astype"),
        (net_of("gru", bidirectional=True), "wave.c", {}, ValueError, "a network that reads forward"),
        (crnn.SequenceRegressor(3, 2, pooling="flatten", steps=4), "wave.c", {}, ValueError, "got 'flatten'"),
        (crnn.SequenceClassifier(), "wave.c", {}, ValueError, "waits for fit"),
        (crnn.Forecaster(), "wave.c", {}, ValueError, "a Forecaster|waits for fit"),
        (net_of("gru"), "none/wave.c", {}, OSError, "none"),
    ],
)
def test_what_cannot_be_written_is_refused_and_writes_nothing(tmp_path, model, path, options, error, message):
    with pytest.raises(error, match=message):
        crnn.export_c(model, tmp_path / path, **options)
    assert os.listdir(tmp_path) == []


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    net = net_of("gru")
    net.params["layer0.W_hh"][1, 2] = np.nan
    with pytest.raises(ValueError, match=r"layer0\.W_hh"):
        crnn.export_c(net, tmp_path / "wave.c")
    assert os.listdir(tmp_path) == []


def test_the_comment_says_what_a_step_needs():
    source = source_of(net_of("gru", 5, 8), "wave", "wave.h")
    text = "\n".join(source.source_lines())
    weights = (5 + 8 + 1) * 24 + 8
    assert "r, z, n" in text
    assert "the reset gate acts after the product" in text
    assert f"{4 * weights:,} bytes of weights" in text
    assert "RAM             180 bytes: the state, 32, and scratch, 148" in text  # h; x, and four vectors
    assert f"{(5 + 8) * 24} a step" in text
    assert "It is yours" in text


# ---- kinds -----------------------------------------------------------------------------------------------------------


@needs_compiler
@without_and_with_optimisation
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embedding_size": 6},
        {"embedding_size": 21, "tie_weights": True},
        {"num_layers": 2, "cell": "lstm"},
        {"hidden_size": [9, 4], "tie_weights": True, **DENSE},
    ],
)
def test_a_language_model_has_logits_probabilities_and_tokens(rng, tmp_path, build, options):
    model = language_model(**({"cell": "gru"} | options))
    c, stream, V = CModel(model, tmp_path, build), model.stream(), len(model.vocab)
    p = np.empty(V, np.float32)
    for id in rng.integers(0, V, 30).tolist():
        y = c.step(id)
        assert_same_bits(y, stream.step(id))
        c("probabilities", p, y)
        assert_same_bits(p, stream.next_probabilities())
        assert c("most_probable", y) == y.argmax()
    assert c.library.model_step(c.state.ctypes.data, V, y.ctypes.data) == 0
    assert c.library.model_step(c.state.ctypes.data, -1, y.ctypes.data) == 0
    for id, token in enumerate(model.vocab.tokens):
        assert c("find", token.encode(), len(token.encode())) == id
    assert c("find", b"hello", 5) == -1


@needs_compiler
def test_words_have_an_id_for_what_is_unknown_and_bytes_are_ids(tmp_path):
    words = crnn.Vocab.from_counts({"a": 3, "größer": 2, "??=": 5, 'quo"te': 1, "back\\n": 1}, "word")
    c = CModel(crnn.LanguageModel(words, hidden_size=4), tmp_path, "O0", "words")
    for id, token in enumerate(words.tokens):
        assert c("find", token.encode(), len(token.encode())) == id
    assert c("find", b"zebra", 5) == words.unknown_id
    assert c("find", b"a", 0) == words.unknown_id
    of_bytes = crnn.LanguageModel(crnn.Vocab.from_counts({}, "byte"), "gru", hidden_size=4)
    c, stream = CModel(of_bytes, tmp_path, "O0", "bytes"), of_bytes.stream()
    for id in (0, 65, 255):
        assert_same_bits(c.step(id), stream.step(id))


@needs_compiler
@without_and_with_optimisation
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *(("SequenceClassifier", pooling) for pooling in ("last", "max", "mean")),
        ("SequenceTagger", None),
        *(("SequenceRegressor", pooling) for pooling in ("last", "max", "mean", None)),
    ],
)
@pytest.mark.parametrize("sizes", [{"hidden_size": 17}, {"hidden_size": [9, 4], **DENSE}], ids=str)
def test_a_model_of_sequences_has_the_bits_of_a_stream(rng, tmp_path, build, kind, pooling, sizes):
    options = sizes if kind == "SequenceTagger" else sizes | {"pooling": pooling}
    model = getattr(crnn, kind)(3, 4, cell="lstm" if pooling else "gru", seed=2, **options)
    stirred(standardised(model, 3, rng))
    c, stream = CModel(model, tmp_path, build), model.stream()
    mean, std = model.scalings["x"].mean, model.scalings["x"].std
    xs = inputs(rng, 30, 3, True) * std + mean
    assert_steps_alike(c, stream, xs)
    c.reset()
    stream.reset()
    assert_steps_alike(c, stream, xs[:3])
    if kind != "SequenceRegressor":
        y, p = c.step(xs[0]), np.empty(4, np.float32)
        c("probabilities", p, y)
        assert_same_bits(p, model._targets.probabilities(y[None])[0])
    before = c.state.copy()
    y = np.zeros(4, c.dtypes[c.net.y_type])
    for wrong in (np.nan, np.inf, 1e300):
        bad = np.array([1.0, wrong, 2.0])
        assert c("step", c.state, bad, y) == 0
    x_bytes = 4 * (c.net.scratch_size + c.net.x_size)
    kept = c.net.state_bytes - x_bytes - (8 if pooling == "mean" else 0)
    assert_same_bits(c.state[:kept], before[:kept])
    assert not y.any()


@needs_compiler
def test_classes_are_named_and_thresholds_applied(rng, tmp_path):
    names = ["up", 'do"wn\\', "s??/ide", "größer\0\0001"]
    thresholds = [0.3, 0.5, 0.7, 0.9]
    model = crnn.SequenceClassifier(2, classes=names, multilabel=True, thresholds=thresholds, scale=False, seed=1)
    stirred(model)
    c = CModel(model, tmp_path, "O0")
    texts = (ctypes.c_char_p * 4).in_dll(c.library, "model_classes")
    sizes = (ctypes.c_ushort * 4).in_dll(c.library, "model_class_sizes")
    texts = (ctypes.c_void_p * 4).in_dll(c.library, "model_classes")
    assert [ctypes.string_at(text, size).decode() for text, size in zip(texts, sizes, strict=True)] == names
    for x in rng.normal(size=(20, 2)).astype(np.float32) * 4:
        y, p = c.step(x), np.empty(4, np.float32)
        c("probabilities", p, y)
        assert_same_bits(p, model._targets.probabilities(y[None])[0])
        found = [bool(c("applies", y, i)) for i in range(4)]
        assert found == model._targets.positive(y[None])[0].tolist()


@needs_compiler
def test_the_self_test_compiles_and_finds_a_changed_weight(rng, tmp_path):
    model = stirred(standardised(crnn.SequenceRegressor(2, 3, hidden_size=5, seed=1), 2, rng))
    crnn.export_c(model, tmp_path / "amp.c")
    command = [*COMPILER, *STRICT, "-DAMP_SELF_TEST", "amp.c", "-o", "amp"]
    compiled(command, tmp_path)
    done = subprocess.run([tmp_path / "amp"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "amp: 12 steps have the bits of crnn's\n")
    source = (tmp_path / "amp.c").read_text()
    start = source.index("W_hh_0[75] = {") + 14
    first = source[start : source.index(",", start)].strip()
    (tmp_path / "amp.c").write_text(source[:start] + f"{first} * 1.001f" + source[source.index(",", start) :])
    compiled(command, tmp_path)
    done = subprocess.run([tmp_path / "amp"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "differs" in done.stdout


@needs_compiler
@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not part of this tree")
def test_the_examples_compile(rng, tmp_path):
    clf = crnn.SequenceClassifier(3, classes=["falling", "rising"], hidden_size=16, cell="gru", seed=0)
    crnn.export_c(clf, tmp_path / "gesture.c")
    assert source_of(clf, "gesture", "gesture.h").network.state_bytes == 396  # as the example says
    amp = crnn.SequenceRegressor(1, 1, hidden_size=4, cell="lstm", pooling=None, seed=0)
    crnn.export_c(amp, tmp_path / "amp.c")
    for sources in (["gesture.c", EXAMPLES / "loop.c"], ["amp.c", EXAMPLES / "effect.c"]):
        command = [*COMPILER, *STRICT, "-I.", "-shared", "-fPIC", *map(str, sources), "-o", "example.so"]
        compiled(command, tmp_path)
    signal = rng.normal(size=50).astype(np.float32)
    expected = amp.predict([signal[:, None]])[0][:, 0].astype(np.float32)
    library = ctypes.CDLL(str(tmp_path / "example.so"))
    effect = np.zeros(2 * source_of(amp, "amp", "amp.h").network.state_bytes, np.uint8)
    library.effect_reset(effect.ctypes.data_as(ctypes.c_void_p))
    library.effect_process(
        effect.ctypes.data_as(ctypes.c_void_p), (ctypes.c_void_p * 1)(signal.ctypes.data), 1, len(signal)
    )
    assert_same_bits(signal, expected)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_both_files_and_replaces_them_when_asked(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    net_of("gru").save("m")
    out, err = run("export-c", "m", "-o", "wave.c", "--json")
    assert '"output": "wave.c", "header": "wave.h"' in out
    assert "wrote wave.c, " in err
    expected = (tmp_path / "wave.c").read_bytes()
    _, err = run("export-c", "m", "-o", "wave.c", status=1)
    assert "--output: expected a new file, got wave.c, which exists; --overwrite replaces it" in err
    (tmp_path / "wave.h").write_text("int mine;")
    run("export-c", "m", "-o", "wave.c", "--overwrite")
    assert (tmp_path / "wave.c").read_bytes() == expected
    _, err = run("export-c", "m", "-o", "my-wave.c", status=1)
    assert "--output: expected a name of letters, digits and _, as in C, got 'my-wave'; --name gives another, " in err
    assert "such as my_wave" in err
    _, err = run("export-c", "m", "-o", "m.c", "--name", "a b", status=1)
    assert "--name: expected a name of letters" in err
    _, err = run("export-c", "m", "-o", "m.txt", status=1)
    assert "--output: expected a name that ends in .c, got m.txt" in err
    run("export-c", "m", "-o", "my-wave.c", "--name", "wave")
    assert sorted(os.listdir(tmp_path)) == ["m", "my-wave.c", "my-wave.h", "wave.c", "wave.h"]
