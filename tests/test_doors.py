# SPDX-License-Identifier: MIT
"""What users of other libraries bring, and sizes that nothing holds: taken, or refused by the argument's name."""

import enum
import io

import numpy as np
import pytest

import crnn
from crnn import cli
from crnn.interop.river import RiverClassifier
from crnn.models.files import from_bytes

X = np.random.default_rng(0).normal(size=(6, 5, 2))
HUGE = 10**12


def language_model():
    return crnn.LanguageModel(crnn.Vocab.from_text("abc\n"), hidden_size=4)


# ---- sizes -----------------------------------------------------------------------------------------------------------

TOO_LARGE = {
    "streams": (lambda: crnn.RNN(2, 4).learner(streams=HUGE), "streams: expected sizes .*, got streams=10{12}:"),
    "bptt": (lambda: crnn.RNN(2, 4).learner(bptt=HUGE), "streams, bptt: expected .*, got streams=1, bptt=10{12}:"),
    "streams of ids": (lambda: language_model().learner(streams=HUGE), "streams: .*got streams=10{12}:"),
    "hidden_size": (lambda: crnn.RNN(2, HUGE), "input_size, hidden_size, num_layers: .*, hidden_size=10{12}, num_la"),
    "embedding_size": (lambda: crnn.RNN(2, 4, embedding_size=HUGE), "embedding_size: .*embedding_size=10{12}:"),
    "of a model": (lambda: crnn.SequenceClassifier(2, 2, hidden_size=HUGE), "hidden_size.*: .*hidden_size=10{12}"),
    "of a tagger": (lambda: crnn.SequenceTagger(HUGE, 2, hidden_size=4), "input_size, .*: .*got input_size=10{12},"),
    "found by fit": (
        lambda: crnn.SequenceClassifier(hidden_size=HUGE).fit(X, [0, 1] * 3),
        "hidden_size.*: .*hidden_size=10{12}",
    ),
    "of two networks": (
        lambda: crnn.SequenceToSequence(2, 2, hidden_size=HUGE),
        "hidden_size.*: .*hidden_size=10{12}",
    ),
}


@pytest.mark.parametrize(("make", "message"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_size_for_which_there_is_no_memory_is_named(make, message):
    with pytest.raises(MemoryError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda n: crnn.RNN(2, 4, num_layers=n), lambda n: crnn.SequenceTagger(num_layers=n)])
def test_a_number_of_layers_has_a_bound(make):
    with pytest.raises(ValueError, match=r"num_layers: expected at most 10,000, got 1,000,000,000,000"):
        make(HUGE)


@pytest.mark.parametrize("call", [lambda n: crnn.RNN(2, 4).stream_batch(n), crnn.RNN(2, 4).stream_batch(0).add])
def test_a_number_of_streams_is_refused_by_its_bounds(call):
    with pytest.raises(ValueError, match=r"expected an integer of at least 0 and below \d+, got 1000000000000"):
        call(HUGE)


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_a_memoryview_is_an_array():
    model = crnn.SequenceClassifier(2, 2, hidden_size=4)
    np.testing.assert_array_equal(model.predict_proba(memoryview(X)), model.predict_proba(X))
    fitted = crnn.SequenceClassifier(hidden_size=4, epochs=1).fit(memoryview(X), memoryview(np.array([0, 1] * 3)))
    expected = crnn.SequenceClassifier(hidden_size=4, epochs=1).fit(X, [0, 1] * 3)
    assert fitted.flat_params.tobytes() == expected.flat_params.tobytes()


class Colour(enum.IntEnum):
    RED = 3
    BLUE = 5


class Sort(enum.StrEnum):
    ONE = "one"
    TWO = "two"


@pytest.mark.parametrize("labels", [list(Colour), list(Sort)], ids=["IntEnum", "StrEnum"])
def test_members_of_an_enum_are_their_values(labels, tmp_path):
    model = crnn.SequenceClassifier(hidden_size=4, epochs=1).fit(X, labels * 3)
    assert [type(label) for label in model.classes_.tolist()] == [type(labels[0].value)] * 2
    assert set(model.predict(X)) <= set(labels)
    assert model.score(X, labels * 3) == model.score(X, [label.value for label in labels] * 3)
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(crnn.load(tmp_path / "m.safetensors").classes_, model.classes_)


def test_one_text_is_no_list_of_sequences():
    with pytest.raises(TypeError, match="sequences: expected a list of sequences of ids, got a single <U3"):
        language_model().surprisals(np.array("abc"))
    ids = [np.array([0, 1, 2]), np.array([2, 1])]
    model = language_model()
    for found, expected in zip(model.surprisals(iter(ids)), model.surprisals(ids), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (io.BytesIO(), TypeError, r"path: expected a path, got BytesIO; crnn\.models\.files has from_bytes and to_byt"),
        (bytearray(b"abc"), TypeError, r"path: expected a path, got bytearray; crnn\.models\.files has from_bytes"),
        (1, TypeError, "path: expected a path, got int$"),
        (None, TypeError, "path: expected a path, got NoneType$"),
        ("a\0b", ValueError, "path: expected a path without NUL"),
    ],
)
def test_what_is_no_path_is_refused_by_name(path, error, message):
    for call in (crnn.load, crnn.Learner.load, crnn.RNN(2, 3).save, crnn.RNN(2, 3).learner().save):
        with pytest.raises(error, match=message):
            call(path)


def test_the_content_of_a_file_is_no_path():
    content = crnn.RNN(2, 3).to_bytes()
    with pytest.raises(ValueError, match=rf"path: expected a path, got {len(content)} bytes .*from_bytes reads"):
        crnn.load(content)
    assert from_bytes(content).hidden_size == 3


# ---- learners --------------------------------------------------------------------------------------------------------


def test_features_of_river_may_be_an_array():
    model = crnn.SequenceTagger(2, 2, hidden_size=4, seed=1)
    rows = [({"a": 1.0, "b": -1.0}, 1), ({"b": 2.0, "a": 0.5}, 0)]
    found = []
    for features in (["b", "a"], np.array(["b", "a"])):
        adapter = RiverClassifier(model, features=features)
        for x, y in rows:
            adapter.learn_one(x, y)
        found.append(adapter.predict_proba_one(rows[0][0]))
    assert found[0] == found[1]


def test_a_class_is_no_model():
    with pytest.raises(TypeError, match=r"model: expected .*, got a class, SequenceTagger"):
        RiverClassifier(crnn.SequenceTagger)


@pytest.mark.parametrize("label", [True, "yes"])
def test_labels_that_are_no_class_numbers_say_where_they_are_declared(label):
    with pytest.raises(ValueError, match=r"expected class numbers from 0 to 1 .*made with classes=\[\.\.\.\]"):
        RiverClassifier(crnn.SequenceTagger(2, 2, hidden_size=4)).learn_one({"a": 1.0}, label)
    adapter = RiverClassifier(crnn.SequenceTagger(2, classes=[False, True], hidden_size=4))
    adapter.learn_one({"a": 1.0}, True)
    assert adapter.predict_one({"a": 1.0}) in (False, True)


def test_observations_are_those_of_a_class():
    with pytest.raises(AttributeError, match=r"observed: expected no assignment .*; a subclass may have another"):
        language_model().observed = ()


def test_options_of_dynamic_evaluation_are_checked_before_a_file_is_read(capsys):
    options = ["--dynamic", "--statistics", "no text", "--optimizer", "sgd"]
    assert cli.main(["eval", "no model", "no text", *options]) == 1
    assert "expected none with statistics, which have their own rule, got 'sgd'" in capsys.readouterr().err
    assert cli.main(["eval", "no model", "no text", "--dynamic", "--max-change", "-1"]) == 1
    assert "--max-change: expected a number above 0, got -1.0" in capsys.readouterr().err
