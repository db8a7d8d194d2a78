# SPDX-License-Identifier: MIT
"""The contract of scikit-learn's estimators, without scikit-learn: arguments, what a fit begins from, scores."""

import copy
import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import environment

import crnn
from crnn.models.files import from_bytes
from crnn.models.fitting.estimator import ESTIMATING, NotFittedError

RNG = np.random.default_rng(0)
LENGTHS = (5, 7, 6, 5, 8, 6, 4, 9)
X = [RNG.normal(size=(n, 3)) for n in LENGTHS]
LABELS = ["b", "a"] * 4
CLASSES = [0, 1] * 4
TAGS = [(x[:, 0] > 0).astype(int) for x in X]
VALUES = np.array([x.sum() for x in X])
IDS = [RNG.integers(0, 4, n) for n in LENGTHS]
SMALL = {"hidden_size": 4, "seed": 1}

# How to make a model whose sizes come from the data, or one whose sizes are given, and data for it.
WAITING = {
    "classifier": (lambda **k: crnn.SequenceClassifier(**SMALL | k), X, LABELS),
    "tagger": (lambda **k: crnn.SequenceTagger(**SMALL | k), X, TAGS),
    "regressor": (lambda **k: crnn.SequenceRegressor(**SMALL | k), X, VALUES),
}
SIZED = {
    "classifier of 3": (lambda **k: crnn.SequenceClassifier(3, 2, **SMALL | k), X, CLASSES),
    "tagger of 3": (lambda **k: crnn.SequenceTagger(3, 2, **SMALL | k), X, TAGS),
    "regressor of 3": (lambda **k: crnn.SequenceRegressor(3, 1, **SMALL | k), X, VALUES),
    "sequences to sequences": (lambda **k: crnn.SequenceToSequence(4, 4, **SMALL | k), IDS, IDS),
}
ALL = WAITING | SIZED
every = pytest.mark.parametrize("name", ALL)


def fitted(name, **options):
    make, x, y = ALL[name]
    return make(epochs=2, batch_size=4, **options).fit(x, y)


# ---- arguments -------------------------------------------------------------------------------------------------------


@every
def test_arguments_are_kept_as_they_were_given(name):
    make, _, _ = ALL[name]
    hidden, optimizer = [3, 4], crnn.optim.Adam()
    model = make(hidden_size=hidden, optimizer=optimizer, epochs=np.int64(3))
    params = model.get_params()
    assert params["hidden_size"] is hidden
    assert params["optimizer"] is optimizer
    assert type(params["epochs"]) is np.int64
    assert list(params) == list(inspect.signature(type(model)).parameters)
    twin = type(model)(**params)
    assert all(value is params[key] for key, value in twin.get_params(deep=False).items())


@every
def test_every_option_is_listed_once_in_help(name):
    kind = type(ALL[name][0]())
    parameters = inspect.signature(kind).parameters
    text = inspect.getdoc(kind)
    for each in ESTIMATING:
        assert parameters[each.name].default is each.default
        assert text.count(f"\n{each.name} : ") == 1


@every
def test_a_fit_changes_no_argument(name):
    model = fitted(name, optimizer=crnn.optim.Adam())
    before = ALL[name][0](epochs=2, batch_size=4).get_params() | {"optimizer": model.get_params()["optimizer"]}
    assert model.get_params() == before
    assert model.get_params()["optimizer"].updates == 0


def test_set_params_takes_effect_with_the_next_fit():
    model = fitted("classifier")
    predicted = model.predict_proba(X)
    assert model.set_params(hidden_size=6, lr=0.5) is model
    assert_same_bits(model.predict_proba(X), predicted)
    assert (model.hidden_size, model.lr, model.net.hidden_size) == (6, 0.5, 4)
    model.fit(X, LABELS)
    assert model.net.hidden_size == 6
    assert_same_bits(model.flat_params, fitted("classifier", hidden_size=6, lr=0.5).flat_params)
    with pytest.raises(ValueError, match=r"unexpected argument .hiden_size.; did you mean hidden_size"):
        model.set_params(lr=1, hiden_size=3)
    assert model.get_params()["lr"] == 0.5


def test_an_argument_that_is_assigned_is_set():
    model = fitted("classifier")
    model.epochs = 3
    assert model.get_params()["epochs"] == 3
    assert model.fit(X, LABELS).log.epochs == 3


@every
def test_what_fit_is_given_precedes_what_the_constructor_was(name):
    make, x, y = ALL[name]
    model = make(epochs=3, lr=0.1)
    assert model.fit(x, y).log.epochs == 3
    assert model.fit(x, y, epochs=1).log.epochs == 1
    assert model.fit(x, y).log.epochs == 3
    assert {entry["lr"] for entry in make(lr=0.1, schedule=None).fit(x, y, epochs=1).log.of_kind("train")} == {0.1}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected an integer of at least 1, got 0"),
        ({"lr": -1}, ValueError, "lr: expected"),
        ({"valid": 2}, ValueError, "valid: expected a share between 0 and 1, 'auto' or None, got 2"),
        ({"valid": (X, LABELS)}, ValueError, "valid: expected a share .* got tuple; pass other validation data to fit"),
        ({"warm_start": 1}, ValueError, "warm_start: expected True or False, got 1"),
        ({"checkpoint": "c"}, TypeError, "unexpected argument 'checkpoint'"),
        ({"learning_rate": 1}, TypeError, "learning_rate: expected lr"),
        ({"epoch": 1}, TypeError, "unexpected argument 'epoch'; did you mean epochs"),
        ({"random_state": 1}, TypeError, "random_state: expected seed"),
        ({"units": 8}, TypeError, "units: expected hidden_size"),
    ],
)
@every
def test_wrong_options_are_refused_by_the_constructor_and_by_fit(name, options, error, message):
    make, x, y = ALL[name]
    with pytest.raises(error, match=message):
        make(**options)
    if error is ValueError:
        model = make().set_params(**options)
        with pytest.raises(error, match=message):
            model.fit(x, y)


# ---- what a fit begins from ------------------------------------------------------------------------------------------


@every
def test_a_second_fit_does_not_depend_on_the_first(name):
    make, x, y = ALL[name]
    model = make(epochs=2, batch_size=4)
    assert model.fit(x[:4], y[:4]) is model
    model.fit(x, y)
    assert model.to_bytes() == fitted(name).to_bytes()
    assert len(model.training_runs) == 1
    assert model.log is not None


@every
def test_warm_start_continues(name):
    make, x, y = ALL[name]
    by_constructor, by_fit, by_function = make(epochs=2, warm_start=True), make(epochs=2), make(epochs=2)
    for model in (by_constructor, by_fit, by_function):
        model.fit(x, y)
    first = by_fit.flat_params.copy()
    by_constructor.fit(x, y)
    by_fit.fit(x, y, warm_start=True)
    crnn.fit(by_function, by_function.data(x, y), epochs=2)
    assert (by_fit.flat_params != first).any()
    assert_same_bits(by_constructor.flat_params, by_fit.flat_params)
    assert_same_bits(by_function.flat_params, by_fit.flat_params)
    assert len(by_fit.training_runs) == 2


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("way", ["loaded", "assigned", "trained by crnn.fit", "astype"])
def test_a_fit_begins_from_what_the_user_has_put_there(name, way):
    """And a second one begins there again."""
    make, x, y = SIZED[name]
    model = make(epochs=2)
    if way == "assigned":
        model.fit(x, y)
        model.flat_params[...] += 0.5
    elif way == "trained by crnn.fit":
        crnn.fit(model, model.data(x, y), epochs=1)
    else:
        model.fit(x, y)
        model = from_bytes(model.to_bytes()) if way == "loaded" else model.astype("float64")
    start, scaled = model.flat_params.copy(), model.is_scaled
    means = [scaling.mean.copy() for scaling in model.scalings.values()]
    for _ in range(2):
        model.fit(x[::-1], y[::-1], optimizer=crnn.optim.SGD(0), epochs=1)
        assert_same_bits(model.flat_params, start)
        if scaled:
            assert [scaling.mean.tolist() for scaling in model.scalings.values()] == [each.tolist() for each in means]
        first = model.fit(x, y).to_bytes()
        assert (model.flat_params != start).any()
        assert model.fit(x, y).to_bytes() == first


def test_loaded_weights_are_kept_when_an_argument_changes_that_they_do_not_depend_on():
    model = from_bytes(fitted("classifier of 3").to_bytes())
    start = model.flat_params.copy()
    model.set_params(dropout=0.5).fit(X, CLASSES, optimizer=crnn.optim.SGD(0), epochs=1)
    assert_same_bits(model.flat_params, start)
    assert model.net.config()["dropout"] == 0.5
    model.set_params(hidden_size=5).fit(X, CLASSES, optimizer=crnn.optim.SGD(0), epochs=1)
    assert_same_bits(model.flat_params, crnn.SequenceClassifier(3, 2, hidden_size=5, seed=model.seed).flat_params)


def test_assigned_weights_are_not_taken_to_other_labels_or_tokens_of_the_same_number():
    still = {"optimizer": crnn.optim.SGD(0), "epochs": 1}
    for make, x, other_x, y, other_y in (
        (lambda: crnn.SequenceClassifier(**SMALL, **still), X, X, LABELS, ["y", "z"] * 4),
        (lambda: crnn.SequenceClassifier(**SMALL, **still, vocab="char"), ["ab"] * 8, ["cd"] * 8, LABELS, LABELS),
    ):
        model = make().fit(x, y)
        model.flat_params[...] += 1
        assert_same_bits(model.fit(other_x, other_y).flat_params, make().fit(other_x, other_y).flat_params)
        model = make().fit(x, y)
        model.flat_params[...] += 1
        expected = model.flat_params.copy()
        assert_same_bits(model.fit(x, y).flat_params, expected)


def test_a_changed_seed_draws_other_weights():
    model = fitted("regressor of 3").set_params(seed=5).fit(X, VALUES)
    assert_same_bits(model.flat_params, fitted("regressor of 3", seed=5).flat_params)


def test_sizes_and_classes_come_from_the_data_again():
    model = fitted("classifier")
    assert model.n_features_in_ == 3
    other = [x[:, :2] for x in X]
    model.fit(other, [2, 0, 1, 2] * 2)
    assert model.n_features_in_ == 2
    assert model.classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"X\[0\]: expected numbers of shape \(T, 2\)"):
        model.fit(X, LABELS, warm_start=True)


def test_warm_start_with_other_shapes_is_refused():
    model = fitted("classifier")
    before = model.flat_params.copy()
    with pytest.raises(ValueError, match=r"^warm_start: expected arguments that leave shapes and vocabulary"):
        model.set_params(hidden_size=7).fit(X, LABELS, warm_start=True)
    assert_same_bits(model.flat_params, before)
    assert model.predict(X).shape == (8,)


@every
def test_a_fit_that_is_refused_changes_nothing(name):
    _, x, y = ALL[name]
    model = fitted(name)
    before, log = model.to_bytes(), model.log
    for options in ({"epochs": 0}, {"valid": 0.001}, {"resume": True}, {"nonsense": 1}):
        with pytest.raises((ValueError, TypeError)):
            model.fit(x[::-1], y, **options)
        assert model.to_bytes() == before
        assert model.log is log
    model.fit(x, y)
    assert model.to_bytes() == before


@every
def test_an_interruption_before_the_first_update_changes_nothing(name):
    make, x, y = ALL[name]
    waiting, model = make(), fitted(name)

    class Interrupted(crnn.optim.SGD):
        def _step(self, *arguments):
            raise KeyboardInterrupt

    before, state = model.to_bytes(), repr(waiting)
    for each in (waiting, model):
        with pytest.raises(KeyboardInterrupt):
            each.fit(x, y, optimizer=Interrupted(0.1))
    assert model.to_bytes() == before
    assert repr(waiting) == state


def test_an_interrupted_fit_keeps_weights_and_log():
    def interrupt(progress):
        if progress.update == 3:
            raise KeyboardInterrupt

    model = crnn.SequenceClassifier(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, epochs=9, batch_size=4, on_update=interrupt)
    assert model.log.updates == 3
    assert model.predict(X).shape == (8,)
    assert_same_bits(model.fit(X, LABELS, epochs=2, batch_size=4).flat_params, fitted("classifier").flat_params)


# ---- copies and files ------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_the_same_estimator(name, way):
    make, x, y = ALL[name]
    for model in (make(lr=0.1, epochs=2, batch_size=4), fitted(name, lr=0.1)):
        other = way(model)
        assert other.get_params() == model.get_params()
        assert repr(other) == repr(model)
        assert (other.log is None) == (model.log is None)
        other.set_params(lr=0.2)
        assert model.get_params()["lr"] == 0.1
        assert_same_bits(other.fit(x, y).flat_params, fitted(name, lr=0.2).flat_params)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential"])
def test_a_model_with_schedule_and_optimizer_objects_can_be_pickled(schedule):
    own = {"schedule": crnn.optim.SCHEDULES[schedule](warmup=2), "optimizer": crnn.optim.RMSprop(0.01), "epochs": 2}
    model = crnn.SequenceClassifier(**SMALL, **own)
    other = pickle.loads(pickle.dumps(model)).fit(X, LABELS)
    assert_same_bits(other.flat_params, model.fit(X, LABELS).flat_params)
    assert "learning" in model.contents()[1]
    assert model.contents()[1]["learning"] == {"epochs": 2}  # objects are in no file


@every
def test_files_hold_the_options_that_say_how_to_learn(name, tmp_path):
    make, x, y = ALL[name]
    given = {"lr": np.float64(0.1), "epochs": 2, "valid": None, "patience": 3, "schedule": "linear", "warm_start": True}
    model = make(**given, threads=2, progress=False).fit(x, y, patience=None)
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    params = loaded.get_params()
    assert {key: params[key] for key in given} == given
    assert (params["threads"], params["progress"]) == (1, None)
    assert set(make().contents()[1] if name in SIZED else {}) <= {"kind", "config", "seed"}
    assert loaded.astype("float64").get_params()["lr"] == 0.1
    assert loaded.to_bytes() == model.to_bytes()


def test_a_file_with_wrong_options_is_refused():
    from crnn.io import model_file

    tensors, header = fitted("classifier").contents()
    for learning in ({"lr": "high"}, {"nonsense": 1}, [], {"threads": None}, {"epochs": True}, {"epochs": 0}):
        content = model_file.to_bytes(tensors, header | {"learning": learning})
        with pytest.raises(crnn.ModelFileError):
            from_bytes(content)


class Narrow(crnn.SequenceClassifier):
    """A user's, with its own constructor."""

    def __init__(self, width=4, epochs=2):
        super().__init__(hidden_size=[width, width], epochs=epochs, seed=1)
        self.width = width


class Louder(crnn.SequenceRegressor):
    def predict(self, X, **options):
        return 2 * super().predict(X, **options)


def test_subclasses_are_estimators_with_the_arguments_of_their_own_constructors():
    model = Narrow(3)
    assert model.get_params() == {"width": 3, "epochs": 2}
    assert Narrow(**model.get_params()).fit(X, LABELS).net.hidden_size == 3
    model.fit(X, LABELS).set_params(width=2, epochs=1)
    assert model.get_params() == {"width": 2, "epochs": 1}
    assert (model.fit(X, LABELS).net.hidden_size, model.log.epochs) == (2, 1)
    with pytest.raises(ValueError, match="Narrow: unexpected argument 'hidden_size'; expected one of width, epochs"):
        model.set_params(hidden_size=3)
    louder = Louder(hidden_size=3, epochs=1).fit(X, VALUES)
    assert louder.set_params(hidden_size=2).get_params()["hidden_size"] == 2
    for each in (model, louder):
        for other in (copy.deepcopy(each), pickle.loads(pickle.dumps(each))):
            assert type(other) is type(each)
            assert other.get_params() == each.get_params()
            assert (other.predict(X) == each.predict(X)).all()


# ---- what scikit-learn asks for --------------------------------------------------------------------------------------


def test_a_model_without_sizes_says_that_it_is_not_fitted():
    model = crnn.SequenceClassifier()
    with pytest.raises(NotFittedError, match="SequenceClassifier: expected a call of fit before this"):
        model.predict(X)
    for name in ("classes_", "n_features_in_", "net", "no_such_attribute"):
        assert not hasattr(model, name)
    assert not model.__sklearn_is_fitted__()
    assert not crnn.SequenceClassifier(3, 2).__sklearn_is_fitted__()
    assert fitted("classifier").__sklearn_is_fitted__()
    assert from_bytes(crnn.SequenceClassifier(3, 2).to_bytes()).__sklearn_is_fitted__()


def test_scores():
    model = fitted("classifier")
    right = model.predict(X) == np.array(LABELS)
    assert model.score(X, LABELS) == right.mean()
    assert model.score(X, ["unseen", *LABELS[1:]]) == right[1:].sum() / 8
    assert model.score(X, [None, *LABELS[1:]]) == right[1:].mean()
    weights = np.arange(8.0)
    assert model.score(X, LABELS, weights) == pytest.approx(np.average(right, weights=weights))

    tagger = fitted("tagger")
    right = [predicted == tags for predicted, tags in zip(tagger.predict(X), TAGS, strict=True)]
    assert tagger.score(X, TAGS) == np.concatenate(right).mean()
    of_steps = [RNG.random(len(x)) for x in X]
    expected = np.average(np.concatenate(right), weights=np.concatenate(of_steps))
    assert tagger.score(X, TAGS, of_steps) == pytest.approx(expected)

    regressor = fitted("regressor")
    error = VALUES - regressor.predict(X)
    assert regressor.score(X, VALUES) == pytest.approx(1 - (error**2).sum() / ((VALUES - VALUES.mean()) ** 2).sum())

    translator = fitted("sequences to sequences")
    exact = [np.array_equal(*pair) for pair in zip(translator.predict(IDS), IDS, strict=True)]
    assert translator.score(IDS, IDS) == np.mean(exact)


def test_importing_crnn_and_fitting_imports_no_scikit_learn():
    code = (
        "import sys, crnn\n"
        "c = crnn.SequenceClassifier(hidden_size=3, epochs=1).fit([[1.0, 2.0], [2.0]] * 3, [0, 1] * 3)\n"
        "c.get_params(); repr(c); c.score([[1.0, 2.0]], [0])\n"
        "assert not any(name.partition('.')[0] == 'sklearn' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment(), check=True, timeout=60)


# ---- language models -------------------------------------------------------------------------------------------------


def test_the_fit_of_a_language_model_returns_it_and_starts_over():
    corpus = crnn.TextCorpus.from_text("to be or not to be " * 20, valid=0.2)
    settings = {"epochs": 1, "batch_size": 2, "bptt": 8}

    def new():
        return crnn.LanguageModel(corpus.vocab, hidden_size=4, seed=1)

    model = new()
    assert model.log is None
    assert model.fit(corpus, **settings) is model
    expected = new()
    log = crnn.fit(expected, corpus, **settings)
    assert_same_bits(model.flat_params, expected.flat_params)
    assert model.log.updates == log.updates
    again = pickle.loads(pickle.dumps(model)).fit(corpus, **settings)
    assert_same_bits(again.flat_params, expected.flat_params)
    model.fit(corpus, **settings, warm_start=True)
    crnn.fit(expected, corpus, **settings)
    assert_same_bits(model.flat_params, expected.flat_params)
    before = model.to_bytes()
    with pytest.raises(ValueError, match="epochs"):
        model.fit(corpus, epochs=0)
    assert model.to_bytes() == before
    crnn.fit(model, corpus, **settings)
    start = model.flat_params.copy()
    model.fit(corpus, **settings | {"optimizer": crnn.optim.SGD(0)})
    assert_same_bits(model.flat_params, start)


def test_a_model_is_not_trained_within_its_own_fit():
    x, y = [np.full((3, 1), i / 9) for i in range(9)], [0.1 * i for i in range(9)]
    model = crnn.SequenceRegressor(hidden_size=2, epochs=1, valid=None)
    expected = model.fit(x, y).flat_params.copy()
    messages = []

    def train_again(progress):
        with pytest.raises(ValueError, match="fit: expected a model that is not being trained") as error:
            model.fit(x, y)
        messages.append(error)
        copy.deepcopy(model).fit(x, y)

    assert model.fit(x, y, on_update=train_again).flat_params.tobytes() == expected.tobytes()
    assert messages
    assert model.fit(x, y).flat_params.tobytes() == expected.tobytes()


def test_a_loaded_model_continues_as_the_saved_one_and_holds_out_the_same_sequences():
    x, y = [np.full((3, 1), i / 9) for i in range(9)], [0.1 * i for i in range(9)]
    model = crnn.SequenceRegressor(hidden_size=2, epochs=2, batch_size=2, valid=0.3, seed=7).fit(x, y)
    loaded = from_bytes(model.to_bytes())
    assert loaded.seed == loaded.get_params()["seed"] == 7
    assert loaded.to_bytes() == model.to_bytes()
    expected = model.fit(x, y, warm_start=True).flat_params
    assert loaded.fit(x, y, warm_start=True).flat_params.tobytes() == expected.tobytes()
