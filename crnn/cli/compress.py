# SPDX-License-Identifier: MIT
"""``crnn compress``: a file as an archive, by a network that learns it."""

from __future__ import annotations

import argparse
import time

import crnn
from crnn.cli.archives import ENDING, Files, add_archive_flags, read_start
from crnn.cli.byte_progress import ByteProgress
from crnn.cli.common import CommandParser, file_or_standard, say
from crnn.cli.results import add_json_flag, show_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn compress``."""
    parser.description = (
        "Writes an archive of a file, from which crnn decompress makes the same bytes on every machine. A network "
        "learns the file while it predicts it; with --model it begins with what a model of similar files knows. It is "
        "small and slow: docs/compression.md compares it with others."
    )
    parser.add_argument("file", type=file_or_standard, help="any file; - reads standard input")
    add_archive_flags(parser, f"where to write the archive; FILE{ENDING} if not given, - is standard output")
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compress a file. Returns the exit status."""
    with Files(arguments, arguments.file.name + ENDING) as files:
        start = read_start(arguments)
        data = files.read()
        begin = time.perf_counter()
        with ByteProgress(files.name, quiet=arguments.quiet) as progress:
            archive = crnn.compress(data, threads=arguments.threads, progress=progress, **start)
        seconds = time.perf_counter() - begin
        files.write(archive)
    if arguments.json:
        facts = {"output": files.output, "size": len(data), "compressed": len(archive), "seconds": seconds}
        show_json(facts | {"bits_per_byte": 8 * len(archive) / len(data) if data else None})
    elif not arguments.quiet:
        share = f" ({100 * len(archive) / len(data):.1f} %)" if data else ""
        say(f"wrote {files.shown}: {len(archive):,} bytes for {len(data):,}{share}")
    return 0
