# SPDX-License-Identifier: MIT
"""Which of the training data `fit` holds out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from crnn.array_input import shown
from crnn.checks import Array, as_number
from crnn.models.inputs.data import shuffled

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class AutoShare:
    """What valid="auto" holds out: this share of at least so many sequences; with fewer, all are trained on."""

    share: float
    least: int


FEW = 10  # too few to hold out a fifth

# docs/training.md says how these numbers were chosen.
CLASSES = AutoShare(0.1, 1000)  # classes and tokens: few sequences are worth more in training
VALUES = AutoShare(0.2, 50)  # values, which are overfitted sooner
STEPS = AutoShare(0.2, 64)  # the same of a lone series, in steps


def is_auto(valid: Any) -> bool:
    """Whether ``valid`` is the string "auto"; an array is not compared with it."""
    return isinstance(valid, str) and valid == AUTO


def held_out_notes(count: int, n: int, what: str) -> list[str]:
    """What the log says of the held-out data if ``valid`` is not given."""
    if count:
        return [f"{count:,} of {n:,} {what} are held out for validation; valid=None trains on all"]
    if n < FEW:
        return []
    return [f"all {n:,} {what} are trained on; valid=0.2 would hold out a fifth for validation"]


def checked_share(valid: Any) -> float:
    """A share in (0, 1). Raises ValueError."""
    share = as_number(valid)
    if share is None or not 0 < share < 1:
        raise ValueError(
            f"valid: expected a share between 0 and 1, or a pair (X, y), 'auto' or None, got {shown(valid)}"
        )
    return share


def held_out(valid: Any, groups: Sequence[int] | Array, seed: int, auto: AutoShare = CLASSES) -> list[int]:
    """The indices, in ascending order, of the sequences to validate on: a random share of each group.

    Parameters
    ----------
    valid : float or "auto"
        The share. "auto": as ``auto`` says.
    groups : integers (N,)
        The group of each sequence, such as its class. The only member of a group is not chosen, if others can be.
    seed : int
    auto : AutoShare

    Raises
    ------
    ValueError
        ``valid`` is no share, or it would leave no sequence on one side.
    """
    n = len(groups)
    if is_auto(valid) and n < auto.least:
        return []
    share = auto.share if is_auto(valid) else checked_share(valid)
    count = round(share * n)
    if not 0 < count < n:
        raise ValueError(f"valid: expected a share of {n} sequences that leaves some on both sides, got {share!r}")
    order = shuffled(np.random.PCG64([seed, 0]), n)
    _, group, sizes = np.unique(np.asarray(groups)[order], return_inverse=True, return_counts=True)
    together = np.argsort(group, kind="stable")  # the groups one after the other
    within = np.empty(n)
    within[together] = np.concatenate([np.arange(size) for size in sizes])
    place = (within + 0.5) / sizes[group]  # in its group, from 0 to 1
    chosen: list[int] = order[np.argsort(place, kind="stable")[:count]].tolist()
    return sorted(chosen)
