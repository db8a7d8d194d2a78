# SPDX-License-Identifier: MIT
"""Pooling: one vector per sequence from the vectors of its steps, for models with one output per sequence.

    last      the vector of the last step; for the reverse direction, which ends at the first step, of that one
    mean      the mean over the steps
    max       the maximum over the steps, for each unit
    flatten   the vectors of all steps concatenated: all sequences must have the same length
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crnn._core import gemm, pool
from crnn._core.arrays import copy_rows
from crnn.nn.slices import Slice

Array = NDArray[Any]


class Pooling(ABC):
    """From y (T, B, F), or packed, to ``out`` (1, B, F'). Owned by a tape.

    ``directions``: for every direction in y, its first column, how many it has, and whether it is reverse.
    """

    repeatable: ClassVar[bool] = False  # whether both methods only call kernels where there are no lengths
    T: int
    F: int
    directions: Sequence[tuple[int, int, bool]]
    out: Array  # (1, B, F')
    dout: Array  # (1, B, F'): gradient at `out`, written by the caller of `backward`

    def __init__(
        self, T: int, B: int, F: int, directions: Sequence[tuple[int, int, bool]], dtype: str
    ) -> None:
        self.T, self.F, self.directions = T, F, directions
        self.out = gemm.aligned_empty((1, B, self.size(T, F)), dtype)
        self.dout = gemm.aligned_empty(self.out.shape, dtype)

    @staticmethod
    def size(T: int, F: int) -> int:
        """F'."""
        return F

    @abstractmethod
    def forward(self, y: Array, part: Slice) -> None:
        """OVERWRITE `out` for the rows of ``part``."""

    @abstractmethod
    def backward(self, dy: Array, part: Slice) -> None:
        """OVERWRITE dy (T, B, F) with the gradient at y, from `dout`, for the rows of ``part``."""


class Last(Pooling):
    """The last step."""

    repeatable = True

    def forward(self, y: Array, part: Slice) -> None:
        for first, size, reverse in self.directions:
            if part.lengths is None:
                step = y[:1] if reverse else y[-1:]
                copy_rows(self.out, step, part.b0, part.b1, first, first, size)
            else:
                step, columns = part.first_rows if reverse else part.last_rows, slice(first, first + size)
                self.out[0, part.sequences, columns] = y[(*step, columns)]

    def backward(self, dy: Array, part: Slice) -> None:
        if part.lengths is None:
            copy_rows(dy, None, part.b0, part.b1)
        else:
            dy[:, part.rows] = 0
        for first, size, reverse in self.directions:
            if part.lengths is None:
                step = dy[:1] if reverse else dy[-1:]
                copy_rows(step, self.dout, part.b0, part.b1, first, first, size)
            else:
                step, columns = part.first_rows if reverse else part.last_rows, slice(first, first + size)
                dy[(*step, columns)] = self.dout[0, part.sequences, columns]


class Mean(Pooling):
    """The mean over the steps."""

    repeatable = True

    def forward(self, y: Array, part: Slice) -> None:
        pool.pool_mean_forward(self.out[0], y, part.b0, part.b1, part.lengths)

    def backward(self, dy: Array, part: Slice) -> None:
        pool.pool_mean_backward(dy, self.dout[0], part.b0, part.b1, part.lengths)


class Max(Pooling):
    """The maximum over the steps."""

    repeatable = True
    which: Array  # int32 (B, F): the step of each maximum

    def __init__(
        self, T: int, B: int, F: int, directions: Sequence[tuple[int, int, bool]], dtype: str
    ) -> None:
        super().__init__(T, B, F, directions, dtype)
        self.which = np.zeros(self.out.shape[1:], np.int32)

    def forward(self, y: Array, part: Slice) -> None:
        pool.pool_max_forward(self.out[0], self.which, y, part.b0, part.b1, part.lengths)

    def backward(self, dy: Array, part: Slice) -> None:
        pool.pool_max_backward(dy, self.dout[0], self.which, part.b0, part.b1, part.lengths)


class Flatten(Pooling):
    """All steps concatenated."""

    @staticmethod
    def size(T: int, F: int) -> int:
        return T * F

    def forward(self, y: Array, part: Slice) -> None:
        rows = part.sequences
        self.out[0, rows] = y[:, rows].transpose(1, 0, 2).reshape(-1, self.T * self.F)

    def backward(self, dy: Array, part: Slice) -> None:
        rows = part.sequences
        dy[:, rows] = self.dout[0, rows].reshape(-1, self.T, self.F).transpose(1, 0, 2)


POOLINGS: dict[str, type[Pooling]] = {"last": Last, "mean": Mean, "max": Max, "flatten": Flatten}
