# SPDX-License-Identifier: MIT
"""exp, tanh, sigmoid and log1p of whole arrays, the same bits on every CPU."""

cimport numpy as cnp
from crnn._core.arrays cimport data, dim, need_apart, real_kind
from crnn._core.dispatch cimport f32, f64

cnp.import_array()


def exp(y, x):
    """y = e**x.  y (n,) OUT, may be x;  x (n,) IN. At most 2 ulp; results below the normal range are 0."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t n = dim(y, 0)
    cdef void *y_ = data("y", y, kind, True, 1, n)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    need_apart("y", y, "x", x, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.exp(<float *>y_, <float *>x_, n)
        else:
            f64.exp(<double *>y_, <double *>x_, n)


def tanh(y, x):
    """y = tanh(x).  y (n,) OUT, may be x;  x (n,) IN. At most 2 ulp, monotone."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t n = dim(y, 0)
    cdef void *y_ = data("y", y, kind, True, 1, n)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    need_apart("y", y, "x", x, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.tanh(<float *>y_, <float *>x_, n)
        else:
            f64.tanh(<double *>y_, <double *>x_, n)


def sigmoid(y, x):
    """y = 1 / (1 + e**-x).  y (n,) OUT, may be x;  x (n,) IN. At most 2 ulp, monotone."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t n = dim(y, 0)
    cdef void *y_ = data("y", y, kind, True, 1, n)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    need_apart("y", y, "x", x, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.sigmoid(<float *>y_, <float *>x_, n)
        else:
            f64.sigmoid(<double *>y_, <double *>x_, n)


def log1p(y, x):
    """y = log(1 + x).  y (n,) OUT, may be x;  x (n,) IN, from 0 to 1: nobody looks. At most 2 ulp, monotone."""
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t n = dim(y, 0)
    cdef void *y_ = data("y", y, kind, True, 1, n)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    need_apart("y", y, "x", x, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.log1p(<float *>y_, <float *>x_, n)
        else:
            f64.log1p(<double *>y_, <double *>x_, n)
