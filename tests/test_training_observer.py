# SPDX-License-Identifier: MIT
"""The entries "run" and "end" of a log, and when a model is observed: it stops no training and changes nothing."""

import json
import time

import numpy as np
import pytest

import crnn
from crnn.training import observer
from crnn.training.entries import is_entry, is_history
from crnn.training.environment import machine
from crnn.training.observer import schedule
from crnn.training.protocols import Observation

IDS = np.random.default_rng(5).integers(0, 12, 400)
VOCAB = crnn.Vocab.from_text("abcdefghijkl")


def language_model(**options):
    return crnn.LanguageModel(VOCAB, "tanh", 8, seed=3, **options)


def fitted(model=None, **options):
    model = language_model() if model is None else model
    crnn.fit(model, IDS[:300], **{"epochs": 3, "batch_size": 4, "bptt": 10, "progress": False, **options})
    return model


def log_of(**options):
    log = crnn.TrainingLog()
    fitted(log=log, **options)
    return log


def ends_of(log):
    return [entry for entry in log.entries if entry["kind"] == "end"]


# ---- run and end -----------------------------------------------------------------------------------------------------


def test_the_first_entry_says_what_is_trained_on_what_and_how():
    log = log_of(valid=IDS[300:], schedule="cosine", optimizer=crnn.optim.RMSprop(lr=0.01), threads=2)
    first, model = log.entries[0], language_model()
    assert is_entry(first)
    assert (first["kind"], first["epoch"], first["update"]) == ("run", 0, 0)
    assert first["crnn"] == crnn.__version__
    assert first["model"]["kind"] == "LanguageModel"
    assert first["model"]["text"] == repr(model)
    assert first["model"]["parameters"] == model.flat_params.size
    assert first["model"]["config"] == model.contents()[1]["config"]  # as files hold it
    assert first["data"]["targets"] == 296  # the last of 299 predictions are left out
    assert (first["epochs"], first["updates"], first["unit"], first["counted"]) == (3, 24, "nats", "tokens")
    assert first["options"]["schedule"].startswith("cosine")
    assert first["options"]["optimizer"].startswith("RMSprop(lr=0.01")
    assert first["options"]["bptt"] == 10
    assert first["machine"]["threads"] == 2


def test_the_first_entry_counts_the_targets_of_sequences():
    X = [np.zeros((length, 2)) for length in (3, 4, 5)]
    log = crnn.SequenceClassifier(2, 2, 3).fit(X, [0, 1, -1], epochs=1).log
    assert (log.entries[0]["data"]["targets"], log.entries[0]["counted"]) == (3, "targets")
    log = crnn.SequenceTagger(2, 2, 3).fit(X, [[0] * len(x) for x in X], epochs=1).log
    assert log.entries[0]["data"]["targets"] == 12


def test_the_first_entry_has_digests_of_the_data():
    data = [log_of(valid=valid).entries[0]["data"] for valid in (IDS[300:], None, IDS[200:])]
    assert len({each["train"] for each in data}) == 1
    assert len(data[0]["train"]) == 64
    assert [each["valid"] is None for each in data] == [False, True, False]
    assert data[0]["valid"] != data[2]["valid"]


def test_a_model_of_very_many_classes_can_be_resumed(tmp_path):
    names = [f"{n:060}" for n in range(20_000)]
    X, y = np.zeros((4, 3, 2)), names[:4]
    for resume in (False, True):
        model = crnn.SequenceClassifier(2, classes=names, hidden_size=1)
        log = model.fit(X, y, epochs=1 + resume, valid=None, checkpoint=tmp_path / "c", resume=resume).log
        assert log.of_kind("run")[-1]["model"]["config"]["classes"] == "20,000 values"
        assert log.of_kind("run")[-1]["model"]["config"]["class_weight"] is None


def test_the_machine_is_described_without_names_of_hosts_users_or_folders(tmp_path):
    found = machine(3)
    assert (found["threads"], found["numpy"], found["isa"]) == (3, np.__version__, crnn.isa())
    assert found["cores"] >= 1
    assert found["cpu"]
    import getpass
    import platform

    log = log_of(checkpoint=tmp_path / "c", log_file=tmp_path / "log")
    text = json.dumps(log.entries[0])
    for private in {platform.node(), getpass.getuser(), str(tmp_path)} - {""}:
        assert f'"{private}' not in text
        assert "/" not in private or private not in text


def test_the_last_entry_says_how_training_ended_and_what_was_reached():
    log = log_of(valid=IDS[300:])
    (end,) = ends_of(log)
    assert end is log.entries[-1]
    assert is_entry(end)
    assert is_history(log.entries, 24)
    assert (end["reason"], end["epoch"], end["update"]) == ("finished", 3, 24)
    assert end["best_epoch"] == log.best["epoch"]
    names = ("train_loss", "valid_loss", "valid_accuracy")
    assert end["scores"] == pytest.approx({name: log.best[name] for name in names}, rel=1e-5)
    assert end["seconds"] > sum(log.column("seconds")) > 0
    assert ends_of(log_of())[0]["best_epoch"] is None
    assert ends_of(log_of())[0]["scores"].keys() == {"train_loss"}


def test_a_run_that_patience_ends_is_stopped_early():
    log = log_of(valid=IDS[300:], patience=1, epochs=50, optimizer=crnn.optim.SGD(lr=3.0), clip_norm=1.0)
    assert log.epochs < 50
    assert ends_of(log)[0]["reason"] == "stopped early"


def test_a_run_that_diverges_fails_or_is_interrupted_says_so():
    def fail(log):
        raise KeyError("the application's own")

    def interrupt(log):
        raise KeyboardInterrupt

    diverging = {"optimizer": crnn.optim.SGD(0.1), "schedule": lambda update, total: 1e38 if update == 12 else 1.0}
    for options, error, reason in (
        ({"on_epoch": fail}, KeyError, "failed"),
        ({"on_epoch": interrupt}, KeyboardInterrupt, "interrupted"),
        (diverging, FloatingPointError, "diverged"),
    ):
        log = crnn.TrainingLog()
        with pytest.raises(error):
            fitted(crnn.LanguageModel(VOCAB, "relu", 8, seed=3), log=log, **options)
        assert [entry["reason"] for entry in ends_of(log)] == [reason]
        assert log.entries[-1]["kind"] == "end"


# ---- runs that are resumed -------------------------------------------------------------------------------------------


def kinds_and_updates(entries):
    return [(entry["kind"], entry["update"]) for entry in entries]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_resumed_run_has_a_second_entry_run_and_one_end(tmp_path, name):
    path, files = tmp_path / name, {"checkpoint": tmp_path / "c", "log_file": tmp_path / name}
    fitted(epochs=2, **files)
    log = log_of(resume=True, **files)
    assert [entry["epoch"] for entry in log.entries if entry["kind"] == "run"] == [0, 2]
    assert len(ends_of(log)) == 1
    assert is_history(log.entries, 24)
    read = crnn.TrainingLog.from_file(path)
    if name.endswith("jsonl"):
        assert read.entries == log.entries
        assert kinds_and_updates(log.entries) == kinds_and_updates(
            json.loads(line) for line in path.read_text().splitlines()
        )
    else:
        assert read.column("update", "epoch") == [8, 16, 24]


def test_an_interrupted_run_resumes_without_the_entries_of_its_end(tmp_path):
    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log", "log_every": 1}

    def interrupt(update, total):
        if update == 13:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        fitted(schedule=interrupt, **files)
    before = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert before[-1]["reason"] == "interrupted"
    log = log_of(resume=True, schedule=None, **files)
    after = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert after == log.entries
    assert log.column("update") == list(range(1, 25))
    assert [entry["reason"] for entry in after if entry["kind"] == "end"] == ["finished"]
    whole = log_of(log_every=1, schedule=None)
    assert log.column("train_loss") == whole.column("train_loss")


@pytest.mark.parametrize("stop", range(1, 24))
def test_a_resumed_run_is_observed_and_sampled_when_an_uninterrupted_one_is(tmp_path, stop):
    options = {"log_every": 1, "sample_every": 3}
    whole = log_of(log_file=tmp_path / "whole", **options)
    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log"}
    fitted(on_update=lambda progress: progress.update == stop, **files, **options)
    log = log_of(resume=True, **files, **options)
    made = [each for each in kinds_and_updates(log.entries) if each[0] != "run"]
    assert made == [each for each in kinds_and_updates(whole.entries) if each[0] != "run"]


# ---- when a model is observed ----------------------------------------------------------------------------------------


class Observed(crnn.LanguageModel, kind="Observed", config_types={}):
    """A language model that notes when it is observed."""

    observed = property(lambda self: self.observations)

    def watch(self, *observations):
        self.observations, self.seen = observations, []


def noting(kind="sample", when="often", error=None):
    def fields(model, view):
        model.seen.append((when, view.windows))
        if error is not None:
            raise error
        yield {"prompt": "", "text": "x", "temperature": 1.0}

    return Observation(kind, when, fields)


def watched(*observations, **options):
    model = Observed(VOCAB, "tanh", 8, seed=3)
    model.watch(*observations)
    log = crnn.TrainingLog()
    fitted(model, log=log, **options)
    return model, log


def test_a_model_is_observed_at_the_start_after_chosen_updates_and_at_the_end(tmp_path):
    _, log = watched(noting(), noting(when="end"), log_file=tmp_path / "log", epochs=30, log_every=1)
    updates = [entry["update"] for entry in log.entries if entry["kind"] == "sample"]
    assert updates == [0, *sorted(schedule(log.updates)), log.updates, log.updates]
    assert log.entries[-2]["kind"] == "sample"


def test_within_an_epoch_a_model_is_observed_when_there_is_an_entry_of_its_losses(tmp_path):
    _, log = watched(noting(), log_file=tmp_path / "log", epochs=2, log_every=3)
    seen = [(entry["epoch"], entry["update"]) for entry in log.entries if entry["kind"] == "sample"]
    per_epoch = log.updates // 2
    logged = {0, *log.column("update")}
    assert len(seen) > 4
    assert all(update in logged and epoch == update // per_epoch for epoch, update in seen)


def test_observations_are_no_part_of_the_time_of_training(tmp_path, monkeypatch):
    clock, slept = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + slept[0])

    def slow(model, view):
        slept[0] += 1e6
        return iter(())

    _, log = watched(Observation("sample", "often", slow), log_file=tmp_path / "log", epochs=1, log_every=1)
    assert slept[0] >= 4e6
    assert sum(log.column("seconds")) < 1e6


@pytest.mark.parametrize("updates", [1, 2, 3, 10, 20, 100, 10_000])
def test_the_updates_after_which_a_model_is_observed_are_few_and_not_the_last(updates):
    chosen = schedule(updates)
    assert (1 in chosen) == (updates > 1)
    assert len(chosen) <= 10
    assert max(chosen, default=0) < updates


def test_without_a_file_that_shows_them_observations_take_little_of_the_time():
    model, _ = watched(noting(), noting(when="end"), epochs=2)
    assert model.seen == []  # 16 updates: a single one is more than 1 %
    def slow(progress):  # a run of more than 0.15 s
        time.sleep(0.002)

    model, _ = watched(noting(), noting(when="end"), epochs=200, on_epoch=slow)
    assert 1 <= len(model.seen) <= 12  # a slow one may be the only one
    assert all(1 <= windows <= 16 for _, windows in model.seen)


def test_an_observation_that_fails_is_a_note_and_not_tried_again(tmp_path):
    model, log = watched(noting(error=MemoryError("too little")), noting(when="end"), log_file=tmp_path / "log")
    assert [when for when, _ in model.seen] == ["often", "end"]
    assert log.notes == ["sample could not be computed: MemoryError: too little"]
    assert ends_of(log)[0]["notes"] == log.notes
    assert log.epochs == 3
    assert_same_weights(model, fitted())


def test_what_is_no_entry_does_not_come_into_the_log(tmp_path):
    def wrong(model, view):
        yield {"prompt": 3}

    def long(model, view):
        yield {"prompt": "", "text": "x" * (1 << 20), "temperature": 1.0}

    for fields in (wrong, long):
        model = Observed(VOCAB, "tanh", 8, seed=3)
        model.watch(Observation("sample", "often", fields))
        log = crnn.TrainingLog()
        fitted(model, log=log, log_file=tmp_path / fields.__name__, checkpoint=tmp_path / f"c{fields.__name__}")
        assert not [entry for entry in log.entries if entry["kind"] == "sample"]
        assert log.notes[0].startswith("sample could not be computed: ValueError: expected an entry for the log")


def test_who_interrupts_a_run_does_not_wait_for_slow_observations(tmp_path, monkeypatch):
    def interrupt(progress):
        raise KeyboardInterrupt

    for patience, expected in ((0.0, ["often", "often"]), (60.0, ["often", "often", "end", "often"])):
        monkeypatch.setattr(observer, "PATIENCE", patience)
        model, log = Observed(VOCAB, "tanh", 8, seed=3), crnn.TrainingLog()
        model.watch(noting(), noting(when="end"))
        with pytest.raises(KeyboardInterrupt):
            fitted(model, log=log, log_every=100, log_file=tmp_path / str(patience), on_epoch=interrupt)
        assert [when for when, _ in model.seen] == expected
        assert log.entries[-1]["reason"] == "interrupted"


def test_an_interrupt_while_a_model_is_observed_ends_training_as_elsewhere(tmp_path):
    model = Observed(VOCAB, "tanh", 8, seed=3)
    model.watch(noting(error=KeyboardInterrupt()))
    log = crnn.TrainingLog()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, log=log, log_file=tmp_path / "log")
    assert [entry["kind"] for entry in log.entries if entry["kind"] != "run"] == ["end"]
    assert log.entries[-1]["reason"] == "interrupted"


def assert_same_weights(model, other):
    assert model.flat_params.tobytes() == other.flat_params.tobytes()
