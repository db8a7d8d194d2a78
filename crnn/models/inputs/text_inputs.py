# SPDX-License-Identifier: MIT
"""Texts as the input of a model: the vocabulary that ``fit`` learns from them, and their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from crnn.array_input import items
from crnn.checks import Array, check_size
from crnn.text.errors import VocabError
from crnn.text.reading import Unit, count_tokens, text_chunks
from crnn.text.vocab import Vocab

__all__ = [
    "encode_inputs",
    "encode_texts",
    "is_learnt",
    "learn_vocab",
    "optional_vocab",
    "refuse_texts",
    "size_of",
    "zero_unknown",
]


def optional_vocab(data: object) -> Vocab | None:
    """A vocabulary from a file, or None."""
    return None if data is None else Vocab.from_dict(data)


def is_learnt(vocab: Any) -> bool:
    """Whether an argument ``vocab`` says that `fit` learns the vocabulary. Raises TypeError and ValueError."""
    if isinstance(vocab, str):
        if vocab not in get_args(Unit):
            raise ValueError(f"vocab: expected a Vocab, or one of {', '.join(get_args(Unit))}, got {vocab!r:.100}")
        return True
    if not isinstance(vocab, Vocab | None):
        raise TypeError(f"vocab: expected a Vocab, or one of {', '.join(get_args(Unit))}, got {type(vocab).__name__}")
    return False


def size_of(name: str, size: int | None, vocab_name: str, vocab: Vocab | None) -> int:
    """The number of ids: that of the vocabulary, or the given one. Raises TypeError and ValueError."""
    if vocab is None:
        if size is None:
            raise ValueError(f"{name}: expected it or a {vocab_name}, got neither")
        return check_size(name, size)
    if not isinstance(vocab, Vocab):
        raise TypeError(f"{vocab_name}: expected a Vocab, got {type(vocab).__name__}")
    if size not in (None, len(vocab)):
        raise ValueError(f"{name}: expected {len(vocab)}, as many as {vocab_name} has, got {size!r}")
    return len(vocab)


def zero_unknown(vocab: Vocab | None, params: Mapping[str, Array]) -> None:
    """Set the weights of ``<unk>`` to zero: a token that no training text has carries no information."""
    if vocab is None or vocab.unknown_id is None:
        return
    names = ("embedding",) if "embedding" in params else ("layer0.W_xh", "layer0.reverse.W_xh")
    for name in names:
        if name in params:
            params[name][vocab.unknown_id] = 0


def learn_vocab(name: str, texts: Any, unit: Unit) -> Vocab:
    """The vocabulary of texts, with ``<unk>`` for tokens that further texts may have.

    Raises TypeError and ValueError, which call the texts ``name``.
    """
    counts: Counter[str] = Counter()
    for i, text in enumerate(_texts(name, texts)):
        if _is_split(text, unit):
            counts.update(_words(f"{name}[{i}]", text))
        else:
            counts.update(count_tokens(text_chunks(text, unit, f"{name}[{i}]"), unit)[0])
    if unit != "byte" and not counts:
        raise ValueError(f"{name}: expected at least one {unit}, got only empty texts")
    return Vocab.from_counts(counts, unit, unknown=None if unit == "byte" else True)


def encode_texts(name: str, texts: Any, vocab: Vocab) -> list[Array]:
    """Ids (T_i,) of each text. Raises TypeError, ValueError and VocabError, which name the text's index.

    A text is a string, bytes for unit "byte", or a list of words for unit "word".
    """
    encoded: list[Array] = []
    for i, text in enumerate(_texts(name, texts)):
        own = f"{name}[{i}]"
        try:
            if _is_split(text, vocab.unit):
                encoded.append(np.array([vocab.id(word) for word in _words(own, text)], np.int32))
            else:
                encoded.append(vocab.encode(text, own))
        except VocabError as error:
            message = str(error)
            raise VocabError(message if message.startswith(own) else f"{own}: {message}") from None
    return encoded


def encode_inputs(name: str, texts: Any, vocab: Vocab) -> list[Array]:
    """`encode_texts` of inputs: a text without tokens is a ValueError."""
    encoded = encode_texts(name, texts, vocab)
    for i, ids in enumerate(encoded):
        if not len(ids):
            raise ValueError(f"{name}[{i}]: expected a text of at least one {vocab.unit}, got none")
    return encoded


def refuse_texts(name: str, X: Any) -> None:
    """Raise TypeError if X, in the place of numbers, begins with a text."""
    if len(X) and isinstance(X[0], str | bytes):
        raise TypeError(
            f"{name}[0]: expected numbers, got {type(X[0]).__name__}; a model of texts has a vocabulary: write "
            "vocab='char' or vocab='word'"
        )


def _texts(name: str, texts: Any) -> Any:
    if isinstance(texts, str | bytes):
        raise TypeError(f"{name}: expected a list of strings, got {type(texts).__name__}; write [x] for one text")
    if hasattr(texts, "columns") and hasattr(texts, "iloc"):  # a DataFrame
        hint = f"; write {name}[{texts.columns[0]!r}]" if len(texts.columns) else ""
        raise TypeError(f"{name}: expected a list of strings, got {type(texts).__name__}{hint}")
    texts = items(name, texts, "a list of strings")
    if not len(texts):
        raise ValueError(f"{name}: expected at least one string, got none")
    return texts


def _is_split(text: Any, unit: Unit) -> bool:
    """Whether a text is given as its words."""
    return unit == "word" and isinstance(text, list | tuple | np.ndarray)


def _words(name: str, words: Any) -> list[str]:
    """Words as strings. Raises TypeError, which calls them ``name``."""
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"{name}[{i}]: expected a word, got {type(word).__name__}")
    return [str(word) for word in words]
