# SPDX-License-Identifier: MIT
"""STEPS: for each cell for which ONNX has no operator, how the nodes of a step are written, the body of a Scan.

A step takes the builder, the layer's prefix and parameters, the names of the state before it, of x W_xh + b_h (B, G*H),
and, if sequences end at different steps, of a bool (B, 1): which have this step. It returns those of the new state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from crnn.checks import Array
from crnn.interop.onnx.builder import Builder
from crnn.nn.cells import CELLS


def ln_lstm_step(
    g: Builder, prefix: str, params: Mapping[str, Array], h: str, c: str, xw: str, mask: str = ""
) -> tuple[str, str]:
    """See `crnn.nn.cells.LnLstm`."""
    names = CELLS["ln_lstm"].info.gate_names

    def vectors(name: str) -> str:
        """Those of all gates, (G, H)."""
        parts = [g.array(f"{prefix}{name}_{gate}", params[f"{name}_{gate}"]) for gate in names]
        return g.concat([g.unsqueeze(part, 0) for part in parts], 0)

    product = g.op("Add", xw, g.op("MatMul", h, g.array(prefix + "W_hh", params["W_hh"])))
    blocks = g.reshape(product, [0, len(names), -1])
    centred = g.op("Sub", blocks, g.mean(blocks))
    variance = g.op("Add", g.mean(g.op("Mul", centred, centred)), g.constant(np.array(1e-5, g.dtype)))
    normal = g.op("Div", centred, g.op("Sqrt", variance))
    scaled = g.op("Add", g.op("Mul", normal, vectors("gain")), vectors("bias"))
    gates = (g.op("Gather", scaled, g.constant(np.array(names.index(gate))), axis=1) for gate in "ifog")
    i, f, o = (g.op("Sigmoid", next(gates)) for _ in range(3))
    shut = g.op("Sub", g.constant(np.ones((), g.dtype)), f)
    new_c = g.op("Add", g.op("Mul", f, c), g.op("Mul", g.op("Min", i, shut), g.op("Tanh", next(gates))))
    new_h = g.op("Mul", o, new_c)
    if not mask:
        return new_h, new_c
    return g.op("Where", mask, new_h, h), g.op("Where", mask, new_c, c)


STEPS: dict[str, Callable[..., Sequence[str]]] = {"ln_lstm": ln_lstm_step}
