# SPDX-License-Identifier: MIT
"""What users pass as arrays, as NumPy arrays: the one place where crnn converts them.

    as_array        anything array-like; values keep their type, and memory is borrowed where it can be
    as_ids, ids_1d  ids, which cannot be missing; a text of them
    real_numbers    real numbers, with missing ones as NaN; text, dates, complex numbers and other objects are refused
    in_precision    real numbers as float32 or float64, refused if one of them overflows
    check_finite    no NaN, no infinity
    items           the sequences or targets of a list, an array, a Series, an iterator

A masked entry of a masked array, `None` and pandas' `NA` are missing numbers. They become NaN, which inputs refuse and
targets accept; `with_missing` makes them the number of a missing class. Imports no library but NumPy: others are
recognised by what they offer (``__array__``, ``__dlpack__``, ``detach``), without importing them.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterator, Mapping, Set, ValuesView
from typing import Any

import numpy as np

from crnn._core.arrays import plain
from crnn._core.loss import all_finite
from crnn.checks import Array

__all__ = [
    "as_array",
    "as_ids",
    "check_finite",
    "ids_1d",
    "in_precision",
    "is_finite",
    "items",
    "real_numbers",
    "shown",
    "take_one",
    "with_missing",
]

REAL_KINDS = "fiub"  # of dtypes
COMPLEX = "Complex data not supported"  # in the words of scikit-learn


# ---- array-likes -----------------------------------------------------------------------------------------------------


def as_array(name: str, value: Any) -> Array:
    """``value`` as a NumPy array, borrowed if possible. Raises TypeError and ValueError, which call it ``name``."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        return _from_masked(name, value)
    if isinstance(value, Mapping | Set | Iterator) or hasattr(type(value), "toarray"):
        columns = isinstance(value, Mapping) and not hasattr(type(value), "toarray")
        hint = "; write np.column_stack(list(d.values()))" if columns else _hint(value)
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}{hint}")
    if isinstance(value, list | tuple) and any(isinstance(part, np.ma.MaskedArray) for part in value):
        return _from_masked(name, _converted(name, value, np.ma.stack))
    if library_of(value) == "pandas":
        return _from_pandas(name, value)
    if hasattr(value, "detach"):  # a tensor of PyTorch, which may require a gradient
        value = value.detach()
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # which NumPy does not have
            value = value.float()
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        return _converted(name, value, np.from_dlpack)
    return _converted(name, value, np.asarray)


def as_ids(name: str, value: Any) -> Array:
    """`as_array` of ids, of which none may be masked. Raises TypeError and ValueError, which call them ``name``."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: expected ids, none of them masked, got {np.ma.getmaskarray(value).sum()} masked")
    return as_array(name, value)


def ids_1d(name: str, value: Any) -> Array:
    """Ids (N,) of any integer type, borrowed if possible. Raises TypeError and ValueError, which call them ``name``."""
    array = as_ids(name, value)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected shape (N,), got {array.shape}")
    if not array.size:
        return array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array


def with_missing(name: str, value: Any, missing: int) -> Array:
    """`as_array` of integers, with ``missing`` where they are masked."""
    if np.ma.is_masked(value) and value.dtype.kind in "iu":
        filled: Array = value.astype(np.int64).filled(missing)
        return filled
    return as_array(name, value)


def library_of(value: Any) -> str:
    """The name of the package that defines the class of ``value``."""
    return type(value).__module__.partition(".")[0]


def _converted(name: str, value: Any, convert: Any) -> Array:
    try:
        array: Array = np.asarray(convert(value))
    except (TypeError, ValueError, OverflowError, RuntimeError, BufferError) as error:  # ragged, or on another device
        reason = f" ({error})" if not isinstance(value, list | tuple) else ""
        raise ValueError(f"{name}: expected numbers in an array, got {shown(value)}{reason:.200}") from None
    return array


def shown(value: Any) -> str:
    """The start of the repr of a value on one line, for messages."""
    return " ".join(f"{value!r:.200}".split())[:100]


def _from_masked(name: str, value: Any) -> Array:
    """The values of a masked array, float64 with NaN for masked ones if there are any."""
    if not np.ma.is_masked(value):
        return np.asarray(value.data)
    if value.dtype.kind not in REAL_KINDS:
        raise TypeError(f"{name}: expected numbers, got masked values of {value.dtype}")
    filled: Array = value.astype(np.float64).filled(np.nan)
    return filled


def _from_pandas(name: str, value: Any) -> Array:
    """The values of a Series, DataFrame, Index or extension array."""
    if not hasattr(type(value), "columns"):  # not of the value, where a label may be called so
        return _from_pandas_column(name, value)
    parts = [real_numbers(f"{name}[{column!r}]", value.iloc[:, i]) for i, column in enumerate(value.columns)]
    if not parts:
        raise ValueError(f"{name}: expected at least one column of numbers, got none")
    return np.stack(parts, axis=1)


def _from_pandas_column(name: str, value: Any) -> Array:
    dtype: Any = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype) and getattr(dtype, "kind", "O") in REAL_KINDS and hasattr(value, "to_numpy"):
        missing = bool(value.isna().any())  # in nullable numbers, which NumPy would make objects
        value = value.to_numpy(np.float64, na_value=np.nan) if missing else value.to_numpy()
    return _converted(name, value, np.asarray)


def _hint(value: Any) -> str:
    """What to write instead of this, for error messages; empty if that is not known."""
    if hasattr(type(value), "toarray"):  # a sparse matrix of SciPy, which may be a mapping
        return ", which is sparse; write x.toarray()"
    if isinstance(value, Mapping):
        return "; pass its values, as list(d.values())"
    if isinstance(value, Set):
        return ", which has no order"
    if hasattr(type(value), "batch_sizes"):  # of PyTorch
        return "; write torch.nn.utils.rnn.unpack_sequence(x)"
    if library_of(value) == "pandas" and hasattr(type(value), "groups"):
        return "; pass its groups' columns, as [group[columns] for _, group in grouped]"
    if library_of(value) == "polars" and type(value).__name__ == "LazyFrame":
        return "; write x.collect()"
    if library_of(value) == "polars" and type(value).__name__ == "GroupBy":
        return "; pass its groups' columns, as [group.select(columns) for _, group in grouped]"
    return ""


# ---- numbers ---------------------------------------------------------------------------------------------------------


def real_numbers(name: str, value: Any) -> Array:
    """Real numbers of any NumPy type, missing ones as NaN; borrowed if possible.

    Raises TypeError and ValueError, which call them ``name``.
    """
    array = as_array(name, value)
    if array.dtype.char in "fd":  # float32 or float64, the case that has to be fast
        return array
    if array.dtype.kind == "O":
        array = _from_objects(name, array)
    if array.dtype.kind in "Mm":
        raise TypeError(
            f"{name}: expected numbers, got dates or times ({array.dtype}); convert them, for example to seconds with "
            "(t - t[0]) / np.timedelta64(1, 's')"
        )
    if array.dtype.isbuiltin != 1 and array.dtype.name == "bfloat16":  # a type that JAX adds to NumPy
        array = array.astype(np.float32)
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: expected numbers, got {array.dtype} of shape {array.shape}: {COMPLEX}")
    if array.dtype.kind not in REAL_KINDS:
        hint = "; write np.lib.recfunctions.structured_to_unstructured(x)" if array.dtype.names else ""
        raise TypeError(f"{name}: expected numbers, got {array.dtype} of shape {array.shape}{hint}")
    return array


def _from_objects(name: str, array: Array) -> Array:
    """float64 values of an array of Python numbers, or of arrays of equal shapes."""
    entries = array.reshape(-1).tolist()
    if entries and all(isinstance(entry, np.ndarray | list | tuple) for entry in entries):
        parts = [real_numbers(name, entry) for entry in entries]
        return _converted(name, parts, np.stack).reshape(*array.shape, *parts[0].shape)
    return np.array([_number(name, entry) for entry in entries], np.float64).reshape(array.shape)


def _number(name: str, entry: Any) -> float:
    """A Python number as a float, None and NA as NaN."""
    if entry is None or type(entry).__name__ == "NAType":
        return math.nan
    if isinstance(entry, np.ndarray) and entry.ndim == 0:
        entry = entry[()]
    is_real = isinstance(entry, numbers.Real | np.number | np.bool_) and not isinstance(entry, np.complexfloating)
    if is_real or (isinstance(entry, numbers.Number) and not isinstance(entry, numbers.Complex)):  # the latter: Decimal
        try:
            return float(entry)
        except (OverflowError, TypeError, ValueError):
            raise ValueError(f"{name}: expected numbers that a float can hold, got {entry!r:.100}") from None
    if isinstance(entry, complex | np.complexfloating):
        raise ValueError(f"{name}: expected numbers, got {entry!r}: {COMPLEX}")
    raise TypeError(f"{name}: expected numbers, got {type(entry).__name__} {shown(entry)}{_reason(entry)}")


def _reason(entry: Any) -> str:
    """What Python says of an object that is no number, for messages."""
    try:
        float(entry)
    except TypeError as error:
        return f" ({error})"
    except Exception:  # the user's own code
        pass
    return ""


def in_precision(name: str, array: Array, dtype: str) -> Array:
    """Real numbers as C-contiguous float32 or float64, borrowed if they are.

    Raises ValueError for a finite number that is infinite in this precision.
    """
    if array.dtype == dtype:
        return plain(array, dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype)
    if array.dtype.kind == "f" and array.dtype.itemsize > converted.dtype.itemsize and not is_finite(converted):
        lost = np.isfinite(array) & ~np.isfinite(converted)
        if lost.any():
            raise ValueError(f"{name}: expected numbers that {dtype} can hold, got {array[lost][0]}{_place(lost)}")
    return converted


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite."""
    kind = array.dtype.char
    if kind in "fd":
        return all_finite(array)
    return kind not in "eg" or bool(np.isfinite(array).all())  # half or extended precision; others are integers


def check_finite(name: str, array: Array, place: bool = True, hint: str = "") -> None:
    """Raise ValueError, which names the first value and, with ``place``, where it is, unless all are finite."""
    if not is_finite(array):
        wrong = ~np.isfinite(array)
        where = _place(wrong) if place else ""
        raise ValueError(f"{name}: expected finite numbers, got {array[wrong][0]}{where}{hint}")


def _place(wrong: Array) -> str:
    """Where the first True is, for messages."""
    if not wrong.ndim:
        return ""
    place = tuple(map(int, np.argwhere(wrong)[0]))
    return f" at {place[0] if len(place) == 1 else place}"


# ---- several ---------------------------------------------------------------------------------------------------------


def items(name: str, value: Any, what: str) -> Any:
    """A sequence of the entries of ``value``: a list, an array, a tensor, a Series, a DataFrame's rows, an iterator.

    Returns a NumPy array where ``value`` is one, or like one; otherwise a list or another object with ``len`` and
    numbered entries. Iterators are read to their end.

    Parameters
    ----------
    name : str
        What errors call it.
    value
    what : str
        What is expected, for messages.

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(value, Iterator | ValuesView):
        return list(value)
    if isinstance(value, str | bytes | Mapping | Set) or _hint(value):
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__}{_hint(value)}")
    if isinstance(value, np.ma.MaskedArray):
        return value  # the mask is needed by those who know what missing means
    if library_of(value) == "pandas":
        return _pandas_items(name, value, what)
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__") or isinstance(value, memoryview):
        value = as_array(name, value)
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            raise TypeError(f"{name}: expected {what}, got a single {value.dtype}")
        return list(value) if value.dtype.kind == "O" and value.ndim == 1 else value
    if not isinstance(value, Collection) or not hasattr(value, "__getitem__"):
        hint = "; pass a list" if hasattr(value, "__getitem__") or hasattr(value, "__iter__") else ""
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__}{hint}")
    return value


def _pandas_items(name: str, value: Any, what: str) -> Any:
    """The entries of a Series, an Index or an extension array, or the rows of a DataFrame."""
    if hasattr(type(value), "columns"):
        if value.index.nlevels > 1:  # rows of several sequences
            hint = "[group for _, group in x.groupby(level=0)]"
            got = f"a DataFrame with {value.index.nlevels} index levels"
            raise ValueError(f"{name}: expected {what}, got {got}; write {hint}")
        return as_array(name, value)
    array = as_array(name, value)
    return list(array) if array.dtype.kind == "O" else array


def take_one(name: str, value: Any) -> Any:
    """The entry in a 0-d array; other values as they are."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
