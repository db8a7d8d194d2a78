# SPDX-License-Identifier: MIT
"""Stored: what a checkpoint file holds, read and validated without the run that it continues.

`crnn.training.checkpoint` describes the file, writes it, and sets a run to what it holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from crnn.checks import Array
from crnn.io import registry
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import Header, ModelFileError, check_tensor, read
from crnn.nn.module import check_records
from crnn.nn.state import StateLike
from crnn.training.entries import LARGEST_COUNT, LONGEST_LINE, Entry, is_entry, is_history
from crnn.training.identity import check_same_kind, check_same_scaling
from crnn.training.protocols import weights_of
from crnn.training.run import Run

__all__ = [
    "KIND",
    "MODEL",
    "REST",
    "Contents",
    "Stored",
    "check_is_checkpoint",
    "describe",
    "split",
    "stored_log",
    "stored_model",
    "stored_rest",
    "stored_statistics",
]

KIND = "checkpoint"
MODEL = "model."  # prefix of the tensors of the model
REST = "rest."  # and of those that a larger model has besides them
Contents: TypeAlias = tuple[Mapping[str, Array], Mapping[str, Any]]  # tensors, and entries of a header


class Stored:
    """The content of a checkpoint file, whose header has been checked. Raises ModelFileError."""

    arrays: dict[str, Array]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    options: Mapping[str, Any]
    progress: Mapping[str, Any]
    output: str | None
    training_runs: tuple[Mapping[str, Any], ...]
    log: list[Entry]

    def __init__(self, name: str, arrays: dict[str, Array], header: Header) -> None:
        check_kind(name, header)
        for key in ("model", "data", "optimizer", "options", "progress"):
            if not isinstance(header.get(key), dict):
                raise ModelFileError(f"{name}: expected {key}, got {header.get(key)!r:.100}")
        if not isinstance(header.get("output"), str | None):
            raise ModelFileError(f"{name}: expected output, a digest, got {header['output']!r:.100}")
        if not _is_progress(header["progress"]):
            raise ModelFileError(
                f"{name}: expected update, position, cut, states, best_epoch, judged and optimizer, got "
                f"{header['progress']!r:.200}"
            )
        self.arrays = {name: array for name, array in arrays.items() if not name.startswith(REST)}
        if not isinstance(header.get("rest", {}), dict) or ("rest" not in header and len(self.arrays) < len(arrays)):
            raise ModelFileError(f"{name}: expected rest, got {header.get('rest')!r:.100}")
        arrays = self.arrays
        self.model, self.data, self.optimizer = header["model"], header["data"], header["optimizer"]
        self.options, self.progress, self.output = header["options"], header["progress"], header.get("output")
        try:
            self.training_runs = check_records(self.model.get("training", []))
        except ValueError as error:
            raise ModelFileError(f"{name}: {error}") from None
        log = _entries(arrays.pop("log", None))
        if log is None or not is_history(log, self.progress["update"]):
            raise ModelFileError(f"{name}: expected log, the entries of the log as lines of JSON")
        self.log = log

    def optimizer_arrays(self, run: Run) -> dict[str, Array]:
        """The optimizer's arrays; none before its first update."""
        return {name: self.arrays[name] for name in run.optimizer.array_names if name in self.arrays}

    def checked_arrays(self, run: Run, tensors: Mapping[str, Array]) -> tuple[Array, StateLike | None]:
        """The best weights (n,) and the state, after every array has been checked. Raises TypeError and ValueError.

        ``tensors`` are those of the run's model.
        """
        params = weights_of(run.model)
        moments = self.optimizer_arrays(run)
        for name in ("params", *moments):
            check_tensor(name, self.arrays, params.shape, params.dtype.name)
        for name, array in tensors.items():
            check_tensor(MODEL + name, self.arrays, array.shape, array.dtype.name)
        averaged = ["average"] if self.progress.get("averaged") else []
        for name in averaged:
            check_tensor(name, self.arrays, params.shape, params.dtype.name)
        known = {"params", *moments, *averaged, *(MODEL + name for name in tensors)}
        state_names = [f"state.{number}" for number in range(min(self.progress["states"], len(self.arrays)))]
        if set(self.arrays) != {*known, *state_names}:
            expected = sorted({*known, *state_names})
            raise ValueError(f"expected the tensors {expected!r:.500}, got {sorted(self.arrays)!r:.500}")
        run.optimizer.check_state(self.progress["optimizer"], moments)
        weights, statistics = split(tensors, params.size)
        check_same_scaling({name: self.arrays[MODEL + name] for name in statistics}, statistics)
        state = None
        for name in state_names:
            check_tensor(name, self.arrays, self.arrays[name].shape, params.dtype.name)
        if state_names or (run.carries_state and self.progress["position"]):
            state = run.model.state_from([self.arrays[name] for name in state_names], run.cut["batch_size"])
        best = np.concatenate([self.arrays[MODEL + name].reshape(-1) for name in weights])
        return best, state


def _is_progress(progress: Mapping[str, Any]) -> bool:
    """Whether the ``progress`` of a header is consistent in itself."""
    counts = [progress.get(name, -1) for name in ("update", "position", "states", "best_epoch")]
    counts.append(progress.get("averaged", 0))
    numbers, cut = progress.get("optimizer"), progress.get("cut")
    return (
        all(type(count) is int and 0 <= count < LARGEST_COUNT for count in counts)
        and type(progress.get("judged")) is bool
        and isinstance(numbers, dict)
        and all(type(number) in (int, float) for number in numbers.values())
        and isinstance(cut, dict)
        and all(type(size) is int and size >= 0 for size in cut.values())
        and progress["position"] <= min(progress["update"], cut.get("windows", 0))
    )


def _entries(log: Array | None) -> list[Entry] | None:
    """The entries of the log in a tensor, None if it is not a log."""
    if log is None or log.dtype != np.uint8 or log.ndim != 1:
        return None
    entries: list[Entry] = []
    for line in log.tobytes().splitlines():
        try:
            entry: Any = json.loads(line) if len(line) <= LONGEST_LINE else None
        except (ValueError, RecursionError):
            return None
        if not is_entry(entry):
            return None
        entries.append(entry)
    return entries


def check_kind(file: str, header: Header) -> None:
    """Raise ModelFileError unless the header is a checkpoint's."""
    if header.get("kind") != KIND:
        raise ModelFileError(f"checkpoint: expected a checkpoint, got a {header.get('kind')!s:.100}: {file}")


def stored_statistics(path: PathLike, kind: str, like: Mapping[str, Array]) -> dict[str, Array]:
    """The statistics that standardise data of the model in a checkpoint, which is of this kind.

    ``like`` has their names and shapes.

    Raises ModelFileError, OSError, and TypeError for what is no path.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"checkpoint: expected a path, got {type(path).__name__}")
    name = os.fsdecode(path)
    try:
        arrays, header = read(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"checkpoint: expected a checkpoint to resume from, found none at {name}") from None
    check_kind(name, header)
    model = header.get("model")
    check_same_kind(name, model if isinstance(model, dict) else {}, kind)
    try:
        for key, array in like.items():
            check_tensor(MODEL + key, arrays, array.shape, array.dtype.name)
    except ValueError as error:
        raise ModelFileError(f"{name}: {error}") from None
    return {key: arrays[MODEL + key] for key in like}


def describe(path: PathLike) -> str:
    """How far a checkpoint has come, as the end of a line; empty for other files. Raises ModelFileError, OSError."""
    arrays, header = read(path)
    if header.get("kind") != KIND:
        return ""
    stored = Stored(os.fsdecode(path), arrays, header)
    epochs = sum(entry["kind"] == "epoch" for entry in stored.log)
    best = f"the best model is of epoch {stored.progress['best_epoch']}" if stored.progress["judged"] else "not judged"
    return f", checkpoint after {epochs} epochs, {stored.progress['update']} updates; {best}"


def stored_log(path: PathLike) -> list[Entry] | None:
    """The entries of the log in a checkpoint; None for other model files. Raises ModelFileError, OSError."""
    arrays, header = read(path)
    return Stored(os.fsdecode(path), arrays, header).log if header.get("kind") == KIND else None


def check_is_checkpoint(path: PathLike) -> None:
    """Raise ModelFileError unless an existing file is a checkpoint; nothing else is replaced."""
    try:
        kind = read(path)[1].get("kind")
    except ModelFileError:
        kind = None
    if kind != KIND:
        raise ModelFileError(f"checkpoint: expected a checkpoint to replace, got another file: {os.fsdecode(path)}")


# ---- the model in a checkpoint ---------------------------------------------------------------------------------------


def split(tensors: Mapping[str, Array], size: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """The tensors of a model: its parameters, which have ``size`` elements together, and its statistics."""
    weights: dict[str, Array] = {}
    for name, array in tensors.items():
        if sum(each.size for each in weights.values()) == size:
            break
        weights[name] = array
    return weights, {name: array for name, array in tensors.items() if name not in weights}


def stored_model(header: Header, tensors: Mapping[str, Array]) -> Any:
    """The model in a checkpoint, as `crnn.load` returns it. Raises ValueError."""
    model = header.get("model")
    if not isinstance(model, dict) or model.get("kind") == KIND:
        raise ValueError(f"expected a checkpoint with a model, got {model!r:.100}")
    own, rest, more = _without(MODEL, tensors), header.get("rest", {}), _without(REST, tensors)
    if not isinstance(rest, dict) or bool(rest) != bool(more):
        raise ValueError(f"expected a checkpoint with rest, got {rest!r:.100} and {len(more)} tensors of it")
    if rest:
        model, own = {**model, **rest}, {**own, **more}
        if model.get("kind") == KIND:
            raise ValueError("expected a checkpoint with a model, got one with a checkpoint")
    return registry.build(KIND, own, model)


def stored_rest(path: PathLike) -> Contents | None:
    """What a checkpoint holds of a larger model besides the part that is trained; None if there is none.

    Raises ModelFileError and OSError.
    """
    arrays, header = read(path)
    if header.get("kind") != KIND or not isinstance(header.get("rest"), dict):
        return None
    return _without(REST, arrays), header["rest"]


def _without(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


registry.register_container(KIND, stored_model)
