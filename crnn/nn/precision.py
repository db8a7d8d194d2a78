# SPDX-License-Identifier: MIT
"""Weights in fewer bits: what products in such a precision do to a weight matrix, and how files hold such matrices.
And TRAINING: the precisions in which updates of float32 weights are computed, which round operands of products only.

A parameter stays a float32 array. Its values are *on the grid* of a precision if products in that precision use them
unchanged:

    bf16    float32 whose last 16 bits are zero
    int8    q * s: integers q from -127 to 127, and a scale s for each output (symmetric, post-training quantisation).
            s is max|w| / 127 rounded up to 16 significant bits. So q * s is exact in float32, and s and q are found
            again from the products.
    int4    q * (g * s): integers q from -7 to 7, for each 32 terms of an output a multiplier g, one of MULTIPLIERS, and
            a scale s for each output, max|w| / 126 rounded up to 16 significant bits. g is the least with which no
            |q| is more than 7; q * g are integers of 8 bits, and the products are those of int8.

Packing rounds what is not on the grid by the same rules (`src_c/quant`), so it changes nothing in a quantised model,
and the parameters of such a model are read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
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
    "int4_parts",
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
MATRICES = ("W_xh", "W_hh", "W_hy", "embedding", "W_hp", "W_py")  # how the names of weight matrices end
MOST_TERMS = {"int8": 131_071, "int4": 131_071}  # of a product: more than so many could exceed an int32
LEAST = np.float32(2.0**-100)  # an output whose weights are all smaller has the scale 0, and all its integers are 0
GROUP = 32  # terms of an int4 product with the same multiplier
MULTIPLIERS = (1, 2, 4, 5, 6, 9, 11, 14, 15, 16, 17, 18)  # so that they are found again, see src_c/quant/int4.body.h
SCALE, MULTIPLIER = ".scale", ".multiplier"  # appended to the names of tensors: those of their scales and multipliers

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
    return values if precision is None else GRIDS[precision].rounded(values, axis)


def on_grid(values: Array, precision: str | None, axis: int = 0) -> bool:
    """Whether the values are on the grid, bit for bit except for the sign of zero; of None all are."""
    return precision is None or bool(np.array_equal(values, rounded(values, precision, axis)))


def _bf16(values: Array, axis: int) -> Array:
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
    scale = _scales(values, axis, 127)
    divisor = np.expand_dims(np.where(scale > 0, scale, np.float32(1)), axis)
    return np.rint(values / divisor).astype(np.int8), scale


def _of_int8(q: Array, scale: Array, axis: int) -> Array:
    result: Array = q * np.expand_dims(scale, axis)
    return result


def int4_parts(values: Array, axis: int = 0) -> tuple[Array, Array, Array]:
    """The int4 form of a float32 matrix (K, N): integers q (K, N), int8, multipliers (K/32 rounded up, N), uint8, and
    scales (N,), float32. ``axis`` as in `rounded`, for multipliers too. Values must be finite.
    """
    w, scale = np.moveaxis(values, axis, 0), _scales(values, axis, 126)
    most = np.maximum.reduceat(np.abs(w), np.arange(0, len(w), GROUP), axis=0)
    multiplier = np.ones(most.shape, np.uint8)
    for less, more in pairwise(MULTIPLIERS):
        multiplier[(most > np.float32(7 * less) * scale) & (scale > 0)] = more
    divisor = np.where(scale > 0, multiplier * scale, np.float32(1))
    q = np.rint(w / _by_term(divisor, len(w))).astype(np.int8)
    return np.moveaxis(q, 0, axis), np.moveaxis(multiplier, 0, axis), scale


def _of_int4(q: Array, multiplier: Array, scale: Array, axis: int) -> Array:
    steps = _by_term(np.moveaxis(multiplier, axis, 0) * scale, q.shape[axis])
    result: Array = np.moveaxis(q, axis, 0) * steps
    return np.moveaxis(result, 0, axis)


def _by_term(of_groups: Array, terms: int) -> Array:
    return np.repeat(of_groups, GROUP, axis=0)[:terms]


def _scales(values: Array, axis: int, largest: int) -> Array:
    """max|w| / largest of each output, float32, rounded up to 16 significant bits."""
    most = np.abs(values).max(axis=axis)
    bits = (most / np.float32(largest)).view(np.uint32)
    up = ((bits + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)).view(np.float32)
    result: Array = np.where(most < LEAST, np.float32(0), up)
    return result


# ---- files ---------------------------------------------------------------------------------------------------------


def terms_axis(name: str) -> int:
    """The axis of the terms of products with a parameter: an embedding has a scale for each row."""
    return 1 if _kind(name) == "embedding" else 0


@dataclass(frozen=True)
class Grid:
    """A precision, as arrays and in files. ``axis``: as in `rounded`.

    Attributes
    ----------
    rounded : callable
        Of values and axis: the nearest values on the grid.
    dtypes : mapping
        Of the tensors that files hold instead of a matrix, by what is appended to its name. Empty: the matrix itself,
        in a dtype of files.
    tensors : callable
        Of values and axis: these tensors.
    values : callable
        Of these tensors, the number of terms, and axis: the matrix. Raises ValueError for wrong shapes.
    """

    rounded: Callable[[Array, int], Array]
    dtypes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Callable[[Array, int], tuple[Array, ...]] = lambda values, axis: (values,)
    values: Callable[[list[Array], int, int], Array] = lambda tensors, terms, axis: tensors[0]


def _from_int8(tensors: list[Array], terms: int, axis: int) -> Array:
    q, scale = tensors
    if q.ndim != 2 or scale.shape != (q.shape[1 - axis],):
        raise ValueError("expected integers (K, N) and scales (N,)")
    return _of_int8(q, scale, axis)


def _int4_tensors(values: Array, axis: int) -> tuple[Array, ...]:
    """The integers plus 8, two in a byte, that of an even term in its low half; 8 beyond the last. Then multipliers and
    scales."""
    q, multiplier, scale = int4_parts(values, axis)
    halves = (np.moveaxis(q, axis, 0) + 8).astype(np.uint8)
    halves = np.pad(halves, ((0, len(halves) % 2), (0, 0)), constant_values=8)
    return np.moveaxis(halves[::2] | halves[1::2] << 4, 0, axis), multiplier, scale


def _from_int4(tensors: list[Array], terms: int, axis: int) -> Array:
    pairs, multiplier, scale = tensors
    expected = [(-(-terms // of), scale.size)[:: 1 - 2 * axis] for of in (2, GROUP)]
    if [pairs.shape, multiplier.shape] != expected or scale.ndim != 1:
        raise ValueError(f"expected pairs {expected[0]}, multipliers {expected[1]} and scales (N,)")
    pairs = np.moveaxis(pairs, axis, 0)
    halves = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1, scale.size)[:terms]
    return _of_int4(np.moveaxis(halves.astype(np.int8) - np.int8(8), 0, axis), multiplier, scale, axis)


GRIDS = {
    "bf16": Grid(_bf16),
    "int8": Grid(
        lambda values, axis: _of_int8(*int8_parts(values, axis), axis),
        {"": np.int8, SCALE: np.float32},
        int8_parts,
        _from_int8,
    ),
    "int4": Grid(
        lambda values, axis: _of_int4(*int4_parts(values, axis), axis),
        {"": np.uint8, MULTIPLIER: np.uint8, SCALE: np.float32},
        _int4_tensors,
        _from_int4,
    ),
}


def stored(params: Mapping[str, Array], precision: Precision) -> tuple[dict[str, Array], list[str]]:
    """The tensors of a file: of a matrix of integers these and ``name.scale``, ...; and the names of those in bf16."""
    tensors: dict[str, Array] = {}
    bf16 = []
    for name, values in params.items():
        kind = precision_of(precision, name)
        tensors[name] = values
        if kind is not None and GRIDS[kind].dtypes:
            parts = GRIDS[kind].tensors(values, terms_axis(name))
            tensors |= {name + suffix: part for suffix, part in zip(GRIDS[kind].dtypes, parts, strict=True)}
        elif kind == "bf16":
            bf16.append(name)
    return tensors, bf16


def restored(
    tensors: Mapping[str, Array], precision: Precision, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """The parameters, of these shapes, of a file's tensors (`stored`).

    Raises ValueError for tensors that do not fit together, or that are not those of any matrix.
    """
    params = dict(tensors)
    for name, shape in shapes.items():
        kind, axis = precision_of(precision, name), terms_axis(name)
        grid = GRIDS[kind] if kind is not None else None
        # NumPy takes float64 to be equal to None, so a precision without integers is left out first.
        if grid is None or not grid.dtypes or name not in tensors or tensors[name].dtype != grid.dtypes[""]:
            continue
        parts = [params.pop(name + suffix, None) for suffix in grid.dtypes]
        for suffix, part in zip(grid.dtypes, parts, strict=True):
            if part is None or part.dtype != grid.dtypes[suffix]:
                raise ValueError(
                    f"{name + suffix}: expected {np.dtype(grid.dtypes[suffix])} for an {kind} matrix, "
                    f"got {'none' if part is None else part.dtype}"
                )
        found = [part for part in parts if part is not None]
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                values = grid.values(found, shape[axis], axis)
        except ValueError as error:
            raise ValueError(f"{name}: {error}, got {', '.join(str(part.shape) for part in found)}") from None
        if not np.isfinite(values).all() or not all(map(np.array_equal, grid.tensors(values, axis), found)):
            raise ValueError(f"{name}: expected {kind} weights that quantising them again does not change")
        params[name] = values
    return params
