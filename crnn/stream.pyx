# SPDX-License-Identifier: MIT
"""One step at a time: `Stream`, and the packed weights that all streams of a model share. Many at once: stream_batch.pyx.

``model.stream()`` makes one. Every output has the bits that ``forward`` gives there for the whole sequence. Streams
keep the weights they were made with: training the model on changes only later ones.

What counts as input, everywhere: a float32 array, or one of float16, which is converted; any other precision is an
oversight and refused, not rounded. Ids are Python or NumPy integers of any kind, from 0 to input_size-1.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int32_t
from libc.string cimport memcmp, memset
from crnn._core.arrays cimport data, need_apart, need_ids_below
from crnn._core.dispatch cimport f32

from operator import index

import numpy as np

from crnn.state import State

cdef extern from "simd/compat.h" nogil:
    int flag_take(int *flag)
    void flag_give(int *flag)

cnp.import_array()

# Weights that a call reads, in bytes times its rows or steps, from which on it lets other threads run meanwhile. That is
# 2 us of work; to give up the interpreter's lock and take it back is 30 ns alone, but where another thread is busy with
# Python it is the rest of that one's turn, which smaller steps had better not risk.
RELEASE_BYTES = 256 << 10

cdef enum:
    ALIGNMENT = 64      # CRNN_LINE_BYTES
    RUN_STEPS = 32      # steps of a single stream's `run` that share a pass through the weights


cdef void *aligned(void *memory) noexcept:
    return <void *>((<size_t>memory + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


cdef void *new_memory(size_t size) except NULL:
    """For `aligned`; PyMem_RawFree gives it back."""
    cdef void *memory = PyMem_RawMalloc(size + ALIGNMENT) if size else NULL
    if memory == NULL:
        raise MemoryError(f"a model or streams: cannot have {size or 'so many'} bytes")
    return memory


cdef class StreamWeights:
    """A model's weights, packed once, read-only, shared by all its streams; made by ``model.stream()``.

    Attributes
    ----------
    nbytes : int
        Memory that the packed weights take.
    input_size, output_size : int
    isa : str
        Instruction set that their streams run on.
    """

    def __cinit__(self, str kind not None, str cell not None, Py_ssize_t input_size, list layers not None,
                  bint reset_after=True, embedding=None, W_hy=None, b_y=None, bint ids_only=False,
                  x_scaling=None, y_scaling=None, frozen=None):
        """``layers``: for each W_xh, W_hh, b_h and what else it has, by name. ``frozen``: tensors and header of the
        model's file. A ``b_y`` without ``W_hy``: the embedding's transpose."""
        cdef crnn_model_config config
        cdef Py_ssize_t K, H, G, count = len(layers), read = 0
        cdef int code = CELLS[cell] + (cell == "gru" and not reset_after)
        cdef int real = cnp.NPY_FLOAT32, double_ = cnp.NPY_FLOAT64
        if count < 1:
            raise ValueError("layers: expected at least one, got none")
        memset(&config, 0, sizeof(config))
        cdef crnn_layer_weights *of = <crnn_layer_weights *>PyMem_RawMalloc(count * sizeof(crnn_layer_weights))
        if of == NULL:
            raise MemoryError()
        try:
            memset(of, 0, count * sizeof(crnn_layer_weights))
            config.input_size, config.num_layers, config.layers = input_size, count, of
            if embedding is not None:
                config.embedding_size = embedding.shape[1]
                config.embedding = <float *>data("embedding", embedding, real, False, 2, input_size,
                                                 config.embedding_size)
            K, G = config.embedding_size or input_size, {"lstm": 4, "gru": 3}.get(cell, 1)
            for i, layer in enumerate(layers):
                H = layer["W_hh"].shape[0]
                of[i].cell, of[i].hidden_size = code, H
                of[i].W_xh = <float *>data("W_xh", layer["W_xh"], real, False, 2, K, G * H)
                of[i].W_hh = <float *>data("W_hh", layer["W_hh"], real, False, 2, H, G * H)
                of[i].b_h = <float *>data("b_h", layer["b_h"], real, False, 1, G * H)
                if code == CRNN_CELL_GRU:
                    of[i].b_hn = <float *>data("b_hn", layer["b_hn"], real, False, 1, H)
                if "h0" in layer:
                    of[i].h0 = <float *>data("h0", layer["h0"], real, False, 1, H)
                if "c0" in layer:
                    of[i].c0 = <float *>data("c0", layer["c0"], real, False, 1, H)
                read += (0 if i == 0 and ids_only and embedding is None else K * G * H) + H * G * H
                K = H
            if b_y is not None:
                config.output_size = b_y.shape[0]
                config.b_y = <float *>data("b_y", b_y, real, False, 1, config.output_size)
                config.tied = W_hy is None
                if W_hy is not None:
                    config.W_hy = <float *>data("W_hy", W_hy, real, False, 2, K, config.output_size)
                read += K * config.output_size
            if x_scaling is not None:
                config.x_mean = <double *>data("x's mean", x_scaling[0], double_, False, 1, input_size)
                config.x_deviation = <double *>data("x's deviation", x_scaling[1], double_, False, 1, input_size)
            if y_scaling is not None:
                config.y_columns = y_scaling[0].shape[0]
                config.y_mean = <double *>data("y's mean", y_scaling[0], double_, False, 1, config.y_columns)
                config.y_deviation = <double *>data("y's deviation", y_scaling[1], double_, False, 1, config.y_columns)
            self.nbytes = crnn_model_size(&config)
            self.memory = new_memory(self.nbytes)
            self.model = crnn_model_init(aligned(self.memory), &config, f32)
        finally:
            PyMem_RawFree(of)
        self.isa = f32.isa.decode()
        self.kind, self.frozen = kind, frozen
        self.sizes = [layer["W_hh"].shape[0] for layer in layers]
        self.has_c, self.ids_only = cell == "lstm", ids_only or embedding is not None
        self.step_bytes = read * sizeof(float)
        self.input_size, self.output_size = input_size, crnn_model_output_size(self.model)
        self.state_size = crnn_model_state_size(self.model)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def are_of(self, tensors, header):
        """Whether the model they were made of has these tensors and this header still."""
        if self.frozen is None or self.isa != f32.isa.decode() or header != self.frozen[1]:
            return False
        mine = self.frozen[0]
        return mine.keys() == tensors.keys() and all(same_bytes(mine[name], tensors[name]) for name in mine)

    def __reduce__(self):
        from crnn.serialize import model_bytes

        if self.frozen is None:
            raise TypeError("StreamWeights: expected those of a model, which can be pickled; these are of none")
        return _weights_from, (model_bytes(*self.frozen),)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __repr__(self):
        return f"StreamWeights({self.describe()})"

    cdef str describe(self):
        return (f"{self.kind}, input_size={self.input_size}, output_size={self.output_size}, "
                f"{self.nbytes / 2 ** 20:.3g} MB of weights")

    # ---- arguments ---------------------------------------------------------------------------------------------------

    cdef object one_input(self, x):
        """The fast path has not taken it: a contiguous float32 array (D,), an id, or an error."""
        if isinstance(x, np.ndarray) and x.ndim == 0:
            x = x[()]
        if isinstance(x, (int, np.integer)) and not isinstance(x, bool):
            return index(x)
        if isinstance(x, (np.ndarray, list, tuple)) and not self.ids_only:
            return real_array("x", x, (self.input_size,))
        expected = "an integer id" if self.ids_only else f"a float32 array of shape ({self.input_size},), or an id"
        raise TypeError(f"x: expected {expected}, got {described(x)}")

    cdef object many_inputs(self, str name, x, str letter):
        """A contiguous float32 array (n, D), or int32 ids (n,), in range."""
        cdef cnp.ndarray ids
        array = as_array(name, x)
        if array.dtype.kind in "iu" and array.ndim == 1 or array.size == 0 and array.shape == (0,):
            if array.dtype != np.int32 and array.size:
                low, high = array.min(), array.max()
                if low < 0 or high >= self.input_size:
                    raise ValueError(f"{name}: expected ids from 0 to {self.input_size - 1}, got {low} to {high}")
            ids = np.ascontiguousarray(array, np.int32)
            need_ids_below(name, <int32_t *>cnp.PyArray_DATA(ids), cnp.PyArray_SIZE(ids), self.input_size, 0)
            return ids
        if self.ids_only:
            raise TypeError(f"{name}: expected integer ids ({letter},), got {described(x)}")
        return real_array(name, array, (letter, self.input_size))

    cdef cnp.ndarray fresh(self, Py_ssize_t rows):
        cdef cnp.npy_intp *shape = [rows, self.output_size]
        return cnp.PyArray_SimpleNew(2, shape, cnp.NPY_FLOAT32)

    # ---- states as users see them ------------------------------------------------------------------------------------

    cdef object state_of(self, const crnn_streams *streams, Py_ssize_t row):
        flat = np.empty(self.state_size, np.float32)
        crnn_streams_get_state(streams, <float *>cnp.PyArray_DATA(<cnp.ndarray>flat), row)
        parts, start = [], 0
        for _ in range(1 + self.has_c):
            arrays = []
            for size in self.sizes:
                arrays.append(flat[start:start + size].reshape(1, size))
                start += size
            if len(set(self.sizes)) == 1:
                arrays = flat[start - sum(self.sizes):start].reshape(len(self.sizes), 1, self.sizes[0])
            parts.append(arrays)
        return tuple(parts) if self.has_c else parts[0]

    cdef cnp.ndarray flat_state(self, str name, value):
        state = State(self.sizes, self.has_c, 1, "float32")
        state.fill(name, value)
        return np.concatenate([array.reshape(-1) for _, part in state.parts for array in part])


CELLS = {"tanh": CRNN_CELL_TANH, "relu": CRNN_CELL_RELU, "lstm": CRNN_CELL_LSTM, "gru": CRNN_CELL_GRU}


cdef bint same_bytes(cnp.ndarray a, cnp.ndarray b):
    return (cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(b)
            and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_NBYTES(a)) == 0)


cdef str described(x):
    if isinstance(x, np.ndarray):
        return f"{x.dtype} array of shape {x.shape}"
    return f"{type(x).__name__} {x!r:.60}"


cdef object as_array(str name, x):
    try:
        return np.asarray(x)
    except (TypeError, ValueError, OverflowError):  # ragged, or no numbers
        raise ValueError(f"{name}: expected numbers in an array, got {described(x)}") from None


cdef object real_array(str name, x, tuple shape):
    """float32, contiguous; a letter in the shape stands for any length."""
    array = as_array(name, x)
    good = array.ndim == len(shape) and all(n == m for n, m in zip(array.shape, shape) if not isinstance(m, str))
    if not good or array.dtype not in (np.float32, np.float16):
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        hint = "; say astype('float32') if rounding is meant" if good and array.dtype == np.float64 else ""
        raise (TypeError if good else ValueError)(f"{name}: expected float32 of shape ({expected}), "
                                                  f"got {array.dtype} of shape {array.shape}{hint}")
    return np.ascontiguousarray(array, np.float32)


cdef int busy_error(str what) except -1:
    raise RuntimeError(f"{what}: another thread is at work on it; give each thread a stream of its own")


cdef int enter(int *flag, str what) except -1:
    """Be the one thread at work on ``what``, or raise RuntimeError; until `leave`."""
    return 0 if flag_take(flag) else busy_error(what)


cdef void leave(int *flag) noexcept:
    flag_give(flag)


def _weights_from(content):
    """For pickle."""
    from crnn.serialize import restore

    return restore(content, {}).stream().weights


def _stream_from(weights, state):
    """For pickle."""
    stream = Stream(weights)
    stream.state = state
    return stream


cdef class Stream:
    """A model on one sequence, a step at a time; ``model.stream()`` makes one.

    What is allocated in a step is its fresh output, and with ``out=`` nothing. One thread at a time: a second one that
    comes in meanwhile gets a RuntimeError, and changes nothing.

    Attributes
    ----------
    input_size, output_size : int
    weights : StreamWeights
        Shared by all streams of the model; ``weights.nbytes`` says how large they are.

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
        self.releases = weights.step_bytes > RELEASE_BYTES
        self.resize(1)

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    cdef int resize(self, Py_ssize_t most) except -1:
        """So many steps at a time; the state stays."""
        cdef void *memory = new_memory(crnn_streams_size(self.weights.model, 1, most))
        cdef crnn_streams *streams = crnn_streams_init(aligned(memory), self.weights.model, 1, most)
        if self.streams != NULL:
            crnn_streams_copy(streams, 0, self.streams, 0)
        PyMem_RawFree(self.memory)
        self.memory, self.streams, self.most = memory, streams, most
        return 0

    @property
    def input_size(self):
        return self.weights.input_size

    @property
    def output_size(self):
        return self.weights.output_size

    cdef int step_into(self, float *y, const float *x) noexcept nogil:
        if self.weights.ids_only or not flag_take(&self.busy):
            return -1
        crnn_streams_step(self.streams, y, x, NULL, 1)
        flag_give(&self.busy)
        return 0

    cdef int step_id_into(self, float *y, int32_t id) noexcept nogil:
        if not 0 <= id < self.weights.input_size or not flag_take(&self.busy):
            return -1
        crnn_streams_step_ids(self.streams, y, &id, NULL, 1)
        flag_give(&self.busy)
        return 0

    def step(self, x, out=None):
        """The output of one more step.

        Parameters
        ----------
        x : float32 array (input_size,), or an integer id
            Not kept.
        out : float32 array (output_size,), optional
            Where to write the output; C-contiguous. May be x itself.

        Returns
        -------
        array (output_size,)
            Fresh, or ``out``. Of a network h of its top layer; of a model what its head makes of that: logits, or
            values in the targets' own units. Quantiles lie in blocks of the targets' columns, one block for each level.
        """
        cdef StreamWeights weights = self.weights
        cdef const float *x_ = NULL
        cdef float *y_
        cdef int32_t id = 0
        cdef int overflow = 0, failed
        cdef long number = 0
        cdef cnp.npy_intp size = weights.output_size
        if (cnp.PyArray_Check(x) and not weights.ids_only and cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_FLOAT32
                and cnp.PyArray_NDIM(<cnp.ndarray>x) == 1
                and cnp.PyArray_DIM(<cnp.ndarray>x, 0) == weights.input_size
                and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x)):
            x_ = <const float *>cnp.PyArray_DATA(<cnp.ndarray>x)
        else:
            if not PyLong_CheckExact(x):
                x = weights.one_input(x)
            if PyLong_CheckExact(x):
                number = PyLong_AsLongAndOverflow(x, &overflow)
                if overflow or not 0 <= number < weights.input_size:
                    raise ValueError(f"x: expected an id from 0 to {weights.input_size - 1}, got {x}")
                id = <int32_t>number
            else:
                x_ = <const float *>cnp.PyArray_DATA(<cnp.ndarray>x)
        if out is None:
            out = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_FLOAT32)
            y_ = <float *>cnp.PyArray_DATA(<cnp.ndarray>out)
        else:
            y_ = <float *>data("out", out, cnp.NPY_FLOAT32, True, 1, size)
        if self.releases:
            with nogil:
                failed = self.step_into(y_, x_) if x_ != NULL else self.step_id_into(y_, id)
        else:
            failed = self.step_into(y_, x_) if x_ != NULL else self.step_id_into(y_, id)
        if failed:
            busy_error("stream")
        return out

    def run(self, xs, out=None):
        """The outputs of T more steps in one call, with the bits of `step`.

        Parameters
        ----------
        xs : float32 array (T, input_size), or integer ids (T,)
        out : float32 array (T, output_size), optional
            Where to write them; C-contiguous, apart from xs.

        Returns
        -------
        array (T, output_size)
            Fresh, or ``out``.
        """
        cdef StreamWeights weights = self.weights
        cdef cnp.ndarray x = weights.many_inputs("xs", xs, "T")
        cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0)
        cdef bint ids = cnp.PyArray_NDIM(x) == 1
        if out is None:
            out = weights.fresh(T)
        cdef float *y_ = <float *>data("out", out, cnp.NPY_FLOAT32, True, 2, T, weights.output_size)
        cdef void *x_ = cnp.PyArray_DATA(x)
        need_apart("out", out, "xs", x)
        enter(&self.busy, "stream")
        try:
            if T > 1 and self.most == 1:
                self.resize(RUN_STEPS)
            if weights.step_bytes * T > RELEASE_BYTES:
                with nogil:
                    run_streams(self.streams, y_, x_, ids, T)
            else:
                run_streams(self.streams, y_, x_, ids, T)
        finally:
            leave(&self.busy)
        return out

    def reset(self):
        """Back to the state before the first step: zeros, or the learnt one."""
        enter(&self.busy, "stream")
        crnn_streams_reset(self.streams, NULL, 1)
        leave(&self.busy)

    @property
    def state(self):
        """The state, of the form that the network's own has for a batch of one; a copy. Writable as a whole."""
        enter(&self.busy, "stream")
        try:
            return self.weights.state_of(self.streams, 0)
        finally:
            leave(&self.busy)

    @state.setter
    def state(self, value):
        cdef cnp.ndarray flat = self.weights.flat_state("state", value)
        enter(&self.busy, "stream")
        crnn_streams_set_state(self.streams, <float *>cnp.PyArray_DATA(flat), 0)
        leave(&self.busy)

    def copy(self):
        """Another stream that goes on from here by itself."""
        cdef Stream other = Stream(self.weights)
        enter(&self.busy, "stream")
        crnn_streams_copy(other.streams, 0, self.streams, 0)
        leave(&self.busy)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return _stream_from, (self.weights, self.state)

    def __repr__(self):
        return f"Stream({self.weights.describe()})"


cdef void run_streams(crnn_streams *streams, float *y, const void *x, bint ids, Py_ssize_t T) noexcept nogil:
    if ids:
        crnn_streams_run_ids(streams, y, <const int32_t *>x, T, 0)
    else:
        crnn_streams_run(streams, y, <const float *>x, T, 0)
