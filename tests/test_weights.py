# SPDX-License-Identifier: MIT
"""sample_weight and class_weight: what they mean for training, validation and scores."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits

import crnn

RNG = np.random.default_rng(0)
LENGTHS = (5, 7, 6, 5, 8, 6, 4, 9)
X = [RNG.normal(size=(n, 3)) for n in LENGTHS]
IDS = [RNG.integers(0, 4, n) for n in LENGTHS]
LABELS = ["b", "a", "c", "a"] * 2
TAGS = [(x[:, 0] > 0).astype(int) for x in X]
VALUES = RNG.normal(size=(8, 2))
SERIES = [RNG.normal(size=(n, 2)) for n in LENGTHS]
FLAGS = (RNG.random((8, 3)) > 0.5).astype(float)
COUNTS = [2, 0, 1, 3, 1, 0, 2, 1]
OPTIONS = {"hidden_size": 4, "seed": 1, "dtype": "float64", "batch_size": 100, "epochs": 5, "valid": None}
OPTIONS |= {"optimizer": "sgd", "lr": 0.5}  # Adam would divide rounding errors by themselves

# A model, and data for it.
KINDS = {
    "classifier": (crnn.SequenceClassifier, {}, X, LABELS),
    "smoothed": (crnn.SequenceClassifier, {"label_smoothing": 0.2, "class_weight": {"a": 3.0}}, X, LABELS),
    "balanced": (crnn.SequenceClassifier, {"class_weight": "balanced", "bidirectional": True}, X, LABELS),
    "flags": (crnn.SequenceClassifier, {"multilabel": True, "pooling": "mean"}, X, FLAGS),
    "tagger": (crnn.SequenceTagger, {}, X, TAGS),
    "regressor": (crnn.SequenceRegressor, {}, X, VALUES),
    "steps": (crnn.SequenceRegressor, {"pooling": None, "loss": "huber"}, X, SERIES),
    "quantiles": (crnn.SequenceRegressor, {"loss": "quantile"}, X, VALUES[:, 0]),
    "forecasts": (crnn.SequenceRegressor, {"pooling": None}, X, None),
    "translator": (crnn.SequenceToSequence, {"input_size": 4, "output_size": 4}, IDS, IDS),
    "real source": (crnn.SequenceToSequence, {"input_size": 3, "output_size": 4, "real_source": True}, X, IDS),
}
every = pytest.mark.parametrize("name", KINDS)
each_thread = pytest.mark.parametrize("threads", [1, 3])


def new(name, **options):
    kind, own, _, _ = KINDS[name]
    return kind(**OPTIONS | own | options)


def repeated(entries, counts):
    return None if entries is None else [entry for entry, n in zip(entries, counts, strict=True) for _ in range(n)]


@every
@each_thread
def test_integer_weights_are_repetitions_and_zero_is_not_there(name, threads):
    _, _, x, y = KINDS[name]
    model = new(name).fit(x, y, COUNTS, threads=threads)
    other = new(name).fit(repeated(x, COUNTS), repeated(y, COUNTS))
    np.testing.assert_allclose(model.flat_params, other.flat_params, rtol=1e-7, atol=1e-9)
    for key, scaling in model.scalings.items():
        np.testing.assert_allclose(scaling.mean, other.scalings[key].mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(scaling.std, other.scalings[key].std, rtol=1e-12)
    assert model.log.last["train_loss"] == pytest.approx(other.log.last["train_loss"], rel=1e-7)
    scores = model.score(x, y, COUNTS), model.score(repeated(x, COUNTS), repeated(y, COUNTS))
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)


@every
def test_weights_change_the_model_and_only_their_ratios_matter(name):
    _, _, x, y = KINDS[name]
    weights = np.arange(1.0, 9)
    model = new(name).fit(x, y, weights)
    np.testing.assert_allclose(new(name).fit(x, y, weights * 16).flat_params, model.flat_params, rtol=1e-9, atol=1e-12)
    assert np.abs(model.flat_params - new(name).fit(x, y).flat_params).max() > 1e-4


@every
def test_equal_weights_are_the_bits_of_no_weights(name):
    _, _, x, y = KINDS[name]
    expected = new(name, batch_size=3).fit(x, y).to_bytes()
    for weights in (np.ones(8), [0.1] * 8, np.full(8, 3, np.int8)):
        assert new(name, batch_size=3).fit(x, y, sample_weight=weights).to_bytes() == expected


@every
def test_a_sequence_without_weight_is_as_if_it_were_not_there(name):
    """In small batches too, since it is left out before anything is learnt."""
    _, _, x, y = KINDS[name]
    there = [i for i, n in enumerate(COUNTS) if n]
    weights = np.minimum(COUNTS, 1)
    expected = new(name, batch_size=2).fit([x[i] for i in there], None if y is None else [y[i] for i in there])
    assert_same_bits(new(name, batch_size=2).fit(x, y, weights).flat_params, expected.flat_params)


@pytest.mark.parametrize("name", ["tagger", "steps", "forecasts"])
def test_steps_may_have_weights(name):
    _, _, x, y = KINDS[name]
    of_steps = [RNG.integers(0, 3, len(each)).astype(float) for each in x]
    of_steps[0][:] = 0
    model = new(name, scale=False).fit(x, y, of_steps)
    assert np.abs(model.flat_params - new(name, scale=False).fit(x, y).flat_params).max() > 1e-4
    if y is not None:
        unknown = -1 if name == "tagger" else np.nan
        there = [t.copy() for t in y]
        for w, t in zip(of_steps, there, strict=True):
            t[w == 0] = unknown
        other = new(name, scale=False).fit(x[1:], there[1:], of_steps[1:])
        assert_same_bits(other.flat_params, model.flat_params)
    equal = [np.full(len(each), n) for each, n in zip(x, COUNTS, strict=True)]
    np.testing.assert_allclose(
        new(name).fit(x, y, equal).flat_params, new(name).fit(x, y, COUNTS).flat_params, rtol=1e-9, atol=1e-12
    )


@every
def test_validation_data_have_weights_too(name):
    _, _, x, y = KINDS[name]
    pair = (repeated(x, COUNTS), repeated(y, COUNTS))
    logs = [new(name).fit(x, y, valid=valid).log for valid in ((x, y, COUNTS), pair)]
    for key in ("valid_loss", "valid_accuracy"):
        values = [[entry.get(key) or 0 for entry in log.of_kind("epoch")] for log in logs]
        assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_a_share_for_validation_is_weighted():
    weights = np.arange(1.0, 41)
    x = RNG.normal(size=(40, 5, 3))
    model = crnn.SequenceRegressor(**OPTIONS | {"valid": 0.25})
    model.fit(x, x[:, 0, 0], weights)
    assert model.log.best is not None
    plain = crnn.SequenceRegressor(**OPTIONS | {"valid": 0.25}).fit(x, x[:, 0, 0])
    assert plain.log.best["valid_loss"] != model.log.best["valid_loss"]


def test_data_with_weights_is_what_crnn_fit_takes():
    models = [crnn.SequenceTagger(3, 2, **OPTIONS) for _ in range(2)]
    models[0].fit(X, TAGS, COUNTS, rescale=False)
    models[1].scalings["x"].set_statistics("std", models[0].scalings["x"].mean, models[0].scalings["x"].std)
    settings = {key: OPTIONS[key] for key in ("batch_size", "epochs", "lr", "optimizer")}
    crnn.fit(models[1], models[1].data(X, TAGS, COUNTS), **settings)
    assert_same_bits(models[1].flat_params, models[0].flat_params)


def test_a_run_with_other_weights_is_not_resumed(tmp_path):
    def fit(weights, **options):
        return new("classifier").fit(X, LABELS, weights, checkpoint=tmp_path / "c", **options)

    fit(np.arange(1, 9), epochs=2)
    with pytest.raises(crnn.ModelFileError, match=r"^data: expected the training data"):
        fit(np.arange(8, 0, -1), epochs=4, resume=True)
    assert fit(np.arange(1, 9), epochs=4, resume=True).log.epochs == 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1] * 7, "sample_weight: expected one weight for each of 8 sequences, got 7"),
        ([1] * 7 + [-1], r"sample_weight\[7\]: expected finite numbers of at least 0, got -1"),
        ([1] * 7 + [np.nan], r"sample_weight\[7\]: expected finite numbers of at least 0, got nan"),
        (np.ones((8, 2)), r"sample_weight\[0\]: expected a number, got shape \(2,\)"),
        ([0] * 8, "sample_weight: expected at least one weight above zero, got only zeros"),
        (["a"] * 8, r"sample_weight\[0\]: expected numbers"),
        (3, "sample_weight: expected a list or an array of weights, got int"),
        ({}, "sample_weight: expected a list or an array of weights, got dict"),
    ],
)
@pytest.mark.parametrize("name", ["classifier", "regressor", "translator"])
def test_wrong_weights_are_named_and_change_nothing(name, weights, message):
    _, _, x, y = KINDS[name]
    model = new(name).fit(x, y)
    before = model.to_bytes()
    for call in (model.fit, model.score):
        with pytest.raises((ValueError, TypeError), match=message):
            call(x, y, weights)
    assert model.to_bytes() == before


def test_weights_of_steps_have_their_number():
    with pytest.raises(ValueError, match=r"sample_weight\[1\]: expected one number, or 7 for its steps, got .*\(6,"):
        new("tagger").fit(X, TAGS, [1, np.ones(6)] + [1] * 6)
    with pytest.raises(ValueError, match="sample_weight: expected None for a lone series"):
        new("forecasts").fit(X[0], None, np.ones(len(X[0])))


# ---- classes ---------------------------------------------------------------------------------------------------------


def test_a_dict_and_a_list_are_the_same_weights():
    expected = new("classifier", class_weight=[1.0, 2.0, 0.5]).fit(X, LABELS)
    model = new("classifier", class_weight={"c": 0.5, "b": 2}).fit(X, LABELS)
    assert_same_bits(model.flat_params, expected.flat_params)
    assert model.class_weight == [1.0, 2.0, 0.5]
    assert model.get_params()["class_weight"] == {"c": 0.5, "b": 2}
    assert crnn.SequenceClassifier(3, 3, class_weight={2: 0.5}).class_weight == [1.0, 1.0, 0.5]


def test_balanced_weights_give_every_class_the_same_weight_in_total():
    model = new("balanced").fit(X, LABELS)
    assert model.class_weight == [8 / (3 * 4), 8 / (3 * 2), 8 / (3 * 2)]
    expected = new("balanced", class_weight=model.class_weight).fit(X, LABELS)
    assert_same_bits(model.flat_params, expected.flat_params)
    model.fit(X[:3], LABELS[:3])  # of the data of each fit
    assert model.class_weight == [1, 1, 1]
    tagger = crnn.SequenceTagger(**OPTIONS, class_weight="balanced").fit(X, TAGS)
    tags = np.concatenate(TAGS)
    np.testing.assert_allclose(tagger.class_weight, len(tags) / (2 * np.bincount(tags)))


def test_class_weights_of_named_classes_whose_number_is_given():
    model = crnn.SequenceClassifier(3, 3, **OPTIONS, class_weight={"a": 5.0}).fit(X, LABELS)
    assert model.class_weight == [5.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"z": 1.0}, r"class_weight: expected weights of the classes \['a', 'b', 'c'\], got 'z'"),
        ({"a": -1.0}, r"class_weight\['a'\]: expected a number of at least 0, got -1.0"),
        ({"a": "1"}, r"class_weight\['a'\]: expected a number"),
        ("even", "class_weight: expected .* got 'even'"),
        ([1.0, 2.0], "class_weight: expected 3 numbers"),
    ],
)
def test_wrong_class_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        new("classifier", class_weight=weights).fit(X, LABELS)


def test_several_labels_have_no_balanced_weights():
    with pytest.raises(ValueError, match="class_weight: expected a list or a dict with multilabel, got 'balanced'"):
        new("flags", class_weight="balanced")


@pytest.mark.parametrize("factor", [2.0**1020, 2.0**-1060])
def test_weights_of_any_size_have_only_ratios(factor):
    weights = np.array([1.0, 2.0, 1.0, 3.0] * 3)
    x = [np.random.default_rng(i).normal(size=(4, 2)) + 1e6 for i in range(12)]
    found = []
    for each in (weights, weights * factor):
        model = crnn.SequenceRegressor(hidden_size=3, epochs=1, valid=None).fit(x, [a.sum() for a in x], each)
        found.append((model.flat_params.tobytes(), model.score(x, [a.sum() for a in x], each)))
    assert found[0] == found[1]
