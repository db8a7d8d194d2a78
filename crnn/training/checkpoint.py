# SPDX-License-Identifier: MIT
"""Checkpoint: write a `Run` to a file, and read it back once the whole file has been validated.

The file is a safetensors file with the tensors ``params``, ``best``, the optimizer's arrays, and within an epoch
``state.0``, ``state.1`` and so on. Its header has ``kind`` "checkpoint", ``optimizer`` (its repr: a checkpoint of a
different optimizer is rejected) and ``progress``: update, position, cut, the optimizer's numbers and the log.
"""

from __future__ import annotations

import os
from typing import Any

from crnn.checks import Array
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import ModelFileError, check_tensor, read, write
from crnn.nn.state import state_arrays
from crnn.training.log import is_entry
from crnn.training.run import Run

__all__ = ["Checkpoint"]


class Checkpoint:
    """The checkpoint file of a training run. If ``path`` is None there is no file, and `write` does nothing."""

    def __init__(self, path: PathLike | None) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether there is a file to resume from."""
        return self.path is not None and os.path.exists(self.path)

    def write(self, run: Run) -> None:
        """Write the file, atomically."""
        if self.path is None:
            return
        arrays = {"params": run.model.flat_params, "best": run.best, **run.optimizer.arrays}
        if run.state is not None:
            arrays |= {f"state.{number}": array for number, array in enumerate(state_arrays(run.state))}
        progress = {
            "update": run.update,
            "position": run.position,
            "cut": run.cut,
            "optimizer": run.optimizer.state(),
            "log": run.log.entries,
        }
        write(self.path, arrays, {"kind": "checkpoint", "optimizer": repr(run.optimizer), "progress": progress})

    def read_into(self, run: Run) -> None:
        """Set a run to the state in the file. Raises ModelFileError if it does not fit; the run is then unchanged."""
        assert self.path is not None
        name = os.fsdecode(self.path)
        arrays, header = read(self.path)
        try:
            progress = _checked_progress(header, run)
            state = _checked_arrays(arrays, run)
            position = _checked_position(progress, run)
            run.state = run.model.state_from(state, run.cut["batch_size"]) if state else None
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{name}: {error}") from None
        run.model.flat_params[...] = arrays["params"]
        run.best[...] = arrays["best"]
        run.optimizer.set_state(progress["optimizer"], {each: arrays[each] for each in run.optimizer.array_names})
        run.update, run.position = progress["update"], position
        run.log.restore(progress["log"])


def _checked_progress(header: dict[str, Any], run: Run) -> dict[str, Any]:
    """The ``progress`` of a header. Raises ValueError unless it is valid and of the run's optimizer."""
    progress = header.get("progress")
    if header.get("kind") != "checkpoint" or not isinstance(progress, dict):
        raise ValueError(f"expected a checkpoint, got {header.get('kind')!r}")
    if header.get("optimizer") != repr(run.optimizer):
        raise ValueError(f"expected a checkpoint of {run.optimizer!r}, got one of {header.get('optimizer')!r}")
    numbers, entries = progress.get("optimizer"), progress.get("log")
    fits = (
        all(type(progress.get(key)) is int and progress[key] >= 0 for key in ("update", "position"))
        and isinstance(numbers, dict)
        and numbers.keys() == run.optimizer.state().keys()
        and all(type(number) in (int, float) for number in numbers.values())
        and isinstance(entries, list)
        and all(is_entry(entry) for entry in entries)
    )
    if not fits:
        raise ValueError(f"expected update, position, optimizer and log, got {progress!r:.200}")
    return progress


def _checked_arrays(arrays: dict[str, Array], run: Run) -> list[Array]:
    """The arrays of the state. Raises ValueError unless all other arrays fit the model and the optimizer."""
    params = run.model.flat_params
    names = ["params", "best", *run.optimizer.array_names]
    for name in names:
        check_tensor(name, arrays, params.shape, params.dtype.name)
    state_names = [f"state.{number}" for number in range(len(arrays) - len(names))]
    if set(arrays) != {*names, *state_names}:
        raise ValueError(f"expected the tensors {sorted(names)}, got {sorted(arrays)}")
    return [arrays[name] for name in state_names]


def _checked_position(progress: dict[str, Any], run: Run) -> int:
    """The window to continue from. Raises ValueError unless it is in an epoch that is split as the run's."""
    position: int = progress["position"]
    cut = progress.get("cut")
    if position and (cut != run.cut or position >= run.cut["windows"]):
        raise ValueError(
            f"expected a checkpoint within an epoch of {run.cut}, got one of {cut!r:.100} at window {position}"
        )
    return position
