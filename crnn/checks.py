# SPDX-License-Identifier: MIT
"""Argument checks. Each returns the normalised value, or raises an error that names the argument.

    check_size("batch_size", 0)     ->  ValueError: batch_size: expected an integer of at least 1, got 0

Also type aliases for arrays. Depends on NumPy only.
"""

from __future__ import annotations

import math
import os
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DTYPES",
    "Array",
    "Ids",
    "check_dtype",
    "check_finite",
    "check_flag",
    "check_ids",
    "check_limit",
    "check_number",
    "check_positive",
    "check_probability",
    "check_seed",
    "check_size",
    "check_threads",
]

Array: TypeAlias = NDArray[Any]
Ids: TypeAlias = NDArray[np.int32]  # of tokens, classes or other one-hot inputs

DTYPES = ("float32", "float64")  # of parameters and activations
MAX_THREADS = min(256, 4 * (os.cpu_count() or 1))  # more cost memory and time, and change no result


# ---- integers --------------------------------------------------------------------------------------------------------


def check_size(name: str, value: object) -> int:
    """An integer of at least 1, else ValueError."""
    return _integer(name, value, 1)


def check_threads(threads: object) -> int:
    """A number of threads: an integer of at least 1, else ValueError. More than MAX_THREADS mean MAX_THREADS."""
    return min(_integer("threads", threads, 1), MAX_THREADS)


def check_seed(name: str, value: object) -> int:
    """A seed for NumPy's PCG64: an integer of at least 0, else ValueError."""
    return _integer(name, value, 0)


def _integer(name: str, value: object, lowest: int) -> int:
    if not _is_integer(value) or value < lowest:
        raise ValueError(f"{name}: expected an integer of at least {lowest}, got {value!r}")
    return int(value)


def check_positive(name: str, value: object) -> int:
    """As `check_size`, but raises TypeError for a value that is not an integer. For `crnn.text`."""
    if not _is_integer(value):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return int(value)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


# ---- other numbers ---------------------------------------------------------------------------------------------------


def check_flag(name: str, value: object) -> bool:
    """True or False, else ValueError; other truthy or falsy values are rejected."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def check_probability(name: str, value: object) -> float:
    """A dropout probability: a number in [0, 1), else ValueError."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a probability of at least 0 and below 1, got {value!r}")
    return float(value)


def check_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """A number in [low, high), else ValueError."""
    if not isinstance(value, int | float) or not low <= value < high:
        bound = f" and below {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}: expected a number of at least {low:g}{bound}, got {value!r}")
    return float(value)


def check_finite(name: str, value: object) -> float:
    """A finite number, else ValueError."""
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def check_limit(name: str, value: object) -> float | None:
    """A number above 0, or None for no limit; else ValueError."""
    if value is None:
        return None
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name}: expected a number above 0, or None, got {value!r}")
    return float(value)


# ---- arrays ----------------------------------------------------------------------------------------------------------


def check_dtype(name: str, value: object) -> str:
    """The name of a dtype of parameters, one of DTYPES; else ValueError."""
    try:
        dtype = None if value is None else np.dtype(value).name  # type: ignore[call-overload]  # None means float64 there
    except TypeError:
        dtype = None
    if dtype not in DTYPES:
        raise ValueError(f"{name}: expected float32 or float64, got {value!r}")
    return str(dtype)


def check_ids(name: str, ids: ArrayLike) -> Array:
    """Ids (N,) of any integer type, not copied if they are an array. Raises ValueError and TypeError."""
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected shape (N,), got {array.shape}")
    if not array.size:
        return array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array
