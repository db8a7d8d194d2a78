# SPDX-License-Identifier: MIT
"""Notebook: progress as an output of HTML that is changed in place, and stays in the saved notebook as it was last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from crnn.report.markup import Markup, tag
from crnn.report.notebook import BOX, FAINT, curves_html
from crnn.report.scales import duration
from crnn.training.entries import Entry
from crnn.training.kernel import current_cell
from crnn.training.log import TrainingLog
from crnn.training.progress import Figures
from crnn.training.wording import progress_line, time_left

__all__ = ["Notebook"]

REFRESH = 0.5  # seconds between two states
POINTS = 120  # of a curve, while it changes

_ROW = "display:flex;flex-wrap:wrap;gap:0 1.6em;font-variant-numeric:tabular-nums;white-space:nowrap"
_TRACK = "height:6px;border-radius:3px;background:rgba(128,128,128,.28);margin:.3em 0 .4em"
_SAMPLE = "white-space:pre-wrap;font-family:monospace;margin:.4em 0;padding:.4em .8em"
_SAMPLE += ";border-left:3px solid rgba(128,128,128,.4)"


class Notebook:
    """Shows an output of the current cell, and changes it at most every `REFRESH` seconds."""

    def __init__(self, log: TrainingLog) -> None:
        self._log = log
        self._output: Any = None  # IPython's handle of the output
        self._notes: list[str] = []
        self._sample = ""

    def start(self, figures: Figures) -> float:
        return self.show(figures)

    def show(self, figures: Figures) -> float:
        self._display(figures, self._thinned())
        return REFRESH

    def _thinned(self) -> list[Entry]:
        """Entries for a curve that costs the same however long the log is."""
        entries = self._log.of_kind("run")[-1:]
        for kind in ("train", "epoch"):
            of_kind = self._log.of_kind(kind)
            entries += of_kind[:: len(of_kind) // POINTS + 1]
        return entries + ([] if self._log.best is None else [self._log.best])

    def epoch(self, seconds: float, figures: Callable[[], Figures]) -> None:
        pass

    def note(self, text: str) -> None:
        self._notes.append(text)

    def sample(self, prompt: str, text: str) -> None:
        self._sample = prompt + text

    def aside(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def close(self, figures: Figures) -> None:
        self._display(figures, self._log.entries)
        self._log.drawn_in = current_cell()

    def _display(self, figures: Figures, entries: list[Entry]) -> None:
        """Show the present state. A front end that does not show HTML gets a line of text."""
        bundle = {"text/html": str(self._html(figures, entries)), "text/plain": progress_line(figures)}
        with contextlib.suppress(Exception):  # a front end that fails does not stop training
            if self._output is None:
                from IPython import display

                show: Any = display.display
                self._output = show(bundle, raw=True, display_id=True)
            else:
                self._output.update(bundle, raw=True)

    def _html(self, figures: Figures, entries: list[Entry]) -> Markup:
        done = 100 * figures.update / max(figures.updates, 1)
        bar = tag("div", style=f"height:100%;border-radius:3px;background:#3a80c0;width:{done:.1f}%")
        facts = _facts(figures)
        row = [tag("span", tag("span", f"{name} ", style=FAINT), value) for name, value in facts]
        return tag(
            "div",
            tag("div", _headline(figures)),
            tag("div", bar, style=_TRACK),
            tag("div", row, style=_ROW),
            curves_html(entries) if entries else None,
            [tag("div", note, style=FAINT) for note in self._notes],
            tag("div", self._sample, style=_SAMPLE) if self._sample else None,
            style=BOX,
        )


def _headline(figures: Figures) -> str:
    parts = [f"epoch {figures.epoch:,} of {figures.epochs:,}", f"update {figures.update:,} of {figures.updates:,}"]
    if figures.ended:
        parts += [figures.ended, duration(figures.seconds)]
    elif figures.evaluating:
        parts.append("evaluating")
    elif left := time_left(figures):
        parts.append(left)
    return " · ".join(parts)


def _facts(figures: Figures) -> list[tuple[str, str]]:
    """Names and values below the bar."""
    best = figures.best
    facts = {
        "loss": None if figures.loss is None else f"{figures.loss:.4f}",
        "best valid": None if best is None else f"{best['valid_loss']:.4f} (epoch {best['epoch']:,})",
        "gradient norm": None if figures.grad_norm is None else f"{figures.grad_norm:.3g}",
        f"{figures.counted}/s": None if figures.speed is None else f"{figures.speed:,.0f}",
    }
    return [(name, value) for name, value in facts.items() if value is not None]
