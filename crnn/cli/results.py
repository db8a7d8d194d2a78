# SPDX-License-Identifier: MIT
"""Results for programs: ``--json``, JSON objects on standard output. docs/command-line.md lists their keys."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from crnn.cli.common import show

__all__ = ["add_json_flag", "evaluation_json", "show_json", "to_json"]


def add_json_flag(parser: argparse._ActionsContainer, what: str = "the result as a JSON object") -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"write {what}, with null for inf and nan")


def show_json(result: Mapping[str, Any]) -> None:
    """Print a result as one line, immediately."""
    show(to_json(result))


def to_json(result: Mapping[str, Any]) -> str:
    """A result on one line of ASCII. Numbers have all their digits; NaN and infinity, which JSON lacks, are null."""
    return json.dumps(_plain(result), allow_nan=False)


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # a number of NumPy, or an array
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)


def evaluation_json(evaluation: Any) -> dict[str, Any]:
    """The figures of an `Evaluation`, or of a `RegressionEvaluation`, by their names."""
    names = ("loss", "nats", "bits", "perplexity", "accuracy", "exact_match", "mse", "rmse", "mae", "count")
    found = {name: getattr(evaluation, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}
