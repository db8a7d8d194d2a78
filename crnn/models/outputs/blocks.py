# SPDX-License-Identifier: MIT
"""Blocks: the rows (t, b) of a window, some at a time from the head's outputs to their losses and gradients.

With a large vocabulary the outputs of all rows would be larger than the weights. Where only losses, predictions and
gradients are wanted, the outputs of one block are computed and used up before those of the next. Sums over rows keep
their order, so the results are bit-identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from crnn import _parallel as parallel
from crnn._core import gemm
from crnn.checks import Array
from crnn.models.outputs.head import Head, HeadTape
from crnn.models.outputs.panels import PanelProducts
from crnn.nn.inputs import EmbeddedDense
from crnn.nn.program import Phase
from crnn.nn.slices import Slice
from crnn.nn.tape import Tape

__all__ = ["Blocks", "Gradient", "rows_of_block"]

# The outputs of a block have at most so many bytes, so that they stay in the last-level cache, unless that were fewer
# than LEAST_ROWS rows: the products read all weights for every block.
BLOCK_BYTES = 16 << 20
LEAST_ROWS = 128
UNIT = 16  # rows: a gradient in bf16 sums them in pairs


def rows_of_block(rows: int, outputs: int, itemsize: int) -> int:
    """How many of a window's rows are a block: about the same number in each, and all if they are few."""
    blocks = -(-rows // max(BLOCK_BYTES // (outputs * itemsize), LEAST_ROWS))
    return min(rows, -(-rows // (blocks * UNIT)) * UNIT)


@dataclass
class Gradient:
    """Which gradient `Blocks` compute: that of scale * (the sum of the losses)."""

    scale: float
    of_parameters: bool  # ACCUMULATE that of the head's parameters, besides writing that at the network's outputs


class Blocks:
    """The losses of a window in a blocked tape (`HeadTape.blocked`), and a gradient if one is wanted.

    `phases` come after `Head.begin_rows` of all rows; with a gradient, `Head.end_rows` follows. Rows are in the order
    (t, b), in which gradients of weights are summed; packed ones are copied for it.

    Parameters
    ----------
    head : Head
    tape : HeadTape
        Its losses, and predictions if it has any, are OVERWRITTEN.
    network : Tape
    targets : array (T, B) or (T, B, N), packed if the network's outputs are
    threads : int
    gradient : Gradient, optional
    weights : array (T, B), packed likewise, optional
        Factors of the losses, in the model's dtype. Needs a gradient.
    """

    _x: Array  # (1, M, F): the head's input
    _dx: Array  # the gradient there

    def __init__(
        self,
        head: Head,
        tape: HeadTape,
        network: Tape,
        targets: Array,
        threads: int,
        gradient: Gradient | None = None,
        weights: Array | None = None,
    ) -> None:
        self._head, self._tape, self._network = head, tape, network
        self._threads, self._gradient = threads, gradient
        lengths = network.lengths if tape.pooling is None else None
        self._order = None if lengths is None else np.argsort(lengths.padded_rows(), kind="stable")
        self._targets, self._losses = self._rows(targets), self._rows(tape.losses)
        self._weights = None if weights is None else self._rows(weights)
        self._shared: _SharedRows | None = None
        adds_first = any(isinstance(source, EmbeddedDense) for source in network.sources)
        if head.tie_weights and adds_first and gradient is not None and gradient.of_parameters:
            self._shared = _SharedRows(head.dw, network.x, tape.losses.size)

    def _rows(self, array: Array) -> Array:
        """An array (T, B, ...) as (1, M, ...); a copy if it is packed in another order."""
        rows = array.reshape(1, self._tape.losses.size, *array.shape[2:])
        return rows if self._order is None else rows[:, self._order]

    def phases(self) -> Iterator[Phase]:
        """See `crnn.nn.program`."""
        tape, count = self._tape, self._tape.losses.size
        most = tape.outputs.shape[1]
        yield 1, self._begin
        for start in range(0, count, most):
            rows = slice(start, min(start + most, count))
            of_block = tape.of_block(self._losses[:, rows])
            parts = min(self._threads, rows.stop - start)
            if tape.panels is None:
                yield parts, partial(self._run, of_block, rows, parts)
            else:
                yield self._threads, partial(self._outputs, of_block, tape.panels, rows)
                yield parts, partial(self._judge, of_block, rows, parts)
                if self._gradient is not None:
                    yield self._threads, partial(self._input_gradients, of_block, tape.panels, rows)
            if self._gradient is not None and self._gradient.of_parameters:
                yield self._threads, partial(self._add_gradients, of_block, rows)
        yield 1, self._end

    def _begin(self, _: int) -> None:
        self._x = self._rows(self._head.input_of(self._tape, self._network.y))
        if self._gradient is not None:
            self._dx = self._rows(self._head.input_gradient(self._tape, self._network.dy))

        if self._shared is not None:
            self._shared.begin()

    def _end(self, _: int) -> None:
        if self._order is not None:
            self._tape.losses[:, self._order] = self._losses
            if self._gradient is not None:
                self._head.input_gradient(self._tape, self._network.dy)[:, self._order] = self._dx
        if self._shared is not None:
            self._shared.reset()

    def finish(self) -> None:
        """After the gradients of the network's weights: complete those of the head's."""
        if self._shared is not None:
            self._shared.finish(self._x, self._network.scratch(0), self._tape.precision)

    def _run(self, tape: HeadTape, rows: slice, parts: int, part: int) -> None:
        """Outputs and losses of one thread's share of a block, and the gradient at its inputs; of packed weights."""
        share = Slice(*parallel.part_range(rows.stop - rows.start, part, parts))
        self._head.forward_rows(tape, self._x[:, rows], share)
        self._judge(tape, rows, parts, part)
        if self._gradient is not None:
            dx, weights_t = self._dx[:, rows], tape.weights_t
            assert weights_t is not None
            gemm.linear_forward(dx, tape.outputs, weights_t, None, share.b0, share.b1)

    def _outputs(self, tape: HeadTape, panels: PanelProducts, rows: slice, part: int) -> None:
        """One thread's columns of the outputs of a block."""
        panels.forward(tape.outputs, self._x[:, rows], self._head.b_y, part, self._threads)

    def _judge(self, tape: HeadTape, rows: slice, parts: int, part: int) -> None:
        """The losses of one thread's rows of a block, predictions if they are wanted, and the outputs' gradient."""
        share = Slice(*parallel.part_range(rows.stop - rows.start, part, parts))
        targets = self._targets[:, rows]
        self._predict(tape, rows, share)
        if self._gradient is None:
            self._head.loss_rows(tape, targets, share)
            return
        weights = None if self._weights is None else self._weights[:, rows]
        self._head.output_gradients(tape, targets, self._gradient.scale, share, weights)

    def _input_gradients(self, tape: HeadTape, panels: PanelProducts, rows: slice, part: int) -> None:
        """One thread's columns of the gradient at the inputs of a block."""
        panels.backward(self._dx[:, rows], tape.outputs, part, self._threads)

    def _predict(self, tape: HeadTape, rows: slice, share: Slice) -> None:
        if self._tape.predictions is not None:
            found = tape.outputs[0, share.rows].argmax(axis=1)
            numbers = np.arange(rows.start, rows.stop)[share.rows]
            self._tape.predictions.reshape(-1)[numbers if self._order is None else self._order[numbers]] = found

    def _add_gradients(self, tape: HeadTape, rows: slice, part: int) -> None:
        """ACCUMULATE the gradient of the head's parameters, for one thread's columns."""
        scratch = self._network.scratch(part)
        if self._shared is not None and part == 0:
            self._shared.keep(tape.outputs, rows)
        self._head.weight_gradients(tape, self._x[:, rows], scratch, part, self._threads, None)


class _SharedRows:
    """The rows of a tied embedding's gradient to which both the network's input and the head add.

    These are the rows of the tokens that are read. A whole window adds the input's part before the head's, but blocks
    are computed before the input's part is known. So the head's sums in these rows are computed again after it.
    """

    def __init__(self, gradient: Array, ids: Array, rows: int) -> None:
        self._gradient, self._ids = gradient, np.unique(ids)
        self._kept = gemm.aligned_empty((1, rows, len(self._ids)), gradient.dtype)  # the outputs' gradients

    def begin(self) -> None:
        """Before the head adds."""
        self._before = self._gradient[self._ids]

    def keep(self, doutputs: Array, rows: slice) -> None:
        """Keep what is needed of the gradients (1, R, V) of a block's outputs."""
        np.take(doutputs, self._ids, axis=2, out=self._kept[:, rows])

    def reset(self) -> None:
        """Before the input adds."""
        self._gradient[self._ids] = self._before

    def finish(self, x: Array, scratch: Array, precision: str | None) -> None:
        """ACCUMULATE the head's part, for its input x (1, M, H)."""
        sums = self._gradient[self._ids]
        count = sums.shape[1]
        gemm.linear_backward_weight(sums, self._kept, x, scratch, 0, count, precision=precision)
        self._gradient[self._ids] = sums
