# SPDX-License-Identifier: MIT
"""Clipping and update rules over flat buffers. The formulas stand in src_c/train/optim.body.h.

Arrays are pinned, because another thread may resize them while the GIL is released.

Every rule: w (n,) OUT;  its state arrays (n,) OUT;  g (n,) IN, the gradient, multiplied by ``factor`` as it is read.
Rates arrive as double and are rounded to the arrays' precision here, before any arithmetic.
"""

cimport numpy as cnp
from crnn._core.arrays cimport data, dim, need_apart, pin, real_kind
from crnn._core.dispatch cimport f32, f64

cnp.import_array()


def scale(x: Real, double factor):
    """x *= factor.  x (n,) OUT."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef void *x_ = data("x", x, kind, True, 1, n)
    cdef object pins = pin(x)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.scale(<float *>x_, <float>factor, n)
        else:
            f64.scale(<double *>x_, factor, n)


def clip(x: Real, double limit):
    """x = min(max(x, -limit), limit); NaN stays.  x (n,) OUT."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef void *x_ = data("x", x, kind, True, 1, n)
    cdef object pins = pin(x)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.clip(<float *>x_, <float>limit, n)
        else:
            f64.clip(<double *>x_, limit, n)


def sgd(w: Real, velocity: Real | None, g: Real, double factor, double lr, double momentum, double weight_decay,
        bint nesterov):
    """Stochastic gradient descent; velocity (n,) OUT, or None where momentum is 0."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *velocity_ = NULL if momentum == 0 else data("velocity", velocity, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.sgd(<float *>w_, <float *>velocity_, <float *>g_, <float>factor, <float>lr, <float>momentum,
                    <float>weight_decay, nesterov, n)
        else:
            f64.sgd(<double *>w_, <double *>velocity_, <double *>g_, factor, lr, momentum, weight_decay, nesterov, n)


def adagrad(w: Real, square_sum: Real, g: Real, double factor, double lr, double eps, double weight_decay):
    """Adagrad; square_sum (n,) OUT."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *s_ = data("square_sum", square_sum, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.adagrad(<float *>w_, <float *>s_, <float *>g_, <float>factor, <float>lr, <float>eps,
                        <float>weight_decay, n)
        else:
            f64.adagrad(<double *>w_, <double *>s_, <double *>g_, factor, lr, eps, weight_decay, n)


def rmsprop(w: Real, square_avg: Real, velocity: Real | None, g: Real, double factor, double lr, double alpha,
            double eps, double momentum, double weight_decay):
    """RMSprop; square_avg (n,) OUT; velocity (n,) OUT, or None where momentum is 0."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *s_ = data("square_avg", square_avg, kind, True, 1, n)
    cdef void *velocity_ = NULL if momentum == 0 else data("velocity", velocity, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.rmsprop(<float *>w_, <float *>s_, <float *>velocity_, <float *>g_, <float>factor, <float>lr,
                        <float>alpha, <float>eps, <float>momentum, <float>weight_decay, n)
        else:
            f64.rmsprop(<double *>w_, <double *>s_, <double *>velocity_, <double *>g_, factor, lr, alpha, eps,
                        momentum, weight_decay, n)


def adam(w: Real, m: Real, v: Real, g: Real, double factor, double step_size, double beta1, double beta2,
         double root_correction, double eps, double weight_decay, double decoupled_decay):
    """Adam and AdamW; m, v (n,) OUT."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *m_ = data("m", m, kind, True, 1, n)
    cdef void *v_ = data("v", v, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.adam(<float *>w_, <float *>m_, <float *>v_, <float *>g_, <float>factor, <float>step_size,
                     <float>beta1, <float>beta2, <float>root_correction, <float>eps, <float>weight_decay,
                     <float>decoupled_decay, n)
        else:
            f64.adam(<double *>w_, <double *>m_, <double *>v_, <double *>g_, factor, step_size, beta1, beta2,
                     root_correction, eps, weight_decay, decoupled_decay, n)
