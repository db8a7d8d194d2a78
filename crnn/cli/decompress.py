# SPDX-License-Identifier: MIT
"""``crnn decompress``: the file in an archive of ``crnn compress``."""

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
    """Add the arguments of ``crnn decompress``."""
    parser.description = (
        "Writes the file from which crnn compress made an archive. Nothing is written unless all of it is right: the "
        "archive has a digest of the file."
    )
    parser.add_argument("file", type=file_or_standard, help="an archive; - reads standard input")
    add_archive_flags(parser, f"where to write the file; FILE without {ENDING} if not given, - is standard output")
    parser.add_argument("--max-size", type=int, metavar="BYTES", help="refuse archives of larger files")
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decompress an archive. Returns the exit status."""
    default = arguments.file.name.removesuffix(ENDING)
    with Files(arguments, default if default not in ("", arguments.file.name) else None) as files:
        start = read_start(arguments)
        archive = files.read()
        begin = time.perf_counter()
        options = {"max_size": arguments.max_size, "threads": arguments.threads}
        with ByteProgress(files.name, quiet=arguments.quiet) as progress:
            try:
                data = crnn.decompress(archive, progress=progress, **start, **options)
            except crnn.ArchiveError as error:
                raise crnn.ArchiveError(str(error).replace("archive", files.name, 1)) from None
        seconds = time.perf_counter() - begin
        files.write(data)
    if arguments.json:
        show_json({"output": files.output, "size": len(data), "compressed": len(archive), "seconds": seconds})
    elif not arguments.quiet:
        say(f"wrote {files.shown}: {len(data):,} bytes")
    return 0
