# SPDX-License-Identifier: MIT
"""`python -m benchmarks`: every row in a process of its own, then a table."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import QUICK, THOROUGH, Figure
from benchmarks.processes import python
from benchmarks.rows import Row, Setting, all_rows, select


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help="rows, or the beginnings of their names; all short ones if none")
    parser.add_argument("--list", action="store_true", help="show the rows and stop")
    parser.add_argument("--quick", action="store_true", help="a smoke run: does everything work? Figures are rough")
    parser.add_argument("--json", metavar="FILE", help="write all samples and the environment there")
    parser.add_argument("--picture", metavar="FILE", help="draw the learn row's curves there (needs matplotlib)")
    parser.add_argument("--row", metavar="LABEL", help=argparse.SUPPRESS)  # the child's part: measure and print
    chosen = parser.parse_args(arguments)
    rows = all_rows()
    if chosen.list:
        for row in rows:
            print(f"{row.label:18} {row.unit}{'  (only when named)' if row.only_named else ''}")
        return 0
    if chosen.row:
        row = next(row for row in rows if row.label == chosen.row)
        setting = Setting(row.threads, QUICK if chosen.quick else THOROUGH, chosen.quick)
        print(json.dumps({name: asdict(figure) for name, figure in row.run(setting).items()}))
        return 0
    return run(select(rows, chosen.rows, chosen.quick), chosen.quick, chosen.json, chosen.picture)


def run(rows: list[Row], quick: bool, json_path: str | None, picture_path: str | None) -> int:
    from benchmarks import report

    about = report.environment()
    print(report.describe(about), flush=True)
    results: list[report.Result] = []
    failed = 0
    for number, row in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {row.label}", file=sys.stderr, flush=True)
        try:
            output = python(["-m", "benchmarks", "--row", row.label, *["--quick"] * quick], row.threads)
        except RuntimeError as error:  # its traceback is on standard error; the others go on
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
        from benchmarks.learn import picture

        curves = {name: f.curve for row, figures in results if row.name == "learn" for name, f in figures.items()}
        picture({name: curve for name, curve in curves.items() if curve}, picture_path)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
