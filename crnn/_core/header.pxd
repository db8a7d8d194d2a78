# SPDX-License-Identifier: MIT
"""The types of src_c/crnn.h as Cython sees them. The tables of kernels stand in kernels.pxd, which setup.py makes."""

from libc.stdint cimport int32_t

cdef extern from "crnn.h" nogil:
    ctypedef Py_ssize_t crnn_dim
    enum:
        CRNN_LINE_BYTES
        CRNN_CELL_VECTORS
        CRNN_USES_GATES
        CRNN_USES_TANH_C
        CRNN_USES_HN
        CRNN_USES_DA_H
        CRNN_USES_DHN
        CRNN_USES_DVECTORS
        CRNN_USES_SCALES
        CRNN_GRAD_ROWS
        CRNN_GRAD_PANELS
        CRNN_QUANTISED_ROWS

    ctypedef struct crnn_rows:
        crnn_dim T, B, b0, b1
        const int32_t *order
        const int32_t *lengths
        const crnn_dim *starts
        const int32_t *places

    ctypedef struct crnn_quantised:
        pass

    ctypedef struct crnn_layer:
        crnn_rows rows
        crnn_dim H
        int reverse
        const void *xw
        const int32_t *ids
        const void *h0
        const void *c0
        const void *w_hh
        const void *w_hn
        const crnn_quantised *quantised
        void *scratch
        const void *vectors[8]  # CRNN_CELL_VECTORS
        const void *mask
        const void *h0_masked
        void *h
        void *gates
        void *c
        void *tanh_c
        void *hn
        void *scales
        void *h_masked
        const void *w_hh_t
        const void *w_hn_t
        void *dh
        void *da
        void *da_h
        void *dh0
        void *dc
        void *dvectors[8]
        void *dhn
        void *dnormal
        void *dh_masked

    ctypedef struct crnn_cell:
        const char *name
        int gates
        const char *gate_names
        int candidate, has_c, recurrent_gates, packed_gates
        unsigned arrays
        const char *vectors[9]
        void (*forward)(const crnn_layer *layer) noexcept nogil
        void (*backward)(const crnn_layer *layer) noexcept nogil
