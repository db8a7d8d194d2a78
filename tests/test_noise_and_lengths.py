# SPDX-License-Identifier: MIT
"""Noise in gradients, and windows of random lengths: their distributions, the updates they make, and their bits."""

import math

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn._core import dispatch
from crnn._normal import normal_draws
from crnn.text import contiguous_batches
from crnn.training.noise import GradientNoise

IDS = np.random.default_rng(8).integers(12, size=400)
SETTINGS = {"epochs": 3, "batch_size": 3, "bptt": 14, "schedule": None, "optimizer": "sgd", "lr": 0.5, "patience": None}
METHODS = [{"gradient_noise": 0.01}, {"random_bptt": True}, {"gradient_noise": 0.01, "random_bptt": True}]


def fitted(model=None, **options):
    model = language_model() if model is None else model
    crnn.fit(model, IDS, **SETTINGS | options)
    return model


# ---- nearly normal draws ---------------------------------------------------------------------------------------------


def test_draws_have_the_moments_of_a_normal_distribution_and_its_shape():
    draws = normal_draws(np.random.PCG64(3), 200_001)
    assert draws.mean() == pytest.approx(0, abs=0.01)
    assert draws.var() == pytest.approx(1, abs=0.015)
    assert (draws**3).mean() == pytest.approx(0, abs=0.03)
    assert (draws**4).mean() == pytest.approx(3 - 0.15, abs=0.06)
    for level in (-2, -1, 0, 1, 2):
        normal = 0.5 * (1 + math.erf(level / math.sqrt(2)))
        assert (draws < level).mean() == pytest.approx(normal, abs=0.006)
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.01


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_falls_as_the_paper_says():
    noise = GradientNoise(0.3, 0)
    for update in (0, 1, 10, 12345):
        assert noise.deviation(update) == pytest.approx(math.sqrt(0.3 / (1 + update) ** 0.55), rel=1e-12)
    grads = np.zeros(100_000)
    noise.add(grads, 7)
    assert grads.std() == pytest.approx(noise.deviation(7), rel=0.02)


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_an_update_is_that_of_the_clipped_gradient_plus_noise(clip_norm):
    options = {"max_updates": 1, "seed": 4, "clip_norm": clip_norm}
    plain, noisy = (fitted(gradient_noise=eta, **options) for eta in (None, 0.04))
    noise = np.zeros_like(plain.flat_params)
    GradientNoise(0.04, 4).add(noise, 0)
    np.testing.assert_allclose(noisy.flat_params, plain.flat_params - 0.5 * noise, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(fitted(gradient_noise=0.04, **options | {"seed": 5}).flat_params, noisy.flat_params)


# ---- lengths ---------------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_awd_lstm():
    ids = np.zeros(20 * 70 * 4000 + 1, np.uint8)
    windows = contiguous_batches(ids, 20, 70).varying(5)
    lengths = np.array(windows.lengths(1))
    assert len(lengths) == len(windows)
    rng = np.random.default_rng(1)
    base = np.where(rng.random(len(windows)) < 0.95, 70, 35.0)
    theirs = np.maximum(5, rng.normal(base, 5).astype(int))
    assert lengths.mean() == pytest.approx(theirs.mean(), abs=0.6)
    assert lengths.std() == pytest.approx(theirs.std(), abs=0.6)
    assert (lengths < 52).mean() == pytest.approx(0.05, abs=0.012)
    np.testing.assert_allclose(np.quantile(lengths, [0.2, 0.5, 0.8]), np.quantile(theirs, [0.2, 0.5, 0.8]), rtol=0.03)


@pytest.mark.parametrize("size", [31, 41, 95, 400, 3000])
@pytest.mark.parametrize("bptt", [10, 33])
def test_windows_of_random_lengths_hold_the_streams_in_order(size, bptt):
    ids = np.arange(size)
    fixed = contiguous_batches(ids, 3, bptt)
    whole = np.concatenate([x for x, _ in fixed])
    windows = fixed.varying(7)
    seen = set()
    for epoch in (1, 2, 3):
        pairs = list(windows.epoch(epoch))
        assert len(pairs) == len(windows)
        assert [len(x) for x, _ in pairs] == windows.lengths(epoch)
        assert min(map(len, (x for x, _ in pairs))) >= 1
        assert_same_bits(np.concatenate([x for x, _ in pairs]), whole)
        for x, y in pairs:
            assert_same_bits(y, x + 1)
        parts = windows.sharded(3, 1, 3).epoch(epoch)
        for (x, _), (cut, _) in zip(pairs, parts, strict=True):
            assert_same_bits(np.concatenate(cut, axis=1), x[:, 1:])
        seen.add(tuple(windows.lengths(epoch)))
    assert len(seen) == 3 or len(windows) == 1
    assert windows.lengths(2) == fixed.varying(7).lengths(2)
    assert windows.lengths(2) != fixed.varying(8).lengths(2) or len(windows) == 1


def test_many_windows_are_read_in_blocks(monkeypatch):
    monkeypatch.setattr("crnn.text.windows._BLOCK", 100)
    test_windows_of_random_lengths_hold_the_streams_in_order(3000, 33)


def test_the_rate_of_an_update_is_in_proportion_to_its_window():
    model, other = (language_model() for _ in range(2))
    log = crnn.fit(model, IDS, random_bptt=True, clip_norm=None, log_every=1, **SETTINGS | {"epochs": 2})
    windows, rates = contiguous_batches(IDS, 3, 14).varying(0), []
    for epoch in (1, 2):
        state = None
        for x, y in windows.epoch(epoch):
            other.flat_grads.fill(0)
            _, _, state = other.loss_and_gradients(x, y, state)
            rates.append(0.5 * len(x) / 14)
            other.flat_params[...] -= rates[-1] * other.flat_grads
    assert len(set(rates)) > 5
    np.testing.assert_allclose([entry["lr"] for entry in log.of_kind("train")], rates, rtol=1e-12)
    np.testing.assert_allclose(model.flat_params, other.flat_params, rtol=1e-4, atol=1e-5)


# ---- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", METHODS)
@pytest.mark.parametrize("updates", [9, 13])
def test_a_resumed_run_is_bit_identical(tmp_path, options, updates):
    whole = fitted(**options)
    parts = fitted(checkpoint=tmp_path / "c", max_updates=updates, **options)
    assert not np.array_equal(parts.flat_params, whole.flat_params)
    fitted(parts, checkpoint=tmp_path / "c", resume=True, **options)
    assert_same_bits(parts.flat_params, whole.flat_params)
    settings = whole.training_runs[-1]["settings"]
    assert {name: settings[name] for name in options} == options


@pytest.mark.parametrize("options", METHODS)
def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(any_isa, options):
    found = []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        found += [fitted(threads=threads, **options).flat_params.copy() for threads in (1, 3)]
    for other in found[1:]:
        assert_same_bits(other, found[0])


def test_shards_have_the_same_lengths_and_noise():
    one, three = (fitted(shards=shards, **METHODS[2]) for shards in (1, 3))
    np.testing.assert_allclose(one.flat_params, three.flat_params, rtol=1e-3, atol=1e-5)


def test_within_an_epoch_another_seed_is_refused(tmp_path):
    fitted(checkpoint=tmp_path / "c", max_updates=13, random_bptt=True)
    with pytest.raises(crnn.ModelFileError, match="seed: expected 0, as in"):
        fitted(checkpoint=tmp_path / "c", random_bptt=True, resume=True, seed=1)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"random_bptt": True, "bptt": 9}, "random_bptt: expected a bptt of at least 10 .* got bptt=9"),
        ({"random_bptt": True, "carry": 28}, "random_bptt: .* no carry but 0 with it, got carry=28"),
        ({"gradient_noise": 0.0}, "gradient_noise: expected a number above 0, or None"),
        ({"gradient_noise": math.inf}, "gradient_noise: expected"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_sequences_have_no_windows_of_random_lengths():
    rng = np.random.default_rng(0)
    model = crnn.SequenceClassifier(2, 2, hidden_size=4)
    X, y = [rng.normal(size=(6, 2)) for _ in range(8)], [0, 1] * 4
    with pytest.raises(ValueError, match="random_bptt: expected a model that reads a text in windows, got a Seq"):
        model.fit(X, y, epochs=1, random_bptt=True)
    before = model.flat_params.copy()
    model.fit(X, y, epochs=1, gradient_noise=0.01)
    assert not np.array_equal(model.flat_params, before)


def test_the_shell_has_both(run, tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 200)
    arguments = ["train", tmp_path / "text.txt", "-o", tmp_path / "m.safetensors", "--hidden", 4, "-q", "--epochs", 1]
    run(*arguments, "--random-bptt", "--gradient-noise", 0.01)
    used = crnn.load(tmp_path / "m.safetensors").training_runs[-1]["settings"]
    assert (used["random_bptt"], used["gradient_noise"]) == (True, 0.01)
