# SPDX-License-Identifier: MIT
"""What is seen of a training: a bar in a terminal, lines in a pipe, an output in a notebook; by a clock of the test."""

import contextlib
import io
import itertools
import math
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from model_tools import language_model, text

import crnn
from crnn.training import notebook, progress, reporter, trainer, watch, wording
from crnn.training.protocols import Observation

pytestmark = pytest.mark.thread_unsafe  # standard error is the process's

IDS = np.random.default_rng(8).integers(12, size=104)
SETTINGS = {"batch_size": 3, "bptt": 5, "schedule": "constant", "patience": None}  # 7 windows an epoch
EPOCH = re.compile(r"epoch \d+ of \d+, update ")  # how the line of an epoch begins
LINE = re.compile(
    r"epoch (\d+) of (\d+): update ([\d,]+) of ([\d,]+), loss (\d\.\d{4})(, best valid \d\.\d{4} in epoch \d+)?, "
    r"gradient norm [\d.e+-]+, ([\d,]+) tokens/s(, [\d:,]+ left)?"
)


class Clock:
    """A clock that the test sets; the seconds of an update pass before it."""

    def __init__(self):
        self.now, self.per_update = 1000.0, 1.0

    def perf_counter(self):
        return self.now

    def schedule(self, update, updates):
        self.now += self.per_update
        return 1.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (trainer, watch, progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True

    def states(self):
        """What was shown, each state of the bar as a line."""
        return [line.strip() for line in re.split(r"[\r\n]", self.getvalue().replace("\x1b[A", "")) if line.strip()]


def on_terminal(monkeypatch, columns=80, **environment):
    """Make standard error a terminal. Not a fixture: pytest replaces standard error between those and the test."""
    for name, value in ({"CI": "", "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"} | environment).items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def fitted(clock, per_update, epochs, **options):
    clock.per_update = per_update
    return crnn.fit(language_model(), IDS, epochs=epochs, **(SETTINGS | {"schedule": clock.schedule} | options))


def sample_is(monkeypatch, prompt, text):
    """Let every language model generate this."""
    fields = {"prompt": prompt, "text": text, "temperature": 0.8}
    sample = Observation("sample", "sample", lambda model, view: iter([fields]))
    monkeypatch.setattr(crnn.LanguageModel, "observed", [sample], raising=False)


def lines_of(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def in_shell(monkeypatch):
    """Lines from the start, as `crnn train` shows them."""
    plain = trainer.new_reporter
    monkeypatch.setattr(trainer, "new_reporter", lambda *args, from_start: plain(*args, from_start=True))


# ---- lines: pipes, files, CI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [None, True, False])
def test_a_training_of_less_than_five_seconds_shows_nothing_in_a_program(clock, capsys, progress):
    log = fitted(clock, 0.2, 3, progress=progress, valid=IDS[:20])
    shown = lines_of(capsys)
    if progress:
        assert shown[0] == "training for 3 epochs, 21 updates"
        assert shown[-3] == log.summary()
        assert shown[-1] == "finished at update 21 of 21, took 4.2 s"
    else:
        assert shown == []


def test_a_longer_training_says_from_then_on_what_happens(clock, capsys):
    fitted(clock, 1.0, 2, progress=None)
    shown = lines_of(capsys)
    assert shown[0] == "training for 2 epochs, 14 updates"
    assert LINE.fullmatch(shown[1]).groups()[:4] == ("1", "2", "5", "14")
    assert [line[:24] for line in shown[2:4]] == ["epoch 1 of 2, update 7 o", "epoch 2 of 2, update 14 "]


def test_in_a_shell_the_first_lines_come_at_once_and_after_five_seconds_then_every_thirty(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    fitted(clock, 4.0, 4, bptt=1)  # 34 updates an epoch
    first, *shown, _ = lines_of(capsys)
    assert first == "training for 4 epochs, 136 updates"
    within = [LINE.fullmatch(line) for line in shown]
    updates = [int(found[3]) for found in within if found]
    assert updates[:6] == [2, 10, 18, 26, 34, 42]  # after 8 s, then 32 s each, counted from the line of the epoch too
    assert [line[:8] for line in shown if EPOCH.match(line)] == [f"epoch {n} " for n in range(1, 5)]


def test_a_line_has_the_figures_of_the_last_updates(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    log = fitted(clock, 10.0, 2, log_every=1, valid=IDS[:20])
    shown = [LINE.fullmatch(line) for line in lines_of(capsys)]
    first, second, _, third, fourth = filter(None, shown)  # updates 1, 4, 7, 10, 13
    losses, tokens = log.column("train_loss"), log.column("tokens")
    assert first.group(3, 4, 5, 7) == ("1", "14", f"{losses[0]:.4f}", "2")
    mean = np.average(losses[3:4], weights=tokens[3:4])
    assert second.group(3, 5) == ("4", f"{mean:.4f}")
    assert (second[6], third[6]) == (None, f", best valid {log.column('valid_loss', 'epoch')[0]:.4f} in epoch 1")
    assert [found[8] for found in (first, second, third)] == [", 2:10 left", ", 1:40 left", ", 0:40 left"]
    assert fourth[3] == "13"


def test_short_epochs_have_a_line_a_second_and_the_last_one_always(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    log = fitted(clock, 0.03, 500)  # 0.21 s an epoch
    shown = [line for line in lines_of(capsys) if EPOCH.match(line)]
    assert 80 < len(shown) < 110
    assert shown[-1] == log.summary()
    assert shown[-1].startswith("epoch 500 of 500, update 3,500 of 3,500: ")


def test_the_first_line_of_short_epochs_is_that_of_an_epoch(clock, capsys):
    fitted(clock, 0.03, 500)  # 0.21 s an epoch
    plan, first, second, *_ = lines_of(capsys)
    assert plan == "training for 500 epochs, 3,500 updates"
    assert re.match(r"epoch 23 of 500, update 161 of 3,500: ", first)
    assert re.match(r"epoch 29 of 500, ", second)  # a second later


def test_a_line_of_an_epoch_has_the_time_that_is_left(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    log = fitted(clock, 10.0, 2)
    first, last = [line for line in lines_of(capsys) if EPOCH.match(line)]
    assert first.endswith(" tokens/s, 1:10 left")
    assert last == log.summary()


def test_a_line_of_an_epoch_has_all_figures(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    log = fitted(clock, 3.0, 2, valid=IDS[:20])
    shown = [line for line in lines_of(capsys) if EPOCH.match(line)]
    for number, (line, epoch) in enumerate(zip(shown, log.of_kind("epoch"), strict=True), 1):
        losses = rf"train {epoch['train_loss']:.4f} nats, valid {epoch['valid_loss']:.4f} \(best\)"
        figures = rf"{losses}, gradient norm [\d.]+, \d+ tokens/s"
        assert re.match(rf"epoch {number} of 2, update {7 * number} of 14: {figures}", line)


def test_a_run_that_may_be_stopped_early_takes_at_most_so_long(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    fitted(clock, 10.0, 4, valid=IDS[:40], patience=3)
    plan, within, *_ = lines_of(capsys)
    assert plan == "training for at most 4 epochs, 28 updates"
    assert within.endswith(" tokens/s, at most 4:30 left")
    terminal = on_terminal(monkeypatch, columns=80)
    fitted(clock, 10.0, 4, valid=IDS[:40], patience=3)
    assert any(state.endswith(" <4:30 left") for state in terminal.states())


def test_notes_come_before_what_follows_them(clock, capsys, monkeypatch, tmp_path):
    in_shell(monkeypatch)
    fitted(clock, 1.0, 2, checkpoint=tmp_path / "c")
    capsys.readouterr()
    log = fitted(clock, 1.0, 3, checkpoint=tmp_path / "c", resume=True, valid=None)
    assert lines_of(capsys)[:3] == [*log.notes[:2], "training for 3 epochs, 21 updates, from update 14"]
    fitted(clock, 0.01, 3, valid=IDS[:40], optimizer=crnn.optim.Adam(lr=0.02))
    *_, last, note, _ = lines_of(capsys)
    assert last.startswith("epoch 3 of 3, ")
    assert note.startswith("the best epoch is the last, 3: ")


def test_the_time_left_of_a_resumed_run_counts_from_where_it_resumed(clock, capsys, monkeypatch, tmp_path):
    in_shell(monkeypatch)
    fitted(clock, 0.01, 2, checkpoint=tmp_path / "c")
    capsys.readouterr()
    fitted(clock, 10.0, 4, checkpoint=tmp_path / "c", resume=True)
    found = next(filter(None, map(LINE.fullmatch, lines_of(capsys))))
    assert found.group(3, 4, 8) == ("15", "28", ", 2:10 left")
    assert found[7] == "2"  # tokens a second, without those of the first part


def test_why_training_ended_before_its_time_is_said(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    log = fitted(clock, 0.01, 9, on_epoch=lambda progress: progress.epoch == 2)
    assert lines_of(capsys)[-2:] == [log.summary(), "stopped by on_epoch at update 14 of 63, took 0.14 s"]
    log = fitted(clock, 0.01, 9, valid=IDS[:40], optimizer="sgd", lr=0.0, patience=2)
    assert lines_of(capsys)[-4:] == [log.summary(), *log.notes, "stopped early at update 21 of 63, took 0.21 s"]
    assert log.notes[0] == "stopped early: no lower validation loss since epoch 1 (patience=2)"


def test_samples_are_shown_below_the_line_of_their_epoch(clock, capsys, monkeypatch):
    in_shell(monkeypatch)
    sample_is(monkeypatch, "a ", "b\x1b[2J\r\nc\td")
    fitted(clock, 0.01, 4, sample_every=14)
    shown = lines_of(capsys)
    sample = ["sample:", "    a b\N{REPLACEMENT CHARACTER}[2J", "    c       d"]
    assert [line[:8] for line in shown[1:3]] == ["epoch 1 ", "epoch 2 "]
    assert shown[3:6] == shown[7:10] == sample
    assert shown[6].startswith("epoch 4 ")


@pytest.mark.parametrize("kind", ["gone", "closed", "none", "full"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_standard_error_that_cannot_be_written_does_not_stop_training(clock, monkeypatch, kind, is_terminal):
    class Broken(io.StringIO):
        def isatty(self):
            return is_terminal

        def write(self, text):
            raise BrokenPipeError if kind == "gone" else OSError(28, "No space left on device")

    stream = None if kind == "none" else Broken()
    if kind == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    for shown in (True, None):
        assert fitted(clock, 3.0, 3, valid=IDS[:20], progress=shown).epochs == 3


def test_a_bar_that_cannot_be_written_does_not_stop_the_bars_of_other_threads(clock, monkeypatch):
    class Broken(Terminal):
        def write(self, text):
            raise OSError(28, "No space left on device")

    on_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stderr", Broken())
    monkeypatch.setattr(sys, "stdout", Terminal())
    fitted(clock, 3.0, 2, on_update=lambda progress: print("done"))
    terminal = on_terminal(monkeypatch)
    thread = threading.Thread(target=lambda: fitted(clock, 3.0, 2), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert "epoch 2/2 100%" in terminal.states()[-1]


@pytest.mark.parametrize("missing", ["flush", "works", "isatty"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_object_of_the_program_as_standard_error_does_not_stop_training(clock, monkeypatch, missing, is_terminal):
    def write(text):
        if missing == "works":
            raise RuntimeError("the application's own")
        return len(text)

    def isatty():
        if missing == "isatty":
            raise RuntimeError("the application's own")
        return is_terminal

    methods = {"write": write, "isatty": isatty} | ({} if missing == "flush" else {"flush": lambda: None})
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(**methods))
    monkeypatch.setenv("TERM", "xterm")
    for shown in (True, None):
        assert fitted(clock, 3.0, 3, valid=IDS[:20], progress=shown, on_epoch=lambda progress: False).epochs == 3


def test_a_stand_in_for_ipython_does_not_stop_training(clock, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("IPython.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    assert fitted(clock, 3.0, 3, progress=True).epochs == 3


# ---- the bar of a terminal -------------------------------------------------------------------------------------------


def test_the_bar_is_refreshed_by_time_and_not_by_updates(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    fitted(clock, 0.01, 20)  # 140 updates in 1.4 s
    bars = [state for state in terminal.states() if "|" in state]
    assert 7 <= len(set(bars)) <= 12
    shares = [int(re.search(r"(\d+)%", bar)[1]) for bar in bars]
    assert all(after - before <= 15 for before, after in itertools.pairwise(shares))
    assert (shares[0], shares[-1]) == (0, 100)


def test_the_bar_is_refreshed_at_every_update_if_updates_are_long(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    fitted(clock, 3.0, 2, log_every=100)
    updates = re.findall(r" (\d+)/14", terminal.getvalue())
    assert list(dict.fromkeys(updates)) == [str(n) for n in range(15)]


def test_a_wide_bar_has_all_figures(clock, monkeypatch):
    terminal = on_terminal(monkeypatch, columns=140)
    log = fitted(clock, 1.0, 3, valid=IDS[:20])
    best = log.column("valid_loss", "epoch")[1]
    state = next(state for state in terminal.states() if "15/21" in state)
    figures = rf"15/21, loss \d\.\d{{3}}, best {best:.3f}, 15 tokens/s, gradient norm [\d.]+, 0:06 left"
    assert re.fullmatch(rf"epoch 3/3  71% \|.*\| {figures}", state)
    assert terminal.states()[-1].endswith(", took 21 s")


def test_a_bar_says_why_training_ended(clock, monkeypatch):
    terminal = on_terminal(monkeypatch, columns=140)
    fitted(clock, 1.0, 9, valid=IDS[:40], optimizer="sgd", lr=0.0, patience=2)
    assert terminal.states()[-1].endswith(", stopped early, took 21 s")
    assert " 33% |" in terminal.states()[-1]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 300])
def test_the_bar_fits_into_the_terminal_with_the_most_important_figures(width):
    figures = progress.Figures(
        epoch=12, epochs=100, update=12_345, updates=100_000, loss=1.23456, speed=23_456.7, counted="tokens",
        grad_norm=0.72, best={"valid_loss": 1.31234, "epoch": 11}, seconds=100, left=3723.0,
    )  # fmt: skip
    before, after = wording.bar_texts(figures, width)
    assert len(f"{before} || {after}") + wording.SHORTEST_BAR <= max(width, 22)
    assert before == ("epoch 12/100  12%" if width >= 60 else "12/100  12%")
    assert ("loss 1.235" in after) == (width >= 40)
    assert ("1:02:03 left" in after) == (width >= 60)
    assert ("best 1.312" in after) == (width >= 60)
    assert ("tok" in after) == (width >= 80)
    assert ("norm 0.72" in after) == (width >= 80)
    assert ("12,345/100,000" in after) == (width >= 100)
    assert ("23,457 tokens/s" in after) == (width in (120, 300))  # in full where that does not cost another figure


def test_lines_of_epochs_stand_above_the_bar_at_most_one_a_second(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    log = fitted(clock, 0.03, 100)
    shown = [state for state in terminal.states() if re.match(r"epoch \d+: ", state)]
    assert 15 < len(shown) < 25
    assert shown[-1] == log.summary(width=79)


def test_a_long_evaluation_is_announced(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    plain = crnn.LanguageModel.evaluate

    def evaluate(self, *args, **kwargs):
        clock.now += 2.0
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(crnn.LanguageModel, "evaluate", evaluate)
    fitted(clock, 0.001, 3, valid=IDS[:20])
    assert len([state for state in terminal.states() if state.endswith("evaluating")]) >= 3


def test_the_time_of_validation_is_no_time_of_updates(clock, monkeypatch):
    plain = crnn.LanguageModel.evaluate

    def evaluate(self, *args, **kwargs):
        clock.now += 500.0
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(crnn.LanguageModel, "evaluate", evaluate)
    log = fitted(clock, 1.0, 3, valid=IDS[:20], log_every=100)
    assert log.column("seconds") == log.column("seconds", "epoch") == [7.0] * 3


@pytest.mark.parametrize("name", ["on_update", "on_epoch"])
def test_what_a_callback_prints_stands_above_the_bar(clock, monkeypatch, name):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    fitted(clock, 0.3, 2, **{name: lambda progress: print("done", progress.update)})
    assert sys.stdout is terminal
    printed = re.findall(r"([^\r\n]*)done (\d+)\n(\r?)", terminal.getvalue())
    assert [int(update) for _, update, _ in printed] == (list(range(1, 15)) if name == "on_update" else [7, 14])
    assert {before for before, *_ in printed} == {""}
    assert re.search(r"\r +\rdone 7\n\r", terminal.getvalue())


def test_standard_output_is_left_to_callbacks_that_set_it_and_to_other_threads(clock, monkeypatch):
    terminal, own = on_terminal(monkeypatch), io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    seen = []

    def set_own(progress):
        sys.stdout = own

    thread = threading.Thread(
        target=lambda: fitted(clock, 0.3, 2, on_update=lambda progress: seen.append(sys.stdout is terminal))
    )
    thread.start()
    thread.join()
    assert set(seen) == {True}
    fitted(clock, 0.3, 2, on_update=set_own)
    assert sys.stdout is own


@pytest.mark.parametrize(
    ("name", "value", "bar"),
    [("CI", "true", False), ("CI", "1", False), ("CI", "false", True), ("CI", "", True), ("TERM", "dumb", False)],
)
def test_a_terminal_that_nobody_watches_gets_lines(clock, monkeypatch, name, value, bar):
    terminal = on_terminal(monkeypatch, **{name: value})
    fitted(clock, 3.0, 2)
    assert ("|" in terminal.getvalue()) == bar
    assert ("\r" in terminal.getvalue()) == bar
    assert ("epoch 2: train " if bar else "epoch 2 of 2, update 14 of 14: train ") in terminal.getvalue()


def test_the_bar_has_no_thread_of_its_own(clock, monkeypatch):
    import threading

    import tqdm

    monitor, before, seen = tqdm.tqdm.monitor, set(threading.enumerate()), []
    fitted(clock, 3.0, 2, on_epoch=lambda progress: seen.append(set(threading.enumerate()) - before))
    assert tqdm.tqdm.monitor is monitor
    assert not any(isinstance(each, tqdm._monitor.TMonitor) for each in seen[0])


# ---- a notebook ------------------------------------------------------------------------------------------------------


class Front:
    """What IPython has of a front end: the states of each output."""

    def __init__(self, monkeypatch, shell="ZMQInteractiveShell", fails=False):
        self.outputs, self.fails, self.cell = [], fails, 3
        ipython = types.ModuleType("IPython")
        ipython.display = types.SimpleNamespace(display=self.display)
        getter = types.ModuleType("IPython.core.getipython")
        getter.get_ipython = lambda: type(shell, (), {"execution_count": self.cell})()
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.core", types.ModuleType("IPython.core"))
        monkeypatch.setitem(sys.modules, "IPython.core.getipython", getter)

    def display(self, bundle, *, raw, display_id):
        if self.fails:
            raise RuntimeError("no connection")
        states = [bundle]
        self.outputs.append(states)
        return types.SimpleNamespace(update=lambda bundle, raw: states.append(bundle))


def test_a_notebook_has_one_output_that_is_changed_in_place(clock, capsys, monkeypatch):
    front = Front(monkeypatch)
    log = fitted(clock, 0.01, 40, valid=IDS[:20])  # 280 updates in 2.8 s
    [states] = front.outputs
    assert 5 <= len(states) <= 8
    assert lines_of(capsys) == []
    last = states[-1]["text/html"]
    for part in ("epoch 40 of 40", "update 280 of 280", "finished", "width:100.0%", "<svg", "gradient norm"):
        assert part in last
    assert f"{log.best['valid_loss']:.4f} (epoch {log.best['epoch']})" in last
    assert " left" in states[2]["text/html"]
    assert "<script" not in last
    assert LINE.fullmatch(states[2]["text/plain"])


def test_a_notebook_shows_notes_and_samples_as_text(clock, monkeypatch):
    front = Front(monkeypatch)
    sample_is(monkeypatch, "", "<b>bold</b>")
    fitted(clock, 0.1, 3, valid=IDS[:40], optimizer=crnn.optim.Adam(lr=0.02), sample_every=1)
    last = front.outputs[0][-1]["text/html"]
    assert "&lt;b&gt;bold" in last
    assert "the best epoch is the last, 3" in last


def test_a_notebooks_output_says_how_training_ended(clock, monkeypatch):
    def fail(progress):
        raise KeyboardInterrupt

    front = Front(monkeypatch)
    fitted(clock, 1.0, 3, on_epoch=lambda progress: True)
    with pytest.raises(KeyboardInterrupt):
        fitted(clock, 1.0, 3, on_epoch=fail)
    ends = [states[-1]["text/html"] for states in front.outputs]
    assert "stopped by on_epoch" in ends[0]
    assert "interrupted" in ends[1]


def test_the_cell_that_trains_has_the_curves_once(clock, monkeypatch):
    front = Front(monkeypatch)
    log = fitted(clock, 1.0, 3)
    assert "<svg" in front.outputs[0][-1]["text/html"]
    assert "<svg" not in log._repr_html_()
    assert "train loss" in log._repr_html_()
    front.cell += 1
    assert "<svg" in log._repr_html_()
    unseen = fitted(clock, 1.0, 3, progress=False)
    assert "<svg" in unseen._repr_html_()


def test_a_front_end_that_is_gone_does_not_stop_training(clock, monkeypatch):
    Front(monkeypatch, fails=True)
    assert fitted(clock, 1.0, 3).epochs == 3


@pytest.mark.parametrize("shell", ["TerminalInteractiveShell", "SpyderShell", "NoneType"])
def test_a_console_of_ipython_is_no_notebook(clock, capsys, monkeypatch, shell):
    front = Front(monkeypatch, shell)
    fitted(clock, 3.0, 2)
    assert front.outputs == []
    assert any(line.startswith("epoch 2 of 2, ") for line in lines_of(capsys))


def test_the_curve_of_a_long_log_has_few_points(clock, monkeypatch):
    front = Front(monkeypatch)
    fitted(clock, 0.1, 300, valid=IDS[:20])
    _, *states, _ = front.outputs[0]
    sizes = [len(state["text/html"]) for state in states]
    assert max(sizes) < 20_000
    assert notebook.POINTS <= max(state["text/html"].count("L") for state in states) < 5 * notebook.POINTS


def test_none_is_asked_for(clock, monkeypatch):
    terminal = on_terminal(monkeypatch)
    front = Front(monkeypatch)
    fitted(clock, 3.0, 2, progress=False)
    assert front.outputs == []
    assert terminal.getvalue() == ""


# ---- costs -----------------------------------------------------------------------------------------------------------


def test_a_reporter_that_takes_long_is_asked_less_often(clock):
    class Slow(reporter.Silent):
        shown = 0

        def start(self, figures):
            return 0.2

        def show(self, figures):
            self.shown += 1
            clock.now += 0.01
            return 0.2

    slow = Slow()
    new = lambda *args, **kwargs: slow  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "new_reporter", new)
        fitted(clock, 0.1, 20)  # 14 s
    assert 5 <= slow.shown <= 8


def test_a_silent_reporter_is_never_asked(clock, monkeypatch):
    monkeypatch.setattr(reporter.Silent, "show", lambda self, figures: pytest.fail("asked"))
    fitted(clock, 100.0, 3, progress=False, valid=IDS[:20])


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_the_time_left_follows_the_recent_pace():
    pace = progress.Pace(100, 50.0)
    assert pace.left(100, 1100, 50.0) is None
    now, update = 50.0, 100
    for _ in range(100):
        now, update = now + 1, update + 1
        left = pace.left(update, 1100, now)
    assert left == pytest.approx(900)
    for _ in range(400):  # ten times as fast
        now, update = now + 0.1, update + 1
        left = pace.left(update, 1100, now)
    assert 50 < left < 200  # at the pace of the whole run it would be 140


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (5.4, "0:05"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_times_are_short(seconds, text):
    assert wording.short_time(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4, "0"), (7, "7"), (950, "950"), (999.6, "1.0k"), (9_949, "9.9k"), (9_950, "10k"), (23_456, "23k"),
     (999_600, "1.0M"), (1.26e6, "1.3M"), (math.pi * 1e9, "3G")],
)  # fmt: skip
def test_speeds_are_short(value, text):
    assert wording.short_number(value) == text


# ---- a real terminal -------------------------------------------------------------------------------------------------


PROGRAM = """
import sys, termios, crnn
columns = int(sys.argv[1])

def on_epoch(progress):
    if progress.epoch == 1 and columns:
        termios.tcsetwinsize(2, (24, columns // 2))

corpus = crnn.TextCorpus.from_file("text.txt", valid=0.1)
model = crnn.LanguageModel(corpus.vocab, "tanh", 8)
crnn.fit(model, corpus, epochs=3, batch_size=4, patience=None, on_epoch=on_epoch)
"""


def in_terminal(folder, columns):
    """What a training writes to a terminal of so many columns, which becomes half as wide after the first epoch."""
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "LINES")}
    env |= {"TERM": "xterm", "PYTHONPATH": str(Path(crnn.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", PROGRAM, str(columns)]
    child = subprocess.Popen(command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    parts = []
    with contextlib.suppress(OSError):  # the terminal is gone when the child is
        while part := os.read(master, 1 << 16):
            parts.append(part)
    os.close(master)
    assert child.wait() == 0
    return b"".join(parts).decode().replace("\x1b[A", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize("columns", [0, 60, 140])
def test_a_bar_fills_the_line_of_a_terminal_and_never_more(tmp_path, columns):
    (tmp_path / "text.txt").write_text(text(6000), newline="")
    shown = in_terminal(tmp_path, columns)
    bars = [state.rstrip("\n") for state in re.split("[\r\n]", shown) if re.match(r"(epoch )?\d/3 +\d+%", state)]
    assert "| " in bars[0]
    assert len(bars[0]) == (columns or reporter.WIDTH) - 1
    assert " 0%" in bars[0]
    assert "100%" in bars[-1]
    assert len(bars[-1]) == (columns // 2 or reporter.WIDTH) - 1
    assert max(map(len, bars)) == len(bars[0])
    assert len(re.findall(r"^epoch \d: train ", shown.replace("\r", "\n"), re.MULTILINE)) >= 2
