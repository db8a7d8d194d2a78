# SPDX-License-Identifier: MIT
"""Steps: what values of one step are, and the way from the graph's input to them and from them to what a model has.

    Data of all steps --chosen--> Steps          one step of x, or of a layer's outputs, or of their product
    Steps --as_data--> Data                      the last h of layers, or a linear layer on it
    Steps of all times --stacked--> Data         the outputs of a layer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx import values
from crnn.interop.onnx.files import in_precision
from crnn.interop.onnx.layer_nodes import FORWARD
from crnn.interop.onnx.reader import Reader
from crnn.interop.onnx.unrolled.algebra import NOTHING, ONE, Algebra, Sum
from crnn.interop.onnx.unrolled.chains import Chains, Place
from crnn.interop.onnx.values import Atom, Axis, Data, Head, Size, Unknown, atoms

BATCH, COLUMNS, SINGLE = "batch", "columns", ""  # axes; the last one has size 1
ANSWERS = ("Sigmoid", "Softmax", "LogSoftmax")
ROWS = "rows"  # an axis of zeros only: the initial states of several layers
REVERSED = " reversed"  # at the end of an axis' name: its elements are in the reverse order
NO_CELL = (
    "expected the outputs of a recurrent layer, or a linear layer on them, got what no cell of crnn computes: there "
    "must be two or more steps, all the same, each a tanh, relu, LSTM or GRU of x and the step before, the first of 0"
)
NOT_FIXED = (
    "expected a fixed number of steps, got the choice of some from sequences of any length: the exporter has unrolled "
    "a layer for one length, and for another one the file does not compute what the layer does; export with a fixed one"
)


@dataclass(frozen=True, eq=False)
class Steps:
    """A value of one step, or of none: (B, F), and axes of size 1.

    Attributes
    ----------
    axes : tuple of str
        Each is BATCH, COLUMNS, SINGLE or ROWS.
    parts : tuple of Sum
        Beside each other in the columns.
    batch, rows : int or Unknown
        Sizes of these axes.
    """

    axes: tuple[str, ...]
    parts: tuple[Sum, ...]
    batch: Size
    rows: Size = 1

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    @property
    def sizes(self) -> list[Size]:
        return [{BATCH: self.batch, COLUMNS: self.width, SINGLE: 1, ROWS: self.rows}[axis] for axis in self.axes]


class Unroller:
    """The chains that have been found, and what was made of them. ``x`` is the name of the input that has steps."""

    chains: Chains
    reader: Reader
    x: str

    def __init__(self, chains: Chains, x: str) -> None:
        self.chains, self.reader, self.x = chains, chains.reader, x
        self._heads: dict[Any, Data] = {}  # by the key of the sum
        self._matrices: dict[Any, Array] = {}  # by the number of the one in the file

    @property
    def algebra(self) -> Algebra:
        return self.chains.algebra

    # ---- from all steps to one ------------------------------------------------------------------------------------

    def time_of(self, data: Data, axis: int) -> bool:
        """Whether an axis may be that of time: one of the first two of x, or that of a layer's outputs."""
        source = _source(data)
        if data.answer or (data.scaling is not None and data.what == "head") or len(data.axes) != 3 or axis == 2:
            return False
        if data.head is not None and data.axes[2] != atoms(Atom("outputs", data.head.weights.shape[1])):
            return False
        if source.what == "hidden":
            names = [atom.name.removesuffix(REVERSED) for atom in data.axes[axis]]
            every = {moment for moment, *_ in source.parts} == {values.EVERY}
            columns = data is not source or data.axes[2] == self.chains.data(data.parts).axes[2]
            return names == ["time"] and every and columns
        return source.what in ("input", "vectors") and source.name == self.x and len(data.axes[axis]) == 1

    def chosen(self, data: Data, axis: int, index: int, keep_axis: bool) -> Steps:
        """One step."""
        (atom,) = data.axes[axis]
        if not isinstance(atom.size, int):
            raise ValueError(NOT_FIXED)
        index = values.axis_number(index, atom.size)
        time = atom.size - 1 - index if atom.name.endswith(REVERSED) else index
        self._remember(data, axis)
        axes = [COLUMNS if i == 2 else BATCH for i in range(3)]
        axes[axis : axis + 1] = [SINGLE] if keep_axis else []
        return Steps(tuple(axes), self._parts(data, time), values.product(a.size for a in self.reader.batch))

    def _parts(self, data: Data, time: int) -> tuple[Sum, ...]:
        if data.head is not None:
            rows = self._parts(data.head.source, time)
            found = self.project(rows, data.head.weights)
            if data.head.bias is not None:
                found = self.algebra.add(found, self.algebra.constant(data.head.bias, found.width))
            return (found,)
        if data.what == "hidden":
            return tuple(self.chains.outputs[layer, direction][time] for _, layer, direction in data.parts)
        return (self.algebra.atom("x", time, data.sizes[2]),)

    def _remember(self, data: Data, axis: int) -> None:
        """Set what the first layer reads, and the axes of time and batch, or compare them. Raises ValueError."""
        source, reader = _source(data), self.reader
        time, batch = _forwards(data.axes[axis]), data.axes[1 - axis]
        if source.what == "hidden":
            if batch != reader.batch:
                raise ValueError("expected the axis of the batch where it was")
            return
        if source.axes[2] not in _columns(source) or not isinstance(source.sizes[2], int):
            raise ValueError("expected the columns of x in the last axis, and a known number of them")
        if any(atom.name.endswith(REVERSED) for atom in batch):
            raise ValueError("expected sequences in their order")
        known = self.chains.source
        if known is None:
            self.chains.source, self.chains.steps = replace(source, head=None), time[0].size
            reader.time, reader.batch = time, batch
        elif (known.name, known.what, reader.time, reader.batch) != (source.name, source.what, time, batch) or (
            known.table is not source.table or known.scaling is not source.scaling
        ):
            raise ValueError("expected all steps to be chosen from the same x, along the same axis")

    def batch(self, first: Size, second: Size) -> Size:
        """The number of sequences of two values. Raises ValueError if it differs, unless that shows at run time."""
        if first == second or second == 1:
            return first
        if first == 1:
            return second
        for size, other in ((first, second), (second, first)):
            if isinstance(size, Unknown) and not any(symbol.startswith(f"{self.x} ") for symbol in size.symbols):
                return other
        raise ValueError("expected as many sequences in both")

    def state(self, data: Data) -> Steps:
        """An input as an initial state (B, H) or (1, B, H). Raises ValueError."""
        H = data.sizes[-1] if data.axes else None
        own = data.what == "input" and data.name != self.x and data.scaling is None and len(data.axes) > 1
        if not own or not isinstance(H, int) or any(data.axes[:-2]) or data.axes[-1] not in _columns(data):
            raise ValueError("expected one of two or more steps of x, or an initial state (B, H)")
        row = None if data.rows is None else data.rows[0]
        found = self.algebra.atom("state", (data.name, row), H)
        return Steps((SINGLE,) * (len(data.axes) - 2) + (BATCH, COLUMNS), (found,), data.sizes[-2])

    def flipped(self, data: Data, axis: int) -> Data:
        """The steps in the reverse order."""
        (atom,) = data.axes[axis]
        name = atom.name.removesuffix(REVERSED) if atom.name.endswith(REVERSED) else atom.name + REVERSED
        axes = list(data.axes)
        axes[axis] = atoms(replace(atom, name=name))
        return data.with_axes(axes)

    # ---- operations -----------------------------------------------------------------------------------------------

    def matrix(self, array: Array) -> Array:
        """A matrix in a precision that crnn has; the same array each time, because an unrolled graph uses it often."""
        if array.dtype in (np.float32, np.float64):
            return array
        number = self.algebra.number(array)
        if number not in self._matrices:
            self._matrices[number] = in_precision("weights", array)
        return self._matrices[number]

    def project(self, parts: Sequence[Sum], matrix: Any) -> Sum:
        """The product of concatenated parts and a matrix."""
        if matrix.ndim != 2 or sum(part.width for part in parts) != len(matrix):
            raise ValueError(f"expected a matrix ({sum(part.width for part in parts)}, n), got shape {matrix.shape}")
        total, row = Sum(matrix.shape[1], {}), 0
        for part in parts:
            total = self.algebra.add(total, self.algebra.project(part, matrix[row : row + part.width]))
            row += part.width
        return total

    # ---- from steps to what a model has ---------------------------------------------------------------------------

    def as_data(self, steps: Steps) -> Data:
        """The last h of layers, or a linear layer on it, or its sigmoid. Raises ValueError for anything else."""
        part = self.algebra.content(steps.parts[0])
        places = [self.chains.find(each) for each in steps.parts]
        known = [place for place in places if place is not None]
        if len(known) == len(places):
            parts = tuple(self._ended(place) for place in known)
            width = atoms(values.blocks(len(parts)), Atom("units", steps.parts[0].width))
            if len({each.width for each in steps.parts}) > 1:
                raise ValueError("expected outputs of layers of one size")
            return Data("hidden", self._axes(steps, width), parts)
        place = self.chains.cell(part) if len(steps.parts) == 1 else None
        if place is not None:
            return Data("cell", self._axes(steps, atoms(Atom("units", part.width))), (self._ended(place),))
        if len(steps.parts) > 1:
            raise ValueError(NO_CELL)
        answer, part = self._argument(part)
        head = self._head(part)
        width = atoms(Atom("outputs", part.width))
        return replace(head, axes=self._axes(steps, width), answer=answer)

    def _argument(self, x: Sum) -> tuple[str, Sum]:
        """The function that makes an answer of a linear layer's outputs, "" for none, and those outputs."""
        atom = self.algebra.single(x)
        if atom is None or self.algebra.atoms[atom].kind not in ANSWERS:
            return "", x
        return self.algebra.atoms[atom].kind, self.algebra.atoms[atom].of

    def is_linear(self, x: Sum) -> bool:
        """Whether it is an affine function of something."""
        return any(source != NOTHING for _, source in x.terms) and all(factors == ONE for factors, _ in x.terms)

    def _head(self, x: Sum) -> Data:
        """A linear layer on the last h of layers."""
        key = self.algebra.key(x)
        if key not in self._heads:
            matrices = {source: value for (factors, source), value in x.terms.items() if source != NOTHING}
            bias = x.terms.get((ONE, NOTHING), 0.0)
            if not matrices or len(matrices) + ((ONE, NOTHING) in x.terms) != len(x.terms):
                raise ValueError(NO_CELL)
            found = {atom: self.chains.find(self.algebra.sum_of(atom)) for atom in matrices}
            places = {atom: place for atom, place in found.items() if place is not None}
            if len(places) != len(found) or any(factors != ONE for factors, _ in x.terms):
                raise ValueError(NO_CELL)
            order = sorted(places, key=lambda atom: places[atom].direction)
            weights = np.concatenate([matrices[atom] for atom in order])
            self.reader.charge(weights.nbytes)
            parts = tuple(self._ended(places[atom]) for atom in order)
            units = atoms(values.blocks(len(parts)), Atom("units", len(weights) // len(parts)))
            source = Data("hidden", (self.reader.batch, units), parts)
            vector = np.broadcast_to(bias, x.width).astype(weights.dtype)
            self._heads[key] = Data("head", (), head=Head(weights, vector, source))
        return self._heads[key]

    def _ended(self, place: Place) -> values.Part:
        """An output at one time. Raises ValueError unless it is the first or the last."""
        if place.time not in (0, self.chains.steps - 1):
            raise ValueError("expected the first or the last step")
        last = values.LAST if place.direction == FORWARD else values.END
        return (values.FIRST if place.time == 0 else last), place.layer, place.direction

    def _axes(self, steps: Steps, width: Axis) -> tuple[Axis, ...]:
        if ROWS in steps.axes:
            raise ValueError("expected no zeros")
        return tuple({BATCH: self.reader.batch, COLUMNS: width, SINGLE: ()}[axis] for axis in steps.axes)

    def stacked(self, rows: Sequence[Steps], axis: int) -> Data:
        """Steps stacked along an axis that has size 1 in each: all outputs of a layer, or a linear layer on
        them; or several last h."""
        if any(row.axes != rows[0].axes or len(row.parts) != len(rows[0].parts) for row in rows):
            raise ValueError("expected steps of one shape")
        found = [self._row_at([row.parts[i] for row in rows]) for i in range(len(rows[0].parts))]
        known = [each for each in found if each is not None]
        if len(known) == len(found):
            return self._over_time(rows[0], axis, known, None)
        if len(rows) == self.chains.steps and len(rows[0].parts) == 1:
            answers, sums = zip(*[self._argument(row.parts[0]) for row in rows], strict=True)
            if all(self.is_linear(each) for each in sums) and len(set(answers)) == 1:
                return replace(self._linear_over_time(rows[0], sums, axis), answer=answers[0])
        return values.joined([self.as_data(row) for row in rows], axis)

    def _over_time(
        self, like: Steps, axis: int, found: Sequence[tuple[values.Part, bool]], head: Head | None
    ) -> Data:
        """Outputs of all steps along an axis, or a linear layer on them."""
        parts, reverse = tuple(part for part, _ in found), {reverse for _, reverse in found}
        if len(reverse) > 1:
            raise ValueError("expected the outputs of both directions in the order of time")
        source = self.chains.data(parts)
        columns = source.axes[2] if head is None else atoms(Atom("outputs", head.weights.shape[1]))
        axes = list(self._axes(like, columns))
        axes[axis] = atoms(Atom("time" + (REVERSED if reverse.pop() else ""), self.chains.steps))
        if head is None:
            return source.with_axes(axes)
        return Data("head", tuple(axes), head=replace(head, source=source))

    def _linear_over_time(self, like: Steps, sums: Sequence[Sum], axis: int) -> Data:
        """The same linear layer on the outputs of each step."""
        number = self.algebra.number
        layers = [{number(value): source for (_, source), value in x.terms.items() if source != NOTHING} for x in sums]
        biases = {number(x.terms.get((ONE, NOTHING), 0.0)) for x in sums}
        if any(each.keys() != layers[0].keys() for each in layers) or len(biases) > 1:
            raise ValueError("expected the same linear layer on each step")
        found = {key: self._row_at([self.algebra.sum_of(each[key]) for each in layers]) for key in layers[0]}
        known = {key: each for key, each in found.items() if each is not None}
        if len(known) != len(found) or len(sums[0].terms) != len(found) + ((ONE, NOTHING) in sums[0].terms):
            raise ValueError(NO_CELL)
        order = sorted(known, key=lambda key: known[key][0][2])
        weights = np.concatenate([sums[0].terms[ONE, layers[0][key]] for key in order])
        self.reader.charge(weights.nbytes)
        bias = np.broadcast_to(sums[0].terms.get((ONE, NOTHING), 0.0), sums[0].width).astype(weights.dtype)
        parts = [known[key] for key in order]
        return self._over_time(like, axis, parts, Head(weights, bias, self.chains.data((parts[0][0],))))

    def _row_at(self, row: Sequence[Sum]) -> tuple[values.Part, bool] | None:
        """The part whose outputs at all times are in a row, and whether they are in the reverse order; or None."""
        if len(row) != self.chains.steps:
            return None
        self.chains.find_one_of((row[-1], row[0]))
        places = [self.chains.place(each) for each in row]
        first = places[0]
        if first is None or any(p is None or (p.layer, p.direction) != (first.layer, first.direction) for p in places):
            return None
        times = [place.time for place in places if place is not None]
        forwards = list(range(len(row)))
        if times not in (forwards, forwards[::-1]):
            return None
        return (values.EVERY, first.layer, first.direction), times != forwards


def _source(data: Data) -> Data:
    return data if data.head is None else data.head.source


def _forwards(axis: Axis) -> Axis:
    return tuple(replace(atom, name=atom.name.removesuffix(REVERSED)) for atom in axis)


def _columns(source: Data) -> set[Axis]:
    """What the last axis of an input or of vectors is if no other one was put there."""
    return {atoms(Atom(name, source.sizes[-1])) for name in ("columns", *(f"{source.name} {i}" for i in (1, 2)))}
