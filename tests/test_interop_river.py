# SPDX-License-Identifier: MIT
"""Learners in River's protocol, with River's own checks where it is installed, and without it."""

import copy
import pickle
from decimal import Decimal

import numpy as np
import pytest
from model_tools import run_python

import crnn
from crnn.interop.river import RiverAnomaly, RiverClassifier, RiverRegressor

OPTIONS = {"bptt": 6, "lr": 0.01}


def regressor(D=2, **options):
    model = crnn.SequenceRegressor(D, 1, hidden_size=7, seed=0)
    return RiverRegressor(model, **{"options": OPTIONS} | options)


@pytest.mark.parametrize("every", [6, 2])
def test_a_regressor_learns_what_its_learner_learns_whatever_is_predicted_in_between(every, rng):
    options = OPTIONS | {"every": every}
    adapter, other = (regressor(options=options) for _ in range(2))
    learner = adapter.model.learner(**options)
    for step, x in enumerate(rng.normal(size=(40, 2))):
        features, y = dict(zip("ab", x, strict=True)), float(x.sum())
        before = copy.deepcopy(adapter)
        if step % 3:
            for each in rng.normal(size=(step % 4, 2)):
                adapter.predict_one({"a": each[0], "b": each[1]})
        found = adapter.predict_one(features)
        assert found == before.predict_one(features)
        if step % 4 == 1:
            adapter.predict_one({"a": 1})
        if step % 10 == 5:
            for each in (adapter, other, learner):
                each.reset()
        adapter.learn_one(features, y)
        other.learn_one(features, y)
        assert step % 10 == 5 or found == learner.predict(x)
        if step % 10 == 5:
            learner.predict(x)
        learner.learn(y)
    assert np.array_equal(adapter.learner.model.flat_params, learner.model.flat_params)
    assert np.array_equal(other.learner.model.flat_params, learner.model.flat_params)
    assert adapter.learner.steps == 40


def test_features_have_fixed_places_and_missing_ones_are_zero():
    adapter, fixed = regressor(), regressor(features=["b", "a"])
    assert adapter.predict_one({"b": 2.0, "a": 1.0}) == adapter.predict_one({"a": 1.0, "b": 2.0})
    assert fixed.predict_one({"b": 1.0, "a": 2.0}) == adapter.predict_one({"a": 1.0, "b": 2.0})
    assert adapter.predict_one({"a": 3}) == adapter.predict_one({"a": 3.0, "b": None})
    with pytest.raises(ValueError, match=r"expected at most 2 features, .*, got \['a', 'b', 'c'\]"):
        adapter.predict_one({"a": 1, "c": 1})
    ignoring = regressor(new_features="ignore")
    assert ignoring.predict_one({"a": 1, "b": 2}) == ignoring.predict_one({"a": 1, "b": 2, "c": 3})
    assert ignoring.predict_one({"c": 3, "a": 1, "b": 2}) == ignoring.predict_one({"a": 1, "b": 2})
    late = regressor()
    late.learn_one({"b": 1}, 0)
    late.learn_one({"a": 1}, 0)
    with pytest.raises(ValueError, match=r"got .*'c'"):
        late.learn_one({"c": 1}, 0)


@pytest.mark.parametrize("new_features", ["error", "ignore"])
def test_too_many_features_in_the_first_dict_are_refused_and_the_remedy_works(new_features):
    x = {"c": 3.0, "b": 2.0, "a": 1.0}
    with pytest.raises(ValueError, match="in the first dict") as caught:
        regressor(new_features=new_features).learn_one(x, 0.0)
    assert str(caught.value) == (
        "x: expected at most 2 features in the first dict, the inputs of the model, got ['a', 'b', 'c']; "
        "features=[...] with new_features='ignore' says which 2 to read"
    )
    chosen = regressor(features=["c", "a"], new_features="ignore")
    assert chosen.predict_one(x) == regressor().predict_one({"a": 3.0, "b": 1.0})


def test_wrong_features_and_targets_are_refused_and_change_nothing():
    adapter = regressor()
    for x in ({"a": "1"}, {"a": np.nan}, {"a": 1j}, {"a": np.inf}, [1, 2], {"a": 1, "b": 2, "c": 3}):
        with pytest.raises((TypeError, ValueError), match="x"):
            adapter.predict_one(x)
        with pytest.raises((TypeError, ValueError), match="x"):
            adapter.learn_one(x, 1.0)
    with pytest.raises((TypeError, ValueError), match="y"):
        adapter.learn_one({"a": 1}, "high")
    assert adapter.learner.steps == 0
    tagger = crnn.SequenceTagger(2, 2)
    for make in (
        lambda: RiverRegressor(tagger), lambda: RiverClassifier(adapter.model), lambda: RiverAnomaly(adapter.model),
        lambda: RiverClassifier(crnn.SequenceTagger(2, 2, multilabel=True)),
        lambda: RiverRegressor(crnn.SequenceRegressor(2, 1, loss="quantile")),
        lambda: RiverRegressor(crnn.SequenceRegressor(2, 1, embedding_size=3)),
        lambda: regressor(new_features="drop"), lambda: regressor(features=["a", "b", "c"]),
        lambda: regressor(features=["a", "a"]), lambda: regressor(options={"streams": 2}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"(model|new_features|features|options): expected"):
            make()


def test_snapshots_files_and_counters_do_not_have_what_was_only_predicted(tmp_path, rng):
    adapter, plain = regressor(), regressor()
    for x in rng.normal(size=(9, 2)):
        for each in (adapter, plain):
            each.learn_one(dict(zip("ab", x, strict=True)), 1.0)
    before = adapter.predict_one({"a": 1.0, "b": 2.0})
    assert adapter.learner.steps == 9
    adapter.predict_one({"a": 1.0, "b": 2.0})
    adapter.learner.save(tmp_path / "l")
    loaded = crnn.Learner.load(tmp_path / "l")
    x = rng.normal(size=2)
    expected = plain.learner.snapshot().step(x)
    adapter.predict_one({"a": 1.0, "b": 2.0})
    for each in (adapter.learner.snapshot(), loaded.snapshot()):
        assert np.array_equal(each.step(x), expected)
    assert adapter.predict_one({"a": 1.0, "b": 2.0}) == before == plain.predict_one({"a": 1.0, "b": 2.0})


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_has_a_learner_of_its_own(way):
    adapter, plain = regressor(), regressor()
    for each in (adapter, plain):
        each.learn_one({"a": 1.0}, 1.0)
    adapter.predict_one({"a": 2.0})
    other = way(adapter)
    other.learn_one({"a": -5.0}, 7.0)
    for each in (adapter, plain):
        each.learn_one({"a": 2.0}, 1.0)
    assert adapter.predict_one({"a": 3.0}) == plain.predict_one({"a": 3.0}) != other.predict_one({"a": 3.0})


def test_a_classifier_gives_probabilities_of_names(rng):
    model = crnn.SequenceClassifier(1, classes=["low", "high"], hidden_size=7, pooling="last", seed=0)
    classifier = RiverClassifier(model, options=OPTIONS)
    for x in rng.normal(size=600):
        classifier.learn_one({"x": x}, "high" if x > 0 else "low")
    p = classifier.predict_proba_one({"x": 2.0})
    assert set(p) == {"low", "high"}
    assert abs(sum(p.values()) - 1) < 1e-12
    assert p["high"] > 0.8
    assert classifier.predict_one({"x": -2.0}) == "low"
    with pytest.raises(ValueError, match="expected one of"):
        classifier.learn_one({"x": 1.0}, "medium")


def test_anomalies_have_higher_scores(rng):
    detector = RiverAnomaly(crnn.SequenceRegressor(1, 1, hidden_size=7, seed=0), options=OPTIONS)
    assert detector.score_one({"x": 5.0}) == 0
    normal, odd = [], []
    for step in range(2000):
        x = np.sin(step / 3)
        if step > 1500:
            odd.append(detector.score_one({"x": x + 1}))
            normal.append(detector.score_one({"x": x}))
        detector.learn_one({"x": x})
    assert np.median(odd) > 10 * np.median(normal)
    detector.reset()
    assert detector.score_one({"x": 5.0}) == 0


def test_river_is_not_needed():
    code = (
        "import sys; sys.modules['river'] = None; import crnn; from crnn.interop.river import RiverRegressor;"
        "r = RiverRegressor(crnn.SequenceRegressor(1, 1, hidden_size=3)); r.learn_one({'a': 1}, 2.0);"
        "print(r.predict_one({'a': 1}))"
    )
    assert float(run_python(code).stdout)


@pytest.mark.interop
@pytest.mark.parametrize("kind", [RiverClassifier, RiverRegressor])
def test_rivers_own_checks(kind):
    pytest.importorskip("river")
    pytest.importorskip("sklearn")
    from river import checks

    (params,) = kind._unit_test_params()
    model, done = kind(**params), 0
    for check in checks.yield_checks(model):
        if check.__name__ != "check_bounded_memory_growth":  # takes minutes; a test of learners has the same
            check(model.clone())
            done += 1
    assert done > 20


@pytest.mark.interop
def test_progressive_validation_in_a_pipeline():
    pytest.importorskip("river")
    from river import datasets, evaluate, metrics, preprocessing

    def score(model, data, metric):
        return evaluate.progressive_val_score(data, preprocessing.StandardScaler() | model, metric).get()

    model = crnn.SequenceTagger(9, classes=[False, True], hidden_size=16, cell="lstm", seed=0)
    classifier = RiverClassifier(model, options={"lr": 1e-2, "bptt": 8, "every": 1})
    assert score(classifier, datasets.Phishing(), metrics.ROCAUC()) > 0.9
    assert classifier.learner.steps == 1250
    model = crnn.SequenceRegressor(6, 1, hidden_size=16, seed=0)
    adapter = RiverRegressor(model, options={"lr": 3e-2, "bptt": 8, "every": 1})
    assert score(adapter, datasets.TrumpApproval(), metrics.MAE()) < 4
    assert adapter.learner.steps == 1001


def test_features_that_cannot_be_read_are_not_learnt_either():
    x, y = np.linspace(-0.001, 0.001, 20)[:, None], np.linspace(-1, 1, 20)[:, None]
    model = crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None, seed=0)
    model.fit([x], [y], epochs=1)
    detector = RiverAnomaly(model, options=OPTIONS)
    detector.learn_one({"x": 0.0})
    with pytest.raises(ValueError, match="x: expected"):
        detector.learn_one({"x": 1e37})  # of the inputs the standard deviation is 0.001
    detector.learn_one({"x": 0.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": None}, "model: expected"),
        ({"options": 3}, "options: expected a dict, got int"),
        ({"features": "ab"}, "features: expected a list of names, got str"),
        ({"features": {"a", "b"}}, "features: expected a list of names, got set"),
    ],
)
def test_arguments_of_other_types_are_refused_by_name(arguments, message):
    with pytest.raises(TypeError, match=message):
        RiverRegressor(**{"model": crnn.SequenceRegressor(2, 1, hidden_size=4)} | arguments)


def test_an_integer_that_no_float_holds_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"x\['a'\]: expected a finite number"):
        RiverRegressor(crnn.SequenceRegressor(2, 1, hidden_size=4)).predict_one({"a": 10**400})


def test_a_decimal_is_the_number_that_it_is():
    found = [regressor().predict_one({"a": value, "b": 1}) for value in (Decimal("0.5"), 0.5)]
    assert found[0] == found[1]
    with pytest.raises(ValueError, match=r"x\['a'\]: expected a finite number, got Decimal"):
        regressor().predict_one({"a": Decimal("NaN")})
