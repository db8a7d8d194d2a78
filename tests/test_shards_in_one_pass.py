# SPDX-License-Identifier: MIT
"""Shards that are computed in one pass have the bits of a pass for each: every kind of model, option and cell."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import text
from task_tools import CELLS

import crnn
from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn._options import options_of
from crnn.models.batch_passes import BatchPasses
from crnn.models.language.passes import TextPasses
from crnn.models.outputs.losses import KINDS as LOSSES
from crnn.models.outputs.pooling import POOLINGS
from crnn.nn.config import NetworkConfig
from crnn.nn.shards import ShardLayout, ShardShape

LENGTHS = [5, 2, 7, 3, 7, 1, 4, 6, 2, 5, 3]  # the last batch of an epoch has fewer sequences than there are shards
EQUAL = [6] * 11
CORPUS = crnn.TextCorpus.from_text(text(300), valid=0.0, test=0)
IDS = 9

# A value for each option of a network that a model may be trained with. Of ids, if the model has an embedding.
NETWORKS = {
    "hidden_size": {"hidden_size": [7, 5]},
    "num_layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True, "num_layers": 2},
    "dense_layers": {"dense_layers": True, "num_layers": 2},
    "embedding_size": {"embedding_size": 4},
    "dropout": {"dropout": 0.3, "num_layers": 2},
    "variational_dropout": {"variational_dropout": True, "dropout": 0.3, "num_layers": 2},
    "recurrent_dropout": {"recurrent_dropout": 0.3},
    "output_dropout": {"output_dropout": 0.3},
    "input_dropout": {"input_dropout": 0.3},
    "embedding_dropout": {"embedding_dropout": 0.3, "input_dropout": 0.2, "embedding_size": 4},
    "weight_dropout": {"weight_dropout": 0.3},
    "trainable_initial_state": {"trainable_initial_state": True},
    "dtype": {"dtype": "float64"},
}
ABSENT = {
    ("LanguageModel", "bidirectional"),
    ("Forecaster", "bidirectional"),
    ("Forecaster", "embedding_size"),
    ("Forecaster", "embedding_dropout"),
    ("SequenceToSequence", "dense_layers"),
    ("SequenceToSequence", "trainable_initial_state"),
}
NO_MATTER = {"input_size", "cell", "forget_bias", "precision", "recurrent_init", "input_init", "init"}


def language(lengths, **network):
    if "input_dropout" in network:
        network.setdefault("embedding_size", 4)
    model = crnn.LanguageModel(CORPUS.vocab, **network)
    return model, (CORPUS,), {"bptt": 7, "batch_size": 5}


def of_sequences(kind, *sizes, targets, weights=None, **arguments):
    """A function of lengths and options of the network: the model, what is fitted, and options of `fit`."""

    def made(lengths, **network):
        draws = np.random.default_rng(4)
        if "embedding_size" in network:
            x, inputs = [draws.integers(IDS, size=n) for n in lengths], IDS
        else:
            x, inputs = [draws.normal(size=(n, 3)) for n in lengths], 3
        given = dict(arguments)
        if given.get("pooling") == "flatten":
            given["steps"] = lengths[0]
        model = kind(inputs, *sizes, **given, **network)
        fitted = [x, targets(draws, lengths)]
        return model, fitted if weights is None else [*fitted, draws.uniform(0.5, 2, len(lengths))], {"batch_size": 5}

    return made


def labels(draws, lengths):
    return draws.integers(4, size=len(lengths))


def tags(draws, lengths):
    return [draws.integers(-1, 4, size=n) for n in lengths]


def values(draws, lengths):
    found = draws.normal(size=(len(lengths), 2))
    found[2, 1] = np.nan
    return found


def seq2seq(lengths, **network):
    draws = np.random.default_rng(5)
    network.pop("embedding_size", None)
    model = crnn.SequenceToSequence(IDS, IDS, embedding_size=4, **network)
    x = [draws.integers(IDS, size=n) for n in lengths]
    return model, (x, [draws.integers(IDS, size=n % 4) for n in lengths]), {"batch_size": 5}


def forecaster(lengths, **network):
    model = crnn.Forecaster(horizon=3, window=8, **network)
    return model, (np.sin(np.arange(40) / 3) + np.random.default_rng(5).normal(size=40) / 10,), {"batch_size": 5}


MODELS = {
    "LanguageModel": language,
    "SequenceTagger": of_sequences(crnn.SequenceTagger, 4, targets=tags, weights=True, label_smoothing=0.1),
    "SequenceToSequence": seq2seq,
    "Forecaster": forecaster,
    "SequenceClassifier": of_sequences(crnn.SequenceClassifier, 4, targets=labels, weights=True),
    "SequenceRegressor": of_sequences(crnn.SequenceRegressor, 2, targets=values, weights=True),
}
POOLED = {
    pooling: of_sequences(crnn.SequenceRegressor, 2, targets=values, pooling=pooling) for pooling in POOLINGS
}


def assert_same(make, lengths, monkeypatch, *, at_once=True, training=None, **network):
    """Training in one pass, and in a pass for each shard, give the same weights and losses."""
    found, passes = [], []
    for together in True, False:
        model, data, options = make(lengths, **{"cell": "lstm", "hidden_size": 7, "seed": 3} | network)
        with monkeypatch.context() as patched:
            for kind in BatchPasses, TextPasses:
                original = kind.window_in_shards

                def window(self, *arguments, original=original, together=together, **others):
                    result = original(self, *arguments, **others) if together else None
                    passes.append(result is not None)
                    return result

                patched.setattr(kind, "window_in_shards", window)
            more = {} if type(model) in (crnn.LanguageModel, crnn.Forecaster) else {"valid": None}
            options |= {"epochs": 2, "shards": 3, "threads": 2, "optimizer": "sgd", "lr": 0.1} | more | (training or {})
            model.fit(*data, **options)
        found.append((model.flat_params.copy(), np.array(model.log.column("train_loss"))))
    for one, other in zip(*found, strict=True):
        assert_same_bits(one, other)
    half = len(passes) // 2
    assert passes[half:] == [False] * half
    assert any(passes[:half]) == all(passes[:half]) == at_once


def test_every_kind_of_model_and_option_is_tested():
    assert {each.name for each in options_of(NetworkConfig)} == NETWORKS.keys() | NO_MATTER
    kinds = {name for name in crnn.__all__ if hasattr(getattr(crnn, name), "loss_and_gradients")}
    assert kinds | {"Forecaster"} == MODELS.keys()  # which fits a SequenceRegressor


@pytest.mark.parametrize("option", NETWORKS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_option_of_the_network(kind, option, monkeypatch):
    if (kind, option) in ABSENT:
        pytest.skip("is no option of this model")
    assert_same(MODELS[kind], LENGTHS, monkeypatch, at_once=option != "weight_dropout", **NETWORKS[option])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_cell(kind, cell, monkeypatch):
    assert_same(MODELS[kind], LENGTHS, monkeypatch, cell=cell, dropout=0.2, num_layers=2)


@pytest.mark.parametrize("lengths", [LENGTHS, EQUAL], ids=["unequal", "equal"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling(pooling, lengths, monkeypatch):
    if pooling == "flatten":
        lengths = EQUAL
    more = {"dropout": 0.3, "num_layers": 2, "bidirectional": True}
    assert_same(POOLED[pooling], lengths, monkeypatch, **more)
    assert_same(POOLED[pooling], lengths, monkeypatch, input_dropout=0.3, variational_dropout=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_values(loss, monkeypatch):
    assert_same(of_sequences(crnn.SequenceRegressor, 2, targets=values, loss=loss), LENGTHS, monkeypatch)


def test_classes_with_weights_and_several_labels(monkeypatch):
    weighted = of_sequences(crnn.SequenceClassifier, 4, targets=labels, weights=True, class_weight=[1.0, 2.0, 0.5, 3.0])
    assert_same(weighted, LENGTHS, monkeypatch)
    several = of_sequences(
        crnn.SequenceClassifier, 4, targets=lambda draws, lengths: draws.integers(2, size=(len(lengths), 4)),
        multilabel=True,
    )
    assert_same(several, LENGTHS, monkeypatch)


@pytest.mark.parametrize("kind", MODELS)
def test_equal_lengths_bf16_and_a_sum(kind, monkeypatch):
    for training in {"precision": "bf16"}, {"reduction": "sum", "lr": 0.01}:
        assert_same(MODELS[kind], EQUAL, monkeypatch, training=training)
        assert_same(MODELS[kind], LENGTHS, monkeypatch, training=training)


@pytest.mark.parametrize("ids", [5, 14, 23])
def test_shards_that_read_an_embedding_in_different_ways(ids, monkeypatch):
    """A shard with fewer tokens than there are ids gathers the rows of the embedding, others use a table."""

    def made(lengths, **network):
        draws = np.random.default_rng(4)
        model = crnn.SequenceTagger(ids, 4, **network)
        return model, ([draws.integers(ids, size=n) for n in lengths], tags(draws, lengths)), {"batch_size": 5}

    assert_same(made, LENGTHS, monkeypatch, embedding_size=4, bidirectional=True)


@pytest.mark.parametrize(
    "options", [{"tie_weights": True, "embedding_size": 7}, {"activation_penalty": 2.0, "dropout": 0.3}]
)
def test_options_of_language_models(options, monkeypatch):
    assert_same(language, None, monkeypatch, label_smoothing=0.1, **options)


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [LENGTHS, EQUAL], ids=["unequal", "equal"])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_over_a_range_of_sequences_are_those_of_arrays_of_their_own(lengths, reverse):
    draws = np.random.default_rng(6)
    T, K, N = max(lengths), 5, 19
    whole = Lengths(np.array(lengths), T, 1, packed=True)
    x, h0, dy = (draws.normal(size=shape) for shape in ((1, whole.rows, K), (len(lengths), K), (1, whole.rows, N)))
    ids = draws.integers(7, size=(1, whole.rows), dtype=np.int32)
    scratch = gemm.grad_scratch("float64", K)
    for first, stop in (0, 11), (0, 3), (4, 5), (7, 11):
        rows = whole.range_of(first, stop)
        own = Lengths(np.array(lengths[first:stop]), T, 1, packed=True)
        steps, sequences = np.divmod(own.padded_rows(), own.B)
        index = whole.starts[steps] + whole.places[first + sequences]
        found, expected = (
            [draw.copy() for draw in (dw, dw, db, dv)] for _ in range(2)
            for dw, db, dv in [(np.ones((K, N)), np.ones(N), np.ones((7, N)))]
        )
        for results, of, (a, s, g, i) in (
            (found, rows, (x, h0, dy, ids)),
            (expected, own, (x[:, index], h0[first:stop].copy(), dy[:, index], ids[:, index])),
        ):
            gemm.linear_backward_weight(results[0], a, g, scratch, 0, N, of)
            gemm.recurrent_backward_weight(results[1], a, s, g, scratch, reverse, 0, N, of)
            gemm.bias_backward(results[2], g, 0, N, of)
            gemm.rows_backward(results[3], i, g, 0, N, of)
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)


def test_a_range_of_sequences_is_for_gradients_of_weights_only():
    whole = Lengths(np.array([3, 1, 2]), 3, 1, packed=True)
    rows = whole.range_of(1, 3)
    x, out = np.ones((1, 6, 2)), np.ones((1, 6, 4))
    with pytest.raises(ValueError, match="lengths: expected those of all sequences, got a range"):
        gemm.linear_forward(out, x, gemm.Packed(2, 4, "float64").pack(np.ones((2, 4))), None, 0, 2, rows)
    with pytest.raises(ValueError, match="expected those of 5 packed rows, got 6 in 3 sequences"):
        gemm.bias_backward(np.ones(4), out[:, :5].copy(), 0, 4, rows)
    for lengths in rows, Lengths(np.array([3, 1, 2]), 3, 1):
        with pytest.raises(ValueError, match="expected packed lengths of all sequences"):
            lengths.range_of(0, 1)
    with pytest.raises(ValueError, match="first, stop"):
        whole.range_of(1, 1)
    with pytest.raises(ValueError, match="first, stop"):
        whole.range_of(1, 4)


def test_joined_rows_are_those_of_one_batch():
    """Shards have arrays (T, B, ...) if their own lengths are equal, packed ones otherwise."""
    lengths = [[3, 3], [1, 4, 2], [2]]
    rows = [[100 * b + np.arange(n) for b, n in enumerate(each, start=10 * i)] for i, each in enumerate(lengths)]
    packed = [Lengths(np.array(each), max(each), 1, packed=True) for each in lengths]
    arrays = [np.stack(rows[0], axis=1), packed[1].pack_list(rows[1]), rows[2][0][:, None]]
    layout = ShardLayout([ShardShape(3, 2), ShardShape(4, 3, packed[1]), ShardShape(2, 1)])
    whole = layout.joined(arrays)
    flat = [sequence for each in rows for sequence in each]
    assert_same_bits(whole, Lengths(np.array([len(each) for each in flat]), 4, 1, packed=True).pack_list(flat))
    for number, array in enumerate(arrays):
        assert_same_bits(layout.of_shard(number, whole), array.reshape(-1))
