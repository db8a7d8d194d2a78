# SPDX-License-Identifier: MIT
"""Single steps, timed one by one and in blocks: contenders that take turns, their medians and their tails in us.

A block's time divided by its steps is the figure, because no clock stands between its steps. One step at a time,
between two readings of the clock, gives the percentiles; what the same loop takes with nothing in it is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.checks import need_close
from benchmarks.measure import CoreShare, Effort, Figure, Missing, turns

Array = NDArray[Any]
Times = Callable[[int, int], ArrayLike]  # nanoseconds of each of n blocks of so many steps

BLOCK, BLOCK_SECONDS = 100, 1e-3  # steps in a block, fewer where they take long: what interrupts shows in few blocks
SINGLES, LEAST_SINGLES = 20_000, 2_000  # of each contender, the fewer where a step takes long
PERCENTILES = {"p50": 50, "p99": 99, "p99.9": 99.9}


@dataclass(frozen=True)
class Stepper:
    """One way to make a step, from one state to the next. ``idle``: its loop with nothing in it.

    ``output``: what the last step put out; None where it computes something else by intent.
    """

    times: Times
    idle: Times
    output: Callable[[], Any] | None = None
    note: str = ""


LOOPS = """
def times(n, block):
    global {names}
    taken, steps = [], range(block)
    if block == 1:
        for _ in range(n):
            began = clock()
            {statement}
            taken.append(clock() - began)
    else:
        for _ in range(n):
            began = clock()
            for _ in steps:
                {statement}
            taken.append(clock() - began)
    return taken
"""


def statement(
    text: str, names: dict[str, Any], output: str = "y", around: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Stepper:
    """A stepper of a Python statement, compiled into the loop as ``timeit`` does; it may assign to ``names``.

    ``around``: a context that is entered once, outside what is timed.
    """
    names = {"y": None, **names}
    times, idle = _loop(text, names), _loop("pass", {"y": None})

    def inside(n: int, block: int) -> ArrayLike:
        with around():
            return times(n, block)

    return Stepper(inside, idle, lambda: names[output])


def _loop(text: str, names: dict[str, Any]) -> Times:
    source = LOOPS.format(statement=text, names=", ".join(names))
    names["clock"] = time.perf_counter_ns
    exec(source, names)
    times: Times = names["times"]
    return times


def compete(
    contenders: Mapping[str, Stepper | Missing], effort: Effort, expected: ArrayLike | None = None
) -> dict[str, Figure]:
    """Microseconds a step of all contenders, whose first steps must put out ``expected`` (T, ...)."""
    present = {name: c for name, c in contenders.items() if isinstance(c, Stepper)}
    for name, stepper in present.items():
        if expected is not None and stepper.output is not None:
            for wanted in np.asarray(expected):
                stepper.times(1, 1)
                y = stepper.output()
                need_close(name, np.asarray(y.numpy() if hasattr(y, "numpy") else y).reshape(wanted.shape), wanted)
    plans = {name: _plan(stepper, effort) for name, stepper in present.items()}
    singles: dict[str, list[Array]] = {name: [] for name in present}
    blocks: dict[str, list[Array]] = {name: [] for name in present}
    cores = CoreShare()
    for name in turns(present, effort):
        stepper, plan = present[name], plans[name]
        stepper.times(1, plan.warm)
        with cores.of(name):
            singles[name].append(np.asarray(stepper.times(plan.singles, 1), float) - plan.clock)
            blocks[name].append((np.asarray(stepper.times(plan.blocks, plan.block), float) - plan.loop) / plan.block)
    figures = {}
    for name, entry in contenders.items():
        if isinstance(entry, Missing):
            figures[name] = Figure(None, entry.reason)
            continue
        alone = np.concatenate(singles[name]) / 1e3
        figures[name] = Figure(
            float(np.median(np.concatenate(blocks[name]))) / 1e3,
            cores.note(name, entry.note, f"{len(alone)} single steps"),
            [float(np.median(block)) / 1e3 for block in blocks[name]],
            percentiles={label: float(np.percentile(alone, p)) for label, p in PERCENTILES.items()},
        )
    return figures


@dataclass(frozen=True)
class _Plan:
    """Of one round: how many steps of each kind, and the nanoseconds that clock and loop take."""

    warm: int
    singles: int
    blocks: int
    block: int
    clock: float
    loop: float


def _plan(stepper: Stepper, effort: Effort) -> _Plan:
    def steps_in(seconds: float, least: int, most: int) -> int:
        return int(min(max(least, seconds / cost), most))

    stepper.times(1, 3)
    cost = float(np.median(np.asarray(stepper.times(5, 3), float))) / 3e9
    share = effort.seconds / 2
    few = min(LEAST_SINGLES, int(effort.seconds * 8000))
    singles = steps_in(share, -(-few // effort.rounds), -(-SINGLES // effort.rounds))
    block = steps_in(BLOCK_SECONDS, 1, BLOCK)
    blocks = steps_in(share / block, 2, 500)
    clock, loop = (float(np.median(np.asarray(stepper.idle(1000, size), float))) for size in (1, block))
    return _Plan(steps_in(share / 5, 3, 10_000), singles, blocks, block, clock, loop)
