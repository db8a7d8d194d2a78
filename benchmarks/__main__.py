# SPDX-License-Identifier: MIT
"""`python -m benchmarks`: measure every row in a separate process, then print a table."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import report
from benchmarks.all_rows import all_rows, select
from benchmarks.base.measure import QUICK, THOROUGH, Figure
from benchmarks.base.processes import python
from benchmarks.base.row import Row, Setting
from benchmarks.rows.learn import draw


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, and list, measure or run rows. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names of rows, or prefixes of them; if none, all short rows")
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    parser.add_argument("--quick", action="store_true", help="smoke test with few samples; figures are rough")
    parser.add_argument("--json", metavar="FILE", help="write all samples and the environment to this file")
    parser.add_argument("--picture", metavar="FILE", help="draw the curves of the learn row there (needs matplotlib)")
    parser.add_argument("--row", metavar="LABEL", help=argparse.SUPPRESS)  # for the child processes
    options = parser.parse_args(arguments)
    rows = all_rows()
    if options.list:
        for row in rows:
            print(f"{row.label:18} {row.unit}{'  (only when named)' if row.long else ''}")
        return 0
    if options.row:
        row = next(row for row in rows if row.label == options.row)
        setting = Setting(row.threads, QUICK if options.quick else THOROUGH, options.quick)
        print(json.dumps({name: asdict(figure) for name, figure in row.run(setting).items()}))
        return 0
    return run(select(rows, options.rows, options.quick), options.quick, options.json, options.picture)


def run(rows: list[Row], quick: bool, json_path: str | None, picture_path: str | None) -> int:
    """Measure rows in separate processes, print the table and write the files. Returns 1 if a row failed, else 0."""
    about = report.environment()
    print(report.describe(about), flush=True)
    results: list[report.Result] = []
    failed = 0
    for number, row in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {row.label}", file=sys.stderr, flush=True)
        try:
            output = python(["-m", "benchmarks", "--row", row.label, *["--quick"] * quick], row.threads)
        except RuntimeError as error:  # its traceback is on standard error; continue with the other rows
            print(error, file=sys.stderr)
            failed += 1
            continue
        figures = {name: Figure(**figure) for name, figure in json.loads(output.splitlines()[-1]).items()}
        results.append((row, figures))
    report.add_scaling(results)
    print(report.table(results))
    if json_path is not None:
        document = {"environment": about, "quick": quick, "rows": [report.as_json(*result) for result in results]}
        Path(json_path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if picture_path is not None:
        curves = {name: f.curve for row, figures in results if row.name == "learn" for name, f in figures.items()}
        draw({name: curve for name, curve in curves.items() if curve}, picture_path)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
