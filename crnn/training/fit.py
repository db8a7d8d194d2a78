# SPDX-License-Identifier: MIT
"""fit: train a model. Knows it by the protocol `Trainable`, not by its cells or head."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from crnn import optim
from crnn._float_mode import in_ieee_mode
from crnn._options import build_config, name_here, options_of, takes_options, unexpected
from crnn.checks import Array
from crnn.nn.config import NetworkConfig
from crnn.nn.precision import check_can_train
from crnn.text.corpus import TextCorpus
from crnn.training.averaging import WeightAverage
from crnn.training.checkpoint import Checkpoint
from crnn.training.command import Command
from crnn.training.communicator import on_all_ranks
from crnn.training.config import TrainingConfig, TrainingOptions
from crnn.training.exclusive import in_training
from crnn.training.identity import data_identity
from crnn.training.log import TrainingLog
from crnn.training.log_file import check_log
from crnn.training.protocols import Observation, RunData, Trainable, Windows, weights_of
from crnn.training.ranks import RankedRun, config_of_rank
from crnn.training.recorded import recorded
from crnn.training.report_page import check_page
from crnn.training.run import Run
from crnn.training.run_files import RunFiles
from crnn.training.shards import sharded
from crnn.training.stored import Contents, check_is_checkpoint
from crnn.training.trainer import Trainer

__all__ = ["check_start", "fit", "fit_in_training", "new_trainer"]


@takes_options(TrainingConfig)
@in_ieee_mode
@on_all_ranks
def fit(
    model: Trainable,
    data: Any,
    *,
    valid: Any = None,
    log: TrainingLog | None = None,
    **options: Unpack[TrainingOptions],
) -> TrainingLog:
    """Train a model by truncated backpropagation through time.

    The training tokens of a language model are split into ``batch_size`` contiguous streams, which are processed in
    parallel, in windows of ``bptt`` steps. Gradients flow within a window; the state is carried across windows. The
    ``fit`` methods of the models of whole sequences call this function with batches of ``batch_size`` sequences; they
    ignore ``bptt`` and ``carry``.

    Parameters
    ----------
    model : LanguageModel, or another `Trainable`
        Changed in place.
    data : TextCorpus or 1-d array of ids
        Training data, as the model's ``windows`` takes it. A corpus also provides the validation data.
    valid : 1-d array of ids, optional
        Validation data, to evaluate on after every epoch. The weights of the best epoch are kept.
    log : TrainingLog, optional
        An empty log to record in. Its entries are available even if training is interrupted.
    {options}

    Returns
    -------
    TrainingLog
        Losses, learning rates, gradient norms and times; ``log.best`` is the entry of the best epoch.

    Raises
    ------
    FileExistsError, FileNotFoundError
        The checkpoint exists, and neither ``resume`` nor ``restart`` says what to do with it; or it does not exist.
    ModelFileError
        The checkpoint is damaged, or is of another model or other data; the message names the difference.
    BlockingIOError
        Another run writes the checkpoint or the log's file.
    ValueError
        The model is being trained already: `fit` was called in a callback of its training, or in another thread. That
        training is not disturbed.
    FloatingPointError
        A loss, a gradient or the weights are NaN or infinite; the message states the number of the update. Resuming
        continues from the best weights so far at the beginning of the epoch, with a new state of the optimizer.
    RankError
        With ``comm``: another rank has failed, or the engine has. What all ranks would do differently is a ValueError.
    KeyboardInterrupt
        Ctrl-C; or SIGTERM or SIGHUP, if the program does not handle them itself. Raised after the current update.

    Notes
    -----
    Whatever is raised while training, the model then has the weights of the best epoch so far, and checkpoint and log
    are saved. If no epoch has been evaluated, the weights are the latest; after NaN, those after the last epoch that
    gave a finite loss.

    A file that cannot be written, as on a full disk, does not end training. The last whole checkpoint is kept, and a
    warning and a note of the log name the file and the reason, again when training ends if the last attempt has failed.
    Lines of the log's file are added later; OSError is raised in the end if that is impossible.
    """
    with in_training(model):
        return fit_in_training(model, data, valid=valid, log=log, **options)


def fit_in_training(
    model: Trainable,
    data: Any,
    *,
    valid: Any = None,
    log: TrainingLog | None = None,
    rest: Callable[[Array], Contents] | None = None,
    **options: Unpack[TrainingOptions],
) -> TrainingLog:
    """`fit` within `in_training`, for the ``fit`` methods of models, which begin earlier.

    ``rest``: see `crnn.training.checkpoint.Checkpoint`.
    """
    _check_names(options)
    config = build_config(TrainingConfig, options)
    leads = config.ranks is None or config.ranks.leads
    written = {"checkpoint": config.checkpoint, "log_file": config.log_file, "report": config.report}
    with RunFiles({}, written if leads else {}):
        return new_trainer(model, data, config, valid=valid, log=log, rest=rest).train()


def _check_names(options: Mapping[str, Any]) -> None:
    """Raise TypeError for a name that is no option of `fit`."""
    known = [*(each.name for each in options_of(TrainingConfig)), "valid"]
    of_networks = {each.name for each in options_of(NetworkConfig)}
    for name in options:
        if name not in known and name_here(name) in of_networks:
            raise TypeError(f"{name}: expected {name_here(name)} of the model's constructor; fit has no such option")
        if name not in known:
            raise TypeError(unexpected(name, known))


def new_trainer(
    model: Trainable,
    data: Any,
    config: TrainingConfig,
    *,
    valid: Any = None,
    test: Any = None,
    log: TrainingLog | None = None,
    rest: Callable[[Array], Contents] | None = None,
    command: Command | None = None,
) -> Trainer:
    """What `fit` runs: a trainer, with everything checked, and resumed if ``config.resume``.

    Arguments as in `fit`, `RunData` and `Trainer`; ``rest``: see `Checkpoint`. The caller holds the locks of the files,
    see `RunFiles`. Nothing but the log's file has been written, and unless a run is resumed the model is unchanged.
    """
    if hasattr(model, "check_trainable"):
        model.check_trainable()
    ranked = None
    if config.ranks is not None and config.shards is not None:
        ranked, config = RankedRun(config.ranks, model, config.shards), config_of_rank(config, config.ranks)
    _check_precision(model, config.precision)
    train, valid = _split(model, data, valid)
    _check_model_and_data(model, config, valid)
    if ranked is None or ranked.ranks.leads:
        check_start(config)
    windows, cut = _windows(model, train, config)
    gradients = None
    if config.shards is not None:
        windows, gradients = sharded(model, windows, config.shards, ranked)
    log = _empty_log(model, log, config)
    run = Run(model, _optimizer(config), log, cut, carries_state=windows.carries_state)
    rule = config.new_average()
    run.average = None if rule is None else WeightAverage(rule)
    run.check_weights()
    identity, result = data_identity(train, valid), recorded(config, cut["windows"], cut["order"])
    typed = None if command is None else command.options
    checkpoint = Checkpoint(config.checkpoint, identity, result, typed, rest, ranked)
    if config.resume:
        run.log.notes = checkpoint.read_into(run)
        if gradients is not None and run.state is not None:
            run.state = gradients.own_rows(run.state)
    run.log.notes += getattr(train, "notes", ())
    if command is not None and command.output is not None:
        command.output.check(run, checkpoint, restart=config.restart)
    if config.log_file is not None:
        run.log.append_to(config.log_file, "resume" if config.resume else "replace" if config.restart else "append")
    of_run = RunData(train, windows, valid, test)
    trainer = Trainer(run, of_run, config, checkpoint, gradients=gradients, ranked=ranked, command=command)
    if ranked is not None:
        names = ("resume", "max_updates", "patience")
        length = {"epochs": trainer.length.epochs, "updates": [run.update, trainer.total], "position": run.position}
        ranked.check_start(
            model, run.optimizer, {**{name: getattr(config, name) for name in names}, **result, **identity, **length}
        )
    return trainer


def _check_precision(model: Trainable, precision: str | None) -> None:
    """Raise ValueError unless the model can be trained in this precision."""
    if precision is None:
        return
    check_can_train(precision, weights_of(model).dtype.name, None)
    parameters = inspect.signature(model.loss_and_gradients).parameters.values()
    if all(each.name != "precision" and each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters):
        raise ValueError(
            f"precision: expected a model whose loss_and_gradients takes a precision for {precision!r}, got a "
            f"{type(model).__name__}"
        )


def check_start(config: TrainingConfig) -> None:
    """Raise an error unless the checkpoint exists if it should and only then, and log and report may be written."""
    path = config.checkpoint
    if config.log_file is not None:
        check_log(config.log_file)
    check_page(config.report, replaces=config.resume or config.restart)
    if path is None:
        return
    name, exists = os.fsdecode(path), os.path.exists(path)
    if config.resume and not exists:
        raise FileNotFoundError(f"checkpoint: expected a checkpoint to resume from, found none at {name}")
    if exists and not (config.resume or config.restart):
        raise FileExistsError(
            f"checkpoint: expected a new file, got {name}, which exists: resume=True continues from it, restart=True "
            "starts over and replaces it"
        )
    if exists and config.restart:
        check_is_checkpoint(path)


def _windows(model: Trainable, train: Any, config: TrainingConfig) -> tuple[Windows, dict[str, int]]:
    """The windows of an epoch, and `Run.cut`. Raises ValueError for options that do not fit them."""
    windows = model.windows(train, config.batch_size, config.bptt)
    if config.random_bptt:
        windows = _varying(model, windows, config.seed)
    _check_warmup(config, len(windows))
    cut = {"windows": len(windows), "batch_size": config.batch_size, "bptt": config.bptt}
    cut |= {"random_bptt": 1} if config.random_bptt else {}
    cut["order"] = getattr(windows, "seed", 0)  # in which sequences are visited; a text is read from its beginning
    return windows, cut


def _varying(model: Trainable, windows: Windows, seed: int) -> Windows:
    """The windows with random lengths. Raises ValueError for a model whose windows are not parts of a text."""
    varying: Callable[[int], Windows] | None = getattr(windows, "varying", None)
    if varying is None:
        raise ValueError(f"random_bptt: expected a model that reads a text in windows, got a {type(model).__name__}")
    return varying(seed)


def _check_model_and_data(model: Trainable, config: TrainingConfig, valid: Any) -> None:
    """Raise ValueError for options that need validation data or a model that generates text, if there is none; and
    what the model raises for validation data that it cannot use: now rather than after an epoch.
    """
    for name, made in (("schedule", config.new_schedule()), ("average", config.new_average())):
        if valid is None and getattr(made, "needs_validation", False):
            raise ValueError(f"{name}: expected validation data with {getattr(config, name)!r}, got none")
    if isinstance(config.patience, int) and valid is None:
        raise ValueError("patience: expected validation data with it, got none")
    observed: Sequence[Observation] = getattr(model, "observed", ())
    if config.sample_every is not None and all(each.kind != "sample" for each in observed):
        raise ValueError(f"sample_every: expected a model that generates text, got a {type(model).__name__}")
    if valid is not None:
        model.check_valid(valid)


def _check_warmup(config: TrainingConfig, windows: int) -> None:
    """Raise ValueError if the rate would rise to the end. ``windows``: updates of an epoch."""
    epochs = config.length(windows, judged=False).epochs
    updates = min(epochs * windows, config.max_updates or epochs * windows)
    if config.warmup >= updates > 0:
        raise ValueError(f"warmup: expected fewer than the {updates:,} updates of the run, got {config.warmup:,}")


def _optimizer(config: TrainingConfig) -> optim.Optimizer:
    """The optimizer of a run. Raises ValueError for one with the moments of another training."""
    optimizer = config.new_optimizer()
    if optimizer.updates and not config.resume:
        raise ValueError(
            f"optimizer: expected a new one, got one that has done {optimizer.updates} updates in another training; "
            "make a new one, or call its reset()"
        )
    return optimizer


def _empty_log(model: Trainable, log: TrainingLog | None, config: TrainingConfig) -> TrainingLog:
    """The log to record in. Raises ValueError for the log of another training."""
    log = TrainingLog() if log is None else log
    if not isinstance(log, TrainingLog):
        raise TypeError(f"log: expected a TrainingLog, got {type(log).__name__}")
    if log.entries and not config.resume:
        raise ValueError(f"log: expected an empty log, got one with {len(log.entries)} entries of another training")
    log.unit = model.loss_unit
    return log


def _split(model: Trainable, data: Any, valid: Any) -> tuple[Any, Any]:
    """Training and validation data. A corpus provides both, unless ``valid`` is given."""
    if isinstance(data, str | bytes):
        raise TypeError(
            f"data: expected a TextCorpus, such as TextCorpus.from_text(text), or ids, got {type(data).__name__}"
        )
    if not isinstance(data, TextCorpus):
        return data, valid
    if getattr(model, "vocab", data.vocab) != data.vocab:
        raise ValueError(
            "data: expected a corpus with the model's vocabulary, got one with a different vocabulary; make it with "
            "vocab=model.vocab"
        )
    return data.train, data.valid if valid is None and len(data.valid) > 1 else valid
