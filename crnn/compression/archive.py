# SPDX-License-Identifier: MIT
"""compress, decompress: bytes to an archive and back."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from crnn._float_mode import in_ieee_mode
from crnn.checks import check_callable, check_count, check_threads
from crnn.compression.coding import Coding, Progress
from crnn.compression.header import DIGEST_BYTES, ArchiveError, Header
from crnn.compression.predictor import VERSION
from crnn.compression.starting import Start, checked_model
from crnn.models.language_model import LanguageModel

__all__ = ["BYTES_PER_BYTE", "compress", "decompress"]

# The most bytes of content for each byte of the payload. What claims more is refused before memory is allocated. No
# probability of a bit is above 1 - 2^-14 (src_c/text/range_coder.h), so payloads have about three times as many.
BYTES_PER_BYTE = 1 << 18


@in_ieee_mode
def compress(
    data: Any,
    *,
    model: LanguageModel | None = None,
    after: Any = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> bytes:
    """Compress bytes by a network that learns them as it goes.

    The archive has the same bytes on every machine, with any number of threads. It takes about as long to decompress:
    see docs/compression.md for what it is good for, and what not.

    Parameters
    ----------
    data : bytes-like
        Copied first.
    model : LanguageModel, optional
        Of bytes, trained on similar data, as the start; not changed. The archive holds its digest, and needs it.
    after : bytes-like, optional
        Text of the same kind, such as yesterday's log, that is read and learnt before the data, by the decompressor
        too. The archive holds its digest, and needs it.
    threads : int
    progress : callable, optional
        Called now and then with the number of bytes done, and of all, those of ``after`` included. What it raises ends
        the compression.

    Returns
    -------
    bytes
        The archive. It is never more than 40 bytes longer than the data.

    Raises
    ------
    TypeError
        ``data`` or ``after`` is not bytes-like or holds Python objects, ``model`` is not a LanguageModel, ``progress``
        cannot be called.
    ValueError
        The model is not one of bytes in float32, with all its outputs.

    Examples
    --------
    >>> import crnn
    >>> archive = crnn.compress(b"to be or not to be, " * 20)
    >>> len(archive) < 200
    True
    >>> crnn.decompress(archive)[:18]
    b'to be or not to be'
    """
    content = _copied("data", data)
    start, threads, progress = _start(model, after), check_threads(threads), _checked_progress(progress)
    digest = _digest(content)
    stored = Header("stored", 0, len(content), digest).to_bytes() + content
    alphabet = _alphabet(content)
    if len(alphabet) <= 1:
        run = Header("predicted", VERSION, len(content), digest, alphabet).to_bytes() if len(content) > 1 else stored
        return min(run + _payload_of_run(len(content)), stored, key=len)
    alphabet = _alphabet(content, start.after)
    header = Header("predicted", VERSION, len(content), digest, alphabet, *start.digests()).to_bytes()
    if len(header) >= len(stored):
        return stored
    coding = Coding(len(content), alphabet, start, threads, progress)
    return min(header + coding.encode(np.frombuffer(content, np.uint8)), stored, key=len)


@in_ieee_mode
def decompress(
    archive: Any,
    *,
    model: LanguageModel | None = None,
    after: Any = None,
    max_size: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> bytes:
    """Decompress an archive of `compress`.

    Takes the memory of twice the content, whose size the archive claims, and that of the network, which is at most 140
    MB without a model. A claim of more than 262,144 bytes for each byte of the archive is refused.

    Parameters
    ----------
    archive : bytes-like
        Copied first.
    model, after : optional
        Those that the archive was made with. Not changed.
    max_size : int, optional
        Refuse archives that claim to hold more bytes.
    threads, progress
        As in `compress`.

    Returns
    -------
    bytes
        The content, whose digest agrees with that in the archive.

    Raises
    ------
    ArchiveError
        The archive is damaged, incomplete or none, its content is larger than ``max_size``, or it was made with another
        model or after another text.
    TypeError, ValueError
        As `compress`.
    MemoryError
        The content does not fit into memory.
    """
    packed = _copied("archive", archive)
    given, threads, progress = _start(model, after), check_threads(threads), _checked_progress(progress)
    limit = None if max_size is None else check_count("max_size", max_size)
    header, place = Header.read(packed)
    if limit is not None and header.size > limit:
        raise ArchiveError(f"archive: expected at most {limit:,} bytes, got one of {header.size:,}")
    payload = packed[place:]
    del packed
    content = payload if header.method == "stored" else _decoded(header, payload, given, threads, progress)
    if len(content) != header.size or _digest(content) != header.digest:
        raise ArchiveError("archive: expected an undamaged one, got content with another digest")
    return content


def _decoded(header: Header, payload: bytes, given: Start, threads: int, progress: Progress | None) -> bytes:
    """The content of an archive that is predicted. Raises ArchiveError."""
    if header.predictor != VERSION:
        raise ArchiveError(f"archive: expected version {VERSION} of the predictor, got {header.predictor}")
    if header.size // BYTES_PER_BYTE > len(payload):
        raise ArchiveError(f"archive: expected a whole one, got {len(payload):,} bytes for {header.size:,}")
    # What is given and not needed is no fault: content of a few bytes is stored.
    start = Start(given.model if header.model else None, given.after if header.after else b"")
    of_model, of_text = start.digests()
    _check_same("model", header.model, of_model)
    _check_same("text before it", header.after, of_text)
    if len(header.alphabet) == 1:
        if payload != _payload_of_run(header.size):
            raise ArchiveError("archive: expected zeros for a run of one byte, got others, or more")
        try:
            return header.alphabet * header.size
        except MemoryError:
            raise _too_large(header) from None
    if not set(start.after) <= set(header.alphabet):
        raise ArchiveError("archive: expected an undamaged one, got an alphabet that lacks bytes of the text before it")
    coding = Coding(header.size, header.alphabet, start, threads, progress)
    try:
        return coding.decode(payload).tobytes()
    except MemoryError:
        raise _too_large(header) from None


def _too_large(header: Header) -> MemoryError:
    return MemoryError(f"archive: expected content that fits into memory, got one of {header.size:,} bytes")


def _check_same(what: str, expected: bytes, found: bytes) -> None:
    """Raise ArchiveError unless the digests of what the archive was made with, and of what is given, are the same."""
    if found != expected:
        given = f"one with {found.hex()}" if found else "none"
        raise ArchiveError(
            f"archive: expected the {what} that it was made with, whose digest is {expected.hex()}, got {given}"
        )


def _payload_of_run(size: int) -> bytes:
    """What stands behind the header of a run of one byte: as much as the rule of BYTES_PER_BYTE requires."""
    return bytes(size // BYTES_PER_BYTE)


def _alphabet(*contents: bytes) -> bytes:
    """All values that occur, rising."""
    counts = sum(np.bincount(np.frombuffer(content, np.uint8), minlength=256) for content in contents)
    return np.flatnonzero(counts).astype(np.uint8).tobytes()


def _start(model: Any, after: Any) -> Start:
    """What was given, checked."""
    return Start(checked_model(model), b"" if after is None else _copied("after", after))


def _copied(name: str, data: Any) -> bytes:
    """A copy of bytes. Raises TypeError for what is not bytes-like."""
    if isinstance(data, str):
        raise TypeError(f"{name}: expected bytes, got str; encode it first")
    try:
        view = memoryview(data)
        holds_objects = "O" in re.sub(":[^:]*:", "", view.format)  # without the names of fields
    except (TypeError, ValueError, BufferError):  # ValueError: of dates of NumPy, or released
        raise TypeError(f"{name}: expected bytes, got {type(data).__name__}") from None
    if holds_objects:  # whose bytes are addresses
        raise TypeError(f"{name}: expected bytes, got {type(data).__name__} of Python objects")
    return bytes(view)


def _checked_progress(progress: Progress | None) -> Progress | None:
    if progress is not None:
        check_callable("progress", progress)
    return progress


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
