# SPDX-License-Identifier: MIT
"""Sections about whole runs: summary, curves, settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from crnn.report.charts import Curve, legend, line_chart, swatch
from crnn.report.elements import Content, figure, folded, table
from crnn.report.markup import Child, Markup, join, tag
from crnn.report.runs import Entry, ReportRun, loss_label, speed_label
from crnn.report.scales import duration, is_drawable, number, thinned

__all__ = ["curves", "settings", "summary"]

MOST_ROWS = 200  # of a table of epochs
MOST_NOTES = 50  # of a run
LONGEST_NOTE = 1000  # characters
_IN_EPOCHS = ("train_loss", "valid_loss", "valid_accuracy")
_OWN = (("run", "name"), ("run", "started"))
_DIGEST = re.compile("[0-9a-f]{64}")
LONGEST_VALUE = 400  # characters of a setting


# ---- summary ---------------------------------------------------------------------------------------------------------


def summary(content: Content) -> Markup | None:
    """What was trained, how well, for how long, and what the run says about itself."""
    if content.alone:
        run = content.runs[0]
        return join([_sentence(run), _figures(run), _notes(run)])
    return join([_comparison(content), _common_notes(content)])


def _sentence(run: ReportRun) -> Markup:
    """The model, its data and how training ended."""
    model, data = run.start.get("model", {}), run.start.get("data", {})
    parts: list[Child] = []
    if model:
        text = str(model.get("text") or model.get("kind", "model"))
        parts.append(tag("code", text))
        parameters, targets = model.get("parameters"), data.get("targets")
        known = "parameters" in text or not isinstance(parameters, int)
        parts.append("" if known else f", {number(parameters)} parameters")
        parts.append(f", trained on {number(targets)} {run.counted}. " if isinstance(targets, int) else ". ")
    return tag("p", parts, _ending(run), _averaged(run), class_="lead")


def _ending(run: ReportRun) -> str:
    """How training ended, or how far it is."""
    end, planned = run.end, run.start
    if end is not None:
        kept = f"; the weights of epoch {end['best_epoch']} are kept" if end["best_epoch"] else ""
        return f"Training {_reason(str(end['reason']))}{kept}."
    last = (run.kinds["train"] or run.kinds["epoch"] or [{"update": 0}])[-1]
    if not planned:  # a table does not say how training ended
        return f"The log ends with update {number(last['update'])}."
    of = f" of {number(planned['updates'])}" if planned.get("updates") else ""
    return f"Training has not ended: this page was made after update {number(last['update'])}{of}."


def _averaged(run: ReportRun) -> str:
    """Whose validation losses these are, if weights are averaged."""
    options = run.start.get("options")
    rule = options.get("average") if isinstance(options, dict) else None
    if not isinstance(rule, str):
        return ""
    return f" Validation losses are those of the average of the weights, {rule:.100}, once it has begun."


def _reason(reason: str) -> str:
    return {"interrupted": "was interrupted", "finished": "has finished"}.get(reason, reason)


def _results(run: ReportRun) -> list[tuple[str, str, str]]:
    """Name, value and explanation of each figure of the summary."""
    best, last, train = run.best, run.last("epoch"), run.last("train")
    unit = run.start.get("unit") or ""
    found: list[tuple[str, str, str]] = []
    epoch = best or last
    if best is not None:
        found.append(("validation loss", number(best["valid_loss"]), f"{unit}, epoch {best['epoch']}".lstrip(", ")))
        if unit == "nats" and run.counted == "tokens":
            found.append(("perplexity", number(_exp(best["valid_loss"])), "exp of the validation loss"))
        if "valid_accuracy" in best:
            found.append(("accuracy", f"{100 * best['valid_accuracy']:.1f} %", f"validation, epoch {best['epoch']}"))
    for name, value in (run.end or {}).get("scores", {}).items():
        if name not in _IN_EPOCHS:  # such as test_loss
            shown = f"{100 * value:.1f} %" if name == "test_accuracy" and is_drawable(value) else number(value)
            found.append((str(name).replace("_", " "), shown, "of the weights that are kept"))
    if epoch is not None:
        found.append(("training loss", number(epoch["train_loss"]), f"{unit}, epoch {epoch['epoch']}".lstrip(", ")))
    updates = (train or last or {"update": 0})["update"]
    epochs = len(run.kinds["epoch"])
    found.append(("epochs", number(epochs), f"{number(updates)} updates"))
    seconds = run.seconds
    tokens = sum(entry["tokens"] for entry in run.kinds["train"])
    found.append(("time", duration(seconds), f"{number(tokens / seconds)} {run.counted}/s" if seconds else ""))
    return found


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _figures(run: ReportRun) -> Markup:
    """The figures of one run, large."""
    shown = [
        tag("div", tag("dt", name), tag("dd", value), tag("dd", why, class_="why"))
        for name, value, why in _results(run)
    ]
    return tag("dl", shown, class_="figures")


def _comparison(content: Content) -> Markup:
    """A row of figures for each run."""
    names = list(dict.fromkeys(name for run in content.runs for name, _, _ in _results(run)))
    rows = []
    for run in content.runs:
        values = {name: value for name, value, _ in _results(run)}
        best = run.best
        cells: list[Child] = [values.get(name, number(None)) for name in names]
        state = run.end["reason"] if run.end else "not ended" if run.start else number(None)
        cells += [number(best["epoch"] if best else None), _model_of(run), state]
        head = tag("th", tag("span", swatch(run.index, run.dash), run.name, class_="name"), scope="row")
        rows.append(tag("tr", head, [tag("td", cell) for cell in cells], class_=run.group))
    return table(["run", *names, "best epoch", "model", "training"], rows, "Results of the runs", "results")


def _model_of(run: ReportRun) -> str:
    """Kind and size of a model, briefly."""
    model = run.start.get("model", {})
    config = model.get("config")
    config = config if isinstance(config, dict) else {}
    parts = [model.get("kind", number(None)), config.get("cell")]
    parts.append(" × ".join(str(config[name]) for name in ("num_layers", "hidden_size") if name in config))
    return ", ".join(str(part) for part in parts if part)


def _notes(run: ReportRun) -> Markup | None:
    """What the run says about itself."""
    notes = _notes_of(run)
    return tag("ul", [tag("li", note) for note in notes], class_="remarks") if notes else None


def _notes_of(run: ReportRun) -> list[str]:
    notes = (run.end or {}).get("notes", [])
    more = [f"and {len(notes) - MOST_NOTES:,} more notes"] if len(notes) > MOST_NOTES else []
    return [_shortened(note, LONGEST_NOTE) for note in notes[:MOST_NOTES]] + more


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _common_notes(content: Content) -> Markup | None:
    """What several runs say about themselves: each note once, with the names of the runs."""
    notes: dict[str, list[ReportRun]] = {}
    for run in content.runs:
        for note in _notes_of(run):
            notes.setdefault(note, []).append(run)
    items = []
    for note, runs in notes.items():
        names = [tag("span", swatch(run.index, run.dash), run.name, class_=run.group) for run in runs]
        items.append(tag("li", note, " ", tag("span", names, class_="of")))
    return tag("ul", items, class_="remarks") if items else None


# ---- curves ----------------------------------------------------------------------------------------------------------


def curves(content: Content) -> Markup | None:
    """Losses, and what goes with them, over the updates."""
    loss = [curve for run in content.runs for curve in run.loss_curves()]
    if not loss:
        return None
    marks = [mark for run in content.runs if (mark := run.best_mark()) is not None]
    names = legend(loss, marks) if content.alone else _styles(content)
    label = loss_label(content.runs)

    resumed = [(float(update), "resumed") for update in content.runs[0].resumed] if content.alone else []

    def draw(log: bool) -> Markup:
        return line_chart(
            "Loss", loss, x_label="update", y_label=label, marks=marks, verticals=resumed, log=log, height=300
        )

    small = [
        _small(content, "Accuracy on validation data", "valid_accuracy", "epoch"),
        _small(content, "Learning rate", "lr"),
        _small(content, "Norm of the gradient", "grad_norm", log=True),
        _small(content, f"Speed, {speed_label(content.runs)}", "tokens_per_second"),
    ]
    tables = [
        tag("div", folded(_table_name(content, run), _epochs(run)), class_=run.group)
        for run in content.detailed_runs
        if run.kinds["epoch"]
    ]
    return join([_on_both_scales("Loss", "loss", draw, names), tag("div", small, class_="grid"), tag("div", tables)])


def _table_name(content: Content, run: ReportRun) -> Child:
    return "Epochs as a table" if content.alone else [swatch(run.index, run.dash), run.name, ": epochs as a table"]


def _styles(content: Content) -> Markup:
    """What the curves of every run have in common."""
    valid = any(run.best for run in content.runs)
    parts = [Curve("validation", [], []), Curve("training", [], [], dash="2 3" if valid else "")][0 if valid else 1 :]
    return join(legend(parts, neutral=True))


def _on_both_scales(title: str, key: str, draw: Callable[[bool], Markup], names: Child = None) -> Markup:
    """A figure with a linear and with a logarithmic axis, and a box to choose."""
    box = tag("input", type="checkbox", id=f"log-{key}", class_="log-scale")
    choice = tag("label", box, "logarithmic", for_=f"log-{key}", class_="choice")
    charts = [tag("div", draw(False), class_="linear"), tag("div", draw(True), class_="log")]
    return figure(title, charts, [names, choice])


def _small(content: Content, title: str, field: str, kind: str = "train", *, log: bool = False) -> Markup | None:
    """The chart of one field; None if no run has it."""
    found = [curve for run in content.runs if (curve := run.curve(field, title.lower(), kind)) is not None]
    if not found:
        return None

    def draw(log: bool) -> Markup:
        return line_chart(title, found, x_label="update", log=log, zero=not log, height=160)

    return _on_both_scales(title, field, draw) if log else figure(title, draw(False))


def _epochs(run: ReportRun) -> Markup:
    """All epochs, or if they are many, some of them."""
    epochs, best = run.kinds["epoch"], run.best
    places, _ = thinned(range(len(epochs)), [_loss_of(epoch) for epoch in epochs], MOST_ROWS)
    columns = {"epoch": "epoch", "update": "update", "train_loss": "training loss", "valid_loss": "validation loss"}
    columns |= {"valid_accuracy": "accuracy", "seconds": "time"}
    columns = {name: label for name, label in columns.items() if any(name in epoch for epoch in epochs)}
    rows = []
    for place in places:
        epoch = epochs[int(place)]
        cells: list[Child] = [
            duration(epoch[name]) if name == "seconds" else number(epoch.get(name)) for name in columns
        ]
        body = [tag("th", cells[0], scope="row"), *(tag("td", cell) for cell in cells[1:])]
        sign = "best" if epoch is best else None
        rows.append(tag("tr", body, tag("td", sign), class_=sign))
    made = table([*columns.values(), ""], rows, "Epochs", "epochs")
    return join([made, f"{len(places)} of {number(len(epochs))} epochs." if len(places) < len(epochs) else ""])


def _loss_of(epoch: Entry) -> float:
    return float(epoch.get("valid_loss", epoch["train_loss"]))


# ---- settings --------------------------------------------------------------------------------------------------------


def settings(content: Content) -> Markup | None:
    """What determined the runs: settings, data, machine and version; first what differs between them."""
    values = [_settings_of(run) for run in content.runs]
    names = list(dict.fromkeys(name for each in values for name in each))
    if not names:
        return None
    if content.alone:
        return join([_group(group, values[0]) for group in dict.fromkeys(group for group, _ in names)])
    known = [each for each in values if each]  # a table says nothing about settings
    unknown = number(None)
    differing = [name for name in names if len({each.get(name, unknown) for each in known}) > 1 and name not in _OWN]
    head: list[Child] = ["", *(join([swatch(run.index, run.dash), run.name]) for run in content.runs)]

    def rows(shown: list[tuple[str, str]]) -> list[list[Child]]:
        return [[f"{group}: {name}", *(each.get((group, name), unknown) for each in values)] for group, name in shown]

    first = (
        table(head, rows(differing), "Settings that differ", "settings")
        if differing
        else tag("p", "All settings of these runs are the same.")
    )
    everything = table(head, rows(names), "All settings", "settings")
    return join([tag("h3", "What differs"), first, folded("All settings", everything)])


def _group(group: str, values: Mapping[tuple[str, str], str]) -> Markup:
    rows = [tag("div", tag("dt", name), tag("dd", value)) for (of, name), value in values.items() if of == group]
    return tag("div", tag("h3", group.capitalize()), tag("dl", rows), class_="settings-group")


def _settings_of(run: ReportRun) -> dict[tuple[str, str], str]:
    """All settings of a run as text, by group and name."""
    start = run.start
    if not start:
        return {}
    model = {name: value for name, value in start["model"].items() if name not in ("config", "text")}
    config = start["model"].get("config", {})
    groups: dict[str, Mapping[str, Any]] = {
        "model": model | (config if isinstance(config, dict) else {}),
        "training": {"epochs": start["epochs"], "updates": start["updates"]} | start["options"],
        "data": start["data"],
        "machine": start["machine"],
        "run": {name: start[name] for name in ("name", "started", "crnn")},
    }
    return {
        (group, str(name).replace("_", " ")): _setting(value)
        for group, each in groups.items()
        for name, value in each.items()
    }


def _setting(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else number(None if value == "" else value)
    if _DIGEST.fullmatch(text):
        return f"{text[:12]}…"
    return _shortened(text, LONGEST_VALUE)
