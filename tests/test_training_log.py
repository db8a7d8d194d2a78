# SPDX-License-Identifier: MIT
"""What fit tells: the log in Python, as CSV and as JSON lines, its file as it grows, and from it."""

import copy
import csv
import json
import pickle

import numpy as np
import pytest
from model_tools import language_model

import crnn
import crnn.training.log
from crnn.training import config
from crnn.training.config import TrainingConfig
from crnn.training.entries import KINDS, LONGEST_LINE, TABLE_COLUMNS
from crnn.training.log_file import read_runs

IDS = np.random.default_rng(8).integers(12, size=104)
SETTINGS = {"epochs": 3, "batch_size": 3, "bptt": 5}  # 7 windows an epoch of 102 predictions, 3 times 34 steps


def fitted(**options):
    return crnn.fit(language_model(), IDS, **(SETTINGS | options))


def rows_of(log):
    """The entries that a table has."""
    return [entry for entry in log.entries if entry["kind"] in ("train", "epoch")]


def test_entries_say_what_happened():
    log = fitted(valid=IDS[:20], log_every=3, optimizer=crnn.optim.Adam(0.01), schedule=crnn.optim.linear())
    updates = [(entry["kind"], entry["epoch"], entry["update"]) for entry in rows_of(log)]
    assert updates == [
        ("train", 1, 3), ("train", 1, 6), ("train", 1, 7), ("epoch", 1, 7),
        ("train", 2, 9), ("train", 2, 12), ("train", 2, 14), ("epoch", 2, 14),
        ("train", 3, 15), ("train", 3, 18), ("train", 3, 21), ("epoch", 3, 21),
    ]  # fmt: skip
    assert log.column("tokens") == [45, 45, 12, 30, 45, 27, 15, 45, 42]
    assert log.column("tokens", "epoch") == [102] * 3
    every = fitted(valid=IDS[:20], log_every=1, optimizer=crnn.optim.Adam(0.01), schedule=crnn.optim.linear())
    nats, tokens = np.array(every.column("train_loss")), np.array(every.column("tokens"))
    assert log.column("train_loss")[0] == pytest.approx(nats[:3].mean())
    epochs = [np.average(nats[a : a + 7], weights=tokens[a : a + 7]) for a in (0, 7, 14)]
    assert log.column("train_loss", "epoch") == pytest.approx(epochs)
    np.testing.assert_allclose(every.column("lr"), 0.01 * (1 - np.arange(21) / 21))
    assert log.column("lr") == [every.column("lr")[update - 1] for update in log.column("update")]
    assert log.column("grad_norm") == [every.column("grad_norm")[update - 1] for update in log.column("update")]
    for entry in rows_of(log):
        assert entry["seconds"] > 0
        if entry["kind"] == "train":
            assert entry["tokens_per_second"] == pytest.approx(entry["tokens"] / entry["seconds"])
    assert len(log.column("valid_loss", "epoch")) == log.epochs == 3


def test_an_epoch_that_max_updates_ends_is_logged():
    log = fitted(max_updates=9, log_every=100)
    assert [(entry["kind"], entry["epoch"], entry["update"]) for entry in rows_of(log)] == [
        ("train", 1, 7), ("epoch", 1, 7), ("train", 2, 9), ("epoch", 2, 9)
    ]  # fmt: skip


def test_json_lines_hold_every_entry_and_a_table_those_with_losses(tmp_path):
    log = fitted(valid=IDS[:20], log_every=3)
    log.to_csv(tmp_path / "log.csv")
    log.to_jsonl(tmp_path / "log.jsonl")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log.entries
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, entry in zip(rows, rows_of(log), strict=True):
        assert {name: value for name, value in row.items() if value} == {name: str(entry[name]) for name in entry}


def test_the_log_file_grows_entry_by_entry_and_is_appended_to(tmp_path):
    path, seen = tmp_path / "log.jsonl", []

    def on_epoch(progress):
        seen.append([json.loads(line) for line in path.read_text().splitlines()] == progress.log.entries)

    log = fitted(log_file=path, log_every=3, on_epoch=on_epoch)
    assert seen == [True] * 3
    again = fitted(log_file=path, log_every=3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == log.entries + again.entries


def test_on_epoch_gets_the_log_after_each_epoch():
    seen = []
    log = fitted(on_epoch=lambda progress: seen.append((progress.log, progress.log.epochs)))
    assert seen == [(log, 1), (log, 2), (log, 3)]


def test_a_given_log_is_filled_even_when_training_fails():
    log = crnn.TrainingLog()
    assert fitted(log=log) is log
    assert log.epochs == 3
    log = crnn.TrainingLog()

    def fail(progress):
        raise KeyError("the application's own")

    with pytest.raises(KeyError):
        fitted(log=log, on_epoch=fail)
    assert log.epochs == 1


def test_the_best_epoch_and_how_long_ago_it_was():
    log = crnn.TrainingLog()
    for epoch, nats in enumerate([2.0, 1.0, 1.0, 3.0], 1):
        log.add_training(epoch, epoch, nats, 10, 0.1, 1e-3, 1.0)
        assert log.add_validation(nats, 0.5) == (epoch < 3)  # as good as the best is no better
        log.end_epoch()
        assert log.best["epoch"] == min(epoch, 2)
    assert log.epochs_since_best == 2
    log.add_training(5, 5, 1.5, 10, 0.1, 1e-3, 1.0)
    log.end_epoch()  # this one was not judged
    assert "valid_loss" not in log.entries[-1]
    assert log.epochs_since_best == 3
    assert log.summary() == "epoch 5, update 5: train 1.5000 nats, gradient norm 1, 100 tokens/s"
    assert crnn.TrainingLog().summary() == "no epoch finished"
    assert crnn.TrainingLog().epochs_since_best == 0


def test_the_summary_marks_the_best():
    log = fitted(valid=IDS[:20], epochs=1)
    assert log.summary().startswith("epoch 1 of 1, update 7 of 7: train ")
    assert f"valid {log.best['valid_loss']:.4f} (best)" in log.summary()


def test_the_summary_of_another_epoch_says_which_is_the_best():
    log = crnn.TrainingLog()
    for epoch, nats in enumerate([1.0, 2.0], 1):
        log.add_training(epoch, 1000 * epoch, nats, 10, 0.1, 1e-3, 0.25)
        log.add_validation(nats + 1, 0.5)
        log.end_epoch()
    assert log.summary() == (
        "epoch 2, update 2,000: train 2.0000 nats, valid 3.0000 (best 2.0000, epoch 1), "
        "gradient norm 0.25, 100 tokens/s"
    )
    log.counted = "targets"
    assert "(best 2.0000, epoch 1), accuracy 50.0 %, gradient norm 0.25, 100 targets/s" in log.summary()
    assert log.summary(width=90) == (
        "epoch 2: train 2.0000 nats, valid 3.0000 (best 2.0000, epoch 1), accuracy 50.0 %"
    )
    assert log.summary(width=70) == "epoch 2: train 2.0000 nats, valid 3.0000, accuracy 50.0 %"
    assert log.summary(width=50) == "epoch 2: train 2.0000 nats, valid 3.0000"
    assert log.summary(width=20) == "epoch 2: train 2.0000 nats"


def test_the_time_of_an_epoch_is_that_of_its_parts():
    log = fitted(log_every=1)
    seconds = log.column("seconds")
    assert log.column("seconds", "epoch") == pytest.approx([sum(seconds[a : a + 7]) for a in (0, 7, 14)])


def test_an_epoch_that_cannot_be_judged_is_never_the_best():
    log = crnn.TrainingLog()
    for epoch, loss in enumerate([float("nan"), 2.0, float("nan"), 1.0], 1):
        log.add_training(epoch, epoch, 1.0, 10, 0.1, 1e-3, 1.0)
        assert log.add_validation(loss, None) == (loss == loss)
        log.end_epoch()
    assert log.best["epoch"] == 4
    assert log.epochs_since_best == 0


# ---- reading a log's file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_log_is_read_back_from_its_file(tmp_path, name):
    log = fitted(valid=IDS[:20], log_every=3, log_file=tmp_path / name)
    again = crnn.TrainingLog.from_file(tmp_path / name)
    kinds = ("train", "epoch") if name.endswith("csv") else KINDS
    assert again.entries == [entry for entry in log.entries if entry["kind"] in kinds]
    assert (again.epochs, again.updates, again.best, again.last) == (3, 21, log.best, log.last)
    (log.to_csv if name.endswith("csv") else log.to_jsonl)(tmp_path / f"again {name}")
    assert crnn.TrainingLog.from_file(tmp_path / f"again {name}").entries == again.entries


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_of_several_runs_in_a_file_the_last_is_read(tmp_path, name):
    for epochs in (1, 3, 2):
        log = fitted(log_every=3, log_file=tmp_path / name, epochs=epochs)
    again = crnn.TrainingLog.from_file(tmp_path / name)
    assert again.epochs == 2
    assert again.column("train_loss") == log.column("train_loss")
    assert [sum(entry["kind"] == "epoch" for entry in run) for run in read_runs(tmp_path / name)] == [1, 3, 2]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_run_that_ended_before_its_first_epoch_is_no_part_of_the_next(tmp_path, name):
    for epochs in (1, 2):
        fitted(log_every=3, log_file=tmp_path / name, epochs=epochs, max_updates=None if epochs == 2 else 3)
        if epochs == 1:  # as if it had been killed
            lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
            first = next(number for number, line in enumerate(lines) if b"train" in line and b"train_loss," not in line)
            (tmp_path / name).write_bytes(b"".join(lines[: first + 1]))
    assert [sum(entry["kind"] == "epoch" for entry in run) for run in read_runs(tmp_path / name)] == [0, 2]


def test_a_log_is_copied_and_pickled_while_it_is_written_to_a_file(tmp_path):
    copies = []
    log = fitted(log_file=tmp_path / "log", on_epoch=lambda progress: copies.append(pickle.dumps(progress.log)))
    assert [pickle.loads(each).epochs for each in copies] == [1, 2, 3]
    copy.deepcopy(log).add("sample", prompt="", text="", temperature=1.0)
    assert len((tmp_path / "log").read_bytes().splitlines()) == len(log.entries)


def test_a_resumed_run_is_one_run(tmp_path):
    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log.jsonl", "log_every": 2}
    fitted(max_updates=10, **files)
    fitted(resume=True, **files)
    [run] = read_runs(tmp_path / "log.jsonl")
    assert [entry["update"] for entry in run if entry["kind"] == "epoch"] == [7, 14, 21]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_line_that_was_cut_off_is_left_out_when_a_log_is_read(tmp_path, name):
    log, path = fitted(log_every=1), tmp_path / name
    (log.to_csv if name.endswith("csv") else log.to_jsonl)(path)
    path.write_bytes(path.read_bytes()[:-9])
    entries = rows_of(log) if name.endswith("csv") else log.entries
    assert crnn.TrainingLog.from_file(path).entries == entries[:-1]


def test_losses_that_are_no_numbers_are_read_back(tmp_path):
    log = crnn.TrainingLog()
    for epoch, loss in enumerate([float("nan"), float("inf"), 2.5], 1):
        log.add_training(epoch, epoch, 1.0, 10, 0.1, 1e-3, 1.0)
        log.add_validation(loss, None)
        log.end_epoch()
    for name, write in (("log.csv", log.to_csv), ("log", log.to_jsonl)):
        write(tmp_path / name)
        again = crnn.TrainingLog.from_file(tmp_path / name)
        assert list(map(str, again.column("valid_loss", "epoch"))) == ["nan", "inf", "2.5"]
        assert again.best["epoch"] == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", b"time,loss\n1,2\n"),
        ("log.csv", ",".join(TABLE_COLUMNS).encode() + b"\nepoch,1,2\n"),
        ("log.csv", ",".join(TABLE_COLUMNS).encode() + b"\nepoch,1,seven,2.0,10,1.0,,,,,\n"),
        ("log.csv", b"\xff\n"),
        ("log.jsonl", b"a text\n"),
        ("log.jsonl", b"[" * 100_000 + b"\n"),
        ("log.jsonl", b'{"kind": "sample", "epoch": 1}\n'),
        ("log.jsonl", b"\xff\xfe\n"),
    ],
)
def test_a_file_that_is_no_log_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: expected the log of a training, (got in line|whose first)"):
        crnn.TrainingLog.from_file(tmp_path / name)


def test_a_line_that_is_longer_than_those_of_any_log_is_refused(tmp_path):
    sample = {"kind": "sample", "epoch": 0, "update": 0, "prompt": "", "text": "", "temperature": 1.0}
    for size, fits in ((LONGEST_LINE - 200, True), (LONGEST_LINE, False)):
        (tmp_path / "log").write_text(json.dumps(sample | {"text": "x" * size}) + "\n")
        if fits:
            assert len(crnn.TrainingLog.from_file(tmp_path / "log").entries) == 1
        else:
            with pytest.raises(ValueError, match="in line 1"):
                crnn.TrainingLog.from_file(tmp_path / "log")


def test_an_empty_file_is_an_empty_log(tmp_path):
    (tmp_path / "log").write_bytes(b"")
    assert crnn.TrainingLog.from_file(tmp_path / "log").entries == []


# ---- what a log shows ------------------------------------------------------------------------------------------------


def test_a_log_shows_how_far_the_run_came_and_what_was_said():
    log = crnn.TrainingLog()
    assert repr(log) == "TrainingLog: 0 epochs, 0 updates"
    for epoch, nats in enumerate([2.0, 1.0, 1.5], 1):
        log.add_training(epoch, 500 * epoch, nats, 1000, 0.5, 1e-3, 1.0)
        log.add_validation(nats + 1, 0.5)
        log.end_epoch()
    log.notes.append("resuming at epoch 2, update 500")
    assert repr(log) == (
        "TrainingLog: 3 epochs, 1,500 updates, train 1.5000 nats, best valid 2.0000 in epoch 2, 2,000 tokens/s, 1.5 s\n"
        "  resuming at epoch 2, update 500"
    )


def test_a_log_shows_itself_in_a_notebook():
    log = fitted(valid=IDS[:20], log_every=1)
    shown = log._repr_html_()
    assert shown.startswith("<div")
    for part in ("<svg", "3 epochs", "finished", "21"):
        assert part in shown
    assert crnn.TrainingLog()._repr_html_().startswith("<div")


def test_a_log_plots_its_losses():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    log = fitted(valid=IDS[:20], log_every=1)
    figure, axes = pyplot.subplots()
    try:
        assert log.plot(axes) is axes
        train, valid, best = axes.lines
        assert list(train.get_xdata()) == list(range(1, 22))
        assert list(train.get_ydata()) == log.column("train_loss")
        assert list(valid.get_xdata()) == [7, 14, 21]
        assert list(valid.get_ydata()) == log.column("valid_loss", "epoch")
        assert list(best.get_ydata()) == [log.best["valid_loss"]]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("update", "loss (nats)")
        assert len(fitted().plot(axes).lines) == 4  # another run in the same axes
        assert crnn.TrainingLog().plot(axes) is axes
    finally:
        pyplot.close(figure)


def test_costs_of_a_log_do_not_grow_with_its_length():
    """No property or method that training calls looks at old entries."""

    class Counted(list):
        seen = 0

        def __iter__(self):
            Counted.seen += len(self)
            return super().__iter__()

        def __getitem__(self, index):
            Counted.seen += 1
            return super().__getitem__(index)

    log = crnn.TrainingLog()
    vars(log)["entries"] = Counted()
    for epoch in range(1, 101):
        log.add_training(epoch, epoch, 1 / epoch, 10, 0.1, 1e-3, 1.0)
        log.add_validation(1 / epoch, None)
        log.end_epoch()
        log.add("sample", prompt="", text="x", temperature=1.0)
        assert (log.epochs, log.best["epoch"], log.epochs_since_best) == (epoch, epoch, 0)
        assert log.summary().startswith(f"epoch {epoch}, update {epoch}: ")
    assert Counted.seen == 0


def test_epochs_are_finished_with_all_that_follows_them_but_updates():
    log = crnn.TrainingLog()
    assert log.finished_epochs() == []
    log.add("sample", prompt="", text="x", temperature=1.0)
    log.add_training(1, 1, 2.0, 10, 0.1, 1e-3, 1.0)
    assert [entry["kind"] for entry in log.finished_epochs()] == ["sample"]
    log.end_epoch()
    log.add("sample", prompt="", text="y", temperature=1.0)
    expected = list(log.entries)
    assert log.finished_epochs() == expected
    log.add_training(2, 2, 2.0, 10, 0.1, 1e-3, 1.0)
    log.add("sample", prompt="", text="z", temperature=1.0)
    assert log.finished_epochs() == expected
    assert [(entry["epoch"], entry["update"]) for entry in log.entries if entry["kind"] == "sample"] == [
        (0, 0), (1, 1), (1, 2)
    ]  # fmt: skip
    again = crnn.TrainingLog()
    again.restore(log.entries)
    again.end_epoch()
    log.end_epoch()
    assert again.entries == log.entries


@pytest.mark.parametrize(
    ("updates", "windows", "expected"),
    [
        (5, 5, 1), (199, 199, 1), (1000, 1000, 10), (9_999, 9_999, 99), (10_000, 10_000, 100), (10**7, 10**6, 100),
        (1065, 71, 9), (1000, 2, 2), (1000, 10, 10), (1000, 11, 6), (10**7, 101, 51), (3, 0, 1),
    ],
)  # fmt: skip
def test_a_run_has_a_hundred_entries_or_one_an_epoch_however_short_it_is(updates, windows, expected):
    assert TrainingConfig().updates_per_entry(updates, windows) == expected
    assert TrainingConfig(log_every=7).updates_per_entry(updates, windows) == 7


def test_entries_divide_an_epoch_evenly(monkeypatch):
    monkeypatch.setattr(config, "LOG_ENTRIES", 5)  # at most 4 of 21 updates, of which an epoch has 7
    log = fitted()
    assert log.column("update") == [4, 7, 11, 14, 18, 21]


def test_a_short_run_has_an_entry_for_each_update():
    assert fitted().column("update") == list(range(1, 22))
