# SPDX-License-Identifier: MIT
"""latency: one inference of an LSTM model, batch 1, one thread, bound to one core; microseconds.

The shapes are those that finance audits, of STAC-ML's published model cards: a stack of LSTM layers, and one output.
Shape only: not audited. `window` is a whole window of new data, from the initial state to the output of its last step.
`step` is one step of a stream, with the state carried, for windows that slide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.latency import Stepper, statement, time_steps
from benchmarks.base.measure import Effort, Figure, Missing
from benchmarks.base.row import Row, Setting
from benchmarks.contenders import c_program
from benchmarks.contenders.inference import PEERS, Peer, Work
from benchmarks.contenders.precisions import PRECISIONS, in_precision, ours_in

Array = NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """A stack of ``layers`` of ``hidden`` units on windows of ``steps`` vectors of ``inputs`` elements."""

    layers: int
    hidden: int
    steps: int
    inputs: int


SHAPES = {"A": Shape(2, 100, 50, 100), "B": Shape(3, 200, 100, 250), "C": Shape(4, 1000, 100, 500)}
KINDS = ("step", "window")

EFFORT = Effort(rounds=9, seconds=4.0, patience=float("inf"))
COUNTS = (1_000, 200_000)  # calls of each contender, at least and at most: a p99.9 needs 1,000
CHECKED_STEPS = 5


def measure(shape: Shape, kind: str, setting: Setting) -> dict[str, Figure]:
    """Latencies of an inference of all contenders, whose outputs must agree with those of crnn."""
    import crnn

    model = crnn.SequenceRegressor(
        shape.inputs, 1, shape.hidden, shape.layers, "lstm", scale=False, pooling="last", seed=0
    )
    x = np.random.default_rng(1).standard_normal((shape.steps, shape.inputs), np.float32)
    checked = x if kind == "window" else np.repeat(x[:1], CHECKED_STEPS, 0)
    h = model.net(checked[:, None])[0][-1, 0]
    model.params["W_hy"][:, 0] = np.sign(h) / len(h)  # y is the mean |h|: differences are relative to that
    expected = model.stream().run(checked)[-1 if kind == "window" else 0 :]
    contenders: dict[str, Stepper | Missing] = {}
    for precision, tolerance in PRECISIONS.items():
        made = in_precision(model, precision)
        name = ours_in(precision)
        contenders |= ours(made, name, x, kind, tolerance)
        contenders[f"{name}, from C"] = c_program.from_c(kind, precision, model.params, x)
        for peer in PEERS:
            if peer.precision == precision:
                contenders[peer.name] = peer.missing("lstm") or of_peer(peer, model.params, x, kind)
    if setting.quick:
        return time_steps(contenders, setting.effort, expected, (6, 1_000))
    return time_steps(contenders, EFFORT, expected, COUNTS)


def ours(model: Any | Missing, name: str, x: Array, kind: str, tolerance: float) -> dict[str, Stepper | Missing]:
    """crnn from Python: a stream, and for windows `predict` too, which takes any number of sequences."""
    if isinstance(model, Missing):
        return {name: model}
    stream = model.stream()
    names = {"step": stream.step, "reset": stream.reset, "run": stream.run, "x": x[0], "xs": x}
    names |= {"out": np.empty((len(x), 1), np.float32), "predict": model.predict, "list": [x]}
    if kind == "step":
        return {name: statement("y = step(x)", names, tolerance=tolerance)}
    return {
        name: statement("reset(); y = run(xs, out=out)[-1]", names, tolerance=tolerance),
        f"{name}, predict": statement("y = predict(list)", names, tolerance=tolerance),
    }


def of_peer(peer: Peer, params: Any, x: Array, kind: str) -> Stepper:
    """A library with our weights. For a step the state is carried."""
    step = kind == "step"
    work = Work(params, "lstm", (x[:1] if step else x)[:, None], carried=step, last=not step)
    return statement("y = run()", {"run": peer.make(work, 1)}, tolerance=peer.tolerance)


ROWS = [
    Row(f"latency-{name}-{kind}", "us", partial(measure, shape, kind), lower=True, long=True)
    for name, shape in SHAPES.items()
    for kind in KINDS
]
