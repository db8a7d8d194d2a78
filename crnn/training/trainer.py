# SPDX-License-Identifier: MIT
"""Trainer: the loop over epochs and their windows, with validation, log, reporter and checkpoint, and how it ends."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

from crnn.checks import warn
from crnn.training.advice import advice, unlearnt
from crnn.training.checkpoint import Checkpoint
from crnn.training.command import Command
from crnn.training.config import Length, TrainingConfig
from crnn.training.entries import LARGEST_COUNT
from crnn.training.interrupts import Interrupted, Interrupts
from crnn.training.log import TrainingLog
from crnn.training.observer import Observer, about, reason_of
from crnn.training.output import Output
from crnn.training.progress import Callback, Progress, Sums, asks_to_stop
from crnn.training.protocols import Evaluation, RunData, View, weights_of
from crnn.training.ranks import RankedRun, SharedInterrupts
from crnn.training.report_page import ReportPage
from crnn.training.reporter import SECONDS, new_reporter
from crnn.training.run import Diverged, Run
from crnn.training.shards import Gradients
from crnn.training.step import UpdateStep
from crnn.training.watch import Watch

__all__ = ["Trainer"]

# Validation tokens are split into at most this many parallel streams. They are few because each starts from the initial
# state, without context, which costs accuracy.
VALID_STREAMS = 8


class Trainer:
    """Trains a model to the end, from the start or from a checkpoint.

    Parameters
    ----------
    run : Run
        Everything that changes while training.
    data : RunData
    config : TrainingConfig
    checkpoint : Checkpoint
    gradients : Gradients, optional
        What computes the gradient of a window, if not the model.
    ranked : RankedRun, optional
        The ranks of the run, if there are several.
    command : Command, optional
        The command that started the run, if one did.

    Attributes
    ----------
    ending : list of str
        When training has ended: what was done with the model.
    reason : str
        When training has ended: one of "finished", "stopped early", "stopped by on_update", "stopped by on_epoch",
        "interrupted", "diverged" and "failed".
    """

    run: Run
    data: RunData
    config: TrainingConfig
    length: Length
    total: int  # updates of the whole run
    step: UpdateStep
    checkpoint: Checkpoint
    output: Output | None
    ranked: RankedRun | None
    ending: list[str]
    reason: str
    watch: Watch
    page: ReportPage
    observer: Observer
    windows_per_state: int  # windows after which the state is reset to the initial state
    valid_batch_size: int
    resumable: bool  # whether `run` is at a point where a checkpoint can be written: not within an update

    def __init__(
        self,
        run: Run,
        data: RunData,
        config: TrainingConfig,
        checkpoint: Checkpoint,
        *,
        gradients: Gradients | None = None,
        ranked: RankedRun | None = None,
        command: Command | None = None,
    ) -> None:
        self.run, self.data, self.config, self.checkpoint, self.ranked = run, data, config, checkpoint, ranked
        self.output = None if command is None else command.output
        self._command = command
        windows = data.windows
        run.log.notes[:] = map(self._in_words, run.log.notes)
        run.log.counted = "tokens" if windows.carries_state else "targets"
        begun = run.update - run.position  # when the epoch began; earlier ones may have had another number of windows
        self.length = config.length(len(windows), judged=data.valid is not None)
        updates = begun + len(windows) * (self.length.epochs - run.log.epochs)
        most = LARGEST_COUNT - 1 if config.max_updates is None else config.max_updates
        self.total = max(min(most, updates, LARGEST_COUNT - 1), run.update)  # resumed with less than it has done
        self.step = UpdateStep(run.model, run.optimizer, config, self.total, gradients)
        at_most = self.length.patience is not None
        self.watch = Watch(run, self.step, self.length.epochs, self.total, at_most=at_most)
        self.ending, self.reason = [], ""
        self.resumable = True
        self._stopped_by = ""  # the callback that has asked to stop
        self._cut_short = False  # whether the last epoch has ended within its windows, because of ``max_updates``
        self._sums = Sums()
        self._started_at = run.update
        self._evaluation_seconds = math.inf  # that the last evaluation has taken
        self._saved = (run.update, time.perf_counter())  # update and time of the last checkpoint
        if windows.carries_state:
            self.windows_per_state = len(windows) if config.carry is None else max(1, config.carry // config.bptt)
            self.valid_batch_size = min(config.batch_size, VALID_STREAMS)
        else:
            self.windows_per_state, self.valid_batch_size = 1, config.batch_size
        self._sample_at = self._next_sample(max(run.log.column("update", "sample"), default=0))
        self._observation_due = 0.0  # the update at which the next observation or sample may be due
        self.page = ReportPage(config.report, run.log)
        view = View(data.train, data.valid, config.batch_size, config.bptt, config.threads, 0)
        self.observer = Observer(
            run,
            config,
            view,
            epochs=self.length.epochs,
            updates=self.total,
            observed=getattr(run.model, "observed", ()) if ranked is None or ranked.ranks.leads else (),
            about=about(checkpoint, self.output, run.optimizer, windows),
        )
        if ranked is not None:
            ranked.wants_checkpoint = lambda: self.checkpoint_is_due(time.perf_counter(), 1)

    # ---- the run and its end --------------------------------------------------------------------------------------

    def train(self) -> TrainingLog:
        """Train for all remaining epochs. Returns the log. However training ends, `end` saves what it has reached."""
        with Interrupts() if self.ranked is None else SharedInterrupts(self.ranked) as interrupts:
            try:
                try:
                    progress, run = self.config.progress, self.run
                    self.watch.start(new_reporter(progress, run.log, from_start=self._command is not None))
                    self.observer.start()
                    while not self.finished():
                        self.train_epoch(interrupts)
                    self.evaluate_test()
                    interrupts.check()
                finally:
                    interrupts.shield()  # a signal does not keep the run from being saved
            except BaseException as error:
                self.end(error)
                raise
            self.end(None)
            interrupts.check()
        return self.run.log

    def finished(self) -> bool:
        """Whether all epochs or all updates are done, patience is exhausted, or a callback has stopped training."""
        log, limit = self.run.log, self.config.max_updates
        # Within an epoch whose updates are done, it has not been evaluated yet.
        stopped = self._cut_short or (limit is not None and self.run.update >= limit and not self.run.position)
        return log.epochs >= self.length.epochs or stopped or self.out_of_patience() or bool(self._stopped_by)

    def out_of_patience(self) -> bool:
        """Whether so many epochs have passed without a lower validation loss that training stops."""
        patience = self.length.patience
        return patience is not None and self.run.log.epochs_since_best >= patience

    def end(self, error: BaseException | None) -> None:
        """Save checkpoint, log and model, and put the best weights into the model.

        Each of these is tried, whatever happens to the others. ``error`` is the exception that ended training, None if
        it is finished.
        """
        begun = self.run.update > 0
        early = self.out_of_patience() and self.run.update < self.total
        self.reason = reason_of(error, early=early, stopped_by=self._stopped_by)
        steps: list[Callable[[], object]] = [
            self.flush,
            lambda: self._roll_back(error) if isinstance(error, Diverged) else None,
            lambda: self.checkpoint.write(self.run) if begun and self._is_savable(error) else None,
            self.run.keep_best,
            lambda: self._warn(self.checkpoint.failure) if self.checkpoint.failure else None,
            lambda: self._tell_kept(error) if isinstance(error, Interrupted) else None,
            lambda: self.run.add_record(self.checkpoint.record(self.run)),
            lambda: self._save_output(finished=error is None),
            self._advise,
            lambda: self.observer.end(self.reason),
            self.run.log.close,
            self.page.write,
            lambda: self.watch.close(self.reason),
        ]
        failures = []
        for step in steps:
            try:
                step()
            except BaseException as failure:  # also a handler of the host that raises KeyboardInterrupt
                failures.append(failure)
        if failures:
            raise failures[0] from error

    def _is_savable(self, error: BaseException | None) -> bool:
        """Whether a checkpoint is to be written after an error: with the state of all ranks, if there is one."""
        if error is None:
            return False
        complete = self.ranked is None or self.run.state is None or self.ranked.ranks.have_agreed_on(error)
        return self.resumable and complete

    def _advise(self) -> None:
        """Say why the run was stopped early, or what might help one that was not."""
        if self.run.update == self._started_at:
            return
        if self.reason == "stopped early" and self.run.log.best is not None:
            best = self.run.log.best["epoch"]
            note = f"stopped early: no lower validation loss since epoch {best} (patience={self.length.patience})"
            self.watch.note(self._in_words(note))
        average = self.run.average
        if average is not None and not average.count:
            note = f"average: it has not begun, see {average.rule!r}; the weights are no average"
            self.watch.note(self._in_words(note))
        if self.reason in ("finished", "stopped early"):
            for note in unlearnt(self.run.log):
                self.watch.note(self._in_words(note))
        if self.reason == "finished":
            limit = self.config.max_updates
            option, value = ("epochs", self.length.epochs) if limit != self.total else ("max_updates", limit)
            for note in advice(self.run.log, option, value):
                self.watch.note(self._in_words(note))

    def _roll_back(self, error: Diverged) -> None:
        """Return to the best weights, and note it in the error."""
        weights = self.run.roll_back()
        self.resumable = True
        error.args = (f"{error}; the weights are {weights}. A smaller learning rate or clip_norm may help",)

    def _in_words(self, note: str) -> str:
        """A note of the log in the words of the user."""
        return note if self._command is None else self._command.wording(note)

    def _tell_kept(self, error: Interrupted) -> None:
        """Say in the error how far the run came, and which weights the model has."""
        run = self.run
        averages = run.average is not None and run.average.count > 0
        latest = "the average of the latest" if averages else "the latest"
        kept = f"those of epoch {run.best_epoch}, the best so far" if run.judged else latest
        more = "; resume=True continues from the checkpoint" if self.checkpoint.holds(run) else ""
        error.args = (f"{error} at update {run.update:,} of {self.total:,}; the model's weights are {kept}{more}",)

    def _save_output(self, *, finished: bool) -> None:
        """Write the model, if there is a file for it."""
        if self.output is not None:
            # What no checkpoint could be written of is in no other file.
            resumable = self.resumable and (self.checkpoint.holds(self.run) or bool(self.checkpoint.failure))
            self.ending.append(self.output.save(self.run, finished=finished, resumable=resumable))

    def evaluate_test(self) -> None:
        """Evaluate the weights to keep on the test data, before the model is written with the result."""
        if self.data.test is not None:
            self.run.keep_best()
            self.run.test = self.evaluate(self.data.test)

    def evaluate(self, data: Any) -> Evaluation:
        """Evaluate the model as it is, with a message if that takes long."""
        if hasattr(self.step.workspace, "release_block"):  # evaluation needs as much memory
            self.step.workspace.release_block()
        began = time.perf_counter()
        if began >= self.watch.due or (self._evaluation_seconds > 1 and self.watch.due < math.inf):
            self.watch.show(began, self._sums, evaluating=True)
            began = time.perf_counter()
        evaluation = self.run.model.evaluate(data, batch_size=self.valid_batch_size, threads=self.config.threads)
        self._evaluation_seconds = time.perf_counter() - began
        return evaluation

    # ---- epochs and windows ---------------------------------------------------------------------------------------

    def train_epoch(self, interrupts: Interrupts) -> None:
        """Train on the remaining windows of an epoch, evaluate the model, log the epoch and write the checkpoint."""
        run = self.run
        self.watch.begin_epoch()
        losses = run.log.column("valid_loss", kind="epoch")
        self.step.begin_epoch(run.log.epochs + 1, losses)
        if run.average is not None:
            run.average.begin_epoch(run.log.epochs + 1, losses)
        self.train_windows(interrupts)
        interrupts.check()
        run.check_weights()
        if self.ranked is not None:
            self.resumable = False  # weights that differ are not saved
            self.ranked.check_weights()
            self.resumable = True
        complete = run.position == len(self.data.windows)
        if not complete:  # before the log counts the epoch, so that resuming continues within it
            self.checkpoint.write(run)
            self.resumable = False
        with run.averaged():
            evaluation = None if self.data.valid is None else self.evaluate(self.data.valid)
            with interrupts.deferred():
                run.record_validation(evaluation)
                if complete:
                    run.end_epoch()
                self._cut_short = not complete
                run.log.end_epoch()
        self.watch.epoch()
        self.observe(interrupts)  # before the checkpoint, which has the whole log
        self.page.epoch_ended()
        if complete:
            self.save_progress()
        interrupts.check()
        if self.config.on_epoch is not None and run.log.last is not None:
            self._call("on_epoch", self.config.on_epoch, run.log.epochs, run.log.last["train_loss"])

    def observe(self, interrupts: Interrupts) -> None:
        """Log what the model does, and show samples, as far as that is due.

        Samples are made at once; other observations after an entry of the log, at the update that it is of.
        """
        run = self.run
        if run.update >= self._sample_at:
            self.flush(interrupts)
        if self._sums.count:
            return
        self.observer.update_if_due()
        if run.update >= self._sample_at:
            self._sample()
            self._sample_at = self._next_sample(run.update)
        self._observation_due = min(self._sample_at, self.observer.due)
        self._sums = Sums()  # its time begins now

    def _next_sample(self, update: int) -> float:
        """The update after which the next sample is due, if the last one was after this one."""
        every = self.config.sample_every
        return math.inf if every is None else (update // every + 1) * every

    def _sample(self) -> None:
        """Log and show texts that the model generates."""
        log = self.run.log
        of_now = itertools.takewhile(lambda entry: entry["update"] == log.updates, reversed(log.of_kind("sample")))
        for entry in [*of_now][::-1] or self.observer.sample():
            self.watch.sample(entry["prompt"], entry["text"])

    def _call(self, name: str, callback: Callback, epoch: int, loss: float) -> None:
        """Call a callback, and stop training if it returns True."""
        run, step = self.run, self.step
        last = run.log.last if name == "on_epoch" else None
        valid_loss = None if last is None else last.get("valid_loss")
        progress = Progress(
            run.model, run.log, epoch, self.length.epochs, run.update, self.total, loss, valid_loss, step.lr, step.norm
        )
        with self.watch.aside():
            stop = asks_to_stop(name, callback, progress)
        if stop:
            self._stopped_by = name

    def train_windows(self, interrupts: Interrupts) -> None:
        """Train until the end of the epoch, the last update or an interrupt."""
        run, epoch, watch = self.run, self.run.log.epochs + 1, self.watch
        log_every = self.config.updates_per_entry(self.total, len(self.data.windows))
        divides_epoch = self.config.log_every is None
        has_checkpoint, on_update = self.checkpoint.path is not None, self.config.on_update
        is_due = self.checkpoint_is_due if self.ranked is None else self.ranked.checkpoint_is_due
        self._sums = Sums()  # its time begins now: validation and callbacks are no part of it
        for x, targets in itertools.islice(self.data.windows.epoch(epoch), run.position, None):
            if run.update >= self.total or interrupts.pending:
                break
            if run.update >= self._observation_due:
                self.observe(interrupts)
            if run.position % self.windows_per_state == 0:
                run.state = None
            self.step.before_update = run.confirm if run.unconfirmed else None
            self.resumable = False  # if a second signal comes before it is True again, no checkpoint is written
            loss, count, run.state = self.step(x, targets, run.state, run.update, epoch)
            run.update += 1
            run.position += 1
            if run.average is not None:
                run.average.update(weights_of(run.model), self.config.threads)
            sums = self._sums
            sums.loss += loss
            sums.count += count
            self.resumable = True
            now = time.perf_counter()
            counted = run.position if divides_epoch else run.update
            if counted % log_every == 0 or now - sums.started > SECONDS:
                self.flush(interrupts)
            if has_checkpoint and is_due(now):
                self.flush(interrupts)
                run.check_weights()
                self.save_progress()
            if now >= watch.due:
                watch.show(now, self._sums)
            if on_update is not None:
                self._call("on_update", on_update, epoch, loss / max(count, 1))
                if self._stopped_by:
                    break
        self.flush(interrupts)

    def checkpoint_is_due(self, now: float, more: int = 0) -> bool:
        """Whether so many updates or minutes have passed since the last checkpoint that one is due within an epoch.

        ``more``: updates that will have been done.
        """
        update, written = self._saved
        updates, minutes = self.config.checkpoint_updates, self.config.checkpoint_minutes
        if updates is not None and self.run.update + more - update >= updates:
            return True
        return minutes is not None and now - written >= 60 * minutes

    def save_progress(self) -> None:
        """Write the checkpoint. The first of several failures is told here, the last one by `end`."""
        told = self.checkpoint.failure
        self.checkpoint.write(self.run)
        self._saved = (self.run.update, time.perf_counter())
        if self.checkpoint.failure and not told and not self.finished():
            self._warn(f"{self.checkpoint.failure}; training continues, and the next checkpoint tries again")

    def _warn(self, note: str) -> None:
        """Warn of what does not end training: in a shell by a note, in Python also if no progress is shown."""
        if self._command is not None:
            self.watch.note(self._command.wording(note))
            return
        self.run.log.notes.append(note)
        with self.watch.aside():
            warn(note)

    def flush(self, interrupts: Interrupts | None = None) -> None:
        """Add an entry to the log for the updates since the last one, if there were any."""
        run, sums = self.run, self._sums
        if not sums.count:  # also windows without targets, such as sequences of unknown class
            return
        seconds = time.perf_counter() - sums.started
        values = (run.log.epochs + 1, run.update, sums.loss / sums.count, sums.count, seconds)
        with interrupts.deferred() if interrupts else contextlib.nullcontext():
            self._sums = Sums()
            run.log.add_training(*values, self.step.lr, self.step.norm)
