# SPDX-License-Identifier: MIT
"""Models with further classes: what was learnt stays to the bit."""

import numpy as np
import pytest

import crnn
from crnn.models.files import from_bytes

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(n, 2)) for n in (3, 5, 4, 6, 5, 3)]
NAMES = ["up", "down", "up", "down", "up", "down"]
SMALL = {"hidden_size": 3, "epochs": 2, "batch_size": 3, "valid": None}


def _logits(model):
    return model._outputs(model.data(X, NAMES), 256, 1)


def test_the_outputs_of_known_classes_stay_to_the_bit():
    model = crnn.SequenceClassifier(**SMALL).fit(X, NAMES)
    before = model.to_bytes()
    larger = model.extended(["still", "left"], seed=3)
    assert larger.classes == ["down", "up", "still", "left"]
    assert np.array_equal(_logits(larger)[..., :2], _logits(model))
    new = crnn.SequenceClassifier(2, 4, hidden_size=3, seed=3)
    assert np.array_equal(larger.params["W_hy"][:, 2:], new.params["W_hy"][:, 2:])
    assert (larger.params["b_y"][2:] == model.params["b_y"].min()).all()
    assert larger.scalings["x"].mean.tobytes() == model.scalings["x"].mean.tobytes()
    assert larger.training_runs == model.training_runs
    assert model.to_bytes() == before
    larger.flat_params[:] = 0
    assert model.to_bytes() == before


def test_training_goes_on_with_the_further_classes():
    model = crnn.SequenceClassifier(**SMALL).fit(X, NAMES)
    y = ["up", "still", "up", "still", "up", "down"]
    with pytest.raises(ValueError, match=r"^y\[1\]: expected one of .*, got 'still'; extended\(\['still'\]\) makes"):
        model.fit(X, y, warm_start=True)
    larger = model.extended(["still"])
    start = larger.flat_params.copy()
    larger.fit(X, y, warm_start=True, lr=1e-3)
    assert larger.classes == ["down", "up", "still"]
    assert 0 < np.abs(larger.flat_params - start).max() < 0.1
    assert from_bytes(larger.to_bytes()).predict(X).tolist() == larger.predict(X).tolist()


def test_numbers_options_and_taggers_grow_too():
    numbers = crnn.SequenceClassifier(2, 2, hidden_size=2, class_weight=[1.0, 3.0], lr=0.5)
    larger = numbers.extended([2, 3])
    assert (larger.num_classes, larger.classes, larger.class_weight) == (4, None, [1.0, 3.0, 1.0, 1.0])
    assert larger.get_params()["lr"] == 0.5
    independent = crnn.SequenceTagger(2, classes=["a", "b"], hidden_size=2, multilabel=True, thresholds=0.3)
    assert independent.extended(["c"]).thresholds == [0.3, 0.3, 0.5]
    assert [p.shape[1] for p in independent.extended(["c"]).predict_proba(X)] == [3] * 6


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["up"], r"^classes: expected different names"),
        ([], r"^classes: expected at least one, got none"),
        ([7], r"^classes: expected different names, strings, integers or bools|^classes: expected"),
    ],
)
def test_what_is_no_further_class_is_refused(classes, message):
    model = crnn.SequenceClassifier(2, classes=["up", "down"], hidden_size=2)
    model_of_numbers = crnn.SequenceClassifier(2, 3, hidden_size=2)
    if classes != [7]:
        with pytest.raises(ValueError, match=message):
            model.extended(classes)
    with pytest.raises(ValueError, match=r"^classes: expected"):
        model_of_numbers.extended(classes)


@pytest.mark.parametrize("given", ["balanced", {"a": 3.0, "c": 2.0}])
def test_class_weights_that_fit_finds_are_found_again(given):
    x, y = [np.full((3, 1), i / 9) for i in range(9)], ["a"] * 6 + ["b"] * 3
    options = {"hidden_size": 2, "epochs": 1, "valid": None}
    model = crnn.SequenceClassifier(class_weight="balanced" if given == "balanced" else {"a": 3.0}, **options)
    model.fit(x, y)
    for copy in (model.astype("float64"), model.extended(["c"])):
        assert copy.get_params()["class_weight"] == model.get_params()["class_weight"]
    grown = model.extended(["c"]).set_params(class_weight=given)
    grown.fit(x, ["a"] * 2 + ["b"] * 3 + ["c"] * 4, warm_start=True)
    assert grown.class_weight == ([1.5, 1.0, 0.75] if given == "balanced" else [3.0, 1.0, 2.0])
