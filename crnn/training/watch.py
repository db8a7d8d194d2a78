# SPDX-License-Identifier: MIT
"""Watch: shows a run by a reporter, by time, so that it costs next to nothing however short the updates are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar

from crnn.training.entries import Entry
from crnn.training.progress import Figures, Pace, Sums
from crnn.training.reporter import Reporter, Silent
from crnn.training.run import Run
from crnn.training.step import UpdateStep

__all__ = ["Watch"]

COST = 200  # a reporter waits for so many times as long as showing has taken it,
LONGEST = 3.0  # but not for more seconds than this

T = TypeVar("T")


class Watch:
    """Tells a reporter how far a run is. If the reporter raises an exception, nothing more is shown.

    Parameters
    ----------
    run : Run
    step : UpdateStep
        What does the updates.
    epochs, updates : int
        Of the whole run.
    at_most : bool
        Whether it may stop earlier, because validation losses no longer fall.

    Attributes
    ----------
    due : float
        When to call `show` again, on the clock of `time.perf_counter`.
    """

    due: float

    def __init__(self, run: Run, step: UpdateStep, epochs: int, updates: int, *, at_most: bool) -> None:
        self._run, self._step, self._epochs, self._updates, self._at_most = run, step, epochs, updates, at_most
        self._reporter: Reporter = Silent()
        self._started = time.perf_counter()
        self._pace = Pace(run.update, self._started)
        self._logged = len(run.log.of_kind("train"))  # entries of an earlier part of the run
        self._epoch = min(run.log.epochs + 1, epochs)
        self.due = math.inf

    def start(self, reporter: Reporter) -> None:
        """Training begins; from now on, this reporter shows it. The notes of the log are the first that it shows."""
        now = self._started = time.perf_counter()
        self._pace = Pace(self._run.update, now)
        self._reporter = reporter
        for note in self._run.log.notes:
            self._tell(reporter.note, note)
        wait = self._tell(self._reporter.start, self._figures(now, Sums()))
        self.due = math.inf if wait is None else now + wait

    def begin_epoch(self) -> None:
        """The next epoch begins, or the rest of one."""
        self._epoch = self._run.log.epochs + 1

    def show(self, now: float, sums: Sums, *, evaluating: bool = False) -> None:
        """Show the figures, with the sums over the updates that the log does not have yet."""
        wait = self._tell(self._reporter.show, self._figures(now, sums, evaluating=evaluating))
        after = time.perf_counter()
        if wait is None:
            self.due = math.inf
        elif not evaluating:  # that comes by itself
            self.due = after + max(wait, min(COST * (after - now), LONGEST))

    def epoch(self) -> None:
        """The last epoch has been logged."""
        now = time.perf_counter()
        self._tell(self._reporter.epoch, now - self._started, lambda: self._figures(now, Sums()))

    def note(self, text: str) -> None:
        """Something that the user should know, for the log too."""
        self._run.log.notes.append(text)
        self._tell(self._reporter.note, text)

    def sample(self, prompt: str, text: str) -> None:
        """A text that the model has generated as a continuation of a prompt."""
        self._tell(self._reporter.sample, prompt, text)

    def aside(self) -> AbstractContextManager[object]:
        """A context in which a callback may print."""
        return self._tell(self._reporter.aside) or nullcontext()

    def close(self, reason: str) -> None:
        """Training has ended."""
        self._tell(self._reporter.close, replace(self._figures(time.perf_counter(), Sums()), ended=reason))

    def _tell(self, method: Callable[..., T], *arguments: object) -> T | None:
        """Call a method of the reporter. If that fails, training continues without it."""
        try:
            return method(*arguments)
        except Exception:
            self._reporter = Silent()
            return None

    def _figures(self, now: float, sums: Sums, *, evaluating: bool = False) -> Figures:
        """What to show: means over the last entry of the log and the updates since then, of this part of the run."""
        run, entries = self._run, self._run.log.of_kind("train")
        last: Entry | None = entries[-1] if len(entries) > self._logged else None
        loss, count, seconds = sums.loss, sums.count, now - sums.started if sums.count else 0.0
        if last is not None:
            loss, count = loss + last["train_loss"] * last["tokens"], count + last["tokens"]
            seconds += last["seconds"]
        return Figures(
            epoch=self._epoch,
            epochs=self._epochs,
            update=run.update,
            updates=self._updates,
            loss=loss / count if count else None,
            speed=count / seconds if count and seconds > 0 else None,
            counted=run.log.counted,
            grad_norm=self._step.norm if count else None,
            best=run.log.best,
            seconds=now - self._started,
            left=self._pace.left(run.update, self._updates, now),
            at_most=self._at_most,
            evaluating=evaluating,
        )
