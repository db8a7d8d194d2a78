# SPDX-License-Identifier: MIT
"""Large vocabularies: a window's outputs are computed in blocks of rows, and one-hot ids select only their own rows.
Both bound memory and change no bits."""

import tracemalloc

import numpy as np
import pytest

import crnn
from crnn.models.outputs import blocks
from crnn.models.passes.predictor import Workspace
from crnn.nn import inputs

pytestmark = pytest.mark.thread_unsafe  # the instruction set, and the size of a block, are the process's

VOCAB = crnn.Vocab(tuple(f"w{i}" for i in range(131)), unit="word")
TOKENS = 13, 7  # T, B: fewer than words
MANY = 31, 7  # more: the input computes a table of all words


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 rows."""

    def set_blocks():
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
        monkeypatch.setattr(blocks, "LEAST_ROWS", 16)

    return set_blocks


def results_of(model, shape, threads, **options):
    """Losses and gradients of two windows, and an evaluation, as bytes."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, len(VOCAB), shape), rng.integers(-1, len(VOCAB), shape)
    model.flat_grads.fill(0)
    workspace, state, found = Workspace(), None, []
    for _ in range(2):
        total, _, state = model.loss_and_gradients(x, y, state, threads=threads, workspace=workspace, **options)
        found.append(total)
    assert workspace.head is not None
    losses, _ = model.losses(x, y, threads=threads)
    evaluation = model.evaluate(rng.integers(0, len(VOCAB), 301), batch_size=5, threads=threads)
    return workspace.head.blocked, (found, model.flat_grads.tobytes(), losses.tobytes(), evaluation)


MODELS = {
    "one-hot": ({}, {}),
    "embedding": ({"embedding_size": 9}, {}),
    "tied": ({"tie_weights": True}, {}),
    "dropout": ({"dropout": 0.3, "tie_weights": True}, {"dropout_seed": 3}),
    "variational dropout": ({"dropout": 0.3, "variational_dropout": True}, {"dropout_seed": 3}),
    "bf16": ({"embedding_size": 9}, {"precision": "bf16"}),
    "tied, bf16": ({"tie_weights": True}, {"precision": "bf16"}),
    "float64": ({"dtype": "float64", "tie_weights": True}, {}),
    "sum": ({}, {"reduction": "sum"}),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [TOKENS, MANY])
def test_blocks_and_threads_do_not_change_bits(each_isa, small_blocks, name, shape):
    of_model, of_update = MODELS[name]
    model = crnn.LanguageModel(VOCAB, "lstm", 21, 2, seed=4, **of_model)
    blocked, expected = results_of(model, shape, 1, **of_update)
    assert not blocked
    small_blocks()
    for threads in 1, 3:
        blocked, found = results_of(model, shape, threads, **of_update)
        assert blocked
        assert found == expected


def test_gradients_in_blocks_are_added_to_those_that_are_there(small_blocks):
    """Also those of a tied embedding, some of whose sums are begun anew."""
    model = crnn.LanguageModel(VOCAB, "gru", 10, tie_weights=True, seed=4)
    x, y = np.random.default_rng(1).integers(0, len(VOCAB), (2, *TOKENS))
    start = np.random.default_rng(2).standard_normal(model.num_parameters).astype(np.float32)
    model.flat_grads[...] = start
    model.loss_and_gradients(x, y)
    expected = model.flat_grads.copy()
    small_blocks()
    model.flat_grads[...] = start
    model.loss_and_gradients(x, y)
    assert model.flat_grads.tobytes() == expected.tobytes()


def sequences(kind):
    rng = np.random.default_rng(5)
    X = [rng.standard_normal((n, 3)).astype(np.float32) for n in (3, 11, 7, 1, 11, 9, 5)] * 6
    if kind is crnn.SequenceClassifier:
        return X, [f"c{i % 9}" for i in range(len(X))]
    if kind is crnn.SequenceRegressor:
        return X, [x[:, :2] for x in X]
    ids = [rng.integers(0, 9, len(x)) for x in X]
    return X, ids if kind is crnn.SequenceToSequence else [[f"t{n}" for n in of_one] for of_one in ids]


def trained(kind, threads, **options):
    X, y = sequences(kind)
    model = kind(hidden_size=8, seed=2, epochs=1, batch_size=40, threads=threads, **options)
    weights = np.linspace(0.5, 2.0, len(X))
    model.fit(X, y, sample_weight=weights, progress=False)
    return model.flat_params.tobytes(), model.evaluate(X, y)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (crnn.SequenceTagger, {"dropout": 0.2}),
        (crnn.SequenceTagger, {"class_weight": "balanced", "label_smoothing": 0.1, "bidirectional": True}),
        (crnn.SequenceClassifier, {"pooling": "mean"}),
        (crnn.SequenceClassifier, {"pooling": "last", "dropout": 0.2}),
        (crnn.SequenceRegressor, {"loss": "huber", "pooling": None}),
        (crnn.SequenceToSequence, {"input_size": 3, "output_size": 9, "real_source": True}),
    ],
)
def test_sequences_of_different_lengths_in_blocks_have_the_same_bits(small_blocks, kind, options):
    """Weighted ones, too: they are packed, in another order than that in which gradients are summed."""
    expected = trained(kind, 1, **options)
    small_blocks()
    for threads in 1, 2:
        assert trained(kind, threads, **options) == expected


@pytest.mark.parametrize("cell", ["tanh", "gru", "min_gru"])
@pytest.mark.parametrize("precision", [None, "bf16"])
def test_rows_of_one_hot_ids_are_those_of_a_table(each_isa, monkeypatch, cell, precision):
    model = crnn.LanguageModel(VOCAB, cell, 17, 2, seed=4)
    model.flat_params[...] += np.float32(0.01)  # no bias is zero
    _, expected = results_of(model, (7, 5), 1, precision=precision)
    several = [np.arange(n) % len(VOCAB) for n in (3, 61, 12, 2)]
    surprisals = np.concatenate(model.surprisals(several)).tobytes()
    monkeypatch.setattr(inputs, "TABLE_BYTES", 0)
    for threads in 1, 3:
        _, found = results_of(model, (7, 5), threads, precision=precision)
        assert found == expected
        assert np.concatenate(model.surprisals(several, threads=threads)).tobytes() == surprisals


def test_one_hot_ids_take_no_memory_for_a_table_of_a_large_vocabulary():
    vocab = crnn.Vocab(tuple(map(str, range(20_000))), unit="word")
    net = crnn.LanguageModel(vocab, "lstm", 16).net
    ids = np.arange(40).reshape(8, 5)
    tracemalloc.start()
    net.forward(ids)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < net.params["layer0.W_xh"].nbytes / 10


def test_blocks_have_about_the_same_size():
    assert blocks.rows_of_block(400, 10_000, 4) == 400
    assert blocks.rows_of_block(1120, 10_000, 4) == 384
    assert blocks.rows_of_block(400, 100_000, 4) == 112
    assert blocks.rows_of_block(130, 1_000_000, 4) == 80
    assert blocks.rows_of_block(3, 1_000_000_000, 8) == 3


@pytest.mark.parametrize(("tied", "share"), [(False, 0.3), (True, 0.7)])
def test_memory_of_a_window_is_that_of_a_block(monkeypatch, tied, share):
    """Not that of its outputs. A tied embedding's gradient takes memory for as many rows of products."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 20)
    V, T, B = 8000, 64, 16
    vocab = crnn.Vocab(tuple(map(str, range(V))), unit="word")
    model = crnn.LanguageModel(vocab, "gru", 16, tie_weights=tied, embedding_size=16)
    ids = np.random.default_rng(0).integers(0, V, T * B + 1)
    x, y = ids[:-1].reshape(T, B), ids[1:].reshape(T, B)
    for compute in (
        lambda: model.loss_and_gradients(x, y),
        lambda: model.losses(x, y),
        lambda: model.evaluate(ids, batch_size=B),
        lambda: model.surprisals([ids]),
    ):
        tracemalloc.start()
        compute()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < share * T * B * V * 4
