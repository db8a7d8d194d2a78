# SPDX-License-Identifier: MIT
"""Chains: steps of a cell, each with the h of the one before, become a layer of the reader.

All steps must have the same cell and the same matrices and vectors, read the same vectors in the order of time, and be
as many as the sequence has. The first one must start from zeros, or from an input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.layouts import LAYOUTS, to_crnn
from crnn.interop.onnx import values
from crnn.interop.onnx.layer_nodes import FORWARD, REVERSE
from crnn.interop.onnx.reader import Reader, ReadLayer
from crnn.interop.onnx.unrolled.algebra import Algebra, Sum
from crnn.interop.onnx.unrolled.equations import Gate, Step, steps_of
from crnn.interop.onnx.values import Atom, Data
from crnn.interop.onnx.values import atoms as atoms_of

MOST_LAYERS = 50
COST = 500  # bytes that an attempt to read a step counts as, to bound the time that a hostile graph takes
LAYOUT = "onnx"  # the order in which the gates are put together


@dataclass(frozen=True)
class Place:
    """Which output a sum is: of which layer and direction, at which time."""

    layer: int
    direction: int
    time: int


class Chains:
    """The layers that have been found.

    Attributes
    ----------
    source : Data, optional
        What the first layer reads, and how many ``steps`` it has; None until a step of it has been read.
    outputs : dict
        By layer and direction: h at each time.
    """

    reader: Reader
    algebra: Algebra

    def __init__(self, reader: Reader) -> None:
        self.reader, self.algebra = reader, Algebra(reader.charge)
        self.source: Data | None = None
        self.steps = 0
        self.outputs: dict[tuple[int, int], list[Sum]] = {}
        self._places: dict[Any, Place] = {}  # by the key of h
        self._cells: dict[Any, Place] = {}  # by the key of the c of an LSTM
        self._starts: dict[tuple[int, int], dict[str, tuple[str, int | None]]] = {}  # inputs of states, and their rows
        self._depth = 0  # of layers that read each other

    def place(self, h: Sum) -> Place | None:
        """Which output h is, if that is known."""
        return self._places.get(self.algebra.key(self.algebra.content(h)))

    def cell(self, c: Sum) -> Place | None:
        """Which c of an LSTM a sum is, if its h is known."""
        return self._cells.get(self.algebra.key(self.algebra.content(c)))

    def find(self, h: Sum) -> Place | None:
        """Which output h is. It may be the last h of a layer that is not known yet, which is then added."""
        h = self.algebra.content(h)
        if self._depth > MOST_LAYERS:
            raise ValueError(f"expected at most {MOST_LAYERS} layers")
        if self.place(h) is None:
            self._depth += 1
            for last in self._steps_of(h):
                chain = self._chain(last, h) if last.before is not None else None
                if chain is not None and self._add(chain):
                    break
            self._depth -= 1
        return self.place(h)

    def find_one_of(self, ends: Sequence[Sum]) -> None:
        """The same where the last h is one of these."""
        for h in ends:
            if self.find(h) is not None:
                return

    def _steps_of(self, h: Sum) -> Iterator[Step]:
        for step in steps_of(self.algebra, h):
            self.reader.charge(COST)
            yield step

    # ---- chains ---------------------------------------------------------------------------------------------------

    def _chain(self, last: Step, h: Sum) -> list[tuple[Step, Sum]] | None:
        """Steps and their h, the first one first; None if one differs from the last one."""
        found = [(last, h)]
        step: Step | None = last
        while step is not None and step.before is not None and self._input_of(step.before) is None:
            h = self.algebra.sum_of(step.before)
            same = [each for each in self._steps_of(h) if self._continues(each, step, last)]
            step = same[0] if same else None
            if step is None or len(found) >= self.steps:
                return None
            found.append((step, h))
        return found[::-1]

    def _input_of(self, atom: int) -> tuple[str, int | None] | None:
        """The input that an atom is as an initial state, and its row; None if it is none."""
        found = self.algebra.atoms[atom]
        return found.of if found.kind == "state" else None

    def _start(self, first: Step) -> dict[str, tuple[str, int | None]] | None:
        """The inputs that h and c of a first step are; empty for zeros; None if they are something else."""
        if first.before is None:
            return {}
        atoms = {"h": first.before}
        if first.c_before is not None:
            products = [factors for factors, _ in first.c_before.terms if len(factors) == 1]
            if len(products) != len(first.c_before.terms) or len(products) != 1:
                return None
            atoms["c"] = products[0][0]
        found = {name: self._input_of(atom) for name, atom in atoms.items()}
        known = {name: start for name, start in found.items() if start is not None}
        return known if len(known) == len(found) else None

    def _continues(self, step: Step, following: Step, last: Step) -> bool:
        """Whether a step is like the last one, and its c the previous c of the following one."""
        number, key = self.algebra.number, self.algebra.key
        first = step.before is None
        if (step.cell, step.inverted) != (last.cell, last.inverted):
            return False
        if (step.c_before is None) != (first or step.c is None):
            return False
        if step.c is not None and (following.c_before is None or key(step.c) != key(following.c_before)):
            return False
        if not first and {k: number(v) for k, v in step.recurrent.items()} != self._recurrent(last):
            return False
        if set(step.gates) - set(last.gates) or (not first and set(step.gates) != set(last.gates)):
            return False
        if any(number(gate.bias) != number(last.gates[letter].bias) for letter, gate in step.gates.items()):
            return False
        if number(step.b_hn) != number(last.b_hn):
            return False
        return self._sources(step, step.gates).keys() == self._sources(last, step.gates).keys()

    def _recurrent(self, step: Step) -> dict[str, Any]:
        return {letter: self.algebra.number(matrix) for letter, matrix in step.recurrent.items()}

    def _sources(self, step: Step, letters: Any) -> dict[Any, int]:
        """The atoms that a step reads besides h, by the numbers of their matrices; empty if two have the same."""
        atoms = {atom for letter in letters for atom in step.gates[letter].matrices}
        found: dict[Any, int] = {}
        for atom in atoms:
            matrices = [step.gates[letter].matrices.get(atom) for letter in sorted(letters)]
            found[tuple(None if each is None else self.algebra.number(each) for each in matrices)] = atom
        return found if len(found) == len(atoms) else {}

    # ---- layers ---------------------------------------------------------------------------------------------------

    def _add(self, chain: list[tuple[Step, Sum]]) -> bool:
        """Add a chain as a layer, or as the other direction of one. Returns whether it is one."""
        last, h = chain[-1]
        read = self._read(chain)
        start = self._start(chain[0][0])
        if read is None or start is None or len(chain) != self.steps:
            return False
        times, places = read
        direction = FORWARD if times[0] == 0 else REVERSE
        source, number, atoms = self._layer_of(places)
        params = self._parameters(last, atoms, h.width)
        layers = self.reader.layers
        if number == len(layers):
            layers.append(ReadLayer(last.cell, source, {}, {}, ""))
        layer = layers[number]
        fits = layer.cell == last.cell and direction not in layer.params and number == len(layers) - 1
        for other in layer.params.values():
            fits = fits and other["W_hh"].shape == params["W_hh"].shape and other["W_hh"].dtype == params["W_hh"].dtype
        if not fits:
            raise ValueError("expected layers one after the other, each read by the next one only")
        layer.params[direction], self._starts[number, direction] = params, start
        by_time = [h for _, h in (chain if direction == FORWARD else chain[::-1])]
        self.outputs[number, direction] = by_time
        for time, each in enumerate(by_time):
            self._places[self.algebra.key(each)] = Place(number, direction, time)
        for time, (step, _) in zip(times, chain, strict=True):
            if step.c is not None:
                self._cells[self.algebra.key(step.c)] = Place(number, direction, time)
        return True

    def _read(self, chain: list[tuple[Step, Sum]]) -> tuple[list[int], dict[int, Place | None]] | None:
        """The times in the order in which a chain reads; and what the atoms of its last step are, None for x."""
        last, _ = chain[-1]
        rows: dict[int, list[int]] = {atom: [] for atom in self._sources(last, last.gates).values()}
        for step, _ in chain:
            atoms = self._sources(step, step.gates)
            for key, atom in self._sources(last, step.gates).items():
                rows[atom].append(atoms[key])
        found = {atom: self._times(row) for atom, row in rows.items()}
        orders = [order for _, order in found.values()]
        if not orders or orders[0] is None or any(order != orders[0] for order in orders):
            return None
        return orders[0], {atom: place for atom, (place, _) in found.items()}

    def _times(self, atoms: Sequence[int]) -> tuple[Place | None, list[int] | None]:
        """What atoms are outputs of, None for x, and their times. No times: they are not the steps of one thing."""
        kinds = [self.algebra.atoms[atom] for atom in atoms]
        if all(each.kind == "x" for each in kinds):
            return None, self._in_order([each.of for each in kinds])
        rows = [self.algebra.sum_of(atom) for atom in atoms]
        self.find_one_of((rows[-1], rows[0]))
        places = [place for place in map(self.place, rows) if place is not None]
        if len(places) != len(rows) or len({(place.layer, place.direction) for place in places}) > 1:
            return None, None
        return places[0], self._in_order([place.time for place in places])

    def _in_order(self, times: list[int]) -> list[int] | None:
        """The times if they are all, forwards or backwards."""
        if len(times) != self.steps:
            return None
        forwards = list(range(self.steps))
        return times if times in (forwards, forwards[::-1]) else None

    def add_states(self) -> None:
        """Give the layers the inputs that their initial states are. Raises ValueError."""
        for number, layer in enumerate(self.reader.layers):
            starts = [self._starts[number, direction] for direction in sorted(layer.params)]
            for name in ("h", "c"):
                found = [start[name] for start in starts if name in start]
                if not found:
                    continue
                (source, row), rows = found[0], [row for _, row in found]
                wanted = [(source, None if row is None else row + i) for i in range(len(starts))]
                if found != wanted or (row is None and len(rows) > 1):
                    raise ValueError(f"initial_{name} of layer {number}: expected the layer's own rows of one input")
                units = atoms_of(Atom("units", self.outputs[number, min(layer.params)][0].width))
                axes = (atoms_of(Atom("rows", len(rows))), self.reader.batch, units)
                chosen = None if row is None else range(row, row + len(rows))
                layer.states[name] = Data("input", axes, name=source, rows=chosen)

    def _layer_of(self, places: dict[int, Place | None]) -> tuple[Data, int, list[int]]:
        """What a layer reads, its number, and the atoms in the order of the directions that it reads."""
        below = {atom: place for atom, place in places.items() if place is not None}
        if not below and len(places) == 1 and self.source is not None:
            return self.source, 0, list(places)
        layers = {place.layer for place in below.values()}
        if len(layers) != 1 or len(below) != len(places):
            raise ValueError("expected layers one after the other, of which only the first one reads x")
        atoms = sorted(below, key=lambda atom: below[atom].direction)
        (layer,) = layers
        parts = tuple((values.EVERY, layer, below[atom].direction) for atom in atoms)
        if len(set(parts)) < len(parts):
            raise ValueError("expected each direction of a layer to be read once")
        return self.data(parts), layer + 1, atoms

    def data(self, parts: tuple[values.Part, ...]) -> Data:
        """Outputs of all steps, (T, B, F)."""
        _, layer, direction = parts[0]
        units = atoms_of(values.blocks(len(parts)), Atom("units", self.outputs[layer, direction][0].width))
        return Data("hidden", (atoms_of(Atom("time", self.steps)), self.reader.batch, units), parts)

    def _parameters(self, step: Step, atoms: Sequence[int], H: int) -> dict[str, Array]:
        """The parameters of a direction. Raises ValueError."""
        letters = LAYOUTS[LAYOUT].gates[step.cell]
        W = np.concatenate([self._columns(step.gates[letter], atoms, H) for letter in letters], 1)
        U = np.concatenate([step.recurrent[letter] for letter in letters], 1)
        if W.dtype != U.dtype:
            raise ValueError(f"expected matrices of one dtype, got {W.dtype} and {U.dtype}")
        self.reader.charge(W.nbytes + U.nbytes)
        bias = np.concatenate([np.broadcast_to(step.gates[letter].bias, H) for letter in letters])
        recurrent = np.concatenate([np.broadcast_to(step.b_hn if letter == "n" else 0.0, H) for letter in letters])
        if step.inverted:
            z = slice(letters.index("z") * H, (letters.index("z") + 1) * H)
            for array in (W, U, bias):
                array[..., z] *= -1
        with np.errstate(over="ignore"):
            biases = bias.astype(W.dtype), recurrent.astype(W.dtype)
        return to_crnn(LAYOUT, step.cell, W.T, U.T, *biases)

    def _columns(self, gate: Gate, atoms: Sequence[int], H: int) -> Array:
        """The matrix of a gate for all that it reads; zeros for what only other gates read."""
        zeros = [np.zeros((self.algebra.atoms[atom].width, H), np.float32) for atom in atoms]
        return np.concatenate([gate.matrices.get(atom, zero) for atom, zero in zip(atoms, zeros, strict=True)])
