# SPDX-License-Identifier: MIT
"""Observer: adds to the log what a run is, what its model does while it learns, and how training ended.

What a model shows is the model's `Observation`s. Here is decided when, and how much time it may take.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crnn._version import __version__
from crnn.optim import Optimizer
from crnn.training.checkpoint import Checkpoint
from crnn.training.config import TrainingConfig
from crnn.training.entries import LONGEST_LINE, Entry, encodable, is_entry
from crnn.training.environment import machine
from crnn.training.log_file import line_of
from crnn.training.output import Output
from crnn.training.protocols import Observation, View, Windows, weights_of
from crnn.training.record import scores_of
from crnn.training.run import Diverged, Run

__all__ = ["Observer", "about", "reason_of", "schedule"]

TIMES = 10  # observations while it is trained, besides those before the first update and at the end
SHARE = 0.01  # of the time of training, which observations may take unless a file shows them; half of it until the end
LEAST = 0.0015  # seconds that an observation may take if it is made at all: a run of less than 0.15 s has none
PATIENCE = 1.0  # seconds of an observation: too long for a user who has interrupted the run
LONGEST_LIST = 10_000  # characters of a setting, as JSON
MESSAGE = 200  # characters of an error that a note quotes


class Observer:
    """Observes a run. It stops no training: what fails becomes a note of the log.

    Parameters
    ----------
    run : Run
    config : TrainingConfig
    view : View
        Its ``windows`` do not matter.
    epochs, updates : int
        Planned for the whole run.
    observed : sequence of Observation
        What the model shows.
    about : dict
        Further fields of the entry "run": name, data, options, counted.

    Attributes
    ----------
    due : float
        The number of updates after which the model is to be observed next.
    """

    due: float

    def __init__(
        self,
        run: Run,
        config: TrainingConfig,
        view: View,
        *,
        epochs: int,
        updates: int,
        observed: Sequence[Observation],
        about: dict[str, Any],
    ) -> None:
        self._run, self._view, self._about = run, view, about
        self._plan = {"epochs": epochs, "updates": updates}
        self._forced = config.log_file is not None or config.report is not None
        self._updates = schedule(updates)
        self._observed: list[Observation] = list(observed)
        self._started = time.perf_counter()
        self._first_update = run.update
        self.due = math.inf
        self._spent = 0.0  # seconds of all observations
        self._costs: dict[str, float] = {}  # seconds of the last one of each kind

    # ---- the run and its end --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Add the entry "run", and what the model does before its first update."""
        run = self._run
        self._started, self._first_update = time.perf_counter(), run.update
        last = [run.log.of_kind(each.kind)[-1:] for each in self._observed if each.when == "often"]
        # A checkpoint at one of the planned updates may have been written before the model was observed there.
        self._set_due(max((entry["update"] for entries in last for entry in entries), default=0))
        run.log.add("run", **self._fields_of_run())
        if not run.update:
            self._observe("often", "sample")

    def _fields_of_run(self) -> Entry:
        model = self._run.model
        header = model.contents()[1] if hasattr(model, "contents") else {}  # a model without files may have none
        described = {"kind": header.get("kind", type(model).__name__), "text": repr(model)}
        described |= {"parameters": int(weights_of(model).size)}
        return {
            "crnn": __version__,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(self._view.threads),
            "model": {**described, "config": {name: short(value) for name, value in header.get("config", {}).items()}},
            "unit": self._run.log.unit,
            **self._plan,
            **self._about,
        }

    def _set_due(self, observed: int) -> None:
        """The next one of the planned updates, if the last of them was at ``observed``."""
        self.due = min((update for update in self._updates if update > observed), default=math.inf)

    def update_if_due(self) -> None:
        """Add what the model does now, if enough updates have been done. They are all in the log."""
        if self._run.update >= self.due:
            self._observe("often", "sample")
            self._set_due(self._run.update)

    def end(self, reason: str) -> None:
        """Add what the model does with the weights that are kept, and the entry "end"."""
        try:
            slow = max(self._costs.values(), default=0.0) > PATIENCE
            if reason != "failed" and not (reason == "interrupted" and slow):
                self._observe("end", "often", "sample")
        finally:
            self._add_end(reason)

    def _add_end(self, reason: str) -> None:
        run = self._run
        run.log.add(
            "end",
            reason=reason,
            best_epoch=run.best_epoch if run.judged else None,
            scores=scores_of(run),
            notes=list(run.log.notes),
            seconds=time.perf_counter() - self._started,
        )

    # ---- what the model does --------------------------------------------------------------------------------------

    def sample(self) -> list[Entry]:
        """Add samples, whatever time they take. Returns their entries."""
        samples = [each for each in self._observed if each.kind == "sample"]
        return [entry for each in samples for entry in self._add(each, math.inf)]

    def _observe(self, *when: str) -> None:
        """Add the observations that are made at these times, in this order, as far as there is time for them."""
        for time_of in when:
            for observation in [each for each in self._observed if each.when == time_of]:
                windows = self._windows(observation.kind, SHARE if "end" in when else SHARE / 2)
                if windows >= 1:
                    self._add(observation, windows)

    def _windows(self, kind: str, share: float) -> float:
        """Training windows whose cost an observation should not exceed; below 1 it is not made.

        ``share``: of the time of training, for all observations so far.
        """
        if self._forced:
            return math.inf
        seconds, updates = time.perf_counter() - self._started - self._spent, self._run.update - self._first_update
        allowed = share * seconds - self._spent
        if updates <= 0 or allowed < max(LEAST, self._costs.get(kind, 0.0)):
            return 0.0
        return allowed * updates / seconds

    def _add(self, observation: Observation, windows: float) -> list[Entry]:
        """Add the entries of an observation to the log, or a note if it fails. Returns them."""
        run, begun = self._run, time.perf_counter()
        common = {"kind": observation.kind, "epoch": run.log.epochs, "update": run.log.updates}
        entries: list[Entry] = []
        try:
            with np.errstate(all="ignore"):
                for fields in observation.fields(run.model, replace(self._view, windows=windows)):
                    entries.append({**common, **fields})
            for entry in entries:
                if not is_entry(entry) or len(line_of(entry, as_csv=False)) > LONGEST_LINE:
                    raise ValueError(f"expected an entry for the log, got {entry!r:.100}")
        except Exception as error:  # MemoryError among them
            entries = []
            self._observed.remove(observation)
            what = observation.kind.replace("_", " ")
            run.log.notes.append(f"{what} could not be computed: {type(error).__name__}: {error!s:.{MESSAGE}}")
        seconds = time.perf_counter() - begun
        self._spent += seconds
        self._costs[observation.kind] = seconds
        for entry in entries:
            run.log.add(**{name: value for name, value in entry.items() if name not in ("epoch", "update")})
        return entries


def short(value: Any) -> Any:
    """A setting as it is; of a long list, such as the names of very many classes, how many values it has."""
    return f"{len(value):,} values" if isinstance(value, list) and len(json.dumps(value)) > LONGEST_LIST else value


def schedule(updates: int) -> set[int]:
    """The updates of so many after which the model is observed: close to each other at first, when it changes most.

    Not the last one: the model is observed at the end anyway.
    """
    return {round(updates ** (number / TIMES)) for number in range(TIMES)} - {updates}


def about(checkpoint: Checkpoint, output: Output | None, optimizer: Optimizer, windows: Windows) -> dict[str, Any]:
    """Fields of the entry "run": the name of the output, and what determines the result besides the model."""
    data = checkpoint.data
    return {
        "name": "" if output is None else encodable(os.path.basename(output.path)),
        "data": {"train": data["data"], "valid": data["valid"], "targets": getattr(windows, "predictions", None)},
        "options": {**checkpoint.options, "optimizer": repr(optimizer)},
        "counted": "tokens" if windows.carries_state else "targets",
    }


def reason_of(error: BaseException | None, *, early: bool, stopped_by: str) -> str:
    """Why training has ended. Without an error: ``early`` because of ``patience``, or stopped by this callback."""
    if error is None and stopped_by:
        return f"stopped by {stopped_by}"
    if error is None:
        return "stopped early" if early else "finished"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "diverged" if isinstance(error, Diverged) else "failed"
