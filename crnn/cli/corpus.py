# SPDX-License-Identifier: MIT
"""The text that ``crnn train`` learns from: its flags, and the corpus that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path

import crnn

__all__ = ["add_text_flags", "corpus_from"]


def add_text_flags(text: argparse._ArgumentGroup) -> None:
    """Add the flags of a corpus. Each is stored under its name in `crnn.TextCorpus.from_file`."""
    text.add_argument("--unit", choices=["char", "byte", "word"], default="char", help="kind of token")
    text.add_argument("--encoding", default="utf-8", help="encoding of the file")
    text.add_argument("--valid", type=float, default=0.05, help="fraction of the text for validation")
    text.add_argument("--test", type=float, default=0.05, help="fraction of the text for the test at the end")
    text.add_argument("--min-count", type=int, default=1, help="tokens that occur less often become <unk>")
    text.add_argument(
        "--max-vocab",
        dest="max_size",
        metavar="MAX_VOCAB",
        type=int,
        help="largest size of the vocabulary; the most frequent tokens are kept",
    )
    text.add_argument("--unknown", action="store_true", help="add <unk>, for tokens that are not in the text")
    text.add_argument(
        "--ids",
        dest="ids_path",
        metavar="IDS",
        type=Path,
        help="memory-map the ids in this file, for texts larger than memory",
    )


def corpus_from(arguments: argparse.Namespace) -> crnn.TextCorpus:
    """The corpus that the arguments of ``crnn train`` describe. Raises what `crnn.TextCorpus.from_file` raises."""
    return crnn.TextCorpus.from_file(
        arguments.text,
        unit=arguments.unit,
        valid=arguments.valid,
        test=arguments.test,
        encoding=arguments.encoding,
        min_count=arguments.min_count,
        max_size=arguments.max_size,
        unknown=True if arguments.unknown else None,
        ids_path=arguments.ids_path,
    )
