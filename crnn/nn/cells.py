# SPDX-License-Identifier: MIT
"""The cells: the equations of each, and what is specific to it. CELLS lists them by name.

Arrays and kernel calls, which all cells share, are those of `crnn.nn.recurrence.Recurrence`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from crnn import _parallel as parallel
from crnn._core import arrays as kernels
from crnn._core import cells, gemm
from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.nn.recurrence import SATURATED, Arrays, Recurrence, fraction_of


class Tanh(Recurrence):
    """h = tanh( xw + h' @ W_hh ). Elman 1990."""

    cell = "tanh"

    def saturation(self, lengths: Lengths | None) -> Array:
        """Fraction (T,) of the units with |h| > SATURATED."""
        return fraction_of(np.abs(self.h) > SATURATED, lengths)


class Relu(Recurrence):
    """h = max( xw + h' @ W_hh, 0 ). Le, Jaitly, Hinton 2015."""

    cell = "relu"
    has_kinks = True

    def saturation(self, lengths: Lengths | None) -> Array:
        """Fraction (T,) of the units that are 0."""
        return fraction_of(self.h <= 0, lengths)

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
    db: Array  # (G*H,), scratch

    def _allocate_backward(self) -> None:
        super()._allocate_backward()
        self.db = gemm.aligned_empty((self.gates * self.H,), self.dtype)

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        n0, n1 = parallel.part_range(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        gemm.bias_backward(grads[self.prefix + "b_h"], self.da, n0, n1, lengths)
        # forward: h' @ W_hh, plus b_hn in block n, so db_hn is the sum of block n of da_h
        db = self.db
        kernels.copy_rows(db[None, None], None, 0, 1, n0, 0, n1 - n0)
        dw, (h, h0) = self.dw_hh(grads), self.recurrent_inputs
        da_h = self.gradients["da_h"]
        gemm.recurrent_backward_weight(
            dw, h, h0, da_h, scratch, self.reverse, n0, n1, lengths, db, precision=self.precision
        )
        n0 = max(n0, 2 * self.H)
        if n0 < n1:
            db_hn = grads[self.prefix + "b_hn"][None, None]
            kernels.add_rows(db_hn, db[None, None], 0, 1, n0 - 2 * self.H, n0, n1 - n0)


class OriginalGru(Recurrence):
    """r, z = sigmoid( xw + h' @ W_hh );  n = tanh( xw + (r * h') @ W_hn );  h = (1 - z) * n + z * h'.

    The original GRU: the reset gate r acts before the product. Cho et al. 2014; ONNX's default.
    """

    cell = "original_gru"

    def weight_gradients(self, grads: Arrays, scratch: Array, part: int, parts: int, lengths: Lengths | None) -> None:
        n0, n1 = parallel.part_range(self.gates * self.H, part, parts, gemm.line_width(self.dtype))
        dw, db = self.dw_hh(grads), grads[self.prefix + "b_h"]
        (h, h0), rz, precision = self.recurrent_inputs, 2 * self.H, self.precision  # columns of r and z
        if n0 < rz:
            stop = min(n1, rz)
            gemm.recurrent_backward_weight(
                dw, h, h0, self.da, scratch, self.reverse, n0, stop, lengths, db, precision=precision
            )
        if n1 > rz:  # forward: (r * h') @ W_hn
            gemm.linear_backward_weight(
                dw, self.kept["hn"], self.da, scratch, max(n0, rz), n1, lengths, db, precision=precision
            )


class MinGru(Recurrence):
    """z = sigmoid( xw );  n = g( xw ), g(a) = a + 0.5 for a >= 0, else sigmoid(a);  h = (1 - z) * h' + z * n.

    The minimal GRU: gate and candidate depend on the input alone, so there is no W_hh, and the one product is done for
    all steps at once. Feng et al. 2024 (arXiv 2410.01201).
    """

    cell = "min_gru"
    has_kinks = True

    def saturation(self, lengths: Lengths | None) -> Array:
        """Fraction (T,) of the gates z whose slope is nearly 0."""
        return fraction_of(np.abs(2 * self.gate(self.kept["gates"], "z") - 1) > SATURATED, lengths)

    def side_of_kinks(self) -> Array:
        return self.gate(self.kept["gates"], "n") >= 0.5


class LnLstm(Recurrence):
    """i, f, g, o = gain * norm(xw + h' @ W_hh) + bias;  c = s(f) * c' + min(s(i), 1 - s(f)) * tanh(g);  h = s(o) * c.

    norm(a) = (a - mean) / sqrt(variance + 1e-5) over the units of each gate, which has vectors gain and bias; s is the
    sigmoid. h and c stay in [-1, 1]. Bellard's NNCP, 2019; layer normalisation: Ba, Kiros, Hinton 2016.
    """

    cell = "ln_lstm"
    has_kinks = True
    difference_step: ClassVar[float] = 1e-4  # units that differ little are scaled up

    @classmethod
    def initialise_vector(cls, name: str, vector: Array, forget_bias: float) -> None:
        if name.startswith("gain"):
            vector[...] = 1
        elif name == "bias_f":
            vector[...] = forget_bias

    def _before_activation(self, name: str) -> Array:
        """gain * n(a) + bias of a gate."""
        z: Array = self.gate(self.kept["gates"], name) * self.weights["gain_" + name]
        z += self.weights["bias_" + name]
        return z

    def saturation(self, lengths: Lengths | None) -> Array:
        squashed = [np.tanh(self._before_activation(name) * (1 if name == "g" else 0.5)) for name in "ifgo"]
        return fraction_of(np.abs(np.concatenate(squashed, axis=2)) > SATURATED, lengths)

    def side_of_kinks(self) -> Array:
        return self._before_activation("i") > -self._before_activation("f")  # i > 1 - f


CELLS: dict[str, type[Recurrence]] = {
    cls.cell: cls for cls in (Tanh, Relu, Lstm, Gru, OriginalGru, MinGru, LnLstm)
}


def equations(indent: int) -> str:
    """The equations of all cells, as their docstrings state them; for the docstring of `crnn.RNN`."""
    margin, lines = " " * indent, list[str]()
    for name, cls in CELLS.items():
        stated = (cls.__doc__ or "").partition("\n")[0].partition(". ")[0].rstrip(".")
        start = f"{margin}{name:<14} "
        for equation in stated.split(";  "):
            if lines and not start.strip() and len(lines[-1]) + len(equation) < 110:
                lines[-1] += ";  " + equation
            else:
                lines.append(start + equation)
            start = " " * len(start)
    return "\n".join(lines)


def check_cell(name: str, value: Any) -> str:
    """Return ``value`` if it is a name in CELLS. Raises ValueError, which calls it ``name``."""
    if not isinstance(value, str) or value not in CELLS:
        raise ValueError(f"{name}: expected one of {', '.join(CELLS)}, got {value!r}")
    return str(value)  # not numpy.str_


def cell_parameters(cell: str, K: int, H: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one direction's parameters, in the order of the flat buffer. K is the size of its input."""
    info = cells.CELLS[cell]
    shapes: dict[str, tuple[int, ...]] = {"W_xh": (K, info.gates * H)}
    if info.recurrent_gates:
        shapes["W_hh"] = (H, info.recurrent_gates * H)
    shapes["b_h"] = (info.gates * H,)
    return shapes | dict.fromkeys(info.vectors, (H,))
