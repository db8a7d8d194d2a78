# SPDX-License-Identifier: MIT
"""Shared by the tasks of texts: train a language model, evaluate the weights of the best epoch by validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.work import Work

Ids = NDArray[Any]

STREAMS = 8  # side by side, each from the zero state, when a text is evaluated

# Unit of a task: its name in the report, and what it makes of nats.
UNITS: Mapping[str, tuple[str, Callable[[float], float]]] = {
    "perplexity": ("perplexity", math.exp),
    "bits": ("bits", lambda nats: nats / math.log(2)),
    "nats": ("nats", lambda nats: nats),
}


@dataclass(frozen=True)
class Text:
    """A text in three parts as ids; ``test`` is None if what is published is a result on validation data."""

    vocab: crnn.Vocab
    train: Ids
    valid: Ids
    test: Ids | None = None


@dataclass(frozen=True)
class Setting:
    """How a language model is made and trained: arguments of `crnn.LanguageModel` and of its ``fit``."""

    unit: str
    model: Mapping[str, Any]
    fit: Mapping[str, Any]

    def learn(self, work: Work, text: Text) -> crnn.LanguageModel:
        """The trained model."""
        model = crnn.LanguageModel(text.vocab, seed=work.seed, **self.model)
        options = {"patience": None, "seed": work.seed, **self.fit}
        work.train("model", model, text.train, valid=text.valid, **options)
        return model


def run(work: Work, text: Text, setting: Setting, *, block: int | None = None) -> Iterator[str]:
    """Train on a text and report its result. Yields the lines of the report.

    ``block``: evaluate the validation data also in blocks of so many tokens, each from the zero state, and report
    that. It is how models with a fixed context are evaluated, and worse than to carry the state.
    """
    unit, of_nats = UNITS[setting.unit]
    model = setting.learn(work, text)
    yield repr(model)
    log = model.log
    assert log is not None
    assert log.best is not None
    yield f"best epoch: {log.best['epoch']} of {log.epochs}"
    valid = of_nats(model.evaluate(text.valid, batch_size=STREAMS, threads=work.threads).loss)
    yield f"validation {valid:.4f} {unit}"
    if block is not None:
        alone = of_nats(loss_in_blocks(model, text.valid, block, work.threads))
        yield f"validation in blocks of {block} {alone:.4f} {unit}"
        work.report(f"validation {valid:.4f} {unit}; in blocks of {block} without the text before {alone:.4f}", alone)
    elif text.test is not None:
        test = of_nats(model.evaluate(text.test, threads=work.threads).loss)
        digits = 1 if setting.unit == "perplexity" else 3
        yield f"test {test:.4f} {unit}"
        work.report(f"test {test:.{digits}f} {unit}, validation {valid:.{digits}f}", test)
    else:
        work.report(f"validation {valid:.4f} {unit}", valid)


def loss_in_blocks(model: crnn.LanguageModel, ids: Ids, block: int, threads: int) -> float:
    """Mean loss in nats of the consecutive blocks of a text, each from the zero state; what is left is not counted."""
    count = (len(ids) - 1) // block
    x = np.asarray(ids[: count * block]).reshape(count, block).T
    y = np.asarray(ids[1 : count * block + 1]).reshape(count, block).T
    sums = [model.losses(x[:, i : i + 16], y[:, i : i + 16], threads=threads)[0].sum() for i in range(0, count, 16)]
    return float(np.sum(sums)) / (count * block)
