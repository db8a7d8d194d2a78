# SPDX-License-Identifier: MIT
"""Masks of steps. A masked step is skipped: the state is held, as if the step were not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crnn.array_input import as_array, items, real_numbers, shown
from crnn.checks import Array

__all__ = ["spread", "without_masked"]

NAME = "mask"
SEQUENCES = "a list of arrays, or an array (N, T, D)"


def without_masked(
    X: Any, y: Any, sample_weight: Any, mask: Any, *, by_step: bool
) -> tuple[list[Array], Any, Any, list[Array]]:
    """X, y and sample_weight without the steps that are masked, as lists, and the masks, bool (T_i,).

    Parameters
    ----------
    X, y, sample_weight
        As users give them to a model of numbers or ids.
    mask : list of bool (T_i,), or bool (N, T)
        True: the step is there.
    by_step : bool
        Whether there is a target, and perhaps a weight, for every step.

    Raises
    ------
    TypeError, ValueError
        A mask is not bool, has another length than its sequence, or leaves no step.
    """
    X = items("X", X, SEQUENCES)
    x = [real_numbers(f"X[{i}]", each) for i, each in enumerate(X)]
    masks = _checked(mask, [len(each) if each.ndim else 0 for each in x])
    if by_step and y is not None:
        y = _chosen("y", y, masks)
    if by_step and sample_weight is not None:
        sample_weight = _chosen("sample_weight", sample_weight, masks, or_numbers=True)
    return [each[there] for each, there in zip(x, masks, strict=True)], y, sample_weight, masks


def spread(predictions: Sequence[Array], masks: Sequence[Array]) -> list[Array]:
    """Predictions (M_i, ...) for the steps that are there as arrays (T_i, ...).

    The others get NaN, the class -1, or None in place of a name or False in place of binary labels.
    """
    found: list[Array] = []
    for values, there in zip(predictions, masks, strict=True):
        nothing: Any = {"f": np.nan, "i": -1, "b": False}.get(values.dtype.kind)
        dtype = values.dtype if values.dtype.kind in "fib" else object
        of_all = np.full((len(there), *values.shape[1:]), nothing, dtype)
        of_all[there] = values
        found.append(of_all)
    return found


def _checked(mask: Any, lengths: Sequence[int]) -> list[Array]:
    """A mask for each sequence, fresh."""
    entries = items(NAME, mask, "a list of masks, or an array (N, T)")
    if len(entries) != len(lengths):
        raise ValueError(f"{NAME}: expected a mask for each of {len(lengths)} sequences, got {len(entries)}")
    masks: list[Array] = []
    for i, (entry, length) in enumerate(zip(entries, lengths, strict=True)):
        found, name = as_array(f"{NAME}[{i}]", entry), f"{NAME}[{i}]"
        if found.dtype != bool:
            raise TypeError(f"{name}: expected bool, True for a step that is there, got {found.dtype}")
        if found.shape != (length,):
            raise ValueError(f"{name}: expected shape {(length,)}, as its sequence has, got {found.shape}")
        if not found.any():
            raise ValueError(f"{name}: expected at least one step that is there, got none")
        masks.append(found.copy())
    return masks


def _chosen(name: str, entries: Any, masks: Sequence[Array], *, or_numbers: bool = False) -> list[Any]:
    """Of targets or weights by step those that are there. ``or_numbers``: or one for all steps, as it is."""
    entries = items(name, entries, "a list or an array")
    if len(entries) != len(masks):
        raise ValueError(f"{name}: expected one entry for each of {len(masks)} sequences, got {len(entries)}")
    found = []
    for i, (entry, there) in enumerate(zip(entries, masks, strict=True)):
        values = np.asanyarray(entry) if hasattr(entry, "__array__") or not np.iterable(entry) else list(entry)
        if isinstance(values, np.ndarray) and not values.ndim:
            if not or_numbers:
                raise ValueError(f"{name}[{i}]: expected one for each of {len(there)} steps, got {shown(entry)}")
            found.append(entry)
            continue
        if len(values) != len(there):
            raise ValueError(f"{name}[{i}]: expected one for each of {len(there)} steps, got {len(values)}")
        found.append(
            values[there] if isinstance(values, np.ndarray) else [values[t] for t in np.flatnonzero(there).tolist()]
        )
    return found
