# SPDX-License-Identifier: MIT
"""Checkpoint: write a `Run` to a file, and read it back once the whole file has been validated.

The file is a safetensors file that holds the whole run: the best model so far, which `crnn.load` reads, and what is
needed to continue. Its tensors are those of the model under ``model.`` and their names; ``params``, the current
weights; ``average``, if they are averaged; the optimizer's arrays; within an epoch ``state.0``, ``state.1`` and so on;
and ``log``, the entries of the log as lines of JSON in UTF-8, since a header could not hold those of a long run. Its
header has

- ``kind``, "checkpoint"; ``model``, the header of the model's file; ``data``, digests of the data;
- ``optimizer``, its class and arguments; ``options``, those of `fit` that determine the result;
- ``progress``: update, position, cut, how many states, whether a validation has judged the model, the optimizer's
  numbers, and if weights are averaged, over how many updates;
- ``output``, the digest of an existing file that this run may replace by its model;
- ``rest``, if the run trains a part of a model: what its file has besides that part, whose tensors are ``rest.`` and
  their names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import Header, ModelFileError, read, write
from crnn.nn.state import state_arrays
from crnn.optim import Optimizer
from crnn.training.entries import Entry
from crnn.training.identity import check_same, model_identity
from crnn.training.log_file import line_of
from crnn.training.protocols import changing, weights_of
from crnn.training.ranks import RankedRun
from crnn.training.record import training_record
from crnn.training.recorded import FIXED, METHODS
from crnn.training.run import Diverged, Run
from crnn.training.stored import KIND, MODEL, REST, Contents, Stored, split

__all__ = ["Checkpoint", "best_model"]

FREE_SETTINGS = ("lr", "weight_decay")  # of an optimizer; a resumed run may have others

# What determines the windows of an epoch, and the options that determine it.
CUT_BY = {"batch_size": "batch_size", "bptt": "bptt", "random_bptt": "random_bptt", "order": "seed"}


class Checkpoint:
    """The checkpoint file of a training run. If ``path`` is None there is no file, and `write` does nothing.

    Parameters
    ----------
    path : path or None
    data : dict
        `crnn.training.identity.data_identity` of the run.
    options : dict
        The options of the run that determine its result and may differ when it is resumed.
    command : dict, optional
        The options of the command line that began or resumed it, for its record.
    ranked : RankedRun, optional
        The ranks of the run, if there are several: rank 0 writes the file, with the state of all rows.
    rest : callable, optional
        If the run trains a part of a model: what the file of the whole model has besides that part, for the part's
        weights to keep, as one array.
    """

    path: str | None  # absolute: a callback may change the working folder
    name: str  # as given, for messages
    data: Mapping[str, str | None]
    options: Mapping[str, Any]
    command: Mapping[str, Any] | None
    output: str | None  # digest of an existing file that the run may replace by its model
    failure: str  # why the last attempt to write the file has failed, for messages; empty if it has not

    def __init__(
        self,
        path: PathLike | None,
        data: Mapping[str, str | None],
        options: Mapping[str, Any],
        command: Mapping[str, Any] | None = None,
        rest: Callable[[Array], Contents] | None = None,
        ranked: RankedRun | None = None,
    ) -> None:
        self._rest, self._ranked = rest, ranked
        self.path = None if path is None else os.path.abspath(os.fsdecode(path))
        self.name = "" if path is None else os.fsdecode(path)
        self.data, self.options, self.command = data, options, command
        self.output, self.failure = None, ""
        self._written: tuple[int, ...] | None = None  # `_mark` of what the file holds
        self._tried: tuple[int, ...] | None = None  # `_mark` of what was last to be written
        self._entries: list[Entry] = []  # of the log, as they were last written
        self._lines = b""  # the same as lines of JSON

    def exists(self) -> bool:
        """Whether there is a file to resume from."""
        return self.path is not None and os.path.exists(self.path)

    @property
    def is_of_this_run(self) -> bool:
        """Whether the file holds this run: it has been written, or resumed from."""
        return self._written is not None

    @property
    def update(self) -> int:
        """The update that the file is of, if it is of this run."""
        return 0 if self._written is None else self._written[0]

    # ---- writing --------------------------------------------------------------------------------------------------

    def write(self, run: Run) -> None:
        """Write the file, atomically, unless this was tried with this state already.

        If the system does not allow it, as on a full disk, the file is unchanged, and `failure` says why. Raises
        Diverged if an array of the run is not finite; the file is unchanged then too.
        """
        if self.path is None or self._tried == _mark(run):  # alike on all ranks, of which one knows `failure`
            return
        states = [] if run.state is None else state_arrays(run.state)
        if states and self._ranked is not None:
            states = self._ranked.whole_state(states)
        arrays = {"params": weights_of(run.model), **run.optimizer.arrays}
        arrays |= {f"state.{number}": array for number, array in enumerate(states)}
        if run.average is not None and run.average.array is not None:
            arrays["average"] = run.average.array
        _check_finite(run, arrays)
        if self._ranked is not None and not self._ranked.ranks.leads:
            self._written = self._tried = _mark(run)
            return
        about = {}
        if self._rest is not None:
            tensors, about["rest"] = self._rest(run.kept())
            rest = {REST + name: array for name, array in tensors.items()}
            _check_finite(run, rest)
            arrays |= rest
        entries = run.log.entries if run.position else run.log.finished_epochs()
        arrays["log"] = np.frombuffer(self._encoded(entries), np.uint8)
        tensors, header = best_model(run)
        header["training"] = [*run.earlier_runs, self.record(run)]
        arrays |= {MODEL + name: each for name, each in tensors.items()}
        try:
            write(self.path, arrays, self._header(run, header, len(states)) | about)
        except OSError as error:
            whole = f"the last whole one is of update {self.update:,}" if self._written else "there is none of this run"
            reason = error.strerror or error
            self.failure = f"checkpoint: cannot write {self.name} after update {run.update:,} ({reason}); {whole}"
        else:
            self._written, self.failure = _mark(run), ""
        self._tried = _mark(run)

    def record(self, run: Run) -> dict[str, Any]:
        """What the model's file says about the run as it is now."""
        settings = _settings(run.optimizer)
        rule = settings.pop("rule")
        optimizer = f"{rule}({', '.join(f'{name}={value}' for name, value in settings.items())})"
        return training_record(run, self.data, {**self.options, "optimizer": optimizer}, self.command)

    def _encoded(self, entries: list[Entry]) -> bytes:
        """The entries as lines of JSON. Those that the last checkpoint had too are not encoded again."""
        known = len(self._entries)
        if entries[:known] != self._entries:
            known, self._lines = 0, b""
        self._lines += b"".join(line_of(entry, as_csv=False).encode() for entry in entries[known:])
        self._entries = entries[:]
        return self._lines

    def holds(self, run: Run) -> bool:
        """Whether the file holds the current state of a run."""
        return self._written == _mark(run)

    def _header(self, run: Run, model: Header, states: int) -> dict[str, Any]:
        progress = {
            "update": run.update,
            "position": run.position,
            "cut": run.cut,
            "judged": run.judged,
            "best_epoch": run.best_epoch,
            "states": states,
            "optimizer": run.optimizer.state(),
        }
        if run.average is not None:
            progress["averaged"] = run.average.count
        return {
            "kind": KIND,
            "model": model,
            "data": self.data,
            "optimizer": _settings(run.optimizer),
            "options": self.options,
            "progress": progress,
            "output": self.output,
        }

    # ---- reading --------------------------------------------------------------------------------------------------

    def read_into(self, run: Run) -> list[str]:
        """Set a run to the state in the file. Returns what the user should know about it, one line each.

        Raises ModelFileError if the file is damaged or belongs to another model or other data, and OSError. The run is
        then unchanged.
        """
        assert self.path is not None
        name = self.name
        borrowed, contents = read(self.path, name)
        # Copies, because the optimizer keeps its arrays, and a view would keep the content of the whole file.
        stored = Stored(name, {each: array.copy() for each, array in borrowed.items()}, contents)
        tensors, header = run.model.contents()
        try:
            check_same(name, stored.model, model_identity(header), stored.data, self.data)
            self._check_fixed(stored.options)
            notes = [*_optimizer_differences(name, stored.optimizer, run.optimizer), *self._differences(stored.options)]
            check_cut(name, stored.progress, run.cut)
        except ValueError as error:  # starts with the name of the argument that differs
            raise ModelFileError(str(error)) from None
        try:
            best, state = stored.checked_arrays(run, tensors)
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{name}: {error}") from None
        progress, arrays = stored.progress, stored.arrays
        with changing(run.model) as weights:
            weights[...] = arrays["params"]
        run.best[...] = best
        run.judged, run.best_epoch = progress["judged"], progress["best_epoch"]
        run.optimizer.set_state(progress["optimizer"], stored.optimizer_arrays(run))
        if run.average is not None:
            run.average.restore(progress.get("averaged", 0), arrays.get("average"))
        run.update, run.position, run.state = progress["update"], progress["position"], state
        run.log.restore(stored.log)
        run.resume_records(stored.training_runs)
        self.output = stored.output
        self._written = self._tried = _mark(run)
        return [f"resuming at epoch {run.log.epochs + 1}, update {run.update}", *notes]

    def _check_fixed(self, stored: Header) -> None:
        """Raise ValueError for an option that differs from the checkpoint's and may not."""
        for name in FIXED:
            there, here = stored.get(name), self.options.get(name)
            if there != here:
                raise ValueError(f"{name}: expected {there!r:.100}, as in {self.name}, got {here!r}")

    def _differences(self, stored: Header) -> list[str]:
        """One line for each option that differs from the checkpoint's."""
        before = METHODS | dict(stored)
        return [
            f"{name}: now {value!r}, before {before[name]!r}"
            for name, value in (METHODS | dict(self.options)).items()
            if name in before and before[name] != value
        ]


def _check_finite(run: Run, arrays: Mapping[str, Array]) -> None:
    """Raise Diverged, which names the array, unless all are finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Diverged(f"{name} is NaN or infinite after update {run.update} (epoch {run.log.epochs + 1})")


def _mark(run: Run) -> tuple[int, ...]:
    """What distinguishes two states of a run."""
    return run.update, run.position, run.log.epochs, run.rollbacks


def check_cut(file: str, progress: Header, cut: Mapping[str, int]) -> None:
    """Raise ValueError if a checkpoint is within an epoch that was split into other windows."""
    if progress["position"] and progress["cut"] != cut:
        stored, current = ({"random_bptt": 0, **each} for each in (progress["cut"], cut))
        name = next((key for key in CUT_BY if stored.get(key) != current.get(key)), "windows")
        label = CUT_BY.get(name, name)
        found = [bool(each[name]) if name == "random_bptt" else each.get(name) for each in (stored, current)]
        raise ValueError(f"{label}: expected {found[0]}, as in {file}, which is within an epoch, got {found[1]}")


def _settings(optimizer: Optimizer) -> dict[str, Any]:
    """The class and the arguments of an optimizer, as values that JSON can hold."""
    arguments = optimizer.settings().items()
    plain = {name: value if isinstance(value, float | int | str) else repr(value) for name, value in arguments}
    return {"rule": type(optimizer).__name__, **plain}


def _optimizer_differences(file: str, stored: Header, optimizer: Optimizer) -> list[str]:
    """One line for each setting that differs and may. Raises ValueError for one that may not."""
    notes = []
    settings = _settings(optimizer)
    for name in dict.fromkeys([*settings, *stored]):
        before, now = stored.get(name), settings.get(name)
        if before == now:
            continue
        if name not in FREE_SETTINGS:
            label = "optimizer" if name == "rule" else f"optimizer: {name}"
            raise ValueError(f"{label}: expected {before!r:.100}, as in {file}, got {now!r}")
        notes.append(f"{name}: now {now!r}, before {before!r:.100}")
    return notes


def best_model(run: Run) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and header of the model to keep: with the best weights, or the current ones if none were judged."""
    tensors, header = run.model.contents()
    flat = run.kept()
    weights, named = split(tensors, flat.size)
    start, best = 0, {}
    for name, array in weights.items():
        best[name] = flat[start : start + array.size].reshape(array.shape)
        start += array.size
    return best | named, header
