# SPDX-License-Identifier: MIT
"""Defaults: the same in Python and in a shell; how long a run trains, and what it holds out, if nobody says."""

import argparse
import inspect
from collections import Counter

import numpy as np
import pytest

import crnn
from crnn._options import options_of
from crnn.cli import command, network, train
from crnn.models.inputs.held_out import CLASSES, STEPS, VALUES, held_out
from crnn.training.config import LEAST_EPOCHS, LEAST_PATIENCE, LEAST_UPDATES, PATIENCE_PARTS, TrainingConfig

VOCAB = crnn.Vocab.from_text("to be or not to be")
# The files that a command always has, and what no result depends on.
OF_THE_SHELL = {"checkpoint", "threads"}


def arguments_of_a_bare_command() -> argparse.Namespace:
    return command._parser(["train"]).parse_args(["train", "text.txt", "-o", "m"])


# ---- in Python and in a shell ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [each.name for each in options_of(TrainingConfig) if each.name not in OF_THE_SHELL])
def test_the_shell_trains_as_fit_does(name):
    arguments = arguments_of_a_bare_command()
    assert getattr(TrainingConfig(**train._training_options(arguments)), name) == getattr(TrainingConfig(), name)


def test_the_shells_model_is_the_default_language_model():
    options = network._options(arguments_of_a_bare_command())
    assert crnn.LanguageModel(VOCAB, **options).config() == crnn.LanguageModel(VOCAB).config()


@pytest.mark.parametrize("name", ["valid", "test", "min_count", "max_size", "ids_path"])
def test_the_shell_reads_a_text_as_a_corpus_does(name):
    default = inspect.signature(crnn.TextCorpus.from_file).parameters[name].default
    assert getattr(arguments_of_a_bare_command(), name) == default


def test_both_doors_give_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "to be or not to be, that is the question. " * 60
    (tmp_path / "t.txt").write_text(text)
    assert command.main(["train", "t.txt", "-o", "m", "--hidden", "8", "--epochs", "3", "-q"]) == 0
    corpus = crnn.TextCorpus.from_file("t.txt")
    model = crnn.LanguageModel(corpus.vocab, hidden_size=8)
    crnn.fit(model, corpus, epochs=3)
    assert crnn.load("m").flat_params.tobytes() == model.flat_params.tobytes()


# ---- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "windows", "epochs"),
    [
        ({}, 1, LEAST_UPDATES),
        ({}, 3, -(-LEAST_UPDATES // 3)),
        ({}, LEAST_UPDATES, LEAST_EPOCHS),
        ({}, 10**6, LEAST_EPOCHS),
        ({"epochs": 2}, 1, 2),
        ({"max_updates": 10}, 3, 4),
        ({"max_updates": 10**6}, 3, 333_334),
        ({"max_updates": 10, "epochs": 2}, 3, 2),
    ],
)
def test_epochs_are_enough_for_the_updates(options, windows, epochs):
    assert TrainingConfig(**options).length(windows, judged=False).epochs == epochs


@pytest.mark.parametrize(
    ("options", "judged", "patience"),
    [
        ({"epochs": 100}, True, 100 // PATIENCE_PARTS),
        ({"epochs": 4}, True, LEAST_PATIENCE),
        ({"epochs": 100}, False, None),
        ({"epochs": 100, "patience": 2}, True, 2),
        ({"epochs": 100, "patience": None}, True, None),
    ],
)
def test_patience_is_a_part_of_all_epochs(options, judged, patience):
    assert TrainingConfig(**options).length(1, judged=judged).patience == patience


def test_a_small_set_is_trained_with_enough_updates():
    rng = np.random.default_rng(0)
    model = crnn.SequenceClassifier(hidden_size=3)
    log = model.fit(rng.normal(size=(12, 2, 1)), [0, 1] * 6).log
    assert log.updates == LEAST_UPDATES
    assert log.best is None


# ---- names and rates -------------------------------------------------------------------------------------------------


def test_a_rate_goes_with_a_name_and_not_with_an_optimizer():
    for given in ("sgd", "SGD", crnn.optim.SGD):
        made = TrainingConfig(optimizer=given, lr=0.5).new_optimizer()
        assert (type(made), made.lr) == (crnn.optim.SGD, 0.5)
    with pytest.raises(ValueError, match=r"^lr: expected with an optimizer given by its name, got 0.5 with Adam\("):
        TrainingConfig(optimizer=crnn.optim.Adam(), lr=0.5)
    with pytest.raises(ValueError, match=r"^lr: expected a number of at least 0, got -1$"):
        TrainingConfig(lr=-1)


def test_a_config_makes_a_new_optimizer_each_time():
    config = TrainingConfig(optimizer="adam")
    assert config.new_optimizer() is not config.new_optimizer()


@pytest.mark.parametrize("name", crnn.optim.RULES)
def test_an_optimizer_by_name_is_the_default_one_of_its_class(name):
    assert repr(TrainingConfig(optimizer=name).new_optimizer()) == repr(crnn.optim.RULES[name]())


def test_a_warm_up_goes_with_the_name_of_a_schedule():
    schedule = TrainingConfig(schedule="linear", warmup=4).new_schedule()
    assert [schedule(k, 8) for k in range(8)] == [crnn.optim.linear(warmup=4)(k, 8) for k in range(8)]
    assert TrainingConfig(schedule=None).new_schedule() is None
    for given in (None, crnn.optim.cosine()):
        with pytest.raises(ValueError, match=r"^warmup: expected with a schedule given by its name, got 4; otherwise"):
            TrainingConfig(schedule=given, warmup=4)


@pytest.mark.parametrize("patience", [0, -1, True, "never", 1.5])
def test_another_patience_is_refused(patience):
    with pytest.raises(ValueError, match=r"^patience: expected an integer of at least 1, 'auto', or None, got "):
        TrainingConfig(patience=patience)


# ---- what is held out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto", [CLASSES, VALUES])
def test_few_sequences_are_all_trained_on(auto):
    assert held_out("auto", [0] * (auto.least - 1), 0, auto) == []
    assert len(held_out("auto", [0] * auto.least, 0, auto)) == round(auto.share * auto.least)


def test_that_nothing_is_held_out_is_said_unless_there_is_hardly_anything():
    rng = np.random.default_rng(0)
    note = "all 36 sequences are trained on; valid=0.2 would hold out a fifth for validation"
    for n, notes in ((36, [note]), (4, [])):
        X, y = rng.normal(size=(n, 5, 1)), np.arange(n) % 2
        assert crnn.SequenceClassifier(hidden_size=3).fit(X, y, epochs=1).log.notes == notes
        assert crnn.SequenceClassifier(hidden_size=3).fit(X, y, epochs=1, valid=None).log.notes == []


def test_every_class_gives_its_share():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = held_out(0.1, labels, seed=3)
    assert Counter(labels[chosen].tolist()) == {0: 60, 1: 30, 2: 10}
    assert chosen == sorted(set(chosen)) != held_out(0.1, labels, seed=4)


def test_the_only_sequence_of_a_class_is_trained_on():
    labels = [0] * 50 + list(range(1, 20))
    for seed in range(20):
        assert all(i < 50 for i in held_out(0.2, labels, seed))


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_fit_says_what_it_holds_out(kind):
    rng = np.random.default_rng(0)
    auto = CLASSES if kind == "classes" else VALUES
    X = rng.normal(size=(auto.least, 2, 1))
    model, y = crnn.SequenceRegressor(hidden_size=2), X[:, 0]
    if kind == "classes":
        model, y = crnn.SequenceClassifier(hidden_size=2), (X[:, 0, 0] > 0).astype(int)
    log = model.fit(X, y, epochs=1).log
    n = round(auto.share * auto.least)
    assert log.notes[0] == f"{n:,} of {len(X):,} sequences are held out for validation; valid=None trains on all"
    assert log.best is not None
    again = type(model)(hidden_size=2)
    log = again.fit(X, y, epochs=1, valid=None).log
    assert log.best is None
    assert not any("held out" in note for note in log.notes)
    assert sum(log.column("tokens")) == len(X)


def test_sequences_without_targets_are_not_validated_on():
    X = np.random.default_rng(0).normal(size=(VALUES.least, 2, 1))
    values = np.ones((VALUES.least, 1))
    values[held_out("auto", [0] * VALUES.least, 0, VALUES)] = np.nan
    assert crnn.SequenceRegressor(1, 1, hidden_size=2).fit(X, values, epochs=1).log.best is None


@pytest.mark.parametrize(("steps", "judged"), [(STEPS.least - 1, False), (STEPS.least, True)])
def test_the_end_of_a_long_series_is_held_out(steps, judged):
    model = crnn.SequenceRegressor(1, hidden_size=2, pooling=None)
    log = model.fit(np.sin(np.arange(steps) / 5), None, epochs=1).log
    assert (log.best is not None) == judged
    said = f"{round(STEPS.share * steps):,} of {steps:,} steps are held out for validation; valid=None trains on all"
    assert (said in log.notes) == judged


def test_a_warm_up_as_long_as_the_run_is_refused():
    corpus = crnn.TextCorpus.from_text("abcd" * 100)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=2)
    with pytest.raises(ValueError, match=r"^warmup: expected fewer than the 5 updates of the run, got 5"):
        crnn.fit(model, corpus, epochs=1, max_updates=5, batch_size=2, bptt=8, schedule="linear", warmup=5)
    crnn.fit(model, corpus, epochs=1, max_updates=5, batch_size=2, bptt=8, schedule="linear", warmup=4)
