# SPDX-License-Identifier: MIT
"""What a forecaster forecasts for the series of a table, and how good it is from several origins."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crnn.cli.common import say
from crnn.cli.results import to_json
from crnn.cli.tables.known import saved_options
from crnn.cli.tables.series import SeriesColumns, SeriesTable, add_role_flags, columns_of, read_series
from crnn.cli.tables.table import TableError

__all__ = ["add_forecast_flags", "evaluation_of", "forecasts"]


def add_forecast_flags(parser: argparse._ActionsContainer) -> None:
    """Add the options of forecasts that are not those of tables of sequences."""
    parser.add_argument("--horizon", type=int, help="steps to forecast; the horizon of the model if not given")
    add_role_flags(parser)


def series_for(model: Any, path: Path, arguments: argparse.Namespace) -> SeriesTable:
    """The series of a table, with the columns that a model was trained on unless others are named."""
    saved = saved_options(model)
    given = columns_of(arguments, saved)

    def texts(name: str) -> tuple[str, ...]:
        value = saved.get(name)
        return tuple(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else ()

    def text(name: str) -> str | None:
        value = saved.get(name)
        return value if isinstance(value, str) else None

    columns = SeriesColumns(
        given.id or text("id"),
        given.time or text("time"),
        given.target or texts("target"),
        given.past or texts("past"),
        given.future or texts("future"),
        given.reading,
    )
    table = read_series(path, columns)
    say(table.describe())
    return table


def forecasts(model: Any, arguments: argparse.Namespace) -> str:
    """The forecasts as CSV, or with ``--json`` as objects."""
    table = None if arguments.data is None else series_for(model, arguments.data, arguments)
    levels = tuple(sorted(arguments.quantile)) or None
    n = _steps(model, table, arguments.horizon)
    ahead = saved_options(model).get("future")
    if table is None and ahead:
        raise TableError(f"data: expected a table with rows ahead of {', '.join(map(str, ahead))}, got none")
    if table is None:
        found = model.forecast(n, quantiles=levels, threads=arguments.threads)
        names = list(saved_options(model).get("target") or [])
        ids = None
    else:
        series, past, future = table.given(ahead=n)
        found = model.forecast(n, series, past, future, quantiles=levels, threads=arguments.threads)
        names, ids = list(table.columns.target), [each.id for each in table.series] if table.columns.id else None
    several = isinstance(found, list)
    values = [np.asarray(each).reshape(n, -1, len(levels or [0])) for each in (found if several else [found])]
    P = values[0].shape[1]
    names = names if len(names) == P else [f"forecast_{number}" for number in range(1, P + 1)]
    if several and ids is None:
        ids = [str(number) for number in range(1, len(values) + 1)]
    rows = list(_rows(table, values, ids))
    header = _header(table, names, levels, several=several)
    if arguments.json:
        return "".join(to_json(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    out = io.StringIO()
    tab = arguments.output is not None and arguments.output.suffix.lower() in (".tsv", ".tab")
    writer = csv.writer(out, delimiter="\t" if tab else ",", lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _steps(model: Any, table: SeriesTable | None, horizon: int | None) -> int:
    """How many steps to forecast. Raises TableError if the table does not say what is known ahead of them."""
    if table is None or not table.columns.future:
        return int(model.get_params()["horizon"]) if horizon is None else horizon
    known = min(each.ahead for each in table.series)
    n = known if horizon is None else horizon
    if known < max(n, 1):
        columns = ", ".join(table.columns.future)
        raise TableError(
            f"{table.name}: expected {max(n, 1):,} rows after the last target, with the columns that are known ahead "
            f"({columns}), got {known:,}"
        )
    return n


def _header(
    table: SeriesTable | None, names: Sequence[str], levels: Sequence[float] | None, *, several: bool
) -> list[str]:
    """The names of the columns of forecasts."""
    columns = None if table is None else table.columns
    header = [(columns and columns.id) or "series"] if several else []
    header.append((columns and _is_even(table) and columns.time) or "step")
    return header + [name if levels is None else f"{name}_q{level:g}" for name in names for level in levels or [0]]


def _is_even(table: SeriesTable | None) -> bool:
    """Whether forecasts have times."""
    return table is not None and table.has_times and all(each.axis is not None for each in table.series)


def _rows(table: SeriesTable | None, values: Sequence[Any], ids: Sequence[str] | None) -> Iterator[list[Any]]:
    """A row for each step of each series."""
    even = _is_even(table)
    for i, of_series in enumerate(values):
        for step, row in enumerate(of_series, 1):
            start: list[Any] = [] if ids is None else [ids[i]]
            time = table.series[i].time_ahead(step) if even and table is not None else step
            yield [*start, time, *row.reshape(-1).tolist()]


def evaluation_of(model: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """How good forecasts from several origins in a table would have been, and those of the seasonal naive forecast."""
    (path,) = arguments.text
    table = series_for(model, path, arguments)
    series, past, future = table.given()
    options = {"origins": arguments.origins} if arguments.origins is not None else {}
    found = model.backtest(
        series, arguments.horizon, past=past, future=future, threads=arguments.threads, progress=False, **options
    )
    return {
        "horizon": found.horizon,
        "origins": len(found.origins),
        "season": found.season,
        "rmse": found.rmse,
        "mae": found.mae,
        "naive_rmse": found.naive.rmse,
        "naive_mae": found.naive.mae,
    }
