# SPDX-License-Identifier: MIT
"""The options of fit: one list, from which signature, docstring and the command line's flags come."""

import inspect
from typing import get_type_hints

import numpy as np
import pytest
from model_tools import language_model

import crnn
from crnn._options import ELSEWHERE, NOWHERE, from_flags, name_here, options_of
from crnn.checks import MAX_THREADS
from crnn.cli import command, train
from crnn.training import recorded
from crnn.training.config import TrainingConfig, TrainingOptions

OPTIONS = options_of(TrainingConfig)
SEQUENCE_MODELS = [
    crnn.SequenceClassifier, crnn.SequenceTagger, crnn.SequenceRegressor, crnn.SequenceToSequence,
]  # fmt: skip


def test_the_typed_dictionary_agrees_with_the_list():
    assert get_type_hints(TrainingOptions) == {each.name: each.type for each in OPTIONS}


def test_every_option_is_recorded_in_checkpoints_or_does_not_change_the_model():
    lists = (recorded.VALUES, recorded.METHODS, recorded.MADE, recorded.NOT_RECORDED)
    assert sorted(name for names in lists for name in names) == sorted(each.name for each in OPTIONS)
    assert {each.name: each.default for each in OPTIONS if each.name in recorded.METHODS} == recorded.METHODS
    assert set(recorded.FIXED) <= {*recorded.VALUES, *recorded.MADE}


def test_fits_signature_and_docstring_name_every_option():
    parameters = inspect.signature(crnn.fit).parameters
    assert list(parameters)[:4] == ["model", "data", "valid", "log"]
    assert {name: p.default for name, p in list(parameters.items())[4:]} == {
        each.name: each.default for each in OPTIONS
    }
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name not in ("model", "data"))
    text = inspect.getdoc(crnn.fit)
    for each in OPTIONS:
        assert f"\n{each.name} : " in text


@pytest.mark.parametrize("kind", SEQUENCE_MODELS)
def test_the_models_own_fit_has_the_same_defaults(kind):
    parameters = inspect.signature(kind.fit).parameters
    for each in OPTIONS:
        assert parameters[each.name].default == each.default, each.name
    assert parameters["valid"].default == "auto"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
        ({"log_every": 1.5}, "log_every: expected an integer of at least 1, got 1.5"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"max_updates": 0}, "max_updates: expected an integer of at least 1, got 0"),
        ({"clip_norm": 0}, "clip_norm: expected a number above 0, or None, got 0"),
        ({"clip_value": "1"}, "clip_value: expected a number above 0, or None, got '1'"),
        ({"reduction": "max"}, "reduction: expected mean or sum, got 'max'"),
        ({"checkpoint": 3}, r"checkpoint: expected a path, got int"),
        ({"log_file": True}, r"log_file: expected a path, got bool"),
        ({"checkpoint": "a\0b"}, r"checkpoint: expected a path without NUL, got 'a\\x00b'"),
        ({"on_epoch": "x"}, r"on_epoch: expected a function, got str"),
        ({"on_update": lambda: True}, r"on_update: expected a function of one argument, .*, got <lambda>\(\)"),
        ({"progress": "no"}, r"progress: expected True or False, got 'no'"),
        ({"carry": True, "bptt": 2}, r"carry: expected 0, a multiple of bptt=2, or None, got True"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        crnn.fit(language_model(), np.zeros(100, np.int32), **options)


def test_an_unknown_option_is_refused_with_the_known_ones():
    data = [np.zeros((4, 3))] * 2, [0, 1]
    with pytest.raises(TypeError, match=r"^epoch: there is no such option; did you mean epochs\?$"):
        crnn.fit(language_model(), np.zeros(100, np.int32), epoch=3)
    with pytest.raises(TypeError, match=r"^epoch: there is no such option; did you mean epochs\?$"):
        crnn.SequenceClassifier(3, 2).fit(*data, epoch=3)
    with pytest.raises(TypeError, match=r"^frobnicate: there is no such option; expected one of epochs, batch_size, "):
        crnn.SequenceClassifier(3, 2).fit(*data, frobnicate=3)


def test_options_of_constructors_and_of_fit_are_told_apart():
    with pytest.raises(TypeError, match=r"^units: expected hidden_size of the model's constructor; fit has no such"):
        crnn.SequenceClassifier(3, 2).fit([np.zeros((4, 3))] * 2, [0, 1], units=3)
    with pytest.raises(TypeError, match=r"^max_epochs: expected epochs of fit; LanguageModel has no such argument"):
        crnn.LanguageModel(crnn.Vocab.from_text("ab"), max_epochs=3)
    with pytest.raises(TypeError, match=r"^RNN: unexpected argument 'hiden_size'; did you mean hidden_size"):
        crnn.RNN(3, 4, hiden_size=3)


@pytest.mark.parametrize("name", [*ELSEWHERE, *NOWHERE])
def test_names_of_other_libraries_are_known(name):
    here = name_here(name)
    known = {*inspect.signature(crnn.SequenceClassifier).parameters, *inspect.signature(crnn.fit).parameters}
    assert name not in known
    message = NOWHERE[name] if name in NOWHERE else f"expected {ELSEWHERE[name]}"
    assert name in NOWHERE or here in known
    refusals = []
    for call in (
        lambda: crnn.SequenceClassifier(**{name: 1}),
        lambda: crnn.SequenceClassifier(3, 2).fit([np.zeros((4, 3))] * 2, [0, 1], **{name: 1}),
    ):
        with pytest.raises(TypeError, match=name) as refusal:
            call()
        refusals.append(str(refusal.value))
    assert any(each.startswith(f"{name}: ") and message in each for each in refusals)


@pytest.mark.parametrize("model", [language_model(), crnn.SequenceClassifier(3, 2)], ids=lambda m: type(m).__name__)
def test_models_keep_their_arrays_from_window_to_window(model):
    assert model.workspace() is not model.workspace()
    assert model.workspace() is not None


def test_the_command_lines_defaults_are_fits_but_for_those_it_lists():
    arguments = command._parser(["train"]).parse_args(["train", "text", "-o", "model"])
    for name, value in from_flags(arguments, TrainingConfig).items():
        default = next(each.default for each in OPTIONS if each.name == name)
        assert value == train.TRAINING_FLAGS.get(name, {}).get("default", default), name


def test_more_threads_than_there_can_be_are_as_many_as_there_can_be():
    assert TrainingConfig(threads=2**70).threads == MAX_THREADS
    model = crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=2)
    model.fit([0, 1, 0, 1], batch_size=1, epochs=1, threads=2**70)
