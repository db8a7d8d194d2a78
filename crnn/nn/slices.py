# SPDX-License-Identifier: MIT
"""Slice: some sequences of a batch, which a thread computes, and where their rows are in the batch's arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from crnn._core.rows import Lengths
from crnn.checks import Array


class Slice(NamedTuple):
    """Some sequences of a batch: b0 .. b1-1, or with ``lengths`` ``lengths.order[b0:b1]``.

    Arrays (T, B, ...) of a batch with lengths are packed, see `crnn._core.rows.Lengths`: (1, M, ...), M the sum of the
    lengths; or, for inference, they may have padding.
    """

    b0: int
    b1: int
    lengths: Lengths | None = None

    @property
    def single(self) -> Slice:
        """The same sequences, for arrays (1, B, ...) with one vector for each of them."""
        return Slice(self.b0, self.b1, None if self.lengths is None else self.lengths.single())

    @property
    def sequences(self) -> Any:
        """Index into arrays (B, ...): a slice, or an intp array, because NumPy crashes if memory runs out while it
        converts indices of another type."""
        if self.lengths is None:
            return slice(self.b0, self.b1)
        return self.lengths.order[self.b0 : self.b1].astype(np.intp)

    @property
    def rows(self) -> Any:
        """Index of these sequences' rows along the second axis of arrays (T, B, ...), or packed (1, M, ...)."""
        if self.lengths is None or not self.lengths.packed:
            return self.sequences
        if self.b1 - self.b0 == self.lengths.B:
            return slice(None)
        return self.lengths.rows_of_part(self.b0, self.b1)

    @property
    def first_rows(self) -> Any:
        """Index into arrays (T, B, ...), or packed, of each sequence's first step."""
        if self.lengths is None or not self.lengths.packed:
            return 0, self.sequences
        return 0, self.lengths.first_rows(self.sequences)

    @property
    def last_rows(self) -> Any:
        """Index into arrays (T, B, ...), or packed, of each sequence's last step."""
        if self.lengths is None:
            return -1, self.sequences
        if not self.lengths.packed:
            return self.lengths.lengths[self.sequences].astype(np.intp) - 1, self.sequences
        return 0, self.lengths.last_rows(self.sequences)

    @property
    def padded(self) -> bool:
        """Whether arrays (T, B, ...) have padding."""
        return self.lengths is not None and not self.lengths.packed

    def steps(self, t0: int, t1: int) -> tuple[Slice, Array]:
        """Of arrays with padding: the slice of the steps t0 .. t1-1, and the sequences that have their last step there.

        The slice is empty if no sequence has such a step.
        """
        assert self.lengths is not None
        if t1 - t0 == self.lengths.T:
            return self, self.sequences
        lengths, b1, after = self.lengths.steps(t0, t1, self.b0, self.b1)
        return Slice(self.b0, b1, lengths), self.lengths.order[after:b1]
