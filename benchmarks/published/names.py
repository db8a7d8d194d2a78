# SPDX-License-Identifier: MIT
"""First names by letters, as makemore: each from a start symbol to a stop symbol, 27 symbols in all.

makemore holds out 1,000 of the 32,032 names at random, and reports the lowest loss on them. Here the seed holds out
1,000 to validate on, by which the epoch is chosen, and another 1,000 for the test, on which the model is evaluated
once. Since 1,000 names are few, results of two seeds differ by about 0.01 nats through the choice of names alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.data import find
from benchmarks.published.work import Work

Array = NDArray[Any]

HELD_OUT, SYMBOLS = 1_000, 27  # symbol 0 stands for start and stop
EPOCHS, BATCH, RATE = 10, 64, 3e-3


def make(names: Sequence[str]) -> tuple[list[Array], list[Array]]:
    """Ids of the symbols before each prediction, and of those predicted: per name the start and its letters, and
    its letters and the stop."""
    letters = [np.array([ord(letter) - ord("a") + 1 for letter in name]) for name in names]
    return [np.append(0, ids) for ids in letters], [np.append(ids, 0) for ids in letters]


def split(names: Sequence[str], seed: int) -> tuple[list[str], list[str], list[str]]:
    """Names to learn from, to validate on, and to test."""
    order = np.random.default_rng(seed).permutation(len(names))
    shuffled = [names[i] for i in order]
    return shuffled[: -2 * HELD_OUT], shuffled[-2 * HELD_OUT : -HELD_OUT], shuffled[-HELD_OUT:]


def run(work: Work) -> Iterator[str]:
    """Train on the names. Yields the lines of the report."""
    names = find("names.txt").read_text(encoding="utf-8").split()
    train, valid, test = (make(part) for part in split(names, work.seed))
    model = crnn.SequenceTagger(
        SYMBOLS,
        SYMBOLS,
        hidden_size=256,
        num_layers=2,
        cell="lstm",
        embedding_size=64,
        dropout=0.3,
        seed=work.seed,
    )
    work.train(
        "model",
        model,
        *train,
        valid=valid,
        patience=None,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=crnn.optim.Adam(lr=RATE),
        precision="bf16",
        seed=work.seed,
    )
    validation, result = (model.evaluate(*part, threads=work.threads).nats for part in (valid, test))
    yield f"validation {validation:.4f} nats; test {result:.4f} nats"
    work.report(f"test {result:.3f} nats, validation {validation:.3f}", result)
