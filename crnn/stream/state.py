# SPDX-License-Identifier: MIT
"""The state of a stack of layers, in its public form and as arrays (B, H).

The public form is an array (L, B, H), or a list of L arrays (B, H_l) if sizes differ; for cells with c, a pair (h, c).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn.array_input import check_finite, in_precision, real_numbers

Array = NDArray[Any]
StateLike: TypeAlias = Any


def check_state(
    name: str, value: StateLike, sizes: Sequence[int], has_c: bool, batch: int, dtype: str, finite: bool = True
) -> list[Array]:
    """The arrays (batch, H) of a state that was passed as the argument ``name``: h of each layer, then c of each.

    Copies: a later argument's conversion may change this one. Raises TypeError for what is not numbers, ValueError for
    other shapes and, with ``finite``, for NaN and infinity.
    """
    if not has_c:
        return _check_part(name, value, sizes, batch, dtype, finite)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}: expected a pair (h, c), got {type(value).__name__}")
    parts = [_check_part(f"{name}[{i}]", part, sizes, batch, dtype, finite) for i, part in enumerate(value)]
    return [array for part in parts for array in part]


def _check_part(name: str, part: Any, sizes: Sequence[int], batch: int, dtype: str, finite: bool) -> list[Array]:
    if sizes.count(sizes[0]) == len(sizes):
        return list(_check_array(name, part, (len(sizes), batch, sizes[0]), dtype, finite))
    if not isinstance(part, tuple | list) or len(part) != len(sizes):
        raise ValueError(f"{name}: expected a list of {len(sizes)} arrays, got {type(part).__name__}")
    return [
        _check_array(f"{name}[{i}]", array, (batch, size), dtype, finite)
        for i, (array, size) in enumerate(zip(part, sizes, strict=True))
    ]


def _check_array(name: str, value: Any, shape: tuple[int, ...], dtype: str, finite: bool) -> Array:
    array = np.array(real_numbers(name, value))
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    array = in_precision(name, array, dtype)
    if finite:
        check_finite(name, array)
    return array
