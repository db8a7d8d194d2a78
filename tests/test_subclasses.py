# SPDX-License-Identifier: MIT
"""A user's subclass whose constructor takes other arguments than crnn's class: all that makes a copy of a model."""

import copy
import functools
import pickle

import numpy as np
import pytest

import crnn
from crnn.interop import aidax, guitarml, nam, parts, rtneural
from crnn.interop import keras as keras_format
from crnn.interop import onnx as onnx_format
from crnn.interop import torch as torch_format
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


CONVERTED = [kind for kind in MODELS if kind in parts.KINDS]


def plain(model):
    """The same model as one of crnn's class."""
    arrays, header = model.contents()
    return type(model).__mro__[1].from_contents(header, arrays)


def json_bytes(form):
    def written(model, folder):
        form.save(model, folder / "model")
        return (folder / "model").read_bytes()

    return written


def state_dict(model, folder):
    return {name: array.tobytes() for name, array in torch_format.to_state_dict(model).items()}


def c_files(model, folder):
    crnn.export_c(model, folder / "model.c")
    return (folder / "model.c").read_text().partition("\n")[2], (folder / "model.h").read_text().partition("\n")[2]


@pytest.mark.parametrize("kind", CONVERTED)
@pytest.mark.parametrize("convert", [state_dict, c_files])
def test_a_subclass_is_converted_like_its_base_class(kind, convert, tmp_path):
    model = model_of(kind)
    assert convert(model, tmp_path) == convert(plain(model), tmp_path)


@pytest.mark.parametrize("form", [rtneural, nam, guitarml, aidax])
def test_a_subclass_is_written_to_files_of_audio_plug_ins(form, tmp_path):
    class Amplifier(crnn.SequenceRegressor):
        def __init__(self):
            super().__init__(1, 1, 3, cell="lstm", pooling=None, seed=0)

    convert = json_bytes(form)
    assert convert(Amplifier(), tmp_path) == convert(plain(Amplifier()), tmp_path)


@pytest.mark.interop
@pytest.mark.parametrize("kind", CONVERTED)
def test_a_subclass_is_written_for_onnx_and_keras_and_read_as_its_base_class(kind, tmp_path):
    pytest.importorskip("onnx"), pytest.importorskip("h5py")
    model = model_of(kind)
    for form, name in ((onnx_format, "m.onnx"), (keras_format, "m.keras")):
        form.save(model, tmp_path / name)
        back = form.load(tmp_path / name)
        assert type(back) is type(model).__mro__[1]
        assert back.flat_params.tobytes() == model.flat_params.tobytes()


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
