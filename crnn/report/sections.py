# SPDX-License-Identifier: MIT
"""The sections of a page, in their order. One that has nothing to show of these runs is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crnn.report import flow, language, overview, predictions
from crnn.report.elements import Content
from crnn.report.markup import Markup

__all__ = ["SECTIONS", "Section"]


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; ``draw`` returns None if there is nothing to show."""

    key: str  # id of the element
    title: str
    about: str  # one sentence below the heading
    draw: Callable[[Content], Markup | None]


SECTIONS = (
    Section("summary", "Summary", "", overview.summary),
    Section("curves", "Curves", "", overview.curves),
    Section("samples", "Samples", "What the model writes, as it is trained.", language.samples),
    Section("forecast", "Forecasts", "What was forecast, and what came.", predictions.forecasts),
    Section("values", "Predictions", "Each point is a value; on the diagonal, both are the same.", predictions.values),
    Section("confusion", "Confusion matrix", "How often each class was taken for each other.", predictions.confusion),
    Section(
        "text",
        "Surprisal and hidden units",
        "A text as the model reads it, token by token: how much each one surprised it, and what its hidden units did.",
        language.coloured_text,
    ),
    Section(
        "flow",
        "Gradients through time",
        "The norm of the loss's gradient at the state of each step. What reaches the first steps is what the model can "
        "learn from them.",
        flow.gradient_flow,
    ),
    Section("settings", "Settings", "", overview.settings),
)
