# SPDX-License-Identifier: MIT
"""The cells: what one direction of one recurrent layer keeps for a window, and how its kernels are called.

A cell is described by its entry in the C list (src_c/cells/cells.h): gates, weights, vectors, arrays. `Recurrence`
works for any such entry; a class of this module adds the equations, and what only its cell does. CELLS lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from crnn import _parallel as parallel
from crnn._core import cells, gemm
from crnn._core.cell_info import CellInfo
from crnn._core.rows import Lengths
from crnn.checks import Array, Ids

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


class Recurrence:
    """One direction of a layer over T steps of B rows, with the arrays of the cell's kernels; belongs to a tape.

    Call order: pack_forward, forward for each slice of the batch; pack_backward, backward for each slice,
    weight_gradients for each share of columns, finish_gradients. A cell's class states its equations for row vectors:
    h', c' are the state of the step before, xw is x @ W_xh + b_h, gates lie in blocks of H columns in the order of
    ``info.gate_names``.

    ``keep``: keep what the backward pass needs. Otherwise only ``span`` steps at a time are kept, in arrays that stay
    in the second cache; a forward pass then takes steps t0 .. t1 with t1 - t0 <= span, in the layer's direction.
    """

    cell: ClassVar[str]  # its name in the C list
    info: ClassVar[CellInfo]  # its entry there
    gates: ClassVar[int]
    has_c: ClassVar[bool]
    has_kinks: ClassVar[bool] = False  # whether its equations have points without a derivative

    def __init_subclass__(cls) -> None:
        cls.info = cells.CELLS[cls.cell]
        cls.gates, cls.has_c = cls.info.gates, cls.info.has_c

    def __init__(
        self, prefix: str, T: int, B: int, H: int, dtype: str, *, reverse: bool, keep: bool, span: int
    ) -> None:
        info = self.info
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
        # What forward writes for `span` steps, besides h. Named as in the C struct crnn_layer, as all arrays below.
        self.kept: dict[str, Array] = {}
        if "gates" in info.arrays:
            self.kept["gates"] = self._steps(info.gates)
        if info.has_c:
            self.kept["c"] = self._steps()
        if "tanh_c" in info.arrays and keep:
            self.kept["tanh_c"] = self._steps()
        if "hn" in info.arrays:
            self.kept["hn"] = self._steps()
        if "gates" in info.arrays:
            self.xw = self.kept["gates"]  # (span, B, G*H): where x @ W_xh + b_h goes before `forward`
        else:
            self.xw = self.h if keep else self._steps(info.gates)
        self.weights: dict[str, Any] = {}  # packed weights, and vectors
        if info.packed_gates:
            self.weights["w_hh"] = gemm.Packed(H, H, dtype, info.packed_gates)
        if info.recurrent_gates > info.packed_gates:
            self.weights["w_hn"] = gemm.Packed(H, H, dtype)
        # Only a backward pass makes these.
        self.dh: Array = self.h[:0]
        self.da: Array = self.h[:0]
        self.dh0: Array = self.h[:0]  # (B, H), given before pack_backward
        self.dc: Array | None = None  # likewise, where the cell has one
        self.dh_masked: Array | None = None
        self.weights_t: dict[str, gemm.Packed] = {}
        self.gradients: dict[str, Array] = {}  # da_h, dhn and the vectors' gradients by row

    def _steps(self, gates: int = 1) -> Array:
        """Memory for the steps that are worked on at a time."""
        return gemm.aligned_empty((self.span, self.B, gates * self.H), self.dtype)

    @classmethod
    def gate(cls, array: Array, name: str) -> Array:
        """The block (..., H) of a gate in an array (..., G*H): a view."""
        H = array.shape[-1] // cls.gates
        block = cls.info.gate_names.index(name) * H
        view: Array = array[..., block : block + H]
        return view

    # ---- parameters -----------------------------------------------------------------------------------------------

    @classmethod
    def initialise_bias(cls, b_h: Array, forget_bias: float) -> None:
        """Initial values of b_h (G*H,), which is zero."""

    def take_mask(self, mask: Array | None) -> None:
        """Dropout for the window: h is multiplied by ``mask`` (B, H) before it enters a product with W_hh."""
        self.mask = mask if self.info.recurrent_gates else None
        if self.mask is not None:
            if self.h_masked is None:
                self.h_masked = gemm.aligned_empty(self.h.shape, self.dtype)
            self.h0_masked = self.h0 * self.mask

    @property
    def recurring(self) -> tuple[Array, Array]:
        """What enters the products with W_hh: h and h0, through the mask if there is one."""
        if self.mask is None:
            return self.h, self.h0
        assert self.h_masked is not None
        assert self.h0_masked is not None
        return self.h_masked, self.h0_masked

    # ---- forward --------------------------------------------------------------------------------------------------

    def pack_forward(self, values: Arrays) -> None:
        if "w_hh" in self.weights:
            self.weights["w_hh"].pack(values[self.prefix + "W_hh"], 0)
        if "w_hn" in self.weights:
            self.weights["w_hn"].pack(values[self.prefix + "W_hh"], self.info.packed_gates * self.H)
        for name in self.info.vectors:
            self.weights[name] = values[self.prefix + name]

    def forward(self, xw: Array, ids: Ids | None, t0: int, t1: int, part: Slice) -> None:
        """Steps t0 .. t1: xw is the array `xw`, or with ids a table of rows."""
        before = t1 if self.reverse else t0 - 1
        inside = 0 <= before < self.T
        arrays: dict[str, Any] = {"xw": xw, "ids": ids, "h0": self.h[before] if inside else self.h0}
        if t1 - t0 == self.T:
            arrays |= self.kept
            arrays["h"] = self.h
        else:
            local = slice(t0, t1) if self.keep else slice(t1 - t0)
            arrays |= {name: array[local] for name, array in self.kept.items()}
            arrays["h"] = self.h[t0:t1]
        arrays |= self.weights
        if self.has_c:
            # Where steps are not kept c0 is a step of the same memory: read before it is written over.
            step = before if self.keep else 0 if self.reverse else self.span - 1
            arrays["c0"] = self.kept["c"][step] if inside else self.c0
        if self.mask is not None:
            h_masked, h0_masked = self.recurring
            arrays |= {"mask": self.mask, "h_masked": h_masked[t0:t1]}
            arrays["h0_masked"] = h_masked[before] if inside else h0_masked
        cells.forward(self.cell, arrays, part.b0, part.b1, part.lengths, self.reverse)
        self._steps_done = t1 - t0

    def last_step(self, part: Slice) -> Any:
        """Index of the last step in the layer's direction, and of the rows, into arrays (T, B, H)."""
        if self.reverse or part.lengths is None:
            return (0 if self.reverse else -1), part.rows
        return part.lengths.lengths[part.rows] - 1, part.rows

    def finish_forward(self, part: Slice, h_after: Array, c_after: Array | None) -> None:
        """The state after the last step."""
        last = self.last_step(part)
        h_after[part.rows] = self.h[last]
        if c_after is not None:
            if not (self.keep or self.reverse or part.lengths is not None):
                last = self._steps_done - 1, part.rows  # in what the last span of steps left
            c_after[part.rows] = self.kept["c"][last]

    # ---- backward -------------------------------------------------------------------------------------------------

    def pack_backward(self, values: Arrays) -> None:
        info, H = self.info, self.H
        if not self.dh.size:
            self.dh = self._steps()
            if "gates" in info.arrays:
                self.da = self.kept["gates"] if self.once else self._steps(self.gates)
            else:
                self.da = self._steps(self.gates) if self.keep_dh or self.gates > 1 else self.dh
            if "da_h" in info.arrays:
                self.gradients["da_h"] = self._steps(self.gates)
            if "dhn" in info.arrays:
                self.gradients["dhn"] = gemm.aligned_empty((self.B, H), self.dtype)
            if "dvectors" in info.arrays:
                for name in info.vectors:
                    self.gradients["d" + name] = gemm.aligned_empty((self.B, H), self.dtype)
            if info.recurrent_gates:
                together = info.packed_gates if "dhn" in info.arrays else info.recurrent_gates
                self.weights_t["w_hh_t"] = gemm.Packed(together * H, H, self.dtype)
            if "dhn" in info.arrays:
                self.weights_t["w_hn_t"] = gemm.Packed(H, H, self.dtype)
        if "dvectors" in info.arrays:
            for name in info.vectors:
                self.gradients["d" + name].fill(0)
        if "w_hh_t" in self.weights_t:
            self.weights_t["w_hh_t"].pack_transposed(values[self.prefix + "W_hh"], 0)
        if "w_hn_t" in self.weights_t:
            self.weights_t["w_hn_t"].pack_transposed(values[self.prefix + "W_hh"], info.packed_gates * H)

    def add_state_gradient(self, part: Slice, dh_after: Array | None, dc_after: Array | None) -> None:
        """The gradient at the state after the last step is added to what arrives at h."""
        if dh_after is not None:
            self.dh[self.last_step(part)] += dh_after[part.rows]
        if self.dc is not None:
            self.dc[part.rows] = 0 if dc_after is None else dc_after[part.rows]

    def backward(self, part: Slice) -> None:
        """dh holds what arrives at h; leaves da and dh0, and in dh, if `keep_dh` is set, the whole gradient at h."""
        arrays: dict[str, Any] = {"h": self.h, "h0": self.h0, "dh": self.dh, "da": self.da, "dh0": self.dh0}
        arrays |= self.kept
        arrays |= self.weights_t
        arrays |= self.gradients
        for name in self.info.vectors:
            arrays[name] = self.weights[name]
        if self.has_c:
            arrays |= {"c0": self.c0, "dc": self.dc}
        if self.mask is not None:
            if self.dh_masked is None:
                self.dh_masked = gemm.aligned_empty((self.B, self.H), self.dtype)
            arrays |= {"mask": self.mask, "h_masked": self.h_masked, "h0_masked": self.h0_masked}
            arrays["dh_masked"] = self.dh_masked
        cells.backward(self.cell, arrays, part.b0, part.b1, part.lengths, self.reverse)

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        """This part's columns of dW_hh += sum over t of h'.T @ da and of db_h += sum of da."""
        n0, n1 = parallel.share(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        db = grads[self.prefix + "b_h"]
        if not self.info.recurrent_gates:
            gemm.bias_backward(db, self.da, n0, n1, lengths)
            return
        dw, (h, h0) = grads[self.prefix + "W_hh"], self.recurring
        gemm.recurrent_backward_weight(dw, h, h0, self.da, scratch, self.reverse, n0, n1, lengths, db)

    def finish_gradients(self, grads: Arrays, from_start: bool) -> None:
        """What goes over all rows. ``from_start``: a trainable initial state was used, if there is one."""
        if from_start:
            for name, by_row in (("h0", self.dh0), ("c0", self.dc)):
                if self.prefix + name in grads and by_row is not None:
                    gemm.bias_backward(grads[self.prefix + name], by_row[None], 0, self.H)
        if "dvectors" in self.info.arrays:
            for name in self.info.vectors:
                gemm.bias_backward(grads[self.prefix + name], self.gradients["d" + name][None], 0, self.H)

    # ---- diagnostics ----------------------------------------------------------------------------------------------

    def saturation(self, there: Array) -> Array:
        """(T,) share of the activations whose slope is nearly 0, at the steps that are ``there``: bool (T, B, 1).

        Here of all gates: the candidate a tanh, the others sigmoids."""
        squashed = np.where(there, self.kept["gates"], 0)  # elsewhere is what memory held before
        for name in self.info.gate_names:
            if name != self.info.gate_names[self.info.candidate]:
                gate = self.gate(squashed, name)
                gate[...] = 2 * gate - 1  # a sigmoid as the tanh of half its argument
        return share_of(np.abs(squashed) > SATURATED, there)

    def side_of_kinks(self) -> Array:
        """bool: on which side of the points without a derivative every value is; empty for smooth cells."""
        return self.h[:0] > 0


class Tanh(Recurrence):
    """h = tanh( xw + h' @ W_hh ). Elman 1990."""

    cell = "tanh"

    def saturation(self, there: Array) -> Array:
        return share_of(np.abs(self.h) > SATURATED, there)


class Relu(Recurrence):
    """h = max( xw + h' @ W_hh, 0 ). Le, Jaitly, Hinton 2015."""

    cell = "relu"
    has_kinks = True

    def saturation(self, there: Array) -> Array:
        return share_of(self.h <= 0, there)

    def side_of_kinks(self) -> Array:
        return self.h > 0


class Lstm(Recurrence):
    """i, f, o = sigmoid( xw + h' @ W_hh );  g = tanh( xw + h' @ W_hh );  c = f * c' + i * g;  h = o * tanh(c).

    Hochreiter, Schmidhuber 1997; Gers et al. 2000.
    """

    cell = "lstm"

    @classmethod
    def initialise_bias(cls, b_h: Array, forget_bias: float) -> None:
        cls.gate(b_h, "f")[...] = forget_bias


class Gru(Recurrence):
    """r, z = sigmoid( xw + h' @ W_hh );  n = tanh( xw + r * (h' @ W_hn + b_hn) );  h = (1 - z) * n + z * h'.

    As in PyTorch and cuDNN: the reset gate r acts on the product.
    """

    cell = "gru"

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        n0, n1 = parallel.share(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        gemm.bias_backward(grads[self.prefix + "b_h"], self.da, n0, n1, lengths)
        # forward: h' @ W_hh, in block n + b_hn, so db_hn is the sum of da_h's block n
        db = np.zeros(self.gates * self.H, self.dtype)
        dw, (h, h0) = grads[self.prefix + "W_hh"], self.recurring
        da_h = self.gradients["da_h"]
        gemm.recurrent_backward_weight(dw, h, h0, da_h, scratch, self.reverse, n0, n1, lengths, db)
        n0 = max(n0, 2 * self.H)
        if n0 < n1:
            grads[self.prefix + "b_hn"][n0 - 2 * self.H : n1 - 2 * self.H] += db[n0:n1]


class OriginalGru(Recurrence):
    """r, z = sigmoid( xw + h' @ W_hh );  n = tanh( xw + (r * h') @ W_hn );  h = (1 - z) * n + z * h'.

    The original GRU: the reset gate r acts before the product. Cho et al. 2014; ONNX's default.
    """

    cell = "original_gru"

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        n0, n1 = parallel.share(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        dw, db = grads[self.prefix + "W_hh"], grads[self.prefix + "b_h"]
        (h, h0), rz = self.recurring, 2 * self.H  # columns of r and z
        if n0 < rz:
            stop = min(n1, rz)
            gemm.recurrent_backward_weight(dw, h, h0, self.da, scratch, self.reverse, n0, stop, lengths, db)
        if n1 > rz:  # forward: (r * h') @ W_hn
            gemm.linear_backward_weight(dw, self.kept["hn"], self.da, scratch, max(n0, rz), n1, lengths, db)


CELLS: dict[str, type[Recurrence]] = {cls.cell: cls for cls in (Tanh, Relu, Lstm, Gru, OriginalGru)}


def share_of(flags: Array, there: Array) -> Array:
    """(T,) share of flags (T, B, K) that are set, of those that are there."""
    share: Array = (flags & there).sum(axis=(1, 2)) / (there.sum(axis=(1, 2)) * flags.shape[2])
    return share


def check_cell(name: str, value: Any) -> str:
    """A name in CELLS."""
    if not isinstance(value, str) or value not in CELLS:
        raise ValueError(f"{name}: expected one of {', '.join(CELLS)}, got {value!r}")
    return value


def cell_parameters(cell: str, K: int, H: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one direction's parameters, in their order in the flat buffer; K: size of the input."""
    info = cells.CELLS[cell]
    shapes: dict[str, tuple[int, ...]] = {"W_xh": (K, info.gates * H)}
    if info.recurrent_gates:
        shapes["W_hh"] = (H, info.recurrent_gates * H)
    shapes["b_h"] = (info.gates * H,)
    return shapes | dict.fromkeys(info.vectors, (H,))
