# SPDX-License-Identifier: MIT
"""The cells: what one direction of one recurrent layer keeps for a window, and the kernels that run it.

A `Recurrence` belongs to a tape. Its methods are called in this order: pack_forward, forward for each slice of the
batch; pack_backward, backward for each slice, weight_gradients for each share of columns. Gates lie in blocks of H
columns: LSTM i, f, g, o; GRU r, z, n. The equations stand in src_c/{rnn,lstm,gru}.body.h.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crnn import parallel
from crnn._core import cells, gemm
from crnn._core.rows import Lengths

Array = NDArray[Any]
Ids = NDArray[np.int32]
Arrays = Mapping[str, Array]


SATURATED = 0.97  # |tanh| beyond which 1 - tanh^2, the slope, is below 0.06; a sigmoid's is then below 0.03


@dataclass(frozen=True)
class Slice:
    """A share of a batch: positions b0 .. b1, of rows as they lie, or of ``lengths.order``."""

    b0: int
    b1: int
    lengths: Lengths | None = None

    @property
    def single(self) -> Slice:
        """The same rows of arrays that have one step for each."""
        return Slice(self.b0, self.b1, None if self.lengths is None else self.lengths.single())

    @property
    def rows(self) -> Any:
        """An index for the batch axis."""
        return slice(self.b0, self.b1) if self.lengths is None else self.lengths.order[self.b0 : self.b1]


class Recurrence(ABC):
    """One direction of a layer over T steps of B rows; see the module's text.

    ``keep``: keep what the backward pass needs. Otherwise ``span`` steps at a time are worked on, in arrays that stay
    in the second cache; a forward pass then takes steps t0 .. t1 with t1 - t0 <= span, in the layer's direction.
    """

    cell: ClassVar[str]  # its name in the list of cells of src_c/cells/cells.h
    gates: ClassVar[int]
    has_c: ClassVar[bool] = False

    def __init__(
        self, prefix: str, T: int, B: int, H: int, dtype: str, *, reverse: bool, keep: bool, span: int
    ) -> None:
        self.prefix, self.T, self.B, self.H, self.dtype = prefix, T, B, H, dtype
        self.reverse, self.keep = reverse, keep
        self.span = T if keep else min(span, T)
        self.h = gemm.aligned_empty((T, B, H), dtype)
        self.h0: Array = self.h[:0]  # (B, H), given before pack_forward
        self.c0: Array | None = None  # likewise, where the cell has one
        self.mask: Array | None = None  # (B, H): dropout of the state
        self.h_masked: Array | None = None
        self.h0_masked: Array | None = None
        self.keep_dh = False  # whether the whole gradient at h is wanted after a backward pass
        self.once = False  # whether one backward pass is all: it may then write over the gates, while they are near
        # Only a backward pass makes these.
        self.dh: Array = self.h[:0]
        self.da: Array = self.h[:0]
        self.dh0: Array = self.h[:0]  # (B, H), given before pack_backward
        self.dc: Array | None = None  # likewise, where the cell has one
        self.dh_masked: Array | None = None

    def steps(self, gates: int = 1) -> Array:
        """Memory for the steps that are worked on at a time."""
        return gemm.aligned_empty((self.span, self.B, gates * self.H), self.dtype)

    @property
    @abstractmethod
    def xw(self) -> Array:
        """Where the input's share x @ W_xh + b_h goes before `forward`: (span, B, G*H)."""

    def take_mask(self, mask: Array | None) -> None:
        """Dropout for the window: h is multiplied by ``mask`` (B, H) before it enters a product with W_hh."""
        self.mask = mask
        if mask is not None:
            if self.h_masked is None:
                self.h_masked = gemm.aligned_empty(self.h.shape, self.dtype)
            self.h0_masked = self.h0 * mask

    @property
    def recurring(self) -> tuple[Array, Array]:
        """What enters the products with W_hh: h and h0, through the mask if there is one."""
        if self.mask is None:
            return self.h, self.h0
        assert self.h_masked is not None
        assert self.h0_masked is not None
        return self.h_masked, self.h0_masked

    @abstractmethod
    def pack_forward(self, values: Arrays) -> None: ...

    @abstractmethod
    def forward(self, xw: Array, ids: Ids | None, t0: int, t1: int, part: Slice) -> None:
        """Steps t0 .. t1: xw is the array `xw`, or with ids a table of rows."""

    def _start(self, t0: int, t1: int) -> Array:
        """h before the steps t0 .. t1."""
        before = t1 if self.reverse else t0 - 1
        return self.h[before] if 0 <= before < self.T else self.h0

    def _masks(self, t0: int, t1: int) -> dict[str, Array]:
        """The kernels' arguments for dropout of the state."""
        if self.mask is None:
            return {}
        assert self.h_masked is not None
        assert self.h0_masked is not None
        before = t1 if self.reverse else t0 - 1
        start = self.h_masked[before] if 0 <= before < self.T else self.h0_masked
        return {"mask": self.mask, "h_masked": self.h_masked[t0:t1], "h0_masked": start}

    def _mask_back(self) -> dict[str, Array]:
        if self.mask is None:
            return {}
        if self.dh_masked is None:
            self.dh_masked = gemm.aligned_empty((self.B, self.H), self.dtype)
        return {"mask": self.mask, "dh_masked": self.dh_masked}

    def last_step(self, part: Slice) -> Any:
        """Index of the last step in the layer's direction, and of the rows, into arrays (T, B, H)."""
        if self.reverse or part.lengths is None:
            return (0 if self.reverse else -1), part.rows
        return part.lengths.lengths[part.rows] - 1, part.rows

    def finish_forward(self, part: Slice, h_after: Array, c_after: Array | None) -> None:
        """The state after the last step."""
        h_after[part.rows] = self.h[self.last_step(part)]

    @abstractmethod
    def pack_backward(self, values: Arrays) -> None: ...

    def add_state_gradient(self, part: Slice, dh_after: Array | None, dc_after: Array | None) -> None:
        """The gradient at the state after the last step joins what arrives at h."""
        if dh_after is not None:
            self.dh[self.last_step(part)] += dh_after[part.rows]

    @abstractmethod
    def backward(self, part: Slice) -> None:
        """dh holds what arrives at h; leaves da and dh0, and in dh, if `keep_dh` is set, the whole gradient at h."""

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        """This part's columns of dW_hh += sum over t of h'.T @ da and of db_h += sum of da."""
        n0, n1 = parallel.share(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        dw, db = grads[self.prefix + "W_hh"], grads[self.prefix + "b_h"]
        h, h0 = self.recurring
        gemm.recurrent_backward_weight(dw, h, h0, self.da, scratch, self.reverse, n0, n1, lengths, db)

    @abstractmethod
    def saturation(self, there: Array) -> Array:
        """(T,) share of the activations whose slope is nearly 0, at the steps that are ``there``: bool (T, B, 1)."""

    def finish_gradients(self, grads: Arrays) -> None:
        """What goes over all rows: the gradient of a learnt initial state."""
        for name, gradient in (("h0", self.dh0), ("c0", self.dc)):
            if self.prefix + name in grads and gradient is not None:
                gemm.bias_backward(grads[self.prefix + name], gradient[None], 0, self.H)


class Plain(Recurrence):
    """h = act( xw + h' @ W_hh ), tanh or ReLU."""

    gates = 1
    act: ClassVar[int]

    def __init__(self, *shape: Any, **options: Any) -> None:
        super().__init__(*shape, **options)
        self.w_hh = gemm.Packed(self.H, self.H, self.dtype)
        self._share = self.h if self.keep else self.steps()

    @property
    def xw(self) -> Array:
        return self._share

    def pack_forward(self, values: Arrays) -> None:
        self.w_hh.pack(values[self.prefix + "W_hh"])

    def forward(self, xw: Array, ids: Ids | None, t0: int, t1: int, part: Slice) -> None:
        cells.rnn_forward(
            self.h[t0:t1], xw, ids, self._start(t0, t1), self.w_hh, self.act, part.b0, part.b1, part.lengths,
            self.reverse, **self._masks(t0, t1),
        )  # fmt: skip

    def pack_backward(self, values: Arrays) -> None:
        if not self.dh.size:
            self.dh = self.da = gemm.aligned_empty(self.h.shape, self.dtype)
            if self.keep_dh:
                self.dh = gemm.aligned_empty(self.h.shape, self.dtype)
            self.w_hh_t = gemm.Packed(self.H, self.H, self.dtype)
        self.w_hh_t.pack_transposed(values[self.prefix + "W_hh"])

    def backward(self, part: Slice) -> None:
        cells.rnn_backward(
            self.da, self.dh0, self.h, self.w_hh_t, self.act, part.b0, part.b1, part.lengths, self.reverse,
            dh=self.dh, **self._mask_back(),
        )  # fmt: skip


class Tanh(Plain):
    cell = "tanh"
    act = cells.TANH

    def saturation(self, there: Array) -> Array:
        return share_of(np.abs(self.h) > SATURATED, there)


class Relu(Plain):
    cell = "relu"
    act = cells.RELU

    def saturation(self, there: Array) -> Array:
        return share_of(self.h <= 0, there)


class Lstm(Recurrence):
    """i, f, g, o from xw + h' @ W_hh;  c = f * c' + i * g;  h = o * tanh(c)."""

    cell = "lstm"
    gates = 4
    has_c = True

    def __init__(self, *shape: Any, **options: Any) -> None:
        super().__init__(*shape, **options)
        self.w_hh = gemm.Packed(self.H, self.H, self.dtype, self.gates)
        self._gates, self.c = self.steps(self.gates), self.steps()
        self.tanh_c = self.steps() if self.keep else None

    @property
    def xw(self) -> Array:
        return self._gates

    def pack_forward(self, values: Arrays) -> None:
        self.w_hh.pack(values[self.prefix + "W_hh"])

    def forward(self, xw: Array, ids: Ids | None, t0: int, t1: int, part: Slice) -> None:
        local = slice(t0, t1) if self.keep else slice(t1 - t0)
        before = t1 if self.reverse else t0 - 1
        c0 = self.c0
        assert c0 is not None
        if 0 <= before < self.T:  # if not kept, the same memory as this window's: read before it is written over
            c0 = self.c[before if self.keep else 0 if self.reverse else self.span - 1]
        cells.lstm_forward(
            self.h[t0:t1], self._gates[local], self.c[local], None if self.tanh_c is None else self.tanh_c[local],
            xw, ids, self._start(t0, t1), c0, self.w_hh, part.b0, part.b1, part.lengths, self.reverse,
            **self._masks(t0, t1),
        )  # fmt: skip
        self._steps_done = t1 - t0

    def finish_forward(self, part: Slice, h_after: Array, c_after: Array | None) -> None:
        super().finish_forward(part, h_after, c_after)
        assert c_after is not None
        if self.keep or self.reverse or part.lengths is not None:
            c_after[part.rows] = self.c[self.last_step(part)]
        else:  # what the last span of steps left
            c_after[part.rows] = self.c[self._steps_done - 1, part.rows]

    def saturation(self, there: Array) -> Array:
        """Of the gates and the candidate together."""
        i_f, o = np.s_[:, :, : 2 * self.H], np.s_[:, :, 3 * self.H :]
        squashed = np.where(there, self._gates, 0)  # elsewhere is what memory held before
        for gates in (i_f, o):
            squashed[gates] = 2 * squashed[gates] - 1  # a sigmoid as the tanh of half its argument
        return share_of(np.abs(squashed) > SATURATED, there)

    def pack_backward(self, values: Arrays) -> None:
        if not self.dh.size:
            self.dh, self.da = self.steps(), self._gates if self.once else self.steps(self.gates)
            self.w_hh_t = gemm.Packed(self.gates * self.H, self.H, self.dtype)
        self.w_hh_t.pack_transposed(values[self.prefix + "W_hh"])

    def add_state_gradient(self, part: Slice, dh_after: Array | None, dc_after: Array | None) -> None:
        super().add_state_gradient(part, dh_after, dc_after)
        assert self.dc is not None
        self.dc[part.rows] = 0 if dc_after is None else dc_after[part.rows]

    def backward(self, part: Slice) -> None:
        assert self.tanh_c is not None
        assert self.dc is not None
        assert self.c0 is not None
        cells.lstm_backward(
            self.da, self.dh, self.dc, self.dh0, self._gates, self.c, self.tanh_c, self.c0, self.w_hh_t,
            part.b0, part.b1, part.lengths, self.reverse, **self._mask_back(),
        )  # fmt: skip


class Gru(Recurrence):
    """r, z from xw + h' @ W_hh;  n = tanh( xw + r * (h' @ W_hn + b_hn) );  h = (1 - z) * n + z * h'."""

    cell = "gru"
    gates = 3

    def __init__(self, *shape: Any, **options: Any) -> None:
        super().__init__(*shape, **options)
        self.w_hh = gemm.Packed(self.H, self.H, self.dtype, 2)  # r, z
        self.w_hn = gemm.Packed(self.H, self.H, self.dtype)
        self._gates, self.hn = self.steps(self.gates), self.steps()

    @property
    def xw(self) -> Array:
        return self._gates

    def pack_forward(self, values: Arrays) -> None:
        w_hh = values[self.prefix + "W_hh"]
        self.w_hh.pack(w_hh, 0)
        self.w_hn.pack(w_hh, 2 * self.H)
        self.b_hn = values.get(self.prefix + "b_hn")

    def forward(self, xw: Array, ids: Ids | None, t0: int, t1: int, part: Slice) -> None:
        local = slice(t0, t1) if self.keep else slice(t1 - t0)
        cells.gru_forward(
            self.h[t0:t1], self._gates[local], self.hn[local], xw, ids, self._start(t0, t1), self.w_hh, self.w_hn,
            self.b_hn, part.b0, part.b1, part.lengths, self.reverse, **self._masks(t0, t1),
        )  # fmt: skip

    def saturation(self, there: Array) -> Array:
        """Of the gates and the candidate together."""
        squashed = np.where(there, self._gates, 0)  # elsewhere is what memory held before
        squashed[:, :, : 2 * self.H] = 2 * squashed[:, :, : 2 * self.H] - 1  # as the tanh of half its argument
        return share_of(np.abs(squashed) > SATURATED, there)

    def pack_backward(self, values: Arrays) -> None:
        if not self.dh.size:
            self.dh, self.da_h = self.steps(), self.steps(self.gates)
            self.da = self._gates if self.once else self.steps(self.gates)
            self.db = np.zeros(self.gates * self.H, self.dtype)
            self.w_hh_t = gemm.Packed(self.gates * self.H, self.H, self.dtype)
        self.w_hh_t.pack_transposed(values[self.prefix + "W_hh"])

    def backward(self, part: Slice) -> None:
        cells.gru_backward(
            self.da, self.da_h, self.dh, self.dh0, self._gates, self.hn, self.h, self.h0, self.w_hh_t, None, None,
            part.b0, part.b1, part.lengths, self.reverse, **self._mask_back(),
        )  # fmt: skip

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        n0, n1 = parallel.share(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        gemm.bias_backward(grads[self.prefix + "b_h"], self.da, n0, n1, lengths)
        self.db[n0:n1] = 0  # forward: h' @ W_hn + b_hn; the other blocks have no bias on that side
        dw, (h, h0) = grads[self.prefix + "W_hh"], self.recurring
        gemm.recurrent_backward_weight(dw, h, h0, self.da_h, scratch, self.reverse, n0, n1, lengths, self.db)
        n0 = max(n0, 2 * self.H)
        if n0 < n1:
            grads[self.prefix + "b_hn"][n0 - 2 * self.H : n1 - 2 * self.H] += self.db[n0:n1]


class OriginalGru(Gru):
    """The GRU with its reset gate before the product: n = tanh( xw + (r * h') @ W_hn )."""

    cell = "original_gru"

    def pack_backward(self, values: Arrays) -> None:
        if not self.dh.size:
            self.dh, self.da = self.steps(), self._gates if self.once else self.steps(self.gates)
            self.dhn = gemm.aligned_empty((self.B, self.H), self.dtype)
            self.w_hh_t = gemm.Packed(2 * self.H, self.H, self.dtype)
            self.w_hn_t = gemm.Packed(self.H, self.H, self.dtype)
        w_hh = values[self.prefix + "W_hh"]
        self.w_hh_t.pack_transposed(w_hh, 0)
        self.w_hn_t.pack_transposed(w_hh, 2 * self.H)

    def backward(self, part: Slice) -> None:
        masked = {} if self.mask is None else {"h_masked": self.h_masked, "h0_masked": self.h0_masked}
        cells.gru_backward(
            self.da, None, self.dh, self.dh0, self._gates, self.hn, self.h, self.h0, self.w_hh_t, self.w_hn_t, self.dhn,
            part.b0, part.b1, part.lengths, self.reverse, **self._mask_back(), **masked,
        )  # fmt: skip

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        n0, n1 = parallel.share(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        dw, db = grads[self.prefix + "W_hh"], grads[self.prefix + "b_h"]
        (h, h0), split = self.recurring, 2 * self.H
        if n0 < split:
            stop = min(n1, split)
            gemm.recurrent_backward_weight(dw, h, h0, self.da, scratch, self.reverse, n0, stop, lengths, db)
        if n1 > split:  # forward: (r * h') @ W_hn
            gemm.linear_backward_weight(dw, self.hn, self.da, scratch, max(n0, split), n1, lengths, db)


def share_of(flags: Array, there: Array) -> Array:
    """(T,) share of flags (T, B, K) that are set, of those that are there."""
    share: Array = (flags & there).sum(axis=(1, 2)) / (there.sum(axis=(1, 2)) * flags.shape[2])
    return share


CELLS: dict[str, type[Recurrence]] = {"tanh": Tanh, "relu": Relu, "lstm": Lstm, "gru": Gru}


def recurrence_of(cell: str, reset_after: bool) -> type[Recurrence]:
    if not isinstance(cell, str) or cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    return OriginalGru if cell == "gru" and not reset_after else CELLS[cell]
