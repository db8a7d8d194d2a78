# SPDX-License-Identifier: MIT
"""sequence: one layer of a cell over x (T 128, B 32, D = H), forward only, float32.

Work is the matrix products: 2 * T * B * G * (D*H + H*H). Peers have the same weights, in their own layouts.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, Missing, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.layers import GATES, TORCH_NAMES, torch_layers
from benchmarks.contenders.onnx_peers import ONNX_PEERS, Run, onnx_graph
from benchmarks.contenders.peak import PEAK, peak

Array = NDArray[Any]

STEPS, BATCH = 128, 32
SIZES = (64, 128, 256, 512)
# In GFLOP/s, and the peak of the machine where the goals were set.
GOALS = {"tanh": (75, 90, 98, 100), "gru": (80, 92, 98, 100), "lstm": (88, 98, 105, 106)}
GOALS_PEAK = 110


def measure(cell: str, H: int, setting: Setting) -> dict[str, Figure]:
    """Figures in GFLOP/s of the forward pass of one layer."""
    import crnn

    work = GATES[cell] * 4.0 * STEPS * BATCH * H * H / 1e9
    net = crnn.RNN(input_size=H, hidden_size=H, cell=cell, seed=0)
    for name, values in net.params.items():
        if ".b_" in name:
            values[...] = np.linspace(-0.1, 0.1, len(values))
    x = np.random.default_rng(1).standard_normal((STEPS, BATCH, H), np.float32)
    expected, _, tape = net.forward(x)
    expected = expected.copy()
    runs: dict[str, Run | Missing] = {
        OURS: lambda: net(x, threads=setting.threads)[0],
        "crnn, tape reused": lambda: net.forward(x, threads=setting.threads, tape=tape)[0],
        f"torch nn.{TORCH_NAMES[cell]}": unavailable("torch") or torch_run(net.params, cell, x, setting.threads),
        **{
            peer.name: peer.missing() or peer.run(onnx_graph(net.params, cell, STEPS, BATCH), x, setting.threads)
            for peer in ONNX_PEERS
        },
    }
    contenders: dict[str, Contender | Missing] = {}
    for name, run in runs.items():
        if not isinstance(run, Missing):
            y = run()
            y = y.numpy() if hasattr(y, "numpy") else y
            require_close(name, y.reshape(expected.shape), expected)
        contenders[name] = run if isinstance(run, Missing) else Contender(run, work)
    return race(contenders | {PEAK: peak(setting.threads)}, setting.effort)


def torch_run(params: Any, cell: str, x: Array, threads: int) -> Run:
    """The forward pass in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    net, theirs = torch_layers(params, cell).eval(), torch.from_numpy(x)

    def run() -> Any:
        with torch.inference_mode():
            return net(theirs)[0]

    return run


ROWS = [
    Row(
        f"sequence-{H}" if cell == "tanh" else f"sequence-{cell}-{H}",
        "GFLOP/s",
        partial(measure, cell, H),
        all_cores=all_cores,
        goals={} if all_cores else {PEAK: goal / GOALS_PEAK},
        quick=H == 128 and not all_cores,
    )
    for cell, goals in GOALS.items()
    for H, goal in zip(SIZES, goals, strict=True)
    for all_cores in (False, True)
]
