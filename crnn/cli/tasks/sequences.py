# SPDX-License-Identifier: MIT
"""SequenceTask: a model of the sequences in a table. What is learnt of them, classes or values, is its `Answers`."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from crnn._options import add_flags, from_flags
from crnn.checks import DTYPES
from crnn.cli.common import CommandParser, file_or_standard, say
from crnn.cli.tables.layout import Layout, add_layout_flags, layout_of
from crnn.cli.tables.sequences import Sequences, read_sequences
from crnn.cli.tasks import Prepared
from crnn.models.fitting.training_data import training_data
from crnn.models.fitting.weighting import present
from crnn.models.inputs.held_out import AUTO, held_out
from crnn.models.inputs.text_inputs import learn_vocab
from crnn.nn.cells import CELLS
from crnn.nn.config import NetworkConfig
from crnn.text.reading import Unit
from crnn.training.config import LEAST_EPOCHS, LEAST_UPDATES, TrainingConfig

NONE = "none"


def share_or_file(text: str) -> float | str | Path:
    """The value of ``--valid`` and ``--test``: a share, a word or a file."""
    if text in (AUTO, NONE):
        return text
    try:
        share = float(text)
    except ValueError:
        return file_or_standard(text)
    if share == 0:
        return NONE
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, a file, or {NONE}, got {text!r}")
    return share


class Answers(Protocol):
    """What a model says of sequences: how its labels are read, and which options they bring."""

    label_flag: tuple[str, str]  # the flag of their columns, and its help

    def per_step(self, arguments: argparse.Namespace) -> bool:
        """Whether each step has a label; otherwise each sequence has one."""

    def add_flags(self, parser: argparse._ActionsContainer, defaults: dict[str, Any]) -> None:
        """Add the options of the model that are not those of its network."""

    def options(self, arguments: argparse.Namespace, train: Sequences) -> dict[str, Any]:
        """The arguments of the model that labels and flags decide. Says what was found. Raises ValueError."""

    def targets(self, model: Any, sequences: Sequences) -> Any:
        """The labels as the model takes them. Raises TableError."""

    def groups(self, sequences: Sequences) -> Any:
        """The group of each sequence (N,), of all of which a share is taken alike."""

    def described(self, evaluation: Any) -> str:
        """An evaluation on test data as text."""


class SequenceTask:
    """The task of a model of sequences.

    Attributes
    ----------
    make : callable
        The class of the model.
    answers : Answers
    per_step : bool
        Whether sequences are always those of steps, so that there is only one format.
    """

    TRAINING_FLAGS: ClassVar[dict[str, dict[str, Any]]] = {
        "batch_size": {"help": "sequences in a batch"},
        "epochs": {
            "help": f"passes over the sequences; if not given as many as make {LEAST_UPDATES:,} updates, at least "
            f"{LEAST_EPOCHS}"
        },
    }
    WITHOUT = ("bptt", "random_bptt", "carry", "sample_every")
    make: Callable[..., Any]
    answers: Answers
    per_step: bool
    defaults: dict[str, Any]  # of the arguments of ``make``

    def __init__(self, make: Callable[..., Any], answers: Answers, *, per_step: bool = False) -> None:
        self.make, self.answers, self.per_step = make, answers, per_step
        self.defaults = {name: each.default for name, each in inspect.signature(make).parameters.items()}

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the table, and the options of its columns, of the model and its network."""
        parser.usage = "%(prog)s [options] DATA -o OUTPUT"
        parser.add_argument(
            "data", type=file_or_standard, help="table (.csv, .tsv, also compressed); - is standard input"
        )
        data = parser.add_argument_group("data")
        add_layout_flags(data, formats=not self.per_step, label_flag=self.answers.label_flag)
        data.add_argument(
            "--valid",
            type=share_or_file,
            default=AUTO,
            metavar="SHARE|FILE",
            help="validation data: a share of the sequences, at random and of every class alike; a table; auto: a "
            "share if there are many sequences; none",
        )
        data.add_argument(
            "--test",
            type=share_or_file,
            default=NONE,
            metavar="SHARE|FILE",
            help="data for the test at the end: a share of the sequences, a table, or none",
        )
        model = parser.add_argument_group("model")
        model.add_argument(
            "--vocab",
            choices=["char", "byte", "word"],
            help="of texts: kind of token; char if not given, or word if a row is a word",
        )
        self.answers.add_flags(model, self.defaults)
        model.add_argument(
            "--scale",
            action=argparse.BooleanOptionalAction,
            default=self.defaults["scale"],
            help="standardise the values by the training data",
        )
        flags: dict[str, dict[str, Any]] = {
            "hidden_size": {"type": int, "default": self.defaults["hidden_size"], "help": "H: units of each layer"},
            "num_layers": {"default": 1, "help": "number of layers"},
            "cell": {"choices": list(CELLS), "default": self.defaults["cell"], "help": "kind of recurrent cell"},
            "dtype": {"choices": list(DTYPES), "help": "precision"},
            "embedding_size": {"help": "of texts: size of the token embedding; one-hot tokens if not given, or 0"},
        }
        add_flags(parser.add_argument_group("network"), NetworkConfig, flags)

    def reads(self, arguments: argparse.Namespace) -> dict[str, list[Path]]:
        """The table, and those for validation and test."""
        parts = {name: getattr(arguments, name) for name in ("data", "valid", "test")}
        return {name: [value] for name, value in parts.items() if isinstance(value, Path)}

    def writes(self, arguments: argparse.Namespace) -> dict[str, Path | None]:
        """No other files than every run."""
        return {}

    def check_start(self, arguments: argparse.Namespace) -> None:
        """Raise ValueError for options that contradict each other."""
        if arguments.test == AUTO:
            raise ValueError(f"test: expected a share between 0 and 1, a file, or {NONE}, got {AUTO!r}")
        for name in ("valid", "test"):
            path = getattr(arguments, name)
            if isinstance(path, Path) and path.exists() and arguments.data.exists() and path.samefile(arguments.data):
                raise ValueError(f"{name}: expected other data than those to train on, got {path} for both")

    def described(self, evaluation: Any) -> str:
        """An evaluation on test data as text."""
        return self.answers.described(evaluation)

    def prepare(self, arguments: argparse.Namespace, config: TrainingConfig) -> Prepared:
        """Read the tables, make a model of the size that they need, and say what was found."""
        answers = self.answers
        given = layout_of(arguments)
        if answers.per_step(arguments):
            if given.format == "wide":
                raise ValueError("format: expected long for values of every step, got wide")
            given = replace(given, format="long")
        train = self._read(arguments.data, arguments, given, texts=None)
        layout, train = train.layout, train.present()
        options = answers.options(arguments, train)
        # Options as they were found, so that they are saved with the model.
        arguments.label, arguments.id, arguments.time = list(layout.labels), layout.id, layout.time
        arguments.column, arguments.text_column = list(layout.columns), layout.text
        arguments.sample_weight, arguments.mask = layout.weight, layout.mask
        if hasattr(arguments, "format"):
            arguments.format = layout.format
        train, test = self._split(arguments, train)
        model = self._new_model(arguments, train, options)
        valid: Any = arguments.valid
        if isinstance(valid, Path):
            unseen = self._read(valid, arguments, layout, texts=layout.text is not None)
            say(unseen.describe())
            unseen = unseen.present()
            valid = unseen.x, answers.targets(model, unseen), unseen.weights
        valid = None if isinstance(valid, str) and valid == NONE else valid
        settings = {"resume": config.resume, "checkpoint": config.checkpoint}
        targets = answers.targets(model, train)
        x, weights = train.x, train.weights
        if weights is not None:
            x, targets, weights = present(x, targets, weights, by_step=model.weighs_steps)
        data, judged = training_data(model, x, targets, valid, rescale=False, settings=settings, weights=weights)
        tokens = "" if model.vocab is None else f"{len(model.vocab):,} different {model.vocab.unit}s, "
        say(f"{tokens}cell {model.net.cell}, {model.num_parameters:,} parameters")
        unseen_data = None if test is None else model.data(test.x, answers.targets(model, test), test.weights)
        return Prepared(model, data, judged, unseen_data)

    def _read(self, path: Path, arguments: argparse.Namespace, layout: Layout, *, texts: bool | None) -> Sequences:
        per_step = self.answers.per_step(arguments)
        return read_sequences(path, layout, labelled=True, per_step=per_step, texts=texts)

    def _new_model(self, arguments: argparse.Namespace, train: Sequences, options: dict[str, Any]) -> Any:
        """The model that the options describe, of the sizes that the data have."""
        network = from_flags(arguments, NetworkConfig)
        options = network | options | {"seed": arguments.seed, "scale": arguments.scale}
        options["embedding_size"] = options["embedding_size"] or None
        if options.get("pooling") == "flatten":
            options["steps"] = len(train.x[0])
        if train.layout.text is not None:
            unit: Unit = arguments.vocab or ("char" if isinstance(train.x[0], str) else "word")
            return self.make(vocab=learn_vocab("text_column", train.x, unit), **options)
        for name in ("vocab", "embedding_size"):
            if getattr(arguments, name):
                raise ValueError(f"{name}: expected a column of texts with it, got columns of values")
        return self.make(train.x[0].shape[1], **options)

    def _split(self, arguments: argparse.Namespace, train: Sequences) -> tuple[Sequences, Sequences | None]:
        """The sequences to learn from and to validate on, and those to test on."""
        if isinstance(arguments.test, Path):
            test = self._read(arguments.test, arguments, train.layout, texts=train.layout.text is not None)
            say(test.describe())
            return train, test.present()
        if arguments.test == NONE:
            return train, None
        chosen = held_out(arguments.test, self.answers.groups(train), arguments.seed)
        rest = sorted(set(range(len(train))) - set(chosen))
        return train.chosen(rest), train.chosen(chosen)


def add_pooling_flag(parser: argparse._ActionsContainer, choices: list[str], default: str, more: str = "") -> None:
    """Add ``--pooling``."""
    help = f"how the outputs of all steps become one; flatten needs sequences of one length{more}"
    parser.add_argument("--pooling", choices=choices, default=default, help=help)
