# SPDX-License-Identifier: MIT
"""``crnn info``: show the contents of a model file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crnn
from crnn.cli.common import CommandParser, show
from crnn.cli.results import add_json_flag, show_json
from crnn.cli.typed import escaped
from crnn.training.checkpoint import describe

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn info``."""
    parser.add_argument("model", type=Path)
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print configuration, vocabulary and parameter shapes of a model file. Returns the exit status."""
    model = crnn.load(arguments.model)
    if arguments.json:
        show_json(_contents(arguments.model, model))
        return 0
    size = arguments.model.stat().st_size
    show(f"{arguments.model}: {size:,} bytes{describe(arguments.model)}\n{model}")
    facts = {name: str(value) for name, value in model.config().items()}
    if isinstance(model, crnn.LanguageModel):
        facts["vocabulary"] = repr(model.vocab)
        facts["encoding"] = str(model.vocab.encoding) if model.vocab.unit != "byte" else "none, bytes"
    _show(facts)
    _show({name: f"{array.dtype} {array.shape}" for name, array in model.params.items()})
    for number, record in enumerate(model.training_runs, 1):
        show(f"training run {number} of {len(model.training_runs)}")
        _show(_described(record))
    return 0


def _contents(path: Path, model: Any) -> dict[str, Any]:
    """What a model file holds."""
    contents: dict[str, Any] = {
        "model": path,
        "bytes": path.stat().st_size,
        "kind": type(model).__name__,
        "checkpoint": bool(describe(path)),
        "config": model.config(),
    }
    if hasattr(model, "vocab"):
        vocab = model.vocab
        tokens = [token if isinstance(token, str) else escaped(token) for token in vocab.tokens]
        contents["vocab"] = {"unit": vocab.unit, "size": len(vocab), "encoding": vocab.encoding, "tokens": tokens}
    shapes = {name: {"dtype": str(array.dtype), "shape": array.shape} for name, array in model.params.items()}
    return contents | {"size": model.flat_params.size, "params": shapes, "training_runs": model.training_runs}


def _show(facts: Mapping[str, str]) -> None:
    """Print names and values, one below the other."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        show(f"  {name:<{width}}  {text}")


def _described(record: Mapping[str, Any]) -> dict[str, str]:
    """The record of a training run as lines of text, by their names. A file may hold any values."""
    unit = record.get("unit", "")
    described = {}
    for name, value in record.items():
        if name == "scores" and isinstance(value, dict):
            units = {score: f" {unit}" if unit and score.endswith("loss") else "" for score in value}
            described[name] = ", ".join(f"{score} {number}{units[score]}" for score, number in value.items())
        elif isinstance(value, dict):
            described[name] = ", ".join(f"{option}={given}" for option, given in value.items() if given is not None)
        elif name != "unit" and value is not None:
            described[name] = f"{value:,}" if type(value) is int else str(value)
    return described
