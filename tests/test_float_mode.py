# SPDX-License-Identifier: MIT
"""Results under every floating-point mode that another library may have set: rounding, flush-to-zero, traps. They are
bit-identical, the mode is restored, and callbacks run in the host's mode."""

import ctypes
import math
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import isfunction

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import network, text

import crnn
from crnn._float_mode import in_host_mode, in_ieee_mode
from crnn.models.files import from_bytes
from crnn.sampling import Sampler
from crnn.verification.checker import hash_of
from crnn.verification.hashes import HASHES
from crnn.verification.parts import all_parts

X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")

pytestmark = pytest.mark.skipif(
    not (X86 or ARM) or sys.platform == "win32" or shutil.which("cc") is None,
    reason="needs a C compiler, and a CPU whose modes are known here",
)

SOURCE = """
#if defined(__x86_64__)
#include <xmmintrin.h>
unsigned long long get(void) { return _mm_getcsr() & 0xffc0; }
void set(unsigned long long mode) { _mm_setcsr((unsigned)mode); }
#else
unsigned long long get(void) { unsigned long long m; __asm__ volatile("mrs %0, fpcr" : "=r"(m)); return m; }
void set(unsigned long long mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#endif
"""

# What is set besides the default. On ARM traps cannot be set on most CPUs, and bits 22 and 23 are the rounding mode.
MODES = {
    "down": 0x3F80 if X86 else 2 << 22,
    "up": 0x5F80 if X86 else 1 << 22,
    "towards zero": 0x7F80 if X86 else 3 << 22,
    "flush to zero": 0x9F80 if X86 else 1 << 24,
    "denormals are zero": 0x1FC0 if X86 else 1 << 24,
    "up and flush": 0xDFC0 if X86 else 5 << 22,
    "traps": 0x1900 if X86 else 0,  # invalid, division by zero, overflow, underflow are errors: SIGFPE
    "down, flush and traps": 0xBD40 if X86 else 6 << 22,
}
modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """The functions get() and set(mode) of this thread's control word."""
    folder = tmp_path_factory.mktemp("mode")
    (folder / "mode.c").write_text(SOURCE)
    library = folder / "mode.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(folder / "mode.c")]
    subprocess.run(command, check=True, capture_output=True)
    functions = ctypes.CDLL(str(library))
    functions.get.restype = ctypes.c_ulonglong
    functions.set.argtypes = [ctypes.c_ulonglong]
    return functions


@pytest.fixture
def host(control):
    """A context in which the thread has a mode, and which checks that nothing inside has changed it."""

    @contextmanager
    def in_mode(name):
        before = control.get()
        control.set(MODES[name])
        try:
            yield
            assert control.get() == MODES[name]
        finally:
            control.set(before)

    return in_mode


def test_the_modes_of_this_file_change_arithmetic(host):
    """Otherwise nothing here could fail."""
    third, tiny = np.array([1.0, -1.0, 5.0, -5.0]), np.array([1e-310])
    expected = third / 3
    found = {}
    for name in MODES:
        with host(name):
            quotients, halves = third / 3, tiny * 0.5
        found[name] = (quotients != expected).any(), (halves == 0).any()
    assert all(found[name][0] for name in ("down", "up", "towards zero", "up and flush"))
    assert all(found[name][1] for name in ("flush to zero", "up and flush", "denormals are zero"))


@modes
@pytest.mark.parametrize("part", all_parts())
def test_everything_that_is_verified_is_bit_identical_in_every_mode(host, part, mode):
    """Initial weights, schedules, optimizers, every cell, and every kind: training, prediction, streams, files."""
    run = all_parts()[part]
    for threads in (1, 2):
        with host(mode):
            result = hash_of(run, threads)
        assert result == (HASHES[part], None)


@modes
def test_training_of_a_text_model_and_what_it_writes(host, mode):
    corpus = crnn.TextCorpus.from_text(text(3000), valid=0.1, test=0.1)

    def use():
        model = crnn.LanguageModel(corpus.vocab, cell="lstm", hidden_size=16, seed=2, dropout=0.3, embedding_size=7)
        log = crnn.fit(
            model, corpus, epochs=2, batch_size=7, bptt=13, clip_norm=0.7, schedule=crnn.optim.cosine(warmup=3),
            optimizer=crnn.optim.AdamW(lr=3e-3, weight_decay=0.013), progress=False,
        )  # fmt: skip
        evaluation = model.evaluate(corpus.test)
        numbers = [evaluation.bits, evaluation.perplexity, evaluation.nats, *model.score(["the of and", "to in it"])]
        stream = model.stream().feed("the of ")
        drawn = Sampler(temperature=0.7, top_k=9, top_p=0.93, seed=3).probabilities(stream.step(0))
        return (
            model.flat_params, np.array(log.column("train_loss")), np.array(numbers), drawn,
            stream.copy().surprisal("and to"), model.generate("the ", length=60, temperature=0.8, top_p=0.9, seed=5),
            from_bytes(model.to_bytes()).flat_params,
        )  # fmt: skip

    expected = use()
    with host(mode):
        found = use()
    assert found[5] == expected[5]
    for one, other in zip(found[:5] + found[6:], expected[:5] + expected[6:], strict=True):
        assert_same_bits(one, other)


@modes
@pytest.mark.parametrize("scale", [1.0, 1e-38, 3e37])
def test_a_scaled_model_predicts_and_streams_the_same(host, mode, scale):
    """Outputs near the smallest and the largest float32 too: what is scaled has denormals, as NumPy computes it."""
    rng = np.random.default_rng(1)
    X = [rng.normal(3, 7, (9, 3)) for _ in range(20)]
    y = [x[:, :1] * scale + scale for x in X]
    single = X[0].astype(np.float32)

    def use():
        model = crnn.SequenceRegressor(3, 1, hidden_size=6, pooling=None, seed=1)
        model.fit(X, y, epochs=2, batch_size=4, progress=False)
        stream = model.stream()
        whole = model.predict(X[:3])
        steps = np.array([stream.step(x) for x in single])
        evaluation = model.evaluate(X, y)
        return model.flat_params, whole[0], whole[2], steps, np.array([evaluation.loss, evaluation.mse, evaluation.mae])

    expected = use()
    with host(mode):
        found = use()
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@modes
def test_threads_started_in_a_mode_do_not_keep_it(host, control, mode):
    from crnn import _parallel as parallel

    net = network(D=5, H=33, L=2, cell="gru")
    x = np.random.default_rng(1).normal(size=(7, 8, 5)).astype(np.float32)
    expected = net(x)[0]
    seen = []

    def fresh():
        control.set(MODES[mode])
        return net(x, threads=4)[0]

    with host(mode):
        assert_same_bits(net(x, threads=3)[0], expected)
        parallel.run(4, lambda part: seen.append(control.get()))
    with ThreadPoolExecutor(1) as pool:
        assert_same_bits(pool.submit(fresh).result(), expected)
    assert set(seen) <= {MODES[mode], 0x1F80 if X86 else 0}


@modes
def test_callbacks_run_in_the_mode_of_the_host_and_may_change_it(host, control, mode):
    model = crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=3)
    net, x, ids, seen, inside = network(), np.ones((2, 2, 5), np.float32), np.arange(200) % 2, [], []

    def on_epoch(progress):
        seen.append(control.get())
        assert_same_bits(net(x)[0], expected)
        assert control.get() == seen[-1]
        if len(seen) == 2:
            control.set(MODES["up"])

    def schedule(k, n):
        inside.append(control.get())
        return 1.0

    expected = net(x)[0]
    before = control.get()
    try:
        control.set(MODES[mode])
        crnn.fit(model, ids, epochs=3, batch_size=2, bptt=8, on_epoch=on_epoch, schedule=schedule, progress=False)
        after = control.get()
    finally:
        control.set(before)
    assert seen == [MODES[mode], MODES[mode], MODES["up"]]
    assert after == MODES["up"]
    assert set(inside) == {0x1F80 if X86 else 0}  # a schedule's numbers are part of the result


@modes
def test_the_mode_is_restored_after_errors(host, control, mode):
    net, model = network(), crnn.SequenceClassifier(3, 2, seed=0)

    def fails(progress):
        raise KeyboardInterrupt

    for call in (
        lambda: net(np.ones((2, 2, 4), np.float32)),
        lambda: net.stream().step(7),
        lambda: model.fit([np.full((2, 3), np.nan)], [0]),
        lambda: crnn.load("there is no such file"),
        lambda: Sampler()([math.nan]),
        lambda: crnn.fit(
            crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=3), np.arange(200) % 2, epochs=1, batch_size=2,
            bptt=8, on_epoch=fails, progress=False,
        ),
    ):  # fmt: skip
        with host(mode), pytest.raises((ValueError, TypeError, OSError, KeyboardInterrupt)):
            call()


def test_nested_calls_and_calls_of_the_host_inside_each_other(host, control):
    default, up = (0x1F80 if X86 else 0), MODES["up"]
    seen = []

    def note(then=lambda: None):
        seen.append(control.get())
        then()
        seen.append(control.get())

    ieee = in_ieee_mode(note)
    with host("up"):
        ieee(lambda: ieee(lambda: in_host_mode(note, lambda: ieee(lambda: in_host_mode(note)))))
        note()
        in_host_mode(note)
    assert seen == [default, default, up, default, up, up, default, up, default, default, up, up, up, up]


@modes
def test_scores_thresholds_and_further_classes_are_the_same(host, mode):
    rng = np.random.default_rng(2)
    X, y = [rng.normal(size=(5, 2)) for _ in range(30)], rng.random((30, 2)).round()
    weights, options = rng.random(30), {"hidden_size": 3, "epochs": 1, "valid": None}

    def use():
        single = crnn.SequenceClassifier(**options).fit(X, y[:, 0].astype(int))
        independent = crnn.SequenceClassifier(multilabel=True, **options).fit(X, y)
        independent.tune_thresholds(X, y)
        scores = [single.score(X, y[:, 0].astype(int), weights), independent.score(X, y, weights)]
        return np.array(scores), np.array(independent.thresholds), single.extended([2]).flat_params

    expected = use()
    with host(mode):
        found = use()
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def test_the_public_methods_of_all_models_run_in_the_ieee_mode():
    """Those of mixins too, which are no subclasses of `Module`."""
    models = [each for name in crnn.__all__ if isinstance(each := getattr(crnn, name), type) and hasattr(each, "fit")]
    assert len(models) >= 6
    for model in models:
        for cls in model.__mro__:
            for name, method in vars(cls).items():
                if cls.__module__.startswith("crnn.") and not name.startswith("_") and isfunction(method):
                    assert _is_wrapped(method), f"{cls.__name__}.{name}"


def _is_wrapped(method):
    while hasattr(method, "__wrapped__"):
        if method.__code__.co_filename.endswith("_float_mode.py"):
            return True
        method = method.__wrapped__
    return False
