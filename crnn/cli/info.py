# SPDX-License-Identifier: MIT
"""``crnn info``: show the contents of a model file."""

from __future__ import annotations

import argparse
from pathlib import Path

import crnn
from crnn.cli.common import Subparsers, new_subcommand, show
from crnn.training.checkpoint import describe

__all__ = ["add_subcommand"]


def add_subcommand(subparsers: Subparsers) -> None:
    """Add ``crnn info`` to the parsers."""
    info = new_subcommand(subparsers, "info", run, "show the contents of a model file")
    info.add_argument("model", type=Path)


def run(arguments: argparse.Namespace) -> int:
    """Print configuration, vocabulary and parameter shapes of a model file. Returns the exit status."""
    model = crnn.load(arguments.model)
    size = arguments.model.stat().st_size
    show(f"{arguments.model}: {size:,} bytes{describe(arguments.model)}\n{model}")
    for name, value in model.config().items():
        show(f"  {name:<16} {value}")
    if isinstance(model, crnn.LanguageModel):
        show(f"  {'vocabulary':<16} {model.vocab!r}")
        show(f"  {'encoding':<16} {model.vocab.encoding if model.vocab.unit != 'byte' else 'none, bytes'}")
    for name, array in model.params.items():
        show(f"  {name:<16} {array.dtype} {array.shape}")
    return 0
