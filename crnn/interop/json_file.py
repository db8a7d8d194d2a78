# SPDX-License-Identifier: MIT
"""JSON files of other programs that hold weights as lists of numbers. They are hostile input.

Memory is bounded before a file is parsed, and the shape of every list is compared with the one that the file announces
before an array is made of it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from crnn.checks import Array, check_dtype
from crnn.io import json_header
from crnn.io.atomic_write import PathLike, replacing
from crnn.io.model_file import ModelFileError

Loaded = TypeVar("Loaded")

LARGEST = 1 << 28  # bytes of a file
MEMORY = 96 << 20  # bytes that any file may take in memory, and
MEMORY_PER_BYTE = 16  # as many for each of its bytes: numbers of a few digits take 9


def read(path: PathLike) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelFileError, which names the file, and OSError."""
    name = os.fsdecode(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a FIFO would wait for its writer
        raise ModelFileError(f"{name}: expected a regular file")
    if status.st_size > LARGEST:
        raise ModelFileError(f"{name}: expected a file of at most {LARGEST} bytes, got {status.st_size}")
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    try:
        value = json_header.loads(content.decode(), MEMORY + MEMORY_PER_BYTE * len(content), "a text")
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name}: expected a JSON file: {error}"[:500]) from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def load(path: PathLike, dtype: str, make: Callable[[dict[str, Any], str], Loaded]) -> Loaded:
    """What ``make`` makes of the object in a JSON file, and the dtype, which is checked first.

    Raises ModelFileError, which names the file, also for a ValueError of ``make``; OSError; and ValueError or TypeError
    for the dtype.
    """
    dtype = check_dtype("dtype", dtype)
    content = read(path)
    try:
        return make(content, dtype)
    except ValueError as error:
        raise ModelFileError(f"{os.fsdecode(path)}: {error}") from None


def write(path: PathLike, value: Mapping[str, Any]) -> None:
    """Write an object as JSON, atomically. Raises OSError, and TypeError or ValueError for what JSON cannot hold."""
    content = json.dumps(value, allow_nan=False).encode() + b"\n"
    with replacing(path) as file:
        file.write(content)


def field(where: Mapping[str, Any], name: str, *types: type) -> Any:
    """The value of a key. Raises ValueError if it is missing or of none of these types; a bool is no int."""
    if name not in where:
        raise ValueError(f"{name}: expected {_named(types)}, found none")
    if type(where[name]) not in types:
        raise ValueError(f"{name}: expected {_named(types)}, got {where[name]!r:.80}")
    return where[name]


def size(where: Mapping[str, Any], name: str) -> int:
    """The value of a key, an integer of at least 1."""
    value: int = field(where, name, int)
    if value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value}")
    return value


def _named(types: tuple[type, ...]) -> str:
    words = {dict: "an object", list: "a list", str: "a text", int: "an integer", float: "a number"}
    return " or ".join(words.get(each, each.__name__) for each in types)


def numbers(name: str, value: Any, shape: tuple[int, ...], dtype: str) -> Array:
    """Nested lists of numbers as an array of this shape, which the file announces.

    Raises ValueError, which calls the lists ``name``, for another shape, what is no number, and numbers that are not
    finite in ``dtype``.
    """
    _check_lists(name, value, shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, np.float64).astype(dtype)
    except OverflowError:
        raise ValueError(f"{name}: expected numbers that {dtype} can hold") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return array


def _check_lists(name: str, value: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, list) or len(value) != shape[0]:
        found = f"{len(value)} entries" if isinstance(value, list) else f"{value!r:.40}"
        raise ValueError(f"{name}: expected a list of {shape[0]}, got {found}")
    if len(shape) > 1:
        for row in value:
            _check_lists(name, row, shape[1:])
    elif not set(map(type, value)) <= {int, float}:
        wrong = next(entry for entry in value if type(entry) not in (int, float))
        raise ValueError(f"{name}: expected numbers, got {wrong!r:.40}")
