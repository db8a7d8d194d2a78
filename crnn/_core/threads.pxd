# SPDX-License-Identifier: MIT

# Part of a kernel call that is independent for every element of flat arrays: elements start .. stop.
ctypedef void (*range_call)(const void *arguments, Py_ssize_t start, Py_ssize_t stop) noexcept nogil

# Make the call for all of 0 .. n, in up to ``threads`` threads, with ranges that start at multiples of ``unit`` and have
# at least ``least`` elements. No Python code runs between the parts, so no signal handler separates them.
cdef int run_ranges(range_call call, const void *arguments, Py_ssize_t n, Py_ssize_t unit, Py_ssize_t least,
                    Py_ssize_t threads) except -1
