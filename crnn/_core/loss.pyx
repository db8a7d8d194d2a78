# SPDX-License-Identifier: MIT
"""Softmax, cross-entropy and sums."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, real_kind
from crnn._core.dispatch cimport crnn_rows, f32, f64
from crnn._core.rows cimport rows_of

cnp.import_array()


def softmax_cross_entropy(loss, dlogits, logits, targets, double scale, int32_t ignore, Py_ssize_t b0, Py_ssize_t b1,
                          lengths=None, weights=None, double smoothing=0.0):
    """loss = -log softmax(logits)[target] in nats, dlogits = scale * (softmax(logits) - onehot(target)).

    loss (T, B) OUT;  dlogits (T, B, V) OUT, may be logits, or None;  logits (T, B, V) IN;
    targets (T, B) IN, from 0 to V-1, or `ignore`: loss and gradient 0. Batch rows b0 .. b1; with `lengths` positions in
    their order, and beyond a sequence's end loss and gradient are 0.
    weights (V,) IN or None, one a class, and smoothing of the targets, from 0 to 1, are those of PyTorch.
    """
    cdef int kind = real_kind("logits", logits)
    cdef Py_ssize_t T = dim(logits, 0), B = dim(logits, 1), V = dim(logits, 2)
    cdef void *logits_ = data("logits", logits, kind, False, 3, T, B, V)
    cdef void *loss_ = data("loss", loss, kind, True, 2, T, B)
    cdef void *dlogits_ = NULL if dlogits is None else data("dlogits", dlogits, kind, True, 3, T, B, V)
    cdef int32_t *targets_ = ids_data("targets", targets, 2, T, B)
    cdef void *weights_ = NULL if weights is None else data("weights", weights, kind, False, 1, V)
    cdef crnn_rows rows = rows_of(T, B, b0, b1, lengths)
    need_ids_below("targets", targets_, T * B, V, ignore)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing: expected from 0 to 1, got {smoothing}")
    need_loss_apart(loss, "dlogits", dlogits, "logits", logits, [("targets", targets), ("weights", weights)])
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.softmax_cross_entropy(<float *>loss_, <float *>dlogits_, <float *>logits_, targets_, <float *>weights_,
                                      <float>smoothing, <float>scale, ignore, V, &rows)
        else:
            f64.softmax_cross_entropy(<double *>loss_, <double *>dlogits_, <double *>logits_, targets_,
                                      <double *>weights_, smoothing, scale, ignore, V, &rows)


cdef int need_loss_apart(loss, str gradient_name, gradient, str input_name, input_, list others) except -1:
    """A loss overlaps nothing, its gradient at most the input that it is the gradient of."""
    need_apart("loss", loss, input_name, input_)
    if gradient is not None:
        need_apart("loss", loss, gradient_name, gradient)
        need_apart(gradient_name, gradient, input_name, input_, or_same=True)
    for name, array in others:
        if array is not None:
            need_apart("loss", loss, name, array)
            if gradient is not None:
                need_apart(gradient_name, gradient, name, array)
    return 0


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
