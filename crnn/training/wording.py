# SPDX-License-Identifier: MIT
"""How reporters word the figures of a run: as a line, as the text next to a bar, as times."""

from __future__ import annotations

from crnn.report.scales import duration
from crnn.training.progress import Figures

__all__ = ["bar_texts", "progress_line", "sample_text", "short_number", "short_time", "time_left"]

SHORTEST_BAR = 4  # columns
NARROW = 60  # columns of a terminal in which every word counts


def short_time(seconds: float) -> str:
    """Such as 0:05, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_number(value: float) -> str:
    """A count in at most four characters, such as 950, 9.5k, 23k or 1.2M."""
    for unit in ("", "k", "M"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if value >= 9.95 or not unit else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:,.0f}G"


def time_left(figures: Figures, *, short: bool = False) -> str:
    """Such as ``0:12 left``; empty if nothing is left or it is not known."""
    if figures.left is None or figures.ended or figures.update >= figures.updates:
        return ""
    most = "" if not figures.at_most else "<" if short else "at most "
    return f"{most}{short_time(figures.left)} left"


def progress_line(figures: Figures) -> str:
    """A line about a run within an epoch."""
    facts = [f"update {figures.update:,} of {figures.updates:,}"]
    if figures.loss is not None:
        facts.append(f"loss {figures.loss:.4f}")
    if figures.best is not None:
        facts.append(f"best valid {figures.best['valid_loss']:.4f} in epoch {figures.best['epoch']:,}")
    if figures.grad_norm is not None:
        facts.append(f"gradient norm {figures.grad_norm:.3g}")
    if figures.speed is not None:
        facts.append(f"{figures.speed:,.0f} {figures.counted}/s")
    if figures.ended:
        facts += [figures.ended, f"took {duration(figures.seconds)}"]
    elif left := time_left(figures):
        facts.append(left)
    return f"epoch {figures.epoch:,} of {figures.epochs:,}: {', '.join(facts)}"


def bar_texts(figures: Figures, width: int) -> tuple[str, str]:
    """What stands before and after the bar in a terminal of so many columns: what fits, the most important first."""
    narrow = width < NARROW
    before = f"{'' if narrow else 'epoch '}{figures.epoch:,}/{figures.epochs:,}"
    before += f" {figures.update / max(figures.updates, 1):4.0%}"
    room = width - len(before) - len(" || ") - SHORTEST_BAR
    long = _fitting(_fields(figures, short=False), room, ", ")
    short = _fitting(_fields(figures, short=True), room, " ")
    return before, " ".join(short) if len(short) > len(long) else ", ".join(long)


def _fields(figures: Figures, *, short: bool) -> list[tuple[int, str]]:
    """What is shown next to a bar, in order, each with the number of others that are more important."""
    fields = [(5, f"{figures.update:,}/{figures.updates:,}")]
    if figures.loss is not None:
        fields.append((0, f"loss {figures.loss:.3f}"))
    if figures.best is not None:
        fields.append((2, f"best {figures.best['valid_loss']:.3f}"))
    if figures.speed is not None:
        counted = "tok" if short and figures.counted == "tokens" else figures.counted
        fields.append((3, f"{short_number(figures.speed) if short else f'{figures.speed:,.0f}'} {counted}/s"))
    if figures.grad_norm is not None:
        fields.append((4, f"{'' if short else 'gradient '}norm {figures.grad_norm:.{2 if short else 3}g}"))
    if figures.evaluating:
        fields.append((1, "evaluating"))
    elif figures.ended:
        reason = "" if short or figures.ended == "finished" else f"{figures.ended}, "
        fields.append((1, f"{reason}took {duration(figures.seconds)}"))
    elif left := time_left(figures, short=short):
        fields.append((1, left))
    return fields


def _fitting(fields: list[tuple[int, str]], room: int, separator: str) -> list[str]:
    """The most important fields that fit into a number of columns; in order."""
    shown: set[str] = set()
    for _, text in sorted(fields):
        room -= len(text) + len(separator) * bool(shown)
        if room < 0:
            break
        shown.add(text)
    return [text for _, text in fields if text in shown]


def sample_text(prompt: str, text: str) -> str:
    """A sample on separate lines, indented, without characters that would control a terminal."""
    lines = (prompt + text).splitlines() or [""]
    plain = ["".join(each if each.isprintable() else "\ufffd" for each in line.expandtabs()) for line in lines]
    return "\n".join(["sample:", *(f"    {line}" for line in plain)])
