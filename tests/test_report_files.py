# SPDX-License-Identifier: MIT
"""Reports of trainings: the option `report`, `TrainingLog.report` and ``crnn report``; and which files they replace."""

import json
import re

import numpy as np
import pytest
import report_tools as tools
from model_tools import language_model

import crnn
from crnn import cli
from crnn.io.lock import FileLock
from crnn.report import page
from crnn.training import report_page

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

IDS = np.random.default_rng(8).integers(12, size=104)
SETTINGS = {"epochs": 3, "batch_size": 3, "bptt": 5, "valid": IDS[:40], "progress": False}
TINY = ["--hidden", "5", "--epochs", "2", "--batch", "4", "--bptt", "8"]


def fitted(**options):
    return crnn.fit(language_model(), IDS, **SETTINGS | options)


def ended(path):
    """How training ended, by the page about it."""
    content = path.read_text("utf-8")
    assert page.is_report(path)
    return re.search(r"Training (?:has |was )?[\w ]+", content)[0]


class Broken(Exception):
    pass


def breaks(error):
    """A schedule that raises at the fifth update."""

    def schedule(update, total):
        if update == 4:
            raise error
        return 1.0

    return schedule


# ---- the option ------------------------------------------------------------------------------------------------------


def test_a_page_is_written_when_training_is_finished(tmp_path):
    path = tmp_path / "run.html"
    fitted(report=path)
    assert ended(path) == "Training has finished"
    assert 'id="curves"' in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(KeyboardInterrupt(), "Training was interrupted"), (Broken(), "Training failed")],
    ids=["interrupted", "failed"],
)
def test_a_page_is_written_however_training_ends(tmp_path, error, expected):
    path = tmp_path / "run.html"
    with pytest.raises(type(error)):
        fitted(report=path, schedule=breaks(error))
    assert ended(path) == expected


def test_a_page_is_written_after_nan(tmp_path):
    path = tmp_path / "run.html"
    with pytest.raises(FloatingPointError):
        fitted(report=path, schedule=lambda update, total: 1.0 if update < 3 else 1e300)
    assert ended(path) == "Training diverged"


def test_pages_are_written_in_between(tmp_path, monkeypatch):
    monkeypatch.setattr(report_page, "SECONDS", 0.0)
    monkeypatch.setattr(report_page, "LARGEST_SHARE", float("inf"))
    path, seen = tmp_path / "run.html", []
    fitted(report=path, on_epoch=lambda *_: seen.append(path.read_text("utf-8")))
    assert len(seen) == 3
    assert all("Training has not ended" in content for content in seen)


def test_pages_are_not_written_in_between_within_a_minute(tmp_path):
    path, seen = tmp_path / "run.html", []
    fitted(report=path, on_epoch=lambda *_: seen.append(path.exists()))
    assert seen == [False] * 3


def test_a_page_that_took_long_is_not_written_again_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(report_page, "SECONDS", 0.0)
    path, seen = tmp_path / "run.html", []
    fitted(report=path, on_epoch=lambda *_: seen.append(path.stat().st_mtime_ns))
    assert len(set(seen)) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("an entry of a callback")])
def test_training_continues_if_a_page_cannot_be_written_in_between(tmp_path, monkeypatch, error):
    monkeypatch.setattr(report_page, "SECONDS", 0.0)
    path, tries = tmp_path / "run.html", []

    def full(*_, **__):
        tries.append(1)
        raise error

    monkeypatch.setattr(crnn.TrainingLog, "report", full)
    log = crnn.TrainingLog()
    with pytest.raises(type(error), match=r"No space left|an entry of a callback"):
        fitted(report=path, log=log)
    assert log.epochs == 3
    assert len(tries) >= 2
    assert log.entries[-1]["reason"] == "finished"


def test_an_existing_page_is_replaced_only_by_a_run_that_is_resumed_or_restarted(tmp_path):
    path, checkpoint = tmp_path / "run.html", tmp_path / "run.checkpoint"
    fitted(report=path, checkpoint=checkpoint)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"report: expected a new file, got .*run\.html, which exists"):
        fitted(report=path)
    assert path.read_bytes() == before
    fitted(report=path, checkpoint=checkpoint, resume=True, epochs=4)
    assert "4" in re.search(r"<dt>epochs</dt><dd>(\d+)</dd>", path.read_text("utf-8"))[1]
    fitted(report=path, restart=True)
    assert re.search(r"<dt>epochs</dt><dd>(\d+)</dd>", path.read_text("utf-8"))[1] == "3"


@pytest.mark.parametrize("options", [{}, {"restart": True}])
def test_another_file_is_never_replaced(tmp_path, options):
    path = tmp_path / "thesis.html"
    path.write_text("<p>my thesis")
    model = language_model()
    before = model.flat_params.copy()
    with pytest.raises(FileExistsError, match="report: expected a new file, or a report of crnn to replace"):
        crnn.fit(model, IDS, report=path, **SETTINGS, **options)
    assert path.read_text() == "<p>my thesis"
    assert (model.flat_params == before).all()


def test_a_page_that_cannot_be_written_is_refused_before_work_starts(tmp_path):
    with pytest.raises(FileNotFoundError, match="report: expected a folder that exists"):
        fitted(report=tmp_path / "none" / "run.html")
    with pytest.raises(IsADirectoryError, match="report: expected a file, got a folder"):
        fitted(report=tmp_path)
    with pytest.raises(ValueError, match="log_file and report: expected different files"):
        fitted(report=tmp_path / "a.jsonl", log_file=tmp_path / "a.jsonl")
    with pytest.raises(TypeError, match="report: expected"):
        fitted(report=3)
    with pytest.raises(ValueError, match=r"report: expected a name that ends in \.html, .*, got .*run\.pdf"):
        fitted(report=tmp_path / "run.pdf")
    lock = FileLock(str(tmp_path / "run.html"))
    lock.acquire()
    try:
        with pytest.raises(BlockingIOError, match="report: expected a file that no other run writes"):
            fitted(report=tmp_path / "run.html")
    finally:
        lock.release()


def test_the_log_file_alone_gives_the_same_page(tmp_path):
    fitted(report=tmp_path / "run.html", log_file=tmp_path / "run.jsonl")
    crnn.TrainingLog.from_file(tmp_path / "run.jsonl").report(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "run.html").read_bytes()


def test_a_page_changes_no_result(tmp_path):
    plain, reported = language_model(), language_model()
    crnn.fit(plain, IDS, **SETTINGS)
    crnn.fit(reported, IDS, report=tmp_path / "run.html", **SETTINGS)
    assert (plain.flat_params == reported.flat_params).all()


def test_a_log_shows_itself_in_a_notebook():
    shown = fitted()._repr_html_()
    assert "3 epochs" in shown
    assert "<svg" in shown


# ---- crnn train --report ---------------------------------------------------------------------------------------------


def test_train_writes_a_page(tmp_path, text_file, capsys):
    arguments = ["train", str(text_file), "-o", str(tmp_path / "m.safetensors"), "--report", str(tmp_path / "r.html")]
    assert cli.main([*arguments, *TINY]) == 0
    assert "<h1>m.safetensors</h1>" in (tmp_path / "r.html").read_text("utf-8")
    assert f"\nwrote {tmp_path / 'r.html'}\n" in capsys.readouterr().err
    assert cli.main(["train", str(text_file), "-o", str(tmp_path / "n"), "--report", str(tmp_path / "r.html")]) == 1
    assert "--report: expected a new file, got" in capsys.readouterr().err
    assert cli.main([*arguments, *TINY, "--restart"]) == 0


def test_train_does_not_write_a_page_over_the_text(tmp_path, text_file, capsys):
    before = text_file.read_bytes()
    assert cli.main(["train", str(text_file), "-o", str(tmp_path / "m"), "--report", str(text_file)]) == 1
    assert "text and --report: expected different files" in capsys.readouterr().err
    assert text_file.read_bytes() == before


# ---- crnn report -----------------------------------------------------------------------------------------------------


def as_lines(entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.fixture
def logs(tmp_path):
    """Logs of three kinds of models, and a table."""
    made = {"lm": tools.language_model_entries(), "digits": tools.classifier_entries()}
    for name, entries in made.items():
        (tmp_path / f"{name}.jsonl").write_text(as_lines(entries))
    log = crnn.TrainingLog()
    log.restore(tools.curve_entries())
    log.to_csv(tmp_path / "table.csv")
    return [tmp_path / name for name in ("lm.jsonl", "digits.jsonl", "table.csv")]


def report(*arguments):
    return cli.main(["report", *map(str, arguments)])


def test_logs_of_different_kinds_are_shown_side_by_side(tmp_path, logs, capsys):
    assert report(*logs, "-o", tmp_path / "run.html", "--title", "All <of> them") == 0
    content = (tmp_path / "run.html").read_text("utf-8")
    assert capsys.readouterr().err == f"wrote {tmp_path / 'run.html'}\n"
    assert "<h1>All &lt;of&gt; them</h1>" in content
    for name in ("lm", "digits", "table"):
        assert f"</svg>{name}</label>" in content


def test_a_report_is_replaced_and_another_file_is_not(tmp_path, logs, capsys):
    path = tmp_path / "run.html"
    assert report(logs[0], "-o", path) == 0
    assert report(logs[1], "-o", path) == 0
    assert "<h1>digits</h1>" in path.read_text("utf-8")
    path.write_text("mine")
    assert report(logs[0], "-o", path) == 1
    assert "--output: expected a new file, or a report of crnn to replace, got another file" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_a_log_is_not_replaced_by_its_page(tmp_path, logs, capsys):
    before = logs[0].read_bytes()
    assert report(logs[0], "-o", logs[0]) == 1
    assert "RUN and --output: expected different files" in capsys.readouterr().err
    assert logs[0].read_bytes() == before


def test_a_checkpoint_is_a_run(tmp_path):
    checkpoint = tmp_path / "m.checkpoint"
    fitted(checkpoint=checkpoint)
    assert report(checkpoint, "-o", tmp_path / "run.html") == 0
    content = (tmp_path / "run.html").read_text("utf-8")
    assert "<h1>m.checkpoint</h1>" in content
    assert "<dt>epochs</dt><dd>3</dd>" in content


def test_a_log_that_is_being_written_is_read_up_to_its_last_whole_line(tmp_path):
    lines = as_lines(tools.language_model_entries())
    (tmp_path / "run.jsonl").write_text(lines[: len(lines) // 2])
    assert report(tmp_path / "run.jsonl", "-o", tmp_path / "run.html") == 0
    assert "Training has not ended" in (tmp_path / "run.html").read_text("utf-8")


def test_a_log_that_has_just_begun_makes_a_page(tmp_path):
    (tmp_path / "run.jsonl").touch()
    assert report(tmp_path / "run.jsonl", "-o", tmp_path / "run.html") == 0
    assert page.is_report(tmp_path / "run.html")


def test_the_runs_of_one_file_are_shown_side_by_side(tmp_path):
    (tmp_path / "runs.jsonl").write_text(as_lines(tools.language_model_entries() + tools.classifier_entries()))
    assert report(tmp_path / "runs.jsonl", "-o", tmp_path / "run.html") == 0
    content = (tmp_path / "run.html").read_text("utf-8")
    assert "runs, run 1</label>" in content
    assert "runs, run 2</label>" in content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "hello\n", "expected the log of a training (.jsonl or .csv), or a checkpoint, got another file"),
        ("a.html", "<p>\n", "expected the log of a training (.jsonl or .csv), or a checkpoint, got another file"),
        ("a.jsonl", '{"kind": "what"}\n', "expected the log of a training, got in line 1"),
        ("a.jsonl", "[" * 100_000 + "\n", "expected the log of a training, got in line 1"),
        ("a.csv", "a,b\n1,2\n", "expected the log of a training, whose first line names its columns"),
        ("a.bin", "\0" * 8 + "{", "a.bin: "),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_text(content)
    assert report(tmp_path / name, "-o", tmp_path / "run.html") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run.html").exists()


def test_a_model_is_no_run(tmp_path, capsys):
    language_model().save(tmp_path / "m.safetensors")
    assert report(tmp_path / "m.safetensors", "-o", tmp_path / "run.html") == 1
    assert "or a checkpoint, got a model without its log" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused(tmp_path, capsys):
    checkpoint = tmp_path / "m.checkpoint"
    fitted(checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert report(checkpoint, "-o", tmp_path / "run.html") == 1
    assert f"crnn report: {checkpoint}: " in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path, capsys):
    assert report(tmp_path / "none.jsonl", "-o", tmp_path / "run.html") == 1
    assert f"{tmp_path / 'none.jsonl'}: No such file or directory" in capsys.readouterr().err
