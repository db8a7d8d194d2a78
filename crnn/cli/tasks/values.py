# SPDX-License-Identifier: MIT
"""``crnn train --task regress``: values for every sequence, or for every step, of a table."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import crnn
from crnn.cli.common import say
from crnn.cli.configuration import Repeated
from crnn.cli.tables.labels import values_of
from crnn.cli.tables.layout import TARGET_FLAG
from crnn.cli.tables.sequences import Sequences
from crnn.cli.tasks.sequences import NONE, SequenceTask, add_pooling_flag
from crnn.models.outputs.losses import KINDS
from crnn.models.outputs.pooling import POOLINGS


class ValueAnswers:
    """Values: one or several for every sequence, or with ``--pooling none`` for every step."""

    label_flag = TARGET_FLAG

    def per_step(self, arguments: argparse.Namespace) -> bool:
        """Whether each step has values."""
        return bool(arguments.pooling == NONE)

    def add_flags(self, parser: argparse._ActionsContainer, defaults: dict[str, Any]) -> None:
        """Add the options of regressors."""
        choices = [*POOLINGS, NONE]
        add_pooling_flag(parser, choices, defaults["pooling"], "; none: values for every step, in long format")
        parser.add_argument("--loss", choices=list(KINDS), default=defaults["loss"], help="loss of a value")
        parser.add_argument(
            "--delta",
            type=float,
            default=defaults["delta"],
            help="error beyond which the loss of huber is linear, in standard deviations",
        )
        parser.add_argument(
            "--quantile",
            dest="quantiles",
            type=float,
            action=Repeated,
            default=list(defaults["quantiles"]),
            metavar="LEVEL",
            help="level of the loss quantile, given once for each",
        )

    def options(self, arguments: argparse.Namespace, train: Sequences) -> dict[str, Any]:
        """The number of values, and the options of regressors."""
        say(train.describe())
        pooling = None if arguments.pooling == NONE else arguments.pooling
        options = {name: getattr(arguments, name) for name in ("loss", "delta", "quantiles")}
        return options | {"output_size": len(train.layout.labels), "pooling": pooling}

    def targets(self, model: Any, sequences: Sequences) -> Any:
        """The values."""
        return values_of(sequences, model.output_size, per_step=model.pooling is None)

    def groups(self, sequences: Sequences) -> Any:
        """All are alike."""
        return np.zeros(len(sequences), int)

    def described(self, evaluation: Any) -> str:
        """An evaluation on test data as text."""
        return f"rmse {evaluation.rmse:.4g}, mae {evaluation.mae:.4g} of {evaluation.count:,}"


REGRESS = SequenceTask(crnn.SequenceRegressor, ValueAnswers())
