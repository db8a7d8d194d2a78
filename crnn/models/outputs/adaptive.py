# SPDX-License-Identifier: MIT
"""AdaptiveHead: adaptive softmax, for large vocabularies; see `crnn.models.outputs.head`. Grave et al. 2016.

    s = h W_hy + b_y          scores of the c_1 most frequent tokens and of each tail
    z_i = h W_hp W_py         scores of the tokens of tail i
    log p(v) = log softmax(s)[v]                                    v < c_1
             = log softmax(s)[c_1 + i] + log softmax(z_i)[v - c_i]  v in tail i

Training computes z_i only in the rows (t, b) whose target is in tail i. They are gathered in their order, and split
over threads where the others are, so results do not depend on threads or places in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from crnn import _parallel as parallel
from crnn._core import gemm
from crnn._core import loss as kernels
from crnn.checks import Array
from crnn.models.outputs.blocks import Gradient
from crnn.models.outputs.clusters import Tail, tails_of
from crnn.models.outputs.head import draw_input_mask
from crnn.models.outputs.losses import Loss
from crnn.nn.config import NetworkConfig
from crnn.nn.dropout import Masks
from crnn.nn.precision import Precision, precision_of
from crnn.nn.program import Phase
from crnn.nn.slices import Slice
from crnn.nn.tape import Tape
from crnn.stream.parts import StreamParts
from crnn.text.windows import IGNORE_INDEX

# Each thread of inference computes LOGITS scores at a time, but those of at least FEWEST_ROWS rows, since a product
# reads all weights.
LOGITS, FEWEST_ROWS = 1 << 18, 16


class TailTape:
    """The n rows of a block whose targets are in a tail. Blocks with no more of them reuse the memory."""

    rows: Array  # (n,): their indices among the M rows of the block
    targets: Array  # (1, n): positions in the tail
    x: Array  # (1, n, H): the head's input
    p: Array  # (1, n, P) = x W_hp
    scores: Array  # (1, n, V_i) = p W_py, or their gradient
    dp: Array
    dx: Array
    losses: Array  # (1, n)
    tail: Tail

    def __init__(self, tail: Tail, H: int, dtype: str) -> None:
        self.tail, self._dtype, self._capacity = tail, dtype, -1
        self._sizes = {"x": H, "p": tail.projection, "scores": tail.size, "dp": tail.projection, "dx": H, "losses": 1}
        self._arrays: dict[str, Array] = {}

    def take(self, rows: Array, targets: Array) -> None:
        """Make the arrays those of these rows (n,) of a block with targets (1, M)."""
        n = len(rows)
        if n > self._capacity:
            self._capacity = min(targets.size, n + n // 4 + 8)
            self._arrays = {
                name: gemm.aligned_empty((self._capacity, size), self._dtype) for name, size in self._sizes.items()
            }
        self.rows, self.targets = rows, targets[:, rows] - np.int32(self.tail.first)
        self.x, self.p, self.scores, self.dp, self.dx, losses = (array[None, :n] for array in self._arrays.values())
        self.losses = losses[:, :, 0]


@dataclass(eq=False)
class AdaptiveTape:
    """The arrays of an adaptive head for T steps of B rows, M = T * B, in blocks of R rows."""

    losses: Array  # (T, B)
    packed: dict[str, gemm.Packed]  # weight matrices by name
    packed_t: dict[str, gemm.Packed]  # transposed
    tails: list[TailTape]  # of the rows of a block
    block_rows: int  # R
    precision: str | None  # as in `HeadTape`
    mask: Array | None = None  # (T, B, H) or (1, B, H): dropout of the head's input
    dropped: Array | None = None  # (T, B, H)
    scores: Array | None = None  # (1, R, S): s, or its gradient
    outputs: Array | None = None  # (T, B, V): log-probabilities, if they are wanted
    predictions: Array | None = None  # as in `HeadTape`
    version: object | None = None  # of the parameters whose weights are packed
    pooling: None = None
    targets: None = None
    blocked: bool = True  # all is computed between the passes of the network
    repeatable: bool = False  # each window has other numbers of rows


class AdaptiveHead:
    """Parameters ``W_hy``, ``b_y`` and the tails' on top of a network, and cross-entropy. Methods as in `Head`.

    Parameters
    ----------
    values, grads : mapping of str to array
        The model's parameters and gradients by name; borrowed.
    loss : Loss
        Cross-entropy of V classes: checks and counts targets.
    cutoffs : list of int
        See `crnn.models.outputs.clusters`.
    precision : optional
        The option of the network.
    """

    tie_weights: bool = False
    pooling: None = None
    directions: int = 1
    loss: Loss
    w: Array  # W_hy (H, S)
    b_y: Array  # (S,)
    values: Mapping[str, Array]
    grads: Mapping[str, Array]
    dtype: str
    inputs: int  # H
    shortlist: int  # c_1
    tails: list[Tail]
    matrices: list[str]  # names of all weight matrices
    precisions: dict[str, str]  # of those that are quantised

    def __init__(
        self,
        values: Mapping[str, Array],
        grads: Mapping[str, Array],
        loss: Loss,
        cutoffs: Sequence[int],
        precision: Precision = None,
    ) -> None:
        self.loss, self.w, self.b_y = loss, values["W_hy"], values["b_y"]
        self.values, self.grads = values, grads
        self.dtype = self.b_y.dtype.name
        self.inputs = int(self.w.shape[0])
        self.shortlist, self._cutoffs = cutoffs[0], np.array(cutoffs)
        self.tails = tails_of(cutoffs, loss.outputs, self.inputs)
        self.matrices = ["W_hy", *(name for tail in self.tails for name in tail.names)]
        found = {name: precision_of(precision, name) for name in self.matrices}
        self.precisions = {name: kind for name, kind in found.items() if kind is not None}
        self._packed: dict[str, gemm.Packed] | None = None  # the weights of a quantised model, which are read-only

    @property
    def columns(self) -> int:
        """Elements of a row that blocks of rows have to hold. Few rows are in a large tail."""
        return max(len(self.b_y), max(tail.size for tail in self.tails) // 4)

    def rows(self, tape: Tape) -> tuple[int, int]:
        """As `Head.rows`."""
        if tape.lengths is not None:
            raise ValueError("lengths: expected none with an adaptive softmax, got some")
        T, B = tape.y.shape[:2]
        return T, B

    def new_tape(self, tape: Tape, block_rows: int | None = None, predictions: bool = False) -> AdaptiveTape:
        """As `Head.new_tape`."""
        T, B = self.rows(tape)
        packed, packed_t = {}, {}
        for name in self.matrices:
            K, N = self.values[name].shape
            precision = tape.precision or self.precisions.get(name)
            packed[name] = gemm.Packed(K, N, self.dtype, precision=precision)
            if tape.keep:
                packed_t[name] = gemm.Packed(N, K, self.dtype, precision=tape.precision)
        return AdaptiveTape(
            losses=gemm.aligned_empty((T, B), self.dtype),
            packed=packed,
            packed_t=packed_t,
            tails=[TailTape(tail, self.inputs, self.dtype) for tail in self.tails],
            block_rows=block_rows or T * B,
            precision=tape.precision,
            predictions=np.empty((T, B), np.int32) if predictions else None,
        )

    def draw_mask(self, tape: AdaptiveTape, network: Tape, masks: Masks | None, config: NetworkConfig) -> None:
        """As `Head.draw_mask`."""
        draw_input_mask(tape, self.inputs, self.dtype, network, masks, config)

    # ---- weights ---------------------------------------------------------------------------------------------------

    def pack_forward(self, tape: AdaptiveTape) -> None:
        """As `Head.pack_forward`."""
        if self._packed is not None:
            tape.packed = self._packed
            return
        for name, weights in tape.packed.items():
            weights.pack(self.values[name], any_values=tape.precision is not None)
        if self.precisions:
            self._packed = tape.packed

    def pack_backward(self, tape: AdaptiveTape) -> None:
        """As `Head.pack_backward`."""
        for name, weights in tape.packed_t.items():
            weights.pack_transposed(self.values[name], any_values=True)

    def packed(self) -> dict[str, gemm.Packed]:
        """The weights, packed for forward products."""
        if self._packed is not None:
            return self._packed
        shapes = {name: self.values[name].shape for name in self.matrices}
        return {
            name: gemm.Packed(K, N, self.dtype, precision=self.precisions.get(name)).pack(self.values[name])
            for name, (K, N) in shapes.items()
        }

    def in_streams(self, parts: StreamParts) -> StreamParts:
        """The parts of a stream of the network, with those of the head."""
        tails = [{name.rpartition(".")[2]: self.values[name] for name in tail.names} for tail in self.tails]
        precisions = {**parts.precisions, **self.precisions}
        return replace(parts, W_hy=self.w, b_y=self.b_y, tails=tails, precisions=precisions)

    def split(self, targets: Array) -> tuple[Array, list[Array]]:
        """Targets (M,) for the scores s, and the rows of each tail."""
        clusters = np.searchsorted(self._cutoffs, targets, side="right")  # 0: the shortlist, or no target
        shortlist = np.where(clusters > 0, self.shortlist - 1 + clusters, targets).astype(np.int32)
        return shortlist, [np.flatnonzero(clusters == tail.number + 1) for tail in self.tails]

    # ---- passes of the network -------------------------------------------------------------------------------------

    def begin_rows(self, tape: AdaptiveTape, h: Array, part: Slice) -> None:
        """As `Head.begin_rows`: apply dropout."""
        if tape.mask is not None:
            assert tape.dropped is not None
            tape.dropped[:, part.rows] = h[:, part.rows] * tape.mask[:, part.rows]

    def end_rows(self, tape: AdaptiveTape, dh: Array, part: Slice) -> None:
        """As `Head.end_rows`."""
        if tape.mask is not None:
            dh[:, part.rows] *= tape.mask[:, part.rows]

    # ---- inference -------------------------------------------------------------------------------------------------

    def row_parts(self, first: int, last: int) -> Iterator[slice]:
        """The rows first .. last-1 in slices whose scores stay in cache."""
        widest = max(int(self.values[name].shape[1]) for name in self.matrices)
        most = max(FEWEST_ROWS, LOGITS // widest)
        for start in range(first, last, most):
            yield slice(start, min(start + most, last))

    def log_probabilities(self, outputs: Array, x: Array, packed: Mapping[str, gemm.Packed]) -> None:
        """outputs (n, V) OVERWRITTEN with the log-probabilities of x (1, n, H)."""
        scores = self._product(x, packed["W_hy"], self.b_y)
        kernels.log_softmax(scores, 0, scores)
        outputs[:, : self.shortlist] = scores[:, : self.shortlist]
        for tail in self.tails:
            down, up = tail.names
            of_tail = self._product(self._product(x, packed[down])[None], packed[up])
            kernels.log_softmax(outputs, tail.first, of_tail, scores, self.shortlist + tail.number)

    def _product(self, x: Array, weights: gemm.Packed, bias: Array | None = None) -> Array:
        """x (1, n, K) @ W (K, N) + bias, (n, N), fresh."""
        y = gemm.aligned_empty((1, x.shape[1], weights.N), self.dtype)
        gemm.linear_forward(y, x, weights, bias, 0, x.shape[1])
        product: Array = y[0]
        return product

    def row_losses(
        self, losses: Array, x: Array, targets: Array, packed: Mapping[str, gemm.Packed], first: int, last: int
    ) -> None:
        """As `Head.row_losses`."""
        for rows in self.row_parts(first, last):
            self._losses_of(losses[0, rows], x[:, rows], targets[0, rows], packed)

    def _losses_of(self, losses: Array, x: Array, targets: Array, packed: Mapping[str, gemm.Packed]) -> None:
        """Losses (n,) of x (1, n, H) with targets (n,), by the operations of `log_probabilities`."""
        shortlist, rows_of_tails = self.split(targets)
        scores = self._product(x, packed["W_hy"], self.b_y)
        kernels.log_softmax(scores, 0, scores)
        losses[...] = picked(scores, shortlist)
        for tail, rows in zip(self.tails, rows_of_tails, strict=True):
            if len(rows):
                down, up = tail.names
                of_tail = self._product(self._product(x[:, rows], packed[down])[None], packed[up])
                kernels.log_softmax(of_tail, 0, of_tail, scores[rows], self.shortlist + tail.number)
                losses[rows] = picked(of_tail, targets[rows] - tail.first)


def picked(log_probabilities: Array, targets: Array) -> Array:
    """Losses (n,) of targets (n,): minus their log-probabilities, 0 without a target."""
    found = -log_probabilities[np.arange(len(targets)), np.maximum(targets, 0)]
    losses: Array = np.where(targets == IGNORE_INDEX, found.dtype.type(0), found)
    return losses


class AdaptiveRows:
    """What an adaptive head computes between the passes of the network, as `crnn.models.outputs.blocks.Blocks`.

    Without targets the outputs; with targets the losses, and predictions if they are wanted, or the gradients.
    """

    _x: Array  # (1, M, H): the head's input
    _dx: Array  # the gradient there

    def __init__(
        self,
        head: AdaptiveHead,
        tape: AdaptiveTape,
        network: Tape,
        targets: Array | None,
        threads: int,
        gradient: Gradient | None = None,
    ) -> None:
        self._head, self._tape, self._network = head, tape, network
        self._threads, self._gradient, self._count = threads, gradient, tape.losses.size
        self._targets = None if targets is None else targets.reshape(1, self._count)
        self._losses = tape.losses.reshape(1, self._count)

    def phases(self) -> Iterator[Phase]:
        """See `crnn.nn.program`."""
        yield 1, self._begin
        if self._gradient is None:
            yield self._threads, self._infer
            return
        for start in range(0, self._count, self._tape.block_rows):
            rows = slice(start, min(start + self._tape.block_rows, self._count))
            yield 1, partial(self._gather, rows)
            yield self._threads, partial(self._run, rows)
            if self._gradient.of_parameters:
                yield self._threads, partial(self._add_gradients, rows)

    def finish(self) -> None:
        """As `Blocks.finish`: nothing is left to do."""

    def _begin(self, _: int) -> None:
        tape, head = self._tape, self._head
        x = self._network.y if tape.mask is None else tape.dropped
        assert x is not None
        self._x = x.reshape(1, self._count, -1)
        if self._gradient is not None:
            self._dx = self._network.dy.reshape(1, self._count, -1)
            if tape.scores is None:
                tape.scores = gemm.aligned_empty((1, tape.block_rows, len(head.b_y)), head.dtype)
        elif self._targets is None and tape.outputs is None:
            tape.outputs = gemm.aligned_empty((*tape.losses.shape, head.loss.outputs), head.dtype)

    def _infer(self, part: int) -> None:
        """One thread's share of outputs, losses or predictions."""
        tape, head = self._tape, self._head
        first, last = parallel.part_range(self._count, part, self._threads)
        if self._targets is not None and tape.predictions is None:
            head.row_losses(self._losses, self._x, self._targets, tape.packed, first, last)
            return
        for rows in head.row_parts(first, last):
            if self._targets is None:
                assert tape.outputs is not None
                outputs = tape.outputs.reshape(self._count, -1)[rows]
            else:
                outputs = gemm.aligned_empty((rows.stop - rows.start, head.loss.outputs), head.dtype)
            head.log_probabilities(outputs, self._x[:, rows], tape.packed)
            if self._targets is not None:
                assert tape.predictions is not None
                self._losses[0, rows] = picked(outputs, self._targets[0, rows])
                tape.predictions.reshape(-1)[rows] = outputs.argmax(axis=1)

    def _gather(self, rows: slice, _: int) -> None:
        """Find the rows of each tail in a block."""
        assert self._targets is not None
        targets = self._targets[:, rows]
        self._shortlist, of_tails = self._head.split(targets[0])
        for tail, found in zip(self._tape.tails, of_tails, strict=True):
            tail.take(found, targets)

    def _run(self, rows: slice, part: int) -> None:
        """Losses and gradients of one thread's share of a block."""
        tape, head = self._tape, self._head
        assert tape.scores is not None
        assert self._gradient is not None
        count, scale = rows.stop - rows.start, self._gradient.scale
        first, last = parallel.part_range(count, part, self._threads)
        x, dx, losses, scores = self._x[:, rows], self._dx[:, rows], self._losses[:, rows], tape.scores[:, :count]
        gemm.linear_forward(scores, x, tape.packed["W_hy"], head.b_y, first, last)
        targets = self._shortlist[None]
        kernels.softmax_cross_entropy(losses, scores, scores, targets, scale, IGNORE_INDEX, first, last)
        gemm.linear_forward(dx, scores, tape.packed_t["W_hy"], None, first, last)
        for of in tape.tails:
            start, stop = np.searchsorted(of.rows, [first, last]).tolist()
            if start < stop:
                self._run_tail(of, x, start, stop, scale)
                chosen = of.rows[start:stop]
                losses[0, chosen] += of.losses[0, start:stop]
                dx[0, chosen] += of.dx[0, start:stop]

    def _run_tail(self, of: TailTape, x: Array, start: int, stop: int, scale: float) -> None:
        """The losses of rows start .. stop-1 of a tail within it, and their gradients at x."""
        tape, (down, up) = self._tape, of.tail.names
        of.x[0, start:stop] = x[0, of.rows[start:stop]]
        gemm.linear_forward(of.p, of.x, tape.packed[down], None, start, stop)
        gemm.linear_forward(of.scores, of.p, tape.packed[up], None, start, stop)
        kernels.softmax_cross_entropy(
            of.losses, of.scores, of.scores, of.targets, scale, IGNORE_INDEX, start, stop
        )
        # forward: scores = x @ W_hp @ W_py, so dp = dscores @ W_py.T and dx = dp @ W_hp.T
        gemm.linear_forward(of.dp, of.scores, tape.packed_t[up], None, start, stop)
        gemm.linear_forward(of.dx, of.dp, tape.packed_t[down], None, start, stop)

    def _add_gradients(self, rows: slice, part: int) -> None:
        """ACCUMULATE the gradients of the head's parameters, for one thread's columns."""
        tape, grads, scratch = self._tape, self._head.grads, self._network.scratch(part)
        assert tape.scores is not None
        scores, db_y = tape.scores[:, : rows.stop - rows.start], grads["b_y"]
        work: list[tuple[str, Array, Array, Array | None]] = [("W_hy", self._x[:, rows], scores, db_y)]
        for of in tape.tails:
            down, up = of.tail.names
            work += [(down, of.x, of.dp, None), (up, of.p, of.scores, None)]
        unit = gemm.line_width(self._head.dtype)
        for name, x, dy, db in work:
            if x.shape[1]:
                n0, n1 = parallel.part_range(dy.shape[2], part, self._threads, unit)
                gemm.linear_backward_weight(grads[name], x, dy, scratch, n0, n1, None, db, precision=tape.precision)
