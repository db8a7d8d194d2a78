# SPDX-License-Identifier: MIT
"""StreamBatch: many streams of one model, stepped together. See stream.pyx for the types of inputs."""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, need_apart
from crnn.stream.stream cimport (
    CRNN_STREAM_BLOCK, RELEASE_BYTES, Stream, StreamWeights, acquire, aligned, as_array, crnn_streams, crnn_streams_copy,
    crnn_streams_init, crnn_streams_reset, crnn_streams_set_state, crnn_streams_size, crnn_streams_step,
    crnn_streams_step_ids, described, new_memory, plain_array, release,
)

import heapq

import numpy as np

cnp.import_array()

cdef enum:
    MAX_ROWS = 1 << 28  # stream.c's MAX_SIZE


def _batch_from(weights, length, rows, states):
    """For pickle."""
    batch = StreamBatch(weights, length)
    batch.remove(sorted(set(range(length)) - set(rows)))
    batch.set_states(states)
    return batch


cdef void step_streams(crnn_streams *streams, void *y, const void *x, bint ids, const int32_t *rows,
                       Py_ssize_t M) noexcept nogil:
    if ids:
        crnn_streams_step_ids(streams, y, <const int32_t *>x, rows, M)
    else:
        crnn_streams_step(streams, y, x, rows, M)


@cython.final
cdef class StreamBatch:
    """Many streams of one model that are stepped together; ``model.stream_batch(n)`` makes one.

    Each stream is a row, with a number. Rows can be added and removed at any time; the numbers of removed rows are
    reused. Each row is bit-identical to a separate `Stream`, independently of the other rows. Only one thread at a time
    may use a batch: a concurrent call raises RuntimeError and changes nothing.

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
    >>> batch.step(x, rows=[2, 0]).shape           # row 1 is not stepped
    (2, 4)
    >>> batch.remove(1)
    >>> batch.active
    array([0, 2], dtype=int32)
    """

    cdef readonly StreamWeights weights
    cdef crnn_streams *streams
    cdef void *memory
    cdef crnn_streams *spare    # memory of the same capacity that `select` copies into; NULL if not allocated yet
    cdef void *spare_memory
    cdef Py_ssize_t capacity, used
    cdef int busy
    cdef object free, rows, flags, stamps
    cdef long long stamp

    def __cinit__(self, StreamWeights weights not None, count=0):
        self.weights = weights
        self.free, self.rows = [], None
        self.flags, self.stamps = np.zeros(0, bool), np.zeros(0, np.int64)
        cdef Py_ssize_t n = check_count("n", count)
        self.grow(max(n, 1))
        self.take_rows(n)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.spare_memory)

    @property
    def input_size(self):
        return self.weights.input_size

    @property
    def output_size(self):
        return self.weights.output_size

    def __len__(self):
        """The number of active rows."""
        return self.used - len(self.free)

    @property
    def active(self):
        """The numbers of the active rows, int32, in ascending order."""
        acquire(&self.busy, "stream batch")
        try:
            return self.active_rows().copy()
        finally:
            release(&self.busy)

    cdef cnp.ndarray active_rows(self):
        if self.rows is None:
            self.rows = np.flatnonzero(self.flags).astype(np.int32)
        return self.rows

    cdef int grow(self, Py_ssize_t needed) except -1:
        """Allocate memory for ``needed`` rows or more. It doubles, so adding a row takes constant amortised time."""
        cdef Py_ssize_t capacity = max(needed, min(2 * self.capacity, MAX_ROWS)), row
        cdef void *memory
        cdef crnn_streams *streams = self.allocate(capacity, &memory)
        for row in range(self.used):
            crnn_streams_copy(streams, row, self.streams, row)
        self.replace_memory(streams, memory, capacity)
        return 0

    cdef crnn_streams *allocate(self, Py_ssize_t capacity, void **memory) except NULL:
        cdef Py_ssize_t block = min(capacity, CRNN_STREAM_BLOCK)
        cdef size_t size = crnn_streams_size(self.weights.model, capacity, block)
        memory[0] = new_memory(size)
        return crnn_streams_init(aligned(memory[0]), self.weights.model, capacity, block)

    cdef int replace_memory(self, crnn_streams *streams, void *memory, Py_ssize_t capacity) except -1:
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.spare_memory)
        self.spare, self.spare_memory = NULL, NULL
        self.memory, self.streams = memory, streams
        cdef Py_ssize_t more = capacity - self.capacity
        self.capacity = capacity
        self.flags = np.concatenate([self.flags, np.zeros(more, bool)])
        self.stamps = np.concatenate([self.stamps, np.zeros(more, np.int64)])
        return 0

    cdef object take_rows(self, Py_ssize_t count):
        """Activate ``count`` rows in their initial state. Returns their numbers, int32 (count,), free numbers first."""
        reused = [heapq.heappop(self.free) for _ in range(min(count, len(self.free)))]
        cdef Py_ssize_t new = count - len(reused)
        try:
            if self.used + new > self.capacity:
                self.grow(self.used + new)
        except BaseException:
            for row in reused:
                heapq.heappush(self.free, row)
            raise
        rows = np.array(reused + list(range(self.used, self.used + new)), np.int32)
        self.used += new
        self.flags[rows] = True
        self.rows = None
        crnn_streams_reset(self.streams, <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>rows), count)
        return rows

    cdef cnp.ndarray checked(self, rows, bint distinct=True):
        """``rows`` as int32 (M,). Raises unless all are active and, if ``distinct``, no row occurs twice."""
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
        array = plain_array(given, cnp.NPY_INT32)
        cdef int32_t *row_ = <int32_t *>cnp.PyArray_DATA(array)
        cdef cnp.npy_bool *active = <cnp.npy_bool *>cnp.PyArray_DATA(<cnp.ndarray>self.flags)
        cdef long long *stamps = <long long *>cnp.PyArray_DATA(<cnp.ndarray>self.stamps)
        n = cnp.PyArray_DIM(array, 0)
        self.stamp += 1
        for i in range(n):
            row = row_[i]
            if not 0 <= row < self.used or not active[row]:
                raise ValueError(f"rows: expected active rows, got {row} at position {i}")
            if distinct and stamps[row] == self.stamp:
                raise ValueError(f"rows: expected each row once, got {row} again at position {i}")
            stamps[row] = self.stamp
        return array

    cdef Py_ssize_t one(self, row) except -1:
        """The number of one row. Raises TypeError and ValueError unless it is active."""
        if isinstance(row, bool) or not isinstance(row, (int, np.integer)):
            raise TypeError(f"row: expected an integer, got {described(row)}")
        if not 0 <= row < self.used or not self.flags[row]:
            raise ValueError(f"row: expected an active row, got {row}")
        return row

    def step(self, x, rows=None, out=None):
        """The outputs of one more step of M rows; the states of the other rows do not change.

        Parameters
        ----------
        x : array (M, input_size), or integer ids (M,)
        rows : integers (M,), optional
            Active rows, each once, in any order. If not given: all, in ascending order.
        out : array (M, output_size), optional
            Where to write the outputs; C-contiguous, not overlapping x.

        Returns
        -------
        array (M, output_size)
            Fresh, or ``out``; row m is the output of ``rows[m]``, see `Stream.step`.
        """
        cdef StreamWeights weights = self.weights
        cdef cnp.ndarray x_array = weights.many_inputs("x", x, "M"), chosen
        cdef Py_ssize_t M = cnp.PyArray_DIM(x_array, 0)
        cdef bint ids = cnp.PyArray_NDIM(x_array) == 1
        if out is None:
            out = weights.new_outputs(M)
        cdef void *y_ = data("out", out, weights.real, True, 2, M, weights.output_size)
        cdef void *x_ = cnp.PyArray_DATA(x_array)
        cdef int32_t *rows_
        need_apart("out", out, "x", x_array)
        acquire(&self.busy, "stream batch")
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
            release(&self.busy)
        return out

    def add(self, count=1, state=None):
        """Add rows.

        Parameters
        ----------
        count : int
            Number of rows to add.
        state : Stream, TextStream, or state in the form of `Stream.state`, optional
            State from which all of them start; the initial state if not given.

        Returns
        -------
        int32 (count,)
            The numbers of the new rows.
        """
        cdef Py_ssize_t n = check_count("count", count)
        cdef cnp.ndarray flat = None if state is None else self.as_flat(state)
        acquire(&self.busy, "stream batch")
        try:
            rows = self.take_rows(n)
            if flat is not None:
                for row in rows:
                    crnn_streams_set_state(self.streams, cnp.PyArray_DATA(flat), row)
            return rows
        finally:
            release(&self.busy)

    def remove(self, rows):
        """Remove rows, given as integers (M,) or one integer. `add` reuses their numbers."""
        acquire(&self.busy, "stream batch")
        try:
            removed = self.checked(rows)
            self.flags[removed] = False
            self.rows = None
            for row in removed.tolist():
                heapq.heappush(self.free, row)
        finally:
            release(&self.busy)

    def reset(self, rows=None):
        """Reset rows, given as integers (M,) or one integer, to the initial state; all if not given."""
        cdef cnp.ndarray chosen
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.active_rows() if rows is None else self.checked(rows)
            crnn_streams_reset(self.streams, <int32_t *>cnp.PyArray_DATA(chosen), cnp.PyArray_DIM(chosen, 0))
        finally:
            release(&self.busy)

    def select(self, rows):
        """Replace all rows by copies of selected rows, as beam search does after each step.

        Afterwards the batch has the rows 0 .. M-1, and row m continues from the state of the former row ``rows[m]``.
        Rows that are not selected are removed.

        Parameters
        ----------
        rows : integers (M,)
            Active rows, in any order; a row may occur several times.
        """
        cdef cnp.ndarray chosen
        cdef Py_ssize_t M, m
        cdef int32_t *rows_
        cdef crnn_streams *streams
        cdef void *memory
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.checked(rows, distinct=False)
            M, rows_ = cnp.PyArray_DIM(chosen, 0), <int32_t *>cnp.PyArray_DATA(chosen)
            if M > self.capacity:
                streams = self.allocate(M, &memory)
            else:
                if self.spare == NULL:
                    self.spare = self.allocate(self.capacity, &self.spare_memory)
                streams = self.spare
            for m in range(M):
                crnn_streams_copy(streams, m, self.streams, rows_[m])
            if M > self.capacity:
                self.replace_memory(streams, memory, M)
            else:
                self.streams, self.spare = streams, self.streams
                self.memory, self.spare_memory = self.spare_memory, self.memory
            self.used, self.free, self.rows = M, [], None
            self.flags[:] = False
            self.flags[:M] = True
        finally:
            release(&self.busy)

    def state(self, row):
        """A row's state, in the form of `Stream.state`; a copy."""
        cdef int32_t number
        acquire(&self.busy, "stream batch")
        try:
            number = self.one(row)
            return self.weights.states_of(self.streams, &number, 1)
        finally:
            release(&self.busy)

    def states(self, rows=None):
        """The states of M rows, in the form of the network's own state for a batch of M; a copy.

        Parameters
        ----------
        rows : integers (M,), optional
            Active rows, in any order. If not given: all, in ascending order.
        """
        cdef cnp.ndarray chosen
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.active_rows() if rows is None else self.checked(rows, distinct=False)
            return self.weights.states_of(self.streams, <int32_t *>cnp.PyArray_DATA(chosen), cnp.PyArray_DIM(chosen, 0))
        finally:
            release(&self.busy)

    def set_state(self, row, state):
        """Set the state of a row: to that of a stream, or to a state in the form of `Stream.state`."""
        cdef cnp.ndarray flat = self.as_flat(state)
        acquire(&self.busy, "stream batch")
        try:
            crnn_streams_set_state(self.streams, cnp.PyArray_DATA(flat), self.one(row))
        finally:
            release(&self.busy)

    def set_states(self, states, rows=None):
        """Set the states of M rows, in the form of `states`. ``rows`` as in `states`, but each at most once."""
        cdef cnp.ndarray flat, chosen
        cdef char *state
        cdef int32_t *rows_
        cdef Py_ssize_t m
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.active_rows() if rows is None else self.checked(rows)
            flat = self.weights.flat_states("states", states, cnp.PyArray_DIM(chosen, 0))
            state, rows_ = <char *>cnp.PyArray_DATA(flat), <int32_t *>cnp.PyArray_DATA(chosen)
            for m in range(cnp.PyArray_DIM(chosen, 0)):
                crnn_streams_set_state(self.streams, state, rows_[m])
                state += cnp.PyArray_STRIDE(flat, 0)
        finally:
            release(&self.busy)

    cdef cnp.ndarray as_flat(self, state):
        return self.weights.flat_states("state", getattr(state, "state", state), 1)

    def stream(self, row):
        """A `Stream` that continues from the state of a row, independently."""
        cdef Stream stream = Stream(self.weights)
        acquire(&self.busy, "stream batch")
        try:
            crnn_streams_copy(stream.streams, 0, self.streams, self.one(row))
        finally:
            release(&self.busy)
        return stream

    def __reduce__(self):
        rows = self.active.tolist()
        return _batch_from, (self.weights, self.used, rows, self.states())

    def __repr__(self):
        return f"StreamBatch({len(self)} streams of {self.weights.describe()})"


cdef Py_ssize_t check_count(str name, count) except -1:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count < MAX_ROWS:
        raise ValueError(f"{name}: expected an integer of at least 0, got {count!r:.60}")
    return count
