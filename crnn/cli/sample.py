# SPDX-License-Identifier: MIT
"""``crnn sample``: generate text with a language model."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import crnn
from crnn.checks import check_size
from crnn.cli.common import (
    Subparsers,
    add_sampling_flags,
    encoder_for,
    load_language_model,
    new_subcommand,
    sampling_options,
    say,
    standard_output,
    typed,
    write_stream,
)
from crnn.cli.typed import ESCAPES, escaped, typed_text

__all__ = ["add_subcommand"]


def add_subcommand(subparsers: Subparsers) -> None:
    """Add ``crnn sample`` to the parsers."""
    sample = new_subcommand(
        subparsers,
        "sample",
        run,
        "generate text with a language model",
        "Writes the prompt and its continuation to standard output: in the encoding of the model's text, or of the "
        "terminal. A model of bytes writes bytes.",
    )
    sample.add_argument("model", type=Path)
    sample.add_argument("--prompt", default="", help=f"text to continue; {ESCAPES}")
    sample.add_argument("--length", type=int, default=500, help="tokens to generate")
    sample.add_argument("-n", "--samples", type=int, default=1, help="how many texts; the seed rises by 1 for each")
    sample.add_argument("--separator", default=r"---\n", help="written between two texts")
    add_sampling_flags(sample)
    sample.add_argument("--stop", action="append", help=f"stop before this text is generated; {ESCAPES}")
    sample.add_argument("--encoding", help="encoding of the output, that of the model's text if not given")


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
        if number:
            standard_output().write(encode(separator))
            if arguments.seed is not None:
                options["seed"] = arguments.seed + number
        write_stream(encode, prompt, generate(prompt, arguments.length, **options))
    return 0


def _warn_of_unknown(prompt: str | bytes, vocab: crnn.Vocab) -> None:
    """Say so if the model does not know words of the prompt."""
    unknown = np.count_nonzero(vocab.spelling(prompt, vocab.encode(prompt, "prompt")))
    if unknown:
        say(f"--prompt: {unknown} {vocab.unit}{'s are' if unknown > 1 else ' is'} not in the vocabulary, read as <unk>")


def _warn_if_impossible(stop: str | bytes | None, vocab: crnn.Vocab) -> None:
    """Say so if the text to stop at cannot be generated."""
    if not isinstance(stop, str):
        return
    if vocab.unit == "word":
        missing = [part for part in stop.split() if not any(part in str(token) for token in vocab.tokens)]
    else:
        missing = [character for character in stop if character not in vocab]
    if missing:
        say(f"--stop: never generated, because the vocabulary has no '{escaped(missing[0])}'")
