# SPDX-License-Identifier: MIT
"""TrainingLog: the entries of a training run, as dictionaries; written as CSV or as JSON lines."""

from __future__ import annotations

import math
from typing import Any

from crnn.io.atomic_write import PathLike, replacing
from crnn.training.entries import EPOCH_FIELDS, TRAINING_FIELDS, Entry
from crnn.training.log_file import LogFile, Start, header_of, line_of

__all__ = ["Entry", "TrainingLog"]


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
    best : dict or None
        The epoch entry with the lowest valid_loss.
    notes : list of str
        What `crnn.fit` said about the run, such as where it resumed and which options differ from the checkpoint's.

    Examples
    --------
    >>> log = TrainingLog()
    >>> log.add_training(1, 100, 2.5, 6400, 0.1, 1e-3, 0.7)
    >>> log.end_epoch()
    >>> log.entries[-1]["train_loss"], log.best
    (2.5, None)
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.unit = "nats"
        self.notes: list[str] = []
        self._validation: Entry = {}
        self._file: LogFile | None = None

    # ---- reading --------------------------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return sum(entry["kind"] == "epoch" for entry in self.entries)

    @property
    def best(self) -> Entry | None:
        """The epoch entry with the lowest valid_loss, the first if several are equal; None without validation data."""
        evaluated = [entry for entry in self.entries if math.isfinite(entry.get("valid_loss", math.nan))]
        return min(evaluated, key=lambda entry: float(entry["valid_loss"]), default=None)

    @property
    def epochs_since_best(self) -> int:
        """Number of finished epochs after the best one; 0 if none was evaluated."""
        best = self.best
        return 0 if best is None else self.epochs - int(best["epoch"])

    def column(self, name: str, kind: str = "train") -> list[Any]:
        """The values of one field, in all entries of this kind that have it."""
        return [entry[name] for entry in self.entries if entry["kind"] == kind and name in entry]

    def summary(self) -> str:
        """One line of text about the last epoch."""
        last = next((entry for entry in reversed(self.entries) if entry["kind"] == "epoch"), None)
        if last is None:
            return "no epoch finished"
        text = f"epoch {last['epoch']}: train {last['train_loss']:.4f}" + f" {self.unit}" * bool(self.unit)
        if "valid_loss" in last:
            text += f", valid {last['valid_loss']:.4f}" + (" (best)" if last is self.best else "")
        return f"{text}, {last['tokens'] / max(last['seconds'], 1e-9):,.0f} tokens/s, {last['seconds']:.1f} s"

    def to_csv(self, path: PathLike) -> None:
        """Write all entries as a table, one row per entry; a field that an entry does not have is empty.

        An existing file is replaced as a whole. Raises OSError if the file cannot be written.
        """
        self._write(path, as_csv=True)

    def to_jsonl(self, path: PathLike) -> None:
        """Write all entries, one JSON object per line.

        An existing file is replaced as a whole. Raises OSError if the file cannot be written.
        """
        self._write(path, as_csv=False)

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
        epoch = self.epochs + 1
        updates = [entry for entry in self.entries if entry["kind"] == "train" and entry["epoch"] == epoch]
        tokens = sum(entry["tokens"] for entry in updates)
        loss = sum(entry["train_loss"] * entry["tokens"] for entry in updates) / max(tokens, 1)
        seconds = sum(entry["seconds"] for entry in updates)
        update = updates[-1]["update"] if updates else self.entries[-1]["update"] if self.entries else 0
        values = (epoch, update, loss, tokens, seconds)
        summary = {"kind": "epoch", **dict(zip(EPOCH_FIELDS, values, strict=False)), **self._validation}
        self._validation = {}
        self._add(summary)

    def finished_epochs(self) -> list[Entry]:
        """The entries up to the last one of kind "epoch"."""
        last = max((number for number, entry in enumerate(self.entries) if entry["kind"] == "epoch"), default=-1)
        return self.entries[: last + 1]

    def restore(self, entries: list[Entry]) -> None:
        """Replace all entries by those of a checkpoint."""
        self.entries = list(entries)

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self._file is not None:
            self._file.add(self.entries)
