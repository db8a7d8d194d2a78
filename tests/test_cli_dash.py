"""A file that is called -, given as ./-, in every place of the command line where a file can be given."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn import cli
from crnn.cli.command import SUBCOMMANDS, all_parsers
from crnn.cli.common import CommandParser
from crnn.cli.completion import _completed

pytestmark = pytest.mark.thread_unsafe  # the working folder and standard input are the process's

DASH = os.path.join(os.curdir, "-")
TEXT = "the cat sat on the mat\n" * 40
TABLE = "id,x,label\n" + "".join(f"{i // 5},{i % 7},{'ab'[i // 5 % 2]}\n" for i in range(100))
SERIES = "time,x\n" + "".join(f"{i},{i % 4}\n" for i in range(80))
TINY = ["--hidden", "5", "--epochs", "1", "--batch", "4", "-q", "--threads", "1"]
BY_TASK = ([], ["text.txt"], ["--task", "classify"], ["--task", "regress"], ["--task", "forecast"])


class Unread:
    """Standard input that nobody may read."""

    def __getattr__(self, name):
        raise AssertionError(f"standard input: {name}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Unread())
    return tmp_path


def run(*arguments):
    assert cli.main([*map(str, arguments)]) == 0


def named_dash(content):
    Path("-").write_bytes(content if isinstance(content, bytes) else content.encode())


def language():
    return crnn.LanguageModel(crnn.Vocab.from_text(TEXT), hidden_size=5)


def classifier():
    X = [np.arange(5.0)[:, None] + i for i in range(8)]
    return crnn.SequenceClassifier(hidden_size=4, epochs=1, valid=None).fit(X, ["a", "b"] * 4)


def parsers():
    yield from all_parsers().values()
    (train,) = (each for each in SUBCOMMANDS if each.name == "train")
    for words in BY_TASK:
        parser = CommandParser("crnn train")
        train.complete(parser, words)
        yield parser


def test_every_path_of_every_command_tells_dash_from_a_file_of_that_name(here):
    """By the type of the argument, so that no command has to."""
    seen = 0
    for parser in parsers():
        for action in parser._actions:
            assert action.type is not Path, action.dest
            if _completed(parser, action).is_path:
                assert action.type(DASH) == here / "-", action.dest
                assert str(action.type("a-")) == "a-"
                seen += 1
    assert seen > 40


@pytest.mark.parametrize("words", [["sample", "-"], ["train", "text.txt", "-o", "-"], ["score", "m", "--save", "-"]])
def test_dash_is_refused_where_it_stands_for_nothing(here, capsys, words):
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "expected a file, got -; a file of that name is ./-" in capsys.readouterr().err
    assert not Path("-").exists()


def test_a_text_and_a_model(here, capsys):
    named_dash(TEXT)
    run("train", DASH, "-o", "m", *TINY)
    run("eval", "m", DASH, "--threads", "1")
    run("eval", "m", DASH, "--dynamic", "--statistics", DASH, "--threads", "1")
    Path("text.txt").write_text(TEXT)
    Path("-").unlink()
    run("train", "text.txt", "-o", DASH, *TINY, "--checkpoint", "c", "--log", "l.jsonl")
    assert crnn.load(Path("-")).vocab == crnn.Vocab.from_text(TEXT)
    run("train", "text.txt", "-o", "n", "--init-from", DASH, *TINY)
    run("sample", DASH, "--length", "3")
    run("eval", DASH, "text.txt", "--threads", "1")
    run("info", DASH)
    run("quantize", DASH, "-o", "q")
    run("export-c", DASH, "-o", "m.c")


@pytest.mark.parametrize("option", ["model", "--anchor", "--save"])
def test_a_model_of_score(here, monkeypatch, option):
    language().save("-" if option != "--save" else "m")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    learning = {"--anchor": [DASH, "--learn", "--anchor", DASH], "--save": ["m", "--learn", "--save", DASH]}
    run("score", *learning.get(option, [DASH]), "--threads", "1")
    assert isinstance(crnn.load(Path("-")), crnn.LanguageModel)


def test_tables(here, capsys):
    named_dash(TABLE)
    run("train", "--task", "classify", DASH, "-o", "m", *TINY)
    run("train", "--task", "classify", DASH, "-o", "n", *TINY, "--valid", "0.2", "--test", "none")
    run("eval", "m", DASH, "--threads", "1")
    run("predict", "m", DASH)
    Path("t.csv").write_text(TABLE)
    run("train", "--task", "classify", "t.csv", "-o", "o", *TINY, "--valid", DASH, "--test", "none")
    Path("-").unlink()
    run("predict", "m", "t.csv", "-o", DASH)
    assert Path("-").read_text().startswith("id,")
    capsys.readouterr()
    run("predict", "m", "t.csv", "-o", "-", "--overwrite")
    assert capsys.readouterr().out == Path("-").read_text()
    named_dash(SERIES)
    run("train", "--task", "forecast", DASH, "-o", "f", *TINY, "--horizon", "2")
    run("eval", "f", DASH, "--threads", "1")
    run("predict", "f", DASH)


def test_a_report(here):
    log = crnn.TrainingLog()
    log.add_training(1, 1, 2.5, 64, 0.1, 1e-3, 0.7)
    log.end_epoch()
    log.to_jsonl("l.jsonl")
    run("report", "l.jsonl", "-o", DASH)
    assert b"<html" in Path("-").read_bytes()


def test_archives(here):
    named_dash(TEXT)
    run("compress", DASH, "-o", "a.crz", "-q")
    Path("-").unlink()
    run("decompress", "a.crz", "-o", DASH, "-q")
    assert Path("-").read_text() == TEXT
    run("compress", "a.crz", "--after", DASH, "-o", "b.crz", "-q")


def test_a_configuration_and_the_paths_in_it(here):
    Path("in").mkdir()
    Path("in", "-").write_text(TEXT)
    Path("in", "run.toml").write_text('text = "./-"\noutput = "m"\n')
    run("train", "--config", "in/run.toml", *TINY)
    assert Path("in", "m").exists()
    named_dash('text = "in/-"\noutput = "n"\n')
    run("train", "--config", DASH, *TINY)
    assert Path("n").exists()
