# SPDX-License-Identifier: MIT
"""Threads: every part is done once, faults reach the caller, callers do not disturb each other, a fork works."""

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import network, run_python

from crnn import _parallel as parallel
from crnn.checks import check_threads


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_part_runs_once_and_part_0_in_this_thread(threads):
    done = []
    parallel.run(threads, lambda part: done.append((part, threading.get_ident())))
    assert sorted(part for part, _ in done) == list(range(threads))
    assert dict(done)[0] == threading.get_ident()


def test_parts_run_at_the_same_time():
    meeting = threading.Barrier(3)
    parallel.run(3, lambda part: meeting.wait(30))


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_fault_in_any_part_reaches_the_caller_when_all_are_done(failing):
    done = []

    def work(part):
        if part == failing:
            raise KeyError(part)
        done.append(part)

    for _ in range(20):
        done.clear()
        with pytest.raises(KeyError, match=str(failing)):
            parallel.run(3, work)
        assert set(done) <= {0, 1, 2} - {failing}  # what had not begun is not run
        assert len(set(done)) == len(done)
    done.clear()
    parallel.run(3, done.append)  # the workers live on
    assert len(done) == 3


def test_an_error_in_a_window_reaches_the_caller_of_forward(rng, monkeypatch):
    net = network()
    monkeypatch.setattr(net.stack, "forward", lambda tape, part: 1 / part.b0)
    with pytest.raises(ZeroDivisionError):
        net(rng.normal(size=(3, 4, 5)).astype(np.float32), threads=2)


def test_shares_cover_everything_once_in_whole_units():
    for n in (1, 7, 16, 33, 100):
        for unit in (1, 8, 16):
            for parts in (1, 2, 3, 40):
                shares = [parallel.part_range(n, part, parts, unit) for part in range(parts)]
                assert shares[0][0] == 0
                assert shares[-1][1] == n
                assert all(one[1] == other[0] for one, other in itertools.pairwise(shares))
                assert all(b0 % unit == 0 or b0 == n for b0, _ in shares)
                sizes = [b1 - b0 for b0, b1 in shares]
                assert max(sizes) <= (n // unit // parts + 1) * unit + unit


@pytest.mark.parametrize("threads", [0, -1, 1.0, "2", None, True])
def test_bad_numbers_of_threads_are_named(threads):
    with pytest.raises(ValueError, match=f"threads: expected an integer of at least 1, got {threads!r}"):
        check_threads(threads)
    with pytest.raises(ValueError, match="threads: "):
        network()(np.zeros((1, 1, 5), np.float32), threads=threads)


@pytest.mark.parametrize("threads", [3, 16])
def test_more_threads_than_rows_or_columns(rng, threads):
    net = network(H=2)
    x, dy = rng.normal(size=(3, 2, 5)).astype(np.float32), rng.normal(size=(3, 2, 2)).astype(np.float32)
    y, _, tape = net.forward(x, threads=threads)
    dx, _ = net.backward(tape, dy, threads=threads)
    grads = net.flat_grads.copy()
    net.flat_grads.fill(0)
    expected, _, tape = net.forward(x)
    expected_dx, _ = net.backward(tape, dy)
    for got, wanted in ((y, expected), (dx, expected_dx), (grads, net.flat_grads)):
        assert_same_bits(got, wanted)


def test_many_callers_at_once_get_their_own_results(rng):
    net = network(H=37, L=2)
    xs = [rng.normal(size=(5, 4, 5)).astype(np.float32) for _ in range(8)]
    expected = [net(x)[0] for x in xs]

    def call(number):
        for _ in range(30):
            assert_same_bits(net(xs[number], threads=2)[0], expected[number])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))


def test_nothing_is_started_at_import_nor_by_one_thread():
    code = """
import _thread, os, time, numpy as np, crnn
net = crnn.RNN(3, 4)
net(np.ones((2, 2, 3), np.float32))
print(_thread._count())
net(np.ones((2, 2, 3), np.float32), threads=2)
net(np.ones((2, 2, 3), np.float32), threads=2)
deadline = time.monotonic() + 30
while not _thread._count() and time.monotonic() < deadline:  # a thread counts itself when it begins
    time.sleep(0.001)
time.sleep(0.02)
print(_thread._count())
net(np.ones((2, 5000, 3), np.float32), threads=3000)
time.sleep(0.1)
print(_thread._count() < 256, _thread._count() <= 4 * os.cpu_count())
"""
    result = run_python(code)
    assert result.stdout.split() == ["0", "1", "True", "True"], result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_trains_with_threads():
    code = """
import os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, since 3.12, of any fork with threads
signal.alarm(60)
import numpy as np, crnn

def train():
    model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=19)
    crnn.fit(model, np.arange(200) % 3, epochs=1, batch_size=4, bptt=8, threads=2)
    return model.flat_params.tobytes()

mine = train()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, train())
    os._exit(0)
os.close(writer)
with open(reader, "rb") as file:
    theirs = file.read()
assert os.waitpid(child, 0)[1] == 0
assert theirs == mine and len(mine) > 1000
assert train() == mine
print("the same")
"""
    result = run_python(code)
    assert result.stdout == "the same\n", result.stderr
