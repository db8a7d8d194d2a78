# SPDX-License-Identifier: MIT
"""Weights of sequences, or of the steps of sequences, as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from crnn.array_input import items, real_numbers, shown
from crnn.checks import Array

__all__ = ["sample_weights"]

NAME = "sample_weight"


def sample_weights(weights: Any, x: Any, *, single: bool) -> list[Array] | None:
    """A weight for each target of each sequence: float64 (1,) with ``single``, otherwise (T_i,); None if not given.

    Parameters
    ----------
    weights : array (N,) or None
        One for each sequence; of steps also a list of arrays (T_i,), or an array (N, T).
    x : sequences (T_i, ...)
    single : bool
        One target per sequence instead of one per step.

    Raises
    ------
    TypeError, ValueError
        A weight is negative or not finite, all are 0, or their number is not that of the sequences.
    """
    if weights is None:
        return None
    entries = items(NAME, weights, "a list or an array of weights")
    if len(entries) != len(x):
        raise ValueError(f"{NAME}: expected one weight for each of {len(x)} sequences, got {len(entries)}")
    found = [_of_sequence(i, entry, 1 if single else len(x[i])) for i, entry in enumerate(entries)]
    if not any(array.any() for array in found):
        raise ValueError(f"{NAME}: expected at least one weight above 0, got only zeros: all sample weights are zero")
    return found


def _of_sequence(i: int, entry: Any, steps: int) -> Array:
    name = f"{NAME}[{i}]"
    values = np.asarray(real_numbers(name, entry), np.float64)
    if values.shape not in ((), (steps,)) or (steps == 1 and values.ndim):
        expected = "one number" if steps == 1 else f"one number, or {steps} for its steps"
        raise ValueError(f"{name}: expected {expected}, got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {shown(entry)}")
    return np.array(np.broadcast_to(values, (steps,)))
