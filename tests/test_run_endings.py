# SPDX-License-Identifier: MIT
"""However training ends, the best weights are back, and checkpoint, log and model are saved."""

import csv
import json
import os
import re
import signal
import sys
import threading

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, text

import crnn
from crnn import cli
from crnn.training import trainer
from crnn.training.interrupts import Interrupted

pytestmark = pytest.mark.thread_unsafe  # signals and standard error are the process's

IDS = np.random.default_rng(8).integers(12, size=104)
# 7 windows an epoch
SETTINGS = {"epochs": 4, "batch_size": 3, "bptt": 5, "schedule": None, "clip_norm": None, "log_every": 2}
SIGNALS = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TINY = ["--hidden", "5", "--epochs", "4", "--batch", "4", "--bptt", "8", "--embedding", "0"]


@pytest.fixture(autouse=True)
def default_handlers():
    """Also where the tests run in the background of a shell, which ignores SIGINT there."""
    defaults = {name: signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL for name in SIGNALS}
    before = {name: signal.signal(getattr(signal, name), handler) for name, handler in defaults.items()}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def fitted(model=None, **options):
    model = language_model() if model is None else model
    options = {"optimizer": crnn.optim.Adam(lr=0.02), "valid": IDS[:40]} | SETTINGS | options
    crnn.fit(model, IDS, **options)
    return model


def at_update(number, act):
    """A schedule that acts at one update."""

    def schedule(update, total):
        if update == number:
            act()
        return 1.0

    return schedule


class Broken(Exception):
    pass


def fail(error):
    raise error


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- in Python -------------------------------------------------------------------------------------------------------


ENDS = {
    **{name: lambda name=name: signal.raise_signal(getattr(signal, name)) for name in SIGNALS},
    "a callback's exception": lambda: fail(Broken("callback")),
    "out of memory": lambda: fail(MemoryError("none left")),
    "KeyboardInterrupt": lambda: fail(KeyboardInterrupt()),
    "SystemExit": lambda: fail(SystemExit(3)),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["callback", "schedule"])
def test_every_end_puts_the_best_weights_back_and_saves_everything(tmp_path, end, where):
    whole, model, log, snapshots = fitted(), language_model(), crnn.TrainingLog(), []

    def on_epoch(progress):
        snapshots.append(model.flat_params.copy())
        if where == "callback" and log.epochs == 2:
            ENDS[end]()

    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log.jsonl"}
    schedule = at_update(17, ENDS[end]) if where == "schedule" else None
    with pytest.raises(BaseException, match=r".*") as caught:
        fitted(model, log=log, on_epoch=on_epoch, schedule=schedule, **files)
    assert isinstance(caught.value, KeyboardInterrupt | SystemExit | MemoryError | Broken)
    assert log.epochs == 2
    assert_same_bits(model.flat_params, snapshots[log.best["epoch"] - 1])
    assert_same_bits(crnn.load(files["checkpoint"]).flat_params, model.flat_params)
    assert entries(files["log_file"]) == log.entries
    resumed, again = language_model(), crnn.TrainingLog()
    fitted(resumed, resume=True, log=again, **files)
    assert_same_bits(resumed.flat_params, whole.flat_params)
    assert entries(files["log_file"]) == again.entries
    assert sorted(os.listdir(tmp_path)) == ["c", "log.jsonl"]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_raises_what_says_which_it_was_and_the_handlers_are_restored(name):
    signum = getattr(signal, name)
    before = {each: signal.getsignal(getattr(signal, each)) for each in SIGNALS}
    with pytest.raises(Interrupted, match=name) as caught:
        fitted(schedule=at_update(3, lambda: signal.raise_signal(signum)))
    assert (caught.value.signum, caught.value.status) == (signum, 128 + signum)
    assert {each: signal.getsignal(getattr(signal, each)) for each in SIGNALS} == before


@pytest.mark.parametrize(
    ("update", "options", "message"),
    [
        (3, {}, "interrupted by SIGINT at update 4 of 28; the model's weights are the latest"),
        (17, {}, "interrupted by SIGINT at update 18 of 28; the model's weights are those of epoch 2, the best so far"),
        (3, {"checkpoint": "c"}, "weights are the latest; resume=True continues from the checkpoint"),
    ],
)
def test_what_an_interrupted_run_has_kept_is_said(tmp_path, monkeypatch, update, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted) as caught:
        fitted(schedule=at_update(update, lambda: signal.raise_signal(signal.SIGINT)), **options)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_that_a_program_ignores_or_handles_is_left_to_it(name):
    signum, seen = getattr(signal, name), []
    for handler in (signal.SIG_IGN, lambda *_: seen.append(1)):
        before = signal.signal(signum, handler)
        try:
            fitted(schedule=at_update(3, lambda: signal.raise_signal(signum)))
            assert signal.getsignal(signum) is handler
        finally:
            signal.signal(signum, before)
    assert seen == [1]


def test_training_in_another_thread_leaves_signals_alone():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(fitted(on_epoch=lambda progress: seen.append(handlers()))))

    def handlers():
        return [signal.getsignal(getattr(signal, name)) for name in SIGNALS]

    before = handlers()
    thread.start()
    thread.join()
    assert seen[:4] == [before] * 4


@pytest.mark.parametrize("at", [8, 13, 16])
def test_a_second_signal_within_an_update_keeps_the_last_checkpoint(tmp_path, at):
    """The update is given up, and with it the state in the middle of the text."""
    whole, model, path = fitted(), language_model(), tmp_path / "c"

    def twice():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        fitted(model, checkpoint=path, checkpoint_updates=3, schedule=at_update(at, twice))
    resumed, log = language_model(), crnn.TrainingLog()
    fitted(resumed, checkpoint=path, resume=True, log=log)
    done = int(re.fullmatch(r"resuming at epoch \d, update (\d+)", log.notes[0])[1])
    assert at - 3 < done <= at
    assert_same_bits(resumed.flat_params, whole.flat_params)


def test_a_signal_while_everything_is_saved_does_not_keep_it_from_being_saved(tmp_path, monkeypatch):
    written = []
    plain = trainer.Checkpoint.write

    def write(self, run):
        if run.update == 18:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
        plain(self, run)
        written.append(run.update)

    monkeypatch.setattr(trainer.Checkpoint, "write", write)
    with pytest.raises(Interrupted):
        fitted(checkpoint=tmp_path / "c", schedule=at_update(17, lambda: signal.raise_signal(signal.SIGINT)))
    assert written[-1] == 18


def test_a_signal_during_a_long_validation_ends_it_and_the_epoch_is_not_lost(tmp_path, monkeypatch):
    whole, model, path = fitted(), language_model(), tmp_path / "c"
    evaluate, calls = model.evaluate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(model, "evaluate", interrupted)
    with pytest.raises(Interrupted):
        fitted(model, checkpoint=path)
    resumed, log = language_model(), crnn.TrainingLog()
    fitted(resumed, checkpoint=path, resume=True, log=log)
    assert log.notes[0] == "resuming at epoch 2, update 14"
    assert_same_bits(resumed.flat_params, whole.flat_params)


# ---- NaN -------------------------------------------------------------------------------------------------------------


def exploding(number):
    """Adam whose rate becomes absurd at one update."""

    def schedule(update, total):
        return 1e30 if update == number else 1.0

    return schedule


@pytest.mark.parametrize("valid", [IDS[:40], None])
@pytest.mark.parametrize("at", [15, 17, 20])
def test_training_that_explodes_gives_back_the_best_weights_and_can_be_resumed(tmp_path, valid, at):
    model, log, snapshots = language_model(cell="relu"), crnn.TrainingLog(), []
    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log.csv"}
    which = r"the weights are those (of the best epoch, \d|after epoch 2)\. A smaller"
    with pytest.raises(FloatingPointError, match=which):
        fitted(
            model, valid=valid, log=log, schedule=exploding(at), optimizer=crnn.optim.SGD(0.01),
            on_epoch=lambda progress: snapshots.append(model.flat_params.copy()), **files,
        )  # fmt: skip
    assert log.epochs == (3 if at == 20 else 2)  # the weights after it are finite
    best = 2 if valid is None else log.best["epoch"]
    assert_same_bits(model.flat_params, snapshots[best - 1])
    assert_same_bits(crnn.load(files["checkpoint"]).flat_params, model.flat_params)
    with open(files["log_file"], newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(entry["kind"] in ("train", "epoch") for entry in log.entries)
    again = crnn.TrainingLog()
    resumed = language_model(cell="relu")
    fitted(resumed, valid=valid, log=again, optimizer=crnn.optim.SGD(0.005), resume=True, **files)
    assert again.epochs == 4
    assert again.notes[:2] == [
        f"resuming at epoch {log.epochs + 1}, update {7 * log.epochs}",
        "lr: now 0.005, before 0.01",
    ]
    assert [entry["update"] for entry in again.entries if entry["kind"] == "epoch"] == [7, 14, 21, 28]
    assert np.isfinite(resumed.flat_params).all()


def test_a_last_update_to_absurd_weights_is_judged_and_given_up():
    model, snapshots, log = language_model(cell="relu"), [], crnn.TrainingLog()
    fitted(
        model, schedule=exploding(27), optimizer=crnn.optim.SGD(0.01), log=log,
        on_epoch=lambda progress: snapshots.append(model.flat_params.copy()),
    )  # fmt: skip
    assert log.epochs == 4
    assert log.best["epoch"] < 4
    assert_same_bits(model.flat_params, snapshots[log.best["epoch"] - 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"valid": None}, {"max_updates": 25}])
def test_a_last_update_that_makes_nan_is_found(tmp_path, bad, options):
    """No later loss would show it."""
    last = options.get("max_updates", 28)
    rule = crnn.optim.SGD(0.1)
    model, update = language_model(), rule.update

    def spoil(params, grads, **how):
        update(params, grads, **how)
        if rule.updates == last:
            params[3] = bad

    rule.update = spoil
    with pytest.raises(FloatingPointError, match=rf"^weights are NaN or infinite after update {last} \(epoch 4\); the"):
        fitted(model, optimizer=rule, **options)
    assert np.isfinite(model.flat_params).all()


def test_weights_that_are_no_numbers_are_not_trained():
    model = language_model()
    model.params["b_y"][0] = np.nan
    with pytest.raises(FloatingPointError, match="weights are NaN or infinite after update 0"):
        fitted(model)


# ---- within long epochs ----------------------------------------------------------------------------------------------


def killed(tmp_path, **options):
    """The checkpoint as it is when the process is killed at the 18th update."""
    kept = []

    def kill():
        path = tmp_path / "c"
        kept.append(path.read_bytes() if path.exists() else None)
        fail(Broken("killed"))

    with pytest.raises(Broken):
        fitted(checkpoint=tmp_path / "c", schedule=at_update(17, kill), **options)
    return kept[0]


def test_a_checkpoint_is_written_after_so_many_updates(tmp_path):
    (tmp_path / "k").write_bytes(killed(tmp_path, checkpoint_updates=5))
    whole, log = fitted(), crnn.TrainingLog()
    resumed = fitted(checkpoint=tmp_path / "k", resume=True, log=log)
    assert log.notes[0] == "resuming at epoch 3, update 14"  # after 5, 7, 12, 14 updates
    assert_same_bits(resumed.flat_params, whole.flat_params)
    assert sum(log.column("tokens")) == 4 * 102


def test_a_checkpoint_is_written_after_so_many_minutes(tmp_path, monkeypatch):
    now = iter(range(0, 10**6, 100))  # seconds; each look at the clock takes 100
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(now))
    (tmp_path / "k").write_bytes(killed(tmp_path, checkpoint_minutes=5))
    monkeypatch.undo()
    log = crnn.TrainingLog()
    resumed = fitted(checkpoint=tmp_path / "k", resume=True, log=log)
    done = int(log.notes[0].rpartition(" ")[2])
    assert 14 < done <= 17
    assert_same_bits(resumed.flat_params, fitted().flat_params)


def test_neither_minutes_nor_updates_leaves_the_epochs(tmp_path):
    (tmp_path / "k").write_bytes(killed(tmp_path, checkpoint_minutes=None))
    log = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "k", resume=True, log=log)
    assert log.notes[0] == "resuming at epoch 3, update 14"


@pytest.mark.parametrize("options", [{"checkpoint_minutes": 0}, {"checkpoint_updates": 0}, {"checkpoint_minutes": "x"}])
def test_bad_limits_are_named(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=rf"^{name}: expected .* got {value!r}"):
        fitted(**options)


# ---- the log's file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_the_log_grows_with_every_entry_and_is_appended_to(tmp_path, name):
    path, sizes, log = tmp_path / name, [], crnn.TrainingLog()
    header, entries_by_epoch = name.endswith("csv"), []

    def on_epoch(progress):
        sizes.append(len(path.read_text().splitlines()))
        entries_by_epoch.append(len(progress.log.entries))

    fitted(log_file=path, on_epoch=on_epoch, log=log)
    assert sizes == ([6, 11, 16, 21] if header else entries_by_epoch)
    fitted(log_file=path)
    assert len(path.read_text().splitlines()) == (41 if header else 2 * len(log.entries))
    (log.to_csv if header else log.to_jsonl)(tmp_path / "whole")
    assert path.read_bytes().startswith((tmp_path / "whole").read_bytes())


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_killed_run_that_is_resumed_logs_every_update_once(tmp_path, name):
    path = tmp_path / name
    fitted(log_file=path)  # an earlier run
    before = path.read_bytes()
    (tmp_path / "k").write_bytes(killed(tmp_path, checkpoint_updates=5, log_file=path, log_every=1))
    path.write_bytes(path.read_bytes() + b'{"kind": "tr')  # a line that was cut off
    log = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "k", resume=True, log=log, log_file=path, log_every=1)
    (log.to_csv if name.endswith("csv") else log.to_jsonl)(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    if name.endswith("csv"):
        whole = whole.partition(b"\n")[2]
    assert path.read_bytes() == before + whole
    assert log.column("update") == list(range(1, 29))


def test_a_log_that_is_gone_is_written_again_in_whole(tmp_path):
    fitted(checkpoint=tmp_path / "c", epochs=2)
    log = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "c", resume=True, log_file=tmp_path / "log", log=log)
    assert entries(tmp_path / "log") == log.entries


# ---- in the shell ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(text(600), newline="")
    return tmp_path


def run(capsys, *arguments):
    """Exit status and standard error of ``crnn train text.txt``."""
    status = cli.main(["train", "text.txt", *map(str, arguments)])
    return status, capsys.readouterr().err


def scheduled(monkeypatch, number, act):
    monkeypatch.setitem(crnn.optim.SCHEDULES, "constant", lambda warmup: at_update(number, act))
    return "--schedule", "constant"


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_everything_and_names_the_command_that_continues(folder, capsys, monkeypatch, name, status):
    if name not in SIGNALS:
        pytest.skip("no such signal")
    arguments = ["-o", "m", *TINY, "--log", "log.csv"]
    assert run(capsys, "-o", "whole", *TINY, "--schedule", "constant")[0] == 0
    schedule = scheduled(monkeypatch, 40, lambda: signal.raise_signal(getattr(signal, name)))
    got, err = run(capsys, *arguments, *schedule)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert got == status
    *_, last = err.splitlines()
    command = f"crnn train text.txt {' '.join(arguments)} --schedule constant --resume"
    assert last == f"to continue: {command}"
    assert "wrote m" in err
    got, err = run(capsys, *command.split()[3:])
    assert got == 0
    assert "resuming at epoch 3, update 41" in err
    assert (folder / "m").read_bytes() == (folder / "whole").read_bytes()
    with open("log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows if row["kind"] == "epoch"] == ["17", "34", "51", "68"]


def test_nan_is_as_ctrl_c_and_another_rate_is_accepted(folder, capsys, monkeypatch):
    monkeypatch.setitem(crnn.optim.SCHEDULES, "constant", lambda warmup: exploding(40))
    arguments = ["-o", "m", *TINY, "--cell", "relu", "--log", "log.jsonl", "--clip-norm", 0, "--optimizer", "sgd"]
    status, err = run(capsys, *arguments, "--lr", "0.01", "--schedule", "constant")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert status == 1
    *_, command, why = err.splitlines()
    assert why.startswith("crnn train: loss is ")
    assert "; the weights are those of the best epoch, " in why
    assert command.startswith("to continue: crnn train text.txt -o m --hidden 5 ")
    assert command.endswith(" --lr 0.01 --schedule constant --resume --lr 0.001")
    assert crnn.load("m").evaluate("the of and").count == 9
    assert [entry["update"] for entry in entries(folder / "log.jsonl") if entry["kind"] == "epoch"] == [17, 34]
    status, err = run(capsys, *command.split()[5:])
    assert status == 0
    assert "resuming at epoch 3, update 34\n--lr: now 0.001, before 0.01\n" in err


@pytest.mark.parametrize("again", [[], ["--resume"], ["--restart"]])
def test_a_run_that_is_started_again_by_mistake_leaves_the_good_model(folder, capsys, monkeypatch, again):
    assert run(capsys, "-o", "m", *TINY)[0] == 0
    model, checkpoint = (folder / "m").read_bytes(), (folder / "m.checkpoint").read_bytes()
    schedule = scheduled(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    status, err = run(capsys, "-o", "m", *TINY, *schedule, *again)
    assert (folder / "m").read_bytes() == model
    if again == ["--restart"]:
        assert status == 130
        assert "m is as it was: this run has no weights yet that a validation has judged" in err
        assert "to continue: crnn train text.txt -o m " in err
        assert " --restart" not in err
    else:
        assert (folder / "m.checkpoint").read_bytes() == checkpoint
    if not again:
        assert status == 1
        assert "--checkpoint: expected a new file, got m.checkpoint, which exists: --resume continues from it" in err
        (folder / "m.checkpoint").unlink()
        status, err = run(capsys, "-o", "m", *TINY)
        assert status == 1
        assert "--output: expected a new file, got m, which exists: --restart starts over" in err
    assert (folder / "m").read_bytes() == model


def test_a_restart_that_has_not_begun_replaces_nothing(folder, capsys, monkeypatch):
    assert run(capsys, "-o", "m", *TINY)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    schedule = scheduled(monkeypatch, 0, lambda: fail(MemoryError("none left")))
    status, err = run(capsys, "-o", "m", *TINY, *schedule, "--restart")
    assert status == 1
    assert "to continue" not in err  # the checkpoint is another run's
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nan_in_the_first_epoch_leaves_a_run_that_can_be_resumed(folder, capsys, monkeypatch):
    monkeypatch.setitem(crnn.optim.SCHEDULES, "constant", lambda warmup: exploding(5))
    arguments = ["-o", "m", *TINY, "--cell", "relu", "--clip-norm", 0, "--optimizer", "sgd", "--schedule", "constant"]
    status, err = run(capsys, *arguments)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert status == 1
    assert "m was not written: this run has no weights yet that a validation has judged" in err
    assert "; the weights are the initial ones. A smaller learning rate or --clip-norm may help" in err
    status, err = run(capsys, *arguments, "--resume", "--lr", 0.001)
    assert status == 0
    assert "resuming at epoch 1, update 0" in err


def test_without_validation_a_model_is_replaced_by_a_finished_run_only(folder, capsys, monkeypatch):
    assert run(capsys, "-o", "m", *TINY, "--valid", 0)[0] == 0
    model = (folder / "m").read_bytes()
    arguments = ["-o", "m", *TINY, "--valid", 0, "--seed", 9, "--schedule", "constant"]
    scheduled(monkeypatch, 40, lambda: signal.raise_signal(signal.SIGINT))
    assert run(capsys, *arguments, "--restart")[0] == 130
    assert (folder / "m").read_bytes() == model
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(capsys, *arguments, "--resume")[0] == 0
    assert (folder / "m").read_bytes() != model


def test_resume_does_not_replace_the_model_of_another_run(folder, capsys):
    assert run(capsys, "-o", "m", *TINY)[0] == 0
    assert run(capsys, "-o", "good", *TINY, "--seed", 5)[0] == 0
    good = (folder / "good").read_bytes()
    status, err = run(capsys, "-o", "good", *TINY, "--checkpoint", "m.checkpoint", "--epochs", 5, "--resume")
    assert status == 1
    assert "--output: expected the model of this run, or a new file, got good, which is another model" in err
    assert (folder / "good").read_bytes() == good
    assert run(capsys, "-o", "new", *TINY, "--checkpoint", "m.checkpoint", "--epochs", 5, "--resume")[0] == 0


def test_a_finished_run_goes_on_with_more_epochs(folder, capsys):
    constant = ["--schedule", "constant"]
    assert run(capsys, "-o", "whole", *TINY, *constant, "--epochs", 6)[0] == 0
    status, err = run(capsys, "-o", "m", *TINY, *constant)
    assert status == 0
    assert "to train longer, with more --epochs: crnn train text.txt -o m " in err
    status, err = run(capsys, "-o", "m", *TINY, *constant, "--epochs", 6, "--resume")
    assert status == 0
    assert "resuming at epoch 5, update 68\n--epochs: now 6, before 4\n" in err
    assert (folder / "m").read_bytes() == (folder / "whole").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--hidden", "6"], "--hidden: expected 5, as in m.checkpoint, got 6"),
        (["--cell", "gru"], "--cell: expected 'lstm', as in m.checkpoint, got 'gru'"),
        (["--layers", "2"], "--layers: expected 1, as in m.checkpoint, got 2"),
        (["--optimizer", "sgd"], "--optimizer: expected 'Adam', as in m.checkpoint, got 'SGD'"),
        (["--valid", "0.1"], "text: expected the training data of m.checkpoint"),
        (["--checkpoint", "typo"], "--checkpoint: expected a checkpoint to resume from, found none at typo"),
        (["--restart"], "--resume and --restart: expected one of them, got both"),
    ],
)
def test_resume_names_the_option_that_differs(folder, capsys, change, message):
    assert run(capsys, "-o", "m", *TINY)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, err = run(capsys, "-o", "m", *TINY, "--resume", *change)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"crnn train: {message}")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_text_with_other_words_in_the_same_places_is_another_text(folder, capsys):
    words = np.random.default_rng(1).choice(["red", "blue", "cow"], 300)
    (folder / "text.txt").write_text(" ".join(words))
    arguments = ["-o", "m", *TINY, "--unit", "word"]
    assert run(capsys, *arguments)[0] == 0
    (folder / "text.txt").write_text(" ".join(words).replace("cow", "ant"))
    status, err = run(capsys, *arguments, "--resume", "--epochs", 9)
    assert status == 1
    assert "with 4 tokens, got one of 4: without 'cow' and with 'ant'" in err


@pytest.mark.parametrize("verb", ["sample", "eval", "info", "score"])
def test_every_verb_takes_a_checkpoint(folder, capsysbinary, monkeypatch, verb):
    import io

    assert cli.main(["train", "text.txt", "-o", "m", *TINY, "-q"]) == 0
    outputs = []
    for path in ("m", "m.checkpoint"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the of\nand\n")))
        rest = {"eval": ["text.txt"], "sample": ["--seed", "1"]}.get(verb, [])
        capsysbinary.readouterr()
        assert cli.main([verb, path, *rest]) == 0
        outputs.append(capsysbinary.readouterr().out)
    if verb == "info":
        lines = [[line for line in shown.splitlines()[1:] if b"scores" not in line] for shown in outputs]
        assert lines[1] == lines[0]  # the scores on the test text come after the checkpoint
        assert re.fullmatch(
            rb"m\.checkpoint: [\d,]+ bytes, checkpoint after 4 epochs, 68 updates; the best model is of epoch \d",
            outputs[1].splitlines()[0],
        )
    else:
        assert outputs[0] == outputs[1] != b""


def test_a_reader_of_messages_that_is_gone_does_not_stop_training(folder, monkeypatch):
    class Gone:
        def isatty(self):
            return False

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    assert cli.main(["train", "text.txt", "-o", "m", *TINY]) == 0
    assert crnn.load("m").net.hidden_size == 5
