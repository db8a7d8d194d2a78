# SPDX-License-Identifier: MIT
"""Shared by the tasks of the UCR archive: a bidirectional layer on a series and its changes, compared with 1-NN.

Settings are chosen by cross-validation on the training file: five stratified folds, two seeds; the candidate
with the smallest mean validation loss is chosen, since accuracies of so few series are coarse. `--choose` shows it. The
test file is only used for the final figure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.data import find, read_ts
from benchmarks.published.work import Work

Array = NDArray[Any]

PARTS, CHOICE_SEEDS, REPORT_SEEDS = 5, 2, 5


@dataclass(frozen=True)
class Setting:
    """How a series is classified. If ``changes``, x[t] - x[t-1] is also an input."""

    hidden_size: int
    pooling: str
    changes: bool
    dropout: float = 0.0
    cell: str = "gru"
    epochs: int = 60
    lr: float = 1e-2
    batch_size: int = 8
    weight_decay: float = 0.0

    def inputs(self, x: Array) -> Array:
        """The inputs (N, T, 1 or 2) of the network for series (N, T, 1)."""
        return np.concatenate([x, np.diff(x, axis=1, prepend=x[:, :1])], axis=2) if self.changes else x

    def learn(self, x: Array, labels: Array, seed: int) -> crnn.SequenceClassifier:
        """Train a classifier on series (N, T, 1) and their labels (N,)."""
        x = self.inputs(x)
        model = crnn.SequenceClassifier(
            x.shape[2],
            classes=sorted(set(labels.tolist())),
            hidden_size=self.hidden_size,
            cell=self.cell,
            bidirectional=True,
            dropout=self.dropout,
            pooling=self.pooling,
            steps=x.shape[1] if self.pooling == "flatten" else None,
            seed=seed,
        )
        model.fit(
            x,
            labels,
            valid=None,
            epochs=self.epochs,
            batch_size=self.batch_size,
            clip_norm=1.0,
            optimizer=crnn.optim.AdamW(lr=self.lr, weight_decay=self.weight_decay),
            schedule=crnn.optim.cosine(warmup=20),
            seed=seed,
        )
        return model


def nearest(x: Array, labels: Array, wanted: Array) -> Array:
    """Labels of the nearest neighbours by Euclidean distance."""
    distances = [((x - series) ** 2).sum(axis=(1, 2)) for series in wanted]
    return labels[np.argmin(distances, axis=1)]


def parts_of(labels: Array) -> Array:
    """The number of the fold of each series; stratified by class."""
    rng, part = np.random.default_rng(0), np.empty(len(labels), int)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        part[members] = np.arange(len(members)) % PARTS
    return part


def cross_validate(setting: Setting, x: Array, labels: Array, seed: int) -> tuple[float, float]:
    """Mean loss and accuracy on the held-out folds."""
    part = parts_of(labels)
    nats, right = 0.0, 0.0
    for left_out in range(PARTS):
        train, valid = part != left_out, part == left_out
        for k in range(seed, seed + CHOICE_SEEDS):
            found = setting.learn(x[train], labels[train], k).evaluate(setting.inputs(x[valid]), labels[valid])
            nats += found.nats * found.count
            right += found.accuracy * found.count
    return nats / (CHOICE_SEEDS * len(x)), right / (CHOICE_SEEDS * len(x))


def choose(name: str, candidates: tuple[Setting, ...], seed: int) -> Iterator[str]:
    """Compare the candidates by cross-validation on the training part. Yields the lines of the report."""
    x, labels = read_ts(find(name, f"{name}_TRAIN.ts"))
    results = []
    for setting in candidates:
        nats, accuracy = cross_validate(setting, x, labels, seed)
        results.append(nats)
        yield f"{nats:.4f} nats, accuracy {accuracy:.3f}  {setting}"
    yield f"chosen: {candidates[int(np.argmin(results))]}"


def run(name: str, setting: Setting, published: float, work: Work) -> Iterator[str]:
    """Train with several seeds and classify the test series. Yields the lines of the report."""
    train = read_ts(find(name, f"{name}_TRAIN.ts"))
    x, labels = read_ts(find(name, f"{name}_TEST.ts"))
    yield f"{'':26}{'accuracy':>9}{'s':>6}"
    yield f"{'1-NN (published)':26}{published:9.3f}"
    yield f"{'1-NN, computed here':26}{(nearest(*train, x) == labels).mean():9.3f}"
    accuracies, probabilities = [], []
    for k in range(work.seed, work.seed + REPORT_SEEDS):
        started = time.perf_counter()
        model = setting.learn(*train, k)
        accuracies.append(model.evaluate(setting.inputs(x), labels).accuracy)
        probabilities.append(model.predict_proba(setting.inputs(x)))
        yield f"{f'seed {k}':26}{accuracies[-1]:9.3f}{time.perf_counter() - started:6.1f}"
    yield f"{f'mean of {REPORT_SEEDS} seeds':26}{np.mean(accuracies):9.3f}"
    together = np.array(model.classes)[np.mean(probabilities, axis=0).argmax(axis=1)]
    accuracy = (together == labels).mean()
    yield f"{'their mean probability':26}{accuracy:9.3f}"
    work.report(f"accuracy {accuracy:.3f}; mean of {REPORT_SEEDS} seeds {np.mean(accuracies):.3f}")
