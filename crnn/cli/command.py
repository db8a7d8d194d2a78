# SPDX-License-Identifier: MIT
"""main: parse the arguments of ``crnn``, run a subcommand, and report errors as one line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from crnn._version import __version__
from crnn.cli import demo, evaluate, info, report, sample, score, train, verify
from crnn.cli.common import INTERRUPTED, discard_unwritable, say
from crnn.cli.messages import described, unrecognized

__all__ = ["main"]

# Each has add_subcommand(); in the order of ``crnn --help``.
SUBCOMMANDS = (train, sample, evaluate, score, info, report, demo, verify)


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
    _open_standard_descriptors()
    arguments: argparse.Namespace | None = None
    try:
        try:
            arguments, unknown = _parser().parse_known_args(argv)
            if unknown:
                _parser().error(unrecognized(arguments.parser, unknown))
            arguments.argv = list(sys.argv[1:] if argv is None else argv)  # as typed
            run: Callable[[argparse.Namespace], int] = arguments.run
            return run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where an error can still be reported
            discard_unwritable(sys.stderr)
    except BrokenPipeError:  # the reader of standard output has exited, as in `crnn sample m | head`
        discard_unwritable(sys.stdout)
        return 0
    except KeyboardInterrupt as interrupt:
        return getattr(interrupt, "status", INTERRUPTED)  # of a signal that training has saved its work from
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        if isinstance(error, OSError) and error.filename is None and discard_unwritable(sys.stdout):
            error = OSError(error.errno, error.strerror, "standard output")
        if arguments is None:
            arguments = argparse.Namespace(parser=_parser())
        say(f"{arguments.parser.prog}: {described(arguments.parser, error, arguments)}")
        return 1


def _open_standard_descriptors() -> None:
    """Open those of the three standard descriptors that are closed, so that no file that is written gets one."""
    if os.name == "posix":
        for descriptor in range(3):
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest that is free


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("crnn", description="Recurrent networks for text, trained on the CPU.")
    parser.add_argument("--version", action="version", version=f"crnn {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        subcommand.add_subcommand(subparsers)
    return parser
