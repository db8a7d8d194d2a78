# SPDX-License-Identifier: MIT

# A kernel call without its arguments, which are in a struct.
ctypedef void (*kernel_call)(const void *arguments) noexcept nogil

# What a wrapper ends with: call a kernel without the GIL. A program that is being recorded in this thread keeps the call.
cdef int perform(kernel_call call, const void *arguments, size_t size) except -1

# A program that is being recorded in this thread keeps the array alive.
cdef int note_array(array) except -1
