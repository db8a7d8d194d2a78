# SPDX-License-Identifier: MIT
"""Clipping and update rules over flat buffers. The formulas stand in src_c/train/optim.body.h.

Arrays are pinned, because another thread may resize them while the GIL is released. Large ones are split into ranges,
one for each of ``threads`` threads; the bits do not depend on how many there are.

Every rule: w (n,) OUT;  its state arrays (n,) OUT;  g (n,) IN, the gradient, multiplied by ``factor`` as it is read.
Rates arrive as double and are rounded to the arrays' precision here, before any arithmetic.
"""

cimport numpy as cnp
from libc.string cimport memset
from crnn._core.arrays cimport data, dim, need_apart, pin, real_kind
from crnn._core.dispatch cimport f32, f64
from crnn._core.threads cimport range_call, run_ranges

import numpy as np

cnp.import_array()

cdef enum:
    UNIT = 64             # elements: whole cache lines
    LEAST = 1 << 20       # elements for each thread: arrays that the caches hold are faster in one than moved between two
    NORM_BLOCK = 1 << 19  # elements that are summed in one go: fixed, because it shows in the bits

NORM_ELEMENTS: int = NORM_BLOCK


cdef int in_ranges(range_call call, const void *arguments, Py_ssize_t n, Py_ssize_t threads) except -1:
    return run_ranges(call, arguments, n, UNIT, LEAST, threads)


cdef struct Values:
    int kind
    void *x
    void *y
    double number
    double *sums
    Py_ssize_t n


cdef void clear_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Values *>arguments
    cdef size_t size = sizeof(float) if a.kind == cnp.NPY_FLOAT32 else sizeof(double)
    memset(<char *>a.x + start * size, 0, (stop - start) * size)


cdef void scale_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Values *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.scale(<float *>a.x + start, <float>a.number, stop - start)
    else:
        f64.scale(<double *>a.x + start, a.number, stop - start)


cdef void clip_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Values *>arguments
    cdef int clipped
    if a.kind == cnp.NPY_FLOAT32:
        clipped = f32.clip(<float *>a.x + start, <float>a.number, stop - start)
    else:
        clipped = f64.clip(<double *>a.x + start, a.number, stop - start)
    a.sums[start // LEAST] = clipped  # a place of its own: all ranges but the last have at least so many elements


cdef void squares_of_blocks(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Values *>arguments
    cdef Py_ssize_t block, first, count
    for block in range(start, stop):
        first = block * NORM_BLOCK
        count = min(NORM_BLOCK, a.n - first)
        if a.kind == cnp.NPY_FLOAT32:
            a.sums[block] = (f32.sum_of_squares(<float *>a.x + first, count) if a.y == NULL else
                             f32.squared_distance(<float *>a.x + first, <float *>a.y + first, count))
        else:
            a.sums[block] = (f64.sum_of_squares(<double *>a.x + first, count) if a.y == NULL else
                             f64.squared_distance(<double *>a.x + first, <double *>a.y + first, count))


cdef int in_place(range_call call, x, double number, Py_ssize_t threads, double *sums=NULL) except -1:
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0)
    cdef Values arguments = Values(kind, data("x", x, kind, True, 1, n), NULL, number, sums, n)
    cdef object pins = pin(x)
    return in_ranges(call, &arguments, n, threads)


def clear(x: Real, Py_ssize_t threads=1):
    """x = 0.  x (n,) OUT."""
    in_place(clear_range, x, 0, threads)


def scale(x: Real, double factor, Py_ssize_t threads=1):
    """x *= factor.  x (n,) OUT."""
    in_place(scale_range, x, factor, threads)


def clip(x: Real, double limit, Py_ssize_t threads=1) -> bool:
    """x = min(max(x, -limit), limit); NaN stays.  x (n,) OUT. Returns whether a number was beyond the limit."""
    cdef double one = 0
    cdef cnp.ndarray flags
    if dim(x, 0) < 2 * LEAST:
        in_place(clip_range, x, limit, 1, &one)
        return one != 0
    flags = np.zeros(dim(x, 0) // LEAST + 1)
    in_place(clip_range, x, limit, threads, <double *>cnp.PyArray_DATA(flags))
    return bool(flags.any())


def sum_of_squares(x: Real, Py_ssize_t threads=1) -> float:
    """The sum of the squares of x (n,) IN, in double, in a fixed order: of blocks, and then of their sums."""
    return sum_of_blocks(x, None, threads)


def squared_distance(x: Real, y: Real, Py_ssize_t threads=1) -> float:
    """The sum of the squares of x - y, both (n,) IN, in double, in the order of `sum_of_squares`."""
    return sum_of_blocks(x, y, threads)


cdef double sum_of_blocks(x, y, Py_ssize_t threads) except? -1:
    """The sum of the squares of x, or of x - y unless y is None."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t n = dim(x, 0), blocks = max(1, (n + NORM_BLOCK - 1) // NORM_BLOCK)
    cdef double one, total = 0
    cdef void *y_ = NULL if y is None else data("y", y, kind, False, 1, n)
    cdef Values arguments = Values(kind, data("x", x, kind, False, 1, n), y_, 0, &one, n)
    cdef object pins = (pin(x), None if y is None else pin(y))
    cdef cnp.ndarray sums
    if blocks > 1:
        sums = np.empty(blocks, np.float64)
        arguments.sums = <double *>cnp.PyArray_DATA(sums)
    cdef Py_ssize_t block
    run_ranges(squares_of_blocks, &arguments, blocks, 1, LEAST // NORM_BLOCK, threads)
    for block in range(blocks):
        total += arguments.sums[block]
    return total


cdef struct SGD:
    int kind
    void *w
    void *velocity
    void *g
    double factor, lr, momentum, weight_decay
    bint nesterov


cdef void sgd_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const SGD *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.sgd(<float *>a.w + start, NULL if a.velocity == NULL else <float *>a.velocity + start,
                <float *>a.g + start, <float>a.factor, <float>a.lr, <float>a.momentum, <float>a.weight_decay,
                a.nesterov, stop - start)
    else:
        f64.sgd(<double *>a.w + start, NULL if a.velocity == NULL else <double *>a.velocity + start,
                <double *>a.g + start, a.factor, a.lr, a.momentum, a.weight_decay, a.nesterov, stop - start)


def sgd(w: Real, velocity: Real | None, g: Real, double factor, double lr, double momentum, double weight_decay,
        bint nesterov, Py_ssize_t threads=1):
    """Stochastic gradient descent; velocity (n,) OUT, or None where momentum is 0."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *velocity_ = NULL if momentum == 0 else data("velocity", velocity, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    cdef SGD arguments = SGD(kind, w_, velocity_, g_, factor, lr, momentum, weight_decay, nesterov)
    in_ranges(sgd_range, &arguments, n, threads)


cdef struct Adagrad:
    int kind
    void *w
    void *s
    void *g
    double factor, lr, eps, weight_decay


cdef void adagrad_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Adagrad *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.adagrad(<float *>a.w + start, <float *>a.s + start, <float *>a.g + start, <float>a.factor, <float>a.lr,
                    <float>a.eps, <float>a.weight_decay, stop - start)
    else:
        f64.adagrad(<double *>a.w + start, <double *>a.s + start, <double *>a.g + start, a.factor, a.lr, a.eps,
                    a.weight_decay, stop - start)


def adagrad(w: Real, square_sum: Real, g: Real, double factor, double lr, double eps, double weight_decay,
            Py_ssize_t threads=1):
    """Adagrad; square_sum (n,) OUT."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *s_ = data("square_sum", square_sum, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    cdef Adagrad arguments = Adagrad(kind, w_, s_, g_, factor, lr, eps, weight_decay)
    in_ranges(adagrad_range, &arguments, n, threads)


cdef struct RMSprop:
    int kind
    void *w
    void *s
    void *velocity
    void *g
    double factor, lr, alpha, eps, momentum, weight_decay


cdef void rmsprop_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const RMSprop *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.rmsprop(<float *>a.w + start, <float *>a.s + start,
                    NULL if a.velocity == NULL else <float *>a.velocity + start, <float *>a.g + start,
                    <float>a.factor, <float>a.lr, <float>a.alpha, <float>a.eps, <float>a.momentum,
                    <float>a.weight_decay, stop - start)
    else:
        f64.rmsprop(<double *>a.w + start, <double *>a.s + start,
                    NULL if a.velocity == NULL else <double *>a.velocity + start, <double *>a.g + start,
                    a.factor, a.lr, a.alpha, a.eps, a.momentum, a.weight_decay, stop - start)


def rmsprop(w: Real, square_avg: Real, velocity: Real | None, g: Real, double factor, double lr, double alpha,
            double eps, double momentum, double weight_decay, Py_ssize_t threads=1):
    """RMSprop; square_avg (n,) OUT; velocity (n,) OUT, or None where momentum is 0."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *s_ = data("square_avg", square_avg, kind, True, 1, n)
    cdef void *velocity_ = NULL if momentum == 0 else data("velocity", velocity, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    cdef RMSprop arguments = RMSprop(kind, w_, s_, velocity_, g_, factor, lr, alpha, eps, momentum, weight_decay)
    in_ranges(rmsprop_range, &arguments, n, threads)


cdef struct Adam:
    int kind
    void *w
    void *m
    void *v
    void *g
    double factor, step_size, beta1, beta2, root_correction, eps, weight_decay, decoupled_decay


cdef void adam_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Adam *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.adam(<float *>a.w + start, <float *>a.m + start, <float *>a.v + start, <float *>a.g + start,
                 <float>a.factor, <float>a.step_size, <float>a.beta1, <float>a.beta2, <float>a.root_correction,
                 <float>a.eps, <float>a.weight_decay, <float>a.decoupled_decay, stop - start)
    else:
        f64.adam(<double *>a.w + start, <double *>a.m + start, <double *>a.v + start, <double *>a.g + start,
                 a.factor, a.step_size, a.beta1, a.beta2, a.root_correction, a.eps, a.weight_decay,
                 a.decoupled_decay, stop - start)


def adam(w: Real, m: Real, v: Real, g: Real, double factor, double step_size, double beta1, double beta2,
         double root_correction, double eps, double weight_decay, double decoupled_decay, Py_ssize_t threads=1):
    """Adam and AdamW; m, v (n,) OUT."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *g_ = data("g", g, kind, False, 1, n)
    need_apart("w", w, "g", g)
    cdef void *m_ = data("m", m, kind, True, 1, n)
    cdef void *v_ = data("v", v, kind, True, 1, n)
    cdef object pins = (pin(w), pin(g))
    cdef Adam arguments = Adam(kind, w_, m_, v_, g_, factor, step_size, beta1, beta2, root_correction, eps,
                               weight_decay, decoupled_decay)
    in_ranges(adam_range, &arguments, n, threads)


cdef struct Pull:
    int kind
    void *w
    void *anchor
    void *factors
    double strength


cdef void pull_range(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    a = <const Pull *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.pull(<float *>a.w + start, <float *>a.anchor + start,
                 NULL if a.factors == NULL else <float *>a.factors + start, <float>a.strength, stop - start)
    else:
        f64.pull(<double *>a.w + start, <double *>a.anchor + start,
                 NULL if a.factors == NULL else <double *>a.factors + start, a.strength, stop - start)


def pull(w: Real, anchor: Real, factors: Real | None, double strength, Py_ssize_t threads=1):
    """w += min(1, strength * factors) * (anchor - w); anchor (n,) IN, factors (n,) IN, or None: ones."""
    cdef int kind = real_kind("w", w)
    cdef Py_ssize_t n = dim(w, 0)
    cdef void *w_ = data("w", w, kind, True, 1, n)
    cdef void *anchor_ = data("anchor", anchor, kind, False, 1, n)
    cdef void *factors_ = NULL if factors is None else data("factors", factors, kind, False, 1, n)
    need_apart("w", w, "anchor", anchor)
    if factors is not None:
        need_apart("w", w, "factors", factors)
    cdef object pins = (pin(w), pin(anchor), None if factors is None else pin(factors))
    cdef Pull arguments = Pull(kind, w_, anchor_, factors_, strength)
    in_ranges(pull_range, &arguments, n, threads)
