# SPDX-License-Identifier: MIT
"""Drawing text from a language model, piece by piece."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.sampling import Sampler
from crnn.text.reading import EOS
from crnn.text.vocab import Vocab

Array = NDArray[np.floating[Any]]


class Draw:
    """How text is to be drawn: `length` tokens at most, by a `Sampler`, up to ``stop``. Serves for one text.

    See `LanguageModel.iter_generate` for the arguments, which are checked here.
    """

    def __init__(
        self,
        length: int | None,
        *,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        stop: str | None,
        seed: int | None,
    ) -> None:
        if length is not None and (not isinstance(length, int) or length < 0):
            raise ValueError(f"length: expected an integer of at least 0, or None, got {length!r}")
        if stop == "":
            raise ValueError("stop: expected a text of at least one character, or None, got ''")
        self.length, self.stop = length, stop
        self.sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)

    def pieces(self, logits: Array, step: Callable[[int], Array], vocab: Vocab, after_word: bool) -> Iterator[str]:
        """The text that goes on from ``logits`` (V,); ``step`` gives those after one more token, perhaps in place.

        ``after_word``: what came before ends in a word, so that the next one needs a space.
        """
        pieces = self._drawn(logits, step, _decoder(vocab, after_word))
        return pieces if self.stop is None else _until(pieces, self.stop)

    def _drawn(self, logits: Array, step: Callable[[int], Array], decode: Callable[[int], str]) -> Iterator[str]:
        drawn = 0
        while self.length is None or drawn < self.length:
            token = self.sampler(logits)
            drawn += 1
            piece = decode(token)
            if piece:
                yield piece
            if drawn != self.length:
                logits = step(token)


def _decoder(vocab: Vocab, after_word: bool) -> Callable[[int], str]:
    """From one id to the text it adds."""
    if vocab.unit == "byte":
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a character may take several bytes
        return lambda token: utf8.decode(vocab.decode_bytes([token]))
    if vocab.unit == "char":
        return lambda token: str(vocab.token(token))

    space_before = after_word

    def word(token: int) -> str:
        nonlocal space_before
        text = str(vocab.token(token))
        if text == EOS:
            space_before = False
            return "\n"
        text, space_before = " " * space_before + text, True
        return text

    return word


def _until(pieces: Iterator[str], stop: str) -> Iterator[str]:
    """The pieces up to ``stop``, holding back an end that may be its beginning."""
    held = ""
    for piece in pieces:
        held += piece
        found = held.find(stop)
        if found >= 0:
            if found:
                yield held[:found]
            return
        keep = next(n for n in range(min(len(stop) - 1, len(held)), -1, -1) if stop.startswith(held[len(held) - n :]))
        if keep < len(held):
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
