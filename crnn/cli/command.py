# SPDX-License-Identifier: MIT
"""main: parse the arguments of ``crnn``, run a subcommand, and report errors as one line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from crnn._options import did_you_mean
from crnn._version import __version__
from crnn.cli.common import INTERRUPTED, CommandParser, discard_unwritable, say
from crnn.cli.messages import described, unrecognized

__all__ = ["SUBCOMMANDS", "Subcommand", "all_parsers", "main"]


@dataclass(frozen=True)
class Subcommand:
    """A verb of ``crnn``.

    Attributes
    ----------
    name : str
        As it is typed.
    help : str
        Its line in ``crnn --help``.
    module : str
        In ``crnn.cli``, imported when the verb is used. It has ``add_arguments(parser)``, which completes a
        `CommandParser`, and ``run(arguments)``, which returns the exit status.
    """

    name: str
    help: str
    module: str

    def complete(self, parser: CommandParser, words: Sequence[str]) -> None:
        """Add the arguments of the subcommand to its parser. ``words``: what was typed after its name."""
        module = import_module(f"crnn.cli.{self.module}")
        parser.words = list(words)
        parser.set_defaults(run=module.run, parser=parser)  # main() calls ``run``, and words its errors as ``parser``
        module.add_arguments(parser)


# In the order of ``crnn --help``.
SUBCOMMANDS = (
    Subcommand("train", "train a model on text files or a table", "train"),
    Subcommand("sample", "generate text with a language model", "sample"),
    Subcommand("eval", "evaluate a model on text files or a table", "evaluate"),
    Subcommand("predict", "predict classes or values for the sequences of a table", "predict"),
    Subcommand("score", "bits per token of each line of standard input", "score"),
    Subcommand("info", "show the contents of a model file", "info"),
    Subcommand("quantize", "write a model with weights in fewer bits", "quantize"),
    Subcommand("export", "write a model as a file of another program", "export"),
    Subcommand("export-c", "write a model as a C file that needs no library", "export_c"),
    Subcommand("import", "read a model from a file of another program", "importing"),
    Subcommand("compress", "write an archive of a file, by a network that learns it", "compress"),
    Subcommand("decompress", "write the file in an archive of crnn compress", "decompress"),
    Subcommand("report", "write a page about runs, side by side", "report"),
    Subcommand("demo", "train on the prose of Python's documentation in under a minute", "demo"),
    Subcommand("verify", "check that results are bit-identical to those of every other machine", "verify"),
    Subcommand("completion", "write a script that completes commands in a shell", "completion"),
)


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
    words = list(sys.argv[1:] if argv is None else argv)
    arguments: argparse.Namespace | None = None
    try:
        try:
            parser = _parser(words)
            _check_command(parser, words)
            arguments, unknown = parser.parse_known_args(words)
            if unknown:
                parser.error(unrecognized(arguments.parser, unknown))
            arguments.argv = words  # as typed
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
        if arguments is None:  # before they were parsed
            prog = " ".join(["crnn", *[each.name for each in _named(words)]])
            arguments = argparse.Namespace(parser=argparse.ArgumentParser(prog))
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


def _first(words: Sequence[str]) -> str | None:
    """The first word of a command that is no option; None if there is none."""
    return next((word for word in words if not word.startswith("-")), None)


def _named(words: Sequence[str]) -> list[Subcommand]:
    """The subcommand that the words of a command name, in a list; an empty one if they name none."""
    first = _first(words)
    return [each for each in SUBCOMMANDS if each.name == first]


def _check_command(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End with an error if a command is typed that there is not, or nothing."""
    first = _first(words)
    names = [each.name for each in SUBCOMMANDS]
    if not words:
        parser.error(f"COMMAND: expected one of {', '.join(names)}; {parser.prog} --help says what they do")
    if first is not None and first not in names:
        hint = did_you_mean(first, names)
        parser.error(f"COMMAND: expected one of {', '.join(names)}, got {first!r:.100}{hint}")


def all_parsers() -> dict[str, CommandParser]:
    """The complete parser of every subcommand, by its name."""
    parsers = {each.name: CommandParser(f"crnn {each.name}") for each in SUBCOMMANDS}
    for each in SUBCOMMANDS:
        each.complete(parsers[each.name], ())
    return parsers


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``crnn``, in which only that of the subcommand that is used is complete: the others cost time."""
    parser = CommandParser("crnn", description="Recurrent networks, trained on the CPU.")
    parser.add_argument("--version", action="version", version=f"crnn {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    named = _named(words)
    for subcommand in SUBCOMMANDS:
        of_subcommand = subparsers.add_parser(subcommand.name, help=subcommand.help)
        if subcommand in named:
            subcommand.complete(of_subcommand, words[words.index(subcommand.name) + 1 :])
    return parser
