# SPDX-License-Identifier: MIT
"""Read texts and files as a sequence of chunks: decode, count tokens, store ids.

A text is processed in chunks of `CHUNK` characters, whether it is in memory or in a file, so that temporary arrays stay
in the cache and a file may be larger than memory. Words are never split: with unit "word", chunks end after whitespace.
"""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from crnn.checks import Array, Ids
from crnn.io.atomic_write import PathLike, replacing
from crnn.text.errors import Remedy, TextError
from crnn.text.sources import Source

__all__ = [
    "CHUNK",
    "EOS",
    "Chunks",
    "Document",
    "Unit",
    "check_encoding",
    "check_total",
    "code_points",
    "count_tokens",
    "file_document",
    "line_of_token",
    "split_words",
    "store_ids",
    "text_chunks",
    "text_document",
    "with_borders",
]

Unit = Literal["char", "byte", "word"]

EOS = "<eos>"  # the token of a newline, for unit "word"

CODE_POINTS = 0x110000
CHUNK = 1 << 17  # characters, or bytes of a file: 128 Ki keeps the temporaries in L2 and encodes fastest


Chunks = Iterable[str | bytes]


@dataclass(frozen=True)
class Document:
    """A text that can be read more than once.

    Attributes
    ----------
    name : str
        For messages.
    chunks : callable
        Returns an iterator over the chunks: bytes for unit "byte", else str.
    changed : callable
        Whether the last two readings were of different contents.
    """

    name: str
    chunks: Callable[[], Chunks]
    changed: Callable[[], bool] = lambda: False


# ---- chunks ----------------------------------------------------------------------------------------------------------


def text_chunks(text: object, unit: Unit, name: str = "text") -> Iterator[str | bytes]:
    """The chunks of a text in memory: bytes for unit "byte", else str. Raises TypeError for another type of text."""
    if unit == "byte" and isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes if unit == "byte" else str):
        expected = "str or bytes" if unit == "byte" else "str"
        raise TypeError(f"{name}: expected {expected} for unit {unit!r}, got {type(text).__name__}")
    chunks = (text[i : i + CHUNK] for i in range(0, len(text), CHUNK))
    return _chunks_of_whole_words(cast("Iterator[str]", chunks)) if unit == "word" else chunks


def text_document(name: str, text: object, unit: Unit) -> Document:
    """A text in memory. Raises TypeError for a text of another type."""
    text_chunks(text, unit, name)
    return Document(name, lambda: text_chunks(text, unit, name))


def file_document(source: Source, unit: Unit, encoding: str) -> Document:
    """A file. Reading it raises TextError if it is not text in this encoding, and OSError if it cannot be read."""

    def chunks() -> Chunks:
        if unit == "byte":
            return source.chunks(CHUNK)
        decoded = _decoded_chunks(source, encoding)
        return _chunks_of_whole_words(decoded) if unit == "word" else decoded

    return Document(source.name, chunks, lambda: source.changed)


def with_borders(documents: Iterable[Document], border: str | bytes) -> list[Document]:
    """Documents of which all but the last end with ``border``: it is appended to those that do not end so anyway.

    Empty documents stay empty.
    """
    documents = list(documents)
    if not border:
        return documents
    closed = [Document(each.name, _Closed(each.chunks, border), each.changed) for each in documents[:-1]]
    return closed + documents[-1:]


@dataclass(frozen=True)
class _Closed:
    """Chunks of a text, and a border if the text is not empty and does not end with it."""

    chunks: Callable[[], Chunks]
    border: str | bytes

    def __call__(self) -> Chunks:
        end = self.border[:0]
        for chunk in self.chunks():
            yield chunk
            end = (end + chunk)[-len(self.border) :]  # type: ignore[operator]  # both are str, or both bytes
        if end and end != self.border:
            yield self.border


def _chunks_of_whole_words(chunks: Iterable[str]) -> Iterator[str]:
    """The same text in other chunks that end after whitespace, so that no word is split."""
    held: list[str] = []
    for chunk in chunks:
        end = len(chunk)
        while end and not chunk[end - 1].isspace():
            end -= 1
        if end:
            yield "".join(held) + chunk[:end]
            held.clear()
        held.append(chunk[end:])
    yield "".join(held)


def check_encoding(encoding: object) -> str:
    """The name of a text encoding that Python knows. Raises ValueError for another value."""
    try:
        if not isinstance(encoding, str) or not re.fullmatch(r"[\w.:-]{1,40}", encoding):
            raise LookupError
        codecs.getincrementaldecoder(encoding)().decode("\n".encode(encoding), True)
    except (LookupError, UnicodeError):  # unknown, or not a text encoding, such as hex
        raise ValueError(f"encoding: expected a text encoding that Python knows, got {encoding!r}") from None
    return encoding


def _decoded_chunks(source: Source, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    bytes_read = characters_read = 0
    for number, chunk in enumerate(chain(source.chunks(CHUNK), (b"",))):
        begin = bytes_read - len(decoder.getstate()[0])  # the decoder holds the first bytes of a split character
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            at = getattr(error, "start", 0)
            before = getattr(error, "object", b"")[:at].decode(encoding, "ignore")
            line = 1 + before.count("\n") + _lines_before(source, encoding, number)
            raise TextError(
                f"{source.name}: not {encoding} text at byte {begin + at} "
                f"({getattr(error, 'reason', error)}, line {line})",
                *_remedies(before or number, getattr(error, "object", b"")),
            ) from error
        if "\0" in text:
            at = text.index("\0")
            line = 1 + text.count("\n", 0, at) + _lines_before(source, encoding, number)
            raise TextError(
                f"{source.name}: NUL at character {characters_read + at}, so it is binary or not {encoding} "
                f"(U+0000, line {line})",
                *_remedies(True, text[:64].encode("latin-1", "replace")),
            )
        bytes_read += len(chunk)
        characters_read += len(text)
        yield text


def _lines_before(source: Source, encoding: str, chunks: int) -> int:
    """Newlines in the first chunks of a file, which can be decoded. Counted only when an error needs the number."""
    decoder = codecs.getincrementaldecoder(encoding)()
    return sum(decoder.decode(chunk).count("\n") for chunk in islice(source.chunks(CHUNK), chunks))


def _remedies(inside: object, content: bytes) -> list[Remedy]:
    """What may help if ``content`` cannot be decoded. ``inside`` is false if it is the beginning of a file."""
    encoding = None
    if not inside and content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        encoding = "utf-16"
    elif len(content) >= 4 and 3 * content.count(0) >= len(content):  # Latin letters of two bytes, without a mark
        encoding = "utf-16-le" if content.index(0) % 2 else "utf-16-be"
    return [Remedy("name its encoding", "encoding", encoding), Remedy("read any file", "unit", "byte")]


def line_of_token(chunks: Chunks, unit: Unit, position: int) -> int:
    """The line, from 1, of the token at a position of a text. Lines end with a newline."""
    line = 1
    for chunk in chunks:
        tokens: Any = split_words(cast(str, chunk)) if unit == "word" else chunk
        newline: Any = {"char": "\n", "byte": b"\n", "word": EOS}[unit]
        if position < len(tokens):
            return line + int(tokens[:position].count(newline))
        line += tokens.count(newline)
        position -= len(tokens)
    return line


# ---- tokens ----------------------------------------------------------------------------------------------------------


def code_points(chunk: str | bytes) -> npt.NDArray[np.integer[Any]]:
    """Code points (N,) of a str, int32, or the values of bytes, uint8: indices on 32-bit machines too."""
    if isinstance(chunk, bytes):
        return np.frombuffer(chunk, np.uint8)
    return np.frombuffer(chunk.encode("utf-32-le", "surrogatepass"), "<i4")


def split_words(chunk: str) -> list[str]:
    """Words separated by whitespace; every newline is the word `EOS`."""
    return chunk.replace("\n", f" {EOS} ").split()


def count_tokens(chunks: Iterable[str | bytes], unit: Unit) -> tuple[dict[str, int], int]:
    """The count of each token (empty for bytes, whose vocabulary is fixed), and the total number of tokens."""
    if unit == "byte":
        return {}, sum(map(len, chunks))
    if unit == "word":
        words: Counter[str] = Counter()
        for chunk in chunks:
            words.update(split_words(cast(str, chunk)))
        return words, words.total()
    counts = np.zeros(CODE_POINTS, np.int64)
    for chunk in chunks:
        counts_of_chunk = np.bincount(code_points(chunk))
        counts[: counts_of_chunk.size] += counts_of_chunk
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}, int(counts.sum())


# ---- ids -------------------------------------------------------------------------------------------------------------


def check_total(chunks: Iterable[Ids], total: int, changed: Callable[[], str | None]) -> Iterator[Ids]:
    """Yield the chunks. Raises TextError unless they have ``total`` ids, the number that was counted before.

    ``changed()`` returns the name of a document that has changed, or None if there is none.
    """
    count = 0
    for chunk in chunks:
        count += chunk.size
        if count > total:
            break
        yield chunk
    name = changed()
    if count != total or name is not None:
        raise TextError(f"{name or 'text'}: changed while it was read; {total} tokens were counted at first")


def store_ids(chunks: Iterable[Ids], total: int, dtype: np.dtype[Any], ids_path: PathLike | None) -> Array:
    """Chunks of ids as one read-only array (total,), in memory or in a memory-mapped file."""
    if ids_path is None:
        ids = np.empty(total, dtype)
        filled = 0
        for chunk in chunks:
            ids[filled : filled + chunk.size] = chunk
            filled += chunk.size
        ids.flags.writeable = False
        return ids
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)}
    with replacing(ids_path) as file:  # not a writable memory map, for which a full disk is a SIGBUS
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(chunk.astype(dtype).data)
    return cast(Array, np.load(os.fsdecode(ids_path), mmap_mode="r"))
