# SPDX-License-Identifier: MIT
"""TrainingLog: the entries of a training run, as dictionaries; written as CSV or as JSON lines."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from crnn._attributes import fixed_attributes
from crnn.io.atomic_write import PathLike, replacing
from crnn.report import summary_html
from crnn.report import write as write_page
from crnn.training.entries import EPOCH_FIELDS, TRAINING_FIELDS, Entry
from crnn.training.kernel import current_cell
from crnn.training.log_file import LogFile, Start, header_of, line_of, read_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Entry", "TrainingLog"]


@fixed_attributes(dict.fromkeys(("unit", "counted", "notes", "drawn_in"), lambda name, value: value))
class TrainingLog:
    """Losses, learning rates, gradient norms and times of one training run.

    Attributes
    ----------
    entries : list of dict
        In chronological order. An entry of ``kind`` "train" is added every ``log_every`` updates, with epoch, update,
        train_loss, tokens, seconds and tokens_per_second since the previous entry, and lr and grad_norm of the last
        update. One of ``kind`` "epoch" has epoch, update, train_loss over the epoch, tokens, seconds of training, and
        with validation data valid_loss and valid_accuracy. `crnn.training.entries` lists the other kinds.
    unit : str
        Unit of the losses: nats per target token or class, or empty for errors of standardized values.
    counted : str
        What losses are means over: "tokens" of a text, or "targets".
    best : dict or None
        The epoch entry with the lowest valid_loss.
    notes : list of str
        What `crnn.fit` said about the run, such as where it resumed, which options differ from the checkpoint's, or
        that its loss was still falling when it ended.

    Examples
    --------
    >>> log = TrainingLog()
    >>> log.add_training(1, 100, 2.5, 6400, 0.1, 1e-3, 0.7)
    >>> log.end_epoch()
    >>> log
    TrainingLog: 1 epoch, 100 updates, train 2.5000 nats, 64,000 tokens/s, 0.1 s
    """

    entries: list[Entry]
    unit: str
    counted: str
    notes: list[str]
    drawn_in: int | None  # the cell of a notebook that shows the curves

    def __init__(self) -> None:
        self.entries = []
        self.unit = "nats"
        self.notes = []
        self.counted = "tokens"
        self.drawn_in = None
        self._figures = _Figures()
        self._validation: Entry = {}
        self._file: LogFile | None = None

    # ---- reading --------------------------------------------------------------------------------------------------

    @classmethod
    def from_file(cls, path: PathLike) -> TrainingLog:
        """The log in a file that ``log_file``, `to_csv` or `to_jsonl` has written; the last run, if it holds several.

        A line at the end that was cut off is left out. A table does not say the unit of its losses, nor has it notes.
        Raises ValueError if the file is not a log, and OSError.
        """
        runs = read_runs(path)
        log = cls()
        log.unit = ""
        log.restore(runs[-1] if runs else [])
        for entry in log.entries:
            log.unit, log.counted = entry.get("unit", log.unit), entry.get("counted", log.counted)
            log.notes = entry.get("notes", log.notes)
        return log

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return self._figures.epochs

    @property
    def updates(self) -> int:
        """Number of updates up to the last entry."""
        return self._figures.updates

    @property
    def last(self) -> Entry | None:
        """The last entry of kind "epoch"; None before the end of the first epoch."""
        return self._figures.last

    @property
    def best(self) -> Entry | None:
        """The epoch entry with the lowest valid_loss, the first if several are equal; None without validation data."""
        return self._figures.best

    @property
    def epochs_since_best(self) -> int:
        """Number of finished epochs after the best one; 0 if none was evaluated."""
        return 0 if self.best is None else self.epochs - int(self.best["epoch"])

    def column(self, name: str, kind: str = "train") -> list[Any]:
        """The values of one field, in all entries of this kind that have it."""
        return [entry[name] for entry in self.entries if entry["kind"] == kind and name in entry]

    def of_kind(self, kind: str) -> list[Entry]:
        """All entries of this kind. Not a copy."""
        return self._figures.by_kind[kind]

    def summary(self, *, width: int | None = None) -> str:
        """One line of text about the last epoch.

        Parameters
        ----------
        width : int, optional
            Columns that a shorter line should fit into, without what a bar below it says.
        """
        last = self.last
        if last is None:
            return "no epoch finished"
        speed = f"{last['tokens'] / max(last['seconds'], 1e-9):,.0f} {self.counted}/s"
        if width is None:
            planned: Entry = (self.of_kind("run") or [{}])[-1]
            epochs, updates = (f" of {planned[name]:,}" if name in planned else "" for name in ("epochs", "updates"))
            norm = self.of_kind("train")[-1].get("grad_norm") if self.of_kind("train") else None
            facts = [*self._losses(last), *([] if norm is None else [f"gradient norm {norm:.3g}"]), speed]
            return f"epoch {last['epoch']:,}{epochs}, update {last['update']:,}{updates}: {', '.join(facts)}"
        shortened = [[*self._losses(last), speed], self._losses(last), self._losses(last, best=False)]
        shortened += [shortened[-1][:2], shortened[-1][:1]]
        lines = [f"epoch {last['epoch']:,}: {', '.join(facts)}" for facts in shortened]
        return next((line for line in lines if len(line) <= width), lines[-1])

    def _losses(self, last: Entry, *, best: bool = True) -> list[str]:
        """What an epoch has reached, and with ``best`` what the best one has."""
        facts = [f"train {last['train_loss']:.4f}" + f" {self.unit}" * bool(self.unit)]
        if "valid_loss" in last:
            found = self.best if best else None
            other = "" if found is None else f" (best {found['valid_loss']:.4f}, epoch {found['epoch']:,})"
            facts.append(f"valid {last['valid_loss']:.4f}" + (" (best)" if last is self.best else other))
        if "valid_accuracy" in last and self.counted != "tokens":
            facts.append(f"accuracy {100 * last['valid_accuracy']:.1f} %")
        return facts

    def __repr__(self) -> str:
        """The extent of the run, its last and best losses, its speed and its notes."""
        return "\n  ".join([f"TrainingLog: {', '.join(self._facts())}", *self.notes])

    def _repr_html_(self) -> str:
        """The losses as curves and a table of the last epochs, for notebooks.

        Without the curves in the cell that has trained, where they are above already.
        """
        drawn = self.drawn_in is not None and self.drawn_in == current_cell()
        return summary_html(self.entries, curves=not drawn)

    def __getstate__(self) -> dict[str, Any]:
        """Without the file, to which only one log appends."""
        return self.__dict__ | {"_file": None}

    def _facts(self) -> list[str]:
        """What `__repr__` says of the run."""
        epochs, last, best = self.epochs, self.last, self.best
        tokens, seconds = (sum(entry[name] for entry in self.of_kind("train")) for name in ("tokens", "seconds"))
        facts = [f"{epochs:,} epoch{'s' * (epochs != 1)}", f"{self.updates:,} update{'s' * (self.updates != 1)}"]
        if last is not None:
            facts.append(f"train {last['train_loss']:.4f}" + f" {self.unit}" * bool(self.unit))
        if best is not None:
            facts.append(f"best valid {best['valid_loss']:.4f} in epoch {best['epoch']:,}")
        if tokens:
            facts += [f"{tokens / max(seconds, 1e-9):,.0f} {self.counted}/s", f"{seconds:.1f} s"]
        return facts

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses by update, with matplotlib (``pip install 'crnn[plot]'``). Returns the axes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; the current axes if not given. The logs of several runs can be drawn into the same ones.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        ax.plot(self.column("update"), self.column("train_loss"), label="train", linewidth=1)
        evaluated = [entry for entry in self.entries if "valid_loss" in entry]
        if evaluated:
            updates, losses = ([entry[name] for entry in evaluated] for name in ("update", "valid_loss"))
            ax.plot(updates, losses, label="valid", marker="." if len(evaluated) < 50 else "")
        if self.best is not None:
            label = f"best: {self.best['valid_loss']:.4g}, epoch {self.best['epoch']}"
            ax.plot(self.best["update"], self.best["valid_loss"], "o", fillstyle="none", color="C3", label=label)
        ax.set_xlabel("update")
        ax.set_ylabel(f"loss ({self.unit})" if self.unit else "loss")
        if self.entries:
            ax.legend()
        return ax

    def to_csv(self, path: PathLike) -> None:
        """Write the entries of kinds "train" and "epoch" as a table; a field that an entry does not have is empty.

        An existing file is replaced as a whole. Raises OSError if the file cannot be written.
        """
        self._write(path, as_csv=True)

    def to_jsonl(self, path: PathLike) -> None:
        """Write all entries, one JSON object per line.

        An existing file is replaced as a whole. Raises OSError if the file cannot be written.
        """
        self._write(path, as_csv=False)

    def report(self, path: PathLike, *, title: str | None = None) -> None:
        """Write a page in HTML: curves, samples, predictions, gradients through time, settings. It needs no network.

        ``crnn report`` shows the logs of several runs in one page, as does `crnn.report.write`.

        Parameters
        ----------
        path : path
            A new file, or a report, which is replaced. Raises FileExistsError for another file, and OSError.
        title : str, optional
            Heading of the page; the name of the model's file if not given.
        """
        write_page(path, [("", self.entries)], title=title)

    def _write(self, path: PathLike, *, as_csv: bool) -> None:
        with replacing(path) as file:
            file.write(header_of(as_csv=as_csv).encode())
            file.writelines(line_of(entry, as_csv=as_csv).encode() for entry in self.entries)

    # ---- recording, while training --------------------------------------------------------------------------------

    def append_to(self, path: PathLike, start: Start = "append") -> None:
        """From now on, also append every new entry to this file, see `LogFile`. Raises OSError and ValueError."""
        self._file = LogFile(path, self.entries, start)

    def close(self) -> None:
        """Complete and close the file of `append_to`. Raises OSError if it could not be completed."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.add(self.entries)
            finally:
                file.close()

    def add_training(
        self, epoch: int, update: int, loss: float, tokens: int, seconds: float, lr: float, norm: float
    ) -> None:
        """Add an entry of kind "train"."""
        values = (epoch, update, loss, tokens, seconds, tokens / max(seconds, 1e-9), lr, norm)
        self._add({"kind": "train", **dict(zip(TRAINING_FIELDS, values, strict=True))})

    def add_validation(self, loss: float, accuracy: float | None) -> bool:
        """Record the validation of the current epoch for `end_epoch`. Returns whether its loss is the lowest so far."""
        best = self.best
        self._validation = {"valid_loss": loss}
        if accuracy is not None:
            self._validation["valid_accuracy"] = accuracy
        return math.isfinite(loss) and (best is None or loss < best["valid_loss"])

    def end_epoch(self) -> None:
        """Add an entry of kind "epoch", which summarises those of kind "train" since the previous one."""
        figures = self._figures
        loss = figures.loss / max(figures.tokens, 1)
        values = (self.epochs + 1, self.updates, loss, figures.tokens, figures.seconds)
        summary = {"kind": "epoch", **dict(zip(EPOCH_FIELDS, values, strict=False)), **self._validation}
        self._validation = {}
        self._add(summary)

    def add(self, kind: str, **fields: Any) -> None:
        """Add an entry of another kind, after the last epoch and update that the log knows; see `KINDS`."""
        self._add({"kind": kind, "epoch": self.epochs, "update": self.updates, **fields})

    def finished_epochs(self) -> list[Entry]:
        """All entries but those of kind "train" after the last epoch, and what follows them."""
        first = len(self.entries)  # of those to leave out
        for number in range(len(self.entries) - 1, -1, -1):
            kind = self.entries[number]["kind"]
            if kind == "epoch":
                break
            if kind == "train":
                first = number
        return self.entries[:first]

    def restore(self, entries: list[Entry]) -> None:
        """Replace all entries by those of a checkpoint."""
        vars(self)["entries"] = list(entries)
        self._figures = _Figures()
        for entry in self.entries:
            self._figures.count(entry)

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._figures.count(entry)
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk does not end training; `close` tries again, and raises
                self._file.add(self.entries)


class _Figures:
    """Figures that are read after every update or epoch, kept up to date so that their cost does not grow with the log.

    Attributes
    ----------
    epochs, updates : int
    by_kind : dict of str to list
        The entries of each kind.
    last, best : dict or None
        Entries of kind "epoch".
    tokens, loss, seconds
        Sums over the entries of kind "train" since the last epoch.
    """

    def __init__(self) -> None:
        self.epochs, self.updates = 0, 0
        self.by_kind: defaultdict[str, list[Entry]] = defaultdict(list)
        self.last: Entry | None = None
        self.best: Entry | None = None
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.tokens, self.loss, self.seconds = 0, 0.0, 0.0

    def count(self, entry: Entry) -> None:
        """Take a new entry into account."""
        self.updates = entry["update"]
        self.by_kind[entry["kind"]].append(entry)
        if entry["kind"] == "train":
            self.tokens += entry["tokens"]
            self.loss += entry["train_loss"] * entry["tokens"]
            self.seconds += entry["seconds"]
        elif entry["kind"] == "epoch":
            self.epochs, self.last = self.epochs + 1, entry
            loss = entry.get("valid_loss", math.nan)
            if math.isfinite(loss) and (self.best is None or loss < self.best["valid_loss"]):
                self.best = entry
            self._begin_epoch()
