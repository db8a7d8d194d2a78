# SPDX-License-Identifier: MIT
"""Trainer: the loop over epochs and their windows, with validation, log, reporter and checkpoint."""

from __future__ import annotations

import itertools
import time
from typing import Any

from crnn.training.checkpoint import Checkpoint
from crnn.training.config import TrainingConfig
from crnn.training.interrupts import Interrupts
from crnn.training.log import TrainingLog
from crnn.training.protocols import Windows
from crnn.training.reporter import Reporter, new_reporter
from crnn.training.run import Run
from crnn.training.step import UpdateStep

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
    windows : Windows
        Windows of the training data.
    valid
        Validation data for the model's ``evaluate``, after every epoch; or None.
    config : TrainingConfig
    """

    run: Run
    windows: Windows
    valid: Any
    config: TrainingConfig
    total: int  # updates of the whole run
    step: UpdateStep
    checkpoint: Checkpoint
    reporter: Reporter
    windows_per_state: int  # windows after which the state is reset to the initial state
    valid_batch_size: int

    def __init__(self, run: Run, windows: Windows, valid: Any, config: TrainingConfig) -> None:
        self.run, self.windows, self.valid, self.config = run, windows, valid, config
        updates = len(windows) * config.epochs
        self.total = updates if config.max_updates is None else min(config.max_updates, updates)
        self.step = UpdateStep(run.model, run.optimizer, config, self.total)
        self.checkpoint = Checkpoint(config.checkpoint)
        self.reporter = new_reporter(config.progress, self.total, run.update)
        if windows.carries_state:
            self.windows_per_state = len(windows) if config.carry is None else max(1, config.carry // config.bptt)
            self.valid_batch_size = min(config.batch_size, VALID_STREAMS)
        else:
            self.windows_per_state, self.valid_batch_size = 1, config.batch_size

    def train(self) -> TrainingLog:
        """Train for all remaining epochs. Returns the log."""
        error: BaseException | None = None
        try:
            with Interrupts() as interrupts:
                while not self.finished():
                    self.train_epoch(interrupts)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.end(error)
        return self.run.log

    def finished(self) -> bool:
        """Whether all epochs or all updates are done, or patience is exhausted."""
        log, config = self.run.log, self.config
        out_of_patience = config.patience is not None and log.epochs_since_best >= config.patience
        return log.epochs >= config.epochs or self.run.update >= self.total or out_of_patience

    def end(self, error: BaseException | None) -> None:
        """Clean up after training. ``error`` is the exception that ended it, None if it is finished.

        If training is finished or was interrupted, the weights of the best epoch are restored. After any other
        exception the model keeps its current weights.
        """
        try:
            if error is None or isinstance(error, KeyboardInterrupt):
                self.run.restore_best()
        finally:
            self.reporter.close()
            self.run.log.close()

    def train_epoch(self, interrupts: Interrupts) -> None:
        """Train on the remaining windows of an epoch, evaluate the model, log the epoch and write the checkpoint."""
        run = self.run
        self.train_windows(interrupts)
        complete = run.position == len(self.windows)
        if complete:
            run.end_epoch()
        else:  # before the log counts the epoch, so that resuming continues within it
            self.checkpoint.write(run)
            interrupts.check()
        if self.valid is not None:
            run.record_validation(
                run.model.evaluate(self.valid, batch_size=self.valid_batch_size, threads=self.config.threads)
            )
        run.log.end_epoch()
        self.reporter.epoch_logged(run.log)
        if complete:
            self.checkpoint.write(run)
        interrupts.check()
        if self.config.on_epoch is not None:
            self.config.on_epoch(run.log)

    def train_windows(self, interrupts: Interrupts) -> None:
        """Train until the end of the epoch, the last update or an interrupt."""
        run, epoch = self.run, self.run.log.epochs + 1
        sums = _Sums()
        for x, targets in itertools.islice(self.windows.epoch(epoch), run.position, None):
            if run.update >= self.total or interrupts.pending:
                break
            if run.position % self.windows_per_state == 0:
                run.state = None
            loss, count, run.state = self.step(x, targets, run.state, run.update, epoch)
            run.update += 1
            run.position += 1
            sums.loss += loss
            sums.count += count
            if run.update % self.config.log_every == 0:
                sums = self.log_training(epoch, sums)
        self.log_training(epoch, sums)

    def log_training(self, epoch: int, sums: _Sums) -> _Sums:
        """Add an entry to the log. Returns the sums for the next entry."""
        if not sums.count:  # windows without targets, such as sequences of unknown class
            return sums
        now, log = time.perf_counter(), self.run.log
        loss, seconds = sums.loss / sums.count, now - sums.started
        log.add_training(epoch, self.run.update, loss, sums.count, seconds, self.step.lr, self.step.norm)
        self.reporter.training_logged(log.entries[-1])
        return _Sums(now)


class _Sums:
    """Sum of the losses and number of targets since the last entry of the log."""

    def __init__(self, started: float | None = None) -> None:
        self.loss: float = 0.0
        self.count: int = 0
        self.started: float = time.perf_counter() if started is None else started
