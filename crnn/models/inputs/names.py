# SPDX-License-Identifier: MIT
"""Names of columns: those of a DataFrame, or of the DataFrames in a list of sequences, as scikit-learn compares them.

Values are read by position, those of inputs and of targets, so the columns must be those of the training, in its order.
Imports no library: what has ``columns`` is a DataFrame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, ValuesView
from typing import Any

import numpy as np

from crnn.checks import warn

__all__ = [
    "Names",
    "by_position",
    "check_names",
    "check_target_names",
    "names_of",
    "names_to_save",
    "target_names_of",
]

# None: it is not known whether the training data had names; (): they had none.
Names = tuple[str, ...] | None
SHOWN = 5  # names that a message lists, as in scikit-learn


def names_of(name: str, X: Any) -> tuple[str, ...]:
    """The names of the columns of X, which all of its DataFrames must share; () if they are not all strings.

    Raises TypeError for names of which only some are strings, and ValueError, which calls X ``name``.
    """
    return _shared(_all_names(X), name, "feature")


def check_names(model: Any, known: Names, name: str, X: Any) -> None:
    """Check the names of X, in the words of scikit-learn, against those that a model has ``known`` since its `fit`.

    Raises TypeError and ValueError for others, and warns if only one of them has names.
    """
    if known is None:
        return
    kind, several = type(model).__name__, _sequences_in(X) is not None
    without = False
    for i, names in enumerate(_all_names(X)):
        if names and known and names != known:
            where = f"{name}[{i}]: " if several else f"{name}: "
            start = f"{where}The feature names should match those that were passed during fit.\n"
            raise ValueError(start + _difference(known, names, "at fit time"))
        if names and not known:
            warn(f"{name} has feature names, but {kind} was fitted without feature names")
            return
        without = without or not names
    if known and without:
        warn(f"{name} does not have valid feature names, but {kind} was fitted with feature names")


def target_names_of(name: str, y: Any) -> tuple[str, ...]:
    """The names of the columns of targets y, which all of its DataFrames must share; () if there are fewer than two, or
    if they are not all strings.

    Raises ValueError, which calls y ``name``.
    """
    return _shared([_target_names(each) for each in _entries(y)], name, "target")


def check_target_names(model: Any, name: str, names: tuple[str, ...]) -> None:
    """Check the names of the columns of targets, which messages call ``name``, against those that a model knows.

    They are those of its `fit`, and with binary labels of classes the names of these. Raises ValueError for others, and
    for another order. Targets without names are read by position.
    """
    known = model._built.target_names
    if names and known and names != known:
        start = f"{name}: The target names should match those that were passed during fit.\n"
        raise ValueError(start + _difference(known, names, "at fit time", "Target"))
    classes = getattr(model, "classes", None) if getattr(model, "multilabel", False) else None
    if classes is not None and names != tuple(classes) and set(names) == set(classes):
        raise ValueError(f"{name}: expected columns in the order of classes, {list(classes)}, got {list(names)}")


def _target_names(value: Any) -> tuple[str, ...]:
    try:
        names = _names(value)
    except TypeError:  # names of several types
        return ()
    return names if len(names) > 1 else ()  # the name of a single column does not matter


def by_position(model: Any) -> None:
    """Let a model read columns without comparing names, for a caller that has found the columns by their names."""
    vars(model._built).update(feature_names=None, target_names=None)


def names_to_save(value: Any, entry: str = "feature_names") -> Names:
    """The names in the header of a file, in this ``entry``. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError(f"expected {entry}, a list of strings, got {value!r:.200}")
    return tuple(value)


def _all_names(X: Any) -> list[tuple[str, ...]]:
    """The names of a DataFrame, or of each of several sequences; () of what has none."""
    return list(map(_names, _entries(X)))


def _entries(X: Any) -> Sequence[Any]:
    """A table, or the sequences of a list; of these only one if none is a table, as none has names then."""
    entries = _sequences_in(X)
    if entries is None:
        return [X]
    return entries if any(hasattr(kind, "columns") for kind in set(map(type, entries))) else entries[:1]


def _sequences_in(X: Any) -> Sequence[Any] | None:
    """The sequences in a list, or in another collection of objects; None if X is a single array or table."""
    if isinstance(X, str | bytes | memoryview):
        return None
    if isinstance(X, Sequence):
        return X
    if isinstance(X, np.ndarray) or hasattr(type(X), "dtype"):  # of NumPy, or a Series
        return list(X) if X.dtype == object and X.ndim == 1 else None
    return list(X) if isinstance(X, ValuesView) else None


def _names(value: Any) -> tuple[str, ...]:
    if not hasattr(type(value), "columns"):
        return ()
    found = value.column_names if hasattr(type(value), "column_names") else value.columns  # of pyarrow, of others
    names = list(found) if isinstance(found, Iterable) else []
    types = sorted({type(each).__qualname__ for each in names})
    if len(types) > 1 and "str" in types:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your input has "
            f"{types} as feature name / column name types. If you want feature names to be stored and validated, you "
            "must convert them all to strings, by using X.columns = X.columns.astype(str) for example. Otherwise you "
            "can remove feature / column names from your input data, or convert them all to a non-string data type."
        )
    return tuple(names) if types == ["str"] else ()


def _shared(found: Sequence[tuple[str, ...]], name: str, kind: str) -> tuple[str, ...]:
    """The names that all entries with names share. Raises ValueError for others, in words of features or targets."""
    first = next((i for i, names in enumerate(found) if names), None)
    if first is None:
        return ()
    expected = found[first]
    for i, names in enumerate(found[first:], first):
        if names and names != expected:
            start = f"{name}[{i}]: The {kind} names should match those of {name}[{first}].\n"
            raise ValueError(start + _difference(expected, names, f"in {name}[{first}]", kind.capitalize()))
    return expected


def _difference(known: Sequence[str], names: Sequence[str], when: str, what: str = "Feature") -> str:
    unseen, missing = sorted(set(names) - set(known)), sorted(set(known) - set(names))
    if not unseen and not missing:
        order = "they were in fit" if when == "at fit time" else when.removeprefix("in ")
        return f"{what} names must be in the same order as {order}.\n"
    parts = (f"{what} names unseen {when}:\n", unseen), (f"{what} names seen {when}, yet now missing:\n", missing)
    return "".join(title + _listed(some) for title, some in parts if some)


def _listed(names: Sequence[str]) -> str:
    return "".join(f"- {name}\n" for name in names[:SHOWN]) + "- ...\n" * (len(names) > SHOWN)
