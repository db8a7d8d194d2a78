# SPDX-License-Identifier: MIT
"""What the tests of shards and ranks train: one small model of every kind, with what makes its mean loss special."""

import hashlib
from typing import Any

import numpy as np
from model_tools import text

import crnn

KINDS = ("language", "tied", "classes", "multilabel", "tags", "values", "sequences", "forecast")
CORPUS = crnn.TextCorpus.from_text(text(700), valid=0.1, test=0)
LENGTHS = [5, 2, 7, 3, 7, 1, 4, 6, 2, 5, 3]  # 11 sequences: the last batch of an epoch has fewer than there are shards


def fitted(kind: str, **options: Any) -> Any:
    """A model of a kind, trained with these options of `crnn.fit`."""
    dtype = options.pop("dtype", "float32")
    dropout = options.pop("dropout", 0.2)
    network = {"dropout": dropout, "dtype": dtype, "seed": 3}
    training = {"epochs": 2, "batch_size": 4, "bptt": 9, "optimizer": "sgd", "lr": 0.2, "log_every": 1, **options}
    draws = np.random.default_rng(4)
    x = [draws.normal(size=(n, 3)) for n in LENGTHS]
    weights = draws.uniform(0.5, 2, len(x))
    labels = [i % 3 for i in range(len(x))]
    if kind == "language":
        init = {"recurrent_init": "orthogonal", "input_init": "glorot"}
        model = crnn.LanguageModel(CORPUS.vocab, "lstm", 9, 2, trainable_initial_state=True, **init, **network)
        return model.fit(CORPUS, **training)
    if kind == "tied":
        model = crnn.LanguageModel(CORPUS.vocab, "gru", [6, 9], embedding_size=9, tie_weights=True, **network)
        return model.fit(CORPUS, carry=18, **training)
    training |= {"valid": None}
    if kind == "classes":
        model = crnn.SequenceClassifier(
            hidden_size=7, cell="gru", bidirectional=True, class_weight="balanced", **network
        )
        return model.fit(x, labels, weights, **training)
    if kind == "multilabel":
        model = crnn.SequenceClassifier(hidden_size=7, cell="tanh", multilabel=True, **network)
        return model.fit(x, [[label != 1, label == 1, label > 0] for label in labels], **training)
    if kind == "tags":
        model = crnn.SequenceTagger(hidden_size=7, num_layers=2, label_smoothing=0.1, **network)
        tags = [[(step % 3 if step % 4 else -1) for step in range(n)] for n in LENGTHS]
        return model.fit(x, tags, weights, **training)
    if kind == "values":
        model = crnn.SequenceRegressor(hidden_size=7, pooling="mean", loss="huber", **network)
        values = draws.normal(size=(len(x), 2))
        values[2, 1] = np.nan
        return model.fit(x, values, weights, **training)
    if kind == "sequences":
        model = crnn.SequenceToSequence(12, 12, hidden_size=7, **network)
        ids = [draws.integers(12, size=n) for n in LENGTHS]
        return model.fit(ids, [each[::-1] for each in ids], **training)
    model = crnn.Forecaster(horizon=3, window=8, hidden_size=7, **network)
    return model.fit(np.sin(np.arange(60) / 3) + draws.normal(size=60) / 10, **training)


def weights_hash(model: Any) -> str:
    """SHA-256 of the weights."""
    flat = model.flat_params
    return hashlib.sha256(flat.astype(flat.dtype.newbyteorder("<")).tobytes()).hexdigest()
