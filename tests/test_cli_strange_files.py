# SPDX-License-Identifier: MIT
"""Files that are not what a command expects: devices without an end, names that are commands or options, and others."""

import gzip
import os
import stat
import sys

import pytest

import crnn
from crnn import cli
from crnn.cli import archives, byte_progress

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")
UNENDING = "expected a file or a pipe, which has an end, got a device"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.safetensors"
    crnn.LanguageModel(crnn.Vocab.from_text("abc\n"), hidden_size=4).save(path)
    return path


@pytest.fixture
def table_model(tmp_path):
    path = tmp_path / "t.safetensors"
    crnn.SequenceClassifier(1, classes=["a", "b"], hidden_size=4).save(path)
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abc\ncba\n" * 20)
    return path


def fails(capsys, *arguments, status=1):
    """What is said of a command that cannot be done."""
    found = None
    try:
        found = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        found = end.code
    assert found == status
    out, err = capsys.readouterr()
    assert not out
    return err


# ---- devices ---------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
@pytest.mark.parametrize("command", ["compress", "decompress", "after", "train", "eval", "predict", "statistics"])
def test_a_device_without_an_end_is_refused(command, device, model, table_model, text, tmp_path, capsys):
    output = tmp_path / "out"
    commands = {
        "compress": ("compress", device, "-o", output),
        "decompress": ("decompress", device, "-o", output),
        "after": ("compress", text, "--after", device, "-o", output),
        "train": ("train", device, "-o", output),
        "eval": ("eval", model, device),
        "predict": ("predict", table_model, device),
        "statistics": ("eval", model, text, "--dynamic", "--statistics", device),
    }
    assert f"{device}: {UNENDING}" in fails(capsys, *commands[command])
    assert not output.exists()


@posix
def test_so_is_one_that_standard_input_is_redirected_from(tmp_path, capsys, monkeypatch):
    with open("/dev/zero") as device:
        monkeypatch.setattr(sys, "stdin", device)
        assert f"standard input: {UNENDING}" in fails(capsys, "compress", "-", "-o", tmp_path / "out")


@posix
def test_the_null_device_is_empty(tmp_path, capsys):
    assert cli.main(["compress", os.devnull, "-o", str(tmp_path / "a.crz")]) == 0
    assert cli.main(["decompress", str(tmp_path / "a.crz"), "-o", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a").read_bytes() == b""
    with pytest.raises(crnn.TextError, match="expected at least one char"):
        crnn.TextCorpus.from_file(os.devnull)


@posix
def test_a_corpus_of_a_device_or_a_closed_file_is_refused(text):
    with pytest.raises(OSError, match=f"^/dev/zero: {UNENDING}"):
        crnn.TextCorpus.from_file("/dev/zero")
    with open(text, "rb") as file:
        pass
    with pytest.raises(ValueError, match=r"a\.txt: expected an open file, got a closed one"):
        crnn.TextCorpus.from_file(file)


class Pipe:
    """A pipe that has so many bytes, and then fails or ends."""

    def __init__(self, chunks, end):
        self.chunks, self.end = list(chunks), end

    def read(self, size):
        if self.chunks:
            return self.chunks.pop()
        if self.end is not None:
            raise self.end
        return b""


def test_what_does_not_fit_into_memory_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(archives, "standard_input", lambda: Pipe([b"abc"] * 4, MemoryError()))
    why = fails(capsys, "compress", "-", "-o", tmp_path / "out")
    assert "file: expected bytes that fit into memory, got 12 and more: standard input" in why


def test_reading_says_how_far_it_has_come(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(archives, "standard_input", lambda: Pipe([b"abc"] * 4, None))
    monkeypatch.setattr(byte_progress, "UNTOLD", 0)
    assert cli.main(["compress", "-", "-o", str(tmp_path / "out")]) == 0
    assert "standard input: 3 bytes read, waiting for its end\n" in capsys.readouterr().err
    monkeypatch.setattr(archives, "standard_input", lambda: Pipe([b"abc"] * 4, None))
    assert cli.main(["compress", "-", "-q", "-o", str(tmp_path / "more")]) == 0
    assert capsys.readouterr().err == ""


def test_score_looks_for_standard_input_before_it_writes(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    saved = tmp_path / "s.safetensors"
    why = fails(capsys, "score", model, "--learn", "--save", saved)
    assert "standard input: expected a file or pipe, got a closed one" in why
    assert not saved.exists()


def test_score_says_that_its_input_is_compressed(tmp_path, capsysbinary, monkeypatch):
    model, packed = tmp_path / "b.safetensors", tmp_path / "a.gz"
    crnn.LanguageModel(crnn.Vocab.from_text(b"abc", unit="byte"), hidden_size=4).save(model)
    for content, said in ((gzip.compress(b"abc\n" * 9), True), (b"abc\n" * 9, False)):
        packed.write_bytes(content)
        with open(packed) as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert cli.main(["score", str(model)]) == 0
        out, err = capsysbinary.readouterr()
        note = b"standard input begins as a file that is compressed (gzip), and is scored as it is\n"
        assert err == (note if said else b"")
        assert out


# ---- who may read what is written ------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_an_archive_and_its_file_are_as_private_as_the_original(mode, text, capsys):
    text.chmod(mode)
    packed = text.with_name("a.txt.crz")
    old = os.umask(0o022)
    try:
        assert cli.main(["compress", str(text), "-q"]) == 0
        text.unlink()
        assert cli.main(["decompress", str(packed), "-q"]) == 0
    finally:
        os.umask(old)
    wanted = (mode & 0o666 | 0o600) & ~0o022
    assert [stat.S_IMODE(path.stat().st_mode) for path in (packed, text)] == [wanted, wanted]


@posix
def test_an_output_that_is_replaced_keeps_its_mode(text, capsys):
    packed = text.with_name("a.txt.crz")
    packed.write_bytes(b"")
    packed.chmod(0o640)
    text.chmod(0o600)
    assert cli.main(["compress", str(text), "-q", "--overwrite"]) == 0
    assert stat.S_IMODE(packed.stat().st_mode) == 0o640


# ---- names -----------------------------------------------------------------------------------------------------------


@posix
def test_a_name_is_no_command_to_the_terminal(tmp_path, capsys):
    path = tmp_path / "a\x1b[2J\r\x9b.txt"
    path.write_bytes(b"abc")
    assert cli.main(["compress", str(path)]) == 0
    said = capsys.readouterr().err
    assert "a\\x1b[2J\\x0d\\xc2\\x9b.txt.crz: " in said
    assert not set(said) & set("\x1b\r\x9b")
    assert not set(fails(capsys, "compress", path)) & set("\x1b\r\x9b")


def test_a_file_whose_name_is_an_option(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-a.txt").write_bytes(b"abc")
    why = fails(capsys, "compress", "-a.txt", status=2)
    assert "required: file; a file whose name begins with - is given as ./-a.txt" in why
    assert "is given as" not in fails(capsys, "compress", "--quiet", status=2)
