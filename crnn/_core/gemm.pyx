# SPDX-License-Identifier: MIT
"""Packed weights, matrix products and their gradients, one-hot rows."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, need_range, real_kind
from crnn._core.dispatch cimport CRNN_GRAD_PANELS, CRNN_GRAD_ROWS, CRNN_LINE_BYTES, f32, f64

import numpy as np

cnp.import_array()

LINE_BYTES = CRNN_LINE_BYTES


def aligned_empty(shape, dtype):
    """An uninitialised C-order array that starts on a cache line, where vector loads are cheapest."""
    dtype = np.dtype(dtype)
    cdef Py_ssize_t size = dtype.itemsize
    for length in shape:
        size *= length
    raw = np.empty(size + CRNN_LINE_BYTES, np.uint8)
    cdef Py_ssize_t start = -<Py_ssize_t>cnp.PyArray_DATA(<cnp.ndarray>raw) % CRNN_LINE_BYTES
    if start < 0:
        start += CRNN_LINE_BYTES
    return raw[start:start + size].view(dtype).reshape(shape)


def line_width(dtype):
    """Reals in a cache line: the unit in which columns are shared out."""
    return CRNN_LINE_BYTES // np.dtype(dtype).itemsize


cdef class Packed:
    def __init__(self, Py_ssize_t K, Py_ssize_t N, dtype):
        if K < 1 or N < 1:
            raise ValueError(f"Packed: expected K and N of at least 1, got {K} and {N}")
        cdef Py_ssize_t line = line_width(dtype)
        self.buffer = aligned_empty(((N + line - 1) // line, K, line), dtype)
        self.data = cnp.PyArray_DATA(<cnp.ndarray>self.buffer)
        self.kind = real_kind("dtype", self.buffer)
        self.K, self.N = K, N

    def pack(self, w):
        """Take over the values of w (K, N) IN. Returns self."""
        cdef void *w_ = data("w", w, self.kind, False, 2, self.K, self.N)
        with nogil:
            if self.kind == cnp.NPY_FLOAT32:
                f32.pack(<float *>self.data, <float *>w_, self.N, self.K, self.N)
            else:
                f64.pack(<double *>self.data, <double *>w_, self.N, self.K, self.N)
        return self

    def pack_transposed(self, w):
        """Take over the transpose of w (N, K) IN. Returns self."""
        cdef void *w_ = data("w", w, self.kind, False, 2, self.N, self.K)
        with nogil:
            if self.kind == cnp.NPY_FLOAT32:
                f32.pack_transposed(<float *>self.data, <float *>w_, self.K, self.K, self.N)
            else:
                f64.pack_transposed(<double *>self.data, <double *>w_, self.K, self.K, self.N)
        return self


cdef void *packed_data(str name, Packed packed, int kind, Py_ssize_t K, Py_ssize_t N) except NULL:
    if packed.kind != kind or packed.K != K or packed.N != N:
        raise ValueError(f"{name}: expected packed weights ({K}, {N}) of the precision of the other arrays, "
                         f"got ({packed.K}, {packed.N}) in {packed.buffer.dtype}")
    return packed.data


def linear_forward(y, x, Packed w not None, bias, Py_ssize_t b0, Py_ssize_t b1):
    """y[:, b0:b1] = x[:, b0:b1] @ w + bias.

    y (T, B, N) OUT;  x (T, B, K) IN;  w packed (K, N);  bias (N,) IN or None.
    """
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t T = dim(y, 0), B = dim(y, 1)
    cdef void *y_ = data("y", y, kind, True, 3, T, B, w.N)
    cdef void *x_ = data("x", x, kind, False, 3, T, B, w.K)
    cdef void *w_ = packed_data("w", w, kind, w.K, w.N)
    cdef void *bias_ = NULL if bias is None else data("bias", bias, kind, False, 1, w.N)
    need_range("b0, b1", b0, b1, B, 1)
    need_apart("y", y, "x", x)
    if T == 0 or b0 == b1:
        return
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.linear_forward(<float *>y_, <float *>x_, <float *>w_, <float *>bias_, T, B, w.K, w.N, b0, b1)
        else:
            f64.linear_forward(<double *>y_, <double *>x_, <double *>w_, <double *>bias_, T, B, w.K, w.N, b0, b1)


def linear_backward_weight(dw, x, dy, scratch, Py_ssize_t n0, Py_ssize_t n1):
    """dw[:, n0:n1] += x.T @ dy[:, n0:n1], over all rows in order.

    dw (K, N) ACCUMULATED;  x (T, B, K) IN;  dy (T, B, N) IN;  scratch (grad_scratch(dtype),) OUT.
    """
    cdef int kind = real_kind("dw", dw)
    cdef Py_ssize_t K = dim(dw, 0), N = dim(dw, 1), T = dim(dy, 0), B = dim(dy, 1)
    cdef Py_ssize_t line = CRNN_LINE_BYTES // (4 if kind == cnp.NPY_FLOAT32 else 8)
    cdef void *dw_ = data("dw", dw, kind, True, 2, K, N)
    cdef void *dy_ = data("dy", dy, kind, False, 3, -1, -1, N)
    cdef void *x_ = data("x", x, kind, False, 3, T, B, K)
    cdef void *scratch_ = data("scratch", scratch, kind, True, 1, CRNN_GRAD_ROWS * CRNN_GRAD_PANELS * line)
    need_range("n0, n1", n0, n1, N, line)
    need_apart("dw", dw, "x", x)
    need_apart("dw", dw, "dy", dy)
    for name, array in (("dw", dw), ("x", x), ("dy", dy)):
        need_apart("scratch", scratch, name, array)
    if n0 == n1 or K == 0:
        return
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.linear_backward_weight(<float *>dw_, <float *>x_, <float *>dy_, <float *>scratch_, T * B, K, N, n0, n1)
        else:
            f64.linear_backward_weight(<double *>dw_, <double *>x_, <double *>dy_, <double *>scratch_, T * B, K, N,
                                       n0, n1)


def grad_scratch(dtype):
    """Scratch for linear_backward_weight; each thread needs its own."""
    return aligned_empty((CRNN_GRAD_ROWS * CRNN_GRAD_PANELS * line_width(dtype),), dtype)


def bias_backward(db, dy, Py_ssize_t n0, Py_ssize_t n1):
    """db[n0:n1] += sum of dy[:, :, n0:n1] over all rows.  db (N,) ACCUMULATED;  dy (T, B, N) IN."""
    cdef int kind = real_kind("db", db)
    cdef Py_ssize_t N = dim(db, 0), M = dim(dy, 0) * dim(dy, 1)
    cdef void *db_ = data("db", db, kind, True, 1, N)
    cdef void *dy_ = data("dy", dy, kind, False, 3, -1, -1, N)
    need_range("n0, n1", n0, n1, N, 1)
    need_apart("db", db, "dy", dy)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.bias_backward(<float *>db_, <float *>dy_, M, N, n0, n1)
        else:
            f64.bias_backward(<double *>db_, <double *>dy_, M, N, n0, n1)


def rows_add_bias(y, w, bias):
    """y = w + bias.  y (V, N) OUT;  w (V, N) IN;  bias (N,) IN."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t V = dim(y, 0), N = dim(y, 1)
    cdef void *y_ = data("y", y, kind, True, 2, V, N)
    cdef void *w_ = data("w", w, kind, False, 2, V, N)
    cdef void *bias_ = data("bias", bias, kind, False, 1, N)
    need_apart("y", y, "w", w, or_same=True)
    need_apart("y", y, "bias", bias)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.rows_add_bias(<float *>y_, <float *>w_, <float *>bias_, V, N)
        else:
            f64.rows_add_bias(<double *>y_, <double *>w_, <double *>bias_, V, N)


def rows_backward(dw, ids, dy, Py_ssize_t n0, Py_ssize_t n1):
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
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.rows_backward(<float *>dw_, ids_, <float *>dy_, T * B, N, n0, n1)
        else:
            f64.rows_backward(<double *>dw_, ids_, <double *>dy_, T * B, N, n0, n1)


def need_ids(str name not None, ids, Py_ssize_t limit):
    """Raise ValueError, naming the argument, unless ids (T, B) IN are all from 0 to limit-1."""
    cdef Py_ssize_t T = dim(ids, 0), B = dim(ids, 1)
    need_ids_below(name, ids_data(name, ids, 2, T, B), T * B, limit, 0)


def orthonormalize(q):
    """Make the rows of q (n, H), n <= H, orthonormal in rising order. q OVERWRITTEN.

    Returns 0, or 1 + the number of the first row that depends on those before it.
    """
    cdef int kind = real_kind("q", q)
    cdef Py_ssize_t n = dim(q, 0), H = dim(q, 1), failed
    cdef void *q_ = data("q", q, kind, True, 2, n, H)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            failed = f32.orthonormalize(<float *>q_, n, H)
        else:
            failed = f64.orthonormalize(<double *>q_, n, H)
    return failed
