# SPDX-License-Identifier: MIT
"""benchmarks.latency and what it rests on: peers of stacks agree, what is not there is skipped, memory stays alive."""

import gc
import itertools
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import crnn

pytest.importorskip("benchmarks", reason="benchmarks are in a clone, not in a wheel")
from benchmarks import latency as command
from benchmarks import report
from benchmarks.all_rows import all_rows
from benchmarks.base import latency, processes
from benchmarks.base.measure import CoreShare, Effort, Figure, Missing
from benchmarks.base.row import Setting
from benchmarks.contenders import c_program, native
from benchmarks.contenders.inference import PEERS, Work
from benchmarks.contenders.precisions import PRECISIONS, in_precision
from benchmarks.rows import latency as rows

pytestmark = pytest.mark.thread_unsafe  # they measure

CELLS = ("tanh", "gru", "lstm")
SMALL = rows.Shape(layers=2, hidden=5, steps=4, inputs=3)


@pytest.fixture
def setting():
    return Setting(1, Effort(rounds=2, seconds=0.002), True)


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(rows, "PEERS", ())
    monkeypatch.setattr(c_program, "compiled", lambda: Missing("left out"))


def timed(figures):
    return {name for name, figure in figures.items() if figure.value is not None}


def stack(cell):
    model = crnn.SequenceRegressor(3, 2, 5, 2, cell, scale=False, seed=3)
    for values in model.params.values():
        values[...] = np.random.default_rng(4).uniform(-1, 1, values.shape)
    return model


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_every_shape_has_a_row_for_steps_and_one_for_windows():
    names = {row.name: row for row in all_rows()}
    for shape, kind in itertools.product(rows.SHAPES, rows.KINDS):
        assert names[f"latency-{shape}-{kind}"].long


def test_a_step_and_a_window_are_timed_in_every_precision(alone, setting):
    names = {"crnn", *(f"crnn, {precision}" for precision in PRECISIONS if precision != "float32")}
    assert timed(rows.measure(SMALL, "step", setting)) == names
    figures = rows.measure(SMALL, "window", setting)
    assert timed(figures) == {*names, *(f"{name}, predict" for name in names)}
    assert figures["crnn, from C"].note == "left out"


def test_the_precisions_of_a_model_without_quantize_are_skipped():
    missing = in_precision(SimpleNamespace(), "int8")
    assert isinstance(missing, Missing)
    assert missing.reason == "SimpleNamespace has no quantize"


def test_a_precision_that_a_model_refuses_is_skipped_with_its_reason():
    def refuse(precision):
        raise ValueError("gru only")

    missing = in_precision(SimpleNamespace(quantize=refuse), "int8")
    assert isinstance(missing, Missing)
    assert missing.reason == "int8: gru only"


def test_a_precision_whose_outputs_are_far_off_is_not_timed(alone, setting, monkeypatch):
    wrong = SimpleNamespace(stream=lambda: crnn.SequenceRegressor(3, 1, 5, 2, "lstm", scale=False, seed=9).stream())
    wrong.predict = None
    monkeypatch.setattr(crnn.SequenceRegressor, "quantize", lambda model, precision: wrong)
    with pytest.raises(RuntimeError, match="crnn, bf16 computes something else"):
        rows.measure(SMALL, "step", setting)


def test_an_unknown_shape_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["D"])
    assert "SHAPE: expected some of A, B, C, got 'D'" in capsys.readouterr().err


# ---- peers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("cell", CELLS)
def test_a_peer_gives_the_outputs_of_crnn_for_a_stack(peer, cell):
    if missing := peer.missing(cell):
        pytest.skip(missing.reason)
    model = stack(cell)
    x = np.random.default_rng(5).standard_normal((4, 1, 3), np.float32)
    expected = model.stream().run(x[:, 0])

    def agree(y, expected):
        y = np.ravel(y.numpy() if hasattr(y, "numpy") else y)
        np.testing.assert_allclose(y, np.ravel(expected), atol=peer.tolerance * np.abs(expected).max())

    window = peer.make(Work(model.params, cell, x, last=True), 1)
    step = peer.make(Work(model.params, cell, x[:1], carried=True), 1)
    gc.collect()  # buffers have no other owner than the runs
    for _ in range(2):  # each run starts from zero
        agree(window(), expected[-1])
    for y in model.stream().run(np.repeat(x[:1, 0], 4, 0)):
        agree(step(), y)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("cell", CELLS)
def test_a_peer_gives_the_outputs_of_crnn_at_all_steps_of_a_batch(peer, cell):
    if missing := peer.missing(cell):
        pytest.skip(missing.reason)
    net = crnn.RNN(3, 5, cell=cell, seed=0)
    x = np.random.default_rng(5).standard_normal((4, 2, 3), np.float32)
    expected = net(x)[0]
    y = peer.make(Work(net.params, cell, x), 1)()
    y = np.array(y.numpy() if hasattr(y, "numpy") else y).reshape(expected.shape)
    np.testing.assert_allclose(y, expected, atol=peer.tolerance * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", rows.KINDS)
def test_the_c_program_agrees(setting, kind):
    if isinstance(c_program.compiled(), Missing):
        pytest.skip("cannot compile here")
    assert {f"crnn{p}, from C" for p in ("", ", bf16", ", int8")} <= timed(rows.measure(SMALL, kind, setting))


def test_memory_that_is_read_from_c_stays_alive():
    array = np.zeros(3)
    alive, pointer = weakref.ref(array), native._address(array)
    del array
    gc.collect()
    assert pointer is not None
    assert alive() is not None


def test_a_limit_reads_memory_that_only_it_refers_to(monkeypatch):
    seen = []
    fake = SimpleNamespace(bench_reads=lambda ns, n, block, memory, bytes_: seen.append(memory))
    made = []
    zeros = np.zeros
    monkeypatch.setattr(native, "library", lambda: fake)
    monkeypatch.setattr(native.np, "zeros", lambda *a: made.append(weakref.ref(array := zeros(*a))) or array)
    stepper = native.reading(1 << 12)
    gc.collect()
    assert made[0]() is not None
    stepper.times(20, 5)
    start = made[0]().ctypes.data
    assert start <= seen[0].value <= start + 64


# ---- measurement -----------------------------------------------------------------------------------------------------


def test_measured_processes_may_write_bytecode_and_choose_their_kernels(monkeypatch):
    for name in processes.UNSET:
        monkeypatch.setenv(name, "1")
    assert processes.python(["-c", "import sys; print(sys.dont_write_bytecode)"], 2).strip() == "False"
    assert not set(processes.UNSET) & set(processes.environment_for(1))


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        (99, {"p50", "max"}),
        (100, {"p50", "p99", "max"}),
        (999, {"p50", "p99", "max"}),
        (1000, {"p50", "p99", "p99.9", "max"}),
    ],
)
def test_a_percentile_needs_a_step_above_it(steps, labels):
    assert set(latency._percentiles(np.arange(steps, dtype=float))) == labels


def test_at_least_the_asked_number_of_slow_steps_is_timed():
    calls = []

    def slow(n, block):
        calls.append((n, block))
        return np.full(n, 2e6 * block)

    stepper = latency.Stepper(slow, lambda n, block: np.zeros(n))
    figures = latency.time_steps({"slow": stepper}, Effort(3, 0.01), counts=(60, 1000))
    assert figures["slow"].note.startswith("60 single steps")
    assert figures["slow"].value == 2000
    assert {block for _, block in calls[2:]} <= {1, 3}  # a slow step is a block


def test_the_share_of_a_core_is_that_of_the_process_that_works():
    seconds = itertools.count()
    cores = CoreShare()
    with cores.of("another process", lambda: float(next(seconds))):
        pass
    assert cores.minimum["another process"] > 1


def test_the_table_is_markdown_too():
    row = next(row for row in all_rows() if row.name == "latency-A-step")
    figures = {"crnn": Figure(1.0, percentiles={"p50": 1.0, "max": 2.0}), "peer": Figure(None, "not installed: peer")}
    about = {"cpu": "a CPU", "cores": 2, "date": "today", "load": [0.1], "peak": 117.2, "system": "Linux"}
    about |= {"crnn": "1", "crnn.isa()": "generic", "python": "3", "versions": {}, "variables": {}}
    text = report.markdown(about, [(row, figures)])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert len(table) == 4
    assert "multiply-add peak of one core: 117 GFLOP/s" in text
    assert "not installed: peer" in table[-1]
