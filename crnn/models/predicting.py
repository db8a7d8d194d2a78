# SPDX-License-Identifier: MIT
"""The predictions of the models of whole sequences, in the form of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crnn.array_input import items
from crnn.checks import Array
from crnn.models.inputs.data import by_rows
from crnn.models.inputs.masking import spread

__all__ = ["predicted"]


def predicted(
    model: Any, X: Any, from_outputs: Callable[[Array], Array], batch_size: int, threads: int, mask: Any = None
) -> Any:
    """Predictions for X. ``from_outputs`` makes them from the head's outputs (M, V), row by row.

    Returns an array (N, ...) with pooling, otherwise a list of arrays (T_i, ...), or an array (N, T, ...) if X is an
    array.
    """
    if mask is not None:
        rest, _, _, masks = model._without_masked(X, None, None, mask)
        of_rest = predicted(model, rest, from_outputs, batch_size, threads)
        if model.pooling is not None:
            return of_rest
        of_steps = spread(of_rest, masks)
        return np.stack(of_steps) if isinstance(X, np.ndarray) else of_steps
    X = X if model.vocab is not None else items("X", X, "a list of arrays, or an array (N, T, D)")
    x = model._sequences("X", X)
    no_targets = [np.zeros((1, 1), np.int32)] * len(x)
    predictions = by_rows(model._outputs(model._data(x, no_targets), batch_size, threads), from_outputs)
    if model.pooling is not None:
        return predictions[:, 0]
    if isinstance(X, np.ndarray) and X.ndim > 1:
        return predictions if isinstance(predictions, np.ndarray) else np.stack(predictions)
    return list(predictions)
