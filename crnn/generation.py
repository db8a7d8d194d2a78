# SPDX-License-Identifier: MIT
"""Drawing text from a language model, piece by piece."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crnn.sampling import Sampler
from crnn.text import EOS, TextError, Vocab

if TYPE_CHECKING:
    from crnn.models import LanguageModel


def iter_generate(
    model: LanguageModel,
    prime: str,
    length: int | None,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stop: str | None,
    seed: int | None,
) -> Iterator[str]:
    """See `LanguageModel.iter_generate`. Arguments are checked here, before the first piece is asked for."""
    if length is not None and (not isinstance(length, int) or length < 0):
        raise ValueError(f"length: expected an integer of at least 0, or None, got {length!r}")
    if stop == "":
        raise ValueError("stop: expected a text of at least one character, or None, got ''")
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    vocab = model.vocab
    if not prime and ("\n" in vocab or EOS in vocab or vocab.unit == "byte"):
        prime = "\n"
    ids = vocab.encode(prime)
    if len(ids) == 0:
        raise TextError("prime: expected at least one token to start from, got an empty text")
    pieces = _pieces(model, ids.tolist(), length, sampler, _decoder(vocab, after_word=not prime[-1:].isspace()))
    return pieces if stop is None else _until(pieces, stop)


def _pieces(
    model: LanguageModel, ids: list[int], length: int | None, sampler: Sampler, decode: Callable[[int], str]
) -> Iterator[str]:
    from crnn.models import Stepper

    stepper = model.stream() if model.dtype == "float32" else Stepper(model)
    for token in ids:
        logits = stepper.step(token)
    drawn = 0
    while length is None or drawn < length:
        token = sampler(logits)
        drawn += 1
        piece = decode(token)
        if piece:
            yield piece
        logits = stepper.step(token)


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
