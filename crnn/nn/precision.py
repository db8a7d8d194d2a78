# SPDX-License-Identifier: MIT
"""Weights in fewer bits: what "int8" and "bf16" products do to a weight matrix, and how files hold such matrices.
And TRAINING: the precisions in which updates of float32 weights are computed, which round operands of products only.

A parameter stays a float32 array. Its values are *on the grid* of a precision if products in that precision use them
unchanged:

    bf16    float32 whose last 16 bits are zero
    int8    q * s: integers q from -127 to 127, and a scale s for each output (symmetric, post-training quantisation).
            s is max|w| / 127 rounded up to 16 significant bits. So q * s is exact in float32, and s and q are found
            again from the products.

Packing rounds what is not on the grid by the same rules (`src_c/quant`), so it changes nothing in a quantised model,
and the parameters of such a model are read-only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from crnn._core import gemm
from crnn.checks import Array

__all__ = [
    "MATRICES",
    "MOST_TERMS",
    "PRECISIONS",
    "TRAINING",
    "Precision",
    "check_can_train",
    "check_names",
    "check_precision",
    "check_trainable",
    "check_training_precision",
    "int8_parts",
    "on_grid",
    "part_of",
    "precision_of",
    "restored",
    "rounded",
    "stored",
    "terms_axis",
]

PRECISIONS = gemm.QUANTISED
TRAINING: tuple[Literal["bf16"], ...] = ("bf16",)  # those in which updates can be computed
MATRICES = ("W_xh", "W_hh", "W_hy", "embedding")  # how the names of weight matrices end
MOST_TERMS = 131_071  # of an int8 product: more than so many could exceed an int32
LEAST = np.float32(2.0**-100)  # an output whose weights are all smaller has the scale 0, and all its integers are 0
SCALE = ".scale"  # appended to the name of an int8 tensor: that of its scales

Precision = str | Mapping[str, str] | None


def check_precision(name: str, value: Any) -> str | dict[str, str] | None:
    """Return a precision: None, one of PRECISIONS, or a dict from names of matrices to them.

    Raises ValueError, which calls it ``name``.
    """
    known = ", ".join(map(repr, PRECISIONS))
    if value is None or (isinstance(value, str) and value in PRECISIONS):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected {known}, None, or a dict from weight matrices to them, got {value!r}")
    for matrix, precision in value.items():
        if not isinstance(matrix, str) or _kind(matrix) not in MATRICES:
            raise ValueError(f"{name}: expected names of weight matrices, such as 'layer0.W_hh', got {matrix!r}")
        if not isinstance(precision, str) or precision not in PRECISIONS:
            raise ValueError(f"{name}[{matrix!r}]: expected {known}, got {precision!r}")
    return dict(value) or None


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def precision_of(precision: Precision, name: str) -> str | None:
    """The precision of the products with the parameter ``name``; None: that of the network's dtype."""
    if precision is None or _kind(name) not in MATRICES:
        return None
    return precision if isinstance(precision, str) else precision.get(name)


def check_names(precision: Precision, names: Iterable[str]) -> None:
    """Raise ValueError if the precision names a matrix that is not among the parameters ``names``."""
    matrices = [name for name in names if _kind(name) in MATRICES]
    unknown = sorted(set(precision) - set(matrices)) if isinstance(precision, Mapping) else []
    if unknown:
        raise ValueError(f"precision: expected weight matrices among {', '.join(matrices)}, got {unknown[0]!r}")


def part_of(precision: Mapping[str, str], prefix: str) -> dict[str, str] | None:
    """The entries of the matrices whose names begin with ``prefix``, under their names without it."""
    return {
        name.removeprefix(prefix): kind for name, kind in precision.items() if name.startswith(prefix)
    } or None


def check_trainable(precision: Precision) -> None:
    """Raise ValueError for the precision of a network that is for inference only."""
    if precision is not None:
        raise ValueError(
            f"precision: expected None in a network that is trained, got {precision!r}, which is for inference; train "
            "it first, then quantize it; fit with precision='bf16' computes its products in bf16"
        )


def check_training_precision(name: str, value: Any) -> str | None:
    """Return a precision of updates: None, or one of TRAINING. Raises ValueError, which calls it ``name``."""
    if value is None or (isinstance(value, str) and value in TRAINING):
        return value
    inference = isinstance(value, str) and value in PRECISIONS
    why = ", which is for inference: quantize the model after training" if inference else ""
    raise ValueError(f"{name}: expected {', '.join(map(repr, TRAINING))} or None, got {value!r:.100}{why}")


def check_can_train(training: str | None, dtype: str, quantised: Precision) -> None:
    """Raise ValueError unless a network of this dtype, quantised or not, can be trained in a precision of updates."""
    check_training_precision("precision", training)
    if training is None:
        return
    if dtype != "float32":
        raise ValueError(f"precision: expected a float32 model for {training!r}, got one in {dtype}")
    check_trainable(quantised)


def rounded(values: Array, precision: str | None, axis: int = 0) -> Array:
    """A float32 matrix (K, N) with its values rounded to the grid of ``precision``; itself if that is None.

    ``axis`` is that of the terms of a product: 0, or 1 for a transposed matrix (N, K).
    """
    if precision is None:
        return values
    if precision == "bf16":
        return _bf16(values)
    q, scale = int8_parts(values, axis)
    result: Array = q * np.expand_dims(scale, axis)
    return result


def on_grid(values: Array, precision: str | None, axis: int = 0) -> bool:
    """Whether the values are on the grid, bit for bit except for the sign of zero; of None all are."""
    return precision is None or bool(np.array_equal(values, rounded(values, precision, axis)))


def _bf16(values: Array) -> Array:
    """float32 rounded to bfloat16, to nearest, ties to even; what is below its normal numbers is 0."""
    bits = values.view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    result: Array = nearest.view(np.float32)
    result = np.where(np.abs(result) < np.finfo(np.float32).tiny, np.float32(0), result)
    return np.where(np.isnan(values), values, result)


def int8_parts(values: Array, axis: int = 0) -> tuple[Array, Array]:
    """The int8 form of a float32 matrix (K, N): integers q (K, N), int8, and scales (N,), float32.

    ``axis`` as in `rounded`. Values must be finite.
    """
    most = np.abs(values).max(axis=axis)
    scale = np.where(most < LEAST, np.float32(0), _rounded_up(most / np.float32(127)))
    divisor = np.expand_dims(np.where(scale > 0, scale, np.float32(1)), axis)
    return np.rint(values / divisor).astype(np.int8), scale


def _rounded_up(scale: Array) -> Array:
    """float32 rounded up to 16 significant bits."""
    bits = (scale.view(np.uint32) + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)
    return bits.view(np.float32)


# ---- files ---------------------------------------------------------------------------------------------------------


def terms_axis(name: str) -> int:
    """The axis of the terms of products with a parameter: an embedding has a scale for each row."""
    return 1 if _kind(name) == "embedding" else 0


def stored(params: Mapping[str, Array], precision: Precision) -> tuple[dict[str, Array], list[str]]:
    """The tensors of a file: an int8 matrix as its integers and ``name.scale``; and the names of those in bf16."""
    tensors: dict[str, Array] = {}
    bf16 = []
    for name, values in params.items():
        kind, axis = precision_of(precision, name), terms_axis(name)
        tensors[name] = values
        if kind == "int8":
            tensors[name], tensors[name + SCALE] = int8_parts(values, axis)
        elif kind == "bf16":
            bf16.append(name)
    return tensors, bf16


def restored(tensors: Mapping[str, Array], precision: Precision) -> dict[str, Array]:
    """The parameters of a file's tensors (`stored`). Raises ValueError for scales that do not fit the integers."""
    params = dict(tensors)
    for name, q in tensors.items():
        if precision_of(precision, name) != "int8" or q.dtype != np.int8:
            continue
        scale, axis = params.pop(name + SCALE, None), terms_axis(name)
        if q.ndim != 2 or scale is None or scale.dtype != np.float32 or scale.shape != (q.shape[1 - axis],):
            raise ValueError(f"{name}: expected int8 integers (K, N) and float32 scales in {name + SCALE}")
        params[name] = q * np.expand_dims(scale, axis)
        again = int8_parts(params[name], axis)
        if not (np.array_equal(again[0], q) and np.array_equal(again[1], scale)):
            raise ValueError(f"{name + SCALE}: expected scales that make the largest integer of each output 127")
    return params
