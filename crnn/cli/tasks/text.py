# SPDX-License-Identifier: MIT
"""``crnn train --task text``: a language model of text files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from crnn.cli.common import CommandParser, say
from crnn.cli.configuration import given
from crnn.cli.corpus import add_corpus_flags, add_text_argument
from crnn.cli.network import add_network_flags, corpus_and_model, load_start
from crnn.cli.presets import add_preset_flag
from crnn.cli.tasks import Prepared
from crnn.training.config import LEAST_EPOCHS, LEAST_UPDATES, TrainingConfig

TRAINING_FLAGS: dict[str, dict[str, Any]] = {
    "epochs": {
        "help": f"passes over the text; if not given as many as make {LEAST_UPDATES:,} updates, at least {LEAST_EPOCHS}"
    },
    "batch_size": {"help": "parallel streams that the text is split into"},
}
WITHOUT: tuple[str, ...] = ()


def add_arguments(parser: CommandParser) -> None:
    """Add the text, and the options of corpus and network."""
    parser.usage = "%(prog)s [options] TEXT [TEXT ...] -o OUTPUT"  # the list of all options hides what was wrong
    add_preset_flag(parser)
    add_text_argument(parser, "to train on")
    add_corpus_flags(parser.add_argument_group("text"))
    add_network_flags(parser.add_argument_group("network"))


def reads(arguments: argparse.Namespace) -> dict[str, list[Path]]:
    """The text, and the model to start from."""
    return {"text": arguments.text, "init_from": [arguments.init_from] if arguments.init_from else []}


def writes(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """The ids of the text."""
    return {"ids_path": arguments.ids_path}


def check_start(arguments: argparse.Namespace) -> None:
    """Raise ValueError unless a file that ids will replace holds ids."""
    path: Path | None = arguments.ids_path
    if path is None or not path.exists():
        return
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
        fits = ids.ndim == 1 and ids.dtype.kind == "u"
    except (ValueError, EOFError):  # not written by NumPy
        fits = False
    if not fits:
        raise ValueError(f"ids_path: expected a new file, or ids to replace, got {path}")


def prepare(arguments: argparse.Namespace, config: TrainingConfig) -> Prepared:
    """The corpus, and a new model of it or that of ``--init-from``."""
    tables = [path for path in arguments.text if path.suffix.lower() in (".csv", ".tsv")]
    if tables and not given(arguments, ["task"]):
        say(f"{tables[0]} is learnt as text; --task classify, and other tasks, read a table")
    corpus, model = corpus_and_model(arguments, load_start(arguments))
    return Prepared(model, corpus, test=corpus.test if len(corpus.test) > 1 else None)


def described(evaluation: Any) -> str:
    """An evaluation on test data as text."""
    return f"{evaluation.nats:.4f} nats, {evaluation.bits:.4f} bits, perplexity {evaluation.perplexity:.2f}"
