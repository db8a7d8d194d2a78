# SPDX-License-Identifier: MIT
"""Sections about language models: samples, and a text coloured by surprisal or by the activity of a hidden unit."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence

from crnn.report.elements import Content, by_run, by_time, chosen
from crnn.report.heat_map import heat_scale
from crnn.report.markup import Child, Markup, join, tag
from crnn.report.runs import Entry, ReportRun
from crnn.report.scales import is_drawable, number

__all__ = ["coloured_text", "samples"]

MOST_SAMPLES = 16
LONGEST_SAMPLE = 3000  # characters
LEVELS = 8  # of colour: ``s1`` to ``s8``, for negative activity ``n1`` to ``n8``; level 0 has none


# ---- samples ---------------------------------------------------------------------------------------------------------


def samples(content: Content) -> Markup | None:
    """Texts that the model wrote as it was trained."""
    most = MOST_SAMPLES if content.snapshots > 1 else 2

    def draw(run: ReportRun) -> Markup | None:
        times: dict[tuple[int, bool], list[Entry]] = {}  # the samples that were made at one time
        for entry in run.kinds["sample"]:
            times.setdefault((entry["update"], run.shows_kept(entry)), []).append(entry)
        parts = chosen(list(times.values()), most)
        return by_time(run, [(each[0], _samples(each)) for each in parts]) if parts else None

    return by_run(content, draw)


def _samples(entries: list[Entry]) -> Markup:
    """The samples of one time; what was made of several sequences side by side."""
    return tag("div", list(map(_sample, entries)), class_="grid" if len(entries) > 1 else None)


def _sample(entry: Entry) -> Markup:
    """A text and its prompt; or with a target, a sequence, what the model made of it, and what it should have made."""
    if "target" in entry:
        parts = {"source": entry["prompt"], "predicted": entry["text"], "target": entry["target"]}
        rows = [tag("div", tag("dt", name), tag("dd", _shortened(text), dir="auto")) for name, text in parts.items()]
        return tag("dl", rows, class_="sample pair")
    made = tag("blockquote", tag("b", entry["prompt"]), _shortened(entry["text"]), class_="sample", dir="auto")
    note = f"temperature {number(entry['temperature'], 2)}" + "; the prompt is bold" * bool(entry["prompt"])
    return join([made, tag("p", note, class_="note")])


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SAMPLE else f"{text[:LONGEST_SAMPLE]}…"


# ---- coloured text ---------------------------------------------------------------------------------------------------


def coloured_text(content: Content) -> Markup | None:
    """Tokens of a text, coloured by how much the model was surprised, or by a hidden unit that the reader chooses."""
    entries = {id(run): _with_text(run, content.snapshots) for run in content.runs}
    highest = _highest([entry for each in entries.values() for entry in each])

    def draw(run: ReportRun) -> Markup | None:
        own = entries[id(run)]
        if not own:
            return None
        parts = by_time(run, [(entry, _text(entry, highest)) for entry in own])
        return join([_controls(own[-1], highest), parts, _without_scripts(own[-1])])

    return by_run(content, draw)


def _with_text(run: ReportRun, most: int) -> list[Entry]:
    return chosen([entry for entry in run.kinds["text"] if entry["tokens"]], most)


def _highest(entries: Sequence[Entry]) -> float:
    """The surprisal with the strongest colour: few are higher."""
    values = sorted(value for entry in entries for value in entry["surprisal"] if is_drawable(value) and value > 0)
    return values[int(0.97 * (len(values) - 1))] if values else 1.0


def _controls(entry: Entry, highest: float) -> Markup:
    """The choice of colours, which scripts show, and what the colours mean."""
    options = [tag("option", "surprisal", value="")]
    options += [tag("option", f"activity of {unit}", value=place) for place, unit in enumerate(entry["units"])]
    choice = tag("label", "Coloured by ", tag("select", options, class_="color-by"), class_="needs-script")
    unit = str(entry["surprisal_unit"])
    return tag(
        "div",
        choice if len(options) > 1 else None,
        heat_scale("0", f"{number(highest, 2)} {unit} or more", [f"s{n}" for n in range(LEVELS + 1)], "by-surprisal"),
        heat_scale("−1", "+1", _signed_levels(), "by-activity"),
        class_="controls",
    )


def _signed_levels() -> list[str]:
    return [f"n{n}" for n in range(LEVELS, 0, -1)] + [f"p{n}" for n in range(LEVELS + 1)]


def _text(entry: Entry, highest: float) -> Markup:
    """The tokens, and for scripts the activity of all units."""

    def level(place: int) -> str:
        value = entry["surprisal"][place]
        if not is_drawable(value):
            return f"s{LEVELS}"
        return f"s{min(max(round(value / highest * LEVELS), 0), LEVELS)}"

    unit = str(entry["surprisal_unit"])
    hints = [f"{number(value, 3)} {unit}" for value in entry["surprisal"]]
    finite = [value for value in entry["surprisal"] if is_drawable(value)]
    mean = f"{number(sum(finite) / len(finite), 3)} {unit} per token on average" if finite else ""
    return join(
        [
            tag(
                "p",
                _spans(entry["tokens"], level, hints),
                class_="tokens",
                dir="auto",
                data_activity=entry["activity"],
                data_scale=json.dumps(entry["scale"], separators=(",", ":")),
            ),
            tag("p", mean, class_="note") if mean else "",
        ]
    )


def _spans(tokens: Sequence[str], level: Callable[[int], str], hints: Sequence[str] | None = None) -> list[Child]:
    """Tokens as they are in the text, which they are together."""
    return [
        tag("span", _visible(token), class_=level(place), title=hints and hints[place])
        for place, token in enumerate(tokens)
    ]


def _visible(token: str) -> str:
    """A token whose end of line can be seen and coloured."""
    return token.replace("\r", "␍").replace("\n", "↵\n")


def _without_scripts(entry: Entry) -> Markup | None:
    """The activity of the first unit, which varies most, for a browser without scripts."""
    if not entry["units"]:
        return None
    count = len(entry["tokens"])
    activity = base64.b64decode(entry["activity"])[:count]

    def level(place: int) -> str:
        signed = activity[place] - 256 * (activity[place] > 127)
        size = round(abs(signed) * LEVELS / 127)
        return f"{'n' if signed < 0 and size else 'p'}{min(size, LEVELS)}"

    text = f"Coloured by the activity of {entry['units'][0]}; with scripts, any unit can be chosen."
    colored = tag("p", _spans(entry["tokens"], level), class_="tokens", dir="auto")
    return tag("noscript", tag("p", text, class_="note"), colored)
