# SPDX-License-Identifier: MIT
"""TASKS: what ``crnn train`` can train, each with its options, its data and its model in one module."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from crnn.cli.common import CommandParser
from crnn.training.config import TrainingConfig

__all__ = ["DEFAULT_TASK", "TASKS", "Prepared", "Task", "TaskModule", "task_named"]


@dataclass(frozen=True)
class Prepared:
    """What a run trains, and on what, as `crnn.training.fit.new_trainer` takes it.

    ``whole`` returns the model to write, of this kind, if the run trains only a part of it; ``rest`` what its file has
    besides that part, see `crnn.training.checkpoint.Checkpoint`. ``epochs`` is the length of
    a run for which none is given, if it is not that of `fit`.
    """

    model: Any
    data: Any
    valid: Any = None
    test: Any = None
    whole: Callable[[], Any] | None = None
    kind: str | None = None
    rest: Callable[[Any], Any] | None = None
    epochs: int | None = None


class TaskModule(Protocol):
    """What a task has: a module, or an object."""

    @property
    def TRAINING_FLAGS(self) -> Mapping[str, Mapping[str, Any]]:
        """Arguments of ``add_argument`` that differ, by option of `fit`."""

    @property
    def WITHOUT(self) -> tuple[str, ...]:
        """Options of `fit` that mean nothing here."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the positional arguments and the options of data and model."""

    def reads(self, arguments: argparse.Namespace) -> Mapping[str, Iterable[Path]]:
        """The files that are read, by the names of their arguments."""

    def writes(self, arguments: argparse.Namespace) -> Mapping[str, Path | None]:
        """The files that are written in addition to those of every run."""

    def check_start(self, arguments: argparse.Namespace) -> None:
        """Raise an error for what can be known to be wrong before the data are read."""

    def prepare(self, arguments: argparse.Namespace, config: TrainingConfig) -> Prepared:
        """Read the data and make the model. Says what was read."""

    def described(self, evaluation: Any) -> str:
        """An evaluation on test data as text."""


@dataclass(frozen=True)
class Task:
    """A task of ``crnn train``: ``--task NAME``.

    ``module`` is in ``crnn.cli.tasks``, and imported when it is used; ``attribute`` is the task in it, if that is not
    the module itself.
    """

    name: str
    help: str
    module: str
    attribute: str | None = None

    def load(self) -> TaskModule:
        """What does the work of the task."""
        module = import_module(f"{__name__}.{self.module}")
        return cast(TaskModule, module if self.attribute is None else getattr(module, self.attribute))


TASKS = (
    Task("text", "a language model of text files", "text"),
    Task("classify", "a model of a class for every sequence of a table", "classes", "CLASSIFY"),
    Task("regress", "a model of values for every sequence, or every step, of a table", "values", "REGRESS"),
    Task("forecast", "a model that forecasts the series of a table", "forecast"),
    Task("tag", "a model of a class for every step of the sequences of a table", "classes", "TAG"),
)
DEFAULT_TASK = TASKS[0].name


def task_named(name: str) -> Task:
    """The task of this name; that of the default if there is none, which parsing the arguments will find."""
    return next((each for each in TASKS if each.name == name), TASKS[0])
