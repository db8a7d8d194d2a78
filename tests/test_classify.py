# SPDX-License-Identifier: MIT
"""Classes: their names, unknown ones, yes-or-no questions; and what the models' arguments may be."""

import numpy as np
import pytest
from task_tools import LENGTHS, D, H, V, classifier, id_sequences, labels, reals, tagger

import crnn


def named(classes, kind=crnn.SequenceClassifier, **options):
    return kind(D, classes=classes, hidden_size=H, **options)


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["up", "down", "level", "?"],
        [10, -20, 5, 0],
        [1, "1", "one", 0],
        ["a\0", "a", "", "\U0001f600"],
        [2**70, 3, 1, 0],
        np.array(["b", "a", "d", "c"]),
        np.array([4, 2, 9, 7], np.uint8),
        (7, 5, 3, 2),
    ],
    ids=repr,
)
def test_predictions_are_the_names_and_training_on_them_is_training_on_numbers(rng, names):
    X, y, steps = reals(rng), labels(rng), labels(rng, LENGTHS)
    plain_names = names.tolist() if isinstance(names, np.ndarray) else list(names)

    def call(numbers):
        return [plain_names[n] if n >= 0 else -1 for n in numbers]

    model, plain = named(names), crnn.SequenceClassifier(D, V, H)
    assert model.classes == plain_names
    model.fit(X, call(y), epochs=2)
    plain.fit(X, y, epochs=2)
    assert model.flat_params.tobytes() == plain.flat_params.tobytes()
    predicted = model.predict(X)
    assert predicted.tolist() == call(plain.predict(X))
    assert [type(name) for name in predicted.tolist()] == [type(name) for name in call(plain.predict(X))]
    assert model.evaluate(X, call(y)) == plain.evaluate(X, y)

    tags = named(names, crnn.SequenceTagger)
    tags.fit(X, [call(row) for row in steps], epochs=1)  # -1 among texts, too
    assert [row.tolist() for row in tags.predict(X)] == [
        [plain_names[n] for n in row] for row in (p.argmax(axis=1) for p in tags.predict_proba(X))
    ]


def test_y_may_be_an_array_of_names_or_numbers_of_any_kind(rng):
    X, y = reals(rng), np.array([0, 1, 0, 0, 1, 1, 0])
    model = named(["no", "yes"])
    model.fit(X, np.array(["no", "yes"])[y], epochs=1)
    results = [named([5, 9]) for _ in range(3)]
    for each, dtype in zip(results, (np.uint8, np.int64, object), strict=True):
        each.fit(X, np.array([5, 9], dtype)[y], epochs=1)
    for each in results:
        assert each.flat_params.tobytes() == model.flat_params.tobytes()


def test_a_class_called_minus_one_is_a_class(rng):
    X, y = reals(rng), [-1, 1, 1, -1, 1, 1, -1]
    model = named([-1, 1])
    assert model.evaluate(X, y).count == 7
    assert set(model.predict(X).tolist()) <= {-1, 1}


# ---- what is unknown -----------------------------------------------------------------------------------------------


def test_unknown_classes_count_for_nothing(rng):
    X, y = reals(rng), labels(rng)
    y[[1, 4]] = -1
    model = classifier()
    known = [i for i in range(len(y)) if y[i] >= 0]
    result, without = model.evaluate(X, y), model.evaluate([X[i] for i in known], y[known])
    assert result == without
    assert result.count == 5
    steps = labels(rng, LENGTHS)
    p = tagger().predict_proba(X)
    total = -sum(np.log(p[i][t, k]) for i, row in enumerate(steps) for t, k in enumerate(row) if k >= 0)
    result = tagger().evaluate(X, steps)
    assert result.count == sum(LENGTHS) - 2
    assert result.nats == pytest.approx(total / result.count, rel=1e-6)


def test_accuracy_is_the_share_of_right_answers(rng):
    X = reals(rng)
    model, y = classifier(), labels(rng)
    assert model.evaluate(X, y).accuracy == (model.predict(X) == y)[y >= 0].mean()
    questions = tagger(multilabel=True)
    steps = [rng.integers(2, size=(n, V)).astype(float) for n in LENGTHS]
    steps[1][0, 2] = np.nan
    right = [(p == (s > 0.5))[~np.isnan(s)] for p, s in zip(questions.predict(X), steps, strict=True)]
    assert questions.evaluate(X, steps).accuracy == np.concatenate(right).mean()


def test_yes_is_a_probability_above_a_half(rng):
    model, X = classifier(multilabel=True), reals(rng)
    p, chosen = model.predict_proba(X), model.predict(X)
    assert p.shape == chosen.shape == (len(X), V)
    assert chosen.dtype == bool
    assert 0 < chosen.mean() < 1
    assert (chosen == (p > 0.5)).all()
    assert (abs(p.sum(axis=1) - 1) > 1e-3).any()


# ---- shapes --------------------------------------------------------------------------------------------------------


def test_a_list_comes_back_as_a_list_and_an_array_as_an_array(rng):
    arrays, ids = rng.normal(size=(4, 6, D)), rng.integers(D, size=(4, 6))
    for X in (arrays, ids):
        assert classifier().predict(X).shape == classifier().predict(list(X)).shape == (4,)
        assert classifier().predict_proba(X).shape == (4, V)
        stacked, apart = tagger().predict_proba(X), tagger().predict_proba(list(X))
        assert stacked.shape == (4, 6, V)
        assert isinstance(apart, list)
        assert np.array_equal(stacked, np.stack(apart))
        assert tagger().predict(X).shape == (4, 6)
        assert tagger(multilabel=True).predict(X).shape == (4, 6, V)
    assert [len(row) for row in tagger().predict(id_sequences(rng))] == LENGTHS
    np.testing.assert_allclose(classifier().predict_proba(arrays).sum(axis=1), 1, rtol=1e-6)


# ---- arguments -----------------------------------------------------------------------------------------------------


def reg(**options):
    return crnn.SequenceRegressor(D, 2, H, **options)


ARGUMENTS = {
    "an option before the data": (lambda: crnn.SequenceClassifier(dropout=2), ValueError, "dropout: expected a prob"),
    "num_classes 0": (lambda: crnn.SequenceClassifier(D, 0), ValueError, "num_classes: expected .* at least 1, got 0"),
    "num_classes a float": (lambda: crnn.SequenceTagger(D, 2.0), ValueError, r"num_classes: expected .* got 2\.0"),
    "other num_classes": (lambda: named(["a"], num_classes=2), ValueError, "classes: expected 2, as .* says, got 1"),
    "classes a text": (lambda: named("ab"), TypeError, "classes: expected a list of names, got str"),
    "classes a number": (lambda: named(3), TypeError, "classes: expected a list of names, got int"),
    "classes a set": (lambda: named({"a", "b"}), TypeError, "classes: expected a list of names, got set"),
    "classes twice": (lambda: named(["a", "b", "a"]), ValueError, "classes: expected different names, .* got"),
    "classes real": (lambda: named([1.5, 2.0]), ValueError, "classes: expected different names, .* got"),
    "classes equal": (lambda: named([True, 1]), ValueError, "classes: expected different names, .* got"),
    "classes lists": (lambda: named([["a"], ["b"]]), ValueError, "classes: expected different names, .* got"),
    "classes none": (lambda: named([]), ValueError, "num_classes: expected .* got 0"),
    "class_weight too short": (lambda: classifier(class_weight=[1, 2]), ValueError, "class_weight: expected 4 numbers"),
    "class_weight a dict": (
        lambda: classifier(class_weight={0: -1.0}), ValueError, r"class_weight\[0\]: expected a number .* got -1",
    ),
    "class_weight a text": (lambda: classifier(class_weight="even"), ValueError, "class_weight: .* got 'even'"),
    "class_weight negative": (lambda: classifier(class_weight=[1, 2, 3, -1]), ValueError, "class_weight: expected"),
    "class_weight NaN": (lambda: tagger(class_weight=[1, 2, 3, np.nan]), ValueError, "class_weight: expected"),
    "class_weight huge": (lambda: tagger(class_weight=[1, 2, 3, 10**400]), ValueError, "class_weight: expected"),
    "weights of questions": (lambda: tagger(multilabel=True, class_weight=[1]), ValueError, "class_weight: expected 4"),
    "label_smoothing 1": (lambda: classifier(label_smoothing=1), ValueError, "label_smoothing: expected .* got 1"),
    "label_smoothing none": (lambda: classifier(label_smoothing=None), ValueError, "label_smoothing: .* got None"),
    "smoothed questions": (
        lambda: classifier(label_smoothing=0.1, multilabel=True), ValueError, "label_smoothing: expected 0 with multi",
    ),
    "multilabel a number": (lambda: classifier(multilabel=1), ValueError, "multilabel: expected True or False, got 1"),
    "pooling none": (lambda: classifier(pooling=None), ValueError, "pooling: expected one, got None"),
    "pooling unknown": (lambda: classifier(pooling="min"), ValueError, "pooling: expected one of last, .* got 'min'"),
    "pooling a list": (lambda: reg(pooling=["mean"]), ValueError, r"pooling: expected one of .* got \['mean'\]"),
    "flatten without steps": (lambda: classifier(pooling="flatten"), ValueError, "steps: .* got None"),
    "steps without flatten": (lambda: classifier(steps=3), ValueError, "steps: .* got 3"),
    "steps 0": (lambda: classifier(pooling="flatten", steps=0), ValueError, "steps: expected .* got 0"),
    "other steps": (
        lambda: classifier(pooling="flatten", steps=3).predict(np.ones((2, 4, D))), ValueError, "X: .* 3 steps",
    ),
    "tagger's pooling": (lambda: tagger(pooling="mean"), TypeError, "unexpected argument .pooling."),
    "unknown argument": (lambda: classifier(layers=2), TypeError, "SequenceClassifier: unexpected argument 'layers'"),
    "scale a number": (lambda: reg(scale=1), ValueError, "scale: expected True or False, got 1"),
    "input_size 0": (lambda: crnn.SequenceClassifier(0, 2), ValueError, "input_size: expected .* got 0"),
    "hidden_size 0": (lambda: classifier(hidden_size=0), ValueError, "hidden_size: expected .* got 0"),
    "hidden_size of three": (lambda: classifier(hidden_size=[3, 0]), ValueError, "hidden_size: expected .* got 0"),
    "num_layers 0": (lambda: classifier(num_layers=0), ValueError, "num_layers: expected .* got 0"),
    "cell unknown": (lambda: classifier(cell="GRU"), ValueError, "cell: expected one of tanh, .* got 'GRU'"),
    "dtype half": (lambda: classifier(dtype="float16"), ValueError, "dtype: expected .* got 'float16'"),
    "dtype none": (lambda: classifier(dtype=None), ValueError, "dtype: expected .* got None"),
    "seed none": (lambda: classifier(seed=None), ValueError, "seed: expected .* got None"),
    "seed negative": (lambda: classifier(seed=-1), ValueError, "seed: expected .* got -1"),
    "dropout 1": (lambda: classifier(dropout=1.0), ValueError, r"dropout: expected a probability .* got 1\.0"),
    "recurrent_dropout": (lambda: classifier(recurrent_dropout="x"), ValueError, "recurrent_dropout: expected .* 'x'"),
    "bidirectional": (lambda: classifier(bidirectional="yes"), ValueError, "bidirectional: expected .* got 'yes'"),
    "embedding_size": (lambda: classifier(embedding_size=1.5), ValueError, r"embedding_size: expected .* got 1\.5"),
    "output_size": (lambda: crnn.SequenceRegressor(D, 0), ValueError, "output_size: expected .* got 0"),
    "loss unknown": (lambda: reg(loss="l2"), ValueError, "loss: expected one of mse, mae, huber, quantile, got 'l2'"),
    "loss a list": (lambda: reg(loss=["mse"]), ValueError, r"loss: expected one of .* got \['mse'\]"),
    "delta none": (lambda: reg(loss="huber", delta=None), ValueError, "delta: expected a number above 0, got None"),
    "delta 0": (lambda: reg(loss="huber", delta=0), ValueError, "delta: expected a number above 0, got 0"),
    "delta infinite": (lambda: reg(loss="huber", delta=np.inf), ValueError, "delta: expected .* got inf"),
    "quantiles a number": (lambda: reg(loss="quantile", quantiles=0.5), ValueError, r"quantiles: expected .* got 0\.5"),
    "quantiles a text": (
        lambda: reg(loss="quantile", quantiles="0.5"), ValueError, r"quantiles: expected .* got '0\.5'",
    ),
    "quantiles none": (lambda: reg(loss="quantile", quantiles=[]), ValueError, r"quantiles: expected .* got \[\]"),
    "quantiles in percent": (lambda: reg(loss="quantile", quantiles=[50]), ValueError, r"quantiles: .* got \[50\]"),
    "quantiles at the edge": (lambda: reg(loss="quantile", quantiles=[0.5, 1.0]), ValueError, "quantiles: expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_bad_argument_is_named(case):
    call, error, message = ARGUMENTS[case]
    with pytest.raises(error, match=message):
        call()


def test_any_spelling_of_a_dtype_will_do():
    assert classifier(dtype=np.float64).dtype == classifier(dtype="f8").config()["dtype"] == "float64"
