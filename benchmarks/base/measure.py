# SPDX-License-Identifier: MIT
"""Contenders measured in turns, and the figures of each."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

OURS = "crnn"


@dataclass(frozen=True)
class Contender:
    """One way to do a row's work. A call of ``run`` does ``work`` units of it (tokens, GFLOP, ...)."""

    run: Callable[[], object]
    work: float
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """A contender that cannot run on this machine, and why."""

    reason: str


@dataclass(frozen=True)
class Figure:
    """The result of one contender: the median, in the row's unit; None if it could not run (the note says why)."""

    value: float | None
    note: str = ""
    samples: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)  # of the learn row, by epoch
    percentiles: dict[str, float] = field(default_factory=dict)  # of single steps, if they are timed one by one


@dataclass(frozen=True)
class Effort:
    """How long to measure: ``rounds`` samples of about ``seconds`` each for every contender.

    After ``patience`` seconds of a race three rounds are enough, so that a busy machine does not take hours.
    """

    rounds: int
    seconds: float
    patience: float = 60.0


THOROUGH = Effort(rounds=9, seconds=0.25)
QUICK = Effort(rounds=3, seconds=0.03)
PAUSE = 0.01  # seconds before each sample: thread pools of the previous contender keep spinning for a while


def unavailable(*modules: str) -> Missing | None:
    """The reason if any of these modules cannot be imported, else None."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return Missing(f"not installed: {', '.join(absent)}") if absent else None


def round_robin(names: Iterable[str], effort: Effort) -> Iterator[str]:
    """Names in turn, round by round, so that a slow minute of the machine affects all of them alike."""
    names, started = list(names), time.perf_counter()
    for number in range(effort.rounds):
        if number >= 3 and time.perf_counter() - started > effort.patience:
            return
        for name in names:
            time.sleep(PAUSE)
            yield name


class CoreShare:
    """The smallest share of a core that each contender had in any sample."""

    def __init__(self) -> None:
        self.minimum: dict[str, float] = {}

    @contextmanager
    def of(self, name: str, cpu: Callable[[], float] = time.process_time) -> Iterator[None]:
        """Context manager that measures one sample of a contender; ``cpu``: its CPU seconds so far."""
        started, cpu_started = time.perf_counter(), cpu()
        yield
        share = (cpu() - cpu_started) / (time.perf_counter() - started)
        self.minimum[name] = min(self.minimum.get(name, share), share)

    def note(self, name: str, *others: str) -> str:
        """``others``, and a warning if other programs disturbed the contender."""
        share = self.minimum[name]
        return "; ".join(filter(None, (*others, f"DISTURBED: had {share:.0%} of a core" if share < 0.9 else "")))


def race(contenders: Mapping[str, Contender | Missing], effort: Effort) -> dict[str, Figure]:
    """Rates of all contenders, measured in turns.

    A sample is as many calls as fill ``effort.seconds``, after one call that is not timed.
    """
    present = {name: c for name, c in contenders.items() if isinstance(c, Contender)}
    calls = {name: _calls(c, effort.seconds) for name, c in present.items()}
    samples: dict[str, list[float]] = {name: [] for name in present}
    cores = CoreShare()
    for name in round_robin(present, effort):
        contender = present[name]
        contender.run()
        with cores.of(name):
            started = time.perf_counter()
            for _ in range(calls[name]):
                contender.run()
            samples[name].append(calls[name] * contender.work / (time.perf_counter() - started))
    figures = {}
    for name, entry in contenders.items():
        if isinstance(entry, Missing):
            figures[name] = Figure(None, entry.reason)
        else:
            figures[name] = Figure(statistics.median(samples[name]), cores.note(name, entry.note), samples[name])
    return figures


def _calls(contender: Contender, seconds: float) -> int:
    """The number of calls that take about ``seconds`` once warm."""
    contender.run()
    contender.run()
    started, calls = time.perf_counter(), 0
    while calls == 0 or (calls < 1000 and time.perf_counter() - started < seconds / 2):
        contender.run()
        calls += 1
    return max(1, round(calls * seconds / (time.perf_counter() - started)))


def fastest(variants: Mapping[str, Contender]) -> Contender:
    """The fastest of several settings of one peer, by a short trial; its note names it and the slower ones."""
    if len(variants) == 1:
        return next(iter(variants.values()))
    figures = race(variants, Effort(rounds=3, seconds=0.1))
    order = sorted(variants, key=lambda name: -(figures[name].value or 0.0))
    best = variants[order[0]]
    return Contender(best.run, best.work, f"{order[0]} (faster than {', '.join(order[1:])})")
