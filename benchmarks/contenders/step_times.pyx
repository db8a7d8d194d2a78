# SPDX-License-Identifier: MIT
# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Times steps of a stream from Cython, without Python in the loop. Compiled by native.py when a benchmark runs."""

from libc.stdint cimport int32_t, int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from crnn.stream cimport Stream


cdef inline int64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


def steps(int64_t[::1] ns not None, Py_ssize_t block, Stream stream not None, float[::1] y not None,
          const float[::1] x not None):
    """ns[i] = nanoseconds of ``block`` steps."""
    cdef Py_ssize_t i, k
    cdef int64_t start
    cdef int failed = 0
    if y.shape[0] != stream.output_size or x.shape[0] != stream.input_size:
        raise ValueError(f"expected y ({stream.output_size},) and x ({stream.input_size},)")
    for i in range(ns.shape[0]):
        start = now()
        for k in range(block):
            failed |= stream.step_into(&y[0], &x[0])
        ns[i] = now() - start
    if failed:
        raise RuntimeError("step_into failed")


def id_steps(int64_t[::1] ns not None, Py_ssize_t block, Stream stream not None, float[::1] y not None, int32_t id):
    """ns[i] = nanoseconds of ``block`` steps."""
    cdef Py_ssize_t i, k
    cdef int64_t start
    cdef int failed = 0
    if y.shape[0] != stream.output_size:
        raise ValueError(f"expected y ({stream.output_size},)")
    for i in range(ns.shape[0]):
        start = now()
        for k in range(block):
            failed |= stream.step_id_into(&y[0], id)
        ns[i] = now() - start
    if failed:
        raise RuntimeError("step_id_into failed")


def nothing(int64_t[::1] ns not None):
    cdef Py_ssize_t i
    cdef int64_t start
    for i in range(ns.shape[0]):
        start = now()
        ns[i] = now() - start
