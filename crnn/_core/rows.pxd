# SPDX-License-Identifier: MIT
from libc.stdint cimport int32_t
from crnn._core.header cimport crnn_rows

cdef class Lengths:
    """Sequences of different lengths in a batch, and the order in which threads take them."""
    cdef readonly object lengths   # int32 (B,)
    cdef readonly object order     # int32 (B,): longest first within each part
    cdef readonly Py_ssize_t T, B
    cdef readonly Py_ssize_t rows  # M: sum of the lengths
    cdef readonly bint packed      # arrays are (1, M, ...) instead of (T, B, ...)
    cdef readonly object starts    # intp (T,): packed row of the longest sequence at each step; None if not packed
    cdef readonly object places    # int32 (B,): rank of each sequence, longest first; None if not packed
    cdef object bounds             # where the parts begin and end in `order`
    cdef object flat_rows          # see padded_rows
    # Of `range_of`, for gradients of weights that are sums over some sequences of arrays that have more:
    cdef readonly Py_ssize_t held   # rows of the arrays; 0 if these are all of their sequences
    cdef readonly Py_ssize_t first  # number of the first of these sequences, of which there are B ...
    cdef readonly Py_ssize_t batch  # ... of so many

# The slice b0 .. b1 of arrays (T, B, ...); `lengths` None or Lengths, of which the slice lies in one part. The T and B of
# the result are those of the sequences, also where the arrays are packed.
cdef crnn_rows rows_of(Py_ssize_t T, Py_ssize_t B, Py_ssize_t b0, Py_ssize_t b1, lengths) except *

# All rows, for kernels that take them in the order of time and of the batch.
cdef crnn_rows all_rows_of(Py_ssize_t T, Py_ssize_t B, lengths) except *
