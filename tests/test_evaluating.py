# SPDX-License-Identifier: MIT
"""`evaluate` of models of sequences: outputs are computed for some sequences at a time, which changes no bits."""

import tracemalloc

import numpy as np
import pytest

import crnn
from crnn.models.passes import evaluating

RNG = np.random.default_rng(2)
LENGTHS = (5, 9, 2, 7, 7, 3, 8, 1, 6, 4, 7)
RAGGED = [RNG.normal(size=(n, 3)) for n in LENGTHS]
EQUAL = RNG.normal(size=(11, 6, 3))
WEIGHTS = RNG.uniform(0.1, 3, 11)
SMALL = {"hidden_size": 4, "seed": 1, "epochs": 1, "batch_size": 4, "valid": None}


def classes(x):
    return RNG.integers(0, 5, len(x))


def tags(x):
    return [RNG.integers(0, 5, len(each)) for each in x]


def labels(x):
    return RNG.integers(0, 2, (len(x), 5))


def values(x):
    return RNG.normal(size=(len(x), 2))


KINDS = {
    "classifier": (lambda: crnn.SequenceClassifier(**SMALL), classes),
    "multilabel": (lambda: crnn.SequenceClassifier(multilabel=True, **SMALL), labels),
    "tagger": (lambda: crnn.SequenceTagger(**SMALL), tags),
    "regressor": (lambda: crnn.SequenceRegressor(**SMALL), values),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("x", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_is_that_of_all_outputs_at_once(monkeypatch, kind, x, weighted):
    make, targets = KINDS[kind]
    y = targets(x)
    model = make().fit(x, y)
    data = model.data(x, y)
    if weighted:
        data.weights = [np.full(len(each), w) for each, w in zip(data.targets, WEIGHTS, strict=True)]
    whole = model.evaluate(data)
    for most in (1, 7 * 5 * 4, 19 * 5 * 4):
        monkeypatch.setattr(evaluating, "OUTPUT_BYTES", most)
        assert model.evaluate(data) == whole
        assert model.evaluate(data, batch_size=2, threads=2) == whole


def test_the_losses_are_those_of_the_probabilities():
    model = crnn.SequenceTagger(**SMALL)
    y = tags(RAGGED)
    model.fit(RAGGED, y)
    found = model.evaluate(RAGGED, y)
    places = np.concatenate(y)
    p = np.concatenate(model.predict_proba(RAGGED)).astype("f8")
    assert found.nats == pytest.approx(-np.log(p[np.arange(len(p)), places]).mean(), rel=1e-5)
    assert found.accuracy == np.mean(p.argmax(axis=1) == places)
    assert found.count == sum(LENGTHS)


@pytest.mark.parametrize("steps", [1, 20])
def test_memory_is_not_that_of_all_outputs(monkeypatch, steps):
    """Of a classifier and of a tagger with many classes."""
    monkeypatch.setattr(evaluating, "OUTPUT_BYTES", 1 << 20)
    V, N = 5000, 2000 // steps
    x, y = RNG.normal(size=(N, steps, 3)), RNG.integers(0, V, (N, steps))
    tagger = crnn.SequenceTagger(3, V, hidden_size=4) if steps > 1 else crnn.SequenceClassifier(3, V, hidden_size=4)
    data = tagger.data(x, y if steps > 1 else y[:, 0])
    tracemalloc.start()
    tagger.evaluate(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < N * steps * V * 4 / 4
