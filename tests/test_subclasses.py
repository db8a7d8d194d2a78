# SPDX-License-Identifier: MIT
"""A user's subclass whose constructor takes other arguments than crnn's class: all that makes a copy of a model."""

import copy
import functools
import pickle

import numpy as np
import pytest

import crnn
from crnn.nn.module import Module

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(5, 2)) for _ in range(12)]
SERIES = np.sin(np.arange(60.0))
QUICK = {"epochs": 1, "valid": None}


class Classifier(crnn.SequenceClassifier):
    def __init__(self, size):
        super().__init__(hidden_size=size, **QUICK)
        self.notes = ["own"]


class Tagger(crnn.SequenceTagger):
    def __init__(self, size):
        super().__init__(hidden_size=size, **QUICK)
        self.notes = ["own"]


class Regressor(crnn.SequenceRegressor):
    def __init__(self, size):
        super().__init__(hidden_size=size, **QUICK)
        self.notes = ["own"]


class Pairs(crnn.SequenceToSequence):
    def __init__(self, size):
        digits = crnn.Vocab.from_text("01")
        super().__init__(2, target_vocab=digits, real_source=True, hidden_size=size, epochs=1)
        self.notes = ["own"]


class Network(crnn.RNN):
    def __init__(self, size):
        super().__init__(2, size)
        self.notes = ["own"]


class Language(crnn.LanguageModel):
    def __init__(self, size):
        super().__init__(crnn.Vocab.from_text("abc"), hidden_size=size)
        self.notes = ["own"]


class Forecaster(crnn.Forecaster):
    def __init__(self, size):
        super().__init__(2, hidden_size=size, **QUICK)
        self.notes = ["own"]


class Naive(crnn.SeasonalNaive):
    def __init__(self, steps, notes):
        super().__init__(steps)
        self.notes = notes


MODELS = {
    "SequenceClassifier": lambda: Classifier(4).fit(X, ["a", "b"] * 6),
    "SequenceTagger": lambda: Tagger(4).fit(X, [list("ababa")] * 12),
    "SequenceRegressor": lambda: Regressor(4).fit(X, [0.1 * i for i in range(12)]),
    "SequenceToSequence": lambda: Pairs(4).fit(X, ["01", "10"] * 6),
    "RNN": lambda: Network(4),
    "LanguageModel": lambda: Language(4),
    "Forecaster": lambda: Forecaster(4).fit(SERIES),
}
@functools.cache
def model_of(kind):
    """No test changes it."""
    return MODELS[kind]()


COPIES = {
    "astype": lambda model: model.astype("float64"),
    "int8": lambda model: model.quantize(),
    "bf16": lambda model: model.quantize("bf16"),
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}
OWN_COPIES = {
    "frozen": ("RNN", lambda model: model.frozen()),
    "classes": ("SequenceClassifier", lambda model: model.extended(["c"])),
    "tags": ("SequenceTagger", lambda model: model.extended(["c"])),
    "vocabulary": ("LanguageModel", lambda model: model.extended(model.vocab.extended("d"))),
    "fresh": ("Forecaster", lambda model: model.fresh()),
}
cases = pytest.mark.parametrize(
    ("kind", "make_copy"),
    [(kind, make_copy) for kind in MODELS for make_copy in COPIES.values()] + list(OWN_COPIES.values()),
    ids=[f"{kind}-{name}" for kind in MODELS for name in COPIES] + list(OWN_COPIES),
)


def test_every_kind_of_model_has_a_subclass_here():
    assert {type(model_of(kind)).__mro__[1].__name__ for kind in MODELS} == set(MODELS)
    assert set(MODELS) == set(crnn.io.registry.kinds("crnn"))


@cases
def test_a_copy_is_of_the_subclass_and_has_copies_of_its_attributes(kind, make_copy):
    model = model_of(kind)
    made = make_copy(model)
    assert type(made) is type(model)
    assert made.notes == ["own"]
    assert made.notes is not model.notes


@pytest.mark.parametrize("kind", MODELS)
def test_crnns_own_classes_declare_all_their_attributes(kind):
    """Others are taken for those of a subclass, and copied."""
    assert set(Module._attributes_of_subclass(model_of(kind))) == {"notes"}


def test_arguments_of_a_subclass_are_found_where_they_are_read():
    model = model_of("Forecaster")
    assert (model.dtype, model.hidden_size, model.astype("float64").dtype) == ("float32", 4, "float64")
    assert len(model.backtest(SERIES, origins=2).origins) == 2
    fresh = model.fresh()
    with pytest.raises(ValueError, match="expected a call of fit"):
        fresh.forecast()
    np.testing.assert_array_equal(fresh.fit(SERIES).forecast(), model.forecast())


def test_a_seasonal_naive_forecaster_of_a_subclass_is_copied():
    model = Naive(2, ["own"]).fit(SERIES)
    fresh = model.fresh()
    assert (type(fresh), fresh.season, fresh.notes, hasattr(fresh, "season_")) == (Naive, 2, ["own"], False)
    assert fresh.notes is not model.notes
