# SPDX-License-Identifier: MIT
"""TextGenerator: draws a text from a language model, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

from crnn.checks import Array
from crnn.sampling import Sampler
from crnn.text.reading import EOS
from crnn.text.vocab import Vocab

__all__ = ["TextGenerator"]


class TextGenerator:
    """Draws one text: at most ``length`` tokens, by a `Sampler`, up to ``stop``.

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
        """Yield the text as it is drawn.

        Parameters
        ----------
        logits : array (V,)
            Of the first token.
        step : callable
            From a token to the logits of the next one, which may overwrite those before.
        vocab : Vocab
        after_word : bool
            The prompt ends in a word, so that the first word needs a space before it.
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
    """A function from an id to the text that it adds."""
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
    """The text up to ``stop``; an end that may be the beginning of ``stop`` is held back until that is decided."""
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
