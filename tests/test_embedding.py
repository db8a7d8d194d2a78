# SPDX-License-Identifier: MIT
"""crnn inside somebody else's program: processes, threads, the floating-point mode, and kinds of interpreter."""

import multiprocessing
import os
import sys
import sysconfig
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import run_python
from stream_tools import CELLS, language_model, net_of, sequence, stepwise, until_let_in, whole

import crnn

TEXT = "hello, new world!\n"
DENORMAL = np.float32(1e-41)

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
# Python warns of a fork in a process that has threads, as pytest's may.
quiet_forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


# ---- processes ---------------------------------------------------------------------------------------------------


def in_child(work):
    """What ``work()`` returns, as bytes, in a forked child that then ends without a word."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, work())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        result = pipe.read()
    assert os.waitpid(child, 0) == (child, 0)
    return result


@forks
@quiet_forks
@pytest.mark.thread_unsafe
def test_workers_forked_after_loading_give_the_parents_bits(rng, tmp_path):
    """As gunicorn does with preload: load once, fork, serve; the weights' pages are shared."""
    language_model("lstm", hidden_size=64).save(tmp_path / "m.safetensors")
    model = crnn.load(tmp_path / "m.safetensors")
    start = model.stream().feed("hello")
    batch = model.stream_batch(3)
    batch.step([0, 1, 2])
    expected = start.copy().surprisal(TEXT).tobytes()
    of_batch = batch.stream(1).run([3, 4]).tobytes()
    of_model = model.forward([[0] * 4] * 5, threads=2)[0].tobytes()  # a child has none of these threads

    def work():
        assert model.stream().weights is start.weights
        assert model.forward([[0] * 4] * 5, threads=2)[0].tobytes() == of_model
        return start.surprisal(TEXT).tobytes() + batch.step([9, 3, 9])[1].tobytes()

    for _ in range(3):  # each from where the parent stands
        assert in_child(work) == expected + of_batch[: 12 * 4]
    assert start.surprisal(TEXT).tobytes() == expected


@forks
@quiet_forks
@pytest.mark.thread_unsafe
def test_a_fork_while_another_thread_steps_leaves_the_child_its_own_streams(rng):
    net, xs, done = net_of("gru", 64, 256), sequence(rng, 20, 64), threading.Event()
    expected, busy = whole(net, xs), net.stream()

    def work():
        block = sequence(rng, 200, 64)
        while not done.is_set():
            busy.run(block)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            assert in_child(lambda: stepwise(net.stream(), xs).tobytes()) == expected.tobytes()
    finally:
        done.set()
        thread.join()


def read_on(model, stream, text):
    """In another process."""
    return model.stream().feed(text[:1]).surprisal(text[1:]), stream.surprisal(text), stream.generate(20, seed=5)


@quiet_forks
@pytest.mark.thread_unsafe
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_models_and_text_streams_are_passed_to_processes(method):
    model = language_model("lstm", embedding_size=9)
    stream = model.stream().feed("hello")
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        theirs = pool.submit(read_on, model, stream, TEXT).result(120)
    ours = read_on(model, stream, TEXT)
    assert_same_bits(theirs[0], ours[0])
    assert_same_bits(theirs[1], ours[1])
    assert theirs[2] == ours[2]


@pytest.mark.skipif(find_spec("joblib") is None, reason="needs joblib")
@pytest.mark.thread_unsafe
def test_joblib_passes_models():
    import joblib

    model = language_model("gru")
    [theirs] = joblib.Parallel(n_jobs=2)([joblib.delayed(model.score)([TEXT])])
    assert theirs == model.score([TEXT])


# ---- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("H", [16, 160])  # below and above the size from which a step lets other threads run
@pytest.mark.parametrize("cell", CELLS)
def test_each_thread_with_its_own_streams_has_the_bits_it_has_alone(cell, H):
    net, threads, each = net_of(cell, 32, H), 8, 4
    inputs = np.random.default_rng(1).normal(size=(threads, each, 30, 32)).astype(np.float32)
    expected = np.stack([[whole(net, xs) for xs in rows] for rows in inputs])
    meeting = threading.Barrier(threads)

    def work(number):
        streams = [net.stream() for _ in range(each)]  # packed by whoever comes first
        batch = net.stream_batch(each)
        meeting.wait(60)
        steps = [xs.copy() for xs in inputs[number].swapaxes(0, 1)]
        singly = [[stream.step(x) for stream, x in zip(streams, xs, strict=True)] for xs in steps]
        return np.array(singly), np.array([batch.step(xs) for xs in steps])

    with ThreadPoolExecutor(threads) as pool:
        for number, got in enumerate(pool.map(work, range(threads))):
            for outputs in got:
                assert_same_bits(outputs.swapaxes(0, 1), expected[number])


def test_whoever_comes_while_a_batch_is_at_work_is_refused():
    """Certain, since it comes from within: while ``states`` are read the batch is at work."""
    net = net_of("gru", 5, [7, 9])
    xs = np.random.default_rng(2).normal(size=(4, 3, 5)).astype(np.float32)
    batch, alone, refused = net.stream_batch(3), net.stream_batch(3), []
    uses = {
        "step": lambda: batch.step(xs[0]),
        "add": batch.add,
        "remove": lambda: batch.remove(0),
        "reset": batch.reset,
        "state": lambda: batch.state(0),
        "set": lambda: batch.set_state(0, net.stream()),
        "stream": lambda: batch.stream(0),
        "active": lambda: batch.active,
    }

    class State:
        def __array__(self, dtype=None, copy=None):
            for name, use in uses.items():
                thread = threading.Thread(target=self.attempt, args=(name, use))
                thread.start()
                thread.join()
            return states[0]

        def attempt(self, name, use):
            try:
                use()
            except RuntimeError as error:
                refused.append((name, str(error)))

    for x in xs:
        refused.clear()
        expected, states = alone.step(x), alone.states()
        assert expected.any()
        batch.set_states([State(), states[1]])
        for got, wanted in zip(batch.states(), states, strict=True):
            assert_same_bits(got, wanted)
        assert [name for name, _ in refused] == list(uses)
        assert all("stream batch: another thread is using it" in message for _, message in refused)
    assert len(batch) == 3


def test_whoever_comes_while_a_block_is_run_is_refused_and_the_block_is_what_it_is():
    net, T = net_of("lstm", 64, 160), 500
    x, late = np.ones(64, np.float32), False
    while not late and T < 1e7:  # until the run takes long enough for others to come
        T *= 4
        xs = np.random.default_rng(T).normal(size=(T, 64)).astype(np.float32)
        stream, running, result = net.stream(), threading.Event(), []

        def work(stream=stream, xs=xs, running=running, result=result):
            running.set()
            result.append(until_let_in(lambda: stream.run(xs)))

        thread = threading.Thread(target=work)
        thread.start()
        running.wait(60)
        kept = np.full(160, 7, np.float32)
        uses = [
            lambda stream=stream, kept=kept: stream.step(x, out=kept),
            lambda stream=stream, xs=xs: stream.run(xs[:2]),
            stream.reset,
            lambda stream=stream: stream.state,
            lambda stream=stream: setattr(stream, "state", net.stream().state),
            stream.copy,
        ]
        begun = False
        while thread.is_alive() and not begun:
            try:
                _ = stream.state
            except RuntimeError:
                begun = True
        refused = [message_of(use) for use in uses] if begun else [None]
        late = thread.is_alive()
        thread.join()
    assert late
    assert set(refused) == {"stream: another thread is using it; give each thread its own stream"}
    assert (kept == 7).all()
    assert_same_bits(result[0], net.stream().run(xs))
    stream.reset()
    assert_same_bits(stream.run(xs[:100]), net.stream().run(xs[:100]))


def message_of(use):
    """Of the RuntimeError that it raises, or None."""
    try:
        use()
    except RuntimeError as error:
        return str(error)
    return None


# ---- the floating-point mode -------------------------------------------------------------------------------------


def denormals_live():
    """Whether this thread still computes with denormals, in and out."""
    tiny = np.full(16, DENORMAL)
    return (tiny * np.float32(0.5) > 0).all() and (tiny + tiny > DENORMAL).all()


@pytest.mark.parametrize("cell", CELLS)
def test_calls_put_the_floating_point_mode_back(rng, cell):
    assert denormals_live()
    net, model = net_of(cell, 5, [7, 9]), language_model(cell)
    stream, batch, of_text = net.stream(), net.stream_batch(3), model.stream()
    xs = np.full((3, 5), DENORMAL)
    calls = {
        "step": lambda: stream.step(xs[0]),
        "step id": lambda: stream.step(3),
        "run": lambda: stream.run(xs),
        "long run": lambda: stream.run(np.tile(xs, (200, 1))),
        "batch": lambda: batch.step(xs),
        "feed": lambda: of_text.feed(TEXT),
        "surprisal": lambda: of_text.surprisal(TEXT),
        "probabilities": of_text.next_probabilities,
        "generate": lambda: of_text.generate(3, seed=1),
        "forward": lambda: net(xs[:, None], threads=2),
    }
    for name, call in calls.items():
        call()
        assert denormals_live(), name
    with pytest.raises(ValueError, match="x: expected an id"):
        stream.step(99)
    assert denormals_live()


@pytest.mark.parametrize("cell", CELLS)
def test_denormal_inputs_count_as_zeros(rng, cell):
    net, normal = net_of(cell, 5, [7, 9]), sequence(rng, 12, 5)
    mixed = np.where(rng.random((12, 5)) < 0.5, normal, DENORMAL * np.sign(normal))
    flushed = np.where(np.abs(mixed) < np.finfo("f4").tiny, 0 * mixed, mixed)
    assert (mixed != flushed).any()
    assert_same_bits(stepwise(net.stream(), mixed), stepwise(net.stream(), flushed))
    assert_same_bits(net.stream().run(mixed), whole(net, flushed))


def test_a_state_that_fades_ends_at_zero_not_among_denormals():
    net = crnn.RNN(1, 3, cell="relu", seed=0)
    net.flat_params[...] = 0
    net.params["layer0.W_hh"][...] = np.eye(3) * 0.5
    net.params["layer0.W_xh"][...] = 1
    stream = net.stream()
    stream.step(np.ones(1, "f4"))
    ys = stream.run(np.zeros((300, 1), "f4"))
    assert (ys[:126] >= np.finfo("f4").tiny).all()
    assert not ys[126:].any()


# ---- kinds of interpreter ----------------------------------------------------------------------------------------


SUB_INTERPRETER = """
import crnn, sys
print("before", crnn.RNN(2, 3).stream().step(1).shape, flush=True)
code = '''
try:
    import crnn
except ImportError as error:
    print("refused", repr(error)[:90], flush=True)
else:
    print("imported", flush=True)
'''
try:
    from concurrent import interpreters  # 3.14
except ImportError:
    try:
        import _interpreters as raw  # 3.13
    except ImportError:
        import _xxsubinterpreters as raw
    inner = raw.create()
    raw.run_string(inner, code)
    raw.destroy(inner)
else:
    inner = interpreters.create()
    inner.exec(code)
    inner.close()
print("after", crnn.RNN(2, 3).stream().step(1).shape)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's own interpreters")
def test_a_sub_interpreter_is_refused_and_the_first_goes_on():
    done = run_python(SUB_INTERPRETER)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "before (3,)"
    assert lines[1].startswith("refused "), lines
    assert lines[2] == "after (3,)"


FREE_THREADED = """
import sys, warnings
warnings.simplefilter("error")
import crnn.stream, crnn._core.gemm, crnn._core.loss
print(sys._is_gil_enabled())
"""


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded Python")
def test_importing_crnn_leaves_the_lock_off():
    done = run_python(FREE_THREADED)
    assert done.stdout.strip() == "False", done.stderr
