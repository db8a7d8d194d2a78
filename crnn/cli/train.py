# SPDX-License-Identifier: MIT
"""``crnn train``: train a model of one of the TASKS."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crnn._options import add_flags, from_flags
from crnn.cli.common import INTERRUPTED, CommandParser, cores, file_path, flag_of, say
from crnn.cli.configuration import Configuration
from crnn.cli.messages import in_words_of
from crnn.cli.presets import apply_preset, finish_preset
from crnn.cli.ranks import files_of_rank, ranks_of_environment, run_on_ranks
from crnn.cli.results import add_json_flag, evaluation_json, show_json
from crnn.cli.tasks import DEFAULT_TASK, TASKS, TaskModule, task_named
from crnn.cli.typed import quoted
from crnn.nn.precision import check_training_precision
from crnn.optim import AVERAGES, RULES, SCHEDULES
from crnn.optim.named import base_name
from crnn.training.command import Command
from crnn.training.communicator import Ranks
from crnn.training.config import TrainingConfig
from crnn.training.fit import check_start, new_trainer
from crnn.training.output import Output
from crnn.training.run_files import RunFiles
from crnn.training.trainer import Trainer

__all__ = ["add_arguments", "run"]


def _patience(text: str) -> int | str:
    """The value of ``--patience``."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of epochs, or auto, got {text!r}") from None


def _precision(text: str) -> str:
    """The value of ``--precision``."""
    try:
        return str(check_training_precision("", text.lower()))
    except ValueError as error:
        expected = str(error).removeprefix(": ").replace(" or None", "").replace("quantize the", "crnn quantize the")
        raise argparse.ArgumentTypeError(expected) from None


class Names(list[str]):
    """The choices of a flag that takes a name, with arguments in parentheses if wanted."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and super().__contains__(base_name(value))


NO_AVERAGE = "none"
# The flags of `crnn.fit`'s options whose help or meaning differs for all tasks: 0 for None. The defaults are those of
# `crnn.fit`, except for the number of threads, which the result does not depend on.
TRAINING_FLAGS: dict[str, dict[str, Any]] = {
    "optimizer": {"type": str.lower, "choices": Names(RULES), "help": "update rule, also as 'sgd(momentum=0.9)'"},
    "lr": {"help": f"learning rate; if not given that of the optimizer, such as {RULES['adam']().lr:g} for adam"},
    "schedule": {
        "type": str.lower,
        "choices": Names(SCHEDULES),
        "help": "schedule of the learning rate, also with arguments, as in 'steps(0.5, after=4)'",
    },
    "average": {
        "type": str.lower,
        "choices": Names([*AVERAGES, NO_AVERAGE]),
        "help": "evaluate and keep an average of the weights over updates, as 'ema(0.99)' or 'asgd(start=5)'; none: "
        "even if a preset has one",
    },
    "gradient_noise": {
        "metavar": "VARIANCE",
        "help": "add noise to the clipped gradient; its variance is this number / (1 + t)^0.55 at update t. "
        "Neelakantan et al. 2015",
    },
    "warmup": {"help": "updates of the warm-up, in which the learning rate rises"},
    "clip_norm": {"help": "largest 2-norm of the gradient; 0: no limit"},
    "clip_value": {"default": 0.0, "help": "largest element of the gradient; 0: no limit"},
    "precision": {
        "type": _precision,
        "help": "bf16: matrix products of the updates with operands rounded to bfloat16, faster on some CPUs; the "
        "trained model is float32 anyway",
    },
    "patience": {
        "type": _patience,
        "help": "stop after this many epochs without a lower validation loss; auto: a part of all epochs; 0: never",
    },
    "threads": {"default": cores()},
    "seed": {"help": "seed of the initial weights and of the dropout masks"},
    "shards": {
        "help": "parts of contiguous rows that every batch is cut into, whose gradients are added in an order that "
        "depends on this number only; if not given, a batch is not cut, or into 8 for several processes (mpiexec)",
    },
    "checkpoint": {
        "type": file_path,
        "help": "the whole run, for --resume; written after every epoch, within long ones, and however training ends. "
        "OUTPUT.checkpoint if not given",
    },
    "checkpoint_minutes": {"help": "largest time between two checkpoints within an epoch; 0: no limit"},
    "log_file": {"type": file_path, "help": "append the losses to this file as they come, .csv or .jsonl"},
    "report": {
        "type": file_path,
        "help": "write a page about the run to this file (.html), when training ends, and before",
    },
    "resume": {"help": "continue from the checkpoint, with the same network and data"},
    "restart": {"help": "start over, although checkpoint or output exist, and replace them"},
}
ZERO_IS_NONE = ("clip_norm", "clip_value", "patience", "checkpoint_minutes")
# Options that the trained model does not depend on, which are not saved with it.
NOT_SAVED = (
    *("help", "json", "quiet", "config", "output", "resume", "restart", "threads"),
    *("checkpoint", "checkpoint_minutes", "log_file", "report", "sample_every", "ids_path"),
)


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn train``, which depend on ``--task`` and ``--config``."""
    early = _early(parser)
    file = None if early.config is None else Configuration(early.config)
    task = task_named(str(early.task or (file.values.get("task") if file else None) or DEFAULT_TASK))
    module = task.load()
    parser.description = (
        f"Trains {task.help}. Other tasks, whose options crnn train --task TASK --help lists: "
        f"{'; '.join(f'{each.name}, {each.help}' for each in TASKS if each is not task)}."
    )
    tasks = [each.name for each in TASKS]
    parser.add_argument("--task", choices=tasks, help=f"what to train, {DEFAULT_TASK} if not given")
    parser.add_argument(
        "--config",
        type=file_path,
        help="read options from this TOML file, by their names without --; what is typed wins",
    )
    parser.add_argument("-o", "--output", type=_new_file, required=True, help="where to write the model (.safetensors)")
    module.add_arguments(parser)
    loop = parser.add_argument_group("training")
    add_flags(loop, TrainingConfig, {**TRAINING_FLAGS, **module.TRAINING_FLAGS}, without=module.WITHOUT)
    loop.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_json_flag(loop, "at the end what the run has reached as a JSON object")
    parser.set_defaults(module=module, task_name=task.name)
    apply_preset(parser, early.preset or (file.values.get("preset") if file else None), ZERO_IS_NONE)
    if file is not None:
        file.apply(parser)


def _early(parser: CommandParser) -> argparse.Namespace:
    """The values of --task, --config and --preset, which other options depend on; None if they are not typed."""
    early = argparse.ArgumentParser(parser.prog, add_help=False)
    early.add_argument("--task")
    early.add_argument("--config", type=file_path)
    early.add_argument("--preset")
    return early.parse_known_args(parser.words)[0]


def _new_file(text: str) -> Path:
    """The path of a file that is going to be written. `Path` would drop the slash that makes it a folder."""
    if text.endswith(os.sep):
        raise argparse.ArgumentTypeError(f"expected a file, got a folder: {text}")
    return file_path(text)


def run(arguments: argparse.Namespace) -> int:
    """Train a model and save it, the best weights so far if interrupted. Returns the exit status."""
    ranks = ranks_of_environment()
    if ranks is None:
        return _run(arguments, None)
    return run_on_ranks(ranks, arguments, lambda: _run(arguments, ranks))


def _run(arguments: argparse.Namespace, ranks: Ranks | None) -> int:
    """The same on one of several ranks, or on none. Rank 0 writes and prints."""
    leads = ranks is None or ranks.leads
    output: Path = arguments.output
    module: TaskModule = arguments.module
    arguments.task = arguments.task_name
    arguments.checkpoint = arguments.checkpoint or Path(f"{output}.checkpoint")
    finish_preset(arguments)
    config = TrainingConfig(**_training_options(arguments), comm=ranks)
    arguments.shards = config.shards
    written = {name: getattr(arguments, name) for name in ("output", "checkpoint", "log_file", "report")}
    read = {**module.reads(arguments), "config": [arguments.config] if arguments.config else []}
    with RunFiles(read, files_of_rank(ranks, arguments, read, written, lambda: module.writes(arguments))):
        if leads:
            _check_start(arguments, config)
            module.check_start(arguments)
        prepared = module.prepare(arguments, config)
        if prepared.epochs is not None and config.epochs is None and config.max_updates is None:
            config = replace(config, epochs=prepared.epochs)

        def wording(note: str) -> str:
            return in_words_of(arguments.parser, note, arguments)

        trainer = new_trainer(
            prepared.model,
            prepared.data,
            config,
            valid=prepared.valid,
            test=prepared.test,
            rest=prepared.rest,
            command=Command(
                wording=wording,
                output=Output(output, prepared.whole, prepared.kind) if leads else None,
                options=_settings(arguments),
            ),
        )
        try:
            status = _train(trainer, arguments)
        finally:
            if arguments.json and leads:
                show_json(_reached(trainer, arguments, prepared.kind))
        if trainer.run.test is not None:
            say(f"test {module.described(trainer.run.test)}")
    return status


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that the model depends on, by their names without hyphens in front, to be saved with it.

    An option that was not given, and has no default, is left out; a file is None, because its path says nothing to
    others.
    """
    settings: dict[str, Any] = {}
    for action in arguments.parser._actions:
        value = getattr(arguments, action.dest, None)
        if action.dest not in NOT_SAVED and action.option_strings and value is not None and value != []:
            settings[flag_of(action).lstrip("-")] = _saved(value)
    return settings


def _saved(value: Any) -> Any:
    """A value as JSON and TOML can hold it. Bytes of the command line that are not text become escapes."""
    if isinstance(value, list):
        return [_saved(each) for each in value]
    if isinstance(value, str):
        return re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", value)
    return None if isinstance(value, Path) else value


def _check_start(arguments: argparse.Namespace, config: TrainingConfig) -> None:
    """Raise an error unless the arguments say what to do with files that exist, before the text is read."""
    checkpoint, output = arguments.checkpoint, arguments.output
    if arguments.resume and not checkpoint.exists():
        raise FileNotFoundError(f"checkpoint: expected a checkpoint to resume from, found none at {checkpoint}")
    if not (arguments.resume or arguments.restart):
        if checkpoint.exists():
            raise FileExistsError(
                f"checkpoint: expected a new file, got {checkpoint}, which exists: --resume continues from it, "
                "--restart starts over and replaces it"
            )
        if output.exists():
            raise FileExistsError(
                f"output: expected a new file, got {output}, which exists: --restart starts over and replaces it when "
                "the new model has been judged"
            )
    Output(output).check_kind()
    check_start(config)


def _train(trainer: Trainer, arguments: argparse.Namespace) -> int:
    """Train, say what has become of the model, and how to continue. Returns the exit status."""
    notes = trainer.run.log.notes
    told = len(notes)
    if arguments.quiet:  # else the reporter shows them
        for note in notes:
            say(note)
    status = 0
    try:
        trainer.train()
    except KeyboardInterrupt as interrupt:
        status = getattr(interrupt, "status", INTERRUPTED)
        say("interrupted: keeping the best weights so far")
    except BaseException as error:
        rate = ["--lr", f"{trainer.run.optimizer.lr / 10:g}"] if isinstance(error, FloatingPointError) else []
        _say_ending(trainer, arguments, told, rate)
        raise
    _say_ending(trainer, arguments, told)
    return status


def _reached(trainer: Trainer, arguments: argparse.Namespace, kind: str | None) -> dict[str, Any]:
    """What a run has reached, however it has ended. ``kind``: of the model, if a part of it was trained."""
    run, output = trainer.run, arguments.output
    best = run.log.best if run.judged else None
    scored = best or run.log.last or {}
    names = ("train_loss", "valid_loss", "valid_accuracy")
    return {
        "output": output if output.exists() else None,
        "kind": kind or type(run.model).__name__,
        "ended": trainer.reason,
        "epochs": run.log.epochs,
        "updates": run.update,
        "best_epoch": run.best_epoch if run.judged else None,
        "unit": run.log.unit,
        **{name: scored.get(name) for name in names},
        "test": None if run.test is None else evaluation_json(run.test),
        "notes": run.log.notes,
    }


def _say_ending(trainer: Trainer, arguments: argparse.Namespace, told: int, more: Sequence[str] = ()) -> None:
    """Say what has become of the model, and the command that continues, which is the one typed and ``more``.

    ``told``: how many notes of the log have been said before.
    """
    if arguments.quiet:
        for note in trainer.run.log.notes[told:]:
            say(note)
    shown = trainer.run.log.epochs and not arguments.quiet  # when the epoch ended
    page = [f"wrote {arguments.report}"] if trainer.page.written else []
    say("\n".join([*([] if shown else [trainer.run.log.summary()]), *trainer.ending, *page]))
    if trainer.checkpoint.is_of_this_run:
        typed = [word for word in arguments.argv if not (len(word) > 5 and "--restart".startswith(word))]
        end = typed.index("--") if "--" in typed else len(typed)  # where options end
        typed[end:end] = [*(["--resume"] if "--resume" not in typed else []), *more]
        verb = "to train longer, with more --epochs" if trainer.finished() else "to continue"
        verb += " and a larger --patience" * (trainer.reason == "stopped early")
        if trainer.checkpoint.failure:  # the model is of a later update, so that the resumed run would not replace it
            newer = trainer.output is not None and trainer.output.written
            verb += f" (from update {trainer.checkpoint.update:,}{f'; move {arguments.output} away first' * newer})"
        ranks = trainer.config.ranks
        say(f"{verb}: {'' if ranks is None else f'mpiexec -n {ranks.size} '}crnn {' '.join(map(quoted, typed))}")


def _training_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options = from_flags(arguments, TrainingConfig)
    for name in ZERO_IS_NONE:
        options[name] = options[name] or None
    if options["average"] == NO_AVERAGE:
        options["average"] = None
    return options | {"progress": False if arguments.quiet else None}
