# SPDX-License-Identifier: MIT
"""Ids drawn from logits. src_c/kernels.def defines the distribution."""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t
from crnn._core.arrays cimport data, dim, pin, plain_array, real_kind
from crnn._core.dispatch cimport f32, f64

import numpy as np

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030d0000 /* cython.pymutex is a pointer to a lock, NULL if there was no memory for it */
    #define crnn_has_lock(draws) ((draws)->lock != NULL)
    #else
    #define crnn_has_lock(draws) ((void)(draws), 1)
    #endif
    """
    bint crnn_has_lock(Draws draws)

cnp.import_array()

cdef enum:
    MAX_IDS = 0x7fffffff
    RELEASE_SIZE = 1 << 15  # logits for which the GIL is released: 30 us of work


def candidates(x: Real, double temperature, Py_ssize_t top_k, double top_p) -> tuple[Ids, Real]:
    """The ids that may be drawn from logits, and their weights, in the logits' precision; both fresh.  x (V,) IN.

    Raises ValueError for NaN, or if the largest is infinite."""
    cdef int kind = real_kind("x", x)
    cdef Py_ssize_t V = dim(x, 0), n
    data("x", x, kind, False, 1, V)
    if not (V > 0 and temperature >= 0 and top_k > 0 and top_p > 0):
        raise ValueError(f"expected logits and options of a sampler, got {V}, {temperature}, {top_k}, {top_p}")
    cdef cnp.ndarray copy = x.copy(), scratch = np.empty(2 * V, x.dtype), weights = np.empty(V, x.dtype)
    cdef cnp.ndarray ids = np.empty(V, np.int32)
    cdef int32_t *ids_ = <int32_t *>cnp.PyArray_DATA(ids)
    cdef void *weights_ = cnp.PyArray_DATA(weights)
    cdef void *x_ = cnp.PyArray_DATA(copy)
    cdef void *scratch_ = cnp.PyArray_DATA(scratch)
    if kind == cnp.NPY_FLOAT32:
        n = f32.sampling_candidates(ids_, <float *>weights_, <float *>x_, <float *>scratch_, <float>temperature, top_k,
                                    <float>top_p, V)
    else:
        n = f64.sampling_candidates(ids_, <double *>weights_, <double *>x_, <double *>scratch_, temperature, top_k,
                                    top_p, V)
    if n < 0:
        raise ValueError(f"x: expected finite numbers (or -inf, not all), got {x[-1 - n]} at position {-1 - n}")
    return ids[:n], weights[:n]


def place(weights: Real, double uniform) -> int:
    """The first place whose cumulative weight is above uniform * (the sum of all).  weights (n,) are overwritten."""
    cdef int kind = real_kind("weights", weights)
    cdef Py_ssize_t n = dim(weights, 0)
    cdef void *weights_ = data("weights", weights, kind, True, 1, n)
    if n == 0:
        raise ValueError("weights: expected at least one, got none")
    if kind == cnp.NPY_FLOAT32:
        return f32.sampling_draw(<float *>weights_, <float>uniform, n)
    return f64.sampling_draw(<double *>weights_, uniform, n)


cdef class Draws:
    """The random numbers and the memory of a sampler. One thread at a time draws; others wait.

    Parameters
    ----------
    bits : a bit generator of NumPy, which nobody else uses
    banned : ids that are never drawn
    convert : function that returns logits of any other type as an array of float64, or raises TypeError or ValueError

    Each call takes the options of `crnn.sampling.Sampler`, which raises what the calls raise.
    """

    def __cinit__(self, bits, banned not None, convert):
        if not crnn_has_lock(self):
            raise MemoryError("cannot have memory for a lock")
        self.bits, self.convert = bits, convert
        self.banned = np.array([min(id, MAX_IDS) for id in banned], np.int32)
        self.bans, self.banned_ = len(self.banned), <int32_t *>cnp.PyArray_DATA(self.banned)
        self.last_banned = max(self.banned, default=-1)
        self.generator = <bitgen_t *>PyCapsule_GetPointer(bits.capsule, "BitGenerator")

    def __dealloc__(self):
        PyMem_RawFree(self.x)

    def __reduce__(self) -> tuple[Any, ...]:
        return Draws, (self.bits, self.banned, self.convert)

    def draw(self, logits: Any, double temperature, top_k: int | None, top_p: float | None) -> int:
        """An id drawn from logits (V,)."""
        cdef Options options = options_of(temperature, top_k, top_p)
        cdef cnp.ndarray z = self.plain(logits, 1)
        cdef Py_ssize_t V = cnp.PyArray_DIM(z, 0), id = 0
        with self.lock:
            self.reserve(V)
            id = self.next_id(cnp.PyArray_DATA(z), cnp.PyArray_TYPE(z), V, options)
        return id if id >= 0 else self.refuse(z, -1 - id)

    def draw_rows(self, logits: Any, double temperature, top_k: int | None, top_p: float | None) -> Ids:
        """Ids (M,), each drawn from a row of logits (M, V), one row after the other; or none, if a row is refused."""
        cdef Options options = options_of(temperature, top_k, top_p)
        cdef cnp.ndarray z = self.plain(logits, 2)
        cdef Py_ssize_t M = cnp.PyArray_DIM(z, 0), V = cnp.PyArray_DIM(z, 1), drawn = 0
        cdef int kind = cnp.PyArray_TYPE(z)
        cdef object pins = pin(z)
        cdef const char *z_ = <const char *>cnp.PyArray_DATA(z)
        cdef cnp.ndarray ids = np.empty(M, np.int32)
        cdef int32_t *ids_ = <int32_t *>cnp.PyArray_DATA(ids)
        with self.lock:
            self.reserve(V)
            if M * V > RELEASE_SIZE:
                with nogil:
                    drawn = self.next_ids(ids_, z_, kind, M, V, options)
            else:
                drawn = self.next_ids(ids_, z_, kind, M, V, options)
            if drawn < M and temperature != 0:
                self.bits.advance(-drawn)  # as if nothing had been drawn
        if drawn < M:
            self.refuse(z, drawn * V - 1 - ids_[drawn])
        return ids

    def candidates(self, logits: Any, double temperature, top_k: int | None,
                   top_p: float | None) -> tuple[int, Ids, Doubles]:
        """V, the ids that may be drawn, in rising order, and their weights; both fresh."""
        cdef Options options = options_of(temperature, top_k, top_p)
        cdef cnp.ndarray z = self.plain(logits, 1), ids, weights
        cdef Py_ssize_t V = cnp.PyArray_DIM(z, 0), n = 0, i
        with self.lock:
            self.reserve(V)
            n = self.weigh(cnp.PyArray_DATA(z), cnp.PyArray_TYPE(z), V, options)
            if n >= 0:
                ids, weights = np.empty(n, np.int32), np.empty(n)
                for i in range(n):
                    (<int32_t *>cnp.PyArray_DATA(ids))[i] = self.ids[i]
                    (<double *>cnp.PyArray_DATA(weights))[i] = self.weights[i]
        if n < 0:
            self.refuse(z, -1 - n)
        return V, ids, weights

    # ---- arguments ---------------------------------------------------------------------------------------------------

    cdef cnp.ndarray plain(self, logits, int ndim):
        """Logits of ``ndim`` axes as a contiguous array of float32 or float64. Raises TypeError and ValueError."""
        cdef Py_ssize_t V
        cdef int kind
        if not cnp.PyArray_CheckExact(logits):
            logits = self.convert(logits)
        kind = cnp.PyArray_TYPE(<cnp.ndarray>logits)
        if kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64 or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>logits):
            logits = plain_array(self.convert(logits), cnp.NPY_FLOAT64)
        V = dim(logits, ndim - 1)
        if cnp.PyArray_NDIM(<cnp.ndarray>logits) != ndim or V == 0:
            raise ValueError(f"logits: expected shape ({'M, V' if ndim == 2 else 'V,'}), got {logits.shape}")
        if V > MAX_IDS:
            raise ValueError(f"logits: expected at most {MAX_IDS}, got {V}")
        if self.last_banned >= V:
            raise ValueError(f"ban: expected ids below {V}, got {self.last_banned}")
        return logits

    cdef int refuse(self, cnp.ndarray z, Py_ssize_t place) except -1:
        """Raise ValueError for logits whose largest number, or first NaN, is at ``place`` of the flat array."""
        cdef Py_ssize_t V = cnp.PyArray_DIM(z, cnp.PyArray_NDIM(z) - 1)
        value = -np.inf if place % V in self.banned else z.reshape(-1)[place]
        index = f"({place // V}, {place % V})" if cnp.PyArray_NDIM(z) == 2 else str(place)
        raise ValueError(f"logits: expected finite numbers (or -inf, not all), got {value} at index {index}")

    cdef int reserve(self, Py_ssize_t V) except -1:
        """Memory for V logits. Raises MemoryError."""
        cdef double *memory
        if V > self.size:
            memory = <double *>PyMem_RawMalloc(V * (4 * sizeof(double) + sizeof(int32_t)))
            if memory == NULL:
                raise MemoryError(f"logits: cannot have memory to draw from {V}")
            PyMem_RawFree(self.x)
            self.size, self.x, self.weights, self.scratch = V, memory, memory + V, memory + 2 * V
            self.ids = <int32_t *>(memory + 4 * V)
        return 0

    # ---- with the lock, and memory for V -----------------------------------------------------------------------------

    cdef Py_ssize_t weigh(self, const void *z, int kind, Py_ssize_t V, Options options) noexcept nogil:
        """The kernel `sampling_candidates` of logits z (V) without the banned ids."""
        cdef Py_ssize_t i
        if kind == cnp.NPY_FLOAT32:
            f32.widen(self.x, <const float *>z, V)
        else:
            f64.widen(self.x, <const double *>z, V)
        for i in range(self.bans):
            self.x[self.banned_[i]] = -INFINITY
        return f64.sampling_candidates(self.ids, self.weights, self.x, self.scratch, options.temperature,
                                       options.top_k, options.top_p, V)

    cdef Py_ssize_t next_id(self, const void *z, int kind, Py_ssize_t V, Options options) noexcept nogil:
        """An id, or -1 - the index of the logit for which they are refused."""
        cdef Py_ssize_t n = self.weigh(z, kind, V, options)
        if n < 0 or options.temperature == 0:
            return n if n < 0 else self.ids[0]
        uniform = <double>(self.generator.next_uint64(self.generator.state) >> 11) * (1.0 / (1ULL << 53))
        return self.ids[f64.sampling_draw(self.weights, uniform, n)]

    cdef Py_ssize_t next_ids(self, int32_t *ids, const char *z, int kind, Py_ssize_t M, Py_ssize_t V,
                             Options options) noexcept nogil:
        """Draw from M rows. Returns M, or the first row that is refused, whose id then is what `next_id` returned."""
        cdef Py_ssize_t size = V * (4 if kind == cnp.NPY_FLOAT32 else 8), m
        for m in range(M):
            ids[m] = <int32_t>self.next_id(z + m * size, kind, V, options)
            if ids[m] < 0:
                return m
        return M


cdef Options options_of(double temperature, top_k, top_p) except *:
    """Raises TypeError, and ValueError for what the constructor of a sampler would have refused."""
    cdef Options options
    options.temperature, options.top_k, options.top_p = temperature, MAX_IDS, 2
    if top_k is not None:
        options.top_k = min(top_k, MAX_IDS)
    if top_p is not None:
        options.top_p = top_p
    if not (0 <= temperature < INFINITY and options.top_k >= 1 and options.top_p > 0):
        raise ValueError(f"expected temperature >= 0, top_k >= 1 and top_p > 0, got {temperature}, {top_k}, {top_p}")
    return options
