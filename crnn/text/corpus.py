# SPDX-License-Identifier: MIT
"""TextCorpus: a text as ids, split into training, validation and test data. Independent of models.

file or str --TextCorpus--> ids (N,) --contiguous_batches--> windows x, y (T, B) int32
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crnn.checks import Ids
from crnn.io.atomic_write import PathLike
from crnn.text.errors import TextError, VocabError
from crnn.text.reading import (
    Document,
    Unit,
    check_encoding,
    check_total,
    count_tokens,
    file_document,
    store_ids,
    text_document,
    with_borders,
)
from crnn.text.sources import TextFiles, check_outside, file_list, open_sources
from crnn.text.vocab import Order, Vocab, check_unit

__all__ = ["TextCorpus"]


@dataclass(frozen=True, repr=False, eq=False)
class TextCorpus:
    """A text as ids, split by position: training data first, then validation, then test data.

    Of N tokens, ``round(valid * N)`` are for validation, ``round(test * N)`` for the test and all others for training;
    a fraction of 0 gives an empty array. With several documents, a cut is moved to the nearest border of two documents
    if that is nearer than half of the part's size. Made by `from_text` or `from_file`.

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
        text: str | bytes | Sequence[str | bytes],
        unit: Unit | None = None,
        valid: float = 0.05,
        test: float = 0.05,
        *,
        vocab: Vocab | None = None,
        extend_vocab: bool = False,
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
        order: Order = "sorted",
        border: str = "\n",
    ) -> TextCorpus:
        """A corpus from a text in memory, or from several documents.

        Parameters
        ----------
        text : str, or bytes for unit "byte"; or a list of them
        unit : {"char", "byte", "word"}, optional
            Default: that of `vocab`, else "char".
        valid, test : float
            Fractions of the tokens, each in [0, 1), together less than 1.
        vocab : Vocab, optional
            Use this vocabulary, for example that of a model to train further. Default: that of the whole text.
        extend_vocab : bool
            Add the tokens of the text that `vocab` does not have, sorted, after its own, whose ids stay.
        min_count, max_size, unknown, order
            As for `Vocab.from_text`; not together with `vocab`.
        border : str
            Separates documents: appended to each but the last, unless it ends so anyway. Left out if `vocab` does not
            have it.

        Raises
        ------
        TextError
            The text is empty.
        VocabError
            A token is outside the vocabulary and there is no ``<unk>``, or options contradict each other.
        """
        unit, make_vocab = _vocab_maker(unit, vocab, extend_vocab, min_count, max_size, unknown, order, "utf-8")
        if isinstance(text, list | tuple):
            documents = [text_document(f"text[{number}]", each, unit) for number, each in enumerate(text)]
        else:
            documents = [text_document("text", text, unit)]
        return cls._build("text", _separated(documents, border, unit, vocab), unit, make_vocab, valid, test, None)

    @classmethod
    def from_file(
        cls,
        path: TextFiles,
        unit: Unit | None = None,
        valid: float = 0.05,
        test: float = 0.05,
        *,
        encoding: str | None = None,
        vocab: Vocab | None = None,
        extend_vocab: bool = False,
        min_count: int = 1,
        max_size: int | None = None,
        unknown: bool | None = None,
        order: Order = "sorted",
        border: str = "\n",
        ids_path: PathLike | None = None,
    ) -> TextCorpus:
        r"""A corpus from files, which are read twice in chunks: to count the tokens and to encode them.

        The text is not normalised: ``"\r\n"`` remains two characters, and a byte order mark remains one character
        (``encoding="utf-8-sig"`` removes it). Files that gzip, bzip2 or xz compressed are recognised by their first
        bytes and decompressed.

        Parameters
        ----------
        path : path, binary file, or several
            A folder stands for all regular files in it and in its subfolders, sorted by path, without hidden ones. Of
            a pipe or an open file, what is left to read is copied into a temporary file. Each file is a document.
        encoding : str, optional
            Text encoding of the files; ignored for unit "byte". Default: that of `vocab`, else UTF-8. A new vocabulary
            remembers it.
        ids_path : path, optional
            Write the ids to this ``.npy`` file and memory-map it, for a text larger than memory. An existing file
            is replaced once the new one is complete.
        unit, valid, test, vocab, extend_vocab, min_count, max_size, unknown, order, border
            As for `from_text`.

        Raises
        ------
        TextError
            A file is not text in this encoding, or has a NUL character: it is then binary, or UTF-16 read in another
            encoding. Or it is a damaged compressed file, or changes while it is read, or all files are empty.
        VocabError
            As for `from_text`.
        OSError
            A file cannot be read, or `ids_path` not written.
        """
        encoding = check_encoding(encoding or (vocab.encoding if vocab else "utf-8"))
        unit, make_vocab = _vocab_maker(unit, vocab, extend_vocab, min_count, max_size, unknown, order, encoding)
        files = file_list(path)
        with ExitStack() as stack:
            sources = open_sources(files, stack)
            if ids_path is not None:
                check_outside("ids_path", ids_path, files, sources)
            documents = [file_document(source, unit, encoding) for source in sources]
            name = sources[0].name if len(sources) == 1 else f"{sources[0].name} and {len(sources) - 1} more"
            return cls._build(name, _separated(documents, border, unit, vocab), unit, make_vocab, valid, test, ids_path)

    @classmethod
    def _build(
        cls,
        name: str,
        documents: Sequence[Document],
        unit: Unit,
        make_vocab: Callable[[Mapping[str, int]], Vocab],
        valid: float,
        test: float,
        ids_path: PathLike | None,
    ) -> TextCorpus:
        """A corpus of documents, which errors about the whole call ``name``."""
        for fraction_name, fraction in (("valid", valid), ("test", test)):
            if not 0 <= fraction < 1:
                raise ValueError(f"{fraction_name}: expected a fraction in [0, 1), got {fraction}")
        if valid + test >= 1:
            raise ValueError(f"valid + test: expected less than 1, got {valid} + {test}")
        counts, total = count_tokens((chunk for document in documents for chunk in document.chunks()), unit)
        if not total:
            raise TextError(f"{name}: expected at least one {unit}, got none")
        vocab = make_vocab(counts)
        starts: list[int] = []
        ids_by_chunk = check_total(_ids_of(documents, vocab, starts), total, lambda: _changed(documents))
        ids = store_ids(ids_by_chunk, total, np.min_scalar_type(len(vocab) - 1), ids_path)
        test_start = _at_border(total - round(test * total), round(test * total), starts)
        valid_size = round(valid * total)
        valid_start = _at_border(max(test_start - valid_size, 0), valid_size, starts)
        return cls(vocab, ids[:valid_start], ids[valid_start:test_start], ids[test_start:])


def _separated(documents: Sequence[Document], border: str, unit: Unit, vocab: Vocab | None) -> Sequence[Document]:
    """Documents with ``border`` between them; without it, if a given vocabulary does not have it."""
    if not isinstance(border, str):
        raise TypeError(f"border: expected str, got {type(border).__name__}")
    if vocab is not None and unit != "byte":
        try:
            vocab.encode(border)
        except VocabError:
            border = " " if unit == "word" else ""  # words of two documents do not become one
    return with_borders(documents, border.encode() if unit == "byte" else border)


def _ids_of(documents: Sequence[Document], vocab: Vocab, starts: list[int]) -> Iterator[Ids]:
    """The ids of documents by chunks. Adds the positions at which the second and later ones start to ``starts``."""
    position = 0
    for number, document in enumerate(documents):
        if number:
            starts.append(position)
        try:
            for ids in vocab.encode_chunks(document.chunks, document.name):
                position += ids.size
                yield ids
        except VocabError:
            if not document.changed():
                raise
            return  # `check_total` says what happened


def _changed(documents: Sequence[Document]) -> str | None:
    """The name of the first document that is not what it was when it was first read."""
    return next((document.name for document in documents if document.changed()), None)


def _at_border(cut: int, size: int, starts: Sequence[int]) -> int:
    """The start of a document that is nearest to ``cut``, if it is nearer than half of ``size``; else ``cut``."""
    nearest = min(starts, key=lambda start: abs(start - cut), default=cut)
    return nearest if 2 * abs(nearest - cut) < size else cut


def _vocab_maker(
    unit: Unit | None,
    vocab: Vocab | None,
    extend_vocab: bool,
    min_count: int,
    max_size: int | None,
    unknown: bool | None,
    order: Order,
    encoding: str,
) -> tuple[Unit, Callable[[Mapping[str, int]], Vocab]]:
    """The unit of a corpus, and a function that makes its vocabulary from the counts of its tokens."""
    if vocab is None:
        if extend_vocab:
            raise VocabError("extend_vocab: expected a vocab to extend with it, got none")
        unit = check_unit("char" if unit is None else unit)
        return unit, lambda counts: Vocab.from_counts(
            counts, unit, min_count, max_size, unknown, order, encoding=encoding
        )
    if (min_count, max_size, unknown, order) != (1, None, None, "sorted"):
        raise VocabError("min_count, max_size, unknown, order: not together with vocab, which is complete")
    if unit not in (None, vocab.unit):
        raise VocabError(f"unit: expected {vocab.unit!r}, that of vocab, got {unit!r}")
    if extend_vocab and vocab.unit != "byte":
        return vocab.unit, lambda counts: vocab.extended(sorted(counts))
    return vocab.unit, lambda counts: vocab
