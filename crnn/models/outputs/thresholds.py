# SPDX-License-Identifier: MIT
"""Thresholds of the probabilities above which independent classes apply."""

from __future__ import annotations

from typing import Any

import numpy as np

from crnn.array_input import items
from crnn.checks import Array, as_number

__all__ = ["best_threshold", "check_thresholds"]


def check_thresholds(value: Any, num_classes: int, *, multilabel: bool) -> list[float] | None:
    """One threshold for each class, from one number for all or a list; None if not given. Raises TypeError, ValueError.
    """
    if value is None:
        return None
    if not multilabel:
        raise ValueError("thresholds: expected None without multilabel, where one class is chosen, got thresholds")
    single = as_number(value)
    entries = [value] * num_classes if single is not None else list(items("thresholds", value, "a number or a list"))
    if len(entries) != num_classes:
        raise ValueError(f"thresholds: expected one for each of {num_classes} classes, got {len(entries)}")
    found: list[float] = []
    for i, entry in enumerate(entries):
        number = as_number(entry)
        if number is None or not 0 < number < 1:
            name = "thresholds" if single is not None else f"thresholds[{i}]"
            raise ValueError(f"{name}: expected a probability between 0 and 1, got {entry!r:.100}")
        found.append(float(number))
    return found


def best_threshold(probabilities: Array, positive: Array) -> float:
    """The threshold with the largest F1 = 2 TP / (2 TP + FP + FN), a target being predicted above it.

    It lies in the middle between two neighbouring probabilities. Of equally good ones the nearest to 0.5 is taken.
    Where no target is positive it is 0.5.

    Parameters
    ----------
    probabilities : array (M,)
    positive : bool (M,)

    Examples
    --------
    >>> best_threshold(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True]))
    0.15000000000000002
    """
    total = int(positive.sum())
    if not total:
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    p = probabilities[order].astype(np.float64)
    hits = np.cumsum(positive[order])  # among the k + 1 most probable
    f1 = 2.0 * hits / (np.arange(1, len(p) + 1) + total)  # 2 TP / (predicted + actual positives)
    lower = np.append(p[1:], 0.0)
    cuts = np.flatnonzero(p > lower)  # no threshold separates equal probabilities
    cuts = cuts[f1[cuts] == f1[cuts].max()]
    thresholds = (p[cuts] + lower[cuts]) / 2
    return float(thresholds[np.argmin(np.abs(thresholds - 0.5))])
