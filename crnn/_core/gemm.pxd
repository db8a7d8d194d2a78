# SPDX-License-Identifier: MIT
from crnn._core.header cimport crnn_dim, crnn_rows
from crnn._core.kernels cimport crnn_kernels_f32, crnn_kernels_f64

cdef extern from "linalg/packing.h" nogil:
    ctypedef enum crnn_format:
        CRNN_FORMAT_F32
        CRNN_FORMAT_F64
    ctypedef struct crnn_tables:
        const crnn_kernels_f32 *f32
        const crnn_kernels_f64 *f64
    ctypedef struct crnn_packed:
        void *data
        crnn_dim K, N, gates
        crnn_format format

    size_t crnn_element_size(crnn_format format)
    size_t crnn_packed_size(const crnn_packed *w)
    void crnn_pack(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
    void crnn_pack_transposed(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
    void crnn_packed_product(const crnn_packed *w, const crnn_tables *kernels, void *y, const void *x, const void *bias,
                             const crnn_rows *rows)


cdef class Packed:
    """A weight matrix (K, gates * N) in the layout that the products read: see packing.h."""
    cdef object buffer       # ndarray, owns the memory
    cdef crnn_packed matrix
    cdef readonly Py_ssize_t K, N, gates   # N columns in each gate's block
    cdef int kind            # NumPy's number of the precision

cdef void *packed_data(str name, Packed packed, int kind, Py_ssize_t K, Py_ssize_t N, Py_ssize_t gates=*) except NULL
