# SPDX-License-Identifier: MIT
"""The results of ``evaluate``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crnn._float_mode import in_ieee_mode
from crnn.checks import Array

LN2 = 0.6931471805599453  # log(2), whatever mode crnn is imported in


def r_squared(values: Array, predicted: Array, weights: Array) -> float:
    """The coefficient of determination R^2 of predictions, the mean of those of all columns.

    Of a column of equal values it is 1 if all are predicted exactly, otherwise 0, as in scikit-learn.

    Parameters
    ----------
    values : array (M, P)
        NaN = missing.
    predicted : array (M, P)
    weights : array (M,)
    """
    scores: list[float] = []
    for column, of_column in zip(values.T, predicted.T, strict=True):
        known = ~np.isnan(column) & (weights > 0)
        y, w = column[known], weights[known]
        if y.size:
            error = float((w * (y - of_column[known]) ** 2).sum())
            spread = float((w * (y - (w * y).sum() / w.sum()) ** 2).sum())
            scores.append(1 - error / spread if spread else float(error == 0))
    return sum(scores) / len(scores) if scores else math.nan


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts classes or tokens.

    Attributes
    ----------
    nats : float
        Mean loss per prediction.
    accuracy : float
        Fraction of the predictions whose most probable class is the target.
    count : int
        Number of predictions.
    """

    nats: float
    accuracy: float
    count: int

    @property
    def loss(self) -> float:
        """The quantity that training minimises: ``nats``."""
        return self.nats

    @property
    @in_ieee_mode
    def bits(self) -> float:
        """Bits per prediction; per character for a character model."""
        return self.nats / LN2

    @property
    @in_ieee_mode
    def perplexity(self) -> float:
        """exp(nats), the usual measure of word models."""
        return math.exp(self.nats) if self.nats < 700 else math.inf


@dataclass(frozen=True)
class SequenceEvaluation(Evaluation):
    """How well a model predicts target sequences.

    Attributes
    ----------
    nats, accuracy : float
        Per target token, given the true tokens before it.
    count : int
        Number of target tokens, ends of sequences included.
    exact_match : float
        Fraction of the sequences that greedy decoding reproduces exactly.
    """

    exact_match: float


@dataclass(frozen=True)
class RegressionEvaluation:
    """How well a model predicts values.

    Attributes
    ----------
    loss : float
        The quantity that training minimises: mean loss of standardised values.
    mse, mae : float
        Mean squared and mean absolute error, in the units of the targets.
    count : int
        Number of values.
    """

    loss: float
    mse: float
    mae: float
    count: int

    @property
    @in_ieee_mode
    def rmse(self) -> float:
        """Square root of the mean squared error, in the units of the targets."""
        return math.sqrt(self.mse)

    @property
    def accuracy(self) -> None:
        """None: not defined for values."""
        return None
