# SPDX-License-Identifier: MIT
"""Predictor: codes symbols with the probabilities of a network that learns all symbols before them.

A compressor and a decompressor compute the same, so both have the same probabilities. Everything that is chosen here is
a function of the content's size, its alphabet, and the model.
"""

from __future__ import annotations

import numpy as np

from crnn._core import loss
from crnn._core.coder import Decoder, Encoder
from crnn._core.gemm import aligned_empty
from crnn.checks import Array, Ids
from crnn.compression.network import SteppedModel
from crnn.models.language_model import LanguageModel
from crnn.optim import Adam
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX

__all__ = ["VERSION", "Predictor", "vocabulary_of"]

VERSION = 1  # in headers: changes with the probabilities


class Predictor:
    """Codes B streams of symbols side by side, in windows of T steps, each by `encode` or `decode`.

    ``active`` says how many of the streams, the first ones, have a symbol at the last step of a window; the others have
    0 in its place. At all steps before it, all have one.

    Parameters
    ----------
    size : int
        Symbols of all streams together, at least 1.
    alphabet : bytes
        The values of the symbols, rising; at least two.
    model : LanguageModel, optional
        A language model of these symbols, which is changed: its weights are the start.
    threads : int
    """

    streams: int  # B

    def __init__(
        self, size: int, alphabet: bytes, *, model: LanguageModel | None = None, threads: int = 1
    ) -> None:
        self.streams = max(1, min(16, size // 4096))
        rate = 1e-3
        if model is None:
            rate = 4e-3
            model = LanguageModel(vocabulary_of(alphabet), cell="lstm", hidden_size=128, seed=1)
        self._network = SteppedModel(model, self.streams, Adam(lr=rate), clip_norm=1.0, threads=threads)
        self._p = aligned_empty((self.streams, len(alphabet)), "float32")
        self._next = np.zeros(self.streams, np.int32)  # what the next step reads

    def window_steps(self, start: int, steps: int) -> int:
        """T of the window that begins at step ``start`` of ``steps``."""
        return min(32, steps - start)

    def encode(self, encoder: Encoder, symbols: Ids, active: int) -> None:
        """Write the symbols (T, B) of a window, and learn them."""
        inputs, logits = self._network.begin(len(symbols))
        inputs[0] = self._next
        inputs[1:] = symbols[:-1]
        self._network.run(0, len(symbols))
        for step, of_step in enumerate(symbols):
            rows = active if step == len(symbols) - 1 else self.streams
            encoder.encode(self._probabilities(logits[step]), of_step, rows)
        self._learn(symbols, active)

    def decode(self, decoder: Decoder, symbols: Ids, active: int) -> bool:
        """Read the symbols (T, B) of a window, and learn them.

        Returns False where the bytes are none that `encode` has written.
        """
        inputs, logits = self._network.begin(len(symbols))
        inputs[0] = self._next
        for step, of_step in enumerate(symbols):
            rows = active if step == len(symbols) - 1 else self.streams
            self._network.run(step, step + 1)
            if not decoder.decode(of_step, self._probabilities(logits[step]), rows):
                return False
            inputs[step + 1 : step + 2] = of_step
        self._learn(symbols, active)
        return True

    def _probabilities(self, logits: Array) -> Array:
        """The probabilities (B, V) of the symbols of a step; valid until the next call."""
        loss.softmax(self._p, logits)
        return self._p

    def _learn(self, symbols: Ids, active: int) -> None:
        """Learn from a window, whose symbols are all known."""
        targets = symbols.copy()
        targets[-1, active:] = IGNORE_INDEX
        self._network.learn(targets)
        self._next[...] = symbols[-1]


def vocabulary_of(alphabet: bytes) -> Vocab:
    """A vocabulary whose ids are the places in an alphabet of bytes."""
    return Vocab(tuple(alphabet.decode("latin-1")))
