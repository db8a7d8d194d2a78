# SPDX-License-Identifier: MIT
"""What a run reads and writes: every file is different, regular, writable and locked before any work starts."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from model_tools import crnn_command, environment, language_model, text

import crnn
from crnn import cli
from crnn.io.lock import FileLock
from crnn.training.run_files import RunFiles

pytestmark = pytest.mark.thread_unsafe  # the working folder and standard error are the process's

TINY = ["--hidden", "5", "--epochs", "1", "--batch", "4", "--bptt", "8", "-q"]
IDS = np.arange(100) % 12


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(text(600), newline="")
    return tmp_path


def refused(capsys, *arguments):
    """The message of a command that fails, which must have changed nothing."""
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert cli.main(["train", *map(str, arguments), *TINY]) == 1
    after = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert before == after
    return capsys.readouterr().err.splitlines()[-1]


posix = pytest.mark.skipif(sys.platform == "win32", reason="links and special files are others there")

# ---- different files -------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("stream", "arguments"),
    [
        ("standard input", ["score", "m", "--learn", "--save", "file", "--overwrite"]),
        ("standard output", ["score", "m", "--learn", "--save", "file", "--overwrite"]),
        ("standard input", ["compress", "-", "-o", "file", "--overwrite"]),
        ("standard output", ["train", "text.txt", "-o", "n", "--log", "file", *TINY]),
        ("standard error", ["train", "text.txt", "-o", "n", "--log", "./file", *TINY]),
    ],
)
def test_a_file_that_a_standard_stream_is_redirected_from_or_to_is_not_written(folder, stream, arguments):
    language_model("".join(Path("text.txt").read_text())).save("m")
    Path("file").write_text("work\n" * 40)
    named = {"standard input": "stdin", "standard output": "stdout", "standard error": "stderr"}
    others = {name: subprocess.PIPE for name in ("stdout", "stderr") if name != named[stream]}
    with open("file", "r+b" if stream == "standard input" else "ab") as file:
        done = subprocess.run(
            crnn_command(*arguments), env=environment(), check=False, **others, **{named[stream]: file}
        )
    assert done.returncode == 1
    content = Path("file").read_text()
    assert content.startswith("work\n" * 40)
    message = content if done.stderr is None else done.stderr.decode()
    assert f": expected another file than that of {stream}, got " in message
    assert ": --" in message



@posix
@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "text.txt"],
        ["-o", "m", "--checkpoint", "m"],
        ["-o", "m", "--checkpoint", "text.txt"],
        ["-o", "m", "--log", "text.txt"],
        ["-o", "m", "--log", "m"],
        ["-o", "m", "--ids", "text.txt"],
        ["-o", "m", "--ids", "m"],
        ["-o", "m", "--log", "m.checkpoint"],
        ["-o", "m", "--checkpoint", "../{folder}/m"],
        ["-o", "m", "--checkpoint", "./other/../m"],
        ["-o", "m", "--checkpoint", "link/m"],
        ["-o", "linked.txt"],
        ["-o", "hard.txt"],
        ["-o", "dangling", "--log", "target"],
    ],
)
def test_two_names_of_one_file_are_refused_whatever_their_spelling(folder, capsys, arguments):
    (folder / "other").mkdir()
    (folder / "link").symlink_to(folder)
    (folder / "linked.txt").symlink_to("text.txt")
    (folder / "dangling").symlink_to("target")
    os.link("text.txt", "hard.txt")
    arguments = [argument.format(folder=folder.name) for argument in arguments]
    message = refused(capsys, "text.txt", *arguments)
    assert "expected different files" in message
    assert "for both" in message


@posix
def test_a_folder_of_texts_is_no_place_for_what_is_written(folder, capsys):
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text(text(600))
    (folder / "link").symlink_to("texts")
    for path in ("texts/m", "link/m", "texts/../texts/m"):
        message = refused(capsys, "texts", "-o", path)
        assert message == f"crnn train: --output: expected a file outside of the folder texts, got {path}"
    assert "expected different files" in refused(capsys, "text.txt", "texts/a.txt", "-o", "texts/a.txt")
    assert cli.main(["train", "texts", "-o", "m", *TINY]) == 0


def test_names_that_a_file_system_does_not_tell_apart_are_one_file(folder, capsys, monkeypatch):
    monkeypatch.setattr("crnn.training.run_files._ignores_case", lambda folder: True)
    assert "expected different files" in refused(capsys, "text.txt", "-o", "Model", "--checkpoint", "mODEL")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    if not (folder / "TEXT.txt").exists():  # this one does
        assert cli.main(["train", "text.txt", "-o", "Model", "--checkpoint", "mODEL", *TINY]) == 0


def test_fit_refuses_a_log_that_is_its_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"^checkpoint and log_file: expected different files"):
        crnn.fit(language_model(), IDS, checkpoint=tmp_path / "c", log_file=tmp_path / "x" / ".." / "c")


# ---- files that can be written ---------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("option", ["-o", "--checkpoint", "--log", "--ids"])
def test_a_file_that_cannot_be_written_is_found_before_anything_is_read(folder, capsys, option):
    (folder / "folder").mkdir()
    os.mkfifo("fifo")
    rest = [] if option == "-o" else ["-o", "m"]
    name = "--output" if option == "-o" else option
    for path, expected in {
        "folder": "expected a file, got a folder: folder",
        ".": "expected a file, got a folder: .",
        "/dev/null": "expected a regular file, got a special file: /dev/null",
        "fifo": "expected a regular file, got a special file: fifo",
        "nowhere/m": "expected a folder that exists, got nowhere",
    }.items():
        message = refused(capsys, "no such text", *rest, option, path)
        assert message == f"crnn train: {name}: {expected}"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_is_found_at_once(folder, capsys):
    (folder / "folder").mkdir(mode=0o500)
    message = refused(capsys, "text.txt", "-o", "folder/m")
    assert "--output: expected a file that can be written, got folder/m" in message


@pytest.mark.parametrize("option", ["-o", "--checkpoint", "--log"])
@pytest.mark.parametrize("restart", [[], ["--restart"]])
def test_a_file_of_the_users_own_is_never_replaced(folder, capsys, option, restart):
    (folder / "thesis.tex").write_text("years of work\n")
    rest = [] if option == "-o" else ["-o", "m"]
    message = refused(capsys, "text.txt", *rest, option, "thesis.tex", *restart)
    assert "thesis.tex" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "m", "--log", "mine"], "--log: expected a new file, or the log of a training, got mine"),
        (["-o", "m", "--checkpoint", "mine", "--restart"], "--checkpoint: expected a checkpoint to replace"),
        (["-o", "mine", "--restart"], "--output: expected a new file, or a model to replace, got another file: mine"),
    ],
)
def test_a_file_that_may_not_be_replaced_is_found_before_the_text_is_read(folder, capsys, arguments, message):
    (folder / "mine").write_text("years of work\n")
    (folder / "text.txt").write_bytes(b"\xff")
    assert refused(capsys, "text.txt", *arguments).startswith(f"crnn train: {message}")


def test_a_name_that_ends_as_a_folders_is_no_file(folder, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "text.txt", "-o", "models/"])
    assert "argument -o/--output: expected a file, got a folder: models/" in capsys.readouterr().err


@posix
@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_a_log_that_is_removed_while_training_is_written_again(folder, name):
    log = crnn.fit(
        language_model(),
        IDS,
        epochs=3,
        log_file=name,
        on_epoch=lambda progress: os.unlink(name) if progress.epoch == 2 else None,
    )
    (log.to_csv if name.endswith(".csv") else log.to_jsonl)("expected")
    assert Path(name).read_bytes() == Path("expected").read_bytes()


@pytest.mark.parametrize("content", [b"", b"a text", b"a text that is longer", b"\x00" * 7])
def test_a_file_that_is_no_model_is_called_so(folder, content):
    (folder / "other").write_bytes(content)
    with pytest.raises(crnn.ModelFileError, match=r"^other: expected a safetensors file, got another kind of file"):
        crnn.load("other")


def test_a_damaged_checkpoint_is_called_as_it_was_typed(folder, capsys):
    assert cli.main(["train", "text.txt", "-o", "m", *TINY]) == 0
    (folder / "m.checkpoint").write_bytes((folder / "m.checkpoint").read_bytes()[:-9])
    assert refused(capsys, "text.txt", "-o", "m", "--resume").startswith("crnn train: m.checkpoint: expected")


def test_demo_finds_out_before_it_trains_that_it_could_not_write(folder, capsys, monkeypatch):
    monkeypatch.setattr("crnn._demo.documentation_prose", lambda: pytest.fail("has begun"))
    (folder / "m").write_text("work")
    for path, message in (
        ("m", "--output: expected a new file, got m, which exists"),
        (".", "--output: expected a file, got a folder: ."),
        ("nowhere/m", "--output: expected a folder that exists, got nowhere"),
    ):
        assert cli.main(["demo", "-o", path]) == 1
        assert capsys.readouterr().err == f"crnn demo: {message}\n"
    assert (folder / "m").read_text() == "work"


@pytest.mark.parametrize("content", ["matrix", "numbers", "text"])
def test_ids_replace_nothing_but_ids(folder, capsys, content):
    if content == "text":
        (folder / "i").write_text("work")
    else:
        with open("i", "wb") as file:
            np.save(file, np.zeros((2, 2), np.uint8) if content == "matrix" else np.zeros(9))
    message = refused(capsys, "text.txt", "-o", "m", "--ids", "i")
    assert message == "crnn train: --ids: expected a new file, or ids to replace, got i"


def test_ids_of_an_earlier_run_are_replaced(folder):
    assert cli.main(["train", "text.txt", "-o", "m", "--ids", "i", *TINY]) == 0
    assert cli.main(["train", "text.txt", "-o", "n", "--ids", "i", *TINY]) == 0


def test_a_model_never_replaces_a_checkpoint(folder, capsys):
    assert cli.main(["train", "text.txt", "-o", "m", *TINY]) == 0
    message = refused(capsys, "text.txt", "-o", "m.checkpoint", "--restart")
    assert "--output: expected a new file, or a model to replace, got a checkpoint: m.checkpoint" in message


def test_files_are_those_of_the_start_even_if_a_callback_changes_the_folder(folder):
    (folder / "elsewhere").mkdir()
    crnn.fit(
        language_model(), IDS, checkpoint="c", log_file="log", epochs=2, batch_size=2, bptt=5,
        on_epoch=lambda progress: os.chdir(folder / "elsewhere"),
    )  # fmt: skip
    assert os.listdir(folder / "elsewhere") == []
    assert sorted(os.listdir(folder)) == ["c", "elsewhere", "log", "text.txt"]


# ---- the lock --------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from crnn.training.run_files import RunFiles
with RunFiles({}, {"output": sys.argv[1]}):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_run(folder):
    """A process that runs with the output m."""
    command = [sys.executable, "-c", HOLD, "m"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@posix
@pytest.mark.parametrize("arguments", [["-o", "m"], ["-o", "n", "--checkpoint", "m"], ["-o", "link"]])
def test_a_second_run_on_the_same_file_is_refused(folder, capsys, other_run, arguments):
    (folder / "link").symlink_to("m")
    message = refused(capsys, "text.txt", *arguments)
    assert "expected a file that no other run writes" in message


@posix
def test_a_second_run_on_another_name_of_the_same_file_is_refused(folder, capsys):
    assert cli.main(["train", "text.txt", "-o", "m", *TINY]) == 0
    os.link("m", "hard")
    with RunFiles({}, {"output": "m"}):
        message = refused(capsys, "text.txt", "-o", "hard", "--restart")
    assert "--output: expected a file that no other run writes, got hard" in message
    assert cli.main(["train", "text.txt", "-o", "hard", "--restart", *TINY]) == 0
    assert (folder / "hard").samefile("m")


def test_a_killed_process_keeps_no_lock(folder, other_run):
    other_run.kill()
    other_run.wait()
    assert cli.main(["train", "text.txt", "-o", "m", *TINY]) == 0


def test_locks_end_with_the_run_and_leave_nothing_behind(folder, capsys):
    assert cli.main(["train", "text.txt", "-o", "m", *TINY]) == 0
    refused(capsys, "text.txt", "-o", "n", "--checkpoint", "m")
    assert sorted(os.listdir()) == ["m", "m.checkpoint", "text.txt"]


def test_a_run_whose_lock_was_removed_does_not_remove_that_of_the_next_run(tmp_path):
    first, second = FileLock(tmp_path / "c"), FileLock(tmp_path / "c")
    first.acquire()
    os.unlink(first.path)
    second.acquire()
    first.release()
    assert os.path.exists(second.path)
    with pytest.raises(BlockingIOError):
        first.acquire()
    second.release()
    assert not os.listdir(tmp_path)


def test_one_process_cannot_lock_a_file_twice(tmp_path):
    with (
        RunFiles({}, {"checkpoint": tmp_path / "c"}),
        pytest.raises(BlockingIOError, match=r"^checkpoint: expected a file that no other run writes"),
    ):
        crnn.fit(language_model(), IDS, checkpoint=tmp_path / "c")
    crnn.fit(language_model(), IDS, checkpoint=tmp_path / "c", epochs=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path):
    lock = FileLock(tmp_path / "m")
    lock.acquire()
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        lock._forget()  # as when this process dies
        again, waited = FileLock(tmp_path / "m"), time.monotonic()
        while again._file is None:  # until the child has begun
            with contextlib.suppress(BlockingIOError):
                again.acquire()
            assert time.monotonic() - waited < 30
        again.release()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_name_as_long_as_names_can_be_is_locked_too(tmp_path):
    lock = FileLock(tmp_path / ("n" * 255))
    lock.acquire()
    with pytest.raises(BlockingIOError):
        FileLock(tmp_path / ("n" * 255)).acquire()
    lock.release()
    assert os.listdir(tmp_path) == []
