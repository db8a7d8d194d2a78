# SPDX-License-Identifier: MIT
"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """Context manager for a binary file that replaces ``path`` when the block ends.

    The file is written under a temporary name in the same folder, flushed to the disk and renamed. After an exception
    the old file is unchanged and the temporary one is removed. Raises OSError if the file cannot be written.
    """
    path = os.path.abspath(path)
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(f"{path}: expected a folder that exists, got {os.path.dirname(path)}")
    unfinished = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
