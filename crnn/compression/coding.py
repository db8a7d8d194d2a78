# SPDX-License-Identifier: MIT
"""Coding: the payload of an archive from values, and the values from the payload."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from crnn._core.coder import Decoder, Encoder
from crnn._float_mode import in_host_mode
from crnn.checks import Array
from crnn.compression.header import ArchiveError
from crnn.compression.predictor import Predictor
from crnn.compression.starting import Start, model_for

__all__ = ["Coding", "Progress"]

Progress = Callable[[int, int], object]  # bytes that are done, and all


class Coding:
    """Codes the values of one content, by `encode` or `decode`, after those of the text that comes before it.

    Parameters
    ----------
    size : int
        Values of the content.
    alphabet : bytes
        All values that occur in the content and before it, rising; at least two.
    start : Start
    threads : int
    progress : callable, optional
    """

    def __init__(self, size: int, alphabet: bytes, start: Start, threads: int, progress: Progress | None) -> None:
        model = None if start.model is None else model_for(alphabet, start.model)
        self._size, self._total, self._done = size, size + len(start.after), 0
        self._progress = progress
        self._values = np.frombuffer(alphabet, np.uint8)  # by symbol
        self._symbols = np.zeros(256, np.int32)  # by value
        self._symbols[self._values] = np.arange(len(alphabet))
        self._predictor = Predictor(self._total, alphabet, model=model, threads=threads)
        self._encode(np.frombuffer(start.after, np.uint8), Encoder())  # its bytes are discarded

    def encode(self, values: Array) -> bytes:
        """The payload for values (n,)."""
        encoder = Encoder()
        self._encode(values, encoder)
        return encoder.finish()

    def decode(self, payload: bytes) -> Array:
        """The values (n,) of a payload. Raises ArchiveError as soon as it cannot be a payload."""
        values, decoder = np.empty(self._size, np.uint8), Decoder(payload)
        for window in self._windows(values):
            symbols = np.zeros(len(window), np.int32)
            if not self._predictor.decode(decoder, symbols):
                raise ArchiveError("archive: expected a whole, undamaged one, got bytes that cannot be decoded")
            window[...] = self._values[symbols]
        if not decoder.ended():
            raise ArchiveError("archive: expected its end behind the last byte, got more, or another end")
        return values

    def _encode(self, values: Array, encoder: Encoder) -> None:
        for window in self._windows(values):
            if not self._predictor.encode(encoder, self._symbols[window]):
                raise RuntimeError("data: the network's stream could not be read")

    def _windows(self, values: Array) -> Iterator[Array]:
        """Views of the windows one after the other; ``progress`` is told after each of them."""
        for start in range(0, len(values), self._predictor.window):
            window = values[start : start + self._predictor.window]
            yield window
            self._done += len(window)
            if self._progress is not None:
                in_host_mode(self._progress, self._done, self._total)
