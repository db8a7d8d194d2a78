# SPDX-License-Identifier: MIT
"""What the training data decide: sizes, classes, and the windows of a lone series."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits

import crnn
from crnn.models.files import from_bytes
from crnn.models.fitting.from_data import windows_of

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(n, 3)) for n in (5, 7, 6, 5, 8, 6)]
IDS = [RNG.integers(0, 4, n) for n in (5, 7, 6, 5, 8, 6)]
IDS[0][0] = 3


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1, 2, 0, 1, 2], None),
        (np.array([1, 0, 1, 0, 1, 0], np.uint8), None),
        (["b", "a", "c"] * 2, ["a", "b", "c"]),
        (np.array(["no", "yes"] * 3), ["no", "yes"]),
        ([True, False] * 3, [False, True]),
        (np.array([True, False] * 3), [False, True]),
        ([7, 3] * 3, [3, 7]),
        ([2, 1, 2, 1, 2, 1], [1, 2]),
        ([1.0, 0.0, 1, 0, 1, 0], None),
        (np.array([2.0, 1, np.nan, 1, 2, -1], np.float32), [1, 2]),
        (["b", None, "a", float("nan"), "b", -1], ["a", "b"]),
    ],
)
def test_a_classifier_learns_its_sizes_and_classes_from_the_data(labels, classes):
    model = crnn.SequenceClassifier(hidden_size=4, cell="lstm", pooling="last", seed=1)
    model.fit(X, labels, epochs=2, batch_size=4)
    size = {"classes": classes} if classes else {"num_classes": int(np.max(labels)) + 1}
    other = crnn.SequenceClassifier(3, hidden_size=4, cell="lstm", pooling="last", seed=1, **size)
    other.fit(X, labels, epochs=2, batch_size=4)
    assert_same_bits(model.flat_params, other.flat_params)
    assert model.classes == classes
    assert set(model.predict(X).tolist()) <= set(classes or range(model.num_classes))
    again = from_bytes(model.to_bytes())
    assert again.classes == classes
    assert (again.predict(X) == model.predict(X)).all()
    assert (again.stream().run(X[0]) == model.stream().run(X[0])).all()
    before = model.flat_params.copy()
    model.fit(X, labels, epochs=1, warm_start=True)  # continues with the same weights
    assert (before != model.flat_params).any()
    with pytest.raises(ValueError, match=r"y\[0\]: expected (one of|class numbers)"):
        model.evaluate(X[:1], ["unseen"] if classes else [99])


def test_a_tagger_and_ids_and_several_labels():
    tags = [["in" if number > 1 else "out" for number in ids] for ids in IDS]
    tagger = crnn.SequenceTagger(hidden_size=4, seed=1)
    tagger.fit(IDS, tags, epochs=1)
    assert (tagger.net.input_size, tagger.classes) == (4, ["in", "out"])
    embedded = crnn.SequenceTagger(hidden_size=4, embedding_size=3, seed=1)
    embedded.fit(IDS, [ids % 2 for ids in IDS], epochs=1)
    assert (embedded.net.input_size, embedded.num_classes) == (4, 2)
    several = crnn.SequenceClassifier(hidden_size=4, multilabel=True)
    several.fit(X, np.ones((6, 5)), epochs=1)
    assert several.num_classes == 5
    one_variable = crnn.SequenceClassifier(hidden_size=4)
    one_variable.fit(np.ones((6, 9)), [0, 1] * 3, epochs=1)
    assert one_variable.net.input_size == 1


def test_integers_are_ids_or_numbers():
    assert crnn.SequenceClassifier(hidden_size=2).fit(IDS, [0, 1] * 3, epochs=1).n_features_in_ == 4
    below = [ids - 2 for ids in IDS]
    assert crnn.SequenceClassifier(hidden_size=2).fit(below, [0, 1] * 3, epochs=1).n_features_in_ == 1
    assert crnn.SequenceRegressor(hidden_size=2).fit(IDS, np.ones(6), epochs=1).n_features_in_ == 1
    assert crnn.SequenceRegressor(hidden_size=2, embedding_size=2).fit(IDS, np.ones(6), epochs=1).n_features_in_ == 4
    with pytest.raises(ValueError, match=r"X: expected ids, .* got one of 1700000000; write input_size=1"):
        crnn.SequenceTagger(hidden_size=2).fit([[1_700_000_000, 1], [3]], [[0, 1], [1]])


def test_minus_one_and_one_are_two_classes():
    model = crnn.SequenceClassifier(hidden_size=2).fit(X, [-1, 1] * 3, epochs=1)
    assert model.classes_.tolist() == [-1, 1]
    model.fit(X, [-1, 1, 0] * 2, epochs=1)  # -1 is unlabelled among others
    assert model.classes_.tolist() == [0, 1]


def test_predictions_have_the_shape_of_the_targets():
    one, column = np.ones(6), np.ones((6, 1))
    for size in (None, 3):
        model = crnn.SequenceRegressor(size, hidden_size=4)
        for y in (one, column, np.ones((6, 2)), one):
            assert model.fit(X, y, epochs=1).predict(X).shape == y.shape
            assert from_bytes(model.to_bytes()).predict(X).shape == y.shape
    quantiles = crnn.SequenceRegressor(hidden_size=4, loss="quantile")
    assert quantiles.fit(X, one, epochs=1).predict(X).shape == (6, 3)
    assert quantiles.fit(X, column, epochs=1).predict(X).shape == (6, 1, 3)
    assert crnn.SequenceRegressor(3, 1, hidden_size=4).fit(X, one, epochs=1).predict(X).shape == (6, 1)


def test_labels_may_be_names_where_only_their_number_is_given():
    model = crnn.SequenceClassifier(3, 2, hidden_size=4, seed=0)
    model.fit(X, ["up", "down"] * 3, epochs=1)
    assert model.classes == ["down", "up"]
    assert set(model.predict(X).tolist()) <= {"up", "down"}
    with pytest.raises(ValueError, match=r"y: expected labels of num_classes=3 classes, got .'down', 'up'."):
        crnn.SequenceClassifier(3, 3, hidden_size=4).fit(X, ["up", "down"] * 3)


def test_integers_are_numbers_to_a_regressor_whose_size_is_not_given():
    """Ids are for those who say so."""
    X = np.random.default_rng(0).integers(0, 50, (20, 8))
    for x, y in (X, X.sum(axis=1)), (list(X), X.sum(axis=1)), (X.astype(np.uint8), X.sum(axis=1)):
        model = crnn.SequenceRegressor(hidden_size=4).fit(x, y, epochs=1, valid=None)
        assert model.n_features_in_ == 1
        other = crnn.SequenceRegressor(hidden_size=4).fit(X.astype(float), y, epochs=1, valid=None)
        assert (model.flat_params == other.flat_params).all()
        assert (model.predict(x) == other.predict(X.astype(float))).all()
    assert crnn.SequenceRegressor(hidden_size=4, pooling=None).fit(list(X), None, epochs=1).n_features_in_ == 1
    assert crnn.SequenceRegressor(hidden_size=4, embedding_size=3).fit(X, X.sum(axis=1), epochs=1).n_features_in_ == 50
    assert crnn.SequenceRegressor(50, hidden_size=4).fit(X, X.sum(axis=1), epochs=1).n_features_in_ == 50


def test_a_regressor_learns_its_sizes_from_the_data():
    for y, P in [(np.ones(6), 1), (np.ones((6, 2)), 2), (RNG.normal(size=(6, 1)), 1)]:
        model = crnn.SequenceRegressor(hidden_size=4, seed=1)
        model.fit(X, y, epochs=1)
        assert (model.net.input_size, model.output_size) == (3, P)
    steps = crnn.SequenceRegressor(hidden_size=4, pooling=None)
    steps.fit(X, [x[:, :2] for x in X], epochs=1)
    assert steps.output_size == 2
    forecaster = crnn.SequenceRegressor(hidden_size=4, pooling=None)
    forecaster.fit(X, None, epochs=1)
    assert forecaster.forecast(X[0], 2).shape == (2, 3)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (["a"] * 6, ValueError, "y: expected labels of at least two classes, got only one class, 'a'"),
        ([-1, 2] * 3, ValueError, r"y: .* of at least two classes, got only one class, 2 \(-1 is no label unless"),
        ([None] * 6, ValueError, "y: expected labels of at least two classes, got only unlabelled entries"),
        ([0.5, 1.5] * 3, ValueError, r"y\[0\]: expected labels that are strings, integers or bools, got float 0.5"),
        (["a", 1] * 3, TypeError, "y: expected labels of one type"),
        ({"a": 1}, TypeError, "y: expected a list or an array of targets, got dict"),
        (["a", "b"], ValueError, "y: expected one entry for each of 6 sequences, got 2"),
    ],
)
def test_labels_that_decide_nothing_are_named_and_the_model_still_waits(y, error, message):
    model = crnn.SequenceClassifier(hidden_size=4)
    with pytest.raises(error, match=message):
        model.fit(X, y, epochs=1)
    with pytest.raises(AttributeError, match="SequenceClassifier: expected a call of fit before this"):
        model.predict(X)
    with pytest.raises(AttributeError, match="expected a call of fit before this"):
        _ = model.flat_params
    assert "sizes come from the training data" in repr(model)
    model.fit(X, ["a", "b"] * 3, epochs=1)
    assert model.classes == ["a", "b"]


def test_labels_in_a_column_are_labels():
    def weights(model, y):
        model.fit(X, y, epochs=1)
        return model.flat_params

    labels = np.array(["b", "a"] * 3)
    expected = weights(crnn.SequenceClassifier(hidden_size=4), labels)
    for given in (labels[:, None], [[label] for label in labels]):
        assert_same_bits(weights(crnn.SequenceClassifier(hidden_size=4), given), expected)
    tags = [x[:, 0] > 0 for x in X]
    expected = weights(crnn.SequenceTagger(hidden_size=4), tags)
    assert_same_bits(weights(crnn.SequenceTagger(hidden_size=4), [tag[:, None] for tag in tags]), expected)
    gaps = [[float(tag) for tag in tags[0][:-1]] + [np.nan], *[tag.astype(int) for tag in tags[1:]]]
    minus = [[int(tag) for tag in tags[0][:-1]] + [-1], *gaps[1:]]
    for options in ({}, {"num_classes": 2}):
        expected = weights(crnn.SequenceTagger(hidden_size=4, **options), minus)
        assert_same_bits(weights(crnn.SequenceTagger(hidden_size=4, **options), gaps), expected)


NUMBERS = [RNG.normal(size=len(x)) for x in X]


@pytest.mark.parametrize(
    ("make", "y", "message"),
    [
        (crnn.SequenceClassifier, np.eye(3)[[0, 1, 2] * 2], r"y\[0\]: expected one label, .* y.argmax\(axis=-1\)"),
        (crnn.SequenceClassifier, np.eye(2, dtype=bool)[[0, 1] * 3], r"y\[0\]: expected one label, .* y.argmax"),
        (crnn.SequenceClassifier, [x[:, 0] > 0 for x in X], r"y\[0\]: expected one label, got shape \(5,\); a Sequ"),
        (crnn.SequenceTagger, [np.eye(2)[(x[:, 0] > 0).astype(int)] for x in X], r"y\[0\]: expected shape .* y.argmax"),
        (crnn.SequenceTagger, [0, 1] * 3, r"y\[0\]: expected shape \(5,\), got \(\); a SequenceClassifier"),
        (crnn.SequenceRegressor, NUMBERS, r"y\[1\]: expected shape \(5,\), got \(7,\); a model with pooling=None"),
        (lambda **k: crnn.SequenceRegressor(pooling=None, **k), np.ones(6), r"y\[0\]: .* a model with pooling='last'"),
        (lambda **k: crnn.SequenceClassifier(3, 2, **k), [0.5, 1] * 3, r"y\[0\]: .*, got float64: \[0.5\]"),
    ],
)
def test_targets_of_another_kind_of_model_are_refused_with_a_hint(make, y, message):
    with pytest.raises(ValueError, match=message):
        make(hidden_size=4).fit(X, y, epochs=1)


def test_a_class_weight_that_is_another_word_than_balanced_is_refused():
    with pytest.raises(ValueError, match=r"class_weight: expected 'balanced', a dict by label, .* got 'balance'"):
        crnn.SequenceClassifier(hidden_size=4, class_weight="balance")


@pytest.mark.parametrize("weights", [3, ["1", "2"], [[1, 2]], [1, None]])
def test_class_weights_that_are_no_list_of_numbers_are_refused(weights):
    with pytest.raises(ValueError, match="class_weight: expected 2 numbers of at least 0, in the order of the classes"):
        crnn.SequenceClassifier(hidden_size=4, class_weight=weights)


def test_an_interrupted_first_fit_keeps_what_was_learnt():
    def stop(progress):
        raise KeyboardInterrupt

    model = crnn.SequenceClassifier(hidden_size=4)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, ["a", "b"] * 3, epochs=5, on_epoch=stop)
    assert model.classes == ["a", "b"]
    assert model.predict(X).shape == (6,)


@pytest.mark.parametrize(("T", "steps"), [(10, 10), (16, 16), (100, 16), (400, 50), (5000, 128)])
def test_windows_cover_a_series(T, steps):
    series = np.arange(T, dtype=float)[:, None]
    windows = windows_of(series, None)
    assert {len(window) for window in windows} == {steps}
    assert set(np.concatenate(windows)[:, 0]) == set(range(T))
    assert all(np.shares_memory(window, series) for window in windows)


def test_a_lone_series_is_cut_into_windows_to_learn_forecasting():
    wave = np.sin(np.arange(400) / 5)[:, None]

    def fitted(X, **options):
        model = crnn.SequenceRegressor(1, hidden_size=8, pooling=None, seed=0)
        model.fit(X, None, epochs=3, **({"valid": None} | options))
        return model

    expected = fitted(windows_of(wave, None))
    for form in (wave, wave[:, 0], [wave], wave[None], wave[:, 0].tolist(), np.ma.array(wave)):
        assert_same_bits(fitted(form).flat_params, expected.flat_params)
    assert_same_bits(fitted(wave, valid=0.25).flat_params,
                     fitted(windows_of(wave[:300], None), valid=([wave[300:]], None)).flat_params)  # fmt: skip
    with pytest.raises(ValueError, match="valid: expected a share of 400 steps that leaves two on both sides"):
        fitted(wave, valid=0.001)
    new = crnn.SequenceRegressor(hidden_size=8, pooling=None, seed=0)
    new.fit(wave, None, epochs=3, valid=None)
    assert_same_bits(new.flat_params, expected.flat_params)
    crnn.SequenceRegressor(hidden_size=8, pooling=None).fit(range(50), None, epochs=1)
    two = [wave[:50], wave[50:]]
    other = fitted(two)
    assert_same_bits(other.flat_params, fitted(tuple(two)).flat_params)  # several series stay as they are


def test_more_variables_than_steps_are_refused_where_several_series_may_be_meant():
    several = RNG.normal(size=(4, 20))
    with pytest.raises(ValueError, match=r"X: expected a series \(T, D\) .* \(4, 20\); write x\[:, :, None\] if"):
        crnn.SequenceRegressor(hidden_size=4, pooling=None).fit(several, None, epochs=1)
    sizes = []
    for given, options in [(several[:, :, None], {}), (several, {"input_size": 1}), (list(several), {}),
                           (several, {"input_size": 20, "output_size": 20})]:  # fmt: skip
        model = crnn.SequenceRegressor(hidden_size=4, pooling=None, **options)
        model.fit(given, None, epochs=1)
        sizes.append(model.net.input_size)
    assert sizes == [1, 1, 1, 20]
