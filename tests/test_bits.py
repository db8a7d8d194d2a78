# SPDX-License-Identifier: MIT
"""The promise of bits: one seed and one data set give the same weights at any number of threads, at any position in the
batch, on every instruction set, streamed or in one window, interrupted or not, today and in every later release."""

import hashlib

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, network, text

import crnn
from crnn._core import dispatch

pytestmark = pytest.mark.thread_unsafe  # the instruction set is the process's

# Of the weights after `trained`. A change here is a change of the results of everybody's training: if it is meant, it
# belongs in the change log; if not, it is a fault, perhaps of one CPU or one compiler.
PINNED = {
    ("tanh", "float32", None): "71715961f373fca5b37575c27eceb9325519e9d381667c8e1d3678d460f9027d",
    ("tanh", "float64", None): "a7c56f4baca9e2619de1f3ccaed42902460a2240fb9e0688ab97a85775df63cc",
    ("relu", "float32", None): "25a3f72e62ea7b1de63cd9883da47046a3f3d4e4302c734b8ac5a1d9770dd70c",
    ("tanh", "float32", 9): "c9f2acae2dad0872d187f609e24a26cbb7e33a7681ee2ddf2fcefa7c03194134",
}


def trained(cell="tanh", dtype="float32", embedding_size=None, threads=1):
    """The weights of two layers after 50 updates that use clipping, a schedule and Adam; the last window is short."""
    corpus = crnn.TextCorpus.from_text(text(1100), valid=0.05, test=0)
    init = {"recurrent_init": "orthogonal", "input_init": "glorot"}  # defaults may change, these may not
    model = crnn.LanguageModel(corpus.vocab, cell, 37, 2, embedding_size=embedding_size, dtype=dtype, seed=5, **init)
    log = crnn.fit(
        model, corpus, epochs=3, max_updates=50, batch_size=5, bptt=11, clip_norm=0.5, threads=threads,
        optimizer=crnn.optim.AdamW(lr=1e-2), schedule=crnn.optim.linear(0.1, warmup=5), log_every=1,
    )  # fmt: skip
    assert log.column("update")[-1] == 50
    losses = log.column("train_loss")
    assert losses[-1] < 0.9 * losses[0]
    return model.flat_params


@pytest.mark.parametrize(("cell", "dtype", "embedding_size"), PINNED)
def test_training_gives_the_pinned_bits(isa, cell, dtype, embedding_size):
    weights = trained(cell, dtype, embedding_size)
    assert np.isfinite(weights).all()
    little_endian = weights.astype(weights.dtype.newbyteorder("<")).tobytes()
    assert hashlib.sha256(little_endian).hexdigest() == PINNED[cell, dtype, embedding_size]


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_training_does_not_depend_on_threads(isa, threads):
    """More threads than rows in the batch, too."""
    assert_same_bits(trained(threads=threads), trained())


def test_training_of_a_large_model_does_not_depend_on_threads():
    """Packed weights, clipping, norm and update are split over threads too, in models with many parameters."""
    corpus = crnn.TextCorpus.from_text(text(300), valid=0.05, test=0)
    weights = []
    for threads in 1, 2, 4:
        model = crnn.LanguageModel(corpus.vocab, "gru", 832, seed=5)
        assert model.flat_params.size > 2 * 2**20  # so that two threads share them
        crnn.fit(
            model, corpus, max_updates=3, batch_size=3, bptt=5, clip_norm=0.5, clip_value=0.01, threads=threads,
            optimizer=crnn.optim.AdamW(lr=1e-2), progress=False,
        )  # fmt: skip
        weights.append(model.flat_params)
    for other in weights[1:]:
        assert_same_bits(other, weights[0])


@pytest.mark.parametrize("optimizer", crnn.optim.RULES)
def test_every_optimizer_gives_the_same_bits_on_every_instruction_set(isas, optimizer):
    results = []
    for isa in isas:
        dispatch.use_isa(isa)
        model = language_model(text(500), H=19)
        crnn.fit(
            model, np.arange(400) % 7, epochs=1, batch_size=3, bptt=9, optimizer=crnn.optim.RULES[optimizer](lr=0.01)
        )
        results.append(model.flat_params.copy())
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("rule", ["orthogonal", "uniform", "0.5*orthogonal"])
def test_initial_weights_have_the_same_bits_on_every_instruction_set(isas, dtype, rule):
    results = []
    for isa in isas:
        dispatch.use_isa(isa)
        results.append(crnn.RNN(5, 67, 2, recurrent_init=rule, dtype=dtype.name, seed=4).flat_params.copy())
    for result in results[1:]:
        assert_same_bits(result, results[0])


# ---- batch, time, streaming ------------------------------------------------------------------------------------


def pass_through(net, x, h0, dy, threads=1):
    y, state, tape = net.forward(x, h0, threads=threads)
    dx, dh0 = net.backward(tape, dy, threads=threads)
    return y, state, dh0, dx


@pytest.mark.parametrize("kind", ["dense", "ids", "embedding"])
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_a_permuted_batch_gives_permuted_results(rng, isa, dtype, cell, kind):
    T, B, D, H = 4, 29, 11, 37
    net = network(D, H, 2, cell, dtype.name, E=6 if kind == "embedding" else None)
    x = rng.normal(size=(T, B, D)).astype(dtype) if kind == "dense" else rng.integers(D, size=(T, B))
    h0, dy = rng.normal(size=(2, B, H)).astype(dtype), rng.normal(size=(T, B, H)).astype(dtype)
    order = rng.permutation(B)
    straight = pass_through(net, x, h0, dy)
    permuted = pass_through(net, x[:, order], h0[:, order], dy[:, order], threads=2)
    for one, other in zip(straight, permuted, strict=True):
        if one is not None:
            assert_same_bits(one[:, order], other)


def test_a_permuted_batch_gives_permuted_losses(rng, isa):
    model = language_model(H=37, L=2)
    V = len(model.vocab)
    ids, targets = rng.integers(V, size=(2, 6, 29))
    order = rng.permutation(29)
    losses, state = model.losses(ids, targets)
    permuted, permuted_state = model.losses(ids[:, order], targets[:, order], threads=2)
    assert_same_bits(losses[:, order], permuted)
    assert_same_bits(state[:, order], permuted_state)


@pytest.mark.parametrize("batch", [1, 2, 13, 100])
def test_a_row_is_the_same_alone_and_in_company(rng, isa, dtype, batch):
    net = network(5, 37, 2, dtype=dtype.name)
    x = rng.normal(size=(4, batch, 5)).astype(dtype)
    y, _ = net(x)
    last = batch - 1
    assert_same_bits(net(x[:, last:])[0], y[:, last:])


@pytest.mark.parametrize("kind", ["dense", "ids", "embedding"])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_windows_with_the_state_carried_give_the_bits_of_the_whole(rng, isa, dtype, kind, window):
    """Of single steps too. An embedding takes short and long windows in different ways, which must not show."""
    D, H = 11, 37
    net = network(D, H, 2, dtype=dtype.name, E=6 if kind == "embedding" else None)
    x = rng.normal(size=(14, 3, D)).astype(dtype) if kind == "dense" else rng.integers(D, size=(14, 3))
    whole, end = net(x)
    parts, state = [], None
    for t in range(0, 14, window):
        y, state = net(x[t : t + window], state)
        parts.append(y)
    assert_same_bits(np.concatenate(parts), whole)
    assert_same_bits(state, end)


def test_forward_and_backward_have_the_same_bits_on_every_instruction_set(rng, isas, dtype):
    T, B, D, H = 5, 13, 17, 67
    x, dy = rng.normal(size=(T, B, D)).astype(dtype), rng.normal(size=(T, B, H)).astype(dtype)
    results = []
    for isa in isas:
        dispatch.use_isa(isa)
        net = network(D, H, 3, dtype=dtype.name)
        results.append([*pass_through(net, x, None, dy, threads=2), net.flat_grads])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same_bits(one, other)


def test_generation_and_evaluation_are_the_same_on_every_instruction_set(isas):
    texts, results = set(), set()
    for isa in isas:
        dispatch.use_isa(isa)
        model = language_model(H=37, L=2)
        texts.add(model.generate("hello", 200, seed=3, top_p=0.95, temperature=0.9))
        results.add(model.evaluate("hello, new world!\n" * 20, batch_size=3))
    assert len(texts) == 1
    assert len(results) == 1
