# SPDX-License-Identifier: MIT
"""``crnn compress`` and ``crnn decompress``: what they write, what they refuse, and that nothing is lost."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_tools import crnn_command, environment

import crnn
from crnn import cli
from crnn.cli.byte_progress import ByteProgress

PAGE = Path(__file__).parents[1] / "docs" / "compression.md"

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

CONTENT = b"the cat sat on the mat, and the dog sat on the cat\n" * 40


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def archive(original, capsys):
    assert run(capsys, "compress", original)[0] == 0
    return original.with_name("a.log.crz")


def run(capsys, *arguments):
    """Exit status, standard output, standard error without the progress that a slow machine shows."""
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, re.sub(r"^.*: \d+ % of .* bytes, .*B/s.*\n", "", err, flags=re.MULTILINE)


def fails(capsys, *arguments):
    """The one line that says why."""
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (1, "")
    (why,) = err.splitlines()
    assert why.startswith(f"crnn {arguments[0]}: ")
    return why


def test_an_archive_lies_beside_its_file_and_the_file_stays(original, capsys):
    status, out, err = run(capsys, "compress", original, "--threads", 2)
    packed = original.with_name("a.log.crz")
    assert (status, out) == (0, "")
    assert packed.read_bytes() == crnn.compress(CONTENT)
    assert err == f"wrote {packed}: {packed.stat().st_size} bytes for 2,040 ({packed.stat().st_size / 20.4:.1f} %)\n"
    assert original.read_bytes() == CONTENT


def test_the_same_bytes_are_decompressed(archive, original, capsys):
    original.unlink()
    assert run(capsys, "decompress", archive) == (0, "", f"wrote {original}: 2,040 bytes\n")
    assert original.read_bytes() == CONTENT
    assert archive.exists()


def test_outputs_have_the_names_that_are_given(original, tmp_path, capsys):
    assert run(capsys, "compress", original, "-o", tmp_path / "x", "-q") == (0, "", "")
    assert run(capsys, "decompress", tmp_path / "x", "-o", tmp_path / "y", "--quiet") == (0, "", "")
    assert (tmp_path / "y").read_bytes() == CONTENT


def test_an_empty_file_is_compressed(tmp_path, capsys):
    (tmp_path / "e").touch()
    assert run(capsys, "compress", tmp_path / "e")[0] == 0
    (tmp_path / "e").unlink()
    assert run(capsys, "decompress", tmp_path / "e.crz")[0] == 0
    assert (tmp_path / "e").read_bytes() == b""


def test_results_for_programs(original, archive, tmp_path, capsys):
    _, out, _ = run(capsys, "compress", original, "--overwrite", "--json")
    found = json.loads(out)
    size = archive.stat().st_size
    assert found.pop("seconds") > 0
    assert found == {"output": str(archive), "size": 2040, "compressed": size, "bits_per_byte": 8 * size / 2040}
    _, out, _ = run(capsys, "decompress", archive, "-o", tmp_path / "y", "--json")
    found = json.loads(out)
    assert found.pop("seconds") > 0
    assert found == {"output": str(tmp_path / "y"), "size": 2040, "compressed": size}


def test_standard_input_and_output(tmp_path):
    """In a process, because they are bytes."""
    packed = subprocess.run(crnn_command("compress", "-"), input=CONTENT, capture_output=True, env=environment())
    assert packed.returncode == 0
    assert packed.stdout == crnn.compress(CONTENT)
    (tmp_path / "p").write_bytes(packed.stdout)
    for arguments, given in ((["-"], packed.stdout), ([str(tmp_path / "p"), "-o", "-"], b"")):
        command = crnn_command("decompress", *arguments, "--quiet")
        found = subprocess.run(command, input=given, capture_output=True, env=environment())
        assert (found.stdout, found.stderr, found.returncode) == (CONTENT, b"", 0)


@pytest.mark.skipif(sys.platform == "win32" or not PAGE.exists(), reason="needs a shell, and the page")
def test_the_commands_of_the_page_run_one_after_the_other(tmp_path):
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for name in ("app.log", "sunday.log", "monday.log"):
        (tmp_path / name).write_bytes(CONTENT)
    crnn_function = f"""
        crnn() {{
            if [ "$1" = train ]; then set -- "$@" --epochs 1 --hidden 4 -q; fi
            "{sys.executable}" -m crnn "$@"
        }}
    """
    for block in blocks:
        for name in ("copy.log", "monday.log.crz"):
            (tmp_path / name).unlink(missing_ok=True)
        script = f"set -eu\n{crnn_function}\n{block}"
        found = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, check=False)
        assert found.returncode == 0, found.stderr
        assert (tmp_path / "copy.log").read_bytes() == CONTENT
    assert (tmp_path / "copy").read_bytes() == CONTENT


# ---- with a model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.safetensors"
    crnn.LanguageModel(crnn.Vocab.from_text(b"ab", "byte"), hidden_size=5, seed=2).save(path)
    return path


def test_both_commands_need_the_same_model(original, tmp_path, model, capsys):
    packed = tmp_path / "p"
    assert run(capsys, "compress", original, "-o", packed, "--model", model)[0] == 0
    assert run(capsys, "decompress", packed, "-o", tmp_path / "y", "--model", model)[0] == 0
    assert (tmp_path / "y").read_bytes() == CONTENT
    why = fails(capsys, "decompress", packed, "-o", tmp_path / "z")
    assert why.startswith(f"crnn decompress: {packed}: expected the model that it was made with, whose digest is ")
    assert why.endswith(", got none")
    crnn.LanguageModel(crnn.Vocab.from_text(b"ab", "byte"), hidden_size=5, seed=3).save(tmp_path / "other")
    why = fails(capsys, "decompress", packed, "-o", tmp_path / "z", "--model", tmp_path / "other")
    assert "expected the model that it was made with" in why
    assert not (tmp_path / "z").exists()


def test_both_commands_need_the_same_text_before(original, tmp_path, capsys):
    yesterday, packed = tmp_path / "y.log", tmp_path / "p"
    yesterday.write_bytes(CONTENT[7:])
    assert run(capsys, "compress", original, "-o", packed, "--after", yesterday)[0] == 0
    assert packed.read_bytes() == crnn.compress(CONTENT, after=CONTENT[7:])
    assert run(capsys, "decompress", packed, "-o", tmp_path / "y", "--after", yesterday)[0] == 0
    assert (tmp_path / "y").read_bytes() == CONTENT
    why = fails(capsys, "decompress", packed, "-o", tmp_path / "z", "--after", original)
    assert why.startswith(f"crnn decompress: {packed}: expected the text before it that it was made with, whose digest")
    assert "No such file" in fails(capsys, "decompress", packed, "-o", tmp_path / "z", "--after", tmp_path / "none")
    onto_itself = ["-o", yesterday, "--after", yesterday, "--overwrite"]
    assert "expected different files" in fails(capsys, "compress", original, *onto_itself)
    assert yesterday.read_bytes() == CONTENT[7:]
    assert not (tmp_path / "z").exists()


def test_models_that_cannot_be_a_start_are_refused(original, tmp_path, capsys):
    crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=5).save(tmp_path / "chars")
    why = fails(capsys, "compress", original, "--model", tmp_path / "chars")
    assert why == (
        "crnn compress: --model: expected a LanguageModel with unit='byte', got one with unit='char'"
    )
    crnn.SequenceTagger(2, 3, hidden_size=4).save(tmp_path / "tagger")
    assert "expected a LanguageModel" in fails(capsys, "compress", original, "--model", tmp_path / "tagger")
    assert "No such file" in fails(capsys, "compress", original, "--model", tmp_path / "none")


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_nothing_is_replaced_unasked(archive, original, capsys):
    archive.write_bytes(b"mine")
    why = fails(capsys, "compress", original)
    assert why == (
        f"crnn compress: --output: expected a new file, got {archive}, which exists; --overwrite replaces it"
    )
    assert archive.read_bytes() == b"mine"
    assert run(capsys, "compress", original, "--overwrite")[0] == 0
    assert "which exists" in fails(capsys, "decompress", archive)
    assert run(capsys, "decompress", archive, "--overwrite")[0] == 0


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_file_is_not_written_onto_itself(command, original, capsys):
    why = fails(capsys, command, original, "-o", original, "--overwrite")
    assert "expected different files" in why
    assert original.read_bytes() == CONTENT


def test_an_archive_without_a_name_to_derive_needs_an_output(archive, tmp_path, capsys):
    archive.rename(tmp_path / "b")
    why = fails(capsys, "decompress", tmp_path / "b")
    assert why == f"crnn decompress: --output: expected one, because {tmp_path / 'b'} does not end in .crz, got none"
    (tmp_path / ".crz").write_bytes((tmp_path / "b").read_bytes())
    assert "--output: expected one" in fails(capsys, "decompress", tmp_path / ".crz")


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_files_that_cannot_be_read_or_written_are_refused(command, tmp_path, original, capsys):
    why = fails(capsys, command, tmp_path / "none.crz", "-o", tmp_path / "y")
    assert why == f"crnn {command}: {tmp_path / 'none.crz'}: No such file or directory"
    fails(capsys, command, tmp_path, "-o", tmp_path / "y")
    assert "expected a folder that exists" in fails(capsys, command, original, "-o", tmp_path / "no" / "y")
    assert "expected a file, got a folder" in fails(capsys, command, original, "-o", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.log"]


@pytest.mark.parametrize("command", ["compress", "decompress"])
@pytest.mark.parametrize("folder", [".", "..", "", os.sep])
def test_folders_are_refused_before_work_starts(command, folder, tmp_path, capsys):
    why = fails(capsys, command, folder, "-o", tmp_path / "y", "--model", tmp_path / "none")
    assert why == f"crnn {command}: file: expected a file, got a folder: {Path(folder)}"
    assert os.listdir(tmp_path) == []


def test_a_file_whose_name_is_that_of_standard_input_can_be_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(CONTENT)
    dash = os.path.join(os.curdir, "-")
    assert run(capsys, "compress", dash, "-o", "p", "-q") == (0, "", "")
    Path("-").unlink()
    assert run(capsys, "decompress", "p", "-o", dash, "-q") == (0, "", "")
    assert Path("-").read_bytes() == CONTENT


def limit_file_size():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of processes")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_part_on_standard_output_is_an_error(unbuffered, archive, tmp_path):
    """Unbuffered, the system writes what it can, and that is no error to Python."""
    with open(tmp_path / "out", "wb") as out:
        found = subprocess.run(
            crnn_command("decompress", archive, "-o", "-", "-q"),
            env=environment() | {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=out, stderr=subprocess.PIPE, preexec_fn=limit_file_size, text=True,
        )
    assert found.returncode == 1
    assert found.stderr == "crnn decompress: standard output: File too large\n"


def damaged_archives(archive):
    content = archive.read_bytes()
    yield b""
    yield content[:-1]
    yield content[:30]
    yield content + b"x"
    yield content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    yield CONTENT


def test_nothing_is_written_from_a_damaged_archive(archive, tmp_path, capsys):
    output = tmp_path / "y"
    for content in list(damaged_archives(archive)):
        archive.write_bytes(content)
        assert f"crnn decompress: {archive}: expected " in fails(capsys, "decompress", archive, "-o", output)
        assert sorted(os.listdir(tmp_path)) == ["a.log", "a.log.crz"]
    output.write_bytes(b"mine")
    fails(capsys, "decompress", archive, "-o", output, "--overwrite")
    assert output.read_bytes() == b"mine"


def test_archives_of_larger_files_can_be_refused(archive, tmp_path, capsys):
    why = fails(capsys, "decompress", archive, "-o", tmp_path / "y", "--max-size", 2039)
    assert why == f"crnn decompress: {archive}: expected at most 2,039 bytes, got one of 2,040"
    assert "--max-size: expected" in fails(capsys, "decompress", archive, "-o", tmp_path / "y", "--max-size", "-1")


def test_results_for_programs_do_not_go_where_the_archive_goes(original, capsys):
    why = fails(capsys, "compress", original, "-o", "-", "--json")
    assert why == "crnn compress: --json: expected with a file as the output, got it with standard output"


def test_a_terminal_gets_no_archive(original, capsys, monkeypatch):
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    monkeypatch.setattr("crnn.cli.archives.standard_output", Terminal)
    assert "got a terminal" in fails(capsys, "compress", original, "-o", "-")


def test_an_interrupted_command_leaves_no_file(tmp_path):
    if sys.platform == "win32":
        pytest.skip("no SIGINT for another process")
    original = tmp_path / "a"
    original.write_bytes(np.random.default_rng(1).integers(97, 123, 400_000).astype(np.uint8).tobytes())
    program = (
        "import os, signal, sys\n"
        "import crnn.cli.compress as command\n"
        "from crnn import cli\n"
        "real = command.ByteProgress.__call__\n"
        "def progress(self, done, total):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "command.ByteProgress.__call__ = progress\n"
        "sys.exit(cli.main(['compress', sys.argv[1]]))\n"
    )
    command = [sys.executable, "-c", program, str(original)]
    found = subprocess.run(command, capture_output=True, env=environment(), preexec_fn=restore_interrupt)
    assert found.returncode == 130
    assert os.listdir(tmp_path) == ["a"]


def restore_interrupt():
    signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- progress --------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("crnn.cli.byte_progress.time.perf_counter", lambda: self.now)


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    with ByteProgress("a.log") as progress:
        for second in range(1, 101):
            clock.now = 100.0 + second
            progress(second * 1000, 100_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a.log: 5 % of 100,000 bytes, 1.0kB/s, 1:35 left"
    assert lines[1] == "a.log: 35 % of 100,000 bytes, 1.0kB/s, 1:05 left"
    assert len(lines) == 4


def test_short_work_and_quiet_work_say_nothing(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    with ByteProgress("a.log") as progress:
        clock.now += 4
        progress(50, 100)
        progress(100, 100)
    with ByteProgress("a.log", quiet=True) as progress:
        clock.now += 400
        progress(50, 100)
    assert capsys.readouterr().err == ""


def test_in_a_terminal_there_is_a_bar_with_the_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock(monkeypatch)
    with ByteProgress("a.log") as progress:
        for second in range(1, 11):
            clock.now = 100.0 + second
            progress(second * 1000, 10_000)
    shown = out.getvalue()
    assert " 50 % |" in shown
    assert "1.0kB/s, 0:05 left" in shown
    assert "100 % |" in shown
