# SPDX-License-Identifier: MIT
"""summary_html: a log as a notebook shows it, in HTML without scripts or style sheets."""

from __future__ import annotations

from collections.abc import Sequence

from crnn.report.charts import legend, line_chart
from crnn.report.markup import Markup, join, tag
from crnn.report.runs import Entry, ReportRun, loss_label
from crnn.report.scales import duration, number

__all__ = ["BOX", "FAINT", "curves_html", "epochs_html", "summary_html"]

SHOWN_EPOCHS = 8
BOX = "max-width:46em;font:13px/1.5 system-ui,sans-serif;color:inherit"
FAINT = "opacity:.72"
_CELL = "padding:.15em 0 .15em 1.4em;text-align:right;background:none;border:0"
_LINE = "border:0;border-top:1px solid rgba(128,128,128,.28);background:none"


def summary_html(entries: Sequence[Entry], *, curves: bool = True) -> str:
    """The curve of the loss and a table of the last epochs.

    Parameters
    ----------
    entries : sequence of dict
        As in ``TrainingLog.entries``.
    curves : bool
        If False, the table alone.

    Returns
    -------
    str
        HTML whose colours are legible on light and on dark backgrounds, for ``_repr_html_``.
    """
    run = ReportRun("", entries)
    if not run.kinds["train"] and not run.kinds["epoch"]:
        return tag("div", "No update has been logged yet.", style=BOX)
    above = [_headline(run), curves_html(entries)] if curves else None
    return tag("div", above, epochs_html(entries), style=BOX)


def curves_html(entries: Sequence[Entry], height: int = 170) -> Markup:
    """The losses of training and validation over the updates, with a legend."""
    run = ReportRun("", entries)
    curves, best = run.loss_curves(), run.best_mark()
    marks = [] if best is None else [best]
    names = tag("div", legend(curves, marks), style="display:flex;flex-wrap:wrap;gap:0 1.3em;justify-content:flex-end")
    chart = line_chart("Loss", curves, x_label="update", y_label=loss_label([run]), marks=marks, height=height)
    return join([names, chart])


def epochs_html(entries: Sequence[Entry]) -> Markup | None:
    """A table of the last epochs and the best one; None before the first."""
    run = ReportRun("", entries)
    epochs, best = run.kinds["epoch"], run.best
    if not epochs:
        return None
    shown = epochs[-SHOWN_EPOCHS:]
    if best is not None and best not in shown:
        shown = [best, *shown[1:]]
    columns = {"epoch": "epoch", "update": "update", "train_loss": "train loss", "valid_loss": "valid loss"}
    columns |= {"valid_accuracy": "accuracy", "seconds": "time"}
    columns = {name: label for name, label in columns.items() if any(name in epoch for epoch in shown)}
    head = tag("tr", [tag("th", label, style=f"{_CELL};font-weight:600") for label in columns.values()])
    rows = []
    for epoch in shown:
        style = _CELL + (";font-weight:600" if epoch is best else "")
        cells = [duration(epoch[name]) if name == "seconds" else number(epoch.get(name)) for name in columns]
        best_sign = tag("td", "best" if epoch is best else "", style=f"{_CELL};text-align:left")
        rows.append(tag("tr", [tag("td", cell, style=style) for cell in cells], best_sign, style=_LINE))
    style = "border-collapse:collapse;border:0;font-variant-numeric:tabular-nums;margin:.4em 0;color:inherit"
    return tag("table", tag("thead", head), tag("tbody", rows), style=style)


def _headline(run: ReportRun) -> Markup:
    """Which model, how long, and how it ended."""
    model = run.start.get("model", {})
    parts = [str(model["kind"])] if "kind" in model else []
    epochs, last = len(run.kinds["epoch"]), run.last("train") or run.last("epoch") or {}
    parts += [f"{epochs} epoch{'s' * (epochs != 1)}", f"{last['update']:,} updates", duration(run.seconds)]
    end = run.end
    parts += [str(end["reason"])] if end is not None else []
    notes = [tag("div", note, style=FAINT) for note in (end["notes"] if end is not None else [])]
    return tag("div", tag("div", " · ".join(parts)), notes)
