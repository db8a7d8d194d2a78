# SPDX-License-Identifier: MIT
"""Instruction sets, the list of cells, and the kernel tables in use. src_c/kernels.def says what each kernel does."""

from crnn._core.header cimport crnn_cell
from crnn._core.kernels cimport crnn_kernels_f32, crnn_kernels_f64

cdef extern from "crnn.h" nogil:
    int crnn_isa_count()
    const char *crnn_isa_name(int isa)
    int crnn_isa_built(int isa)
    int crnn_isa_supported(int isa)
    int crnn_isa_best()
    int crnn_cell_count()
    const crnn_cell *crnn_cell_info(int cell)
    int crnn_cell_find(const char *name)
    const crnn_kernels_f32 *crnn_f32(int isa)
    const crnn_kernels_f64 *crnn_f64(int isa)

# The tables that every wrapper calls through. Packed weights have one layout on every instruction set, so they remain
# valid when `use_isa` changes these.
cdef const crnn_kernels_f32 *f32
cdef const crnn_kernels_f64 *f64

# The number of a cell by its name; ValueError if there is none.
cdef int cell_number(str name) except -1
