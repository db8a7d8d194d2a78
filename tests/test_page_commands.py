# SPDX-License-Identifier: MIT
"""Every command ``crnn ...`` in the README and in docs runs as it stands there, on small files of these names."""

import contextlib
import csv
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.cli.command import main
from crnn.interop import keras

pytestmark = pytest.mark.thread_unsafe  # standard input and output are the process's

ROOT = Path(__file__).parents[1]
# Tests of their own have: the demo, which takes a minute; verify; scripts for shells; what depends on another command.
ELSEWHERE = {"demo", "verify", "completion", "compress", "decompress"}
NEEDS = {".onnx": "onnx", ".keras": "h5py"}  # by what is in the command
SHORT = ["--epochs", "1", "-q"]
TEXT = "ROMEO: what light?\nJULIET: one two.\n\n" * 40


def commands() -> list[tuple[str, str]]:
    """Each command line with ``crnn`` in it, and its page: of shell blocks, and of lines that are indented by four."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if page.exists():
            text = page.read_text("utf-8")
            blocks = re.findall(r"^```sh\n(.*?)^```$|((?:^ {4}\S[^\n]*\n)+)", text, re.MULTILINE | re.DOTALL)
            lines = [line.strip() for fenced, indented in blocks for line in (fenced or indented).splitlines()]
            found += [(page.name, line) for line in lines if re.match(r"(\S.* \| )?crnn ", line)]
    return found


def write(name: str, header: list[str], rows: list[list[object]]) -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_tables() -> None:
    rng = np.random.default_rng(3)
    for name, count in (("gestures.csv", 20), ("new.csv", 4), ("test.csv", 6)):
        rows = [["up" if i % 2 else "down", *(rng.normal(size=5) + i % 2).round(3)] for i in range(count)]
        write(name, ["label", *(f"x{i}" for i in range(5))], rows)
    spoken = enumerate(["the", "fox", "ran", "on"] * 8)
    words = [[i // 4, word, "noun" if word == "fox" else "other"] for i, word in spoken]
    write("words.csv", ["id", "word", "kind"], words)
    write("sentences.csv", ["sentence", "token", "tag"], words)
    write("reviews.csv", ["review", "stars"], [["a good film" if i % 2 else "too long", 1 + i % 2] for i in range(20)])
    month = [f"{2010 + i // 12}-{1 + i % 12:02}" for i in range(132)]
    known = [[t, round(10 + 3 * np.sin(i), 2), i % 5, i % 7 == 0] for i, t in enumerate(month[:120])]
    sales = [[t, sold, rain, int(holiday)] for t, sold, rain, holiday in known]
    write("sales.csv", ["month", "sold", "rain", "holiday"], sales + [[t, "", "", 0] for t in month[120:]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts, tables, logs, and a model for each task."""
    here = tmp_path_factory.mktemp("pages")
    with contextlib.chdir(here):
        write_tables()
        for name in ("input.txt", "other.txt", "app.log", "sunday.log", "notes.txt", "notes/a.txt", "notes/b.txt"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(TEXT, encoding="utf-8")
        for log in ("run", "other"):
            train = ["train", "input.txt", "--hidden", "8", "-o", f"{log}.text", "--log", f"{log}.jsonl", *SHORT]
            assert main(train) == 0
        assert main(["train", "gestures.csv", "-o", "classes", "--task", "classify", *SHORT]) == 0
        columns = ["--target", "sold", "--past", "rain", "--future", "holiday", "--time", "month"]
        assert main(["train", "sales.csv", "-o", "series", "--task", "forecast", *columns, *SHORT]) == 0
        if find_spec("h5py"):
            keras.save(crnn.load("classes"), "keras_model.keras")
    return here


def model_for(arguments: list[str]) -> str:
    """Which of the models the command is for, by the table that it reads."""
    tables = {"new.csv": "classes", "test.csv": "classes", "sales.csv": "series"}
    return next((tables[word] for word in arguments if word in tables), "run.text")


@pytest.mark.skipif(not commands(), reason="the pages are not part of this tree")
@pytest.mark.parametrize("line", [pytest.param(line, id=f"{page}: {line:.50}") for page, line in commands()])
def test_a_command_of_the_pages_runs(line, folder, tmp_path, monkeypatch, capsys):
    verb = re.search(r"\bcrnn (\S+)", line)[1]
    if verb in ELSEWHERE:
        pytest.skip(f"crnn {verb} has its own tests")
    for ending, module in NEEDS.items():
        if ending in line and find_spec(module) is None:
            pytest.skip(f"needs {module}")
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    words = list(lexer)
    first = words.index("crnn") + 1
    last = next((i for i in range(first, len(words)) if words[i] in ("|", "<", ">")), len(words))
    arguments = words[first:last]
    if verb == "train":
        arguments += SHORT
    else:
        for word in arguments:
            if word in ("m.safetensors", "f.safetensors") and arguments[arguments.index(word) - 1] != "-o":
                Path(word).symlink_to(folder / model_for(arguments))
    if "--config" in arguments and verb == "train":
        assert main(["info", "--config", "run.text"]) == 0
        Path("run.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    with Path("app.log").open(encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert main(arguments) == 0, capsys.readouterr().err
