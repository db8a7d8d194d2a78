# SPDX-License-Identifier: MIT
"""How weights are stored in an exported file: one object for each matrix, which knows its definition and its product.

`STORAGES` lists them by the precision that a model's products have, `crnn.stream.parts.StreamParts.precisions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Protocol

import numpy as np

from crnn.c_export import numbers
from crnn.checks import Array
from crnn.nn.precision import GROUP, int4_parts, int8_parts

PANEL = 16  # columns, as in c/products.h


class Matrix(Protocol):
    """A matrix (K, N) in C.

    Attributes
    ----------
    pieces : mapping
        The piece that the statements of each method call, by the method's name.
    """

    pieces: ClassVar[Mapping[str, str]]

    @property
    def name(self) -> str:
        """In C."""

    @property
    def K(self) -> int:
        """Number of rows."""

    @property
    def N(self) -> int:
        """Number of columns."""

    @property
    def nbytes(self) -> int:
        """Size of the constants."""

    @property
    def scratch(self) -> Mapping[str, int]:
        """How many elements `add` needs in which fields of the state, see `SCRATCH`."""

    @property
    def has_normal_rows(self) -> bool:
        """Whether all elements are multiples of FLT_MIN, and so the sums that begin with a row."""

    def definition(self) -> Iterator[str]:
        """The C definition of the constants, in lines."""

    def add(self, y: str, x: str) -> list[str]:
        """Statements for y (N) += x (K) @ w. The variable ``normal`` says whether y's elements are multiples of
        FLT_MIN, before and after."""

    def row(self, y: str, index: str, bias: str) -> str:
        """A statement for y (N) = bias (N) + w[index, :]."""

    def column(self, x: str, index: str) -> str:
        """A statement for x (K) = w[:, index]."""


# C type and meaning of the fields of the state that products need.
SCRATCH = {
    "integers": ("int8_t", "scratch: the left operand of a product"),
    "rounded": ("float", "scratch: the left operand of a product"),
}


def least_factor(values: Array) -> str:
    """The smallest x with which no product with one of the values is below 2^-80, as C text."""
    sizes = np.abs(values[values != 0])
    least = 0.0 if not sizes.size else 2.0 ** (-80 - math.frexp(float(sizes.min()))[1] + 1)
    return numbers.float_text(least)


def most_factor(values: Array) -> str:
    """An x with which, and with smaller ones, no product with one of the values is above 2^127, as C text."""
    exponent = 127 - math.frexp(float(np.abs(values).max()))[1]
    return numbers.float_text(2.0 ** min(exponent, 127))


@dataclass(frozen=True)
class FloatMatrix:
    """float32, in panels of columns; see the piece "product"."""

    pieces: ClassVar[Mapping[str, str]] = {"add": "product", "row": "row", "column": "column"}

    name: str
    values: Array  # (K, N), flushed

    @property
    def K(self) -> int:
        return int(self.values.shape[0])

    @property
    def N(self) -> int:
        return int(self.values.shape[1])

    @property
    def nbytes(self) -> int:
        return 4 * self.values.size

    @property
    def scratch(self) -> Mapping[str, int]:
        return {}

    @property
    def has_normal_rows(self) -> bool:
        return numbers.is_normal(self.values)

    def definition(self) -> Iterator[str]:
        panels = (numbers.floats(self.values[:, n : n + PANEL]) for n in range(0, self.N, PANEL))
        return numbers.array(f"float {self.name}", self.values.size, chain.from_iterable(panels))

    def add(self, y: str, x: str) -> list[str]:
        least = least_factor(self.values)
        return [f"normal = add_product({y}, {x}, {self.name}, {self.K}, {self.N}, {least}, normal);"]

    def row(self, y: str, index: str, bias: str) -> str:
        return f"row_plus_bias({y}, {self.name}, {bias}, {index}, {self.K}, {self.N});"

    def column(self, x: str, index: str) -> str:
        return f"column_of({x}, {self.name}, {index}, {self.K}, {self.N});"


@dataclass(frozen=True)
class Int8Matrix:
    """Integers of 8 bits, and a scale for each column, by the definition in src_c/quant; see the piece "int8". Products
    with int4 weights are such products too."""

    pieces: ClassVar[Mapping[str, str]] = {"add": "int8", "row": "int8_row", "column": "int8_column"}

    name: str
    integers: Array  # int8 (K, N)
    scales: Array  # (N,)

    @classmethod
    def of(cls, name: str, values: Array) -> Int8Matrix:
        """That of float32 values (K, N)."""
        integers, scales = int8_parts(values)
        zero = np.abs(values).max(axis=0) < np.float32(2.0**-100)  # for the kernels
        return cls(name, np.where(zero, np.int8(0), integers), np.where(zero, np.float32(0), scales))

    @classmethod
    def of_int4(cls, name: str, values: Array) -> Int8Matrix:
        """That of float32 values (K, N) on the grid of int4, whose integers times multipliers have 8 bits."""
        integers, multipliers, scales = int4_parts(values)
        by_row = np.repeat(multipliers, GROUP, axis=0)[: len(integers)]
        return cls(name, (integers * by_row.astype(np.int8)).astype(np.int8), scales)

    @property
    def values(self) -> Array:
        """(K, N), float32."""
        return self.integers * self.scales

    @property
    def K(self) -> int:
        return int(self.integers.shape[0])

    @property
    def N(self) -> int:
        return int(self.integers.shape[1])

    @property
    def nbytes(self) -> int:
        return int(self.integers.size) + 4 * self.N

    @property
    def scratch(self) -> Mapping[str, int]:
        return {"integers": self.K}

    @property
    def has_normal_rows(self) -> bool:
        return numbers.is_normal(self.scales)

    def definition(self) -> Iterator[str]:
        integers = map(str, self.integers.T.reshape(-1).tolist())
        yield from numbers.array(f"int8_t {self.name}", self.integers.size, integers)
        yield from numbers.array(f"float {self.name}_scales", self.N, numbers.floats(self.scales))

    def add(self, y: str, x: str) -> list[str]:
        arrays = f"state->integers, {self.name}, {self.name}_scales"
        return [f"add_int8_product({y}, {x}, {arrays}, {self.K}, {self.N});", "normal = 0;"]

    def row(self, y: str, index: str, bias: str) -> str:
        return f"int8_row_plus_bias({y}, {self.name}, {self.name}_scales, {bias}, {index}, {self.K}, {self.N});"

    def column(self, x: str, index: str) -> str:
        return f"int8_column_of({x}, {self.name}, {self.name}_scales, {index}, {self.K});"


@dataclass(frozen=True)
class Bf16Matrix:
    """The upper halves of floats, by the definition in src_c/quant; see the piece "bf16_product"."""

    pieces: ClassVar[Mapping[str, str]] = {"add": "bf16_product", "row": "bf16_row", "column": "bf16_column_of"}

    name: str
    halves: Array  # uint16 (K, N)

    @classmethod
    def of(cls, name: str, values: Array) -> Bf16Matrix:
        """That of float32 values (K, N), flushed."""
        bits = values.view(np.uint32)
        return cls(name, ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16))

    @property
    def values(self) -> Array:
        """(K, N), float32."""
        return (self.halves.astype(np.uint32) << 16).view(np.float32)

    @property
    def K(self) -> int:
        return int(self.halves.shape[0])

    @property
    def N(self) -> int:
        return int(self.halves.shape[1])

    @property
    def padded(self) -> int:
        """K, or the even number above."""
        return self.K + self.K % 2

    @property
    def nbytes(self) -> int:
        return 2 * self.padded * self.N

    @property
    def scratch(self) -> Mapping[str, int]:
        return {"rounded": self.padded}

    @property
    def has_normal_rows(self) -> bool:
        return numbers.is_normal(self.values)

    def definition(self) -> Iterator[str]:
        pairs = np.pad(self.halves, ((0, self.padded - self.K), (0, 0))).T.reshape(-1, 2)
        columns = pairs[:, ::-1].reshape(-1)  # the odd one is added first
        yield from numbers.array(f"uint16_t {self.name}", columns.size, map(hex, columns.tolist()))

    def add(self, y: str, x: str) -> list[str]:
        sizes = f"{self.K}, {self.N}, {least_factor(self.values)}, {most_factor(self.values)}"
        return [f"normal = add_bf16_product({y}, {x}, state->rounded, {self.name}, {sizes}, normal);"]

    def row(self, y: str, index: str, bias: str) -> str:
        return f"bf16_row_plus_bias({y}, {self.name}, {bias}, {index}, {self.K}, {self.N});"

    def column(self, x: str, index: str) -> str:
        return f"bf16_column_of({x}, {self.name}, {index}, {self.K});"


STORAGES: dict[str, Callable[[str, Array], Matrix]] = {
    "float32": FloatMatrix,
    "int8": Int8Matrix.of,
    "int4": Int8Matrix.of_int4,
    "bf16": Bf16Matrix.of,
}


@dataclass(frozen=True)
class Vector:
    """float32 numbers (N,), or rows (M, N) of them."""

    name: str
    values: Array  # flushed

    @property
    def nbytes(self) -> int:
        return 4 * self.values.size

    def definition(self) -> Iterator[str]:
        """The C definition of the constants, in lines."""
        return numbers.array(f"float {self.name}", self.values.size, numbers.floats(self.values))

    def start(self, y: str, row: str = "", *, more: bool = False) -> list[str]:
        """Statements for y (N) = the vector, or its ``row``, as the start of sums; ``more``: others have begun."""
        size, normal = self.values.shape[-1], numbers.is_normal(self.values)
        source = f"{self.name} + {row} * {size}" if row else self.name
        told = [] if more and normal else [f"normal = {int(normal)};"]
        return [f"copy({y}, {source}, {size});", *told]
