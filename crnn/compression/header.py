# SPDX-License-Identifier: MIT
"""The header of an archive: what it holds, how it was made, and digests. docs/compression.md lists its bytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

__all__ = ["DIGEST_BYTES", "MAGIC", "METHODS", "START_BYTES", "ArchiveError", "Header"]

MAGIC = b"\x8ecrz"  # no text begins like this
VERSION = 1  # of the format
METHODS = ("stored", "predicted")  # by their numbers
WITH_MODEL, WITH_TEXT = 0x10, 0x20  # added to the number of the method
DIGEST_BYTES, START_BYTES = 8, 16  # of the content; of what it starts from
MAP_FROM = 32  # symbols in an alphabet from which it is written as a map of 256 bits
SIZE_LIMIT = 1 << 56


class ArchiveError(ValueError):
    """An archive that crnn cannot decompress: damaged, incomplete, no archive, or made with another model."""


@dataclass(frozen=True)
class Header:
    """What stands before the payload of an archive.

    Attributes
    ----------
    method : str
        One of METHODS: "stored", the payload is the content; or "predicted", it is the range coder's bytes.
    predictor : int
        From 0 to 255: version of what predicts; 0 if nothing does.
    size : int
        Bytes of the content.
    digest : bytes
        BLAKE2b of the content, DIGEST_BYTES long.
    alphabet : bytes
        The values that occur in the content and in the text before it, rising; empty if it is stored.
    model, after : bytes
        Digests of the model and of the text that were the start, START_BYTES long; empty if there was none.
    """

    method: str
    predictor: int
    size: int
    digest: bytes
    alphabet: bytes = b""
    model: bytes = b""
    after: bytes = b""

    def to_bytes(self) -> bytes:
        """The header as `Header.read` reads it."""
        kind = METHODS.index(self.method) | WITH_MODEL * bool(self.model) | WITH_TEXT * bool(self.after)
        parts = [MAGIC, bytes([VERSION, kind, self.predictor]), _number(self.size)]
        if self.method == "predicted":
            parts.append(_packed(self.alphabet))
        content = b"".join([*parts, self.model, self.after, self.digest])
        return content + _checksum(content)

    @classmethod
    def read(cls, archive: bytes) -> tuple[Header, int]:
        """The header of an archive, and the place where its payload begins. Raises ArchiveError."""
        if not archive.startswith(MAGIC):
            raise ArchiveError(f"archive: expected one of crnn compress, got bytes that begin with {archive[:4]!r}")
        reader = _Reader(archive, len(MAGIC))
        version, kind, predictor = reader.take(3)
        if version != VERSION:
            raise ArchiveError(f"archive: expected version {VERSION} of the format, got {version}")
        size = reader.number()
        number = kind & ~(WITH_MODEL | WITH_TEXT)
        if number >= len(METHODS) or (kind and not (size and number)) or (predictor > 0) != (number > 0):
            raise _damaged(f"method {kind} and predictor {predictor} for {size:,} bytes")
        alphabet = reader.alphabet() if METHODS[number] == "predicted" else b""
        if len(alphabet) > size and not kind & WITH_TEXT:
            raise _damaged(f"{len(alphabet)} different bytes among {size:,}")
        model = reader.take(START_BYTES) if kind & WITH_MODEL else b""
        after = reader.take(START_BYTES) if kind & WITH_TEXT else b""
        digest = reader.take(DIGEST_BYTES)
        stated = _checksum(archive[: reader.place])
        if reader.take(len(stated)) != stated:
            raise _damaged("a header with another check sum")
        return cls(METHODS[number], predictor, size, digest, alphabet, model, after), reader.place


class _Reader:
    """Reads the fields of a header one after the other. Raises ArchiveError where it ends."""

    def __init__(self, archive: bytes, place: int) -> None:
        self.archive, self.place = archive, place

    def take(self, count: int) -> bytes:
        """The next bytes."""
        part = self.archive[self.place : self.place + count]
        if len(part) < count:
            raise ArchiveError(f"archive: expected a whole header, got its first {len(self.archive)} bytes")
        self.place += count
        return part

    def number(self) -> int:
        """A number in 7 bits per byte, the lowest first, in as few bytes as possible."""
        value, shift = 0, 0
        while shift < 56:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                if not byte and shift > 7:
                    break
                return value
        raise _damaged("a size that is none")

    def alphabet(self) -> bytes:
        """The values that occur."""
        count = self.take(1)[0] + 1
        if count == 256:
            return bytes(range(256))
        if count < MAP_FROM:
            values = self.take(count)
        else:
            bits = int.from_bytes(self.take(32), "little")
            values = bytes(value for value in range(256) if bits >> value & 1)
        if len(values) != count or list(values) != sorted(set(values)):
            raise _damaged("an alphabet that is none")
        return values


def _damaged(what: str) -> ArchiveError:
    return ArchiveError(f"archive: expected an undamaged one, got {what}")


def _number(value: int) -> bytes:
    """A number as `_Reader.number` reads it. Raises ValueError from 2**56 on."""
    if value >= SIZE_LIMIT:
        raise ValueError(f"data: expected less than {SIZE_LIMIT:,} bytes, got {value:,}")
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def _packed(alphabet: bytes) -> bytes:
    """An alphabet as `_Reader.alphabet` reads it."""
    count = bytes([len(alphabet) - 1])
    if len(alphabet) == 256:
        return count
    if len(alphabet) < MAP_FROM:
        return count + alphabet
    return count + sum(1 << value for value in alphabet).to_bytes(32, "little")


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")
