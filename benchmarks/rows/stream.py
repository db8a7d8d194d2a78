# SPDX-License-Identifier: MIT
"""stream: one step of a stream, batch 1, float32, one thread; microseconds.

One layer with D = H, or a character model on ids (V 65) from an id to logits. crnn is called from Python (a fresh
output, or ``out=``), from Cython and from C. Peers have the same weights, get a prepared tensor, and carry the state
too. The limit is the time to read the weights from the smallest cache that holds them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.base.latency import Stepper, statement, time_steps
from benchmarks.base.measure import OURS, Figure, Missing, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders import native, single_steps
from benchmarks.contenders.layers import GATES, TORCH_NAMES
from benchmarks.contenders.precisions import PRECISIONS, in_precision, ours_in
from benchmarks.contenders.training import crnn_model
from benchmarks.contenders.training_task import TrainingTask

if TYPE_CHECKING:
    import crnn

# In us, on the machine where the goals were set: the goal, and the limit measured there.
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
OTHER_SIZES = (("tanh", 1024), ("gru", 256), ("gru", 512), ("gru", 1024), ("lstm", 256), ("lstm", 1024))
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
        local_limit, margin = figures[LIMIT].value, goal - limit
        figures[GOAL_HERE] = Figure(None if local_limit is None else margin + local_limit, f"{margin:.2g} us over it")
    return figures


def characters(cell: str, H: int, setting: Setting) -> dict[str, Figure]:
    """A language model on ids."""
    task = TrainingTask(cell, H)
    return race(crnn_model(task, task.random_weights()), cell, 17, setting)


def race(model: crnn.RNN | crnn.LanguageModel, cell: str, x: single_steps.Input, setting: Setting) -> dict[str, Figure]:
    """Latencies of a step of all contenders, whose outputs must agree with those of crnn."""
    import crnn

    stream, params, threads = model.stream(), model.params, setting.threads
    steps = [x] * CHECKED_STEPS
    expected = model.stream().run(np.array(steps))
    torch = unavailable("torch")
    name = TORCH_NAMES[cell]
    contenders: dict[str, Stepper | Missing] = {
        OURS: statement("y = step(x)", {"step": stream.step, "x": x}),
        **quantised(model, cell, x),
        "crnn, out=": statement(
            "step(x, out=y)", {"step": model.stream().step, "x": x, "y": np.empty(stream.output_size, np.float32)}
        ),
        "crnn from Cython": native.from_cython(crnn.Stream(stream.weights), x),  # of a text stream too
        "crnn from C": native.from_c(cell, params, x),
        f"torch nn.{name}": torch or single_steps.torch_nn(params, cell, x, threads),
        f"torch nn.{name}Cell": torch or single_steps.torch_cell(params, cell, x, threads),
        **single_steps.of_peers(params, cell, x, threads),
        "numpy, the cell": single_steps.numpy_cell(params, cell, x),
        "numpy, W @ v": single_steps.numpy_product(params, x),
        LIMIT: native.reading(single_steps.weight_bytes(params, cell, x)),
    }
    return time_steps(contenders, setting.effort, expected)


def quantised(model: Any, cell: str, x: single_steps.Input) -> dict[str, Stepper | Missing]:
    """Steps of crnn with weights in the other precisions, from Python and from C."""
    steppers: dict[str, Stepper | Missing] = {}
    for precision, tolerance in PRECISIONS.items():
        if precision != "float32":
            made = in_precision(model, precision)
            steppers[ours_in(precision)] = (
                made
                if isinstance(made, Missing)
                else statement("y = step(x)", {"step": made.stream().step, "x": x}, tolerance=tolerance)
            )
            steppers[f"{ours_in(precision)}, from C"] = native.from_c(cell, model.params, x, precision)
    return steppers


ROWS = [
    Row(
        f"stream-{H}" if cell == "tanh" else f"stream-{cell}-{H}",
        "us",
        partial(vectors, cell, H),
        goals={GOAL: 1.0, GOAL_HERE: 1.0} if (cell, H) in GOALS else {},
        lower=True,
        quick=H == 32,
    )
    for cell, H in sorted({*GOALS, *OTHER_SIZES}, key=lambda size: (GATES[size[0]], size[1]))
] + [
    Row(f"stream-char-{cell}-{H}", "us", partial(characters, cell, H), lower=True, quick=cell == "gru")
    for cell, H in CHARACTERS
]
