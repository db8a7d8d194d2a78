# SPDX-License-Identifier: MIT
"""Our weights as an ONNX graph, and the libraries that run it with bound buffers: ONNX Runtime and OpenVINO.

A run returns the output, of which ``np.asarray(y)`` or ``y.numpy()`` gives the values; the next run may overwrite it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.layers import GATES, TORCH_NAMES, second_bias

Array = NDArray[Any]
Run = Callable[[], Any]

ONNX_GATES = {"tanh": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}  # z, r, n and i, o, f, g


@dataclass(frozen=True)
class Graph:
    """An ONNX model of a stack of layers, and of the output layer if the parameters have one.

    ``states``: names of the inputs that carry the state, (1, B, H) each; the outputs are named so with ``_n``. Empty if
    every run starts from zero.
    """

    model: Any
    output: tuple[str, tuple[int, ...]]
    states: dict[str, tuple[int, ...]]


def onnx_graph(
    params: Mapping[str, Array], cell: str, T: int, B: int, *, carried: bool = False, last: bool = False
) -> Graph:
    """A graph of x (T, B, D). ``carried``: with the state; ``last``: the output is that of the last step only."""
    from onnx import TensorProto, helper, numpy_helper

    depth = sum(name.endswith(".W_hh") for name in params)
    D, H = len(params["layer0.W_xh"]), len(params["layer0.W_hh"])
    options: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
    weights: dict[str, Array] = {}
    nodes, states = [], []
    x = "x"
    for k in range(depth):
        weights |= {f"{name}{k}": value for name, value in _onnx_weights(params, cell, k).items()}
        before = [f"{part}{k}" for part in ("h", "c")[: 1 + (cell == "lstm")]] if carried else []
        after = [f"{name}_n" for name in before] or [f"h{k}_n"]
        inputs = [x, f"W{k}", f"R{k}", f"B{k}", *[""] * carried, *before]
        nodes.append(helper.make_node(TORCH_NAMES[cell], inputs, [f"y{k}", *after], hidden_size=H, **options))
        x = f"h{k}_n" if last and k == depth - 1 else f"y{k}"
        if k < depth - 1:
            nodes.append(helper.make_node("Squeeze", [x, "directions"], [f"x{k + 1}"]))
            weights["directions"], x = np.array([1]), f"x{k + 1}"
        states += before
    shape: tuple[int, ...] = (1, B, H) if last else (T, 1, B, H)
    if "W_hy" in params:
        weights |= {"W_hy": params["W_hy"], "b_y": params["b_y"]}
        nodes += [helper.make_node("MatMul", [x, "W_hy"], ["a"]), helper.make_node("Add", ["a", "b_y"], ["logits"])]
        x, shape = "logits", (*shape[:-1], len(params["b_y"]))

    def value(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    carry = dict.fromkeys(states, (1, B, H))
    graph = helper.make_graph(
        nodes,
        cell,
        [value("x", (T, B, D)), *(value(name, size) for name, size in carry.items())],
        [value(x, shape), *(value(f"{name}_n", size) for name, size in carry.items())],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return Graph(model, (x, shape), carry)


def _onnx_weights(params: Mapping[str, Array], cell: str, k: int) -> dict[str, Array]:
    H = len(params[f"layer{k}.W_hh"])

    def blocks(gates: Array) -> Array:
        """(..., G*H) as (G*H, ...) in ONNX's order of gates."""
        return np.concatenate([gates[..., g * H : (g + 1) * H] for g in ONNX_GATES[cell]], axis=-1).T

    biases = params[f"layer{k}.b_h"], second_bias(params, k, GATES[cell] * H)
    return {
        "W": blocks(params[f"layer{k}.W_xh"])[None],
        "R": blocks(params[f"layer{k}.W_hh"])[None],
        "B": np.concatenate([blocks(bias) for bias in biases])[None],
    }


# ---- libraries that run it -------------------------------------------------------------------------------------------


def onnxruntime_run(graph: Graph, x: Array, threads: int) -> Run:
    """ONNX Runtime without copies in or out: the state alternates between two buffers."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), settings, ["CPUExecutionProvider"])
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    (name, shape), given = graph.output, value(x)
    y = value(np.empty(shape, np.float32))
    states = [{state: value(np.zeros(size, np.float32)) for state, size in graph.states.items()} for _ in range(2)]

    def bound(source: int) -> Any:
        """A binding, and its buffers, because it does not keep them alive."""
        inputs = {"x": given} | states[source]
        outputs = {name: y} | {f"{state}_n": buffer for state, buffer in states[1 - source].items()}
        binding = session.io_binding()
        for tensor, buffer in inputs.items():
            binding.bind_ortvalue_input(tensor, buffer)
        for tensor, buffer in outputs.items():
            binding.bind_ortvalue_output(tensor, buffer)
        return binding, inputs, outputs

    turns = cycle([bound(0), bound(1)] if graph.states else [bound(0)])

    def run() -> Any:
        session.run_with_iobinding(next(turns)[0])
        return y

    return run


def onnxruntime_int8_run(graph: Graph, x: Array, threads: int) -> Run:
    """ONNX Runtime with its dynamic quantisation: int8 weights, inputs quantised at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.helper.set_model_props(graph.model, {"onnx.quant.pre_process": "onnxruntime.quant"})  # nothing to simplify
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantize_dynamic(graph.model, path, weight_type=QuantType.QInt8)
        quantized = Graph(onnx.load(path), graph.output, graph.states)
    return onnxruntime_run(quantized, x, threads)


def openvino_run(graph: Graph, x: Array, threads: int, precision: str = "f32") -> Run:
    """OpenVINO without copies in or out: two requests whose states are each other's."""
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,  # on a CPU with bf16 instructions OpenVINO's default is bf16
    }
    compiled = core.compile_model(core.read_model(graph.model.SerializeToString()), "CPU", options)
    name, shape = graph.output
    y = np.empty(shape, np.float32)
    states = [{state: np.zeros(size, np.float32) for state, size in graph.states.items()} for _ in range(2)]

    def request(source: int) -> Any:
        """A request, and its buffers, because it does not keep them alive."""
        made = compiled.create_infer_request()
        buffers = {"x": x, name: y} | states[source] | {f"{s}_n": v for s, v in states[1 - source].items()}
        for tensor, array in buffers.items():
            made.set_tensor(tensor, openvino.Tensor(array, shared_memory=True))
        return made, buffers

    turns = cycle([request(0), request(1)] if graph.states else [request(0)])

    def run() -> Any:
        next(turns)[0].infer(share_outputs=True)
        return y

    return run
