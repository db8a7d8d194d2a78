# SPDX-License-Identifier: MIT
"""TextGenerator: samples a text from a language model, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

from crnn.checks import Array
from crnn.sampling import Sampler
from crnn.text.reading import EOS
from crnn.text.vocab import Vocab

__all__ = ["TextGenerator"]


class TextGenerator:
    """Samples one text of at most ``length`` tokens, which ends before the first ``stop``.

    `LanguageModel.iter_generate` documents the arguments, which are checked here.
    """

    length: int | None
    stop: str | None
    sampler: Sampler

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

    def generate(self, logits: Array, step: Callable[[int], Array], vocab: Vocab, after_word: bool) -> Iterator[str]:
        """Yield the text in pieces, as its tokens are sampled.

        Parameters
        ----------
        logits : array (V,)
            Logits of the first token.
        step : callable
            Returns the logits (V,) of the token after the given one. May overwrite the previous logits.
        vocab : Vocab
        after_word : bool
            Whether the prompt ends in a word, so that the first word needs a space before it.
        """
        chunks = self._draw(logits, step, _decoder(vocab, after_word))
        return chunks if self.stop is None else _until_stop(chunks, self.stop)

    def _draw(self, logits: Array, step: Callable[[int], Array], decode: Callable[[int], str]) -> Iterator[str]:
        count = 0
        while self.length is None or count < self.length:
            token = self.sampler(logits)
            count += 1
            text = decode(token)
            if text:
                yield text
            if count != self.length:
                logits = step(token)


def _decoder(vocab: Vocab, after_word: bool) -> Callable[[int], str]:
    """A function that returns the text that the next id appends."""
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


def _until_stop(chunks: Iterator[str], stop: str) -> Iterator[str]:
    """The text before ``stop``. A suffix that may be the start of ``stop`` is withheld until the next chunks decide."""
    held = ""
    for chunk in chunks:
        held += chunk
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
