# SPDX-License-Identifier: MIT
"""Which rows of a batch a kernel works on, where its sequences have different lengths."""

cimport numpy as cnp
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset
from crnn._core.arrays cimport data, dim, ids_data, int32_copy, need_range, real_kind
from crnn._core.header cimport crnn_dim

import math
import mmap

import numpy as np

cnp.import_array()

FEW = 32  # sequences
LARGE = 1 << 22  # bytes: NumPy requests pages of 2 MB from this size on


cdef class Lengths:
    """Lengths of a batch's sequences, each from 1 to T, dealt out to so many parts of about equal sums of lengths.

    ``order`` lists the batch's rows part by part, longest first within each, so that the rows which are active at a time
    step are always a part's first ones.

    Arrays (T, B, ...) have padding unless ``packed``. Packed arrays are (1, M, ...), M the sum of the lengths: row (t, b)
    is ``starts[t] + places[b]``, see crnn_rows in src_c/crnn.h. `pack` and `unpack` convert.
    """

    def __init__(self, lengths: ArrayLike, Py_ssize_t T, Py_ssize_t parts, bint packed=False):
        lengths = np.asarray(lengths)
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.size == 0:
            raise ValueError(f"lengths: expected integers of shape (B,), got {lengths.dtype} of shape {lengths.shape}")
        if parts < 1:
            raise ValueError(f"parts: expected 1 or more, got {parts}")
        copy = int32_copy(lengths)  # the kernels trust what is checked here
        self.T, self.B, self.packed = T, 0 if copy is None else copy.size, packed
        self.rows = 0 if copy is None else _sum_within(copy, T)
        if self.rows == 0:
            raise ValueError(f"lengths: expected from 1 to {T}, got {lengths.min()} to {lengths.max()}")
        self.lengths = copy
        longest_first = _longest_first(self.lengths)
        self.order, self.bounds = _dealt(self.lengths, longest_first, parts)
        if packed:
            self.starts, self.places = _packing(self.lengths, longest_first, T)
        self.lengths.flags.writeable = self.order.flags.writeable = False

    def part(self, Py_ssize_t part) -> tuple[int, int]:
        """The positions b0 .. b1 of a part."""
        return self.bounds[part], self.bounds[part + 1]

    def single(self) -> Lengths:
        """The same order and parts for arrays (1, B, ...), that have one step for each sequence."""
        cdef Lengths one = Lengths.__new__(Lengths)
        one.T, one.B, one.rows, one.order, one.bounds = 1, self.B, self.B, self.order, self.bounds
        one.lengths = np.ones(self.B, np.int32)
        one.lengths.flags.writeable = False
        return one

    def as_packed(self) -> Lengths:
        """The same lengths, in one part, for packed arrays."""
        if self.packed:
            return self
        cdef Lengths other = Lengths.__new__(Lengths)
        other.lengths, other.T, other.B, other.rows, other.packed = self.lengths, self.T, self.B, self.rows, True
        other.order, other.bounds = _dealt(self.lengths, _longest_first(self.lengths), 1)
        other.order.flags.writeable = False
        other.starts, other.places = _packing(self.lengths, other.order, self.T)
        return other

    def steps(self, Py_ssize_t t0, Py_ssize_t t1, Py_ssize_t b0, Py_ssize_t b1) -> tuple[Lengths, int, int]:
        """For the steps t0 .. t1-1 of arrays with padding: their lengths, in the same order, and which of the positions
        b0 .. b1-1 have a step there, and which have one after: those before the numbers returned. The lengths of
        sequences that have none there are 1.
        """
        need_range("b0, b1", b0, b1, self.B, 1)
        need_range("t0, t1", t0, t1, self.T, 1)
        cdef Lengths other = Lengths.__new__(Lengths)
        cdef const int32_t *lengths = ints(self.lengths)
        cdef const int32_t *order = ints(self.order)
        within = np.empty(self.B, np.int32)
        cdef int32_t *within_ = ints(within)
        cdef Py_ssize_t b
        for b in range(self.B):
            within_[b] = <int32_t>max(1, min(t1, lengths[b]) - t0)
        while b1 > b0 and lengths[order[b1 - 1]] <= t0:
            b1 -= 1
        cdef Py_ssize_t after = b1
        while after > b0 and lengths[order[after - 1]] <= t1:
            after -= 1
        within.flags.writeable = False
        other.lengths, other.T, other.B, other.rows = within, t1 - t0, self.B, 0
        other.order, other.bounds = self.order, self.bounds
        return other, b1, after

    def split(self, Py_ssize_t parts) -> Lengths:
        """The same lengths, dealt out to so many parts."""
        if parts == len(self.bounds) - 1:
            return self
        cdef Lengths other = Lengths.__new__(Lengths)
        other.lengths, other.T, other.B, other.rows, other.packed = self.lengths, self.T, self.B, self.rows, self.packed
        other.starts, other.places, other.flat_rows = self.starts, self.places, self.flat_rows
        other.order, other.bounds = _dealt(self.lengths, _longest_first(self.lengths), parts)
        other.order.flags.writeable = False
        return other

    def range_of(self, Py_ssize_t first, Py_ssize_t stop) -> Lengths:
        """The sequences first .. stop-1 of packed arrays, or of arrays (T, B, ...) if all lengths are T.

        Only for the kernels of weights' gradients, which then sum over the rows of these sequences, in the order that
        they would have in arrays of their own.
        """
        if not self.packed or self.held:
            raise ValueError("range_of: expected packed lengths of all sequences, got others")
        need_range("first, stop", first, stop, self.B, 1)
        if first == stop:
            raise ValueError(f"first, stop: expected at least one sequence, got {first}, {stop}")
        cdef Lengths some = Lengths.__new__(Lengths)
        some.lengths, some.starts, some.places = self.lengths[first:stop], self.starts, self.places[first:stop]
        some.T, some.B, some.rows, some.packed = self.T, stop - first, _sum_within(some.lengths, self.T), True
        some.held, some.first, some.batch = self.rows, first, self.B
        some.order, some.bounds = _dealt(some.lengths, _longest_first(some.lengths), 1)
        return some

    def padding(self) -> NDArray[Any]:
        """Where there is no step: bool (T, B)."""
        return np.arange(self.T)[:, None] >= self.lengths

    def clear_padding(self, array: NDArray[Any]) -> None:
        """Set the padding of a C-contiguous array (T, B, ...) to 0."""
        if not array.flags.c_contiguous or not array.flags.writeable or array.shape[:2] != (self.T, self.B):
            raise ValueError(f"array: expected a writable one of shape ({self.T}, {self.B}, ...) in C order, got "
                             f"{array.shape}")
        cdef const int32_t *lengths = ints(self.lengths)
        cdef char *rows = <char *>cnp.PyArray_DATA(<cnp.ndarray>array)
        cdef Py_ssize_t size = array.nbytes // (self.T * self.B), T = self.T, B = self.B, t, b
        with nogil:
            for t in range(T):
                for b in range(B):
                    if lengths[b] <= t:
                        memset(rows + (t * B + b) * size, 0, size)

    def padded_rows(self) -> NDArray[Any]:
        """Where each packed row (t, b) lies in padded arrays: t * B + b, intp (M,)."""
        cdef Py_ssize_t *index
        cdef const int32_t *longest_first
        cdef const int32_t *lengths = ints(self.lengths)
        cdef Py_ssize_t t, i, g = 0, active = self.B
        if self.flat_rows is None:
            flat, ranked = np.empty(self.rows, np.intp), self.ranked()
            index, longest_first = <Py_ssize_t *>cnp.PyArray_DATA(<cnp.ndarray>flat), ints(ranked)
            with nogil:
                for t in range(self.T):
                    while active > 0 and lengths[longest_first[active - 1]] <= t:
                        active -= 1
                    for i in range(active):
                        index[g] = t * self.B + longest_first[i]
                        g += 1
            self.flat_rows = flat
        return self.flat_rows

    def ranked(self) -> NDArray[int32]:
        """The sequences, the longest first: the inverse of `places`."""
        by_rank = np.empty(self.B, np.int32)
        by_rank[self.places.astype(np.intp)] = np.arange(self.B, dtype=np.int32)
        return by_rank

    def sequences(self) -> NDArray[Any]:
        """The batch row of each packed row: intp (M,)."""
        return self.padded_rows() % self.B

    def rows_of_part(self, Py_ssize_t b0, Py_ssize_t b1) -> NDArray[Any]:
        """The packed rows of positions b0 .. b1-1, ascending: intp."""
        mine = np.zeros(self.B, bool)
        mine[self.order[b0:b1].astype(np.intp)] = True
        return np.flatnonzero(mine[self.sequences()])

    def first_rows(self, b: Any) -> NDArray[Any]:
        """The packed row of the first step of the sequences with index ``b``."""
        return self.places[b].astype(np.intp)  # starts[0] is 0

    def last_rows(self, b: Any) -> NDArray[Any]:
        """The packed row of the last step of the sequences with index ``b``."""
        return self.starts[self.lengths[b].astype(np.intp) - 1] + self.places[b]

    def rows_before(self) -> NDArray[Any]:
        """The packed row of the step before each packed row from the second step on: intp (M - B,)."""
        counts = np.diff(self.starts, append=self.rows)
        return np.arange(self.B, self.rows) - np.repeat(counts[:self.T - 1], counts[1:])

    def pack_list(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Packed rows (1, M, ...) of sequences (T_b, ...), fresh."""
        packed = np.empty((1, self.rows, *arrays[0].shape[1:]), arrays[0].dtype)
        rows, starts = packed[0], self.starts
        for array, place in zip(arrays, self.places.tolist()):
            rows[starts[:len(array)] + place] = array
        return packed

    def unpack_list(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The rows (T_b, ...) of each sequence of a packed array (1, M, ...), fresh."""
        rows, starts = array[0], self.starts
        return [rows[starts[:n] + place] for n, place in zip(self.lengths.tolist(), self.places.tolist())]

    def pad_ids(self, sequences: Sequence[NDArray[int32]], Py_ssize_t first, int32_t filler) -> NDArray[int32]:
        """An array (T, B) of the ids of B sequences, from number ``first`` of each on, with ``filler`` as padding, fresh.

        NumPy's functions take three times as long, as a mask and the transpose have to be copied.
        """
        if len(sequences) != self.B:
            raise ValueError(f"sequences: expected {self.B}, got {len(sequences)}")
        padded = np.empty((self.T, self.B), np.int32)
        cdef int32_t *padded_ = ints(padded)
        cdef const int32_t *lengths = ints(self.lengths)
        cdef const int32_t *ids
        cdef Py_ssize_t T = self.T, B = self.B, b, t
        for b in range(B):
            ids = ids_data("sequences", sequences[b], 1, -1)
            if first < 0 or dim(sequences[b], 0) < first + lengths[b]:
                raise ValueError(f"sequences[{b}]: expected {lengths[b]} ids from number {first} on, got "
                                 f"{len(sequences[b])} in all")
            for t in range(lengths[b]):
                padded_[t * B + b] = ids[first + t]
            for t in range(lengths[b], T):
                padded_[t * B + b] = filler
        return padded

    def unpad_list(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """The values (T_b,) of each sequence of a padded array (T, B) of real numbers, views of one fresh array."""
        cdef int kind = real_kind("array", array)
        cdef const char *array_ = <const char *>data("array", array, kind, False, 2, self.T, self.B)
        cdef Py_ssize_t size = array.itemsize, B = self.B, b, t
        cdef const int32_t *lengths = ints(self.lengths)
        values = np.empty(sum(self.lengths.tolist()), array.dtype)
        cdef char *value = <char *>cnp.PyArray_DATA(<cnp.ndarray>values)
        views, end = [], 0
        for b in range(B):
            for t in range(lengths[b]):
                memcpy(value, array_ + (t * B + b) * size, size)
                value += size
            end += lengths[b]
            views.append(values[end - lengths[b] : end])
        return views

    def pack(self, array: NDArray[Any]) -> NDArray[Any]:
        """The rows of a padded array (T, B, ...) that are no padding: (1, M, ...), fresh."""
        rows = self.padded_rows()
        if array.flags.c_contiguous:
            return array.reshape(self.T * self.B, *array.shape[2:])[rows][None]
        return array[np.divmod(rows, self.B)][None]

    def padded_zeros(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros (T, B, *shape), fresh. Of a large array that is mostly padding, only the pages that are written to take
        memory; NumPy's own memory comes in pages of 2 MB there, which is all of it."""
        dtype = np.dtype(dtype)
        whole = (self.T, self.B, *shape)
        size = math.prod(whole) * dtype.itemsize
        if size < LARGE or self.T * self.B < 4 * self.rows or not hasattr(mmap, "MAP_ANONYMOUS"):
            return np.zeros(whole, dtype)
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError):
            raise MemoryError(f"no memory for a {dtype} array of shape {whole}, {size} bytes") from None
        return np.frombuffer(memory, dtype).reshape(whole)

    def unpack(self, array: NDArray[Any]) -> NDArray[Any]:
        """A packed array (1, M, ...) as (T, B, ...) with zeros as padding, fresh."""
        padded = self.padded_zeros(array.shape[2:], array.dtype)
        padded.reshape(self.T * self.B, *array.shape[2:])[self.padded_rows()] = array[0]
        return padded


cdef inline int32_t *ints(array) noexcept:
    """The elements of a contiguous array of int32. A memoryview would be half of this module's code."""
    return <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef Py_ssize_t _sum_within(lengths, Py_ssize_t T):
    """The sum of the lengths; 0 if there are none, or one is not from 1 to T. NumPy's functions cost more."""
    cdef Py_ssize_t b, total = 0
    cdef const int32_t *length = ints(lengths)
    for b in range(len(lengths)):
        if not 1 <= length[b] <= T:
            return 0
        total += length[b]
    return total


cdef object _longest_first(lengths):
    """The sequences, int32 (B,), the longest first; equal ones in their order."""
    cdef Py_ssize_t B = len(lengths), i, k
    if B > FEW:
        return np.argsort(-lengths, kind="stable").astype(np.int32)
    longest_first = np.empty(B, np.int32)
    cdef int32_t *order = ints(longest_first)
    cdef const int32_t *length = ints(lengths)
    for i in range(B):  # insertion: NumPy's functions would cost more than the sort
        k = i
        while k > 0 and length[order[k - 1]] < length[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = <int32_t>i
    return longest_first


cdef tuple _packing(lengths, longest_first, Py_ssize_t T):
    """`starts` and `places` of packed arrays."""
    B = len(lengths)
    places = np.empty(B, np.int32)
    places[longest_first.astype(np.intp)] = np.arange(B, dtype=np.int32)
    finished = np.cumsum(np.bincount(lengths, minlength=T + 1))  # sequences of at most t steps
    starts = np.zeros(T, np.intp)
    np.cumsum(B - finished[:T - 1], out=starts[1:])
    starts.flags.writeable = places.flags.writeable = False
    return starts, places


cdef tuple _dealt(lengths, longest_first, Py_ssize_t parts):
    """Batch rows part by part, int32 (B,), and where parts begin and end: each row, the longest first, goes to the part
    with the smallest sum of lengths."""
    if parts == 1:
        return longest_first, [0, len(longest_first)]
    sums, dealt = [0] * parts, [[] for _ in range(parts)]
    for b, length in zip(longest_first.tolist(), lengths[longest_first.astype(np.intp)].tolist()):
        part = sums.index(min(sums))
        sums[part] += length
        dealt[part].append(b)
    return np.array([b for rows in dealt for b in rows], np.int32), np.cumsum([0, *map(len, dealt)]).tolist()


cdef crnn_rows rows_of(Py_ssize_t T, Py_ssize_t B, Py_ssize_t b0, Py_ssize_t b1, lengths) except *:
    cdef crnn_rows rows = all_rows_of(T, B, lengths)
    cdef Py_ssize_t i
    need_range("b0, b1", b0, b1, rows.B, 1)
    rows.b0, rows.b1 = b0, b1
    if rows.lengths != NULL:
        if (<Lengths>lengths).held:
            raise ValueError("lengths: expected those of all sequences, got a range, of which there are only gradients")
        for i in range(b0 + 1, b1):
            if rows.lengths[rows.order[i]] > rows.lengths[rows.order[i - 1]]:
                raise ValueError(f"b0, b1: expected positions within one part of lengths, got {b0} .. {b1}")
    return rows


cdef crnn_rows all_rows_of(Py_ssize_t T, Py_ssize_t B, lengths) except *:
    cdef crnn_rows rows
    cdef Lengths given
    rows.T, rows.B, rows.b0, rows.b1 = T, B, 0, B
    rows.order = rows.lengths = rows.places = NULL
    rows.starts = NULL
    if lengths is not None:
        given = lengths  # a TypeError if it is something else
        if given.packed:
            if T * B != given.held if given.held else T != 1 or B != given.rows:
                raise ValueError(f"lengths: expected those of {T * B} packed rows, got {given.held or given.rows} in "
                                 f"{given.batch or given.B} sequences")
            rows.T, rows.B, rows.b1 = given.T, given.B, given.B
            rows.starts = <crnn_dim *>cnp.PyArray_DATA(<cnp.ndarray>given.starts)
            rows.places = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>given.places)
        elif given.T != T or given.B != B:
            raise ValueError(f"lengths: expected those of {B} sequences of up to {T} steps, "
                             f"got {given.B} of up to {given.T}")
        rows.order = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>given.order)
        rows.lengths = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>given.lengths)
    return rows
