# SPDX-License-Identifier: MIT
"""TextGenerator: samples a text from a language model, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import AnyStr, TypedDict, Unpack, cast

from crnn._options import build_config, option
from crnn.checks import Array
from crnn.sampling import Sampler
from crnn.text.errors import VocabError
from crnn.text.reading import EOS
from crnn.text.vocab import Vocab

__all__ = ["SamplingConfig", "SamplingOptions", "TextGenerator"]


class SamplingOptions(TypedDict, total=False):
    """The options of sampling a text, for type checkers; see `SamplingConfig` for their meaning."""

    temperature: float
    top_k: int | None
    top_p: float | None
    stop: str | bytes | None
    seed: int | None
    ban: Iterable[str | bytes]
    allow_unknown: bool


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a text is sampled. `TextGenerator` and its `Sampler` check the values."""

    temperature: float = option(
        1.0, help="Values below 1 sharpen the distribution, values above 1 flatten it; 0: the most probable token."
    )
    top_k: int | None = option(None, help="Draw one of so many of the most probable tokens.")
    top_p: float | None = option(
        None, help="Draw one of the fewest most probable tokens that have this probability together, in (0, 1]."
    )
    stop: str | bytes | None = option(
        None,
        help='Generation ends before the first occurrence of this text, bytes for unit "byte" too. Text that may be '
        "the beginning of it is yielded only when it is known not to be.",
    )
    seed: int | None = option(
        None,
        help="The same seed gives the same text on every machine. If not given, the operating system provides one.",
    )
    ban: Iterable[str | bytes] = option((), help="Tokens that are never drawn.")
    allow_unknown: bool = option(
        False, help="Whether ``<unk>``, which stands for words that the model does not know, may be drawn."
    )


class TextGenerator:
    """Samples one text of at most ``length`` tokens. Raises TypeError, ValueError or VocabError for wrong arguments."""

    vocab: Vocab
    length: int | None
    stop: str | bytes | None
    sampler: Sampler

    def __init__(self, vocab: Vocab, length: int | None, **options: Unpack[SamplingOptions]) -> None:
        how = build_config(SamplingConfig, options)
        if length is not None and (not isinstance(length, int) or length < 0):
            raise ValueError(f"length: expected an integer of at least 0, or None, got {length!r}")
        self.vocab, self.length, self.stop = vocab, length, _checked_stop(how.stop, vocab)
        banned = _banned_ids(vocab, how.ban, how.allow_unknown)
        self.sampler = Sampler(how.temperature, how.top_k, how.top_p, how.seed, ban=banned)

    def generate(self, logits: Array, step: Callable[[int], Array], after_word: bool) -> Iterator[str]:
        """Yield the text in pieces, as its tokens are sampled.

        Parameters
        ----------
        logits : array (V,)
            Logits of the first token.
        step : callable
            Returns the logits (V,) of the token after the given one. May overwrite the previous logits.
        after_word : bool
            Whether the prompt ends in a word, so that the first word needs a space before it.
        """
        if self.vocab.unit == "byte":
            return _decoded(self.generate_bytes(logits, step))
        chunks = self._draw(logits, step, _decoder(self.vocab, after_word))
        return _until_stop(chunks, self.stop) if isinstance(self.stop, str) else chunks

    def generate_bytes(self, logits: Array, step: Callable[[int], Array]) -> Iterator[bytes]:
        """As `generate`, for a vocabulary of bytes: the bytes themselves. Raises VocabError for another vocabulary."""
        if self.vocab.unit != "byte":
            raise VocabError(f"vocab: expected one of unit 'byte', got {self.vocab.unit!r}")
        tokens = cast("tuple[bytes, ...]", self.vocab.tokens)
        chunks = self._draw(logits, step, tokens.__getitem__)
        return _until_stop(chunks, self.stop) if isinstance(self.stop, bytes) else chunks

    def _draw(self, logits: Array, step: Callable[[int], Array], decode: Callable[[int], AnyStr]) -> Iterator[AnyStr]:
        count = 0
        while self.length is None or count < self.length:
            token = self.sampler(logits)
            count += 1
            text = decode(token)
            if text:
                yield text
            if count != self.length:
                logits = step(token)


def _checked_stop(stop: str | bytes | None, vocab: Vocab) -> str | bytes | None:
    """The text to stop at, as bytes for a vocabulary of bytes. Raises ValueError and TypeError."""
    if stop is None:
        return None
    if not isinstance(stop, str) and not (isinstance(stop, bytes) and vocab.unit == "byte"):
        raise TypeError(f"stop: expected str, or bytes for unit 'byte', got {type(stop).__name__}")
    if not stop:
        raise ValueError(f"stop: expected a text of at least one character, or None, got {stop!r}")
    return stop.encode("utf-8", "surrogatepass") if isinstance(stop, str) and vocab.unit == "byte" else stop


def _banned_ids(vocab: Vocab, ban: Iterable[str | bytes], allow_unknown: bool) -> list[int]:
    """The ids that are not to be drawn. Raises TypeError, and VocabError unless all are tokens and one is left."""
    if isinstance(ban, str | bytes):
        raise TypeError(f"ban: expected several tokens, as in [{ban!r}], got one")
    banned = set()
    for token in ban:
        if token not in vocab:
            raise VocabError(f"ban: expected tokens of the vocabulary, got {token!r}")
        banned.add(vocab.id(token))
    if vocab.unknown_id is not None and not allow_unknown and len(vocab) > 1:
        banned.add(vocab.unknown_id)
    if len(banned) == len(vocab):
        raise VocabError("ban: expected at least one token of the vocabulary that may be drawn, got none")
    return sorted(banned)


def _decoded(chunks: Iterator[bytes]) -> Iterator[str]:
    """The text of bytes, with U+FFFD for what is not UTF-8. A character comes when its last byte has come."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for chunk in chunks:
        text = decoder.decode(chunk)
        if text:
            yield text


def _decoder(vocab: Vocab, after_word: bool) -> Callable[[int], str]:
    """A function that returns the text that the next id appends."""
    if vocab.unit == "char":
        return cast("tuple[str, ...]", vocab.tokens).__getitem__

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


def _until_stop(chunks: Iterator[AnyStr], stop: AnyStr) -> Iterator[AnyStr]:
    """The text before ``stop``. A suffix that may be the start of ``stop`` is withheld until the next chunks decide."""
    held = stop[:0]
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
