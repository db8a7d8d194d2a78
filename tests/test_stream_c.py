# SPDX-License-Identifier: MIT
"""Streams without Python: the C library and its example, and the example that cimports crnn.stream."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import environment
from stream_tools import CELLS, language_model, net_of, sequence, stepwise, whole

import crnn

ROOT = Path(__file__).parents[1]
EXAMPLE_C = ROOT / "examples" / "embed_c"
EXAMPLE_CYTHON = ROOT / "examples" / "embed_cython"
SOURCES = ROOT / "src_c"
COMPILER = os.environ.get("CC", "").split() or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]

pytestmark = pytest.mark.thread_unsafe  # they compile
needs_make = pytest.mark.skipif(
    sys.platform == "win32" or not COMPILER or not shutil.which("make") or not SOURCES.is_dir(),
    reason="needs a C compiler, make and src_c",
)


def run(command, folder, **options):
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment(), capture_output=True, timeout=600, check=False, **options
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done


def test_get_include_has_the_headers_of_this_build():
    folder = Path(crnn.get_include())
    assert {path.name for path in folder.iterdir()} == {"crnn.h", "crnn_stream.h", "kernels.def"}
    for path in folder.iterdir():
        if SOURCES.is_dir():
            assert path.read_bytes() == (SOURCES / path.name).read_bytes()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("libcrnn")
    run(["make", "-s", "-j2", "-C", SOURCES, f"OUT={folder}", "CFLAGS=-O0", "CC=" + " ".join(COMPILER)], folder)
    return folder / "libcrnn.a"


@pytest.fixture(scope="module")
def embed(library):
    program = library.parent / "embed"
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{crnn.get_include()}"]
    run([*COMPILER, *strict, EXAMPLE_C / "main.c", library, "-lm", "-o", program], library.parent)
    return program


def write_weights():
    spec = importlib.util.spec_from_file_location("write_weights", EXAMPLE_C / "write_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_weights


def c_outputs(embed, model, xs, folder):
    write_weights()(model, folder / "net.bin")
    answer = run([embed, folder / "net.bin"], folder, input=xs.astype("<f4").tobytes()).stdout
    return np.frombuffer(answer, "<f4").reshape(len(xs), -1)


@needs_make
@pytest.mark.parametrize("cell", CELLS)
def test_a_c_program_has_pythons_bits(rng, embed, cell, tmp_path):
    net, xs = net_of(cell, 5, [37, 37]), sequence(rng, 50, 5)
    assert_same_bits(c_outputs(embed, net, xs, tmp_path), whole(net, xs))


@needs_make
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_c_program_starts_from_the_trained_state(rng, embed, cell, layers, tmp_path):
    net, xs = net_of(cell, 5, [7] * layers, trainable_initial_state=True), sequence(rng, 9, 5)
    plain = net_of(cell, 5, [7] * layers)
    for name, values in plain.params.items():
        values[...] = net.params[name]
    assert (whole(net, xs) != whole(plain, xs)).any()
    assert_same_bits(c_outputs(embed, net, xs, tmp_path), whole(net, xs))


def fitted_regressor():
    rng = np.random.default_rng(1)
    X = [rng.normal(7, 3, (9, 3)).astype("f4") for _ in range(4)]
    model = crnn.SequenceRegressor(3, 1, seed=1)
    model.fit(X, [x[-1, :1] * 5 for x in X], epochs=1)
    return model


UNSUPPORTED = {
    "one direction": lambda: crnn.RNN(3, 4, bidirectional=True),
    "the one below, got dense_layers=True": lambda: crnn.RNN(3, [4, 4], dense_layers=True),
    "float32, got float64": lambda: crnn.RNN(3, 4, dtype="float64"),
    "numbers, got an embedding": lambda: language_model("lstm", embedding_size=5),
    "equal size, got [4, 5]": lambda: crnn.RNN(3, [4, 5]),
    "got pooling='flatten'": lambda: crnn.SequenceClassifier(3, 2, pooling="flatten", steps=4),
    "one network": lambda: crnn.SequenceToSequence(3, 4),
    "standardises x": fitted_regressor,
    "not rounded, got precision='int8'": lambda: crnn.RNN(3, 4).quantize("int8"),
    "a head of W_hy and b_y, got tail": lambda: crnn.LanguageModel(crnn.Vocab("cba"), adaptive_softmax=[1]),
}


@pytest.mark.skipif(not EXAMPLE_C.is_dir(), reason="needs the examples")
@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_the_c_program_could_not_compute_is_refused_before_a_file_is_written(tmp_path, message):
    model = UNSUPPORTED[message]()
    with pytest.raises(ValueError, match=re.escape(message)):
        write_weights()(model, tmp_path / "net.bin")
    assert not (tmp_path / "net.bin").exists()


@needs_make
def test_a_c_program_has_pythons_bits_with_a_head(rng, embed, tmp_path):
    tagger, xs = crnn.SequenceTagger(5, 11, 19, scale=False, seed=1), sequence(rng, 20, 5)
    assert_same_bits(c_outputs(embed, tagger, xs, tmp_path), stepwise(tagger.stream(), xs))


@needs_make
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_c_program_pools_with_pythons_bits(rng, embed, pooling, tmp_path):
    classifier, xs = crnn.SequenceClassifier(5, 11, 19, pooling=pooling, scale=False, seed=1), sequence(rng, 20, 5)
    expected = stepwise(classifier.stream(), xs)
    assert_same_bits(c_outputs(embed, classifier, xs, tmp_path), expected)
    assert_same_bits(classifier._targets.probabilities(expected[-1:]), classifier.predict_proba([xs]))


@needs_make
def test_the_example_runs_as_it_says(embed, tmp_path):
    run([sys.executable, EXAMPLE_C / "write_weights.py", "net.bin"], tmp_path)
    crnn.RNN(3, 4, seed=2).save(tmp_path / "m.safetensors")
    run([sys.executable, EXAMPLE_C / "write_weights.py", "m.safetensors", "other.bin"], tmp_path)
    assert len(run([embed, "net.bin"], tmp_path, input=bytes(4 * 4 * 2)).stdout) == 8 * 4 * 2
    assert len(run([embed, "other.bin"], tmp_path, input=bytes(3 * 4 * 2)).stdout) == 4 * 4 * 2


EMPTY_SLOTS = r"""
#include "crnn.h"
#include <stdio.h>

int main(void)
{
    int empty = 0;
    for (int isa = 0; isa < crnn_isa_count(); ++isa) {
        if (!crnn_isa_built(isa))
            continue;
        const crnn_kernels_f32 *f32 = crnn_f32(isa);
        const crnn_kernels_f64 *f64 = crnn_f64(isa);
#define CRNN_KERNEL(type, name, arguments)                                                                             \
    if (!f32->name || !f64->name)                                                                                      \
        printf("%s: no %s\n", f32->isa, #name), ++empty;
#include "kernels.def"
    }
    return empty;
}
"""


@needs_make
def test_every_kernel_is_bound_in_every_table(library, tmp_path):
    (tmp_path / "slots.c").write_text(EMPTY_SLOTS)
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{crnn.get_include()}"]
    run([*COMPILER, *strict, "slots.c", library, "-lm", "-o", "slots"], tmp_path)
    assert run([tmp_path / "slots"], tmp_path).stdout == b""


CHECKS = r"""
#include "crnn_stream.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#undef NDEBUG

static float weights[4096];
static const double mean[4], deviation[4] = {1, 1, 1, 1};

static crnn_layer_weights layer = {.hidden_size = 3, .W_xh = weights, .W_hh = weights, .b_h = weights,
                                   .vectors = {weights}};
static crnn_model_config good(void)
{
    crnn_model_config c = {.input_size = 4, .num_layers = 1, .layers = &layer};
    return c;
}

#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        crnn_model_config c = good();                                                                                  \
        crnn_layer_weights l = layer;                                                                                  \
        c.layers = &l;                                                                                                 \
        change;                                                                                                        \
        if (crnn_model_size(&c, kernels) || crnn_model_init(memory, &c, kernels))                                      \
            return printf("not refused: %s\n", #change), 1;                                                            \
    } while (0)

int main(void)
{
    const crnn_kernels_f32 *kernels = crnn_f32(crnn_isa_best());
    char *raw = malloc(1 << 20), *memory = raw + (64 - (uintptr_t)raw % 64);
    layer.cell = crnn_cell_find("gru");
    if (!crnn_cell_info(layer.cell) || strcmp(crnn_cell_info(layer.cell)->vectors[0], "b_hn"))
        return puts("the list of cells"), 1;
    if (crnn_cell_find("no cell") != -1 || crnn_cell_info(-1) || crnn_cell_info(crnn_cell_count()))
        return puts("a cell that is none"), 1;
    crnn_model_config c = good();
    const size_t size = crnn_model_size(&c, kernels);
    REFUSED(c.input_size = 0);
    REFUSED(c.input_size = -1);
    REFUSED(c.input_size = PTRDIFF_MAX);
    REFUSED(c.num_layers = 0);
    REFUSED(c.layers = NULL);
    REFUSED(l.cell = crnn_cell_count());
    REFUSED(l.cell = -1);
    REFUSED(l.hidden_size = 0);
    REFUSED(l.hidden_size = PTRDIFF_MAX / 4);
    crnn_layer_weights two[2] = {layer, layer};
    two[0].hidden_size = two[1].hidden_size = ((crnn_dim)1 << 27) + 1;
    REFUSED(c.layers = two; c.num_layers = 2; c.dense_layers = 1); /* together they are too large */
    two[0].hidden_size = two[1].hidden_size = 2;
    REFUSED(c.layers = two; c.num_layers = 2; c.dense_layers = 1; c.tie_weights = 1; c.output_size = 4; c.b_y = weights;
            c.embedding_size = 2; c.embedding = weights); /* the head reads 4 */
    REFUSED(l.W_xh = NULL);
    REFUSED(l.W_hh = NULL);
    REFUSED(l.b_h = NULL);
    REFUSED(l.vectors[0] = NULL);
    REFUSED(c.output_size = -3);
    REFUSED(c.output_size = 2);
    REFUSED(c.output_size = 2; c.W_hy = weights);
    REFUSED(c.output_size = 2; c.b_y = weights);
    REFUSED(c.embedding = weights);
    REFUSED(c.embedding_size = 2);
    REFUSED(c.embedding_size = -2; c.embedding = weights);
    REFUSED(c.tie_weights = 1);
    REFUSED(c.tie_weights = 1; c.output_size = 4; c.b_y = weights);
    REFUSED(c.tie_weights = 1; c.output_size = 4; c.b_y = weights; c.embedding_size = 2; c.embedding = weights);
    REFUSED(c.tie_weights = 1; c.output_size = 5; c.b_y = weights; c.embedding_size = 3; c.embedding = weights);
    REFUSED(c.tie_weights = 1; c.output_size = 4; c.b_y = c.W_hy = weights; c.embedding_size = 3;
            c.embedding = weights);
    REFUSED(c.x_mean = mean);
    REFUSED(c.x_std = deviation);
    REFUSED(c.y_mean = mean; c.y_std = deviation);
    REFUSED(c.pooling = CRNN_POOL_MAX);
    REFUSED(c.pooling = CRNN_POOL_MEAN);
    REFUSED(c.pooling = CRNN_POOL_MEAN + 1; c.output_size = 2; c.W_hy = c.b_y = weights);
    REFUSED(c.pooling = -1; c.output_size = 2; c.W_hy = c.b_y = weights);
    crnn_tail_weights tail = {.size = 3, .projection_size = 2, .W_hp = weights, .W_py = weights};
    c.output_size = 5;
    c.W_hy = c.b_y = weights;
    c.num_tails = 1;
    c.tails = &tail;
    if (!crnn_model_size(&c, kernels))
        return puts("a tail"), 1;
#define REFUSED_TAIL(change)                                                                                           \
    REFUSED(crnn_tail_weights t = tail; c.output_size = 5; c.W_hy = c.b_y = weights; c.num_tails = 1; c.tails = &t;    \
            change)
    REFUSED_TAIL(c.tails = NULL);
    REFUSED_TAIL(c.num_tails = 0);
    REFUSED_TAIL(c.num_tails = -1);
    REFUSED_TAIL(c.output_size = 3);
    REFUSED_TAIL(c.output_size = 0);
    REFUSED_TAIL(c.pooling = CRNN_POOL_MAX);
    REFUSED_TAIL(c.y_mean = mean; c.y_std = deviation; c.y_columns = 1);
    REFUSED_TAIL(c.W_hy = NULL; c.tie_weights = 1; c.embedding_size = 3; c.embedding = weights);
    REFUSED_TAIL(t.size = 0);
    REFUSED_TAIL(t.size = PTRDIFF_MAX);
    REFUSED_TAIL(t.projection_size = -1);
    REFUSED_TAIL(t.W_hp = NULL);
    REFUSED_TAIL(t.W_py = NULL);
    REFUSED_TAIL(t.W_hp_format = -1);
    REFUSED_TAIL(t.W_py_format = CRNN_INT4 + 1);
    c = good();
    if (!size || crnn_model_size(NULL, kernels) || crnn_model_size(&c, NULL) || crnn_model_init(NULL, &c, kernels) ||
        crnn_model_init(memory, &c, NULL) || crnn_model_init(memory + 4, &c, kernels))
        return puts("memory or kernels"), 1;

    /* Nothing is written outside a model or streams. */
    memset(memory, 0x5a, 1 << 19);
    crnn_model *model = crnn_model_init(memory, &c, kernels);
    const size_t of_streams = crnn_streams_size(model, 5, 3);
    char *after = memory + size;
    for (size_t i = 0; i < 1000; ++i)
        if (after[i] != 0x5a)
            return puts("written outside a model"), 1;
    if (crnn_streams_size(NULL, 1, 1) || crnn_streams_size(model, 0, 1) || crnn_streams_size(model, 1, 0) ||
        crnn_streams_size(model, PTRDIFF_MAX / 16, 1) || crnn_streams_init(NULL, model, 1, 1) ||
        crnn_streams_init(after + 4, model, 1, 1))
        return puts("streams that are none"), 1;
    crnn_streams *streams = crnn_streams_init(after, model, 5, 3);
    float x[20] = {1, 2, 3}, y[15], state[3];
    const int32_t ids[5] = {3, 2, 1, 0, 3}, rows[3] = {4, 0, 2};
    crnn_streams_step(streams, y, x, NULL, 5);
    crnn_streams_step(streams, y, x, rows, 3);
    crnn_streams_step_ids(streams, y, ids, NULL, 5);
    crnn_streams_run_ids(streams, y, ids, 5, 4);
    crnn_streams_run(streams, y, x, 5, 1);
    crnn_streams_get_state(streams, state, 4);
    crnn_streams_set_state(streams, state, 2);
    crnn_streams_copy(streams, 3, streams, 2);
    crnn_streams_reset(streams, rows, 3);
    for (size_t i = 0; i < 1000; ++i)
        if (after[of_streams + i] != 0x5a)
            return puts("written outside streams"), 1;
    if (crnn_model_state_size(model) != 3 || crnn_model_input_size(model) != 4 || crnn_model_output_size(model) != 3)
        return puts("sizes"), 1;

    for (int pooling = CRNN_POOL_MAX; pooling <= CRNN_POOL_MEAN; ++pooling) {
        c.pooling = pooling;
        c.output_size = 2;
        c.W_hy = c.b_y = weights;
        memset(memory, 0x5a, 1 << 19);
        model = crnn_model_init(memory, &c, kernels);
        after = memory + crnn_model_size(&c, kernels);
        streams = crnn_streams_init(after, model, 5, 3);
        float pooled[8];
        crnn_streams_step(streams, y, x, rows, 3);
        crnn_streams_run(streams, y, x, 5, 4);
        crnn_streams_get_state(streams, pooled, 4);
        crnn_streams_set_state(streams, pooled, 2);
        crnn_streams_copy(streams, 3, streams, 2);
        crnn_streams_reset(streams, rows, 3);
        for (size_t i = 0; i < 1000; ++i)
            if (after[crnn_streams_size(model, 5, 3) + i] != 0x5a)
                return puts("written outside pooled streams"), 1;
        if (crnn_model_state_size(model) != 3 + (pooling == CRNN_POOL_MAX ? 3 : 5))
            return puts("size of a pooled state"), 1;
        if (pooling == CRNN_POOL_MEAN && (pooled[6] != 0 || pooled[7] != 6))
            return puts("number of steps"), 1;
        c.pooling = CRNN_POOL_LAST;
        if (crnn_model_equals(model, &c) || crnn_model_unpack(model, &c))
            return puts("another pooling is not noticed"), 1;
    }
    free(raw);
    return 0;
}
"""


PRECISIONS = r"""
#include "crnn_stream.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A model in float and the same in double: equal to their config, unpacked to it, and of nearly the same outputs. */
enum { D = 5, H = 19, V = 3, G = 4, COUNT = D * G * H + H * G * H + G * H + 2 * H + H * V + V };

static void *memory(size_t size) { return size ? aligned_alloc(CRNN_LINE_BYTES, size) : NULL; }

/* The parameters lie one behind the other in `values`, of elements of `size` bytes. */
static void point_to(crnn_model_config *c, crnn_layer_weights *l, void *values, size_t size)
{
    char *at = values;
    *l = (crnn_layer_weights){.cell = crnn_cell_find("lstm"), .hidden_size = H};
    *c = (crnn_model_config){.input_size = D, .num_layers = 1, .layers = l, .output_size = V};
    l->W_xh = at, at += D * G * H * size;
    l->W_hh = at, at += H * G * H * size;
    l->b_h = at, at += G * H * size;
    l->h0 = at, at += H * size;
    l->c0 = at, at += H * size;
    c->W_hy = at, at += H * V * size;
    c->b_y = at;
}

static float f[COUNT], f_back[COUNT];
static double d[COUNT], d_back[COUNT];

int main(void)
{
    const int isa = crnn_isa_best();
    for (int i = 0; i < COUNT; ++i)
        d[i] = f[i] = (float)((i * 7919 % 1000) - 500) / 1000;
    crnn_model_config c;
    crnn_layer_weights l;
    point_to(&c, &l, f, sizeof(float));
    crnn_model *single = crnn_model_init(memory(crnn_model_size(&c, crnn_f32(isa))), &c, crnn_f32(isa));
    if (!crnn_model_equals(single, &c))
        return puts("a model is not what it was made of"), 1;
    for (int i = 0; i < COUNT; ++i) {
        const float before = f[i];
        f[i] += 1;
        if (crnn_model_equals(single, &c))
            return printf("a change of element %d is not noticed\n", i), 1;
        f[i] = before;
    }
    c.output_size = V - 1;
    if (crnn_model_equals(single, &c) || crnn_model_unpack(single, &c) || crnn_model_equals(single, NULL))
        return puts("another shape is not noticed"), 1;
    point_to(&c, &l, f_back, sizeof(float));
    if (!crnn_model_unpack(single, &c) || memcmp(f, f_back, sizeof f))
        return puts("not unpacked as it was packed"), 1;

    point_to(&c, &l, d, sizeof(double));
    const crnn_kernels_f64 *kernels = crnn_f64(isa);
    crnn_model *twice = crnn_model_init_f64(memory(crnn_model_size_f64(&c, kernels)), &c, kernels);
    if (!twice || crnn_model_init_f64(NULL, &c, kernels) || crnn_model_size_f64(&c, NULL))
        return puts("a model without memory or kernels"), 1;
    if (!crnn_model_equals(twice, &c))
        return puts("no model in double"), 1;
    point_to(&c, &l, d_back, sizeof(double));
    if (!crnn_model_unpack(twice, &c) || memcmp(d, d_back, sizeof d))
        return puts("not unpacked as it was packed, in double"), 1;
    crnn_streams *s1 = crnn_streams_init(memory(crnn_streams_size(single, 2, 4)), single, 2, 4);
    crnn_streams *s2 = crnn_streams_init(memory(crnn_streams_size(twice, 2, 4)), twice, 2, 4);
    const float x[D] = {1, -2, 3, -4, 5};
    const double x2[D] = {1, -2, 3, -4, 5};
    for (int t = 0; t < 20; ++t) {
        float y[V];
        double y2[V];
        const int32_t row = 1;
        crnn_streams_step(s1, y, x, &row, 1);
        crnn_streams_step(s2, y2, x2, &row, 1);
        for (int i = 0; i < V; ++i)
            if (!(y[i] - y2[i] < 1e-4 && y2[i] - y[i] < 1e-4))
                return printf("step %d: %g in float, %g in double\n", t, y[i], y2[i]), 1;
    }
    return 0;
}
"""


@needs_make
def test_float_and_double_models_are_compared_unpacked_and_stepped(library, tmp_path):
    (tmp_path / "precisions.c").write_text(PRECISIONS)
    command = [*COMPILER, "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{crnn.get_include()}", "precisions.c", library]
    run([*command, "-lm", "-o", "precisions"], tmp_path)
    done = subprocess.run([tmp_path / "precisions"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@needs_make
def test_bad_configs_are_refused_and_memory_is_kept_to(library, tmp_path):
    (tmp_path / "checks.c").write_text(CHECKS)
    command = [*COMPILER, "-std=c11", "-g", f"-I{crnn.get_include()}", "checks.c", library, "-lm", "-o", "checks"]
    run(command, tmp_path)
    done = subprocess.run([tmp_path / "checks"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@needs_make
def test_the_headers_are_good_for_cpp(tmp_path):
    cpp = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if cpp is None:
        pytest.skip("no C++ compiler")
    main = "int main() { return crnn_model_size(nullptr, nullptr) != 0; }"
    (tmp_path / "a.cpp").write_text(f'#include "crnn_stream.h"\n{main}\n')
    run([cpp, "-Wall", "-Wextra", "-Werror", f"-I{crnn.get_include()}", "-c", "a.cpp"], tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("Cython") is None, reason="needs Cython")
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="needs setuptools")
@pytest.mark.skipif(sys.platform != "win32" and not COMPILER, reason="needs a C compiler")
def test_a_cython_module_has_streams_without_python(rng, tmp_path):
    shutil.copytree(EXAMPLE_CYTHON, tmp_path / "example", ignore=shutil.ignore_patterns("build", "*.c", "*.so"))
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], tmp_path / "example")
    path = tmp_path / "example" / ("smooth" + sysconfig.get_config_var("EXT_SUFFIX"))
    spec = importlib.util.spec_from_file_location("smooth", path)
    smooth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(smooth)
    net, samples = crnn.SequenceTagger(1, 1, 8, scale=False, seed=1), sequence(rng, 100, 1)
    out = np.full(100, np.nan, np.float32)
    smooth.follow(net.stream(), samples[:, 0].copy(), out)
    assert_same_bits(out[:, None], net.stream().run(samples))
    for pooling in ("max", "mean"):
        pooled = crnn.SequenceRegressor(1, 1, 8, pooling=pooling, scale=False, seed=1)
        smooth.follow(pooled.stream(), samples[:, 0].copy(), out)
        expected = pooled.predict([samples[: t + 1] for t in range(100)])
        assert_same_bits(out[:, None], expected.astype(np.float32))
    with pytest.raises(ValueError, match="expected a stream of one input"):
        smooth.follow(net_of("gru").stream(), out, out)
    with pytest.raises(ValueError, match="in float32"):
        smooth.follow(net_of("gru", 1, 1, dtype="float64").stream(), out, out)
    scaled = crnn.SequenceRegressor(1, 1, 8, pooling=None, seed=1)
    x = 101325 + 0.01 * rng.normal(size=(100, 1))
    scaled.fit([x], None, epochs=1)
    out = np.full(100, np.nan)
    smooth.follow(scaled.stream(), x[:, 0].copy(), out)
    assert_same_bits(out[:, None], scaled.predict([x])[0])
    with pytest.raises(ValueError, match="in float32"):
        smooth.follow(scaled.stream(), out.astype("f4"), out.astype("f4"))
    with pytest.raises(RuntimeError, match="samples: not finite at 1"):
        smooth.follow(scaled.stream(), np.array([1.0, np.nan]), np.zeros(2))
