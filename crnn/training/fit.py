# SPDX-License-Identifier: MIT
"""fit: the one training loop. Windows in, updates out; it knows losses and flat buffers, not cells, text or heads."""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn import optim
from crnn._core import loss as kernels
from crnn._core import optim as update_kernels
from crnn.checks import check_size, check_threads
from crnn.io.atomic_write import PathLike
from crnn.models.base import Workspace
from crnn.models.metrics import Evaluation, RegressionEvaluation
from crnn.nn.state import StateLike, state_arrays
from crnn.text.corpus import TextCorpus
from crnn.training.log import TrainingLog

Array = NDArray[Any]


# Validation reads its text in at most so many streams, each from a zero state: few, since a start costs accuracy.
VALID_STREAMS = 8


class Windows(Protocol):
    """Pairs (x, y) of an epoch, as the model's `loss_and_gradients` takes them."""

    carries_state: bool  # whether a window goes on where the one before ended

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The windows of epoch 1, 2, ... in order, the same each time."""
        ...


class Trainable(Protocol):
    """What `fit` needs of a model."""

    loss_unit: str  # "nats", or "" for others

    @property
    def flat_params(self) -> Array: ...
    @property
    def flat_grads(self) -> Array: ...
    def check_valid(self, data: Any) -> None:
        """Raise ValueError unless `evaluate` can take this validation data."""
        ...

    def windows(self, data: Any, batch_size: int, bptt: int) -> Windows: ...
    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike: ...
    def loss_and_gradients(
        self,
        x: Any,
        targets: Any,
        state: StateLike | None = ...,
        *,
        reduction: str = ...,
        threads: int = ...,
        workspace: Workspace | None = ...,
        dropout_seed: int | list[int] | None = ...,
    ) -> tuple[float, int, StateLike]: ...
    def evaluate(
        self, data: Any, *, batch_size: int = ..., threads: int = ...
    ) -> Evaluation | RegressionEvaluation: ...


def fit(
    model: Trainable,
    data: Any,
    *,
    valid: Any = None,
    epochs: int = 10,
    batch_size: int = 32,
    bptt: int = 64,
    carry: int | None = None,
    optimizer: optim.Optimizer | None = None,
    schedule: optim.Schedule | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    reduction: str = "mean",
    max_updates: int | None = None,
    patience: int | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: bool | None = None,
    log_every: int = 100,
    log_file: PathLike | None = None,
    on_epoch: Callable[[TrainingLog], object] | None = None,
    checkpoint: PathLike | None = None,
    resume: bool = False,
    log: TrainingLog | None = None,
) -> TrainingLog:
    """Train a model by truncated backpropagation through time.

    A language model's stream of tokens is cut into ``batch_size`` contiguous streams that are read side by side in
    windows of ``bptt`` steps. Gradients flow within a window; the state goes on from window to window. The models of
    whole sequences call this from their own ``fit``, with batches of ``batch_size`` sequences; ``bptt`` and ``carry``
    are nothing to them.

    Parameters
    ----------
    model : LanguageModel, or another `Trainable`
        Changed in place.
    data : TextCorpus or 1-d array of ids
        What the model's ``windows`` takes. A corpus brings its own validation part.
    valid : 1-d array of ids, optional
        What to evaluate on after every epoch. The weights of the best epoch are kept.
    epochs : int
    batch_size, bptt : int
    carry : int, optional
        Steps after which the state starts from zero again, a multiple of ``bptt``; 0: every window. Not given: the
        state is carried through the whole epoch, however short the windows are.
    optimizer : crnn.optim.Optimizer, optional
        Adam(lr=2e-3) if not given.
    schedule : crnn.optim.Schedule, optional
        Factor for the rate at each update, such as ``crnn.optim.cosine()``.
    clip_norm : float, optional
        Gradients whose 2-norm exceeds this are scaled down to it.
    clip_value : float, optional
        Each element of the gradient is first cut to within +- this.
    reduction : {"mean", "sum"}
        Gradient of the mean loss per token, or of the window's sum as in min-char-rnn.
    max_updates : int, optional
        Stop after so many updates in all.
    patience : int, optional
        Stop when the validation loss has not fallen for so many epochs.
    threads : int
        The result does not depend on it.
    seed : int
        Of the dropout masks, which differ from update to update.
    progress : bool, optional
        Show a bar on standard error; by default when that is a terminal.
    log_every : int
        Updates between two entries of the log.
    log_file : path, optional
        Entries are also appended here as they come, one JSON object a line.
    on_epoch : callable, optional
        Called with the log after every epoch.
    checkpoint : path, optional
        Written after every epoch and when interrupted: weights, optimiser, progress. One file, replaced whole.
    resume : bool
        Go on from ``checkpoint`` if it is there. With the same other arguments the result is the same, bit for bit, as
        without the break.
    log : TrainingLog, optional
        An empty one to fill in, for those who want it even when training is interrupted.

    Returns
    -------
    TrainingLog
        Losses, rates, norms and times; ``log.best`` is the best epoch.

    Raises
    ------
    FloatingPointError
        A loss or gradient that is NaN or infinite, with the update's number. The weights are those before that update.
    KeyboardInterrupt
        Passed on when the update that is running is done, the checkpoint is written and the best weights so far are
        back in the model.
    """
    optimizer = optimizer or optim.Adam(lr=2e-3)
    threads = check_threads(threads)
    sizes = {"epochs": epochs, "batch_size": batch_size, "bptt": bptt, "log_every": log_every}
    for name, size in sizes.items():
        check_size(name, size)
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed: expected an integer of at least 0, got {seed!r}")
    for name, value in (("max_updates", max_updates), ("patience", patience)):
        if value is not None:
            check_size(name, value)
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if limit is not None and not (isinstance(limit, int | float) and limit > 0):
            raise ValueError(f"{name}: expected a number above 0, or None, got {limit!r}")
    if carry is not None and not (isinstance(carry, int | np.integer) and carry >= 0 and carry % bptt == 0):
        raise ValueError(f"carry: expected a multiple of bptt ({bptt}), 0 or None, got {carry!r}")
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint to resume from, got checkpoint=None")
    if isinstance(data, TextCorpus):
        if getattr(model, "vocab", data.vocab) != data.vocab:
            raise ValueError("data: expected a corpus with the model's vocabulary, got another; make it with vocab=")
        train = data.train
        valid = data.valid if valid is None and len(data.valid) > 1 else valid
    else:
        train = data
    if patience is not None and valid is None:
        raise ValueError("patience: expected validation data with it, got none")
    if valid is not None:  # now, not after an epoch
        model.check_valid(valid)

    windows = model.windows(train, batch_size, bptt)
    cut = {"windows": len(windows), "batch_size": batch_size, "bptt": bptt}
    run = _Run(model, optimizer, TrainingLog() if log is None else log, cut)
    run.log.unit = model.loss_unit
    if resume and checkpoint is not None and os.path.exists(checkpoint):
        run.restore(checkpoint)
    if log_file is not None:
        run.log.append_to(log_file)
    total = len(windows) * epochs if max_updates is None else min(max_updates, len(windows) * epochs)
    step = _Step(model, optimizer, schedule, clip_norm, clip_value, reduction, threads, seed, total)
    # Windows from one zero state to the next.
    period = len(windows) if carry is None else max(1, carry // bptt)
    period = period if windows.carries_state else 1
    streams = min(batch_size, VALID_STREAMS) if windows.carries_state else batch_size
    bar = _bar(progress, total, run.update)
    try:
        with _Interrupts() as interrupts:
            while run.log.epochs < epochs and run.update < total and not run.stale(patience):
                _train_epoch(run, windows, step, period, total, log_every, bar, interrupts)
                complete = run.position == len(windows)
                if complete:
                    run.position, run.state = 0, None
                else:  # before the log counts the epoch: resuming goes on within it
                    if checkpoint is not None:
                        run.write(checkpoint)
                    interrupts.check()
                if valid is not None:
                    run.judge(model.evaluate(valid, batch_size=streams, threads=threads))
                run.log.end_epoch()
                bar.note(run.log)
                if checkpoint is not None and complete:
                    run.write(checkpoint)
                interrupts.check()
                if on_epoch is not None:
                    on_epoch(run.log)
    except KeyboardInterrupt:
        run.keep_best()
        raise
    finally:
        bar.close()
        run.log.close()
    run.keep_best()
    return run.log


class _Run:
    """What changes while training, and is all that a checkpoint has to hold."""

    def __init__(self, model: Trainable, optimizer: optim.Optimizer, log: TrainingLog, cut: dict[str, int]) -> None:
        self.model, self.optimizer, self.log = model, optimizer, log
        self.cut = cut  # how an epoch is cut into windows: what a position within it refers to
        self.best = model.flat_params.copy()
        self.update = 0  # updates done
        self.position = 0  # windows done in the epoch that is running
        self.state: StateLike | None = None  # after the last of them

    def judge(self, evaluation: Evaluation | RegressionEvaluation) -> None:
        if self.log.add_validation(evaluation.loss, evaluation.accuracy):
            self.best[...] = self.model.flat_params

    def keep_best(self) -> None:
        """Put the weights of the best epoch back, if any was judged."""
        if self.log.best is not None:
            self.model.flat_params[...] = self.best

    def stale(self, patience: int | None) -> bool:
        return patience is not None and self.log.epochs_since_best >= patience

    def write(self, path: PathLike) -> None:
        from crnn.io.model_file import write_checkpoint

        arrays = {"params": self.model.flat_params, "best": self.best, **self.optimizer.arrays}
        if self.state is not None:
            arrays |= {f"state.{number}": array for number, array in enumerate(state_arrays(self.state))}
        progress = {
            "update": self.update,
            "position": self.position,
            "cut": self.cut,
            "optimizer": self.optimizer.state(),
            "log": self.log.entries,
        }
        write_checkpoint(path, arrays, repr(self.optimizer), progress)

    def restore(self, path: PathLike) -> None:
        from crnn.io.model_file import STATE_NAMES, ModelFileError, read_checkpoint

        names = ("params", "best", *self.optimizer.array_names)
        arrays, progress = read_checkpoint(path, self.optimizer, dict.fromkeys(names, self.model.flat_params))
        position, cut = progress["position"], progress.get("cut")
        if position and (cut != self.cut or position >= self.cut["windows"]):
            raise ModelFileError(
                f"{os.fspath(path)}: expected a checkpoint within an epoch of {self.cut}, "
                f"got one of {cut!r:.100} at window {position}"
            )
        state = [arrays.pop(name) for name in STATE_NAMES if name in arrays]
        try:
            self.state = self.model.state_from(state, self.cut["batch_size"]) if state else None
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{os.fspath(path)}: {error}") from None
        self.model.flat_params[...] = arrays.pop("params")
        self.best[...] = arrays.pop("best")
        self.optimizer.set_state(progress["optimizer"], arrays)
        self.update, self.position = progress["update"], position
        self.log.restore(progress["log"])


class _Interrupts:
    """Ctrl-C waits for the end of the update that is running, so that weights, optimiser and log agree. A second Ctrl-C
    does not wait. Only where Python's own handler is in charge: an application's handler keeps its say."""

    def __init__(self) -> None:
        self.pending = False
        self.installed = False

    def __enter__(self) -> _Interrupts:
        import signal

        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self.installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.installed:
            import signal

            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def check(self) -> None:
        if self.pending:
            raise KeyboardInterrupt


class _Step:
    """One window: forward, backward, clip, update."""

    def __init__(
        self,
        model: Trainable,
        optimizer: optim.Optimizer,
        schedule: optim.Schedule | None,
        clip_norm: float | None,
        clip_value: float | None,
        reduction: str,
        threads: int,
        seed: int,
        total: int,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.reduction, self.threads, self.seed, self.total = reduction, threads, seed, total
        self.workspace = Workspace()
        self.lr_scale = 1.0
        self.norm = 0.0

    def __call__(
        self, x: Any, y: Any, state: StateLike | None, update: int, epoch: int
    ) -> tuple[float, int, StateLike]:
        params, grads = self.model.flat_params, self.model.flat_grads
        grads.fill(0)
        total, count, state = self.model.loss_and_gradients(
            x,
            y,
            state,
            reduction=self.reduction,
            threads=self.threads,
            workspace=self.workspace,
            dropout_seed=[self.seed, update],
        )
        self.norm = norm = math.sqrt(kernels.sum_of_squares(grads))
        if self.clip_value is not None and math.isfinite(norm):  # an infinite element is not clipped away unseen
            update_kernels.clip(grads, self.clip_value)
            self.norm = norm = math.sqrt(kernels.sum_of_squares(grads))
        if not (math.isfinite(total) and math.isfinite(norm)):
            loss_is_finite = math.isfinite(total)
            what = f"gradient's norm is {norm}" if loss_is_finite else f"loss is {total / max(count, 1)}"
            raise FloatingPointError(
                f"{what} at update {update + 1} (epoch {epoch}); the weights are those before this update. "
                "A smaller learning rate or clip_norm may help"
            )
        factor = 1.0
        if self.clip_norm is not None and norm > self.clip_norm:
            factor = self.clip_norm / norm
        if self.schedule is not None:
            self.lr_scale = self.schedule(update, self.total)
        self.optimizer.update(params, grads, factor=factor, lr_scale=self.lr_scale)
        return total, count, state


def _train_epoch(
    run: _Run,
    windows: Windows,
    step: _Step,
    period: int,
    stop: int,
    log_every: int,
    bar: _Bar,
    interrupts: _Interrupts,
) -> None:
    """Train on what is left of an epoch: to its end, to update number ``stop``, or until interrupted."""
    epoch = run.log.epochs + 1
    loss, tokens, started = 0.0, 0, time.perf_counter()

    def note() -> None:
        nonlocal loss, tokens, started
        if not tokens:  # nothing was asked for, as of sequences whose classes are unknown
            return
        now = time.perf_counter()
        rate = run.optimizer.lr * step.lr_scale
        run.log.add_training(epoch, run.update, loss / tokens, tokens, now - started, rate, step.norm)
        bar.advance(run.update, loss / tokens, tokens / max(now - started, 1e-9))
        loss, tokens, started = 0.0, 0, now

    for x, y in itertools.islice(windows.epoch(epoch), run.position, None):
        if run.update >= stop or interrupts.pending:
            break
        if run.position % period == 0:
            run.state = None
        total, count, run.state = step(x, y, run.state, run.update, epoch)
        run.update += 1
        run.position += 1
        loss += total
        tokens += count
        if run.update % log_every == 0:
            note()
    note()


class _Bar:
    """A tqdm bar, or nothing."""

    def __init__(self, bar: Any = None) -> None:
        self.bar = bar

    def advance(self, update: int, loss: float, tokens_per_second: float) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s", refresh=False)
            self.bar.update(update - self.bar.n)

    def note(self, log: TrainingLog) -> None:
        if self.bar is not None:
            self.bar.write(log.summary(), file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _bar(progress: bool | None, total: int, done: int) -> _Bar:
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    if not progress:
        return _Bar()
    from tqdm import tqdm

    return _Bar(tqdm(total=total, initial=done, unit="update", dynamic_ncols=True, file=sys.stderr))
