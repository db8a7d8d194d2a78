# SPDX-License-Identifier: MIT
"""The adding problem, T = 300, by an IRNN: relu units whose recurrent weights start as the identity.

Le, Jaitly, Hinton 2015, where IRNN and LSTM learn it at this length and tanh does not. 100 units as there. An IRNN's
gradient neither vanishes nor explodes at the start, which the figures show: per step back its norm is multiplied by 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published import adding
from benchmarks.published.adding import Contender
from benchmarks.published.work import Work

STEPS, HIDDEN, EPOCHS = 300, 100, 4

CONTENDERS = (
    Contender("IRNN", "relu", 1e-3, "identity", "0.1*glorot"),
    Contender("LSTM", "lstm", 1e-2),
    Contender("tanh, orthogonal weights", "tanh", 1e-3),
)


def run(work: Work) -> Iterator[str]:
    """Train on the adding problem. Yields the lines of the report."""
    return adding.compare(work, CONTENDERS, STEPS, HIDDEN, EPOCHS)
