# SPDX-License-Identifier: MIT
"""stream: one step of a stream, batch 1, float32, one thread; microseconds.

One layer, D = H; or a character model on ids, V 65, from id to logits. Ours from Python (a fresh output, or ``out=``),
from Cython and from C; peers get the same weights, a ready tensor, and carry the state too. The limit is what reading
the weights takes from the cache they fit in.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import native, step_peers
from benchmarks.job import Job
from benchmarks.latency import Stepper, compete, statement
from benchmarks.layers import TORCH_NAMES
from benchmarks.measure import OURS, Figure, Missing, installed
from benchmarks.rows import Row, Setting
from benchmarks.train import our_model

if TYPE_CHECKING:
    import crnn

# The design's figures, in us, of the machine they were set on: the goal, and the limit there.
GOALS = {
    ("tanh", 64): (0.35, 0.15),
    ("tanh", 256): (5.2, 4.5),
    ("gru", 64): (1.1, 0.85),
    ("gru", 128): (3.9, 3.4),
    ("lstm", 32): (0.35, 0.15),
    ("lstm", 64): (1.4, 1.13),
    ("lstm", 128): (5.1, 4.5),
    ("lstm", 512): (95.0, 86.0),
}
CHARACTERS = (("lstm", 128), ("lstm", 256), ("gru", 128))
GOAL, GOAL_HERE, LIMIT = "design goal", "design goal over the limit here", "limit: weights read"
CHECKED_STEPS = 5


def vectors(cell: str, H: int, setting: Setting) -> dict[str, Figure]:
    """A network on vectors."""
    import crnn

    net = crnn.RNN(input_size=H, hidden_size=H, cell=cell, seed=0)
    for name, values in net.params.items():
        if ".b_" in name:
            values[...] = np.linspace(-0.1, 0.1, len(values))
    x = np.random.default_rng(1).standard_normal(H, np.float32)
    figures = race(net, cell, x, setting)
    if (cell, H) in GOALS:
        goal, limit = GOALS[cell, H]
        figures[GOAL] = Figure(goal, "of the machine it was set on")
        here = figures[LIMIT].value
        figures[GOAL_HERE] = Figure(None if here is None else goal - limit + here, f"{goal - limit:.2g} us over it")
    return figures


def characters(cell: str, H: int, setting: Setting) -> dict[str, Figure]:
    """A language model on ids."""
    job = Job(cell, H)
    return race(our_model(job, job.random_weights()), cell, 17, setting)


def race(model: crnn.RNN | crnn.LanguageModel, cell: str, x: step_peers.Input, setting: Setting) -> dict[str, Figure]:
    import crnn

    stream, params, threads = model.stream(), model.params, setting.threads
    steps = [x] * CHECKED_STEPS
    expected = model.stream().run(np.array(steps))
    torch, onnx = installed("torch"), installed("onnx", "onnxruntime")
    name = TORCH_NAMES[cell]
    contenders: dict[str, Stepper | Missing] = {
        OURS: statement("y = step(x)", {"step": stream.step, "x": x}),
        "crnn, out=": statement(
            "step(x, out=y)", {"step": model.stream().step, "x": x, "y": np.empty(stream.output_size, np.float32)}
        ),
        "crnn from Cython": native.from_cython(crnn.Stream(stream.weights), x),  # of a text stream too
        "crnn from C": native.from_c(cell, params, x),
        f"torch nn.{name}": torch or step_peers.torch_nn(params, cell, x, threads),
        f"torch nn.{name}Cell": torch or step_peers.torch_cell(params, cell, x, threads),
        "onnxruntime": onnx or step_peers.onnx_step(params, cell, x, threads),
        "numpy, the cell": step_peers.numpy_cell(params, cell, x),
        "numpy, W @ v": step_peers.numpy_product(params, x),
        LIMIT: native.reading(step_peers.weight_bytes(params, cell, x)),
    }
    return compete(contenders, setting.effort, expected)


ROWS = [
    Row(
        f"stream-{H}" if cell == "tanh" else f"stream-{cell}-{H}",
        "us",
        partial(vectors, cell, H),
        goals={GOAL: 1.0, GOAL_HERE: 1.0},
        lower=True,
        quick=H == 32,
    )
    for cell, H in GOALS
] + [
    Row(f"stream-char-{cell}-{H}", "us", partial(characters, cell, H), lower=True, quick=cell == "gru")
    for cell, H in CHARACTERS
]
