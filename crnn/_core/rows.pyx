# SPDX-License-Identifier: MIT
"""Which rows of a batch a kernel works on, where its sequences have different lengths."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport need_range

import numpy as np

cnp.import_array()


cdef class Lengths:
    """Lengths of a batch's sequences, each from 1 to T, dealt out to so many parts of about equal work.

    ``order`` lists the batch's rows part by part, longest first within each, so that the rows which are still there at
    a time step are always a part's first ones: what is finished costs nothing, and nothing is copied.
    """

    def __init__(self, lengths: ArrayLike, Py_ssize_t T, Py_ssize_t parts):
        lengths = np.array(lengths)  # a copy: the kernels trust what is checked here
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.size == 0:
            raise ValueError(f"lengths: expected integers of shape (B,), got {lengths.dtype} of shape {lengths.shape}")
        if lengths.min() < 1 or lengths.max() > T:
            raise ValueError(f"lengths: expected from 1 to {T}, got {lengths.min()} to {lengths.max()}")
        if parts < 1:
            raise ValueError(f"parts: expected 1 or more, got {parts}")
        self.lengths = lengths.astype(np.int32)
        self.T, self.B = T, lengths.size
        longest_first = np.argsort(-self.lengths, kind="stable").astype(np.int32)
        dealt = [longest_first[part::parts] for part in range(parts)]
        self.order = np.concatenate(dealt)
        self.bounds = np.cumsum([0, *map(len, dealt)]).tolist()
        self.lengths.flags.writeable = self.order.flags.writeable = False

    def part(self, Py_ssize_t part) -> tuple[int, int]:
        """The positions b0 .. b1 of a part."""
        return self.bounds[part], self.bounds[part + 1]

    def single(self) -> Lengths:
        """The same order and parts for arrays (1, B, ...), that have one step for each sequence."""
        cdef Lengths one = Lengths.__new__(Lengths)
        one.T, one.B, one.order, one.bounds = 1, self.B, self.order, self.bounds
        one.lengths = np.ones(self.B, np.int32)
        one.lengths.flags.writeable = False
        return one

    def padding(self) -> NDArray[Any]:
        """Where there is no step: bool (T, B)."""
        return np.arange(self.T)[:, None] >= self.lengths


cdef crnn_rows rows_of(Py_ssize_t T, Py_ssize_t B, Py_ssize_t b0, Py_ssize_t b1, lengths) except *:
    cdef crnn_rows rows = all_rows_of(T, B, lengths)
    cdef Py_ssize_t i
    need_range("b0, b1", b0, b1, B, 1)
    rows.b0, rows.b1 = b0, b1
    if rows.lengths != NULL:
        for i in range(b0 + 1, b1):
            if rows.lengths[rows.order[i]] > rows.lengths[rows.order[i - 1]]:
                raise ValueError(f"b0, b1: expected positions within one part of lengths, got {b0} .. {b1}")
    return rows


cdef crnn_rows all_rows_of(Py_ssize_t T, Py_ssize_t B, lengths) except *:
    cdef crnn_rows rows
    cdef Lengths given
    rows.T, rows.B, rows.b0, rows.b1 = T, B, 0, B
    rows.order = rows.lengths = NULL
    if lengths is not None:
        given = lengths  # a TypeError if it is something else
        if given.T != T or given.B != B:
            raise ValueError(f"lengths: expected those of {B} sequences of up to {T} steps, "
                             f"got {given.B} of up to {given.T}")
        rows.order = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>given.order)
        rows.lengths = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>given.lengths)
    return rows
