# SPDX-License-Identifier: MIT
"""Tape: what a forward pass through a stack leaves for the backward pass, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from crnn import _parallel as parallel
from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.nn.cells import Recurrence, Slice
from crnn.nn.inputs import LayerInput
from crnn.nn.state import State

Array = NDArray[Any]

AHEAD_BYTES = 256 * 1024  # how far a product for all steps goes ahead of the recurrence; 2 % faster at H = 512


@dataclass(eq=False)
class LayerTape:
    """One layer of a tape; the arrays of each direction lie in its `Recurrence`."""

    x: Array  # (T, B, K), or ids (T, B): what the directions read
    directions: list[tuple[LayerInput, Recurrence]]
    y: Array  # (T, B, H*directions); with one direction its h
    below: Array | None = None  # the output of the layer below, where dropout stands between it and x
    mask: Array | None = None  # (T, B, K) or (1, B, K): x = below * mask
    dy: Array | None = None  # (T, B, H*directions), what arrives at y; with one direction its dh

    def forward(self, part: Slice, after: State, first: int) -> None:
        """All steps of a slice. ``first``: this layer's place in the state."""
        rows = part.rows
        if self.below is not None:
            self.x[:, rows] = self.below[:, rows] if self.mask is None else self.below[:, rows] * self.mask[:, rows]
        for number, (source, cell) in enumerate(self.directions):
            for t0, t1 in self._spans(cell, part):
                local = slice(t0, t1) if cell.keep else slice(t1 - t0)
                xw, ids = source.share(cell.xw[local], t0, t1, part)
                cell.forward(xw, ids, t0, t1, part)
            cell.finish_forward(part, after.h[first + number], None if after.c is None else after.c[first + number])
            if part.lengths is not None:
                clear_padding(cell.h, part)
            if len(self.directions) > 1:
                self.y[:, rows, number * cell.H : (number + 1) * cell.H] = cell.h[:, rows]

    def _spans(self, cell: Recurrence, part: Slice) -> Iterator[tuple[int, int]]:
        """The product for all steps goes ahead by some steps only, so that what it leaves is still in the second cache.
        Where sequences have different lengths it takes them all."""
        T, span = cell.T, cell.T
        if part.lengths is None:
            span = max(1, AHEAD_BYTES // max(1, (part.b1 - part.b0) * cell.xw.strides[1]))
            span = min(span, cell.span)
        starts = range(0, T, span)
        for t0 in reversed(starts) if cell.reverse else starts:
            yield t0, min(t0 + span, T)

    def backward(self, part: Slice, dafter: State | None, first: int) -> None:
        """On entry dy holds what arrives at y; leaves the gradient at the output of the layer below in its dy."""
        rows = part.rows
        for number, (source, cell) in enumerate(self.directions):
            if len(self.directions) > 1:
                assert self.dy is not None
                cell.dh[:, rows] = self.dy[:, rows, number * cell.H : (number + 1) * cell.H]
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
                dx[:, rows] += source.dx[:, rows]
            if self.mask is not None:
                dx[:, rows] *= self.mask[:, rows]


def clear_padding(array: Array, part: Slice) -> None:
    """Zero the rows of a slice beyond their sequences' ends."""
    assert part.lengths is not None
    lengths = part.lengths.lengths
    for b in part.rows.tolist():
        array[lengths[b] :, b] = 0


@dataclass(eq=False)
class Tape:
    """What a forward pass leaves for the backward pass.

    Made by `RNN.forward`. A tape handed to a second forward pass of the same shape is written over instead of a new
    one being made: memory that is warm and already there.
    """

    x: Array  # (T, B, D) real, or (T, B) ids
    max_rows: int  # of a weight matrix: determines the size of the scratch
    keep: bool  # whether there can be a backward pass
    layers: list[LayerTape]
    before: State  # at the first step
    after: State  # after the last step
    from_start: bool = True  # no state was given: the learnt one, or zeros
    lengths: Lengths | None = None
    parts: int = 1  # that rows are shared out to
    # Only a backward pass makes these.
    dbefore: State | None = None
    scratches: dict[int, Array] = field(default_factory=dict)  # by part of the work

    @property
    def y(self) -> Array:
        """(T, B, output_size): the output of the top layer."""
        return self.layers[-1].y

    @property
    def dy(self) -> Array:
        """(T, B, output_size): where the gradient at y is put."""
        assert self.layers[-1].dy is not None
        return self.layers[-1].dy

    def scratch(self, part: int) -> Array:
        """Memory of its own for each thread's share of the weight gradients."""
        if part not in self.scratches:
            self.scratches[part] = gemm.grad_scratch(self.before.dtype, self.max_rows)
        return self.scratches[part]

    def part(self, part: int) -> Slice:
        """The rows that belong to ``part``."""
        if self.lengths is not None:
            return Slice(*self.lengths.part(part), self.lengths)
        return Slice(*parallel.share(self.batch, part, self.parts))

    @property
    def recurrences(self) -> list[Recurrence]:
        return [cell for layer in self.layers for _, cell in layer.directions]

    @property
    def sources(self) -> list[LayerInput]:
        return [source for layer in self.layers for source, _ in layer.directions]

    @property
    def steps(self) -> int:
        return int(self.x.shape[0])

    @property
    def batch(self) -> int:
        return int(self.x.shape[1])
