# SPDX-License-Identifier: MIT
"""``crnn train --task classify`` and ``--task tag``: a class for every sequence, or for every step, of a table."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import crnn
from crnn.cli.common import say
from crnn.cli.configuration import Repeated
from crnn.cli.tables.labels import classes_in, describe_classes, targets_for
from crnn.cli.tables.layout import LABEL_FLAG, some_of
from crnn.cli.tables.sequences import Sequences
from crnn.cli.tasks.sequences import SequenceTask, add_pooling_flag
from crnn.models.fitting.weighting import BALANCED
from crnn.models.outputs.pooling import POOLINGS


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


class ClassAnswers:
    """Classes: one for every sequence, or with ``steps`` for every step; several columns of them are binary."""

    label_flag = LABEL_FLAG

    def __init__(self, *, steps: bool) -> None:
        self._steps = steps

    def per_step(self, arguments: argparse.Namespace) -> bool:
        """Whether each step has a class."""
        return self._steps

    def add_flags(self, parser: argparse._ActionsContainer, defaults: dict[str, Any]) -> None:
        """Add the options of models of classes."""
        if not self._steps:
            add_pooling_flag(parser, list(POOLINGS), defaults["pooling"])
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
            "--threshold",
            dest="thresholds",
            action=Repeated,
            default=[],
            type=float,
            help="of several columns of labels: the probability above which a label applies, once for all, or once for "
            "each in their order; 0.5 if not given",
        )
        parser.add_argument(
            "--label-smoothing",
            type=float,
            default=defaults["label_smoothing"],
            help="fraction of the target probability that is spread over all classes",
        )

    def options(self, arguments: argparse.Namespace, train: Sequences) -> dict[str, Any]:
        """The classes, which the labels decide, and the options of models of classes."""
        several = len(train.layout.labels) > 1
        classes: list[Any] = list(train.layout.labels) if several else [*classes_in(train, per_step=self._steps)]
        say(f"{train.describe()}; {describe_classes(train, classes, per_step=self._steps)}")
        options: dict[str, Any] = {"multilabel": several, "label_smoothing": arguments.label_smoothing}
        thresholds: list[float] = arguments.thresholds
        options["thresholds"] = thresholds[0] if len(thresholds) == 1 else thresholds or None
        options["class_weight"] = _class_weights(arguments.class_weight, classes)
        plain = classes == list(range(len(classes)))
        options |= {"num_classes": len(classes)} if plain else {"classes": classes}
        return options if self._steps else options | {"pooling": arguments.pooling}

    def targets(self, model: Any, sequences: Sequences) -> Any:
        """The labels."""
        targets = targets_for(model, sequences, per_step=self._steps)
        return np.array(targets) if model.multilabel and not self._steps else targets

    def groups(self, sequences: Sequences) -> Any:
        """The class of each sequence, if it has one."""
        if self._steps or len(sequences.layout.labels) > 1:
            return np.zeros(len(sequences), int)
        return np.unique(sequences.labels or [], return_inverse=True)[1]

    def described(self, evaluation: Any) -> str:
        """An evaluation on test data as text."""
        return f"{evaluation.nats:.4f} nats, accuracy {100 * evaluation.accuracy:.1f} % of {evaluation.count:,}"


CLASSIFY = SequenceTask(crnn.SequenceClassifier, ClassAnswers(steps=False))
TAG = SequenceTask(crnn.SequenceTagger, ClassAnswers(steps=True), per_step=True)
