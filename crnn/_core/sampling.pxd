# SPDX-License-Identifier: MIT
cimport cython
cimport numpy as cnp
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint64_t

cdef extern from "numpy/random/bitgen.h" nogil:
    ctypedef struct bitgen_t:
        void *state
        uint64_t (*next_uint64)(void *state) noexcept nogil

ctypedef struct Options:
    double temperature
    Py_ssize_t top_k  # large: all
    double top_p      # 1 or more: all

cdef class Draws:
    cdef object bits, convert
    cdef cython.pymutex lock
    cdef bitgen_t *generator
    cdef cnp.ndarray banned
    cdef int32_t *banned_
    cdef Py_ssize_t bans, last_banned
    cdef Py_ssize_t size  # logits that there is memory for:
    cdef double *x        # (size)
    cdef double *weights  # (size)
    cdef double *scratch  # (2, size)
    cdef int32_t *ids     # (size)
    cdef cnp.ndarray plain(self, logits, int ndim)
    cdef int refuse(self, cnp.ndarray z, Py_ssize_t place) except -1
    cdef int reserve(self, Py_ssize_t V) except -1
    cdef Py_ssize_t weigh(self, const void *z, int kind, Py_ssize_t V, Options options) noexcept nogil
    cdef Py_ssize_t next_id(self, const void *z, int kind, Py_ssize_t V, Options options) noexcept nogil
    cdef Py_ssize_t next_ids(self, int32_t *ids, const char *z, int kind, Py_ssize_t M, Py_ssize_t V,
                             Options options) noexcept nogil
