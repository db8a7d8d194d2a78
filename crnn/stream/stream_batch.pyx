# SPDX-License-Identifier: MIT
"""StreamBatch: many streams of one model, stepped together. See stream.pyx for the types of inputs.

Numbers of rows are checked in row_numbers.pxi.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int32_t
from crnn._core.arrays cimport are_ids, int32_copy
from crnn.stream.stream cimport (
    CRNN_STREAM_BLOCK, RELEASE_BYTES, Stream, StreamWeights, acquire, aligned, as_array, crnn_streams, described,
    new_memory, pins_of, release, streams_copy, streams_init, streams_reset, streams_set_state, streams_size,
    streams_step, streams_step_ids,
)

import heapq
from operator import index

import numpy as np

from crnn.sampling import Sampler

cnp.import_array()

cdef enum:
    MAX_ROWS = 1 << 28  # MAX_SIZE of src_c/stream/model.h


def _batch_from(weights, length, rows, states):
    """For pickle: a batch in which of ``length`` rows only ``rows``, in ascending order, are active.

    States may be infinite, as those of a relu cell.
    """
    numbers = [index(row) for row in rows]
    if numbers != sorted(set(numbers)) or numbers and not 0 <= min(numbers) <= max(numbers) < length:
        raise ValueError(f"rows: expected different rows below {length} in ascending order, got {rows!r:.100}")
    cdef StreamBatch batch = StreamBatch(weights, length)
    batch.remove(sorted(set(range(length)) - set(numbers)))
    batch.put_states(states, batch.active_rows(), False)
    return batch


cdef void step_streams(crnn_streams *streams, void *y, const void *x, bint ids, const int32_t *rows,
                       Py_ssize_t M) noexcept nogil:
    if ids:
        streams_step_ids(streams, y, <const int32_t *>x, rows, M)
    else:
        streams_step(streams, y, x, rows, M)


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

    cdef object __weakref__
    cdef readonly StreamWeights weights
    cdef crnn_streams *streams
    cdef void *memory
    cdef crnn_streams *spare    # memory of the same capacity that `select` copies into; NULL if not allocated yet
    cdef void *spare_memory
    cdef Py_ssize_t capacity
    cdef Py_ssize_t used    # rows from here on were never active
    cdef Py_ssize_t count   # active rows
    cdef int busy
    cdef object flags       # bool (capacity,): whether a row is active
    cdef object free        # heap of the rows below `used` that are not active; None: to be made of `flags`
    cdef object rows        # int32: the active rows in ascending order; None: to be made of `flags`
    cdef object stamps      # int64 (capacity,): the last call that had a row
    cdef long long stamp    # number of that call

    def __cinit__(self, StreamWeights weights not None, count=0):
        self.weights, self.free = weights, []
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
        return self.count

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
            streams_copy(streams, row, self.streams, row)
        self.replace_memory(streams, memory, capacity)
        return 0

    cdef crnn_streams *allocate(self, Py_ssize_t capacity, void **memory) except NULL:
        cdef Py_ssize_t block = min(capacity, CRNN_STREAM_BLOCK)
        cdef size_t size = streams_size(self.weights.model, capacity, block)
        memory[0] = new_memory(size)
        return streams_init(aligned(memory[0]), self.weights.model, capacity, block)

    cdef int replace_memory(self, crnn_streams *streams, void *memory, Py_ssize_t capacity) except -1:
        """Take over the memory of more rows. If there is an exception, it is freed, and nothing has changed."""
        cdef Py_ssize_t more = capacity - self.capacity
        try:
            flags = np.concatenate([self.flags, np.zeros(more, bool)])
            stamps = np.concatenate([self.stamps, np.zeros(more, np.int64)])
        except BaseException:
            PyMem_RawFree(memory)
            raise
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.spare_memory)
        self.spare, self.spare_memory = NULL, NULL
        self.memory, self.streams, self.capacity = memory, streams, capacity
        self.flags, self.stamps = flags, stamps
        return 0

    cdef void set_active(self, const int32_t *rows, Py_ssize_t count, bint active) noexcept:
        """Activate rows that are not, or the other way round."""
        cdef cnp.npy_bool *flags = <cnp.npy_bool *>cnp.PyArray_DATA(<cnp.ndarray>self.flags)
        cdef Py_ssize_t i
        for i in range(count):
            flags[rows[i]] = active
        self.count += count if active else -count
        self.rows = None

    cdef cnp.ndarray take_rows(self, Py_ssize_t count):
        """Activate ``count`` rows in their initial state. Returns their numbers, int32 (count,), free numbers first."""
        cdef Py_ssize_t new
        cdef cnp.ndarray rows
        try:
            if self.free is None:
                self.free = np.flatnonzero(~self.flags[:self.used]).tolist()
            reused = [heapq.heappop(self.free) for _ in range(min(count, len(self.free)))]
            new = count - len(reused)
            if self.used + new > self.capacity:
                self.grow(self.used + new)
            rows = np.array(reused + list(range(self.used, self.used + new)), np.int32)
        except BaseException:
            self.free = None
            raise
        self.used += new  # nothing fails from here on
        self.set_active(<int32_t *>cnp.PyArray_DATA(rows), count, True)
        streams_reset(self.streams, <int32_t *>cnp.PyArray_DATA(rows), count)
        return rows

    cdef cnp.ndarray chosen(self, cnp.ndarray rows, bint distinct=True):
        """Rows from `row_numbers`, checked; None: all rows that are active.

        Raises ValueError unless all are active and, if ``distinct``, no row occurs twice.
        """
        if rows is None:
            return self.active_rows()
        cdef int32_t *row_ = <int32_t *>cnp.PyArray_DATA(rows)
        cdef cnp.npy_bool *active = <cnp.npy_bool *>cnp.PyArray_DATA(<cnp.ndarray>self.flags)
        cdef long long *stamps = <long long *>cnp.PyArray_DATA(<cnp.ndarray>self.stamps)
        cdef Py_ssize_t i
        cdef int32_t row
        self.stamp += 1
        for i in range(cnp.PyArray_DIM(rows, 0)):
            row = row_[i]
            if not 0 <= row < self.used or not active[row]:
                raise ValueError(f"rows: expected active rows, got {row} at position {i}")
            if distinct and stamps[row] == self.stamp:
                raise ValueError(f"rows: expected each row once, got {row} again at position {i}")
            stamps[row] = self.stamp
        return rows

    cdef Py_ssize_t one(self, Py_ssize_t row) except -1:
        """The number of a row. Raises ValueError unless it is active."""
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
            Where to write the outputs; C-contiguous, of dtype ``weights.io_dtype``, not overlapping x.

        Returns
        -------
        array (M, output_size)
            Fresh, or ``out``; row m is the output of ``rows[m]``, see `Stream.step`.
        """
        cdef StreamWeights weights = self.weights
        cdef cnp.ndarray given = row_numbers(rows), chosen
        cdef cnp.ndarray x_array = weights.many_inputs("x", x, "M")  # last: nothing of the caller's runs after this
        cdef Py_ssize_t M = cnp.PyArray_DIM(x_array, 0)
        cdef bint ids = cnp.PyArray_NDIM(x_array) == 1
        cdef void *y_
        cdef const void *x_
        cdef const int32_t *rows_
        # While the rows are listed again NumPy runs Python code, as other threads do while the GIL is released.
        cdef bint pin = weights.step_bytes * M > RELEASE_BYTES or self.rows is None
        cdef object pins = pins_of(x_array, out) if pin else None
        if out is None:
            out = weights.new_outputs(M)
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.chosen(given)
            if cnp.PyArray_DIM(chosen, 0) != M:
                raise ValueError(f"x: expected {cnp.PyArray_DIM(chosen, 0)} rows, one for each stream, got {M}")
            rows_ = <int32_t *>cnp.PyArray_DATA(chosen)
            weights.addresses(out, "x", x_array, M, &y_, &x_)
            if weights.step_bytes * M > RELEASE_BYTES:
                with nogil:
                    step_streams(self.streams, y_, x_, ids, rows_, M)
            else:
                step_streams(self.streams, y_, x_, ids, rows_, M)
        finally:
            release(&self.busy)
        return out

    def sample(self, x, sampler, rows=None):
        """One more step of M rows, and the id that is drawn from the outputs of each: the next token of each text.

        Parameters
        ----------
        x, rows
            As in `step`.
        sampler : Sampler, or a sequence of M
            One for all rows, which then are drawn one after the other; or one for each row of x, so that what is drawn
            for a row does not depend on the others.

        Returns
        -------
        int32 (M,), fresh
            What ``sampler.rows(batch.step(x, rows))`` gives, or each sampler for its row of that.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; then nothing is stepped. Or outputs are refused as `Sampler` says, after the step.

        Examples
        --------
        >>> import numpy as np, crnn
        >>> model = crnn.LanguageModel(crnn.Vocab.from_text("abcd"), hidden_size=8, seed=1)
        >>> batch, samplers = model.stream_batch(3), [crnn.sampling.Sampler(seed=seed) for seed in (1, 2, 3)]
        >>> ids = np.zeros(3, np.int32)
        >>> for _ in range(20):
        ...     ids = batch.sample(ids, samplers)
        """
        if isinstance(sampler, Sampler):
            return sampler.rows(self.step(x, rows))
        if not isinstance(sampler, (list, tuple)) or not all(isinstance(each, Sampler) for each in sampler):
            raise TypeError(f"sampler: expected a Sampler, or a list of them, got {described(sampler)}")
        samplers, inputs = list(sampler), self.weights.many_inputs("x", x, "M")
        if len(samplers) != len(inputs):
            raise ValueError(f"sampler: expected a Sampler for each of the {len(inputs)} rows of x, got {len(samplers)}")
        return np.array([draw(y) for draw, y in zip(samplers, self.step(inputs, rows))], np.int32)

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
        cdef cnp.ndarray flat = None if state is None else self.as_flat(state), rows
        cdef int32_t *rows_
        cdef Py_ssize_t i
        acquire(&self.busy, "stream batch")
        try:
            rows = self.take_rows(n)
            if flat is not None:
                rows_ = <int32_t *>cnp.PyArray_DATA(rows)
                for i in range(n):
                    streams_set_state(self.streams, cnp.PyArray_DATA(flat), rows_[i])
            return rows
        finally:
            release(&self.busy)

    def remove(self, rows):
        """Remove rows, given as integers (M,) or one integer. `add` reuses their numbers."""
        cdef cnp.ndarray given = row_numbers(rows)
        if given is None:
            raise TypeError("rows: expected integers (M,), got None")
        acquire(&self.busy, "stream batch")
        try:
            self.chosen(given)
            removed = given.tolist()
            free, self.free = self.free, None
            self.set_active(<int32_t *>cnp.PyArray_DATA(given), cnp.PyArray_DIM(given, 0), False)
            if free is not None:
                for row in removed:
                    heapq.heappush(free, row)
                self.free = free
        finally:
            release(&self.busy)

    def reset(self, rows=None):
        """Reset rows, given as integers (M,) or one integer, to the initial state; all if not given."""
        cdef cnp.ndarray given = row_numbers(rows), chosen
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.chosen(given)
            streams_reset(self.streams, <int32_t *>cnp.PyArray_DATA(chosen), cnp.PyArray_DIM(chosen, 0))
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
        cdef cnp.ndarray given = row_numbers(rows), chosen
        cdef Py_ssize_t M, m
        cdef int32_t *rows_
        cdef crnn_streams *streams
        cdef void *memory
        cdef cnp.npy_bool *flags
        if given is None:
            raise TypeError("rows: expected integers (M,), got None")
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.chosen(given, distinct=False)
            M, rows_ = cnp.PyArray_DIM(chosen, 0), <int32_t *>cnp.PyArray_DATA(chosen)
            if M > self.capacity:
                streams = self.allocate(M, &memory)
            else:
                if self.spare == NULL:
                    self.spare = self.allocate(self.capacity, &self.spare_memory)
                streams = self.spare
            for m in range(M):
                streams_copy(streams, m, self.streams, rows_[m])
            free = []
            if M > self.capacity:
                self.replace_memory(streams, memory, M)
            else:
                self.streams, self.spare = streams, self.streams
                self.memory, self.spare_memory = self.spare_memory, self.memory
            self.used, self.count, self.free, self.rows = M, M, free, None
            flags = <cnp.npy_bool *>cnp.PyArray_DATA(<cnp.ndarray>self.flags)
            for m in range(self.capacity):
                flags[m] = m < M
        finally:
            release(&self.busy)

    def state(self, row):
        """A row's state, in the form of `Stream.state`; a copy."""
        cdef int32_t number = row_number(row)
        acquire(&self.busy, "stream batch")
        try:
            self.one(number)
            return self.weights.states_of(self.streams, &number, 1)
        finally:
            release(&self.busy)

    def states(self, rows=None):
        """The states of M rows, in the form of `Stream.state` for a batch of M; a copy.

        Parameters
        ----------
        rows : integers (M,), optional
            Active rows, in any order. If not given: all, in ascending order.
        """
        cdef cnp.ndarray given = row_numbers(rows), chosen
        acquire(&self.busy, "stream batch")
        try:
            chosen = self.chosen(given, distinct=False)
            return self.weights.states_of(self.streams, <int32_t *>cnp.PyArray_DATA(chosen), cnp.PyArray_DIM(chosen, 0))
        finally:
            release(&self.busy)

    def set_state(self, row, state):
        """Set the state of a row: to that of a stream, or to a state in the form of `Stream.state`."""
        cdef Py_ssize_t number = row_number(row)
        cdef cnp.ndarray flat = self.as_flat(state)
        acquire(&self.busy, "stream batch")
        try:
            streams_set_state(self.streams, cnp.PyArray_DATA(flat), self.one(number))
        finally:
            release(&self.busy)

    def set_states(self, states, rows=None):
        """Set the states of M rows, in the form of `states`. ``rows`` as in `states`, but each at most once."""
        cdef cnp.ndarray given = row_numbers(rows)
        acquire(&self.busy, "stream batch")
        try:
            self.put_states(states, self.chosen(given), True)
        finally:
            release(&self.busy)

    cdef int put_states(self, states, cnp.ndarray chosen, bint finite) except -1:
        """Set the states of the rows ``chosen``."""
        cdef cnp.ndarray flat = self.weights.flat_states("states", states, cnp.PyArray_DIM(chosen, 0), finite)
        cdef char *state = <char *>cnp.PyArray_DATA(flat)
        cdef int32_t *rows = <int32_t *>cnp.PyArray_DATA(chosen)
        cdef Py_ssize_t m
        for m in range(cnp.PyArray_DIM(chosen, 0)):
            streams_set_state(self.streams, state, rows[m])
            state += cnp.PyArray_STRIDE(flat, 0)
        return 0

    cdef cnp.ndarray as_flat(self, state):
        return self.weights.flat_states("state", getattr(state, "state", state), 1)

    def stream(self, row):
        """A `Stream` that continues from the state of a row, independently."""
        cdef Py_ssize_t number = row_number(row)
        cdef Stream stream = Stream(self.weights)
        acquire(&self.busy, "stream batch")
        try:
            streams_copy(stream.streams, 0, self.streams, self.one(number))
        finally:
            release(&self.busy)
        return stream

    def __reduce__(self):
        rows = self.active.tolist()
        return _batch_from, (self.weights, self.used, rows, self.states())

    def __repr__(self):
        return f"StreamBatch({len(self)} streams of {self.weights.describe()})"


include "row_numbers.pxi"
