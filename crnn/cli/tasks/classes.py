# SPDX-License-Identifier: MIT
"""``crnn train --task classify`` and ``--task tag``: a class for every sequence, or for every step, of a table."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import crnn
from crnn._options import add_flags, from_flags
from crnn.checks import DTYPES
from crnn.cli.common import CommandParser, say
from crnn.cli.configuration import Repeated
from crnn.cli.labels import classes_in, describe_classes, targets_for
from crnn.cli.layout import Layout, add_layout_flags, layout_of, some_of
from crnn.cli.sequences import Sequences, read_sequences
from crnn.cli.tasks import Prepared
from crnn.models.held_out import AUTO, held_out
from crnn.models.pooling import POOLINGS
from crnn.models.text_inputs import learn_vocab
from crnn.models.training_data import training_data
from crnn.models.weighting import BALANCED
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
        return Path(text)
    if share == 0:
        return NONE
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, a file, or {NONE}, got {text!r}")
    return share


def _class_weight(text: str) -> str:
    """One value of ``--class-weight``."""
    try:
        if text == BALANCED or float(text.rpartition("=")[2]) >= 0 < text.rfind("="):
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected LABEL=WEIGHT, or {BALANCED}, got {text!r}")


def _class_weights(given: list[str], classes: list[Any]) -> str | dict[Any, float] | None:
    """The values of ``--class-weight`` as the models take them. Raises ValueError."""
    if not given or given == [BALANCED]:
        return BALANCED if given else None
    if BALANCED in given:
        raise ValueError(f"class_weight: expected {BALANCED}, or a weight for each class, got both")
    names = {str(label): label for label in classes}
    weights: dict[Any, float] = {}
    for text in given:
        label, _, weight = text.rpartition("=")
        if label not in names or names[label] in weights:
            expected = f"each of the classes {some_of(names)} once"
            raise ValueError(f"class_weight: expected {expected}, got {label!r:.100}")
        weights[names[label]] = float(weight)
    return weights


class ClassTask:
    """The task of a model of classes.

    Attributes
    ----------
    make : callable
        The class of the model.
    per_step : bool
        Whether each step has a label; otherwise each sequence has one.
    """

    TRAINING_FLAGS: ClassVar[dict[str, dict[str, Any]]] = {
        "batch_size": {"help": "sequences in a batch"},
        "epochs": {
            "help": f"passes over the sequences; if not given as many as make {LEAST_UPDATES:,} updates, at least "
            f"{LEAST_EPOCHS}"
        },
    }
    WITHOUT = ("bptt", "carry", "sample_every")
    make: Callable[..., Any]
    per_step: bool

    def __init__(self, make: Callable[..., Any], *, per_step: bool) -> None:
        self.make, self.per_step = make, per_step
        self.defaults = {name: each.default for name, each in inspect.signature(make).parameters.items()}

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the table, and the options of its columns, of the model and its network."""
        parser.usage = "%(prog)s [options] DATA -o OUTPUT"
        parser.add_argument("data", type=Path, help="table (.csv, .tsv, also compressed); - is standard input")
        data = parser.add_argument_group("data")
        add_layout_flags(data, formats=not self.per_step)
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
        self._add_model_flags(parser.add_argument_group("model"))
        defaults = self.defaults
        flags: dict[str, dict[str, Any]] = {
            "hidden_size": {"type": int, "default": defaults["hidden_size"], "help": "H: units of each layer"},
            "num_layers": {"default": 1, "help": "number of layers"},
            "cell": {"choices": list(CELLS), "default": defaults["cell"], "help": "kind of recurrent cell"},
            "dtype": {"choices": list(DTYPES), "help": "precision"},
            "embedding_size": {"help": "of texts: size of the token embedding; one-hot tokens if not given, or 0"},
        }
        add_flags(parser.add_argument_group("network"), NetworkConfig, flags)

    def _add_model_flags(self, parser: argparse._ActionsContainer) -> None:
        """Add the options of the model that are not those of its network."""
        parser.add_argument(
            "--vocab",
            choices=["char", "byte", "word"],
            help="of texts: kind of token; char if not given, or word if a row is a word",
        )
        if not self.per_step:
            parser.add_argument(
                "--pooling",
                choices=list(POOLINGS),
                default=self.defaults["pooling"],
                help="how the outputs of all steps become one; flatten needs sequences of one length",
            )
        parser.add_argument(
            "--class-weight",
            action=Repeated,
            default=[],
            type=_class_weight,
            metavar="LABEL=WEIGHT",
            help="weight of a class in the loss, 1 for those that are not given; may be repeated. balanced: all "
            "classes weigh alike",
        )
        parser.add_argument(
            "--label-smoothing",
            type=float,
            default=self.defaults["label_smoothing"],
            help="fraction of the target probability that is spread over all classes",
        )
        parser.add_argument(
            "--scale",
            action=argparse.BooleanOptionalAction,
            default=self.defaults["scale"],
            help="standardise the values by the training data",
        )

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

    def prepare(self, arguments: argparse.Namespace, config: TrainingConfig) -> Prepared:
        """Read the tables, make a model of the size that they need, and say what was found."""
        train = self._read(arguments.data, layout_of(arguments), texts=None)
        layout = train.layout
        several = len(layout.labels) > 1
        classes = list(layout.labels) if several else classes_in(train, per_step=self.per_step)
        say(f"{train.describe()}; {describe_classes(train, classes, per_step=self.per_step)}")
        # Options as they were found, so that they are saved with the model.
        arguments.label, arguments.id, arguments.time = list(layout.labels), layout.id, layout.time
        arguments.column, arguments.text_column = list(layout.columns), layout.text
        if not self.per_step:
            arguments.format = layout.format
        train, test = self._split(arguments, train, several=several)
        model = self._new_model(arguments, train, classes, multilabel=several)
        valid: Any = arguments.valid
        if isinstance(valid, Path):
            given = self._read(valid, layout, texts=layout.text is not None)
            say(given.describe())
            valid = given.x, self._targets(model, given)
        valid = None if isinstance(valid, str) and valid == NONE else valid
        settings = {"resume": config.resume, "checkpoint": config.checkpoint}
        targets = self._targets(model, train)
        data, judged = training_data(model, train.x, targets, valid, rescale=False, settings=settings)
        tokens = "" if model.vocab is None else f"{len(model.vocab):,} different {model.vocab.unit}s, "
        say(f"{tokens}cell {model.net.cell}, {model.flat_params.size:,} parameters")
        return Prepared(model, data, judged, None if test is None else model.data(test.x, self._targets(model, test)))

    def described(self, evaluation: Any) -> str:
        """An evaluation on test data as text."""
        return f"{evaluation.nats:.4f} nats, accuracy {100 * evaluation.accuracy:.1f} % of {evaluation.count:,}"

    def _read(self, path: Path, layout: Layout, *, texts: bool | None) -> Sequences:
        return read_sequences(path, layout, labelled=True, per_step=self.per_step, texts=texts)

    def _targets(self, model: Any, sequences: Sequences) -> Any:
        targets = targets_for(model, sequences, per_step=self.per_step)
        return np.array(targets) if model.multilabel and not self.per_step else targets

    def _new_model(
        self, arguments: argparse.Namespace, train: Sequences, classes: list[Any], *, multilabel: bool
    ) -> Any:
        """The model that the options describe, of the sizes that the data have."""
        options = from_flags(arguments, NetworkConfig) | {"seed": arguments.seed, "multilabel": multilabel}
        options |= {"label_smoothing": arguments.label_smoothing, "scale": arguments.scale}
        options["class_weight"] = _class_weights(arguments.class_weight, classes)
        options["embedding_size"] = options["embedding_size"] or None
        plain = classes == list(range(len(classes)))
        options |= {"num_classes": len(classes)} if plain else {"classes": classes}
        if not self.per_step:
            options["pooling"] = arguments.pooling
            if arguments.pooling == "flatten":
                options["steps"] = len(train.x[0])
        if train.layout.text is not None:
            unit: Unit = arguments.vocab or ("char" if isinstance(train.x[0], str) else "word")
            return self.make(vocab=learn_vocab("text_column", train.x, unit), **options)
        for name in ("vocab", "embedding_size"):
            if getattr(arguments, name):
                raise ValueError(f"{name}: expected a column of texts with it, got columns of values")
        return self.make(train.x[0].shape[1], **options)

    def _split(
        self, arguments: argparse.Namespace, train: Sequences, *, several: bool
    ) -> tuple[Sequences, Sequences | None]:
        """The sequences to learn from and to validate on, and those to test on."""
        if isinstance(arguments.test, Path):
            test = self._read(arguments.test, train.layout, texts=train.layout.text is not None)
            say(test.describe())
            return train, test
        if arguments.test == NONE:
            return train, None
        groups = np.zeros(len(train), int)
        if not self.per_step and not several:
            assert train.labels is not None
            groups = np.unique(train.labels, return_inverse=True)[1]
        chosen = held_out(arguments.test, groups, arguments.seed)
        rest = sorted(set(range(len(train))) - set(chosen))
        return train.chosen(rest), train.chosen(chosen)


CLASSIFY = ClassTask(crnn.SequenceClassifier, per_step=False)
TAG = ClassTask(crnn.SequenceTagger, per_step=True)
