# SPDX-License-Identifier: MIT
"""Lines of a binary stream as they arrive, in any encoding."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

__all__ = ["LineReader"]

_CHUNK = 1 << 16

# Encodings that begin with a mark: what follows each mark, and what follows none.
_MARKED = {
    "utf-8-sig": ({codecs.BOM_UTF8: "utf-8"}, "utf-8"),
    "utf-16": ({codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}, f"utf-16-{sys.byteorder[0]}e"),
    "utf-32": ({codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"}, f"utf-32-{sys.byteorder[0]}e"),
}


class LineReader:
    """Iterates over lines: each as its bytes, with the newline that ends it, as soon as that has arrived.

    Only a newline ends a line: not a carriage return, a form feed or a Unicode line separator.

    Attributes
    ----------
    mark : bytes
        The byte order mark that the stream began with; not part of the first line.
    newline : bytes
        What ends a line.
    """

    mark: bytes
    newline: bytes

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file: Any = file
        with contextlib.suppress(OSError, AttributeError, ValueError):  # no file of the system
            if not os.get_blocking(file.fileno()):
                self._file = cast(Any, file).raw  # whose read() tells "nothing yet" from "the end"
        self._buffer = bytearray()
        self.mark, self._encoding = b"", codecs.lookup(encoding).name
        if self._encoding in _MARKED:
            self._read_mark(*_MARKED[self._encoding])
        self.newline = self.encode("\n")

    def _read_mark(self, marks: dict[bytes, str], encoding: str) -> None:
        """Skip a mark, which says the encoding of the lines."""
        self._encoding = encoding
        while len(self._buffer) < 4 and b"\n" not in self._buffer and (more := self._read()):
            self._buffer += more
        for mark, marked in marks.items():
            if self._buffer.startswith(mark):
                self.mark, self._encoding = mark, marked
                del self._buffer[: len(mark)]

    def _read(self) -> bytes:
        """The available bytes, as soon as there are any; none at the end of the stream."""
        read = getattr(self._file, "read1", self._file.read)
        while (content := read(_CHUNK)) is None:  # in non-blocking mode
            select.select([self._file], [], [])
        return bytes(content)

    def decode(self, line: bytes, errors: str = "strict") -> str:
        """The text of a line."""
        return line.decode(self._encoding, errors)

    def encode(self, text: str) -> bytes:
        """A text in the encoding of the lines, without a mark."""
        return text.encode(self._encoding, "backslashreplace")

    def __iter__(self) -> Iterator[bytes]:
        for group in self.groups(1):
            yield from group

    def groups(self, most: int) -> Iterator[list[bytes]]:
        """Lists of the lines that have arrived: one, up to ``most``. Waits only while there is none."""
        newline, buffer = self.newline, self._buffer
        width = len(newline)  # of every unit of UTF-16 and UTF-32
        lines: list[bytes] = []
        begin = searched = 0
        while True:
            at = buffer.find(newline, searched)
            while at % width and at >= 0:
                at = buffer.find(newline, at + 1)
            if at >= 0:
                lines.append(bytes(buffer[begin : at + width]))
                begin = searched = at + width
            if lines and (at < 0 or len(lines) == most):
                del buffer[:begin]  # of all lines at once: it takes longer than to find one
                begin = searched = 0
                yield lines
                lines = []
            if at < 0:
                searched = max(len(buffer) - width + 1, 0)
                more = self._read()
                if not more:
                    break
                buffer += more
        if buffer:
            yield [bytes(buffer)]
