# SPDX-License-Identifier: MIT
"""What several verbs share: their parsers, sampling flags, loading a language model, messages."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import crnn

__all__ = [
    "INTERRUPTED",
    "Verbs",
    "add_sampling_flags",
    "cores",
    "load_language_model",
    "new_verb",
    "say",
    "write_stream",
]

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what a verb's parser is added to

INTERRUPTED = 130  # what a shell expects of a program ended by Ctrl-C


def new_verb(
    verbs: Verbs, name: str, run: Callable[[argparse.Namespace], int], help: str, description: str | None = None
) -> argparse.ArgumentParser:
    """The parser of a verb; ``run`` takes the arguments and returns the exit status."""
    parser = verbs.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,  # shows every default
    )
    parser.set_defaults(run=run)
    return parser


def add_sampling_flags(parser: argparse.ArgumentParser, temperature: float = 1.0) -> None:
    parser.add_argument("--temperature", type=float, default=temperature, help="0: always the likeliest token")
    parser.add_argument("--top-k", type=int, help="draw from this many of the likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest tokens that make up this probability")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_language_model(path: Path) -> crnn.LanguageModel:
    """The language model in a file. ValueError for any other kind of model."""
    model: Any = crnn.load(path)
    if not isinstance(model, crnn.LanguageModel):
        raise ValueError(f"{path}: expected a LanguageModel, got a {type(model).__name__}")
    return model


def say(text: str) -> None:
    """A message for whoever runs the command: standard output is for results."""
    print(text, file=sys.stderr)


def write_stream(prompt: str, chunks: Iterable[str]) -> None:
    """Write a text as it is generated, and a newline."""
    sys.stdout.write(prompt)
    for chunk in chunks:
        sys.stdout.write(chunk)
        sys.stdout.flush()
    sys.stdout.write("\n")
