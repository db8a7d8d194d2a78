# SPDX-License-Identifier: MIT
"""The state of a stack: h of every layer and direction, and c if the cell has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn._core import gemm
from crnn._core.arrays import take_finite
from crnn.array_input import check_finite
from crnn.stream.state import StateLike, check_state

__all__ = ["State", "StateLike", "joined", "rows_of", "state_arrays", "state_from"]

Array = NDArray[Any]
Layers: TypeAlias = Any  # an array (L*directions, B, H), or a list of arrays (B, H_l) if the layers' sizes differ


class State:
    """Arrays for a batch of B rows: ``h[i]``, ``c[i]`` (B, H) of layer i // directions, direction i % directions."""

    sizes: tuple[int, ...]  # H of every layer and direction
    batch: int  # B
    dtype: str
    h: Layers
    c: Layers | None
    arrays: list[Array]  # (B, H): h of every layer and direction, then c

    def __init__(self, sizes: Sequence[int], has_c: bool, batch: int, dtype: str) -> None:
        self.sizes, self.batch, self.dtype = tuple(sizes), batch, dtype
        self.h = self._arrays()
        self.c = self._arrays() if has_c else None
        self.arrays = [array for _, part in self.parts for array in part]

    def _arrays(self) -> Layers:
        """Memory for h or c of every layer and direction, not initialised."""
        if len(set(self.sizes)) == 1:
            return gemm.aligned_empty((len(self.sizes), self.batch, self.sizes[0]), self.dtype)
        return [gemm.aligned_empty((self.batch, size), self.dtype) for size in self.sizes]

    @property
    def value(self) -> StateLike:
        """The state in the form of the public API: h, or (h, c); borrowed."""
        return self.h if self.c is None else (self.h, self.c)

    @property
    def parts(self) -> list[tuple[str, Layers]]:
        """[("h", h)], or [("h", h), ("c", c)]; borrowed."""
        return [("h", self.h)] if self.c is None else [("h", self.h), ("c", self.c)]

    def is_value(self, value: StateLike | None) -> bool:
        """Whether ``value`` is this state in the form of the public API, the very arrays."""
        if self.c is None:
            return value is self.h
        return type(value) is tuple and len(value) == 2 and value[0] is self.h and value[1] is self.c

    def check_finite(self, name: str) -> None:
        """Raise ValueError, which calls the state ``name``, unless all its numbers are finite."""
        for array in self.arrays:
            check_finite(name, array)

    def clear(self) -> None:
        """Set all numbers to 0."""
        for array in self.arrays:
            array.fill(0)

    def copied(self) -> StateLike:
        """A copy in the form of the public API."""
        parts = [part.copy() if isinstance(part, np.ndarray) else [a.copy() for a in part] for _, part in self.parts]
        return parts[0] if self.c is None else tuple(parts)

    def assign(self, name: str, value: StateLike, finite: bool = True) -> None:
        """Copy the values of a state given by a user. Raises ValueError and TypeError, which call it ``name``."""
        self.set_arrays(check_state(name, value, self.sizes, self.c is not None, self.batch, self.dtype, finite))

    def set_arrays(self, arrays: Sequence[Array]) -> None:
        """Copy arrays (B, H), as `check_state` returns them."""
        for array, values in zip(self.arrays, arrays, strict=True):
            array[...] = values

    def take(self, other: State) -> bool:
        """Copy a state of the same sizes and as many rows. Returns whether all its numbers are finite."""
        return take_finite(self.arrays, other.arrays)

    def assign_rows(self, other: State) -> None:
        """Copy all rows of a state of the same sizes, with as many rows or fewer, into the first ones."""
        for (_, part), (_, given) in zip(self.parts, other.parts, strict=True):
            for array, values in zip(part, given, strict=True):
                array[: len(values)] = values

    def reorder(self, order: Array, into: State | None = None) -> None:
        """Set row i of ``into``, or of this state, to row ``order[i]`` of this one."""
        for (_, part), (_, to) in zip(self.parts, (into or self).parts, strict=True):
            for array, result in zip(part, to, strict=True):
                result[...] = array[order]

    def rows(self, start: int, stop: int) -> StateLike:
        """The batch rows start .. stop-1 in the form of the public API; borrowed."""
        parts = [
            part[:, start:stop] if isinstance(part, np.ndarray) else [array[start:stop] for array in part]
            for _, part in self.parts
        ]
        return parts[0] if self.c is None else tuple(parts)


def state_arrays(value: StateLike) -> list[Array]:
    """The arrays of a state in a fixed order, for a checkpoint; `state_from` is the inverse."""
    if isinstance(value, np.ndarray):
        return [value]
    return [array for part in value for array in state_arrays(part)]


def state_from(arrays: Sequence[Array], like: State) -> StateLike:
    """The state that `state_arrays` listed, in the form of the public API. ``like`` is a state of the same network.

    Raises ValueError for another number of arrays.
    """
    expected = len(state_arrays(like.value))
    if len(arrays) != expected:
        raise ValueError(f"state: expected {expected} arrays, got {len(arrays)}")
    remaining = iter(arrays)
    parts = [
        [next(remaining) for _ in part] if isinstance(part, list) else next(remaining)
        for _, part in like.parts
    ]
    return parts[0] if len(parts) == 1 else tuple(parts)


def rows_of(value: StateLike, start: int, stop: int) -> StateLike:
    """The batch rows start .. stop-1 of a state in the form of the public API; borrowed."""
    if isinstance(value, np.ndarray):
        return value[..., start:stop, :]
    return type(value)(rows_of(part, start, stop) for part in value)


def joined(values: Sequence[StateLike]) -> StateLike:
    """One state with the batch rows of several in their order, fresh."""
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(values, axis=-2)
    return type(first)(joined([value[index] for value in values]) for index in range(len(first)))
