# SPDX-License-Identifier: MIT
"""The crnn command: every verb through `main`, exit statuses, one-line errors; and as a program, where that matters."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import crnn_command, environment, language_model, text

import crnn
from crnn import cli

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

TINY = ["--hidden", "9", "--epochs", "2", "--batch", "4", "--bptt", "8"]


def run(capsys, *arguments):
    """Exit status, standard output, standard error."""
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def fails(capsys, *arguments):
    """The one line that says why. `crnn train` may have said before what it is going to do."""
    status, out, err = run(capsys, *arguments)
    assert status == 1
    assert out == ""
    *before, why = err.splitlines()
    assert why.startswith(f"crnn {arguments[0]}: ")
    assert len(before) <= 4 * (arguments[0] == "train")
    return why


# ---- train -----------------------------------------------------------------------------------------------------


def test_train_does_what_fit_does(tmp_path, text_file, capsys):
    output = tmp_path / "m"
    status, out, err = run(
        capsys, "train", text_file, "-o", output, *TINY, "--seed", 3, "--threads", 2, "--clip-norm", 1
    )
    assert (status, out) == (0, "")
    corpus = crnn.TextCorpus.from_file(text_file)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=9, seed=3)
    log = crnn.fit(
        model, corpus, epochs=2, batch_size=4, bptt=8, schedule=crnn.optim.cosine(), clip_norm=1.0
    )  # fmt: skip
    assert_same_bits(crnn.load(output).flat_params, model.flat_params)
    test = model.evaluate(corpus.test, batch_size=4)
    assert f"test {test.nats:.4f} nats, {test.bits:.4f} bits" in err
    assert f"valid {log.best['valid_loss']:.4f} (best)" in err
    assert f"wrote {output}" in err
    assert "1,080 chars to learn from" in err
    assert sorted(os.listdir(tmp_path)) == ["m", "m.checkpoint", "text.txt"]


def test_train_passes_every_option_on(tmp_path, text_file, capsys):
    output, ids = tmp_path / "m", tmp_path / "ids.npy"
    status, _, err = run(
        capsys, "train", text_file, "-o", output, "--unit", "word", "--encoding", "ascii", "--valid", 0.2,
        "--test", 0.1,
        "--min-count", 2, "--max-vocab", 20, "--ids", ids, "--cell", "relu", "--hidden", 7, "--layers", 2,
        "--embedding", 5, "--recurrent-init", "0.5*identity", "--input-init", "uniform", "--dtype", "float64",
        "--epochs", 4, "--batch", 3, "--bptt", 6, "--carry", 12, "--optimizer", "RMSprop", "--lr", 0.01,
        "--schedule", "linear", "--warmup", 3, "--clip-norm", 0, "--clip-value", 0.1, "--patience", 3, "--seed", 8,
        "--log", tmp_path / "log.jsonl", "-q",
    )  # fmt: skip
    assert status == 0, err
    options = {"min_count": 2, "max_size": 20, "valid": 0.2, "test": 0.1}
    corpus = crnn.TextCorpus.from_file(text_file, "word", **options)
    model = crnn.LanguageModel(
        corpus.vocab, "relu", 7, 2, embedding_size=5, dtype="float64", recurrent_init="0.5*identity",
        input_init="uniform", seed=8,
    )  # fmt: skip
    log = crnn.fit(
        model, corpus, epochs=4, batch_size=3, bptt=6, carry=12, optimizer=crnn.optim.RMSprop(lr=0.01),
        schedule=crnn.optim.linear(warmup=3), clip_value=0.1, patience=3,
    )  # fmt: skip
    loaded = crnn.load(output)
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.vocab == corpus.vocab
    np.testing.assert_array_equal(np.load(ids)[: corpus.train.size], corpus.train)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [entry["train_loss"] for entry in lines if "train_loss" in entry]
    assert losses == [entry["train_loss"] for entry in log.entries if "train_loss" in entry]


def test_train_builds_every_kind_of_network(tmp_path, text_file, capsys):
    model = tmp_path / "m"
    options = {"--cell": "lstm", "--layers": 2, "--dropout": 0.25, "--recurrent-dropout": 0.125, "--forget-bias": 0.5}
    flags = ["--tie-weights", "--variational-dropout", "--trainable-initial-state", "--dense-layers"]
    pairs = [part for pair in options.items() for part in pair]
    assert run(capsys, "train", text_file, "-o", model, *TINY, *pairs, *flags)[0] == 0
    config = crnn.load(model).config()
    wanted = {name.strip("-").replace("-", "_"): value for name, value in options.items() if name != "--layers"}
    assert config == config | wanted | {
        "num_layers": 2,
        "tie_weights": True,
        "variational_dropout": True,
        "trainable_initial_state": True,
        "dense_layers": True,
    }
    train = ["train", text_file, "-o", model, *TINY, "--restart"]
    assert run(capsys, *train, "--cell", "original_gru", "--embedding", 0)[0] == 0
    assert crnn.load(model).config() == crnn.load(model).config() | {"cell": "original_gru", "embedding_size": None}
    assert "--tie-weights: expected an embedding" in fails(capsys, *train, "--embedding", 3, "--tie-weights")


@pytest.mark.parametrize("verb", ["sample", "score"])
def test_a_model_of_another_kind_is_shown_but_does_not_write(tmp_path, capsys, verb):
    path = tmp_path / "classifier"
    crnn.SequenceClassifier(3, 2, hidden_size=5).save(path)
    assert "expected a LanguageModel, got a SequenceClassifier" in fails(capsys, verb, path)
    status, out, _ = run(capsys, "info", path)
    assert status == 0
    assert "SequenceClassifier" in out
    assert "pooling" in out


def test_train_writes_its_log_as_csv_and_no_embedding_when_asked(tmp_path, text_file, capsys):
    arguments = ("train", text_file, "-o", tmp_path / "m", *TINY, "--embedding", 0, "--log", tmp_path / "log.csv")
    assert run(capsys, *arguments, "--unknown")[0] == 0
    assert (tmp_path / "log.csv").read_text().startswith("kind,epoch,update,train_loss")
    model = crnn.load(tmp_path / "m")
    assert model.net.embedding_size is None
    assert model.vocab.unknown_id == 0


def test_train_goes_on_from_its_checkpoint(tmp_path, text_file, capsys, monkeypatch):
    whole, parts, arguments = (
        tmp_path / "whole",
        tmp_path / "parts",
        ("train", text_file, *TINY, "--schedule", "constant"),
    )
    assert run(capsys, *arguments, "-o", whole, "--checkpoint", tmp_path / "c")[0] == 0

    def interrupt(update, total):
        if update == 50:
            signal.raise_signal(signal.SIGINT)
        return 1.0

    monkeypatch.setitem(crnn.optim.SCHEDULES, "constant", lambda warmup: interrupt)
    status, _, err = run(capsys, *arguments, "-o", parts)
    assert status == 130
    assert "interrupted: keeping the best weights so far" in err
    assert crnn.load(parts).evaluate("the of and").count == 9
    assert (tmp_path / "parts.checkpoint").exists()
    monkeypatch.undo()
    status, _, err = run(capsys, *arguments, "-o", parts, "--resume")
    assert status == 0
    assert parts.read_bytes() == whole.read_bytes()
    assert "resuming at epoch 2, update 51" in err


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", [], "expected at least one char, got none"),
        (b"a", [], "expected at least 5 tokens for --batch 4"),
        (b"abcd", [], "expected at least 5 tokens for --batch 4 .*, got 4"),
        (b"\x89PNG\r\n\x1a\n" * 50, [], "not utf-8 text at byte 0"),
        (b"text then \x00 nothing" * 50, [], "NUL at character 10, so it is binary"),
        ("Käse".encode("latin-1") * 50, [], "not utf-8 text at byte 1"),
        (b"", ["--unit", "byte"], "expected at least one byte, got none"),
        (b"abc" * 50, ["--valid", "0.6", "--test", "0.6"], "--valid \\+ --test: expected less than 1"),
        (b"abc" * 50, ["--encoding", "klingon"], "--encoding: .* got 'klingon'"),
        (b"abc" * 50, ["--hidden", "0"], "--embedding|--hidden: expected an integer of at least 1, got 0"),
        (b"abc" * 50, ["--hidden", "1000000000"], "llocate"),
        (b"abc" * 50, ["--hidden", "100000000000"], "too large"),
        (b"abc" * 50, ["--encoding", "hex"], "--encoding: expected a text encoding that Python knows, got 'hex'"),
        (b"abc" * 50, ["--bptt", "0"], "--bptt: expected .* got 0"),
        (b"abc" * 50, ["--batch", "0"], "--batch: expected .* got 0"),
        (b"abc" * 50, ["--carry", "9"], r"--carry: expected 0, a multiple of --bptt 8"),
        (b"abc" * 50, ["--lr", "-1"], "--lr: expected a number of at least 0"),
        (b"abc" * 50, ["--seed", "-1"], "--seed: expected an integer of at least 0, got -1"),
        (b"abc" * 50, ["--recurrent-init", "magic"], "--recurrent-init: expected one of"),
        (b"abc" * 50, ["--min-count", "99"], "--min-count: expected at most 50"),
        (b"abc" * 50, ["--threads", "0"], "--threads: expected an integer of at least 1, got 0"),
        (
            b"abc" * 50,
            ["--cell", "relu", "--embedding", "9", "--optimizer", "sgd", "--lr", "1e30", "--clip-norm", "0"],
            "at update 2",
        ),
        (b"abc" * 50, ["--checkpoint", "nowhere/at/all"], "--checkpoint: expected a folder that exists"),
        (b"abc" * 50, ["--log", "nowhere/at/all.csv"], "--log: expected a folder that exists, got nowhere"),
        (b"abc" * 50, ["--ids", "nowhere/at/all.npy"], "--ids: expected a folder that exists"),
    ],
)
def test_train_says_what_is_wrong_in_one_line(tmp_path, capsys, content, options, message):
    path = tmp_path / "text"
    path.write_bytes(content)
    err = fails(capsys, "train", path, "-o", tmp_path / "m", *TINY, "-q", *options)
    assert re.search(message, err), err
    assert not (tmp_path / "m").exists()


def test_a_text_shorter_than_a_window_is_learnt_all_the_same(tmp_path, capsys):
    (tmp_path / "text").write_text("abcabc")
    arguments = ("--hidden", 3, "--epochs", 1, "--batch", 1, "--bptt", 64)
    assert run(capsys, "train", tmp_path / "text", "-o", tmp_path / "m", *arguments)[0] == 0


def test_train_looks_for_its_files_before_it_starts(tmp_path, text_file, capsys):
    assert "nowhere" in fails(capsys, "train", tmp_path / "nowhere", "-o", tmp_path / "m")
    err = fails(capsys, "train", text_file, "-o", tmp_path / "nowhere" / "m")
    assert "--output: expected a folder that exists" in err


# ---- sample, eval, info, demo ----------------------------------------------------------------------------------


def test_sample_writes_what_generate_does(model_file, capsys):
    model = crnn.load(model_file)
    status, out, err = run(capsys, "sample", model_file, "--prompt", "hello", "--length", 50, "--seed", 3)
    assert (status, err) == (0, "")
    assert out == "hello" + model.generate("hello", 50, seed=3) + "\n"
    options = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "stop": "o", "seed": 3}
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run(capsys, "sample", model_file, "--length", 50, *arguments)[1] == model.generate("", 50, **options) + "\n"
    assert len(run(capsys, "sample", model_file)[1]) == 501


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "hex"], "char 'x' at position 2 is not in the vocabulary"),
        (["--temperature", "-1"], "--temperature: expected"),
        (["--top-p", "2"], "--top-p: expected"),
        (["--length", "-1"], "--length: expected"),
        (["--seed", "-1"], "--seed: expected"),
    ],
)
def test_sample_says_what_is_wrong(model_file, capsys, options, message):
    assert message in fails(capsys, "sample", model_file, *options)


@pytest.mark.parametrize("verb", ["sample", "eval", "score", "info"])
def test_a_file_that_is_no_model_is_named(tmp_path, text_file, capsys, verb):
    extra = [text_file] if verb == "eval" else []
    err = fails(capsys, verb, text_file, *extra)
    assert str(text_file) in err
    assert "nowhere" in fails(capsys, verb, tmp_path / "nowhere", *extra)


def test_eval_prints_what_evaluate_says(tmp_path, model_file, capsys):
    content = "hello, hello new world!\n" * 5
    (tmp_path / "text").write_text(content, newline="")
    model = crnn.load(model_file)
    for batch in (1, 3):
        result = model.evaluate(content, batch_size=batch)
        status, out, err = run(capsys, "eval", model_file, tmp_path / "text", "--batch", batch)
        assert (status, err) == (0, "")
        assert out == (
            f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
            f"accuracy {result.accuracy:.4f}  chars 119\n"
        )
    (tmp_path / "text").write_text("hello?")
    assert "char '?' at position 5" in fails(capsys, "eval", model_file, tmp_path / "text")
    (tmp_path / "text").write_text("h")
    assert "at least 2 tokens" in fails(capsys, "eval", model_file, tmp_path / "text")


def test_info_tells_what_the_file_holds(model_file, capsys):
    status, out, err = run(capsys, "info", model_file)
    assert (status, err) == (0, "")
    assert f"{model_file.stat().st_size:,} bytes" in out
    model = crnn.load(model_file)
    for part in (repr(model), "Vocab(12 chars)", "  W_hy         float32 (19, 12)", "  cell                     tanh"):
        assert part in out
    assert all(name in out for name in model.params)


def test_demo_learns_shows_it_and_writes(tmp_path, capsys, monkeypatch):
    import crnn._demo

    prose = text(3000)
    monkeypatch.setattr(crnn._demo, "documentation_prose", lambda: "The " + prose)
    arguments = ("--hidden", 9, "--epochs", 2, "--length", 30, "--threads", 2)
    status, out, err = run(capsys, "demo", *arguments, "-o", tmp_path / "m")
    assert status == 0
    assert out.startswith("The ")
    assert len(out) == 4 + 30 + 1
    losses = [float(found) for found in re.findall(r": train (\d+\.\d+) nats", err)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert "3,004 characters of Python's own documentation" in err
    assert run(capsys, "demo", *arguments)[1] == out  # the same for everybody
    assert crnn.load(tmp_path / "m").net.hidden_size == 9


def test_the_documentation_is_prose():
    prose = crnn._demo.documentation_prose()
    assert len(prose) > 100_000
    assert prose.isascii()
    lines = prose.splitlines()
    assert len(set(lines)) == len(lines)
    assert all(len(line) > 60 and line[0].isupper() for line in lines)


def test_the_command_line_explains_itself(capsys):
    for arguments in (["--help"], ["train", "--help"], ["score", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
        assert capsys.readouterr().out
    for arguments in ([], ["fly"], ["train"], ["train", "x"], ["sample", "m", "--length", "long"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert "usage: crnn" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["sample", "score", "info"])
def test_ctrl_c_outside_of_training_is_quiet(model_file, capsys, monkeypatch, verb):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(crnn, "load", interrupted)
    assert run(capsys, verb, model_file) == (130, "", "")


# ---- as a program ----------------------------------------------------------------------------------------------


def test_the_program_exits_with_its_status(tmp_path, model_file):
    done = subprocess.run(
        crnn_command("info", model_file), env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        crnn_command("info", tmp_path / "no"), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("crnn info: ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a child there")
def test_ctrl_c_saves_the_model_and_exits_with_130(tmp_path, text_file):
    output = tmp_path / "m"
    command = crnn_command(
        "train", text_file, "-o", output, *TINY, "--epochs", 100_000, "--log", tmp_path / "log.jsonl"
    )
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "m.checkpoint"
    waited = time.monotonic()
    while not checkpoint.exists() and time.monotonic() - waited < 60:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: keeping the best weights so far" in err
    assert "Traceback" not in err
    assert crnn.load(output).net.hidden_size == 9
    assert checkpoint.exists()
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    best = min(entry["valid_loss"] for entry in entries if "valid_loss" in entry)
    corpus = crnn.TextCorpus.from_file(text_file)
    assert crnn.load(output).evaluate(corpus.valid, batch_size=4).nats == best


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
def test_a_reader_that_has_seen_enough_is_no_error(model_file):
    process = subprocess.Popen(
        crnn_command("sample", model_file, "--length", 10**9),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert err == b""


# ---- score -----------------------------------------------------------------------------------------------------


def score(capsysbinary, monkeypatch, model_file, lines, *options):
    class Stdin:
        buffer = io.BytesIO(lines)

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert cli.main(["score", str(model_file), *options]) == 0
    return [line.split("\t", 1) for line in capsysbinary.readouterr().out.decode("utf-8", "replace").splitlines()]


def test_score_gives_bits_per_token_of_each_line_between_newlines(capsysbinary, monkeypatch, model_file):
    rows = score(capsysbinary, monkeypatch, model_file, b"hello\nnew world\r\n\nhello")
    model = crnn.load(model_file)
    assert [line for _, line in rows] == ["hello", "new world", "", "hello"]
    for bits, line in rows:
        [nats] = model.score([line + "\n"], prompt="\n")
        assert float(bits) == pytest.approx(nats / math.log(2), abs=6e-5)
    assert rows[0][0] == rows[3][0]  # each line separately


def test_score_can_carry_the_state_from_line_to_line(capsysbinary, monkeypatch, model_file):
    lines = ["hello", "new", "hello", "world"]
    rows = score(capsysbinary, monkeypatch, model_file, "".join(line + "\n" for line in lines).encode(), "--carry")
    model, state = crnn.load(model_file), None
    for (bits, _), line in zip(rows, lines, strict=True):
        ids = model.vocab.encode("\n" + line + "\n")
        losses, state = model.losses(ids[:-1, None], ids[1:, None], state)
        assert float(bits) == pytest.approx(losses.mean() / math.log(2), abs=6e-5)
    assert rows[0][0] != rows[2][0]


def test_score_of_the_unknown_is_infinite_and_does_not_disturb_the_next(capsysbinary, monkeypatch, model_file):
    for options in ([], ["--carry"]):
        plain = score(capsysbinary, monkeypatch, model_file, b"hello\nnew\n", *options)
        rows = score(capsysbinary, monkeypatch, model_file, b"hello\nHELLO\n\xff\xfe\nnew\n", *options)
        assert [rows[0], rows[3]] == plain
        assert rows[1] == ["inf", "HELLO"]
        assert rows[2] == ["inf", "\ufffd\ufffd"]


def test_score_where_there_is_no_newline_in_the_vocabulary(capsysbinary, monkeypatch, tmp_path):
    model = language_model("helo")
    model.save(tmp_path / "m")
    rows = score(capsysbinary, monkeypatch, tmp_path / "m", b"hello\nh\n\n")
    [nats] = model.score(["hello"])
    assert float(rows[0][0]) == pytest.approx(nats / math.log(2), abs=6e-5)
    assert [bits for bits, _ in rows[1:]] == ["nan", "nan"]


@pytest.mark.parametrize("unit", ["byte", "word"])
def test_score_of_bytes_and_words(capsysbinary, monkeypatch, tmp_path, unit):
    model = language_model("the cat sat on the mat\n", unit=unit)
    model.save(tmp_path / "m")
    rows = score(capsysbinary, monkeypatch, tmp_path / "m", "the dog\ncat é\n".encode())
    assert [line for _, line in rows] == ["the dog", "cat é"]
    for bits, line in rows:
        [nats] = model.score([line + "\n"], prompt="\n")
        assert float(bits) == pytest.approx(nats / math.log(2), abs=6e-5)


def test_score_answers_each_line_before_the_next_is_sent(model_file):
    process = subprocess.Popen(
        crnn_command("score", model_file), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    impatience = threading.Timer(60, process.kill)  # a line that waits for others waits indefinitely
    impatience.start()
    answers = []
    for line in (b"hello\n", b"new\n", b"hello\n"):
        process.stdin.write(line)
        process.stdin.flush()
        answers.append(process.stdout.readline())
    impatience.cancel()
    process.stdin.close()
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.wait(60) == 0
    assert [answer.split(b"\t")[1].strip() for answer in answers] == [b"hello", b"new", b"hello"]
    assert answers[0] == answers[2] != answers[1]
