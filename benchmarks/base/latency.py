# SPDX-License-Identifier: MIT
"""Latency of single steps: contenders measured in turns; medians and percentiles in us.

The figure is a block's time divided by its number of steps, because no clock is read between them. The percentiles are
of steps timed one by one, between two readings of the clock. The time of the same loop with an empty body is
subtracted from both. A percentile is given only if at least one step is above it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import CoreShare, Effort, Figure, Missing, round_robin

Array = NDArray[Any]
Times = Callable[[int, int], ArrayLike]  # (n, block): nanoseconds of each of n blocks of ``block`` steps

BLOCK, BLOCK_SECONDS = 100, 1e-3  # steps in a block; fewer if slow, so that an interrupt spoils few blocks
SINGLES = (2_000, 20_000)  # steps of each contender timed one by one: at least, if a step is slow, and at most
SLOW = 0.05  # seconds of a step for which one is enough to estimate its time
PERCENTILES = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
TOLERANCE = 1e-4  # of outputs in float32


@dataclass(frozen=True)
class Stepper:
    """One way to make a step. ``idle`` times the same loop with an empty body.

    ``output``: returns the output of the last step; None if the contender computes something else on purpose.
    ``tolerance``: how far it may be from the expected one. ``cpu``: CPU seconds so far of the process that steps.
    """

    times: Times
    idle: Times
    output: Callable[[], Any] | None = None
    note: str = ""
    tolerance: float = TOLERANCE
    cpu: Callable[[], float] = time.process_time


LOOPS = """
def times(n, block):
    global {names}
    durations, steps = [], range(block)
    if block == 1:
        for _ in range(n):
            start = clock()
            {statement}
            durations.append(clock() - start)
    else:
        for _ in range(n):
            start = clock()
            for _ in steps:
                {statement}
            durations.append(clock() - start)
    return durations
"""


def statement(
    text: str,
    names: dict[str, Any],
    output: str = "y",
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    tolerance: float = TOLERANCE,
) -> Stepper:
    """A stepper of a Python statement, compiled into the timed loop as by ``timeit``; it may assign to ``names``.

    ``context`` is entered once, outside the timed part.
    """
    names = {"y": None, **names}
    times, idle = _loop(text, names), _loop("pass", {"y": None})

    def times_in_context(n: int, block: int) -> ArrayLike:
        with context():
            return times(n, block)

    return Stepper(times_in_context, idle, lambda: names[output], tolerance=tolerance)


def _loop(text: str, names: dict[str, Any]) -> Times:
    source = LOOPS.format(statement=text, names=", ".join(names))
    names["clock"] = time.perf_counter_ns
    exec(source, names)
    times: Times = names["times"]
    return times


def time_steps(
    contenders: Mapping[str, Stepper | Missing],
    effort: Effort,
    expected: ArrayLike | None = None,
    counts: tuple[int, int] = SINGLES,
) -> dict[str, Figure]:
    """Microseconds per step of all contenders. Their first outputs must agree with ``expected`` (T, ...).

    ``counts``: steps that are timed one by one, at least and at most.
    """
    present = {name: c for name, c in contenders.items() if isinstance(c, Stepper)}
    for name, stepper in present.items():
        if expected is not None and stepper.output is not None:
            for expected_t in np.asarray(expected):
                stepper.times(1, 1)
                y = stepper.output()
                y = np.asarray(y.numpy() if hasattr(y, "numpy") else y)
                require_close(name, y.reshape(expected_t.shape), expected_t, stepper.tolerance)
    plans = {name: _plan(stepper, effort, counts) for name, stepper in present.items()}
    singles: dict[str, list[Array]] = {name: [] for name in present}
    blocks: dict[str, list[Array]] = {name: [] for name in present}
    cores = CoreShare()
    for name in round_robin(present, effort):
        stepper, plan = present[name], plans[name]
        stepper.times(1, plan.warm)
        with cores.of(name, stepper.cpu):
            singles[name].append(np.asarray(stepper.times(plan.singles, 1), float) - plan.clock)
            if plan.block == 1:
                blocks[name].append(singles[name][-1])
                continue
            blocks[name].append((np.asarray(stepper.times(plan.blocks, plan.block), float) - plan.loop) / plan.block)
    figures = {}
    for name, entry in contenders.items():
        if isinstance(entry, Missing):
            figures[name] = Figure(None, entry.reason)
            continue
        durations = np.concatenate(singles[name]) / 1e3
        figures[name] = Figure(
            float(np.median(np.concatenate(blocks[name]))) / 1e3,
            cores.note(name, entry.note, f"{len(durations)} single steps"),
            [float(np.median(block)) / 1e3 for block in blocks[name]],
            percentiles=_percentiles(durations),
        )
    return figures


def _percentiles(durations: Array) -> dict[str, float]:
    known = {label: p for label, p in PERCENTILES.items() if p == 100 or len(durations) * (1 - p / 100) >= 0.999}
    return {label: float(np.percentile(durations, p)) for label, p in known.items()}


@dataclass(frozen=True)
class _Plan:
    """One round: the number of steps of each kind, and the nanoseconds that clock and loop take themselves."""

    warm: int
    singles: int
    blocks: int
    block: int
    clock: float
    loop: float


def _plan(stepper: Stepper, effort: Effort, counts: tuple[int, int]) -> _Plan:
    def steps_in(seconds: float, minimum: int, maximum: int) -> int:
        return int(min(max(minimum, seconds / cost), maximum))

    cost = float(np.asarray(stepper.times(1, 1))[0]) / 1e9
    if cost < SLOW:
        cost = float(np.median(np.asarray(stepper.times(5, 3), float))) / 3e9
    share = effort.seconds / 2
    at_least = min(counts[0], int(effort.seconds * 8000))
    singles = steps_in(share, -(-at_least // effort.rounds), -(-counts[1] // effort.rounds))
    block = steps_in(BLOCK_SECONDS, 1, BLOCK)
    blocks = steps_in(share / block, 2, 500)
    clock, loop = (float(np.median(np.asarray(stepper.idle(1000, size), float))) for size in (1, block))
    return _Plan(steps_in(share / 5, 1, 10_000), singles, blocks, block, clock, loop)
