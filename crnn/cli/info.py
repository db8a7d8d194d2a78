# SPDX-License-Identifier: MIT
"""``crnn info``: show the contents of a model file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crnn
from crnn.cli.common import CommandParser, file_path, show
from crnn.cli.results import add_json_flag, show_json
from crnn.cli.toml import to_toml
from crnn.cli.typed import escaped
from crnn.nn.precision import precision_of
from crnn.training.stored import describe

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn info``."""
    parser.add_argument("model", type=file_path, help="a model of crnn, or a checkpoint (.safetensors)")
    parser.add_argument(
        "--config",
        action="store_true",
        help="write the options of the run that trained the model, as crnn train --config reads them",
    )
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print configuration, vocabulary and parameter shapes of a model file. Returns the exit status."""
    model = crnn.load(arguments.model)
    if arguments.config:
        options = _options_of(arguments.model, model)
        if arguments.json:
            show_json(options)
        else:
            show(_as_toml(arguments.model, model, options))
        return 0
    if arguments.json:
        show_json(_contents(arguments.model, model))
        return 0
    size = arguments.model.stat().st_size
    show(f"{arguments.model}: {size:,} bytes{describe(arguments.model)}\n{model}")
    facts = {name: str(value) for name, value in model.config().items()}
    if getattr(model, "vocab", None) is not None:
        facts["vocabulary"] = repr(model.vocab)
        facts["encoding"] = str(model.vocab.encoding) if model.vocab.unit != "byte" else "none, bytes"
    _show(facts)
    _show({name: f"{dtype} {model.params[name].shape}" for name, dtype in _dtypes(model).items()})
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
    vocab = getattr(model, "vocab", None)
    if vocab is not None:
        tokens = [token if isinstance(token, str) else escaped(token) for token in vocab.tokens]
        contents["vocab"] = {"unit": vocab.unit, "size": len(vocab), "encoding": vocab.encoding, "tokens": tokens}
    shapes = {name: {"dtype": dtype, "shape": model.params[name].shape} for name, dtype in _dtypes(model).items()}
    return contents | {"size": model.num_parameters, "params": shapes, "training_runs": model.training_runs}


def _dtypes(model: Any) -> dict[str, str]:
    """How the file holds each parameter: "float32", "int8", ..."""
    precision = model.config()["precision"]
    return {name: precision_of(precision, name) or str(array.dtype) for name, array in model.params.items()}


def _options_of(path: Path, model: Any) -> Mapping[str, Any]:
    """The options of ``crnn train`` that trained a model. Raises ValueError if something else did."""
    runs = model.training_runs
    options = runs[-1].get("command") if runs else None
    if not isinstance(options, dict):
        was = "trained in Python" if runs else "that was not trained"
        raise ValueError(f"{path}: expected a model that crnn train has written, got one {was}")
    return options


def _as_toml(path: Path, model: Any, options: Mapping[str, Any]) -> str:
    """The options as a file for ``crnn train --config``, and what it leaves open as comments."""
    runs, record = model.training_runs, model.training_runs[-1]
    lines = [
        f"options of the run that trained {path.name}, by crnn {record.get('crnn')}; with the same data",
        "crnn train DATA -o OUTPUT --config THIS_FILE gives the same model again",
        f"SHA-256 of the training data: {record.get('data')}",
    ]
    if len(runs) > 1:
        lines.append(f"it was run {len(runs)}: earlier ones had trained the weights that it started from")
    lines += [f"{name}: a file was given, whose path is not saved" for name, value in options.items() if value is None]
    comments = [f"# {line}" for text in lines for line in text.splitlines()]
    return "\n".join([*comments, to_toml({name: value for name, value in options.items() if value is not None})])


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
        elif isinstance(value, dict) and name != "command":  # which says the same as the settings
            described[name] = ", ".join(f"{option}={given}" for option, given in value.items() if given is not None)
        elif name not in ("unit", "command") and value is not None:
            described[name] = f"{value:,}" if type(value) is int else str(value)
    return described
