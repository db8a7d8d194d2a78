# SPDX-License-Identifier: MIT
"""Recurrence: the arrays of one direction of one recurrent layer for a window, and the calls of its cell's kernels.

An entry of the C list (src_c/cells/cells.h) describes each cell: its gates, weights, vectors and arrays. `Recurrence`
works for every such entry; its subclasses, in `crnn.nn.cells`, override what is specific to their cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from crnn import _parallel as parallel
from crnn._core import arrays as kernels
from crnn._core import cells, gemm
from crnn._core.cell_info import CellInfo
from crnn._core.rows import Lengths
from crnn.checks import Array, Ids
from crnn.nn.slices import Slice

Arrays = Mapping[str, Array]

# Of |tanh|: beyond it the slope 1 - tanh^2 is below 0.06, and the slope of the corresponding sigmoid below 0.03.
SATURATED = 0.97


class Recurrence:
    """One direction of a layer over T steps of B rows, with the arrays that the cell's kernels use. Owned by a tape.

    Conventions
    -----------
    The docstring of a subclass states its equations for row vectors: h' and c' are the state of the previous step, xw
    is x @ W_xh + b_h. Gates are blocks of H columns, in the order of ``info.gate_names``. Arrays have the names of the
    fields of the C struct ``crnn_layer`` and the type ``dtype``; S is ``chunk_steps``, G the number of gates. If the
    sequences have lengths, T is 1 and R their sum: arrays are packed.

    Methods are called in this order: pack_forward; forward for each slice of the batch; pack_backward; backward for
    each slice; weight_gradients for each range of columns; finish_gradients.

    Parameters
    ----------
    prefix : str
        Of the parameters' names, such as "layer0.reverse.".
    T, R : int
        The first two axes of arrays: T steps of R = B rows, or 1 and the number of packed rows.
    B, H : int
        Sequences and units.
    dtype : str
    precision : str, optional
        Of the products with W_hh and of its gradient, if not that of ``dtype``.
    reverse : bool
        Run from the last step to the first.
    keep : bool
        Keep what the backward pass needs. If False, `forward` is called for one chunk of at most ``chunk_steps`` steps
        at a time, in the layer's direction, and each chunk overwrites the last one: the arrays then stay in the L2
        cache.
    chunk_steps : int
    """

    cell: ClassVar[str]  # name in the C list
    info: ClassVar[CellInfo]  # entry in the C list
    gates: ClassVar[int]  # G
    has_c: ClassVar[bool]
    has_kinks: ClassVar[bool] = False  # whether the equations have points without a derivative
    difference_step: ClassVar[float] = 1e-3  # of gradient checks

    prefix: str
    T: int
    R: int
    B: int
    H: int
    dtype: str
    precision: str | None
    reverse: bool
    keep: bool
    chunk_steps: int  # S: T with `keep`
    h: Array  # (T, R, H)
    h0: Array  # (B, H), borrowed; set before pack_forward
    c0: Array | None  # (B, H), borrowed; set before pack_forward where the cell has c
    mask: Array | None  # (B, H): dropout of the state
    h_masked: Array | None  # (T, R, H): h * mask
    h0_masked: Array | None  # (B, H): h0 * mask
    weight_mask: Array | None  # (H, gates*H): dropout of W_hh
    _dropped_w: Array | None  # (H, gates*H): W_hh * weight_mask
    _dropped_dw: Array | None  # its gradient
    kept: dict[str, Array]  # `forward`'s, besides h: gates (S, R, G*H); c, tanh_c, hn (S, R, H); scales (S, R, G)
    xw: Array  # (S, R, G*H): x @ W_xh + b_h, written before `forward`
    weights: dict[str, Any]  # packed weights, and vectors (H,)
    keep_dh: bool  # keep the whole gradient at h in `dh` after a backward pass
    overwrite_gates: bool  # the only backward pass follows at once: `da` may overwrite the gates, which are in cache
    # Allocated by pack_backward, empty or None before.
    dh: Array  # (T, R, H)
    da: Array  # (T, R, G*H): gradient at xw
    dh0: Array  # (B, H), borrowed; set before pack_backward
    dc: Array | None  # (B, H), borrowed; set before pack_backward where the cell has c
    dh_masked: Array | None  # (B, H), scratch
    dnormal: Array | None  # (B, G*H), scratch, where the cell has scales
    weights_t: dict[str, gemm.Packed]  # transposed weights
    gradients: dict[str, Array]  # da_h (T, R, G*H), dhn (B, H), and the vectors' gradients by row (B, H)
    _last_chunk_steps: int  # steps of the last call of `forward`

    def __init_subclass__(cls) -> None:
        cls.info = cells.CELLS[cls.cell]
        cls.gates, cls.has_c = cls.info.gates, cls.info.has_c

    def __init__(
        self,
        prefix: str,
        T: int,
        R: int,
        B: int,
        H: int,
        dtype: str,
        *,
        precision: str | None = None,
        reverse: bool,
        keep: bool,
        chunk_steps: int,
    ) -> None:
        info = self.info
        self.prefix, self.T, self.R, self.B, self.H, self.dtype = prefix, T, R, B, H, dtype
        self.precision, self.reverse, self.keep = precision, reverse, keep
        self.chunk_steps = T if keep else min(chunk_steps, T)
        self.h = gemm.aligned_empty((T, R, H), dtype)
        self.h0 = self.dh = self.da = self.dh0 = np.empty(0, dtype)
        self.c0 = self.mask = self.h_masked = self.h0_masked = self.dc = self.dh_masked = self.dnormal = None
        self.weight_mask = self._dropped_w = self._dropped_dw = None
        self.keep_dh = self.overwrite_gates = False
        self.kept, self.weights, self.weights_t, self.gradients = {}, {}, {}, {}
        if "gates" in info.arrays:
            self.kept["gates"] = self._steps(info.gates)
        if info.has_c:
            self.kept["c"] = self._steps()
        if "tanh_c" in info.arrays and keep:
            self.kept["tanh_c"] = self._steps()
        if "hn" in info.arrays:
            self.kept["hn"] = self._steps()
        if "scales" in info.arrays and keep:
            self.kept["scales"] = gemm.aligned_empty((T, R, info.gates), dtype)
        if "gates" in info.arrays:
            self.xw = self.kept["gates"]
        else:
            self.xw = self.h if keep else self._steps(info.gates)
        if info.packed_gates:
            self.weights["w_hh"] = gemm.Packed(H, H, dtype, info.packed_gates, precision)
        if info.recurrent_gates > info.packed_gates:
            self.weights["w_hn"] = gemm.Packed(H, H, dtype, precision=precision)

    def _steps(self, gates: int = 1) -> Array:
        """A new array (S, R, gates*H), not initialised."""
        return gemm.aligned_empty((self.chunk_steps, self.R, gates * self.H), self.dtype)

    @classmethod
    def gate(cls, array: Array, name: str) -> Array:
        """View of a gate's block (..., H) in an array (..., G*H)."""
        H = array.shape[-1] // cls.gates
        block = cls.info.gate_names.index(name) * H
        view: Array = array[..., block : block + H]
        return view

    # ---- parameters -----------------------------------------------------------------------------------------------

    @classmethod
    def initialise_bias(cls, b_h: Array, forget_bias: float) -> None:
        """Set initial values in b_h (G*H,), which is zero on entry."""

    @classmethod
    def initialise_vector(cls, name: str, vector: Array, forget_bias: float) -> None:
        """Set initial values in a vector (H,) of ``info.vectors``, which is zero on entry."""

    def set_mask(self, mask: Array | None) -> None:
        """Set the dropout mask (B, H) of the window: h is multiplied by it before each product with W_hh."""
        self.mask = mask if self.info.recurrent_gates else None
        if self.mask is not None:
            if self.h_masked is None:
                self.h_masked = gemm.aligned_empty(self.h.shape, self.dtype)
            self.h0_masked = self.h0 * self.mask

    def set_weight_mask(self, mask: Array | None, w: Array | None) -> None:
        """Set the mask of W_hh, whose value is ``w``, for the window: products and gradients are those of W_hh * mask.
        """
        self.weight_mask = mask
        if mask is not None and w is not None:
            if self._dropped_w is None:
                self._dropped_w = gemm.aligned_empty(mask.shape, self.dtype)
                self._dropped_dw = gemm.aligned_empty(mask.shape, self.dtype)
            np.multiply(w, mask, out=self._dropped_w)

    def _w_hh(self, values: Arrays) -> Array:
        """W_hh as the products take it, from the network's parameters by name."""
        if self.weight_mask is None:
            return values[self.prefix + "W_hh"]
        assert self._dropped_w is not None
        return self._dropped_w

    def dw_hh(self, grads: Arrays) -> Array:
        """Where `weight_gradients` accumulates the gradient at `_w_hh`. ``grads``: the network's gradients by name."""
        if self.weight_mask is None:
            return grads[self.prefix + "W_hh"]
        assert self._dropped_dw is not None
        return self._dropped_dw

    @property
    def recurrent_inputs(self) -> tuple[Array, Array]:
        """The inputs of the products with W_hh: h (T, B, H) and h0 (B, H), masked if there is a mask."""
        if self.mask is None:
            return self.h, self.h0
        assert self.h_masked is not None
        assert self.h0_masked is not None
        return self.h_masked, self.h0_masked

    # ---- forward --------------------------------------------------------------------------------------------------

    def pack_forward(self, values: Arrays, any_values: bool) -> None:
        """Pack the weights for `forward`. ``values``: the network's parameters by name. ``any_values``: see
        `crnn.nn.inputs.LayerInput`."""
        if "w_hh" in self.weights:
            self.weights["w_hh"].pack(self._w_hh(values), 0, any_values)
        if "w_hn" in self.weights:
            self.weights["w_hn"].pack(self._w_hh(values), self.info.packed_gates * self.H, any_values)
        for name in self.info.vectors:
            self.weights[name] = values[self.prefix + name]

    def forward(self, xw: Array, ids: Ids | None, t0: int, t1: int, part: Slice) -> None:
        """Run steps t0 .. t1-1, packed: 0 .. 1, which are all, for the sequences of ``part``.

        ``xw`` is (t1-t0, R, G*H), or with ``ids`` (t1-t0, R) a table (V, G*H) of which the ids select rows.
        """
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
            # Without `keep`, c0 is a step of the chunk's own memory. The kernel reads it before it is overwritten.
            step = before if self.keep else 0 if self.reverse else self.chunk_steps - 1
            arrays["c0"] = self.kept["c"][step] if inside else self.c0
        if self.mask is not None:
            h_masked, h0_masked = self.recurrent_inputs
            arrays |= {"mask": self.mask, "h_masked": h_masked[t0:t1]}
            arrays["h0_masked"] = h_masked[before] if inside else h0_masked
        cells.forward(self.cell, arrays, part.b0, part.b1, part.lengths, self.reverse)
        self._last_chunk_steps = t1 - t0

    def start_sequences(self, sequences: Array, t1: int) -> None:
        """Of arrays with padding, before steps t0 .. t1-1 in reverse: put the initial state of the sequences that have
        their last step there where `forward` reads the state after step t1, in padding."""
        if not self.reverse or t1 == self.T or not sequences.size:
            return
        self.h[t1, sequences] = self.h0[sequences]
        if self.has_c:
            assert self.c0 is not None
            self.kept["c"][0, sequences] = self.c0[sequences]

    def finish_sequences(self, sequences: Array, t0: int, t1: int, part: Slice, c_after: Array | None) -> None:
        """Of arrays with padding, after steps t0 .. t1-1: copy c of the sequences that have their last step there. The
        next steps overwrite it."""
        if c_after is None or self.reverse or t1 - t0 == self.T or not sequences.size:
            return
        assert part.lengths is not None
        c_after[sequences] = self.kept["c"][part.lengths.lengths[sequences] - 1 - t0, sequences]

    def last_step(self, part: Slice) -> Any:
        """Index into arrays (T, R, H) of each sequence's last step in the layer's direction."""
        return part.first_rows if self.reverse else part.last_rows

    def finish_forward(self, part: Slice, h_after: Array, c_after: Array | None) -> None:
        """Copy the state after the last step into h_after and c_after (B, H)."""
        if part.lengths is None:
            step = 0 if self.reverse else self.T - 1
            kernels.copy_rows(h_after[None], self.h[step : step + 1], part.b0, part.b1)
            if c_after is not None:
                # without `keep`, `kept` holds the last chunk only
                step = step if self.keep or self.reverse else self._last_chunk_steps - 1
                kernels.copy_rows(c_after[None], self.kept["c"][step : step + 1], part.b0, part.b1)
            return
        last = self.last_step(part)
        h_after[part.sequences] = self.h[last]
        if c_after is not None and (self.reverse or not part.padded or self._last_chunk_steps == self.T):
            # otherwise `finish_sequences` has copied it
            c_after[part.sequences] = self.kept["c"][last]

    # ---- backward -------------------------------------------------------------------------------------------------

    def pack_backward(self, values: Arrays) -> None:
        """Pack the transposed weights and prepare the arrays of `backward`."""
        info, H = self.info, self.H
        if not self.dh.size:
            self._allocate_backward()
        if self.weight_mask is not None:
            assert self._dropped_dw is not None
            self._dropped_dw.fill(0)
        self.clear_gradients(0, self.B)
        if "w_hh_t" in self.weights_t:
            self.weights_t["w_hh_t"].pack_transposed(self._w_hh(values), 0, any_values=True)
        if "w_hn_t" in self.weights_t:
            first = info.packed_gates * H
            self.weights_t["w_hn_t"].pack_transposed(self._w_hh(values), first, any_values=True)

    def clear_gradients(self, b0: int, b1: int) -> None:
        """Set the gradients of vectors by row, to which `backward` adds, to 0 in these rows."""
        if "dvectors" in self.info.arrays:
            for name in self.info.vectors:
                kernels.copy_rows(self.gradients["d" + name][None], None, b0, b1)  # a call that programs repeat

    def _allocate_backward(self) -> None:
        """Allocate the arrays that only a backward pass needs."""
        info, H, dh = self.info, self.H, self._steps()
        if "gates" in info.arrays:
            self.da = self.kept["gates"] if self.overwrite_gates else self._steps(self.gates)
        else:
            self.da = self._steps(self.gates) if self.keep_dh or self.gates > 1 else dh
        if "da_h" in info.arrays:
            self.gradients["da_h"] = self._steps(self.gates)
        if "dhn" in info.arrays:
            self.gradients["dhn"] = gemm.aligned_empty((self.B, H), self.dtype)
        if "scales" in info.arrays:
            self.dnormal = gemm.aligned_empty((self.B, self.gates * H), self.dtype)
        if "dvectors" in info.arrays:
            for name in info.vectors:
                self.gradients["d" + name] = gemm.aligned_empty((self.B, H), self.dtype)
        if info.recurrent_gates:
            gates_of_w_hh_t = info.packed_gates if "dhn" in info.arrays else info.recurrent_gates
            self.weights_t["w_hh_t"] = gemm.Packed(gates_of_w_hh_t * H, H, self.dtype, precision=self.precision)
        if "dhn" in info.arrays:
            self.weights_t["w_hn_t"] = gemm.Packed(H, H, self.dtype, precision=self.precision)
        self.dh = dh  # last: an interrupt before it is followed by another allocation

    def add_state_gradient(self, part: Slice, dh_after: Array | None, dc_after: Array | None) -> None:
        """Add the gradient (B, H) at the state after the last step to `dh`, and set `dc`. None is zero."""
        if dh_after is not None and part.lengths is None:
            step = 0 if self.reverse else self.T - 1
            kernels.add_rows(self.dh[step : step + 1], dh_after[None], part.b0, part.b1)
        elif dh_after is not None:
            self.dh[self.last_step(part)] += dh_after[part.sequences]
        if self.dc is not None and part.lengths is None:
            kernels.copy_rows(self.dc[None], None if dc_after is None else dc_after[None], part.b0, part.b1)
        elif self.dc is not None:
            self.dc[part.sequences] = 0 if dc_after is None else dc_after[part.sequences]

    def backward(self, part: Slice) -> None:
        """Backpropagate through all steps of the rows of ``part``.

        On entry `dh` holds the gradient at h from outside the recurrence. `da` and `dh0` (and `dc`, at c0) are
        OVERWRITTEN; with `keep_dh`, `dh` holds the whole gradient at h afterwards.
        """
        arrays: dict[str, Any] = {"h": self.h, "h0": self.h0, "dh": self.dh, "da": self.da, "dh0": self.dh0}
        arrays |= self.kept
        arrays |= self.weights_t
        arrays |= self.gradients
        for name in self.info.vectors:
            arrays[name] = self.weights[name]
        if self.has_c:
            arrays |= {"c0": self.c0, "dc": self.dc}
        if self.dnormal is not None:
            arrays["dnormal"] = self.dnormal
        if self.mask is not None:
            if self.dh_masked is None:
                self.dh_masked = gemm.aligned_empty((self.B, self.H), self.dtype)
            arrays |= {"mask": self.mask, "h_masked": self.h_masked, "h0_masked": self.h0_masked}
            arrays["dh_masked"] = self.dh_masked
        cells.backward(self.cell, arrays, part.b0, part.b1, part.lengths, self.reverse)

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        """dW_hh += sum over t of h'.T @ da and db_h += sum of da, for the columns that belong to ``part``."""
        n0, n1 = parallel.part_range(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        db = grads[self.prefix + "b_h"]
        if not self.info.recurrent_gates:
            gemm.bias_backward(db, self.da, n0, n1, lengths)
            return
        dw, (h, h0) = self.dw_hh(grads), self.recurrent_inputs
        gemm.recurrent_backward_weight(
            dw, h, h0, self.da, scratch, self.reverse, n0, n1, lengths, db, precision=self.precision
        )

    def finish_gradients(self, grads: Arrays, from_initial_state: bool, rows: slice = slice(None)) -> None:
        """Add the gradients that are sums over sequences, of the vectors and of a trainable initial state, and that of
        a W_hh with a mask.

        ``from_initial_state``: the forward pass was given no state, so a trainable initial state was used. ``rows``:
        the sequences.
        """
        if self.weight_mask is not None:  # forward: the weights are W_hh * mask
            grads[self.prefix + "W_hh"][...] += self.dw_hh(grads) * self.weight_mask
        if from_initial_state:
            for name, by_row in (("h0", self.dh0), ("c0", self.dc)):
                if self.prefix + name in grads and by_row is not None:
                    gemm.bias_backward(grads[self.prefix + name], by_row[None, rows], 0, self.H)
        if "dvectors" in self.info.arrays:
            for name in self.info.vectors:
                gemm.bias_backward(grads[self.prefix + name], self.gradients["d" + name][None, rows], 0, self.H)

    # ---- diagnostics ----------------------------------------------------------------------------------------------

    def saturation(self, lengths: Lengths | None) -> Array:
        """Fraction (T,) of the activations whose slope is nearly 0.

        This default counts all gates: the candidate is a tanh, the others are sigmoids.
        """
        squashed = self.kept["gates"].copy()
        for name in self.info.gate_names:
            if name != self.info.gate_names[self.info.candidate]:
                gate = self.gate(squashed, name)
                gate[...] = 2 * gate - 1  # sigmoid(a) = (1 + tanh(a / 2)) / 2
        return fraction_of(np.abs(squashed) > SATURATED, lengths)

    def side_of_kinks(self) -> Array:
        """bool array: the side of the kink (point without a derivative) of every value; empty for smooth cells."""
        return self.h[:0] > 0


def fraction_of(flags: Array, lengths: Lengths | None) -> Array:
    """Fraction (T,) of the flags (T, B, K), or packed, that are set."""
    if lengths is None:
        means: Array = flags.mean(axis=(1, 2))
        return means
    count = (~lengths.padding()).sum(axis=1) * flags.shape[2]
    fraction: Array = lengths.unpack(flags).sum(axis=(1, 2)) / count
    return fraction
