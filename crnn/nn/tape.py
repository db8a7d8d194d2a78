# SPDX-License-Identifier: MIT
"""Tape: what the forward pass of a stack keeps for the backward pass, layer by layer."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn import _parallel as parallel
from crnn._core import arrays as kernels
from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.nn.inputs import Dense, LayerInput
from crnn.nn.program import WindowProgram
from crnn.nn.recurrence import Recurrence
from crnn.nn.slices import Slice
from crnn.nn.state import State

Array = NDArray[Any]

# x_t W_xh + b_h is computed for a chunk of steps before the recurrence runs through them. A chunk has at most so many
# bytes, so that it is still in the L2 cache when it is read: 2 % faster at H = 512.
CHUNK_BYTES = 256 * 1024

# A tape copies an x and a y of at most so many bytes, so that the kernel calls of a window can be repeated for the next
# one. In larger windows the time between kernel calls does not matter.
COPIED_BYTES = 256 * 1024


@dataclass(eq=False, repr=False)
class LayerTape:
    """One layer of a tape. The arrays of each direction belong to its `Recurrence`.

    If the sequences have lengths, arrays (T, B, ...) are packed, see `crnn._core.rows.Lengths`; for inference they may
    have padding, of any values.
    """

    x: Array  # (T, B, K), or ids (T, B): input of all directions
    directions: list[tuple[LayerInput, Recurrence]]
    y: Array  # (T, B, carried + H*directions); if it has one direction and nothing else, the h of its recurrence
    carried: int = 0  # columns of y that are those of `input`: K with dense_layers
    below: Array | None = None  # (T, B, K): output of the layer below or a real input, if x is it after dropout
    mask: Array | None = None  # (T, B, K), or if not packed (1, B, K): x = below * mask
    dy: Array | None = None  # gradient at y; where y is the h of a recurrence, its dh

    @property
    def input(self) -> Array:
        """What the layer is given: its x, before dropout."""
        return self.x if self.below is None else self.below

    @property
    def gathers(self) -> bool:
        """Whether y consists of copies of several arrays."""
        return len(self.directions) > 1 or self.carried > 0

    def replace_y(self, y: Array) -> None:
        """Use other memory for y, of a tape for inference."""
        self.y = y
        if not self.gathers:
            self.directions[0][1].h = y

    def forward(self, part: Slice, after: State, first: int) -> None:
        """Run all steps for the rows of ``part``. ``first``: index of this layer's first direction in a state."""
        rows = part.rows
        if self.below is not None and self.mask is not None:
            self.x[:, rows] = self.below[:, rows] * self.mask[:, rows]
        elif self.below is not None:
            self._copy_rows(self.x, self.below, part)
        if self.carried:
            self._copy_rows(self.y, self.input, part)
        for number, (source, cell) in enumerate(self.directions):
            h_after, c_after = after.h[first + number], None if after.c is None else after.c[first + number]
            for t0, t1 in self._chunks(cell, part):
                of_steps = part
                if part.padded:
                    of_steps, ending = part.steps(t0, t1)
                    if of_steps.b0 == of_steps.b1:
                        continue
                    cell.start_sequences(ending, t1)
                local = slice(t0, t1) if cell.keep else slice(t1 - t0)
                xw, ids = source.project(cell.xw[local], t0, t1, of_steps)
                cell.forward(xw, ids, t0, t1, of_steps)
                if part.padded:
                    cell.finish_sequences(ending, t0, t1, part, c_after)
            cell.finish_forward(part, h_after, c_after)
            if self.gathers:
                self._copy_rows(self.y, cell.h, part, self.carried + number * cell.H)

    def forward_steps(self, part: Slice, t0: int, t1: int) -> None:
        """Run the steps t0 .. t1-1 of a tape that keeps all of them, when those before have been run.

        Of a layer that reads forward, without masks and lengths.
        """
        ((source, cell),) = self.directions
        if self.below is not None:
            self._copy_rows(self.x[t0:t1], self.below[t0:t1], part)
        xw, ids = source.project(cell.xw[t0:t1], t0, t1, part)
        cell.forward(xw, ids, t0, t1, part)
        if self.carried:
            self._copy_rows(self.y[t0:t1], self.input[t0:t1], part)
            self._copy_rows(self.y[t0:t1], cell.h[t0:t1], part, self.carried)

    @staticmethod
    def _copy_rows(to: Array, values: Array, part: Slice, to_column: int = 0, column: int = 0) -> None:
        """Copy the rows of ``part`` of values (T, B, L) into to (T, B, K), from those columns on."""
        if part.lengths is None:
            kernels.copy_rows(to, values, part.b0, part.b1, to_column, column)
        else:
            count = min(to.shape[2] - to_column, values.shape[2] - column)
            of = part.rows
            to[:, of, to_column : to_column + count] = values[:, of, column : column + count]

    @staticmethod
    def _add_rows(to: Array, values: Array, part: Slice) -> None:
        """Add to (T, B, K) the rows of ``part`` of values (T, B, L), of which the first K columns."""
        if part.lengths is None:
            kernels.add_rows(to, values, part.b0, part.b1)
        else:
            to[:, part.rows] += values[:, part.rows, : to.shape[2]]

    def _chunks(self, cell: Recurrence, part: Slice) -> Iterator[tuple[int, int]]:
        """The chunks (t0, t1) of steps, in the direction of ``cell``. Packed arrays are one chunk."""
        T = cell.T
        steps = max(1, CHUNK_BYTES // max(1, (part.b1 - part.b0) * cell.xw.strides[1]))
        steps = min(steps, T) if cell.keep else cell.chunk_steps
        starts = range(0, T, steps)
        for t0 in reversed(starts) if cell.reverse else starts:
            yield t0, min(t0 + steps, T)

    def backward(self, part: Slice, dafter: State | None, first: int) -> None:
        """Backpropagate through all steps of the rows of ``part``.

        On entry dy is the gradient at y. The gradient at x, or at ``below``, is written into the dx of the first
        direction, which is the dy of the layer below.
        """
        rows = part.rows
        for number, (source, cell) in enumerate(self.directions):
            if self.gathers:
                assert self.dy is not None
                self._copy_rows(cell.dh, self.dy, part, 0, self.carried + number * cell.H)
            cell.add_state_gradient(
                part,
                None if dafter is None else dafter.h[first + number],
                None if dafter is None or dafter.c is None else dafter.c[first + number],
            )
            cell.backward(part)
            source.backward(cell.da, part)
        dx = self.directions[0][0].dx
        if dx is not None:
            for source, _ in self.directions[1:]:
                assert source.dx is not None
                self._add_rows(dx, source.dx, part)
            if self.mask is not None:
                dx[:, rows] *= self.mask[:, rows]
            if self.carried:
                assert self.dy is not None
                self._add_rows(dx, self.dy, part)


class ShardTape(NamedTuple):
    """The rows of a tape over which gradients of weights are summed."""

    sources: Sequence[LayerInput]  # the inputs of every direction of every layer
    lengths: Lengths | None  # those of the tape, or a range of them
    rows: slice = slice(None)  # of arrays (B, ...)


class TapeLayout(NamedTuple):
    """What the arrays of a tape depend on. A tape is reused for windows of the same layout."""

    x_shape: tuple[int, ...]  # (T, B, D), or (T, B) of ids, packed if there are lengths
    x_dtype: np.dtype[Any]
    steps: int  # T
    batch: int  # B
    keep: bool  # whether a backward pass is possible
    owns_x: bool  # whether x is a copy: that of a small window
    precision: str | None  # of all products and their gradients in a pass that trains, if not that of the arrays
    tokens: int  # as many ids as decide in which way an embedding is read: T*B, or those of the smallest shard


@dataclass(eq=False, repr=False)
class Tape:
    """What a forward pass keeps for the backward pass.

    Made by `RNN.forward`. A tape that is passed to another forward pass of the same network and shape is overwritten,
    which saves the allocation and keeps its memory in cache.
    """

    stack: object  # the `crnn.nn.stack.Stack` that made it; another network's is refused

    x: Array  # (T, B, D) real, or ids (T, B), packed if there are lengths; borrowed unless `owns_x`
    max_rows: int  # largest number of rows of a weight matrix: determines the size of `scratch`
    layout: TapeLayout
    layers: list[LayerTape]
    before: State  # state before the first step
    after: State  # state after the last step
    from_initial_state: bool = True  # no state was given: `before` is the trainable initial state, or zeros
    lengths: Lengths | None = None
    parts: int = 1  # slices that the batch is split into, one per thread
    dbefore: State | None = None  # gradient at `before`; allocated by the first backward pass
    complete: bool = False  # whether a forward pass has finished since the tape was last given an x
    pin: object = None  # `pinned` x: while the tape borrows it, nothing resizes it
    y_is_taken: bool = False  # y belongs to a caller
    version: object | None = None  # of the parameters whose weights are packed, see `Parameters.version`
    masked: bool = False  # whether there are dropout masks
    penalised: bool = False  # whether the gradient has that of a penalty of y, see `crnn.models.outputs.penalty`
    programs: dict[Hashable, WindowProgram | None] = field(default_factory=dict)  # see `run_phases`
    scratches: dict[int, Array] = field(default_factory=dict)  # see `scratch`
    keep: bool = field(init=False)  # as in `layout`, and the next two
    owns_x: bool = field(init=False)
    precision: str | None = field(init=False)
    recurrences: list[Recurrence] = field(init=False)  # of every direction of every layer
    sources: list[LayerInput] = field(init=False)  # the inputs of the same
    _calls_only: bool = field(init=False)  # whether all inputs are repeatable

    def __post_init__(self) -> None:
        self.keep, self.owns_x, self.precision = self.layout.keep, self.layout.owns_x, self.layout.precision
        pairs = [pair for layer in self.layers for pair in layer.directions]
        self.sources, self.recurrences = [source for source, _ in pairs], [cell for _, cell in pairs]
        self._calls_only = all(source.repeatable for source in self.sources)

    @property
    def y(self) -> Array:
        """(T, B, output_size), packed if there are lengths: the output of the top layer, with dense_layers of all."""
        return self.layers[-1].y

    @property
    def dy(self) -> Array:
        """The gradient at `y`, of the same shape, written by the caller of `Stack.backward`."""
        assert self.layers[-1].dy is not None
        return self.layers[-1].dy

    def take_y(self) -> Array:
        """`y` of a tape for inference, which then belongs to the caller: a copy if it is small."""
        if self._keeps_y:
            return self.y.copy()
        self.y_is_taken = True
        return self.y

    def release(self) -> None:
        """Between two windows: drop the caller's arrays."""
        if not self.owns_x:
            self._set_x(_placeholder(self.x), None)
        if self.y_is_taken:
            self.layers[-1].replace_y(_placeholder(self.y))

    def take_packed(self, old: Tape) -> None:
        """Use the memory of an old tape of the same network, for inference and not in another precision, for packed
        weights."""
        for cell, old_cell in zip(self.recurrences, old.recurrences, strict=True):
            cell.weights = old_cell.weights
        dense = True
        for source, old_source in zip(self.sources, old.sources, strict=True):
            if isinstance(source, Dense) and isinstance(old_source, Dense):
                source.weights, source.bias = old_source.weights, old_source.bias
            else:
                dense = False
        self.version = old.version if dense else None

    def set_x(self, x: Array, pin: object) -> None:
        """Set the x of the next window, of the same shape and dtype."""
        if self.y_is_taken:
            self.layers[-1].replace_y(gemm.aligned_empty(self.y.shape, self.y.dtype))
            self.y_is_taken = False
        if not self.owns_x:
            self._set_x(x, pin)
        elif x is not self.x:
            self.x[...] = x

    def _set_x(self, x: Array, pin: object) -> None:
        self.x, self.pin = x, pin
        first = self.layers[0]
        if first.below is not None:  # its x is memory of the tape
            first.below = x
            return
        first.x = x
        for source, _ in first.directions:
            source.set_input(x)

    @cached_property
    def held_bytes(self) -> int:
        """Bytes of the arrays (T, B, ...) of a tape for inference, less `y`."""
        arrays = [cell.h for cell in self.recurrences if cell.h is not self.y]
        arrays += [layer.y for layer in self.layers[:-1] if layer.gathers]
        return sum(array.nbytes for array in arrays) + (self.x.nbytes if self.owns_x else 0)

    def padded(self, array: Array) -> Array:
        """An array of this tape as (T, B, ...), with zeros as padding: unpacked if it is packed."""
        if self.lengths is None:
            return array
        if self.lengths.packed:
            return self.lengths.unpack(array)
        self.lengths.clear_padding(array)
        return array

    def scratch(self, part: int) -> Array:
        """Scratch memory for the weight gradients of one part of the work, that is of one thread."""
        if part not in self.scratches:
            self.scratches[part] = gemm.grad_scratch(self.before.dtype, self.max_rows)
        return self.scratches[part]

    def part(self, part: int) -> Slice:
        """The slice of the batch with number ``part``, 0 .. parts-1."""
        if self.lengths is not None:
            return Slice(*self.lengths.part(part), self.lengths)
        return Slice(*parallel.part_range(self.batch, part, self.parts))

    @property
    def repeatable(self) -> bool:
        """Whether passes over this tape only call kernels, with the same arrays as before: see `WindowProgram`."""
        plain = self.lengths is None and not (self.masked or self.penalised)
        return plain and self.owns_x and self._calls_only and self._keeps_y

    @property
    def _keeps_y(self) -> bool:
        return self.keep or self.y.nbytes <= COPIED_BYTES

    @property
    def steps(self) -> int:
        """T."""
        return int(self.x.shape[0] if self.lengths is None else self.lengths.T)

    @property
    def batch(self) -> int:
        """B."""
        return self.before.batch


def _placeholder(array: Array) -> Array:
    """An array of the same shape and dtype without memory of its size."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
