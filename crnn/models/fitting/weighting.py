# SPDX-License-Identifier: MIT
"""Weights as users give them: of sequences, of the steps of sequences, and of classes.

Only the ratios of sample weights matter. What has the weight 0 is not there: it is left out before anything is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crnn._core import loss as kernels
from crnn.array_input import items, real_numbers, shown
from crnn.checks import Array, as_number
from crnn.models.outputs.targets import Label, labels_of
from crnn.text.windows import IGNORE_INDEX

__all__ = [
    "BALANCED",
    "balanced",
    "check_class_weight",
    "normalised",
    "of_rows",
    "present",
    "row_weights",
    "weights_by_label",
    "without_zeros",
]

NAME = "sample_weight"
BALANCED = "balanced"  # class_weight
LARGE = 300  # power of two, up to which many weights can be summed and multiplied by numbers


# ---- of sequences and steps ------------------------------------------------------------------------------------------


def checked(weights: Any, n: int, *, by_step: bool) -> list[Array]:
    """A weight for each of n sequences: float64 arrays () or, with ``by_step`` also for its steps, (T_i,).

    Raises TypeError and ValueError if one is negative or not finite, or all are 0.
    """
    entries = items(NAME, weights, "a list or an array of weights")
    if len(entries) != n:
        raise ValueError(f"{NAME}: expected one weight for each of {n} sequences, got {len(entries)}")
    found = []
    for i, entry in enumerate(entries):
        values = np.asarray(real_numbers(f"{NAME}[{i}]", entry), np.float64)
        if values.ndim > by_step:
            expected = "a number, or one for each step" if by_step else "a number"
            raise ValueError(f"{NAME}[{i}]: expected {expected}, got shape {values.shape}")
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError(f"{NAME}[{i}]: expected finite numbers of at least 0, got {shown(entry)}")
        found.append(values)
    if not any(values.any() for values in found):
        raise ValueError(f"{NAME}: expected at least one weight above zero, got only zeros")
    return summable(found)


def summable(weights: list[Array]) -> list[Array]:
    """The same weights, or with the same ratios if their sums or products could overflow or lose digits."""
    _, exponent = np.frexp(max(values.max() for values in weights if values.size))
    return weights if abs(exponent) < LARGE else [np.ldexp(values, -exponent) for values in weights]


def present(X: Any, y: Any, weights: Any, *, by_step: bool) -> tuple[Any, Any, list[Array] | None]:
    """The sequences and targets whose weight is not 0, and their weights; None if all are equal.

    Raises TypeError and ValueError as `checked` does.
    """
    X = items("X", X, "a list of arrays, or an array (N, T, D)")
    found = checked(weights, len(X), by_step=by_step)
    row_weights(found, list(map(len, X)), by_step=by_step)  # checks their numbers
    kept = [i for i, values in enumerate(found) if values.any()]
    if len(kept) < len(found):
        X, y = _chosen(X, kept), None if y is None else _chosen(items("y", labels_of(y), "targets"), kept)
        found = [found[i] for i in kept]
    first = found[0].reshape(-1)[0]
    return X, y, None if all((values == first).all() for values in found) else found


def _chosen(entries: Any, indices: list[int]) -> Any:
    if entries is not None and len(entries) <= indices[-1]:
        raise ValueError(f"y: expected one entry for each sequence, got {len(entries)}")
    return entries[indices] if isinstance(entries, np.ndarray) else [entries[i] for i in indices]


def row_weights(weights: Sequence[Array], rows: Sequence[int], *, by_step: bool) -> list[Array]:
    """The weight of each row of targets, arrays (rows[i],). ``by_step``: a row is a step, with its own weight."""
    found = []
    for i, (values, n) in enumerate(zip(weights, rows, strict=True)):
        if values.shape not in ([(), (n,)] if by_step else [()]):
            expected = f"one number, or {n} for its steps" if by_step else "one number"
            raise ValueError(f"{NAME}[{i}]: expected {expected}, got shape {values.shape}")
        found.append(np.array(np.broadcast_to(values, (n,))))
    return found


def without_zeros(targets: Array, weights: Array) -> Array:
    """The targets of a sequence, those of rows with the weight 0 missing."""
    if weights.all():
        return targets
    targets = targets.copy()
    targets[weights == 0] = IGNORE_INDEX if targets.dtype.kind == "i" else np.nan
    return targets


def of_rows(weights: Any, targets: Sequence[Array], *, by_step: bool) -> list[Array]:
    """The weight of each row of targets from what a user gives; errors as those of `checked` and `row_weights`."""
    return row_weights(checked(weights, len(targets), by_step=by_step), list(map(len, targets)), by_step=by_step)


def normalised(weights: Sequence[Array], targets: Sequence[Array]) -> list[Array]:
    """Weights whose mean over all targets that are not missing is 1."""
    total, count = 0.0, 0
    for of_rows, wanted in zip(weights, targets, strict=True):
        counts = wanted != IGNORE_INDEX if wanted.dtype.kind == "i" else ~np.isnan(wanted)
        counts = counts.reshape(len(wanted), -1).sum(axis=1)
        total += kernels.sum(of_rows * counts)
        count += int(counts.sum())
    return [of_rows * (count / total) for of_rows in weights] if total else list(weights)


# ---- of classes ------------------------------------------------------------------------------------------------------


def check_class_weight(weights: Any, multilabel: bool) -> Any:
    """A list of weights that the loss checks, or None for those that `fit` resolves. Raises ValueError."""
    if isinstance(weights, Mapping):
        for label, weight in weights.items():
            number = as_number(weight)
            if number is None or not 0 <= number < float("inf"):
                raise ValueError(f"class_weight[{label!r:.50}]: expected a number of at least 0, got {weight!r:.100}")
        return None
    if isinstance(weights, str) and weights != BALANCED:
        expected = "'balanced', a dict by label, or a list of numbers"
        raise ValueError(f"class_weight: expected {expected}, got {weights!r:.100}")
    if isinstance(weights, str):
        if multilabel:
            raise ValueError("class_weight: expected a list or a dict with multilabel, got 'balanced'")
        return None
    return weights


def weights_by_label(weights: Mapping[Any, Any], labels: Sequence[Label]) -> list[float]:
    """Weights in the order of the classes; 1 for those that are not named. Raises ValueError for other labels."""
    unknown = [label for label in weights if label not in labels]
    if unknown:
        raise ValueError(f"class_weight: expected weights of the classes {labels!r:.200}, got {unknown[0]!r:.100}")
    return [float(weights.get(label, 1.0)) for label in labels]


def balanced(targets: Sequence[Array], rows: Sequence[Array] | None, classes: int) -> list[float]:
    """n / (k * n_c): weights with which all k classes that there are have the same weight in total.

    ``targets``: class numbers of the rows; ``rows``: their weights.
    """
    labels = np.concatenate(list(targets))
    weights = np.ones(len(labels)) if rows is None else np.concatenate(list(rows))
    known = labels >= 0
    counts = np.bincount(labels[known], weights[known], classes)
    there = counts > 0
    shares = counts[there].sum() / (there.sum() * np.where(there, counts, 1.0))
    return [float(share) if is_there else 1.0 for share, is_there in zip(shares, there, strict=True)]
