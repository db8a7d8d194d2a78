# SPDX-License-Identifier: MIT
"""Measures rows, each in a separate process, and writes what came out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.base.measure import QUICK, THOROUGH, Figure
from benchmarks.base.processes import python
from benchmarks.base.row import Row, Setting


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that measures rows."""
    parser.add_argument("--quick", action="store_true", help="smoke test with few samples; figures are rough")
    parser.add_argument("--json", metavar="FILE", help="write all samples and the environment to this file")
    parser.add_argument("--markdown", metavar="FILE", help="write the table and the environment to this file")


def here(row: Row, quick: bool) -> str:
    """The figures of a row, measured in this process, as JSON."""
    setting = Setting(row.threads, QUICK if quick else THOROUGH, quick)
    return json.dumps({name: asdict(figure) for name, figure in row.run(setting).items()})


def measure(rows: list[Row], options: Any) -> tuple[list[report.Result], int]:
    """Measure rows in separate processes, print the table and write the files. Returns results, and how many failed."""
    about = report.environment()
    print(report.describe(about), flush=True)
    results: list[report.Result] = []
    for number, row in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {row.label}", file=sys.stderr, flush=True)
        try:
            output = python(["-m", "benchmarks", "--row", row.label, *["--quick"] * options.quick], row.threads)
        except RuntimeError as error:  # its traceback is on standard error; continue with the other rows
            print(error, file=sys.stderr)
            continue
        figures = {name: Figure(**figure) for name, figure in json.loads(output.splitlines()[-1]).items()}
        results.append((row, figures))
        _write(about, results, options)  # now: a run of an hour that is stopped keeps its rows
    print(report.table(report.with_scaling(results)))
    return results, len(rows) - len(results)


def _write(about: dict[str, Any], results: list[report.Result], options: Any) -> None:
    """Write the results so far to the files that the options name."""
    results = report.with_scaling(results)
    if options.json is not None:
        rows = [report.as_json(*result) for result in results]
        document = {"environment": about, "quick": options.quick, "rows": rows}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        Path(options.markdown).write_text(report.markdown(about, results), encoding="utf-8")
