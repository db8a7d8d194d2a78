# SPDX-License-Identifier: MIT
"""A checkpoint or a log that cannot be written while a model is trained: the run continues, and tells."""

import contextlib
import errno
import io
import json
import os
import shutil
import signal

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, text
from rank_tools import on_ranks

import crnn
from crnn import cli
from crnn.training import checkpoint, log_file
from crnn.training.interrupts import Interrupted

pytestmark = pytest.mark.thread_unsafe  # signals, warnings and the functions that are replaced are the process's

IDS = np.random.default_rng(8).integers(12, size=104)
# 7 windows an epoch
SETTINGS = {"epochs": 4, "batch_size": 3, "bptt": 5, "schedule": None, "clip_norm": None, "log_every": 2}
TINY = ["--hidden", "5", "--epochs", "4", "--batch", "4", "--bptt", "8", "--embedding", "0"]
TELLS = "; training continues, and the next checkpoint tries again"


def fitted(model=None, **options):
    model = language_model() if model is None else model
    crnn.fit(model, IDS, **{"optimizer": crnn.optim.Adam(lr=0.02), "valid": IDS[:40]} | SETTINGS | options)
    return model


def cannot(path, update, last=None, why="No space left on device"):
    """What is said of a checkpoint that could not be written."""
    whole = "there is none of this run" if last is None else f"the last whole one is of update {last}"
    return f"checkpoint: cannot write {path} after update {update} ({why}); {whole}"


@pytest.fixture
def full(monkeypatch):
    """Call it with the updates at which the disk is full. Returns a list that gets the updates of all attempts."""
    write = checkpoint.write

    def install(*updates):
        attempts = []

        def writes(path, arrays, header):
            attempts.append(header["progress"]["update"])
            if attempts[-1] in updates:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, arrays, header)

        monkeypatch.setattr(checkpoint, "write", writes)
        return attempts

    return install


# ---- in Python -------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_warned_of_and_the_next_checkpoint_is_written(tmp_path, full):
    path, log = tmp_path / "c", crnn.TrainingLog()
    attempts = full(14)
    with pytest.warns(UserWarning, match="cannot write") as warned:
        model = fitted(checkpoint=path, log=log)
    assert attempts == [7, 14, 21, 28]
    assert [str(each.message) for each in warned] == [cannot(path, 14, 7) + TELLS]
    assert warned[0].filename == __file__
    assert [note for note in log.notes if "cannot" in note] == [cannot(path, 14, 7) + TELLS]
    assert_same_bits(model.flat_params, fitted().flat_params)
    longer = fitted(checkpoint=path, resume=True, epochs=5)
    assert_same_bits(longer.flat_params, fitted(epochs=5).flat_params)


def test_after_a_failure_the_last_whole_checkpoint_is_there_and_continues(tmp_path, full):
    path, seen = tmp_path / "c", {}
    full(14, 21, 28)

    def on_epoch(progress):
        seen[progress.update] = path.read_bytes()

    with pytest.warns(UserWarning, match="cannot write") as warned:
        model = fitted(checkpoint=path, on_epoch=on_epoch)
    # The first of several failures is told, and the last one when training has ended.
    assert [str(each.message) for each in warned] == [cannot(path, 14, 7) + TELLS, cannot(path, 28, 7)]
    assert len(set(seen.values())) == 1
    assert os.listdir(tmp_path) == ["c"]
    full()
    log = crnn.TrainingLog()
    assert_same_bits(fitted(checkpoint=path, resume=True, log=log).flat_params, model.flat_params)
    assert log.notes[0] == "resuming at epoch 2, update 7"


def test_a_disk_that_is_full_from_the_first_checkpoint_on_leaves_the_model(tmp_path, full):
    path, log = tmp_path / "c", crnn.TrainingLog()
    full(*range(40))
    with pytest.warns(UserWarning, match="cannot write") as warned:
        model = fitted(checkpoint=path, log=log)
    assert [str(each.message) for each in warned] == [cannot(path, 7) + TELLS, cannot(path, 28)]
    assert_same_bits(model.flat_params, fitted().flat_params)
    assert log.of_kind("end")[0]["notes"] == log.notes
    assert not path.exists()


def test_a_folder_that_is_gone_for_a_while(tmp_path):
    """Without a function replaced: the system's own error."""
    folder, log = tmp_path / "mounted", crnn.TrainingLog()
    folder.mkdir()

    def on_epoch(progress):
        if progress.epoch in (1, 3):
            os.rename(*(folder, tmp_path / "away")[:: 2 - progress.epoch])

    with pytest.warns(UserWarning, match=r"after update 14 \(expected a folder that exists, got .*update 7; training"):
        model = fitted(checkpoint=folder / "c", log=log, on_epoch=on_epoch)
    again = fitted(checkpoint=folder / "c", resume=True)
    assert_same_bits(again.flat_params, model.flat_params)


def test_within_an_epoch_the_next_try_is_when_the_next_checkpoint_is_due(tmp_path, full):
    attempts = full(3, 7, 10)
    with pytest.warns(UserWarning, match="cannot write") as warned:
        fitted(checkpoint=tmp_path / "c", checkpoint_updates=3, epochs=2)
    assert attempts == [3, 6, 7, 10, 13, 14]
    assert len(warned) == 2  # after one that was written, a failure is told again


def test_an_interrupted_run_says_that_its_last_updates_are_not_saved(tmp_path, full):
    path = tmp_path / "c"
    full(18)

    def schedule(update, total):
        if update == 17:
            signal.raise_signal(signal.SIGINT)
        return 1.0

    says = r"the best so far$"
    with pytest.warns(UserWarning, match="cannot write") as warned, pytest.raises(Interrupted, match=says):
        fitted(checkpoint=path, schedule=schedule)
    assert [str(each.message) for each in warned] == [cannot(path, 18, 14)]
    assert_same_bits(fitted(checkpoint=path, resume=True).flat_params, fitted().flat_params)


def test_warnings_that_are_errors_end_training_as_every_exception_does(tmp_path, full):
    full(14)
    model = language_model()
    with pytest.raises(UserWarning, match="cannot write"):  # as pytest's settings here say
        fitted(model, checkpoint=tmp_path / "c")
    assert_same_bits(model.flat_params, fitted(epochs=2).flat_params)
    assert_same_bits(crnn.load(tmp_path / "c").flat_params, fitted(epochs=1).flat_params)


def test_a_checkpoint_that_cannot_be_written_at_the_start_is_refused(tmp_path):
    model = language_model()
    before = model.flat_params.copy()
    with pytest.raises(FileNotFoundError, match=r"^checkpoint: expected a folder that exists"):
        fitted(model, checkpoint=tmp_path / "nowhere" / "c")
    assert_same_bits(model.flat_params, before)


def test_a_failure_on_rank_0_does_not_part_the_ranks(tmp_path, full):
    """Also if training ends with the state that could not be written, which has that of all rows."""
    full(3)

    def train(comm):
        leads = comm.rank == 0
        model = language_model()

        def on_update(progress):
            return progress.update == 3

        with pytest.warns(UserWarning, match="cannot write") if leads else contextlib.nullcontext():
            fitted(model, comm=comm, shards=3, checkpoint=tmp_path / "c", checkpoint_updates=1, on_update=on_update)
        return model

    one, other = on_ranks(2, train)
    assert_same_bits(one.flat_params, other.flat_params)
    resumed = fitted(shards=3, checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(resumed.flat_params, fitted(shards=3).flat_params)


# ---- the log's file --------------------------------------------------------------------------------------------------


class Full(io.FileIO):
    """A file on a disk that has room for so many bytes. Of the last line it takes a part, as the system does."""

    room = 0

    def write(self, content):
        taken = min(len(content), max(Full.room - self.tell(), 0))
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content[:taken])


@pytest.fixture
def room(monkeypatch):
    """Call it with how many bytes the disk has room for."""
    monkeypatch.setattr(log_file, "_opened", lambda path, mode: Full(path, mode.replace("b", "")))

    def of(size):
        Full.room = size

    of(10**6)
    return of


def written(path):
    """The entries in a log, or its rows, which are whole lines."""
    lines = path.read_text().splitlines(keepends=True)
    assert lines[-1].endswith("\n")
    return [json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_lines_that_find_no_room_are_added_when_there_is_some(tmp_path, room, name):
    path, log, sizes = tmp_path / name, crnn.TrainingLog(), []

    def on_epoch(progress):
        sizes.append(len(written(path)))
        room(path.stat().st_size + 30 if progress.epoch == 1 else 10**6 if progress.epoch == 3 else Full.room)

    model = fitted(log_file=path, log=log, on_epoch=on_epoch)
    assert_same_bits(model.flat_params, fitted().flat_params)
    assert sizes[0] == sizes[1] == sizes[2] < sizes[3]
    (log.to_jsonl if name.endswith("jsonl") else log.to_csv)(tmp_path / f"whole-{name}")
    assert path.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def test_a_log_that_stays_incomplete_is_an_error_after_everything_else_is_saved(tmp_path, room):
    path, log, model = tmp_path / "log.jsonl", crnn.TrainingLog(), language_model()
    room(4000)
    with pytest.raises(OSError, match=r"No space left on device: '.*log\.jsonl'$"):
        fitted(model, log_file=path, log=log, checkpoint=tmp_path / "c")
    assert_same_bits(model.flat_params, fitted().flat_params)
    lines = written(path)
    assert lines == log.entries[: len(lines)]
    assert 0 < len(lines) < len(log.entries)
    room(10**6)
    longer = fitted(checkpoint=tmp_path / "c", resume=True, epochs=5, log_file=path, log=(again := crnn.TrainingLog()))
    assert_same_bits(longer.flat_params, fitted(epochs=5).flat_params)
    assert written(path) == again.entries


def test_a_log_whose_folder_is_gone_for_a_while_is_written_again_in_whole(tmp_path):
    folder, log = tmp_path / "logs", crnn.TrainingLog()
    folder.mkdir()

    def on_epoch(progress):
        if progress.epoch == 1:
            shutil.rmtree(folder)
        if progress.epoch == 3:
            folder.mkdir()

    fitted(log_file=folder / "log.jsonl", log=log, on_epoch=on_epoch)
    assert written(folder / "log.jsonl") == log.entries


# ---- in the shell ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs ``crnn train text.txt -o m``. Returns exit status and standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(text(600), newline="")

    def train(*arguments):
        status = cli.main(["train", "text.txt", "-o", "m", *TINY, *arguments])
        return status, capsys.readouterr().err

    return train


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_the_shell_is_told_and_the_model_is_written(run, full, quiet):
    full(34, 51, 68)
    status, err = run(*quiet)
    first, last = cannot("m.checkpoint", 34, 17) + TELLS, cannot("m.checkpoint", 68, 17)
    assert status == 0
    assert [line for line in err.splitlines() if "cannot" in line] == [f"--{first}", f"--{last}"]
    assert "\nwrote m\n" in err
    assert "to train longer, with more --epochs (from update 17; move m away first): crnn train text.txt -o m" in err


@pytest.mark.parametrize(("valid", "windows"), [([], 17), (["--valid", "0"], 18)])
def test_an_interrupted_run_loses_no_weights_and_the_command_that_continues_works(
    run, full, monkeypatch, valid, windows
):
    def schedule(update, total):
        if update == 40:
            signal.raise_signal(signal.SIGINT)
        return 1.0

    constant = ["--schedule", "constant"]
    assert run("--checkpoint", "whole.checkpoint", *constant, *valid)[0] == 0
    os.rename("m", "whole")
    full(2 * windows, 41)
    with monkeypatch.context() as patched:
        patched.setitem(crnn.optim.SCHEDULES, "constant", lambda warmup: schedule)
        status, err = run(*constant, *valid)
    assert status == 130
    assert "\nwrote m" in err
    last = err.splitlines()[-1]
    hint = f"to continue (from update {windows}; move m away first): crnn train text.txt -o m "
    assert last == f"{hint}{' '.join([*TINY, *constant, *valid])} --resume"
    assert run(*constant, *valid, "--resume")[0] == 1
    os.rename("m", "away")
    status, err = run(*constant, *valid, "--resume")
    assert status == 0
    assert f"resuming at epoch 2, update {windows}\n" in err
    with open("m", "rb") as one, open("whole", "rb") as other:
        assert one.read() == other.read()
