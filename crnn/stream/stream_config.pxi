# SPDX-License-Identifier: MIT
# Config: what crnn_stream.h needs to know of a model. Part of stream.pyx.

# Precisions of products that are not those of the arrays: names of StreamParts.precisions, and the bits of a weight.
cdef dict FORMATS = {"bf16": (CRNN_BF16, 16), "int8": (CRNN_INT8, 8), "int4": (CRNN_INT4, 4)}
cdef double QUANTISED_LIMIT = 2.0 ** 127  # rounded weights remain finite


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
        self.c.dense_layers = parts.dense_layers
        for i in range(self.c.num_layers):
            # Of the first layer's W_xh a look-up of ids reads one row only.
            bits += self.layer(&self.layers[i], parts.layers[i], K, f"layer{i}.", i == 0 and parts.ids_only and not E)
            K = self.layers[i].hidden_size + (K if parts.dense_layers and i else 0)
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
