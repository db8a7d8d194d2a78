# SPDX-License-Identifier: MIT
"""Names of the columns of DataFrames, one or a list of them: remembered by fit, and compared from then on."""

import collections
import copy
import pickle

import numpy as np
import pytest
from file_tools import edit

import crnn
from crnn.models.files import from_bytes

pd = pytest.importorskip("pandas")

RNG = np.random.default_rng(0)
ARRAYS = [RNG.normal(size=(T, 2)) for T in (4, 3, 5, 4, 6, 3)]
LABELS = ["up", "down"] * 3
NUMBERS = [0.1 * i for i in range(6)]
OPTIONS = {"hidden_size": 2, "epochs": 1, "valid": None}


def frames(*names):
    return [pd.DataFrame(x, columns=names or ["speed", "load"]) for x in ARRAYS]


def reordered():
    return [frame[["load", "speed"]] for frame in frames()]


def per_step(y):
    return [[each] * len(x) for each, x in zip(y, ARRAYS, strict=True)]


# A model whose targets have two columns, and them as a list of tables or as one.
OF_SEQUENCES = pd.DataFrame({"north": np.arange(6.0), "south": 100 - np.arange(6.0)})
OF_STEPS = [pd.DataFrame({"north": x[:, 0], "south": 100 + x[:, 1]}) for x in ARRAYS]
BINARY = (OF_SEQUENCES > 50).assign(north=[0, 1] * 3).astype(int)
TARGETS = {
    "of sequences": (lambda: crnn.SequenceRegressor(**OPTIONS), OF_SEQUENCES, lambda y: y[["south", "north"]]),
    "of steps": (
        lambda: crnn.SequenceRegressor(pooling=None, **OPTIONS),
        OF_STEPS,
        lambda y: [each[["south", "north"]] for each in y],
    ),
    "binary": (lambda: crnn.SequenceClassifier(multilabel=True, **OPTIONS), BINARY, lambda y: y[["south", "north"]]),
}
TARGET_USES = {
    "score": lambda model, y: model.score(ARRAYS, y),
    "evaluate": lambda model, y: model.evaluate(ARRAYS, y),
    "data": lambda model, y: model.data(ARRAYS, y),
    "a fit that continues": lambda model, y: model.fit(ARRAYS, y, warm_start=True),
    "validation data": lambda model, y: model.fit(ARRAYS, y, valid=(ARRAYS, y), warm_start=True),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("use", TARGET_USES)
def test_targets_with_columns_in_another_order_are_refused(kind, use):
    make, y, reorder = TARGETS[kind]
    model = make().fit(ARRAYS, y)
    copies = [model, copy.deepcopy(model), from_bytes(model.to_bytes()), model.astype("float64")]
    for each in copies:
        TARGET_USES[use](each, y)
        before = each.to_bytes()
        with pytest.raises(ValueError, match=r"(?s)y: The target names should match .*in the same order as they were"):
            TARGET_USES[use](each, reorder(y))
        assert each.to_bytes() == before


def test_validation_targets_are_those_of_the_fit_and_a_new_fit_may_have_others():
    model = crnn.SequenceRegressor(**OPTIONS)
    swapped = OF_SEQUENCES[["south", "north"]]
    with pytest.raises(ValueError, match=r"^valid\[1\]: The target names should match"):
        model.fit(ARRAYS, OF_SEQUENCES, valid=(ARRAYS, swapped))
    model.fit(ARRAYS, OF_SEQUENCES).fit(ARRAYS, swapped).score(ARRAYS, swapped)
    model.score(ARRAYS, swapped.to_numpy())  # without names by position, as before


def test_targets_of_sequences_in_a_list_have_one_order():
    mixed = [each if i % 2 else each[["south", "north"]] for i, each in enumerate(OF_STEPS)]
    with pytest.raises(ValueError, match=r"(?s)^y\[1\]: The target names should match those of y\[0\].*same order"):
        crnn.SequenceRegressor(pooling=None, **OPTIONS).fit(ARRAYS, mixed)


def test_binary_targets_with_the_names_of_the_classes_have_their_order():
    for classes, fits in ((["north", "south"], True), (["south", "north"], False), (["a", "b"], True)):
        model = crnn.SequenceClassifier(multilabel=True, classes=classes, **OPTIONS)
        if fits:
            model.fit(ARRAYS, BINARY)
            continue
        with pytest.raises(ValueError, match=r"^y: expected columns in the order of classes, \['south', 'north'\]"):
            model.fit(ARRAYS, BINARY)


def test_names_of_single_targets_and_names_that_are_no_strings_do_not_matter():
    one = pd.DataFrame({"a": NUMBERS})
    crnn.SequenceRegressor(**OPTIONS).fit(ARRAYS, one).score(ARRAYS, one.rename(columns={"a": "b"}))
    for names in ([0, 1], ["north", 1]):
        y = OF_SEQUENCES.set_axis(names, axis=1)
        crnn.SequenceRegressor(**OPTIONS).fit(ARRAYS, y).score(ARRAYS, y[names[::-1]])


@pytest.mark.parametrize("wrong", [[], [1], "ab", {}])
def test_a_file_with_wrong_target_names_is_refused(tmp_path, wrong):
    crnn.SequenceRegressor(**OPTIONS).fit(ARRAYS, OF_SEQUENCES).save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: header.update(target_names=wrong))
    with pytest.raises(crnn.ModelFileError, match="expected target_names, a list of strings"):
        crnn.load(tmp_path / "m")


# A model, and its targets.
MODELS = {
    "classifier": (lambda **o: crnn.SequenceClassifier(**OPTIONS | o), LABELS),
    "tagger": (lambda **o: crnn.SequenceTagger(**OPTIONS | o), per_step(LABELS)),
    "regressor": (lambda **o: crnn.SequenceRegressor(**OPTIONS | o), NUMBERS),
    "of pairs": (
        lambda **o: crnn.SequenceToSequence(2, target_vocab=DIGITS, real_source=True, **OPTIONS_OF_PAIRS | o),
        ["01", "10"] * 3,
    ),
}
DIGITS = crnn.Vocab.from_text("01")
OPTIONS_OF_PAIRS = {"hidden_size": 2, "epochs": 1}
# All that reads sequences.
USES = {
    "predict": lambda model, X, y: model.predict(X),
    "predict_proba": lambda model, X, y: model.predict_proba(X),
    "score": lambda model, X, y: model.score(X, y),
    "evaluate": lambda model, X, y: model.evaluate(X, y),
    "data": lambda model, X, y: model.data(X, y),
    "a fit that continues": lambda model, X, y: model.fit(X, y, warm_start=True),
    "validation data": lambda model, X, y: model.fit(frames(), y, valid=(X, y)),
    "a mask": lambda model, X, y: model.predict(X, mask=[[True] * len(x) for x in X]),
    "an iterator": lambda model, X, y: model.predict(iter(X)),
    "a tuple": lambda model, X, y: model.predict(tuple(X)),
}
cases = pytest.mark.parametrize(
    ("kind", "use"),
    [
        (kind, use)
        for kind in MODELS
        for use in USES
        if (use, kind) not in {("predict_proba", "regressor"), ("predict_proba", "of pairs"), ("a mask", "of pairs")}
    ],
)


@cases
def test_columns_in_another_order_are_refused_wherever_sequences_are_read(kind, use):
    make, y = MODELS[kind]
    model = make().fit(frames(), y)
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    assert model.feature_names_in_.dtype == object
    USES[use](model, frames(), y)
    before = model.to_bytes()
    in_order = r"\[0\]: The feature names should match .*\nFeature names must be in the same order as they were in fit"
    with pytest.raises(ValueError, match=r"^(X|valid\[0\])" + in_order):
        USES[use](model, reordered(), y)
    assert model.to_bytes() == before


@cases
def test_other_columns_are_refused_by_name(kind, use):
    make, y = MODELS[kind]
    model = make().fit(frames(), y)
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- torque\n"
                       "Feature names seen at fit time, yet now missing:\n- load\n"):  # fmt: skip
        USES[use](model, [*frames()[:1], *frames("speed", "torque")[1:]], y)


COLLECTIONS = {
    "an object array": lambda X: as_objects(X),
    "a Series": lambda X: pd.Series(X),
    "values of a dict": lambda X: dict(enumerate(X)).values(),
    "a deque": collections.deque,
    "groups": lambda X: [group for _, group in pd.concat(X, keys=range(len(X))).groupby(level=0)],
}


def as_objects(X):
    found = np.empty(len(X), object)
    found[:] = X
    return found


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_names_are_found_in_every_collection_of_frames(kind):
    collect = COLLECTIONS[kind]
    model = crnn.SequenceClassifier(**OPTIONS).fit(collect(frames()), LABELS)
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    assert model.predict(collect(frames())).shape == (6,)
    with pytest.raises(ValueError, match=r"^X\[0\]: The feature names should match"):
        model.predict(collect(reordered()))


def test_an_object_that_counts_its_columns_has_no_names():
    class Counted(np.ndarray):
        columns = 2

    model = crnn.SequenceClassifier(**OPTIONS).fit([x.view(Counted) for x in ARRAYS], LABELS)
    assert not hasattr(model, "feature_names_in_")


def test_a_wrong_frame_behind_an_array_is_refused_too():
    model = crnn.SequenceClassifier(**OPTIONS).fit([ARRAYS[0], *frames()[1:]], LABELS)
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    with pytest.raises(ValueError, match=r"^X\[1\]: The feature names should match"):
        model.predict([ARRAYS[0], *reordered()[1:]])


def test_the_message_is_that_of_scikit_learn():
    validation = pytest.importorskip("sklearn.utils.validation")
    known = [f"c{i}" for i in range(9)]
    estimator = type("Some", (), {"feature_names_in_": np.array(known, object)})()
    for names in (known[::-1], known[:2], [f"d{i}" for i in range(9)], [*known, "b"]):
        x = pd.DataFrame(np.zeros((3, len(names))), columns=names)
        with pytest.raises(ValueError, match="feature names") as theirs:
            validation._check_feature_names(estimator, x, reset=False)
        model = crnn.SequenceClassifier(**OPTIONS).fit([pd.DataFrame(np.eye(9), columns=known)] * 2, ["a", "b"])
        with pytest.raises(ValueError, match="feature names") as ours:
            model.predict([x])
        assert str(ours.value) == f"X[0]: {theirs.value}"


def test_a_single_frame_has_names_too():
    wide = pd.DataFrame(RNG.normal(size=(6, 4)), columns=list("abcd"))
    model = crnn.SequenceClassifier(**OPTIONS).fit(wide, LABELS)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert model.predict(wide).shape == (6,)
    with pytest.raises(ValueError, match=r"^X: The feature names should match .*\nFeature names must be in the same"):
        model.predict(wide[list("abdc")])


def test_the_check_of_scikit_learn_for_frames_passes():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")

    class OfTables(crnn.SequenceRegressor):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.two_d_array = True
            return tags

    checks.check_dataframe_column_names_consistency("OfTables", OfTables(**OPTIONS))


def test_a_lone_series_has_names_and_so_has_what_is_forecast_from_it():
    series = pd.DataFrame(RNG.normal(size=(40, 2)), columns=["speed", "load"])
    model = crnn.SequenceRegressor(pooling=None, **OPTIONS).fit(series)
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    assert model.forecast(series, 2).shape == (2, 2)
    with pytest.raises(ValueError, match=r"^series: The feature names"):
        model.forecast(series[["load", "speed"]], 2)


def test_frames_that_are_learnt_together_have_the_same_columns():
    model = crnn.SequenceClassifier(**OPTIONS)
    in_order = r"^X\[1\]: The feature names should match .*\nFeature names must be in the same order as X\[0\]"
    with pytest.raises(ValueError, match=in_order):
        model.fit([frames()[0], *reordered()[1:]], LABELS)
    unseen = r"^X\[2\]: .*\n.* unseen in X\[0\]:\n- torque\n.* seen in X\[0\], yet now missing"
    with pytest.raises(ValueError, match=unseen):
        model.fit([*frames()[:2], *frames("speed", "torque")[2:]], LABELS)
    assert model.deferred


@pytest.mark.parametrize(
    "weights", [{"sample_weight": [1, 2, 0, 1, 1, 1]}, {"mask": [[True] * len(x) for x in ARRAYS]}]
)
def test_weights_and_masks_leave_the_names_as_they_are(weights):
    model = crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS, **weights)
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    assert model.score(frames(), LABELS, **weights) >= 0
    with pytest.raises(ValueError, match="feature names"):
        model.score(reordered(), LABELS, **weights)


def test_files_and_copies_have_the_names():
    model = crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS)
    others = [from_bytes(model.to_bytes()), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in [*others, model.astype("float64"), model.extended(["still"])]:
        assert other.feature_names_in_.tolist() == ["speed", "load"]
        with pytest.raises(ValueError, match="feature names"):
            other.predict(reordered())


def test_a_checkpoint_has_the_names(tmp_path):
    model = crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS, checkpoint=tmp_path / "c")
    assert crnn.load(tmp_path / "c").feature_names_in_.tolist() == ["speed", "load"]
    options = {"checkpoint": tmp_path / "c", "resume": True, "epochs": 2}
    assert model.fit(frames(), LABELS, **options).feature_names_in_.tolist() == ["speed", "load"]


def test_a_second_fit_learns_the_names_again_and_a_refused_one_leaves_them():
    model = crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS)
    with pytest.raises(ValueError, match="epochs"):
        model.fit(frames("a", "b"), LABELS, epochs=0)
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    with pytest.raises(ValueError, match="y"):
        model.fit(frames("a", "b"), LABELS[1:])
    assert model.feature_names_in_.tolist() == ["speed", "load"]
    model.fit(frames("a", "b"), LABELS)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    model.fit(ARRAYS, LABELS)
    assert not hasattr(model, "feature_names_in_")


def test_data_without_names_and_names_without_data_are_warned_of():
    model = crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS)
    with pytest.warns(UserWarning, match="^X does not have valid feature names, but SequenceClassifier was fitted"):
        assert (model.predict(ARRAYS) == model.predict(frames())).all()
    model.fit(ARRAYS, LABELS)
    with pytest.warns(UserWarning, match="^X has feature names, but SequenceClassifier was fitted without"):
        model.predict(frames())


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "evaluate"])
def test_a_warning_is_at_the_line_of_the_program(method):
    model = crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS)
    with pytest.warns(UserWarning, match="valid feature names") as warned:
        getattr(model, method)(ARRAYS, *([] if method.startswith("predict") else [LABELS]))
    assert {each.filename for each in warned} == {__file__}


def test_names_that_are_no_strings_are_no_names():
    numbered = [pd.DataFrame(x) for x in ARRAYS]
    model = crnn.SequenceClassifier(**OPTIONS).fit(numbered, LABELS)
    assert not hasattr(model, "feature_names_in_")
    assert (model.predict(numbered) == model.predict(ARRAYS)).all()
    with pytest.raises(TypeError, match=r"^Feature names are only supported if all input features have string names"):
        model.predict(frames("speed", 1))


def test_a_model_that_fit_has_not_trained_takes_any_names():
    model = crnn.SequenceClassifier(2, 2, hidden_size=2)
    crnn.fit(model, model.data(frames(), [0, 1] * 3), epochs=1)
    assert (model.predict(frames()) == model.predict(ARRAYS)).all()
    assert not hasattr(model, "feature_names_in_")
    assert not hasattr(crnn.SequenceClassifier(), "feature_names_in_")


@pytest.mark.parametrize("names", [[], [1], "ab", {"a": 1}, [None]])
def test_a_file_with_other_things_in_the_place_of_names_is_refused(names, tmp_path):
    crnn.SequenceClassifier(**OPTIONS).fit(frames(), LABELS).save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: header.update(feature_names=names))
    with pytest.raises(crnn.ModelFileError, match="feature_names"):
        crnn.load(tmp_path / "m")
