# SPDX-License-Identifier: MIT
"""`python -m benchmarks.published`: train a model on a task, and print its result and the published figure."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.published.data import NoData

TASKS = {  # name: module
    "adding": "adding",
    "copy": "copy_memory",
    "addition": "addition",
    "airline": "airline",
    "gunpoint": "gunpoint",
    "italy": "italy",
    "forecasts": "forecasts",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the tasks that the arguments name. Returns 1 if a data file is missing, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("tasks", nargs="+", choices=[*TASKS, "all"], metavar="task", help=", ".join([*TASKS, "all"]))
    parser.add_argument("--seed", type=int, default=0, help="seed of generated data, initial weights and batches")
    parser.add_argument(
        "--choose",
        action="store_true",
        help="airline, gunpoint, italy: show how the settings were chosen, on the training part only, and exit",
    )
    chosen = parser.parse_args(arguments)
    missing = False
    for name in TASKS if "all" in chosen.tasks else dict.fromkeys(chosen.tasks):
        task: Any = import_module(f"benchmarks.published.{TASKS[name]}")
        if chosen.choose and not hasattr(task, "choose"):
            print(f"{name}: nothing to choose; see the module's docstring", file=sys.stderr)
            continue
        print(f"{name}, seed {chosen.seed}: {task.__doc__.splitlines()[0]}", flush=True)
        started = time.perf_counter()
        try:
            for line in task.choose(chosen.seed) if chosen.choose else task.run(chosen.seed):
                print("  " + line, flush=True)
        except NoData as error:  # continue with the others
            print(f"{name}: {error}", file=sys.stderr)
            missing = True
            continue
        print(f"  {time.perf_counter() - started:.0f} s in all")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
