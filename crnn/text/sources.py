# SPDX-License-Identifier: MIT
"""The files that a text is read from: regular or compressed files, folders, pipes. Each can be read more than once."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, TypeAlias, cast

from crnn.io.atomic_write import PathLike
from crnn.text.errors import TextError

__all__ = ["Source", "TextFiles", "check_ends", "check_outside", "compression_of", "file_list", "open_sources"]

TextFiles: TypeAlias = PathLike | BinaryIO | Iterable[PathLike | BinaryIO]

# How a compressed file begins, and the module of the standard library that opens it.
_COMPRESSED = ((rb"\x1f\x8b\x08", "gzip"), (rb"BZh[1-9]1AY&SY", "bz2"), (rb"\xfd7zXZ\x00", "lzma"))
_LONGEST_MARK = 10


class Source:
    """The bytes of one file, decompressed.

    Attributes
    ----------
    name : str
        For messages.
    path : str or None
        Of a regular file; None for a copy of a pipe.
    """

    name: str
    path: str | None

    def __init__(self, name: str, path: str | None, copy: BinaryIO | None = None) -> None:
        self.name, self.path, self._copy = name, path, copy
        self._identity: tuple[int, ...] | None = None
        self.changed: bool = False  # whether a regular file is not the one that was read first

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the content, at most ``size`` bytes at a time. Raises OSError, and TextError for a damaged file."""
        if self._copy is not None:
            self._copy.seek(0)
            yield from _decompressed(self._copy, self.name, size)
            return
        assert self.path is not None
        with open(self.path, "rb") as file:
            self._compare(file)
            yield from _decompressed(file, self.name, size)
            self._compare(file)

    def _compare(self, file: BinaryIO) -> None:
        """Note whether the file is another one than before, or was written to."""
        about = os.fstat(file.fileno())
        identity = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        self.changed = self.changed or self._identity not in (None, identity)
        self._identity = identity


def file_list(files: TextFiles) -> list[str | BinaryIO]:
    """A path, a binary file, or several, as a list. Raises TypeError for something else, TextError for none."""
    if isinstance(files, str | bytes | os.PathLike):
        return [os.fsdecode(files)]
    if hasattr(files, "read"):
        return [cast(BinaryIO, files)]
    if not isinstance(files, Iterable):
        raise TypeError(f"path: expected a path, a binary file, or several, got {type(files).__name__}")
    several = [one for each in files for one in file_list(each)]
    if not several:
        raise TextError("path: expected at least one file, got none")
    return several


def open_sources(files: Iterable[str | BinaryIO], stack: ExitStack) -> list[Source]:
    """The sources of paths and binary files, in their order. ``stack`` closes temporary files.

    A folder stands for the regular files in it and in its subfolders, sorted by path, without hidden ones. What can be
    read only once, such as a pipe or an open file, is copied into a temporary file without a name. Raises OSError, and
    TextError for a folder without files.
    """
    return [source for each in files for source in _sources_of(each, stack)]


def _sources_of(path: str | BinaryIO, stack: ExitStack) -> list[Source]:
    if not isinstance(path, str):
        return [_copied(path, _name_of(path), stack)]
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        found = sorted(_files_in(path))
        if not found:
            raise TextError(f"{path}: expected a folder with at least one file that is not hidden, got none")
        return [Source(name, name) for name in found]
    if stat.S_ISREG(mode):
        return [Source(path, path)]
    with open(path, "rb") as pipe:
        return [_copied(pipe, path, stack)]


def _files_in(folder: str) -> Iterator[str]:
    """Paths of the regular files below a folder, without hidden ones. Links to folders are not followed."""
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(parent, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _raise(error: OSError) -> None:
    raise error


def _copied(file: Any, name: str, stack: ExitStack) -> Source:
    """A source that holds what is left to read of a binary file."""
    check_ends(file, name)
    # A temporary file without a name: it does not outlive this process, however that ends.
    copy: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    try:
        shutil.copyfileobj(file, copy, 1 << 20)
    except TypeError:
        raise TypeError(f"path: expected a file opened in binary mode, got {type(file).__name__}") from None
    except OSError as error:
        copying = f"{name}, copied into {tempfile.gettempdir()}"
        raise type(error)(error.errno, error.strerror, copying) from None
    return Source(name, None, copy)


def check_ends(file: Any, name: str) -> None:
    """Raise OSError for a device that need not end, as /dev/zero does not: one that is neither a terminal nor null.

    Raises ValueError for a closed file.
    """
    if getattr(file, "closed", False):
        raise ValueError(f"{name}: expected an open file, got a closed one")
    try:
        descriptor = file.fileno()
        about = os.fstat(descriptor)
    except (OSError, AttributeError, TypeError):  # no file of the system
        return
    if stat.S_ISCHR(about.st_mode) and not os.isatty(descriptor):
        with contextlib.suppress(OSError):
            if os.path.samestat(about, os.stat(os.devnull)):
                return
        raise OSError(f"{name}: expected a file or a pipe, which has an end, got a device")


def _name_of(file: Any) -> str:
    name = getattr(file, "name", None)
    return "standard input" if name == "<stdin>" else name if isinstance(name, str) else "file"


def _decompressed(file: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    """The content of a file, decompressed if it begins as a compressed file does."""
    mark = file.read(_LONGEST_MARK)
    file.seek(0)
    module = compression_of(mark)
    if module is None:
        while chunk := file.read(size):
            yield chunk
        return
    with importlib.import_module(module).open(file, "rb") as content:
        while True:
            try:
                chunk = content.read(size)
            except Exception as error:  # each module has its own
                raise TextError(f"{name}: damaged {module} file ({error})") from error
            if not chunk:
                return
            yield chunk


def compression_of(beginning: bytes) -> str | None:
    """The module that opens a compressed file which begins so; None for another file."""
    return next((module for pattern, module in _COMPRESSED if re.match(pattern, beginning)), None)


def check_outside(
    argument: str, path: PathLike, files: Iterable[str | BinaryIO], sources: Iterable[Source]
) -> None:
    """Raise ValueError if ``path``, which is going to be written, is one of the sources or in a folder of them."""
    target = os.path.realpath(os.fsdecode(path))
    if any(source.path is not None and os.path.realpath(source.path) == target for source in sources):
        raise ValueError(f"{argument}: expected another file than the text, got {os.fsdecode(path)}")
    for each in files:
        if isinstance(each, str) and os.path.isdir(each):
            folder = os.path.realpath(each)
            if os.path.commonpath([folder, target]) == folder:
                raise ValueError(f"{argument}: expected a file outside of the text's folder, got {os.fsdecode(path)}")
