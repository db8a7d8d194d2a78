# SPDX-License-Identifier: MIT
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "text/range_coder.h" nogil:
    enum:
        CRNN_MOST_SYMBOLS
        CRNN_MOST_BYTES
    ctypedef struct crnn_range_coder:
        uint64_t low, range
        uint8_t *bytes
        size_t used, size
    void crnn_frequencies(uint32_t *frequencies, const float *p, Py_ssize_t V)
    void crnn_begin_encoding(crnn_range_coder *coder)
    void crnn_encode(crnn_range_coder *coder, uint32_t below, uint32_t frequency)
    void crnn_end_encoding(crnn_range_coder *coder)
    void crnn_begin_decoding(crnn_range_coder *coder)
    int crnn_decode(crnn_range_coder *coder, const uint32_t *frequencies)
    size_t crnn_bytes_decoded(const crnn_range_coder *coder)
    bint crnn_decoding_ended(const crnn_range_coder *coder)

@cython.final
cdef class Encoder:
    cdef crnn_range_coder coder
    cdef bint ended
    cdef int reserve(self, size_t count) except -1  # room for so many bytes more

@cython.final
cdef class Decoder:
    cdef crnn_range_coder coder
    cdef bytes content  # that `coder` reads
