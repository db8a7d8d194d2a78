# SPDX-License-Identifier: MIT
from crnn._core.header cimport crnn_dim, crnn_quantised, crnn_rows
from crnn._core.kernels cimport crnn_kernels_f32, crnn_kernels_f64

cdef extern from "linalg/packing.h" nogil:
    ctypedef enum crnn_format:
        CRNN_FORMAT_F32
        CRNN_FORMAT_F64
        CRNN_FORMAT_BF16
        CRNN_FORMAT_INT8
        CRNN_FORMAT_INT4
    ctypedef struct crnn_tables:
        const crnn_kernels_f32 *f32
        const crnn_kernels_f64 *f64
    ctypedef struct crnn_packed:
        void *data
        crnn_dim K, N, gates
        crnn_format format

    size_t crnn_element_size(crnn_format format)
    const crnn_quantised *crnn_quantised_format(crnn_format format, const crnn_tables *kernels)
    int crnn_is_quantised(const crnn_packed *w)
    const crnn_quantised *crnn_quantised_of(const crnn_packed *w, const crnn_tables *kernels)
    size_t crnn_packed_size(const crnn_packed *w)
    size_t crnn_packed_scratch(const crnn_packed *w, crnn_dim rows)
    void crnn_pack(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
    void crnn_pack_transposed(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
    void crnn_packed_columns(const crnn_packed *w, const crnn_tables *kernels, void *y, crnn_dim ldy, const void *x,
                             crnn_dim ldx, const void *bias, int adds, void *scratch, const crnn_rows *rows)
    void crnn_unpack(const crnn_packed *w, void *values, crnn_dim ldw)
    void crnn_unpack_transposed(const crnn_packed *w, void *values, crnn_dim ldw)
    int crnn_packed_equals(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)


cdef class Packed:
    """A weight matrix (K, gates * N) in the layout that the products read: see packing.h."""
    cdef object buffer       # ndarray, owns the memory
    cdef crnn_packed matrix
    cdef readonly Py_ssize_t K, N, gates   # N columns in each gate's block
    cdef readonly str precision            # of products with it: the dtype, or one of QUANTISED
    cdef int kind            # NumPy's number of the dtype
    cdef bint is_quantised(self) noexcept
    cdef bint need_values(self, bint any_values) except -1
    cdef Packed take(self, w, const char *values, Py_ssize_t n0, Py_ssize_t columns, Py_ssize_t ldw, bint any_values,
                     void (*call)(const void *) noexcept nogil)
    cdef int need_small(self, w) except -1

cdef void *packed_data(str name, Packed packed, int kind, Py_ssize_t K, Py_ssize_t N, Py_ssize_t gates=*,
                       bint may_be_quantised=*) except NULL

# The scratch for products of `rows` rows with w, checked; NULL where w needs none.
cdef void *scratch_for(Packed w, array, Py_ssize_t rows) except? NULL
