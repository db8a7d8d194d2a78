# SPDX-License-Identifier: MIT
"""``crnn score``: bits per token of each line of standard input."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import crnn
from crnn._core.loss import sum as sum_of
from crnn.checks import Array
from crnn.cli.common import CommandParser, load_language_model, say, standard_input, standard_output
from crnn.cli.corpus import add_encoding_flag
from crnn.cli.lines import LineReader
from crnn.cli.typed import escaped
from crnn.text.reading import check_encoding, split_words

__all__ = ["add_arguments", "run", "score_lines"]

TOGETHER = 64  # lines that have arrived at the same time are computed together, but not more than this
REPORTED = 5  # lines that cannot be scored are reported on standard error, but not more than this


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn score``."""
    parser.description = (
        "Reads lines from standard input. Writes for each line, as soon as it is read, its bits per character (or per "
        "word or byte, the unit of the vocabulary), a tab and the unchanged line: tail -f log | crnn score m. The line "
        "end counts as part of the line. The value is inf if the line has a character outside the vocabulary. If the "
        "vocabulary has <unk>, a token outside costs the bits of <unk> and of its spelling, 8 bits per byte."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--carry", action="store_true", help="carry the state across lines, instead of resetting it before each line"
    )
    add_encoding_flag(parser, "that of the model")
    parser.add_argument(
        "--tokens", action="store_true", help="a row for each token instead: number of the line, bits, token"
    )
    parser.add_argument(
        "--json", action="store_true", help="write JSON objects, one per line, with null for inf and nan"
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the lines of standard input. Returns the exit status."""
    model = load_language_model(arguments.model)
    rows: Rows = token_rows if arguments.tokens else plain_row
    if arguments.json:
        rows = partial(json_row, tokens=arguments.tokens)
    lines, out = standard_input(), standard_output()
    score_lines(model, lines, out, carry=arguments.carry, encoding=arguments.encoding, rows=rows)
    return 0


_NO_NATS = np.empty(0)


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
    mean : float
        Bits per token; inf if the line cannot be scored, NaN if no token counts.
    content : str or bytes
        What was scored, with a line end if the vocabulary has one; empty if the line cannot be scored.
    nats : array
        Surprisal of each token that counts: all, or all but the first if nothing precedes that.
    unknown : int
        Tokens outside the vocabulary.
    error : str or None
        Why the line cannot be scored, or not all of it.
    """

    number: int
    raw: bytes
    text: str
    unit: str
    mean: float = math.inf
    content: str | bytes = ""
    nats: Array = field(default_factory=lambda: _NO_NATS)
    unknown: int = 0
    error: str | None = None

    def tokens(self) -> list[tuple[str | bytes, float]]:
        """The tokens that were scored, also unknown ones, with their bits; NaN for a first one that does not count."""
        content: Any = self.content
        if self.unit == "word":
            names: list[str | bytes] = list(split_words(content))
        else:
            names = [content[i : i + 1] for i in range(len(content))]
        bits = [math.nan] * (len(names) - len(self.nats)) + (self.nats / math.log(2)).tolist()
        return list(zip(names, bits, strict=True))


@dataclass(slots=True)
class _Tokens:
    """The tokens of a line: ids of a line end before it, its own, and what the spelling of unknown ones costs."""

    start: Array
    ids: Array
    spelling: Array | None


Rows = Callable[[ScoredLine, LineReader], bytes]  # what to write for a line


def score_lines(
    model: crnn.LanguageModel,
    lines: BinaryIO,
    out: BinaryIO,
    *,
    carry: bool = False,
    encoding: str | None = None,
    rows: Rows | None = None,
) -> None:
    """Write each line's bits per token, a tab and the line, as soon as the line is read.

    Each line is scored with the line end that was read, or with a newline if the vocabulary does not have that. Its
    context is one such line end, or with ``carry`` all lines before. If the vocabulary has no newline, the first token
    of a line is not counted, and a line of fewer than two tokens scores nan. A line with a token outside the
    vocabulary, or that is not text in this encoding, scores inf and does not change the state. If the vocabulary has
    ``<unk>``, such a token costs the surprisal of ``<unk>`` and its spelling, 8 bits for each byte of it in UTF-8, and
    8 bits for the end of a word.

    Parameters
    ----------
    model : LanguageModel
        A float64 model is converted to float32.
    lines, out : binary file
        ``out`` is flushed after every line.
    carry : bool
        Carry the state from line to line.
    encoding : str, optional
        Of the lines; that of the vocabulary if not given. A model of bytes needs none.
    rows : callable, optional
        What to write for a line: `plain_row`, `token_rows` or `json_row`.
    """
    encoding = check_encoding(encoding or model.vocab.encoding)
    reader = LineReader(lines, "latin-1" if model.vocab.unit == "byte" else encoding)
    scorer = LineScorer(model, reader, carry)
    rows = rows or plain_row
    reported = 0
    for line in scorer.score(reader.groups(1 if carry else TOGETHER)):
        out.write(rows(line, reader))
        out.flush()
        if line.error is not None and reported <= REPORTED:
            reported += 1
            say(f"crnn score: line {line.number}: {line.error}" if reported <= REPORTED else "crnn score: and so on")


class LineScorer:
    """Scores lines; see `score_lines`."""

    def __init__(self, model: crnn.LanguageModel, reader: LineReader, carry: bool) -> None:
        if model.dtype != "float32":
            model = model.astype("float32")  # streams are float32; four decimals are shown
        self.vocab: crnn.Vocab = model.vocab
        self.reader: LineReader = reader
        self._model = model
        self._stream = model.stream() if carry else None
        self._begun = False  # whether the stream has read something
        self._starts: dict[str, tuple[str, Array]] = {}  # by line end: that to score with, and its ids
        self._last_end = "\n"

    def score(self, groups: Iterable[list[bytes]]) -> Iterator[ScoredLine]:
        """The lines with their scores. Those of a group are computed together, which changes no bit."""
        number = 0
        for group in groups:
            lines = []
            for raw in group:
                number += 1
                lines.append(self._read(number, raw))
            self._compute(lines)
            for line, _ in lines:
                yield line

    def _read(self, number: int, raw: bytes) -> tuple[ScoredLine, _Tokens | None]:
        """A line without its score, and its tokens, unless it cannot be scored."""
        vocab = self.vocab
        try:
            text, error = self.reader.decode(raw), None
        except UnicodeDecodeError as problem:
            text = self.reader.decode(raw, "replace")
            error = f"not {problem.encoding} text at byte {problem.start} ({problem.reason})"
        read_end = "\r\n" if text.endswith("\r\n") else "\n" if text.endswith("\n") else ""
        body = text[: len(text) - len(read_end)]
        self._last_end = read_end or self._last_end  # a last line without one is scored as if it had that of the others
        end, start = self._start_of(self._last_end)
        line = ScoredLine(number, raw, body, vocab.unit, error=error)
        if error is not None and vocab.unknown_id is None:
            return line, None
        content: Any = body + end
        if vocab.unit == "byte":
            content = content.encode("latin-1")
            line.text = body.encode("latin-1").decode("utf-8", "replace")
        try:
            ids = vocab.encode(content)
        except crnn.VocabError as problem:
            line.error = problem.problem.removeprefix("text: ")
            return line, None
        line.content = content
        return line, _Tokens(start, ids, None if vocab.unknown_id is None else vocab.spelling(content, ids))

    def _compute(self, lines: list[tuple[ScoredLine, _Tokens | None]]) -> None:
        """Set the scores."""
        scored = [(line, tokens) for line, tokens in lines if tokens is not None]
        if self._stream is None:
            sequences = [np.concatenate([tokens.start, tokens.ids]) for _, tokens in scored]
            together = iter(self._model.surprisals([ids for ids in sequences if len(ids) > 1]))
            nats = [next(together) if len(ids) > 1 else _NO_NATS for ids in sequences]
        else:
            nats = [self._carried(self._stream, tokens) for _, tokens in scored]
        for (line, tokens), of_line in zip(scored, nats, strict=True):
            count = len(tokens.ids) - (len(tokens.start) == 0 and len(tokens.ids) > 0)
            line.nats = of_line[len(of_line) - count :]
            if tokens.spelling is not None:
                line.unknown = int(np.count_nonzero(tokens.spelling))
                line.nats += tokens.spelling[len(tokens.spelling) - count :].astype(np.float32)
            line.mean = sum_of(line.nats) / count / math.log(2) if count else math.nan

    def _carried(self, stream: crnn.TextStream, tokens: _Tokens) -> Array:
        """The surprisal of the tokens after all lines before."""
        if not self._begun:  # with a line end, if there is one
            stream.feed(tokens.start)
            self._begun = True
        if len(tokens.start) == 0:  # nothing precedes the first token
            stream.feed(tokens.ids[:1])
            return stream.surprisal(tokens.ids[1:])
        return stream.surprisal(tokens.ids)

    def _start_of(self, read_end: str) -> tuple[str, Array]:
        """The line end to score a line with that was read with this one, and its ids, which come before the line."""
        if read_end not in self._starts:
            end = next((each for each in (read_end, "\n") if self._has(each)), "")
            self._starts[read_end] = end, self.vocab.encode(end)
        return self._starts[read_end]

    def _has(self, end: str) -> bool:
        """Whether the vocabulary has a line end."""
        if self.vocab.unit == "word":
            return crnn.text.EOS in self.vocab
        return self.vocab.unit == "byte" or all(character in self.vocab for character in end)


def plain_row(line: ScoredLine, reader: LineReader) -> bytes:
    """Bits per token, a tab, and the line as it was read; with a newline in any case."""
    newline = reader.encode("\n")
    end = b"" if line.raw.endswith(newline) else newline
    return _mark(line, reader) + reader.encode(f"{line.mean:.4f}\t") + line.raw + end


def token_rows(line: ScoredLine, reader: LineReader) -> bytes:
    """The number of the line, bits and the token, for each token; for a line without a score, its text."""
    values = [f"{bits:.4f}\t{escaped(token)}" for token, bits in line.tokens()]
    values = values or [f"{line.mean:.4f}\t{escaped(line.text)}"]
    return _mark(line, reader) + reader.encode("".join(f"{line.number}\t{value}\n" for value in values))


def _mark(line: ScoredLine, reader: LineReader) -> bytes:
    """The byte order mark before the first line, if there is one."""
    return reader.mark if line.number == 1 else b""


def json_row(line: ScoredLine, reader: LineReader, *, tokens: bool = False) -> bytes:
    """A JSON object: line, bits, count, unknown, text; with ``tokens`` each token and its bits; if any, the error."""
    content: dict[str, Any] = {
        "line": line.number,
        "bits": _finite(line.mean),
        "count": len(line.nats),
        "unknown": line.unknown,
        "text": line.text,
    }
    if tokens:
        content["tokens"] = [
            {"token": token if isinstance(token, str) else escaped(token), "bits": _finite(bits)}
            for token, bits in line.tokens()
        ]
    if line.error is not None:
        content["error"] = line.error
    return json.dumps(content).encode("ascii") + b"\n"


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
