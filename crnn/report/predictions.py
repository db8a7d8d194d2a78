# SPDX-License-Identifier: MIT
"""Sections about models of whole sequences: confusion matrix, forecasts, predicted numbers."""

from __future__ import annotations

import math

from crnn.report.charts import Band, Curve, legend, line_chart, scatter_chart
from crnn.report.elements import Content, by_run, by_time, chosen, figure
from crnn.report.heat_map import LEVELS, heat_scale
from crnn.report.markup import Markup, join, tag
from crnn.report.runs import Entry, ReportRun
from crnn.report.scales import is_drawable, number

__all__ = ["confusion", "forecasts", "values"]

LONG_LABEL = 4  # characters; longer ones are turned if they would make the matrix wide
LONGEST_LABEL = 30  # in a sentence
MOST_CONFUSIONS = 3  # named in a sentence
_DATA = {"valid": "validation data", "train": "training data"}


# ---- classes ---------------------------------------------------------------------------------------------------------


def confusion(content: Content) -> Markup | None:
    """Which classes are taken for which."""

    def draw(run: ReportRun) -> Markup | None:
        entries = chosen([entry for entry in run.kinds["confusion"] if entry["labels"]], content.snapshots)
        return by_time(run, [(entry, _matrix(entry)) for entry in entries]) if entries else None

    return by_run(content, draw)


def _matrix(entry: Entry) -> Markup:
    labels, counts = entry["labels"], entry["counts"]
    corner = tag("th", tag("span", "true ↓"), " ", tag("span", "predicted →"), class_="corner")
    names = [tag("th", tag("span", label), scope="col", title=label) for label in labels]
    head = tag("tr", corner, names, tag("th", "right", scope="col", class_="side"))
    rows = []
    for place, (label, row) in enumerate(zip(labels, counts, strict=True)):
        total = sum(row)
        cells = [_cell(count, total, diagonal=place == column) for column, count in enumerate(row)]
        recall = f"{100 * row[place] / total:.0f} %" if total else number(None)
        name = tag("th", tag("span", label), scope="row", title=label)
        rows.append(tag("tr", name, cells, tag("td", recall, class_="side")))
    upright = " upright" * (max(map(len, labels)) > LONG_LABEL and len(labels) > 4)
    table = tag("table", tag("thead", head), tag("tbody", rows), class_=f"confusion{upright}")
    scroll = tag("div", table, class_="scroll", tabindex=0, role="group", aria_label="Confusion matrix")
    scale = heat_scale("0", "100 % of a row", [f"c{level}" for level in range(LEVELS)])
    return join([tag("p", _confusions(entry)), scroll, tag("p", scale, class_="note")])


def _cell(count: int, total: int, *, diagonal: bool) -> Markup:
    level = min(int(LEVELS * count / total), LEVELS - 1) if total else 0
    classes = f"c{level}" + " hit" * diagonal
    return tag("td", number(count) if count else "", class_=classes)


def _confusions(entry: Entry) -> str:
    """How many predictions are right, and the most frequent errors."""
    labels, counts = entry["labels"], entry["counts"]
    total, right = sum(map(sum, counts)), sum(row[place] for place, row in enumerate(counts))
    if not total:
        return "No predictions."
    text = f"{number(right)} of {number(total)} right ({100 * right / total:.1f} %), on {_data(entry)}."
    wrong = [
        (-count, place, column)
        for place, row in enumerate(counts)
        for column, count in enumerate(row)
        if count and place != column
    ]
    if wrong:
        most = sorted(wrong)[:MOST_CONFUSIONS]
        named = [f"{_label(labels[a])} taken for {_label(labels[b])} ({number(-count)})" for count, a, b in most]
        text += f" Most frequent errors: {', '.join(named)}."
    return text


def _label(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[:LONGEST_LABEL]}…"


def _data(entry: Entry) -> str:
    return _DATA.get(entry["data"], str(entry["data"]))


# ---- series and numbers ----------------------------------------------------------------------------------------------


def forecasts(content: Content) -> Markup | None:
    """Series, how they continued, and what was forecast."""

    def draw(run: ReportRun) -> Markup | None:
        entries = chosen([entry for entry in run.kinds["forecast"] if entry["series"]], content.snapshots)
        if not entries:
            return None
        banded = any("lower" in series for entry in entries for series in entry["series"])
        names = [Curve("truth", [], [], 6), Curve("forecast", [], [], run.index if run.index != 6 else 0)]
        note = tag("span", "shaded: between the lowest and the highest quantile") if banded else None
        parts = [(entry, _series(entry, run)) for entry in entries]
        return join([tag("p", legend(names), note, class_="legend"), by_time(run, parts)])

    return by_run(content, draw)


def _series(entry: Entry, run: ReportRun) -> Markup:
    index = run.index if run.index != 6 else 0
    charts = []
    for series in entry["series"]:
        start = len(series["history"])
        history, truth, predicted = series["history"], series["truth"], series["predicted"]
        later = range(start, start + len(truth))
        seen = history[-1:]  # the lines begin where the history ends
        curves = [
            Curve("truth", range(start + len(truth)), [*history, *truth], 6, weight=1.4),
            Curve("forecast", range(start - len(seen), later.stop), [*seen, *predicted], index, weight=2.2),
        ]
        bands = [Band(later, series["lower"], series["upper"], index)] if {"lower", "upper"} <= series.keys() else []
        name = f"{series['name']}: mean absolute error {number(_mean_error(truth, predicted), 3)}"
        chart = line_chart(
            name, curves, x_label="step", bands=bands, verticals=[(start - len(seen), "")] if start else [], height=150
        )
        charts.append(figure(series["name"], chart, f"mean absolute error {number(_mean_error(truth, predicted), 3)}"))
    return join([tag("p", f"On {_data(entry)}.", class_="note"), tag("div", charts, class_="grid")])


def _mean_error(truth: list[float], predicted: list[float]) -> float | None:
    errors = [abs(a - b) for a, b in zip(truth, predicted, strict=True) if is_drawable(a) and is_drawable(b)]
    return sum(errors) / len(errors) if errors else None


def values(content: Content) -> Markup | None:
    """Predicted and true numbers."""

    def draw(run: ReportRun) -> Markup | None:
        entries = chosen([entry for entry in run.kinds["values"] if entry["truth"]], content.snapshots)
        return by_time(run, [(entry, _scatter(entry, run)) for entry in entries]) if entries else None

    return by_run(content, draw)


def _scatter(entry: Entry, run: ReportRun) -> Markup:
    truth, predicted = entry["truth"], entry["predicted"]
    chart = scatter_chart(
        "Prediction and truth", truth, predicted, x_label="truth", y_label="prediction", group=run.index
    )
    pairs = [(a, b) for a, b in zip(truth, predicted, strict=True) if is_drawable(a) and is_drawable(b)]
    text = f"{number(len(truth))} values, on {_data(entry)}."
    if pairs:
        error = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))
        mean = sum(a for a, _ in pairs) / len(pairs)
        spread = math.sqrt(sum((a - mean) ** 2 for a, _ in pairs) / len(pairs))
        text += f" Root mean square error {number(error, 3)}"
        text += f", standard deviation of the truth {number(spread, 3)}."
    return join([tag("p", text), tag("div", chart, class_="square")])
