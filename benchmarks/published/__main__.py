# SPDX-License-Identifier: MIT
"""`python -m benchmarks.published`: train a model on a task, and print its result and the published figure.

A run that was interrupted, or killed, continues where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.published.data import NoData
from benchmarks.published.table import row, table
from benchmarks.published.tasks import TASKS, Task
from benchmarks.published.work import OtherSettings, Work, results_in

FOLDER = Path("build", "published")
MOST_THREADS = 2  # the tasks' minutes are those of two cores
NAMES = (*TASKS, "all")


def name_of_task(text: str) -> str:
    """For argparse, whose ``choices`` refuse no task at all before Python 3.12."""
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(NAMES)}, got {text!r}")
    return text


def number_from(lowest: int) -> Callable[[str], int]:
    """For argparse: an integer of at least ``lowest``."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {lowest}, got {text!r}")
        return int(text)

    return number


def new_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tasks", nargs="*", type=name_of_task, metavar="task", help=", ".join(NAMES))
    parser.add_argument(
        "--seed", type=number_from(0), default=0, help="seed of generated data, initial weights and batches"
    )
    parser.add_argument(
        "--threads",
        type=number_from(1),
        default=min(MOST_THREADS, os.cpu_count() or 1),
        help="threads of each training run, on which results do not depend (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=FOLDER,
        help="where checkpoints and results are kept (default: %(default)s)",
    )
    parser.add_argument("--restart", action="store_true", help="start over, and replace what the folder has of a task")
    parser.add_argument(
        "--table", action="store_true", help="print the table of all results in the folder, after those of this run"
    )
    parser.add_argument(
        "--choose",
        action="store_true",
        help="airline, gunpoint, italy: show how the settings were chosen, on the training part only, and exit",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the tasks that the arguments name. Returns 1 if one could not be run, and 128 + the signal that ended it."""
    parser = new_parser()
    chosen = parser.parse_args(arguments)
    if not chosen.tasks and not chosen.table:
        parser.error("expected a task, or --table")
    if not chosen.folder.is_dir() and (chosen.folder.exists() or not chosen.tasks):
        found = f"a file: {chosen.folder}" if chosen.folder.exists() else f"{chosen.folder}, which does not exist"
        parser.error(f"argument --folder: expected a folder{' with results' * (not chosen.tasks)}, got {found}")
    failed = False
    for name in TASKS if "all" in chosen.tasks else dict.fromkeys(chosen.tasks):
        task = TASKS[name]
        try:
            if chosen.choose:
                choose(task, chosen.seed)
            else:
                run(task, chosen)
        except (NoData, OtherSettings, OSError, ValueError) as error:  # data, files of the folder: try the others
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
        except KeyboardInterrupt as interrupt:
            print(f"{name}: {interrupt or 'interrupted'}; the same command continues", file=sys.stderr)
            return getattr(interrupt, "status", 130)
    if chosen.table:
        try:
            print("\n".join(table(results_in(chosen.folder))))
        except (OSError, ValueError) as error:
            print(f"--table: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


def choose(task: Task, seed: int) -> None:
    """Print how the settings of a task were chosen."""
    module = task.load()
    if not hasattr(module, "choose"):
        print(f"{task.name}: nothing to choose; see the module's docstring", file=sys.stderr)
        return
    for line in module.choose(seed):
        print("  " + line, flush=True)


def run(task: Task, chosen: argparse.Namespace) -> None:
    """Run a task and print its report."""
    print(f"{task.name}, seed {chosen.seed}: {task.load().__doc__.splitlines()[0]}", flush=True)
    work = Work(task.name, chosen.seed, threads=chosen.threads, folder=chosen.folder, restart=chosen.restart)
    for line in task.run(work):
        print("  " + line, flush=True)
    print("  " + row(task, work.result))


if __name__ == "__main__":
    sys.exit(main())
