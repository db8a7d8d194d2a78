# SPDX-License-Identifier: MIT
"""``crnn eval --dynamic``: its options, its results, and what is refused."""

import json

import pytest
from model_tools import language_model, stir, text

import crnn
from crnn import cli

pytestmark = pytest.mark.thread_unsafe  # standard output is the process's

TEXT, OTHER = text(600, seed=3), text(500, seed=4)


@pytest.fixture
def files(tmp_path):
    model = language_model(text(3000), H=12)
    model.save(tmp_path / "m")
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "other").write_text(OTHER)
    return tmp_path


def run(capsys, *arguments):
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--lr", "0.01", "--bptt", "9", "--batch", "4"], {"lr": 0.01, "bptt": 9}),
        (["--optimizer", "sgd(0.3, momentum=0.5)", "--clip-norm", "inf"],
         {"optimizer": "sgd(0.3, momentum=0.5)", "clip_norm": None}),
        (["--decay", "0.05", "--max-change", "0.1", "--clip-value", "0.1"],
         {"decay": 0.05, "max_change": 0.1, "clip_value": 0.1}),
        (["--statistics", "other", "--decay", "0.01"], {"statistics": OTHER, "decay": 0.01}),
    ],
)  # fmt: skip
def test_flags_are_the_options_of_evaluate(files, capsys, monkeypatch, flags, options):
    monkeypatch.chdir(files)
    before = (files / "m").read_bytes()
    status, out, err = run(capsys, "eval", "m", "text", "--dynamic", "--json", *flags)
    assert status == 0, err
    expected = crnn.load("m").evaluate(TEXT, batch_size=4 if "--batch" in flags else 1, dynamic=options)
    found = json.loads(out)
    assert (found["nats"], found["accuracy"], found["count"]) == (expected.nats, expected.accuracy, len(TEXT) - 1)
    assert found["nats"] != crnn.load("m").evaluate(TEXT).nats
    assert (files / "m").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.1"], "lr: expected with --dynamic only, got 0.1 without it"),
        (["--bptt", "3"], "bptt: expected with --dynamic only, got 3"),
        (["--statistics", "other"], "statistics: expected with --dynamic only, got other without it\n"),
        (["--dynamic", "--lr", "-1"], "lr: expected a number of at least 0"),
        (["--dynamic", "--decay", "2"], "--dynamic: --decay: expected a number from 0 to 1"),
        (["--dynamic", "--statistics", "other", "--optimizer", "sgd"], "--optimizer: expected none with statistics"),
        (["--dynamic", "--statistics", "missing"], "missing"),
    ],
)
def test_wrong_options_are_refused(files, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(files)
    status, out, err = run(capsys, "eval", "m", "text", *flags)
    assert status == 1
    assert out == ""
    assert message in err


def test_a_model_that_cannot_learn_is_refused(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    crnn.load("m").quantize().save("int8")
    status, _, err = run(capsys, "eval", "int8", "text", "--dynamic")
    assert status == 1
    assert err == (
        "crnn eval: model: expected a model that can learn, got int8, which is quantised: train first, then crnn "
        "quantize\n"
    )
    tagger = crnn.SequenceTagger(3, num_classes=2, hidden_size=4)
    stir(tagger.flat_params)
    tagger.save("tagger")
    (files / "table.csv").write_text("id,a,b,c,label\n1,1,2,3,0\n")
    status, _, err = run(capsys, "eval", "tagger", "table.csv", "--dynamic")
    assert status == 1
    assert "dynamic: not an option for tables of sequences" in err
