# SPDX-License-Identifier: MIT
"""Peers' recurrent layers with our weights. Gates: ours and PyTorch's lie i, f, g, o and r, z, n; ONNX's others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GATES = {"tanh": 1, "gru": 3, "lstm": 4}
TORCH_NAMES = {"tanh": "RNN", "gru": "GRU", "lstm": "LSTM"}
ONNX_NAMES = {"tanh": "RNN", "gru": "GRU", "lstm": "LSTM"}
ONNX_GATES = {"tanh": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}  # z, r, n and i, o, f, g


def torch_layers(params: Mapping[str, Array], cell: str, *, one_bias: bool = False) -> Any:
    """`torch.nn.RNN`, `GRU` or `LSTM` of all the layers in ``params``.

    PyTorch adds two biases where one does, and by default learns both. ``one_bias``: the second learns only what ours
    has too, a GRU's b_hn, so that training is the same.
    """
    import torch

    layers = sum(name.endswith(".W_hh") for name in params)
    D, H = len(params["layer0.W_xh"]), len(params["layer0.W_hh"])
    module: Any = getattr(torch.nn, TORCH_NAMES[cell])(D, H, layers)
    for k in range(layers):
        second: Any = getattr(module, f"bias_hh_l{k}")
        with torch.no_grad():
            getattr(module, f"weight_ih_l{k}").copy_(torch.from_numpy(params[f"layer{k}.W_xh"].T))
            getattr(module, f"weight_hh_l{k}").copy_(torch.from_numpy(params[f"layer{k}.W_hh"].T))
            getattr(module, f"bias_ih_l{k}").copy_(torch.from_numpy(params[f"layer{k}.b_h"]))
            second.copy_(torch.from_numpy(_second_bias(params, k, GATES[cell] * H)))
        if one_bias and cell == "gru":
            learnt = torch.arange(3 * H) >= 2 * H
            second.register_hook(lambda gradient, learnt=learnt: gradient * learnt)
        elif one_bias:
            second.requires_grad_(False)
    return module


def onnx_layer(params: Mapping[str, Array], cell: str, x: Array, threads: int) -> Callable[[], Any]:
    """One layer in ONNX Runtime, all its buffers bound; what it returns has the outputs in ``.numpy()``."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    T, B, D = x.shape
    H = len(params["layer0.W_hh"])

    def blocks(gates: Array) -> Array:
        """(..., G*H) as ONNX wants it: (G*H, ...) in its own order of gates."""
        return np.concatenate([gates[..., g * H : (g + 1) * H] for g in ONNX_GATES[cell]], axis=-1).T

    biases = params["layer0.b_h"], _second_bias(params, 0, GATES[cell] * H)
    weights = {
        "W": blocks(params["layer0.W_xh"])[None],
        "R": blocks(params["layer0.W_hh"])[None],
        "B": np.concatenate([blocks(bias) for bias in biases])[None],
    }
    options: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
    graph = helper.make_graph(
        [helper.make_node(ONNX_NAMES[cell], ["x", "W", "R", "B"], ["y"], hidden_size=H, **options)],
        cell,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, B, D])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, B, H])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    binding = session.io_binding()  # no copies in or out
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((T, 1, B, H), np.float32))
    binding.bind_ortvalue_output("y", y)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return y

    return run


def _second_bias(params: Mapping[str, Array], layer: int, width: int) -> Array:
    """Inside the recurrent product: zero but for a GRU's b_hn, the last block."""
    bias = np.zeros(width, np.float32)
    b_hn = params.get(f"layer{layer}.b_hn")
    if b_hn is not None:
        bias[-len(b_hn) :] = b_hn
    return bias
