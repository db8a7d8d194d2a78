# SPDX-License-Identifier: MIT
"""Results as an aligned table, and the environment in which they were measured."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from benchmarks.base.latency import PERCENTILES
from benchmarks.base.measure import OURS, Figure
from benchmarks.base.processes import THREAD_VARIABLES, UNSET, call
from benchmarks.base.row import Row, available_cores
from benchmarks.contenders.peak import measured_peak

Result = tuple[Row, dict[str, Figure]]

HEADER = ("row", "threads", "contender", "figure", "ours / theirs", "goal", "", "note")
LIBRARIES = ("numpy", "torch", "jax", "jaxlib", "onnxruntime", "onnx", "openvino", "ai-edge-litert", "threadpoolctl")
BUSY = 0.5  # load average from which the machine counts as busy

SCALING = "crnn, one thread"
SCALING_GOAL = 0.9  # of the cores: 1.8 on two


def environment() -> dict[str, Any]:
    """What the figures depend on, as values that JSON can hold."""
    import crnn

    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    seen = (*UNSET, *THREAD_VARIABLES, "CRNN_ISA", "CRNN_DATA")
    return {
        "cpu": _cpu(),
        "cores": available_cores(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "peak": call(measured_peak),  # of one core, in GFLOP/s; None without a C compiler
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "crnn": crnn.__version__,
        "crnn.isa()": crnn.isa(),
        "versions": versions,
        "variables": {name: os.environ[name] for name in seen if name in os.environ},
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe(about: dict[str, Any]) -> str:
    """The environment as text."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    variables = ", ".join(f"{name}={value}" for name, value in about["variables"].items()) or "none"
    busy = about["load"] is not None and about["load"][0] > BUSY
    peak = f"{about['peak']:.0f} GFLOP/s" if about["peak"] else "not measured (no C compiler)"
    return (
        f"{about['cpu']}, {about['cores']} cores, load {about['load']}, {about['system']}, {about['date']}\n"
        f"multiply-add peak of one core: {peak}\n"
        f"crnn {about['crnn']} on {about['crnn.isa()']}, Python {about['python']}, {versions}\n"
        f"variables here: {variables}\n"
        f"in the measured processes {', '.join(UNSET)} are unset and {', '.join(THREAD_VARIABLES)} are the threads; "
        "1 thread: bound to one core"
        + "\nTHE MACHINE IS BUSY: figures at all cores mean little, the others are rough"
        * busy
    )


def ratio(row: Row, figures: dict[str, Figure], name: str) -> float | None:
    """How many times better crnn is than a contender; None if one of them has no figure."""
    ours, theirs = figures[OURS].value, figures[name].value
    if not ours or not theirs:
        return None
    return theirs / ours if row.lower else ours / theirs


def with_scaling(results: list[Result]) -> list[Result]:
    """Results in which rows at all cores are also compared with crnn on one thread, if that was measured."""
    ours = {row.name: figures[OURS] for row, figures in results if not row.all_cores}
    return [
        (row, figures | {SCALING: Figure(ours[row.name].value)} if row.all_cores and row.name in ours else figures)
        for row, figures in results
    ]


def goal_of(row: Row, name: str) -> float | None:
    """The smallest `ratio` that meets the goal of a row for a contender; None if there is no goal."""
    return SCALING_GOAL * row.threads if name == SCALING else row.goals.get(name)


def verdict(row: Row, figures: dict[str, Figure], name: str) -> str:
    """Either "met" or "MISSED", or empty if there is no goal or no figure."""
    times, goal = ratio(row, figures, name), goal_of(row, name)
    return "" if times is None or goal is None else "met" if times >= goal else "MISSED"


def as_json(row: Row, figures: dict[str, Figure]) -> dict[str, Any]:
    """A row with all samples, as values that JSON can hold."""
    return {
        "row": row.name,
        "threads": row.threads,
        "unit": row.unit,
        "lower_is_better": row.lower,
        "contenders": [
            {
                "name": name,
                **asdict(figure),
                "ratio": None if name == OURS else ratio(row, figures, name),
                "goal": goal_of(row, name),
                "verdict": verdict(row, figures, name),
            }
            for name, figure in figures.items()
        ],
    }


def _lines(results: Iterable[Result]) -> tuple[list[tuple[str, ...]], set[int]]:
    """Header and cells of the table, and the columns that hold numbers; with percentiles if single steps were timed."""
    results = list(results)
    timed = {label for _, figures in results for f in figures.values() for label in f.percentiles}
    tails = [label for label in PERCENTILES if label in timed]
    lines: list[tuple[str, ...]] = [(*HEADER[:4], *tails, *HEADER[4:])]
    for row, figures in results:
        for number, (name, figure) in enumerate(figures.items()):
            times, goal = ratio(row, figures, name) if name != OURS else None, goal_of(row, name)
            lines.append(
                (
                    "" if number else row.name,
                    "" if number else str(row.threads),
                    name,
                    f"{_short(figure.value)} {row.unit}" if figure.value is not None else "-",
                    *(_short(figure.percentiles[tail]) if tail in figure.percentiles else "" for tail in tails),
                    f"{times:.2f}" if times is not None else "",
                    f"{goal:.2f}" if goal is not None else "",
                    verdict(row, figures, name),
                    figure.note,
                )
            )
    return lines, {1, *range(3, 6 + len(tails))}


def table(results: Iterable[Result]) -> str:
    """Aligned text: one line per contender, crnn first in each row."""
    lines, numbers = _lines(results)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    cells = [f"{{:{'>' if column in numbers else '<'}{width}}}" for column, width in enumerate(widths)]
    layout = "  ".join([*cells, "{}"])
    return "\n".join(layout.format(*line).rstrip() for line in lines)


def markdown(about: dict[str, Any], results: Iterable[Result]) -> str:
    """The environment and the table as Markdown."""
    lines, numbers = _lines(results)
    rule = ["--:" if column in numbers else "---" for column in range(len(lines[0]))]
    rows = [f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:])]
    return "\n".join([*(f"{line}  " for line in describe(about).splitlines()), "", *rows, ""])


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
