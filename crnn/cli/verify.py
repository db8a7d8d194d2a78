# SPDX-License-Identifier: MIT
"""``crnn verify``: check that this build computes the same bits on this machine as on every other."""

from __future__ import annotations

import argparse

import crnn
from crnn.cli.common import Subparsers, new_subcommand, say, show

__all__ = ["add_subcommand"]


def add_subcommand(subparsers: Subparsers) -> None:
    """Add ``crnn verify`` to the parsers."""
    verify = new_subcommand(
        subparsers,
        "verify",
        run,
        "check that results are bit-identical to those of every other machine",
        "Trains a small model of every cell and every kind, uses it, and compares all results with the hashes in the "
        "package. Prints a line for each part and one hash for all, which is that of the README. Exit status 1 if a "
        "part differs.",
    )
    verify.add_argument("--isa", help="instruction set to verify, instead of the best one of this machine")
    verify.add_argument("--threads", type=int, default=2, help="threads; the result does not depend on it")


def run(arguments: argparse.Namespace) -> int:
    """Verify, and print a line per part and the hash. Returns the exit status: 1 if a part differs."""
    result = crnn.verify(isa=arguments.isa, threads=arguments.threads, on_part=print_part)
    show(result.hash)
    difference = result.first_difference
    if difference is None:
        say(f"crnn {crnn.__version__}, {result.isa}, threads {result.threads}: bit-identical to every other machine")
        return 0
    expected = difference.expected or "no hash: the part is new"
    say(f"crnn verify: {difference.name}: expected {expected}, got {difference.error or difference.hash}")
    return 1


def print_part(part: crnn.PartResult) -> None:
    """One line on standard output, at once."""
    show(f"{'ok' if part.ok else 'DIFFERS':<7}  {part.name:<30} {part.hash or part.error}")
