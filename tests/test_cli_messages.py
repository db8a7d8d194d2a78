# SPDX-License-Identifier: MIT
"""Error messages of the command line name its options, and what the user typed is not changed."""

import argparse
import contextlib
import os
import re
import shutil
import subprocess

import pytest

import crnn
from crnn._options import options_of
from crnn.cli.command import SUBCOMMANDS, all_parsers, main
from crnn.cli.common import say, show
from crnn.cli.messages import in_words_of, option_names, unrecognized
from crnn.cli.typed import quoted
from crnn.nn.config import NetworkConfig
from crnn.training.config import TrainingConfig

PARSERS = all_parsers()
DIFFERENT = "expected different files, got "
RAW = "caf\udce9"  # an argument with a byte that is no text in UTF-8


def message(subcommand, text, **typed):
    return in_words_of(PARSERS[subcommand], text, argparse.Namespace(**typed))


def test_every_subcommand_has_names_for_all_its_arguments():
    for subcommand, parser in PARSERS.items():
        for dest, name in option_names(parser).items():
            assert message(subcommand, f"{dest}: expected more") == f"{name}: expected more"
    assert len(PARSERS) == len(SUBCOMMANDS)


@pytest.mark.parametrize("config", [NetworkConfig, TrainingConfig])
def test_options_of_python_are_called_by_their_flags(config):
    names = option_names(PARSERS["train"])
    for option in options_of(config):
        if option.name in names and option.flag is not None:  # a quantised model has a precision too, without a flag
            assert message("train", f"{option.name}: expected 1") == f"{option.flag}: expected 1"


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("max_size: expected at least 1, got 0", "--max-vocab: expected at least 1, got 0"),
        ("optimizer: lr: beta1: expected 1: lr: 2", "--optimizer: --lr: beta1: expected 1: lr: 2"),
        ("valid + test: expected less than 1", "--valid + --test: expected less than 1"),
        ("min_count, max_size, unknown: not for bytes", "--min-count, --max-vocab, --unknown: not for bytes"),
        ("ids: expected 5 tokens for batch_size=4", "text: expected 5 tokens for --batch 4"),
        ("data: expected the training data", "text: expected the training data"),
        ("seed: expected an int, or None, got -1", "--seed: expected an int, got -1"),
        ("carry: expected 0, 2 bptt=4, or None, got 5", "--carry: expected 0, 2 --bptt 4, got 5"),
        ("an embedding_size is needed", "an --embedding is needed"),
        ("text: a text with valid words and a seed", "text: a text with valid words and a seed"),
        ("optimizer: expected Adam(lr=1e-3), got lr=2", "--optimizer: expected Adam(lr=1e-3), got --lr 2"),
        ("schedule: expected f(final=0.0, warmup=0), got 3", "--schedule: expected f(final=0.0, warmup=0), got 3"),
        (
            "num_layers: expected 3, as in lr.ck, got 1; dropout: 0.5, got 0.0; bptt: 4, got 5; carry: on",
            "--layers: expected 3, as in lr.ck, got 1; --dropout: 0.5, got 0.0; --bptt: 4, got 5; carry: on",
        ),
        ("a=b is no option, x_y is none", "a=b is no option, x_y is none"),
        ("/data/valid: gone", "/data/valid: gone"),
    ],
)
def test_names_become_options_and_plain_words_stay(python, shell):
    assert message("train", python) == shell


def test_what_the_user_typed_is_not_changed():
    text = "batch_size=3/min_count.txt: expected another file than min_count.txt"
    assert message("train", text, output="batch_size=3/min_count.txt", log="min_count.txt") == text


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--log-file", "a.jsonl", "--batch-size=3"], "; did you mean --log and --batch?"),  # the names in Python
        (["--patiense", "3"], "; did you mean --patience?"),
        (["--learning-rate", "3"], "; did you mean --lr?"),  # the names of other libraries
        (["--hidden_dim=3"], "; did you mean --hidden?"),
        (["--frobnicate"], ""),
        (["another"], ""),
    ],
)
def test_an_unknown_option_is_told_which_one_may_be_meant(words, hint, capsys):
    assert unrecognized(PARSERS["train"], words) == (
        f"unrecognized arguments: {' '.join(words)}{hint} (crnn train --help lists all)"
    )
    with pytest.raises(SystemExit):
        main(["train", "text.txt", "-o", "m", *words])
    assert f"crnn: error: unrecognized arguments: {' '.join(words)}{hint}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "crnn: error: COMMAND: expected one of train, sample, .*; crnn --help says what they do"),
        (["trian"], "crnn: error: COMMAND: expected one of train, .*, got 'trian'; did you mean train?"),
        (["input.txt"], "crnn: error: COMMAND: expected one of .*, got 'input.txt'$"),
        (["score", "m", "new.log"], "unrecognized arguments: new.log; lines are read from standard input: "),
        (["sample", "m", "Once"], "unrecognized arguments: Once; --prompt TEXT gives a text to continue "),
        (["train", "a", "-o", "-m"], "expected one argument; a value that .* --output=-m, a file also as ./-m$"),
        (["train", "a", "-o"], "argument -o/--output: expected one argument$"),
        (["sample", "m", "--prompt", "-x"], "expected one argument; .* is given as --prompt=-x, a file also as ./-x$"),
    ],
)
def test_what_was_mistyped_is_answered_with_what_to_type(words, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == 2
    assert re.search(message.replace("?", r"\?"), capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize("name", PARSERS)
def test_every_positional_argument_has_a_help_text(name):
    for action in PARSERS[name]._actions:
        assert action.help, action.dest


@pytest.mark.parametrize("name", PARSERS)
def test_the_help_fits_a_terminal_of_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, PARSERS[name].format_help().splitlines())) <= 80


@pytest.mark.parametrize(("put", "stream"), [(show, "out"), (say, "err")])
def test_bytes_of_a_name_that_are_no_text_are_shown_as_they_may_be_typed(put, stream, capsys):
    put("wrote caf\udce9.txt, é")
    assert getattr(capsys.readouterr(), stream) == "wrote caf\\xe9.txt, é\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "t", "-o", "m", "--hidden", RAW], r"argument --hidden: expected .*, got 'caf\\xe9'"),
        (["train", "t", "-o", "m", "--epochs", RAW], r"argument --epochs: .* 'caf\\xe9'"),
        (["sample", "m", "--top-k", RAW], r"argument --top-k: .* 'caf\\xe9'"),
        (["export", "m", "-o", "o", "--format", RAW], r"argument --format: .* 'caf\\xe9'"),
        (["sample", "m", f"--{RAW}"], r"unrecognized arguments: --caf\\xe9 "),
        ([RAW], r"COMMAND: expected one of .*, got 'caf\\xe9'"),
        (["export-c", "m", "-o", "m.c", "--name", RAW], r"^crnn export-c: --name: expected .*, got 'caf\\xe9'"),
        (["sample", "m", "--top-k", r"a\udce9"], r"argument --top-k: .* 'a\\\\udce9'"),  # typed so
    ],
)
def test_bytes_that_are_no_text_are_shown_as_typed_in_quotations_too(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    crnn.RNN(2, 3, seed=0).save("m")
    with contextlib.suppress(SystemExit):
        main(words)
    err = capsys.readouterr().err
    assert re.search(message, err, re.MULTILINE), err
    assert "\udce9" not in err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("word", ["", "two words", "caf\udce9.txt", "a\nb'c\\d", "\udce9 \\x41", "é'", "-x"])
def test_a_quoted_word_is_the_same_word_in_a_shell(word):
    line = quoted(word)
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {line}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export-c", "m", "-o", "a.c"], "the header of --output: expected a file, got a folder: a.h"),
        (["export-c", "b.h", "-o", "b.c"], "model and the header of --output: " + DIFFERENT + "b.h for both"),
        (["export-c", "m", "-o", "c.c"], "--output and the header of --output: " + DIFFERENT + "c.h for both"),
        (["quantize", "m", "-o", "t", "--eval", "t"], "--eval and --output: " + DIFFERENT + "t for both"),
    ],
)
def test_files_are_called_by_the_options_that_name_them(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.h").mkdir()
    for name in "m", "b.h", "c.h", "t":
        crnn.RNN(2, 3, seed=0).save(name)
    os.link("c.h", "c.c")
    assert main(words) == 1
    assert capsys.readouterr().err == f"crnn {words[0]}: {message}\n"
