# SPDX-License-Identifier: MIT
"""Heat maps as SVG: rows and columns of coloured cells, with a scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from crnn.report.markup import Markup, tag
from crnn.report.scales import Scale, is_drawable

__all__ = ["LEVELS", "decades", "heat_map", "heat_scale", "level_of"]

LEVELS = 12  # of colour, ``q0`` to ``q11`` in page.css
COLORS = tuple([f"q{level}" for level in range(LEVELS)])
ROW = 15  # height of a row in pixels


def level_of(value: object, scale: Scale) -> int | None:
    """The level of colour of a value; None if it is no number, or 0 on a logarithmic scale."""
    if not scale.has(value):
        return None
    return min(max(int(scale(value) * LEVELS), 0), LEVELS - 1)


def heat_map(
    title: str,
    rows: Sequence[tuple[str, Sequence[float]]],
    columns: Sequence[int],
    scale: Scale,
    *,
    x_label: str,
    y_label: str,
) -> Markup:
    """Cells coloured by their values.

    Parameters
    ----------
    rows : list of (label, values)
        From above to below, one value for each column.
    columns : list of int
        Positions of the columns, in ascending order, for the ticks.
    scale : Scale
        From values to colours.
    """
    cells: dict[int | None, list[str]] = defaultdict(list)
    for top, (_, values) in enumerate(rows):
        for left, value in enumerate(values):
            cells[level_of(value, scale)].append(f"M{left} {top}h1v1h-1z")
    paths = [
        tag("path", d="".join(each), class_="none" if level is None else f"q{level}")
        for level, each in sorted(cells.items(), key=lambda item: -1 if item[0] is None else item[0])
    ]
    width, height = max(len(columns), 1), max(len(rows), 1)
    inner = tag(
        "svg",
        paths,
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
        shape_rendering="crispEdges",
    )
    labels = [
        tag("text", label, x=-8, y=f"{100 * (place + 0.5) / height:.2f}%", dy=4, text_anchor="end")
        for place, (label, _) in enumerate(rows)
    ]
    labels += _column_labels(columns)
    labels.append(tag("text", x_label, x="50%", y="100%", dy=33, text_anchor="middle"))
    labels.append(tag("text", y_label, x=-8, y=-8, text_anchor="end"))
    svg = tag(
        "svg",
        inner,
        tag("g", labels, style="fill:currentColor;fill-opacity:.72"),
        role="img",
        aria_label=title,
        style=f"display:block;width:100%;height:{ROW * height}px;overflow:visible;font:12px system-ui,sans-serif",
    )
    margin = max(14 + 7 * max((len(label) for label, _ in rows), default=0), 52)
    style = f"padding:26px 14px 38px {margin}px;font-variant-numeric:tabular-nums"
    return tag("div", svg, class_="chart heat", style=style)


def _column_labels(columns: Sequence[int]) -> list[Markup]:
    """About five of the positions, below the middle of their columns."""
    step = max(1, -(-len(columns) // 5))
    marked = list(range(0, len(columns), step))
    if marked and len(columns) - 1 - marked[-1] > step / 2:
        marked.append(len(columns) - 1)
    return [
        tag("text", columns[n], x=f"{100 * (n + 0.5) / len(columns):.2f}%", y="100%", dy=17, text_anchor="middle")
        for n in marked
    ]


def heat_scale(low: str, high: str, classes: Sequence[str] = COLORS, use: str = "") -> Markup:
    """The colours of these CSS classes, between what the first and the last mean. ``use`` is a class of the whole."""
    boxes = tag("span", [tag("i", class_=each) for each in classes], class_="scale", aria_hidden="true")
    ends = tag("span", low, class_="low"), tag("span", high, class_="high")
    return tag("span", ends[0], boxes, ends[1], class_=f"heat-scale {use}".rstrip())


def decades(values: Sequence[float], most: float = 1e8) -> Scale:
    """A logarithmic scale of colours for values of which many may be 0 or tiny: to ``most`` below the largest."""
    usable = [value for value in values if is_drawable(value) and value > 1e-90]
    high = max(usable, default=1.0)
    low = max(min(usable, default=0.1), high / most)
    return Scale(low if low < 0.9 * high else high / 10, high, log=True)
