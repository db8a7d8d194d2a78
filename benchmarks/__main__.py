# SPDX-License-Identifier: MIT
"""`python -m benchmarks`: measure every row in a separate process, then print a table."""

from __future__ import annotations

import argparse
import sys

from benchmarks import run
from benchmarks.all_rows import all_rows, select
from benchmarks.rows.learn import draw


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, and list, measure or run rows. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names, or prefixes of names (@1: one thread); none: all short rows")
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    run.add_options(parser)
    parser.add_argument("--picture", metavar="FILE", help="draw the curves of the learn row there (needs matplotlib)")
    parser.add_argument("--row", metavar="LABEL", help=argparse.SUPPRESS)  # for the child processes
    options = parser.parse_args(arguments)
    rows = all_rows()
    if options.list:
        for row in rows:
            print(f"{row.label:26} {row.unit}{'  (only when named)' if row.long else ''}")
        return 0
    if options.row:
        print(run.here(next(row for row in rows if row.label == options.row), options.quick))
        return 0
    results, failed = run.measure(select(rows, options.rows, options.quick), options)
    if options.picture is not None:
        curves = {name: f.curve for row, figures in results if row.name == "learn" for name, f in figures.items()}
        draw({name: curve for name, curve in curves.items() if curve}, options.picture)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
