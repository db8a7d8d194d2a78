# SPDX-License-Identifier: MIT
"""``crnn score``: bits per token of each line of standard input, which ``--learn`` learns afterwards."""

from __future__ import annotations

import argparse
import json
import math
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import crnn
from crnn._options import add_flags, build_config, from_flags, options_of
from crnn.cli.common import CommandParser, cores, file_path, load_language_model, say, standard_input, standard_output
from crnn.cli.corpus import add_encoding_flag
from crnn.cli.learning import add_learning_flags, check_learns, check_switch, learning_options
from crnn.cli.line_scores import LineScorer, ScoredLine
from crnn.cli.lines import LineReader
from crnn.cli.typed import escaped
from crnn.models.language import lines as learnt_lines
from crnn.models.language.lines import LineLearner, LinesConfig
from crnn.models.language.rates import with_defaults
from crnn.nn.learning.config import LearnerConfig
from crnn.text.reading import check_encoding
from crnn.text.sources import compression_of
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run", "score_lines"]

TOGETHER = 1024  # lines that have arrived at the same time are computed together, but not more than this
REPORTED = 5  # lines that cannot be scored are reported on standard error, but not more than this


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn score``."""
    parser.description = (
        "Reads lines from standard input. Writes for each line, as soon as it is read, its bits per character (or per "
        "word or byte, the unit of the vocabulary), a tab and the unchanged line: tail -f log | crnn score m. The line "
        "end counts as part of the line. The value is inf if the line has a character outside the vocabulary. If the "
        "vocabulary has <unk>, a token outside costs the bits of <unk> and of its spelling, 8 bits per byte."
    )
    parser.surplus = "lines are read from standard input: crnn score MODEL < FILE"
    parser.add_argument("model", type=file_path, help="a language model of crnn (.safetensors)")
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
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the scores do not depend on it")
    _add_learning(parser)


def _add_learning(parser: CommandParser) -> None:
    """Add ``--learn`` and its options."""
    learning = parser.add_argument_group(
        "learning",
        "With --learn the model learns the lines after they were scored, but for those with the highest scores among "
        "the last ones, and so follows a log that changes. MODEL never changes.",
    )
    learning.add_argument("--learn", action="store_true", help="learn the lines after they were scored")
    overrides = {
        each.name: {"default": None, "help": f"{_lower(each.help)}; {each.default} if not given"}
        for each in options_of(LinesConfig)
    }
    add_flags(learning, LinesConfig, overrides)
    add_learning_flags(learning, learnt_lines.OPTIONS, learnt_lines.DEFAULTS)
    learning.add_argument(
        "--anchor",
        type=file_path,
        metavar="MODEL",
        help="hold the weights near those of this model, if MODEL is one that --save has written; MODEL if not given",
    )
    learning.add_argument(
        "--save",
        type=file_path,
        metavar="FILE",
        help="write the model that was learnt there, when the input ends or the command is interrupted: its weights, "
        "in the precision of MODEL; the next run begins with a new optimizer, and with no scores to compare with",
    )
    learning.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def _lower(text: str) -> str:
    """A help text as the help of a flag begins and ends."""
    return text[:1].lower() + text[1:].removesuffix(".")


def run(arguments: argparse.Namespace) -> int:
    """Score the lines of standard input. Returns the exit status."""
    lines_options = {name: value for name, value in from_flags(arguments, LinesConfig).items() if value is not None}
    options = learning_options(arguments, learnt_lines.OPTIONS, "learn", [*lines_options, "anchor", "save"])
    if arguments.learn and arguments.carry:
        raise ValueError(
            "learn: expected without --carry, with which a line that is not learnt would be the context of the next one"
        )
    check_switch(arguments, "save", ["overwrite"])
    standard_input()  # raises if it is closed, before anything is written
    anchors = [] if arguments.anchor is None else [arguments.anchor]
    with RunFiles({"model": [arguments.model], "anchor": anchors}, {"save": arguments.save}):
        if arguments.save is not None and arguments.save.exists() and not arguments.overwrite:
            raise FileExistsError(
                f"save: expected a new file, got {arguments.save}, which exists; --overwrite replaces it"
            )
        model = load_language_model(arguments.model)
        learner = None
        if arguments.learn:
            check_learns("model", model, arguments.model)
            chosen = with_defaults(options, learnt_lines.DEFAULTS)
            config = build_config(LearnerConfig, {**chosen, "threads": arguments.threads})
            anchor = None if arguments.anchor is None else _in(model.dtype, load_language_model(arguments.anchor))
            learner = LineLearner(model, LinesConfig(**lines_options), config, anchor)
        handled = [] if arguments.save is None else _unhandled_signals()
        try:
            _handle(handled, _end)
            _score(model, arguments, learner)
        finally:
            _handle(handled, signal.SIG_IGN)  # another one does not interrupt saving
            if learner is not None and arguments.save is not None:
                learner.finish()
                learner.model.save(arguments.save)
                say(f"wrote {arguments.save}")
            _handle(handled, signal.SIG_DFL)
    if learner is not None:
        say(
            f"learnt {learner.learnt:,} lines in {learner.updates:,} updates; "
            f"{learner.unusual:,} lines were the first or unusual"
        )
    return 0


def _unhandled_signals() -> list[int]:
    """Those that ask a program to end, or that its terminal was closed, and would end this one at once."""
    if threading.current_thread() is not threading.main_thread():
        return []
    asking = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [each for each in asking if signal.getsignal(each) is signal.SIG_DFL]


def _handle(signals: list[int], handler: Any) -> None:
    for each in signals:
        signal.signal(each, handler)


def _end(signum: int, frame: object) -> None:
    """End as the signal would, but after what was learnt is saved."""
    raise SystemExit(128 + signum)


def _score(model: crnn.LanguageModel, arguments: argparse.Namespace, learner: LineLearner | None) -> None:
    """Score standard input as the arguments say."""
    rows: Rows = token_rows if arguments.tokens else plain_row
    if arguments.json:
        rows = partial(json_row, tokens=arguments.tokens)
    score_lines(
        model,
        standard_input(),
        standard_output(),
        carry=arguments.carry,
        encoding=arguments.encoding,
        rows=rows,
        learner=learner,
        threads=arguments.threads,
    )


def _in(dtype: str, model: crnn.LanguageModel) -> crnn.LanguageModel:
    """A model in another precision, if it has another one."""
    return model if model.dtype == dtype else model.astype(dtype)


Rows = Callable[[ScoredLine, LineReader], bytes]  # what to write for a line


def score_lines(
    model: crnn.LanguageModel,
    lines: BinaryIO,
    out: BinaryIO,
    *,
    carry: bool = False,
    encoding: str | None = None,
    rows: Rows | None = None,
    learner: LineLearner | None = None,
    threads: int = 1,
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
        A float64 model is converted to float32, which is faster and gives the same four decimals, unless it learns.
    lines, out : binary file
        ``out`` is flushed after the lines that have arrived together.
    carry : bool
        Carry the state from line to line.
    encoding : str, optional
        Of the lines; that of the vocabulary if not given. A model of bytes needs none.
    rows : callable, optional
        What to write for a line: `plain_row`, `token_rows` or `json_row`.
    learner : LineLearner, optional
        A learner of ``model``, which scores and learns the lines; not with ``carry``.
    threads : int
    """
    encoding = check_encoding(encoding or model.vocab.encoding)
    reader = LineReader(lines, "latin-1" if model.vocab.unit == "byte" else encoding)
    scored = _in("float32", model) if learner is None else model  # what is learnt keeps its precision
    scorer = LineScorer(scored, reader, carry, learner, threads)
    rows = rows or plain_row
    reported = 0
    begins = True
    for group in reader.groups(1 if carry else TOGETHER):
        module = compression_of(group[0]) if begins else None
        if module is not None:
            say(f"standard input begins as a file that is compressed ({module}), and is scored as it is")
        begins = False
        wrong: list[str] = []
        for line in scorer.score(group):
            out.write(rows(line, reader))
            if line.error is not None and reported + len(wrong) <= REPORTED:
                wrong.append(f"line {line.number}: {line.error}")
        out.flush()
        for problem in wrong:
            reported += 1
            say(f"crnn score: {problem if reported <= REPORTED else 'and so on'}")


def plain_row(line: ScoredLine, reader: LineReader) -> bytes:
    """Bits per token, a tab, and the line as it was read; with a newline in any case."""
    end = b"" if line.raw.endswith(reader.newline) else reader.newline
    return b"".join((_mark(line, reader), reader.encode(f"{line.mean:.4f}\t"), line.raw, end))


def token_rows(line: ScoredLine, reader: LineReader) -> bytes:
    """The number of the line, bits and the token, for each token; for a line without a score, its text."""
    values = [f"{bits:.4f}\t{escaped(token)}" for token, bits in line.tokens()]
    values = values or [f"{line.mean:.4f}\t{escaped(line.text)}"]
    return _mark(line, reader) + reader.encode("".join(f"{line.number}\t{value}\n" for value in values))


def _mark(line: ScoredLine, reader: LineReader) -> bytes:
    """The byte order mark before the first line, if there is one."""
    return reader.mark if line.number == 1 else b""


def json_row(line: ScoredLine, reader: LineReader, *, tokens: bool = False) -> bytes:
    """A JSON object: line, bits, count, unknown, text; with ``tokens`` each token and its bits; if lines are learnt,
    whether this one is; if any, the error.
    """
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
    if line.learnt is not None:
        content["learnt"] = line.learnt
    if line.error is not None:
        content["error"] = line.error
    return json.dumps(content).encode("ascii") + b"\n"


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
