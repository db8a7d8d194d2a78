# SPDX-License-Identifier: MIT
"""Public calls of which every allocation fails once: MemoryError, or the right result; and what they worked on is as it
was, or as it should be. Each case runs in a separate process."""

import copy
import itertools
import os
import pickle
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from model_tools import run_python

import crnn

pytestmark = [
    pytest.mark.skipif(find_spec("_testcapi") is None, reason="needs CPython's _testcapi"),
    pytest.mark.skipif(sys.platform == "win32", reason="is only run where CPython's tests of it are"),
]

# What Python and NumPy raise, besides SystemError, instead of a MemoryError that they have lost. NumPy 2.4
# crashes when memory ends in `array[ids] = values` and the like; so the cases here have no lengths.
DISGUISES = (
    *("can't allocate", "already been registered", "Can't pickle"),
    *("or os.PathLike object", "os.PathLike or integer"),  # the path was one
)
AT_EASE = 40  # so many calls in a row without a MemoryError: there is no allocation left to fail
CELL, H = "lstm", 8


def same(one, other):
    """Whether two results have the same bits."""
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.tobytes() == other.tobytes()
    return one == other


class Case:
    """``call`` is a public call; ``after(result)`` raises AssertionError if something is wrong. None: MemoryError."""

    steps = 1  # every how many allocations one fails

    def call(self):
        raise NotImplementedError

    def after(self, result):
        if not hasattr(self, "expected"):
            self.expected = self.call()
        assert result is None or same(result, self.expected)
        assert same(self.call(), self.expected)


X = np.random.default_rng(1).normal(size=(6, 3, 5)).astype(np.float32)


class Construct(Case):
    def call(self):
        return crnn.RNN(5, H, 2, CELL, seed=0).flat_params


class Network(Case):
    threads = 1

    def __init__(self):
        self.net = crnn.RNN(5, H, 2, CELL, bidirectional=True, dropout=0.3, seed=0)

    def call(self):
        return self.net(X, threads=self.threads)


class NetworkInThreads(Network):
    threads = 3


class Backward(Network):
    steps = 2

    def call(self):
        self.net.flat_grads.fill(0)
        y, _, tape = self.net.forward(X, threads=self.threads, dropout_seed=1)
        dx, _ = self.net.backward(tape, y, threads=self.threads)
        return y, dx, self.net.flat_grads.copy()


class BackwardInThreads(Backward):
    threads = 2


class StreamStep(Case):
    """A step that fails is not done; a step that is done is done once."""

    H = 8

    def __init__(self):
        self.net = crnn.RNN(5, self.H, cell=CELL, seed=0)
        self.stream, self.other, self.count = self.net.stream(), self.net.stream(), 0

    def call(self):
        return self.stream.step(X[0, 0])

    def after(self, result):
        if result is not None:
            assert same(result, self.other.step(X[0, 0]))
        assert same(self.stream.state, self.other.state)


class LargeStreamStep(StreamStep):
    H = 200  # releases the GIL


class StreamRun(StreamStep):
    def call(self):
        return self.stream.run(X[:, 0])

    def after(self, result):
        if result is not None:
            assert same(result, self.other.run(X[:, 0]))
        assert same(self.stream.state, self.other.state)


class StreamUse(Case):
    def __init__(self):
        self.net = crnn.RNN(5, [H, 7], cell=CELL, seed=0)
        self.stream = self.net.stream()
        self.stream.run(X[:, 0])

    def call(self):
        fork = self.stream.copy()
        fork.state = self.stream.state
        return pickle.loads(pickle.dumps(fork)).step(X[0, 0])


class BatchRows(Case):
    """Rows come, go and are stepped: the batch is always the one of the calls that did not fail."""

    def __init__(self):
        self.net = crnn.RNN(5, H, cell=CELL, seed=0)
        self.batch = self.net.stream_batch(2)
        self.single = {row: self.net.stream() for row in range(2)}
        self.turns = itertools.cycle([self.add, self.step, self.add, self.remove, self.step, self.select, self.set])
        self.turn = next(self.turns)

    def call(self):
        return self.turn(do=True)

    def after(self, result):
        if result is not None:
            self.turn(do=False, result=result)
            self.turn = next(self.turns)
        assert self.batch.active.tolist() == sorted(self.single)
        assert len(self.batch) == len(self.single)
        for row, stream in self.single.items():
            assert same(self.batch.state(row), stream.state)

    def add(self, do, result=None):
        if do:
            return self.batch.add(3)
        assert not set(result.tolist()) & set(self.single)
        self.single |= {row: self.net.stream() for row in result.tolist()}

    def remove(self, do, result=None):
        rows = sorted(self.single)[::2]
        if do:
            self.batch.remove(rows)
            return True
        for row in rows:
            del self.single[row]

    def step(self, do, result=None):
        rows = sorted(self.single)[::-1]
        x = np.arange(len(rows) * 5, dtype=np.float32).reshape(-1, 5) / 50
        if do:
            return self.batch.step(x, rows=rows)
        for row, each, y in zip(rows, x, result, strict=True):
            assert same(self.single[row].step(each), y)

    def select(self, do, result=None):
        rows = (sorted(self.single) * 3)[:5]
        if do:
            self.batch.select(rows)
            return True
        self.single = {m: self.single[row].copy() for m, row in enumerate(rows)}

    def set(self, do, result=None):
        row = max(self.single)
        if do:
            self.batch.set_state(row, self.batch.state(min(self.single)))
            return True
        self.single[row] = self.single[min(self.single)].copy()


def language_model():
    return crnn.LanguageModel(crnn.Vocab.from_text("hello world"), CELL, H, seed=1)


class Text(Case):
    def __init__(self):
        self.model = language_model()

    def call(self):
        stream = self.model.stream().feed("hello")
        nats, text = stream.surprisal(" world"), stream.generate(5, seed=1, top_k=4, top_p=0.9)
        return nats, text, stream.next_probabilities(), self.model.score(["hello"])


class Gradients(Case):
    def __init__(self):
        self.model, self.workspace = language_model(), crnn.models.passes.predictor.Workspace()
        self.ids = np.arange(12).reshape(4, 3) % 8

    def call(self):
        self.model.flat_grads.fill(0)
        total, count, _ = self.model.loss_and_gradients(self.ids, self.ids, workspace=self.workspace, threads=2)
        return total, count, self.model.flat_grads.copy()


class Files(Case):
    """The file is the old one or the new one, and no temporary file stays."""

    steps = 7

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())
        self.models = [language_model(), language_model()]
        self.models[1].flat_params[:] += 1
        self.path = self.folder / "m.safetensors"
        self.models[0].save(self.path)
        self.contents = [model.to_bytes() for model in self.models]

    def call(self):
        self.models[1].save(self.path)
        return crnn.load(self.path).flat_params

    def after(self, result):
        assert result is None or same(result, self.models[1].flat_params)
        assert self.path.read_bytes() in self.contents
        assert crnn.load(self.path).vocab == self.models[0].vocab
        self.models[0].save(self.path)
        assert len(os.listdir(self.folder)) == 1


class Copies(Case):
    steps = 7

    def __init__(self):
        self.model = language_model()

    def call(self):
        return copy.deepcopy(self.model).flat_params, pickle.loads(pickle.dumps(self.model)).flat_params


class Fit(Case):
    """The model that could not be trained is one that can be."""

    steps = 97

    def call(self):
        model = language_model()
        log = crnn.fit(model, np.arange(60) % 8, epochs=1, batch_size=2, bptt=7, threads=2, progress=False)
        return model.flat_params, log.column("train_loss")


CASES = {case.__name__: case for case in (
    Construct, Network, NetworkInThreads, Backward, BackwardInThreads, StreamStep, LargeStreamStep, StreamRun,
    StreamUse, BatchRows, Text, Gradients, Files, Copies, Fit,
)}  # fmt: skip


def main(name: str, most: int) -> None:
    """Let allocation n fail, for n = 1, 2, ..., until none is left."""
    import _testcapi

    case = CASES[name]()
    if not isinstance(case, BatchRows | Files | StreamStep):
        case.call()  # imports and caches
    failed, successes, n = 0, 0, 0
    while successes < AT_EASE and n < most:
        n += case.steps
        error = result = None
        _testcapi.set_nomemory(n, n + 1)
        try:
            result = case.call()
        except MemoryError as caught:
            error = caught
        except BaseException as caught:
            if not isinstance(caught, SystemError) and not any(disguise in str(caught) for disguise in DISGUISES):
                raise
            error = caught
        finally:
            _testcapi.remove_mem_hooks()
        failed += error is not None
        successes = 0 if error is not None else successes + 1
        assert (error is None) == (result is not None)
        case.after(result)
    print("failed" if failed else "none failed")


@pytest.mark.parametrize("name", CASES)
def test_every_allocation_that_fails_is_a_memory_error_or_of_no_account(name):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    result = run_python(code + f"from test_out_of_memory import main; main({name!r}, 4000)")
    assert result.stdout == "failed\n", result.stderr[-3000:]
    assert result.returncode == 0
