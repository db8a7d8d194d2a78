# SPDX-License-Identifier: MIT
"""SelectedRows: an update that leaves out the rows of an embedding, or of W_xh, that no id of the window selects.

Their gradient is zero. Where that changes nothing, in plain SGD, they need not be cleared, summed or updated: with
100,000 words that is 40 times as much as the rows that are selected. The results are bit-identical to an update of all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from crnn._core import optim as kernels
from crnn._core.gemm import line_width
from crnn.checks import Array
from crnn.optim.optimizers import SGD, Optimizer, keeps_no_parameters
from crnn.training.config import TrainingConfig

__all__ = ["SelectedRows", "SelectedSums"]

LEAST = 1 << 22  # elements of the matrix: fewer are as fast all together
CHUNK = 1 << 16  # elements of a sum: with those that are added they stay in the second-level cache
LEAST_SUMMED = 1 << 20  # the same for sums, which move more memory


class SelectedRows:
    """The gradient of a training with plain SGD, whose matrix (V, D) has ids as rows.

    Parameters
    ----------
    optimizer : SGD
    start, rows, width : int
        Of the matrix in the flat buffers.
    """

    start: int
    stop: int
    width: int

    @staticmethod
    def of(model: Any, optimizer: Optimizer, config: TrainingConfig) -> SelectedRows | None:
        """None where the model has no such matrix, or an update may change its other rows."""
        if type(optimizer) is not SGD or not keeps_no_parameters(optimizer):  # or has another `update`
            return None
        plain = optimizer.momentum == 0 and optimizer.weight_decay == 0
        of_all = config.clip_value is not None or config.gradient_noise is not None
        seen = config.on_update is not None or config.on_epoch is not None  # callbacks might write into the gradient
        find = getattr(model, "_selected_by_ids", None)
        if not plain or of_all or seen or find is None:
            return None
        found = find()
        return None if found is None or found[1] * found[2] < LEAST else SelectedRows(optimizer, *found)

    def __init__(self, optimizer: SGD, start: int, rows: int, width: int) -> None:
        self._optimizer = optimizer
        self.start, self.stop, self.width = start, start + rows * width, width
        self._ids: Array | None = None  # of the rows that may not be zero; None: any may
        self._updated = False  # whether all rows have been updated: denormal numbers are then flushed to 0

    def clear(self, grads: Array, threads: int) -> None:
        """Set the whole gradient to zero."""
        if self._ids is None:
            kernels.clear(grads, threads)
        else:
            for others in (grads[: self.start], grads[self.stop :]):
                if len(others):
                    kernels.clear(others, threads)
            self._matrix(grads)[self._ids] = 0
        self._ids = None  # until the gradient is complete

    def take(self, ids: Array) -> None:
        """These ids have selected the rows. Where there are as many as rows, the gradient is one of all rows."""
        self._ids = np.unique(ids) if ids.size < (self.stop - self.start) // self.width else None

    def sum_of_squares(self, grads: Array, threads: int) -> float:
        """As the kernel of this name, which adds the sums of blocks: lines of zeros change none of them."""
        if self._ids is None:
            return kernels.sum_of_squares(grads, threads)
        line, block, n = line_width(grads.dtype), kernels.NORM_ELEMENTS, len(grads)
        lines = grads[: n // line * line].reshape(-1, line)
        first, last = self.start // block, -(-self.stop // block)  # blocks with a part of the matrix
        chosen = self._lines(line, first * block, min(last * block, n))
        bounds = np.searchsorted(chosen, np.arange(first, last + 1) * (block // line))
        total = 0.0
        for number in range(-(-n // block)):
            part = grads[number * block : (number + 1) * block]
            if first <= number < last:
                of_block = chosen[bounds[number - first] : bounds[number - first + 1]]
                part = np.concatenate([lines.take(of_block, axis=0).reshape(-1), part[len(part) // line * line :]])
            total += kernels.sum_of_squares(part) if len(part) else 0.0
        return total

    def _lines(self, line: int, begin: int, end: int) -> Array:
        """The whole lines of the elements begin .. end that are not known to be zero, ascending."""
        assert self._ids is not None
        starts = self.start + self._ids.astype(np.intp) * self.width
        most = (self.width + line - 2) // line + 1
        of_rows = starts[:, None] // line + np.arange(most)
        of_rows = np.minimum(of_rows, (starts[:, None] + self.width - 1) // line)
        whole = end // line
        of_rows = of_rows[of_rows < whole]
        before = np.arange(begin // line, -(-self.start // line))
        after = np.arange(self.stop // line, whole)
        found = np.concatenate([before, of_rows.reshape(-1), after])  # neighbours may share a line
        return found[np.diff(found, prepend=-1) > 0]

    def update(self, params: Array, grads: Array, *, factor: float, lr_scale: float, threads: int) -> None:
        """As the optimizer's."""
        optimizer = self._optimizer
        if self._ids is None or not self._updated:
            optimizer.update(params, grads, factor=factor, lr_scale=lr_scale, threads=threads)
            self._updated = True
            return
        matrix, of_gradient = self._matrix(params), self._matrix(grads)
        rows = matrix[self._ids]
        for w, g in (
            (params[: self.start], grads[: self.start]),
            (rows.reshape(-1), of_gradient[self._ids].reshape(-1)),
            (params[self.stop :], grads[self.stop :]),
        ):
            if len(w):
                kernels.sgd(w, None, g, factor, optimizer.lr * lr_scale, 0.0, 0.0, False, threads)
        matrix[self._ids] = rows
        optimizer._set(updates=optimizer.updates + 1)

    def _matrix(self, flat: Array) -> Array:
        return flat[self.start : self.stop].reshape(-1, self.width)


class SelectedSums:
    """Sums of gradients that leave out rows of such a matrix that are zero.

    ``ids`` are those of the rows that may not be zero, ascending; None: any may. Without such a matrix they are None.

    Parameters
    ----------
    model : object
        Of the gradients.
    """

    def __init__(self, model: Any) -> None:
        find = getattr(model, "_selected_by_ids", None)
        found = None if find is None else find()
        self._start = self._rows = self._width = 0
        if found is not None and found[1] * found[2] >= LEAST_SUMMED:
            self._start, self._rows, self._width = found
        self._stop = self._start + self._rows * self._width

    def selected(self, x: Any) -> Array | None:
        """The rows that a shard's input selects; None if there may be others, or many."""
        return np.unique(x) if self._rows and x is not None and x.size < self._rows // 2 else None

    def move(self, flat: Array, ids: Array | None, to: Array) -> None:
        """Move a gradient into memory whose matrix is zero. ``flat`` is zero afterwards."""
        for source, target in zip(self._others(flat), self._others(to), strict=True):
            for some in _chunks(source):
                target[some] = source[some]
                source[some] = 0
        matrix, rows = self._matrix(flat), _index(ids)
        self._matrix(to)[rows] = matrix[rows]
        matrix[rows] = 0

    def add(
        self, flat: Array, ids: Array | None, lefts: Sequence[tuple[Array, Array | None]], *, last: bool
    ) -> list[Array | None]:
        """Add a gradient to the first of ``lefts``, gradients with their ids, that to the second, and so on.

        ``flat`` is zero afterwards, or with ``last`` the sum. Returns the ids of the sums.
        """
        arrays = [flat, *(left for left, _ in lefts)]
        for parts in zip(*map(self._others, arrays), strict=True):
            for some in _chunks(parts[0]):
                for value, left in itertools.pairwise(parts):
                    np.add(left[some], value[some], out=left[some])
                parts[0][some] = parts[-1][some] if last else 0
        found, matrices = [ids], [self._matrix(array) for array in arrays]
        for number, (_, of_left) in enumerate(lefts):
            of_value = found[-1]
            found.append(None if of_value is None or of_left is None else np.union1d(of_value, of_left))
            rows = _index(found[-1])
            matrices[number + 1][rows] += matrices[number][rows]
        matrices[0][_index(ids)] = 0
        if last:
            rows = _index(found[-1])
            matrices[0][rows] = matrices[-1][rows]
        return found[1:]

    def clear_rows(self, flat: Array, ids: Array | None) -> None:
        """Set the matrix to zero."""
        self._matrix(flat)[_index(ids)] = 0

    def scale(self, flat: Array, ids: Array | None, factor: float, threads: int) -> None:
        """Multiply by a number."""
        if ids is None:
            kernels.scale(flat, factor, threads)
            return
        for part in self._others(flat):
            kernels.scale(part, factor, threads)
        rows = self._matrix(flat)[ids]
        kernels.scale(rows.reshape(-1), factor, threads)
        self._matrix(flat)[ids] = rows

    def _others(self, flat: Array) -> list[Array]:
        """What is no part of the matrix."""
        return [part for part in (flat[: self._start], flat[self._stop :]) if part.size]

    def _matrix(self, flat: Array) -> Array:
        """The matrix; without rows if there is none."""
        return flat[self._start : self._stop].reshape(self._rows, self._width)


def _index(ids: Array | None) -> Any:
    return slice(None) if ids is None else ids


def _chunks(flat: Array) -> Iterator[slice]:
    """Ranges of an array that stay in the second-level cache from one operation to the next."""
    for start in range(0, len(flat), CHUNK):
        yield slice(start, start + CHUNK)
