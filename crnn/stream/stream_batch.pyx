# SPDX-License-Identifier: MIT
"""Many streams of one model, stepped together: `StreamBatch`; ``model.stream_batch(n)`` makes one. See stream.pyx for
what counts as input."""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, need_apart
from crnn.stream.stream cimport (
    CRNN_STREAM_ROWS, RELEASE_BYTES, Stream, StreamWeights, aligned, as_array, crnn_streams, crnn_streams_copy,
    crnn_streams_init, crnn_streams_reset, crnn_streams_set_state, crnn_streams_size, crnn_streams_step,
    crnn_streams_step_ids, described, enter, leave, new_memory,
)

import heapq

import numpy as np

cnp.import_array()

cdef enum:
    MOST_ROWS = 1 << 28  # stream.c's MOST_UNITS


def _batch_from(weights, length, rows, states):
    """For pickle."""
    batch = StreamBatch(weights, length)
    batch.remove(sorted(set(range(length)) - set(rows)))
    for row, state in zip(rows, states):
        batch.set_state(row, state)
    return batch


cdef void step_streams(crnn_streams *streams, float *y, const void *x, bint ids, const int32_t *rows,
                       Py_ssize_t M) noexcept nogil:
    if ids:
        crnn_streams_step_ids(streams, y, <const int32_t *>x, rows, M)
    else:
        crnn_streams_step(streams, y, <const float *>x, rows, M)


@cython.final
cdef class StreamBatch:
    """Many streams of one model that are stepped together; ``model.stream_batch(n)`` makes one.

    A stream is a row, and has a number. Rows may come and go at any time; a number that is free is given out again.
    Each row has the bits of a `Stream` of its own, whatever the others do. One thread at a time.

    Attributes
    ----------
    input_size, output_size : int
    weights : StreamWeights

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(input_size=3, hidden_size=4, seed=0)
    >>> batch = net.stream_batch(2)
    >>> x = np.ones((2, 3), np.float32)
    >>> batch.step(x).shape
    (2, 4)
    >>> batch.add()
    array([2], dtype=int32)
    >>> batch.step(x, rows=[2, 0]).shape           # row 1 waits
    (2, 4)
    >>> batch.remove(1)
    >>> batch.active
    array([0, 2], dtype=int32)
    """

    cdef readonly StreamWeights weights
    cdef crnn_streams *streams
    cdef void *memory
    cdef Py_ssize_t capacity, used
    cdef int busy
    cdef object free, rows, flags, stamps
    cdef long long stamp

    def __cinit__(self, StreamWeights weights not None, count=0):
        self.weights = weights
        self.free, self.rows = [], None
        self.flags, self.stamps = np.zeros(0, bool), np.zeros(0, np.int64)
        cdef Py_ssize_t n = counted("n", count)
        self.grow(max(n, 1))
        self.take_rows(n)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    @property
    def input_size(self):
        return self.weights.input_size

    @property
    def output_size(self):
        return self.weights.output_size

    def __len__(self):
        """How many rows are active."""
        return self.used - len(self.free)

    @property
    def active(self):
        """The rows there are, int32, rising."""
        enter(&self.busy, "stream batch")
        try:
            return self.active_rows().copy()
        finally:
            leave(&self.busy)

    cdef cnp.ndarray active_rows(self):
        if self.rows is None:
            self.rows = np.flatnonzero(self.flags).astype(np.int32)
        return self.rows

    cdef int grow(self, Py_ssize_t needed) except -1:
        """Memory for so many rows; by doubling, so that adding a row costs little on average."""
        cdef Py_ssize_t capacity = max(needed, min(2 * self.capacity, MOST_ROWS)), row
        cdef Py_ssize_t most = min(capacity, CRNN_STREAM_ROWS)
        cdef size_t size = crnn_streams_size(self.weights.model, capacity, most)
        if size:  # else new_memory says that it is too much
            flags, stamps = np.zeros(capacity, bool), np.zeros(capacity, np.int64)
        cdef void *memory = new_memory(size)
        cdef crnn_streams *streams = crnn_streams_init(aligned(memory), self.weights.model, capacity, most)
        for row in range(self.used):
            crnn_streams_copy(streams, row, self.streams, row)
        flags[:self.capacity], stamps[:self.capacity] = self.flags, self.stamps
        PyMem_RawFree(self.memory)
        self.memory, self.streams, self.capacity = memory, streams, capacity
        self.flags, self.stamps = flags, stamps
        return 0

    cdef object take_rows(self, Py_ssize_t count):
        """So many fresh rows, those that were freed first."""
        again = [heapq.heappop(self.free) for _ in range(min(count, len(self.free)))]
        cdef Py_ssize_t new = count - len(again)
        try:
            if self.used + new > self.capacity:
                self.grow(self.used + new)
        except BaseException:
            for row in again:
                heapq.heappush(self.free, row)
            raise
        rows = np.array(again + list(range(self.used, self.used + new)), np.int32)
        self.used += new
        self.flags[rows] = True
        self.rows = None
        crnn_streams_reset(self.streams, <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>rows), count)
        return rows

    cdef cnp.ndarray checked(self, rows):
        """Numbers of active rows, all different, as int32."""
        cdef cnp.ndarray array
        cdef Py_ssize_t i, n
        cdef int32_t row
        given = as_array("rows", rows)
        if given.ndim == 0:
            given = given[None]
        if given.shape == (0,):
            given = given.astype(np.int32)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise TypeError(f"rows: expected integers (M,), got {described(rows)}")
        if given.dtype != np.int32:
            if given.min() < 0 or given.max() >= self.used:
                raise ValueError(f"rows: expected active rows, from 0 to {self.used - 1}, "
                                 f"got {given.min()} to {given.max()}")
        array = np.ascontiguousarray(given, np.int32)
        cdef int32_t *row_ = <int32_t *>cnp.PyArray_DATA(array)
        cdef cnp.npy_bool *there = <cnp.npy_bool *>cnp.PyArray_DATA(<cnp.ndarray>self.flags)
        cdef long long *stamps = <long long *>cnp.PyArray_DATA(<cnp.ndarray>self.stamps)
        n = cnp.PyArray_DIM(array, 0)
        self.stamp += 1
        for i in range(n):
            row = row_[i]
            if not 0 <= row < self.used or not there[row]:
                raise ValueError(f"rows: expected active rows, got {row} at position {i}")
            if stamps[row] == self.stamp:
                raise ValueError(f"rows: expected each row once, got {row} again at position {i}")
            stamps[row] = self.stamp
        return array

    cdef Py_ssize_t one(self, row) except -1:
        if isinstance(row, bool) or not isinstance(row, (int, np.integer)):
            raise TypeError(f"row: expected an integer, got {described(row)}")
        if not 0 <= row < self.used or not self.flags[row]:
            raise ValueError(f"row: expected an active row, got {row}")
        return row

    def step(self, x, rows=None, out=None):
        """The outputs of one more step of M rows; the others wait.

        Parameters
        ----------
        x : float32 array (M, input_size), or integer ids (M,)
        rows : integers (M,), optional
            Which rows, each once, in any order; not given: all, in rising order.
        out : float32 array (M, output_size), optional
            Where to write the outputs; C-contiguous, apart from x.

        Returns
        -------
        array (M, output_size)
            Fresh, or ``out``; row m is that of ``rows[m]``. As in `Stream.step`.
        """
        cdef StreamWeights weights = self.weights
        cdef cnp.ndarray x_array = weights.many_inputs("x", x, "M"), chosen
        cdef Py_ssize_t M = cnp.PyArray_DIM(x_array, 0)
        cdef bint ids = cnp.PyArray_NDIM(x_array) == 1
        if out is None:
            out = weights.fresh(M)
        cdef float *y_ = <float *>data("out", out, cnp.NPY_FLOAT32, True, 2, M, weights.output_size)
        cdef void *x_ = cnp.PyArray_DATA(x_array)
        cdef int32_t *rows_
        need_apart("out", out, "x", x_array)
        enter(&self.busy, "stream batch")
        try:
            chosen = self.active_rows() if rows is None else self.checked(rows)
            if cnp.PyArray_DIM(chosen, 0) != M:
                raise ValueError(f"x: expected {cnp.PyArray_DIM(chosen, 0)} rows, one for each stream, got {M}")
            rows_ = <int32_t *>cnp.PyArray_DATA(chosen)
            if weights.step_bytes * M > RELEASE_BYTES:
                with nogil:
                    step_streams(self.streams, y_, x_, ids, rows_, M)
            else:
                step_streams(self.streams, y_, x_, ids, rows_, M)
        finally:
            leave(&self.busy)
        return out

    def add(self, count=1, state=None):
        """``count`` more rows: their numbers, int32 (count,).

        They start from the initial state, or from ``state``: a stream, or a state as `Stream.state` gives it.
        """
        cdef Py_ssize_t n = counted("count", count)
        cdef cnp.ndarray flat = None if state is None else self.as_flat(state)
        enter(&self.busy, "stream batch")
        try:
            rows = self.take_rows(n)
            if flat is not None:
                for row in rows:
                    crnn_streams_set_state(self.streams, <float *>cnp.PyArray_DATA(flat), row)
            return rows
        finally:
            leave(&self.busy)

    def remove(self, rows):
        """Rows, integers (M,) or one, that are no more; their numbers are given out again."""
        enter(&self.busy, "stream batch")
        try:
            gone = self.checked(rows)
            self.flags[gone] = False
            self.rows = None
            for row in gone.tolist():
                heapq.heappush(self.free, row)
        finally:
            leave(&self.busy)

    def reset(self, rows=None):
        """Rows, integers (M,) or one, back to the state before the first step; not given: all."""
        cdef cnp.ndarray chosen
        enter(&self.busy, "stream batch")
        try:
            chosen = self.active_rows() if rows is None else self.checked(rows)
            crnn_streams_reset(self.streams, <int32_t *>cnp.PyArray_DATA(chosen), cnp.PyArray_DIM(chosen, 0))
        finally:
            leave(&self.busy)

    def state(self, row):
        """A row's state, of the form that `Stream.state` has; a copy."""
        enter(&self.busy, "stream batch")
        try:
            return self.weights.state_of(self.streams, self.one(row))
        finally:
            leave(&self.busy)

    def set_state(self, row, state):
        """A row goes on from ``state``: a stream, or a state as `Stream.state` gives it."""
        cdef cnp.ndarray flat = self.as_flat(state)
        enter(&self.busy, "stream batch")
        try:
            crnn_streams_set_state(self.streams, <float *>cnp.PyArray_DATA(flat), self.one(row))
        finally:
            leave(&self.busy)

    cdef cnp.ndarray as_flat(self, state):
        return self.weights.flat_state("state", getattr(state, "state", state))

    def stream(self, row):
        """A `Stream` that goes on from where this row stands, by itself."""
        cdef Stream stream = Stream(self.weights)
        enter(&self.busy, "stream batch")
        try:
            crnn_streams_copy(stream.streams, 0, self.streams, self.one(row))
        finally:
            leave(&self.busy)
        return stream

    def __reduce__(self):
        rows = self.active.tolist()
        return _batch_from, (self.weights, self.used, rows, [self.state(row) for row in rows])

    def __repr__(self):
        return f"StreamBatch({len(self)} streams of {self.weights.describe()})"


cdef Py_ssize_t counted(str name, count) except -1:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count < MOST_ROWS:
        raise ValueError(f"{name}: expected an integer of at least 0, got {count!r:.60}")
    return count
