# SPDX-License-Identifier: MIT
cimport numpy as cnp
from libc.stdint cimport int32_t

# Precision of a call: numpy's type number of its real arrays.
cdef int real_kind(str name, array) except -1

# The data of an array that must be C-contiguous, of this kind and shape; -1 stands for any length.
cdef void *data(str name, array, int kind, bint writable, int ndim,
                Py_ssize_t d0, Py_ssize_t d1=*, Py_ssize_t d2=*) except NULL
cdef int32_t *ids_data(str name, array, int ndim, Py_ssize_t d0, Py_ssize_t d1=*) except NULL
cdef Py_ssize_t dim(array, int axis) except -1

cdef int need_ids_below(str name, const int32_t *ids, Py_ssize_t n, Py_ssize_t limit, int32_t allowed) except -1
cdef int need_range(str name, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t n, Py_ssize_t unit) except -1
cdef int need_apart(str out_name, out, str in_name, in_, bint or_same=*) except -1

cdef object pin(array)
cdef cnp.ndarray plain_array(array, int kind)
cdef cnp.ndarray int32_copy(array)
cdef cnp.ndarray ids_below(str name, array, Py_ssize_t limit, int32_t allowed)

# Whether an object is an int32 array (n,), which needs no conversion.
cdef inline bint are_ids(x) noexcept:
    return (cnp.PyArray_CheckExact(x) and cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.NPY_INT32
            and cnp.PyArray_NDIM(<cnp.ndarray>x) == 1)
