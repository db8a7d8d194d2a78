# SPDX-License-Identifier: MIT
"""``crnn export-c``: write a model as a C file that needs no library."""

from __future__ import annotations

import argparse

import crnn
from crnn.c_export.files import check_name, paths_of
from crnn.cli.common import CommandParser, file_path, say
from crnn.cli.results import add_json_flag, show_json
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn export-c``."""
    parser.description = (
        "Writes a model as one C99 file that needs no library, and its header, for microcontrollers and "
        "other programs. A step is bit-identical to one in Python. Compiled with -DNAME_SELF_TEST, the file is a "
        "program that checks this."
    )
    parser.add_argument("model", type=file_path, help="a model of crnn (.safetensors)")
    parser.add_argument(
        "-o",
        "--output",
        type=file_path,
        required=True,
        help="where to write it, *.c; the header has the same name with .h",
    )
    parser.add_argument("--name", help="what all names in C begin with; the name of OUTPUT if not given")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT and its header if they exist")
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the files. Returns the exit status."""
    output, header = paths_of("output", arguments.output)
    name = arguments.name or check_name("output", output.stem, "--name")
    with RunFiles({"model": [arguments.model]}, {"--output": output, "the header of --output": header}):
        for path in (output, header):
            if path.exists() and not arguments.overwrite:
                raise FileExistsError(f"output: expected a new file, got {path}, which exists; --overwrite replaces it")
        crnn.export_c(crnn.load(arguments.model), output, name=name, overwrite=arguments.overwrite)
    sizes = {path: path.stat().st_size for path in (output, header)}
    say("wrote " + ", ".join(f"{path}, {size:,} bytes" for path, size in sizes.items()))
    if arguments.json:
        show_json({"output": output, "header": header, "bytes": sizes[output]})
    return 0
