# SPDX-License-Identifier: MIT
# StreamWeights: the packed weights of a model, and its inputs, outputs and states as arrays. Part of stream.pyx.


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
                f"{self.nbytes:,} bytes of weights")

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
