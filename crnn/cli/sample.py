# SPDX-License-Identifier: MIT
"""``crnn sample``: text from a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from crnn.cli.common import Verbs, add_sampling_flags, load_language_model, new_verb, write_stream

__all__ = ["add_verb"]


def add_verb(verbs: Verbs) -> None:
    sample = new_verb(verbs, "sample", run, "generate text with a model")
    sample.add_argument("model", type=Path)
    sample.add_argument("--prompt", default="", help="text to continue")
    sample.add_argument("--length", type=int, default=500, help="tokens to generate")
    add_sampling_flags(sample)
    sample.add_argument("--stop", help="end before this text")


def run(arguments: argparse.Namespace) -> int:
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
