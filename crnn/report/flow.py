# SPDX-License-Identifier: MIT
"""The section about gradients through time: heat maps, and a sentence that says whether they fade or explode."""

from __future__ import annotations

import math

from crnn.report.elements import Content, by_run, chosen, figure, table
from crnn.report.heat_map import decades, heat_map, heat_scale
from crnn.report.markup import Markup, join, tag
from crnn.report.runs import Entry, ReportRun
from crnn.report.scales import number

__all__ = ["factor_per_step", "gradient_flow", "verdict"]

MOST_ROWS = 16  # epochs in a heat map
LARGE_CHANGE = 100.0  # over all steps: a gradient that changes by more fades or explodes


def gradient_flow(content: Content) -> Markup | None:
    """Norms of the gradient of the loss at the state of each step, by epoch."""
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
                f"{layer}: norm of the gradient by time step and epoch. {verdict(last, place)}",
                [(str(entry["epoch"]), entry["norms"][place]) for entry in shown],
                last["steps"],
                scale,
                x_label="time step t",
                y_label="epoch",
            ),
            heat_scale(f"norm {number(scale.low, 2)}", number(scale.high, 2)) if not place else None,
        )
        for place, layer in enumerate(last["layers"])
    ]
    sentences = [tag("li", verdict(last, place)) for place in range(len(last["layers"]))]
    return join([tag("ul", sentences, class_="verdicts"), tag("div", maps, class_="grid"), _numbers(shown)])


def _same_layers(entry: Entry, other: Entry) -> bool:
    return bool(entry["layers"] == other["layers"] and len(entry["steps"]) == len(other["steps"]))


def factor_per_step(entry: Entry, layer: int) -> float | None:
    """By what the norm of the gradient is multiplied at each step through time, away from the loss.

    That is back in time, and forward for a layer that reads in reverse. None if it cannot be determined.
    """
    norms, steps = entry["norms"][layer], entry["steps"]
    length = abs(steps[-1] - steps[0])
    near, far = (norms[0], norms[-1]) if _is_reverse(entry, layer) else (norms[-1], norms[0])
    if not length or not (math.isfinite(near) and math.isfinite(far)) or near <= 0 or far < 0:
        return None
    return float(math.exp((math.log(far) - math.log(near)) / length)) if far else 0.0


def _is_reverse(entry: Entry, layer: int) -> bool:
    return str(entry["layers"][layer]).endswith("reverse")


def verdict(entry: Entry, layer: int) -> str:
    """Whether the gradients of a layer fade or explode on their way through time, in a sentence."""
    name, factor = str(entry["layers"][layer]), factor_per_step(entry, layer)
    if factor is None:
        return f"{name}: no factor per step, because a norm is 0 or not finite, or there is a single step."
    if not factor:
        return f"{name}: gradients vanish entirely; none is left at the far end of the window."
    length = abs(entry["steps"][-1] - entry["steps"][0])
    total, per_step = factor**length, f"×{number(factor, 3)} per step"  # noqa: RUF001
    if total < 1 / LARGE_CHANGE:
        return f"{name}: gradients fade ({per_step}): half is left after {_steps_for(0.5, factor)} steps."
    if total > LARGE_CHANGE:
        return f"{name}: gradients explode ({per_step}): they double in {_steps_for(2.0, factor)} steps."
    return f"{name}: gradients keep their order of magnitude ({per_step}, ×{number(total, 2)} over {length} steps)."  # noqa: RUF001


def _steps_for(change: float, factor: float) -> str:
    """After how many steps the factor per step has made this change."""
    return number(math.log(change) / math.log(factor), 2)


def _numbers(entries: list[Entry]) -> Markup:
    """Factor, saturation and spectral radius of each layer, before and after training."""
    first, last = entries[0], entries[-1]
    rows = []
    for place, layer in enumerate(last["layers"]):
        cells = [_change(factor_per_step(first, place), factor_per_step(last, place))]
        cells.append(_change(first["saturation"][place], last["saturation"][place], percent=True))
        cells.append(_change(first["spectral_radius"][place], last["spectral_radius"][place]))
        rows.append([str(layer), *cells])
    note = f"Epoch {first['epoch']} → epoch {last['epoch']}." if len(entries) > 1 else ""
    head = ["layer", "factor per step", "saturated units", "spectral radius"]
    return join([table(head, rows, "Gradient flow in numbers"), tag("p", note, class_="note") if note else None])


def _change(before: float | None, after: float | None, *, percent: bool = False) -> str:
    unit, factor = (" %", 100) if percent else ("", 1)
    texts = [number(value if value is None else factor * value, 3) + unit for value in (before, after)]
    return texts[0] if texts[0] == texts[1] else " → ".join(texts)
