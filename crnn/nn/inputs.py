# SPDX-License-Identifier: MIT
"""The input of a layer: x_t W_xh + b_h and its gradients, for each kind of x.

    Dense           x (T, B, D) real: one product for all steps
    Rows            ids (T, B) as one-hot vectors: row W_xh[id] + b_h of a table (V, G*H), computed once per window
    GatheredRows    the same if there are many more tokens in the vocabulary than ids: only the rows of these
    EmbeddedRows    ids and an embedding E (V, D), V <= T*B: rows of the table E W_xh + b_h, so the product is computed
                    once per token of the vocabulary
    EmbeddedDense   ids and an embedding E (V, D), V > T*B, or with dropout: Dense, on the gathered rows of E

If the sequences have lengths, arrays (T, B, ...) are packed, see `crnn._core.rows.Lengths`. An input is owned by a tape
and belongs to one direction of one layer. `LayerInput` documents the methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn import _parallel as parallel
from crnn._core import arrays as kernels
from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.nn.slices import Slice

Array = NDArray[Any]
Ids = NDArray[np.int32]
Arrays = Mapping[str, Array]


# A table of all ids of at most so many bytes is computed for the fewest of them: its kernel calls can be repeated.
TABLE_BYTES = 1 << 21


class LayerInput(Protocol):
    """What a layer needs of its input.

    Methods are called in the order in which they are listed: project for each slice of the batch and range of steps,
    backward for each slice, weight_gradients for each range of columns. ``values`` and ``grads`` are the network's
    parameters and their gradients by name; da (T, B, G*H) is the gradient at x_t W_xh + b_h.
    """

    @property
    def x(self) -> Array:
        """(T, B, D) real, or ids (T, B); borrowed."""
        ...

    dx: Array | None  # (T, B, D): gradient at x, written by `backward`; None for ids, and where it is not needed
    repeatable: ClassVar[bool]  # whether all methods only call kernels, with the same arrays every time
    packed: ClassVar[tuple[str, ...]]  # attributes that only depend on weights, for inputs of the same class to share

    def set_input(self, x: Array) -> None:
        """Use another x of the same shape and dtype."""
        ...

    def pack_forward(self, values: Arrays, any_values: bool) -> None:
        """Pack the weights for `project`. ``any_values``: in a pass that trains, in which quantised weights may be
        infinite or NaN, as others may: the loss tells."""
        ...

    def project(self, xw: Array, t0: int, t1: int, part: Slice) -> tuple[Array, Ids | None]:
        """x_t W_xh + b_h for steps t0 .. t1-1 and the rows of ``part``.

        Returns ``xw`` (t1-t0, B, G*H), OVERWRITTEN, and None; or a table (V, G*H) and the ids (t1-t0, B) that select
        its rows.
        """
        ...

    def pack_backward(self, values: Arrays) -> None:
        """Pack the transposed weights and allocate what `backward` writes."""
        ...

    def backward(self, da: Array, part: Slice) -> None:
        """OVERWRITE `dx` for the rows of ``part``."""
        ...

    def weight_gradients(
        self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int, lengths: Lengths | None
    ) -> None:
        """ACCUMULATE the weights' gradients, for the columns that belong to ``part`` of ``parts``."""
        ...

    def finish_gradients(self, grads: Arrays) -> None:
        """ACCUMULATE the gradients that need all columns."""
        ...


class Dense:
    """x (T, B, D) real: the first layer's input, or the output of the layer below."""

    repeatable: ClassVar[bool] = True
    packed: ClassVar[tuple[str, ...]] = ("weights", "weights_t", "bias")
    x: Array  # (T, B, D), borrowed
    dx: Array | None  # (T, B, D)
    wants_dx: bool  # whether `backward` computes it; the first layer of a model has no use for it
    w_name: str  # the parameter W_xh (D, G*H)
    b_name: str  # the parameter b_h (G*H,)
    weights: gemm.Packed  # W_xh
    weights_t: gemm.Packed | None  # W_xh.T
    bias: Array  # (G*H,), borrowed
    precision: str | None  # of the products and of the gradient of W_xh, if not that of x

    def __init__(self, prefix: str, x: Array, width: int, precision: str | None) -> None:
        self.x, self.dx, self.precision = x, None, precision
        self.wants_dx = True
        self.w_name, self.b_name = prefix + "W_xh", prefix + "b_h"
        self.weights = gemm.Packed(x.shape[2], width, x.dtype, precision=precision)
        self.weights_t = None

    def set_input(self, x: Array) -> None:
        self.x = x

    def pack_forward(self, values: Arrays, any_values: bool) -> None:
        self.weights.pack(values[self.w_name], any_values=any_values)
        self.bias = values[self.b_name]

    def project(self, xw: Array, t0: int, t1: int, part: Slice) -> tuple[Array, Ids | None]:
        gemm.linear_forward(xw, self.x[t0:t1], self.weights, self.bias, part.b0, part.b1, part.lengths)
        return xw, None

    def pack_backward(self, values: Arrays) -> None:
        if not self.wants_dx:
            return
        if self.dx is None:
            self.dx = gemm.aligned_empty(self.x.shape, self.x.dtype)
        if self.weights_t is None:
            self.weights_t = gemm.Packed(self.weights.N, self.weights.K, self.x.dtype, precision=self.precision)
        self.weights_t.pack_transposed(values[self.w_name], any_values=True)

    def backward(self, da: Array, part: Slice) -> None:
        if not self.wants_dx:
            return
        assert self.dx is not None
        assert self.weights_t is not None
        # forward: a = x @ W_xh, so dx = da @ W_xh.T
        gemm.linear_forward(self.dx, da, self.weights_t, None, part.b0, part.b1, part.lengths)

    def weight_gradients(
        self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int, lengths: Lengths | None
    ) -> None:
        n0, n1 = parallel.part_range(da.shape[2], part, parts, gemm.line_width(da.dtype))
        dw = grads[self.w_name]
        gemm.linear_backward_weight(dw, self.x, da, scratch, n0, n1, lengths, precision=self.precision)  # += x.T @ da

    def finish_gradients(self, grads: Arrays) -> None:
        pass


class OneHotRows:
    """ids (T, B) as one-hot vectors: products are rows of W_xh, and its gradient is scattered into dW_xh."""

    repeatable: ClassVar[bool]
    packed: ClassVar[tuple[str, ...]]
    x: Array  # ids (T, B), borrowed
    dx: Array | None  # always None
    w_name: str  # the parameter W_xh (V, G*H)
    b_name: str  # the parameter b_h (G*H,)

    def __init__(self, prefix: str, ids: Ids) -> None:
        self.x, self.dx = ids, None
        self.w_name, self.b_name = prefix + "W_xh", prefix + "b_h"

    def set_input(self, x: Array) -> None:
        self.x = x

    def pack_backward(self, values: Arrays) -> None:
        pass

    def backward(self, da: Array, part: Slice) -> None:
        pass

    def weight_gradients(
        self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int, lengths: Lengths | None
    ) -> None:
        n0, n1 = parallel.part_range(da.shape[2], part, parts, gemm.line_width(da.dtype))
        gemm.rows_backward(grads[self.w_name], self.x, da, n0, n1, lengths)  # forward: a = W_xh[id], so dW_xh[id] += da

    def finish_gradients(self, grads: Arrays) -> None:
        pass


class Rows(OneHotRows):
    """One-hot ids of a vocabulary that is not large beside the window: the table W_xh + b_h is made for all."""

    repeatable = True
    packed: ClassVar[tuple[str, ...]] = ("table",)
    table: Array  # (V, G*H)

    def __init__(self, prefix: str, ids: Ids, vocab_size: int, width: int, dtype: str) -> None:
        super().__init__(prefix, ids)
        self.table = gemm.aligned_empty((vocab_size, width), dtype)

    def pack_forward(self, values: Arrays, any_values: bool) -> None:
        gemm.rows_add_bias(self.table, values[self.w_name], values[self.b_name])

    def project(self, xw: Array, t0: int, t1: int, part: Slice) -> tuple[Array, Ids | None]:
        return self.table, self.x[t0:t1]


class GatheredRows(OneHotRows):
    """One-hot ids, far fewer than there are in the vocabulary: W_xh[id] + b_h for each."""

    repeatable = False
    packed: ClassVar[tuple[str, ...]] = ("w", "bias")
    w: Array  # the values of W_xh, borrowed
    bias: Array

    def pack_forward(self, values: Arrays, any_values: bool) -> None:
        self.w, self.bias = values[self.w_name], values[self.b_name]

    def project(self, xw: Array, t0: int, t1: int, part: Slice) -> tuple[Array, Ids | None]:
        ids = self.x[t0:t1, part.rows]
        rows = self.w[ids.reshape(-1)]
        gemm.rows_add_bias(rows, rows, self.bias)
        xw[:, part.rows] = rows.reshape(*ids.shape, -1)
        return xw, None


class EmbeddedRows(Rows):
    """ids (T, B) through an embedding E (V, D), for a small vocabulary: the table is E @ W_xh + b_h."""

    packed: ClassVar[tuple[str, ...]] = ("table", "weights", "weights_t")
    embedding: Array  # (1, V, D), borrowed: the kernels of products take three axes
    dtable: Array | None  # (V, G*H)
    dembedding: Array | None  # (1, V, D): what this window adds to the embedding's gradient
    weights: gemm.Packed  # W_xh
    weights_t: gemm.Packed | None  # W_xh.T
    precision: str | None  # as in `Dense`

    def __init__(self, prefix: str, ids: Ids, embedding: Array, width: int, precision: str | None) -> None:
        super().__init__(prefix, ids, len(embedding), width, embedding.dtype.name)
        self.embedding, self.precision = embedding[None], precision
        self.weights = gemm.Packed(embedding.shape[1], width, embedding.dtype, precision=precision)
        self.dtable = self.dembedding = self.weights_t = None

    def pack_forward(self, values: Arrays, any_values: bool) -> None:
        self.weights.pack(values[self.w_name], any_values=any_values)
        gemm.linear_forward(self.table[None], self.embedding, self.weights, values[self.b_name], 0, len(self.table))

    def pack_backward(self, values: Arrays) -> None:
        if self.dtable is None:
            self.dembedding = gemm.aligned_empty(self.embedding.shape, self.table.dtype)
            self.weights_t = gemm.Packed(self.weights.N, self.weights.K, self.table.dtype, precision=self.precision)
            self.dtable = gemm.aligned_empty(self.table.shape, self.table.dtype)  # last, since it is what is tested
        assert self.weights_t is not None
        self.weights_t.pack_transposed(values[self.w_name], any_values=True)

    def weight_gradients(
        self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int, lengths: Lengths | None
    ) -> None:
        assert self.dtable is not None
        n0, n1 = parallel.part_range(da.shape[2], part, parts, gemm.line_width(da.dtype))
        kernels.copy_rows(self.dtable[None], None, 0, len(self.dtable), n0, 0, n1 - n0)
        gemm.rows_backward(self.dtable, self.x, da, n0, n1, lengths)
        # forward: table = E @ W_xh + b_h, so dW_xh += E.T @ dtable
        dw, E = grads[self.w_name], self.embedding
        gemm.linear_backward_weight(dw, E, self.dtable[None], scratch, n0, n1, precision=self.precision)

    def finish_gradients(self, grads: Arrays) -> None:
        """ACCUMULATE dE += dtable @ W_xh.T, which needs all columns of dtable."""
        assert self.dtable is not None
        assert self.dembedding is not None
        assert self.weights_t is not None
        V = len(self.dtable)
        gemm.linear_forward(self.dembedding, self.dtable[None], self.weights_t, None, 0, V)
        kernels.add_rows(grads["embedding"][None], self.dembedding, 0, V)


class EmbeddedDense(Dense):
    """ids (T, B) through an embedding E (V, D), for a vocabulary larger than the window: x = E[ids].

    In a bidirectional layer only the forward direction adds to dE, because its dx is by then the sum of both.
    """

    repeatable: ClassVar[bool] = False
    ids: Array  # (T, B), borrowed
    embedding: Array  # (V, D), borrowed
    mask: Array | None = None  # (T or 1, B, D or 1): dropout of x; `crnn.nn.tape.LayerTape` applies it to dx

    def __init__(self, prefix: str, ids: Ids, embedding: Array, width: int, precision: str | None) -> None:
        x = gemm.aligned_empty((*ids.shape, embedding.shape[1]), embedding.dtype)
        super().__init__(prefix, x, width, precision)
        self.ids, self.embedding = ids, embedding

    def set_input(self, x: Array) -> None:
        self.ids = x

    def project(self, xw: Array, t0: int, t1: int, part: Slice) -> tuple[Array, Ids | None]:
        rows = self.embedding[self.ids[t0:t1, part.rows]]
        if self.mask is not None:
            rows *= (self.mask if len(self.mask) == 1 else self.mask[t0:t1])[:, part.rows]
        self.x[t0:t1, part.rows] = rows
        return super().project(xw, t0, t1, part)

    def weight_gradients(
        self, grads: Arrays, da: Array, scratch: Array, part: int, parts: int, lengths: Lengths | None
    ) -> None:
        super().weight_gradients(grads, da, scratch, part, parts, lengths)
        if self.dx is None or ".reverse." in self.w_name:
            return
        n0, n1 = parallel.part_range(self.dx.shape[2], part, parts, gemm.line_width(da.dtype))
        # forward: x = E[id], so dE[id] += dx
        gemm.rows_backward(grads["embedding"], self.ids, self.dx, n0, n1, lengths)


def first_input(
    x: Array,
    tokens: int,
    embedding: Array | None,
    prefix: str,
    vocab_size: int,
    width: int,
    dtype: str,
    precision: str | None,
    *,
    dropped: bool = False,
) -> LayerInput:
    """The input of the first layer, for x (T, B, D) real or ids (T, B), which may be packed.

    ``tokens`` is T*B, ``width`` is G*H, ``precision`` that of the products with W_xh, if not that of ``dtype``.
    ``dropped``: rows of an embedding may have masks.
    """
    if x.ndim == 3:
        return Dense(prefix, x, width, precision)
    if embedding is None:
        if vocab_size > 2 * tokens and vocab_size * width * np.dtype(dtype).itemsize > TABLE_BYTES:
            return GatheredRows(prefix, x)
        return Rows(prefix, x, vocab_size, width, dtype)
    kind = EmbeddedRows if vocab_size <= tokens and not dropped else EmbeddedDense
    return kind(prefix, x, embedding, width, precision)
