# SPDX-License-Identifier: MIT
"""``crnn predict``: what a model predicts for the sequences of a table, as a table."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import crnn
from crnn.cli.common import (
    STANDARD,
    CommandParser,
    add_output_flags,
    check_output,
    cores,
    file_or_standard,
    file_path,
    say,
    standard_output,
)
from crnn.cli.configuration import Repeated
from crnn.cli.results import add_json_flag, to_json
from crnn.cli.tables.forecasts import add_forecast_flags, forecasts
from crnn.cli.tables.known import refuse_options, sequences_for
from crnn.cli.tables.labels import classes_of
from crnn.cli.tables.layout import add_layout_flags
from crnn.cli.tables.sequences import Sequences
from crnn.io.atomic_write import replacing
from crnn.training.run_files import RunFiles

__all__ = ["add_arguments", "run"]

Facts = dict[str, Any]
# Options that forecasters do not have, and those that only they have.
OF_SEQUENCES = ("proba", "no_labels", "format", "label", "column", "text_column", "sample_weight", "mask")
OF_FORECASTS = ("horizon", "quantile", "target", "past", "future")


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn predict``."""
    parser.description = (
        "Writes a table with a row for each sequence, or for each step if the model predicts steps: ids, times and "
        "labels as they are in DATA, and the prediction. Columns are those that the model was trained on, by name."
    )
    parser.add_argument("model", type=file_path, help="a model of sequences, or a forecaster")
    parser.add_argument(
        "data",
        type=file_or_standard,
        nargs="?",
        help="table (.csv, .tsv, also compressed); - is standard input. A forecaster continues the series that it has "
        "learnt if there is none",
    )
    add_output_flags(parser, "write to this new file (.csv, .tsv), not standard output")
    parser.add_argument("--proba", action="store_true", help="add a column for the probability of every class")
    parser.add_argument("--threads", type=int, default=cores(), help="threads; the result does not depend on it")
    add_json_flag(parser, "an object for each sequence instead")
    ahead = parser.add_argument_group("forecasts")
    add_forecast_flags(ahead)
    ahead.add_argument(
        "--quantile",
        type=float,
        action=Repeated,
        default=[],
        help="forecast this quantile, such as 0.1, instead of one value; may be repeated",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--no-labels", action="store_true", help="the table has no labels, although a column looks so")
    add_layout_flags(data, encoding="that of the training, or utf-8,", trained=True)


def run(arguments: argparse.Namespace) -> int:
    """Predict, and write the table. Returns the exit status."""
    output: Path | None = arguments.output if arguments.output != STANDARD else None
    data = [] if arguments.data is None else [arguments.data]
    with RunFiles({"model": [arguments.model], "data": data}, {"output": output}):
        check_output(arguments)
        model = crnn.load(arguments.model)
        if isinstance(model, crnn.Forecaster):
            refuse_options(arguments, OF_SEQUENCES, "forecasts")
            content = forecasts(model, arguments)
        else:
            content = _of_sequences(model, arguments)
        if output is None:
            standard_output().write(content.encode())
        else:
            with replacing(output) as file:
                file.write(content.encode())
            say(f"wrote {output}")
    return 0


def _of_sequences(model: Any, arguments: argparse.Namespace) -> str:
    """The predictions for the sequences of a table as CSV, or with ``--json`` as objects."""
    refuse_options(arguments, OF_FORECASTS, "sequences")
    if arguments.data is None:
        raise ValueError("data: expected a table of sequences, got none")
    sequences, per_step = sequences_for(model, arguments, labelled=False if arguments.no_labels else None)
    say(sequences.describe())
    predictions = _predictions(model, sequences, per_step=per_step, arguments=arguments)
    if per_step and sequences.masks is not None:
        predictions = {name: _masked(values, sequences.masks) for name, values in predictions.items()}
    if arguments.json:
        return "".join(to_json(each) + "\n" for each in _objects(sequences, predictions))
    tab = arguments.output is not None and arguments.output.suffix.lower() in (".tsv", ".tab")
    return _table(sequences, predictions, per_step=per_step, delimiter="\t" if tab else ",")


def _predictions(model: Any, sequences: Sequences, *, per_step: bool, arguments: argparse.Namespace) -> Facts:
    """The columns of the predictions by name: arrays or lists with an entry, or a list of steps, per sequence."""
    options = {"threads": arguments.threads, "mask": sequences.masks}
    if not hasattr(model, "predict_proba"):
        if arguments.proba:
            raise ValueError(f"proba: expected a model of classes, got a {type(model).__name__}")
        return _values(model, model.predict(sequences.x, **options), per_step=per_step)
    probabilities = model.predict_proba(sequences.x, **options)
    found: Facts = {}
    predicted, names = model.predict(sequences.x, **options), [str(each) for each in classes_of(model)]
    if model.multilabel:
        for i, name in enumerate(names):
            found[f"prediction_{name}"] = _each(predicted, lambda steps, i=i: steps[..., i].astype(int), per_step)
    else:
        found["prediction"] = predicted
    if arguments.proba:
        for i, name in enumerate(names):
            found[f"proba_{name}"] = _each(probabilities, lambda steps, i=i: steps[..., i], per_step)
    return found


def _values(model: Any, values: Any, *, per_step: bool) -> Facts:
    """Columns of the values that a regressor predicts."""
    targets = [""] if model.output_size == 1 else [f"_{number}" for number in range(1, model.output_size + 1)]
    quantiles = [f"_q{level:g}" for level in model.quantiles] if model.loss == "quantile" else [""]
    width = len(targets) * len(quantiles)
    flat = _each(values, lambda steps: np.reshape(steps, (len(steps), width)), per_step)
    names = [f"prediction{target}{quantile}" for target in targets for quantile in quantiles]
    return {name: _each(flat, lambda steps, i=i: steps[..., i], per_step) for i, name in enumerate(names)}


def _masked(values: Any, masks: Sequence[Any]) -> list[list[Any]]:
    """Predictions (T_i,) of steps; None for those that are not there."""
    return [
        [value if there else None for value, there in zip(steps, mask, strict=True)]
        for steps, mask in zip(values, masks, strict=True)
    ]


def _each(values: Any, function: Callable[..., Any], per_step: bool) -> Any:
    """A function of the predictions: of an array (N, ...), or of each of a list of arrays (T_i, ...)."""
    return [function(each) for each in values] if per_step else function(np.asarray(values))


def _objects(sequences: Sequences, predictions: Facts) -> Iterator[Facts]:
    """An object for each sequence."""
    layout = sequences.layout
    for i in range(len(sequences)):
        found: Facts = {"line": sequences.lines[i][0]}
        if sequences.ids is not None:
            found[layout.id or "id"] = sequences.ids[i]
        if sequences.labels is not None:
            found["label"] = sequences.labels[i]
        yield found | {name: values[i] for name, values in predictions.items()}


def _table(sequences: Sequences, predictions: Facts, *, per_step: bool, delimiter: str) -> str:
    """All predictions as CSV, with a header."""
    layout, out = sequences.layout, io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    kept: list[tuple[list[str], Callable[[int, int], list[str]]]] = []  # names of columns, and their cells of a step
    if sequences.ids is not None:
        ids = sequences.ids
        kept.append(([_name(layout.id, "id")], lambda i, _: [ids[i]]))
    if per_step and sequences.times is not None:
        times = sequences.times
        kept.append(([_name(layout.time, "time")], lambda i, t: [times[i][t]]))
    if per_step and layout.text is not None:
        words = sequences.x
        kept.append(([layout.text], lambda i, t: [words[i][t]]))
    if sequences.labels is not None:
        labels, several = sequences.labels, len(layout.labels) > 1

        def cells(i: int, t: int) -> list[str]:
            found = labels[i][t] if per_step else labels[i]
            return found if several else [found]

        kept.append(([_name(each, "label") for each in layout.labels], cells))
    header = [name for names, _ in kept for name in names]
    twice = set(header) & set(predictions)
    if twice:
        raise ValueError(f"{sequences.name}: expected no column called {min(twice)}, as the predictions are called")
    writer.writerow([*header, *predictions])
    for i, x in enumerate(sequences.x):
        for t in range(len(x)) if per_step else [0]:
            row = [cell for _, cells_of in kept for cell in cells_of(i, t)]
            predicted = [values[i][t] if per_step else values[i] for values in predictions.values()]
            writer.writerow([*row, *map(_cell, predicted)])
    return out.getvalue()


def _name(column: str | None, otherwise: str) -> str:
    """The name of a column; of one that has only a number, what it is."""
    return otherwise if column is None or column.isdecimal() else column


def _cell(value: Any) -> str:
    """A prediction as text, empty if there is none; numbers in the shortest form that is read back exactly."""
    if value is None:
        return ""
    return str(value.item() if isinstance(value, np.generic) and value.dtype.kind in "iub" else value)
