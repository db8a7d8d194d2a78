# SPDX-License-Identifier: MIT
"""Reporters, which show the progress of training: a protocol, a tqdm progress bar, and one that shows nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from crnn.training.log import Entry, TrainingLog

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["ProgressBar", "Reporter", "Silent", "new_reporter"]


class Reporter(Protocol):
    """Shows the progress of training; called after every new entry of the log."""

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

    def training_logged(self, entry: Entry) -> None:
        pass

    def epoch_logged(self, log: TrainingLog) -> None:
        pass

    def close(self) -> None:
        pass


class ProgressBar:
    """A tqdm bar on standard error that counts updates, from ``done`` to ``total``, with one line per epoch."""

    def __init__(self, total: int, done: int) -> None:
        from tqdm import tqdm

        self._bar: tqdm[Any] = tqdm(total=total, initial=done, unit="update", dynamic_ncols=True, file=sys.stderr)

    def training_logged(self, entry: Entry) -> None:
        text = f"loss {entry['train_loss']:.3f}, {entry['tokens_per_second']:,.0f} tokens/s"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(entry["update"] - self._bar.n)

    def epoch_logged(self, log: TrainingLog) -> None:
        self._bar.write(log.summary(), file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def new_reporter(progress: bool | None, total: int, done: int) -> Reporter:
    """The reporter for the option ``progress``; None: a progress bar if standard error is a terminal."""
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    return ProgressBar(total, done) if progress else Silent()
