# SPDX-License-Identifier: MIT
"""Symbols written and read with their probabilities. src_c/text/range_coder.h defines the bytes.

Archives use the coders from C, in crnn/compression/mixing.pyx, which finds the probabilities of each symbol as it goes.
`frequencies`, `encode` and `decode` are the same functions for probabilities that are given: with them tests compare
the coder with its definition.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int32_t, uint8_t, uint32_t
from crnn._core.arrays cimport data, dim, ids_data

import numpy as np

cnp.import_array()


def frequencies(p: Real) -> Any:
    """The frequencies (M, V) of rows of probabilities, fresh; each row has the sum 2^24.  p (M, V) IN."""
    cdef Py_ssize_t M = dim(p, 0), V = dim(p, 1), m
    cdef const float *p_ = probabilities_data(p, M, V)
    cdef cnp.ndarray result = np.empty((M, V), np.uint32)
    for m in range(M):
        crnn_frequencies(<uint32_t *>cnp.PyArray_DATA(result) + m * V, p_ + m * V, V)
    return result


cdef class Encoder:
    """Writes symbols into memory that grows. One thread at a time."""

    def __cinit__(self):
        crnn_begin_encoding(&self.coder)

    def __dealloc__(self):
        PyMem_Free(self.coder.bytes)

    def __len__(self) -> int:
        return self.coder.used

    def encode(self, p: Real, symbols: Ids, Py_ssize_t rows) -> None:
        """Write the symbols of the first ``rows`` rows.  p (B, V) IN;  symbols (B,) IN, from 0 to V-1."""
        cdef Py_ssize_t B = dim(p, 0), V = dim(p, 1), b, i
        cdef const float *p_ = probabilities_data(p, B, V)
        cdef const int32_t *symbols_ = ids_data("symbols", symbols, 1, B)
        cdef uint32_t[CRNN_MOST_SYMBOLS] of_row
        cdef uint32_t below
        cdef int32_t symbol
        with cython.critical_section(self):
            if self.ended or not 0 <= rows <= B:
                raise ValueError(f"rows: expected at most {B}, before the end, got {rows}")
            self.reserve(rows * CRNN_MOST_BYTES + 1)
            for b in range(rows):
                symbol = symbols_[b]
                if not 0 <= symbol < V:
                    raise ValueError(f"symbols: expected from 0 to {V - 1}, got {symbol}")
                crnn_frequencies(of_row, p_ + b * V, V)
                below = 0
                for i in range(symbol):
                    below += of_row[i]
                crnn_encode(&self.coder, below, of_row[symbol])

    def finish(self) -> bytes:
        """All bytes. Nothing can be written after it."""
        with cython.critical_section(self):
            if not self.ended:
                self.reserve(1)
                crnn_end_encoding(&self.coder)
                self.ended = True
        return PyBytes_FromStringAndSize(<char *>self.coder.bytes, self.coder.used)

    cdef int reserve(self, size_t count) except -1:
        cdef size_t size = self.coder.used + count
        cdef void *memory
        if size > self.coder.size:
            memory = PyMem_Realloc(self.coder.bytes, size + size // 2)
            if memory == NULL:
                raise MemoryError(f"cannot have memory for {size} bytes of an archive")
            self.coder.bytes, self.coder.size = <uint8_t *>memory, size + size // 2
        return 0


cdef class Decoder:
    """Reads the symbols that an `Encoder` has written. One thread at a time."""

    def __cinit__(self, bytes content not None):
        self.content = content
        self.coder.bytes, self.coder.size = <uint8_t *>PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content)
        crnn_begin_decoding(&self.coder)

    def ended(self) -> bool:
        """Whether the bytes are those that an encoder of the symbols so far has written, and no others."""
        return crnn_decoding_ended(&self.coder)

    def decode(self, symbols: Ids, p: Real, Py_ssize_t rows) -> bool:
        """Read the symbols of the first ``rows`` rows.  symbols (B,) OUT, 0 in the others;  p (B, V) IN.

        Returns False, with any symbols, where the bytes are none that an encoder has written."""
        cdef Py_ssize_t B = dim(p, 0), V = dim(p, 1), b
        cdef const float *p_ = probabilities_data(p, B, V)
        cdef int32_t *symbols_ = <int32_t *>data("symbols", symbols, cnp.NPY_INT32, True, 1, B)
        cdef uint32_t[CRNN_MOST_SYMBOLS] of_row
        cdef int symbol
        if not 0 <= rows <= B:
            raise ValueError(f"rows: expected at most {B}, got {rows}")
        for b in range(B):
            symbols_[b] = 0
        with cython.critical_section(self):
            for b in range(rows):
                crnn_frequencies(of_row, p_ + b * V, V)
                symbol = crnn_decode(&self.coder, of_row)
                if symbol < 0:
                    return False
                symbols_[b] = symbol
        return crnn_bytes_decoded(&self.coder) <= self.coder.size


cdef const float *probabilities_data(p, Py_ssize_t rows, Py_ssize_t V) except NULL:
    cdef const float *p_ = <const float *>data("p", p, cnp.NPY_FLOAT32, False, 2, rows, V)
    if not 1 <= V <= CRNN_MOST_SYMBOLS:
        raise ValueError(f"p: expected from 1 to {CRNN_MOST_SYMBOLS} probabilities in a row, got {V}")
    return p_
