# SPDX-License-Identifier: MIT
"""Work: what a task is run with. Its training runs continue after an interruption, and their time is added up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import crnn

BETWEEN_WRITES = 5.0  # seconds between two records of the time spent
CHECKPOINT_MINUTES = 2.0
NOT_SETTINGS = ("valid", "threads", "progress")  # options of `fit` that are data, or do not change the result


SPENT = ("seconds", "cpu_seconds")  # what files of a run must have: that of its time, and the result
RESULT = ("task", "seed", "result", *SPENT)


class OtherSettings(Exception):
    """The folder has a run of the same name with other settings."""


@dataclass(frozen=True)
class Spent:
    """Seconds of wall-clock time and of CPU time, of all threads together."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """The clocks of this process."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)


class Clock:
    """Context manager that adds the time of a training run to what earlier attempts have spent, in a file.

    Its `tick` is a callback of `fit`, so that little is missing from the file if the process is killed.
    """

    def __init__(self, path: Path, *, continues: bool) -> None:
        self._path = path
        stored = continues and path.is_file()
        self.before = Spent(**{key: read(path, SPENT)[key] for key in SPENT}) if stored else Spent()
        self._begun = Spent.now()
        self._written = self._begun.seconds

    @property
    def spent(self) -> Spent:
        """By all attempts so far."""
        return self.before + (Spent.now() - self._begun)

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()

    def tick(self, progress: crnn.Progress) -> None:
        """Record the time now and then."""
        if time.perf_counter() - self._written > BETWEEN_WRITES:
            self._write()

    def _write(self) -> None:
        self._written = time.perf_counter()
        replace(self._path, asdict(self.spent))


class Work:
    """One run of a task.

    Parameters
    ----------
    task : str
    seed : int
        Of generated data, initial weights and batches.
    threads : int
        Of every training run; results do not depend on it.
    folder : path, optional
        Checkpoints, times and the result are in a folder of the task and seed in it. If not given, nothing is kept.
    restart : bool
        Start over, and replace what the folder has of this task and seed.
    """

    def __init__(
        self, task: str, seed: int, *, threads: int = 1, folder: Path | None = None, restart: bool = False
    ) -> None:
        self.task, self.seed, self.threads = task, seed, threads
        self._folder = None if folder is None else folder / f"{task}-{seed}"
        self._restart = restart
        self._begun = Spent.now()
        self._earlier = Spent()  # of training runs in processes that were interrupted
        self._result: dict[str, Any] = {}

    def train(self, name: str, model: Any, *data: Any, **options: Any) -> Any:
        """``model.fit(*data, **options)``, continued from its checkpoint if there is one. Returns the model.

        A run that is already finished is only read. Raises OtherSettings if the checkpoint is of other settings.
        """
        options = {"threads": self.threads, **options}
        if self._folder is None:
            return model.fit(*data, **options)
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint = self._folder / f"{name}.checkpoint"
        resumed = checkpoint.is_file() and not self._restart
        self._check_settings(name, model, options, resumed=resumed)
        with Clock(self._folder / f"{name}.time.json", continues=resumed) as clock:
            self._earlier += clock.before
            return model.fit(
                *data,
                checkpoint=checkpoint,
                checkpoint_minutes=CHECKPOINT_MINUTES,
                resume=resumed,
                restart=self._restart,
                on_update=clock.tick,
                **options,
            )

    def _check_settings(self, name: str, model: Any, options: Mapping[str, Any], *, resumed: bool) -> None:
        """Record the settings of a run that begins; raise OtherSettings if one that continues has others."""
        assert self._folder is not None
        path = self._folder / f"{name}.settings.json"
        fit = {key: repr(value) for key, value in options.items() if key not in NOT_SETTINGS}
        settings = {"model": repr(model), "config": repr(model.config()), "fit": fit}
        if not resumed:
            replace(path, settings)
        elif not path.is_file() or read(path) != settings:
            raise OtherSettings(
                f"{path.with_suffix('').with_suffix('.checkpoint')} is of other settings; --restart replaces it, "
                "--folder names another folder"
            )

    def report(self, result: str, value: float | None = None) -> None:
        """Record what the table shows as the result, and the number that is compared with the task's goal."""
        spent = self._earlier + (Spent.now() - self._begun)
        self._result = {
            "task": self.task,
            "seed": self.seed,
            "result": result,
            "value": value,
            **asdict(spent),
            "threads": self.threads,
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "crnn": crnn.__version__,
            "isa": crnn.isa(),
        }
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(self._folder / "result.json", self._result)

    @property
    def result(self) -> Mapping[str, Any]:
        """What was reported; empty before."""
        return self._result


def results_in(folder: Path) -> list[dict[str, Any]]:
    """The results of all finished runs in a folder. Raises ValueError for a file that is not of `Work.report`."""
    return [read(path, RESULT) for path in sorted(folder.glob("*/result.json"))]


def read(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """The values that `replace` wrote, with these keys among them. Raises ValueError for another file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected a file of a run in JSON, got one that is not: {error}") from None
    if not isinstance(values, dict) or not values.keys() >= set(keys):
        raise ValueError(f"{path}: expected a file of a run, with {', '.join(keys)}, got another one")
    return values


def replace(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON; the file is complete at any time."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    new.replace(path)
