# SPDX-License-Identifier: MIT
"""Peers' recurrent layers with our weights. Gate order of crnn and PyTorch: i, f, g, o and r, z, n; ONNX differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
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

    PyTorch has two biases where one is enough, and trains both. ``one_bias``: of the second, train only what crnn has
    too (a GRU's b_hn), so that the models are the same.
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
            trained = torch.arange(3 * H) >= 2 * H
            second.register_hook(lambda gradient, trained=trained: gradient * trained)
        elif one_bias:
            second.requires_grad_(False)
    return module


def onnx_layer(
    params: Mapping[str, Array], cell: str, x: Array, threads: int, *, carried: bool = False
) -> Callable[[], Any]:
    """One layer in ONNX Runtime with bound buffers; the outputs are ``.numpy()`` of what a call returns.

    ``carried``: each call continues from the state of the previous one, and an output layer in ``params`` is applied.
    """
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    T, B, D = x.shape
    H = len(params["layer0.W_hh"])

    def blocks(gates: Array) -> Array:
        """(..., G*H) as (G*H, ...) in ONNX's order of gates."""
        return np.concatenate([gates[..., g * H : (g + 1) * H] for g in ONNX_GATES[cell]], axis=-1).T

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    biases = params["layer0.b_h"], _second_bias(params, 0, GATES[cell] * H)
    weights = {
        "W": blocks(params["layer0.W_xh"])[None],
        "R": blocks(params["layer0.W_hh"])[None],
        "B": np.concatenate([blocks(bias) for bias in biases])[None],
    }
    options: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
    parts = ["h", "c"][: 1 + (cell == "lstm")] if carried else []
    before, after = [f"{part}0" for part in parts], [f"{part}1" for part in parts]
    nodes = [
        helper.make_node(
            ONNX_NAMES[cell], ["x", "W", "R", "B", *[""] * carried, *before], ["y", *after], hidden_size=H, **options
        )
    ]
    output, shape = "y", (T, 1, B, H)
    if carried and "W_hy" in params:
        weights |= {"W_hy": params["W_hy"], "b_y": params["b_y"]}
        nodes += [helper.make_node("MatMul", ["y", "W_hy"], ["a"]), helper.make_node("Add", ["a", "b_y"], ["logits"])]
        output, shape = "logits", (T, 1, B, len(params["b_y"]))
    graph = helper.make_graph(
        nodes,
        cell,
        [value("x", T, B, D), *(value(name, 1, B, H) for name in before)],
        [value(output, *shape), *(value(name, 1, B, H) for name in after)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
    states = [
        [onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, B, H), np.float32)) for _ in parts] for _ in range(2)
    ]

    def bound(source: int) -> Any:
        binding = session.io_binding()  # no copies in or out
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output(output, y)
        for k in range(len(parts)):
            binding.bind_ortvalue_input(before[k], states[source][k])
            binding.bind_ortvalue_output(after[k], states[1 - source][k])
        return binding

    turns = cycle([bound(0), bound(1)] if carried else [bound(0)])

    def run() -> Any:
        session.run_with_iobinding(next(turns))
        return y

    return run


def _second_bias(params: Mapping[str, Array], layer: int, width: int) -> Array:
    """The bias of the recurrent product: zero except for a GRU's b_hn, the last block."""
    bias = np.zeros(width, np.float32)
    b_hn = params.get(f"layer{layer}.b_hn")
    if b_hn is not None:
        bias[-len(b_hn) :] = b_hn
    return bias
