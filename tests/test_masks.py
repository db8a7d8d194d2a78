# SPDX-License-Identifier: MIT
"""Masked steps are skipped: training and predictions are those of sequences without these steps."""

import numpy as np
import pytest

import crnn

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(n, 2)) for n in (5, 7, 6, 4)]
MASK = [RNG.random(len(x)) < 0.7 for x in X]
for each in MASK:
    each[0] = True
REST = [x[m] for x, m in zip(X, MASK, strict=True)]
SMALL = {"hidden_size": 3, "epochs": 2, "batch_size": 2, "valid": None}


def _kinds():
    labels = [0, 1, 0, 1]
    names = [list(np.array(["a", "b"])[(x[:, 0] > 0).astype(int)]) for x in X]
    values = [x[:, 1] for x in X]
    yield crnn.SequenceClassifier(**SMALL), labels, labels
    yield crnn.SequenceTagger(classes=["a", "b"], **SMALL), names, _rest(names)
    yield crnn.SequenceTagger(classes=["a", "b"], bidirectional=True, **SMALL), names, _rest(names)
    yield crnn.SequenceRegressor(pooling=None, **SMALL), values, _rest(values)
    yield crnn.SequenceRegressor(pooling="mean", **SMALL), [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]


def _rest(targets):
    return [[y[t] for t in np.flatnonzero(m)] for y, m in zip(targets, MASK, strict=True)]


@pytest.mark.parametrize("number", range(5))
def test_masked_steps_are_as_if_they_were_not_there(number):
    (masked, y, rest), (plain, *_) = list(_kinds())[number], list(_kinds())[number]
    masked.fit(X, y, mask=MASK)
    plain.fit(REST, rest)
    assert masked.flat_params.tobytes() == plain.flat_params.tobytes()
    assert masked.score(X, y, mask=MASK) == plain.score(REST, rest)
    assert masked.evaluate(X, y, mask=MASK) == plain.evaluate(REST, rest)
    predicted, expected = masked.predict(X, mask=MASK), plain.predict(REST)
    if masked.pooling is not None:
        assert predicted.tobytes() == expected.tobytes()
        return
    for found, of_rest, there in zip(predicted, expected, MASK, strict=True):
        assert len(found) == len(there)
        assert found[there].tolist() == of_rest.tolist()
        missing = found[~there]
        assert all(value is None for value in missing) if found.dtype == object else np.isnan(missing).all()


def test_predictions_without_a_step_are_minus_one_or_nan():
    x, mask = np.zeros((2, 3, 1)), np.array([[True, False, True]] * 2)
    tagger = crnn.SequenceTagger(1, 3, hidden_size=2)
    assert tagger.predict(x, mask=mask).shape == (2, 3)
    assert (tagger.predict(x, mask=mask)[:, 1] == -1).all()
    assert np.isnan(tagger.predict_proba(x, mask=mask)[:, 1]).all()
    assert not np.isnan(tagger.predict_proba(x, mask=mask)[:, [0, 2]]).any()
    independent = crnn.SequenceTagger(1, 3, hidden_size=2, multilabel=True, thresholds=0.01)
    assert independent.predict(x, mask=mask).tolist() == [[[True] * 3, [False] * 3, [True] * 3]] * 2


def test_weights_of_steps_are_masked_too():
    y = [x[:, 1] for x in X]
    weights = [RNG.random(len(x)) for x in X]
    masked = crnn.SequenceRegressor(pooling=None, **SMALL).fit(X, y, weights, mask=MASK)
    plain = crnn.SequenceRegressor(pooling=None, **SMALL).fit(REST, _rest(y), _rest(weights))
    assert masked.flat_params.tobytes() == plain.flat_params.tobytes()


@pytest.mark.interop
def test_sequences_of_every_kind_can_be_masked():
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(x, columns=["a", "b"]) for x in X]
    model = crnn.SequenceClassifier(**SMALL).fit(frames, [0, 1, 0, 1], mask=MASK)
    rest = [pandas.DataFrame(x, columns=["a", "b"]) for x in REST]
    assert model.predict(frames, mask=[pandas.Series(m) for m in MASK]).tolist() == model.predict(rest).tolist()
    ids = crnn.SequenceTagger(3, 2, hidden_size=2)
    assert ids.predict([[0, 1, 2]], mask=[[True, False, True]])[0].tolist()[::2] == ids.predict([[0, 2]])[0].tolist()


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (MASK[:3], ValueError, r"^mask: expected a mask for each of 4 sequences, got 3"),
        ([*MASK[:3], [1, 0, 1, 1]], TypeError, r"^mask\[3\]: expected bool, True for a step that is there, got int"),
        ([*MASK[:3], [True]], ValueError, r"^mask\[3\]: expected shape \(4,\), as its sequence has, got \(1,\)"),
        ([*MASK[:3], [False] * 4], ValueError, r"^mask\[3\]: expected at least one step that is there, got none"),
        (True, TypeError, r"^mask: expected a list of masks"),
    ],
)
def test_a_wrong_mask_is_refused_before_anything_changes(mask, error, message):
    model = crnn.SequenceClassifier(2, 2, hidden_size=2)
    before = model.to_bytes()
    for act in (model.fit, model.evaluate, model.score):
        with pytest.raises(error, match=message):
            act(X, [0, 1, 0, 1], mask=mask)
    with pytest.raises(error, match=message):
        model.predict(X, mask=mask)
    assert model.to_bytes() == before


def test_texts_and_pairs_of_sequences_take_no_mask():
    text = crnn.SequenceClassifier(vocab="char", **SMALL)
    with pytest.raises(ValueError, match=r"^mask: expected None for a model of texts or of pairs"):
        text.fit(["ab", "b"], ["x", "y"], mask=[[True, False], [True]])
    pairs = crnn.SequenceToSequence(3, 3, hidden_size=2)
    with pytest.raises(ValueError, match=r"^mask: expected None for a model of texts or of pairs"):
        pairs.evaluate([[0, 1]], [[0]], mask=[[True, False]])


def _series(weights):
    return pytest.importorskip("pandas").Series(weights, index=[7, 8, 9, 10])


def _some_by_step(weights):
    return [weights[0], *(np.full(len(x), weight) for x, weight in zip(X[1:], weights[1:], strict=True))]


@pytest.mark.parametrize("convert", [_series, iter, _some_by_step])
def test_weights_of_sequences_in_any_container_go_with_masks_of_steps(convert):
    weights, values = [1.0, 2.0, 0.5, 3.0], [x[:, 1] for x in X]
    masked = crnn.SequenceRegressor(pooling=None, **SMALL).fit(X, values, convert(weights), mask=MASK)
    plain = crnn.SequenceRegressor(pooling=None, **SMALL).fit(REST, _rest(values), weights)
    assert masked.flat_params.tobytes() == plain.flat_params.tobytes()


@pytest.mark.parametrize("weights", [[], 3, np.array(3.0), {1.0, 2.0, 3.0, 4.0}])
def test_weights_that_are_none_are_named_with_a_mask_too(weights):
    with pytest.raises((TypeError, ValueError), match="sample_weight: expected"):
        crnn.SequenceTagger(**SMALL).fit(X, [[0] * len(x) for x in X], weights, mask=MASK)


@pytest.mark.parametrize("target", [1, None, float("nan"), np.float64(1.0)])
def test_a_target_for_all_steps_is_named_with_a_mask_too(target):
    with pytest.raises(ValueError, match=r"y\[0\]: expected one for each of 5 steps, got"):
        crnn.SequenceTagger(**SMALL).fit(X, [target] * 4, mask=MASK)
