# SPDX-License-Identifier: MIT
"""Memory: the ends of the series that a forecaster continues, with the statistics that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn.array_input import shown
from crnn.checks import Array
from crnn.io import model_file
from crnn.models.forecasting.frames import Axis, Frame, axis_from, axis_to_dict
from crnn.models.forecasting.labels import label_from_json, label_to_json

SEVERAL = 1_000_000  # series, or steps of one, that a file may hold


@dataclass(frozen=True)
class Remembered:
    """The end of a series.

    Attributes
    ----------
    values : array (T, P)
        NaN = missing.
    past, future : arrays (T, E), (T, F)
    mean, std : arrays (P,)
        That scale the series.
    flat, columns, axis
        As in `Frame`.
    """

    values: Array
    past: Array
    future: Array
    mean: Array
    std: Array
    flat: bool
    columns: list[Any] | None
    axis: Axis | None

    @property
    def frame(self) -> Frame:
        """The series as it was given."""
        return Frame(self.values, self.flat, self.columns, self.axis)

    def check_follows(self, name: str, frame: Frame) -> None:
        """Raise ValueError, which calls the frame ``name``, unless it can be what comes after this series."""
        if frame.values.shape[1] != self.values.shape[1]:
            raise ValueError(f"{name}: expected {self.values.shape[1]} columns, got {frame.values.shape[1]}")
        if self.axis is not None and frame.index is not None:
            expected = self.axis.after(len(frame))
            if not frame.index.equals(expected):
                got, wanted = (shown(index[[0, -1]].tolist()) for index in (frame.index, expected))
                raise ValueError(f"{name}: expected the index that follows, {wanted} (first and last), got {got}")

    def extended(self, values: Array, past: Array, future: Array, axis: Axis | None) -> Remembered:
        """With more steps at its end."""
        parts = [(self.values, values), (self.past, past), (self.future, future)]
        joined = [np.concatenate(pair) for pair in parts]
        return replace(self, values=joined[0], past=joined[1], future=joined[2], axis=axis)

    def shortened(self, steps: int) -> Remembered:
        """Its last steps: as many, and so many more that gaps are filled as in the whole series."""
        complete = np.flatnonzero(self._complete()[: max(len(self.values) - steps, 0) + 1])
        first = int(complete[-1]) if len(complete) else 0
        parts = {name: getattr(self, name)[first:].copy() for name in ("values", "past", "future")}
        return replace(self, **parts)

    def _complete(self) -> Array:
        """bool (T,): whether nothing is missing at a step."""
        known: Array = ~np.isnan(np.concatenate([self.values, self.past, self.future], axis=1)).any(axis=1)
        return known


def tensors_of(memory: Sequence[Remembered]) -> dict[str, Array]:
    """The arrays of a memory as a file holds them: vectors of all series together, with 0 for missing numbers."""
    found = {}
    for name in ("values", "past", "future"):
        flat = np.concatenate([getattr(each, name).reshape(-1) for each in memory])
        found[f"memory.{name}"] = np.nan_to_num(flat, nan=0.0)
        found[f"memory.{name}.missing"] = np.isnan(flat).astype(np.float64)
    for name in ("mean", "std"):
        found[f"memory.{name}"] = np.concatenate([getattr(each, name) for each in memory])
    return found


def header_of(memory: Sequence[Remembered]) -> list[dict[str, Any]]:
    """What a file says of each series, as values that JSON can hold."""
    columns = [None if each.columns is None else [label_to_json(column) for column in each.columns] for each in memory]
    return [
        {"steps": len(each.values), "flat": each.flat, "columns": names, "index": axis_to_dict(each.axis)}
        for each, names in zip(memory, columns, strict=True)
    ]


def memory_from(header: Any, tensors: Mapping[str, Array], widths: Mapping[str, int]) -> list[Remembered]:
    """The memory of a file. ``widths``: columns of values, past and future. Raises ValueError."""
    if not isinstance(header, list) or not 0 < len(header) <= SEVERAL:
        raise ValueError(f"expected series, got {header!r:.200}")
    for each in header:
        sensible = isinstance(each, dict) and sorted(each) == ["columns", "flat", "index", "steps"]
        sensible = sensible and type(each["flat"]) is bool and type(each["steps"]) is int
        if not sensible or not 0 < each["steps"] <= SEVERAL:
            raise ValueError(f"expected a series, got {each!r:.200}")
    total = sum(each["steps"] for each in header)
    arrays = {}
    for name, width in widths.items():
        missing = _checked(tensors, f"memory.{name}.missing", total * width)
        arrays[name] = np.where(missing != 0, np.nan, _checked(tensors, f"memory.{name}", total * width))
    P = widths["values"]
    mean, std = (_checked(tensors, f"memory.{name}", len(header) * P).reshape(-1, P) for name in ("mean", "std"))
    if (std <= 0).any():
        raise ValueError("memory.std: expected numbers above 0")
    memory, first = [], 0
    for i, each in enumerate(header):
        stop = first + each["steps"]
        parts = {name: arrays[name][first * n : stop * n].reshape(-1, n) for name, n in widths.items() if n}
        parts |= {name: np.zeros((each["steps"], 0)) for name, n in widths.items() if not n}
        columns, axis = _columns_from(each["columns"], P), axis_from(each["index"])
        memory.append(Remembered(**parts, mean=mean[i], std=std[i], flat=each["flat"], columns=columns, axis=axis))
        first = stop
    return memory


def _columns_from(value: Any, size: int) -> list[Any] | None:
    """The names of so many columns of a JSON object. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != size:
        raise ValueError(f"expected the names of {size} columns, got {value!r:.200}")
    return [label_from_json(column) for column in value]


def _checked(tensors: Mapping[str, Array], name: str, size: int) -> Array:
    model_file.check_tensor(name, tensors, (size,), "float64")
    return tensors[name].copy()
