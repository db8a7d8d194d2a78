# SPDX-License-Identifier: MIT
"""The equations of the cells, found in sums: what a step of a cell is, if a sum is one.

EQUATIONS has a function for each cell. It takes the h of a step and says what its gates, its previous h and its c are,
or that h is not computed like that: every term must have its place in the equations, which are those of
`crnn.nn.cells`. Gates are named by the letters of `crnn.interop.layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx.unrolled.algebra import NOTHING, ONE, Algebra, Coefficient, Sum


@dataclass(frozen=True)
class Gate:
    """An affine function: the matrix of each atom, and a vector or number."""

    matrices: Mapping[int, Array]
    bias: Coefficient


@dataclass(frozen=True)
class Step:
    """A step of a cell.

    Attributes
    ----------
    gates : dict of str to Gate
        By letter, without the matrices of the previous h. In the first step some are without effect, and missing.
    recurrent : dict of str to array
        By letter: the matrix of the previous h; empty where that is zeros.
    before : int, optional
        The atom of the previous h, or of the initial state; None if that is zeros.
    c, c_before : Sum, optional
        Of an LSTM.
    b_hn : number or array
        Of a GRU.
    inverted : bool
        Whether a GRU's z weighs n instead of the previous h. As sigmoid(-a) is 1 - sigmoid(a), its parameters are the
        negative ones then.
    """

    cell: str
    gates: Mapping[str, Gate]
    recurrent: Mapping[str, Array] = field(default_factory=dict)
    before: int | None = None
    c: Sum | None = None
    c_before: Sum | None = None
    b_hn: Coefficient = 0.0
    inverted: bool = False


class NotThisCell(Exception):
    """A sum is not computed by the equations of a cell."""


def steps_of(algebra: Algebra, h: Sum) -> Iterator[Step]:
    """What h may be: the steps of cells that compute it. Where no equation says which atom is the previous h, one step
    for each that it could be, and one without."""
    for equations in EQUATIONS.values():
        try:
            yield from equations(Reading(algebra, h.width), h)
        except NotThisCell:
            continue


class Reading:
    """Reads sums of one width. Raises NotThisCell if one is not as expected."""

    algebra: Algebra
    width: int

    def __init__(self, algebra: Algebra, width: int) -> None:
        self.algebra, self.width = algebra, width

    def kind(self, atom: int) -> str:
        return self.algebra.atoms[atom].kind

    def argument(self, atom: int) -> Sum:
        """The sum that a function is applied to, or that was used as a whole."""
        argument: Sum = self.algebra.atoms[atom].of
        return argument

    def factors(self, product: tuple[tuple[int, ...], int], *kinds: str) -> list[int]:
        """The atoms of a product without a matrix, in the order of these kinds."""
        factors, source = product
        found = sorted(factors, key=lambda atom: kinds.index(self.kind(atom)) if self.kind(atom) in kinds else 0)
        if source != NOTHING or [self.kind(atom) for atom in found] != list(kinds):
            raise NotThisCell
        return found

    def gate(self, x: Sum) -> Gate:
        """A sum that is affine."""
        matrices = {source: value for (factors, source), value in x.terms.items() if source != NOTHING}
        if len(matrices) + ((ONE, NOTHING) in x.terms) != len(x.terms) or any(f != ONE for f, _ in x.terms):
            raise NotThisCell
        return Gate(matrices, x.terms.get((ONE, NOTHING), 0.0))

    def without(self, gates: Mapping[str, Gate], before: int) -> tuple[dict[str, Gate], dict[str, Array]]:
        """The gates without the previous h, and its matrices."""
        rest, recurrent = {}, {}
        for letter, gate in gates.items():
            matrix = gate.matrices.get(before)
            if matrix is None or matrix.shape != (self.width, self.width):
                raise NotThisCell
            recurrent[letter] = matrix
            rest[letter] = Gate({k: each for k, each in gate.matrices.items() if k != before}, gate.bias)
        return rest, recurrent

    def choices(self, step: Step) -> Iterator[Step]:
        """The step with each of the atoms that may be the previous h, and without one."""
        for atom in next(iter(step.gates.values())).matrices:
            try:
                gates, recurrent = self.without(step.gates, atom)
            except NotThisCell:
                continue
            yield replace(step, gates=gates, recurrent=recurrent, before=atom)
        yield step


def _plain(cell: str, function: str) -> Callable[[Reading, Sum], Iterator[Step]]:
    def equations(read: Reading, h: Sum) -> Iterator[Step]:
        """h = f(x W + h' U + b)."""
        ((product, value),) = _n_terms(h, 1)
        (atom,) = read.factors(product, function)
        _need(value, 1)
        yield from read.choices(Step(cell, {"h": read.gate(read.argument(atom))}))

    return equations


def _lstm(read: Reading, h: Sum) -> Iterator[Step]:
    """h = o * tanh(c), c = f * c' + i * g."""
    ((product, value),) = _n_terms(h, 1)
    o, tanh_c = read.factors(product, "Sigmoid", "Tanh")
    _need(value, 1)
    c = read.argument(tanh_c)
    gates, c_before = {"o": read.gate(read.argument(o))}, None
    for term, coefficient in _n_terms(c, 1, 2):
        _need(coefficient, 1)
        kept = {read.kind(atom) for atom in term[0]} & {"value", "state"}
        if kept:
            f, previous = read.factors(term, "Sigmoid", *kept)
            gates["f"], c_before = read.gate(read.argument(f)), read.algebra.sum_of(previous)
        else:
            i, g = read.factors(term, "Sigmoid", "Tanh")
            gates |= {"i": read.gate(read.argument(i)), "g": read.gate(read.argument(g))}
    if "i" not in gates or (c_before is None) != (len(c.terms) == 1):
        raise NotThisCell
    yield from read.choices(Step("lstm", gates, c=c, c_before=c_before))


@dataclass(frozen=True)
class Gated:
    """h = n - z * n + z * h', or with z the other way round h = h' - z * h' + z * n; without h' in the first step."""

    z: Gate
    inner: Sum  # the argument of n
    before: int | None
    inverted: bool


def _gated(read: Reading, h: Sum) -> Gated:
    products = dict(_n_terms(h, 1, 2, 3))
    pairs = [product for product in products if sorted(map(read.kind, product[0])) == ["Sigmoid", "Tanh"]]
    if len(pairs) != 1:
        raise NotThisCell
    z, n = read.factors(pairs[0], "Sigmoid", "Tanh")
    inverted = not isinstance(products[pairs[0]], np.ndarray) and products[pairs[0]] > 0
    befores = {factor for factors, _ in products for factor in factors} - {z, n}
    if len(befores) > 1:
        raise NotThisCell
    before = next(iter(befores), None)
    whole = before if inverted else n
    wanted = {_product(z, n): 1 if inverted else -1}
    wanted |= {} if whole is None else {_product(whole): 1}
    wanted |= {} if before is None else {_product(z, before): -1 if inverted else 1}
    if products.keys() != wanted.keys():
        raise NotThisCell
    for product, number in wanted.items():
        _need(products[product], number)
    return Gated(read.gate(read.argument(z)), read.argument(n), before, inverted)


def _product(*factors: int) -> tuple[tuple[int, ...], int]:
    return tuple(sorted(factors)), NOTHING


def _gru(read: Reading, h: Sum) -> Iterator[Step]:
    """h = (1 - z) * n + z * h', n = tanh(x W_n + b_n + r * (h' U_n + b_hn))."""
    found = _gated(read, h)
    inner, before = found.inner, found.before
    plain = {product: value for product, value in inner.terms.items() if product[0] == ONE}
    reset = {product: value for product, value in inner.terms.items() if product[0] != ONE}
    gates = {"z": found.z, "n": read.gate(Sum(read.width, plain))}
    atoms = {factors for factors, _ in reset}
    if len(atoms) > 1 or any(len(factors) != 1 or read.kind(factors[0]) != "Sigmoid" for factors in atoms):
        raise NotThisCell
    sources = {source for _, source in reset} - {NOTHING}
    if sources != (set() if before is None else {before}):
        raise NotThisCell
    b_hn: Coefficient = 0.0
    for factors in atoms:
        gates["r"] = read.gate(read.argument(factors[0]))
        b_hn = reset.get((factors, NOTHING), 0.0)
    recurrent: dict[str, Array] = {}
    if before is not None:
        matrix = next(value for (_, source), value in reset.items() if source == before)
        rest, recurrent = read.without({letter: gates[letter] for letter in "zr"}, before)
        gates, recurrent = gates | rest, recurrent | {"n": matrix}
    yield Step("gru", gates, recurrent, before, b_hn=b_hn, inverted=found.inverted)


def _original_gru(read: Reading, h: Sum) -> Iterator[Step]:
    """h = (1 - z) * n + z * h', n = tanh(x W_n + b_n + (r * h') U_n)."""
    found = _gated(read, h)
    before, recurrent = found.before, {}
    gates = {"z": found.z, "n": read.gate(found.inner)}
    if before is not None:
        for atom, matrix in gates["n"].matrices.items():
            if read.kind(atom) == "value" and len(read.argument(atom).terms) == 1:
                (((factors, source), value),) = read.argument(atom).terms.items()
                others = [each for each in factors if each != before]
                if source == NOTHING and before in factors and [read.kind(each) for each in others] == ["Sigmoid"]:
                    _need(value, 1)
                    gates["r"] = read.gate(read.argument(others[0]))
                    rest = {k: each for k, each in gates["n"].matrices.items() if k != atom}
                    gates["n"] = Gate(rest, gates["n"].bias)
                    recurrent["n"] = matrix
                    break
        if "r" not in gates:
            raise NotThisCell
        rest_of, matrices = read.without({letter: gates[letter] for letter in "zr"}, before)
        gates, recurrent = gates | rest_of, recurrent | matrices
    yield Step("original_gru", gates, recurrent, before, inverted=found.inverted)


def _n_terms(x: Sum, *numbers: int) -> list[tuple[Any, Coefficient]]:
    if len(x.terms) not in numbers:
        raise NotThisCell
    return list(x.terms.items())


def _need(value: Coefficient, wanted: int) -> None:
    if isinstance(value, np.ndarray) or value != wanted:
        raise NotThisCell


EQUATIONS: dict[str, Callable[[Reading, Sum], Iterator[Step]]] = {
    "tanh": _plain("tanh", "Tanh"),
    "relu": _plain("relu", "Relu"),
    "lstm": _lstm,
    "gru": _gru,
    "original_gru": _original_gru,
}
