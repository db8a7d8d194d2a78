# SPDX-License-Identifier: MIT
"""``crnn eval``: evaluate a language model on text files, or a model of sequences on a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import crnn
from crnn.cli.common import CommandParser, cores, file_path, say, show
from crnn.cli.corpus import add_border_flag, add_text_argument, corpus_to_evaluate
from crnn.cli.learning import add_learning_flags, check_learns, learning_options
from crnn.cli.results import add_json_flag, evaluation_json, show_json
from crnn.cli.tables.forecasts import add_forecast_flags, evaluation_of
from crnn.cli.tables.known import refuse_options, sequences_for
from crnn.cli.tables.labels import targets_for, values_of
from crnn.cli.tables.layout import add_layout_flags
from crnn.models.language import dynamic

__all__ = ["OPTIONS", "add_arguments", "add_evaluation_flags", "evaluated", "run"]

TABLE = ("id", "time", "delimiter", "header", "decimal")
# The options for each kind of data, besides those of all.
OPTIONS: dict[str, tuple[str, ...]] = {
    "texts": ("batch_size", "border"),
    "tables of sequences": (*TABLE, "format", "label", "column", "text_column", "sample_weight", "mask"),
    "series": (*TABLE, "horizon", "origins", "target", "past", "future"),
}


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn eval``."""
    parser.add_argument("model", type=file_path, help="a model of crnn (.safetensors)")
    add_text_argument(parser, "to evaluate on, or a table (.csv, .tsv) for a model of sequences")
    add_json_flag(parser)
    add_evaluation_flags(parser)
    learning = parser.add_argument_group("dynamic evaluation of a text")
    learning.add_argument(
        "--dynamic",
        action="store_true",
        help="predict some steps, then learn them, before the next ones are predicted; the model's file never changes",
    )
    defaults = {
        name: value if value == of_many else f"{value}, or {of_many} with --batch {dynamic.MANY_STREAMS} or more,"
        for (name, value), of_many in zip(dynamic.DEFAULTS.items(), dynamic.DEFAULTS_OF_MANY.values(), strict=True)
    }
    add_learning_flags(learning, dynamic.OPTIONS, defaults)
    learning.add_argument(
        "--statistics",
        type=file_path,
        nargs="+",
        metavar="FILE",
        help="take the mean squares of the gradient from these texts, such as those of the training, instead of an "
        f"optimizer; lr is then {dynamic.LR_OF_STATISTICS} if not given",
    )


def add_evaluation_flags(parser: CommandParser) -> None:
    """Add the options that `evaluated` reads, besides ``model`` and ``text``."""
    parser.add_argument(
        "--batch",
        dest="batch_size",
        metavar="BATCH",
        type=int,
        help="of a text: split it into this many parallel streams: faster; less accurate, as each starts without "
        "context; 1 if not given",
    )
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")
    add_border_flag(parser.add_argument_group("text"))
    of_text = "that of the model; of a table that of its training, or utf-8,"
    add_layout_flags(parser.add_argument_group("table"), encoding=of_text, trained=True)
    ahead = parser.add_argument_group("forecasts")
    add_forecast_flags(ahead)
    ahead.add_argument("--origins", type=int, help="origins in the table, from which is forecast; 5 if not given")


def run(arguments: argparse.Namespace) -> int:
    """Print how well a model predicts. Returns the exit status."""
    options = learning_options(arguments, dynamic.OPTIONS, "dynamic", ["statistics"])
    if arguments.dynamic:  # checked before anything is read
        given = {} if arguments.statistics is None else {"statistics": arguments.statistics}
        dynamic.checked_options(options | given, arguments.batch_size or 1, arguments.threads)
    line, result = evaluated(crnn.load(arguments.model), arguments, options if arguments.dynamic else None)
    if arguments.json:
        show_json({"model": arguments.model} | result)
    else:
        show(line)
    return 0


def evaluated(
    model: Any,
    arguments: argparse.Namespace,
    learning: dict[str, Any] | None = None,
    note: Callable[[str], None] = say,
) -> tuple[str, dict[str, Any]]:
    """How well a model predicts ``arguments.text``, files of texts or one table: in words, and for programs.

    ``learning``: options of dynamic evaluation. ``note``: is told what was found in the data.
    """
    what = "tables of sequences"
    if isinstance(model, crnn.LanguageModel):
        what = "texts"
    elif isinstance(model, crnn.Forecaster):
        what = "series"
    refuse_options(arguments, {name for names in OPTIONS.values() for name in names} - set(OPTIONS[what]), what)
    if what != "texts" and learning is not None:
        raise ValueError(f"dynamic: not an option for {what}, which {arguments.model} is for")
    if what != "texts" and len(arguments.text) > 1:
        raise ValueError(f"text: expected one table, got {len(arguments.text)} files")
    if isinstance(model, crnn.LanguageModel):
        if learning is not None:
            check_learns("model", model, arguments.model)
        return _evaluate_text(model, arguments, learning, note)
    if isinstance(model, crnn.Forecaster):
        return _evaluate_forecaster(model, arguments)
    return _evaluate_table(model, arguments, note)


def _evaluate_forecaster(model: Any, arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """How good forecasts from several origins would have been."""
    found = evaluation_of(model, arguments)
    line = (
        f"rmse {found['rmse']:.4f}  mae {found['mae']:.4f}  {found['horizon']} steps from {found['origins']} origins\n"
        f"rmse {found['naive_rmse']:.4f}  mae {found['naive_mae']:.4f}  of the values {found['season']} steps before"
    )
    return line, dict(found)


def _evaluate_table(
    model: Any, arguments: argparse.Namespace, note: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """How well a model predicts the labels in a table."""
    (arguments.data,) = arguments.text
    sequences, per_step = sequences_for(model, arguments, labelled=True)
    note(sequences.describe())
    sequences = sequences.present()
    of_classes = hasattr(model, "num_classes")
    if of_classes:
        targets: Any = targets_for(model, sequences, per_step=per_step)
    else:
        targets = values_of(sequences, model.output_size, per_step=per_step)
    result = model.evaluate(model.data(sequences.x, targets, sequences.weights), threads=arguments.threads)
    if of_classes:
        line = f"nats {result.nats:.4f}  bits {result.bits:.4f}  accuracy {result.accuracy:.4f}"
        line += f"  {'steps' if per_step else 'sequences'} {result.count}"
    else:
        line = f"rmse {result.rmse:.6g}  mae {result.mae:.6g}  loss {result.loss:.4f}  values {result.count}"
    return line, {"sequences": len(sequences)} | evaluation_json(result)


def _evaluate_text(
    model: crnn.LanguageModel,
    arguments: argparse.Namespace,
    learning: dict[str, Any] | None,
    note: Callable[[str], None],
) -> tuple[str, dict[str, Any]]:
    """Loss, perplexity and accuracy of a language model on text files."""
    corpus = corpus_to_evaluate(arguments, model.vocab)
    if learning is not None and arguments.statistics is not None:
        learning["statistics"] = corpus_to_evaluate(arguments, model.vocab, arguments.statistics).train
    unit = model.vocab.unit
    unknown = 0 if model.vocab.unknown_id is None else int(np.count_nonzero(corpus.train == model.vocab.unknown_id))
    if unknown:
        note(f"{unknown:,} of {len(corpus.train):,} {unit}s are not in the vocabulary and count as <unk>")
    batch_size = 1 if arguments.batch_size is None else arguments.batch_size
    result = model.evaluate(
        corpus.train,
        batch_size=batch_size,
        threads=arguments.threads,
        dynamic=False if learning is None else learning,
    )
    line = (
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
        f"accuracy {result.accuracy:.4f}  {unit}s {result.count}"
    )
    return line, {"unit": unit, "unknown": unknown} | evaluation_json(result)
