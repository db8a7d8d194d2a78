# SPDX-License-Identifier: MIT
"""What an update of a learner does besides arithmetic: packed weights, tapes and copies are shared and kept."""

import numpy as np
import pytest

import crnn
from crnn._core.arrays import StepCopies, count_present
from crnn.nn.learning.unrolled import Unrolled


def regressor(**options):
    return crnn.SequenceRegressor(3, 1, hidden_size=5, seed=0, **options)


def calls_of(monkeypatch, method):
    """The arguments of each call of a method of `Unrolled` from now on."""
    calls, original = [], getattr(Unrolled, method)

    def counted(self, *args, **kwargs):
        calls.append(args)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Unrolled, method, counted)
    return calls


@pytest.mark.parametrize("every", [1, 4])
def test_weights_are_packed_once_after_each_update(every, rng, monkeypatch):
    learner = regressor(num_layers=2).learner(bptt=4, every=every)
    calls = calls_of(monkeypatch, "_run")
    for _ in range(12):
        learner.predict(rng.standard_normal(3))
        learner.learn(0.5)
    assert learner.updates == 12 // every
    assert sum(key == ("pack",) for key, *_ in calls) == 12 // every  # the last weights are packed when they are needed


def test_an_embedding_is_packed_for_few_steps_and_for_many(rng, monkeypatch):
    """One step of 2 streams looks its rows up, a window of 8 steps has a table of all ids."""
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcdefgh"), hidden_size=5, embedding_size=3, seed=0)
    learner, calls = model.learner(bptt=8, every=2, streams=2, lr=1e-2), calls_of(monkeypatch, "_run")
    for _ in range(9):
        learner.step(rng.integers(0, 8, 2))
    updates = learner.updates
    tapes = [learner._window._step, *(part.tape for part in learner._window._again._parts.values())]
    kinds = {type(tape.tape.sources[0]).__name__ for tape in tapes}
    assert updates
    assert kinds == {"EmbeddedDense", "EmbeddedRows"}
    assert sum(key == ("pack",) for key, *_ in calls) > updates


def test_resets_of_some_streams_need_no_new_tapes_after_the_first_windows(rng, monkeypatch):
    learner = regressor().learner(bptt=6, streams=4)

    def steps(count):
        for t in range(count):
            if t % 3 == 1:
                learner.reset([t % 4])
            learner.predict(rng.standard_normal((4, 3)))
            learner.learn(rng.standard_normal(4))

    steps(72)
    made, kernels = calls_of(monkeypatch, "__init__"), calls_of(monkeypatch, "_backward_rows")
    steps(72)
    assert learner.updates == 24
    assert not made
    assert not kernels  # all are repeated


def test_parts_between_resets_are_repeated_although_the_first_windows_had_fewer_targets(rng, monkeypatch):
    """Each of the first windows has another scale, which must not take the places of the one that lasts."""
    learner = regressor().learner(bptt=10, every=1)

    def steps(count):
        for t in range(count):
            if t % 4 == 1:
                learner.reset()
            learner.predict(rng.standard_normal(3))
            learner.learn(0.5)

    steps(40)
    kernels = calls_of(monkeypatch, "_backward_rows")
    steps(40)
    assert learner.updates == 80
    assert not kernels


def test_only_a_few_scales_are_recorded(rng):
    """Windows with other numbers of targets have other scales."""
    learner = regressor().learner(bptt=12)
    for present in [*range(1, 13)] * 4 + [12] * 3:
        for t in range(12):
            learner.predict(rng.standard_normal(3))
            learner.learn(0.5 if t < present else None)
    tape = learner._window._tape
    recorded = [key[1] for key in tape._programs if key[0] == "learn"]
    assert learner.updates == 51
    assert 1 / 12 in recorded
    assert len(recorded) <= 4


def test_no_gradient_is_computed_at_the_inputs_of_a_model(rng):
    learner = regressor(num_layers=2).learner(bptt=2)
    for _ in range(4):
        learner.predict(rng.standard_normal(3))
        learner.learn(0.5)
    first, second = learner._window._tape.tape.sources
    assert learner.updates == 2
    assert first.dx is None
    assert second.dx is not None


def test_steps_are_copied_between_arrays_of_every_kind(rng):
    a, b = rng.standard_normal((7, 2, 3)), np.arange(10, dtype=np.int32).reshape(5, 2)
    to = [np.full((5, 2, 3), np.nan), np.full((9, 2), -1, np.int32)]
    StepCopies(to, [a, b]).run(1, 2, 3)
    assert np.array_equal(to[0][1:4], a[2:5])
    assert np.isnan(to[0][[0, 4]]).all()
    assert np.array_equal(to[1][1:4], b[2:5])
    assert (to[1][[0, 4, 5, 6, 7, 8]] == -1).all()


@pytest.mark.parametrize("steps", [(-1, 0, 1), (0, -1, 1), (5, 0, 1), (0, 3, 1), (0, 0, 4), (0, 0, -1), (3, 0, 3)])
def test_steps_that_are_not_there_are_not_copied(steps):
    to = np.zeros((5, 2))
    with pytest.raises(IndexError, match="expected steps of arrays of 5 and 3"):
        StepCopies([to], [np.ones((3, 2))]).run(*steps)
    assert not to.any()


@pytest.mark.parametrize(
    ("to", "values"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3))),
        (np.zeros((3, 2)), np.zeros((3, 2), np.float32)),
        (np.zeros((3, 2)), np.zeros((2, 3)).T),
        (np.zeros((2, 3)).T, np.zeros((3, 2))),
        (np.zeros((3, 2)), np.zeros((3, 2, 1))),
        (np.zeros((3, 2)), [[0.0, 0.0]]),
        (np.zeros((3, 2), object), np.zeros((3, 2), object)),
    ],
)
def test_arrays_of_other_steps_are_refused(to, values):
    with pytest.raises(ValueError, match="expected"):
        StepCopies([to], [values])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_targets_that_are_present_are_counted(dtype, rng):
    targets = rng.integers(0, 4, (5, 6, 3)).astype(dtype)
    chosen = rng.random(targets.shape) < 0.3
    targets[chosen] = -1 if dtype == "int32" else np.nan
    for part in (targets, targets[1:], targets[:, ::2], targets[:0]):
        known = part != -1 if dtype == "int32" else ~np.isnan(part)
        assert count_present(part, -1) == known.sum()
