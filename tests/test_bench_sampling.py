# SPDX-License-Identifier: MIT
"""The benchmark rows of sampling run, after their contenders have agreed on the probabilities."""

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="benchmarks are in a clone, not in a wheel")
from benchmarks.base import measure
from benchmarks.base.row import Setting
from benchmarks.rows import sampling
from crnn.sampling import Sampler

pytestmark = pytest.mark.thread_unsafe  # they measure

SETTING = Setting(1, measure.Effort(rounds=2, seconds=0.002), True)


@pytest.mark.parametrize("V", [9, 300])
def test_draws_are_timed_and_agree_with_numpy(monkeypatch, V):
    monkeypatch.setattr(sampling, "unavailable", lambda *names: measure.Missing("left out"))
    figures = sampling.sample(V, SETTING)
    assert {name for name, figure in figures.items() if figure.value is not None} == {"crnn", "numpy"}
    monkeypatch.setattr(sampling, "numpy_probabilities", lambda logits: np.full(V, 1 / V))
    with pytest.raises(RuntimeError, match="NumPy computes something else"):
        sampling.sample(V, SETTING)


def test_pytorch_draws_from_the_same_probabilities(torch):
    logits = np.random.default_rng(3).normal(0, 2, 60).astype(np.float32)
    expected = Sampler(sampling.TEMPERATURE, sampling.TOP_K, sampling.TOP_P).probabilities(logits)
    draw = sampling.torch_draw(logits, expected, torch.get_num_threads())
    assert all(expected[draw()] > 0 for _ in range(50))


def test_generated_text_is_timed_beside_the_steps_alone():
    figures = sampling.generate(SETTING)
    assert {name for name, figure in figures.items() if figure.value} == {"crnn", sampling.STEPS_ALONE}
