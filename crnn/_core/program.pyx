# SPDX-License-Identifier: MIT
"""Kernel calls that are checked once and repeated.

The checks of a wrapper and the Python code around it take one to three microseconds for each kernel call, more than half
of a small network's update. `Program.record` runs a function and keeps the kernel calls that it makes; `Program.run`
repeats them in one go, without checks, without the GIL, on the same memory.

Whoever records is responsible for two things: the function does nothing but call kernels through wrappers that end with
`perform`, and the arrays are its own, so that nobody else writes ids into them or resizes them. The program keeps them
alive.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.string cimport memcpy

cdef extern from "simd/compat.h" nogil:
    """
    static PER_THREAD PyObject *recording; /* the program that this thread records, borrowed; NULL: none */
    """
    PyObject *recording

cdef enum:
    UNIT = 16  # bytes; calls and arguments are aligned to it

cdef struct Call:
    kernel_call call
    size_t size  # of the arguments behind it


cdef size_t aligned(size_t size) noexcept nogil:
    return (size + UNIT - 1) // UNIT * UNIT


cdef class Program:
    """Kernel calls in their order."""
    cdef char *calls        # Call, arguments, Call, arguments, ...
    cdef size_t used, size  # bytes
    cdef list arrays        # those that the arguments point into

    def __cinit__(self):
        self.arrays = []

    def __dealloc__(self):
        PyMem_Free(self.calls)

    cdef int add(self, kernel_call call, const void *arguments, size_t size) except -1:
        cdef size_t needed = self.used + aligned(sizeof(Call)) + aligned(size)
        cdef char *calls
        if needed > self.size:
            calls = <char *>PyMem_Realloc(self.calls, 2 * needed)
            if calls == NULL:
                raise MemoryError("no memory for a program of kernel calls")
            self.calls, self.size = calls, 2 * needed
        (<Call *>(self.calls + self.used))[0] = Call(call, size)
        memcpy(self.calls + self.used + aligned(sizeof(Call)), arguments, size)
        self.used = needed
        return 0

    def record(self, function, *args) -> None:
        """Call ``function(*args)``, and add the kernel calls that it makes in this thread."""
        global recording
        cdef PyObject *before = recording
        recording = <PyObject *>self
        try:
            function(*args)
        finally:
            recording = before

    def run(self) -> None:
        """Repeat all kernel calls."""
        cdef size_t at = 0
        cdef Call *call
        with nogil:
            while at < self.used:
                call = <Call *>(self.calls + at)
                at += aligned(sizeof(Call))
                call.call(self.calls + at)
                at += aligned(call.size)


def same_values(values: Sequence[Any], dicts: Sequence[dict[str, Any]]) -> bool:
    """Whether the values of the dictionaries, in their order, are these very objects."""
    cdef Py_ssize_t i = 0, n = len(values)
    cdef dict named
    for named in dicts:
        for value in named.values():
            if i >= n or values[i] is not value:
                return False
            i += 1
    return i == n


cdef int perform(kernel_call call, const void *arguments, size_t size) except -1:
    if recording != NULL:
        (<Program>recording).add(call, arguments, size)
    with nogil:
        call(arguments)
    return 0


cdef int note_array(array) except -1:
    if recording != NULL:
        (<Program>recording).arrays.append(array)
    return 0
