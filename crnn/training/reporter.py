# SPDX-License-Identifier: MIT
"""Reporters, which show the progress of training: a progress bar, lines for a file, or nothing.

A reporter never stops training: if standard error is gone, as when a terminal is closed, it shows nothing more.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from crnn.training.log import Entry, TrainingLog

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Lines", "ProgressBar", "Reporter", "Silent", "new_reporter"]

SECONDS = 30.0  # between two lines within an epoch


class Reporter(Protocol):
    """Shows the progress of training; called after every new entry of the log."""

    def note(self, text: str) -> None:
        """Something that the user should know, one line."""
        ...

    def training_logged(self, entry: Entry) -> None:
        """A new entry of kind "train"."""
        ...

    def epoch_logged(self, log: TrainingLog) -> None:
        """The last entry of the log is a new one of kind "epoch"."""
        ...

    def close(self) -> None:
        """Training has ended, normally or by an exception."""
        ...


class Silent:
    """Shows nothing."""

    def note(self, text: str) -> None:
        pass

    def training_logged(self, entry: Entry) -> None:
        pass

    def epoch_logged(self, log: TrainingLog) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Writes a line per epoch to standard error, and one every `SECONDS` within long epochs. For files and pipes."""

    def __init__(self, total: int) -> None:
        self._total, self._shown = total, time.monotonic()

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a broken pipe; a closed file
            print(text, file=sys.stderr, flush=True)

    def training_logged(self, entry: Entry) -> None:
        now = time.monotonic()
        if now - self._shown >= SECONDS:
            self._shown = now
            progress = f"epoch {entry['epoch']}: update {entry['update']:,} of {self._total:,}"
            self.note(f"{progress}, loss {entry['train_loss']:.4f}, {entry['tokens_per_second']:,.0f} tokens/s")

    def epoch_logged(self, log: TrainingLog) -> None:
        self._shown = time.monotonic()
        self.note(log.summary())

    def close(self) -> None:
        pass


class ProgressBar:
    """A tqdm bar on standard error that counts updates, from ``done`` to ``total``, with one line per epoch."""

    def __init__(self, total: int, done: int) -> None:
        from tqdm import tqdm

        self._bar: tqdm[Any] = tqdm(total=total, initial=done, unit="update", dynamic_ncols=True, file=sys.stderr)

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._bar.write(text, file=sys.stderr)

    def training_logged(self, entry: Entry) -> None:
        text = f"loss {entry['train_loss']:.3f}, {entry['tokens_per_second']:,.0f} tokens/s"
        with contextlib.suppress(OSError, ValueError):
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(entry["update"] - self._bar.n)

    def epoch_logged(self, log: TrainingLog) -> None:
        self.note(log.summary())

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._bar.close()


def new_reporter(progress: bool | None, total: int, done: int, *, lines: bool = False) -> Reporter:
    """The reporter for the option ``progress``; None: a progress bar if standard error is a terminal.

    ``lines``: if it is not a terminal, and progress is None, write lines instead of nothing.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if progress or (progress is None and terminal):
        return ProgressBar(total, done)
    return Lines(total) if progress is None and lines else Silent()
