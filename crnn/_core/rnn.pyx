# SPDX-License-Identifier: MIT
"""The plain recurrent cell, tanh or ReLU, through time, for the batch rows b0 .. b1."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, ids_data, need_apart, need_ids_below, need_range, real_kind
from crnn._core.dispatch cimport CRNN_RELU, CRNN_TANH, f32, f64
from crnn._core.gemm cimport Packed, packed_data

cnp.import_array()

TANH, RELU = CRNN_TANH, CRNN_RELU


cdef int need_activation(int act) except -1:
    if act != CRNN_TANH and act != CRNN_RELU:
        raise ValueError(f"act: expected TANH ({CRNN_TANH}) or RELU ({CRNN_RELU}), got {act}")
    return 0


def rnn_forward(h, xw, ids, h0, Packed w_hh not None, int act, Py_ssize_t b0, Py_ssize_t b1):
    """h[t] = act( xw[t] + h[t-1] @ W_hh ), with h[-1] = h0.

    h (T, B, H) OUT;  h0 (B, H) IN;  w_hh packed (H, H).
    ids None: xw (T, B, H) IN, may be h.  ids (T, B) IN: row ids[t, b] of the table xw (V, H) IN.
    """
    cdef int kind = real_kind("h", h)
    cdef Py_ssize_t T = dim(h, 0), B = dim(h, 1), H = dim(h, 2), V = dim(xw, 0)
    cdef void *h_ = data("h", h, kind, True, 3, T, B, H)
    cdef void *h0_ = data("h0", h0, kind, False, 2, B, H)
    cdef void *w_ = packed_data("w_hh", w_hh, kind, H, H)
    cdef int32_t *ids_ = NULL
    cdef void *xw_
    if ids is None:
        xw_ = data("xw", xw, kind, False, 3, T, B, H)
        if xw_ != h_:
            need_apart("h", h, "xw", xw)
    else:
        xw_ = data("xw", xw, kind, False, 2, V, H)
        ids_ = ids_data("ids", ids, 2, T, B)
        need_ids_below("ids", ids_, T * B, V, 0)
        need_apart("h", h, "xw", xw)
    need_apart("h", h, "h0", h0)
    need_range("b0, b1", b0, b1, B, 1)
    need_activation(act)
    if b0 == b1:
        return
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.rnn_forward(<float *>h_, <float *>xw_, ids_, <float *>h0_, <float *>w_, act, T, B, H, b0, b1)
        else:
            f64.rnn_forward(<double *>h_, <double *>xw_, ids_, <double *>h0_, <double *>w_, act, T, B, H, b0, b1)


def rnn_backward(da, dh0, h, Packed w_hh_t not None, int act, Py_ssize_t b0, Py_ssize_t b1):
    """da[t] = ( dh[t] + da[t+1] @ W_hh.T ) * act'(h[t]),  dh0 = da[0] @ W_hh.T.

    da (T, B, H) OUT, holds dh when called;  dh0 (B, H) OUT;  h (T, B, H) IN;  w_hh_t is W_hh.T packed (H, H).
    """
    cdef int kind = real_kind("da", da)
    cdef Py_ssize_t T = dim(da, 0), B = dim(da, 1), H = dim(da, 2)
    cdef void *da_ = data("da", da, kind, True, 3, T, B, H)
    cdef void *dh0_ = data("dh0", dh0, kind, True, 2, B, H)
    cdef void *h_ = data("h", h, kind, False, 3, T, B, H)
    cdef void *w_ = packed_data("w_hh_t", w_hh_t, kind, H, H)
    need_apart("da", da, "h", h)
    need_apart("dh0", dh0, "da", da)
    need_range("b0, b1", b0, b1, B, 1)
    need_activation(act)
    if b0 == b1:
        return
    if T == 0:
        raise ValueError("da: expected at least one time step, got 0")
    with nogil:
        if kind == cnp.NPY_FLOAT32:
            f32.rnn_backward(<float *>da_, <float *>dh0_, <float *>h_, <float *>w_, act, T, B, H, b0, b1)
        else:
            f64.rnn_backward(<double *>da_, <double *>dh0_, <double *>h_, <double *>w_, act, T, B, H, b0, b1)
