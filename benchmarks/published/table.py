# SPDX-License-Identifier: MIT
"""The table of docs/published.md, from the results of finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.published.tasks import TASKS, Task

HEADER = ("task", "settings", "seed", "minutes (CPU)", "result", "published, or baseline", "goal")


def row(task: Task, result: Mapping[str, Any]) -> str:
    """One line of the table."""
    cells = (
        f"`{task.name}`",
        task.settings,
        str(result["seed"]),
        duration(result),
        result["result"],
        task.published,
        goal(task, result),
    )
    return "| " + " | ".join(cells) + " |"


def duration(result: Mapping[str, Any]) -> str:
    """Wall-clock minutes, and those of the CPU, which do not depend on what else is running."""
    return f"{result['seconds'] / 60:.1f} ({result['cpu_seconds'] / 60:.1f})"


def goal(task: Task, result: Mapping[str, Any]) -> str:
    """The goal, and whether the result meets it."""
    within = f"in {60 * task.minutes:.0f} s" if task.minutes < 1 else f"in {task.minutes:.3g} min"
    if task.goal is None:
        return within
    aim, value = f"{task.goal:g} {within}", result.get("value")
    if value is None:
        return aim
    longer = ", but it took longer" if result["seconds"] > 60 * task.minutes else ""
    return f"{aim}: {'met' if value <= task.goal else 'missed'}{longer}"


def table(results: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of the table, in the order of `TASKS`. Results of tasks that no longer exist are left out."""
    yield "| " + " | ".join(HEADER) + " |"
    yield "|" + "---|" * len(HEADER)
    found = list(results)
    for task in TASKS.values():
        of_task = [result for result in found if result["task"] == task.name]
        yield from (row(task, result) for result in sorted(of_task, key=lambda result: int(result["seed"])))
