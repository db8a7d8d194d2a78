# SPDX-License-Identifier: MIT
# Numbers of rows and counts of them, as callers give them. Part of stream_batch.pyx.


cdef cnp.ndarray row_numbers(rows):
    """``rows`` as a copy, int32 (M,); None if they are None. Raises TypeError, and ValueError for what no batch has."""
    cdef cnp.ndarray copy
    if rows is None:
        return None
    if are_ids(rows):
        return int32_copy(rows)
    given = as_array("rows", rows)
    if given.ndim == 0:
        given = given.reshape(1)
    if given.shape == (0,):
        return np.empty(0, np.int32)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise TypeError(f"rows: expected integers (M,), got {described(rows)}")
    copy = int32_copy(given)
    if copy is None:
        raise ValueError(f"rows: expected active rows, got {given.min()} to {given.max()}")
    return copy


cdef Py_ssize_t row_number(row) except -1:
    """The number of one row. Raises TypeError, and ValueError for one that no batch has."""
    if isinstance(row, bool) or not isinstance(row, (int, np.integer)):
        raise TypeError(f"row: expected an integer, got {described(row)}")
    number = index(row)  # an exact int, which compares as it counts
    if not 0 <= number < MAX_ROWS:
        raise ValueError(f"row: expected an active row, got {row!r:.60}")
    return number


cdef Py_ssize_t check_count(str name, count) except -1:
    if isinstance(count, (int, np.integer)) and not isinstance(count, bool):
        number = index(count)  # an exact int, which compares as it counts
        if 0 <= number < MAX_ROWS:
            return number
    raise ValueError(f"{name}: expected an integer of at least 0 and below {MAX_ROWS}, got {count!r:.60}")
