# SPDX-License-Identifier: MIT
"""Charts as SVG, for a page and for notebooks: they fill the width that there is, with text of one size.

Positions are percentages of the plot. Lines are in an inner drawing of 1000 by 1000 units that is stretched to it, with
strokes that are not. Colours are CSS variables with fallbacks that are legible on white and on black; text and grid
have the colour of the surrounding text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crnn.report.markup import Child, Markup, join, tag
from crnn.report.scales import Scale, is_drawable, number, scale_of, thinned

__all__ = ["Band", "Curve", "Mark", "colour", "legend", "line_chart", "scatter_chart", "swatch"]

# Distinguishable with any colour vision, and with a contrast of 3 or more on white and on black. A page has others.
FALLBACKS = ("#3a80c0", "#d4651f", "#1f9474", "#a868a0", "#a5821a", "#6d7ad6", "#7c868e", "#c4566a")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # of the second, third and fourth curves of one colour
MOST_POINTS = 600  # of a curve
ALL_POINTS = 6000  # of all curves of a chart, if they are many
FEWEST_POINTS = 20  # of one of them


def colour(index: int) -> str:
    """The colour of a run or curve, as a value in CSS."""
    return f"var(--crnn-{index % len(FALLBACKS)},{FALLBACKS[index % len(FALLBACKS)]})"


@dataclass(frozen=True)
class Curve:
    """A line through points in order of x, interrupted where y is not finite.

    ``group`` is a CSS class, such as that of a run, by which a page can hide it; ``weight`` the width of the line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dash: str = ""
    weight: float = 1.8
    group: str | None = None


@dataclass(frozen=True)
class Mark:
    """A ring around a point, such as the best epoch; ``label`` is for a legend."""

    x: float
    y: float
    label: str
    colour: int = 0
    group: str | None = None


@dataclass(frozen=True)
class Band:
    """The area between two curves, such as quantiles."""

    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: int = 0


@dataclass(frozen=True)
class _Plot:
    """The axes of a chart, and positions on it in percent and in units of the inner drawing."""

    x: Scale
    y: Scale

    def percent(self, x: float, y: float) -> tuple[str, str]:
        return _percent(self.x(x)), _percent(1 - self.y(y))

    def inner(self, x: float, y: float) -> str:
        return f"{1000 * self.x(x):.1f} {1000 * (1 - self.y(y)):.1f}".replace(".0 ", " ").removesuffix(".0")

    def shows(self, x: object, y: object) -> bool:
        """Whether a point is a number on both axes."""
        return self.x.has(x) and self.y.has(y)


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str = "",
    y_label: str = "",
    log: bool = False,
    marks: Iterable[Mark] = (),
    bands: Sequence[Band] = (),
    verticals: Sequence[tuple[float, str]] = (),
    zero: bool = False,
    height: int = 220,
) -> Markup:
    """Curves over a common axis.

    Parameters
    ----------
    title : str
        For those who cannot see it.
    curves : list of Curve
        Thinned to what a screen can show; lowest and highest values stay.
    log : bool
        A logarithmic axis for y. Values that are not positive are not drawn then.
    marks, bands, verticals
        Rings, areas behind the curves, and vertical lines (x, label).
    zero : bool
        The axis for y includes 0. That for x always does.
    height : int
        Of the plot, in pixels.
    """
    most = min(MOST_POINTS, max(FEWEST_POINTS, ALL_POINTS // max(len(curves), 1)))
    thin = [Curve(c.name, *thinned(c.x, c.y, most), c.colour, c.dash, c.weight, c.group) for c in curves]
    limits = [value for band in bands for value in (*band.low, *band.high)]
    ys = [value for curve in thin for value in curve.y] + limits + [0.0] * zero
    plot = _Plot(scale_of([0.0, *(value for curve in thin for value in curve.x)], whole=True), scale_of(ys, log=log))
    inside = [_band(plot, band) for band in bands] + [_line(plot, curve) for curve in thin]
    drawn = [
        _axes(plot, x_label, y_label),
        [_vertical(plot, x, label) for x, label in verticals if plot.x.low <= x <= plot.x.high],
        _stretched(*inside),
        [_lonely_points(plot, curve) for curve in thin],
        [_mark(plot, mark) for mark in marks if plot.shows(mark.x, mark.y)],
    ]
    return _frame(title, _described(thin), drawn, plot, height, labelled=bool(y_label), x_label=x_label)


def scatter_chart(
    title: str, x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, group: int = 0, height: int = 280
) -> Markup:
    """Points, with the diagonal on which x = y. Both axes are the same."""
    axis = scale_of([*x, *y])
    plot = _Plot(axis, axis)
    points = [pair for pair in zip(x, y, strict=True) if plot.shows(*pair)]
    style = f"fill:{colour(group)};fill-opacity:.55"
    circles = [tag("circle", cx=left, cy=top, r=2.6) for left, top in (plot.percent(*pair) for pair in points)]
    diagonal = tag("line", x1="0%", y1="100%", x2="100%", y2="0%", style=_stroke(0.45) + ";stroke-dasharray:4 3")
    drawn = [_axes(plot, x_label, y_label), diagonal, tag("g", circles, style=style)]
    text = f"{len(points)} points; on the diagonal, {x_label} = {y_label}"
    return _frame(title, text, drawn, plot, height, labelled=True, x_label=x_label)


def legend(curves: Iterable[Curve], marks: Iterable[Mark] = (), *, neutral: bool = False) -> list[Markup]:
    """The names of curves and marks, each after a piece of it; if ``neutral``, of any colour."""
    lines = [tag("span", swatch(None if neutral else curve.colour, curve.dash), curve.name) for curve in curves]
    return lines + [tag("span", swatch(mark.colour, ring=True), mark.label) for mark in marks]


def swatch(index: int | None, dash: str = "", *, ring: bool = False) -> Markup:
    """A short piece of a curve, or the ring of a mark; without an index in the colour of text."""
    style = f"fill:none;stroke:{'currentColor' if index is None else colour(index)};stroke-width:{2 if ring else 2.2}"
    style += f";stroke-dasharray:{dash}" if dash else ""
    shape = tag("circle", cx=6, cy=6, r=4.5, style=style) if ring else tag("line", x1=0, y1=6, x2=22, y2=6, style=style)
    place = "vertical-align:-1px;margin-right:.45em;overflow:visible"
    return tag("svg", shape, width=12 if ring else 22, height=12, aria_hidden="true", style=place)


# ---- parts of a chart ------------------------------------------------------------------------------------------------


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}".rstrip("0").rstrip(".") + "%"


def _stroke(opacity: float) -> str:
    return f"stroke:currentColor;stroke-opacity:{opacity};stroke-width:1"


def _frame(title: str, text: str, drawn: Child, plot: _Plot, height: int, *, labelled: bool, x_label: str) -> Markup:
    """The chart around what has been drawn. Labels of the axes are in its margins."""
    widest = max((len(label) for _, label in plot.y.ticks()), default=1)
    svg = tag(
        "svg",
        tag("desc", text),
        drawn,
        role="img",
        aria_label=f"{title}. {text}",
        style=f"display:block;width:100%;height:{height}px;overflow:visible;font:12px system-ui,sans-serif",
        data_x0=f"{plot.x.low:.8g}",
        data_x1=f"{plot.x.high:.8g}",
        data_x=x_label,
    )
    margins = f"{26 if labelled else 8}px 14px 38px {max(14 + 7 * widest, 46)}px"
    return tag("div", svg, class_="chart", style=f"padding:{margins};font-variant-numeric:tabular-nums")


def _axes(plot: _Plot, x_label: str, y_label: str) -> Markup:
    """Grid, ticks, and the names of the axes: that of y above its ticks, where it can be read without turning."""
    faint, text = "fill:currentColor;fill-opacity:.72", []
    lines = []
    for value, label in plot.y.ticks():
        top = _percent(1 - plot.y(value))
        lines.append(tag("line", x1="0", x2="100%", y1=top, y2=top, style=_stroke(0.14)))
        text.append(tag("text", label, x=-8, y=top, dy=4, text_anchor="end"))
    for value, label in plot.x.ticks():
        place = plot.x(value)
        anchor = "end" if place > 0.97 else "middle"
        text.append(tag("text", label, x=_percent(place), y="100%", dy=17, text_anchor=anchor))
        lines.append(tag("line", x1=_percent(place), x2=_percent(place), y1="100%", y2="100%", style=_stroke(0.5)))
    lines.append(tag("line", x1="0", x2="100%", y1="100%", y2="100%", style=_stroke(0.5)))
    if x_label:
        text.append(tag("text", x_label, x="50%", y="100%", dy=33, text_anchor="middle"))
    if y_label:
        text.append(tag("text", y_label, x=0, y=-11))
    return join([tag("g", lines, shape_rendering="crispEdges"), tag("g", text, style=faint)])


def _stretched(*children: Markup) -> Markup:
    return tag(
        "svg",
        *children,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
        style="overflow:visible",
    )


def _line(plot: _Plot, curve: Curve) -> Markup:
    """A path, with its values for a pointer to read."""
    pieces, pen_is_down = [], False
    for x, y in zip(curve.x, curve.y, strict=True):
        visible = plot.shows(x, y)
        if visible:
            pieces.append(("L" if pen_is_down else "M") + plot.inner(x, y))
        pen_is_down = visible
    style = f"fill:none;stroke:{colour(curve.colour)};stroke-width:{curve.weight}"
    return tag(
        "path",
        d="".join(pieces),
        vector_effect="non-scaling-stroke",
        style=style + (f";stroke-dasharray:{curve.dash}" if curve.dash else ""),
        stroke_linejoin="round",
        class_=curve.group,
        data_name=curve.name,
        data_x=_positions(curve.x),
        data_y=",".join(f"{y:.4g}" for y in curve.y),
    )


def _positions(x: Sequence[float]) -> str:
    """The positions of points: a list, or "start:step"."""
    step = x[1] - x[0] if len(x) > 2 else 0
    if step and all(value == x[0] + place * step for place, value in enumerate(x)):
        return f"{x[0]:.12g}:{step:.12g}"
    return ",".join(f"{value:.12g}" for value in x)


def _lonely_points(plot: _Plot, curve: Curve) -> Markup | None:
    """A dot for a curve of one point, which no line shows."""
    points = [pair for pair in zip(curve.x, curve.y, strict=True) if plot.shows(*pair)]
    if len(points) != 1:
        return None
    left, top = plot.percent(*points[0])
    return tag("circle", cx=left, cy=top, r=3, style=f"fill:{colour(curve.colour)}", class_=curve.group)


def _band(plot: _Plot, band: Band) -> Markup:
    points = [
        (x, low, high)
        for x, low, high in zip(band.x, band.low, band.high, strict=True)
        if plot.shows(x, low) and plot.shows(x, high)
    ]
    upper = [plot.inner(x, high) for x, _, high in points]
    lower = [plot.inner(x, low) for x, low, _ in reversed(points)]
    path = "M" + "L".join(upper + lower) + "Z" if points else ""
    return tag("path", d=path, style=f"fill:{colour(band.colour)};fill-opacity:.2")


def _mark(plot: _Plot, mark: Mark) -> Markup:
    left, top = plot.percent(mark.x, mark.y)
    style = f"fill:none;stroke:{colour(mark.colour)};stroke-width:2"
    return tag("circle", cx=left, cy=top, r=4.5, style=style, class_=mark.group)


def _vertical(plot: _Plot, x: float, label: str) -> Markup:
    left = _percent(plot.x(x))
    line = tag("line", x1=left, x2=left, y1="0%", y2="100%", style=_stroke(0.45) + ";stroke-dasharray:3 3")
    text = tag("text", label, x=left, y="0%", dx=5, dy=10, style="fill:currentColor;fill-opacity:.72")
    return join([line, text])


def _described(curves: Sequence[Curve]) -> str:
    """What the curves show, in words."""
    parts = []
    for curve in curves:
        finite = [y for y in curve.y if is_drawable(y)]
        if finite:
            first, last, lowest = (number(y) for y in (finite[0], finite[-1], min(finite)))
            parts.append(f"{curve.name}: from {first} to {last}, lowest {lowest}")
    return "; ".join(parts) or "no values yet"
