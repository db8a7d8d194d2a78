# SPDX-License-Identifier: MIT
"""``crnn score``: bits per token of each line of standard input."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import BinaryIO, TextIO

import crnn
from crnn._core.loss import sum as sum_of
from crnn.cli.common import Subparsers, load_language_model, new_subcommand

__all__ = ["add_subcommand", "score_lines"]


def add_subcommand(subparsers: Subparsers) -> None:
    """Add ``crnn score`` to the parsers."""
    score = new_subcommand(
        subparsers,
        "score",
        run,
        "bits per token of each line of standard input",
        "Reads lines from standard input. Writes for each line, as soon as it is read, its bits per character (or per "
        "word or byte, the unit of the vocabulary), a tab and the line: tail -f log | crnn score m. The newline "
        "counts as part of the line. The value is inf if the line has a character outside the vocabulary.",
    )
    score.add_argument("model", type=Path)
    score.add_argument(
        "--carry", action="store_true", help="carry the state across lines, instead of resetting it before each line"
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the lines of standard input. Returns the exit status."""
    score_lines(load_language_model(arguments.model), sys.stdin.buffer, sys.stdout, carry=arguments.carry)
    return 0


def score_lines(model: crnn.LanguageModel, lines: BinaryIO, out: TextIO, *, carry: bool = False) -> None:
    """Write each line's bits per token, a tab and the line, as soon as the line is read.

    Each line is scored with the newline that ends it. Its context is one newline, or with ``carry`` all lines before.
    If the vocabulary has no newline, the first token of a line is not counted, and a line of fewer than two tokens
    scores nan. A line with a token outside the vocabulary scores inf and does not change the state.

    Parameters
    ----------
    model : LanguageModel
        A float64 model is converted to float32.
    lines : binary file
        UTF-8; invalid bytes are replaced, except for a model of bytes.
    out : text file
        Flushed after every line.
    carry : bool
        Carry the state from line to line.
    """
    if model.dtype != "float32":
        model = model.astype("float32")  # streams are float32; four decimals are shown
    vocab = model.vocab
    as_bytes = vocab.unit == "byte"
    newline: str | bytes = b"\n" if as_bytes else "\n"
    start = model.stream()
    try:
        start.feed(newline)
    except crnn.VocabError:
        newline = newline[:0]
    stream = start.copy()
    for raw in iter(lines.readline, b""):
        raw = raw.rstrip(b"\r\n")
        text = raw.decode("utf-8", errors="replace")
        if not carry:
            stream = start.copy()
        try:
            ids = vocab.encode(raw + b"\n" if as_bytes else text + "\n" if newline else text)
        except crnn.VocabError:
            bits = math.inf
        else:
            if not newline:
                stream.feed(ids[:1])
                ids = ids[1:]
            nats = stream.surprisal(ids)
            bits = sum_of(nats) / len(nats) / math.log(2) if len(nats) else math.nan
        out.write(f"{bits:.4f}\t{text}\n")
        out.flush()
