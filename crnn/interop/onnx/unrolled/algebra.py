# SPDX-License-Identifier: MIT
"""Symbolic arithmetic: the vector of one step, for each sequence of a batch, as a sum of products.

    Sum      sum over its terms of  coefficient * factor * factor * ... * (atom @ matrix)
    Atom     what is not divided further: x at a step, a function of a sum, or a sum that has been used as a whole

Equal sums have equal keys, however the graph grouped and ordered their operations. A sum becomes an atom when a matrix
or a function is applied to it. A later use of the same sum is a use of that atom, so that h and c of one step stay what
they are in the next one instead of being multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from crnn.checks import Array

MOST_TERMS = 16  # of a sum; a step of a cell has fewer than ten
MOST_FUNCTIONS = 4  # of functions, of which columns are chosen
COST = 100  # bytes that a product counts as, to bound the time that a hostile graph takes
ELEMENTWISE = ("Sigmoid", "Tanh", "Relu")
NOTHING = -1  # in a product without a matrix
ONE: tuple[int, ...] = ()  # a product without factors

Product = tuple[tuple[int, ...], int]  # numbers of the atoms that are factors, sorted; that of the matrix's atom
Coefficient = Any  # float, float64 (n,), or a matrix (k, n) if the product has one


@dataclass(eq=False)
class Sum:
    """A vector (width,): the coefficient of each product."""

    width: int
    terms: Mapping[Product, Coefficient]
    key: Any = field(default=None, repr=False)  # see `Algebra.key`


@dataclass(frozen=True)
class Atom:
    """``kind`` and ``of``: "x" and the step, "state" and its input and row, "value" and the sum, a function and its
    argument."""

    kind: str
    of: Any
    width: int


class Algebra:
    """Sums and their atoms.

    Parameters
    ----------
    charge : function
        Accounts for bytes that are read; raises ValueError if they are out of proportion.
    """

    def __init__(self, charge: Callable[[int], None]) -> None:
        self.atoms: list[Atom] = []
        self._charge = charge
        self._numbers: dict[Any, int] = {}  # of atoms, by kind and key
        self._values: dict[Any, int] = {}  # atoms of sums that have been used as a whole, by key
        self._arrays: dict[Any, tuple[int, Array]] = {}  # numbers of arrays by place; the array keeps the place taken
        self._contents: dict[bytes, int] = {}
        self._constants: dict[Any, Sum] = {}

    # ---- keys -----------------------------------------------------------------------------------------------------

    def key(self, x: Sum) -> Any:
        """Equal for equal sums."""
        if x.key is None:
            x.key = x.width, frozenset((product, self.number(value)) for product, value in x.terms.items())
        return x.key

    def number(self, value: Coefficient) -> Any:
        """Equal for equal coefficients."""
        if not isinstance(value, np.ndarray):
            return ("number", float(value))
        place = value.__array_interface__["data"][0], value.shape, value.strides, value.dtype.str
        if place not in self._arrays:
            self._charge(value.nbytes)
            content = repr((value.shape, value.dtype.str)).encode() + np.ascontiguousarray(value).tobytes()
            digest = sha256(content).digest()
            self._arrays[place] = self._contents.setdefault(digest, len(self._contents)), value
        return self._arrays[place][0]

    # ---- sums -----------------------------------------------------------------------------------------------------

    def atom(self, kind: str, of: Any, width: int) -> Sum:
        """A sum of one atom."""
        key = kind, self.key(of) if isinstance(of, Sum) else of
        if key not in self._numbers:
            self._numbers[key] = len(self.atoms)
            self.atoms.append(Atom(kind, of, width))
        return Sum(width, {((self._numbers[key],), NOTHING): 1.0})

    def content(self, x: Sum) -> Sum:
        """x, or if it is the atom of a sum that has been used as a whole, that sum."""
        atom = self.single(x)
        if atom is None or self.atoms[atom].kind != "value":
            return x
        content: Sum = self.atoms[atom].of
        return content

    def single(self, x: Sum) -> int | None:
        """The atom that x is, if it is one."""
        if len(x.terms) != 1:
            return None
        (((factors, source), value),) = x.terms.items()
        return factors[0] if len(factors) == 1 and source == NOTHING and _is_one(value) else None

    def sum_of(self, atom: int) -> Sum:
        """What an atom is, as a sum."""
        return self.content(Sum(self.atoms[atom].width, {((atom,), NOTHING): 1.0}))

    def constant(self, values: Array, width: int) -> Sum:
        """Numbers (width,) or ()."""
        key = self.number(values), width
        if key not in self._constants:
            self._charge(8 * width)
            exact = np.broadcast_to(values.astype(np.float64) + 0.0, (width,))  # -0 becomes 0
            self._constants[key] = _sum(width, {(ONE, NOTHING): exact})
        return self._constants[key]

    def add(self, x: Sum, y: Sum, sign: float = 1.0) -> Sum:
        """x + sign * y."""
        return self._added(self._whole(x), self._whole(y), sign)

    def _added(self, x: Sum, y: Sum, sign: float = 1.0) -> Sum:
        terms = dict(x.terms)
        for product, value in y.terms.items():
            if product not in terms and sign == 1:
                terms[product] = value
            elif product[1] == NOTHING:
                self._charge(8 * x.width)
                terms[product] = terms.get(product, 0.0) + sign * value
            else:
                raise ValueError("expected each vector to be multiplied by one matrix, and that to be added")
        return _sum(x.width, terms)

    def multiply(self, x: Sum, y: Sum) -> Sum:
        """x * y, by element."""
        x, y = self._whole(x), self._whole(y)
        if len(x.terms) * len(y.terms) > MOST_TERMS:
            raise ValueError("expected a step of a recurrent layer")
        self._charge(COST * len(x.terms) * len(y.terms))
        total = Sum(x.width, {})
        for (factors, source), value in x.terms.items():
            for (others, other_source), other in y.terms.items():
                product = tuple(sorted(factors + others)), max(source, other_source)
                total = self._added(total, Sum(x.width, {product: self._times(value, other, source, other_source)}))
        return total

    def _times(self, value: Coefficient, other: Coefficient, source: int, other_source: int) -> Coefficient:
        """The product of two coefficients, of which one may be a matrix."""
        if source != NOTHING and other_source != NOTHING:
            raise ValueError("expected no product of two vectors that have been multiplied by matrices")
        if _is_one(other):
            return value
        if _is_one(value):
            return other
        if source != NOTHING or other_source != NOTHING:
            raise ValueError("expected no vector that has been multiplied by a matrix to be multiplied by numbers")
        self._charge(8 * max(np.size(value), np.size(other)))
        return value * other

    def apply(self, function: str, x: Sum) -> Sum:
        """A function of x."""
        if any(len(factors) + (source != NOTHING) > 1 for factors, source in x.terms):
            self._as_value(x)
        return self.atom(function, self.content(x), x.width)

    def project(self, x: Sum, matrix: Array) -> Sum:
        """x @ matrix."""
        if not x.terms:
            return Sum(matrix.shape[1], {})
        (product, value), *more = x.terms.items()
        if not more and product == (ONE, NOTHING):
            self._charge(matrix.nbytes)
            return self.constant(np.broadcast_to(value, (x.width,)) @ matrix.astype(np.float64), matrix.shape[1])
        if more or len(product[0]) != 1 or product[1] != NOTHING or not _is_one(value):
            product = ((self._as_value(x),), NOTHING)
        return Sum(matrix.shape[1], {(ONE, product[0][0]): matrix})

    def columns(self, x: Sum, start: int, stop: int, depth: int = 0) -> Sum:
        """x[start:stop]. ``depth``: of how many functions x is an argument."""
        if (start, stop) == (0, x.width):
            return x
        if not 0 <= start < stop <= x.width:
            raise ValueError(f"expected a part of {x.width} columns")
        terms: dict[Product, Coefficient] = {}
        for (factors, source), value in x.terms.items():
            chosen = tuple(sorted(self._columns_of(atom, start, stop, depth) for atom in factors))
            terms[chosen, source] = value[..., start:stop] if isinstance(value, np.ndarray) else value
        return _sum(stop - start, terms)

    def _columns_of(self, number: int, start: int, stop: int, depth: int) -> int:
        atom = self.atoms[number]
        if atom.kind not in ELEMENTWISE or depth == MOST_FUNCTIONS:
            raise ValueError("expected a choice of whole gates")
        ((factors, _),) = self.apply(atom.kind, self.columns(atom.of, start, stop, depth + 1)).terms
        return factors[0]

    def _as_value(self, x: Sum) -> int:
        """The atom of a sum as a whole."""
        x = self.content(x)
        key = self.key(x)
        if key not in self._values:
            (((number,), _),) = self.atom("value", x, x.width).terms
            self._values[key] = number
        return self._values[key]

    def _whole(self, x: Sum) -> Sum:
        """The atom of a sum that has been used as a whole; otherwise the sum."""
        number = self._values.get(self.key(x))
        return x if number is None else Sum(x.width, {((number,), NOTHING): 1.0})


def _sum(width: int, terms: Mapping[Product, Coefficient]) -> Sum:
    """A sum without terms that are 0; vectors of equal numbers become numbers."""
    if len(terms) > MOST_TERMS:
        raise ValueError("expected a step of a recurrent layer")
    kept = {}
    for product, value in terms.items():
        if product[1] == NOTHING:
            if isinstance(value, np.ndarray) and value[0] == value[-1] and (value == value[0]).all():
                value = float(value[0])
            if not isinstance(value, np.ndarray) and value == 0:
                continue
        kept[product] = value
    return Sum(width, kept)


def _is_one(value: Coefficient) -> bool:
    return not isinstance(value, np.ndarray) and value == 1
