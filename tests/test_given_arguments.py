# SPDX-License-Identifier: MIT
"""Arguments from which fit finds a value are in files as the user gave them, besides the value."""

import numpy as np
import pytest
from file_tools import edit

import crnn
from crnn.models.files import from_bytes

X = [np.full((3, 1), i / 9) for i in range(9)]
OPTIONS = {"hidden_size": 2, "epochs": 1, "valid": None}
MORE_A, MORE_B = ["a"] * 6 + ["b"] * 3, ["a"] * 3 + ["b"] * 6
# An argument, and the weights that it gives for MORE_A and for MORE_B.
WEIGHTS = {
    "balanced": ("balanced", [0.75, 1.5], [1.5, 0.75]),
    "a dict": ({"b": 3}, [1.0, 3.0], [1.0, 3.0]),
    "a dict of NumPy's": ({np.str_("b"): np.float32(3)}, [1.0, 3.0], [1.0, 3.0]),
    "a list": ([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]),
    "none": (None, None, None),
}


@pytest.mark.parametrize("kind", [crnn.SequenceClassifier, crnn.SequenceTagger])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_loaded_model_has_the_class_weight_that_was_given(kind, weights, tmp_path):
    given, first, second = WEIGHTS[weights]

    def targets(y):
        return y if kind is crnn.SequenceClassifier else [[label] * 3 for label in y]

    model = kind(class_weight=given, **OPTIONS).fit(X, targets(MORE_A))
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    assert loaded.get_params()["class_weight"] == given
    assert type(loaded.get_params()["class_weight"]) is type(given)
    assert loaded.class_weight == first
    assert loaded.to_bytes() == model.to_bytes()
    weights_of_both = [each.fit(X, targets(MORE_B)).class_weight for each in (model, loaded)]
    assert weights_of_both == [second, second]  # found again


def test_a_clone_of_a_loaded_model_finds_the_class_weights_of_its_own_data():
    model = crnn.SequenceClassifier(class_weight="balanced", **OPTIONS).fit(X, MORE_A)
    loaded = from_bytes(model.to_bytes())
    clone = type(loaded)(**loaded.get_params())
    assert clone.fit(X, MORE_B).class_weight == [1.5, 0.75]


def test_a_loaded_model_with_balanced_classes_continues_as_the_saved_one():
    model = crnn.SequenceClassifier(class_weight="balanced", **OPTIONS).fit(X, MORE_A)
    loaded = from_bytes(model.to_bytes())
    for each in (model, loaded):
        each.fit(X, MORE_B, warm_start=True)
    assert loaded.flat_params.tobytes() == model.flat_params.tobytes()


def test_a_fit_of_a_loaded_model_begins_from_the_loaded_weights():
    model = crnn.SequenceClassifier(class_weight="balanced", **OPTIONS).fit(X, MORE_A)
    loaded = from_bytes(model.to_bytes())
    loaded.fit(X, MORE_A, optimizer=crnn.optim.SGD(0))
    assert loaded.flat_params.tobytes() == model.flat_params.tobytes()


def test_thresholds_that_were_tuned_are_used_after_loading_and_given_up_by_the_next_fit():
    y = np.array([[i % 2, i > 4] for i in range(9)])
    model = crnn.SequenceClassifier(multilabel=True, thresholds=0.3, **OPTIONS).fit(X, y).tune_thresholds(X, y)
    loaded = from_bytes(model.to_bytes())
    assert loaded.thresholds == model.thresholds != [0.3, 0.3]
    assert loaded.get_params()["thresholds"] == 0.3
    copy = model.astype("float64")
    assert (copy.thresholds, copy.get_params()["thresholds"]) == (model.thresholds, 0.3)
    assert [each.fit(X, y).thresholds for each in (model, loaded, copy)] == [[0.3, 0.3]] * 3


def test_thresholds_that_were_tuned_without_any_given_are_none_for_clones():
    y = np.array([[i % 2, i > 4] for i in range(9)])
    model = crnn.SequenceClassifier(multilabel=True, **OPTIONS).fit(X, y).tune_thresholds(X, y)
    start = model.flat_params.copy()
    for other in (from_bytes(model.to_bytes()), model.astype("float64").astype("float32")):
        assert other.get_params()["thresholds"] is None
        assert other.thresholds == model.thresholds
        other.fit(X, y, optimizer=crnn.optim.SGD(0))
        assert other.flat_params.tobytes() == start.tobytes()  # they have not been drawn again
        assert other.thresholds is None


def test_a_loaded_model_continues_with_the_thresholds_that_were_tuned():
    y = np.array([[i % 2, i > 4] for i in range(9)])
    model = crnn.SequenceClassifier(multilabel=True, **OPTIONS).fit(X, y).tune_thresholds(X, y)
    tuned = model.thresholds
    for each in (model, from_bytes(model.to_bytes())):
        assert each.fit(X, y, warm_start=True).thresholds == tuned


def test_the_longest_target_of_the_training_is_no_argument():
    digits = crnn.Vocab.from_text("0123")
    model = crnn.SequenceToSequence(source_vocab=digits, target_vocab=digits, hidden_size=2, epochs=1)
    model.fit(["01", "123"], ["10", "321"])
    loaded = from_bytes(model.to_bytes())
    assert loaded.get_params()["longest_target"] is None
    assert loaded.longest_target == 3
    assert loaded.predict(["12"]) == model.predict(["12"])
    assert loaded.fit(["0"], ["1"]).longest_target == 3


def test_a_file_of_an_older_version_has_the_numbers(tmp_path):
    model = crnn.SequenceClassifier(class_weight="balanced", **OPTIONS).fit(X, MORE_A)
    model.save(tmp_path / "old")
    edit(tmp_path / "old", lambda tensors, header: header.pop("given"))
    loaded = crnn.load(tmp_path / "old")
    assert loaded.get_params()["class_weight"] == loaded.class_weight == [0.75, 1.5]
    assert loaded.fit(X, MORE_B).class_weight == [0.75, 1.5]


def test_an_argument_that_no_fit_would_take_is_not_in_the_file():
    model = crnn.SequenceClassifier(class_weight="balanced", **OPTIONS).fit(X, MORE_A)
    for wrong in ("even", {"a": -1.0}, {("a",): 1.0}, {"a": float("nan")}):
        model.set_params(class_weight=wrong)
        assert from_bytes(model.to_bytes()).class_weight == [0.75, 1.5]


@pytest.mark.parametrize(
    "given",
    [
        {"class_weight": "even"},
        {"class_weight": {"a": 1.0}},
        {"class_weight": [["a", -1.0]]},
        {"class_weight": [["a"]]},
        {"class_weight": [[["a"], 1.0]]},
        {"class_weight": [["a", 1.0], ["a", 2.0]]},
        {"class_weight": [["a", 10**400]]},
        {"class_weight": None},
        {"thresholds": "0.5"},
        {"thresholds": [None]},
        {"classes": ["a", "b"]},
        {"longest_target": 3},
        ["balanced"],
        None,
    ],
)
def test_a_file_with_other_things_in_the_place_of_arguments_is_refused(given, tmp_path):
    model = crnn.SequenceClassifier(class_weight="balanced", **OPTIONS).fit(X, MORE_A)
    model.save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: header.update(given=given))
    with pytest.raises(crnn.ModelFileError, match=r"m: .*expected"):
        crnn.load(tmp_path / "m")
