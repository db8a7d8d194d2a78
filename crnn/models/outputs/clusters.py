# SPDX-License-Identifier: MIT
"""Clusters: how adaptive softmax divides a vocabulary, and the parameters that this gives. Grave et al. 2016.

    ids          0 .. c_1 - 1           c_1 .. c_2 - 1            ...   c_k .. V - 1        c_1, ..., c_k: the cutoffs
    scored by    W_hy, b_y              tail0.W_hp, tail0.W_py          tail{k-1}.W_hp, tail{k-1}.W_py

W_hy has a column for each of the first c_1 tokens, the most frequent, and one for each tail.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from crnn.nn.params import Shapes

__all__ = ["LEAST_VOCAB", "Tail", "adaptive_shapes", "check_cutoffs", "suggested_cutoffs", "tails_of"]

DIVISOR = 4  # a tail's projection is so many times smaller than that of the tail before, the first than H
LEAST_VOCAB = 1000  # with fewer tokens a full softmax takes no more time


@dataclass(frozen=True)
class Tail:
    """The tokens first .. stop - 1, which are scored through a projection of so many units."""

    number: int
    first: int
    stop: int
    projection: int

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.stop - self.first

    @property
    def names(self) -> tuple[str, str]:
        """Of the parameters (H, projection) and (projection, size)."""
        return f"tail{self.number}.W_hp", f"tail{self.number}.W_py"


def check_cutoffs(value: Any, V: int, H: int) -> list[int] | None:
    """The cutoffs that the option ``adaptive_softmax`` of a model with V tokens and H units on top means.

    Raises TypeError and ValueError.
    """
    if value is None or value is False:
        return None
    if value is True:
        return suggested_cutoffs(V, H)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str | bytes | bytearray | memoryview) or not isinstance(value, Sequence):
        raise TypeError(f"adaptive_softmax: expected cutoffs such as [2000, 10000], True or None, got {value!r:.100}")
    try:
        cutoffs = [operator.index(cutoff) for cutoff in value if not isinstance(cutoff, bool | np.bool_)]
    except TypeError:
        cutoffs = []
    rising = all(a < b for a, b in pairwise([0, *cutoffs, V]))
    if not cutoffs or len(cutoffs) < len(value) or not rising:
        raise ValueError(
            f"adaptive_softmax: expected rising integers from 1 to {V - 1}, the vocabulary having {V} tokens, got "
            f"{value!r:.100}"
        )
    most = _most_tails(H)
    if len(cutoffs) > most:
        raise ValueError(
            f"adaptive_softmax: expected at most {most} cutoffs for {H} units in the top layer, since each divides the "
            f"size of the projection by {DIVISOR}, got {len(cutoffs)}"
        )
    return cutoffs


def suggested_cutoffs(V: int, H: int) -> list[int]:
    """Cutoffs for words, whose frequencies fall about as 1 / rank.

    Raises ValueError for a small vocabulary, or a top layer too small for a projection.
    """
    most = _most_tails(H)
    if V < LEAST_VOCAB:
        raise ValueError(
            f"adaptive_softmax: expected a vocabulary of at least {LEAST_VOCAB} tokens for the rule of thumb, since a "
            f"full softmax is as fast for fewer, got {V}"
        )
    # The products of a row are about smallest there, and nine in ten targets are before the second cutoff.
    cutoffs = [min(V // 10, 2000), min(V // 2, 20_000)] if V > 5000 else [V // 5]
    return cutoffs[:most]


def _most_tails(H: int) -> int:
    """How many tails have a projection of at least one unit. Raises ValueError if none has."""
    if H < DIVISOR:
        raise ValueError(f"adaptive_softmax: expected at least {DIVISOR} units in the top layer, got {H}")
    count = 0
    while DIVISOR ** (count + 1) <= H:
        count += 1
    return count


def tails_of(cutoffs: Sequence[int], V: int, H: int) -> list[Tail]:
    """The tails of a model with V tokens and H units on top."""
    borders = pairwise([*cutoffs, V])
    return [Tail(i, first, stop, H // DIVISOR ** (i + 1)) for i, (first, stop) in enumerate(borders)]


def adaptive_shapes(cutoffs: Sequence[int], V: int, H: int) -> Shapes:
    """Names and shapes of the parameters."""
    S = cutoffs[0] + len(cutoffs)
    shapes: dict[str, tuple[int, ...]] = {"W_hy": (H, S), "b_y": (S,)}
    for tail in tails_of(cutoffs, V, H):
        down, up = tail.names
        shapes |= {down: (H, tail.projection), up: (tail.projection, tail.size)}
    return shapes
