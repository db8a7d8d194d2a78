# SPDX-License-Identifier: MIT
"""Threads that use one network and one model at the same time, while weights count as changed; and forked children."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import crnn

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 16, 5)).astype(np.float32)
IDS = RNG.integers(0, 10, (30, 16)).astype(np.int32)


def calls():
    """What threads call, by name: each returns bytes that only weights and arguments determine."""
    net = crnn.RNN(5, 65, 2, "lstm", seed=0)
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcdefgh \n"), "gru", 65, 2, seed=1)

    def steps():
        stream = model.stream()
        return b"".join(stream.step(int(token)).tobytes() for token in IDS[:, 0])

    def written():
        """Weights that get the values that they have, by crnn and by a program."""
        net._parameters.changed()
        model.net._parameters.changed()
        net.flat_params[...] = net.flat_params
        return b""

    return {
        "net": lambda: net(X)[0].tobytes(),
        "two threads": lambda: net(X, threads=2)[0].tobytes(),
        "forward": lambda: model.forward(IDS, threads=2)[0].tobytes(),
        "losses": lambda: model.losses(IDS[:-1], IDS[1:])[0].tobytes(),
        "score": lambda: np.asarray(model.score(["abc", "dead beef"])).tobytes(),
        "generate": lambda: model.generate("a", length=20, seed=1).encode(),
        "steps": steps,
        "quantize": lambda: model.quantize().forward(IDS)[0].tobytes(),
        "written": written,
    }


@pytest.mark.thread_unsafe
def test_threads_that_share_a_model_get_the_bits_of_one_thread():
    named = calls()
    expected = {name: call() for name, call in named.items()}
    jobs = [name for name in named for _ in range(25)]
    RNG.shuffle(jobs)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: named[name](), jobs))
    assert {name for name, result in zip(jobs, results, strict=True) if result != expected[name]} == set()


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.skipif(FREE_THREADED, reason="a child can wait for a lock of the interpreter")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_of_forks_while_threads_compute_have_the_bits_of_their_parent():
    named = calls()
    del named["written"]
    expected = {name: call() for name, call in named.items()}
    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(named[name]) for name in [*named] * 25]
        for _ in range(8):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                same = False
                try:
                    same = all(named[name]() == result for name, result in expected.items())
                finally:
                    os._exit(0 if same else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert all(job.result() for job in busy)
