# SPDX-License-Identifier: MIT
"""``crnn eval``: evaluate a language model on text files, or a model of sequences on a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import crnn
from crnn.cli.common import CommandParser, cores, say, show
from crnn.cli.corpus import add_border_flag, add_text_argument, corpus_to_evaluate
from crnn.cli.labels import targets_for
from crnn.cli.layout import add_layout_flags
from crnn.cli.results import add_json_flag, evaluation_json, show_json
from crnn.cli.tables import sequences_for

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn eval``."""
    parser.add_argument("model", type=Path)
    add_text_argument(parser, "to evaluate on, or a table (.csv, .tsv) for a model of sequences")
    parser.add_argument(
        "--batch",
        dest="batch_size",
        metavar="BATCH",
        type=int,
        help="of a text: split it into this many parallel streams: faster; less accurate, as each starts without "
        "context; 1 if not given",
    )
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")
    add_json_flag(parser)
    add_border_flag(parser.add_argument_group("text"))
    add_layout_flags(parser.add_argument_group("table"), encoding="that of the model, or utf-8 of a table,")


def run(arguments: argparse.Namespace) -> int:
    """Print how well a model predicts. Returns the exit status."""
    model = crnn.load(arguments.model)
    of_text = isinstance(model, crnn.LanguageModel)
    _check_options(arguments, of_text=of_text)
    return _evaluate_text(model, arguments) if of_text else _evaluate_table(model, arguments)


def _check_options(arguments: argparse.Namespace, *, of_text: bool) -> None:
    """Raise ValueError for an option that the kind of the model does not have."""
    parser = arguments.parser
    groups = {group.title: [action.dest for action in group._group_actions] for group in parser._action_groups}
    other, what = ("table", "a text") if of_text else ("text", "a table")
    wrong = [name for name in [*groups[other], *([] if of_text else ["batch_size"])] if name != "encoding"]
    for name in wrong:
        if getattr(arguments, name) != parser.get_default(name):
            raise ValueError(f"{name}: not an option for {what}, which {arguments.model} is evaluated on")
    if not of_text and len(arguments.text) > 1:
        raise ValueError(f"text: expected one table, got {len(arguments.text)} files")


def _evaluate_table(model: Any, arguments: argparse.Namespace) -> int:
    """Print how well a model predicts the labels in a table."""
    (arguments.data,) = arguments.text
    if not hasattr(model, "num_classes"):
        expected = "a LanguageModel or a model of classes"
        raise ValueError(f"{arguments.model}: expected {expected}, got a {type(model).__name__}")
    sequences, per_step = sequences_for(model, arguments, labelled=True)
    say(sequences.describe())
    result = model.evaluate(sequences.x, targets_for(model, sequences, per_step=per_step), threads=arguments.threads)
    if arguments.json:
        show_json({"model": arguments.model, "sequences": len(sequences)} | evaluation_json(result))
        return 0
    show(
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  accuracy {result.accuracy:.4f}  "
        f"{'steps' if per_step else 'sequences'} {result.count}"
    )
    return 0


def _evaluate_text(model: crnn.LanguageModel, arguments: argparse.Namespace) -> int:
    """Print loss, perplexity and accuracy of a language model on text files."""
    corpus = corpus_to_evaluate(arguments, model.vocab)
    unit = model.vocab.unit
    unknown = 0 if model.vocab.unknown_id is None else int(np.count_nonzero(corpus.train == model.vocab.unknown_id))
    if unknown:
        say(f"{unknown:,} of {len(corpus.train):,} {unit}s are not in the vocabulary and count as <unk>")
    batch_size = 1 if arguments.batch_size is None else arguments.batch_size
    result = model.evaluate(corpus.train, batch_size=batch_size, threads=arguments.threads)
    if arguments.json:
        show_json({"model": arguments.model, "unit": unit, "unknown": unknown} | evaluation_json(result))
        return 0
    show(
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
        f"accuracy {result.accuracy:.4f}  {unit}s {result.count}"
    )
    return 0
