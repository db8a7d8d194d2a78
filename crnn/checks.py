# SPDX-License-Identifier: MIT
"""Argument checks. Each returns the normalised value, or raises an error that names the argument.

    check_size("batch_size", 0)     ->  ValueError: batch_size: expected an integer of at least 1, got 0

Also type aliases for arrays. Depends on NumPy only.
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DTYPES",
    "Array",
    "Ids",
    "as_integer",
    "as_number",
    "check_callable",
    "check_callback",
    "check_count",
    "check_dtype",
    "check_finite",
    "check_flag",
    "check_layers",
    "check_limit",
    "check_number",
    "check_path",
    "check_positive",
    "check_probability",
    "check_seed",
    "check_size",
    "check_takes",
    "check_threads",
    "memory_for",
    "warn",
]

Array: TypeAlias = NDArray[Any]
Ids: TypeAlias = NDArray[np.int32]  # of tokens, classes or other one-hot inputs

DTYPES = ("float32", "float64")  # of parameters and activations
MOST_LAYERS = 10_000  # a list of their sizes is made before anything can be found too large
MAX_THREADS = min(256, 4 * (os.cpu_count() or 1))  # more cost memory and time, and change no result


# ---- integers --------------------------------------------------------------------------------------------------------


def check_size(name: str, value: object) -> int:
    """An integer of at least 1, else ValueError."""
    return _integer(name, value, 1)


@contextmanager
def memory_for(**sizes: object) -> Iterator[None]:
    """Context manager: if there is not enough memory, the error names these arguments, which determine how much it is.

    Those that are None are not named.
    """
    try:
        yield
    except MemoryError as error:
        given = {name: value for name, value in sizes.items() if value is not None}
        got = ", ".join(f"{name}={value!r:.60}" for name, value in given.items())
        reason = f": {error}" if str(error) else ""
        raise MemoryError(f"{', '.join(given)}: expected sizes for which there is memory, got {got}{reason}") from None


def check_layers(name: str, value: object) -> int:
    """A number of layers, of at most `MOST_LAYERS`."""
    layers = check_size(name, value)
    if layers > MOST_LAYERS:
        raise ValueError(f"{name}: expected at most {MOST_LAYERS:,}, got {layers:,}")
    return layers


def check_threads(threads: object) -> int:
    """A number of threads: an integer of at least 1, else ValueError. More than MAX_THREADS mean MAX_THREADS."""
    return min(_integer("threads", threads, 1), MAX_THREADS)


def check_reduction(name: str, value: object) -> str:
    """How the losses of a batch become one: "mean" or "sum", else ValueError."""
    if not isinstance(value, str) or value not in ("mean", "sum"):
        raise ValueError(f"{name}: expected mean or sum, got {value!r:.200}")
    return str(value)


def check_seed(name: str, value: object) -> int:
    """A seed for NumPy's PCG64: an integer of at least 0, else ValueError."""
    return _integer(name, value, 0)


def check_count(name: str, value: object) -> int:
    """An integer of at least 0, else ValueError."""
    return _integer(name, value, 0)


def _integer(name: str, value: object, lowest: int) -> int:
    number = as_integer(value)
    if number is None or number < lowest:
        raise ValueError(f"{name}: expected an integer of at least {lowest}, got {value!r:.200}")
    return number


def check_positive(name: str, value: object) -> int:
    """As `check_size`, but raises TypeError for a value that is not an integer. For `crnn.text`."""
    number = as_integer(value)
    if number is None:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")
    return number


def as_integer(value: object) -> int | None:
    """A Python int of an integer of any library, also as a 0-d array; None for bools and everything else."""
    if type(value) is int:
        return value
    number = _scalar(value)
    kind = type(number)  # isinstance would believe what an object says of its class
    if kind is bool or not issubclass(kind, int | np.integer):
        return None
    # Exactly an int: a subclass may compare oddly.
    return int.__pos__(number) if issubclass(kind, int) else int(number)


def _scalar(value: Any) -> Any:
    """The number in a 0-d array of NumPy or a library like it; other values as they are."""
    if issubclass(type(value), np.ndarray):
        return value[()] if value.ndim == 0 and not np.ma.is_masked(value) else value
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)) and hasattr(value, "__array__"):
        return value if isinstance(value, np.generic) else value.item()
    return value


# ---- other numbers ---------------------------------------------------------------------------------------------------


def check_flag(name: str, value: object) -> bool:
    """True or False, else ValueError; other truthy or falsy values are rejected."""
    flag = _scalar(value)
    if not isinstance(flag, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {value!r:.200}")
    return bool(flag)


def check_callable(name: str, value: Any) -> Any:
    """A function, or another object that can be called, else TypeError."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {type(value).__name__}")
    return value


def check_callback(name: str, value: Any) -> Any:
    """A function that can be called with one argument, else TypeError."""
    return check_takes(name, check_callable(name, value), 1, "a function of one argument, a crnn.Progress")


def check_takes(name: str, value: Any, count: int, expected: str) -> Any:
    """Something that can be called with so many arguments, else TypeError, which calls it ``expected``."""
    try:
        signature = inspect.signature(value)
    except ValueError:  # compiled ones need not say
        return value
    try:
        signature.bind(*[None] * count)
    except TypeError:
        got = f"{getattr(value, '__name__', type(value).__name__)}{signature}"
        raise TypeError(f"{name}: expected {expected}, got {got:.200}") from None
    return value


def check_path(name: str, value: Any) -> Any:
    """A path: str, bytes or path object without NUL, else TypeError or ValueError."""
    if not isinstance(value, str | bytes | os.PathLike):
        hint = "; crnn.models.files has from_bytes and to_bytes, for the content of a model file"
        raise TypeError(f"{name}: expected a path, got {type(value).__name__}{hint if _has_bytes(value) else ''}")
    if isinstance(value, bytes) and b"\0" in value:
        raise ValueError(
            f"{name}: expected a path, got {len(value)} bytes with NUL among them; crnn.models.files.from_bytes reads "
            "the content of a model file"
        )
    if "\0" in os.fsdecode(value):
        raise ValueError(f"{name}: expected a path without NUL, got {os.fsdecode(value)!r:.200}")
    return value


def _has_bytes(value: object) -> bool:
    return isinstance(value, bytearray | memoryview) or hasattr(value, "read") or hasattr(value, "write")


def as_number(value: object) -> float | None:
    """A Python float of a real number of any library, also as a 0-d array; None for bools and everything else."""
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | np.floating | np.integer):
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):  # such as 10**400
        return None


def check_probability(name: str, value: object) -> float:
    """A dropout probability: a number in [0, 1), else ValueError."""
    number = as_number(value)
    if number is None or not 0 <= number < 1:
        raise ValueError(f"{name}: expected a probability of at least 0 and below 1, got {value!r:.200}")
    return number


def check_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """A number in [low, high), else ValueError."""
    number = as_number(value)
    if number is None or not low <= number < high:
        bound = f" and below {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}: expected a number of at least {low:g}{bound}, got {value!r:.200}")
    return number


def check_finite(name: str, value: object) -> float:
    """A finite number, else ValueError."""
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value!r:.200}")
    return number


def check_limit(name: str, value: object) -> float | None:
    """A number above 0, or None for no limit; else ValueError."""
    if value is None:
        return None
    number = as_number(value)
    if number is None or not number > 0:
        raise ValueError(f"{name}: expected a number above 0, or None, got {value!r:.200}")
    return number


# ---- arrays ----------------------------------------------------------------------------------------------------------


def check_dtype(name: str, value: Any) -> str:
    """The name of a dtype of parameters, one of DTYPES; else ValueError."""
    try:
        dtype = None if value is None else np.dtype(value).name  # None would be float64
    except TypeError:
        dtype = None
    if dtype not in DTYPES:
        raise ValueError(f"{name}: expected float32 or float64, got {value!r}")
    return str(dtype)


def warn(message: str) -> None:
    """Warn at the line that called the package, however many of its functions are in between."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "crnn":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
