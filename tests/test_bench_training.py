# SPDX-License-Identifier: MIT
"""Peers in the benchmark's rows of training and of sequences compute the same as crnn, and every row has its peers."""

from collections import Counter

import numpy as np
import pytest

import crnn

pytest.importorskip("benchmarks", reason="benchmarks are in a clone, not in a wheel")
from benchmarks.all_rows import LISTED, all_rows
from benchmarks.base import processes
from benchmarks.base.measure import Contender, Effort, Missing
from benchmarks.base.row import Setting
from benchmarks.contenders.training import crnn_model, crnn_step, torch_compiled_step, torch_step
from benchmarks.contenders.training_task import TrainingTask, windows_of
from benchmarks.rows import long_and_short, sequence, train

pytestmark = pytest.mark.thread_unsafe  # they measure

CELLS = ("tanh", "gru", "lstm")
UPDATES = 4


def losses(task, make):
    """Of crnn and of a peer, made by ``make(task, start, windows, threads)``."""
    start = task.random_weights()
    windows = windows_of(task.random_ids(), task)[:3]
    steps = crnn_step(crnn_model(task, start), windows, 1), make(task, start, windows, 1)
    return [[step() for _ in range(UPDATES)] for step in steps]


def small(cell, **sizes):
    return TrainingTask(cell, **({"hidden": 5, "batch": 2, "steps": 7, "vocabulary": 9} | sizes))


# ---- peers -----------------------------------------------------------------------------------------------------------


def jax_in_this_process(cell):
    """Losses of crnn and of JAX in all its variants, and the outputs of a sequence."""
    from benchmarks.contenders.jax_peers import jax_layer, jax_step

    stack = small(cell, layers=3, embedding=4)
    net = crnn.RNN(4, 5, cell=cell, seed=0)
    x = np.random.default_rng(0).standard_normal((6, 3, 4), np.float32)
    pairs = [
        losses(small(cell), lambda *a: jax_step(*a[:3], 2)),
        losses(small(cell), lambda *a: jax_step(*a[:3], hand_written=True, one_hot=True)),
        losses(stack, lambda *a: jax_step(*a[:3], hand_written=True)),
    ]
    return pairs, [net(x)[0].tolist(), jax_layer(net.params, cell, x, 2)().tolist()]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_jax_makes_the_same_updates_with_its_own_and_with_our_backward_pass(cell):
    pytest.importorskip("jax")
    pairs, outputs = processes.call(jax_in_this_process, cell)  # JAX must not be in a process that forks
    for ours, theirs in pairs:
        np.testing.assert_allclose(theirs, ours, rtol=train.AGREEMENT)
    np.testing.assert_allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_torch_in_bf16_makes_about_the_same_updates(torch, cell):
    before = torch.get_num_threads()
    try:
        ours, theirs = losses(small(cell), lambda *a: torch_step(*a, one_hot=True, bf16=True))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(theirs, ours, rtol=train.BF16_AGREEMENT)
    assert theirs != ours


def test_the_loop_that_torch_compiles_makes_the_same_updates(torch, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: function)  # it takes a minute
    before = torch.get_num_threads()
    try:
        ours, theirs = losses(small("tanh"), torch_compiled_step)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(theirs, ours, rtol=train.AGREEMENT)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_rows_have_different_names():
    counts = Counter(row.label for row in LISTED)
    assert [label for label, count in counts.items() if count > 1] == []


def test_there_are_rows_of_small_batches_and_of_1024_units():
    names = {row.name for row in all_rows()}
    assert {"sequence-b1-lstm-1024", "sequence-b8-gru-16", "sequence-lstm-1024", "sequence-b1-64"} <= names
    assert {"train-b1-lstm-128", "train-b8-gru-128", "train-lstm-1024", "train-256"} <= names


@pytest.mark.parametrize("cell", CELLS)
def test_every_training_row_names_the_peers_of_its_goals(cell):
    peers = dict(train.peers(TrainingTask(cell, 128), quick=True))
    goals = next(row.goals for row in all_rows() if row.name == train.name_of(TrainingTask(cell, 128)))
    assert set(goals) <= set(peers)
    assert (train.TORCH_COMPILED in peers) == (cell == "tanh")


def test_a_training_row_without_peers_measures_crnn(monkeypatch):
    monkeypatch.setattr(train, "unavailable", lambda *names: Missing("left out"))
    monkeypatch.setattr(train, "peak", lambda threads: Missing("left out"))
    figures = train.measure(small("tanh"), Setting(1, Effort(2, 0.002), True))
    measured = {name for name, figure in figures.items() if figure.value is not None}
    assert measured == {"crnn", "crnn.fit", "crnn.fit, bf16"}


def test_fit_is_measured_in_both_precisions(monkeypatch):
    def fit(*args, precision="float32", **options):
        seen.append(precision)

    seen = []
    task = small("tanh")
    monkeypatch.setattr(crnn, "fit", fit)
    contenders = train.fits(task, task.random_weights(), task.random_ids(), 1)
    for contender in contenders.values():
        assert isinstance(contender, Contender)
        contender.run()
    assert seen == ["float32", "bf16"]


def test_a_sequence_row_without_peers_measures_crnn(monkeypatch):
    monkeypatch.setattr(sequence, "unavailable", lambda *names: Missing("left out"))
    monkeypatch.setattr(sequence, "peak", lambda threads: Missing("left out"))
    monkeypatch.setattr(sequence, "PEERS", ())
    figures = sequence.measure(sequence.Shape("gru", 5, 1), Setting(1, Effort(2, 0.002), True))
    measured = {name for name, figure in figures.items() if figure.value is not None}
    assert measured >= {"crnn", "crnn, frozen", "crnn, tape reused"}


def test_a_long_sequence_among_short_ones_gets_the_probabilities_of_torch(torch):
    before = torch.get_num_threads()
    try:
        figures = long_and_short.times(60, Setting(1, Effort(2, 0.002), True))
    finally:
        torch.set_num_threads(before)
    assert {name for name, figure in figures.items() if figure.value} == {"crnn", "crnn, one by one", "torch, packed"}
