# SPDX-License-Identifier: MIT
"""Stream: a model run one step at a time; StreamWeights: the packed weights that all streams of a model share.

``model.stream()`` makes a stream. Outputs are bit-identical to those of ``forward`` for the whole sequence. A stream
keeps the weights it was made with: further training of the model affects only streams that are made later.

Inputs and outputs have the model's dtype. A model that standardises (``scale=True``) accepts and returns float64, because
float32 would round 101325.01 before the mean is subtracted. Other real inputs are converted; a number that is not
finite, or overflows, is refused before the state changes. Ids are Python or NumPy integers of any type, from 0 to
input_size-1.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset
from crnn._core.arrays cimport are_ids, data, dim, ids_below, need_apart, pin, plain_array, real_kind
from crnn._core.dispatch cimport cell_number, f32, f64
from crnn._core.header cimport crnn_cell

from dataclasses import replace
from functools import partial
from operator import index

import numpy as np

from crnn.array_input import as_array as any_array, in_precision, real_numbers
from crnn.stream.state import check_stream_state, pooled_state

cdef extern from "quant/quantised.h" nogil:
    enum:
        INT8_MOST_ROWS

cdef extern from "simd/compat.h" nogil:
    int flag_take(int *flag)
    void flag_give(int *flag)

cnp.import_array()

# A call releases the GIL if its bytes of weights, times its rows or steps, are more than this: 2 us of work. Releasing
# and acquiring the GIL takes 30 ns. But if another thread is running Python code, acquiring it takes up to the switch
# interval, too long for smaller steps.
RELEASE_BYTES = 256 << 10

# What the heads of models that stream may read: names of `crnn.models.outputs.pooling`, or None.
STREAM_POOLINGS = {None: CRNN_POOL_LAST, "last": CRNN_POOL_LAST, "max": CRNN_POOL_MAX, "mean": CRNN_POOL_MEAN}

cdef enum:
    ALIGNMENT = 64      # CRNN_LINE_BYTES
    BUSY = -1           # why a step was not done
    NOT_FINITE = -2
    RUN_BLOCK = 32      # steps of a single stream's `run` that share a pass through the weights
    KEPT = 4 << 20      # bytes of scratch for them that a stream keeps afterwards: that of 80,000 words would be 10 MB


cdef size_t streams_size(const crnn_model *model, crnn_dim N, crnn_dim block) noexcept nogil:
    return crnn_streams_size(model, N, block)


cdef crnn_streams *streams_init(void *memory, const crnn_model *model, crnn_dim N, crnn_dim block) noexcept nogil:
    return crnn_streams_init(memory, model, N, block)


cdef void streams_step(crnn_streams *streams, void *y, const void *x, const int32_t *rows, crnn_dim M) noexcept nogil:
    crnn_streams_step(streams, y, x, rows, M)


cdef void streams_step_ids(crnn_streams *streams, void *y, const int32_t *ids, const int32_t *rows,
                           crnn_dim M) noexcept nogil:
    crnn_streams_step_ids(streams, y, ids, rows, M)


cdef void streams_reset(crnn_streams *streams, const int32_t *rows, crnn_dim M) noexcept nogil:
    crnn_streams_reset(streams, rows, M)


cdef void streams_set_state(crnn_streams *streams, const void *state, crnn_dim row) noexcept nogil:
    crnn_streams_set_state(streams, state, row)


cdef void streams_copy(crnn_streams *streams, crnn_dim row, const crnn_streams *from_, crnn_dim from_row) noexcept nogil:
    crnn_streams_copy(streams, row, from_, from_row)


cdef void *aligned(void *memory) noexcept:
    return <void *>((<size_t>memory + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


cdef void *new_memory(size_t size) except NULL:
    """Memory for `aligned`; free it with PyMem_RawFree. Raises MemoryError."""
    cdef void *memory = PyMem_RawMalloc(size + ALIGNMENT) if size else NULL
    if memory == NULL:
        raise MemoryError(f"a model or streams: cannot have {size or 'so many'} bytes")
    return memory


include "stream_weights.pxi"
include "stream_config.pxi"


cdef str described(x):
    if cnp.PyArray_Check(x):
        return f"{x.dtype} array of shape {x.shape}"
    return f"{type(x).__name__} {x!r:.60}"


cdef object as_array(str name, x):
    return any_array(name, x)


cdef object pins_of(cnp.ndarray x, out):
    """`pin` the inputs of `many_inputs`, unless they are ids, a copy, and ``out`` unless it is fresh: None."""
    return (pin(x) if cnp.PyArray_NDIM(x) == 2 else None, pin(out) if cnp.PyArray_Check(out) else None)


cdef object real_array(str name, x, str dtype, tuple shape):
    """``x`` as a contiguous array. A letter in ``shape`` stands for any length. Raises TypeError and ValueError."""
    array = real_numbers(name, x)
    if array.ndim != len(shape) or any(n != m for n, m in zip(array.shape, shape) if not isinstance(m, str)):
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name}: expected {dtype} of shape ({expected}), got {array.dtype} of shape {array.shape}")
    return plain_array(in_precision(name, array, dtype), cnp.NPY_FLOAT32 if dtype == "float32" else cnp.NPY_FLOAT64)


cdef int busy_error(str what) except -1:
    raise RuntimeError(f"{what}: another thread is using it; give each thread its own stream")


cdef int acquire(int *flag, str what) except -1:
    """Acquire exclusive use of ``what`` until `release`, or raise RuntimeError."""
    return 0 if flag_take(flag) else busy_error(what)


cdef void release(int *flag) noexcept:
    flag_give(flag)


def _stream_from(weights, state):
    """For pickle. A state may be infinite: that of a relu cell can grow without bound."""
    cdef Stream stream = Stream(weights)
    cdef cnp.ndarray flat = stream.weights.flat_states("state", state, 1, False)
    crnn_streams_set_state(stream.streams, cnp.PyArray_DATA(flat), 0)
    return stream


cdef class Stream:
    """A model that processes one sequence, step by step; ``model.stream()`` makes one.

    A step allocates only its output; with ``out=``, nothing. Only one thread at a time may use a stream: a concurrent
    call raises RuntimeError and changes nothing. States have the model's dtype, inputs and outputs
    ``weights.io_dtype``: float64 if the model standardises, otherwise the model's. Other real inputs are converted;
    numbers that are not finite are refused. Streams of every kind can be referenced weakly.

    Attributes
    ----------
    input_size, output_size : int
    weights : StreamWeights
        Shared by all streams of the model; ``weights.nbytes`` is their size.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(input_size=3, hidden_size=4, cell="gru", seed=0)
    >>> stream = net.stream()
    >>> x = np.ones((5, 3), np.float32)
    >>> y = np.stack([stream.step(x_t) for x_t in x])
    >>> bool((y == net(x[:, None])[0][:, 0]).all())
    True
    """

    def __cinit__(self, StreamWeights weights not None):
        self.weights = weights
        cdef size_t size = 4 if weights.io_real == cnp.NPY_FLOAT32 else 8
        self.releases = weights.step_bytes > RELEASE_BYTES
        self.resize(1)
        if self.releases:
            self.step_memory = new_memory((weights.input_size + weights.output_size) * size + ALIGNMENT)
            self.inputs = aligned(self.step_memory)
            self.outputs = aligned(<char *>self.inputs + weights.input_size * size)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)
        PyMem_RawFree(self.step_memory)

    cdef int resize(self, Py_ssize_t block) except -1:
        """Allocate memory for ``block`` steps at a time. The state is kept."""
        cdef size_t size = crnn_streams_size(self.weights.model, 1, block)
        cdef void *memory = new_memory(size)
        cdef crnn_streams *streams = crnn_streams_init(aligned(memory), self.weights.model, 1, block)
        if self.streams != NULL:
            crnn_streams_copy(streams, 0, self.streams, 0)
        PyMem_RawFree(self.memory)
        self.memory, self.streams, self.block = memory, streams, block
        self.large = size > KEPT
        return 0

    cdef int free_scratch(self) except -1:
        """Free the memory for more than one step at a time, unless there is none left for one."""
        try:
            self.resize(1)
        except MemoryError:
            pass
        return 0

    @property
    def input_size(self):
        return self.weights.input_size

    @property
    def output_size(self):
        return self.weights.output_size

    cdef int advance(self, void *y, const void *x, int32_t id) noexcept nogil:
        """One step on x, or on an id if x is NULL. Returns 0, BUSY if another thread is using the stream, NOT_FINITE."""
        cdef int finite = 1
        if not flag_take(&self.busy):
            return BUSY
        if x != NULL:
            finite = crnn_streams_try_step(self.streams, y, x)
        else:
            crnn_streams_step_ids(self.streams, y, &id, NULL, 1)
        flag_give(&self.busy)
        return 0 if finite else NOT_FINITE

    cdef int advance_without_gil(self, void *y, const void *x, int32_t id, out) except? -3:
        """`advance` with the GIL released. Other threads may meanwhile resize x and ``out``, so the step works on memory
        of the stream's own, and y, if it is not that of ``out`` but fresh."""
        cdef StreamWeights weights = self.weights
        cdef size_t size = cnp.PyArray_ITEMSIZE(<cnp.ndarray>out)
        cdef void *result = self.outputs if y == NULL else y
        cdef int finite = 1
        if not flag_take(&self.busy):
            return BUSY
        try:
            if x == NULL:
                with nogil:
                    crnn_streams_step_ids(self.streams, result, &id, NULL, 1)
            else:
                memcpy(self.inputs, x, weights.input_size * size)
                with nogil:
                    finite = crnn_streams_try_step(self.streams, result, self.inputs)
            if finite and y == NULL:
                memcpy(data("out", out, weights.io_real, True, 1, weights.output_size), result,
                       weights.output_size * size)
            elif not finite:
                weights.need_finite("x", self.inputs, 1)
        finally:
            flag_give(&self.busy)
        return 0

    cdef int step_into(self, float *y, const float *x) noexcept nogil:
        return self.step_checked(y, x, cnp.NPY_FLOAT32)

    cdef int step_into_f64(self, double *y, const double *x) noexcept nogil:
        return self.step_checked(y, x, cnp.NPY_FLOAT64)

    cdef int step_checked(self, void *y, const void *x, int real) noexcept nogil:
        if self.weights.ids_only or self.weights.io_real != real:
            return -1
        return self.advance(y, x, 0)

    cdef int step_id_into(self, float *y, int32_t id) noexcept nogil:
        if not 0 <= id < self.weights.input_size or self.weights.io_real != cnp.NPY_FLOAT32:
            return -1
        return self.advance(y, NULL, id)

    cdef void state_into(self, void *state) noexcept nogil:
        crnn_streams_get_state(self.streams, state, 0)

    cdef void state_from(self, const void *state) noexcept nogil:
        crnn_streams_set_state(self.streams, state, 0)

    cdef int step_id_into_f64(self, double *y, int32_t id) noexcept nogil:
        if not 0 <= id < self.weights.input_size or self.weights.io_real != cnp.NPY_FLOAT64:
            return -1
        return self.advance(y, NULL, id)

    def step(self, x, out=None):
        """The output of one more step.

        Parameters
        ----------
        x : array (input_size,), or an integer id
            Not referenced after the call.
        out : array (output_size,), optional
            Where to write the output; C-contiguous, of dtype ``weights.io_dtype``. May be x itself.

        Returns
        -------
        array (output_size,)
            Fresh, or ``out``. For a network, h of its top layer. For a model, the output of its head: logits, or values
            in the units of the targets. Quantiles are in blocks of the targets' columns, one block for each level. With
            pooling it is the output for the sequence so far.
        """
        cdef StreamWeights weights = self.weights
        cdef const void *x_ = NULL
        cdef void *y_
        cdef int32_t id = 0
        cdef int overflow = 0, failed
        cdef long number = 0
        cdef cnp.npy_intp size = weights.output_size
        cdef bint fresh = out is None
        if (cnp.PyArray_CheckExact(x) and not weights.ids_only and cnp.PyArray_TYPE(<cnp.ndarray>x) == weights.io_real
                and cnp.PyArray_NDIM(<cnp.ndarray>x) == 1
                and cnp.PyArray_DIM(<cnp.ndarray>x, 0) == weights.input_size
                and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x)):
            x_ = cnp.PyArray_DATA(<cnp.ndarray>x)
        else:
            if not PyLong_CheckExact(x):
                x = weights.one_input(x)
            if PyLong_CheckExact(x):
                number = PyLong_AsLongAndOverflow(x, &overflow)
                if overflow or not 0 <= number < weights.input_size:
                    raise ValueError(f"x: expected an id from 0 to {weights.input_size - 1}, got {x}")
                id = <int32_t>number
            else:
                x_ = cnp.PyArray_DATA(<cnp.ndarray>x)
        if fresh:
            out = cnp.PyArray_SimpleNew(1, &size, weights.io_real)
            y_ = cnp.PyArray_DATA(<cnp.ndarray>out)
        elif (cnp.PyArray_CheckExact(out) and cnp.PyArray_TYPE(<cnp.ndarray>out) == weights.io_real
                and cnp.PyArray_NDIM(<cnp.ndarray>out) == 1 and cnp.PyArray_DIM(<cnp.ndarray>out, 0) == size
                and cnp.PyArray_ISCARRAY(<cnp.ndarray>out)):
            y_ = cnp.PyArray_DATA(<cnp.ndarray>out)
        else:
            y_ = data("out", out, weights.io_real, True, 1, size)
        if self.releases:
            failed = self.advance_without_gil(y_ if fresh else NULL, x_, id, out)
        else:
            failed = self.advance(y_, x_, id)
        if failed == NOT_FINITE:
            weights.need_finite("x", data("x", x, weights.io_real, False, 1, weights.input_size), 1)
        if failed:
            busy_error("stream")
        return out

    def run(self, xs, out=None):
        """The outputs of T more steps in one call, bit-identical to those of `step`.

        Parameters
        ----------
        xs : array (T, input_size), or integer ids (T,)
        out : array (T, output_size), optional
            Where to write them; C-contiguous, of dtype ``weights.io_dtype``, not overlapping xs.

        Returns
        -------
        array (T, output_size)
            Fresh, or ``out``.
        """
        cdef StreamWeights weights = self.weights
        cdef cnp.ndarray x = weights.many_inputs("xs", xs, "T")
        cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0)
        cdef bint ids = cnp.PyArray_NDIM(x) == 1
        cdef const void *x_
        cdef void *y_
        cdef object pins = pins_of(x, out) if weights.step_bytes * T > RELEASE_BYTES else None
        if out is None:
            out = weights.new_outputs(T)
        weights.addresses(out, "xs", x, T, &y_, &x_)
        acquire(&self.busy, "stream")
        try:
            if T > 1 and self.block == 1:
                self.resize(RUN_BLOCK)
            if weights.step_bytes * T > RELEASE_BYTES:
                with nogil:
                    run_streams(self.streams, y_, x_, ids, T)
            else:
                run_streams(self.streams, y_, x_, ids, T)
            if self.large and self.block > 1:
                self.free_scratch()
        finally:
            release(&self.busy)
        return out

    def reset(self):
        """Reset to the initial state: the trainable one, or zeros."""
        acquire(&self.busy, "stream")
        crnn_streams_reset(self.streams, NULL, 1)
        release(&self.busy)

    @property
    def state(self):
        """The state, a copy. Assign a state to set it.

        It has the form of the network's own state for a batch of one: h, or (h, c). With pooling that is the first part
        of a tuple: ``(state, maximum)`` with pooling "max", where maximum (1, H) is -inf before the first step, and
        ``(state, sum, steps)`` with pooling "mean", where sum is (1, H), and steps (1,) are integers.
        """
        cdef int32_t row = 0
        acquire(&self.busy, "stream")
        try:
            return self.weights.states_of(self.streams, &row, 1)
        finally:
            release(&self.busy)

    @state.setter
    def state(self, value):
        cdef cnp.ndarray flat = self.weights.flat_states("state", value, 1)
        acquire(&self.busy, "stream")
        crnn_streams_set_state(self.streams, cnp.PyArray_DATA(flat), 0)
        release(&self.busy)

    def copy(self):
        """A copy of this stream, which continues independently."""
        cdef Stream other = Stream(self.weights)
        acquire(&self.busy, "stream")
        crnn_streams_copy(other.streams, 0, self.streams, 0)
        release(&self.busy)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return _stream_from, (self.weights, self.state)

    def __repr__(self):
        return f"Stream({self.weights.describe()})"


cdef void run_streams(crnn_streams *streams, void *y, const void *x, bint ids, Py_ssize_t T) noexcept nogil:
    if ids:
        crnn_streams_run_ids(streams, y, <const int32_t *>x, T, 0)
    else:
        crnn_streams_run(streams, y, x, T, 0)
