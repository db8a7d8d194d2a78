# SPDX-License-Identifier: MIT
"""How other formats store the weights of a cell: the order of the gates, the shape of the matrices, the biases.

A cell's gates are blocks of H columns or rows. They are named by the letters of
`crnn._core.cell_info.CellInfo.gate_names`: LSTM i, f, g (the candidate), o; GRU r (reset), z (update), n (the
candidate); tanh and relu h. In all formats of the table z weighs the previous state, h = (1 - z) * n + z * h'.

A format has one bias for each column, or two: that of x W_xh and that of h' W_hh. They are added, except in the block n
of a GRU whose reset comes after the product, n = tanh(x W_xn + b_n + r * (h' W_hn + b_hn)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from crnn.checks import Array
from crnn.io.model_file import check_finite
from crnn.nn.cells import CELLS


@dataclass(frozen=True)
class Layout:
    """A format's way to store the cells that it has."""

    gates: Mapping[str, str]  # by cell: the letters of the gates, in the order of the format's blocks
    rows: bool  # the matrices are (G*H, D) and (G*H, H); otherwise (D, G*H) and (H, G*H)
    two_biases: frozenset[str] = field(default_factory=frozenset)  # the cells with a second bias, that of h' W_hh


_PLAIN = {"tanh": "h", "relu": "h"}
# The table of gate orders. Sources: the reference of torch.nn.LSTM and torch.nn.GRU; ONNX operators LSTM, GRU, RNN
# (iofc, zrh; linear_before_reset=1 is "gru", 0 is "original_gru"); Keras layers LSTM (i, f, c, o), GRU (z, r, h;
# reset_after=True is "gru", False is "original_gru"), SimpleRNN. RTNeural's files hold Keras's arrays, GuitarML's those
# of PyTorch. NAM's hold those of PyTorch with W_xh and W_hh side by side and the sum of the biases.
LAYOUTS: dict[str, Layout] = {
    "torch": Layout(
        {**_PLAIN, "lstm": "ifgo", "gru": "rzn"}, rows=True, two_biases=frozenset({"tanh", "relu", "lstm", "gru"})
    ),
    "onnx": Layout(
        {**_PLAIN, "lstm": "iofg", "gru": "zrn", "original_gru": "zrn"},
        rows=True,
        two_biases=frozenset({"tanh", "relu", "lstm", "gru", "original_gru"}),
    ),
    "keras": Layout(
        {**_PLAIN, "lstm": "ifgo", "gru": "zrn", "original_gru": "zrn"}, rows=False, two_biases=frozenset({"gru"})
    ),
    "rtneural": Layout({"lstm": "ifgo", "gru": "zrn"}, rows=False, two_biases=frozenset({"gru"})),
    "nam": Layout({"lstm": "ifgo"}, rows=True),
}


def check_cell(format: str, cell: str) -> None:
    """Raise ValueError unless the format has the cell."""
    if cell not in LAYOUTS[format].gates:
        raise ValueError(f"cell: expected one of {', '.join(LAYOUTS[format].gates)}, which {format} has, got {cell!r}")


def to_crnn(
    format: str,
    cell: str,
    W_xh: Array,
    W_hh: Array,
    b_h: Array | None = None,
    recurrent_bias: Array | None = None,
    *,
    prefix: str = "",
) -> dict[str, Array]:
    """The parameters of one direction of a layer by crnn's names, without a prefix; fresh.

    Parameters
    ----------
    format, cell : str
        The format has the cell, see `LAYOUTS`.
    W_xh, W_hh : array
        (G*H, D) and (G*H, H) if the format stores rows, otherwise (D, G*H) and (H, G*H). The shapes fit.
    b_h, recurrent_bias : array (G*H,), optional
        The bias, or the bias of x W_xh and that of h' W_hh. None: zeros.
    prefix : str
        Before the names in errors, such as ``"layer0."``.

    Raises
    ------
    ValueError
        A value or a sum of two biases is not finite; the message names it.
    """
    layout, info = LAYOUTS[format], CELLS[cell].info
    order = _order(layout.gates[cell], info.gate_names)
    W_xh, W_hh = (W_xh.T, W_hh.T) if layout.rows else (W_xh, W_hh)
    zeros = np.full(W_xh.shape[1], -0.0, W_xh.dtype)
    biases = [_blocks(zeros if bias is None else bias, order) for bias in (b_h, recurrent_bias)]
    params = {"W_xh": _blocks(W_xh, order), "W_hh": _blocks(W_hh, order)}
    recurrent = biases[1]
    if "b_hn" in info.vectors:
        H = W_hh.shape[0]
        params["b_hn"] = recurrent[-H:].copy()  # n is the last of crnn's blocks
        recurrent[-H:] = -0.0  # to which any number is added without a change, -0.0 too
    with np.errstate(over="ignore"):
        params["b_h"] = biases[0] + recurrent
    check_finite({prefix + name: values for name, values in params.items()})
    return {name: params[name] for name in ("W_xh", "W_hh", "b_h", *info.vectors)}


def from_crnn(format: str, cell: str, params: Mapping[str, Array]) -> tuple[Array, Array, Array, Array | None]:
    """The reverse of `to_crnn`: W_xh, W_hh, the bias, and the second bias if the format has one; fresh, C-contiguous.

    No value is rounded: the second bias is 0 except for a GRU's b_hn.
    """
    layout, info = LAYOUTS[format], CELLS[cell].info
    order = _order(info.gate_names, layout.gates[cell])
    matrices = [_blocks(params[name], order) for name in ("W_xh", "W_hh")]
    W_xh, W_hh = (np.array(matrix.T if layout.rows else matrix, order="C") for matrix in matrices)
    recurrent = None
    if cell in layout.two_biases:
        recurrent = np.full_like(params["b_h"], -0.0)  # see `to_crnn`
        if "b_hn" in info.vectors:
            recurrent[-len(params["b_hn"]) :] = params["b_hn"]
            recurrent = _blocks(recurrent, order)
    return W_xh, W_hh, _blocks(params["b_h"], order), recurrent


def _order(from_gates: str, to_gates: str) -> list[int]:
    """For each block of ``to_gates`` the position of its gate in ``from_gates``."""
    return [from_gates.index(gate) for gate in to_gates]


def _blocks(array: Array, order: list[int]) -> Array:
    """An array (..., G*H) with its blocks of columns in this order; fresh."""
    blocks = array.reshape(*array.shape[:-1], len(order), -1)
    return np.ascontiguousarray(blocks[..., order, :]).reshape(array.shape)
