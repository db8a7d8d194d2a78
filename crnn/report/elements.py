# SPDX-License-Identifier: MIT
"""What sections are made of: tables, figures, what belongs to one run, and what changes while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from crnn.report.charts import swatch
from crnn.report.markup import Child, Markup, join, tag
from crnn.report.runs import Entry, ReportRun
from crnn.report.scales import number

__all__ = ["Content", "by_run", "by_time", "chosen", "figure", "folded", "table"]

T = TypeVar("T")


@dataclass(frozen=True)
class Content:
    """What a page shows.

    Attributes
    ----------
    runs : list of ReportRun
    snapshots : int
        At how many times of a run that is shown which changes while it is trained, at most.
    detailed : int
        How many of the runs, from the first, have their own parts, in addition to what all have in common.
    """

    runs: Sequence[ReportRun]
    snapshots: int
    detailed: int

    @property
    def alone(self) -> bool:
        """Whether there is one run only."""
        return len(self.runs) == 1

    @property
    def detailed_runs(self) -> Sequence[ReportRun]:
        """The runs that have their own parts."""
        return self.runs[: self.detailed]


def table(head: Sequence[Child], rows: Iterable[Sequence[Child] | Markup], label: str, class_: str = "") -> Markup:
    """A table in its own scrolling box. Numbers are aligned; the first column names the rows.

    A row that is Markup already is taken as it is.
    """
    header = tag("tr", [tag("th", cell, scope="col") if cell else tag("td") for cell in head])
    body = [row if isinstance(row, Markup) else _row(row) for row in rows]
    content = tag("table", tag("thead", header) if any(head) else None, tag("tbody", body), class_=class_ or None)
    return tag("div", content, class_="scroll", tabindex=0, role="group", aria_label=label)


def _row(cells: Sequence[Child]) -> Markup:
    first, *rest = cells
    shown = [number(cell) if isinstance(cell, int | float) or cell is None else cell for cell in rest]
    first = number(first) if isinstance(first, int | float) else first
    return tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in shown])


def figure(title: str, content: Child, legend: Child = None) -> Markup:
    """A chart with its title above, and a legend next to the title."""
    key = tag("span", legend, class_="legend") if legend else None
    head = tag("figcaption", tag("span", title, class_="title"), key)
    return tag("figure", head, content)


def folded(summary: Child, content: Child) -> Markup:
    """Content that is shown when its summary is clicked."""
    return tag("details", tag("summary", summary), content, class_="folded")


def by_run(content: Content, draw: Callable[[ReportRun], Child]) -> Markup | None:
    """What each run has to show, under its name if there are several; None if none has anything."""
    parts = []
    for run in content.detailed_runs:
        drawn = join(draw(run))
        if drawn:
            head = None if content.alone else tag("h3", swatch(run.index, run.dash), run.name)
            parts.append(tag("article", head, drawn, class_=run.group))
    if not parts:
        return None
    left_out = len(content.runs) - content.detailed
    note = f"Of the other {left_out} runs this is left out, for the page would be too large: show fewer in one page."
    return join([tag("div", parts, class_="runs"), tag("p", note, class_="note") if left_out else None])


def by_time(run: ReportRun, parts: Sequence[tuple[Entry, Child]]) -> Markup:
    """The same at several times, of which the last is open. With scripts, a slider chooses one."""
    last = len(parts) - 1
    if not last:
        return tag("div", tag("p", run.when(parts[0][0]), class_="note"), parts[0][1])
    shown = [
        tag("details", tag("summary", run.when(entry)), each, open=position == last)
        for position, (entry, each) in enumerate(parts)
    ]
    return tag("div", shown, class_="by-time")


def chosen(entries: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of the entries: the first, the last, and of those between more early ones, which differ more.

    Examples
    --------
    >>> chosen(list(range(100)), 5)
    [0, 2, 9, 31, 99]
    """
    count = len(entries)
    if count <= most:
        return list(entries)
    if most == 1:
        return [entries[-1]]
    places = {round(count ** (step / (most - 1))) - 1 for step in range(1, most)} | {0}
    return [entries[place] for place in sorted(places)]
