# SPDX-License-Identifier: MIT
"""``crnn verify``: check that results on this machine are bit-identical to those on every other."""

from __future__ import annotations

import argparse

import crnn
from crnn.cli.common import CommandParser, say, show
from crnn.cli.results import add_json_flag, show_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn verify``."""
    parser.description = (
        "Trains a small model of every cell and every kind, uses it, and compares all results with the hashes in the "
        "package. Prints a line for each part and one hash for all, which is that of the README. Exit status 1 if a "
        "part differs."
    )
    parser.add_argument("--isa", help="instruction set to verify, instead of the best one of this machine")
    parser.add_argument("--threads", type=int, default=2, help="threads; the result does not depend on it")
    add_json_flag(parser, "a JSON object for each part, and one for all")


def run(arguments: argparse.Namespace) -> int:
    """Verify, and print a line per part and the hash. Returns the exit status: 1 if a part differs."""
    on_part = print_part_as_json if arguments.json else print_part
    result = crnn.verify(isa=arguments.isa, threads=arguments.threads, on_part=on_part)
    difference = result.first_difference
    if arguments.json:
        facts = {"crnn": crnn.__version__, "isa": result.isa, "threads": result.threads, "ok": difference is None}
        show_json({"hash": result.hash} | facts)
    else:
        show(result.hash)
    if difference is None:
        say(f"crnn {crnn.__version__}, {result.isa}, threads {result.threads}: bit-identical to every other machine")
        return 0
    expected = difference.expected or "no hash: the part is new"
    say(f"crnn verify: {difference.name}: expected {expected}, got {difference.error or difference.hash}")
    return 1


def print_part(part: crnn.PartResult) -> None:
    """One line on standard output, immediately."""
    show(f"{'ok' if part.ok else 'DIFFERS':<7}  {part.name:<30} {part.hash or part.error}")


def print_part_as_json(part: crnn.PartResult) -> None:
    """The same as a JSON object."""
    show_json({"part": part.name, "ok": part.ok, "hash": part.hash, "expected": part.expected, "error": part.error})
