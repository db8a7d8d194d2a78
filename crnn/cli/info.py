# SPDX-License-Identifier: MIT
"""``crnn info``: what a model file holds."""

from __future__ import annotations

import argparse
from pathlib import Path

import crnn
from crnn.cli.common import Verbs, new_verb

__all__ = ["add_verb"]


def add_verb(verbs: Verbs) -> None:
    info = new_verb(verbs, "info", run, "what a model file holds")
    info.add_argument("model", type=Path)


def run(arguments: argparse.Namespace) -> int:
    model = crnn.load(arguments.model)
    size = arguments.model.stat().st_size
    print(f"{arguments.model}: {size:,} bytes\n{model}")
    for name, value in model.config().items():
        print(f"  {name:<16} {value}")
    if isinstance(model, crnn.LanguageModel):
        print(f"  {'vocabulary':<16} {model.vocab!r}")
    for name, array in model.params.items():
        print(f"  {name:<16} {array.dtype} {array.shape}")
    return 0
