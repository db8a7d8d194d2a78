# SPDX-License-Identifier: MIT
"""main: parses the arguments of ``crnn``, runs a verb, turns errors into a line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from crnn._version import __version__
from crnn.cli import demo, evaluate, info, sample, score, train
from crnn.cli.common import INTERRUPTED

__all__ = ["main"]

VERBS = (train, sample, evaluate, score, info, demo)  # each has add_verb(), in the order of ``crnn --help``


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``crnn`` with these arguments and return the exit status."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except BrokenPipeError:  # the reader of our output has stopped, as in `crnn sample m | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        print(f"crnn {arguments.verb}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("crnn", description="Recurrent networks for text, trained on the CPU.")
    parser.add_argument("--version", action="version", version=f"crnn {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        verb.add_verb(verbs)
    return parser
