# SPDX-License-Identifier: MIT
"""The benchmark rows of streams at tiny sizes run, and a contender with other results is not timed."""

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="benchmarks are in a clone, not in a wheel")
from benchmarks import all_rows, report
from benchmarks.base import latency, measure
from benchmarks.base.row import Setting
from benchmarks.contenders import native, single_steps
from benchmarks.rows import many_streams, online, stream

pytestmark = pytest.mark.thread_unsafe  # they measure, and count calls

CELLS = ("tanh", "gru", "lstm")
PEERS = ("torch", "onnxruntime")


@pytest.fixture
def setting():
    return Setting(1, measure.Effort(rounds=2, seconds=0.002), True)


@pytest.fixture
def alone(monkeypatch):
    """NumPy is the only peer, and nothing is compiled."""
    missing = measure.Missing("left out")
    for module in (stream, many_streams):
        monkeypatch.setattr(module, "unavailable", lambda *names: missing)
    monkeypatch.setattr(single_steps, "PEERS", ())
    monkeypatch.setattr(native, "library", lambda: missing)
    monkeypatch.setattr(native, "module", lambda: missing)
    monkeypatch.setattr(many_streams, "peak", lambda threads: missing)


def present(figures):
    return {name for name, figure in figures.items() if figure.value is not None}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("race", [stream.vectors, stream.characters])
def test_a_step_is_timed_and_agrees_with_numpy(alone, setting, cell, race):
    figures = race(cell, 5, setting)
    quantised = {"crnn, bf16", "crnn, int8"}
    assert present(figures) == {"crnn", "crnn, out=", "numpy, the cell", "numpy, W @ v"} | quantised
    for name in present(figures):
        assert {"p50", "max"} <= set(figures[name].percentiles)
        assert figures[name].percentiles["p50"] <= figures[name].percentiles["max"]


@pytest.mark.parametrize("cell", CELLS)
def test_peers_agree(torch, monkeypatch, setting, cell):
    monkeypatch.setattr(native, "library", lambda: measure.Missing("left out"))
    monkeypatch.setattr(native, "module", lambda: measure.Missing("left out"))
    before = torch.get_num_threads()
    try:
        for race in (stream.vectors, stream.characters):
            assert {name.split()[0] for name in present(race(cell, 5, setting))} >= {"crnn", "torch"}
        assert any(name.startswith("torch") for name in present(many_streams.batch(cell, 5, False, setting, streams=7)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_c_and_cython_agree(setting, cell):
    if isinstance(native.library(), measure.Missing) or isinstance(native.module(), measure.Missing):
        pytest.skip("cannot compile here")
    for race in (stream.vectors, stream.characters):
        assert present(race(cell, 5, setting)) >= {"crnn from C", "crnn from Cython", stream.LIMIT}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ids", [False, True])
def test_many_streams_are_timed(alone, setting, cell, ids):
    assert present(many_streams.batch(cell, 5, ids, setting, streams=7)) == {"crnn", "crnn, one by one"}


def test_adding_and_removing_streams_and_threads_are_timed(alone, setting):
    assert present(many_streams.join("lstm", 5, setting, streams=7)) >= {"crnn", many_streams.PAUSING}
    assert present(many_streams.threads("lstm", 5, 10, Setting(2, setting.effort, True))) == {"crnn"}


def test_the_loop_makes_n_blocks_of_steps_and_keeps_what_they_assign():
    seen = []
    stepper = latency.statement("y = add(k); k += 1", {"add": lambda k: seen.append(k) or k, "k": 0})
    assert len(stepper.times(4, 1)) == 4
    assert len(stepper.times(3, 5)) == 3
    assert seen == list(range(19))
    assert stepper.output() == 18


def test_a_contender_with_other_results_is_not_timed(setting):
    wrong = latency.statement("y = f()", {"f": lambda: np.array([1.0, 2.5])})
    with pytest.raises(RuntimeError, match="peer computes something else"):
        latency.time_steps({"peer": wrong}, setting.effort, expected=[[1.0, 2.0]])


def test_the_table_has_percentiles_only_where_single_steps_were_timed(alone, setting):
    by_name = {row.name: row for row in all_rows.all_rows()}
    row, other = by_name["stream-64"], by_name["gemm-64"]
    timed, plain = (row, stream.vectors("tanh", 4, setting)), (other, {"crnn": measure.Figure(1.0)})
    assert " max " in report.table([plain, timed]).splitlines()[0]
    assert " max " not in report.table([plain]).splitlines()[0]


def test_stream_names_all_rows_of_streams():
    chosen = all_rows.select(all_rows.all_rows(), ["stream"], quick=False)
    assert {row.name.split("-")[0] for row in chosen} == {"stream"}
    assert {"stream-64", "stream-lstm-512", "stream-char-gru-128", "stream-batch-128", "stream-join"} <= {
        row.name for row in chosen
    }


def test_learners_are_timed(monkeypatch, setting):
    monkeypatch.setattr(online, "unavailable", lambda name: measure.Missing("left out"))
    assert present(online.online(5, setting, samples=30)) == {"crnn", "crnn, every=10"}


def test_a_loop_in_pytorch_learns_the_same_stream(torch, setting):
    before = torch.get_num_threads()
    try:
        assert "torch, a loop" in present(online.online(5, setting, samples=30))
    finally:
        torch.set_num_threads(before)
