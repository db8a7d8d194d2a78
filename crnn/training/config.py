# SPDX-License-Identifier: MIT
"""TrainingConfig: the options of a training run, each declared once with its type, default, check, help text and flag.

`crnn.fit`, its docstring, the models' ``fit`` methods and the flags of ``crnn train`` all read this list. A new option
is declared here, in `TrainingConfig` and for type checkers in `TrainingOptions` or, if it says how a model learns, in
`LearningOptions`, and used in step.py or trainer.py. recorded.py says whether checkpoints record it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from crnn import optim
from crnn._options import check_options, option, options_of
from crnn.checks import (
    as_integer,
    check_callback,
    check_count,
    check_finite,
    check_flag,
    check_limit,
    check_number,
    check_path,
    check_reduction,
    check_seed,
    check_size,
    check_threads,
)
from crnn.io.atomic_write import PathLike
from crnn.nn.precision import check_training_precision
from crnn.optim.named import (
    average_from,
    check_average,
    check_optimizer,
    check_schedule,
    is_listed,
    optimizer_from,
    schedule_from,
)
from crnn.training.communicator import Communicator, Ranks, as_ranks
from crnn.training.entries import LARGEST_COUNT
from crnn.training.progress import Callback

__all__ = ["LEARNING", "LEAST_EPOCHS", "LEAST_UPDATES", "LearningOptions", "TrainingConfig", "TrainingOptions"]

# What `TrainingConfig.length` makes of options that are not given. docs/training.md says how they were chosen.
LEAST_UPDATES = 1000
LEAST_EPOCHS = 10
PATIENCE_PARTS = 4  # patience is one of so many parts of all epochs
LEAST_PATIENCE = 5
LOG_ENTRIES = 100  # of updates that a curve needs
LOG_EVERY = 100
LEAST_RANDOM_BPTT = 10
SHARDS = 8  # of a batch, if there are ranks and their number is not given


class LearningOptions(TypedDict, total=False):
    """The options of `TrainingConfig` that say how a model learns, for type checkers.

    The constructors of the sequence models take them as well, see `LEARNING`. They do not concern one run only, as its
    files and callbacks do.
    """

    epochs: int | None
    batch_size: int
    optimizer: optim.Optimizer | str
    lr: float | None
    schedule: optim.Schedule | str | None
    warmup: int
    average: optim.Average | str | None
    clip_norm: float | None
    clip_value: float | None
    gradient_noise: float | None
    reduction: Literal["mean", "sum"]
    max_updates: int | None
    patience: int | Literal["auto"] | None
    threads: int
    progress: bool | None
    log_every: int | None


class TrainingOptions(LearningOptions, total=False):
    """The options that `crnn.fit` takes by name, for type checkers; see `TrainingConfig` for their meaning."""

    bptt: int
    random_bptt: bool
    carry: int | None
    precision: Literal["bf16"] | None
    seed: int
    shards: int | None
    comm: Communicator | None
    log_file: PathLike | None
    report: PathLike | None
    sample_every: int | None
    on_update: Callback | None
    on_epoch: Callback | None
    checkpoint: PathLike | None
    checkpoint_minutes: float | None
    checkpoint_updates: int | None
    resume: bool
    restart: bool


def _check_patience(name: str, value: Any) -> int | str:
    if isinstance(value, str) and value == "auto":
        return value
    try:
        return check_size(name, value)
    except ValueError:
        expected = "an integer of at least 1, 'auto', or None"
        raise ValueError(f"{name}: expected {expected}, got {value!r:.200}") from None


@dataclass(frozen=True)
class Length:
    """How long a run trains at most, and how many epochs without a lower validation loss end it; None: any number."""

    epochs: int
    patience: int | None


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options of a training run, checked."""

    epochs: int | None = option(
        None,
        check=check_size,
        help=f"Passes over the training data. If not given: as many as make max_updates or, without it, "
        f"{LEAST_UPDATES:,} updates, but at least {LEAST_EPOCHS}.",
        flag="--epochs",
    )
    batch_size: int = option(
        32, check=check_size, help="Parallel streams of tokens, or sequences, in a batch.", flag="--batch"
    )
    bptt: int = option(
        64,
        check=check_size,
        help="Steps of truncated backpropagation through time: the length of a window of tokens.",
        flag="--bptt",
    )
    random_bptt: bool = option(
        False,
        check=check_flag,
        help="Windows of a text have random lengths around bptt, others in every epoch, and the learning rate of an "
        "update is multiplied by the length of its window / bptt. Merity, Keskar, Socher 2017.",
        flag="--random-bptt",
    )
    carry: int | None = option(
        None,
        help="Steps after which the state is reset to the initial state, a multiple of bptt; 0: after every window. If "
        "not given, the state is carried through the whole epoch.",
        flag="--carry",
    )
    optimizer: optim.Optimizer | str = option(
        "adam",
        check=check_optimizer,
        help=f"One of {', '.join(optim.RULES)}, with arguments if wanted, as in 'sgd(momentum=0.9)'; or an optimizer "
        "such as crnn.optim.Adam(beta2=0.99), which belongs to one model.",
        flag="--optimizer",
    )
    lr: float | None = option(
        None,
        check=lambda name, value: check_number(name, value, 0.0),
        help="Learning rate of an optimizer that is given by its name. If not given: the default of its class, such as "
        f"{optim.Adam().lr:g} for adam.",
        flag="--lr",
    )
    schedule: optim.Schedule | str | None = option(
        "cosine",
        check=check_schedule,
        help=f"Factor of the learning rate at each update: one of {', '.join(optim.SCHEDULES)}, which the factories in "
        "crnn.optim describe, with arguments if wanted, as in 'steps(0.5, after=4)'; or a function such as "
        "crnn.optim.cosine(final=0.1). None: constant.",
        flag="--schedule",
    )
    warmup: int = option(
        0,
        check=check_count,
        help="Updates in which the learning rate rises to lr, of a schedule that is given by its name.",
        flag="--warmup",
    )
    average: optim.Average | str | None = option(
        None,
        check=check_average,
        help=f"Average of the weights over updates, which is evaluated and kept in place of the last weights: one of "
        f"{', '.join(optim.AVERAGES)}, with arguments if wanted, as in 'ema(0.99)', or an object such as "
        "crnn.optim.ASGD(start=10). It does not change the training itself.",
        flag="--average",
    )
    clip_norm: float | None = option(
        1.0,
        check=check_limit,
        help="Largest 2-norm of the gradient; a larger gradient is scaled down to this norm.",
        flag="--clip-norm",
    )
    clip_value: float | None = option(
        None,
        check=check_limit,
        help="Largest absolute value of the gradient's elements; they are clipped to [-clip_value, clip_value] before "
        "the norm is computed.",
        flag="--clip-value",
    )
    gradient_noise: float | None = option(
        None,
        check=lambda name, value: check_limit(name, check_finite(name, value)),
        help="Add noise of variance gradient_noise / (1 + t)^0.55 to the gradient of update t, after clipping. Its "
        "draws are sums of eight uniform ones, nearly normal. Neelakantan et al. 2015.",
        flag="--gradient-noise",
    )
    reduction: Literal["mean", "sum"] = option(
        "mean",
        check=check_reduction,
        help="Use the gradient of the mean loss per target, or of the sum of a window's losses as in min-char-rnn.",
    )
    precision: Literal["bf16"] | None = option(
        None,
        check=check_training_precision,
        help="Compute the matrix products of the updates with operands rounded to bfloat16 and sums in float32, which "
        "is faster where the CPU has instructions for it. Weights, gradients, optimizer, losses, validation and the "
        "trained model stay float32. If not given: in float32. See docs/quantisation.md.",
        flag="--precision",
    )
    max_updates: int | None = option(None, check=check_size, help="Stop after this many updates in total.")
    patience: int | Literal["auto"] | None = option(
        "auto",
        check=_check_patience,
        help=f"Stop after this many epochs without a lower validation loss. 'auto': after 1 / {PATIENCE_PARTS} of all "
        f"epochs, but at least {LEAST_PATIENCE}, if there are validation data. None: never.",
        flag="--patience",
    )
    threads: int = option(
        1,
        check=lambda name, value: check_threads(value),
        help="Threads; the result does not depend on it.",
        flag="--threads",
    )
    seed: int = option(0, check=check_seed, help="Seed of the dropout masks.", flag="--seed")
    shards: int | None = option(
        None,
        check=check_size,
        help="Parts of contiguous rows that every batch is cut into. The gradients of all are added "
        "in an order that depends on this number only, see docs/data-parallel.md. If not given: a batch is not cut, or "
        f"with comm into {SHARDS}.",
        flag="--shards",
    )
    comm: Communicator | None = option(
        None,
        check=as_ranks,
        help="Several processes that train one model: the communicator of an engine, such as mpi4py's MPI.COMM_WORLD, "
        "with rank, size and allgather. Each process computes some of the shards. See docs/data-parallel.md.",
    )
    progress: bool | None = option(
        None,
        check=check_flag,
        help="Show the progress: as a bar in a terminal, as a table with curves in a notebook, otherwise as lines on "
        "standard error, which begin after 5 seconds if this is not given. False: not at all.",
    )
    log_every: int | None = option(
        None,
        check=check_size,
        help=f"Updates between two entries of the log. If not given: one in {LOG_ENTRIES} of all updates, but at most "
        f"{LOG_EVERY}, so that an epoch is divided evenly.",
    )
    log_file: PathLike | None = option(
        None,
        check=check_path,
        help="Append each entry of the log to this file as it is made: as a row of a table if the name ends in .csv, "
        "otherwise as one JSON object per line. An existing file must be such a log.",
        flag="--log",
    )
    report: PathLike | None = option(
        None,
        check=check_path,
        help="Write a page about the run to this file (.html), when training ends, however it does, and at most once a "
        "minute before. An existing report is replaced if the run is resumed or restarted, another file never.",
        flag="--report",
    )
    sample_every: int | None = option(
        None,
        check=check_size,
        help="Updates between two samples: texts that a language model generates, which are shown and logged.",
        flag="--sample-every",
    )
    on_update: Callback | None = option(
        None,
        check=check_callback,
        help="Called after every update with a `crnn.Progress`. If it returns True, training ends after this update.",
    )
    on_epoch: Callback | None = option(
        None,
        check=check_callback,
        help="Called after every epoch with a `crnn.Progress`. If it returns True, training ends.",
    )
    checkpoint: PathLike | None = option(
        None,
        check=check_path,
        help="File for the whole run: best and current weights, optimizer, progress. Written atomically after every "
        "epoch, within long ones, and however training ends. `crnn.load` reads the best model from it.",
        flag="--checkpoint",
    )
    checkpoint_minutes: float | None = option(
        10.0,
        check=check_limit,
        help="Largest time in minutes between two checkpoints within an epoch. None: no limit.",
        flag="--checkpoint-minutes",
    )
    checkpoint_updates: int | None = option(
        None,
        check=check_size,
        help="Largest number of updates between two checkpoints within an epoch.",
        flag="--checkpoint-updates",
    )
    resume: bool = option(
        False,
        check=check_flag,
        help="Continue from the checkpoint, which must exist and be of the same model and data. If the other arguments "
        "are the same, the result is bit-identical to that of an uninterrupted run.",
        flag="--resume",
    )
    restart: bool = option(
        False,
        check=check_flag,
        help="Start over although the checkpoint exists, and replace it. Without resume or restart, an existing "
        "checkpoint is an error.",
        flag="--restart",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.lr is not None and isinstance(self.optimizer, optim.Optimizer):
            raise ValueError(f"lr: expected with an optimizer given by its name, got {self.lr} with {self.optimizer!r}")
        if self.warmup and not is_listed(self.schedule, optim.SCHEDULES):
            raise ValueError(
                f"warmup: expected with a schedule given by its name, got {self.warmup}; otherwise write it into the "
                "schedule, such as schedule=crnn.optim.cosine(warmup=100)"
            )
        if self.carry is not None:
            carry = as_integer(self.carry)
            if carry is None or carry < 0 or carry % self.bptt:
                raise ValueError(f"carry: expected 0, a multiple of bptt={self.bptt}, or None, got {self.carry!r}")
            object.__setattr__(self, "carry", carry)
        if self.random_bptt and (self.bptt < LEAST_RANDOM_BPTT or self.carry):
            found = f"carry={self.carry}" if self.carry else f"bptt={self.bptt}"
            raise ValueError(
                f"random_bptt: expected a bptt of at least {LEAST_RANDOM_BPTT} and no carry but 0 with it, got {found}"
            )
        if self.comm is not None:
            shards = SHARDS if self.shards is None else self.shards
            if self.comm.size > shards:
                raise ValueError(f"shards: expected at least {self.comm.size}, the number of ranks, got {shards}")
            object.__setattr__(self, "shards", shards)
        if self.resume and self.checkpoint is None:
            raise ValueError("resume: expected a checkpoint to resume from, got checkpoint=None")
        if self.resume and self.restart:
            raise ValueError("resume and restart: expected one of them, got both")

    @property
    def ranks(self) -> Ranks | None:
        """The processes that train together; None: only this one."""
        return None if self.comm is None else as_ranks("comm", self.comm)

    def length(self, windows: int, *, judged: bool) -> Length:
        """How long a run trains. ``windows``: updates of an epoch. ``judged``: whether there are validation data."""
        epochs, patience = self.epochs, self.patience
        if epochs is None:
            enough = -(-(self.max_updates or LEAST_UPDATES) // windows)
            epochs = enough if self.max_updates else max(LEAST_EPOCHS, enough)
        if patience == "auto":
            patience = max(LEAST_PATIENCE, epochs // PATIENCE_PARTS) if judged else None
        return Length(min(epochs, LARGEST_COUNT - 1), patience)

    def updates_per_entry(self, updates: int, windows: int) -> int:
        """After how many updates the log gets an entry in a run of so many, with so many in an epoch.

        Unless it is given, an epoch is divided evenly: the mean of a few updates at its end would stand out in a curve.
        """
        if self.log_every is not None:
            return self.log_every
        most = min(max(updates // LOG_ENTRIES, 1), LOG_EVERY)
        return max(1, math.ceil(windows / max(1, math.ceil(windows / most))))

    def new_optimizer(self) -> optim.Optimizer:
        """The optimizer; a new one if it is given by its name."""
        return optimizer_from("optimizer", self.optimizer, self.lr)

    def new_average(self) -> optim.Average | None:
        """The rule of the average of the weights."""
        return None if self.average is None else average_from("average", self.average)

    def new_schedule(self) -> optim.Schedule | None:
        """The schedule."""
        return None if self.schedule is None else schedule_from("schedule", self.schedule, self.warmup)


LEARNING = tuple(each for each in options_of(TrainingConfig) if each.name in LearningOptions.__optional_keys__)
