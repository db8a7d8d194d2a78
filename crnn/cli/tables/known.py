# SPDX-License-Identifier: MIT
"""Tables for models that exist: read with the columns that the model was trained on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import crnn
from crnn.cli.tables.labels import is_label_of
from crnn.cli.tables.layout import Layout, layout_of, some_of
from crnn.cli.tables.sequences import Sequences, read_sequences
from crnn.cli.tables.table import TableError
from crnn.models.inputs.names import by_position

__all__ = ["refuse_options", "saved_options", "sequences_for"]


def sequences_for(model: Any, arguments: argparse.Namespace, *, labelled: bool | None) -> tuple[Sequences, bool]:
    """The sequences in ``arguments.data`` as a model takes them, and whether it predicts every step.

    ``labelled``: as in `read_sequences`. Raises ValueError for a model of another kind, and TableError.
    """
    kinds = (crnn.SequenceClassifier, crnn.SequenceTagger, crnn.SequenceRegressor)
    if not isinstance(model, kinds):
        expected = "a model of sequences, such as a SequenceClassifier"
        raise ValueError(f"{arguments.model}: expected {expected}, got a {type(model).__name__}")
    per_step = model.pooling is None
    saved = saved_options(model)
    layout = _with_defaults(layout_of(arguments, saved), saved)
    names = list(getattr(model, "feature_names_in_", ()))
    if len(names) == model.n_features_in_ and model.vocab is None and layout.format != "wide" and not layout.columns:
        layout = replace(layout, columns=tuple(names), format="long")  # of DataFrames, one for each sequence
    by_position(model)
    if per_step:
        layout = replace(layout, format="long")
    if layout.format == "long":  # without ids all rows would be one sequence
        layout = replace(layout, optional=tuple(name for name in layout.optional if name != "id"))
    sequences = read_sequences(
        arguments.data,
        layout,
        labelled=labelled,
        per_step=per_step,
        texts=model.vocab is not None,
        is_label=_is_label(model, layout.reading.decimal),
    )
    size = model.net.input_size if model.vocab is not None else sequences.x[0].shape[1]
    if size != model.net.input_size:
        got = f"{size} ({some_of(sequences.columns)})" if sequences.columns else str(size)
        raise TableError(
            f"{sequences.name}: expected {model.net.input_size} columns of values, as the model has learnt, got {got}"
        )
    return sequences, per_step


def refuse_options(arguments: argparse.Namespace, names: Iterable[str], what: str) -> None:
    """Raise ValueError for an option that was given, or is not its default, although ``what`` has none such."""
    for name in names:
        if getattr(arguments, name) != arguments.parser.get_default(name):
            raise ValueError(f"{name}: not an option for {what}, which {arguments.model} is for")


def _is_label(model: Any, decimal: str) -> Callable[[str], bool] | None:
    """A function that tells whether a cell is a label of this model; None if nothing does."""
    if not hasattr(model, "num_classes"):
        return None
    if model.multilabel:
        return ("", "0", "1").__contains__
    found: Callable[[str], bool] = is_label_of(model, decimal)
    return found


def saved_options(model: Any) -> dict[str, Any]:
    """The options of the run that trained a model, as far as ``crnn train`` did."""
    runs = model.training_runs
    options = runs[-1].get("command") if runs else None
    return options if isinstance(options, dict) else {}


def _with_defaults(layout: Layout, saved: dict[str, Any]) -> Layout:
    """A layout in which what was not said is as it was in training."""

    def text(name: str) -> str | None:
        value = saved.get(name)
        return value if isinstance(value, str) else None

    def texts(name: str) -> tuple[str, ...]:
        value = saved.get(name)
        return tuple(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else ()

    return replace(
        layout,
        format=text("format") or layout.format if layout.format == "auto" else layout.format,
        id=layout.id or text("id"),
        time=layout.time or text("time"),
        labels=layout.labels or texts("label") or texts("target"),
        columns=layout.columns or texts("column"),
        text=layout.text or text("text"),
        weight=layout.weight or text("sample-weight"),
        mask=layout.mask or text("mask"),
        optional=tuple(name for name in ("id", "time", "weight", "mask") if getattr(layout, name) is None),
    )
