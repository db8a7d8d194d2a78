# SPDX-License-Identifier: MIT
"""compress, decompress: bytes to an archive and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from crnn._core.coder import Decoder, Encoder
from crnn._float_mode import in_host_mode, in_ieee_mode
from crnn.checks import Array, check_count, check_threads
from crnn.compression.header import DIGEST_BYTES, ArchiveError, Header
from crnn.compression.predictor import VERSION, Predictor
from crnn.compression.starting import checked_model, digest_of, model_for
from crnn.models.language_model import LanguageModel

__all__ = ["BYTES_PER_BYTE", "compress", "decompress"]

Progress = Callable[[int, int], object]

# A symbol takes 4.4e-5 bits or more, because no probability is above 1 - 2^-15 (src_c/text/range_coder.h): so many
# bytes at most for each byte of the payload. What claims more is refused before memory is allocated.
BYTES_PER_BYTE = 1 << 18


@in_ieee_mode
def compress(
    data: Any, *, model: LanguageModel | None = None, threads: int = 1, progress: Progress | None = None
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
    threads : int
    progress : callable, optional
        Called now and then with the number of bytes done, and of all. What it raises ends the compression.

    Returns
    -------
    bytes
        The archive. It is never more than 40 bytes longer than the data.

    Raises
    ------
    TypeError
        ``data`` is not bytes-like, ``model`` is not a LanguageModel.
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
    model, threads = checked_model(model), check_threads(threads)
    digest = _digest(content)
    stored = Header("stored", 0, len(content), digest).to_bytes() + content
    if len(content) < 2:
        return stored
    values = np.frombuffer(content, np.uint8)
    alphabet = np.flatnonzero(np.bincount(values, minlength=256)).astype(np.uint8).tobytes()
    of_model = b"" if model is None or len(alphabet) == 1 else digest_of(model)
    header = Header("predicted", VERSION, len(content), digest, alphabet, of_model).to_bytes()
    if len(header) >= len(stored):
        return stored
    if len(alphabet) == 1:
        return header + _payload_of_run(len(content))
    return min(header + _encode(values, alphabet, model, threads, progress), stored, key=len)


@in_ieee_mode
def decompress(
    archive: Any,
    *,
    model: LanguageModel | None = None,
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
    model : LanguageModel, optional
        The one that the archive was made with. Not changed.
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
        model.
    TypeError, ValueError
        As `compress`.
    """
    packed = _copied("archive", archive)
    model, threads = checked_model(model), check_threads(threads)
    limit = None if max_size is None else check_count("max_size", max_size)
    header, start = Header.read(packed)
    if limit is not None and header.size > limit:
        raise ArchiveError(f"archive: expected at most {limit:,} bytes, got one of {header.size:,}")
    payload = packed[start:]
    del packed
    content = payload if header.method == "stored" else _decoded(header, payload, model, threads, progress)
    if len(content) != header.size or _digest(content) != header.digest:
        raise ArchiveError("archive: expected an undamaged one, got content with another digest")
    return content


def _decoded(
    header: Header, payload: bytes, model: LanguageModel | None, threads: int, progress: Progress | None
) -> bytes:
    """The content of an archive that is predicted. Raises ArchiveError."""
    if header.predictor != VERSION:
        raise ArchiveError(f"archive: expected version {VERSION} of the predictor, got {header.predictor}")
    _check_model(header.model, model)
    if header.size // BYTES_PER_BYTE > len(payload):
        raise ArchiveError(f"archive: expected a whole one, got {len(payload):,} bytes for {header.size:,}")
    if len(header.alphabet) == 1:
        if payload != _payload_of_run(header.size):
            raise ArchiveError("archive: expected zeros for a run of one byte, got others, or more")
        return header.alphabet * header.size
    start = model if header.model else None
    return _decode(payload, header.size, header.alphabet, start, threads, progress).tobytes()


def _check_model(expected: bytes, model: LanguageModel | None) -> None:
    """Raise ArchiveError unless the model is the one that the archive was made with."""
    if not expected:
        return  # a model that is not needed is no fault: content of a few bytes is stored
    found = None if model is None else digest_of(model)
    if found != expected:
        given = "none" if found is None else f"one with {found.hex()}"
        raise ArchiveError(
            f"archive: expected the model that it was made with, whose digest is {expected.hex()}, got {given}"
        )


def _payload_of_run(size: int) -> bytes:
    """What stands behind the header of a run of one byte: as much as the rule of BYTES_PER_BYTE asks for."""
    return bytes(size // BYTES_PER_BYTE)


# ---- symbols ---------------------------------------------------------------------------------------------------------


def _encode(
    values: Array, alphabet: bytes, model: LanguageModel | None, threads: int, progress: Progress | None
) -> bytes:
    """The payload for values (n,) of an alphabet of at least two."""
    predictor, encoder = _predictor(len(values), alphabet, model, threads), Encoder()
    places = np.zeros(256, np.uint8)
    places[list(alphabet)] = np.arange(len(alphabet))
    for start in range(0, len(values), predictor.window):
        of_window = values[start : start + predictor.window]
        predictor.encode(encoder, places[of_window].astype(np.int32))
        _tell(progress, start + len(of_window), len(values))
    return encoder.finish()


def _decode(
    payload: bytes,
    size: int,
    alphabet: bytes,
    model: LanguageModel | None,
    threads: int,
    progress: Progress | None,
) -> Array:
    """The inverse of `_encode`, of n = ``size`` values. Raises ArchiveError as soon as it sees that there is none."""
    predictor, decoder = _predictor(size, alphabet, model, threads), Decoder(payload)
    of_symbols = np.frombuffer(alphabet, np.uint8)
    values = np.empty(size, np.uint8)
    for start in range(0, size, predictor.window):
        of_window = values[start : start + predictor.window]
        symbols = np.zeros(len(of_window), np.int32)
        if not predictor.decode(decoder, symbols):
            raise ArchiveError("archive: expected a whole, undamaged one, got bytes that cannot be decoded")
        of_window[...] = of_symbols[symbols]
        _tell(progress, start + len(of_window), size)
    if not decoder.ended():
        raise ArchiveError("archive: expected its end behind the last byte, got more, or another end")
    return values


def _predictor(size: int, alphabet: bytes, model: LanguageModel | None, threads: int) -> Predictor:
    start = None if model is None else model_for(alphabet, model)
    return Predictor(size, alphabet, model=start, threads=threads)


def _tell(progress: Progress | None, done: int, size: int) -> None:
    """Call ``progress``."""
    if progress is not None:
        in_host_mode(progress, done, size)


def _copied(name: str, data: Any) -> bytes:
    """A copy of bytes. Raises TypeError for what is not bytes-like."""
    if isinstance(data, str):
        raise TypeError(f"{name}: expected bytes, got str; encode it first")
    try:
        return bytes(memoryview(data))
    except (TypeError, BufferError):
        raise TypeError(f"{name}: expected bytes, got {type(data).__name__}") from None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
