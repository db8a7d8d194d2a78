# SPDX-License-Identifier: MIT
"""The texts that subcommands read: files, folders, pipes; their flags, and the corpus that they describe."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import crnn
from crnn.cli.common import STANDARD, file_or_standard, file_path, say, standard_input
from crnn.cli.typed import ESCAPES, typed_text
from crnn.text.vocab import BYTE_ORDER_MARK

__all__ = [
    "add_border_flag",
    "add_corpus_flags",
    "add_encoding_flag",
    "add_text_argument",
    "corpus_from",
    "corpus_to_evaluate",
    "paths_of_text",
]


def add_text_argument(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add the positional argument for the files of a text."""
    parser.add_argument(
        "text",
        type=file_or_standard,
        nargs="+",
        help=f"files or folders {purpose}, also compressed ones (gzip, bzip2, xz); - is standard input",
    )


def add_encoding_flag(parser: argparse._ActionsContainer, default: str) -> None:
    """Add ``--encoding``; ``default`` says what it is if the flag is not given."""
    parser.add_argument("--encoding", help=f"encoding of the text, {default} if not given")


def add_border_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--border``."""
    parser.add_argument(
        "--border", default=r"\n", help=f"put between two files, unless the first one ends with it; {ESCAPES}"
    )


def add_corpus_flags(text: argparse._ArgumentGroup) -> None:
    """Add the flags of a corpus. Each is stored under its name in `crnn.TextCorpus.from_file`."""
    text.add_argument("--unit", choices=["char", "byte", "word"], default="char", help="kind of token")
    add_encoding_flag(text, "utf-8")
    add_border_flag(text)
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
        type=file_path,
        help="memory-map the ids in this file, for texts larger than memory",
    )


def paths_of_text(arguments: argparse.Namespace) -> list[Path]:
    """The files and folders that the text is read from, without standard input."""
    return [path for path in arguments.text if path != STANDARD]


def _files(arguments: argparse.Namespace) -> list[Path | BinaryIO]:
    if Counter(arguments.text)[STANDARD] > 1:
        raise ValueError("text: expected - (standard input) at most once")
    return [standard_input() if path == STANDARD else path for path in arguments.text]


def corpus_from(
    arguments: argparse.Namespace, vocab: crnn.Vocab | None = None, *, extend_vocab: bool = False
) -> crnn.TextCorpus:
    """The corpus that the arguments of ``crnn train`` describe. Raises what `crnn.TextCorpus.from_file` raises.

    ``vocab``: that of the model to start from, which determines the unit.
    """
    if arguments.unit == "byte" and arguments.adaptive_softmax is not None and vocab is None:
        raise ValueError(
            "adaptive_softmax: expected none for unit byte, whose tokens are always in the order of their values, got "
            f"{arguments.adaptive_softmax!r}"
        )
    corpus = crnn.TextCorpus.from_file(
        _files(arguments),
        unit=arguments.unit if vocab is None else None,
        vocab=vocab,
        extend_vocab=extend_vocab,
        valid=arguments.valid,
        test=arguments.test,
        encoding=arguments.encoding,
        min_count=arguments.min_count,
        max_size=arguments.max_size,
        unknown=True if arguments.unknown else None,
        order="sorted" if vocab is not None or arguments.adaptive_softmax is None else "frequency",
        border=typed_text("border", arguments.border, arguments.encoding or (vocab.encoding if vocab else "utf-8")),
        ids_path=arguments.ids_path,
    )
    if BYTE_ORDER_MARK in corpus.vocab:
        say("the text has a byte order mark, which is learnt as a character; --encoding utf-8-sig removes it")
    return corpus


def corpus_to_evaluate(
    arguments: argparse.Namespace, vocab: crnn.Vocab, paths: Sequence[Path] | None = None
) -> crnn.TextCorpus:
    """The corpus that a model with this vocabulary is evaluated on: all of the text is in ``train``.

    ``paths``: files and folders of another text than ``arguments.text``.
    """
    encoding = arguments.encoding or vocab.encoding
    border = typed_text("border", arguments.border, encoding)
    return crnn.TextCorpus.from_file(
        _files(arguments) if paths is None else list(paths),
        vocab=vocab,
        valid=0.0,
        test=0.0,
        encoding=encoding,
        border=border,
    )
