# SPDX-License-Identifier: MIT
"""`python -m benchmarks.latency`: how long one inference takes, for models of the shapes that finance audits.

The rows are those of rows/latency.py. They have the shapes of STAC-ML's published model cards, and nothing else of that
benchmark: they are not audited, and not results of it.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import run
from benchmarks.all_rows import all_rows
from benchmarks.rows.latency import SHAPES


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and measure. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; if none, all")
    run.add_options(parser)
    options = parser.parse_args(arguments)
    if unknown := set(options.shapes) - set(SHAPES):
        parser.error(f"SHAPE: expected some of {', '.join(SHAPES)}, got {min(unknown)!r}")
    chosen = options.shapes or SHAPES
    rows = [row for row in all_rows() if row.name.split("-")[:2] in [["latency", name] for name in chosen]]
    _, failed = run.measure(rows, options)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
