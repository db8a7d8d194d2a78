# SPDX-License-Identifier: MIT
"""Numbers as C text: exact, and as crnn's kernels read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from crnn.checks import Array

LEAST_NORMAL = 2.0**-126  # FLT_MIN
WIDTH = 118  # of a line
BLOCK = 1 << 16


def flushed(values: Array) -> Array:
    """float32, fresh, with zero for what lies between 0 and FLT_MIN, as all kernels read it."""
    values = np.array(values, np.float32)
    values[np.abs(values) < np.float32(LEAST_NORMAL)] *= np.float32(0)  # the sign stays
    return values


def is_normal(values: Array) -> bool:
    """Whether all values are multiples of FLT_MIN: sums that begin with them stay so: `add_product`, c/products.h."""
    sizes = np.abs(values)
    return bool(((sizes == 0) | (sizes >= np.float32(2.0**-103))).all())


def float_text(value: float) -> str:
    """A float32 as a C constant, exact."""
    return next(floats(np.array([value], np.float32)))


def floats(values: Array) -> Iterator[str]:
    """float32 numbers as C constants, exact. Memory does not grow with their number."""
    values = np.ascontiguousarray(values, np.float32).reshape(-1)
    for start in range(0, len(values), BLOCK):
        yield from _floats(values[start : start + BLOCK])


def _floats(values: Array) -> list[str]:
    """Hexadecimal, with the mantissa as an integer without zeros at the end."""
    bits = values.view(np.uint32)
    mantissas, exponents = bits & 0x7FFFFF, (bits >> 23 & 0xFF).astype(np.int64)
    mantissas = np.where(exponents > 0, mantissas | 0x800000, mantissas)
    exponents = np.maximum(exponents, 1) - 150
    for shift in (16, 8, 4, 2, 1):
        even = (mantissas != 0) & (mantissas & ((1 << shift) - 1) == 0)
        mantissas = np.where(even, mantissas >> shift, mantissas)
        exponents = np.where(even, exponents + shift, exponents)
    exponents = np.where(mantissas == 0, 0, exponents)
    signs = np.where(bits >> 31, "-", "").tolist()
    small = ((exponents >= 0) & (exponents <= 8)).tolist()
    return [
        f"{sign}{mantissa << exponent}.0f" if plain else f"{sign}0x{mantissa:x}p{exponent}f"
        for sign, mantissa, exponent, plain in zip(signs, mantissas.tolist(), exponents.tolist(), small, strict=True)
    ]


def doubles(values: Array) -> list[str]:
    """float64 numbers as C constants, exact."""
    return [float(value).hex() for value in np.asarray(values, np.float64).reshape(-1)]


def lines(items: Iterable[str]) -> Iterator[str]:
    """Items of a list, separated by commas, in lines of at most `WIDTH` characters."""
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > WIDTH and line != "   ":
            yield line
            line = "   "
        line += f" {item},"
    yield line.removesuffix(",")


def array(declaration: str, count: int, items: Iterable[str]) -> Iterator[str]:
    """The definition of an array of ``count`` constants, in lines."""
    yield f"static const {declaration}[{count}] = {{"
    yield from lines(items)
    yield "};"
