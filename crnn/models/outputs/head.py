# SPDX-License-Identifier: MIT
"""Head: a linear layer that turns a network's outputs into logits or values, and their loss.

    y_t = h_t W_hy + b_y          for every step, or once per sequence for the result of `crnn.models.outputs.pooling`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn import _parallel as parallel
from crnn._core import gemm
from crnn._core.arrays import largest_of_rows
from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.models.outputs.losses import Loss
from crnn.models.outputs.panels import PanelProducts
from crnn.models.outputs.pooling import POOLINGS, Pooling
from crnn.nn.config import NetworkConfig
from crnn.nn.dropout import Masks
from crnn.nn.precision import Precision, precision_of
from crnn.nn.slices import Slice
from crnn.nn.tape import Tape
from crnn.stream.parts import StreamParts

# `row_losses` computes LOGITS logits at a time, which stay in cache; but those of at least FEW rows, since the product
# reads all weights, and never more than MOST_LOGITS.
LOGITS, FEW, MOST_LOGITS = 1 << 16, 64, 1 << 22


@dataclass(eq=False)
class HeadTape:
    """The arrays of a head for T steps of B rows; with pooling T is 1. Packed if the network's outputs are."""

    outputs: Array  # (T, B, V), or if blocked (1, R, V); the backward pass overwrites them with their gradient
    losses: Array  # (T, B)
    weights: gemm.Packed | None  # W_hy; None with ``panels``
    weights_t: gemm.Packed | None  # W_hy.T
    precision: str | None  # of all products and gradients in a pass that trains, see `crnn.nn.tape.Tape`
    mask: Array | None = None  # (T, B, H), or if not packed (1, B, H): dropout of the head's input
    dropped: Array | None = None  # (T, B, H): h * mask
    panels: PanelProducts | None = None  # of a blocked tape, unless the weights are packed once and for all
    pooling: Pooling | None = None
    predictions: Array | None = None  # (T, B): the number of the largest output, where they are wanted
    targets: Array | None = None  # copies of those of a small window
    version: object | None = None  # of the parameters whose weights are packed, see `Parameters.version`

    def predict(self, part: Slice) -> None:
        """Note the predictions of the rows of ``part``, where they are wanted, after the outputs are computed."""
        if self.predictions is None:
            return
        if part.lengths is None:
            largest_of_rows(self.predictions, self.outputs, part.b0, part.b1)
        else:  # is not repeated: `Tape.repeatable`
            self.predictions[:, part.rows] = self.outputs[:, part.rows].argmax(axis=2)

    @property
    def blocked(self) -> bool:
        """Whether only the outputs of a block of rows are in memory: see `crnn.models.outputs.blocks`."""
        return self.outputs.shape[:2] != self.losses.shape

    def of_block(self, losses: Array) -> HeadTape:
        """Of a blocked tape, that of one block, whose losses (1, R') these are: of rows of the head's input."""
        outputs = self.outputs[:, : losses.shape[1]]
        return replace(self, outputs=outputs, losses=losses, mask=None, dropped=None, pooling=None)

    @property
    def repeatable(self) -> bool:
        """Whether the head's part of a pass only calls kernels: see `crnn.nn.program`."""
        return self.mask is None and (self.pooling is None or self.pooling.repeatable)

    def own_targets(self, targets: Array) -> Array:
        """A copy of the targets in memory that stays the same for windows of the same shape."""
        if self.targets is None or self.targets.shape != targets.shape or self.targets.dtype != targets.dtype:
            self.targets = gemm.aligned_empty(targets.shape, targets.dtype)
        self.targets[...] = targets
        return self.targets


def draw_input_mask(
    tape: Any, inputs: int, dtype: str, network: Tape, masks: Masks | None, config: NetworkConfig
) -> None:
    """Draw the dropout mask of the input of any head. ``tape``: that of the head."""
    tape.mask = None
    if masks is not None and config.head_dropout > 0:
        pooled = tape.pooling is not None
        tape.mask = masks.draw_rows(
            config.head_dropout,
            1 if pooled else network.steps,
            network.batch,
            inputs,
            dtype,
            same_for_all_steps=config.variational_dropout,
            lengths=None if pooled else network.lengths,
        )
        if tape.dropped is None:
            tape.dropped = gemm.aligned_empty((*tape.losses.shape, inputs), dtype)


class Head:
    """W_hy (H, V) and b_y (V,) on top of a network, and a loss.

    Methods take slices of the batch or ranges of columns, as those of `crnn.nn.stack.Stack` do.

    Parameters
    ----------
    values, grads : mapping of str to array
        The model's parameters and gradients by name; borrowed.
    loss : Loss
    tie_weights : bool
        W_hy is the transpose of the parameter ``embedding`` (V, H). Press, Wolf 2017.
    pooling : str, optional
        A name in `crnn.models.outputs.pooling.POOLINGS`, for one output per sequence.
    directions : sequence of (first, size, reverse), optional
        The columns of the network's y by direction, with pooling, see `NetworkConfig.output_blocks`.
    precision : optional
        The option of the network.
    """

    tie_weights: bool
    loss: Loss
    pooling: str | None
    directions: Sequence[tuple[int, int, bool]]
    w: Array  # W_hy (H, V), or the embedding (V, H)
    dw: Array  # its gradient
    b_y: Array  # (V,)
    db_y: Array  # (V,)
    dtype: str
    _packed: gemm.Packed | None  # the weights of a quantised model
    precision: str | None  # of the forward product, if not that of dtype
    inputs: int  # H; with pooling "flatten" T*H

    def __init__(
        self,
        values: Mapping[str, Array],
        grads: Mapping[str, Array],
        loss: Loss,
        *,
        tie_weights: bool = False,
        pooling: str | None = None,
        directions: Sequence[tuple[int, int, bool]] = (),
        precision: Precision = None,
    ) -> None:
        name = "embedding" if tie_weights else "W_hy"
        self.tie_weights, self.loss = tie_weights, loss
        self.pooling, self.directions = pooling, directions
        self.precision, self._packed = precision_of(precision, name), None
        self.w, self.dw = values[name], grads[name]
        self.b_y, self.db_y = values["b_y"], grads["b_y"]
        self.dtype = self.b_y.dtype.name
        self.inputs = int(self.w.shape[1] if tie_weights else self.w.shape[0])

    @property
    def columns(self) -> int:
        """Elements of a row that blocks of rows have to hold."""
        return len(self.b_y)

    def rows(self, tape: Tape) -> tuple[int, int]:
        """The shape (T, B) of the outputs for the network's tape; with pooling (1, B), packed (1, M)."""
        if self.pooling is not None:
            return 1, tape.batch
        T, B = tape.y.shape[:2]
        return T, B

    def new_tape(self, tape: Tape, block_rows: int | None = None, predictions: bool = False) -> HeadTape:
        """A tape for the outputs y of the network's tape.

        ``block_rows``: rows of a block, if the tape is to be blocked. ``predictions``: whether they are wanted.
        """
        H, V = self.inputs, len(self.b_y)
        pooling, shape = None, self.rows(tape)
        if self.pooling is not None:
            pooling = POOLINGS[self.pooling](tape.steps, tape.batch, tape.y.shape[2], self.directions, self.dtype)
        of_outputs = shape if block_rows is None else (1, block_rows)
        panels = weights = weights_t = None
        if block_rows is not None and self.precision is None:
            panels = PanelProducts(self.w, tied=self.tie_weights, precision=tape.precision)
        else:
            weights = gemm.Packed(H, V, self.dtype, precision=tape.precision or self.precision)
            weights_t = gemm.Packed(V, H, self.dtype, precision=tape.precision)
        return HeadTape(
            pooling=pooling,
            outputs=gemm.aligned_empty((*of_outputs, V), self.dtype),
            losses=gemm.aligned_empty(shape, self.dtype),
            predictions=np.empty(shape, np.int32) if predictions else None,
            weights=weights,
            weights_t=weights_t,
            panels=panels,
            precision=tape.precision,
        )

    def draw_mask(self, tape: HeadTape, network: Tape, masks: Masks | None, config: NetworkConfig) -> None:
        """Draw the dropout mask of the head's input. None: nothing is dropped. ``network``: the tape of the network."""
        draw_input_mask(tape, self.inputs, self.dtype, network, masks, config)

    def pack_forward(self, tape: HeadTape) -> None:
        """Pack the weights for the forward product. Those of a quantised model are read-only and packed once."""
        if self._packed is not None:
            tape.weights = self._packed
            return
        if tape.weights is None:
            return
        any_values = tape.precision is not None  # a pass that trains: the loss tells
        (tape.weights.pack_transposed if self.tie_weights else tape.weights.pack)(self.w, any_values=any_values)
        if self.precision is not None:
            self._packed = tape.weights

    def pack_backward(self, tape: HeadTape) -> None:
        """Pack the weights for the backward product."""
        if tape.weights_t is None:
            return
        (tape.weights_t.pack if self.tie_weights else tape.weights_t.pack_transposed)(self.w, any_values=True)

    def input_of(self, tape: HeadTape, h: Array) -> Array:
        """The head's input (T, B, H): h after pooling and dropout."""
        if tape.mask is None:
            return h if tape.pooling is None else tape.pooling.out
        assert tape.dropped is not None
        return tape.dropped

    @staticmethod
    def input_gradient(tape: HeadTape, dh: Array) -> Array:
        """The gradient (T, B, H) at the head's input, where dh is that at h; `end_rows` computes one from the other."""
        return dh if tape.pooling is None else tape.pooling.dout

    def begin_rows(self, tape: HeadTape, h: Array, part: Slice) -> Slice:
        """Compute the head's input from h (T, B, H) for the rows of ``part``. Returns their slice of the input."""
        if tape.pooling is not None:
            tape.pooling.forward(h, part)
            h, part = tape.pooling.out, part.single
        if tape.mask is not None:
            assert tape.dropped is not None
            tape.dropped[:, part.rows] = h[:, part.rows] * tape.mask[:, part.rows]
        return part

    def end_rows(self, tape: HeadTape, dh: Array, part: Slice) -> None:
        """OVERWRITE dh with the gradient at h, from `input_gradient`, for the rows of ``part``."""
        if tape.mask is not None:
            rows = part.rows if tape.pooling is None else part.single.rows
            self.input_gradient(tape, dh)[:, rows] *= tape.mask[:, rows]
        if tape.pooling is not None:
            tape.pooling.backward(dh, part)

    def forward_rows(self, tape: HeadTape, h: Array, part: Slice) -> None:
        """Compute the outputs of h (T, B, H) for the rows of ``part``."""
        part = self.begin_rows(tape, h, part)
        x = self.input_of(tape, h)
        assert tape.weights is not None
        gemm.linear_forward(tape.outputs, x, tape.weights, self.b_y, part.b0, part.b1, part.lengths)

    def apply(self, h: Array) -> Array:
        """Outputs (B, V) of h (B, H), fresh, without pooling or dropout."""
        out = gemm.aligned_empty((1, len(h), len(self.b_y)), self.dtype)
        gemm.linear_forward(out, h[None], self.packed(), self.b_y, 0, len(h))
        outputs: Array = out[0]
        return outputs

    def packed(self) -> gemm.Packed:
        """The weights, packed for `linear_forward`."""
        if self._packed is not None:
            return self._packed
        weights = gemm.Packed(self.inputs, len(self.b_y), self.dtype, precision=self.precision)
        return (weights.pack_transposed if self.tie_weights else weights.pack)(self.w)

    def pooled(self, h: Array, lengths: Lengths | None) -> Array:
        """Outputs (1, B, V) of h (T, B, H), or packed, with pooling, fresh."""
        assert self.pooling is not None
        T, B = h.shape[:2] if lengths is None else (lengths.T, lengths.B)
        pooling = POOLINGS[self.pooling](T, B, h.shape[2], self.directions, self.dtype)
        pooling.forward(h, Slice(0, B, lengths))
        return self.apply(pooling.out[0])[None]

    def row_losses(
        self, losses: Array, x: Array, targets: Array, packed: gemm.Packed, first: int, last: int
    ) -> None:
        """Losses (1, M) of x (1, M, H) in the rows first .. last-1, without a tape. ``packed``: of `packed`.

        The outputs are computed for a few rows at a time, and stay in cache.
        """
        V = len(self.b_y)
        most = min(max(LOGITS // V, FEW), max(1, MOST_LOGITS // V))
        outputs = gemm.aligned_empty((1, min(most, last - first), V), self.dtype)
        for start in range(first, last, most):
            chosen = slice(start, min(start + most, last))
            count = chosen.stop - start
            gemm.linear_forward(outputs[:, :count], x[:, chosen], packed, self.b_y, 0, count)
            self.loss.run(losses[:, chosen], None, outputs[:, :count], targets[:, chosen], 1.0, Slice(0, count))

    def in_streams(self, parts: StreamParts) -> StreamParts:
        """The parts of a stream of the network, with those of the head."""
        precisions = parts.precisions if self.precision is None else {**parts.precisions, "W_hy": self.precision}
        W_hy = None if self.tie_weights else self.w
        return replace(parts, W_hy=W_hy, b_y=self.b_y, pooling=self.pooling, precisions=precisions)

    def loss_rows(self, tape: HeadTape, targets: Array, part: Slice) -> None:
        """Compute the losses of the outputs for the rows of ``part``."""
        part = part if tape.pooling is None else part.single
        self.loss.run(tape.losses, None, tape.outputs, targets, 1.0, part)

    def backward_rows(
        self, tape: HeadTape, dh: Array, targets: Array, scale: float, part: Slice, weights: Array | None = None
    ) -> None:
        """Compute the losses for the rows of ``part``, and OVERWRITE dh with the gradient of scale * (their sum).

        ``weights`` (T, B), in the dtype of the model: factors of the losses.
        """
        every_step, dx = part, self.input_gradient(tape, dh)
        if tape.pooling is not None:
            part = part.single
        self.output_gradients(tape, targets, scale, part, weights)
        # forward: outputs = h @ W_hy + b_y, so dh = doutputs @ W_hy.T
        assert tape.weights_t is not None
        gemm.linear_forward(dx, tape.outputs, tape.weights_t, None, part.b0, part.b1, part.lengths)
        self.end_rows(tape, dh, every_step)

    def output_gradients(
        self, tape: HeadTape, targets: Array, scale: float, part: Slice, weights: Array | None = None
    ) -> None:
        """Compute the losses for the rows of ``part`` of the outputs, which are OVERWRITTEN with their gradient."""
        self.loss.run(tape.losses, tape.outputs, tape.outputs, targets, scale, part)
        if weights is not None:
            tape.losses[:, part.rows] *= weights[:, part.rows]
            tape.outputs[:, part.rows] *= weights[:, part.rows, None]

    def weight_gradients(
        self, tape: HeadTape, h: Array, scratch: Array, part: int, parts: int, lengths: Lengths | None
    ) -> None:
        """ACCUMULATE the gradients of W_hy and b_y, for the columns that belong to ``part`` of ``parts``.

        ``lengths``: those of the network's tape, or a range of them.
        """
        x, doutputs = self.input_of(tape, h), tape.outputs
        if tape.pooling is not None:  # every sequence has one step
            if lengths is not None and lengths.held:
                rows = slice(lengths.first, lengths.first + lengths.B)
                x, doutputs = x[:, rows], doutputs[:, rows]
            lengths = None
        unit = gemm.line_width(self.dtype)
        n0, n1 = parallel.part_range(len(self.b_y), part, parts, unit)
        if self.tie_weights:  # forward: outputs = h @ E.T, so dE += doutputs.T @ h
            gemm.bias_backward(self.db_y, doutputs, n0, n1, lengths)
            n0, n1 = parallel.part_range(self.inputs, part, parts, unit)
            gemm.linear_backward_weight(self.dw, doutputs, x, scratch, n0, n1, lengths, precision=tape.precision)
        else:
            gemm.linear_backward_weight(
                self.dw, x, doutputs, scratch, n0, n1, lengths, self.db_y, precision=tape.precision
            )
