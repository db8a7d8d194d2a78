# SPDX-License-Identifier: MIT
"""``crnn eval``: evaluate a language model on text files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from crnn.cli.common import Subparsers, cores, load_language_model, new_subcommand, say, show
from crnn.cli.corpus import add_border_flag, add_encoding_flag, add_text_argument, corpus_to_evaluate

__all__ = ["add_subcommand"]


def add_subcommand(subparsers: Subparsers) -> None:
    """Add ``crnn eval`` to the parsers."""
    evaluate = new_subcommand(subparsers, "eval", run, "evaluate a language model on text files")
    evaluate.add_argument("model", type=Path)
    add_text_argument(evaluate, "to evaluate on")
    add_encoding_flag(evaluate, "that of the model")
    add_border_flag(evaluate)
    evaluate.add_argument(
        "--batch",
        dest="batch_size",
        metavar="BATCH",
        type=int,
        default=1,
        help="split the text into this many parallel streams: faster; less accurate, as each starts without context",
    )
    evaluate.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")


def run(arguments: argparse.Namespace) -> int:
    """Print loss, perplexity and accuracy of a model on a text file. Returns the exit status."""
    model = load_language_model(arguments.model)
    corpus = corpus_to_evaluate(arguments, model.vocab)
    unknown = 0 if model.vocab.unknown_id is None else int(np.count_nonzero(corpus.train == model.vocab.unknown_id))
    if unknown:
        say(f"{unknown:,} of {len(corpus.train):,} {model.vocab.unit}s are not in the vocabulary and count as <unk>")
    result = model.evaluate(corpus.train, batch_size=arguments.batch_size, threads=arguments.threads)
    show(
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
        f"accuracy {result.accuracy:.4f}  {model.vocab.unit}s {result.count}"
    )
    return 0
