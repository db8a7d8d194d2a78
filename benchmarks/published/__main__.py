# SPDX-License-Identifier: MIT
"""`python -m benchmarks.published`: learn a task with a published figure, and print ours beside it."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from benchmarks.published.data import NoData

TASKS = {  # module and function
    "adding": ("adding", "run"),
    "copy": ("copying", "run"),
    "addition": ("addition", "run"),
    "airline": ("airline", "run"),
    "gunpoint": ("series", "gunpoint"),
    "italy": ("series", "italy"),
}


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 if a task's data was not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("task", choices=[*TASKS, "all"])
    parser.add_argument("--seed", type=int, default=0, help="of the data made here and of the initial weights")
    chosen = parser.parse_args(arguments)
    failed = 0
    for task in TASKS if chosen.task == "all" else [chosen.task]:
        print(f"{task}, seed {chosen.seed}", flush=True)
        start = time.perf_counter()
        try:
            module, function = TASKS[task]
            getattr(importlib.import_module(f"benchmarks.published.{module}"), function)(chosen.seed)
        except NoData as error:
            print(f"  left out: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"  {time.perf_counter() - start:.1f} s", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
