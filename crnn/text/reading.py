# SPDX-License-Identifier: MIT
"""Read texts and files as a sequence of chunks: decode, count tokens, store ids.

A text is processed in chunks of `CHUNK` characters, whether it is in memory or in a file, so that temporary arrays stay
in the cache and a file may be larger than memory. Words are never split: with unit "word", chunks end after whitespace.
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

from crnn.checks import Array, Ids
from crnn.io.atomic_write import PathLike, replacing

__all__ = [
    "CHUNK",
    "EOS",
    "TextError",
    "Unit",
    "check_total",
    "code_points",
    "count_tokens",
    "file_chunks",
    "split_words",
    "store_ids",
    "text_chunks",
]

Unit = Literal["char", "byte", "word"]

EOS = "<eos>"  # the token of a newline, for unit "word"

CODE_POINTS = 0x110000
CHUNK = 1 << 17  # characters, or bytes of a file: 128 Ki keeps the temporaries in L2 and encodes fastest


class TextError(ValueError):
    """A text that cannot be read, or is too short."""


# ---- chunks ----------------------------------------------------------------------------------------------------------


def text_chunks(text: str | bytes, unit: Unit) -> Iterator[str | bytes]:
    """The chunks of a text in memory: bytes for unit "byte", else str. Raises TypeError for another type of text."""
    if unit == "byte" and isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes if unit == "byte" else str):
        expected = "str or bytes" if unit == "byte" else "str"
        raise TypeError(f"text: expected {expected} for unit {unit!r}, got {type(text).__name__}")
    chunks = (text[i : i + CHUNK] for i in range(0, len(text), CHUNK))
    return _chunks_of_whole_words(cast("Iterator[str]", chunks)) if unit == "word" else chunks


def file_chunks(path: PathLike, unit: Unit, encoding: str) -> Iterator[str | bytes]:
    """The chunks of a file: bytes for unit "byte", else str.

    Raises TextError if the file is not text in this encoding, ValueError for an unknown encoding, OSError if the file
    cannot be read. The errors are raised while iterating.
    """
    if unit == "byte":
        return _byte_chunks(path)
    chunks = _decoded_chunks(path, encoding)
    return _chunks_of_whole_words(chunks) if unit == "word" else chunks


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


def _byte_chunks(path: PathLike) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _decoded_chunks(path: PathLike, encoding: str) -> Iterator[str]:
    try:
        "a".encode(encoding)
    except LookupError:  # unknown, or not a text encoding, such as hex
        raise ValueError(f"encoding: expected a text encoding that Python knows, got {encoding!r}") from None
    decoder = codecs.getincrementaldecoder(encoding)()
    bytes_read = characters_read = 0
    for chunk in chain(_byte_chunks(path), (b"",)):
        begin = bytes_read - len(decoder.getstate()[0])  # the decoder holds the first bytes of a split character
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise TextError(
                f"{os.fsdecode(path)}: not {encoding} text at byte {begin + getattr(error, 'start', 0)} "
                f"({getattr(error, 'reason', error)}); name its encoding=, or read any file with unit='byte'"
            ) from error
        if "\0" in text:
            raise TextError(
                f"{os.fsdecode(path)}: NUL at character {characters_read + text.index(chr(0))}, so it is binary or "
                f"not {encoding}; name its encoding= (as 'utf-16'), or read any file with unit='byte'"
            )
        bytes_read += len(chunk)
        characters_read += len(text)
        yield text


# ---- tokens ----------------------------------------------------------------------------------------------------------


def code_points(chunk: str | bytes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Code points (N,) of a str, uint32, or the values of bytes, uint8."""
    if isinstance(chunk, bytes):
        return np.frombuffer(chunk, np.uint8)
    return np.frombuffer(chunk.encode("utf-32-le", "surrogatepass"), "<u4")


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


def check_total(chunks: Iterable[Ids], total: int, source: str) -> Iterator[Ids]:
    """Yield the chunks. Raises TextError unless they have ``total`` ids, the number that was counted before."""
    count = 0
    for chunk in chunks:
        count += chunk.size
        if count > total:
            break
        yield chunk
    if count != total:
        raise TextError(f"{source}: changed while it was read; {total} tokens were counted at first")


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
