# SPDX-License-Identifier: MIT
"""exp, tanh, sigmoid and log1p of whole arrays, and orthonormal rows, the same bits on every CPU."""

cimport numpy as cnp
from crnn._core.arrays cimport data, dim, need_apart, real_kind
from crnn._core.dispatch cimport f32, f64
from crnn._core.header cimport crnn_dim

cnp.import_array()


ctypedef void (*map_f32)(float *y, const float *x, crnn_dim n) noexcept nogil
ctypedef void (*map_f64)(double *y, const double *x, crnn_dim n) noexcept nogil


def exp(y: Real, x: Real):
    """y = e**x.  y (n,) OUT, may be x;  x (n,) IN. At most 2 ulp; results below the normal range are 0."""
    map_array(y, x, f32.exp_array, f64.exp_array)


def tanh(y: Real, x: Real):
    """y = tanh(x).  y (n,) OUT, may be x;  x (n,) IN. At most 2 ulp, monotone."""
    map_array(y, x, f32.tanh_array, f64.tanh_array)


def sigmoid(y: Real, x: Real):
    """y = 1 / (1 + e**-x).  y (n,) OUT, may be x;  x (n,) IN. At most 2 ulp, monotone."""
    map_array(y, x, f32.sigmoid_array, f64.sigmoid_array)


def log1p(y: Real, x: Real):
    """y = log(1 + x).  y (n,) OUT, may be x;  x (n,) IN, must be in [0, 1]; not checked. At most 2 ulp, monotone."""
    map_array(y, x, f32.log1p_array, f64.log1p_array)


cdef int map_array(y, x, map_f32 single, map_f64 double_) except -1:
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t n = dim(y, 0)
    cdef void *y_ = data("y", y, kind, True, 1, n)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    need_apart("y", y, "x", x, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            single(<float *>y_, <float *>x_, n)
        else:
            double_(<double *>y_, <double *>x_, n)
    return 0


def orthonormalize(q: Real) -> int:
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
