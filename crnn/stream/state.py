# SPDX-License-Identifier: MIT
"""The state of a stack of layers, or of a stream, in its public form and as arrays (B, H).

The public form is an array (L, B, H), or a list of L arrays (B, H_l) if sizes differ; for cells with c, a pair (h, c).
Streams of a model that pools have more state, from the top layer's h of all steps so far:

    pooling "max"     (state, maximum)       maximum (B, H), -inf before the first step
    pooling "mean"    (state, sum, steps)    sum (B, H); steps (B,), integers: how many
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn.array_input import check_finite, in_precision, real_numbers

Array = NDArray[Any]
StateLike: TypeAlias = Any
STEPS_UNIT = 1 << 24  # C has a number of steps as two numbers a, b that float32 can hold: a * 2^24 + b
_POOLED_FORMS: dict[str | None, tuple[str, ...]] = {"max": ("state", "maximum"), "mean": ("state", "sum", "steps")}


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


def check_stream_state(
    name: str,
    value: StateLike,
    sizes: Sequence[int],
    has_c: bool,
    pooling: str | None,
    batch: int,
    dtype: str,
    finite: bool = True,
) -> list[Array]:
    """`check_state` for a stream: its arrays, and with pooling those of its pooled state, as C has them."""
    form = _POOLED_FORMS.get(pooling)
    if form is None:
        return check_state(name, value, sizes, has_c, batch, dtype, finite)
    if not isinstance(value, tuple | list) or len(value) != len(form):
        got = f" of {len(value)}" if isinstance(value, tuple | list) else ""
        raise ValueError(f"{name}: expected a tuple ({', '.join(form)}), got {type(value).__name__}{got}")
    arrays = check_state(f"{name}[0]", value[0], sizes, has_c, batch, dtype, finite)
    pooled = _check_array(f"{name}[1]", value[1], (batch, sizes[-1]), dtype, False)
    if finite:
        none = pooled == -np.inf if pooling == "max" else np.False_  # before the first step
        check_finite(f"{name}[1]", np.where(none, 0, pooled))
    arrays.append(pooled)
    if pooling == "mean":
        arrays.append(_check_steps(f"{name}[2]", value[2], batch).astype(dtype))
    return arrays


def pooled_state(state: StateLike, pooling: str | None, pooled: Array) -> StateLike:
    """The public form of a stream's state from ``state`` and the pooled state (B, ...), as C has it; a copy of that."""
    if pooling == "max":
        return state, pooled.copy()
    if pooling == "mean":
        high, low = pooled[:, -2:].astype(np.int64).T
        return state, pooled[:, :-2].copy(), high * STEPS_UNIT + low
    return state


def _check_steps(name: str, value: Any, batch: int) -> Array:
    """Numbers of steps (B,) as numbers a, b (B, 2): a * STEPS_UNIT + b. Raises TypeError and ValueError."""
    steps = np.array(real_numbers(name, value))
    if steps.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {steps.dtype}")
    if steps.shape != (batch,):
        raise ValueError(f"{name}: expected shape ({batch},), got {steps.shape}")
    wrong = (steps < 0) | (steps >= STEPS_UNIT**2)
    if wrong.any():
        raise ValueError(f"{name}: expected from 0 to {STEPS_UNIT**2 - 1} steps, got {steps[wrong][0]}")
    return np.stack(np.divmod(steps.astype(np.int64), STEPS_UNIT), axis=1)


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
