# SPDX-License-Identifier: MIT
"""``crnn score --learn``: scores before learning, what is saved, and what is refused before anything is read."""

import io
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import crnn_command, environment, language_model

import crnn
from crnn import cli
from crnn.models.language.lines import LineLearner, LinesConfig
from crnn.nn.learning.config import LearnerConfig

pytestmark = pytest.mark.thread_unsafe  # standard input and output are the process's

LINES = [f"{word} {i % 7} of the log\n" for i in range(60) for word in ("start", "stop")]
TEXT = "".join(LINES).encode()
LEARN = ["--learn", "--every", "4", "--recent", "20", "--lr", "0.02"]


@pytest.fixture
def run(tmp_path, capsysbinary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    language_model("".join(LINES) + "!?", H=9).save("m")

    def run_here(*arguments, stdin=TEXT):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = cli.main(["score", *map(str, arguments)])
        return status, *capsysbinary.readouterr()

    return run_here


def bits(out):
    return np.array([float(line.split(b"\t")[0]) for line in out.splitlines()])


def test_lines_are_scored_before_they_are_learnt_and_the_model_stays(run, tmp_path):
    before = (tmp_path / "m").read_bytes()
    static, learning = bits(run("m")[1]), bits(run("m", *LEARN)[1])
    assert (learning[:6] == static[:6]).all()  # the first two are not learnt, the next four are one update
    assert (learning[7:] != static[7:]).mean() > 0.9
    assert learning[-20:].mean() < 0.6 * static[-20:].mean()
    assert (tmp_path / "m").read_bytes() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_it_does_not_depend_on_when_lines_arrive_or_on_threads(run, monkeypatch, threads):
    whole = run("m", *LEARN, "--threads", threads, "--json")[1]
    monkeypatch.setattr(cli.score, "TOGETHER", 3)
    assert run("m", *LEARN, "--json")[1] == whole


def test_unusual_lines_are_marked_and_not_learnt(run):
    lines = [*LINES, "!?!?!?!?\n", *LINES[:5]]
    _, out, err = run("m", *LEARN, "--skip", "0.05", "--json", stdin="".join(lines).encode())
    rows = [json.loads(row) for row in out.splitlines()]
    assert rows[len(LINES)]["learnt"] is False
    assert np.mean([row["learnt"] for row in rows]) > 0.8
    assert rows[len(LINES)]["bits"] == max(row["bits"] for row in rows)
    assert b"lines were the first or unusual" in err
    assert "learnt" not in json.loads(run("m", "--json")[1].splitlines()[0])


def test_a_line_that_cannot_be_scored_is_not_learnt(run):
    status, out, _ = run("m", *LEARN, "--json", stdin=TEXT + b"\xff\nCAPITALS\n")
    assert status == 0
    assert [json.loads(row)["learnt"] for row in out.splitlines()][-2:] == [False, False]


def test_what_was_learnt_is_saved_and_continued_near_the_first_model(run, tmp_path):
    status, out, err = run("m", *LEARN, "--save", "learnt", "--max-change", "0.2")
    assert status == 0, err
    assert b"wrote learnt" in err
    learnt = crnn.load("learnt")
    first = crnn.load("m").flat_params
    bound = 0.2 * np.linalg.norm(first)
    assert 0 < np.linalg.norm(learnt.flat_params - first) <= bound * 1.001
    again = bits(run("learnt")[1])
    assert again[:6].mean() < 0.7 * bits(out)[:6].mean()
    status, _, err = run("learnt", *LEARN, "--anchor", "m", "--max-change", "0.2", "--save", "more", "--lr", "0.1")
    assert status == 0, err
    assert np.linalg.norm(crnn.load("more").flat_params - first) <= bound * 1.001
    status, _, err = run("learnt", *LEARN, "--max-change", "0.2", "--save", "further", "--lr", "0.1")
    assert status == 0, err
    assert np.linalg.norm(crnn.load("further").flat_params - first) > bound * 1.01


def test_what_is_left_at_the_end_is_learnt_before_it_is_saved(run):
    status, _, err = run("m", "--learn", "--every", "1000", "--recent", "1", "--save", "learnt")
    assert status == 0, err
    assert (crnn.load("learnt").flat_params != crnn.load("m").flat_params).any()


def test_an_existing_file_is_kept_unless_it_may_be_replaced(run, tmp_path):
    (tmp_path / "old").write_bytes(b"mine")
    status, out, err = run("m", *LEARN, "--save", "old")
    assert status == 1
    assert out == b""
    assert b"save: expected a new file, got old, which exists; --overwrite replaces it" in err
    assert (tmp_path / "old").read_bytes() == b"mine"
    assert run("m", *LEARN, "--save", "old", "--overwrite")[0] == 0
    crnn.load("old")
    status, _, err = run("m", *LEARN, "--save", "m", "--overwrite")
    assert status == 1
    assert b"expected different files" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "0.1"], "lr: expected with --learn only, got 0.1 without it"),
        (["--every", "3"], "every: expected with --learn only, got 3"),
        (["--skip", "0.5"], "skip: expected with --learn only"),
        (["--save", "x"], "save: expected with --learn only"),
        (["--anchor", "m"], "anchor: expected with --learn only"),
        (["--learn", "--overwrite"], "overwrite: expected with --save only\n"),
        (["--learn", "--carry"], "learn: expected without --carry"),
        (["--learn", "--every", "0"], "every: expected an integer of at least 1"),
        (["--learn", "--skip", "1"], "skip: "),
        (["--learn", "--recent", "0"], "recent: expected an integer of at least 1"),
        (["--learn", "--optimizer", "adma"], "optimizer: "),
        (["--learn", "--anchor", "missing"], "missing"),
        (["--learn", "--anchor", "other"], "anchor: expected the model's vocabulary"),
        (["--learn", "--save", "nowhere/x"], "save: expected a folder that exists"),
        (["--threads", "0"], "threads: expected an integer of at least 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(run, flags, message):
    language_model("abc", H=9).save("other")
    status, out, err = run("m", *flags)
    assert status == 1
    assert out == b""
    assert message in err.decode()


def test_a_quantised_model_is_refused(run):
    crnn.load("m").quantize().save("int8")
    status, out, err = run("int8", "--learn")
    assert (status, out) == (1, b"")
    assert b"model: expected a model that can learn, got int8, which is quantised: train first" in err


def test_a_reader_that_goes_away_does_not_lose_what_was_learnt(run, tmp_path):
    command = crnn_command("score", "m", *LEARN, "--save", "learnt")
    (tmp_path / "log").write_bytes(TEXT * 2000)
    with (
        (tmp_path / "log").open("rb") as log,
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdin=log, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout.readline()
        process.stdout.close()
        assert b"wrote learnt" in process.stderr.read()
        assert process.wait(60) == 0
    model = crnn.load(tmp_path / "learnt")
    assert (model.flat_params != crnn.load(tmp_path / "m").flat_params).any()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows ends a process at once")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)])
def test_a_signal_does_not_lose_what_was_learnt(run, tmp_path, signum):
    command = crnn_command("score", "m", *LEARN, "--save", "learnt")
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(TEXT)
        process.stdin.flush()
        for _ in LINES:
            assert process.stdout.readline()
        process.send_signal(signum)
        assert b"wrote learnt" in process.stderr.read()
        assert process.wait(60) == 128 + signum
    model = crnn.load(tmp_path / "learnt")
    assert (model.flat_params != crnn.load(tmp_path / "m").flat_params).any()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows ends a process at once")
def test_a_signal_does_not_interrupt_saving(run, monkeypatch):
    finish = LineLearner.finish

    def interrupted(learner):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(learner)

    monkeypatch.setattr(LineLearner, "finish", interrupted)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert run("m", *LEARN, "--save", "learnt")[0] == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    crnn.load("learnt")


def test_learning_is_that_of_a_line_learner(run):
    run("m", *LEARN, "--save", "learnt", "--optimizer", "sgd(momentum=0.5)", "--decay", "0.01")
    model = crnn.load("m")
    config = LearnerConfig(optimizer="sgd(momentum=0.5)", lr=0.02, decay=0.01, max_change=0.5)
    learner = LineLearner(model, LinesConfig(every=4, recent=20), config)
    newline = model.vocab.encode("\n")
    for line in LINES:
        ids = np.concatenate([newline, model.vocab.encode(line)])
        [nats] = learner.model.surprisals([ids])
        learner.add(ids, float(np.sum(nats, dtype=np.float64)) / len(nats) / np.log(2))
    learner.finish()
    assert_same_bits(crnn.load("learnt").flat_params, learner.model.flat_params)


def test_a_float64_model_is_scored_learnt_and_saved_in_float64(run):
    model = language_model("".join(LINES) + "!?", H=9).astype("float64")
    model.flat_params[...] *= 1 + 1e-12  # no float32 number
    model.save("d")
    status, out, _ = run("d", *LEARN, "--save", "learnt", "--max-change", "0.5")
    learnt = crnn.load("learnt")
    assert (status, learnt.dtype) == (0, "float64")
    assert np.abs(bits(out) - bits(run("m", *LEARN)[1])).max() < 1e-3
    assert (learnt.flat_params != learnt.flat_params.astype(np.float32)).mean() > 0.9
    run("d", "--learn", "--recent", "10000", "--save", "same")  # learns nothing: all lines are the first ones
    assert crnn.load("same").flat_params.tobytes() == crnn.load("d").flat_params.tobytes()
    assert run("learnt", *LEARN, "--anchor", "m")[0] == 0  # another precision of the anchor


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: language_model("".join(LINES) + "!", H=9), r"anchor: expected the model's vocabulary.* without '\?'"),
        (lambda: language_model("".join(LINES) + "!?", H=8), "anchor: expected hidden_size=9, as in the model, got 8"),
        (lambda: language_model("".join(LINES) + "!?", H=9, cell="gru"), "anchor: expected cell="),
    ],
)
def test_an_anchor_that_is_another_model_is_refused_by_what_differs(run, make, message):
    make().save("other")
    status, _, err = run("m", *LEARN, "--anchor", "other")
    assert status == 1
    assert re.search(message, err.decode())
