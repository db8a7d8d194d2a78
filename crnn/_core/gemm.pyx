# SPDX-License-Identifier: MIT
"""Packed weights, matrix products and their gradients, one-hot rows."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, need_range, real_kind
from crnn._core.dispatch cimport f32, f64
from crnn._core.header cimport (
    CRNN_GRAD_PANELS, CRNN_GRAD_ROWS, CRNN_LINE_BYTES, crnn_quantised, crnn_rows)
from crnn._core.program cimport note_array, perform
from crnn._core.rows cimport Lengths, all_rows_of, rows_of

import math

import numpy as np

cnp.import_array()

LINE_BYTES = CRNN_LINE_BYTES


def aligned_empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised C-order array that starts on a cache line, where vector loads are cheapest."""
    return aligned(shape, dtype, False)


def aligned_zeros(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """The same with zeros. Pages of a large array take memory and time when they are first written."""
    return aligned(shape, dtype, True)


cdef object aligned(shape, dtype, bint zeros):
    # by NumPy's C API: slice, view and reshape take 1 us, and a window has many arrays
    cdef cnp.dtype descr = np.dtype(dtype)
    cdef cnp.npy_intp dims[4]
    cdef cnp.npy_intp with_gap
    cdef int axis, ndim = len(shape)
    size = math.prod(shape) * descr.itemsize
    if ndim > 4:
        raise ValueError(f"shape: expected at most 4 axes, got {tuple(shape)}")
    try:
        with_gap = size + CRNN_LINE_BYTES
        for axis in range(ndim):
            dims[axis] = shape[axis]
        if zeros:
            raw = cnp.PyArray_ZEROS(1, &with_gap, cnp.NPY_UINT8, 0)
        else:
            raw = cnp.PyArray_EMPTY(1, &with_gap, cnp.NPY_UINT8, 0)
    except (MemoryError, ValueError, OverflowError):
        raise MemoryError(f"no memory for a {descr} array of shape {tuple(shape)}, {size} bytes") from None
    cdef size_t start = <size_t>cnp.PyArray_DATA(<cnp.ndarray>raw)
    start += -start % CRNN_LINE_BYTES
    array = cnp.PyArray_SimpleNewFromData(ndim, dims, descr.type_num, <void *>start)
    cnp.set_array_base(<cnp.ndarray>array, raw)
    return array


def line_width(dtype: DTypeLike) -> int:
    """Reals in a cache line: the unit in which columns are shared out."""
    return CRNN_LINE_BYTES // np.dtype(dtype).itemsize


cdef struct Packing:
    crnn_packed matrix
    const void *values
    Py_ssize_t ldw


cdef void pack_call(const void *arguments) noexcept nogil:
    cdef crnn_tables kernels = crnn_tables(f32, f64)
    a = <const Packing *>arguments
    crnn_pack(&a.matrix, &kernels, a.values, a.ldw)


cdef void pack_transposed_call(const void *arguments) noexcept nogil:
    cdef crnn_tables kernels = crnn_tables(f32, f64)
    a = <const Packing *>arguments
    crnn_pack_transposed(&a.matrix, &kernels, a.values, a.ldw)


# Precisions of products with float32 weights that are stored in fewer bits: see src_c/quant.
QUANTISED: tuple[str, ...] = ("bf16", "int8", "int4")
cdef dict FORMATS = {"float32": CRNN_FORMAT_F32, "float64": CRNN_FORMAT_F64, "bf16": CRNN_FORMAT_BF16,
                     "int8": CRNN_FORMAT_INT8, "int4": CRNN_FORMAT_INT4}
cdef double QUANTISED_LIMIT = 2.0 ** 127  # rounded weights remain finite


cdef class Packed:
    def __init__(self, Py_ssize_t K, Py_ssize_t N, dtype: DTypeLike, Py_ssize_t gates=1, precision: str | None = None):
        if K < 1 or N < 1 or gates < 1:
            raise ValueError(f"Packed: expected K, N and gates of at least 1, got {K}, {N} and {gates}")
        self.kind = real_kind("dtype", np.empty(0, dtype))
        dtype = "float32" if self.kind == cnp.NPY_FLOAT32 else "float64"
        self.precision = dtype if precision is None else precision
        allowed = (dtype, *QUANTISED) if dtype == "float32" else (dtype,)
        if self.precision not in allowed:
            raise ValueError(f"precision: expected {' or '.join(map(repr, allowed))} for weights of {dtype}, "
                             f"got {precision!r}")
        self.K, self.N, self.gates = K, N, gates
        self.matrix.K, self.matrix.N, self.matrix.gates = K, N, gates
        self.matrix.format = FORMATS[self.precision]
        cdef size_t size = crnn_packed_size(&self.matrix)
        if size > <size_t>-1 // 2:
            raise ValueError(f"Packed: expected fewer than {K} rows in {self.precision}")
        self.buffer = aligned_empty((size,), np.uint8)
        self.matrix.data = cnp.PyArray_DATA(<cnp.ndarray>self.buffer)

    cdef bint is_quantised(self) noexcept:
        return crnn_is_quantised(&self.matrix) == 1

    def pack(self, w: Real, first: int | None = None, any_values: bool = False) -> Packed:
        """Take over the values of w (K, gates * N) IN, or of its columns from ``first`` on. Returns self.

        ``any_values``: also of those that are not finite, or become infinite when rounded to bf16. Others have none of them.
        """
        cdef Py_ssize_t columns = self.gates * self.N, n0 = 0 if first is None else first
        cdef Py_ssize_t ldw = columns if first is None else dim(w, 1)
        cdef char *w_ = <char *>data("w", w, self.kind, False, 2, self.K, ldw)
        need_range("first", n0, n0 + columns, ldw, 1)
        return self.take(w, w_, n0, columns, ldw, any_values, pack_call)

    def pack_transposed(self, w: Real, first: int | None = None, any_values: bool = False) -> Packed:
        """Take over the transpose of w (N, K) IN, or of its K columns from ``first`` on. Returns self."""
        cdef Py_ssize_t n0 = 0 if first is None else first, ldw = self.K if first is None else dim(w, 1)
        cdef char *w_ = <char *>data("w", w, self.kind, False, 2, self.N, ldw)
        need_range("first", n0, n0 + self.K, ldw, 1)
        if self.gates != 1:
            raise ValueError(f"w: expected to be packed for a product without gates, got {self.gates} gates")
        return self.take(w, w_, n0, self.K, ldw, any_values, pack_transposed_call)

    cdef Packed take(self, w, const char *values, Py_ssize_t n0, Py_ssize_t columns, Py_ssize_t ldw, bint any_values,
                     void (*call)(const void *) noexcept nogil):
        if self.need_values(any_values):
            self.need_small(w[:, n0:n0 + columns])
        cdef Packing arguments = Packing(self.matrix, values + n0 * crnn_element_size(self.matrix.format), ldw)
        note_array(self)
        perform(call, &arguments, sizeof(arguments))
        return self

    def unpacked(self) -> NDArray[Any]:
        """The weights (K, gates * N) as the products see them, fresh; quantised ones are rounded."""
        dtype = "float64" if self.precision == "float64" else "float32"
        cdef cnp.ndarray w = np.empty((self.K, self.gates * self.N), dtype)
        crnn_unpack(&self.matrix, cnp.PyArray_DATA(w), self.gates * self.N)
        return w

    def holds(self, w: Real) -> bool:
        """Whether ``pack(w)`` would give the same."""
        cdef void *w_ = data("w", w, self.kind, False, 2, self.K, self.gates * self.N)
        cdef crnn_tables kernels = crnn_tables(f32, f64)
        return crnn_packed_equals(&self.matrix, &kernels, w_, self.gates * self.N) == 1

    cdef bint need_values(self, bint any_values) except -1:
        """Whether the values must be checked."""
        if any_values and self.is_quantised() and self.matrix.format != CRNN_FORMAT_BF16:
            raise ValueError(f"any_values: expected False for weights in {self.precision}, got True")
        return self.is_quantised() and not any_values

    cdef int need_small(self, w) except -1:
        """Refuse weights that rounding could make infinite, or that are not finite."""
        if not (np.abs(w) <= QUANTISED_LIMIT).all():
            raise ValueError(f"w: expected finite numbers up to 2**127 for {self.precision}, "
                             f"got {float(w.min())} to {float(w.max())}")
        return 0


cdef void *packed_data(str name, Packed packed, int kind, Py_ssize_t K, Py_ssize_t N,
                       Py_ssize_t gates=1, bint may_be_quantised=False) except NULL:
    if packed is None:
        raise TypeError(f"{name}: expected packed weights, got None")
    if packed.is_quantised() and not may_be_quantised:
        raise ValueError(f"{name}: expected weights packed in the precision of the other arrays, got {packed.precision}")
    if packed.kind != kind or packed.K != K or packed.N != N or packed.gates != gates:
        raise ValueError(f"{name}: expected packed weights ({K}, {gates * N}) of the precision of the other arrays"
                         f"{f', in {gates} gates' if gates > 1 else ''}, "
                         f"got ({packed.K}, {packed.gates * packed.N}) in {'float32' if packed.kind == cnp.NPY_FLOAT32 else 'float64'}"
                         f"{f', in {packed.gates} gates' if packed.gates > 1 else ''}")
    note_array(packed)
    return packed.matrix.data


cdef size_t scratch_bytes(Packed w, Py_ssize_t rows) noexcept:
    return crnn_packed_scratch(&w.matrix, rows)


def product_scratch(Packed w not None, Py_ssize_t rows) -> NDArray[Any] | None:
    """Scratch for products of ``rows`` rows of x with w, or with the same number of rows of other matrices that have no
    more rows than w and the same precision; None where they need none. Each thread needs its own."""
    return aligned_empty((scratch_bytes(w, rows),), np.uint8) if w.is_quantised() else None


cdef void *scratch_for(Packed w, array, Py_ssize_t rows) except? NULL:
    cdef void *scratch
    cdef Py_ssize_t needed = scratch_bytes(w, rows)
    if not w.is_quantised():
        return NULL
    scratch = data("scratch", array, cnp.NPY_UINT8, True, 1, -1)
    if dim(array, 0) < needed or <size_t>scratch % CRNN_LINE_BYTES:
        raise ValueError(f"scratch: expected at least {needed} bytes that start on a cache line, got {dim(array, 0)} "
                         f"bytes {<size_t>scratch % CRNN_LINE_BYTES} beyond one")
    return scratch


cdef struct Linear:
    crnn_packed w
    void *y
    const void *x
    const void *bias
    void *scratch
    Py_ssize_t ldy, ldx
    bint adds
    crnn_rows rows


cdef void linear_call(const void *arguments) noexcept nogil:
    cdef crnn_tables kernels = crnn_tables(f32, f64)
    a = <const Linear *>arguments
    crnn_packed_columns(&a.w, &kernels, a.y, a.ldy, a.x, a.ldx, a.bias, a.adds, a.scratch, &a.rows)


def linear_forward(y: Real, x: Real, Packed w not None, bias: Real | None, Py_ssize_t b0, Py_ssize_t b1,
                   lengths: Lengths | None = None, scratch: NDArray[Any] | None = None):
    """y[:, b0:b1] = x[:, b0:b1] @ w + bias.

    y (T, B, N) OUT;  x (T, B, K) IN;  w packed (K, N);  bias (N,) IN or None. With `lengths` b0 and b1 are positions in
    their order, and rows beyond a sequence's end are left as they are. scratch: OUT, from `product_scratch`, which is
    called if it is not given.
    """
    linear(y, w.N, 0, x, w.K, 0, w, bias, b0, b1, False, lengths, scratch)


def linear_columns(y: Real, Py_ssize_t n0, x: Real, Py_ssize_t k0, Packed w not None, bias: Real | None, Py_ssize_t b0,
                   Py_ssize_t b1, bint adds=False, scratch: NDArray[Any] | None = None):
    """y[:, b0:b1, n0:n0+N] = x[:, b0:b1, k0:k0+K] @ w + bias; with ``adds`` += x[...] @ w instead, without a bias.

    y (T, B, at least n0+N) OUT, or ACCUMULATED;  x (T, B, at least k0+K) IN;  the rest as in `linear_forward`. Products
    with some columns of a matrix, or with some of its rows one after another, are bit-identical to that with all.
    """
    if adds and bias is not None:
        raise ValueError("bias: expected None with adds, got an array")
    linear(y, -1, n0, x, -1, k0, w, bias, b0, b1, adds, None, scratch)


cdef int linear(y, Py_ssize_t width, Py_ssize_t n0, x, Py_ssize_t terms, Py_ssize_t k0, Packed w, bias, Py_ssize_t b0,
                Py_ssize_t b1, bint adds, lengths, scratch) except -1:
    """What both do. width, terms: the sizes of y and x; -1: any that hold the columns."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t T = dim(y, 0), B = dim(y, 1), ldy = dim(y, 2), ldx = dim(x, 2)
    cdef char *y_ = <char *>data("y", y, kind, True, 3, T, B, width)
    cdef char *x_ = <char *>data("x", x, kind, False, 3, T, B, terms)
    packed_data("w", w, kind, w.K, w.N, 1, True)
    need_range("n0", n0, n0 + w.N, ldy, 1)
    need_range("k0", k0, k0 + w.K, ldx, 1)
    cdef void *bias_ = NULL if bias is None else data("bias", bias, kind, False, 1, w.N)
    cdef size_t size = crnn_element_size(w.matrix.format)
    cdef Linear arguments = Linear(w.matrix, y_ + n0 * size, x_ + k0 * size, bias_, NULL, ldy, ldx, adds,
                                   rows_of(T, B, b0, b1, lengths))
    need_apart("y", y, "x", x)
    if bias is not None:
        need_apart("y", y, "bias", bias)
    scratch = product_scratch(w, arguments.rows.T * (b1 - b0)) if scratch is None else scratch
    arguments.scratch = scratch_for(w, scratch, arguments.rows.T * (b1 - b0))
    if arguments.scratch != NULL:
        for name, array in [("y", y), ("x", x), *([] if bias is None else [("bias", bias)])]:
            need_apart("scratch", scratch, name, array)
    perform(linear_call, &arguments, sizeof(arguments))
    return 0


cdef struct WeightGradient:
    int kind
    crnn_format format  # that x and dy are rounded to
    bint recurrent, reverse
    void *dw
    void *db
    const void *x
    const void *start   # of a recurrent one
    const void *dy
    void *scratch
    Py_ssize_t K, N, n0, n1
    crnn_rows rows


cdef void weight_gradient_call(const void *arguments) noexcept nogil:
    a = <const WeightGradient *>arguments
    cdef crnn_tables kernels = crnn_tables(f32, f64)
    cdef const crnn_quantised *quantised = crnn_quantised_format(a.format, &kernels)  # of the instruction set in use
    if a.recurrent and a.kind == cnp.NPY_FLOAT32:
        f32.recurrent_backward_weight(<float *>a.dw, <float *>a.db, <const float *>a.x, <const float *>a.start,
                                      <const float *>a.dy, quantised, <float *>a.scratch, a.reverse, a.K, a.N, a.n0,
                                      a.n1, &a.rows)
    elif a.recurrent:
        f64.recurrent_backward_weight(<double *>a.dw, <double *>a.db, <const double *>a.x, <const double *>a.start,
                                      <const double *>a.dy, NULL, <double *>a.scratch, a.reverse, a.K, a.N, a.n0, a.n1,
                                      &a.rows)
    elif a.kind == cnp.NPY_FLOAT32:
        f32.linear_backward_weight(<float *>a.dw, <float *>a.db, <const float *>a.x, <const float *>a.dy, quantised,
                                   <float *>a.scratch, a.K, a.N, a.n0, a.n1, &a.rows)
    else:
        f64.linear_backward_weight(<double *>a.dw, <double *>a.db, <const double *>a.x, <const double *>a.dy, NULL,
                                   <double *>a.scratch, a.K, a.N, a.n0, a.n1, &a.rows)


def linear_backward_weight(dw: Real, x: Real, dy: Real, scratch: Real, Py_ssize_t n0, Py_ssize_t n1,
                           lengths: Lengths | None = None, db: Real | None = None, precision: str | None = None):
    """dw[:, n0:n1] += x.T @ dy[:, n0:n1], over all rows in order; db[n0:n1] += sum of dy[:, :, n0:n1], if given.

    dw (K, N), db (N,) ACCUMULATED;  x (T, B, K) IN;  dy (T, B, N) IN;  scratch OUT, from grad_scratch(dtype, K).
    precision: None, or "bf16", to which x and dy are rounded for the product with float32 arrays; the sum in db is of
    dy itself.
    """
    cdef int kind = real_kind("dw", dw)
    cdef crnn_format format = gradient_format(precision, kind)
    cdef Py_ssize_t K = dim(dw, 0), N = dim(dw, 1), T = dim(dy, 0), B = dim(dy, 1)
    cdef void *dw_ = data("dw", dw, kind, True, 2, K, N)
    cdef void *dy_ = data("dy", dy, kind, False, 3, -1, -1, N)
    cdef void *x_ = data("x", x, kind, False, 3, T, B, K)
    cdef void *db_ = NULL if db is None else data("db", db, kind, True, 1, N)
    cdef void *scratch_ = scratch_data(scratch, kind, K)
    cdef crnn_rows rows = all_rows_of(T, B, lengths)
    need_range("n0, n1", n0, n1, N, 1)
    need_gradient_apart(dw, db, scratch, [("x", x), ("dy", dy)])
    if n0 == n1 or K == 0:
        return
    cdef WeightGradient arguments = WeightGradient(kind, format, False, False, dw_, db_, x_, NULL, dy_, scratch_, K, N, n0, n1,
                                                   rows)
    perform(weight_gradient_call, &arguments, sizeof(arguments))


def recurrent_backward_weight(dw: Real, h: Real, h0: Real, da: Real, scratch: Real, bint reverse, Py_ssize_t n0,
                              Py_ssize_t n1, lengths: Lengths | None = None, db: Real | None = None,
                              precision: str | None = None):
    """dw[:, n0:n1] += sum over t of h'[t].T @ da[t, :, n0:n1], h' being h of the step before, h0 at the first;
    db[n0:n1] += sum of da[:, :, n0:n1], if given.

    dw (H, N), db (N,) ACCUMULATED;  h (T, B, H) IN;  h0 (B, H) IN;  da (T, B, N) IN;
    scratch OUT, from grad_scratch(dtype, H). precision: as in `linear_backward_weight`.
    `reverse`: the step before is t+1, the first one a sequence's last.
    """
    cdef int kind = real_kind("dw", dw)
    cdef crnn_format format = gradient_format(precision, kind)
    cdef Py_ssize_t H = dim(dw, 0), N = dim(dw, 1), T = dim(da, 0), B = dim(da, 1)
    cdef void *dw_ = data("dw", dw, kind, True, 2, H, N)
    cdef void *da_ = data("da", da, kind, False, 3, -1, -1, N)
    cdef void *h_ = data("h", h, kind, False, 3, T, B, H)
    cdef crnn_rows rows = all_rows_of(T, B, lengths)
    cdef bint some = lengths is not None and lengths.held
    cdef char *h0_ = <char *>data("h0", h0, kind, False, 2, lengths.batch if some else rows.B, H)
    cdef void *db_ = NULL if db is None else data("db", db, kind, True, 1, N)
    cdef void *scratch_ = scratch_data(scratch, kind, H)
    if some:
        h0_ += lengths.first * H * (4 if kind == cnp.NPY_FLOAT32 else 8)
    need_range("n0, n1", n0, n1, N, 1)
    need_gradient_apart(dw, db, scratch, [("h", h), ("h0", h0), ("da", da)])
    if n0 == n1 or H == 0:
        return
    cdef WeightGradient arguments = WeightGradient(kind, format, True, reverse, dw_, db_, h_, h0_, da_, scratch_, H, N, n0, n1,
                                                   rows)
    perform(weight_gradient_call, &arguments, sizeof(arguments))


cdef crnn_format gradient_format(precision, int kind) except *:
    """Of the factors of a gradient of weights. bf16 is the only quantised one that has gradients."""
    if precision is None:
        return CRNN_FORMAT_F32 if kind == cnp.NPY_FLOAT32 else CRNN_FORMAT_F64
    if precision != "bf16" or kind != cnp.NPY_FLOAT32:
        expected = "None or 'bf16'" if kind == cnp.NPY_FLOAT32 else "None for float64"
        raise ValueError(f"precision: expected {expected} for the gradient of weights, got {precision!r}")
    return CRNN_FORMAT_BF16


cdef Py_ssize_t scratch_size(Py_ssize_t line, Py_ssize_t K) noexcept:
    return CRNN_GRAD_ROWS * (CRNN_GRAD_PANELS * line + K) + CRNN_GRAD_PANELS * line


cdef void *scratch_data(scratch, int kind, Py_ssize_t K) except NULL:
    cdef Py_ssize_t line = CRNN_LINE_BYTES // (4 if kind == cnp.NPY_FLOAT32 else 8)
    cdef void *scratch_ = data("scratch", scratch, kind, True, 1, -1)
    if dim(scratch, 0) < scratch_size(line, K):
        raise ValueError(f"scratch: expected at least {scratch_size(line, K)} elements, got {dim(scratch, 0)}")
    return scratch_


cdef int need_gradient_apart(dw, db, scratch, list inputs) except -1:
    need_apart("scratch", scratch, "dw", dw)
    if db is not None:
        need_apart("db", db, "dw", dw)
        need_apart("scratch", scratch, "db", db)
    for name, array in inputs:
        need_apart("dw", dw, name, array)
        need_apart("scratch", scratch, name, array)
        if db is not None:
            need_apart("db", db, name, array)
    return 0


def grad_scratch(dtype: DTypeLike, Py_ssize_t K) -> NDArray[Any]:
    """Scratch for the gradients of weights (K or less, N); each thread needs its own."""
    return aligned_empty((scratch_size(line_width(dtype), K),), dtype)


cdef struct BiasGradient:
    int kind
    void *db
    const void *dy
    Py_ssize_t N, n0, n1
    crnn_rows rows


cdef void bias_gradient_call(const void *arguments) noexcept nogil:
    a = <const BiasGradient *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.bias_backward(<float *>a.db, <const float *>a.dy, a.N, a.n0, a.n1, &a.rows)
    else:
        f64.bias_backward(<double *>a.db, <const double *>a.dy, a.N, a.n0, a.n1, &a.rows)


def bias_backward(db: Real, dy: Real, Py_ssize_t n0, Py_ssize_t n1, lengths: Lengths | None = None):
    """db[n0:n1] += sum of dy[:, :, n0:n1] over all rows.  db (N,) ACCUMULATED;  dy (T, B, N) IN."""
    cdef int kind = real_kind("db", db)
    cdef Py_ssize_t N = dim(db, 0), T = dim(dy, 0), B = dim(dy, 1)
    cdef void *db_ = data("db", db, kind, True, 1, N)
    cdef void *dy_ = data("dy", dy, kind, False, 3, -1, -1, N)
    cdef crnn_rows rows = all_rows_of(T, B, lengths)
    need_range("n0, n1", n0, n1, N, 1)
    need_apart("db", db, "dy", dy)
    cdef BiasGradient arguments = BiasGradient(kind, db_, dy_, N, n0, n1, rows)
    perform(bias_gradient_call, &arguments, sizeof(arguments))


cdef struct BiasedRows:
    int kind
    void *y
    const void *w
    const void *bias
    Py_ssize_t V, N


cdef void rows_add_bias_call(const void *arguments) noexcept nogil:
    a = <const BiasedRows *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.rows_add_bias(<float *>a.y, <const float *>a.w, <const float *>a.bias, a.V, a.N)
    else:
        f64.rows_add_bias(<double *>a.y, <const double *>a.w, <const double *>a.bias, a.V, a.N)


def rows_add_bias(y: Real, w: Real, bias: Real):
    """y = w + bias.  y (V, N) OUT;  w (V, N) IN;  bias (N,) IN."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t V = dim(y, 0), N = dim(y, 1)
    cdef void *y_ = data("y", y, kind, True, 2, V, N)
    cdef void *w_ = data("w", w, kind, False, 2, V, N)
    cdef void *bias_ = data("bias", bias, kind, False, 1, N)
    need_apart("y", y, "w", w, or_same=True)
    need_apart("y", y, "bias", bias)
    cdef BiasedRows arguments = BiasedRows(kind, y_, w_, bias_, V, N)
    perform(rows_add_bias_call, &arguments, sizeof(arguments))


cdef struct RowsGradient:
    int kind
    void *dw
    const int32_t *ids
    const void *dy
    Py_ssize_t N, n0, n1
    crnn_rows rows


cdef void rows_gradient_call(const void *arguments) noexcept nogil:
    a = <const RowsGradient *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.rows_backward(<float *>a.dw, a.ids, <const float *>a.dy, a.N, a.n0, a.n1, &a.rows)
    else:
        f64.rows_backward(<double *>a.dw, a.ids, <const double *>a.dy, a.N, a.n0, a.n1, &a.rows)


def rows_backward(dw: Real, ids: Ids, dy: Real, Py_ssize_t n0, Py_ssize_t n1, lengths: Lengths | None = None):
    """dw[ids[t, b], n0:n1] += dy[t, b, n0:n1], over all rows in order.

    dw (V, N) ACCUMULATED;  ids (T, B) IN, from 0 to V-1;  dy (T, B, N) IN.
    """
    cdef int kind = real_kind("dw", dw)
    cdef Py_ssize_t V = dim(dw, 0), N = dim(dw, 1), T = dim(dy, 0), B = dim(dy, 1)
    cdef void *dw_ = data("dw", dw, kind, True, 2, V, N)
    cdef void *dy_ = data("dy", dy, kind, False, 3, -1, -1, N)
    cdef int32_t *ids_ = ids_data("ids", ids, 2, T, B)
    need_range("n0, n1", n0, n1, N, 1)
    need_ids_below("ids", ids_, T * B, V, 0)
    need_apart("dw", dw, "dy", dy)
    cdef RowsGradient arguments = RowsGradient(kind, dw_, ids_, dy_, N, n0, n1, all_rows_of(T, B, lengths))
    perform(rows_gradient_call, &arguments, sizeof(arguments))
