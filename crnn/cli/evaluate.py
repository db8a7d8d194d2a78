# SPDX-License-Identifier: MIT
"""``crnn eval``: how well a model predicts a text file."""

from __future__ import annotations

import argparse
from pathlib import Path

import crnn
from crnn.cli.common import Verbs, cores, load_language_model, new_verb

__all__ = ["add_verb"]


def add_verb(verbs: Verbs) -> None:
    evaluate = new_verb(verbs, "eval", run, "how well a model predicts a text")
    evaluate.add_argument("model", type=Path)
    evaluate.add_argument("text", type=Path)
    evaluate.add_argument("--encoding", default="utf-8", help="encoding of the file")
    evaluate.add_argument(
        "--batch", type=int, default=1, help="cut the text into this many streams: faster, less accurate"
    )
    evaluate.add_argument("--threads", type=int, default=cores(), help="the result does not depend on it")


def run(arguments: argparse.Namespace) -> int:
    model = load_language_model(arguments.model)
    corpus = crnn.TextCorpus.from_file(
        arguments.text, vocab=model.vocab, valid=0.0, test=0.0, encoding=arguments.encoding
    )
    result = model.evaluate(corpus.train, batch_size=arguments.batch, threads=arguments.threads)
    print(
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  perplexity {result.perplexity:.3f}  "
        f"accuracy {result.accuracy:.4f}  {model.vocab.unit}s {result.count}"
    )
    return 0
