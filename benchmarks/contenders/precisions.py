# SPDX-License-Identifier: MIT
"""The precisions of a model's weights that rows measure, and how far outputs may be from those of float32."""

from __future__ import annotations

from typing import Any

from benchmarks.base.measure import OURS, Missing

# By name, as `model.quantize` takes it, in the order of the C library's constants (CRNN_AS_ARRAYS, ...): the largest
# difference of outputs, relative to the largest output.
PRECISIONS = {"float32": 1e-4, "bf16": 0.05, "int8": 0.15}


def ours_in(precision: str) -> str:
    """The name of crnn's contender with such weights."""
    return OURS if precision == "float32" else f"{OURS}, {precision}"


def in_precision(model: Any, precision: str) -> Any | Missing:
    """The model with its weights in a precision, or why there is none."""
    if precision == "float32":
        return model
    if not hasattr(model, "quantize"):
        return Missing(f"{type(model).__name__} has no quantize")
    try:
        return model.quantize(precision)
    except (NotImplementedError, TypeError, ValueError) as error:
        return Missing(f"{precision}: {error}")
