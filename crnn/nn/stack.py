# SPDX-License-Identifier: MIT
"""Stack: the layers of a network over one window, forward and back. Knows no loss, no optimizer and no file.

    h_t = cell( x_t W_xh + b_h, h_{t-1} W_hh )        for every layer; the next layer's x is this one's h

A window is run in this order: new_tape, draw_masks, pack_forward, forward for each slice of the batch; then
pack_backward, backward for each slice, weight_gradients for each share of columns, finish_gradients. Callers run the
slices on threads of their own and may do more with each, as `crnn.models.predictor` does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.nn.cells import CELLS, Recurrence, Slice
from crnn.nn.config import NetworkConfig
from crnn.nn.dropout import Masks
from crnn.nn.inputs import Dense, LayerInput, first_input
from crnn.nn.state import State, StateLike
from crnn.nn.tape import AHEAD_BYTES, LayerTape, Tape

Arrays = Mapping[str, Array]


class Stack:
    """The layers that a configuration describes, on given parameters and gradients."""

    def __init__(self, config: NetworkConfig, params: Arrays, grads: Arrays) -> None:
        self.config, self.params, self.grads = config, params, grads
        self.cell = CELLS[config.cell]

    # ---- what comes in --------------------------------------------------------------------------------------------

    def check_input(self, x: ArrayLike) -> Array:
        """x (T, B, D) real in the network's dtype, or ids (T, B) as int32, C-contiguous."""
        D = self.config.input_size
        array = np.asarray(x)
        if array.dtype.kind in "iu":
            if array.ndim != 2 or 0 in array.shape:
                raise ValueError(f"x: expected ids of shape (T, B), T and B at least 1, got shape {array.shape}")
            if array.dtype != np.int32 and (array.min() < 0 or array.max() >= D):
                raise ValueError(f"x: expected ids from 0 to {D - 1}, got {array.min()} to {array.max()}")
            array = np.ascontiguousarray(array, np.int32)
            gemm.need_ids("x", array, D)  # NumPy's min and max take longer than a small window's step
            return array
        if self.config.embedding_size is not None:
            raise TypeError(f"x: expected integer ids (T, B) for the embedding, got {array.dtype}")
        if array.ndim != 3 or 0 in array.shape[:2] or array.shape[2] != D:
            raise ValueError(f"x: expected shape (T, B, {D}), got {array.shape}")
        return self.check_real("x", array)

    def check_real(self, name: str, array: Array) -> Array:
        """C-contiguous, in the network's dtype. Another precision is an oversight: refused, not rounded."""
        if array.dtype != self.config.dtype:
            raise TypeError(f"{name}: expected {self.config.dtype}, got {array.dtype}")
        return np.ascontiguousarray(array)

    def new_state(self, batch: int) -> State:
        """Memory for the state of every layer and direction."""
        sizes = [H for H in self.config.hidden_sizes for _ in range(self.config.directions)]
        return State(sizes, self.cell.has_c, batch, self.config.dtype)

    # ---- tapes ----------------------------------------------------------------------------------------------------

    def new_tape(
        self,
        x: Array,
        state: StateLike | None,
        tape: Tape | None,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
        keep: bool = True,
        max_rows: int = 0,
    ) -> Tape:
        """A tape, or the given one if it fits, with x and the state before the first step in place.

        ``max_rows``: rows of the largest weight matrix whose gradient the caller will compute in the tape's scratch.
        """
        parts = min(threads, x.shape[1])
        given = None if lengths is None else Lengths(lengths, len(x), parts)
        if given is not None and x.shape[1] != given.B:
            raise ValueError(f"lengths: expected shape ({x.shape[1]},), got ({given.B},)")
        if not (
            tape is not None
            and tape.x.shape == x.shape
            and tape.x.dtype == x.dtype
            and tape.keep == keep
            and (keep or (tape.lengths is None) == (given is None))
        ):
            matrix_rows = (len(values) for values in self.params.values() if values.ndim == 2)
            tape = self._make_tape(x, keep, given is not None, max(max_rows, *matrix_rows))
        tape.x = tape.layers[0].x = x
        tape.lengths, tape.parts = given, parts
        for source, _ in tape.layers[0].directions:
            source.take(x)
        tape.from_start = state is None
        if state is not None:
            tape.before.fill("state", state)
        else:
            for name, arrays in tape.before.parts:
                for array, cell in zip(arrays, tape.recurrences, strict=True):
                    array[...] = self.params.get(f"{cell.prefix}{name}0", 0)
        return tape

    def _make_tape(self, x: Array, keep: bool, with_lengths: bool, max_rows: int) -> Tape:
        config, dtype = self.config, self.config.dtype
        T, B = x.shape[:2]
        before, after = self.new_state(B), self.new_state(B)
        layers: list[LayerTape] = []
        prefixes = config.prefixes()
        for layer, H in enumerate(config.hidden_sizes):
            below = layers[-1].y if layers else None
            dropped = below is not None and config.dropout > 0
            if below is not None:
                x = gemm.aligned_empty(below.shape, dtype) if dropped else below
            width = self.cell.gates * H
            step_bytes = max(1, B * width * np.dtype(dtype).itemsize)
            span = T if with_lengths else max(1, AHEAD_BYTES // step_bytes)
            directions: list[tuple[LayerInput, Recurrence]] = []
            for place in range(layer * config.directions, (layer + 1) * config.directions):
                prefix, _, _, reverse = prefixes[place]
                cell = self.cell(prefix, T, B, H, dtype, reverse=reverse, keep=keep, span=span)
                cell.h0 = before.h[place]
                if before.c is not None:
                    cell.c0 = before.c[place]
                source = (
                    Dense(prefix, x, width)
                    if layer
                    else first_input(x, self.params.get("embedding"), prefix, config.input_size, width, dtype)
                )
                directions.append((source, cell))
            y = directions[0][1].h
            if config.bidirectional:
                y = gemm.aligned_empty((T, B, 2 * H), dtype)
            layers.append(LayerTape(x, directions, y, below if dropped else None))
        return Tape(x=layers[0].x, max_rows=max_rows, keep=keep, layers=layers, before=before, after=after)

    # ---- forward --------------------------------------------------------------------------------------------------

    def draw_masks(self, tape: Tape, masks: Masks | None) -> None:
        """Dropout masks for a training pass, in a fixed order; without ``masks`` nothing is dropped."""
        config = self.config
        for layer in tape.layers:
            layer.mask = None
            if layer.below is not None and masks is not None:
                T, B, K = layer.below.shape
                steps = 1 if config.variational_dropout else T
                layer.mask = masks.draw(config.dropout, (steps, B, K), config.dtype)
            for _, cell in layer.directions:
                mask = None
                if masks is not None and config.recurrent_dropout > 0:
                    mask = masks.draw(config.recurrent_dropout, cell.h0.shape, config.dtype)
                cell.take_mask(mask)

    def pack_forward(self, tape: Tape) -> None:
        """Bring the weights into the layout that the forward products read."""
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            source.pack_forward(self.params)
            cell.pack_forward(self.params)

    def forward(self, tape: Tape, part: Slice) -> None:
        """All layers and steps of a slice of the batch."""
        for number, layer in enumerate(tape.layers):
            layer.forward(part, tape.after, number * self.config.directions)

    # ---- backward -------------------------------------------------------------------------------------------------

    def pack_backward(self, tape: Tape) -> None:
        """Bring the weights into the layout of the backward products; make the arrays that only these need."""
        if not tape.keep:
            raise ValueError("tape: expected one from forward, got one that keeps nothing for a backward pass")
        first_time = tape.dbefore is None
        if tape.dbefore is None:
            tape.dbefore = self.new_state(tape.batch)
        for place, cell in enumerate(tape.recurrences):
            cell.dh0 = tape.dbefore.h[place]
            if tape.dbefore.c is not None:
                cell.dc = tape.dbefore.c[place]
            cell.pack_backward(self.params)
        if first_time:
            for number, layer in enumerate(tape.layers):
                two = len(layer.directions) > 1
                layer.dy = np.empty(layer.y.shape, self.config.dtype) if two else layer.directions[0][1].dh
                layer.dy.fill(0)  # masks multiply the rows beyond a sequence's end as well
                if number:  # the gradient at x arrives at the output of the layer below
                    layer.directions[0][0].dx = tape.layers[number - 1].dy
        for source in tape.sources:
            source.pack_backward(self.params)

    def backward(self, tape: Tape, dafter: State | None, part: Slice) -> None:
        """From the top layer down; on entry tape.dy holds the gradient at the top layer's output."""
        for number in reversed(range(len(tape.layers))):
            tape.layers[number].backward(part, dafter, number * self.config.directions)

    def weight_gradients(self, tape: Tape, part: int, parts: int) -> None:
        """This part's columns of all weights' gradients, added to `grads`."""
        scratch = tape.scratch(part)
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            source.weight_gradients(self.grads, cell.da, scratch, part, parts, tape.lengths)
            cell.weight_gradients(self.grads, scratch, part, parts, tape.lengths)

    def finish_gradients(self, tape: Tape) -> None:
        """The gradients that need all rows, or all columns of a weight gradient."""
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            source.finish(self.grads)
            cell.finish_gradients(self.grads, tape.from_start)

    def dx(self, tape: Tape) -> Array | None:
        """The gradient at a real x, zero where there are no steps; None for ids."""
        dx = tape.sources[0].dx if tape.x.ndim == 3 else None
        if dx is not None and tape.lengths is not None:
            dx[tape.lengths.padding()] = 0
        return dx
