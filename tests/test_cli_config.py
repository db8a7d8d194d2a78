# SPDX-License-Identifier: MIT
"""--config: options from a TOML file, what is refused, and options that are saved with the model and repeat its run."""

import json
import os
import re
import subprocess
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tools import crnn_command, environment, text

import crnn
from crnn import cli
from crnn.cli.command import all_parsers
from crnn.cli.common import flag_of
from crnn.cli.toml import to_toml
from crnn.cli.train import NOT_SAVED

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

TINY = {"hidden": 9, "epochs": 2, "batch": 4, "bptt": 8, "quiet": True}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of a text, which is the working folder."""
    (tmp_path / "text.txt").write_text(text(1200), encoding="utf-8", newline="")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, **options):
    path.write_text(to_toml({name.replace("_", "-"): value for name, value in options.items()}), encoding="utf-8")
    return path


@pytest.fixture
def train(capsys):
    def run(*arguments):
        status = cli.main(["train", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert out == ""
        return status, err

    return run


def typed(**options):
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def test_options_in_a_file_do_what_typed_ones_do(here, train):
    options = {"unit": "word", "cell": "gru", "lr": 0.02, "optimizer": "SGD", "dropout": 0.5, "patience": 3}
    flags = {"tie-weights": True, "embedding": 9, "variational-dropout": False, "clip-norm": 1}
    numbers = {name: value for name, value in TINY.items() if name != "quiet"}
    status, err = train("text.txt", "-o", "typed", *typed(**options, **numbers, embedding=9), "--tie-weights", "-q")
    assert status == 0, err
    write(here / "run.toml", text="text.txt", output="written", **options, **flags, **TINY)
    assert train("--config", "run.toml")[0] == 0
    assert (here / "written").read_bytes() == (here / "typed").read_bytes()


def test_what_is_typed_comes_first(here, train):
    write(here / "run.toml", text=["no such file"], output="nowhere/m", **TINY | {"hidden": 100})
    assert train("text.txt", "--config=run.toml", "-o", "m", "--hidden", 5)[0] == 0
    assert crnn.load("m").net.hidden_size == 5


def test_paths_are_relative_to_the_file(here, train, monkeypatch):
    (here / "runs").mkdir()
    write(here / "runs" / "run.toml", text=["../text.txt"], output="m", log="run.jsonl", **TINY)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert train("--config", "../runs/run.toml")[0] == 0
    assert sorted(os.listdir(here / "runs")) == ["m", "m.checkpoint", "run.jsonl", "run.toml"]
    assert os.listdir(here / "elsewhere") == []


def test_standard_input_stays_standard_input(here):
    write(here / "run.toml", text="-", output="m", **TINY)
    content = (here / "text.txt").read_bytes()
    command = crnn_command("train", "--config", "run.toml")
    done = subprocess.run(command, env=environment(), input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (here / "m").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hiden = 9", "run.toml: hiden: expected an option of crnn train, .* unknown; did you mean hidden"),
        ("hidden_size = 9", "run.toml: hidden_size: .* did you mean hidden"),
        ("learning-rate = 9", "run.toml: learning-rate: .* did you mean lr"),
        ("frobnicate = 9", r"run.toml: frobnicate: .* this one is unknown$"),
        ("hidden = 'many'", "run.toml: hidden: expected an integer, or a list of integers, got 'many'"),
        ("hidden = 9.5", "run.toml: hidden: expected an integer, or a list of integers, got 9.5"),
        ("hidden = true", "run.toml: hidden: expected an integer, or a list of integers, got True"),
        ("hidden = [9, '8']", r"run.toml: hidden: expected an integer, or a list of integers, got \[9, '8'\]"),
        ("hidden = 0", "hidden in run.toml: expected an integer of at least 1, got 0"),
        ("lr = '1e-3'", "run.toml: lr: expected a number, got '1e-3'"),
        ("lr = -1", "lr in run.toml: expected a number of at least 0"),
        ("cell = 'lsmt'", "run.toml: cell: expected one of tanh, .*lstm.*, got 'lsmt'"),
        ("unit = 3", "run.toml: unit: expected one of char, byte, word, got 3"),
        ("tie-weights = 1", "run.toml: tie-weights: expected true or false, got 1"),
        ("patience = 'soon'", "run.toml: patience: expected a number of epochs, or auto, got 'soon'"),
        ("log = 3", "run.toml: log: expected a path, got 3"),
        ("output = 'm/'", "run.toml: output: expected a file, got a folder: m/"),
        ("text = []", "run.toml: text: expected at least one value, got an empty list"),
        ("[network]\nhidden = 9", "run.toml: network: expected an option of crnn train"),
        ("lr = 2024-01-01", "run.toml: lr: expected a number, got datetime"),
        ("resume = true", "run.toml: resume: expected on the command line, got it in a file"),
        ("restart = true", "run.toml: restart: expected on the command line"),
        ("config = 'other.toml'", "run.toml: config: expected on the command line"),
        ("hidden = ", "run.toml: expected options in TOML, got a file that is not: Invalid value .*at "),
        ("hidden = 9\nhidden = 9", "run.toml: expected options in TOML"),
        (b"\xff\xfe", "run.toml: expected options in TOML, got a file that is not"),
    ],
)
def test_what_a_file_cannot_say_is_refused_before_anything_is_done(here, train, content, message):
    (here / "run.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    status, err = train("text.txt", "--config", "run.toml", *([] if "output" in str(content) else ["-o", "m"]))
    assert status == 1
    (line,) = err.splitlines()
    assert re.search(message, line), line
    assert sorted(os.listdir(here)) == ["run.toml", "text.txt"]


def test_a_file_that_is_not_there_and_a_task_that_does_not_exist_are_refused(here, train, capsys):
    assert "nowhere.toml: No such file" in train("text.txt", "--config", "nowhere.toml", "-o", "m")[1]
    write(here / "run.toml", task="dance")
    assert "run.toml: task: expected one of text" in train("text.txt", "--config", "run.toml", "-o", "m")[1]
    with pytest.raises(SystemExit):
        train("text.txt", "--task", "dance", "-o", "m")
    assert "invalid choice: 'dance'" in capsys.readouterr().err


def test_a_file_is_not_written_over(here, train):
    write(here / "run.toml", text="text.txt", **TINY)
    assert "different files" in train("--config", "run.toml", "-o", "run.toml")[1]


def test_a_run_is_continued_by_the_command_that_is_shown(here, train):
    write(here / "run.toml", text="text.txt", output="m", **TINY | {"quiet": False})
    assert "crnn train --config run.toml --resume" in train("--config", "run.toml")[1]
    status, err = train("--config", "run.toml", "--resume", "--epochs", 3)
    assert status == 0
    assert "resuming at epoch 3" in err


def test_messages_name_the_file_only_for_what_is_in_it(here, train):
    write(here / "run.toml", text="text.txt", **TINY)
    assert "--hidden: expected" in train("--config", "run.toml", "-o", "m", "--hidden", 0)[1]
    assert "such as --epochs" in train("--config", "run.toml", "-o", "m", "--epochs", 2)[1]


def test_starting_from_a_model_the_options_of_a_file_count_as_given(here, train):
    assert train("text.txt", "-o", "first", *typed(hidden=9, epochs=1), "-q")[0] == 0
    write(here / "run.toml", hidden=8, epochs=1)
    _, err = train("text.txt", "-o", "m", "--config", "run.toml", "--init-from", "first")
    assert "hidden in run.toml: expected 9, as in first, got 8" in err


# ---- saved with the model ----------------------------------------------------------------------------------------


def config_of(capsys, path):
    assert cli.main(["info", "--config", str(path)]) == 0
    return capsys.readouterr().out


def test_the_options_of_a_run_repeat_it(here, train, capsys):
    options = typed(unit="word", cell="gru", lr=0.02, border="\\u00e9\\t\x7f\"'é", seed=7, dropout=0.25, valid=0.2)
    assert train("text.txt", "-o", "m", *typed(hidden=9, epochs=2), *options, "--unknown", "-q", "--threads", 2)[0] == 0
    toml = config_of(capsys, "m")
    (here / "again.toml").write_text(toml, encoding="utf-8")
    saved = tomllib.loads(toml)
    assert (saved["task"], saved["lr"], saved["unknown"], saved["tie-weights"]) == ("text", 0.02, True, False)
    assert saved["border"] == "\\u00e9\\t\x7f\"'é"
    assert not {"output", "threads", "quiet", "log", "text"} & saved.keys()
    assert train("text.txt", "-o", "again", "--config", "again.toml")[0] == 0
    assert (here / "again").read_bytes() == (here / "m").read_bytes()


def test_what_is_not_saved_does_not_change_the_model(here, train):
    numbers = typed(hidden=9, epochs=2)
    assert train("text.txt", "-o", "m", *numbers, "-q")[0] == 0
    others = {"threads": 2, "log": "l.jsonl", "report": "r.html", "sample-every": 9, "ids": "ids.npy"}
    assert train("text.txt", "-o", "n", *numbers, *typed(**others), "--checkpoint", "c")[0] == 0
    assert (here / "n").read_bytes() == (here / "m").read_bytes()
    dests = {action.dest for action in all_parsers()["train"]._actions}
    assert set(NOT_SAVED) <= dests


def test_paths_are_not_saved_but_named(here, train, capsys):
    assert train("text.txt", "-o", "first", *typed(hidden=9, epochs=1), "-q")[0] == 0
    assert train("text.txt", "-o", "m", "--init-from", "first", "--epochs", 1, "-q")[0] == 0
    content = (here / "m").read_bytes()
    assert b"first" not in content
    assert b"text.txt" not in content
    toml = config_of(capsys, "m")
    assert "# init-from: a file was given, whose path is not saved" in toml
    assert "it was run 2" in toml
    assert "init-from" not in tomllib.loads(toml)


def test_the_options_as_json(here, train, capsys):
    assert train("text.txt", "-o", "m", *typed(hidden=9, epochs=1), "-q")[0] == 0
    assert cli.main(["info", "--config", "--json", "m"]) == 0
    assert json.loads(capsys.readouterr().out)["hidden"] == 9


@pytest.mark.parametrize("trained", [False, True])
def test_a_model_that_the_command_did_not_train_has_no_options(tmp_path, capsys, trained):
    model = crnn.LanguageModel(crnn.Vocab.from_text("hello"), hidden_size=4)
    if trained:
        crnn.fit(model, model.vocab.encode("hello" * 20), epochs=1)
    model.save(tmp_path / "m")
    assert cli.main(["info", "--config", str(tmp_path / "m")]) == 1
    was = "trained in Python" if trained else "that was not trained"
    assert f"expected a model that crnn train has written, got one {was}" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [3, {"hidden": {"a": 1}}, {"cell": "\ud800"}])
def test_damaged_options_are_refused(tmp_path, capsys, wrong):
    model = crnn.LanguageModel(crnn.Vocab.from_text("hello"), hidden_size=4)
    model.training_runs = ({"command": wrong},)
    model.save(tmp_path / "m")
    assert cli.main(["info", "--config", str(tmp_path / "m")]) == 1
    assert "expected" in capsys.readouterr().err


scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), scalars | st.lists(scalars)))
def test_what_is_written_as_toml_is_read_back(values):
    assert tomllib.loads(to_toml(values)) == values


def test_toml_keeps_the_kinds_of_numbers():
    values = {"whole": 1.0, "one": 1, "yes": True, "small": 1e-30, "large": 1e300, "none": float("inf")}
    back = tomllib.loads(to_toml(values))
    assert {name: type(value) for name, value in back.items()} == {name: type(v) for name, v in values.items()}


def test_every_option_of_train_has_a_name_for_files():
    names = [flag_of(action) for action in all_parsers()["train"]._actions]
    assert len(set(names)) == len(names)
    assert all(name.startswith("--") for name in names if name not in ("text",))
