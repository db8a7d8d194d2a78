# SPDX-License-Identifier: MIT
"""What ``crnn compress`` and ``crnn decompress`` share: their files and options."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
from pathlib import Path
from typing import Any, Self

from crnn.cli.byte_progress import ReadProgress
from crnn.cli.common import (
    STANDARD,
    CommandParser,
    add_output_flags,
    check_output,
    cores,
    file_path,
    load_language_model,
    standard_input,
    standard_output,
)
from crnn.io.atomic_write import replacing
from crnn.text.sources import check_ends
from crnn.training.run_files import RunFiles

__all__ = ["ENDING", "Files", "add_archive_flags", "read_start"]

ENDING = ".crz"
CHUNK = 1 << 20


def add_archive_flags(parser: CommandParser, output: str) -> None:
    """Add the options of both commands."""
    add_output_flags(parser, output)
    parser.add_argument(
        "--model",
        type=file_path,
        help="a language model of bytes (.safetensors) to begin with; both commands need the same",
    )
    parser.add_argument(
        "--after",
        type=file_path,
        metavar="TEXT",
        help="a file of the same kind that is read first, such as yesterday's log; both commands need the same",
    )
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no messages")


def read_start(arguments: argparse.Namespace) -> dict[str, Any]:
    """The model of ``--model`` and the text of ``--after``, as arguments of `crnn.compress`."""
    return {
        "model": None if arguments.model is None else load_language_model(arguments.model),
        "after": None if arguments.after is None else _content("after", arguments.after, arguments.quiet),
    }


def _content(argument: str, path: Path, quiet: bool) -> bytearray:
    """What is in a file, or standard input. Raises OSError, and MemoryError for what is too large, or has no end."""
    name = "standard input" if path == STANDARD else str(path)
    with contextlib.ExitStack() as stack:
        file = standard_input() if path == STANDARD else stack.enter_context(path.open("rb"))
        check_ends(file, name)
        progress, content = ReadProgress(name, quiet=quiet), bytearray()
        try:
            while (chunk := file.read(CHUNK)) != b"":
                if chunk is None:  # nothing yet, in non-blocking mode
                    select.select([file], [], [])
                else:
                    content += chunk
                progress(len(content))
            return content
        except MemoryError:
            got = f"{len(content):,} and more: {name}"
            raise MemoryError(f"{argument}: expected bytes that fit into memory, got {got}") from None


class Files:
    """Context manager: the file that is read and the one that is written, checked and locked before any work.

    Parameters
    ----------
    arguments : Namespace
    default : str, optional
        Name of the output beside the input, if no output is given. None: one has to be given.

    Attributes
    ----------
    name : str
        Of the input, for messages.
    output : Path or None
        None: standard output.
    """

    name: str
    output: Path | None

    def __init__(self, arguments: argparse.Namespace, default: str | None) -> None:
        self._arguments, self._input = arguments, arguments.file
        standard = self._input == STANDARD
        if not standard and self._input.is_dir():
            raise IsADirectoryError(f"file: expected a file, got a folder: {self._input}")
        self.name = "standard input" if standard else str(self._input)
        output: Path | None = arguments.output
        if output is None and not standard:
            if default is None:
                raise ValueError(f"output: expected one, because {self._input} does not end in {ENDING}, got none")
            output = self._input.with_name(default)
        self.output = None if output is None or output == STANDARD else output
        self._locks = contextlib.ExitStack()

    @property
    def shown(self) -> str:
        """The output, for messages."""
        return "standard output" if self.output is None else str(self.output)

    def __enter__(self) -> Self:
        arguments = self._arguments
        reads = {
            "file": None if self._input == STANDARD else self._input,
            "model": arguments.model,
            "after": arguments.after,
        }
        if self.output is None:
            if arguments.json:
                raise ValueError("json: expected with a file as the output, got it with standard output")
            if standard_output().isatty():
                raise ValueError("output: expected a file or pipe, got a terminal, which does not show bytes")
        given = {name: [path] for name, path in reads.items() if path is not None}
        self._locks.enter_context(RunFiles(given, {"output": self.output}))
        try:
            check_output(argparse.Namespace(output=self.output, overwrite=arguments.overwrite))
        except BaseException:
            self._locks.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()

    def read(self) -> bytearray:
        """The content of the input. Raises OSError and MemoryError."""
        return _content("file", self._input, self._arguments.quiet)

    def write(self, content: bytes) -> None:
        """Write the output, whole or not at all. A new file can be read by those who can read the input."""
        if self.output is None:
            out = standard_output()
            out.write(content)
            out.flush()
            return
        like = None
        if self._input != STANDARD and self._input.is_file():
            like = os.stat(self._input)
        with replacing(self.output, like=like) as file:
            file.write(content)
