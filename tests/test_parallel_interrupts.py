# SPDX-License-Identifier: MIT
"""Threads that are interrupted: no signal, at no moment, hangs a call or separates it from its workers, and a call does
not depend on its workers. Faults and results without interruptions: test_parallel.py."""

import os
import signal
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import network, run_python

from crnn import _parallel as parallel

needs_signals = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no pthread_kill on this system")
PACKAGE = os.path.dirname(parallel.__file__)


class Interruption(BaseException):
    pass


@pytest.fixture
def handler():
    """Sets what a handler of SIGUSR1 does; restored afterwards."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda function: signal.signal(signal.SIGUSR1, function)
    signal.signal(signal.SIGUSR1, before)


@needs_signals
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError, Interruption])
@pytest.mark.parametrize("signals", [1, 2, 5])
def test_handlers_run_while_the_caller_waits_and_their_exception_is_raised_when_all_is_done(handler, error, signals):
    caller, handled, ended = threading.get_ident(), [], []

    def handle(number, frame):
        handled.append(number)
        raise error(len(handled))

    def work(part):
        if threading.get_ident() == caller:
            return worker_began.wait(30)
        worker_began.set()
        time.sleep(0.01)  # the caller goes to wait
        for sent in range(signals):
            signal.pthread_kill(caller, signal.SIGUSR1)
            deadline = time.monotonic() + 30
            while len(handled) == sent and time.monotonic() < deadline:
                time.sleep(0.001)
        ended.append(part)

    worker_began = threading.Event()
    handler(handle)
    with pytest.raises(error) as caught:
        parallel.run(2, work)
    assert len(ended) == 1
    assert len(handled) == signals
    assert caught.value.args == (signals,)


@needs_signals
def test_the_exception_of_a_handler_is_raised_rather_than_that_of_a_part(handler):
    caller, handled, began = threading.get_ident(), threading.Event(), threading.Event()

    def handle(number, frame):
        handled.set()
        raise KeyboardInterrupt

    def work(part):
        if threading.get_ident() == caller:
            began.wait(30)
        else:
            began.set()
            time.sleep(0.01)
            signal.pthread_kill(caller, signal.SIGUSR1)
            handled.wait(30)
            raise ValueError

    handler(handle)
    with pytest.raises(KeyboardInterrupt):
        parallel.run(2, work)


def test_an_exception_at_any_bytecode_of_a_call_leaves_no_worker_behind(rng, monkeypatch):
    net = network(H=3, cell="gru")
    x = rng.normal(size=(2, 4, 5)).astype(np.float32)
    expected = net(x)[0]
    active, forward, caller = [], net.stack.forward, threading.get_ident()

    def slow_forward(tape, part):
        active.append(part)
        try:
            time.sleep(0.0002 if threading.get_ident() == caller else 0.002)  # the worker begins first and ends last
            forward(tape, part)
        finally:
            active.remove(part)

    monkeypatch.setattr(net.stack, "forward", slow_forward)
    count = target = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return trace if frame.f_code is slow_forward.__code__ else None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == target:
                raise Interruption
        return trace

    interrupted, before = 0, sys.gettrace()
    while True:
        target, count = target + 1, 0
        try:
            sys.settrace(trace)
            try:
                y = net(x, threads=2)[0]
            finally:
                sys.settrace(before)
        except Interruption:
            interrupted += 1
            assert not active
            continue
        if count < target:
            break
    assert interrupted > 1000
    assert_same_bits(y, expected)
    assert_same_bits(net(x, threads=2)[0], expected)


@needs_signals
def test_signals_at_random_moments_neither_hang_a_call_nor_spoil_the_next():
    code = """
import random, signal, sys
import numpy as np, crnn
net = crnn.RNN(3, 16, cell="gru", seed=0)
x = np.random.default_rng(0).random((4, 6, 3), dtype=np.float32)
expected = net(x)[0]
left = raised = 0

def attempt():
    for _ in range(2000):
        net(x, threads=2)

def handle(number, frame):
    global left, raised
    left -= 1
    if left <= 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
    while frame is not None:
        if frame.f_code is attempt.__code__:  # never outside of the try statement below
            raised += 1
            raise KeyboardInterrupt
        frame = frame.f_back

signal.signal(signal.SIGALRM, handle)
random.seed(1)
for trial in range(1000):
    left = random.choice([1, 1, 3])
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-3), random.uniform(1e-5, 2e-4))
    try:
        attempt()
    except KeyboardInterrupt:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert (net(x, threads=2)[0] == expected).all()
print(raised > 700)
"""
    result = run_python(code)
    assert result.stdout == "True\n", result.stderr


def test_a_signal_never_leaves_an_update_half_done():
    code = """
import random, signal
import numpy as np, crnn
grads = np.ones(1 << 22, np.float32)
optimizer = crnn.optim.SGD(lr=1.0)

def update():
    optimizer.update(weights, grads, threads=4)

def handle(number, frame):
    while frame is not None:
        if frame.f_code is update.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back

signal.signal(signal.SIGALRM, handle)
random.seed(1)
interrupted = 0
for trial in range(100):
    weights = np.zeros(1 << 22, np.float32)
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 4e-3))
    try:
        update()
    except KeyboardInterrupt:
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert weights[0] in (0, -1) and (weights == weights[0]).all(), weights
print(interrupted > 10)
"""
    result = run_python(code)
    assert result.stdout == "True\n", result.stderr


def test_a_call_does_without_threads_that_cannot_be_started():
    code = """
import sys
import numpy as np, crnn

net = crnn.RNN(3, 16, seed=0)
x = np.random.default_rng(0).random((4, 6, 3), dtype=np.float32)
expected = net(x)[0]

def no_threads(event, arguments):
    if event == "_thread.start_new_thread":
        raise RuntimeError("can't start new thread")

sys.addaudithook(no_threads)
print((net(x, threads=3)[0] == expected).all())
"""
    result = run_python(code)
    assert result.stdout == "True\n", result.stderr


def test_a_call_does_without_workers_that_never_come():
    code = """
import _thread
_thread.start_new_thread = lambda function, arguments: 1  # as a library of green threads may do
from crnn import _parallel as parallel
done = []
parallel.run(3, done.append)
print(done)
"""
    result = run_python(code)
    assert result.stdout == "[0, 1, 2]\n", result.stderr


def test_calls_while_the_interpreter_shuts_down_end():
    code = """
import atexit
import numpy as np, crnn
net = crnn.RNN(3, 16, seed=0)
x = np.random.default_rng(0).random((4, 6, 3), dtype=np.float32)
expected = net(x)[0]

def call(net=net, x=x, expected=expected, print=print):
    print((net(x, threads=3)[0] == expected).all(), flush=True)

class Last:
    def __del__(self, call=call):
        call()

atexit.register(call)
last = Last()
"""
    result = run_python(code)
    assert result.stdout == "True\nTrue\n", result.stderr
    assert result.returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_by_a_handler_ends_the_childs_call_and_not_the_parents():
    code = """
import os, signal, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from crnn import _parallel as parallel
caller, parent, child, began = threading.get_ident(), os.getpid(), None, threading.Event()

def handle(number, frame):
    global child
    child = os.fork()

def work(part):
    if threading.get_ident() == caller:
        return began.wait(30)
    began.set()
    time.sleep(0.02)
    signal.pthread_kill(caller, signal.SIGUSR1)
    while child is None:
        time.sleep(0.001)

signal.signal(signal.SIGUSR1, handle)
try:
    parallel.run(2, work)
except RuntimeError as error:
    os._exit(7 if os.getpid() != parent and "forked" in str(error) else 1)
done = []
parallel.run(2, done.append)
print(sorted(done), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = run_python(code)
    assert result.stdout == "[0, 1] 7\n", result.stderr


def test_many_callers_share_few_workers_and_none_waits_for_a_busy_one():
    """A worker that is at work on a long part delays only the call that it belongs to."""
    release, began = threading.Event(), threading.Event()

    def long(part):
        began.set()
        release.wait(30)

    callers = [threading.Thread(target=parallel.run, args=(2, long)) for _ in range(3)]
    for caller in callers:
        caller.start()
    assert began.wait(30)
    done = []
    parallel.run(2, done.append)
    assert sorted(done) == [0, 1]
    release.set()
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()


def test_an_idle_pool_keeps_nothing_alive():
    class Work:
        def __call__(self, part):
            pass

    work = Work()
    parallel.run(3, work)
    reference, deadline = weakref.ref(work), time.monotonic() + 30
    del work
    while reference() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert reference() is None
