# SPDX-License-Identifier: MIT
"""``crnn demo``: train on the documentation that is part of every Python installation, then generate text."""

from __future__ import annotations

import argparse
from pathlib import Path

import crnn
from crnn import _demo
from crnn.cli.common import (
    CommandParser,
    add_sampling_flags,
    cores,
    encoder_for,
    file_path,
    sampling_options,
    say,
    write_stream,
)
from crnn.cli.messages import in_words_of
from crnn.cli.results import add_json_flag, show_json
from crnn.training.command import Command
from crnn.training.config import TrainingConfig
from crnn.training.fit import new_trainer
from crnn.training.output import Output
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run"]

PROMPT = "The "


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn demo``."""
    parser.description = (
        "Trains on the documentation topics of this Python installation, then generates text. Needs no file."
    )
    parser.add_argument("--hidden", dest="hidden_size", metavar="HIDDEN", type=int, default=256, help="units")
    parser.add_argument("--epochs", type=int, default=24, help="passes over the text")
    parser.add_argument("--length", type=int, default=400, help="characters to generate at the end")
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")
    parser.add_argument("-o", "--output", type=file_path, help="write the model to this file")
    add_sampling_flags(parser, temperature=0.7)
    add_json_flag(parser, "the text as a JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Train a model, save it if asked to, and generate text with it. Returns the exit status."""
    output: Path | None = arguments.output
    with RunFiles({}, {"output": output}):
        if output is not None and output.exists():
            raise FileExistsError(f"output: expected a new file, got {output}, which exists")
        text = _demo.documentation_prose()
        corpus = crnn.TextCorpus.from_text(text, valid=0.05, test=0.0)
        model = crnn.LanguageModel(corpus.vocab, "tanh", hidden_size=arguments.hidden_size, seed=1)
        say(
            f"{len(text):,} characters of Python's own documentation, {len(corpus.vocab)} different; "
            f"{model.num_parameters:,} parameters, {arguments.threads} threads, {crnn.isa()}"
        )
        _train(model, corpus, arguments)
    if arguments.seed is None:
        arguments.seed = 1  # everybody sees the same text
    chunks = model.iter_generate(PROMPT, arguments.length, **sampling_options(arguments, model.vocab, "utf-8"))
    if arguments.json:
        show_json({"output": output, "seed": arguments.seed, "prompt": PROMPT, "text": "".join(chunks)})
        return 0
    write_stream(encoder_for("utf-8"), PROMPT, chunks)
    return 0


def _train(model: crnn.LanguageModel, corpus: crnn.TextCorpus, arguments: argparse.Namespace) -> None:
    """Train the model, and write it, also if training is interrupted."""
    config = TrainingConfig(
        epochs=arguments.epochs,
        batch_size=16,
        optimizer=crnn.optim.Adam(lr=2e-3),
        schedule=crnn.optim.cosine(),
        clip_norm=0.25,
        threads=arguments.threads,
    )
    output = None if arguments.output is None else Output(arguments.output)

    def wording(note: str) -> str:
        return in_words_of(arguments.parser, note, arguments)

    trainer = new_trainer(model, corpus, config, command=Command(wording=wording, output=output))
    try:
        trainer.train()
    finally:
        say("\n".join(trainer.ending))
