# SPDX-License-Identifier: MIT
"""Checks shared by the wrappers. NumPy's C API instead of memoryviews: a check costs 10 ns instead of 120, and the
errors name the argument, what was expected and what came.

Arrays belong to the caller, whose other threads may write into them while kernels run without the GIL. Numbers may then
be wrong; integers that select memory must not be. So public functions copy them, check the copy and use the copy
(`checked_ids`), and `pin` what they borrow. Everything is converted before anything is checked, because a conversion
may run the caller's code.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memmove, memset
from crnn._core.dispatch cimport f32, f64
from crnn._core.program cimport kernel_call, note_array, perform

import numpy as np

cnp.import_array()

KINDS = {cnp.NPY_FLOAT32: "float32", cnp.NPY_FLOAT64: "float64", cnp.NPY_INT32: "int32", cnp.NPY_UINT8: "uint8"}


cdef str describe(array):
    if not cnp.PyArray_Check(array):
        return type(array).__name__
    return (f"{array.dtype} array of shape {array.shape}"
            + ("" if array.flags.c_contiguous else ", not C-contiguous")
            + ("" if array.flags.aligned else ", not aligned")
            + ("" if array.flags.writeable else ", read-only"))


cdef int refuse(str name, array, int kind, bint writable, tuple shape) except -1:
    expected = ", ".join("*" if length < 0 else str(length) for length in shape) + ("," if len(shape) == 1 else "")
    raise (ValueError if cnp.PyArray_Check(array) else TypeError)(
        f"{name}: expected {'writable ' if writable else ''}C-contiguous {KINDS[kind]} array of shape ({expected}), "
        f"got {describe(array)}")


cdef int real_kind(str name, array) except -1:
    if cnp.PyArray_Check(array):
        kind = cnp.PyArray_TYPE(<cnp.ndarray>array)
        if kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64:
            return kind
    raise TypeError(f"{name}: expected float32 or float64 array, got {describe(array)}")


cdef Py_ssize_t dim(array, int axis) except -1:
    if cnp.PyArray_Check(array) and axis < cnp.PyArray_NDIM(<cnp.ndarray>array):
        return cnp.PyArray_DIM(<cnp.ndarray>array, axis)
    return 0  # `data` is about to say what is wrong


cdef void *data(str name, array, int kind, bint writable, int ndim,
                Py_ssize_t d0, Py_ssize_t d1=-1, Py_ssize_t d2=-1) except NULL:
    cdef Py_ssize_t *shape = [d0, d1, d2]
    cdef bint good = cnp.PyArray_Check(array)
    cdef int axis
    if good:
        a = <cnp.ndarray>array
        good = (cnp.PyArray_TYPE(a) == kind and cnp.PyArray_NDIM(a) == ndim
                and (cnp.PyArray_ISCARRAY(a) if writable else cnp.PyArray_ISCARRAY_RO(a)))
        for axis in range(ndim):
            good = good and (shape[axis] < 0 or cnp.PyArray_DIM(a, axis) == shape[axis])
    if not good:
        refuse(name, array, kind, writable, tuple([shape[axis] for axis in range(ndim)]))
    note_array(array)
    return cnp.PyArray_DATA(<cnp.ndarray>array)


cdef int32_t *ids_data(str name, array, int ndim, Py_ssize_t d0, Py_ssize_t d1=-1) except NULL:
    return <int32_t *>data(name, array, cnp.NPY_INT32, False, ndim, d0, d1)


cdef int need_ids_below(str name, const int32_t *ids, Py_ssize_t n, Py_ssize_t limit, int32_t allowed) except -1:
    """Every id in 0 .. limit-1, or equal to `allowed` (pass any valid id for none)."""
    cdef Py_ssize_t i, wrong = 0
    if limit < 1 and n > 0:
        raise ValueError(f"{name}: expected no ids, since there is nothing they could stand for, got {n}")
    for i in range(n):  # no early exit: the compiler turns this into vector code
        wrong += (ids[i] != allowed) & ((ids[i] < 0) | (ids[i] >= limit))
    if wrong:
        for i in range(n):
            if ids[i] != allowed and not 0 <= ids[i] < limit:
                raise ValueError(f"{name}: expected ids from 0 to {limit - 1}, got {ids[i]} at position {i}")
    return 0


cdef int need_range(str name, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t n, Py_ssize_t unit) except -1:
    if not 0 <= start <= stop <= n or start % unit:
        raise ValueError(f"{name}: expected a range within 0 .. {n}"
                         + (f" that starts at a multiple of {unit}" if unit > 1 else "") + f", got {start} .. {stop}")
    return 0


cdef int need_apart(str out_name, out, str in_name, in_, bint or_same=False) except -1:
    """No overlap; with `or_same` the very same memory will do."""
    a, b = <cnp.ndarray>out, <cnp.ndarray>in_
    a0, b0 = <size_t>cnp.PyArray_DATA(a), <size_t>cnp.PyArray_DATA(b)
    if or_same and a0 == b0:
        return 0
    if a0 < b0 + <size_t>cnp.PyArray_NBYTES(b) and b0 < a0 + <size_t>cnp.PyArray_NBYTES(a):
        raise ValueError(f"{out_name}: expected an array that does not overlap {in_name}")
    return 0


cdef object pin(array):
    """Prevent the memory of an ndarray from being resized, also with ``refcheck=False``, while the result is alive:
    NumPy does not resize an array that has a weak reference."""
    cdef PyObject *owner = <PyObject *>array
    cdef PyObject *base = cnp.PyArray_BASE(<cnp.ndarray>owner)
    while base != NULL and cnp.PyArray_Check(<object>base):
        owner = base
        base = cnp.PyArray_BASE(<cnp.ndarray>owner)
    return PyWeakref_NewRef(<object>owner, None)


def pinned(array: NDArray[Any]) -> object:
    """An object; while it is alive NumPy refuses to resize the memory of ``array``, also with ``refcheck=False``.

    Raises TypeError for what is no array."""
    if not cnp.PyArray_Check(array):
        raise TypeError(f"expected an array, got {describe(array)}")
    return pin(array)


cdef cnp.ndarray plain_array(array, int kind):
    """The array in the form that C reads: of NumPy's type ``kind``, contiguous, aligned, in native byte order."""
    return cnp.PyArray_FROM_OTF(array, kind, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_FORCECAST)


def plain(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """An array in the form that the kernels read, C-contiguous and aligned, float32 or float64; borrowed if possible."""
    return plain_array(array, cnp.NPY_FLOAT32 if dtype == "float32" else cnp.NPY_FLOAT64)


@cython.boundscheck(False)
cdef cnp.ndarray int32_copy(array):
    """Integers as a fresh int32 array in C order; None if they do not fit. ``array``: an ndarray of any integer type."""
    cdef cnp.ndarray wide, copy
    cdef const int64_t *wide_
    cdef int32_t *copy_
    cdef int64_t lost = 0
    cdef Py_ssize_t i
    if cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_INT32:
        return cnp.PyArray_FROM_OTF(array, cnp.NPY_INT32, cnp.NPY_ARRAY_CARRAY | cnp.NPY_ARRAY_ENSURECOPY)
    wide = cnp.PyArray_FROM_OTF(array, cnp.NPY_INT64, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_FORCECAST)
    copy = cnp.PyArray_SimpleNew(cnp.PyArray_NDIM(wide), cnp.PyArray_DIMS(wide), cnp.NPY_INT32)
    wide_, copy_ = <const int64_t *>cnp.PyArray_DATA(wide), <int32_t *>cnp.PyArray_DATA(copy)
    for i in range(cnp.PyArray_SIZE(wide)):
        copy_[i] = <int32_t>wide_[i]
        lost |= wide_[i] ^ copy_[i]
    return None if lost else copy


cdef cnp.ndarray ids_below(str name, array, Py_ssize_t limit, int32_t allowed):
    """`checked_ids`."""
    cdef cnp.ndarray copy = int32_copy(array)
    cdef const int32_t *copy_
    cdef Py_ssize_t i, wrong = 0
    if copy is not None:
        copy_ = <const int32_t *>cnp.PyArray_DATA(copy)
        if cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_INT32:
            need_ids_below(name, copy_, cnp.PyArray_SIZE(copy), limit, allowed)
            return copy
        for i in range(cnp.PyArray_SIZE(copy)):
            wrong += (copy_[i] != allowed) & ((copy_[i] < 0) | (copy_[i] >= limit))
        if not wrong:
            return copy
    other = "" if allowed >= 0 else f", or {allowed} for none"
    raise ValueError(f"{name}: expected ids from 0 to {limit - 1}{other}, got {array.min()} to {array.max()}")


def checked_ids(str name not None, ids: NDArray[Any], Py_ssize_t limit, int32_t allowed=0) -> NDArray[int32]:
    """A copy of ids of any shape and integer type, int32 and C-contiguous, in which all are from 0 to limit-1, or
    ``allowed``. Raises ValueError."""
    return ids_below(name, ids, limit, allowed)


# ---- the next window, for memory in which the last one was -----------------------------------------------------------


def take_ids(own: NDArray[int32], ids: Any, Py_ssize_t limit, int32_t allowed=0) -> int:
    """Copy ids (T, B) into ``own``: each from 0 to limit-1, or ``allowed``.

    Returns how many are not ``allowed``; -1 unless ids are an int32 array of the same shape in C order, with such ids.
    ``own`` may have been changed then.
    """
    cdef Py_ssize_t i, n = dim(own, 0) * dim(own, 1), wrong = 0, others = 0
    cdef int32_t *own_ = <int32_t *>data("own", own, cnp.NPY_INT32, True, 2, dim(own, 0), dim(own, 1))
    if not (cnp.PyArray_CheckExact(ids) and cnp.PyArray_TYPE(<cnp.ndarray>ids) == cnp.NPY_INT32
            and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>ids)
            and cnp.PyArray_SAMESHAPE(<cnp.ndarray>ids, <cnp.ndarray>own)):
        return -1
    memcpy(own_, cnp.PyArray_DATA(<cnp.ndarray>ids), n * sizeof(int32_t))
    for i in range(n):
        wrong += (own_[i] != allowed) & ((own_[i] < 0) | (own_[i] >= limit))
        others += own_[i] != allowed
    return -1 if wrong else others


def take_finite(own: Sequence[NDArray[Any]], values: Sequence[NDArray[Any]]) -> bool:
    """Copy arrays (B, H) into those of the same shapes and types in ``own``. Returns whether the copies are finite."""
    cdef int kind, finite = 1
    cdef Py_ssize_t n
    cdef void *own_
    for to, array in zip(own, values, strict=True):
        kind = real_kind("own", to)
        n = cnp.PyArray_SIZE(<cnp.ndarray>to)
        own_ = data("own", to, kind, True, 2, dim(to, 0), dim(to, 1))
        memcpy(own_, data("values", array, kind, False, 2, dim(to, 0), dim(to, 1)),
               n * (sizeof(float) if kind == cnp.NPY_FLOAT32 else sizeof(double)))
        finite &= f32.all_finite(<float *>own_, n) if kind == cnp.NPY_FLOAT32 else f64.all_finite(<double *>own_, n)
    return finite == 1


def take_row(own: NDArray[Any], values: Any, mean: Doubles | None, std: Doubles | None, bint column=False,
             bint missing=False) -> bool:
    """Copy a row (N,) into own (1, 1, N), or rows (B, N) into (1, B, N), in its dtype, as (values - mean) / std in double.

    Returns whether that was done: only for a float32 or float64 array of that shape in C order, and numbers that are
    then finite, or with ``missing`` NaN. With ``column`` also for (B,) if N is 1. ``mean`` and ``std`` (N,), or None.
    """
    cdef int kind = real_kind("own", own), other
    cdef Py_ssize_t B = dim(own, 1), N = dim(own, 2), n = B * N, i, j = 0
    cdef void *own_ = data("own", own, kind, True, 3, 1, B, N)
    cdef const double *mean_ = NULL
    cdef const double *std_ = NULL
    cdef const void *values_
    cdef double value
    cdef bint good
    if mean is not None:
        mean_ = <const double *>data("mean", mean, cnp.NPY_FLOAT64, False, 1, N)
        std_ = <const double *>data("std", std, cnp.NPY_FLOAT64, False, 1, N)
    if not (cnp.PyArray_CheckExact(values) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>values)):
        return False
    other = cnp.PyArray_TYPE(<cnp.ndarray>values)
    if other != cnp.NPY_FLOAT32 and other != cnp.NPY_FLOAT64:
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray>values) == 1:
        good = cnp.PyArray_DIM(<cnp.ndarray>values, 0) == n and (B == 1 or (column and N == 1))
    else:
        good = (B > 1 and cnp.PyArray_NDIM(<cnp.ndarray>values) == 2 and dim(values, 0) == B and dim(values, 1) == N)
    if not good:
        return False
    values_ = cnp.PyArray_DATA(<cnp.ndarray>values)
    for i in range(n):
        value = (<const float *>values_)[i] if other == cnp.NPY_FLOAT32 else (<const double *>values_)[i]
        if mean_ != NULL:
            value = (value - mean_[j]) / std_[j]
            j = j + 1 if j + 1 < N else 0
        if kind == cnp.NPY_FLOAT32:
            value = (<float *>own_)[i] = <float>value
        else:
            (<double *>own_)[i] = value
        good &= value - value == 0 or (missing and value != value)
    return good


def count_present(targets: NDArray[Any], int32_t missing) -> int:
    """How many elements are not missing: of int32 not equal to ``missing``, of float32 or float64 not NaN."""
    cdef cnp.ndarray plain = targets
    cdef int kind = cnp.PyArray_TYPE(plain)
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(plain), count = 0
    cdef const void *x
    if kind != cnp.NPY_INT32:
        kind = real_kind("targets", targets)
    if not cnp.PyArray_ISCARRAY_RO(plain):
        plain = plain_array(plain, kind)
    x = cnp.PyArray_DATA(plain)
    for i in range(n):
        if kind == cnp.NPY_INT32:
            count += (<const int32_t *>x)[i] != missing
        elif kind == cnp.NPY_FLOAT32:
            count += (<const float *>x)[i] == (<const float *>x)[i]
        else:
            count += (<const double *>x)[i] == (<const double *>x)[i]
    return count


cdef struct StepsOf:
    char *to
    const char *values
    Py_ssize_t size, to_steps, steps  # bytes of a step; steps of each array


@cython.final
cdef class StepCopies:
    """Copies of steps from arrays (T, ...) into other arrays (T', ...), all of them in one call.

    Parameters
    ----------
    to, values : sequence of arrays
        C-contiguous, pair by pair of one type, with steps of the same shape. Belong to the caller, who never resizes them.
    """
    cdef list pairs
    cdef StepsOf *steps
    cdef Py_ssize_t count

    def __cinit__(self, to, values):
        cdef Py_ssize_t i
        cdef StepsOf *s
        self.pairs = list(zip(to, values, strict=True))
        self.count = len(self.pairs)
        self.steps = <StepsOf *>PyMem_Calloc(max(self.count, 1), sizeof(StepsOf))
        if self.steps == NULL:
            raise MemoryError("no memory for a list of copies")
        for i in range(self.count):
            a, b = self.pairs[i]
            if not (cnp.PyArray_Check(a) and cnp.PyArray_ISCARRAY(<cnp.ndarray>a) and a.ndim and not a.dtype.hasobject):
                raise ValueError(f"to: expected writable C-contiguous arrays of steps, got {describe(a)}")
            if not (cnp.PyArray_Check(b) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>b) and a.dtype == b.dtype
                    and a.ndim == b.ndim and a.shape[1:] == b.shape[1:]):
                raise ValueError(f"values: expected steps like those of a {describe(a)}, got {describe(b)}")
            s = &self.steps[i]
            s.to, s.values = <char *>cnp.PyArray_DATA(<cnp.ndarray>a), <const char *>cnp.PyArray_DATA(<cnp.ndarray>b)
            s.to_steps, s.steps, s.size = len(a), len(b), a.nbytes // max(1, len(a))

    def __dealloc__(self):
        PyMem_Free(self.steps)

    def run(self, Py_ssize_t to_first, Py_ssize_t first, Py_ssize_t count) -> None:
        """to[to_first : to_first + count] = values[first : first + count], of each pair, which may overlap."""
        cdef Py_ssize_t i
        cdef StepsOf *s
        for i in range(self.count):
            s = &self.steps[i]
            if not (0 <= count and 0 <= to_first <= s.to_steps - count and 0 <= first <= s.steps - count):
                raise IndexError(f"count: expected steps of arrays of {s.to_steps} and {s.steps}, got {count} from "
                                 f"{to_first} and {first} on")
        for i in range(self.count):
            s = &self.steps[i]
            memmove(s.to + to_first * s.size, s.values + first * s.size, count * s.size)


# ---- copies and sums of rows, as kernel calls, for what a program repeats ------------------------------------------------

cdef struct Rows:
    char *to
    const char *values          # NULL: zeros
    Py_ssize_t T, rows, size    # steps, rows of each, bytes of a row that are copied
    Py_ssize_t to_step, to_row, step, row  # bytes from one to the next
    int kind                    # for sums


cdef void copy_rows_call(const void *arguments) noexcept nogil:
    a = <const Rows *>arguments
    cdef Py_ssize_t t, b
    cdef bint whole = a.to_row == a.size and (a.values == NULL or a.row == a.size)  # of every step
    cdef Py_ssize_t rows = 1 if whole else a.rows, size = a.size * a.rows if whole else a.size
    for t in range(a.T):
        for b in range(rows):
            if a.values == NULL:
                memset(a.to + t * a.to_step + b * a.to_row, 0, size)
            else:
                memcpy(a.to + t * a.to_step + b * a.to_row, a.values + t * a.step + b * a.row, size)


cdef void add_rows_call(const void *arguments) noexcept nogil:
    """In the mode of the caller, as NumPy's sum is: kernels would flush denormals."""
    a = <const Rows *>arguments
    cdef Py_ssize_t t, b
    for t in range(a.T):
        for b in range(a.rows):
            if a.kind == cnp.NPY_FLOAT32:
                add_floats(<float *>(a.to + t * a.to_step + b * a.to_row),
                           <const float *>(a.values + t * a.step + b * a.row), a.size // 4)
            else:
                add_doubles(<double *>(a.to + t * a.to_step + b * a.to_row),
                            <const double *>(a.values + t * a.step + b * a.row), a.size // 8)


cdef void add_floats(float *to, const float *values, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        to[i] += values[i]


cdef void add_doubles(double *to, const double *values, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        to[i] += values[i]


cdef int rows_call(kernel_call call, to, values, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t to_column, Py_ssize_t column,
                   Py_ssize_t columns) except -1:
    cdef int kind = real_kind("to", to)
    cdef Py_ssize_t T = dim(to, 0), B = dim(to, 1), K = dim(to, 2), L = K
    cdef Py_ssize_t size = 4 if kind == cnp.NPY_FLOAT32 else 8
    cdef Rows a
    a.to = <char *>data("to", to, kind, True, 3, T, B, K)
    a.values = NULL
    if values is not None:
        L = dim(values, 2)
        a.values = <const char *>data("values", values, kind, False, 3, T, B, L)
        need_apart("to", to, "values", values)
    if columns < 0:
        columns = min(K - to_column, L - column)
    need_range("b0, b1", b0, b1, B, 1)
    need_range("columns", to_column, to_column + columns, K, 1)
    need_range("columns", column, column + columns, L, 1)
    a.T, a.rows, a.size, a.kind = T, b1 - b0, columns * size, kind
    a.to_row, a.row, a.to_step, a.step = K * size, L * size, B * K * size, B * L * size
    a.to += b0 * a.to_row + to_column * size
    if a.values != NULL:
        a.values += b0 * a.row + column * size
    return perform(call, &a, sizeof(a))


def copy_rows(to: Real, values: Real | None, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t to_column=0, Py_ssize_t column=0,
              Py_ssize_t columns=-1):
    """to[:, b0:b1] = values[:, b0:b1], or 0 for None; of so many columns from those two on, by default all.

    to (T, B, K) OUT;  values (T, B, L) IN.
    """
    rows_call(copy_rows_call, to, values, b0, b1, to_column, column, columns)


def add_rows(to: Real, values: Real, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t to_column=0, Py_ssize_t column=0,
             Py_ssize_t columns=-1):
    """to[:, b0:b1] += values[:, b0:b1]; arguments as in `copy_rows`. Bit-identical to NumPy's sum."""
    if values is None:
        raise TypeError("values: expected an array, got None")
    rows_call(add_rows_call, to, values, b0, b1, to_column, column, columns)


cdef struct LargestOfRows:
    int32_t *out
    const char *values
    Py_ssize_t T, B, V, b0, b1
    int kind


cdef int32_t largest_of(const cython.floating *x, Py_ssize_t n) noexcept nogil:
    cdef int32_t best = 0
    cdef Py_ssize_t i
    for i in range(1, n):
        if x[best] != x[best]:
            break
        if not x[i] <= x[best]:
            best = <int32_t>i
    return best


cdef void largest_of_rows_call(const void *arguments) noexcept nogil:
    a = <const LargestOfRows *>arguments
    cdef Py_ssize_t t, b, row
    for t in range(a.T):
        for b in range(a.b0, a.b1):
            row = t * a.B + b
            if a.kind == cnp.NPY_FLOAT32:
                a.out[row] = largest_of(<const float *>a.values + row * a.V, a.V)
            else:
                a.out[row] = largest_of(<const double *>a.values + row * a.V, a.V)


def largest_of_rows(out: Ids, values: Real, Py_ssize_t b0, Py_ssize_t b1):
    """out[:, b0:b1] = values[:, b0:b1].argmax(axis=2), as NumPy computes it: the first maximum, or the first NaN.

    out (T, B) int32 OUT;  values (T, B, V) IN, V at least 1.
    """
    cdef int kind = real_kind("values", values)
    cdef LargestOfRows a
    a.T, a.B, a.V, a.b0, a.b1, a.kind = dim(values, 0), dim(values, 1), dim(values, 2), b0, b1, kind
    a.out = <int32_t *>data("out", out, cnp.NPY_INT32, True, 2, a.T, a.B)
    a.values = <const char *>data("values", values, kind, False, 3, a.T, a.B, a.V)
    need_range("b0, b1", b0, b1, a.B, 1)
    if a.V < 1:
        raise ValueError("values: expected at least one column, got none")
    perform(largest_of_rows_call, &a, sizeof(a))
