# SPDX-License-Identifier: MIT
"""``crnn report``: a page about one or more runs, from their logs or checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from crnn.cli.common import CommandParser, file_path, say
from crnn.cli.results import add_json_flag, show_json
from crnn.io.model_file import ModelFileError
from crnn.report import page
from crnn.training.entries import Entry
from crnn.training.log_file import read_runs
from crnn.training.run_files import RunFiles
from crnn.training.stored import stored_log

__all__ = ["add_arguments", "run"]

LOGS = (".jsonl", ".csv")


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn report``."""
    parser.description = (
        "Write one HTML page about one or more runs, side by side: curves of the losses, samples, gradients through "
        "time, settings. It needs no network. The logs may still be growing."
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=file_path, help="log of a training, .jsonl or .csv, or a checkpoint"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=file_path,
        required=True,
        help="where to write the page (.html); only a report is replaced",
    )
    parser.add_argument("--title", help="heading of the page; the names of the runs if not given")
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page. Returns the exit status."""
    with RunFiles({"runs": arguments.runs}, {"output": arguments.output}):
        page.check_replaceable("output", arguments.output)
        runs = [each for path in arguments.runs for each in _runs_of(path)]
        page.write(arguments.output, runs, title=arguments.title)
    say(f"wrote {arguments.output}")
    if arguments.json:
        show_json({"output": arguments.output, "runs": [name for name, _ in runs]})
    return 0


def _runs_of(path: Path) -> list[tuple[str, list[Entry]]]:
    """Names and entries of the runs in a file. Raises ValueError if it is neither a log nor a checkpoint."""
    is_log = path.suffix.lower() in LOGS
    name = path.stem if is_log else path.name
    runs: list[list[Entry]] = []
    try:
        runs = read_runs(path)
    except ValueError:
        if is_log:
            raise
    if not runs:
        runs = [[]] if is_log else [_log_of(path)]
    if len(runs) == 1:
        return [(name, runs[0])]
    return [(f"{name}, run {number}", entries) for number, entries in enumerate(runs, 1)]


def _log_of(path: Path) -> list[Entry]:
    """The log in a checkpoint. Raises ValueError if the file is none, or damaged."""
    found = "another file"
    try:
        entries = stored_log(path)
        found = "a model without its log"
    except ModelFileError:
        if _has_header(path):
            raise
        entries = None
    if entries is None:
        raise ValueError(f"{path}: expected the log of a training (.jsonl or .csv), or a checkpoint, got {found}")
    return entries


def _has_header(path: Path) -> bool:
    """Whether a file begins as a model file does: with the length of a header of JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"
