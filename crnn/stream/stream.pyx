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

# Precisions of products that are not those of the arrays: names of StreamParts.precisions, and the bits of a weight.
cdef dict FORMATS = {"bf16": (CRNN_BF16, 16), "int8": (CRNN_INT8, 8), "int4": (CRNN_INT4, 4)}
cdef double QUANTISED_LIMIT = 2.0 ** 127  # rounded weights remain finite

cdef enum:
    ALIGNMENT = 64      # CRNN_LINE_BYTES
    BUSY = -1           # why a step was not done
    NOT_FINITE = -2
    RUN_BLOCK = 32      # steps of a single stream's `run` that share a pass through the weights


cdef void *aligned(void *memory) noexcept:
    return <void *>((<size_t>memory + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


cdef void *new_memory(size_t size) except NULL:
    """Memory for `aligned`; free it with PyMem_RawFree. Raises MemoryError."""
    cdef void *memory = PyMem_RawMalloc(size + ALIGNMENT) if size else NULL
    if memory == NULL:
        raise MemoryError(f"a model or streams: cannot have {size or 'so many'} bytes")
    return memory


cdef class StreamWeights:
    """A model's packed weights, read-only and shared by all its streams; ``model.stream()`` makes them.

    Pickles contain the unpacked values.

    Attributes
    ----------
    nbytes : int
        Size of the packed weights.
    input_size, output_size : int
    dtype : str
        "float32" or "float64": dtype of weights and states.
    io_dtype : str
        dtype of inputs and outputs: "float64" for a model that standardises, otherwise ``dtype``.
    isa : str
        Instruction set that the streams run on.
    """

    def __cinit__(self, parts not None):
        """``parts``: a `crnn.stream.parts.StreamParts`."""
        cdef Config config = Config(parts)
        self.real, self.dtype = config.real, config.dtype
        self.sizes, self.has_c, self.step_bytes = config.sizes, config.has_c, config.step_bytes
        config.need_small()
        if self.real == cnp.NPY_FLOAT32:
            self.nbytes = crnn_model_size(&config.c, f32)
        else:
            self.nbytes = crnn_model_size_f64(&config.c, f64)
        self.memory = new_memory(self.nbytes)
        if self.real == cnp.NPY_FLOAT32:
            self.model = crnn_model_init(aligned(self.memory), &config.c, f32)
        else:
            self.model = crnn_model_init_f64(aligned(self.memory), &config.c, f64)
        self.isa = f32.isa.decode()
        self.io_real = cnp.NPY_FLOAT64 if crnn_model_standardises(self.model) else self.real
        self.io_dtype = "float32" if self.io_real == cnp.NPY_FLOAT32 else "float64"
        self.shapes, self.pooling = parts.map(np.shape), parts.pooling
        self.ids_only = parts.ids_only or parts.embedding is not None
        self.log_probabilities = len(parts.tails) > 0
        self.input_size, self.output_size = parts.input_size, crnn_model_output_size(self.model)
        self.state_size = crnn_model_state_size(self.model)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def holds(self, parts):
        """Whether packing ``parts``, a `crnn.stream.parts.StreamParts`, would give the same weights."""
        cdef Config config
        if self.isa != f32.isa.decode() or parts.map(np.shape) != self.shapes:
            return False
        config = Config(parts)
        return config.real == self.real and crnn_model_equals(self.model, &config.c) == 1

    def __reduce__(self):
        def statistics(shapes):
            return None if shapes is None else tuple(np.empty(shape) for shape in shapes)

        parts = self.shapes.map(partial(np.empty, dtype=self.dtype))
        parts = replace(parts, x=statistics(self.shapes.x), y=statistics(self.shapes.y))
        cdef Config config = Config(parts)
        crnn_model_unpack(self.model, &config.c)
        return StreamWeights, (parts,)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        return f"StreamWeights({self.describe()})"

    cdef str describe(self):
        return (f"{self.shapes.kind}, input_size={self.input_size}, output_size={self.output_size}, "
                f"{self.nbytes / 2 ** 20:.3g} MB of weights")

    # ---- arguments ---------------------------------------------------------------------------------------------------

    cdef object one_input(self, x):
        """Convert an input that the fast path of `step` does not handle, to a contiguous real array (D,) or an id.

        Raises TypeError and ValueError.
        """
        if not isinstance(x, (int, np.generic)) and hasattr(x, "__array__"):
            x = any_array("x", x)
            x = x[()] if x.ndim == 0 else x
        if isinstance(x, (int, np.integer)) and not isinstance(x, bool):
            return index(x)
        if isinstance(x, (np.ndarray, list, tuple)) and not self.ids_only:
            return real_array("x", x, self.io_dtype, (self.input_size,))
        expected = f"a {self.io_dtype} array of shape ({self.input_size},), or an id"
        expected = "an integer id" if self.ids_only else expected
        hint = "; write [x]" if isinstance(x, float) and self.input_size == 1 and not self.ids_only else ""
        raise TypeError(f"x: expected {expected}, got {described(x)}{hint}")

    cdef object many_inputs(self, str name, x, str letter):
        """Inputs as a contiguous real array (n, D), or a copy of ids, int32 (n,). Raises TypeError and ValueError."""
        if are_ids(x):
            return ids_below(name, x, self.input_size, 0)
        if (cnp.PyArray_CheckExact(x) and not self.ids_only and cnp.PyArray_TYPE(<cnp.ndarray>x) == self.io_real
                and cnp.PyArray_NDIM(<cnp.ndarray>x) == 2 and cnp.PyArray_DIM(<cnp.ndarray>x, 1) == self.input_size
                and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x)):  # needs no conversion, which takes 2 us
            self.need_finite(name, cnp.PyArray_DATA(<cnp.ndarray>x), cnp.PyArray_DIM(<cnp.ndarray>x, 0))
            return x
        array = as_array(name, x)
        if array.ndim == 1:
            if array.dtype.kind in "iu":
                return ids_below(name, array, self.input_size, 0)
            if array.shape == (0,):
                return np.empty(0, np.int32)
        if self.ids_only:
            raise TypeError(f"{name}: expected integer ids ({letter},), got {described(x)}")
        if array.ndim == 1 and self.input_size == 1:
            array = array[:, None]
        reals = real_array(name, array, self.io_dtype, (letter, self.input_size))
        self.need_finite(name, cnp.PyArray_DATA(<cnp.ndarray>reals), cnp.PyArray_DIM(<cnp.ndarray>reals, 0))
        return reals

    cdef int need_finite(self, str name, const void *x, Py_ssize_t n) except -1:
        """Raise ValueError unless all of x (n, D) is finite, also when it is standardised."""
        cdef Py_ssize_t i = crnn_model_first_not_finite(self.model, x, n)
        return 0 if i == n * self.input_size else self.refuse(name, x, i, n > 1)

    cdef int refuse(self, str name, const void *x, Py_ssize_t i, bint several) except -1:
        cdef double value = (<double *>x)[i] if self.io_real == cnp.NPY_FLOAT64 else (<float *>x)[i]
        cdef object place = i
        if several:
            place = (i // self.input_size, i % self.input_size)
        scaled = ", which overflows when it is standardised" if np.isfinite(value) else ""
        raise ValueError(f"{name}: expected finite numbers, got {value} at {place}{scaled}")

    cdef cnp.ndarray new_outputs(self, Py_ssize_t rows):
        cdef cnp.npy_intp *shape = [rows, self.output_size]
        return cnp.PyArray_SimpleNew(2, shape, self.io_real)

    cdef int addresses(self, out, str name, cnp.ndarray x, Py_ssize_t M, void **y_, const void **x_) except -1:
        """Where the inputs of M steps, from `many_inputs`, and their outputs are. Both must be pinned before."""
        y_[0] = data("out", out, self.io_real, True, 2, M, self.output_size)
        x_[0] = (data(name, x, cnp.NPY_INT32, False, 1, M) if cnp.PyArray_NDIM(x) == 1
                 else data(name, x, self.io_real, False, 2, M, self.input_size))
        return need_apart("out", out, name, x)

    # ---- states in their public form ---------------------------------------------------------------------------------

    cdef object states_of(self, const crnn_streams *streams, const int32_t *rows, Py_ssize_t M):
        """The states of M rows, in their public form for a batch of M; a copy."""
        cdef cnp.ndarray flat = np.empty((M, self.state_size), self.dtype)
        cdef char *row = <char *>cnp.PyArray_DATA(flat)
        cdef Py_ssize_t i, start = 0
        for i in range(M):
            crnn_streams_get_state(streams, row, rows[i])
            row += self.state_size * cnp.PyArray_ITEMSIZE(flat)
        parts = []
        for _ in range(1 + self.has_c):
            arrays = []
            for size in self.sizes:
                arrays.append(np.ascontiguousarray(flat[:, start:start + size]))
                start += size
            parts.append(np.stack(arrays) if len(set(self.sizes)) == 1 else arrays)
        state = tuple(parts) if self.has_c else parts[0]
        return pooled_state(state, self.pooling, flat[:, start:])

    cdef cnp.ndarray flat_states(self, str name, value, Py_ssize_t M, bint finite=True):
        """States of M rows, given in their public form, as an array (M, state_size), fresh. Raises as
        `check_stream_state`."""
        cdef cnp.ndarray flat = np.empty((M, self.state_size), self.dtype)
        arrays = check_stream_state(name, value, self.sizes, self.has_c, self.pooling, M, self.dtype, finite)
        np.concatenate(arrays, axis=1, out=flat)
        return flat


cdef class Config:
    """The crnn_model_config of `StreamParts`. Checks and borrows their arrays; raises TypeError and ValueError."""
    cdef crnn_model_config c
    cdef crnn_layer_weights *layers
    cdef crnn_tail_weights *tails
    cdef list borrowed  # the arrays whose memory c refers to
    cdef list rounded   # names and arrays of the matrices that packing rounds
    cdef dict precisions
    cdef int real
    cdef str cell, dtype
    cdef list sizes
    cdef bint has_c
    cdef Py_ssize_t step_bytes

    def __cinit__(self, parts):
        cdef Py_ssize_t D = parts.input_size, K, E, H, i, bits = 0
        if not parts.layers:
            raise ValueError("layers: expected at least one, got none")
        self.sizes, self.borrowed, self.rounded, self.cell = [], [], [], parts.cell
        self.precisions = dict(parts.precisions)
        self.real = real_kind("W_xh", parts.layers[0]["W_xh"])
        self.dtype = "float32" if self.real == cnp.NPY_FLOAT32 else "float64"
        memset(&self.c, 0, sizeof(self.c))
        self.c.input_size, self.c.num_layers = D, len(parts.layers)
        self.layers = <crnn_layer_weights *>PyMem_RawCalloc(self.c.num_layers, sizeof(crnn_layer_weights))
        if self.layers == NULL:
            raise MemoryError()
        self.c.layers = self.layers
        E = 0
        if parts.embedding is not None:
            E = max(1, dim(parts.embedding, 1))
            self.c.embedding_size, self.c.embedding = E, self.array("embedding", parts.embedding, D, E)
        K = E or D
        for i in range(self.c.num_layers):
            # Of the first layer's W_xh a look-up of ids reads one row only.
            bits += self.layer(&self.layers[i], parts.layers[i], K, f"layer{i}.", i == 0 and parts.ids_only and not E)
            K = self.layers[i].hidden_size
        if parts.pooling not in STREAM_POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(map(repr, STREAM_POOLINGS))}, got {parts.pooling!r}")
        self.c.pooling = STREAM_POOLINGS[parts.pooling]
        if parts.b_y is not None:
            bits += self.head(parts, K)
        if self.precisions:
            raise ValueError(f"precisions: expected names of weight matrices, "
                             f"got {next(iter(self.precisions))!r}")
        if parts.x is not None:
            self.c.x_mean = <double *>self.array("x's mean", parts.x[0], D, -1, cnp.NPY_FLOAT64)
            self.c.x_std = <double *>self.array("x's std", parts.x[1], D, -1, cnp.NPY_FLOAT64)
        if parts.y is not None:
            self.c.y_columns = dim(parts.y[0], 0)
            self.c.y_mean = <double *>self.array("y's mean", parts.y[0], self.c.y_columns, -1, cnp.NPY_FLOAT64)
            self.c.y_std = <double *>self.array("y's std", parts.y[1], self.c.y_columns, -1, cnp.NPY_FLOAT64)
        self.step_bytes = bits // 8

    def __dealloc__(self):
        PyMem_RawFree(self.layers)
        PyMem_RawFree(self.tails)

    cdef void *array(self, str name, array, Py_ssize_t d0, Py_ssize_t d1=-1, int kind=-1) except NULL:
        """The data of a checked array (d0,), or (d0, d1), which is kept alive and from being resized."""
        if cnp.PyArray_Check(array):  # isinstance believes what an object says of its class
            self.borrowed.append((array, pin(array)))
        return data(name, array, self.real if kind < 0 else kind, False, 1 if d1 < 0 else 2, d0, d1)

    cdef int format(self, str prefix, str of, array, Py_ssize_t rows, Py_ssize_t *bits) except -1:
        """How the matrix ``prefix + of`` is stored, of so many rows, and the bits of an element."""
        cdef str name = prefix + of
        precision = self.precisions.pop(name, self.dtype)
        bits[0] = 32 if self.real == cnp.NPY_FLOAT32 else 64
        if precision == self.dtype:
            return CRNN_AS_ARRAYS
        if precision not in FORMATS or self.real != cnp.NPY_FLOAT32:
            allowed = [self.dtype, *(FORMATS if self.real == cnp.NPY_FLOAT32 else ())]
            raise ValueError(f"precisions[{name!r}]: expected {' or '.join(map(repr, allowed))}, got {precision!r}")
        format, bits[0] = FORMATS[precision]
        if format != CRNN_BF16 and rows > INT8_MOST_ROWS:
            raise ValueError(f"precisions[{name!r}]: expected another than {precision!r} for a matrix of more than "
                             f"{INT8_MOST_ROWS} rows, got {rows} rows")
        self.rounded.append((name, array))
        return format

    cdef int need_small(self) except -1:
        """Refuse weights that rounding could make infinite, or that are not finite."""
        for name, array in self.rounded:
            if not (np.abs(array) <= QUANTISED_LIMIT).all():
                raise ValueError(f"{name}: expected finite numbers up to 2**127 in what is quantised, "
                                 f"got {float(array.min())} to {float(array.max())}")
        return 0

    cdef Py_ssize_t layer(self, crnn_layer_weights *w, values, Py_ssize_t K, str prefix, bint by_row) except -1:
        """Set ``w`` to the parameters of a layer, by name. Returns the bits that a step reads of its matrices; of W_xh none
        if one row is read only."""
        cdef int number = cell_number(self.cell), v = 0
        cdef const crnn_cell *cell = f32.cells[number]
        cdef Py_ssize_t G = cell.gates, R = cell.recurrent_gates, H = dim(values["W_xh"], 1) // G
        cdef Py_ssize_t of_xh = 0, of_hh = 0
        w.cell, w.hidden_size, self.has_c = number, H, cell.has_c
        w.W_xh = self.array("W_xh", values["W_xh"], K, G * H)
        w.b_h = self.array("b_h", values["b_h"], G * H)
        w.W_xh_format = self.format(prefix, "W_xh", values["W_xh"], K, &of_xh)
        if R:
            w.W_hh = self.array("W_hh", values["W_hh"], H, R * H)
            w.W_hh_format = self.format(prefix, "W_hh", values["W_hh"], H, &of_hh)
        while cell.vectors[v] != NULL:
            name = cell.vectors[v].decode()
            w.vectors[v] = self.array(name, values[name], H)
            v += 1
        if "h0" in values:
            w.h0 = self.array("h0", values["h0"], H)
        if "c0" in values:
            w.c0 = self.array("c0", values["c0"], H)
        self.sizes.append(H)
        return of_xh * (0 if by_row else K * G * H) + of_hh * H * R * H

    cdef Py_ssize_t head(self, parts, Py_ssize_t K) except -1:
        """Set the head and its tails. Returns the bits that a step reads of their matrices."""
        cdef Py_ssize_t S = dim(parts.b_y, 0), V = S - len(parts.tails), bits = 0, total = 0, i
        W_hy = parts.W_hy
        self.c.W_hy_format = self.format("", "W_hy", parts.embedding if W_hy is None else W_hy, K, &bits)
        self.c.tie_weights = W_hy is None
        self.c.b_y = self.array("b_y", parts.b_y, S)
        if W_hy is not None:
            self.c.W_hy = self.array("W_hy", W_hy, K, S)
        total = bits * K * S
        if parts.tails:
            self.tails = <crnn_tail_weights *>PyMem_RawCalloc(len(parts.tails), sizeof(crnn_tail_weights))
            if self.tails == NULL:
                raise MemoryError()
            self.c.num_tails, self.c.tails = len(parts.tails), self.tails
        for i in range(self.c.num_tails):
            total += self.tail(&self.tails[i], parts.tails[i], K, f"tail{i}.")
            V += self.tails[i].size
        self.c.output_size = V
        return total

    cdef Py_ssize_t tail(self, crnn_tail_weights *w, values, Py_ssize_t K, str prefix) except -1:
        cdef Py_ssize_t P = dim(values["W_hp"], 1), N = dim(values["W_py"], 1), of_hp = 0, of_py = 0
        w.projection_size, w.size = P, N
        w.W_hp = self.array("W_hp", values["W_hp"], K, P)
        w.W_py = self.array("W_py", values["W_py"], P, N)
        w.W_hp_format = self.format(prefix, "W_hp", values["W_hp"], K, &of_hp)
        w.W_py_format = self.format(prefix, "W_py", values["W_py"], P, &of_py)
        return of_hp * K * P + of_py * P * N


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
    numbers that are not finite are refused.

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
        cdef void *memory = new_memory(crnn_streams_size(self.weights.model, 1, block))
        cdef crnn_streams *streams = crnn_streams_init(aligned(memory), self.weights.model, 1, block)
        if self.streams != NULL:
            crnn_streams_copy(streams, 0, self.streams, 0)
        PyMem_RawFree(self.memory)
        self.memory, self.streams, self.block = memory, streams, block
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
