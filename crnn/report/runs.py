# SPDX-License-Identifier: MIT
"""ReportRun: the entries of one run's log, sorted by kind, as sections draw them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from crnn.report.charts import DASHES, FALLBACKS, Curve, Mark
from crnn.report.scales import number

__all__ = ["Entry", "ReportRun", "loss_label", "speed_label"]

SPEEDS = 60  # points of the curve of speed

Entry: TypeAlias = Mapping[str, Any]


class ReportRun:
    """The entries of a log, and the place of their run on a page.

    Parameters
    ----------
    name : str
    entries : sequence of dict
        As a `crnn.TrainingLog` has them, in their order. They are all that is known of the run.
    index : int
        Place among the runs of a page, which determines the colour.
    alone : bool
        Whether it is the only run. Its curves then have different colours.

    Attributes
    ----------
    kinds : dict of str to list
        The entries of each kind.
    """

    def __init__(self, name: str, entries: Sequence[Entry], index: int = 0, *, alone: bool = True) -> None:
        self.name: str = name
        self.index: int = index
        self.alone: bool = alone
        self.kinds: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            self.kinds[entry["kind"]].append(entry)

    @property
    def group(self) -> str:
        """The CSS class of everything that is of this run."""
        return f"run-{self.index}"

    @property
    def dash(self) -> str:
        """Dashes that distinguish the run's curves from those of an earlier run of the same colour."""
        return DASHES[self.index // len(FALLBACKS) % len(DASHES)]

    @property
    def start(self) -> Entry:
        """The last entry of kind "run", empty if there is none: the log may be a table."""
        return self.last("run") or {}

    @property
    def started(self) -> str:
        """When training began, in UTC; empty if that is unknown."""
        return str(self.kinds["run"][0]["started"]) if self.kinds["run"] else ""

    @property
    def resumed(self) -> list[int]:
        """The updates after which it was resumed."""
        return [entry["update"] for entry in self.kinds["run"][1:]]

    @property
    def end(self) -> Entry | None:
        """How training ended; None if it has not, or has been resumed since."""
        end, start = self.last("end"), self.last("run")
        return None if end is None or (start is not None and start["update"] > end["update"]) else end

    def last(self, kind: str) -> Entry | None:
        """The last entry of a kind."""
        return self.kinds[kind][-1] if self.kinds[kind] else None

    @property
    def best(self) -> Entry | None:
        """The epoch with the lowest validation loss."""
        evaluated = [entry for entry in self.kinds["epoch"] if math.isfinite(entry.get("valid_loss", math.nan))]
        return min(evaluated, key=lambda entry: float(entry["valid_loss"]), default=None)

    @property
    def kept_epoch(self) -> int | None:
        """The epoch whose weights are kept, if training has ended and it is not the last epoch."""
        end = self.end
        return end["best_epoch"] if end is not None and end["best_epoch"] != end["epoch"] else None

    def shows_kept(self, entry: Entry) -> bool:
        """Whether an entry is of the weights that are kept and not of those after the last epoch."""
        end, last = self.end, self.last(entry["kind"])
        made_at_end = end is not None and last is not None and last["update"] == entry["update"] == end["update"]
        same_time = [each for each in self.kinds[entry["kind"]] if each["update"] == entry["update"]]
        return self.kept_epoch is not None and made_at_end and (len(same_time) < 2 or entry is not same_time[0])

    def when(self, entry: Entry) -> str:
        """When an entry was made, and of which weights it is."""
        if self.shows_kept(entry):
            return f"at the end, with the weights of epoch {self.kept_epoch}"
        if not entry["update"]:
            return "before training"
        epochs = self.kinds["epoch"]
        ended = any(each["update"] == entry["update"] for each in epochs[entry["epoch"] - 1 : entry["epoch"]])
        ended = ended or not epochs  # a log without them says no more
        return f"after epoch {entry['epoch']}" if ended and entry["epoch"] else f"after update {entry['update']:,}"

    @property
    def seconds(self) -> float:
        """Duration of the training."""
        times = [float(entry["seconds"]) for entry in self.kinds["train"]]
        return sum(time for time in times if math.isfinite(time))

    @property
    def counted(self) -> str:
        """What the losses are averages over: tokens or targets."""
        return str(self.start.get("counted", "tokens"))

    # ---- curves ---------------------------------------------------------------------------------------------------

    def curve(self, field: str, label: str, kind: str = "train", *, colour: int = 0, dash: str = "") -> Curve | None:
        """One field of all entries of a kind, over the updates; None if no entry has it."""
        entries = [entry for entry in self.kinds[kind] if field in entry]
        if not entries:
            return None
        if field == "tokens_per_second":
            entries = _averaged(entries, field)
        x, y = [float(entry["update"]) for entry in entries], [float(entry[field]) for entry in entries]
        if self.alone:
            return Curve(label, x, y, colour, dash, group=self.group)
        return Curve(f"{self.name}, {label}", x, y, self.index, dash or self.dash, group=self.group)

    def loss_curves(self) -> list[Curve]:
        """Training and validation loss; if there are several runs, the former is dashed."""
        valid = self.curve("valid_loss", "validation", "epoch", colour=1)
        train = self.curve("train_loss", "training", dash="" if self.alone or valid is None else "2 3")
        return [curve for curve in (train, valid) if curve is not None]

    def best_mark(self) -> Mark | None:
        """The epoch whose weights are kept."""
        best = self.best
        if best is None:
            return None
        label = f"best: {number(best['valid_loss'])}, epoch {best['epoch']}"
        return Mark(best["update"], best["valid_loss"], label, 1 if self.alone else self.index, self.group)


def _averaged(entries: Sequence[Entry], field: str) -> list[Entry]:
    """The speed over several entries each, at most `SPEEDS` in all: the time of a few short updates varies much."""
    size = -(-len(entries) // SPEEDS)
    averaged: list[Entry] = []
    for first in range(0, len(entries), size):
        group = entries[first : first + size]
        seconds = sum(float(entry["seconds"]) for entry in group)
        speed = sum(entry["tokens"] for entry in group) / seconds if seconds > 0 else math.nan
        averaged.append({"update": group[-1]["update"], field: speed})
    return averaged


def speed_label(runs: Sequence[ReportRun]) -> str:
    """The name of the axis for speeds."""
    return " or ".join(f"{counted}/s" for counted in dict.fromkeys(run.counted for run in runs))


def loss_label(runs: Sequence[ReportRun]) -> str:
    """The name of the axis for losses."""
    units = {run.start.get("unit") for run in runs}
    unit = units.pop() if len(units) == 1 else ""
    counted = " or ".join(dict.fromkeys(run.counted.removesuffix("s") for run in runs))
    return f"loss, {unit} per {counted}" if unit else "loss"
