# SPDX-License-Identifier: MIT
"""The network that ``crnn train`` trains: its flags, and the model they describe, new or with another one's weights."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

import crnn
from crnn._options import add_flags, from_flags
from crnn.checks import DTYPES
from crnn.cli.common import file_path, load_language_model
from crnn.cli.configuration import stated as stated_options
from crnn.cli.corpus import corpus_from
from crnn.cli.learning import check_learns
from crnn.cli.sizes import say_sizes
from crnn.cli.typed import Sizes
from crnn.models.language.options import LANGUAGE_TYPES, LanguageConfig
from crnn.models.outputs.clusters import suggested_cutoffs
from crnn.nn.cells import CELLS
from crnn.nn.config import DROPOUTS, NetworkConfig

__all__ = ["add_network_flags", "corpus_and_model", "load_start"]

DEFAULTS = {name: each.default for name, each in inspect.signature(crnn.LanguageModel).parameters.items()}
# The flags of `LanguageModel`'s options whose help, type or meaning differs: one size instead of a list, 0 for None.
# The defaults are those of `LanguageModel`.
NETWORK_FLAGS: dict[str, dict[str, Any]] = {
    "hidden_size": {
        "type": Sizes(),
        "default": DEFAULTS["hidden_size"],
        "help": "H: units of every layer, or of each, as 512,256",
    },
    "num_layers": {"help": "number of layers: 1, or as many as --hidden has sizes, if not given"},
    "cell": {"choices": list(CELLS), "default": DEFAULTS["cell"], "help": "kind of recurrent cell"},
    "embedding_size": {"help": "size of the token embedding; one-hot tokens if not given, or 0"},
    "dtype": {"choices": list(DTYPES), "help": "precision"},
    "input_init": {
        "default": None,
        "help": "as --recurrent-init, for W_xh; glorot if not given, or unit_variance for one-hot tokens",
    },
}
SHOWN = 5  # tokens that a message names


def add_network_flags(net: argparse._ArgumentGroup) -> None:
    """Add the flags of `NetworkConfig`, and those for starting from another model's weights."""
    add_flags(net, NetworkConfig, NETWORK_FLAGS, without=("bidirectional",))
    add_flags(net, LanguageConfig)
    net.add_argument("--tie-weights", action="store_true", help="use the embedding as the output weights")
    net.add_argument(
        "--adaptive-softmax",
        metavar="CUTOFFS",
        help="train faster with many words: the tokens before the first cutoff, the most frequent, are scored as "
        "always, those of each range after it by smaller matrices; such as 2000,10000, or auto for a rule of thumb",
    )
    net.add_argument(
        "--init-from",
        type=file_path,
        metavar="MODEL",
        help="start from the weights of this model or checkpoint; what is not given here, also --unit, is as there",
    )
    net.add_argument(
        "--extend-vocab",
        action="store_true",
        help="with --init-from: add the tokens of the text that MODEL does not have, with new weights",
    )


def load_start(arguments: argparse.Namespace) -> crnn.LanguageModel | None:
    """The model of ``--init-from``, with the dropout that is given here; None without the flag.

    Raises ValueError if another flag contradicts it.
    """
    path: Path | None = arguments.init_from
    if path is None:
        if arguments.extend_vocab:
            raise ValueError("extend_vocab: expected init_from=MODEL with it, got none")
        return None
    if arguments.min_count != 1 or arguments.max_size is not None or arguments.unknown:
        raise ValueError("min_count, max_size, unknown: not together with init_from, whose vocabulary is complete")
    model = load_language_model(path)
    check_learns("init_from", model, path)
    config, wanted = model.config(), _options(arguments)
    free = {*DROPOUTS, "variational_dropout", *LANGUAGE_TYPES}  # weights do not depend on them
    stated = stated_options(arguments, [*wanted, "tie_weights", "adaptive_softmax", "unit"])
    config.setdefault("adaptive_softmax", None)
    if wanted["adaptive_softmax"] is True:
        wanted["adaptive_softmax"] = suggested_cutoffs(len(model.vocab), model.net.output_size)
    if "unit" in stated and arguments.unit != model.vocab.unit:
        raise ValueError(f"unit: expected {model.vocab.unit}, as in {path}, got {arguments.unit}")
    for name in stated - {"unit", *free}:
        if config[name] != wanted[name]:
            raise ValueError(f"{name}: expected {config[name]!r}, as in {path}, got {wanted[name]!r}")
    arguments.unit = model.vocab.unit
    dropout = {name: wanted[name] for name in stated & free}
    if not dropout:
        return model
    tensors, header = model.contents()
    return crnn.LanguageModel.from_contents(header | {"config": config | dropout}, tensors)


def corpus_and_model(
    arguments: argparse.Namespace, start: crnn.LanguageModel | None
) -> tuple[crnn.TextCorpus, crnn.LanguageModel]:
    """The corpus to learn from, and the model to train on it. ``start``: what `load_start` returned."""
    if start is None:
        corpus, options = corpus_from(arguments), _options(arguments)
        say_sizes(arguments, corpus, options)
        return corpus, crnn.LanguageModel(corpus.vocab, **options, seed=arguments.seed)
    replaces = start.vocab.unknown_id is not None and not arguments.extend_vocab  # new tokens by <unk>
    corpus = corpus_from(arguments, start.vocab, extend_vocab=not replaces)
    new = corpus.vocab.tokens[len(start.vocab) :]
    if new and not arguments.extend_vocab:
        more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
        raise ValueError(
            f"text: expected only {corpus.vocab.unit}s that {arguments.init_from} has, got "
            f"{', '.join(map(repr, new[:SHOWN]))}{more}; --extend-vocab adds them to the model"
        )
    say_sizes(arguments, corpus, start.config())
    return corpus, start.extended(corpus.vocab, seed=arguments.seed) if new else start


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `LanguageModel` that the flags describe."""
    options = from_flags(arguments, NetworkConfig) | from_flags(arguments, LanguageConfig)
    options |= {"tie_weights": arguments.tie_weights}
    options["adaptive_softmax"] = _cutoffs(arguments.adaptive_softmax)
    return options | {"embedding_size": options["embedding_size"] or None}


def _cutoffs(text: str | None) -> list[int] | bool | None:
    """The option of `LanguageModel` that a flag's value means."""
    if text is None or text == "auto":
        return None if text is None else True
    try:
        return [int(cutoff) for cutoff in text.split(",")]
    except ValueError:
        raise ValueError(
            f"adaptive_softmax: expected integers separated by commas, such as 2000,10000, or auto, got {text!r}"
        ) from None
