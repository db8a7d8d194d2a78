# SPDX-License-Identifier: MIT
"""write: one HTML page about one or more runs. It is drawn from the entries of their logs, and loads nothing."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from crnn._version import __version__
from crnn.io.atomic_write import PathLike, replacing
from crnn.report.charts import swatch
from crnn.report.elements import Content
from crnn.report.markup import Markup, tag
from crnn.report.runs import Entry, ReportRun
from crnn.report.scales import number
from crnn.report.sections import SECTIONS

__all__ = ["check_replaceable", "is_report", "page", "write"]

LARGEST_PAGE = 2_000_000  # bytes
SNAPSHOTS = (6, 3, 2, 1)  # shown of each run, fewer if the page would be too large
START = '<!doctype html>\n<html lang="en">\n<head>\n<meta name="generator" content="crnn report '  # of every page


def write(path: PathLike, runs: Sequence[tuple[str, Sequence[Entry]]], *, title: str | None = None) -> None:
    """Write a page about runs, side by side.

    Parameters
    ----------
    path : path
        A new file, or a report of crnn, which is replaced as a whole.
    runs : sequence of (name, entries)
        Entries as a `crnn.TrainingLog` has them.
    title : str, optional
        Heading of the page; made of the names of the runs if not given.

    Raises
    ------
    FileExistsError
        The file exists and is no report of crnn.
    OSError
        It cannot be written.
    ValueError, TypeError
        There are no runs, or they are something else; or the name of the file ends in something else than .html.
    """
    check_replaceable("path", path)
    content = page(runs, title=title).encode()
    with replacing(path) as file:
        file.write(content)


def is_report(path: PathLike) -> bool:
    """Whether a file begins as all pages that `write` has written. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return file.read(len(START)) == START.encode()


def check_replaceable(name: str, path: PathLike) -> None:
    """Raise FileExistsError unless a path is that of a new file, an empty one or a report.

    ``name`` is that of the argument. Raises ValueError if it is called otherwise than a page, and OSError if the file
    cannot be read.
    """
    ending = os.path.splitext(os.fsdecode(path))[1]
    if ending.lower() not in ("", ".html", ".htm"):
        raise ValueError(f"{name}: expected a name that ends in .html, for a page in HTML, got {os.fsdecode(path)}")
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(path) and not is_report(path):
            raise FileExistsError(
                f"{name}: expected a new file, or a report of crnn to replace, got another file: {os.fsdecode(path)}"
            )


def _is_named(run: object) -> bool:
    """Whether this is the name of a run and its entries."""
    if not (isinstance(run, tuple | list) and len(run) == 2 and isinstance(run[0], str)):
        return False
    return isinstance(run[1], Sequence) and all(isinstance(entry, Mapping) for entry in run[1])


def page(runs: Sequence[tuple[str, Sequence[Entry]]], *, title: str | None = None) -> str:
    """The page as text, see `write`. The same entries give the same text."""
    if not runs:
        raise ValueError("runs: expected at least one run, got none")
    for index, run in enumerate(runs):
        if not _is_named(run):
            raise TypeError(f"runs[{index}]: expected a name and entries, as in ('a', log.entries), got {run!r:.80}")
    names = _different([name for name, _ in runs])
    made = [
        ReportRun(names[index], entries, index, alone=len(runs) == 1) for index, (_, entries) in enumerate(runs)
    ]
    content: Content | None = Content(made, SNAPSHOTS[0], len(made))
    while content is not None:
        text = _document(content, title or _title(made))
        content = _smaller(content, len(text.encode()))
    return text


def _smaller(content: Content, size: int) -> Content | None:
    """Less of the same runs, of which a page has so many bytes; None if they are not too many, or nothing is less.

    First fewer snapshots of all runs, then those of the first runs only.
    """
    if size <= LARGEST_PAGE:
        return None
    fewer = [each for each in SNAPSHOTS if each < content.snapshots]
    if fewer:  # far too large: no snapshots make up for that
        return replace(content, snapshots=fewer[0] if size < 2 * LARGEST_PAGE else fewer[-1])
    if not content.detailed:
        return None
    return replace(content, detailed=min(content.detailed - 1, content.detailed * LARGEST_PAGE // size))


def _different(names: Sequence[str]) -> list[str]:
    """The names, with numbers added to those that occur repeatedly."""
    counts: dict[str, int] = {}
    different = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        different.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return different


def _title(runs: Sequence[ReportRun]) -> str:
    return _name_of(runs[0]) if len(runs) == 1 else f"{len(runs)} runs"


def _name_of(run: ReportRun) -> str:
    """The name of a run, or of its model's file."""
    saved = os.path.basename(str(run.start.get("name", "")))
    return run.name or saved or str(run.start.get("model", {}).get("kind", "")) or "Training"


# ---- the document ----------------------------------------------------------------------------------------------------


def _document(content: Content, title: str) -> str:
    drawn = [(section, section.draw(content)) for section in SECTIONS]
    shown = [(section, each) for section, each in drawn if each]
    body = [
        _header(content, title, [(section.key, section.title) for section, _ in shown]),
        tag(
            "main",
            [
                tag(
                    "section",
                    tag("h2", section.title, id=f"{section.key}-title"),
                    tag("p", section.about, class_="about") if section.about else None,
                    each,
                    id=section.key,
                    aria_labelledby=f"{section.key}-title",
                )
                for section, each in shown
            ],
            id="content",
        ),
        _footer(content),
        tag("script", Markup(_asset("page.js"))),
    ]
    head = [
        tag("meta", name="generator", content=f"crnn report {__version__}"),
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(_asset("page.css") + _hiding(content))),
    ]
    html = tag("html", "\n", tag("head", "\n", [[each, "\n"] for each in head]), "\n", tag("body", body), lang="en")
    return f"<!doctype html>\n{html}\n"


def _asset(name: str) -> str:
    """A file of this package."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _hiding(content: Content) -> str:
    """The rules that hide what belongs to a run whose box is not checked."""
    rules = [f"body:has(#show-{run.group}:not(:checked)) main .{run.group}{{display:none}}" for run in content.runs]
    return "" if content.alone else "\n".join(rules)


def _header(content: Content, title: str, links: Sequence[tuple[str, str]]) -> Markup:
    values = (("", "system"), ("light", "light"), ("dark", "dark"))
    themes = [tag("option", text, value=value) for value, text in values]
    theme = tag("label", "Theme ", tag("select", themes, id="theme"), class_="theme")
    nav = tag("nav", [tag("a", text, href=f"#{key}") for key, text in links], aria_label="Sections")
    return tag(
        "header",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("div", tag("h1", title), theme, class_="top"),
        tag("p", _subtitle(content, title), class_="subtitle"),
        nav,
        None if content.alone else _boxes(content),
    )


def _subtitle(content: Content, title: str) -> str:
    """Kinds of models, and when training started."""
    kinds = dict.fromkeys(str(run.start["model"].get("kind", "")) for run in content.runs if run.start)
    started = sorted(run.started for run in content.runs if run.started)
    parts = [", ".join(kind for kind in kinds if kind and kind != title)]
    parts += [f"started {_time(started[0])}"] if started else []
    return " · ".join(filter(None, parts))


def _time(text: str) -> str:
    """Such as 2026-11-26 00:18 UTC."""
    return re.sub(r"\A(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?Z\Z", r"\1 \2 UTC", text)


def _boxes(content: Content) -> Markup:
    """A box for each run, which shows or hides it. They are the legend of all charts."""
    boxes = [
        tag(
            "label",
            tag("input", type="checkbox", id=f"show-{run.group}", checked=True),
            swatch(run.index, run.dash),
            run.name,
        )
        for run in content.runs
    ]
    return tag("fieldset", tag("legend", "Runs"), boxes, class_="shown-runs")


def _footer(content: Content) -> Markup:
    count = sum(len(entries) for run in content.runs for entries in run.kinds.values())
    text = f"Made by crnn {__version__} from {number(count)} entries of the log. This page needs no network."
    return tag("footer", tag("p", text))
