# SPDX-License-Identifier: MIT
"""``crnn eval``: evaluate a language model on text files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from crnn.cli.common import CommandParser, cores, load_language_model, say, show
from crnn.cli.corpus import add_border_flag, add_encoding_flag, add_text_argument, corpus_to_evaluate
from crnn.cli.results import add_json_flag, evaluation_json, show_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn eval``."""
    parser.add_argument("model", type=Path)
    add_text_argument(parser, "to evaluate on")
    add_encoding_flag(parser, "that of the model")
    add_border_flag(parser)
    parser.add_argument(
        "--batch",
        dest="batch_size",
        metavar="BATCH",
        type=int,
        default=1,
        help="split the text into this many parallel streams: faster; less accurate, as each starts without context",
    )
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print loss, perplexity and accuracy of a model on a text file. Returns the exit status."""
    model = load_language_model(arguments.model)
    corpus = corpus_to_evaluate(arguments, model.vocab)
    unit = model.vocab.unit
    unknown = 0 if model.vocab.unknown_id is None else int(np.count_nonzero(corpus.train == model.vocab.unknown_id))
    if unknown:
        say(f"{unknown:,} of {len(corpus.train):,} {unit}s are not in the vocabulary and count as <unk>")
    result = model.evaluate(corpus.train, batch_size=arguments.batch_size, threads=arguments.threads)
    if arguments.json:
        show_json({"model": arguments.model, "unit": unit, "unknown": unknown} | evaluation_json(result))
        return 0
    show(
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
        f"accuracy {result.accuracy:.4f}  {unit}s {result.count}"
    )
    return 0
