# SPDX-License-Identifier: MIT
"""Labels of tables as models take them: whole numbers are integers, others are strings, empty cells are unlabelled.

One number may be written in several ways, as 1.5 and 1.50.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from crnn.cli.tables.layout import some_of
from crnn.cli.tables.sequences import Sequences
from crnn.cli.tables.table import TableError, as_number

__all__ = ["classes_in", "classes_of", "describe_classes", "is_label_of", "targets_for", "targets_of", "values_of"]


def _cells(sequences: Sequences, *, per_step: bool) -> Iterator[tuple[int, Any]]:
    """Line and label, or labels if there are several columns, of each sequence or each step."""
    for lines, labels in zip(sequences.lines, sequences.labels or (), strict=True):
        yield from zip(lines, labels, strict=True) if per_step else [(lines[0], labels)]


def _whole(cell: str) -> int | None:
    """A label that is a whole number, also one written as 1.0; None for another."""
    if "_" in cell:  # which Python allows in numbers: a label 1_2 is not 12
        return None
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _number(cell: str, decimal: str) -> float | None:
    """A label that is a finite number; None for another."""
    number = as_number(cell, decimal)
    return number if number is not None and np.isfinite(number) else None


def classes_in(sequences: Sequences, *, per_step: bool) -> list[int] | list[str]:
    """The different labels in ascending order: integers if all are, otherwise as they are written.

    If all are numbers, several spellings of one, such as 1.5 and 1.50, are one class, of the shortest spelling. Raises
    TableError if there are less than two.
    """
    found = {str(label) for _, label in _cells(sequences, per_step=per_step)} - {""}
    whole = [_whole(label) for label in found]
    numbers = [_number(label, sequences.layout.reading.decimal) for label in found]
    classes: list[Any] = sorted(found)
    if None not in whole:
        classes = sorted(set(whole))
    elif None not in numbers:
        spelled = sorted(found, key=lambda label: (len(label), label), reverse=True)
        classes = sorted({_number(label, sequences.layout.reading.decimal): label for label in spelled}.values())
    if len(classes) < 2:
        got = f"only {next(iter(found))!r:.100}" if found else "none"
        raise TableError(
            f"{sequences.name}: expected labels of at least two classes in column {some_of(sequences.layout.labels)}, "
            f"got {got}"
        )
    return classes


def classes_of(model: Any) -> list[Any]:
    """The classes of a model, in the order of its probabilities."""
    return list(range(model.num_classes)) if model.classes is None else list(model.classes)


def _finder(classes: list[Any], decimal: str) -> Callable[[str], Any]:
    """A function that returns the class of a cell, None if there is none: numbers are found in every spelling."""
    names = {str(label): label for label in classes}
    integers = all(type(label) is int for label in classes)
    numbers = {_number(name, decimal): label for name, label in names.items()}

    def find(cell: str) -> Any:
        if integers:
            return names.get(str(_whole(cell)))
        if cell in names or None in numbers:
            return names.get(cell)
        return numbers.get(_number(cell, decimal))

    return find


def is_label_of(model: Any, decimal: str) -> Any:
    """A function that tells whether a cell is a label that the model knows, or none."""
    find = _finder(classes_of(model), decimal)
    return lambda cell: cell == "" or find(cell) is not None


def targets_of(sequences: Sequences, classes: list[Any], *, per_step: bool) -> list[Any]:
    """The labels, None for empty cells. Raises TableError for one that is none of the classes."""
    find = _finder(classes, sequences.layout.reading.decimal)
    known: dict[str, Any] = {"": None}

    def target(line: int, cell: str) -> Any:
        if cell not in known:
            label = find(cell)
            if label is None:
                where, column = f"{sequences.name}: line {line}", some_of(sequences.layout.labels)
                expected = f"one of the classes {some_of(map(str, classes))} in column {column}"
                raise TableError(f"{where}: expected {expected}, got {cell!r:.100}")
            known[cell] = label
        return known[cell]

    found = [target(line, label) for line, label in _cells(sequences, per_step=per_step)]
    return _per_sequence(found, sequences) if per_step else found


def binary_targets_of(sequences: Sequences, *, per_step: bool) -> list[Any]:
    """0 or 1 for each of several labels, NaN for empty cells: arrays (V,), or (T_i, V) of steps. Raises TableError."""
    known = {"": np.nan, "0": 0.0, "1": 1.0}

    def target(line: int, labels: list[str]) -> list[float]:
        for cell, column in zip(labels, sequences.layout.labels, strict=True):
            if cell not in known:
                where = f"{sequences.name}: line {line}, column {column}"
                why = "because several columns have labels"
                raise TableError(f"{where}: expected 0 or 1, {why}, got {cell!r:.100}")
        return [known[cell] for cell in labels]

    found = [target(line, labels) for line, labels in _cells(sequences, per_step=per_step)]
    if per_step:
        return [np.array(each) for each in _per_sequence(found, sequences)]
    return found


def values_of(sequences: Sequences, size: int, *, per_step: bool) -> Any:
    """The values (N, P), or a list of (T_i, P) of steps; NaN for empty cells. Raises TableError."""
    if sequences.labels is None:
        raise TableError(f"{sequences.name}: expected columns of the values to compare with, got none; see --label")
    columns = sequences.layout.labels
    if len(columns) != size:
        raise TableError(f"{sequences.name}: expected {size} columns of values to learn, got {some_of(columns)}")
    decimal = sequences.layout.reading.decimal

    def value(line: int, cell: str, column: str) -> float:
        number = as_number(cell, decimal) if cell else np.nan
        if number is None or np.isinf(number):
            where = f"{sequences.name}: line {line}, column {column}"
            raise TableError(f"{where}: expected a number or an empty cell, got {cell!r:.100}")
        return number

    found = [
        [value(line, cell, column) for cell, column in zip([cells] if size == 1 else cells, columns, strict=True)]
        for line, cells in _cells(sequences, per_step=per_step)
    ]
    return [np.array(each) for each in _per_sequence(found, sequences)] if per_step else np.array(found)


def _per_sequence(found: list[Any], sequences: Sequences) -> list[Any]:
    """What was found for each step, as a list for each sequence."""
    steps = iter(found)
    return [[next(steps) for _ in x] for x in sequences.x]


def targets_for(model: Any, sequences: Sequences, *, per_step: bool) -> list[Any]:
    """The targets of sequences for a model, which knows its classes. Raises TableError."""
    if sequences.labels is None:
        raise TableError(f"{sequences.name}: expected a column of labels, got none; --label names it")
    several = len(sequences.layout.labels) > 1
    if several != model.multilabel:
        expected = f"{model.num_classes} columns of labels" if model.multilabel else "one column of labels"
        raise TableError(f"{sequences.name}: expected {expected}, got {some_of(sequences.layout.labels)}")
    if several:
        return binary_targets_of(sequences, per_step=per_step)
    return targets_of(sequences, classes_of(model), per_step=per_step)


def describe_classes(sequences: Sequences, classes: list[Any], *, per_step: bool) -> str:
    """How often each class occurs, for people."""
    cells: Counter[str] = Counter()
    for _, labels in _cells(sequences, per_step=per_step):
        if isinstance(labels, list):
            cells.update(name for name, cell in zip(sequences.layout.labels, labels, strict=True) if cell == "1")
        else:
            cells[labels] += 1
    counts: Counter[Any] = Counter()
    find = _finder(classes, sequences.layout.reading.decimal)
    for cell, count in cells.items():
        counts[find(cell)] += count
    known = [f"{label} ({counts[label]:,})" for label in classes]
    unlabelled = f", {cells['']:,} without a label" if cells[""] else ""
    return f"{len(known)} classes: {some_of(known)}{unlabelled}"
