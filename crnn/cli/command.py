# SPDX-License-Identifier: MIT
"""main: parse the arguments of ``crnn``, run a subcommand, and report errors as one line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from crnn._version import __version__
from crnn.cli import demo, evaluate, info, sample, score, train, verify
from crnn.cli.common import INTERRUPTED, say
from crnn.cli.messages import described

__all__ = ["main"]

# Each has add_subcommand(); in the order of ``crnn --help``.
SUBCOMMANDS = (train, sample, evaluate, score, info, demo, verify)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``crnn``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process if not given.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, or 130 if interrupted by Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    arguments.argv = list(sys.argv[1:] if argv is None else argv)  # as typed
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except BrokenPipeError:  # the reader of standard output has exited, as in `crnn sample m | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        say(f"crnn {arguments.command}: {described(arguments.parser, error, arguments)}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("crnn", description="Recurrent networks for text, trained on the CPU.")
    parser.add_argument("--version", action="version", version=f"crnn {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        subcommand.add_subcommand(subparsers)
    return parser
