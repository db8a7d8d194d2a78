# SPDX-License-Identifier: MIT
"""sequence: one layer of a cell over x (T, B, D = H), forward only. T 128, B 32; some with B 1 or 8; H 1024 with T 16.

Work is the matrix products: 2 * T * B * G * (D*H + H*H). Peers have the same weights, in their own layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, Missing, fastest, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.inference import PEERS, Run, Work
from benchmarks.contenders.jax_peers import jax_layer
from benchmarks.contenders.layers import GATES, TORCH_NAMES, torch_layers
from benchmarks.contenders.peak import PEAK, peak
from benchmarks.contenders.precisions import PRECISIONS, in_precision, ours_in

Array = NDArray[Any]

# In GFLOP/s at B 32, by H, and the peak of the machine where the goals were set.
GOALS = {
    "tanh": {64: 75, 128: 90, 256: 98, 512: 100},
    "gru": {64: 80, 128: 92, 256: 98, 512: 100},
    "lstm": {64: 88, 128: 98, 256: 105, 512: 106},
}
GOALS_PEAK = 110
AHEAD = {"onnxruntime": 1.0, "jax": 1.0}  # goals in every row


@dataclass(frozen=True)
class Shape:
    """A layer of ``hidden`` units over ``batch`` sequences of as many features."""

    cell: str
    hidden: int
    batch: int = 32

    @property
    def steps(self) -> int:
        """Time steps; fewer for a large layer, which has more work in each."""
        return 16 if self.hidden >= 1024 else 128

    @property
    def name(self) -> str:
        """sequence-64, sequence-lstm-64, sequence-b1-lstm-64, ..."""
        batch = [] if self.batch == Shape.batch else [f"b{self.batch}"]
        cell = [] if self.cell == "tanh" else [self.cell]
        return "-".join(["sequence", *batch, *cell, str(self.hidden)])

    @property
    def goals(self) -> dict[str, float]:
        """The smallest ratios, on one thread."""
        goal = GOALS[self.cell].get(self.hidden)
        return AHEAD if goal is None or self.batch != Shape.batch else AHEAD | {PEAK: goal / GOALS_PEAK}


SHAPES = [Shape(cell, H) for cell in GOALS for H in (64, 128, 256, 512, 1024)]
SMALL_BATCHES = [Shape(cell, H, batch) for batch in (1, 8) for cell in GOALS for H in (16, 64, 256, 1024)]


def measure(shape: Shape, setting: Setting) -> dict[str, Figure]:
    """Figures in GFLOP/s of the forward pass of one layer."""
    import crnn

    cell, H, T, B, threads = shape.cell, shape.hidden, shape.steps, shape.batch, setting.threads
    work = GATES[cell] * 4.0 * T * B * H * H / 1e9
    net = crnn.RNN(input_size=H, hidden_size=H, cell=cell, seed=0)
    for name, values in net.params.items():
        if ".b_" in name:
            values[...] = np.linspace(-0.1, 0.1, len(values))
    x = np.random.default_rng(1).standard_normal((T, B, H), np.float32)
    frozen = net.frozen()
    expected, _, tape = net.forward(x)
    expected = expected.copy()

    def checked(name: str, run: Run, tolerance: float = PRECISIONS["float32"]) -> Contender:
        y = run()
        require_close(name, (y.numpy() if hasattr(y, "numpy") else y).reshape(expected.shape), expected, tolerance)
        return Contender(run, work)

    contenders: dict[str, Contender | Missing] = {
        OURS: checked(OURS, lambda: net(x, threads=threads)[0]),
        "crnn, frozen": checked(OURS, lambda: frozen(x, threads=threads)[0]),
        "crnn, tape reused": checked(OURS, lambda: net.forward(x, threads=threads, tape=tape)[0]),
    }
    for precision, tolerance in PRECISIONS.items():
        if precision != "float32":
            contenders[ours_in(precision)] = ours(net, x, precision, threads, partial(checked, tolerance=tolerance))
    torch = f"torch nn.{TORCH_NAMES[cell]}"
    contenders[torch] = unavailable("torch") or checked(torch, torch_run(net.params, cell, x, threads))
    for peer in PEERS:
        contenders[peer.name] = peer.missing(cell) or checked(
            peer.name, peer.make(Work(net.params, cell, x), threads), peer.tolerance
        )
    contenders["jax"] = unavailable("jax") or fastest(
        {
            f"scan unrolled {n} x": checked("jax", jax_layer(net.params, cell, x, n))
            for n in ((1,) if setting.quick else (1, 4))
        }
    )
    return race(contenders | {PEAK: peak(threads)}, setting.effort)


def ours(
    net: Any, x: Array, precision: str, threads: int, checked: Callable[[str, Run], Contender]
) -> Contender | Missing:
    """crnn with its weights in another precision, packed once."""
    made = in_precision(net, precision)
    if isinstance(made, Missing):
        return made
    frozen = made.frozen()
    return checked(ours_in(precision), lambda: frozen(x, threads=threads)[0])


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
        shape.name,
        "GFLOP/s",
        partial(measure, shape),
        all_cores=all_cores,
        goals={} if all_cores else shape.goals,
        quick=shape.hidden == 128 and not all_cores,
    )
    for shape, all_cores in [
        *((shape, all_cores) for shape in SHAPES for all_cores in (False, True)),
        *((shape, False) for shape in SMALL_BATCHES),
    ]
]
