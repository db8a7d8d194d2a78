# SPDX-License-Identifier: MIT
"""How weights are stored in an exported file: one object for each matrix, which knows its definition and its product.

Another storage is another class with the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from crnn.c_export import numbers
from crnn.checks import Array

PANEL = 16  # columns, as in pieces.h


class Matrix(Protocol):
    """A matrix (K, N) in C."""

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
    def pieces(self) -> set[str]:
        """The pieces that `add` needs."""

    def definition(self) -> Iterator[str]:
        """The C definition of the constants, in lines."""

    def add(self, y: str, x: str) -> list[str]:
        """Statements for y (N) += x (K) @ w. The variable ``normal`` says whether y's elements are multiples of
        FLT_MIN, before and after."""

    def row(self, y: str, index: str, bias: str) -> str:
        """A statement for y (N) = bias (N) + w[index, :]. Needs the piece "row"."""

    def column(self, x: str, index: str) -> str:
        """A statement for x (K) = w[:, index]. Needs the piece "column"."""


@dataclass(frozen=True)
class FloatMatrix:
    """float32, in panels of columns; see `Matrix` and the piece "product"."""

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
    def pieces(self) -> set[str]:
        return {"product"}

    @property
    def least(self) -> float:
        """The smallest x with which no product with a weight is below 2^-80."""
        sizes = np.abs(self.values[self.values != 0])
        return 0.0 if not sizes.size else 2.0 ** (-80 - math.frexp(float(sizes.min()))[1] + 1)

    def definition(self) -> Iterator[str]:
        panels = (numbers.floats(self.values[:, n : n + PANEL]) for n in range(0, self.N, PANEL))
        return numbers.array(f"float {self.name}", self.values.size, chain.from_iterable(panels))

    def add(self, y: str, x: str) -> list[str]:
        least = numbers.float_text(self.least)
        return [f"normal = add_product({y}, {x}, {self.name}, {self.K}, {self.N}, {least}, normal);"]

    def row(self, y: str, index: str, bias: str) -> str:
        return f"row_plus_bias({y}, {self.name}, {bias}, {index}, {self.K}, {self.N});"

    def column(self, x: str, index: str) -> str:
        return f"column_of({x}, {self.name}, {index}, {self.K}, {self.N});"


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

    def start(self, y: str, row: str = "", *, beside: bool = False) -> list[str]:
        """Statements for y (N) = the vector, or its ``row``, as the start of sums; ``beside``: there are others."""
        size, normal = self.values.shape[-1], numbers.is_normal(self.values)
        source = f"{self.name} + {row} * {size}" if row else self.name
        told = [] if beside and normal else [f"normal = {int(normal)};"]
        return [f"copy({y}, {source}, {size});", *told]
