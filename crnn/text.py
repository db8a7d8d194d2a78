# SPDX-License-Identifier: MIT
"""Text to ids and back, and ids to training windows.

    file or str --TextCorpus--> ids (N,) --contiguous_batches--> windows x, y (T, B) int32

A text is always worked through in pieces of `_CHUNK` units, in memory as from a file, so that the temporary
arrays stay in the cache and a file may be larger than memory. Knows no model, needs only numpy.
"""

from __future__ import annotations

import codecs
import operator
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

__all__ = [
    "EOS",
    "IGNORE",
    "UNKNOWN",
    "StreamBatches",
    "TextCorpus",
    "TextError",
    "Vocab",
    "VocabError",
    "contiguous_batches",
]

Unit = Literal["char", "byte", "word"]
Ids = npt.NDArray[np.int32]
PathLike = str | os.PathLike[str]

UNKNOWN = "<unk>"  # stands for every token outside the vocabulary
EOS = "<eos>"  # a newline, when the units are words
IGNORE = -1  # a target that has no token: padding, left out of the loss

_ALL_BYTES = tuple(bytes([value]) for value in range(256))
_CODE_POINTS = 0x110000
_CHUNK = 1 << 17  # characters, or bytes of a file: 128 Ki keeps the temporaries in L2 and encodes fastest
_BLOCK = 1 << 18  # tokens that StreamBatches arranges at once: 1 MiB


class TextError(ValueError):
    """A text that cannot be read, or is too short for what is asked of it."""


class VocabError(ValueError):
    """A token outside the vocabulary, or a vocabulary that is not one."""


@dataclass(frozen=True, repr=False)
class Vocab:
    """An immutable numbering of tokens: characters, bytes or words.

    **Conventions.** Ids are ``0 .. len(vocab) - 1`` in the order of `tokens`. `from_text` sorts (characters
    by code point, words as `str`), so one text gives one numbering in every run; ``<unk>``, if any, has id 0.

    ======  =======================================================================================
    unit    a token is
    ======  =======================================================================================
    char    one code point, a `str` of length 1. ``<unk>`` has five, so no text can spell it
    byte    one byte, a `bytes` of length 1. Always all 256, the id is the value: none is unknown
    word    what `str.split` gives; each ``"\\n"`` is the word ``<eos>``. A text that already writes
            ``<unk>`` or ``<eos>`` (as Penn Treebank does) means these same tokens
    ======  =======================================================================================

    Parameters
    ----------
    tokens : iterable of str or bytes
        All different; their order is kept.
    unit : {"char", "byte", "word"}

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

    def __post_init__(self) -> None:
        _check_unit(self.unit)
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if self.unit == "byte":
            if self.tokens != _ALL_BYTES:
                raise VocabError("tokens: expected all 256 bytes in order for unit 'byte'")
            return
        if not self.tokens:
            raise VocabError("tokens: expected at least one, got none")
        for place, token in enumerate(self.tokens):
            if not isinstance(token, str):
                raise VocabError(f"tokens[{place}]: expected str, got {type(token).__name__}")
            if self.unit == "char" and len(token) != 1 and token != UNKNOWN:
                raise VocabError(f"tokens[{place}]: expected one character or {UNKNOWN!r}, got {token!r}")
            if self.unit == "word" and token.split() != [token]:
                raise VocabError(f"tokens[{place}]: expected a word without whitespace, got {token!r}")
        if len(self._index) < len(self.tokens):
            repeated = next(token for place, token in enumerate(self.tokens) if self._index[token] > place)
            raise VocabError(f"tokens: expected all different, got {repeated!r} twice")

    @classmethod
    def from_text(
        cls,
        text: str | bytes,
        unit: Unit = "char",
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
    ) -> Vocab:
        """The sorted vocabulary of a text.

        Parameters
        ----------
        text : str, or bytes for unit "byte"
        unit : {"char", "byte", "word"}
        min_count : int
            Rarer tokens are left out. This and the next two are not for bytes, which are always all there.
        max_size : int, optional
            The most tokens to have, ``<unk>`` included. The most frequent stay; of equals, the first sorted.
        unknown : bool, optional
            Whether ``<unk>`` stands for tokens left out or never seen. Default: words yes, characters no.

        Raises
        ------
        TextError
            The text is empty.
        VocabError
            No token is left.
        """
        _check_unit(unit)
        counts, total = _count(_split(text, unit), unit)
        if not total:
            raise TextError(f"text: expected at least one {unit}, got none")
        return cls._from_counts(counts, unit, min_count, max_size, unknown)

    @classmethod
    def _from_counts(
        cls, counts: Mapping[str, int], unit: Unit, min_count: int, max_size: int | None, unknown: bool | None
    ) -> Vocab:
        _check_positive("min_count", min_count)
        if max_size is not None:
            _check_positive("max_size", max_size)
        if unit == "byte":
            if (min_count, max_size) != (1, None) or unknown:
                raise VocabError("min_count, max_size, unknown: not for unit 'byte', which is always all 256")
            return cls(_ALL_BYTES, "byte")
        if unknown is None:
            unknown = unit == "word"
        special = (UNKNOWN,) if unknown or UNKNOWN in counts else ()
        kept = [token for token, count in counts.items() if count >= min_count and token not in special]
        if max_size is not None:
            kept = sorted(kept, key=lambda token: (-counts[token], token))[: max_size - len(special)]
        if not kept and not special:
            most = max(counts.values())
            raise VocabError(f"min_count: expected at most {most} for this text, got {min_count}")
        return cls(special + tuple(sorted(kept)), unit)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._index

    def __repr__(self) -> str:
        return f"Vocab({len(self)} {self.unit}s{f', {UNKNOWN}' if self.unknown_id is not None else ''})"

    @property
    def unknown_id(self) -> int | None:
        """Id of ``<unk>``; None when the vocabulary has none."""
        return self._index.get(UNKNOWN)

    @cached_property
    def _index(self) -> dict[str | bytes, int]:
        return {token: place for place, token in enumerate(self.tokens)}

    @cached_property
    def _missing_id(self) -> int:
        """What tokens outside the vocabulary are looked up as: ``<unk>``, or -1."""
        return -1 if self.unknown_id is None else self.unknown_id

    @cached_property
    def _table(self) -> Ids:
        """Id by code point or byte value. The last entry answers for all higher ones (a clipped look-up)."""
        codes = [ord(token) for token in self.tokens if token != UNKNOWN]
        table = np.full(max(codes, default=-1) + 2, self._missing_id, np.int32)
        table[codes] = [place for place, token in enumerate(self.tokens) if token != UNKNOWN]
        return table

    def id(self, token: str | bytes) -> int:
        """Id of a token; one outside the vocabulary has that of ``<unk>``, or is a VocabError without it."""
        found = self._index.get(token, self._missing_id)
        if found < 0:
            raise VocabError(f"token: {token!r} is not in the vocabulary of {len(self)} {self.unit}s")
        return found

    def token(self, id: int) -> str | bytes:
        """The token of an id."""
        place = operator.index(id)
        if not 0 <= place < len(self):
            raise VocabError(f"id: expected 0..{len(self) - 1}, got {place}")
        return self.tokens[place]

    def encode(self, text: str | bytes) -> Ids:
        """Ids of a text.

        Parameters
        ----------
        text : str; unit "byte" also takes bytes, and of a str its UTF-8

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
        crnn.text.VocabError: text: char '!' at position 3 is not in the vocabulary (use unknown=True?)
        """
        parts = list(self._encode_pieces(_split(text, self.unit), "text"))
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _encode_pieces(self, pieces: Iterable[str | bytes], source: str) -> Iterator[Ids]:
        start = 0
        for piece in pieces:
            if self.unit == "word":
                words = _words(cast(str, piece))
                ids = np.fromiter(map(self._index.get, words, repeat(self._missing_id)), np.int32, len(words))
            else:
                ids = self._table.take(_codes(piece), mode="clip")
            if self._missing_id < 0 and ids.size and ids.min() < 0:
                first = int(ids.argmin())
                token = words[first] if self.unit == "word" else piece[first]
                raise VocabError(
                    f"{source}: {self.unit} {token!r} at position {start + first} is not in the vocabulary "
                    "(use unknown=True?)"
                )
            start += ids.size
            yield ids

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of ids (N,).

        Characters are joined as they are. Words are joined by one space, ``<eos>`` becomes a newline: the
        result encodes to the same ids. Bytes are read as UTF-8, U+FFFD stands for what is not (see
        `decode_bytes`).
        """
        if self.unit == "byte":
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        tokens = cast("tuple[str, ...]", self.tokens)
        chosen = [tokens[place] for place in self._known(ids).tolist()]
        if self.unit == "char":
            return "".join(chosen)
        text = " ".join("\n" if word == EOS else word for word in chosen)
        return text.replace(" \n", "\n").replace("\n ", "\n")

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """The exact bytes of ids (N,), for unit "byte"."""
        if self.unit != "byte":
            raise VocabError(f"decode_bytes: expected a vocabulary of unit 'byte', got {self.unit!r}")
        return self._known(ids).astype(np.uint8).tobytes()

    def _known(self, ids: npt.ArrayLike) -> npt.NDArray[Any]:
        known = _id_array(ids)
        outside = np.flatnonzero((known < 0) | (known >= len(self)))
        if outside.size:
            first = outside[0]
            raise VocabError(f"ids: expected 0..{len(self) - 1}, got {known[first]} at position {first}")
        return known

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as JSON-able values, for the header of a model file."""
        if self.unit == "byte":
            return {"unit": self.unit}
        return {"unit": self.unit, "tokens": list(self.tokens)}

    @classmethod
    def from_dict(cls, data: object) -> Vocab:
        """The vocabulary that `to_dict` wrote. Anything else, however malformed, is a VocabError.

        Examples
        --------
        >>> vocab = Vocab.from_text("hello")
        >>> Vocab.from_dict(vocab.to_dict()) == vocab
        True
        """
        if not isinstance(data, dict):
            raise VocabError(f"vocabulary: expected a dict, got {type(data).__name__}")
        unit = _check_unit(data.get("unit"))
        expected = {"unit"} if unit == "byte" else {"unit", "tokens"}
        if set(data) != expected:
            raise VocabError(f"vocabulary: expected keys {sorted(expected)}, got {sorted(map(str, data))}")
        tokens = data.get("tokens", _ALL_BYTES)
        if not isinstance(tokens, list | tuple):
            raise VocabError(f"tokens: expected a list, got {type(tokens).__name__}")
        return cls(tuple(tokens), unit)


@dataclass(frozen=True, repr=False, eq=False)
class TextCorpus:
    """A text as ids, split by position: training text first, then validation, then test.

    Of N tokens (words for unit "word") ``round(valid * N)`` are for validation, ``round(test * N)`` for test,
    all others for training; a fraction of 0 gives an empty array. Built by `from_text` or `from_file`.

    Attributes
    ----------
    vocab : Vocab
        Made from the whole text, so that no split holds a token the others do not know.
    train, valid, test : uint8, uint16 or uint32 (N_split,), read-only
        The narrowest type that holds the ids. Views into one array, or into one memory-mapped file.

    Examples
    --------
    >>> corpus = TextCorpus.from_text("to be or not to be", valid=0.25, test=0.0)
    >>> corpus
    TextCorpus(Vocab(7 chars), train=14, valid=4, test=0)
    >>> corpus.vocab.decode(corpus.valid)
    'o be'
    """

    vocab: Vocab
    train: npt.NDArray[np.unsignedinteger[Any]]
    valid: npt.NDArray[np.unsignedinteger[Any]]
    test: npt.NDArray[np.unsignedinteger[Any]]

    def __repr__(self) -> str:
        sizes = f"train={self.train.size}, valid={self.valid.size}, test={self.test.size}"
        return f"TextCorpus({self.vocab}, {sizes})"

    @classmethod
    def from_text(
        cls,
        text: str | bytes,
        unit: Unit | None = None,
        valid: float = 0.05,
        test: float = 0.05,
        *,
        vocab: Vocab | None = None,
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
    ) -> TextCorpus:
        """A corpus from a text in memory.

        Parameters
        ----------
        text : str, or bytes for unit "byte"
        unit : {"char", "byte", "word"}, optional
            Default: that of `vocab`, else "char".
        valid, test : float
            Fractions of the tokens, each in [0, 1), together less than 1.
        vocab : Vocab, optional
            Use this one, as when training goes on with another text. Default: that of the whole text.
        min_count, max_size, unknown
            As for `Vocab.from_text`; not together with `vocab`.

        Raises
        ------
        TextError
            The text is empty.
        VocabError
            A token is outside the vocabulary and there is no ``<unk>``; or contradicting options.
        """
        unit, make_vocab = _vocab_maker(unit, vocab, min_count, max_size, unknown)
        return cls._build(partial(_split, text, unit), "text", unit, make_vocab, valid, test, None)

    @classmethod
    def from_file(
        cls,
        path: PathLike,
        unit: Unit | None = None,
        valid: float = 0.05,
        test: float = 0.05,
        *,
        encoding: str = "utf-8",
        vocab: Vocab | None = None,
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
        ids_path: PathLike | None = None,
    ) -> TextCorpus:
        r"""A corpus from a file, read twice piece by piece (to count, then to encode), never as a whole.

        What is in the file is what is learnt: ``"\r\n"`` stays two characters, a byte order mark stays one
        (``encoding="utf-8-sig"`` drops it).

        Parameters
        ----------
        path : path
        encoding : str
            Of the file's text; unit "byte" reads none.
        ids_path : path, optional
            Write the ids to this ``.npy`` file and memory-map it, for a text larger than memory. An existing
            file is replaced once the new one is complete.
        unit, valid, test, vocab, min_count, max_size, unknown
            As for `from_text`.

        Raises
        ------
        TextError
            The file is empty, is not text in this encoding, or holds a NUL character, which text does not:
            it is binary, or UTF-16 read as something else.
        VocabError
            As for `from_text`.
        OSError
            The file cannot be read, or `ids_path` not written.
        """
        if ids_path is not None and os.path.realpath(ids_path) == os.path.realpath(path):
            raise ValueError(f"ids_path: expected another file than the text, got {os.fspath(ids_path)}")
        unit, make_vocab = _vocab_maker(unit, vocab, min_count, max_size, unknown)
        pieces = partial(_read, path, unit, encoding)
        return cls._build(pieces, os.fspath(path), unit, make_vocab, valid, test, ids_path)

    @classmethod
    def _build(
        cls,
        pieces: Callable[[], Iterator[str | bytes]],
        source: str,
        unit: Unit,
        make_vocab: Callable[[Mapping[str, int]], Vocab],
        valid: float,
        test: float,
        ids_path: PathLike | None,
    ) -> TextCorpus:
        for name, fraction in (("valid", valid), ("test", test)):
            if not 0 <= fraction < 1:
                raise ValueError(f"{name}: expected a fraction in [0, 1), got {fraction}")
        if valid + test >= 1:
            raise ValueError(f"valid + test: expected less than 1, got {valid} + {test}")
        counts, total = _count(pieces(), unit)
        if not total:
            raise TextError(f"{source}: expected at least one {unit}, got none")
        vocab = make_vocab(counts)
        dtype = np.min_scalar_type(len(vocab) - 1)
        parts = _exactly(total, vocab._encode_pieces(pieces(), source), source)
        ids = _store(parts, total, dtype, ids_path)
        test_start = total - round(test * total)
        valid_start = test_start - round(valid * total)
        return cls(vocab, ids[:valid_start], ids[valid_start:test_start], ids[test_start:])


class StreamBatches:
    """Windows over contiguous streams of ids; made by `contiguous_batches`.

    Iterating yields ``len(batches)`` pairs ``(x, y)``, int32 (T, B), C order, read-only, and starts anew each
    time. Column b of one window goes on in column b of the next, so the state can be carried. The ids are
    arranged by blocks of windows: little memory however long they are, and a window costs two slices.

    Attributes
    ----------
    batch_size, bptt : int
        B, and T of all windows but the last, which may be shorter.
    steps : int
        Time steps of all windows together.
    predictions : int
        Targets that are not `IGNORE`.
    dropped : int
        Predictions left out so that all streams are equally long; fewer than B, and 0 with ``keep_tail``.
    """

    def __init__(self, ids: npt.ArrayLike, batch_size: int, bptt: int, keep_tail: bool = False) -> None:
        _check_positive("batch_size", batch_size)
        _check_positive("bptt", bptt)
        self._ids = _id_array(ids)
        if self._ids.size <= batch_size:
            raise TextError(
                f"ids: expected at least {batch_size + 1} tokens for batch_size={batch_size} "
                f"(an input and its target in each stream), got {self._ids.size}"
            )
        if self._ids.dtype not in (np.uint8, np.uint16):  # others may hold what int32, or IGNORE, would hide
            lowest, highest = self._ids.min(), self._ids.max()
            if lowest < 0 or highest >= 2**31:
                raise ValueError(f"ids: expected 0..{2**31 - 1}, got {lowest}..{highest}")
        self.batch_size, self.bptt = int(batch_size), int(bptt)
        length, extra = divmod(self._ids.size - 1, self.batch_size)
        self.dropped = 0 if keep_tail else extra
        extra -= self.dropped
        self.predictions = self._ids.size - 1 - self.dropped
        self.steps = length + (extra > 0)
        # The first `extra` streams are one longer. A stream's last target is the next one's first input: no
        # prediction is lost between two streams.
        self._starts = [b * length + min(b, extra) for b in range(self.batch_size)]
        self._full = extra or self.batch_size

    def __len__(self) -> int:
        return -(-self.steps // self.bptt)

    def __repr__(self) -> str:
        return (
            f"StreamBatches({len(self)} windows, batch_size={self.batch_size}, bptt={self.bptt}, "
            f"predictions={self.predictions}, dropped={self.dropped})"
        )

    def __iter__(self) -> Iterator[tuple[Ids, Ids]]:
        bptt = self.bptt
        span = bptt * max(1, _BLOCK // (bptt * self.batch_size))
        for first in range(0, self.steps, span):
            block = self._block(first, min(first + span, self.steps))
            inputs, targets = block[:-1], block[1:]
            for t in range(0, len(inputs), bptt):
                yield inputs[t : t + bptt], targets[t : t + bptt]

    def _block(self, first: int, last: int) -> Ids:
        """Tokens first..last (inclusive) of all streams, (last - first + 1, B)."""
        block = np.full((last - first + 1, self.batch_size), IGNORE, np.int32)
        for b, start in enumerate(self._starts):
            short = last == self.steps and b >= self._full  # its last target stays IGNORE
            end = last if short else last + 1
            block[: end - first, b] = self._ids[start + first : start + end]
        block.flags.writeable = False
        return block


def contiguous_batches(
    ids: npt.ArrayLike, batch_size: int, bptt: int, *, keep_tail: bool = False
) -> StreamBatches:
    """Cut ids (N,) into B contiguous streams, and those into windows of T steps. A target is the next id.

    The N - 1 predictions are shared out among the streams. For training all streams are equally long, and the
    tail of fewer than B predictions is dropped. For evaluation, ``keep_tail=True`` makes every prediction
    exactly once: some streams are one longer, the others end with the target `IGNORE` (the input is valid).

    Parameters
    ----------
    ids : integers (N,)
        ``corpus.train`` for example; memory-mapped is fine. Borrowed.
    batch_size, bptt : int
        B and T.
    keep_tail : bool

    Returns
    -------
    batches : StreamBatches

    Raises
    ------
    TextError
        N is less than B + 1.

    Examples
    --------
    >>> batches = contiguous_batches([0, 1, 2, 3, 4, 5, 6, 7], batch_size=2, bptt=2)
    >>> batches
    StreamBatches(2 windows, batch_size=2, bptt=2, predictions=6, dropped=1)
    >>> for x, y in batches:
    ...     print(x.tolist(), y.tolist())
    [[0, 3], [1, 4]] [[1, 4], [2, 5]]
    [[2, 5]] [[3, 6]]
    """
    return StreamBatches(ids, batch_size, bptt, keep_tail)


def _check_unit(unit: object) -> Unit:
    if unit not in get_args(Unit):
        raise VocabError(f"unit: expected 'char', 'byte' or 'word', got {unit!r}")
    return cast(Unit, unit)


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def _vocab_maker(
    unit: Unit | None, vocab: Vocab | None, min_count: int, max_size: int | None, unknown: bool | None
) -> tuple[Unit, Callable[[Mapping[str, int]], Vocab]]:
    """The unit of a corpus, and what gives its vocabulary once the tokens are counted."""
    if vocab is None:
        unit = _check_unit("char" if unit is None else unit)
        return unit, lambda counts: Vocab._from_counts(counts, unit, min_count, max_size, unknown)
    if (min_count, max_size, unknown) != (1, None, None):
        raise VocabError("min_count, max_size, unknown: not together with vocab, which is complete")
    if unit not in (None, vocab.unit):
        raise VocabError(f"unit: expected {vocab.unit!r}, that of vocab, got {unit!r}")
    return vocab.unit, lambda counts: vocab


def _id_array(ids: npt.ArrayLike) -> npt.NDArray[Any]:
    """Ids as a 1-d integer array."""
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids: expected shape (N,), got {array.shape}")
    if not array.size:
        return array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids: expected integers, got {array.dtype}")
    return array


def _slices(text: str | bytes) -> Iterator[str | bytes]:
    return (text[i : i + _CHUNK] for i in range(0, len(text), _CHUNK))


def _whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text cut elsewhere: only after whitespace, never inside a word."""
    held: list[str] = []
    for piece in pieces:
        cut = len(piece)
        while cut and not piece[cut - 1].isspace():
            cut -= 1
        if cut:
            yield "".join(held) + piece[:cut]
            held.clear()
        held.append(piece[cut:])
    yield "".join(held)


def _split(text: str | bytes, unit: Unit) -> Iterator[str | bytes]:
    """The pieces of a text in memory."""
    if unit == "byte" and isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes if unit == "byte" else str):
        expected = "str or bytes" if unit == "byte" else "str"
        raise TypeError(f"text: expected {expected} for unit {unit!r}, got {type(text).__name__}")
    pieces = _slices(text)
    return _whole_words(cast("Iterator[str]", pieces)) if unit == "word" else pieces


def _read(path: PathLike, unit: Unit, encoding: str) -> Iterator[str | bytes]:
    """The pieces of a file."""
    if unit == "byte":
        return _read_bytes(path)
    pieces = _read_text(path, encoding)
    return _whole_words(pieces) if unit == "word" else pieces


def _read_bytes(path: PathLike) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _read_text(path: PathLike, encoding: str) -> Iterator[str]:
    try:
        "a".encode(encoding)
    except LookupError:  # unknown, or no text encoding, as hex is none
        raise ValueError(f"encoding: expected a text encoding that Python knows, got {encoding!r}") from None
    decoder = codecs.getincrementaldecoder(encoding)()
    consumed = characters = 0
    for chunk in chain(_read_bytes(path), (b"",)):
        begin = consumed - len(decoder.getstate()[0])  # the decoder holds the first bytes of a cut character
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise TextError(
                f"{os.fspath(path)}: not {encoding} text at byte {begin + getattr(error, 'start', 0)} "
                f"({getattr(error, 'reason', error)}); name its encoding=, or read any file with unit='byte'"
            ) from error
        if "\0" in text:
            raise TextError(
                f"{os.fspath(path)}: NUL at character {characters + text.index(chr(0))}, so it is binary or "
                f"not {encoding}; name its encoding= (as 'utf-16'), or read any file with unit='byte'"
            )
        consumed += len(chunk)
        characters += len(text)
        yield text


def _codes(text: str | bytes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Code points, or byte values."""
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _words(text: str) -> list[str]:
    return text.replace("\n", f" {EOS} ").split()


def _count(pieces: Iterable[str | bytes], unit: Unit) -> tuple[dict[str, int], int]:
    """How often each token occurs (empty for bytes, whose vocabulary is fixed), and how many there are."""
    if unit == "byte":
        return {}, sum(map(len, pieces))
    if unit == "word":
        words: Counter[str] = Counter()
        for piece in pieces:
            words.update(_words(cast(str, piece)))
        return words, words.total()
    counts = np.zeros(_CODE_POINTS, np.int64)
    for piece in pieces:
        found = np.bincount(_codes(piece))
        counts[: found.size] += found
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}, int(counts.sum())


def _store(
    parts: Iterable[Ids], total: int, dtype: np.dtype[Any], ids_path: PathLike | None
) -> npt.NDArray[Any]:
    """The parts as one read-only array, in memory or in a memory-mapped file."""
    if ids_path is None:
        ids = np.empty(total, dtype)
        filled = 0
        for part in parts:
            ids[filled : filled + part.size] = part
            filled += part.size
        ids.flags.writeable = False
        return ids
    path = Path(ids_path)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)}
    try:
        with open(unfinished, "wb") as file:  # not a writable map: there a full disk is a SIGBUS
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(part.astype(dtype).data)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return cast("npt.NDArray[Any]", np.load(path, mmap_mode="r"))


def _exactly(total: int, parts: Iterable[Ids], source: str) -> Iterator[Ids]:
    """The parts, if they hold as many ids as were counted."""
    seen = 0
    for part in parts:
        seen += part.size
        if seen > total:
            break
        yield part
    if seen != total:
        raise TextError(f"{source}: changed while it was read; {total} tokens were counted at first")
