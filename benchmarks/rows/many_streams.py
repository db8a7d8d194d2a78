# SPDX-License-Identifier: MIT
"""stream-batch, stream-join, stream-threads: many streams of one model.

stream-batch: 1,000 streams stepped together, as one product; GFLOP/s of the matrix products; D = H, or a character
model on ids (V 65, output layer included). stream-join: the cost of adding, removing or pausing a stream.
stream-threads: each thread steps a separate stream.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.latency import Stepper, statement, time_steps
from benchmarks.base.measure import OURS, Contender, Figure, Missing, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.layers import GATES, TORCH_NAMES, torch_layers
from benchmarks.contenders.peak import PEAK, peak
from benchmarks.contenders.training import crnn_model
from benchmarks.contenders.training_task import TrainingTask

Array = NDArray[Any]

STREAMS = 1000
SIZES = (128, 256, 512)
ONE_BY_ONE = "crnn, one by one"
OF_PEAK = 0.85

# ---- all streams in one step -----------------------------------------------------------------------------------------


def batch(cell: str, H: int, ids: bool, setting: Setting, streams: int = STREAMS) -> dict[str, Figure]:
    """Figures of one step of all streams: as a batch, one by one, and in PyTorch."""
    import crnn

    task, rng = TrainingTask(cell, H), np.random.default_rng(1)
    model: Any = crnn_model(task, task.random_weights()) if ids else crnn.RNN(H, H, cell=cell, seed=0)
    x = rng.integers(0, task.vocabulary, streams, np.int32) if ids else rng.standard_normal((streams, H), np.float32)
    products = GATES[cell] * H * (H if ids else 2 * H) + (H * task.vocabulary if ids else 0)
    work = 2.0 * products * streams / 1e9
    many, y = model.stream_batch(streams), np.empty((streams, task.vocabulary if ids else H), np.float32)
    alone, y_alone = [model.stream() for _ in range(streams)], np.empty_like(y)
    single = list(zip([stream.step for stream in alone], x.tolist() if ids else list(x), list(y_alone), strict=True))

    def one_by_one() -> None:
        for step, x_i, y_i in single:
            step(x_i, y_i)

    contenders: dict[str, Contender | Missing] = {
        OURS: Contender(lambda: many.step(x, out=y), work),
        ONE_BY_ONE: Contender(one_by_one, work),
    }
    for contender in contenders.values():
        assert isinstance(contender, Contender)
        contender.run()
    require_close(ONE_BY_ONE, y_alone, y)
    if not ids:
        contenders[f"torch nn.{TORCH_NAMES[cell]}"] = unavailable("torch") or torch_batch(
            model.params, cell, x, y, work
        )
    figures = race(contenders | {PEAK: peak(setting.threads)}, setting.effort)
    for name, figure in figures.items():
        if name != PEAK and figure.value is not None:
            rate = f"{figure.value / work * streams / 1e6:.3g}M steps/s"
            figures[name] = replace(figure, note="; ".join(filter(None, (rate, figure.note))))
    return figures


def torch_batch(params: Any, cell: str, x: Array, y: Array, work: float) -> Contender:
    """A step of a batch in PyTorch, whose first output must agree with y."""
    import torch

    torch.set_num_threads(1)
    net, state, theirs = torch_layers(params, cell).eval(), None, torch.from_numpy(x)[None]

    def run() -> Any:
        nonlocal state
        with torch.inference_mode():
            out, state = net(theirs, state)
        return out

    require_close("torch", run()[0].numpy(), y)
    return Contender(run, work)


# ---- adding, removing, pausing ---------------------------------------------------------------------------------------

STEP, PAUSED, SINGLE = "a step of all", "a step with rows=, one pausing", "a Stream's step"
PAUSING = "pausing one, over a step of all"


def join(cell: str, H: int, setting: Setting, streams: int = STREAMS) -> dict[str, Figure]:
    """Times of removing and adding a stream, and of steps with and without ``rows``."""
    import crnn

    net = crnn.RNN(H, H, cell=cell, seed=0)
    x = np.random.default_rng(1).standard_normal((streams, H), np.float32)
    fixed, changing, partial_batch, stream = (*(net.stream_batch(streams) for _ in range(3)), net.stream())
    rows = np.delete(np.arange(streams, dtype=np.int32), streams // 2)
    names = {"x": x, "y": np.empty_like(x), "rows": rows}
    change = "remove(k); add(1); y = batch.active"  # `active` is rebuilt, as by the next step
    contenders: dict[str, Stepper | Missing] = {
        OURS: statement(change, {"remove": changing.remove, "add": changing.add, "batch": changing, "k": 1}),
        STEP: statement("step(x, out=y)", names | {"step": fixed.step}),
        PAUSED: statement(
            "step(x, rows=rows, out=y)",
            {"x": x[1:], "y": np.empty_like(x[1:]), "rows": rows, "step": partial_batch.step},
        ),
        SINGLE: statement("step(x, out=y)", {"x": x[0], "y": np.empty_like(x[0]), "step": stream.step}),
    }
    figures = time_steps(contenders, setting.effort)
    figures[OURS] = replace(figures[OURS], note=f"one of {streams} goes, one comes; {figures[OURS].note}")
    step, paused = figures[STEP].value, figures[PAUSED].value
    if step is not None and paused is not None:
        figures[PAUSING] = Figure(max(0.0, paused - step), f"{streams - 1} rows given and checked, less {STEP}")
    return figures


# ---- threads ---------------------------------------------------------------------------------------------------------


def threads(cell: str, H: int, steps: int, setting: Setting) -> dict[str, Figure]:
    """Figures of streams that are stepped by one thread each."""
    import crnn

    net = crnn.RNN(H, H, cell=cell, seed=0)
    x = np.random.default_rng(1).standard_normal(H, np.float32)
    streams = [net.stream() for _ in range(setting.threads)]
    pool = ThreadPoolExecutor(setting.threads)

    def run_stream(step: Callable[..., Array]) -> Array:
        y = np.empty(H, np.float32)
        for _ in range(steps):
            step(x, y)
        return y

    def run() -> list[Array]:
        return list(pool.map(run_stream, [stream.step for stream in streams]))

    for y in run():
        require_close("a thread", y, net(np.broadcast_to(x, (steps, 1, H)).copy())[0][-1, 0])
    return race({OURS: Contender(run, steps * setting.threads)}, setting.effort)


ROWS = [
    Row(
        "-".join(["stream-batch", *["char"] * ids, *[cell] * (cell != "tanh"), str(H)]),
        "GFLOP/s",
        partial(batch, cell, H, ids),
        goals={PEAK: OF_PEAK},
        quick=H == 128 and cell == "gru",
    )
    for ids in (False, True)
    for cell in ("tanh", "gru", "lstm")
    for H in SIZES
]
ROWS += [  # a removal and an addition, each of which should cost less than a step
    Row("stream-join", "us", partial(join, "lstm", 128), goals={STEP: 2.0, SINGLE: 0.5}, lower=True, quick=True),
]
ROWS += [
    Row(f"stream-threads-lstm-{H}", "steps/s", partial(threads, "lstm", H, steps), all_cores=all_cores)
    for H, steps in ((64, 10_000), (256, 500))
    for all_cores in (False, True)
]
