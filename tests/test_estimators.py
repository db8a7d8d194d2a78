# SPDX-License-Identifier: MIT
"""The models in scikit-learn's hands: its own checks of estimators, and its tools on sequences of unequal lengths."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import crnn

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone, is_classifier, is_regressor  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
)
from sklearn.pipeline import Pipeline, make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils import get_tags  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

# ---- scikit-learn's checks -------------------------------------------------------------------------------------------

COLUMNS = "the columns of a 2-d array are the steps of one variable: any number of them will do, and D is 1"
EARLY = "arguments are checked by the constructor, not later"
EXPECTED_FAILURES = {
    "check_do_not_raise_errors_in_init_or_set_params": EARLY,
    "check_n_features_in": COLUMNS,
    "check_n_features_in_after_fitting": COLUMNS,
}
OF_CLASSIFIERS = {
    "check_classifiers_train": COLUMNS,
    "check_supervised_y_2d": "a column of labels is taken as labels, without a warning",
}
FAST = {"hidden_size": 8, "lr": 0.02, "dtype": "float64", "batch_size": 512, "schedule": None}
ESTIMATORS = [crnn.SequenceClassifier(epochs=30, **FAST), crnn.SequenceRegressor(epochs=150, **FAST)]


with warnings.catch_warnings():  # of estimators that do not derive from scikit-learn's
    warnings.simplefilter("ignore", UserWarning)
    with_checks = parametrize_with_checks(
        ESTIMATORS,
        expected_failed_checks=lambda each: EXPECTED_FAILURES | (OF_CLASSIFIERS if is_classifier(each) else {}),
    )


@with_checks
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_what_the_failing_check_of_classifiers_would_check_besides_the_columns(rng):
    X = rng.normal(size=(60, 5)) + np.repeat([0.0, 3, 6], 20)[:, None]
    y = np.repeat(["a", "b", "c"], 20)
    model = clone(ESTIMATORS[0])
    with pytest.raises(ValueError, match="y"):
        model.fit(X, y[:-1])
    model.fit(X.tolist(), y.tolist())
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict(X).shape == (60,)
    assert model.score(X, y) > 0.83
    p = model.predict_proba(X)
    assert (p.argmax(axis=1) == np.searchsorted(model.classes_, model.predict(X))).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_the_example_of_the_page_runs():
    page = Path(__file__).parents[1] / "docs" / "scikit-learn.md"
    if not page.exists():
        pytest.skip("the pages are not part of this tree")
    (code,) = re.findall(r"^```python sklearn\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    namespace = {}
    exec(compile(code, page, "exec"), namespace)
    assert namespace["search"].best_score_ > 0.8


def test_the_page_names_the_checks_that_fail():
    page = Path(__file__).parents[1] / "docs" / "scikit-learn.md"
    if not page.exists():
        pytest.skip("the pages are not part of this tree")
    named = set(re.findall(r"`(check_\w+)`", page.read_text("utf-8")))
    assert named == {*EXPECTED_FAILURES, *OF_CLASSIFIERS}


# ---- tools, on sequences of unequal lengths --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(rng.integers(3, 9), 2)) for _ in range(60)]
    return X, np.array(["down", "up"])[[int(x[:, 0].sum() > 0) for x in X]], np.array([x[:, 0].sum() for x in X])


def classifier(**options):
    return crnn.SequenceClassifier(**{"hidden_size": 6, "epochs": 15, "lr": 0.05, "seed": 0} | options)


def regressor(**options):
    return crnn.SequenceRegressor(**{"hidden_size": 6, "epochs": 15, "lr": 0.05, "seed": 0} | options)


def test_grid_search_over_units_and_rate(data):
    X, y, values = data
    search = GridSearchCV(classifier(), {"hidden_size": [2, 6], "lr": [1e-5, 0.05]}, cv=3).fit(X, y)
    assert search.best_params_["lr"] == 0.05
    assert search.best_score_ > 0.8
    assert search.best_estimator_.net.hidden_size == search.best_params_["hidden_size"]
    assert search.predict(X).shape == (60,)
    search = GridSearchCV(regressor(), {"lr": [1e-5, 0.05]}, cv=2, scoring="neg_mean_absolute_error").fit(X, values)
    assert search.best_params_ == {"lr": 0.05}
    assert search.best_estimator_.score(X, values) > 0.5


def test_random_search_and_several_jobs_give_the_bits_of_one(data):
    X, y, _ = data
    options = {"param_distributions": {"hidden_size": [3, 5, 7], "cell": ["gru", "lstm"]}, "n_iter": 2, "cv": 2}
    found = [
        RandomizedSearchCV(classifier(epochs=3), random_state=1, n_jobs=jobs, **options).fit(X, y) for jobs in (1, 2)
    ]
    assert found[0].best_params_ == found[1].best_params_
    assert (found[0].predict_proba(X) == found[1].predict_proba(X)).all()
    assert (found[0].cv_results_["mean_test_score"] == found[1].cv_results_["mean_test_score"]).all()


def test_cross_validation(data):
    X, y, values = data
    assert cross_val_score(classifier(), X, y, cv=3).mean() > 0.8
    assert cross_val_score(regressor(), X, values, cv=3).mean() > 0.5
    assert (cross_val_predict(classifier(), X, y, cv=3) == y).mean() > 0.8
    assert cross_val_predict(classifier(), X, y, cv=3, method="predict_proba").shape == (60, 2)
    assert cross_val_predict(regressor(), X, values, cv=3).shape == (60,)
    found = cross_validate(classifier(epochs=2), X, y, cv=2, return_estimator=True, return_train_score=True, n_jobs=2)
    assert [each.log.epochs for each in found["estimator"]] == [2, 2]
    sizes, _, _ = learning_curve(classifier(epochs=2), X, y, cv=2, train_sizes=[0.5, 1.0])
    assert sizes.tolist() == [15, 30]
    assert 0 < permutation_test_score(classifier(epochs=2), X, y, cv=2, n_permutations=3)[2] <= 1


def test_weights_reach_fit_and_score(data):
    X, y, _ = data
    weights = np.where(y == "up", 1.0, 0.0)
    weights[:2] = 1e-3
    found = cross_validate(classifier(), X, y, cv=2, params={"sample_weight": np.ones(60)})
    assert found["test_score"].mean() > 0.8
    assert set(classifier(class_weight={"up": 50.0}).fit(X, y, sample_weight=weights + 1e-3).predict(X)) == {"up"}


def test_pipeline(data):
    X, y, _ = data
    shorter = FunctionTransformer(lambda sequences: [x[-4:] for x in sequences])
    pipe = Pipeline([("cut", shorter), ("model", classifier())])
    pipe.set_params(model__hidden_size=5, model__lr=0.02).fit(X, y, model__epochs=20)
    assert pipe.named_steps["model"].net.hidden_size == 5
    assert pipe.named_steps["model"].log.epochs == 20
    assert pipe.predict(X).shape == (60,)
    assert 0.5 < pipe.score(X, y) <= 1
    assert GridSearchCV(make_pipeline(shorter, classifier()), {"sequenceclassifier__lr": [0.01]}, cv=2).fit(X, y)


def test_calibrated_stacked_and_voting_classifiers(data):
    X, y, _ = data
    calibrated = CalibratedClassifierCV(classifier(), cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (60, 2)
    assert calibrated.score(X, y) > 0.8
    both = [("gru", classifier()), ("lstm", classifier(cell="lstm"))]
    stacked = StackingClassifier(both, LogisticRegression(), cv=2).fit(X, y)
    assert stacked.score(X, y) > 0.8
    assert set(stacked.predict(X)) == {"down", "up"}
    assert VotingClassifier(both, voting="soft").fit(X, y).score(X, y) > 0.8


def test_bagging_of_arrays(rng):
    X = rng.normal(size=(40, 6))
    y = (X.sum(axis=1) > 0).astype(int)
    assert BaggingClassifier(classifier(epochs=5), n_estimators=2, random_state=0).fit(X, y).predict(X).shape == (40,)


@pytest.mark.parametrize("kind", ["list", "objects", "array", "lists", "ints"])
def test_every_form_of_sequences_can_be_split(kind, rng):
    whole = rng.normal(size=(30, 5, 2))
    y = (whole[:, :, 0].sum(axis=1) > 0).astype(int)
    forms = {"list": list(whole), "array": whole, "lists": whole.tolist(), "ints": (whole[..., 0] > 0).astype(int)}
    forms["objects"] = np.empty(30, object)
    forms["objects"][:] = [x[: 3 + i % 3] for i, x in enumerate(whole)]
    scores = cross_val_score(classifier(epochs=2), forms[kind], y, cv=2)
    assert np.isfinite(scores).all()


def test_clones_and_tags(data):
    X, y, _ = data
    model = classifier(optimizer=crnn.optim.Adam(beta2=0.9), lr=None, schedule=crnn.optim.cosine(), hidden_size=[3, 4])
    fitted = clone(model).fit(X, y)
    assert not hasattr(clone(fitted), "classes_")
    assert (clone(fitted).fit(X, y).flat_params == fitted.flat_params).all()
    assert (is_classifier(model), is_regressor(model)) == (True, False)
    assert is_regressor(regressor())
    assert get_tags(classifier(multilabel=True)).classifier_tags.multi_label
    assert get_tags(classifier(vocab="char")).input_tags.string
    assert not get_tags(classifier()).input_tags.string
    for other in (crnn.SequenceTagger(), crnn.SequenceToSequence(3, 3, 2)):
        assert type(clone(other)) is type(other)
        assert not is_classifier(other)
        check_is_fitted(other.fit([[0, 1, 2], [1, 0]] * 4, [[0, 1, 0], [1, 0]] * 4, epochs=1))


def test_a_model_that_has_not_been_fitted_says_so_in_scikit_learns_words(data):
    with pytest.raises(NotFittedError):
        classifier().predict(data[0])
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier())
    check_is_fitted(classifier(epochs=1).fit(*data[:2]))
