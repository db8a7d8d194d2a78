# SPDX-License-Identifier: MIT
"""``crnn sample``: generate text with a language model."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterable

import numpy as np

import crnn
from crnn.checks import check_size
from crnn.cli.common import (
    CommandParser,
    add_sampling_flags,
    encoder_for,
    file_path,
    load_language_model,
    sampling_options,
    say,
    standard_output,
    typed,
    write_stream,
)
from crnn.cli.results import add_json_flag, show_json
from crnn.cli.typed import ESCAPES, escaped, typed_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn sample``."""
    parser.description = (
        "Writes the prompt and its continuation to standard output: in the encoding of the model's text, or of the "
        "terminal. A model of bytes writes bytes."
    )
    parser.surplus = "--prompt TEXT gives a text to continue"
    parser.add_argument("model", type=file_path, help="a language model of crnn (.safetensors)")
    parser.add_argument("--prompt", default="", help=f"text to continue; {ESCAPES}")
    parser.add_argument("--length", type=int, default=500, help="tokens to generate")
    parser.add_argument("-n", "--samples", type=int, default=1, help="how many texts; the seed rises by 1 for each")
    parser.add_argument("--separator", default=r"---\n", help="written between two texts")
    add_sampling_flags(parser)
    parser.add_argument("--stop", action="append", help=f"stop before this text is generated; {ESCAPES}")
    parser.add_argument("--encoding", help="encoding of the output, that of the model's text if not given")
    add_json_flag(parser, "each text as a JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Write the prompt and the generated text to standard output. Returns the exit status."""
    samples = check_size("samples", arguments.samples)
    model = load_language_model(arguments.model)
    vocab = model.vocab
    encoding = arguments.encoding or vocab.encoding
    encode = encoder_for(encoding)
    separator = typed_text("separator", arguments.separator, encoding)
    prompt = typed("prompt", arguments.prompt, vocab, encoding)
    _warn_of_unknown(prompt, vocab)
    options = sampling_options(arguments, vocab, encoding)
    if arguments.stop is not None:
        if len(arguments.stop) > 1:
            raise ValueError(f"stop: expected one text, got {len(arguments.stop)}")
        options["stop"] = typed("stop", arguments.stop[0], vocab, encoding)
        _warn_if_impossible(options["stop"], vocab)
    generate = model.iter_generate_bytes if vocab.unit == "byte" else model.iter_generate
    for number in range(samples):
        if number and arguments.seed is not None:
            options["seed"] = arguments.seed + number
        chunks = generate(prompt, arguments.length, **options)
        if arguments.json:
            show_json({"seed": options["seed"]} | _sampled(prompt, chunks))
            continue
        if number:
            standard_output().write(encode(separator))
        write_stream(encode, prompt, chunks)
    return 0


def _sampled(prompt: str | bytes, chunks: Iterable[str | bytes]) -> dict[str, str]:
    """Prompt and generated text as JSON has them. Bytes are text with U+FFFD for what is not UTF-8, and base64."""
    if isinstance(prompt, str):
        return {"prompt": prompt, "text": "".join(map(str, chunks))}
    drawn = b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))
    texts = {"prompt": prompt.decode("utf-8", "replace"), "text": drawn.decode("utf-8", "replace")}
    return texts | {"prompt_base64": base64.b64encode(prompt).decode(), "text_base64": base64.b64encode(drawn).decode()}


def _warn_of_unknown(prompt: str | bytes, vocab: crnn.Vocab) -> None:
    """Print a warning if the model does not know words of the prompt."""
    unknown = np.count_nonzero(vocab.spelling(prompt, vocab.encode(prompt, "prompt")))
    if unknown:
        say(f"--prompt: {unknown} {vocab.unit}{'s are' if unknown > 1 else ' is'} not in the vocabulary, read as <unk>")


def _warn_if_impossible(stop: str | bytes | None, vocab: crnn.Vocab) -> None:
    """Print a warning if the text to stop at cannot be generated."""
    if not isinstance(stop, str):
        return
    if vocab.unit == "word":
        missing = [part for part in stop.split() if not any(part in str(token) for token in vocab.tokens)]
    else:
        missing = [character for character in stop if character not in vocab]
    if missing:
        say(f"--stop: never generated, because the vocabulary has no '{escaped(missing[0])}'")
