# SPDX-License-Identifier: MIT
"""Instruction sets, and the kernel tables in use. What each kernel does is said in src_c/kernels.def."""

from crnn._core.kernels cimport crnn_kernels_f32, crnn_kernels_f64

cdef extern from "crnn.h" nogil:
    int crnn_isa_count()
    const char *crnn_isa_name(int isa)
    int crnn_isa_built(int isa)
    int crnn_isa_supported(int isa)
    int crnn_isa_best()
    const crnn_kernels_f32 *crnn_f32(int isa)
    const crnn_kernels_f64 *crnn_f64(int isa)

# The tables that every wrapper calls through. Packed weights have one layout on every instruction set, so they stay
# good when `use_isa` changes these.
cdef const crnn_kernels_f32 *f32
cdef const crnn_kernels_f64 *f64
