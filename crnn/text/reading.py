# SPDX-License-Identifier: MIT
"""Texts and files as a sequence of pieces: read, cut, counted, stored. For `crnn.text`.

A text is always worked through in pieces of `CHUNK` units, in memory as from a file, so that the temporary arrays stay
in the cache and a file may be larger than memory.
"""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from crnn.io.atomic_write import PathLike, replacing

Unit = Literal["char", "byte", "word"]
Ids = npt.NDArray[np.int32]

EOS = "<eos>"  # a newline, when the units are words

CODE_POINTS = 0x110000
CHUNK = 1 << 17  # characters, or bytes of a file: 128 Ki keeps the temporaries in L2 and encodes fastest


class TextError(ValueError):
    """A text that cannot be read, or is too short for what is asked of it."""


def slices(text: str | bytes) -> Iterator[str | bytes]:
    return (text[i : i + CHUNK] for i in range(0, len(text), CHUNK))


def whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text cut elsewhere: only after whitespace, never inside a word."""
    held: list[str] = []
    for piece in pieces:
        cut = len(piece)
        while cut and not piece[cut - 1].isspace():
            cut -= 1
        if cut:
            yield "".join(held) + piece[:cut]
            held.clear()
        held.append(piece[cut:])
    yield "".join(held)


def split_text(text: str | bytes, unit: Unit) -> Iterator[str | bytes]:
    """The pieces of a text in memory."""
    if unit == "byte" and isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes if unit == "byte" else str):
        expected = "str or bytes" if unit == "byte" else "str"
        raise TypeError(f"text: expected {expected} for unit {unit!r}, got {type(text).__name__}")
    pieces = slices(text)
    return whole_words(cast("Iterator[str]", pieces)) if unit == "word" else pieces


def read_pieces(path: PathLike, unit: Unit, encoding: str) -> Iterator[str | bytes]:
    """The pieces of a file."""
    if unit == "byte":
        return read_bytes(path)
    pieces = read_text(path, encoding)
    return whole_words(pieces) if unit == "word" else pieces


def read_bytes(path: PathLike) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def read_text(path: PathLike, encoding: str) -> Iterator[str]:
    try:
        "a".encode(encoding)
    except LookupError:  # unknown, or no text encoding, as hex is none
        raise ValueError(f"encoding: expected a text encoding that Python knows, got {encoding!r}") from None
    decoder = codecs.getincrementaldecoder(encoding)()
    consumed = characters = 0
    for chunk in chain(read_bytes(path), (b"",)):
        begin = consumed - len(decoder.getstate()[0])  # the decoder holds the first bytes of a cut character
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise TextError(
                f"{os.fspath(path)}: not {encoding} text at byte {begin + getattr(error, 'start', 0)} "
                f"({getattr(error, 'reason', error)}); name its encoding=, or read any file with unit='byte'"
            ) from error
        if "\0" in text:
            raise TextError(
                f"{os.fspath(path)}: NUL at character {characters + text.index(chr(0))}, so it is binary or "
                f"not {encoding}; name its encoding= (as 'utf-16'), or read any file with unit='byte'"
            )
        consumed += len(chunk)
        characters += len(text)
        yield text


def codes_of(text: str | bytes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Code points, or byte values."""
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def words_of(text: str) -> list[str]:
    return text.replace("\n", f" {EOS} ").split()


def count_tokens(pieces: Iterable[str | bytes], unit: Unit) -> tuple[dict[str, int], int]:
    """How often each token occurs (empty for bytes, whose vocabulary is fixed), and how many there are."""
    if unit == "byte":
        return {}, sum(map(len, pieces))
    if unit == "word":
        words: Counter[str] = Counter()
        for piece in pieces:
            words.update(words_of(cast(str, piece)))
        return words, words.total()
    counts = np.zeros(CODE_POINTS, np.int64)
    for piece in pieces:
        found = np.bincount(codes_of(piece))
        counts[: found.size] += found
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}, int(counts.sum())


def store_ids(parts: Iterable[Ids], total: int, dtype: np.dtype[Any], ids_path: PathLike | None) -> npt.NDArray[Any]:
    """The parts as one read-only array, in memory or in a memory-mapped file."""
    if ids_path is None:
        ids = np.empty(total, dtype)
        filled = 0
        for part in parts:
            ids[filled : filled + part.size] = part
            filled += part.size
        ids.flags.writeable = False
        return ids
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)}
    with replacing(ids_path) as file:  # not a writable map: there a full disk is a SIGBUS
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.astype(dtype).data)
    return cast("npt.NDArray[Any]", np.load(ids_path, mmap_mode="r"))


def exactly(total: int, parts: Iterable[Ids], source: str) -> Iterator[Ids]:
    """The parts, if they hold as many ids as were counted."""
    seen = 0
    for part in parts:
        seen += part.size
        if seen > total:
            break
        yield part
    if seen != total:
        raise TextError(f"{source}: changed while it was read; {total} tokens were counted at first")
