# SPDX-License-Identifier: MIT
"""``crnn quantize``: write a model with weights in fewer bits, and say what that gains and costs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import crnn
from crnn.cli.common import CommandParser, add_output_flags, check_output, file_path, say, show
from crnn.cli.configuration import Repeated
from crnn.cli.evaluate import OPTIONS, add_evaluation_flags, evaluated
from crnn.cli.results import add_json_flag, show_json
from crnn.nn.precision import PRECISIONS
from crnn.nn.quantize import matrices_of
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run"]

SECONDS = 0.2  # for which steps are timed


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn quantize``."""
    parser.description = (
        "Writes a model whose weights are int8, int4 or bfloat16: smaller, and faster one step at a time. Shows sizes "
        "and times before and after, and with --eval how well both predict."
    )
    parser.add_argument("model", type=file_path, help="a model of crnn (.safetensors), in float32")
    add_output_flags(parser, "where to write it", required=True)
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="of the weights and products")
    parser.add_argument(
        "--keep",
        action=Repeated,
        default=[],
        metavar="NAME",
        help="leave this weight matrix as it is, by its name in crnn info, such as W_hy; may be repeated",
    )
    parser.add_argument(
        "--eval",
        dest="text",
        type=file_path,
        nargs="+",
        metavar="FILE",
        default=[],
        help="evaluate both models on these texts, or on this table",
    )
    add_json_flag(parser)
    add_evaluation_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the quantised model. Returns the exit status."""
    output: Path = arguments.output
    if not arguments.text:
        for name in sorted({name for names in OPTIONS.values() for name in names}):
            if getattr(arguments, name) != arguments.parser.get_default(name):
                raise ValueError(f"{name}: expected with --eval only, got {getattr(arguments, name)!r} without it")
    with RunFiles({"model": [arguments.model], "text": arguments.text}, {"output": output}):
        check_output(arguments)
        model = crnn.load(arguments.model)
        small = model.quantize(_precision(model, arguments))
        models = {"before": model, "after": small}
        found: dict[str, dict[str, Any]] = {name: {"bytes": len(each.to_bytes())} for name, each in models.items()}
        for name, each in models.items():
            found[name] |= _step(each)
        lines = {}
        if arguments.text:
            for name, each in models.items():
                note = say if each is model else ignored  # the data are the same
                lines[name], found[name]["evaluation"] = evaluated(each, arguments, note=note)
        small.save(output)
    if arguments.json:
        show_json({"output": output, "precision": small.config()["precision"]} | found)
        return 0
    for name, facts in found.items():
        microseconds = facts.get("step_us")
        speed = "" if microseconds is None else f"  {microseconds:.2f} us a step"
        show(f"{name:<6}  {facts['bytes']:,} bytes{speed}" + (f"  {lines[name]}" if lines else ""))
    say(f"wrote {output}")
    return 0


def ignored(text: str) -> None:
    """Say nothing."""


def _precision(model: Any, arguments: argparse.Namespace) -> str | dict[str, str]:
    """The precision of each matrix. Raises ValueError for a name that is not one."""
    names = matrices_of(model)
    unknown = sorted(set(arguments.keep) - set(names))
    if unknown:
        raise ValueError(f"keep: expected one of {', '.join(names)}, got {unknown[0]}")
    if not arguments.keep:
        return str(arguments.precision)
    rest = {name: arguments.precision for name in names if name not in arguments.keep}
    if not rest:
        raise ValueError("keep: expected that a weight matrix is left to quantise, got all of them")
    return rest


def _step(model: Any) -> dict[str, float]:
    """How long a step takes in Python, in microseconds; empty for a model that needs whole sequences."""
    try:
        stream = crnn.Stream(model.stream().weights)
    except ValueError:
        return {}
    ids = isinstance(model, crnn.LanguageModel) or getattr(model, "net", model).embedding_size is not None
    x: Any = 0 if ids else np.zeros(stream.input_size, stream.weights.io_dtype)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(100):
            stream.step(x)
        best = min(best, (time.perf_counter() - begin) / 100)
    return {"step_us": best * 1e6}
