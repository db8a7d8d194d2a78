# SPDX-License-Identifier: MIT
"""Softmax, cross-entropy and sums."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, need_range, real_kind
from crnn._core.dispatch cimport f32, f64

cnp.import_array()


def softmax_cross_entropy(loss, dlogits, logits, targets, double scale, int32_t ignore, Py_ssize_t b0, Py_ssize_t b1):
    """loss = -log softmax(logits)[target] in nats, dlogits = scale * (softmax(logits) - onehot(target)).

    loss (T, B) OUT;  dlogits (T, B, V) OUT, may be logits, or None;  logits (T, B, V) IN;
    targets (T, B) IN, from 0 to V-1, or `ignore`: loss and gradient 0. Batch rows b0 .. b1.
    """
    cdef int kind = real_kind("logits", logits)
    cdef Py_ssize_t T = dim(logits, 0), B = dim(logits, 1), V = dim(logits, 2)
    cdef void *logits_ = data("logits", logits, kind, False, 3, T, B, V)
    cdef void *loss_ = data("loss", loss, kind, True, 2, T, B)
    cdef void *dlogits_ = NULL if dlogits is None else data("dlogits", dlogits, kind, True, 3, T, B, V)
    cdef int32_t *targets_ = ids_data("targets", targets, 2, T, B)
    need_range("b0, b1", b0, b1, B, 1)
    need_ids_below("targets", targets_, T * B, V, ignore)
    need_apart("loss", loss, "logits", logits)
    if dlogits is not None:
        need_apart("dlogits", dlogits, "logits", logits, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.softmax_cross_entropy(<float *>loss_, <float *>dlogits_, <float *>logits_, targets_, <float>scale, ignore,
                                      T, B, V, b0, b1)
        else:
            f64.softmax_cross_entropy(<double *>loss_, <double *>dlogits_, <double *>logits_, targets_, scale, ignore,
                                      T, B, V, b0, b1)


def softmax(p, logits):
    """p[m] = softmax(logits[m]).  p (M, V) OUT, may be logits;  logits (M, V) IN."""
    cdef int kind = real_kind("p", p)
    cdef Py_ssize_t M = dim(p, 0), V = dim(p, 1)
    cdef void *p_ = data("p", p, kind, True, 2, M, V)
    cdef void *logits_ = data("logits", logits, kind, False, 2, M, V)
    need_apart("p", p, "logits", logits, or_same=True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.softmax(<float *>p_, <float *>logits_, M, V)
        else:
            f64.softmax(<double *>p_, <double *>logits_, M, V)


def sum(x):
    """The sum of x (n,) IN, in double, in a fixed order."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    cdef double total
    with nogil:
        total = f32.sum(<float *>x_, n) if kind == cnp.NPY_FLOAT32 else f64.sum(<double *>x_, n)
    return total


def sum_of_squares(x):
    """The sum of the squares of x (n,) IN, in double, in a fixed order."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    cdef double total
    with nogil:
        total = f32.sum_of_squares(<float *>x_, n) if kind == cnp.NPY_FLOAT32 else f64.sum_of_squares(<double *>x_, n)
    return total
