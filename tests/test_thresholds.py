# SPDX-License-Identifier: MIT
"""Thresholds of independent classes: given, chosen by data, saved; against a search through all thresholds."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crnn
from crnn.models.files import from_bytes
from crnn.models.outputs.thresholds import best_threshold

Classifier = crnn.SequenceClassifier
RNG = np.random.default_rng(0)
X = [RNG.normal(size=(4, 2)) for _ in range(30)]
Y = np.array([[x[:, 0].sum() > 0, x[:, 1].sum() > 2.0, False] for x in X], float)


def _f1(probabilities, positive, threshold):
    predicted = probabilities > threshold
    hits = (predicted & positive).sum()
    return 2 * hits / (predicted.sum() + positive.sum())


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_the_chosen_threshold_is_the_best_of_all(rows):
    probabilities = np.array([p for p, _ in rows], np.float32) / np.float32(10)
    positive = np.array([label for _, label in rows])
    chosen = best_threshold(probabilities, positive)
    assert 0 < chosen < 1
    if positive.any():
        every = [_f1(probabilities, positive, t) for t in np.arange(0.05, 1, 0.05)]
        assert _f1(probabilities, positive, chosen) == pytest.approx(max(every), abs=1e-12)
    else:
        assert chosen == 0.5


def test_given_thresholds_decide_what_predict_returns():
    model = crnn.SequenceClassifier(2, 3, hidden_size=3, multilabel=True, thresholds=[0.4, 0.5, 0.6])
    p = model.predict_proba(X)
    assert (model.predict(X) == (p > [0.4, 0.5, 0.6])).all()
    single = crnn.SequenceClassifier(2, 3, hidden_size=3, multilabel=True, thresholds=0.4)
    assert (single.predict(X) == (p > 0.4)).all()
    right = ((p > [0.4, 0.5, 0.6]) == (Y > 0.5)).all(axis=1)
    assert model.score(X, Y) == right.mean()


def test_without_thresholds_a_class_applies_above_one_half():
    model = crnn.SequenceClassifier(2, 3, hidden_size=3, multilabel=True)
    assert model.thresholds is None
    assert (model.predict(X) == (model.predict_proba(X) > 0.5)).all()


def test_tuned_thresholds_are_those_of_each_class_and_are_saved(tmp_path):
    model = crnn.SequenceClassifier(hidden_size=3, multilabel=True, epochs=4).fit(X, Y)
    before = model.flat_params.tobytes()
    y = Y.copy()
    y[0, 0] = np.nan
    assert model.tune_thresholds(X, y) is model
    p = model.predict_proba(X)
    assert model.thresholds[0] == best_threshold(p[1:, 0], y[1:, 0] > 0.5)
    assert model.thresholds[1] == best_threshold(p[:, 1], y[:, 1] > 0.5)
    assert model.thresholds[2] == 0.5
    assert model.flat_params.tobytes() == before
    for other in (from_bytes(model.to_bytes()), copy.deepcopy(model), model.astype("float64")):
        assert other.thresholds == model.thresholds
    assert model.get_params()["thresholds"] is None
    model.fit(X, Y)
    assert model.thresholds is None


def test_taggers_have_them_too():
    tagger = crnn.SequenceTagger(2, 3, hidden_size=3, multilabel=True)
    tagger.tune_thresholds(X, [np.repeat(y[None], 4, axis=0) for y in Y])
    p, labels = tagger.predict_proba(X), tagger.predict(X)
    assert all((a == (b > tagger.thresholds)).all() for a, b in zip(labels, p, strict=True))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Classifier(2, 3, thresholds=0.4), ValueError, r"^thresholds: expected None without multi"),
        (lambda: Classifier(2, 3, multilabel=True, thresholds=[0.4]), ValueError, r"one for each of 3"),
        (lambda: Classifier(2, 1, multilabel=True, thresholds=[1.0]), ValueError, r"^thresholds\[0\]: exp"),
        (lambda: Classifier(2, 1, multilabel=True, thresholds=np.nan), ValueError, r"^thresholds: expected"),
        (lambda: Classifier(2, 1, multilabel=True, thresholds="f1"), TypeError, r"^thresholds: expected"),
        (lambda: Classifier(2, 3).tune_thresholds(X, Y), ValueError, r"^tune_thresholds: expected a model"),
    ],
)
def test_wrong_thresholds_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
