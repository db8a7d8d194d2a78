# SPDX-License-Identifier: MIT
"""What a `train` row trains: a language model's sizes, initial weights and data, the same for all contenders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.layers import GATES

Array = NDArray[Any]
Windows = list[tuple[Array, Array]]
Weights = dict[str, Array]

RATE, BETA1, BETA2, EPS, CLIP = 2e-3, 0.9, 0.999, 1e-8, 5.0


@dataclass(frozen=True)
class TrainingTask:
    """A language model and how it is trained. Without an ``embedding``, ids select rows of W_xh."""

    cell: str
    hidden: int
    layers: int = 1
    embedding: int | None = None
    vocabulary: int = 65
    batch: int = 32
    steps: int = 64

    @property
    def tokens(self) -> int:
        """Tokens of one update."""
        return self.batch * self.steps

    @property
    def windows(self) -> int:
        """The number of windows in the data, which repeat; fewer for large models."""
        return 6400 // self.hidden

    @property
    def products(self) -> float:
        """Multiplications and additions in the matrix products per token: forward, and twice as many backward.

        The input product of the first layer without an embedding is a look-up, and is not counted.
        """
        H = self.hidden
        inputs = (self.embedding or 0) + (self.layers - 1) * H
        return 3 * 2.0 * (GATES[self.cell] * (self.layers * H + inputs) * H + H * self.vocabulary)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters, by crnn's names."""
        V, H, G = self.vocabulary, self.hidden, GATES[self.cell]
        shapes: dict[str, tuple[int, ...]] = {"embedding": (V, self.embedding)} if self.embedding else {}
        for k in range(self.layers):
            D = H if k else self.embedding or V
            shapes |= {f"layer{k}.W_xh": (D, G * H), f"layer{k}.W_hh": (H, G * H), f"layer{k}.b_h": (G * H,)}
            if self.cell == "gru":
                shapes[f"layer{k}.b_hn"] = (H,)
        return shapes | {"W_hy": (H, V), "b_y": (V,)}

    def random_weights(self) -> Weights:
        """Initial weights. The rows that ids select are large, so that an error in any shows in the first loss."""
        rng, weights = np.random.default_rng(1), {}
        for name, shape in self.shapes().items():
            bound = self.hidden**-0.5 if weights else 1.0
            weights[name] = (rng.uniform(-1, 1, shape) * bound).astype(np.float32)
        return weights

    def random_ids(self) -> Array:
        """Random data: it does not change the speed."""
        return np.random.default_rng(0).integers(0, self.vocabulary, self.tokens * self.windows + 1, np.int32)


def windows_of(ids: Array, task: TrainingTask) -> Windows:
    """Pairs (x, y), each (T, B): column b continues across windows."""
    x, y = (part.reshape(task.batch, -1).T for part in (ids[:-1], ids[1:]))
    return [
        (np.ascontiguousarray(x[t : t + task.steps]), np.ascontiguousarray(y[t : t + task.steps]))
        for t in range(0, len(x), task.steps)
    ]


# LSTM 2 x 200 on 10,000 words, as of Zaremba et al. 2014's small model; with longer and wider windows; with more words.
WORDS = TrainingTask("lstm", 200, layers=2, embedding=200, vocabulary=10_000, batch=20, steps=20)
WORDS_WIDE = replace(WORDS, batch=32, steps=35)
WORDS_100K = replace(WORDS, vocabulary=100_000)
