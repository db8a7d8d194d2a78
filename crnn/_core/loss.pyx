# SPDX-License-Identifier: MIT
"""Softmax, losses with their gradients, and sums."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, pin, real_kind
from crnn._core.dispatch cimport f32, f64
from crnn._core.header cimport crnn_rows
from crnn._core.program cimport perform
from crnn._core.rows cimport Lengths, rows_of

import numpy as np

cdef extern from "crnn.h":
    enum:
        CRNN_SQUARED
        CRNN_ABSOLUTE
        CRNN_HUBER
        CRNN_QUANTILE

cnp.import_array()

SQUARED, ABSOLUTE, HUBER, QUANTILE = CRNN_SQUARED, CRNN_ABSOLUTE, CRNN_HUBER, CRNN_QUANTILE


cdef struct LossCall:
    int kind        # of the arrays
    int loss_kind   # of a regression
    void *loss
    void *gradient
    const void *inputs
    const void *targets
    const void *weights  # or parameters
    double smoothing, scale
    int32_t ignore
    Py_ssize_t P, N
    crnn_rows rows


cdef void softmax_call(const void *arguments) noexcept nogil:
    a = <const LossCall *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.softmax_cross_entropy(<float *>a.loss, <float *>a.gradient, <const float *>a.inputs,
                                  <const int32_t *>a.targets, <const float *>a.weights, <float>a.smoothing,
                                  <float>a.scale, a.ignore, a.N, &a.rows)
    else:
        f64.softmax_cross_entropy(<double *>a.loss, <double *>a.gradient, <const double *>a.inputs,
                                  <const int32_t *>a.targets, <const double *>a.weights, a.smoothing, a.scale, a.ignore,
                                  a.N, &a.rows)


cdef void sigmoid_call(const void *arguments) noexcept nogil:
    a = <const LossCall *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.sigmoid_cross_entropy(<float *>a.loss, <float *>a.gradient, <const float *>a.inputs,
                                  <const float *>a.targets, <const float *>a.weights, <float>a.scale, a.N, &a.rows)
    else:
        f64.sigmoid_cross_entropy(<double *>a.loss, <double *>a.gradient, <const double *>a.inputs,
                                  <const double *>a.targets, <const double *>a.weights, a.scale, a.N, &a.rows)


cdef void regression_call(const void *arguments) noexcept nogil:
    a = <const LossCall *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.regression_loss(<float *>a.loss, <float *>a.gradient, <const float *>a.inputs, <const float *>a.targets,
                            a.loss_kind, <const float *>a.weights, a.P, <float>a.scale, a.N, &a.rows)
    else:
        f64.regression_loss(<double *>a.loss, <double *>a.gradient, <const double *>a.inputs, <const double *>a.targets,
                            a.loss_kind, <const double *>a.weights, a.P, a.scale, a.N, &a.rows)


def softmax_cross_entropy(loss: Real, dlogits: Real | None, logits: Real, targets: Ids, double scale, int32_t ignore,
                          Py_ssize_t b0, Py_ssize_t b1, lengths: Lengths | None = None,
                          weights: Real | None = None, double smoothing=0.0):
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
    cdef LossCall arguments = LossCall(kind, 0, loss_, dlogits_, logits_, targets_, weights_, smoothing, scale, ignore, 1,
                                       V, rows)
    perform(softmax_call, &arguments, sizeof(arguments))


def sigmoid_cross_entropy(loss: Real, dlogits: Real | None, logits: Real, targets: Real, double scale, Py_ssize_t b0,
                          Py_ssize_t b1, lengths: Lengths | None = None, pos_weights: Real | None = None):
    """loss = the sum over V yes-or-no questions of -log(probability of the answer), the probability of a yes being
    sigmoid(logits); dlogits = scale * (sigmoid(logits) - targets).

    loss (T, B) OUT;  dlogits (T, B, V) OUT, may be logits, or None;  logits (T, B, V) IN;
    targets (T, B, V) IN, from 0 (no) to 1 (yes), or NaN, no answer: loss and gradient 0;
    pos_weights (V,) IN or None: what a yes weighs, as PyTorch's pos_weight. Rows as in softmax_cross_entropy.
    """
    cdef int kind = real_kind("logits", logits)
    cdef Py_ssize_t T = dim(logits, 0), B = dim(logits, 1), V = dim(logits, 2)
    cdef void *logits_ = data("logits", logits, kind, False, 3, T, B, V)
    cdef void *loss_ = data("loss", loss, kind, True, 2, T, B)
    cdef void *dlogits_ = NULL if dlogits is None else data("dlogits", dlogits, kind, True, 3, T, B, V)
    cdef void *targets_ = data("targets", targets, kind, False, 3, T, B, V)
    cdef void *weights_ = NULL if pos_weights is None else data("pos_weights", pos_weights, kind, False, 1, V)
    cdef crnn_rows rows = rows_of(T, B, b0, b1, lengths)
    need_loss_apart(loss, "dlogits", dlogits, "logits", logits, [("targets", targets), ("pos_weights", pos_weights)])
    cdef LossCall arguments = LossCall(kind, 0, loss_, dlogits_, logits_, targets_, weights_, 0, scale, 0, 1, V, rows)
    perform(sigmoid_call, &arguments, sizeof(arguments))


def regression_loss(loss: Real, dy: Real | None, y: Real, targets: Real, int kind, parameters: Real | None,
                    double scale, Py_ssize_t b0, Py_ssize_t b1, lengths: Lengths | None = None):
    """loss = the sum over a row of what `kind` makes of the errors y - targets; dy = scale * its slope.

    loss (T, B) OUT;  dy (T, B, P*N) OUT, may be y, or None;  y (T, B, P*N) IN;  targets (T, B, N) IN, NaN where
    missing: loss and gradient 0. SQUARED e**2, ABSOLUTE |e|: parameters None, P is 1. HUBER: parameters (P,) IN are
    deltas > 0 and QUANTILE: levels between 0 and 1, one for each block of N columns of y. Rows as in
    softmax_cross_entropy.
    """
    cdef int real = real_kind("y", y)
    cdef Py_ssize_t T = dim(targets, 0), B = dim(targets, 1), N = dim(targets, 2), P = 1
    cdef void *parameters_ = NULL
    if not CRNN_SQUARED <= kind <= CRNN_QUANTILE:
        raise ValueError(f"kind: expected SQUARED (0), ABSOLUTE (1), HUBER (2) or QUANTILE (3), got {kind}")
    if kind == CRNN_HUBER or kind == CRNN_QUANTILE:
        P = dim(parameters, 0)
        parameters_ = data("parameters", parameters, real, False, 1, P)
        if not (P and (parameters > 0).all() and (kind == CRNN_HUBER or (parameters < 1).all())):
            raise ValueError(f"parameters: expected {'deltas > 0' if kind == CRNN_HUBER else 'levels between 0 and 1'}, "
                             f"got {parameters.tolist()}")
    elif parameters is not None:
        raise ValueError("parameters: expected None, since only HUBER and QUANTILE have any")
    cdef void *targets_ = data("targets", targets, real, False, 3, T, B, N)
    cdef void *y_ = data("y", y, real, False, 3, T, B, P * N)
    cdef void *loss_ = data("loss", loss, real, True, 2, T, B)
    cdef void *dy_ = NULL if dy is None else data("dy", dy, real, True, 3, T, B, P * N)
    cdef crnn_rows rows = rows_of(T, B, b0, b1, lengths)
    need_loss_apart(loss, "dy", dy, "y", y, [("targets", targets), ("parameters", parameters)])
    cdef LossCall arguments = LossCall(real, kind, loss_, dy_, y_, targets_, parameters_, 0, scale, 0, P, N, rows)
    perform(regression_call, &arguments, sizeof(arguments))


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


def softmax(p: Real, logits: Real):
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


def log_softmax(y: Real, Py_ssize_t first, logits: Real, starts: Real | None = None, Py_ssize_t column=0):
    """y[m, first + v] = log softmax(logits[m])[v] + starts[m, column].

    y (M, N) OUT, in the columns first .. first + V - 1; may be logits if N is V;  logits (M, V) IN;
    starts (M, S) IN, or None: zeros.
    """
    cdef int kind = real_kind("y", y)
    cdef Py_ssize_t M = dim(y, 0), N = dim(y, 1), V = dim(logits, 1), S = 0
    cdef char *y_ = <char *>data("y", y, kind, True, 2, M, N)
    cdef void *logits_ = data("logits", logits, kind, False, 2, M, V)
    cdef char *starts_ = NULL
    need_apart("y", y, "logits", logits, or_same=True)
    if V > N:
        raise ValueError(f"logits: expected shape (M, {N}) or fewer columns, those of y, got shape ({M}, {V})")
    if not 0 <= first <= N - V:
        raise ValueError(f"first: expected 0..{N - V}, for {V} of {N} columns, got {first}")
    if starts is not None:
        S = dim(starts, 1)
        starts_ = <char *>data("starts", starts, kind, False, 2, M, S)
        need_apart("y", y, "starts", starts)
        if not 0 <= column < S:
            raise ValueError(f"column: expected 0..{S - 1}, got {column}")
    cdef Py_ssize_t size = 4 if kind == cnp.NPY_FLOAT32 else 8
    y_ += first * size
    starts_ = NULL if starts_ == NULL else starts_ + column * size
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.log_softmax(<float *>y_, N, <float *>logits_, <float *>starts_, S, M, V)
        else:
            f64.log_softmax(<double *>y_, N, <double *>logits_, <double *>starts_, S, M, V)


def sum(x: Real) -> float:
    """The sum of x (n,) IN, in double, in a fixed order."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    cdef double total
    with nogil:
        total = f32.sum(<float *>x_, n) if kind == cnp.NPY_FLOAT32 else f64.sum(<double *>x_, n)
    return total


def sum_of_squares(x: Real) -> float:
    """The sum of the squares of x (n,) IN, in double, in a fixed order."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef void *x_ = data("x", x, kind, False, 1, n)
    cdef double total
    cdef object pinned = pin(x)
    with nogil:
        total = f32.sum_of_squares(<float *>x_, n) if kind == cnp.NPY_FLOAT32 else f64.sum_of_squares(<double *>x_, n)
    return total


def all_finite(x: Real) -> bool:
    """Whether none of x, of any shape and layout, is NaN or infinite. Keeps the GIL, so that no thread can resize x
    meanwhile."""
    cdef int kind = real_kind("x", x), finite
    cdef void *x_ = cnp.PyArray_DATA(<cnp.ndarray>x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>x)
    if not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x):
        return bool(np.isfinite(x).all())
    finite = f32.all_finite(<float *>x_, n) if kind == cnp.NPY_FLOAT32 else f64.all_finite(<double *>x_, n)
    return finite == 1


def column_sums(sums: Doubles, counts: Doubles, x: Real):
    """sums += the sums of x's columns, counts += how many numbers those are, NaN left out.

    sums, counts (N,) ACCUMULATED, float64;  x (M, N) IN.
    """
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t M = dim(x, 0), N = dim(x, 1)
    cdef void *x_ = data("x", x, kind, False, 2, M, N)
    cdef double *sums_ = <double *>data("sums", sums, cnp.NPY_FLOAT64, True, 1, N)
    cdef double *counts_ = <double *>data("counts", counts, cnp.NPY_FLOAT64, True, 1, N)
    need_apart("sums", sums, "counts", counts)
    need_apart("sums", sums, "x", x)
    need_apart("counts", counts, "x", x)
    cdef object pinned = pin(x)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.column_sums(sums_, counts_, <float *>x_, M, N)
        else:
            f64.column_sums(sums_, counts_, <double *>x_, M, N)


def column_squares(squares: Doubles, x: Real, means: Doubles):
    """squares += the sums of (x - means)**2 over x's columns, NaN left out.

    squares (N,) ACCUMULATED, float64;  x (M, N) IN;  means (N,) IN, float64.
    """
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t M = dim(x, 0), N = dim(x, 1)
    cdef void *x_ = data("x", x, kind, False, 2, M, N)
    cdef double *squares_ = <double *>data("squares", squares, cnp.NPY_FLOAT64, True, 1, N)
    cdef double *means_ = <double *>data("means", means, cnp.NPY_FLOAT64, False, 1, N)
    need_apart("squares", squares, "x", x)
    need_apart("squares", squares, "means", means)
    cdef object pinned = pin(x)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.column_squares(squares_, <float *>x_, means_, M, N)
        else:
            f64.column_squares(squares_, <double *>x_, means_, M, N)
