# SPDX-License-Identifier: MIT
"""LineScorer: the surprisal of lines, which may be learnt after they were scored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

import crnn
from crnn._core.loss import sum as sum_of
from crnn.checks import Array
from crnn.cli.lines import LineReader
from crnn.models.language.lines import LineLearner
from crnn.text.reading import split_words

__all__ = ["LineScorer", "ScoredLine"]

WORTH_THREADS = 64  # lines: fewer are computed by one thread

_NO_NATS = np.empty(0)
_NO_IDS = np.empty(0, np.int32)
_BITS = math.log(2)  # nats of a bit


@dataclass(slots=True)
class ScoredLine:
    """A line and its score.

    Attributes
    ----------
    number : int
        From 1.
    raw : bytes
        The line as it was read, with its line end.
    text : str
        The line without its line end; bytes that could not be decoded are replaced.
    unit : str
        That of the vocabulary.
    error : str or None
        Why the line cannot be scored, or not all of it.
    nats : array
        Surprisal of each token that counts: all, or all but the first if nothing precedes that.
    mean : float
        Bits per token; inf if the line cannot be scored, NaN if no token counts.
    content : str or bytes
        What was scored, with a line end if the vocabulary has one; empty if the line cannot be scored.
    unknown : int
        Tokens outside the vocabulary.
    learnt : bool or None
        Whether it is learnt after it was scored; None if no line is.
    """

    number: int
    raw: bytes
    text: str
    unit: str
    error: str | None
    nats: Array
    mean: float = math.inf
    content: str | bytes = ""
    unknown: int = 0
    learnt: bool | None = None

    def tokens(self) -> list[tuple[str | bytes, float]]:
        """The tokens that were scored, also unknown ones, with their bits; NaN for a first one that does not count."""
        content: Any = self.content
        if self.unit == "word":
            names: list[str | bytes] = list(split_words(content))
        else:
            names = [content[i : i + 1] for i in range(len(content))]
        bits = [math.nan] * (len(names) - len(self.nats)) + (self.nats / _BITS).tolist()
        return list(zip(names, bits, strict=True))


@dataclass(slots=True)
class _Start:
    """What precedes a line: a line end, or nothing if the vocabulary has none."""

    end: str  # of the line, too
    text: Any  # as the vocabulary encodes it
    ids: Array


@dataclass(slots=True)
class _Read:
    """A line whose tokens are known or looked up next."""

    line: ScoredLine
    start: _Start
    content: Any  # None: it cannot be scored
    sequence: Array  # ids of what precedes the line, and of the line
    spelling: Array | None = None  # what the spelling of unknown tokens costs, if there are any

    @property
    def ids(self) -> Array:
        return self.sequence[len(self.start.ids) :]


class LineScorer:
    """Scores lines; see `crnn.cli.score.score_lines`.

    Parameters
    ----------
    model : LanguageModel
        With ``carry`` float32, as streams are.
    reader : LineReader
    carry : bool
    learner : LineLearner, optional
        Of this model; not with ``carry``.
    threads : int
    """

    def __init__(
        self,
        model: crnn.LanguageModel,
        reader: LineReader,
        carry: bool,
        learner: LineLearner | None = None,
        threads: int = 1,
    ) -> None:
        self.vocab: crnn.Vocab = model.vocab
        self.reader: LineReader = reader
        self._model, self._learner, self._threads = model, learner, threads
        self._stream = model.stream() if carry else None
        self._begun = False  # whether the stream has read something
        self._starts: dict[str, _Start] = {}  # by the line end that was read
        self._last_end = "\n"
        self._number = 0  # of lines so far

    def score(self, group: list[bytes]) -> Iterator[ScoredLine]:
        """The next lines with their scores. They are computed together, which changes no bit."""
        read = []
        for raw in group:
            self._number += 1
            read.append(self._read(self._number, raw))
        self._encode(read)
        start = 0
        while start < len(read):
            part = read[start:] if self._learner is None else read[start : start + self._learner.room]
            self._compute([each for each in part if each.content is not None])
            if self._learner is not None:
                for each in part:
                    each.line.learnt = each.content is not None and self._learner.add(each.sequence, each.line.mean)
            for each in part:
                yield each.line
            start += len(part)

    def _read(self, number: int, raw: bytes) -> _Read:
        """A line without its score, and what is to be scored, unless it is no text."""
        vocab = self.vocab
        try:
            text, error = self.reader.decode(raw), None
        except UnicodeDecodeError as problem:
            text = self.reader.decode(raw, "replace")
            error = f"not {problem.encoding} text at byte {problem.start} ({problem.reason})"
        read_end = "" if not text.endswith("\n") else "\r\n" if text.endswith("\r\n") else "\n"
        if read_end:
            self._last_end = read_end  # a last line without one is scored as if it had that of the others
        start = self._starts.get(self._last_end) or self._start_of(self._last_end)
        body = text[: len(text) - len(read_end)]
        line = ScoredLine(number, raw, body, vocab.unit, error, _NO_NATS)
        if error is not None and vocab.unknown_id is None:
            return _Read(line, start, None, _NO_IDS)
        if vocab.unit != "byte":
            return _Read(line, start, text if start.end == read_end else body + start.end, _NO_IDS)
        line.text = body.encode("latin-1").decode("utf-8", "replace")
        return _Read(line, start, (body + start.end).encode("latin-1"), _NO_IDS)

    def _encode(self, read: list[_Read]) -> None:
        """Look up the ids of the lines, and what unknown tokens cost."""
        vocab = self.vocab
        scored = [each for each in read if each.content is not None]
        try:  # what precedes a line is a line end, so that its tokens are the same with the line and alone
            found: Any = vocab.encode_each([each.start.text + each.content for each in scored], "text")
        except crnn.VocabError:
            found = [self._sequence_alone(each) for each in scored]
        for each, sequence in zip(scored, found, strict=True):
            if sequence is None:
                each.content = None
            else:
                each.sequence, each.line.content = sequence, each.content
        if vocab.unknown_id is not None and scored:
            ends = list(accumulate(len(each.sequence) for each in scored))
            places = np.flatnonzero(np.concatenate([each.sequence for each in scored]) == vocab.unknown_id)
            for number in np.unique(np.searchsorted(ends, places, side="right")).tolist():
                each = scored[number]
                each.spelling = vocab.spelling(each.content, each.ids)

    def _sequence_alone(self, read: _Read) -> Array | None:
        """The sequence of a line; None, and its error, if it has a token outside the vocabulary."""
        try:
            return np.concatenate([read.start.ids, self.vocab.encode(read.content)])
        except crnn.VocabError as problem:
            read.line.error = problem.problem.removeprefix("text: ")
            return None

    def _compute(self, scored: list[_Read]) -> None:
        """Set the scores."""
        if self._stream is None:
            model = self._model if self._learner is None else self._learner.model
            threads = self._threads if len(scored) >= WORTH_THREADS else 1
            together = [each.sequence for each in scored if len(each.sequence) > 1]
            found = iter(model.surprisals(together, threads=threads))
            nats = [next(found) if len(each.sequence) > 1 else _NO_NATS for each in scored]
        else:
            nats = [self._carried(self._stream, each) for each in scored]
        for each, of_line in zip(scored, nats, strict=True):
            line, before = each.line, len(each.start.ids)
            count = len(each.sequence) - (before or len(each.sequence) > 0)
            line.nats = of_line if len(of_line) == count else of_line[len(of_line) - count :]
            if each.spelling is not None:
                line.unknown = int(np.count_nonzero(each.spelling))
                line.nats += each.spelling[len(each.spelling) - count :].astype(np.float32)
            line.mean = sum_of(line.nats) / count / _BITS if count else math.nan

    def _carried(self, stream: crnn.TextStream, read: _Read) -> Array:
        """The surprisal of the tokens after all lines before."""
        if not self._begun:  # with a line end, if there is one
            stream.feed(read.start.ids)
            self._begun = True
        if len(read.start.ids) == 0:  # nothing precedes the first token
            stream.feed(read.ids[:1])
            return stream.surprisal(read.ids[1:])
        return stream.surprisal(read.ids)

    def _start_of(self, read_end: str) -> _Start:
        """What precedes a line that was read with this end."""
        end = next((each for each in (read_end, "\n") if self._has(each)), "")
        text = end.encode("latin-1") if self.vocab.unit == "byte" else end
        start = self._starts[read_end] = _Start(end, text, self.vocab.encode(end))
        return start

    def _has(self, end: str) -> bool:
        """Whether the vocabulary has a line end."""
        if self.vocab.unit == "word":
            return crnn.text.EOS in self.vocab
        return self.vocab.unit == "byte" or all(character in self.vocab for character in end)
