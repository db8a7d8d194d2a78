# SPDX-License-Identifier: MIT
"""The record of training runs in a model: what it says, where it is, and that it is the same for the same run."""

import copy
import hashlib
import re

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, text

import crnn
from crnn import cli
from crnn.training import run

IDS = np.random.default_rng(8).integers(12, size=104)
SETTINGS = {"epochs": 3, "batch_size": 3, "bptt": 5, "valid": IDS[:40]}


def fitted(model=None, **options):
    model = language_model() if model is None else model
    log = crnn.fit(model, IDS, **(SETTINGS | {"optimizer": crnn.optim.Adam(lr=0.02)} | options))
    return model, log


def test_a_model_says_what_it_was_trained_on_how_and_how_well_it_did():
    model, log = fitted(schedule=crnn.optim.linear(), clip_norm=2.0)
    (record,) = model.training_runs
    data = hashlib.sha256(b"<i4(104,)" + IDS.astype("<i4").tobytes()).hexdigest()
    assert record["data"] == data != record["valid"]
    assert (record["crnn"], record["epochs"], record["updates"]) == (crnn.__version__, 3, 21)
    assert record["settings"]["optimizer"].startswith("Adam(lr=0.02, ")
    assert record["settings"]["schedule"].startswith("linear")
    assert (record["settings"]["batch_size"], record["settings"]["clip_norm"]) == (3, 2.0)
    best = log.best
    assert record["best_epoch"] == best["epoch"]
    assert record["scores"] == {
        name: pytest.approx(best[name], rel=1e-5) for name in ("train_loss", "valid_loss", "valid_accuracy")
    }


def test_without_validation_the_record_has_the_last_epoch():
    model, log = fitted(valid=None)
    (record,) = model.training_runs
    assert record["valid"] is record["best_epoch"] is None
    assert record["scores"] == {"train_loss": pytest.approx(log.last["train_loss"], rel=1e-5)}


def test_every_run_adds_a_record_which_files_and_copies_keep(tmp_path):
    model, _ = fitted()
    fitted(model, epochs=1, valid=None)
    assert [record["epochs"] for record in model.training_runs] == [3, 1]
    model.save(tmp_path / "m.safetensors")
    for other in (crnn.load(tmp_path / "m.safetensors"), copy.deepcopy(model), model.astype("float64")):
        assert other.training_runs == model.training_runs
        assert other.training_runs[0] is not model.training_runs[0]
    assert language_model().training_runs == ()


def test_a_model_keeps_the_last_records_of_very_many(monkeypatch):
    monkeypatch.setattr(run, "MOST_RECORDS", 2)
    model = language_model()
    for epochs in (1, 2, 3):
        fitted(model, epochs=epochs)
    assert [record["epochs"] for record in model.training_runs] == [2, 3]


def test_models_of_sequences_have_records_too():
    X = np.random.default_rng(0).normal(size=(12, 5, 2))
    model = crnn.SequenceClassifier(hidden_size=4, seed=0)
    model.fit(X, np.arange(12) % 2, epochs=2, valid=None)
    assert [record["epochs"] for record in model.training_runs] == [2]


def test_a_resumed_run_has_one_record_the_same_as_that_of_an_uninterrupted_run(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    whole, _ = fitted(fitted(epochs=1)[0])
    part = fitted(epochs=1)[0]
    options = {"checkpoint": tmp_path / "c"}
    with pytest.raises(KeyboardInterrupt):
        fitted(part, **options, on_epoch=stop)
    assert [record["epochs"] for record in crnn.load(tmp_path / "c").training_runs] == [1, 1]
    resumed, _ = fitted(**options, resume=True)
    assert [record["epochs"] for record in resumed.training_runs] == [1, 3]
    assert resumed.to_bytes() == whole.to_bytes()


def test_the_record_of_a_run_that_is_resumed_at_its_last_update_is_that_of_an_uninterrupted_one(tmp_path):
    options = {"checkpoint": tmp_path / "c", "max_updates": 10}  # within the second epoch, which is evaluated then
    whole, _ = fitted(**options)
    resumed, _ = fitted(**options, resume=True)
    assert [(record["epochs"], record["updates"]) for record in whole.training_runs] == [(2, 10)]
    assert resumed.to_bytes() == whole.to_bytes()


def test_a_run_without_an_update_leaves_no_record():
    def stop(update, total):
        raise KeyboardInterrupt

    model = language_model()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, schedule=stop)
    assert model.training_runs == ()


@pytest.mark.parametrize("wrong", [{}, "x", [1], [None]])
def test_a_file_with_other_records_is_refused(tmp_path, wrong):
    model = language_model()
    tensors, header = model.contents()
    crnn.io.model_file.write(tmp_path / "m", tensors, header | {"training": wrong})
    with pytest.raises(crnn.ModelFileError, match="training"):
        crnn.load(tmp_path / "m")


@pytest.mark.parametrize("wrong", [{}, "x", [1], [None]])
def test_a_checkpoint_with_other_records_is_refused_and_changes_nothing(tmp_path, wrong):
    fitted(checkpoint=tmp_path / "c")
    tensors, header = crnn.io.model_file.read(tmp_path / "c")
    header["model"]["training"] = wrong
    del header["sha256"]
    crnn.io.model_file.write(tmp_path / "c", tensors, header)
    model = language_model()
    before = model.flat_params.copy()
    with pytest.raises(crnn.ModelFileError, match="training"):
        fitted(model, epochs=4, checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(model.flat_params, before)
    with pytest.raises(crnn.ModelFileError, match="training"):
        crnn.load(tmp_path / "c")


def test_the_command_line_shows_records_with_the_score_on_the_test_text(tmp_path, capsys):
    source, output = tmp_path / "t.txt", tmp_path / "m.safetensors"
    source.write_text(text(2000))
    options = ["--hidden", "5", "--batch", "4", "--bptt", "8", "--epochs", "2"]
    assert cli.main(["train", str(source), "-o", str(output), *options]) == 0
    assert cli.main(["info", str(output)]) == 0
    shown = capsys.readouterr()
    (record,) = crnn.load(output).training_runs
    said = re.search(r"^test ([0-9.]+) nats", shown.err, re.MULTILINE)
    assert float(said[1]) == pytest.approx(record["scores"]["test_loss"], abs=1e-4)
    for part in ("training run 1 of 1", record["data"], "epochs=2", "optimizer=Adam(lr=", "test_loss "):
        assert part in shown.out
