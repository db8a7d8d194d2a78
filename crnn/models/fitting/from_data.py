# SPDX-License-Identifier: MIT
"""What the training data decide when a model's arguments do not: sizes, classes, and the windows of a lone series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from crnn.array_input import items, real_numbers
from crnn.checks import Array
from crnn.models.inputs.data import array_of, check_steps
from crnn.models.inputs.text_inputs import is_learnt, learn_vocab, refuse_texts
from crnn.models.outputs.targets import Label, as_label, is_missing, labels_of
from crnn.text.windows import IGNORE_INDEX

LONGEST_WINDOW = 128  # steps of a window that is cut from a lone series
MOST_IDS = 10_000_000  # that the data decide; a given input_size may be larger
WINDOWS_PER_LENGTH = 4  # a window starts after so many parts of a window's length


def materialised(value: Any) -> Any:
    """``value``, which may be read several times: an iterator becomes a list."""
    return list(value) if isinstance(value, Iterator) else value


def input_size_of(name: str, X: Any, *, ids: bool = True) -> int:
    """D of real sequences (T, D) or (T,), or the number of ids: the largest integer of sequences (T,), plus 1.

    Integers are numbers, and D is 1, if one is negative, or without ``ids``. Raises TypeError and ValueError, which
    call X ``name``.
    """
    X = items(name, X, "a list of arrays, or an array (N, T, D)")
    refuse_texts(name, X)
    if isinstance(X, np.ndarray) and X.ndim not in (2, 3):
        hint = "; for one sequence write [x]" if X.ndim == 1 and X.size else ""
        expected = "shape (N, T, D), or (N, T) for one variable or for ids"
        raise ValueError(f"{name}: expected {expected}, got {X.shape}{hint}")
    if not len(X):
        raise ValueError(f"{name}: expected at least one sequence, got none")
    check_steps(name, X)
    arrays = [real_numbers(f"{name}[{i}]", x) for i, x in enumerate(X)]
    first = arrays[0]
    if first.ndim == 2:
        if not first.shape[1]:
            raise ValueError(f"{name}[0]: expected numbers of shape (T, D), got shape {first.shape}")
        return int(first.shape[1])
    if first.ndim == 1 and first.dtype.kind in "iu" and ids:
        integers = [array for array in arrays if array.size and array.dtype.kind in "iu"]
        if min(int(array.min()) for array in integers) >= 0:
            largest = max(int(array.max()) for array in integers)
            if largest >= MOST_IDS:
                raise ValueError(
                    f"{name}: expected ids, each of which has its own weights, got one of {largest}; write "
                    "input_size=1 if they are numbers"
                )
            return max(2, 1 + largest)
    if first.ndim == 1:
        return 1
    raise ValueError(f"{name}[0]: expected numbers of shape (T, D), got shape {first.shape}")


def missing_inputs(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins for the arguments about inputs that the training data must decide."""
    if is_learnt(arguments["vocab"]):
        return {"vocab": None, "input_size": 2}
    known = arguments["input_size"] is not None or arguments["vocab"] is not None
    return {} if known else {"input_size": 2}


def inputs_from(arguments: Mapping[str, Any], X: Any) -> dict[str, Any]:
    """The arguments about inputs that the training data decide. Raises TypeError and ValueError."""
    vocab = arguments["vocab"]
    if is_learnt(vocab):
        if arguments["input_size"] is not None:
            raise ValueError(f"input_size: expected None with vocab={vocab!r}, got {arguments['input_size']!r:.100}")
        return {"vocab": learn_vocab("X", X, vocab)}
    return {} if missing_inputs(arguments) == {} else {"input_size": input_size_of("X", X)}


def labels_in(name: str, y: Any) -> list[Label]:
    """The different labels in y, in ascending order, without missing ones, as Python objects.

    Raises TypeError and ValueError, which call y ``name``, unless they are strings, integers or bools of two or more
    values.
    """
    y = items(name, labels_of(materialised(y)), "a list or an array of targets")
    found: dict[Any, None] = {}
    for i, entry in enumerate(y):
        for label in array_of(f"{name}[{i}]", entry, object).reshape(-1).tolist():
            label = as_label(label)
            if is_missing(label):
                continue
            if type(label) is float:
                raise ValueError(
                    f"{name}[{i}]: expected labels that are strings, integers or bools, got float {label!r}; a "
                    "SequenceRegressor learns continuous numbers"
                )
            if type(label) not in (str, int, bool):
                got = f"{type(label).__name__} {label!r:.100}"
                raise TypeError(f"{name}[{i}]: expected labels that are strings, integers or bools, got {got}")
            found[label] = None
    if found.keys() != {IGNORE_INDEX, 1}:  # -1 and 1 alone are two classes
        found.pop(IGNORE_INDEX, None)
    if len({type(label) for label in found}) > 1:
        raise TypeError(f"{name}: expected labels of one type, got strings, integers or bools mixed")
    if len(found) < 2:
        got = f"only one class, {next(iter(found))!r}" if found else "only unlabelled entries"
        note = f"{IGNORE_INDEX} is no label unless `classes` has it"
        raise ValueError(f"{name}: expected labels of at least two classes, got {got} ({note})")
    return sorted(found)


def are_names(y: Any) -> bool:
    """Whether the first label in y that is not missing is a string or a bool."""
    if isinstance(y, np.ndarray) and y.dtype.kind in "iuf":
        return False
    for entry in items("y", labels_of(y), "a list or an array of targets"):
        for label in array_of("y", entry, object).reshape(-1).tolist():
            if not is_missing(label):
                return isinstance(label, str | bool | np.bool_)
    return False


def class_arguments(name: str, y: Any, *, multilabel: bool) -> dict[str, Any]:
    """``num_classes``, and ``classes`` unless labels are 0 .. num_classes - 1, of labels y."""
    if multilabel:
        entries = items(name, y, "a list or an array of targets")
        last = np.shape(entries[0])[-1:] if len(entries) else ()
        if not last:
            raise ValueError(f"{name}: expected a last axis with one number for each class, got none")
        return {"num_classes": int(last[0])}
    labels = labels_in(name, y)
    plain = type(labels[0]) is int and labels == list(range(len(labels)))
    return {"num_classes": len(labels)} if plain else {"classes": labels}


def target_size_of(name: str, y: Any, input_size: int, *, single: bool) -> int | None:
    """P of real targets y, or of forecasts if y is None; None for one number (N,) for each sequence."""
    if y is None:
        return None if single else input_size
    entries = items(name, y, "a list or an array of targets")
    values = real_numbers(f"{name}[0]", entries[0]) if len(entries) else np.zeros(())
    return int(values.shape[-1]) if values.ndim == (1 if single else 2) else None if single else 1


def windows_of(series: Array, length: int | None) -> list[Array]:
    """Overlapping windows of a series (T, D), views, all of one length; the last one ends with the series.

    ``length`` : an eighth of the series if not given, but at least 16 and at most LONGEST_WINDOW steps.
    """
    T = len(series)
    steps = min(T, length or min(LONGEST_WINDOW, max(16, T // 8)))
    starts = list(range(0, T - steps, max(1, steps // WINDOWS_PER_LENGTH)))
    return [series[start : start + steps] for start in [*starts, T - steps]]
