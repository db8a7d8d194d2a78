# SPDX-License-Identifier: MIT
"""RunFiles: what one run reads and writes, checked, compared and locked before any work starts."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping

from crnn.io.atomic_write import PathLike, check_writable
from crnn.io.lock import FileLock

__all__ = ["RunFiles"]

STANDARD_INPUT = "-"  # as a file to read; the command line has another path for a file of that name


class RunFiles:
    """Context manager that holds the locks of all files that a run writes.

    On entry it checks that all files are different, by identity and not by spelling, also from those that the standard
    streams are redirected from or to; that the written ones are regular files, or new, in folders that exist; that they
    can be written, by trying; and that no other run writes them. Nothing has been read or changed if it raises.

    Parameters
    ----------
    reads : dict of str to paths
        Files, and folders of which all files are read, by the names of the arguments that errors call them.
    writes : dict of str to path or None
        None: not given.

    Raises
    ------
    ValueError
        Two paths are the same file, or a written file is in a folder that is read.
    BlockingIOError
        Another run writes one of the files.
    OSError
        A file cannot be written.
    """

    def __init__(self, reads: Mapping[str, Iterable[PathLike]], writes: Mapping[str, PathLike | None]) -> None:
        self.reads: list[tuple[str, str]] = [
            (name, os.fsdecode(path)) for name, paths in reads.items() for path in paths
        ]
        self.writes: dict[str, str] = {
            name: _named(os.fsdecode(path)) for name, path in writes.items() if path is not None
        }
        self._locks = contextlib.ExitStack()

    def __enter__(self) -> RunFiles:
        for name, path in self.writes.items():
            _check_regular(name, path)
        self._check_different()
        for name, path in self.writes.items():
            _try_to_write(name, path)
        try:
            for name, path in self.writes.items():
                self._lock(name, path)
        except BaseException:
            self._locks.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()

    def _lock(self, name: str, path: str) -> None:
        lock = FileLock(path)
        try:
            lock.acquire()
        except BlockingIOError:
            raise BlockingIOError(
                f"{name}: expected a file that no other run writes, got {path}, which another run is writing"
            ) from None
        self._locks.callback(lock.release)

    def _check_different(self) -> None:
        """Raise ValueError if a written file is the same as another file of this run."""
        written = list(self.writes.items())
        for number, (name, path) in enumerate(written):
            for other, other_path in [*self.reads, *written[:number]]:
                if _same_file(path, other_path):
                    raise ValueError(f"{other} and {name}: expected different files, got {path} for both")
                if os.path.isdir(other_path) and _is_in(path, other_path):
                    raise ValueError(f"{name}: expected a file outside of the folder {other_path}, got {path}")
            standard = _standard_of(path)
            if standard is not None:
                raise ValueError(f"{name}: expected another file than that of {standard}, got {path} for both")


def _named(path: str) -> str:
    """The path of a file to write, which is never standard input."""
    return os.path.abspath(path) if path == STANDARD_INPUT else path


def _check_regular(name: str, path: str) -> None:
    """Raise OSError unless the path is that of a regular file, or of a new one in a folder that exists."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        shown = os.path.dirname(path) or folder
        raise FileNotFoundError(f"{name}: expected a folder that exists, got {shown}")
    if os.path.isdir(target):
        raise IsADirectoryError(f"{name}: expected a file, got a folder: {path}")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise OSError(f"{name}: expected a regular file, got a special file: {path}")


def _try_to_write(name: str, path: str) -> None:
    """Raise OSError unless the file could be written now."""
    try:
        check_writable(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"{name}: expected a file that can be written, got {path}: {reason}") from None


def _same_file(one: str, other: str) -> bool:
    """Whether two paths lead to the same file, or would if they were created."""
    first, second = _status(one), _status(other)
    if first is not None or second is not None:
        return first is not None and second is not None and os.path.samestat(first, second)
    (folder, name), (other_folder, other_name) = (os.path.split(os.path.realpath(path)) for path in (one, other))
    if not (os.path.isdir(folder) and os.path.isdir(other_folder) and os.path.samefile(folder, other_folder)):
        return False
    return name == other_name or (_folded(name) == _folded(other_name) and _ignores_case(folder))


def _standard_of(path: str) -> str | None:
    """Which of the standard streams is redirected from or to this file, if any is."""
    for descriptor, name in enumerate(("standard input", "standard output", "standard error")):
        with contextlib.suppress(OSError, ValueError):  # closed; no such file
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return name
    return None


def _is_in(path: str, folder: str) -> bool:
    """Whether a path leads to somewhere below a folder."""
    top = os.path.realpath(folder)
    with contextlib.suppress(ValueError):  # on another drive
        return os.path.commonpath([top, os.path.realpath(path)]) == top
    return False


def _status(path: str) -> os.stat_result | None:
    try:
        return os.fstat(sys.stdin.fileno()) if path == STANDARD_INPUT else os.stat(path)
    except (OSError, ValueError, AttributeError):  # no such file; no standard input
        return None


def _folded(name: str) -> str:
    """The name as file systems compare names if they ignore case and normalisation."""
    return unicodedata.normalize("NFC", name).casefold()


def _ignores_case(folder: str) -> bool:
    """Whether names in this folder that differ in case are the same, found by trying. True if that is impossible."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".crnn-Case-") as file:
            return os.path.exists(os.path.join(folder, os.path.basename(file.name).swapcase()))
    except OSError:
        return True
