# SPDX-License-Identifier: MIT
"""Text that a language model generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Unpack

from crnn._float_mode import public_methods_in_ieee_mode
from crnn._options import takes_options
from crnn.checks import Array
from crnn.stream.text_stream import TextStream
from crnn.text.generation import SamplingConfig, SamplingOptions, TextGenerator
from crnn.text.vocab import Vocab


class GeneratingModel:
    """The generation of text from a model with a vocabulary and text streams. A mixin for `LanguageModel`."""

    vocab: Vocab
    stream: Callable[[], TextStream]

    @takes_options(SamplingConfig)
    def generate(self, prompt: str | bytes = "", length: int = 200, **options: Unpack[SamplingOptions]) -> str:
        """A continuation of ``prompt`` as one string. Arguments and errors as in `iter_generate`."""
        return "".join(self.iter_generate(prompt, length, **options))

    @takes_options(SamplingConfig)
    def iter_generate(
        self, prompt: str | bytes = "", length: int | None = 200, **options: Unpack[SamplingOptions]
    ) -> Iterator[str]:
        """Yield a continuation of ``prompt`` in pieces, as tokens are drawn.

        Of a model of bytes the pieces are decoded as UTF-8, with U+FFFD for what is not; `iter_generate_bytes` yields
        the bytes themselves.

        Parameters
        ----------
        prompt : str, or bytes for unit "byte"
            Read first; not part of the result. If it has no token, `Vocab.start` is read: a newline, if there is one.
        length : int or None
            Largest number of tokens to draw; None: no limit.
        {options}

        Raises
        ------
        TypeError, ValueError, VocabError
            An argument is wrong.
        """
        generator = TextGenerator(self.vocab, length, **options)
        logits, step = self._after(prompt)
        return generator.generate(logits, step, after_word=bool(prompt) and not prompt[-1:].isspace())

    @takes_options(SamplingConfig)
    def iter_generate_bytes(
        self, prompt: str | bytes = "", length: int | None = 200, **options: Unpack[SamplingOptions]
    ) -> Iterator[bytes]:
        """As `iter_generate`, but yields bytes, also those that are not text. For models of bytes.

        Raises VocabError if the unit of the vocabulary is not "byte".
        """
        generator = TextGenerator(self.vocab, length, **options)
        return generator.generate_bytes(*self._after(prompt))

    def _after(self, prompt: str | bytes) -> tuple[Array, Callable[[int], Array]]:
        """The logits of the token after a prompt, and the step of the stream that has read it."""
        ids = self.vocab.encode(prompt, "prompt").tolist() or [self.vocab.id(self.vocab.start)]
        step = self.stream().step
        for token in ids:
            logits = step(token)
        return logits, step


public_methods_in_ieee_mode(GeneratingModel)
