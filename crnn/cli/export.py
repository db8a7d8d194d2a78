# SPDX-License-Identifier: MIT
"""``crnn export``: write a model as a file of another program."""

from __future__ import annotations

import argparse
from pathlib import Path

import crnn
from crnn.cli.common import CommandParser, add_output_flags, check_output, file_path, say
from crnn.cli.formats import add_format_flags, called, format_of, options_of
from crnn.cli.results import add_json_flag, show_json
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn export``."""
    parser.description = (
        "Writes a model as a file of another program. What its format cannot express is refused by name; nothing is "
        "left out. Needs the library of the format: pip install 'crnn[onnx]' or 'crnn[keras]'."
    )
    parser.add_argument("model", type=file_path, help="a model of crnn (.safetensors)")
    add_output_flags(parser, "where to write it; the name determines the format", required=True)
    add_format_flags(parser, "save")
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file. Returns the exit status."""
    output: Path = arguments.output
    format, options = format_of("output", output, arguments.format, written=True), options_of(arguments)
    with RunFiles({"model": [arguments.model]}, {"output": output}):
        check_output(arguments)
        model = crnn.load(arguments.model)
        called(format.function("save"), model, output, options=options)
    say(f"wrote {output}, {format.name}, {output.stat().st_size:,} bytes")
    if arguments.json:
        show_json({"output": output, "format": format.name, "bytes": output.stat().st_size})
    return 0
