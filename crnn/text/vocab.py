# SPDX-License-Identifier: MIT
"""Vocab: the tokens of a text and their ids; encodes and decodes texts. Independent of corpora and models."""

from __future__ import annotations

import codecs
import math
import operator
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain, pairwise, repeat
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from crnn.array_input import ids_1d
from crnn.checks import Array, Ids, check_positive
from crnn.text.errors import Remedy, TextError, VocabError, character_code
from crnn.text.reading import (
    CHUNK,
    EOS,
    Chunks,
    Unit,
    check_encoding,
    code_points,
    count_tokens,
    line_of_token,
    split_words,
    text_chunks,
)

__all__ = ["BYTE_ORDER_MARK", "UNKNOWN", "Order", "Vocab", "check_unit"]

Order = Literal["sorted", "frequency"]  # of the tokens of a new vocabulary

UNKNOWN = "<unk>"  # stands for every token outside the vocabulary

BYTE_ORDER_MARK = "\ufeff"

_BYTE_ORDER_MARK_REMEDY = (Remedy("remove the byte order mark", "encoding", "utf-8-sig"),)
_BYTE = math.log(256)  # nats of a byte about which nothing is known
_ALL_BYTES = tuple(bytes([value]) for value in range(256))


def _as_bytes(text: str | bytes) -> str | bytes:
    return text.encode("utf-8", "surrogatepass") if type(text) is str else text


@dataclass(frozen=True, repr=False)
class Vocab:
    """The tokens of a text, characters, bytes or words, and their ids. Immutable.

    **Conventions.** Ids are ``0 .. len(vocab) - 1`` in the order of `tokens`. `from_text` sorts (characters
    by code point, words as `str`; or by falling frequency), so the ids of a text are the same in every run. The id of
    ``<unk>`` is 0.

    ======  =======================================================================================
    unit    a token is
    ======  =======================================================================================
    char    one code point, a `str` of length 1. ``<unk>`` has five: it cannot occur in a text
    byte    one byte, a `bytes` of length 1. Always all 256, so none is unknown; id and value agree
    word    a word as `str.split` returns it; each ``"\\n"`` is the word ``<eos>``. ``<unk>`` and
            ``<eos>`` in a text (as in the Penn Treebank) are encoded as these tokens
    ======  =======================================================================================

    Parameters
    ----------
    tokens : iterable of str or bytes
        Distinct; the id of a token is its position.
    unit : {"char", "byte", "word"}
    encoding : str
        Encoding of the files that the text came from, by Python's name of it: the default for further files, and kept
        in model files. Two vocabularies that differ only in this are equal.

    Examples
    --------
    >>> vocab = Vocab.from_text("hello")
    >>> vocab.tokens
    ('e', 'h', 'l', 'o')
    >>> vocab.encode("hole")
    array([1, 3, 2, 0], dtype=int32)
    >>> vocab.decode([1, 3, 2, 0])
    'hole'
    """

    tokens: tuple[str | bytes, ...]
    unit: Unit = "char"
    encoding: str = field(default="utf-8", compare=False)
    _by_frequency = False  # whether they are known to be; files do not have it

    def __post_init__(self) -> None:
        check_unit(self.unit)
        object.__setattr__(self, "encoding", codecs.lookup(check_encoding(self.encoding)).name)
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if self.unit == "byte":
            if self.tokens != _ALL_BYTES:
                raise VocabError("tokens: expected all 256 bytes in order for unit 'byte'")
            return
        if not self.tokens:
            raise VocabError("tokens: expected at least one, got none")
        for id, token in enumerate(self.tokens):
            if not isinstance(token, str):
                raise VocabError(f"tokens[{id}]: expected str, got {type(token).__name__}")
            if self.unit == "char" and len(token) != 1 and token != UNKNOWN:
                raise VocabError(f"tokens[{id}]: expected one character or {UNKNOWN!r}, got {token!r}")
            if self.unit == "word" and token.split() != [token]:
                raise VocabError(f"tokens[{id}]: expected a word without whitespace, got {token!r}")
        if len(self._index) < len(self.tokens):
            repeated = next(token for id, token in enumerate(self.tokens) if self._index[token] > id)
            raise VocabError(f"tokens: expected all different, got {repeated!r} twice")

    @classmethod
    def from_text(
        cls,
        text: str | bytes,
        unit: Unit = "char",
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
        order: Order = "sorted",
    ) -> Vocab:
        """The sorted vocabulary of a text.

        Parameters
        ----------
        text : str, or bytes for unit "byte"
        unit : {"char", "byte", "word"}
        min_count : int
            Tokens with a lower count are left out. This and the next two do not apply to unit "byte".
        max_size : int, optional
            Largest size, including ``<unk>``. The most frequent tokens are kept; ties are broken by sorted order.
        unknown : bool, optional
            Whether ``<unk>`` replaces tokens outside the vocabulary. Default: True for words, False for characters.
        order : {"sorted", "frequency"}
            Of the tokens after ``<unk>``: sorted, or the most frequent first and those of equal counts sorted, which
            the option ``adaptive_softmax`` of `crnn.LanguageModel` needs.

        Raises
        ------
        TextError
            The text is empty.
        VocabError
            No token is left, or an option does not apply to the unit.
        """
        check_unit(unit)
        counts, total = count_tokens(text_chunks(text, unit), unit)
        if not total:
            raise TextError(f"text: expected at least one {unit}, got none")
        return cls.from_counts(counts, unit, min_count, max_size, unknown, order)

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        unit: Unit = "char",
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
        order: Order = "sorted",
        *,
        encoding: str = "utf-8",
    ) -> Vocab:
        """As `from_text`, from the count of each token. For unit "byte" the counts are ignored."""
        check_positive("min_count", min_count)
        if max_size is not None:
            check_positive("max_size", max_size)
        if not isinstance(order, str) or order not in get_args(Order):
            raise VocabError(f"order: expected 'sorted' or 'frequency', got {order!r:.100}")
        if unit == "byte":
            if (min_count, max_size, order) != (1, None, "sorted") or unknown:
                raise VocabError("min_count, max_size, unknown, order: not for unit 'byte', which is always all 256")
            return cls(_ALL_BYTES, "byte", encoding)
        if unknown is None:
            unknown = unit == "word"
        special = (UNKNOWN,) if unknown or UNKNOWN in counts else ()
        kept = [token for token, count in counts.items() if count >= min_count and token not in special]
        by_frequency = order == "frequency"
        if max_size is not None or by_frequency:
            kept.sort(key=lambda token: (-counts[token], token))
        if max_size is not None:
            del kept[max(max_size - len(special), 0) :]
        if not kept and not special:
            highest = max(counts.values())
            raise VocabError(f"min_count: expected at most {highest} for this text, got {min_count}")
        vocab = cls(special + tuple(kept if by_frequency else sorted(kept)), unit, encoding)
        object.__setattr__(vocab, "_by_frequency", by_frequency)
        return vocab

    def extended(self, tokens: Iterable[str]) -> Vocab:
        """This vocabulary with further tokens after its own, whose ids stay. Tokens that it has are not repeated.

        Raises VocabError for unit "byte", which has all tokens, and for tokens that do not suit the unit.
        """
        if self.unit == "byte":
            raise VocabError("tokens: none can be added for unit 'byte', which is always all 256")
        new = dict.fromkeys(token for token in tokens if token not in self._index)
        vocab = Vocab((*self.tokens, *new), self.unit, self.encoding)
        object.__setattr__(vocab, "_by_frequency", self._by_frequency)
        return vocab

    @property
    def is_sorted(self) -> bool:
        """Whether the tokens after ``<unk>`` are sorted, and not known to be sorted by their frequency."""
        if self._by_frequency:
            return False
        tokens = cast("tuple[str, ...]", self.tokens[self.unknown_id == 0 :])
        return all(a < b for a, b in pairwise(tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._index

    def __repr__(self) -> str:
        return f"Vocab({len(self)} {self.unit}s{f', {UNKNOWN}' if self.unknown_id is not None else ''})"

    @property
    def start(self) -> str | bytes:
        """The token to start a text from where nothing is given: a newline, else a space, else the first of a text."""
        first = self.tokens[1 if self.unknown_id == 0 and len(self) > 1 else 0]
        newlines = {"char": ("\n", " "), "byte": (b"\n",), "word": (EOS,)}[self.unit]
        return next((token for token in newlines if token in self._index), first)

    @property
    def unknown_id(self) -> int | None:
        """Id of ``<unk>``; None if the vocabulary has none."""
        return self._index.get(UNKNOWN)

    @cached_property
    def _index(self) -> dict[str | bytes, int]:
        return {token: id for id, token in enumerate(self.tokens)}

    @cached_property
    def _missing_id(self) -> int:
        """Id of tokens outside the vocabulary: that of ``<unk>``, or -1 if there is none."""
        return -1 if self.unknown_id is None else self.unknown_id

    @cached_property
    def _table(self) -> Ids:
        """Ids indexed by code point or byte value. Look-ups clip higher values to the last entry."""
        codes = [ord(token) for token in self.tokens if token != UNKNOWN]
        table = np.full(max(codes, default=-1) + 2, self._missing_id, np.int32)
        table[codes] = [id for id, token in enumerate(self.tokens) if token != UNKNOWN]
        return table

    def id(self, token: str | bytes) -> int:
        """Id of a token; outside the vocabulary, that of ``<unk>``. Raises VocabError if there is no ``<unk>``."""
        found = self._index.get(token, self._missing_id)
        if found < 0:
            raise VocabError(f"token: {token!r} is not in the vocabulary of {len(self)} {self.unit}s")
        return found

    def token(self, id: int) -> str | bytes:
        """The token of an id. Raises VocabError if the id is out of range."""
        number = operator.index(id)
        if not 0 <= number < len(self):
            raise VocabError(f"id: expected 0..{len(self) - 1}, got {number}")
        return self.tokens[number]

    def encode(self, text: str | bytes, name: str = "text") -> Ids:
        """Ids of a text.

        Parameters
        ----------
        text : str
            Unit "byte" also takes bytes; a str is encoded as UTF-8.
        name : str
            What errors call the text.

        Returns
        -------
        ids : int32 (N,), fresh

        Raises
        ------
        VocabError
            A token is outside the vocabulary and there is no ``<unk>``.

        Examples
        --------
        >>> Vocab.from_text("a b\\n", unit="word").encode("a c\\nb")
        array([2, 0, 1, 3], dtype=int32)
        >>> Vocab.from_text("abc").encode("cab!")
        Traceback (most recent call last):
            ...
        crnn.text.errors.VocabError: text: char '!' at position 3 is not in the vocabulary (U+0021); \
replace unknown chars by <unk> with unknown=True
        """
        chunks = list(self.encode_chunks(lambda: text_chunks(text, self.unit, name), name, in_file=False))
        if len(chunks) == 1:
            return chunks[0]
        return np.concatenate(chunks) if chunks else np.empty(0, np.int32)

    def encode_each(self, texts: Sequence[str | bytes], name: str, first: int = 0) -> list[Ids]:
        """The ids of each of several texts, as `encode` returns them.

        Many short texts take a fraction of the time of as many calls of `encode`. Errors call them ``name[first]`` and
        so on, in their order.
        """
        found = self._encode_together(texts) if len(texts) > 1 else None
        if found is not None:
            return found
        return [self.encode(text, f"{name}[{number}]") for number, text in enumerate(texts, first)]

    def _encode_together(self, texts: Sequence[str | bytes]) -> list[Ids] | None:
        """The ids of each text, views of one array; None if one is long, or has to be encoded alone for its error."""
        kind: Any = bytes if self.unit == "byte" else str
        parts = texts if kind is str else [_as_bytes(text) for text in texts]
        if not all(type(part) is kind and len(part) <= CHUNK for part in parts):
            return None
        if self.unit == "word":
            words = [split_words(cast(str, part)) for part in parts]
            counts = list(map(len, words))
            found = map(self._index.get, chain.from_iterable(words), repeat(self._missing_id))
            ids = np.fromiter(found, np.int32, sum(counts))
        else:
            counts = list(map(len, parts))
            ids = self._table.take(code_points(kind().join(cast("list[Any]", parts))), mode="clip")
        if self._missing_id < 0 and ids.size and ids.min() < 0:
            return None
        return [ids[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)]

    def encode_chunks(self, chunks: Callable[[], Chunks], source: str, *, in_file: bool = True) -> Iterator[Ids]:
        """Yield the ids of each chunk of a text, see `crnn.text.reading`.

        Raises VocabError, which names ``source``; then ``chunks`` is called again, to count the lines.
        """
        start = 0
        for chunk in chunks():
            if self.unit == "word":
                words = split_words(cast(str, chunk))
                ids = np.fromiter(map(self._index.get, words, repeat(self._missing_id)), np.int32, len(words))
            else:
                ids = self._table.take(code_points(chunk), mode="clip")
            if self._missing_id < 0 and ids.size and ids.min() < 0:
                first = int(ids.argmin())
                token = words[first] if self.unit == "word" else chunk[first]
                line = line_of_token(chunks(), self.unit, start + first)
                code, line_text = character_code(token), f"line {line}" if in_file or line > 1 else None
                details = ", ".join(filter(None, [code, line_text, self._hint(token)]))
                raise VocabError(
                    f"{source}: {self.unit} {token!r} at position {start + first} is not in the vocabulary"
                    + (f" ({details})" if details else ""),
                    *_BYTE_ORDER_MARK_REMEDY[token != BYTE_ORDER_MARK :],
                    Remedy(f"replace unknown {self.unit}s by {UNKNOWN}", "unknown", True),
                )
            start += ids.size
            yield ids

    def _hint(self, token: object) -> str | None:
        """Why a character may be missing: other line ends, or another Unicode normal form."""
        if token == "\r":
            return "a carriage return, which the text of the vocabulary does not have at its line ends"
        if self.unit == "char" and isinstance(token, str):
            apart = unicodedata.normalize("NFD", token)
            composed = any(unicodedata.normalize("NFD", str(known))[1:] == token for known in self.tokens)
            if composed or (len(apart) > 1 and all(part in self._index for part in apart)):
                return f"the text of the vocabulary has it in another normal form, {'NFC' if composed else 'NFD'}"
        return None

    def spelling(self, text: str | bytes, ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What it costs to spell the tokens of a text that became ``<unk>``.

        Parameters
        ----------
        text : str
        ids : integers (N,)
            Those of `encode`.

        Returns
        -------
        nats : float64 (N,), fresh
            log(256) for each byte of an unknown token in UTF-8 and for the end of an unknown word; 0 for tokens of the
            vocabulary, also for ``<unk>`` in the text itself.

        Examples
        --------
        >>> vocab = Vocab.from_text("the cat", unit="word")
        >>> (vocab.spelling("the bird", vocab.encode("the bird")) / np.log(2)).round().tolist()
        [0.0, 40.0]
        """
        nats = np.zeros(np.size(ids))
        if self.unknown_id is None:
            return nats
        unknown = np.flatnonzero(np.equal(ids, self.unknown_id))
        tokens = split_words(cast(str, text)) if self.unit == "word" and unknown.size else text
        for position in unknown.tolist():
            token = cast(str, tokens[position])
            if token != UNKNOWN:
                nats[position] = (len(token.encode("utf-8", "surrogatepass")) + (self.unit == "word")) * _BYTE
        return nats

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids (N,).

        Characters are joined as they are. Words are joined by one space and ``<eos>`` becomes a newline, so the
        result encodes to the same ids. Bytes are decoded as UTF-8, with U+FFFD for invalid ones (see `decode_bytes`).
        """
        if self.unit == "byte":
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        tokens = cast("tuple[str, ...]", self.tokens)
        chosen = [tokens[id] for id in self._checked(ids).tolist()]
        if self.unit == "char":
            return "".join(chosen)
        text = " ".join("\n" if word == EOS else word for word in chosen)
        return text.replace(" \n", "\n").replace("\n ", "\n")

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """The bytes of ids (N,). Raises VocabError unless the unit is "byte"."""
        if self.unit != "byte":
            raise VocabError(f"decode_bytes: expected a vocabulary of unit 'byte', got {self.unit!r}")
        return self._checked(ids).astype(np.uint8).tobytes()

    def _checked(self, ids: npt.ArrayLike) -> Array:
        """Ids as an array. Raises VocabError if one is out of range."""
        checked = ids_1d("ids", ids)
        outside = np.flatnonzero((checked < 0) | (checked >= len(self)))
        if outside.size:
            first = outside[0]
            raise VocabError(f"ids: expected 0..{len(self) - 1}, got {checked[first]} at position {first}")
        return checked

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as values that JSON can hold, for the header of a model file."""
        data: dict[str, Any] = {"unit": self.unit}
        if self.unit != "byte":
            data["tokens"] = list(self.tokens)
        if self.encoding != "utf-8":
            data["encoding"] = self.encoding
        return data

    @classmethod
    def from_dict(cls, data: object) -> Vocab:
        """The vocabulary that `to_dict` returned. Raises VocabError for any other value.

        Examples
        --------
        >>> vocab = Vocab.from_text("hello")
        >>> Vocab.from_dict(vocab.to_dict()) == vocab
        True
        """
        if not isinstance(data, dict):
            raise VocabError(f"vocabulary: expected a dict, got {type(data).__name__}")
        unit = check_unit(data.get("unit"))
        expected = {"unit"} if unit == "byte" else {"unit", "tokens"}
        if set(data) - {"encoding"} != expected:
            raise VocabError(f"vocabulary: expected keys {sorted(expected)}, got {sorted(map(str, data))}")
        tokens = data.get("tokens", _ALL_BYTES)
        if not isinstance(tokens, list | tuple):
            raise VocabError(f"tokens: expected a list, got {type(tokens).__name__}")
        try:
            encoding = check_encoding(data.get("encoding", "utf-8"))
        except ValueError as error:
            raise VocabError(str(error)) from None
        return cls(tuple(tokens), unit, encoding)


def check_unit(unit: object) -> Unit:
    """Check a unit. Raises VocabError unless it is one of the three."""
    if unit not in get_args(Unit):
        raise VocabError(f"unit: expected 'char', 'byte' or 'word', got {unit!r}")
    return cast(Unit, unit)
