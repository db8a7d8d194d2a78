# SPDX-License-Identifier: MIT
"""Pooling over time: one vector per sequence from the vectors of its steps.

Batch rows b0 .. b1; with `lengths` positions in their order, and steps beyond the end of a sequence are ignored.
"""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, real_kind
from crnn._core.dispatch cimport f32, f64
from crnn._core.header cimport crnn_rows
from crnn._core.program cimport perform
from crnn._core.rows cimport Lengths, rows_of

cnp.import_array()


cdef struct Pool:
    int kind
    void *to            # out, or dh
    const void *values  # h, or dout
    int32_t *which
    Py_ssize_t H
    crnn_rows rows


cdef void mean_forward_call(const void *arguments) noexcept nogil:
    a = <const Pool *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.pool_mean_forward(<float *>a.to, <const float *>a.values, a.H, &a.rows)
    else:
        f64.pool_mean_forward(<double *>a.to, <const double *>a.values, a.H, &a.rows)


cdef void mean_backward_call(const void *arguments) noexcept nogil:
    a = <const Pool *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.pool_mean_backward(<float *>a.to, <const float *>a.values, a.H, &a.rows)
    else:
        f64.pool_mean_backward(<double *>a.to, <const double *>a.values, a.H, &a.rows)


cdef void max_forward_call(const void *arguments) noexcept nogil:
    a = <const Pool *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.pool_max_forward(<float *>a.to, a.which, <const float *>a.values, a.H, &a.rows)
    else:
        f64.pool_max_forward(<double *>a.to, a.which, <const double *>a.values, a.H, &a.rows)


cdef void max_backward_call(const void *arguments) noexcept nogil:
    a = <const Pool *>arguments
    if a.kind == cnp.NPY_FLOAT32:
        f32.pool_max_backward(<float *>a.to, <const float *>a.values, a.which, a.H, &a.rows)
    else:
        f64.pool_max_backward(<double *>a.to, <const double *>a.values, a.which, a.H, &a.rows)


def pool_mean_forward(out: Real, h: Real, Py_ssize_t b0, Py_ssize_t b1, lengths: Lengths | None = None):
    """out[b] = the mean of h[t, b] over the steps.  out (B, H) OUT;  h (T, B, H) IN."""
    cdef int kind = real_kind("out", out)
    cdef Py_ssize_t T = dim(h, 0), B = dim(out, 0), H = dim(out, 1)
    cdef void *out_ = data("out", out, kind, True, 2, B, H)
    cdef void *h_ = data("h", h, kind, False, 3, -1, held(B, lengths), H)
    cdef crnn_rows rows = rows_of(T, dim(h, 1), b0, b1, lengths)
    need_batch("out", B, rows.B)
    need_steps("h", T)
    need_apart("out", out, "h", h)
    cdef Pool arguments = Pool(kind, out_, h_, NULL, H, rows)
    perform(mean_forward_call, &arguments, sizeof(arguments))


def pool_mean_backward(dh: Real, dout: Real, Py_ssize_t b0, Py_ssize_t b1, lengths: Lengths | None = None):
    """dh[t, b] = dout[b] / the number of steps, 0 beyond the last.  dh (T, B, H) OUT;  dout (B, H) IN."""
    cdef int kind = real_kind("dh", dh)
    cdef Py_ssize_t H = dim(dh, 2)
    cdef void *dh_ = data("dh", dh, kind, True, 3, -1, -1, H)
    cdef crnn_rows rows = rows_of(dim(dh, 0), dim(dh, 1), b0, b1, lengths)
    cdef Py_ssize_t B = rows.B
    cdef void *dout_ = data("dout", dout, kind, False, 2, B, H)
    need_apart("dh", dh, "dout", dout)
    cdef Pool arguments = Pool(kind, dh_, dout_, NULL, H, rows)
    perform(mean_backward_call, &arguments, sizeof(arguments))


def pool_max_forward(out: Real, which: Ids, h: Real, Py_ssize_t b0, Py_ssize_t b1,
                     lengths: Lengths | None = None):
    """out[b, j] = the largest h[t, b, j], and which[b, j] the first t that has it. NaN is larger than any number.

    out (B, H) OUT;  which (B, H) OUT, int32;  h (T, B, H) IN.
    """
    cdef int kind = real_kind("out", out)
    cdef Py_ssize_t T = dim(h, 0), B = dim(out, 0), H = dim(out, 1)
    cdef void *out_ = data("out", out, kind, True, 2, B, H)
    cdef int32_t *which_ = <int32_t *>data("which", which, cnp.NPY_INT32, True, 2, B, H)
    cdef void *h_ = data("h", h, kind, False, 3, -1, held(B, lengths), H)
    cdef crnn_rows rows = rows_of(T, dim(h, 1), b0, b1, lengths)
    need_batch("out", B, rows.B)
    need_steps("h", T)
    need_apart("out", out, "h", h)
    need_apart("out", out, "which", which)
    need_apart("which", which, "h", h)
    cdef Pool arguments = Pool(kind, out_, h_, which_, H, rows)
    perform(max_forward_call, &arguments, sizeof(arguments))


def pool_max_backward(dh: Real, dout: Real, which: Ids, Py_ssize_t b0, Py_ssize_t b1,
                      lengths: Lengths | None = None):
    """dh[t, b, j] = dout[b, j] where t is which[b, j], and 0 elsewhere.

    dh (T, B, H) OUT;  dout (B, H) IN;  which (B, H) IN, int32, as pool_max_forward wrote it.
    """
    cdef int kind = real_kind("dh", dh)
    cdef Py_ssize_t H = dim(dh, 2)
    cdef void *dh_ = data("dh", dh, kind, True, 3, -1, -1, H)
    cdef crnn_rows rows = rows_of(dim(dh, 0), dim(dh, 1), b0, b1, lengths)
    cdef Py_ssize_t B = rows.B
    cdef void *dout_ = data("dout", dout, kind, False, 2, B, H)
    cdef int32_t *which_ = ids_data("which", which, 2, B, H)
    need_apart("dh", dh, "dout", dout)
    need_apart("dh", dh, "which", which)
    cdef Pool arguments = Pool(kind, dh_, dout_, which_, H, rows)
    perform(max_backward_call, &arguments, sizeof(arguments))


def pool_mean_step(out: Real, sum: Real, h: Real, double factor):
    """sum += h;  out = sum * factor.  out (H,) OUT, may be h;  sum (H,) ACCUMULATED;  h (H,) IN."""
    cdef int kind = real_kind("out", out)
    cdef Py_ssize_t H = dim(out, 0)
    cdef void *out_ = data("out", out, kind, True, 1, H)
    cdef void *sum_ = data("sum", sum, kind, True, 1, H)
    cdef void *h_ = data("h", h, kind, False, 1, H)
    need_apart("out", out, "sum", sum)
    need_apart("sum", sum, "h", h)
    need_apart("out", out, "h", h, True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.pool_mean_step(<float *>out_, <float *>sum_, <float *>h_, <float>factor, H)
        else:
            f64.pool_mean_step(<double *>out_, <double *>sum_, <double *>h_, factor, H)


def pool_max_step(out: Real, best: Real, h: Real):
    """best = max(best, h);  out = best.  out (H,) OUT, may be h;  best (H,) OUT;  h (H,) IN."""
    cdef int kind = real_kind("out", out)
    cdef Py_ssize_t H = dim(out, 0)
    cdef void *out_ = data("out", out, kind, True, 1, H)
    cdef void *best_ = data("best", best, kind, True, 1, H)
    cdef void *h_ = data("h", h, kind, False, 1, H)
    need_apart("out", out, "best", best)
    need_apart("best", best, "h", h)
    need_apart("out", out, "h", h, True)
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.pool_max_step(<float *>out_, <float *>best_, <float *>h_, H)
        else:
            f64.pool_max_step(<double *>out_, <double *>best_, <double *>h_, H)


cdef Py_ssize_t held(Py_ssize_t B, Lengths lengths) noexcept:
    """The second axis of an array (T, B, H): any, if it is packed."""
    return -1 if lengths is not None and lengths.packed else B


cdef int need_batch(str name, Py_ssize_t got, Py_ssize_t B) except -1:
    if got != B:
        raise ValueError(f"{name}: expected {B} rows, one for each sequence, got {got}")
    return 0


cdef int need_steps(str name, Py_ssize_t T) except -1:
    if T < 1:
        raise ValueError(f"{name}: expected at least one time step, got {T}")
    return 0
