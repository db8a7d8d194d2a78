# SPDX-License-Identifier: MIT
"""The section about gradients through time: heat maps, and a sentence that says whether they fade or explode."""

from __future__ import annotations

import itertools
import math

from crnn.report.elements import Content, by_run, chosen, figure, table
from crnn.report.heat_map import decades, heat_map, heat_scale
from crnn.report.markup import Markup, join, tag
from crnn.report.runs import Entry, ReportRun
from crnn.report.scales import number

__all__ = ["factor_per_step", "gradient_flow", "verdict"]

MOST_ROWS = 16  # times in a heat map
LARGE_CHANGE = 100.0  # over all steps, or
LARGE_FACTOR = 1.05  # per step: a gradient that changes by more fades or explodes


def gradient_flow(content: Content) -> Markup | None:
    """Norms of the gradient of the loss at the state of each step, in the course of training."""
    return by_run(content, _flow_of)


def _flow_of(run: ReportRun) -> Markup | None:
    entries = [entry for entry in run.kinds["gradient_flow"] if entry["norms"] and entry["steps"]]
    if not entries:
        return None
    last = entries[-1]
    shown = [entry for entry in chosen(entries, MOST_ROWS) if _same_layers(entry, last)]
    scale = decades([norm for entry in shown for norms in entry["norms"] for norm in norms])
    maps = [
        figure(
            str(layer),
            heat_map(
                f"{layer}: norm of the gradient by time step and update. {verdict(last, place)}",
                [(_row_name(run, entry), entry["norms"][place]) for entry in shown],
                last["steps"],
                scale,
                x_label="time step t",
                y_label="update",
            ),
            heat_scale(f"norm {number(scale.low, 2)}", number(scale.high, 2)) if not place else None,
        )
        for place, layer in enumerate(last["layers"])
    ]
    sentences = [tag("li", verdict(last, place)) for place in range(len(last["layers"]))]
    return join([tag("ul", sentences, class_="verdicts"), tag("div", maps, class_="grid"), _numbers(run, shown)])


def _same_layers(entry: Entry, other: Entry) -> bool:
    return bool(entry["layers"] == other["layers"] and len(entry["steps"]) == len(other["steps"]))


def factor_per_step(entry: Entry, layer: int) -> float | None:
    """By what the norm of the gradient is multiplied at each step through time, away from the loss.

    That is back in time, and forward for a layer that reads in reverse: the slope of the line that fits the logarithms
    of the norms best, over the steps that a gradient reaches. None if these are fewer than two.
    """
    points = _reached(entry, layer)
    distances = [abs(step - points[0][0]) for step, _ in points]
    logarithms = [math.log(norm) for _, norm in points]
    if len(set(distances)) < 2:
        return None
    middle = sum(distances) / len(distances)
    spread = sum((distance - middle) ** 2 for distance in distances)
    return _exp(sum((d - middle) * value for d, value in zip(distances, logarithms, strict=True)) / spread)


def _reached(entry: Entry, layer: int) -> list[tuple[int, float]]:
    """Steps and norms from the loss on, up to where no gradient is left."""
    return list(itertools.takewhile(lambda point: 0 < point[1] < math.inf, _from_loss(entry, layer)))


def _from_loss(entry: Entry, layer: int) -> list[tuple[int, float]]:
    """Steps and norms in the direction in which the gradient flows."""
    points = list(zip(entry["steps"], entry["norms"][layer], strict=True))
    return points if str(entry["layers"][layer]).endswith("reverse") else points[::-1]


def verdict(entry: Entry, layer: int) -> str:
    """Whether the gradients of a layer fade or explode on their way through time, in a sentence."""
    name, factor = str(entry["layers"][layer]), factor_per_step(entry, layer)
    if factor is None:
        return f"{name}: no factor per step, because gradients of fewer than two steps are finite and not 0."
    length = _length(_reached(entry, layer))
    total, per_step = _exp(length * math.log(factor)), f"×{number(factor, 3)} per step"
    rest = _beyond(entry, layer)
    if factor < 1 and (factor < 1 / LARGE_FACTOR or total < 1 / LARGE_CHANGE or rest == 0):
        lost = f"; after {length} steps nothing is left" if rest == 0 else ""
        return f"{name}: gradients fade ({per_step}): half is left after {_steps_for(0.5, factor)} steps{lost}."
    if factor > 1 and (factor > LARGE_FACTOR or total > LARGE_CHANGE or rest):
        lost = f"; after {length} steps they are not finite" if rest else ""
        return f"{name}: gradients explode ({per_step}): they double in {_steps_for(2.0, factor)} steps{lost}."
    return f"{name}: gradients keep their order of magnitude ({per_step}, ×{number(total, 2)} over {length} steps)."


def _length(points: list[tuple[int, float]]) -> int:
    return abs(points[-1][0] - points[0][0])


def _beyond(entry: Entry, layer: int) -> float | None:
    """The norm at the first step that no gradient reaches: 0, infinity or NaN; None if all are reached."""
    points = _from_loss(entry, layer)
    place = len(_reached(entry, layer))
    return points[place][1] if place < len(points) else None


def _exp(logarithm: float) -> float:
    return math.exp(min(max(logarithm, -700.0), 700.0))


def _steps_for(change: float, factor: float) -> str:
    """After how many steps the factor per step has made this change."""
    return number(math.log(change) / math.log(factor), 2)


def _numbers(run: ReportRun, entries: list[Entry]) -> Markup:
    """Factor, saturation and spectral radius of each layer, before and after training."""
    first, last = entries[0], entries[-1]
    rows = []
    for place, layer in enumerate(last["layers"]):
        cells = [_change(factor_per_step(first, place), factor_per_step(last, place))]
        cells.append(_change(first["saturation"][place], last["saturation"][place], percent=True))
        cells.append(_change(first["spectral_radius"][place], last["spectral_radius"][place]))
        rows.append([str(layer), *cells])
    note = f"{run.when(first)} → {run.when(last)}" if len(entries) > 1 else ""
    head = ["layer", "factor per step", "saturated units", "spectral radius"]
    numbers = table(head, rows, "Gradient flow in numbers", "flow")
    return join([numbers, tag("p", note, class_="note") if note else None])


def _change(before: float | None, after: float | None, *, percent: bool = False) -> str:
    unit, factor, digits = (" %", 100, 2) if percent else ("", 1, 3)
    texts = [number(value if value is None else factor * value, digits) + unit for value in (before, after)]
    return texts[0] if texts[0] == texts[1] else " → ".join(texts)


def _row_name(run: ReportRun, entry: Entry) -> str:
    return "kept" if run.shows_kept(entry) else f"{entry['update']:,}"
