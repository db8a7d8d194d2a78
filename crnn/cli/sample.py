# SPDX-License-Identifier: MIT
"""``crnn sample``: generate text with a language model."""

from __future__ import annotations

import argparse
from pathlib import Path

from crnn.cli.common import Subparsers, add_sampling_flags, load_language_model, new_subcommand, write_stream

__all__ = ["add_subcommand"]


def add_subcommand(subparsers: Subparsers) -> None:
    """Add ``crnn sample`` to the parsers."""
    sample = new_subcommand(subparsers, "sample", run, "generate text with a language model")
    sample.add_argument("model", type=Path)
    sample.add_argument("--prompt", default="", help="text to continue")
    sample.add_argument("--length", type=int, default=500, help="tokens to generate")
    add_sampling_flags(sample)
    sample.add_argument("--stop", help="stop before this text is generated")


def run(arguments: argparse.Namespace) -> int:
    """Write the prompt and the generated text to standard output. Returns the exit status."""
    chunks = load_language_model(arguments.model).iter_generate(
        arguments.prompt,
        arguments.length,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        stop=arguments.stop,
        seed=arguments.seed,
    )
    write_stream(arguments.prompt, chunks)
    return 0
