# SPDX-License-Identifier: MIT
"""What `evaluate` finds."""

from __future__ import annotations

import math
from dataclasses import dataclass

LN2 = math.log(2.0)


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts classes or tokens: means over ``count`` predictions."""

    nats: float
    accuracy: float
    count: int

    @property
    def loss(self) -> float:
        """What training lowers: ``nats``."""
        return self.nats

    @property
    def bits(self) -> float:
        """Bits per prediction; per character for a character model."""
        return self.nats / LN2

    @property
    def perplexity(self) -> float:
        """exp(nats): the usual figure for words."""
        return math.exp(self.nats) if self.nats < 700 else math.inf


@dataclass(frozen=True)
class SequenceEvaluation(Evaluation):
    """How well a model writes sequences: means over their ``count`` tokens, each predicted from the right ones before
    it, and the share of sequences that it writes without a mistake when left to itself."""

    exact_match: float


@dataclass(frozen=True)
class RegressionEvaluation:
    """How well a model predicts values: means over ``count`` of them, in their own units."""

    loss: float  # what training lowers, of scaled values
    mse: float
    mae: float
    count: int

    @property
    def rmse(self) -> float:
        """Square root of the mean squared error: in the values' own units."""
        return math.sqrt(self.mse)

    @property
    def accuracy(self) -> None:
        """Values have none."""
        return None
