# SPDX-License-Identifier: MIT
"""Reporters, which show the progress of training: a bar in a terminal, lines in a file or pipe, a widget in a notebook.

A reporter never stops training: if standard error is gone, as when a terminal is closed, it shows nothing more.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from crnn.report.scales import duration
from crnn.training.kernel import in_notebook
from crnn.training.log import TrainingLog
from crnn.training.notebook import Notebook
from crnn.training.progress import Figures
from crnn.training.wording import bar_texts, progress_line, sample_text, time_left

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Lines", "ProgressBar", "Reporter", "Silent", "bar_class", "is_terminal", "new_reporter"]

FIRST = 5.0  # seconds until the first line
SECONDS = 30.0  # between two lines within an epoch
BETWEEN_EPOCHS = 1.0  # seconds between the lines of two epochs; those in between have none
UNTOLD = 5.0  # seconds of training in Python that are not worth a line
REFRESH = 0.2  # seconds between two states of the bar
WIDTH = 80  # columns of a terminal that does not say how many it has


class Reporter(Protocol):
    """Shows the progress of training."""

    def start(self, figures: Figures) -> float:
        """Training begins. Returns the seconds until the first call of `show`."""
        ...

    def show(self, figures: Figures) -> float:
        """Called between two updates. Returns the seconds until the next call."""
        ...

    def epoch(self, seconds: float, figures: Callable[[], Figures]) -> None:
        """An epoch has ended and is the last one in the log, so many seconds after the start. Epochs may be short."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know, one line."""
        ...

    def sample(self, prompt: str, text: str) -> None:
        """A text that the model has generated as a continuation of a prompt."""
        ...

    def aside(self) -> AbstractContextManager[object]:
        """A context in which a callback may print."""
        ...

    def close(self, figures: Figures) -> None:
        """Training has ended, normally or by an exception."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, figures: Figures) -> float:
        return math.inf

    def show(self, figures: Figures) -> float:
        return math.inf

    def epoch(self, seconds: float, figures: Callable[[], Figures]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def sample(self, prompt: str, text: str) -> None:
        pass

    def aside(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def close(self, figures: Figures) -> None:
        pass


class Lines:
    """Writes lines to standard error: one per epoch, and by time within long epochs. For files, pipes and CI logs.

    Parameters
    ----------
    log : TrainingLog
        The log of the run.
    untold : float
        Seconds of training without any line. What there is to say is said after them, if training lasts longer.
    """

    def __init__(self, log: TrainingLog, untold: float = 0.0) -> None:
        self._log, self._untold = log, untold
        self._waiting: list[str] | None = []  # to be written when the time without lines is over; None: it is
        self._shown = self._epoch_shown = -math.inf  # when the last line was written, and that of an epoch
        self._missing = False  # whether the last epoch has no line yet

    def start(self, figures: Figures) -> float:
        plan = f"{figures.epochs:,} epochs" if figures.epochs > 1 else "1 epoch"
        done = f", from update {figures.update:,}" if figures.update else ""
        self.note(f"training for {'at most ' * figures.at_most}{plan}, {figures.updates:,} updates{done}")
        if not self._untold:
            self._begin()
        return self._untold or FIRST

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, None
        for text in waiting or ():
            self._print(text)

    def show(self, figures: Figures) -> float:
        since = figures.seconds - self._shown
        if figures.evaluating or since < SECONDS:
            return max(SECONDS - since, 0.0)
        last = self._log.last
        if self._missing and last is not None and last["seconds"] < BETWEEN_EPOCHS:  # this epoch adds hardly anything
            self._epoch_shown = figures.seconds
            self._write(self._of_epoch(figures), figures)
        else:
            self._write(progress_line(figures), figures)
        return SECONDS

    def _of_epoch(self, figures: Figures) -> str:
        return ", ".join(filter(None, [self._log.summary(), time_left(figures)]))

    def epoch(self, seconds: float, figures: Callable[[], Figures]) -> None:
        silent = self._waiting is not None and seconds < self._untold
        self._missing = silent or seconds - self._epoch_shown < BETWEEN_EPOCHS
        if not self._missing:
            self._epoch_shown, now = seconds, figures()
            self._write(self._of_epoch(now), now)

    def _write(self, text: str, figures: Figures) -> None:
        self._begin()
        self._missing, self._shown = False, figures.seconds
        self._print(text)

    def note(self, text: str) -> None:
        if self._waiting is not None:
            self._waiting.append(text)
        else:
            self._tell_missing()
            self._print(text)

    def _tell_missing(self) -> None:
        if self._missing and self._waiting is None:
            self._missing = False
            self._print(self._log.summary())

    def _print(self, text: str) -> None:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # a broken pipe; a closed file
                print(text, file=sys.stderr, flush=True)

    def sample(self, prompt: str, text: str) -> None:
        self.note(sample_text(prompt, text))

    def aside(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def close(self, figures: Figures) -> None:
        self._tell_missing()
        if self._waiting is None:
            taken = f"took {duration(figures.seconds)}"
            self._print(f"{figures.ended} at update {figures.update:,} of {figures.updates:,}, {taken}")


class ProgressBar:
    """A tqdm bar on standard error that counts updates, below one line per epoch.

    Parameters
    ----------
    log : TrainingLog
        The log of the run.
    """

    def __init__(self, log: TrainingLog) -> None:
        self._log = log
        self._bar: tqdm[Any] | None = None
        self._shown = -math.inf  # when the last line was written
        self._missing = False  # whether the last epoch has no line yet

    def start(self, figures: Figures) -> float:
        options = {"total": figures.updates, "initial": figures.update, "bar_format": " "}
        with contextlib.suppress(OSError, ValueError):
            self._bar = bar_class()(**options, file=sys.stderr)
        return self.show(figures)

    def show(self, figures: Figures) -> float:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.ncols = max(_columns() - 1, 1)  # terminals begin a new line after the last one
                before, after = bar_texts(figures, self._bar.ncols)
                self._bar.bar_format = f"{before} |{{bar}}| {after}"  # no braces in these
                self._bar.n = figures.update
                self._bar.refresh()
        return REFRESH

    def epoch(self, seconds: float, figures: Callable[[], Figures]) -> None:
        self._missing = True
        if seconds - self._shown >= BETWEEN_EPOCHS:
            self._shown = seconds
            self._tell_missing()
            self.show(figures())  # as new as the line above it

    def note(self, text: str) -> None:
        self._tell_missing()
        self._print(text)

    def _tell_missing(self) -> None:
        if self._missing:
            self._missing = False
            self._print(self._log.summary(width=_columns() - 1))

    def _print(self, text: str) -> None:
        from tqdm import tqdm

        with contextlib.suppress(OSError, ValueError):
            tqdm.write(text, file=sys.stderr)

    def sample(self, prompt: str, text: str) -> None:
        self.note(sample_text(prompt, text))

    def aside(self) -> AbstractContextManager[object]:
        out: Any = sys.stdout
        in_main = threading.current_thread() is threading.main_thread()  # all threads have the same standard output
        if self._bar is None or not in_main or not is_terminal(out):
            return contextlib.nullcontext()
        return _Above(out, self._bar)

    def close(self, figures: Figures) -> None:
        self._tell_missing()
        self.show(figures)
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()


class _Above:
    """Standard output while a callback runs. What it prints takes the place of the bar, which moves down."""

    def __init__(self, stream: Any, bar: Any) -> None:
        self._stream, self._bar = stream, bar

    def __enter__(self) -> None:
        sys.stdout = self

    def __exit__(self, *_: object) -> None:
        if sys.stdout is self:  # else the callback has set another one
            sys.stdout = self._stream

    def write(self, text: str) -> Any:
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(OSError, ValueError):
                bar.clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@functools.cache
def bar_class() -> Any:
    """The class of bars. Made when the first one is needed, because ``import crnn`` does not import tqdm."""
    from tqdm import tqdm

    def locked(bar: Any, nolock: bool) -> AbstractContextManager[object]:
        return contextlib.nullcontext() if nolock else bar.get_lock()

    class Bar(tqdm):  # type: ignore[type-arg]  # it is generic for type checkers only
        """A bar that releases tqdm's lock, which is that of all bars in a process, also if it cannot be written.

        tqdm itself keeps it then, and a bar of another thread would wait indefinitely.
        """

        monitor_interval = 0  # no thread: the training loop refreshes it

        def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
            if not self.disable:
                with locked(self, nolock):
                    self.display()

        def clear(self, nolock: bool = False) -> None:
            with locked(self, nolock):
                super().clear(nolock=True)

    return Bar


def new_reporter(progress: bool | None, log: TrainingLog, *, from_start: bool = False) -> Reporter:
    """The reporter for the option ``progress``, which suits where the output goes.

    Without a terminal and a notebook, ``from_start`` or ``progress=True`` shows lines from the start; otherwise they
    begin after some seconds.
    """
    if progress is False:
        return Silent()
    if in_notebook():
        return Notebook(log)
    if is_terminal(sys.stderr):
        return ProgressBar(log)
    return Silent() if sys.stderr is None else Lines(log, 0.0 if progress or from_start else UNTOLD)


def _columns() -> int:
    """The present width of the terminal."""
    columns = 0
    with contextlib.suppress(OSError, ValueError, AttributeError):
        columns = os.get_terminal_size(sys.stderr.fileno()).columns  # 0: a terminal that was given no size
    stated = os.environ.get("COLUMNS", "")
    return columns or (int(stated) if stated.isascii() and stated.isdigit() else 0) or WIDTH


def is_terminal(stream: Any) -> bool:
    """Whether this is a terminal in which a line can be written over, and that someone may watch."""
    automatic = os.environ.get("CI", "").lower() not in ("", "0", "false") or os.environ.get("TERM") == "dumb"
    editor = type(stream).__module__.startswith("idlelib")  # says that it is a terminal
    try:
        return stream is not None and stream.isatty() and not automatic and not editor
    except Exception:  # a program's own object; a closed file
        return False
