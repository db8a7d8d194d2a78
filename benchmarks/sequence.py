# SPDX-License-Identifier: MIT
"""sequence: one tanh layer over x (T 128, B 32, D = H), forward only, float32.

Work is the matrix products: 2 * T * B * (D*H + H*H). Peers get the same weights and keep their own best layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.checks import need_close
from benchmarks.measure import OURS, Contender, Figure, Missing, installed, race
from benchmarks.peak import PEAK, peak
from benchmarks.rows import Row, Setting

Array = NDArray[Any]
Run = Callable[[], Any]  # returns an array, or what has one to give: .numpy()

STEPS, BATCH = 128, 32
# The design's figures over the peak of the machine they were set on, 110 GFLOP/s.
GOALS = {64: 75 / 110, 128: 90 / 110, 256: 98 / 110, 512: 100 / 110}


def measure(H: int, setting: Setting) -> dict[str, Figure]:
    import crnn

    work = 4.0 * STEPS * BATCH * H * H / 1e9
    net = crnn.RNN(input_size=H, hidden_size=H, seed=0)
    net.params["layer0.b_h"][...] = np.linspace(-0.1, 0.1, H)
    x = np.random.default_rng(1).standard_normal((STEPS, BATCH, H), np.float32)
    expected, _, tape = net.forward(x)
    expected = expected.copy()
    runs: dict[str, Run | Missing] = {
        OURS: lambda: net(x, threads=setting.threads)[0],
        "crnn, tape reused": lambda: net.forward(x, threads=setting.threads, tape=tape)[0],
        "torch nn.RNN": installed("torch") or with_torch(net.params, x, setting.threads),
        "onnxruntime": installed("onnx", "onnxruntime") or with_onnx(net.params, x, setting.threads),
    }
    contenders: dict[str, Contender | Missing] = {}
    for name, run in runs.items():
        if not isinstance(run, Missing):
            y = run()
            y = y.numpy() if hasattr(y, "numpy") else y
            need_close(name, y.reshape(expected.shape), expected)
        contenders[name] = run if isinstance(run, Missing) else Contender(run, work)
    return race(contenders | {PEAK: peak(setting.threads)}, setting.effort)


def with_torch(params: Any, x: Array, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    net: Any = torch.nn.RNN(x.shape[2], params["layer0.W_hh"].shape[0]).eval()
    with torch.no_grad():
        net.weight_ih_l0.copy_(torch.from_numpy(params["layer0.W_xh"].T))
        net.weight_hh_l0.copy_(torch.from_numpy(params["layer0.W_hh"].T))
        net.bias_ih_l0.copy_(torch.from_numpy(params["layer0.b_h"]))
        net.bias_hh_l0.zero_()
    theirs = torch.from_numpy(x)

    def run() -> Any:
        with torch.inference_mode():
            return net(theirs)[0]

    return run


def with_onnx(params: Any, x: Array, threads: int) -> Run:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    T, B, D = x.shape
    H = params["layer0.W_hh"].shape[0]
    weights = {
        "W": params["layer0.W_xh"].T[None],
        "R": params["layer0.W_hh"].T[None],
        "B": np.concatenate([params["layer0.b_h"], np.zeros(H, np.float32)])[None],
    }
    graph = helper.make_graph(
        [helper.make_node("RNN", ["x", "W", "R", "B"], ["y"], hidden_size=H)],
        "rnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, B, D])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, B, H])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    y = np.empty((T, 1, B, H), np.float32)
    binding = session.io_binding()  # no copies in or out
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    bound = onnxruntime.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_output("y", bound)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return bound

    return run


ROWS = [
    Row(
        f"sequence-{H}",
        "GFLOP/s",
        partial(measure, H),
        all_cores=all_cores,
        goals={} if all_cores else {PEAK: GOALS[H]},
        quick=H == 128 and not all_cores,
    )
    for H in GOALS
    for all_cores in (False, True)
]
