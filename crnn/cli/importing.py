# SPDX-License-Identifier: MIT
"""``crnn import``: read a model from a file of another program."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import crnn
from crnn.cli.common import CommandParser, add_output_flags, check_output, file_path, load_language_model, say
from crnn.cli.formats import add_format_flags, called, format_of, options_of
from crnn.cli.results import add_json_flag, show_json
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run"]

KINDS = ("RNN", "LanguageModel", "SequenceClassifier", "SequenceTagger", "SequenceRegressor")


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn import``."""
    parser.description = (
        "Reads a model from a file of another program and writes it as a model of crnn. What crnn cannot express is "
        "refused by name; nothing is left out."
    )
    parser.add_argument("file", type=file_path, help="its name determines the format")
    add_output_flags(parser, "where to write the model (.safetensors)", required=True)
    add_format_flags(parser, "load")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        metavar="KIND",
        help=f"what to make of it, if the file leaves that open: {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--vocab",
        type=file_path,
        metavar="FILE",
        help="vocabulary of a language model: that of a language model of crnn, or a JSON list of its tokens (.json)",
    )
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the model. Returns the exit status."""
    output: Path = arguments.output
    format, options = format_of("file", arguments.file, arguments.format, written=False), options_of(arguments)
    vocab: Path | None = arguments.vocab
    reads = {"file": [arguments.file], "vocab": [] if vocab is None else [vocab]}
    with RunFiles(reads, {"output": output}):
        check_output(arguments)
        kind = format.kinds.get(arguments.kind, arguments.kind)
        given = {"kind": kind, "vocab": None if vocab is None else _vocabulary(vocab)}
        options |= {name: value for name, value in given.items() if value is not None}
        model = _without_sound(called(format.function("load"), arguments.file, options=options), arguments.file)
        model.save(output)
    say(f"{model}\nwrote {output}, {output.stat().st_size:,} bytes")
    if arguments.json:
        facts = {"output": output, "format": format.name, "kind": type(model).__name__}
        show_json(facts | {"bytes": output.stat().st_size, "config": model.config()})
    return 0


def _vocabulary(path: Path) -> crnn.Vocab:
    """The vocabulary of a language model, or of a list of tokens. Raises ValueError."""
    if path.suffix.lower() != ".json":
        return load_language_model(path).vocab
    try:
        tokens = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"vocab: expected a JSON list of tokens, got {path}: {error}") from None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"vocab: expected a JSON list of strings, got another value in {path}")
    chars = all(len(token) == 1 or token == crnn.text.UNKNOWN for token in tokens)
    return crnn.Vocab(tuple(tokens), "char" if chars else "word")


def _without_sound(found: Any, path: Path) -> Any:
    """The model, of an audio model too. Raises ValueError for one that is more than its model."""
    if not hasattr(found, "sample_rate"):
        return found
    if found.skip:
        raise ValueError(
            f"{path}: expected a model alone, got one whose input is added to its output, which a model file does not "
            "say; crnn.interop reads it in Python as an AudioModel"
        )
    if found.sample_rate is not None:
        say(f"{path}: it is for {found.sample_rate:g} samples per second, which a model file does not say")
    return found.model
