# SPDX-License-Identifier: MIT
"""gunpoint, italy: two data sets of the UCR archive by `SequenceClassifier`; accuracy on the test file.

A bidirectional GRU reads a series a frame at a time. How long frames are, whether each value's change from the one
before goes with it, and what the head sees (pooling) are chosen on the training file alone: five stratified folds,
four times, and of all settings the one with the least cross-entropy on the folds left out. The weight decay was found
in the same way on ItalyPowerDemand's training file, of 0 and 0.3. The test file is read, but used only after that.
Beside it 1-NN, the nearest training series by Euclidean distance: as the archive publishes it (Dau et al. 2019), and
computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn
from benchmarks.published.data import archive
from benchmarks.published.report import show

Array = NDArray[Any]

FOLDS, REPEATS, MODELS = 5, 4, 5
HIDDEN, EPOCHS, DECAY = 16, 60, 0.3
POOLINGS = ("last", "max", "flatten")


@dataclass(frozen=True)
class Setting:
    """What validation chooses."""

    pooling: str
    frame: int  # steps that are read at once
    changes: bool

    def inputs(self, X: Array) -> Array:
        """Series (N, T, 1) as the network reads them: (N, T / frame, D)."""
        if self.changes:
            X = np.concatenate([X, np.diff(X, axis=1, prepend=X[:, :1])], axis=2)
        N, T, D = X.shape
        return X.reshape(N, T // self.frame, self.frame * D)


def gunpoint(seed: int) -> None:
    """GunPoint: 50 series of 150 steps to learn from."""
    run("GunPoint", (3, 6), 0.913, seed)


def italy(seed: int) -> None:
    """ItalyPowerDemand: 67 series of 24 steps to learn from."""
    run("ItalyPowerDemand", (1, 2), 0.955, seed)


def run(name: str, frames: tuple[int, ...], published: float, seed: int) -> None:
    """Choose, train, and print."""
    X, y, test_X, test_y = archive(name)
    setting = choose(frames, X, y, seed)
    show("chosen by cross-validation", f"{setting.pooling}, frames of {setting.frame}, changes: {setting.changes}")
    models = [learn(setting, X, y, seed + k) for k in range(MODELS)]
    x = setting.inputs(test_X)
    accuracies = [model.evaluate(x, test_y).accuracy for model in models]
    likeliest = np.mean([model.predict_proba(x) for model in models], axis=0).argmax(axis=1)
    together = (np.unique(y)[likeliest] == test_y).mean()
    beside = f"{published:.3f}: 1-NN, published"
    show(f"GRU {HIDDEN}, seed {seed}", f"{accuracies[0]:.3f}", beside)
    show(
        f"mean of {MODELS} seeds", f"{np.mean(accuracies):.3f} ({min(accuracies):.3f} to {max(accuracies):.3f})", beside
    )
    show(f"these {MODELS} models together", f"{together:.3f}", beside)
    show("1-NN, computed here", f"{(nearest(X, y, test_X) == test_y).mean():.3f}", beside)


def learn(setting: Setting, X: Array, y: Array, seed: int) -> crnn.SequenceClassifier:
    """A model trained on series X and labels y."""
    x = setting.inputs(X)
    model = crnn.SequenceClassifier(
        x.shape[2],
        classes=np.unique(y),
        hidden_size=HIDDEN,
        bidirectional=True,
        pooling=setting.pooling,
        steps=x.shape[1] if setting.pooling == "flatten" else None,
        seed=seed,
    )
    rates = {"optimizer": crnn.optim.AdamW(lr=1e-2, weight_decay=DECAY), "schedule": crnn.optim.cosine()}
    model.fit(x, y, epochs=EPOCHS, batch_size=8, **rates)
    return model


def choose(frames: tuple[int, ...], X: Array, y: Array, seed: int) -> Setting:
    """Of all settings with these frames, the one with the least cross-entropy on folds left out."""
    rng = np.random.default_rng(seed)
    splits = [stratified(y, rng) for _ in range(REPEATS)]

    def nats(setting: Setting) -> float:
        losses = []
        for number, (fold_of, fold) in enumerate(product(splits, range(FOLDS))):
            out = fold_of == fold
            model = learn(setting, X[~out], y[~out], seed + number)
            losses.append(model.evaluate(setting.inputs(X[out]), y[out]).nats)
        return float(np.mean(losses))

    return min((Setting(*each) for each in product(POOLINGS, frames, (False, True))), key=nats)


def stratified(y: Array, rng: np.random.Generator) -> Array:
    """A fold for each label, the classes spread evenly over the folds."""
    fold_of = np.empty(len(y), int)
    for label in np.unique(y):
        places = rng.permutation(np.flatnonzero(y == label))
        fold_of[places] = np.arange(len(places)) % FOLDS
    return fold_of


def nearest(X: Array, y: Array, test_X: Array) -> Array:
    """The label of the training series at the least Euclidean distance."""
    squares = ((test_X[:, None] - X[None]) ** 2).sum(axis=(2, 3))
    labels: Array = y[squares.argmin(axis=1)]
    return labels
