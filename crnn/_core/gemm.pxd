# SPDX-License-Identifier: MIT
cdef class Packed:
    """A weight matrix (K, gates * N) in the layout the products read: see crnn.h. The one place that knows the storage."""
    cdef object buffer       # ndarray, owns the memory
    cdef void *data
    cdef readonly Py_ssize_t K, N, gates   # N columns in each gate's block
    cdef int kind

cdef void *packed_data(str name, Packed packed, int kind, Py_ssize_t K, Py_ssize_t N, Py_ssize_t gates=*) except NULL
