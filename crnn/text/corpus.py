# SPDX-License-Identifier: MIT
"""TextCorpus: a text as ids, split into training, validation and test data. Knows no model.

file or str --TextCorpus--> ids (N,) --contiguous_batches--> windows x, y (T, B) int32
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from crnn.io.atomic_write import PathLike
from crnn.text.reading import TextError, Unit, check_total, count_tokens, file_chunks, store_ids, text_chunks
from crnn.text.vocab import Vocab, VocabError, check_unit

__all__ = ["TextCorpus"]


@dataclass(frozen=True, repr=False, eq=False)
class TextCorpus:
    """A text as ids, split by position: training data first, then validation, then test data.

    Of N tokens, ``round(valid * N)`` are for validation, ``round(test * N)`` for the test and all others for training;
    a fraction of 0 gives an empty array. Made by `from_text` or `from_file`.

    Attributes
    ----------
    vocab : Vocab
        Built from the whole text, so that it contains the tokens of every split.
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
            Use this vocabulary, for example that of a model to train further. Default: that of the whole text.
        min_count, max_size, unknown
            As for `Vocab.from_text`; not together with `vocab`.

        Raises
        ------
        TextError
            The text is empty.
        VocabError
            A token is outside the vocabulary and there is no ``<unk>``, or options contradict each other.
        """
        unit, make_vocab = _vocab_maker(unit, vocab, min_count, max_size, unknown)
        return cls._build(partial(text_chunks, text, unit), "text", unit, make_vocab, valid, test, None)

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
        r"""A corpus from a file, which is read twice in chunks: to count the tokens and to encode them.

        The text is not normalised: ``"\r\n"`` remains two characters, and a byte order mark remains one character
        (``encoding="utf-8-sig"`` removes it).

        Parameters
        ----------
        path : path
        encoding : str
            Text encoding of the file; ignored for unit "byte".
        ids_path : path, optional
            Write the ids to this ``.npy`` file and memory-map it, for a text larger than memory. An existing file
            is replaced once the new one is complete.
        unit, valid, test, vocab, min_count, max_size, unknown
            As for `from_text`.

        Raises
        ------
        TextError
            The file is empty, is not text in this encoding, or has a NUL character: it is then binary, or UTF-16
            read in another encoding.
        VocabError
            As for `from_text`.
        OSError
            The file cannot be read, or `ids_path` not written.
        """
        if ids_path is not None and os.path.realpath(os.fsdecode(ids_path)) == os.path.realpath(os.fsdecode(path)):
            raise ValueError(f"ids_path: expected another file than the text, got {os.fsdecode(ids_path)}")
        unit, make_vocab = _vocab_maker(unit, vocab, min_count, max_size, unknown)
        chunks = partial(file_chunks, path, unit, encoding)
        return cls._build(chunks, os.fsdecode(path), unit, make_vocab, valid, test, ids_path)

    @classmethod
    def _build(
        cls,
        chunks: Callable[[], Iterator[str | bytes]],
        source: str,
        unit: Unit,
        make_vocab: Callable[[Mapping[str, int]], Vocab],
        valid: float,
        test: float,
        ids_path: PathLike | None,
    ) -> TextCorpus:
        """A corpus of the text that ``chunks()`` yields, the same on both calls. Errors call the text ``source``."""
        for name, fraction in (("valid", valid), ("test", test)):
            if not 0 <= fraction < 1:
                raise ValueError(f"{name}: expected a fraction in [0, 1), got {fraction}")
        if valid + test >= 1:
            raise ValueError(f"valid + test: expected less than 1, got {valid} + {test}")
        counts, total = count_tokens(chunks(), unit)
        if not total:
            raise TextError(f"{source}: expected at least one {unit}, got none")
        vocab = make_vocab(counts)
        dtype = np.min_scalar_type(len(vocab) - 1)
        ids_by_chunk = check_total(vocab.encode_chunks(chunks(), source), total, source)
        ids = store_ids(ids_by_chunk, total, dtype, ids_path)
        test_start = total - round(test * total)
        valid_start = test_start - round(valid * total)
        return cls(vocab, ids[:valid_start], ids[valid_start:test_start], ids[test_start:])


def _vocab_maker(
    unit: Unit | None, vocab: Vocab | None, min_count: int, max_size: int | None, unknown: bool | None
) -> tuple[Unit, Callable[[Mapping[str, int]], Vocab]]:
    """The unit of a corpus, and a function that makes its vocabulary from the counts of its tokens."""
    if vocab is None:
        unit = check_unit("char" if unit is None else unit)
        return unit, lambda counts: Vocab.from_counts(counts, unit, min_count, max_size, unknown)
    if (min_count, max_size, unknown) != (1, None, None):
        raise VocabError("min_count, max_size, unknown: not together with vocab, which is complete")
    if unit not in (None, vocab.unit):
        raise VocabError(f"unit: expected {vocab.unit!r}, that of vocab, got {unit!r}")
    return vocab.unit, lambda counts: vocab
