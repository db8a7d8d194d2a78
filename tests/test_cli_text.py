# SPDX-License-Identifier: MIT
"""Text on the command line: bytes in and the same bytes out, encodings, line ends, pipes, escapes, several files."""

import argparse
import codecs
import gzip
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tools import crnn_command, environment, language_model

import crnn
from crnn import cli
from crnn.cli.lines import LineReader
from crnn.cli.score import score_lines
from crnn.cli.sizes import available_memory, memory_for_training, readable
from crnn.cli.typed import escaped, typed_bytes, typed_text

pytestmark = pytest.mark.thread_unsafe  # standard input and output are the process's

TINY = ["--hidden", "9", "--epochs", "1", "--batch", "4", "--bptt", "8", "-q", "--threads", "1"]


def program(*arguments, stdin=b"", **variables):
    """Exit status, standard output and standard error of the program, in bytes."""
    done = subprocess.run(
        crnn_command(*arguments), input=stdin, env=environment() | variables, capture_output=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """As `program`, in this process: faster."""

    def run_here(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsysbinary.readouterr()

    return run_here


def saved(path, text, **options):
    model = language_model(text, H=19, **options)
    model.flat_params[...] *= 3
    model.save(path)
    return model


def with_encoding(path, text, encoding, unit="char"):
    model = crnn.LanguageModel(crnn.Vocab(crnn.Vocab.from_text(text, unit).tokens, unit, encoding), hidden_size=9)
    model.save(path)
    return model


def scores(out):
    return [float(line.split(b"\t")[0]) for line in out.splitlines()]


# ---- score: line ends and encodings ----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_eval_and_score_agree_on_a_file(tmp_path, run, unit, end):
    lines = ["hello new world", "", "new new hello", "world"] * 3
    content = "".join(line + end for line in lines).encode()
    (tmp_path / "text").write_bytes(content)
    model = saved(tmp_path / "m", content.decode(), unit=unit)
    status, out, err = run("score", tmp_path / "m", "--carry", "--json", "--tokens", stdin=content)
    assert (status, err) == (0, b"")
    bits = [token["bits"] for line in out.splitlines() for token in json.loads(line)["tokens"]]
    bits = bits[1:]  # evaluate has nothing to predict the first token from; score has a line end
    evaluated = model.evaluate(content if unit == "byte" else content.decode())
    assert len(bits) == evaluated.count
    with_context = model.evaluate(end.encode() + content if unit == "byte" else end + content.decode())
    context_tokens = len(model.vocab.encode(end))
    all_bits = sum(json.loads(line)["bits"] * json.loads(line)["count"] for line in out.splitlines())
    within = model.evaluate(end).bits if context_tokens > 1 else 0.0
    assert all_bits == pytest.approx(with_context.bits * with_context.count - within, abs=0.02)


@pytest.mark.parametrize(
    ("vocabulary", "line", "scored", "context"),
    [
        ("hello\r\n", b"hello\r\n", "hello\r\n", "\r\n"),
        ("hello\r\n", b"hello\n", "hello\n", "\n"),
        ("hello\n", b"hello\r\n", "hello\n", "\n"),
        ("hello\n", b"hello\n", "hello\n", "\n"),
        ("hello\n", b"hello", "hello\n", "\n"),
        ("hel o\n\v\f\u2028", "hel\vl\fo\u2028h\n".encode(), "hel\vl\fo\u2028h\n", "\n"),
    ],
)
def test_a_line_is_scored_with_the_line_end_that_was_read_if_the_vocabulary_has_it(
    tmp_path, run, vocabulary, line, scored, context
):
    model = saved(tmp_path / "m", vocabulary)
    [nats] = model.score([scored], prompt=context)
    status, out, _ = run("score", tmp_path / "m", stdin=line)
    assert status == 0
    assert scores(out)[0] == pytest.approx(nats / math.log(2), abs=6e-5)
    assert out.split(b"\t", 1)[1] == line if line.endswith(b"\n") else line + b"\n"


def test_the_last_line_is_scored_as_if_it_had_the_line_end_of_the_others(tmp_path, run):
    saved(tmp_path / "m", "hello\r\n")
    first, last = scores(run("score", tmp_path / "m", stdin=b"hello\r\nhello")[1])
    assert first == last


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-be", "utf-32", "cp037", "shift_jis", "utf-8-sig"])
def test_a_model_remembers_its_encoding(tmp_path, run, encoding):
    text = ("日本 text\n" if encoding == "shift_jis" else "né pas\n") * 20
    (tmp_path / "text").write_bytes(text.encode(encoding))
    status, _, err = run("train", tmp_path / "text", "-o", tmp_path / "m", *TINY, "--encoding", encoding)
    assert status == 0, err
    model = crnn.load(tmp_path / "m")
    assert codecs.lookup(model.vocab.encoding) == codecs.lookup(encoding)
    [nats] = model.score([text[: text.index("\n") + 1]], prompt="\n")
    status, out, err = run("score", tmp_path / "m", "--json", stdin=text.encode(encoding))
    assert (status, err) == (0, b"")
    assert [json.loads(line)["bits"] for line in out.splitlines()] == pytest.approx([nats / math.log(2)] * 20, abs=1e-3)
    plain = run("score", tmp_path / "m", stdin=text.encode(encoding))[1]
    assert [line.split("\t")[1] for line in plain.decode(encoding).splitlines()] == text.splitlines()
    status, out, _ = run("eval", tmp_path / "m", tmp_path / "text")
    assert status == 0
    assert f"chars {len(text) - 1}" in out.decode()
    status, out, _ = run("sample", tmp_path / "m", "--seed", 1, "--length", 30, "--prompt", text[:2])
    assert out == (text[:2] + model.generate(text[:2], 30, seed=1) + "\n").encode(encoding)
    out = run("sample", tmp_path / "m", "--seed", 1, "--length", 30, "--encoding", "utf-8")[1]
    assert out.decode("utf-8") == model.generate("", 30, seed=1) + "\n"


def test_training_that_starts_from_a_model_reads_its_encoding(tmp_path, run):
    with_encoding(tmp_path / "m", "né pas\n", "latin-1")
    (tmp_path / "text").write_bytes("né pas\n".encode("latin-1") * 20)
    arguments = [part for part in TINY if part not in ("--hidden", "9")]
    status, _, err = run("train", tmp_path / "text", "-o", tmp_path / "n", "--init-from", tmp_path / "m", *arguments)
    assert status == 0, err
    assert crnn.load(tmp_path / "n").vocab.encoding == "iso8859-1"


def test_another_encoding_can_be_given_to_score(tmp_path, run):
    with_encoding(tmp_path / "m", "né\n", "latin-1")
    one = run("score", tmp_path / "m", stdin="né\n".encode("latin-1"))[1]
    two = run("score", tmp_path / "m", "--encoding", "utf-8", stdin="né\n".encode())[1]
    assert scores(one) == scores(two)


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("verb", ["train", "eval", "score", "sample"])
def test_an_encoding_that_is_none_names_the_flag(tmp_path, run, verb, unit):
    saved(tmp_path / "m", "hello\n", unit=unit)
    (tmp_path / "text").write_text("hello\n" * 30)
    rest = {"train": [tmp_path / "text", "-o", tmp_path / "new"], "eval": [tmp_path / "m", tmp_path / "text"]}
    status, out, err = run(verb, *rest.get(verb, [tmp_path / "m"]), "--encoding", "klingon")
    assert (status, out) == (1, b"")
    assert f"crnn {verb}: --encoding: expected a text encoding that Python knows, got 'klingon'" in err.decode()


# ---- score: what no line may do --------------------------------------------------------------------------------


@pytest.mark.parametrize("io_encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_bytes_come_out_as_they_went_in_and_no_line_ends_the_loop(tmp_path, io_encoding, unit):
    saved(tmp_path / "m", "hello new world\n", unit=unit)
    lines = [b"hello", b"\x81\x8d\xff", b"", "日\u2028x".encode(), b"nul \0 in it\r", b"\xed\xa0\x80", b"\r", b"world"]
    content = b"\n".join(lines) + b"\n"
    status, out, err = program("score", tmp_path / "m", stdin=content, PYTHONIOENCODING=io_encoding)
    assert status == 0
    assert b"Traceback" not in err
    assert b"".join(line.split(b"\t", 1)[1] + b"\n" for line in out.split(b"\n")[:-1]) == content
    rows = [line.split(b"\t", 1) for line in out.split(b"\n")[:-1]]
    if unit == "char":
        assert [row[0] for row in rows[1:6]] == [b"inf", rows[2][0], b"inf", b"inf", b"inf"]
        assert b"crnn score: line 2: not utf-8 text at byte 0 (invalid start byte)\n" in err
        assert re.search(rb"line 4: char '.*' at position 0 is not in the vocabulary \(U\+65E5\)\n", err)
    else:
        assert all(math.isfinite(float(row[0])) for row in rows)


def test_only_the_first_lines_without_a_score_are_reported(tmp_path, run):
    saved(tmp_path / "m", "hello\n")
    status, out, err = run("score", tmp_path / "m", stdin=b"HELLO\n" * 100)
    assert status == 0
    assert out == b"inf\tHELLO\n" * 100
    assert len(err.splitlines()) == 6
    assert err.endswith(b"line 5: char 'H' at position 0 is not in the vocabulary (U+0048)\n"
                        b"crnn score: and so on\n")


def test_an_unknown_word_costs_unk_and_its_spelling(tmp_path, run):
    text = "the cat sat\n" * 30 + "rare"
    corpus = crnn.TextCorpus.from_text(text, "word", min_count=2)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=9)
    model.save(tmp_path / "m")
    lines = "the bïrd sat\nthe <unk> sat\nthe cat sat\n".encode()
    out = run("score", tmp_path / "m", "--json", "--tokens", stdin=lines)[1]
    line, literal, known = map(json.loads, out.splitlines())
    assert (line["unknown"], literal["unknown"], known["unknown"]) == (1, 0, 0)
    assert [token["token"] for token in line["tokens"]] == ["the", "bïrd", "sat", "<eos>"]
    plain = model.stream().feed("\n").surprisal("the bird sat\n") / math.log(2)
    assert line["tokens"][1]["bits"] == pytest.approx(plain[1] + 8 * (5 + 1), abs=1e-3)  # 5 bytes and an end
    assert line["bits"] == pytest.approx(plain.mean() + 48 / 4, abs=1e-3)
    assert literal["bits"] == pytest.approx(plain.mean(), abs=1e-3)
    assert line["bits"] > known["bits"] + 5


def test_an_unknown_character_costs_unk_and_its_bytes_also_without_a_newline(tmp_path, run):
    model = crnn.LanguageModel(crnn.Vocab.from_text("ab", unknown=True), hidden_size=9)
    model.save(tmp_path / "m")
    [line] = map(json.loads, run("score", tmp_path / "m", "--json", "--tokens", stdin="aéb\n".encode())[1].splitlines())
    plain = model.stream().feed("a").surprisal("éb") / math.log(2)
    bits = [token["bits"] for token in line["tokens"]]
    assert bits[0] is None
    assert bits[1:] == pytest.approx(plain + np.array([16, 0]), abs=1e-3)
    assert (line["count"], line["unknown"]) == (2, 1)


def test_score_shows_tokens_as_rows(tmp_path, run):
    model = saved(tmp_path / "m", "a\tb\\\n")
    out = run("score", tmp_path / "m", "--tokens", stdin=b"a\t\\b\nx\ty\n\n")[1].decode()
    rows = [line.split("\t") for line in out.splitlines()]
    assert [(row[0], row[2]) for row in rows] == [
        ("1", "a"), ("1", "\\t"), ("1", "\\\\"), ("1", "b"), ("1", "\\n"), ("2", "x\\ty"), ("3", "\\n")
    ]  # fmt: skip
    nats = model.stream().feed("\n").surprisal("a\t\\b\n")
    np.testing.assert_allclose([float(row[1]) for row in rows[:5]], nats / math.log(2), atol=1e-4)
    assert rows[5][1] == "inf"


def test_score_json_of_bytes_and_of_what_has_no_score(tmp_path, run):
    saved(tmp_path / "m", "ab", unit="byte")
    [line] = map(json.loads, run("score", tmp_path / "m", "--json", "--tokens", stdin=b"a\xff\n")[1].splitlines())
    assert line["text"] == "a\ufffd"
    assert [token["token"] for token in line["tokens"]] == ["a", "\\xff", "\\n"]
    saved(tmp_path / "m", "ab")
    a, b, empty = map(json.loads, run("score", tmp_path / "m", "--json", stdin=b"ab\naX\n\n")[1].splitlines())
    assert (a["count"], b["bits"], empty["bits"], empty["count"]) == (1, None, None, 0)
    assert b["error"].startswith("char 'X' at position 1 is not in the vocabulary (U+0058")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32-le", "cp037"])
def test_lines_come_whole_however_they_arrive(encoding):
    text = "one\n\n\u0a00two\u000a\u010a\n" if encoding != "cp037" else "one\n\ntwo\n"
    content = (text + "last").encode(encoding)

    class Dribble(io.BytesIO):
        def read1(self, size=-1):
            return self.read(1)

    for file in (io.BytesIO(content), Dribble(content)):
        reader = LineReader(file, encoding)
        lines = list(reader)
        assert reader.mark + b"".join(lines) == content
        assert [reader.decode(line) for line in lines] == [*re.findall(".*\n", text), "last"]
    assert list(LineReader(io.BytesIO(b""), encoding)) == []


# ---- sample ----------------------------------------------------------------------------------------------------


def test_escapes_are_understood_as_they_are_typed():
    assert typed_text("prompt", r"a\nb\tc\\n\d\x41\u00e9", "utf-8") == "a\nb\tc\\n\\dA\u00e9"
    assert typed_text("prompt", r"\xc3\xa9", "utf-8") == "é"
    assert typed_text("prompt", r"\xe9", "latin-1") == "é"
    assert typed_text("prompt", "caf\udce9", "latin-1") == "café"  # a byte that the locale cannot decode
    with pytest.raises(ValueError, match=r"prompt: expected utf-8 text, got the bytes b'\\xc3'"):
        typed_text("prompt", r"caf\xc3", "utf-8")
    assert typed_bytes("caf\udcc3\\xa9é\\0") == b"caf\xc3\xa9\xc3\xa9\0"
    for text in ("plain", "a\tb\n\\", "\x07\x7f", "é\u2028\U0001f600", "\\n"):
        assert typed_text("x", escaped(text), "utf-8") == text
    for raw in (bytes(range(256)), b"\\x41"):
        assert typed_bytes(escaped(raw)) == raw


def test_words_to_stop_at_and_to_ban_are_read_as_typed(tmp_path, run):
    (tmp_path / "text").write_text("ab cd\nef\n" * 50)
    assert run("train", tmp_path / "text", "-o", tmp_path / "m", "--unit", "word", *TINY)[0] == 0
    out = run("sample", tmp_path / "m", "--length", 60, "--seed", 1, "--ban", r"\n")[1].decode()
    assert out.count("\n") == 1
    status, _, err = run("sample", tmp_path / "m", "--length", 9, "--stop", "b cx")
    assert (status, err) == (0, b"--stop: never generated, because the vocabulary has no 'cx'\n")
    status, out, err = run("sample", tmp_path / "m", "--length", 60, "--seed", 1, "--stop", "b c")
    assert (status, err) == (0, b"")
    assert out.endswith(b"a\n")


def test_prompt_stop_and_ban_are_read_as_typed(tmp_path, run):
    model = saved(tmp_path / "m", "ab\tc\n")
    status, out, _ = run("sample", tmp_path / "m", "--prompt", r"a\tb\n", "--length", 40, "--seed", 1)
    assert (status, out.decode()) == (0, "a\tb\n" + model.generate("a\tb\n", 40, seed=1) + "\n")
    options = ["--length", 40, "--seed", 3]
    out = run("sample", tmp_path / "m", *options, "--stop", r"\n")[1]
    assert out.decode() == model.generate("", 40, seed=3).split("\n")[0] + "\n"
    out = run("sample", tmp_path / "m", *options, "--ban", r"\n", "--ban", "a")[1].decode()
    assert out == model.generate("", 40, seed=3, ban=["\n", "a"]) + "\n"
    assert not set(out[:-1]) & set("a\n")
    status, _, err = run("sample", tmp_path / "m", *options, "--stop", r"x\r")
    assert status == 0
    assert err == b"--stop: never generated, because the vocabulary has no 'x'\n"
    status, _, err = run("sample", tmp_path / "m", "--stop", "a", "--stop", "b")
    assert (status, err) == (1, b"crnn sample: --stop: expected one text, got 2\n")
    status, _, err = run("sample", tmp_path / "m", "--ban", "zz")
    assert (status, err) == (1, b"crnn sample: --ban: expected tokens of the vocabulary, got 'zz'\n")
    status, _, err = run("sample", tmp_path / "m", "--prompt", "a\n\u00e9")
    message = "crnn sample: --prompt: char 'é' at position 2 is not in the vocabulary (U+00E9, line 2)\n"
    assert (status, err.decode()) == (1, message)


def test_a_model_of_bytes_writes_bytes_after_half_a_character(tmp_path):
    model = saved(tmp_path / "m", "ab", unit="byte")
    expected = b"caf\xc3" + b"".join(model.iter_generate_bytes(b"caf\xc3", 50, seed=1)) + b"\n"
    for prompt in (b"caf\xc3", rb"caf\xc3"):
        command = [os.fsencode(part) for part in crnn_command("sample", tmp_path / "m", "--length", 50, "--seed", 1)]
        variables = environment() | {"PYTHONIOENCODING": "ascii"}
        done = subprocess.run([*command, b"--prompt", prompt], env=variables, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == expected
    with pytest.raises(UnicodeDecodeError):
        expected.decode()


def test_a_model_without_a_newline_has_a_start(tmp_path, run):
    for unit in ("char", "word"):
        model = saved(tmp_path / "m", "ab ba ab", unit=unit)
        status, out, err = run("sample", tmp_path / "m", "--length", 9, "--seed", 1)
        assert (status, err) == (0, b"")
        assert out.decode() == model.generate("", 9, seed=1) + "\n"


def test_several_samples_are_separated_and_each_is_that_of_its_seed(tmp_path, run):
    model = saved(tmp_path / "m", "hello\n")
    out = run("sample", tmp_path / "m", "-n", 3, "--length", 20, "--seed", 5, "--prompt", "he")[1].decode()
    assert out == "---\n".join("he" + model.generate("he", 20, seed=seed) + "\n" for seed in (5, 6, 7))
    out = run("sample", tmp_path / "m", "-n", 2, "--temperature", 9, "--separator", r"\t|\n")[1].decode()
    assert len(out.split("\t|\n")) == 2
    first, second = out.split("\t|\n")
    assert first != second  # without a seed, every text has its own
    status, _, err = run("sample", tmp_path / "m", "-n", 0)
    assert (status, err) == (1, b"crnn sample: --samples: expected an integer of at least 1, got 0\n")


def test_unknown_is_not_sampled_unless_allowed(tmp_path, run):
    model = saved(tmp_path / "m", "the cat\n", unit="word")
    model.params["b_y"][0] = 50
    model.save(tmp_path / "m")
    assert b"<unk>" not in run("sample", tmp_path / "m", "--length", 50)[1]
    assert b"<unk>" in run("sample", tmp_path / "m", "--length", 50, "--allow-unknown")[1]


# ---- train and eval: files, folders, pipes ---------------------------------------------------------------------

TEXT = b"to be or not to be, that is the question\n" * 20


@pytest.mark.skipif(sys.platform == "win32", reason="needs /dev/stdin and bash")
@pytest.mark.parametrize(
    "shell",
    [
        "cat {text} | {crnn} train - -o {out}",
        "cat {text} | {crnn} train /dev/stdin -o {out}",
        "{crnn} train - -o {out} < {text}",
        "{crnn} train {text}.gz -o {out}",
        "cat {text}.gz | {crnn} train - -o {out}",
        "{crnn} train <(zcat {text}.gz) -o {out}",
        "{crnn} train {folder} -o {out}",
    ],
)
def test_a_text_may_come_from_anywhere(tmp_path, shell):
    text, folder = tmp_path / "text", tmp_path / "folder"
    folder.mkdir()
    text.write_bytes(TEXT)
    (tmp_path / "text.gz").write_bytes(gzip.compress(TEXT))
    (folder / "text").write_bytes(TEXT)
    names = {"crnn": " ".join(crnn_command()), "text": text, "folder": folder, "out": tmp_path / "m"}
    command = " ".join([shell.format(**names), *TINY])
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert cli.main(["train", str(text), "-o", str(tmp_path / "plain"), *TINY]) == 0
    assert (tmp_path / "m").read_bytes() == (tmp_path / "plain").read_bytes()


def test_eval_reads_pipes_and_several_files(tmp_path, run):
    model = saved(tmp_path / "m", TEXT.decode())
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT[:-1]))
    expected = model.evaluate(TEXT.decode() + TEXT.decode())
    status, out, _ = run("eval", tmp_path / "m", tmp_path / "a.gz", "-", stdin=TEXT)
    assert status == 0
    assert out.decode().startswith(f"nats {expected.nats:.4f}")
    assert f"chars {expected.count}\n" in out.decode()
    status, _, err = run("eval", tmp_path / "m", "-", "-", stdin=TEXT)
    assert (status, err) == (1, b"crnn eval: text: expected - (standard input) at most once\n")


def test_errors_in_the_shell_name_options_and_the_document(tmp_path, run):
    (tmp_path / "a").write_bytes(TEXT)
    (tmp_path / "b").write_bytes(b"caf\n\xe9\n")
    status, _, err = run("train", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "m", *TINY)
    assert status == 1
    assert err.decode() == (
        f"crnn train: {tmp_path}/b: not utf-8 text at byte 4 (invalid continuation byte, line 2); "
        "name its encoding with --encoding, or read any file with --unit byte\n"
    )
    status, _, err = run("train", tmp_path / "a", "-o", tmp_path / "m", *TINY, "--max-vocab", 5)
    assert status == 1
    assert err.decode().endswith("; replace unknown chars by <unk> with --unknown\n")
    assert "(U+" in err.decode()
    saved(tmp_path / "m", "hello\n")
    status, _, err = run("eval", tmp_path / "m", tmp_path / "b")
    assert err.decode().endswith("line 2); name its encoding with --encoding\n")
    (tmp_path / "mark").write_bytes(b"\xef\xbb\xbf" + TEXT)
    status, _, err = run("train", tmp_path / "mark", "-o", tmp_path / "new", *TINY)
    assert status == 0
    assert "byte order mark, which is learnt as a character; --encoding utf-8-sig removes it" in err.decode()
    status, _, err = run("train", tmp_path / "nowhere", "-o", tmp_path / "other", *TINY)
    assert (status, err.decode()) == (1, f"crnn train: {tmp_path}/nowhere: No such file or directory\n")


def test_what_a_model_does_not_know_is_told(tmp_path, run):
    saved(tmp_path / "m", "the cat sat\n", unit="word")
    (tmp_path / "text").write_text("the dog sat\nthe cat ran\n")
    status, _, err = run("eval", tmp_path / "m", tmp_path / "text")
    assert (status, err) == (0, b"2 of 8 words are not in the vocabulary and count as <unk>\n")
    status, _, err = run("sample", tmp_path / "m", "--prompt", "the dog ran", "--length", 3)
    assert (status, err) == (0, b"--prompt: 2 words are not in the vocabulary, read as <unk>\n")
    with_encoding(tmp_path / "m", "abc\n", "latin-1")
    shown = run("info", tmp_path / "m")[1].decode()
    assert re.search(r"^  encoding +iso8859-1$", shown, re.MULTILINE)
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfabc\n")
    err = run("eval", tmp_path / "m", tmp_path / "text", "--encoding", "utf-8")[2].decode()
    assert "(U+FEFF, line 1); remove the byte order mark with --encoding utf-8-sig\n" in err
    assert run("eval", tmp_path / "m", tmp_path / "text", "--encoding", "utf-8-sig")[0] == 0
    (tmp_path / "text").write_bytes(b"abc\r\n")
    assert "(U+000D, line 1, a carriage return, which" in run("eval", tmp_path / "m", tmp_path / "text")[2].decode()


# ---- standard streams ------------------------------------------------------------------------------------------


def in_shell(command, tmp_path, *, check=True):
    """Exit status, output and errors of a shell command, in which `crnn` is the program."""
    script = f'crnn() {{ {" ".join(crnn_command())} "$@"; }}; cd {tmp_path}; {command}'
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, check=False, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")


@posix
@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("crnn score m <&-", 1, "crnn score: standard input: expected a file or pipe, got a closed one\n"),
        ("echo a | crnn score m >&-", 1, "crnn score: standard output: expected a file or pipe, got a closed one\n"),
        ("crnn sample m >&-", 1, "crnn sample: standard output: expected a file or pipe, got a closed one\n"),
        ("crnn eval m text >&-", 1, "crnn eval: standard output: expected a file or pipe, got a closed one\n"),
        ("crnn info m >&-", 1, "crnn info: standard output: expected a file or pipe, got a closed one\n"),
        ("crnn eval m - <&-", 1, "crnn eval: standard input: expected a file or pipe, got a closed one\n"),
        ("echo a | crnn score m >/dev/full", 1, "crnn score: standard output: No space left on device\n"),
        ("crnn sample m >/dev/full", 1, "crnn sample: standard output: No space left on device\n"),
        ("crnn info m >/dev/full", 1, "crnn info: standard output: No space left on device\n"),
        ("crnn --help >/dev/full", 1, "crnn: standard output: No space left on device\n"),
        ("yes | crnn score m | head -1 >/dev/null; exit ${PIPESTATUS[1]}", 0, ""),
        ("crnn sample m 2>&- >/dev/null", 0, ""),
        ("crnn sample nowhere 2>&-", 1, ""),
        ("crnn sample nowhere 2>/dev/full", 1, ""),
    ],
)
def test_a_standard_stream_that_cannot_be_used_is_one_line_and_a_status(tmp_path, command, status, message):
    if "/dev/full" in command and not os.path.exists("/dev/full"):
        pytest.skip("needs a device that is always full")
    saved(tmp_path / "m", "y hello\n")
    (tmp_path / "text").write_text("hello\n" * 9)
    assert in_shell(command, tmp_path) == (status, "", message)


@posix
def test_training_with_closed_streams_writes_a_good_model(tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    status, out, _ = in_shell(f"crnn train text -o m {' '.join(TINY)} <&- >&- 2>&-", tmp_path)
    assert (status, out) == (0, "")
    assert crnn.load(tmp_path / "m").net.hidden_size == 9


@posix
def test_training_goes_on_when_nobody_reads_its_messages_any_more(tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    arguments = " ".join(part for part in TINY if part != "-q")
    command = f"crnn train text -o m {arguments} --epochs 30 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"
    assert in_shell(command, tmp_path)[0] == 0
    assert crnn.load(tmp_path / "m").net.hidden_size == 9


@posix
@pytest.mark.parametrize("verb", ["sample", "score"])
def test_ctrl_c_ends_sample_and_score_quietly_with_what_was_written(tmp_path, verb):
    saved(tmp_path / "m", "hello\n")
    arguments = ["--length", 10**9] if verb == "sample" else []
    process = subprocess.Popen(
        crnn_command(verb, tmp_path / "m", *arguments),
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if verb == "score":
        process.stdin.write(b"hello\n")
        process.stdin.flush()
    assert process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (130, b"")


@posix
def test_score_waits_for_input_in_non_blocking_mode(tmp_path):
    saved(tmp_path / "m", "hello\n")
    read, write = os.pipe()
    os.set_blocking(read, False)
    process = subprocess.Popen(
        crnn_command("score", tmp_path / "m"), env=environment(), stdin=read, stdout=subprocess.PIPE
    )
    os.close(read)
    os.write(write, b"hello\n")
    assert process.stdout.readline().endswith(b"\thello\n")
    time.sleep(0.1)
    os.write(write, b"he\n")
    os.close(write)
    assert process.stdout.read().endswith(b"\the\n")
    process.stdout.close()
    assert process.wait(60) == 0


def test_results_are_shown_where_standard_output_takes_only_text(tmp_path, monkeypatch):
    model = saved(tmp_path / "m", "hé\n")
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["sample", str(tmp_path / "m"), "--seed", "1", "--length", "20"]) == 0
    assert out.getvalue() == model.generate("", 20, seed=1) + "\n"
    assert cli.main(["info", str(tmp_path / "m")]) == 0
    assert "hidden_size" in out.getvalue()


# ---- sizes -----------------------------------------------------------------------------------------------------


def test_sizes_are_said_before_the_model_is_made(tmp_path, run, monkeypatch):
    (tmp_path / "text").write_bytes(TEXT)
    words = crnn.TextCorpus.from_file(tmp_path / "text", "word").vocab
    count = crnn.LanguageModel(words, hidden_size=9).flat_params.size
    monkeypatch.setattr(crnn.LanguageModel, "__init__", lambda *_, **__: pytest.fail("made before it was checked"))
    monkeypatch.setattr("crnn.cli.sizes.available_memory", lambda: 5_000)
    command = ["train", tmp_path / "text", "-o", tmp_path / "m", *TINY, "--unit", "word"]
    status, _, err = run(*command)
    assert status == 1
    sizes, refusal = err.decode().splitlines()
    assert f"198 words to learn from, 11 different; cell lstm, {count} parameters, about " in sizes
    assert refusal.startswith(f"crnn train: the model is too large: 11 words make {count} parameters, and training")
    ways = "smaller with a lower --max-vocab, a higher --min-count, or a lower --hidden, --embedding or --batch"
    assert refusal.endswith(ways)


def test_the_memory_of_a_large_vocabulary_has_a_block_of_outputs_only():
    arguments = argparse.Namespace(optimizer="sgd", batch_size=64, bptt=64)
    vocab = crnn.Vocab([f"w{number}" for number in range(100_000)], "word")
    options = crnn.LanguageModel(crnn.Vocab("ab"), hidden_size=64, embedding_size=64).config()
    parameters, needed = memory_for_training(arguments, vocab, options)
    assert needed < 4 * 4.2 * parameters  # all outputs are 30 times as many numbers as there are weights
    adaptive, fewer = memory_for_training(arguments, vocab, options | {"adaptive_softmax": [2000, 20_000]})
    assert adaptive < parameters
    assert fewer < needed


@posix
def test_a_vocabulary_that_does_not_fit_is_refused_by_its_options(tmp_path):
    words = " ".join(f"word{number}" for number in range(400_000))
    (tmp_path / "text").write_text(words + "\n")
    status, _, err = in_shell("ulimit -v 2000000; crnn train text -o m --unit word --threads 1 -q", tmp_path)
    assert status == 1
    assert "400,002 different" in err
    assert "--max-vocab" in err
    assert "--min-count" in err
    assert "Unable to allocate" not in err
    assert not (tmp_path / "m").exists()


def test_a_model_that_cannot_be_allocated_says_what_makes_it_smaller(monkeypatch):
    def full(*arguments):
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr("crnn.nn.params.aligned_zeros", full)
    with pytest.raises(MemoryError, match=r"vocab: cannot allocate 46 parameters .* 2 chars; .* max_size .* min_count"):
        crnn.LanguageModel(crnn.Vocab("ab"), hidden_size=2)


def test_memory_is_that_of_the_machine_or_less():
    available = available_memory()
    assert available is None or available > 10_000_000
    assert [readable(size) for size in (0, 999, 1000, 9_940, 12_345_678, 3e15)] == [
        "0 bytes", "999 bytes", "1.0 kB", "9.9 kB", "12 MB", "3,000 TB"
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    content=st.lists(st.sampled_from([b"a", b"b\r", b"\n", b"\r\n", b"\0", b"\xff", "é".encode(), b"\xd8", b"\t"])).map(
        b"".join
    ),
    unit=st.sampled_from(["char", "byte", "word"]),
    encoding=st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-16-be", "utf-8-sig", "shift_jis", "iso2022_jp"]),
    carry=st.booleans(),
)
def test_whatever_is_read_is_written_after_the_bits_of_each_line(content, unit, encoding, carry):
    model = language_model("a b\n", unit=unit)
    out = io.BytesIO()
    score_lines(model, io.BytesIO(content), out, carry=carry, encoding=encoding)
    reader = LineReader(io.BytesIO(out.getvalue()), "latin-1" if unit == "byte" else encoding)
    pairs = [line.split(reader.encode("\t"), 1) for line in reader]
    written = reader.mark + b"".join(line for _, line in pairs)
    newline = reader.encode("\n")
    assert written in (content, content + newline)
    assert written == content or not content.endswith(newline)
    assert all(float(reader.decode(bits)) > 0 or reader.decode(bits) == "nan" for bits, _ in pairs)
