# SPDX-License-Identifier: MIT
"""cells: what the choice of the cell costs. Every cell of crnn's list compared with the LSTM of as many units.

Training is a training step of a character model, as in the `train` rows. A step is one step of a stream on vectors,
D = H, as in the `stream` rows. Only crnn is measured, with its own initial weights.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.base.latency import statement, time_steps
from benchmarks.base.measure import OURS, Contender, Figure, race
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.training import crnn_model, crnn_step
from benchmarks.contenders.training_task import TrainingTask, windows_of


def contenders() -> dict[str, str]:
    """Cells by their names in the report. What the report calls `crnn` is the LSTM; others are compared with it."""
    from crnn.nn.cells import CELLS

    return {OURS: "lstm"} | {f"crnn, {cell}": cell for cell in CELLS if cell != "lstm"}


def training(H: int, setting: Setting) -> dict[str, Figure]:
    """Tokens/s of a training step with each cell."""
    task = TrainingTask("lstm", H)
    windows = windows_of(task.random_ids(), task)
    steps = {}
    for name, cell in contenders().items():
        model = crnn_model(TrainingTask(cell, H), {})
        steps[name] = Contender(crnn_step(model, windows, setting.threads), task.tokens)
    return race(steps, setting.effort)


def step(H: int, setting: Setting) -> dict[str, Figure]:
    """Microseconds of a step of a stream with each cell."""
    import crnn

    x = np.random.default_rng(1).standard_normal(H, np.float32)
    steppers = {}
    for name, cell in contenders().items():
        stream = crnn.RNN(H, H, cell=cell, seed=0).stream()
        steppers[name] = statement("y = step(x)", {"step": stream.step, "x": x})
    return time_steps(steppers, setting.effort)


ROWS = [
    *(Row(f"cells-train-{H}", "tokens/s", partial(training, H), quick=H == 128) for H in (128, 256)),
    *(Row(f"cells-step-{H}", "us", partial(step, H), lower=True, quick=H == 128) for H in (64, 128)),
]
