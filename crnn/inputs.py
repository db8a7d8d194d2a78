# SPDX-License-Identifier: MIT
"""What feeds a layer: how x_t W_xh + b_h is computed and reversed, by kind of input.

    Dense      x (T, B, D) real: one product for all steps
    Rows       ids (T, B): the row W_xh[id] + b_h, from a table (V, H) made once per window
    Embedded   ids and an embedding E (V, D). Where V is not larger than T*B: rows of the table E W_xh + b_h, so the
               product is made once per token of the vocabulary. Where it is: Dense, on the gathered rows of E.

An input belongs to a tape. All have the same methods, called in this order: take (another x of the same shape),
pack_forward, forward_rows for each slice of the batch; pack_backward, backward_rows for each slice, weight_gradients
for each share of columns, finish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn import parallel
from crnn._core import cells, gemm

Array = NDArray[Any]
Ids = NDArray[np.int32]
Arrays = Mapping[str, Array]

AHEAD_BYTES = 256 * 1024  # how far a product for all steps goes ahead of the recurrence; 2 % faster at H = 512


class LayerInput(Protocol):
    """See the module's text. h, da (T, B, H); values and grads are the parameters of the network, by name."""

    x: Array
    dx: Array | None

    def take(self, x: Array) -> None: ...
    def pack_forward(self, values: Arrays) -> None: ...
    def forward_rows(self, h: Array, h0: Array, w_hh: gemm.Packed, act: int, b0: int, b1: int) -> None: ...
    def pack_backward(self, values: Arrays) -> None: ...
    def backward_rows(self, da: Array, b0: int, b1: int) -> None: ...
    def weight_gradients(self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int) -> None: ...
    def finish(self, grads: Arrays) -> None: ...


class Dense:
    """x (T, B, D) real: the first layer's input, or the h of the layer below.

    dx (T, B, D) is where backward_rows leaves the gradient at x: for an upper layer the da of the layer below.
    """

    def __init__(self, layer: int, x: Array, hidden_size: int) -> None:
        self.x = x
        self.dx: Array | None = None
        self.w_name, self.b_name = f"layer{layer}.W_xh", f"layer{layer}.b_h"
        self.weights = gemm.Packed(x.shape[2], hidden_size, x.dtype)
        self.weights_t: gemm.Packed | None = None

    def take(self, x: Array) -> None:
        self.x = x

    def pack_forward(self, values: Arrays) -> None:
        self.weights.pack(values[self.w_name])
        self.bias = values[self.b_name]

    def forward_rows(self, h: Array, h0: Array, w_hh: gemm.Packed, act: int, b0: int, b1: int) -> None:
        """The product goes ahead by some steps only, so that what it leaves in h is still in the second cache."""
        steps = max(1, AHEAD_BYTES // ((b1 - b0) * h.strides[1]))
        for t in range(0, len(h), steps):
            h_t = h[t : t + steps]
            gemm.linear_forward(h_t, self.x[t : t + steps], self.weights, self.bias, b0, b1)
            cells.rnn_forward(h_t, h_t, None, h[t - 1] if t else h0, w_hh, act, b0, b1)

    def pack_backward(self, values: Arrays) -> None:
        if self.dx is None:
            self.dx = gemm.aligned_empty(self.x.shape, self.x.dtype)
        if self.weights_t is None:
            self.weights_t = gemm.Packed(self.weights.N, self.weights.K, self.x.dtype)
        self.weights_t.pack_transposed(values[self.w_name])

    def backward_rows(self, da: Array, b0: int, b1: int) -> None:
        assert self.dx is not None
        assert self.weights_t is not None
        gemm.linear_forward(self.dx, da, self.weights_t, None, b0, b1)  # forward: a = x @ W_xh, so dx = da @ W_xh.T

    def weight_gradients(self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int) -> None:
        n0, n1 = parallel.share(da.shape[2], part, parts, gemm.line_width(da.dtype))
        gemm.linear_backward_weight(grads[self.w_name], self.x, da, scratch, n0, n1)  # dW_xh += x.T @ da

    def finish(self, grads: Arrays) -> None:
        pass


class Rows:
    """ids (T, B) as one-hot vectors: the table is W_xh + b_h, and its gradient is scattered into dW_xh."""

    def __init__(self, ids: Ids, vocab_size: int, hidden_size: int, dtype: str) -> None:
        self.x: Array = ids
        self.dx: Array | None = None
        self.table = gemm.aligned_empty((vocab_size, hidden_size), dtype)

    def take(self, x: Array) -> None:
        self.x = x

    def pack_forward(self, values: Arrays) -> None:
        gemm.rows_add_bias(self.table, values["layer0.W_xh"], values["layer0.b_h"])

    def forward_rows(self, h: Array, h0: Array, w_hh: gemm.Packed, act: int, b0: int, b1: int) -> None:
        cells.rnn_forward(h, self.table, self.x, h0, w_hh, act, b0, b1)

    def pack_backward(self, values: Arrays) -> None:
        pass

    def backward_rows(self, da: Array, b0: int, b1: int) -> None:
        pass

    def weight_gradients(self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int) -> None:
        n0, n1 = parallel.share(da.shape[2], part, parts, gemm.line_width(da.dtype))
        gemm.rows_backward(grads["layer0.W_xh"], self.x, da, n0, n1)  # forward: a = W_xh[id], so dW_xh[id] += da

    def finish(self, grads: Arrays) -> None:
        pass


class EmbeddedRows(Rows):
    """ids (T, B) through an embedding E (V, D), for a small vocabulary: the table is E @ W_xh + b_h."""

    def __init__(self, ids: Ids, embedding: Array, hidden_size: int) -> None:
        super().__init__(ids, len(embedding), hidden_size, embedding.dtype.name)
        self.embedding = embedding[None]  # (1, V, D): the products take three axes
        self.weights = gemm.Packed(embedding.shape[1], hidden_size, embedding.dtype)
        self.dtable: Array | None = None
        self.weights_t: gemm.Packed | None = None

    def pack_forward(self, values: Arrays) -> None:
        self.weights.pack(values["layer0.W_xh"])
        gemm.linear_forward(self.table[None], self.embedding, self.weights, values["layer0.b_h"], 0, len(self.table))

    def pack_backward(self, values: Arrays) -> None:
        if self.dtable is None:
            self.dtable = gemm.aligned_empty(self.table.shape, self.table.dtype)
            self.weights_t = gemm.Packed(self.weights.N, self.weights.K, self.table.dtype)
        assert self.weights_t is not None
        self.weights_t.pack_transposed(values["layer0.W_xh"])

    def weight_gradients(self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int) -> None:
        assert self.dtable is not None
        n0, n1 = parallel.share(da.shape[2], part, parts, gemm.line_width(da.dtype))
        self.dtable[:, n0:n1] = 0
        gemm.rows_backward(self.dtable, self.x, da, n0, n1)
        # forward: table = E @ W_xh + b_h, so dW_xh += E.T @ dtable
        gemm.linear_backward_weight(grads["layer0.W_xh"], self.embedding, self.dtable[None], scratch, n0, n1)

    def finish(self, grads: Arrays) -> None:
        """dE += dtable @ W_xh.T, which needs all columns of dtable."""
        assert self.dtable is not None
        assert self.weights_t is not None
        dE = gemm.aligned_empty(self.embedding.shape, self.dtable.dtype)
        gemm.linear_forward(dE, self.dtable[None], self.weights_t, None, 0, len(self.dtable))
        grads["embedding"][...] += dE[0]


class EmbeddedDense(Dense):
    """ids (T, B) through an embedding E (V, D), for a vocabulary larger than the window: x = E[ids]."""

    def __init__(self, ids: Ids, embedding: Array, hidden_size: int) -> None:
        super().__init__(0, gemm.aligned_empty((*ids.shape, embedding.shape[1]), embedding.dtype), hidden_size)
        self.ids, self.embedding = ids, embedding

    def take(self, x: Array) -> None:
        self.ids = x

    def forward_rows(self, h: Array, h0: Array, w_hh: gemm.Packed, act: int, b0: int, b1: int) -> None:
        self.x[:, b0:b1] = self.embedding[self.ids[:, b0:b1]]
        super().forward_rows(h, h0, w_hh, act, b0, b1)

    def weight_gradients(self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int) -> None:
        super().weight_gradients(grads, da, scratch, part, parts)
        assert self.dx is not None
        n0, n1 = parallel.share(self.dx.shape[2], part, parts, gemm.line_width(da.dtype))
        gemm.rows_backward(grads["embedding"], self.ids, self.dx, n0, n1)  # forward: x = E[id], so dE[id] += dx
