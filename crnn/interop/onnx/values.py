# SPDX-License-Identifier: MIT
"""What a value of a graph is, as far as it is known before the graph runs.

    NumPy array    a constant; sizes of axes are integer arrays, of dtype object if some are not known
    Zeros          zeros of any shape
    Rows, Filled   an array (n, 1, H), or a size, that is the same for every sequence of a batch
    Data           what depends on the inputs: where it comes from, and what its axes are

The axes of `Data` are followed through transpositions and reshapes, so that it is known what each number in the end is,
however the exporter arranged it. An axis is a tuple of atoms, the last one varies fastest; atoms of size 1 are left
out, because it makes no difference where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn.checks import Array

LONGEST = 1 << 63  # sizes are int64
MOST_AXES = 8
MOST_SYMBOLS = 4  # factors of a size
MOST_PARTS = 1_000  # directions of layers
# Moments of a part: every step; the state after a sequence's last step, in either direction; the step at the end of the
# array, which with lengths may be padding; the first step; the mean and the maximum of all, with padding.
EVERY, LAST, END, FIRST, MEAN, MAX = "every", "last", "end", "first", "mean", "max"


@dataclass(frozen=True)
class Unknown:
    """A size that is a product of sizes that are not known before the graph runs."""

    number: int
    symbols: tuple[str, ...]

    def __repr__(self) -> str:
        return "unknown"


Size = Any  # int or Unknown


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes. Raises ValueError for one that no array can have."""
    number, symbols = 1, []
    for size in sizes:
        number *= size.number if isinstance(size, Unknown) else int(size)
        symbols += list(size.symbols) if isinstance(size, Unknown) else []
        if abs(number) >= LONGEST or len(symbols) > MOST_SYMBOLS:
            raise ValueError("expected a size that an array can have")
    return Unknown(number, tuple(sorted(symbols))) if symbols else number


@dataclass(frozen=True)
class Atom:
    """A part of an axis that is never divided."""

    name: str
    size: Size


Axis = tuple[Atom, ...]
Part = tuple[str, int, int]  # moment, layer, direction: of which outputs a block of H units is


@dataclass(frozen=True)
class Filled:
    """The same size for every sequence of a batch."""

    size: Size


@dataclass(frozen=True)
class Scaling:
    """(x - mean) / std of an input, or x * std + mean of the outputs of a head."""

    mean: Array  # float64, () or (D,) of the axis
    std: Array
    axis: Axis


@dataclass(frozen=True)
class Head:
    """A linear layer on outputs of the top layer."""

    weights: Array  # (F, V)
    bias: Array | None  # (V,)
    source: Data  # its input


@dataclass(frozen=True, eq=False)
class Data:
    """A value that depends on the inputs.

    Attributes
    ----------
    what : str
        "input", real numbers; "ids", integers of an input or computed from it; "vectors" of an embedding or one-hot;
        "hidden" or "cell", outputs or c of layers; "head", or an answer made of its outputs.
    axes : tuple of Axis
    parts : tuple of Part
        Of "hidden" and "cell": what the atom "blocks" consists of. It is left out if there is one part.
    name : str
        Of the input.
    rows : range, optional
        Of an "input" that is a state: which elements of its first axis. None: all.
    probe : array, optional
        Of "ids": what 0, 1, 2, ... becomes. None: as it is.
    head : Head, optional
    answer : str
        What was made of the head's outputs: "", "Softmax", "LogSoftmax", "Sigmoid" or "ArgMax".
    table : array, optional
        Of "vectors": the embedding. None: one-hot.
    scaling : Scaling, optional
        Of "input" and "head".
    names : array, optional
        Of the classes of an "ArgMax".
    """

    what: str
    axes: tuple[Axis, ...]
    parts: tuple[Part, ...] = ()
    name: str = ""
    rows: range | None = None
    probe: Array | None = None
    head: Head | None = None
    answer: str = ""
    table: Array | None = None
    scaling: Scaling | None = None
    names: Array | None = None

    def with_axes(self, axes: Sequence[Axis], **changes: Any) -> Data:
        if len(axes) > MOST_AXES or len(changes.get("parts", ())) > MOST_PARTS:
            raise ValueError("expected fewer axes, or parts of one")
        return replace(self, axes=tuple(axes), **changes)

    @property
    def sizes(self) -> list[Size]:
        return [product(atom.size for atom in axis) for axis in self.axes]


class Zeros:
    """Zeros of any shape."""


@dataclass(frozen=True)
class Rows:
    """(n, B, H): an array (n, 1, H) for every sequence of a batch."""

    array: Array


Value = Any  # Array, Data, Zeros, Rows or Filled


def atoms(*each: Atom) -> Axis:
    """An axis of these atoms."""
    return tuple(atom for atom in each if atom.size != 1)


# ---- axes ------------------------------------------------------------------------------------------------------------


def axis_number(axis: int, n: int) -> int:
    """The number, from 0, of one of n axes. Raises ValueError."""
    if not -n <= axis < n:
        raise ValueError(f"expected one of {n} axes, got {axis}")
    return axis % n


def transposed(data: Data, perm: Sequence[int]) -> Data:
    if sorted(perm) != list(range(len(data.axes))):
        raise ValueError(f"expected a permutation of {len(data.axes)} axes, got {list(perm)[:MOST_AXES]}")
    return data.with_axes([data.axes[i] for i in perm])


def squeezed(data: Data, axes: Sequence[int]) -> Data:
    gone = {axis_number(axis, len(data.axes)) for axis in axes}
    if any(data.axes[axis] for axis in gone):
        raise ValueError("expected axes of size 1")
    return data.with_axes([axis for i, axis in enumerate(data.axes) if i not in gone])


def unsqueezed(data: Data, axes: Sequence[int]) -> Data:
    n = len(data.axes) + len(axes)
    new = {axis_number(axis, n) for axis in axes} if n <= MOST_AXES else set()
    if len(new) != len(axes):
        raise ValueError(f"expected different axes, and at most {MOST_AXES}")
    old = iter(data.axes)
    return data.with_axes([() if i in new else next(old) for i in range(n)])


def reshaped(data: Data, shape: Sequence[Size], copy_zeros: bool = True) -> Data:
    """The data in another shape. Raises ValueError for one that divides an atom, or depends on what is not known."""
    split = _layers_and_directions(data, list(shape[:2]))
    if split is not None:
        data = split
    given = [data.sizes[i] if size == 0 and copy_zeros and i < len(data.axes) else size for i, size in enumerate(shape)]
    if len(given) > MOST_AXES or given.count(-1) > 1:
        raise ValueError(f"expected a shape of at most {MOST_AXES} axes, of which one is open")
    rest = [atom for axis in data.axes for atom in axis]
    at = given.index(-1) if -1 in given else len(given)
    before = [_take(rest, size) for size in given[:at]]
    rest.reverse()
    after = [_take(rest, size)[::-1] for size in given[:at:-1]][::-1]
    rest.reverse()
    if at == len(given):
        if rest:
            raise ValueError(f"expected a shape of all of {data.sizes}, got {list(shape)}")
        return data.with_axes(before)
    return data.with_axes([*before, tuple(rest), *after])


def _layers_and_directions(data: Data, sizes: list[Size]) -> Data | None:
    """A state (L * directions, B, H) as (L, directions, B, H), if these are the first two sizes; otherwise None."""
    n = len(data.parts)
    if data.what not in ("hidden", "cell") or not data.axes or data.axes[0] != atoms(blocks(n)) or len(sizes) < 2:
        return None
    layers = n // sizes[1] if sizes[0] == -1 and isinstance(sizes[1], int) and sizes[1] else sizes[0]
    if not isinstance(layers, int) or layers < 2 or n % layers or sizes[1] not in (n // layers, -1):
        return None
    return data.with_axes([atoms(Atom("layers", layers), blocks(n // layers)), *data.axes[1:]])


def _take(rest: list[Atom], size: Size) -> Axis:
    """Remove the first atoms, which together have this size. Raises ValueError if there are none."""
    taken: list[Atom] = []
    while product(atom.size for atom in taken) != size:
        if not rest or len(taken) > MOST_AXES:
            raise ValueError("expected a shape that joins axes, and does not divide them")
        taken.append(rest.pop(0))
    return tuple(taken)


# ---- parts of outputs ------------------------------------------------------------------------------------------------


def blocks(n: int) -> Atom:
    """The directions of layers."""
    return Atom("blocks", n)


def selected(data: Data, axis: int, chosen: Sequence[int], keep_axis: bool) -> Data:
    """Some elements of an axis. Raises ValueError if it is not known what they are."""
    atom_names = [atom.name for atom in data.axes[axis]]
    if len(chosen) > MOST_PARTS:
        raise ValueError("expected a choice of steps or layers")
    if not atom_names and list(chosen) in ([0], [-1]):
        return data if keep_axis else squeezed(data, [axis])
    if data.what not in ("hidden", "cell"):
        raise ValueError(f"expected a choice of steps or layers, got one of {data.what}")
    axes = list(data.axes)
    if atom_names == ["time"] and len(chosen) == 1 and {moment for moment, *_ in data.parts} == {EVERY}:
        steps = data.axes[axis][0].size
        moment = {-1: END, 0: FIRST}.get(chosen[0] if not isinstance(steps, int) else _signed(chosen[0], steps))
        if moment is None:
            raise ValueError("expected the first or the last step")
        axes[axis] = ()
        found = data.with_axes(axes, parts=tuple((moment, layer, d) for _, layer, d in data.parts))
    elif atom_names == ["layers"] and len(chosen) == 1:
        n = data.axes[axis][0].size
        directions = len(data.parts) // n
        start = axis_number(chosen[0], n) * directions
        axes[axis] = ()
        found = data.with_axes(axes, parts=data.parts[start : start + directions])
    elif atom_names == ["blocks"] and not any(atom.name == "layers" for other in axes for atom in other):
        parts = tuple(data.parts[axis_number(i, len(data.parts))] for i in chosen)
        axes[axis] = atoms(blocks(len(parts)))
        found = data.with_axes(axes, parts=parts)
    else:
        raise ValueError("expected a choice of steps or layers")
    return found if keep_axis else squeezed(found, [axis])


def _signed(index: int, n: int) -> int:
    """-1 for the last of n, 0 for the first, otherwise the index."""
    return -1 if index == n - 1 else index


def sliced(data: Data, axis: int, start: int, stop: int) -> Data:
    """A range of an axis. Raises ValueError if it is not known what that is."""
    n = data.sizes[axis]
    known = isinstance(n, int)
    if start == 0 and stop >= (n if known else (1 << 31) - 1):
        return data
    if data.what == "input" and axis == 0 and known:
        rows = (range(n) if data.rows is None else data.rows)[start:stop]
        return data.with_axes([atoms(Atom(f"{data.name} rows", len(rows))), *data.axes[1:]], rows=rows)
    names = [atom.name for atom in data.axes[axis]]
    if known:
        chosen: Sequence[int] = range(*slice(start, stop).indices(n))
    elif start == -1 and stop >= (1 << 31) - 1:
        chosen = [-1]
    else:
        chosen = range(start, stop) if 0 <= start < stop else ()
    if names[-1:] == ["units"] and names[:-1] in ([], ["blocks"]):  # the units of some directions
        H = data.axes[axis][-1].size
        if start % H or len(chosen) % H or not chosen:
            raise ValueError("expected a choice of whole directions")
        i = range(chosen[0] // H, chosen[-1] // H + 1)
        axes = [*data.axes[:axis], atoms(blocks(len(i)), Atom("units", H)), *data.axes[axis + 1 :]]
        return data.with_axes(axes, parts=data.parts[i.start : i.stop])
    return selected(data, axis, chosen, keep_axis=True)


def joined(values: Sequence[Data], axis: int) -> Data:
    """Outputs of layers or directions, concatenated."""
    first = values[0]
    others = [[a for i, a in enumerate(each.axes) if i != axis] for each in values]
    joint = [tuple(atom for atom in each.axes[axis] if atom.name != "blocks") for each in values]
    elsewhere = any(atom.name in ("blocks", "layers") for other in others for each in other for atom in each)
    alike = all(each.what == first.what for each in values) and first.what in ("hidden", "cell")
    if not alike or elsewhere or any(o != others[0] for o in others) or any(j != joint[0] for j in joint):
        raise ValueError("expected outputs of layers of one size")
    if [atom.name for atom in joint[0]] not in ([], ["units"]):
        raise ValueError("expected an axis of layers, directions or units")
    parts = tuple(part for each in values for part in each.parts)
    axes = list(first.axes)
    axes[axis] = atoms(blocks(len(parts)), *joint[0])
    return first.with_axes(axes, parts=parts)


def reduced(data: Data, axis: int, moment: str, keep_axis: bool) -> Data:
    """The mean or maximum over the steps."""
    if data.what != "hidden" or [atom.name for atom in data.axes[axis]] != ["time"]:
        raise ValueError("expected the steps of a layer's outputs")
    if {each for each, *_ in data.parts} != {EVERY}:
        raise ValueError("expected the outputs of all steps")
    axes = list(data.axes)
    axes[axis] = ()
    found = data.with_axes(axes, parts=tuple((moment, layer, direction) for _, layer, direction in data.parts))
    return found if keep_axis else squeezed(found, [axis])


def as_sizes(sizes: Sequence[Size]) -> Array:
    """Sizes as a constant: int64, or of dtype object."""
    array = np.empty(len(sizes), object)
    array[:] = sizes
    return array if any(isinstance(size, Unknown) for size in sizes) else array.astype(np.int64)
