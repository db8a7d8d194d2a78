# SPDX-License-Identifier: MIT
"""The kinds of entries of a training log, each declared once: its fields, and what a value read from a file must be.

    train, epoch                    losses, rates and times; also the rows of a table
    run, end                        what was trained, on what and how; how it ended
    sample, gradient_flow, text,    what the model does at this time, for reports
    confusion, forecast, values

Every entry also has ``kind``, ``epoch`` and ``update``. The epoch of "train" and "epoch" entries is the one that they
are of, numbered from 1; that of other kinds is the number of finished epochs. Whatever stores or shows a log reads this
list. A new kind is declared here, and is shown by a section of the report.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "EPOCH_FIELDS",
    "KINDS",
    "LARGEST_COUNT",
    "LONGEST_LINE",
    "TABLE_COLUMNS",
    "TRAINING_FIELDS",
    "Entry",
    "encodable",
    "is_entry",
    "is_history",
]

Entry = dict[str, Any]
Check = Callable[[Any], bool]

LARGEST_COUNT = 1 << 53  # of anything that a file counts
LONGEST_LINE = 1 << 20  # bytes of an entry as JSON


def encodable(text: str) -> str:
    """A text as UTF-8 can hold it: without lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


# ---- checks ----------------------------------------------------------------------------------------------------------


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_COUNT


def _is_number(value: Any) -> bool:
    """A float, which may be infinite or NaN, or an integer that counts something."""
    return type(value) is float or _is_count(value)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_settings(value: Any) -> bool:
    """Names with values that a page shows as text."""
    return isinstance(value, dict)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


_is_numbers, _is_texts = _list_of(_is_number), _list_of(_is_text)
_SERIES = {"name": _is_text, "history": _is_numbers, "truth": _is_numbers, "predicted": _is_numbers}
_BANDS = {"lower": _is_numbers, "upper": _is_numbers}


def _is_series(value: Any) -> bool:
    """Part of a series, what followed, and what was forecast: both of one length, as are the limits of a band."""
    if not (isinstance(value, dict) and _has_fields(value, _SERIES, _BANDS)):
        return False
    return all(len(value[name]) == len(value["truth"]) for name in ("predicted", *_BANDS) if name in value)


def _fits_gradient_flow(entry: Entry) -> bool:
    layers, steps = len(entry["layers"]), len(entry["steps"])
    by_layer = all(len(entry[name]) == layers for name in ("norms", "saturation", "spectral_radius"))
    return by_layer and all(len(norms) == steps for norms in entry["norms"])


def _fits_text(entry: Entry) -> bool:
    tokens, units = len(entry["tokens"]), len(entry["units"])
    try:
        size = len(base64.b64decode(entry["activity"], validate=True))
    except (ValueError, binascii.Error):
        return False
    return len(entry["surprisal"]) == tokens and len(entry["scale"]) == units and size == tokens * units


def _fits_confusion(entry: Entry) -> bool:
    classes = len(entry["labels"])
    return len(entry["counts"]) == classes and all(len(row) == classes for row in entry["counts"])


def _fits_values(entry: Entry) -> bool:
    return len(entry["truth"]) == len(entry["predicted"])


# ---- kinds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of entry.

    Attributes
    ----------
    fields, optional : dict of str to callable
        The fields besides ``kind``, ``epoch`` and ``update``, with the check of their values, in order.
    fits : callable
        Whether the fields fit together, given that each has passed its check.
    in_table : bool
        Whether a log in a CSV file has these entries, as rows.
    """

    fields: Mapping[str, Check]
    optional: Mapping[str, Check]
    fits: Callable[[Entry], bool]
    in_table: bool


def _kind(
    optional: Sequence[str] = (),
    fits: Callable[[Entry], bool] = lambda entry: True,
    in_table: bool = False,
    **fields: Check,
) -> Kind:
    """A kind with these fields, of which those in ``optional`` may be absent."""
    required = {name: check for name, check in fields.items() if name not in optional}
    return Kind(required, {name: fields[name] for name in optional}, fits, in_table)


KINDS: dict[str, Kind] = {
    "train": _kind(
        in_table=True,
        train_loss=_is_number,
        tokens=_is_count,
        seconds=_is_number,
        tokens_per_second=_is_number,
        lr=_is_number,
        grad_norm=_is_number,
        optional=("tokens_per_second", "lr", "grad_norm"),
    ),
    "epoch": _kind(
        in_table=True,
        train_loss=_is_number,
        tokens=_is_count,
        seconds=_is_number,
        valid_loss=_is_number,
        valid_accuracy=_is_number,
        optional=("valid_loss", "valid_accuracy"),
    ),
    "run": _kind(
        crnn=_is_text,
        started=_is_text,
        name=_is_text,
        machine=_is_settings,
        model=_is_settings,
        data=_is_settings,
        options=_is_settings,
        epochs=_is_count,
        updates=_is_count,
        unit=_is_text,
        counted=_is_text,
    ),
    "sample": _kind(  # with a target: what a source sequence, the prompt, should have given
        prompt=_is_text, text=_is_text, temperature=_is_number, target=_is_text, optional=("target",)
    ),
    "gradient_flow": _kind(
        layers=_is_texts,
        steps=_list_of(_is_count),
        norms=_list_of(_is_numbers),
        saturation=_is_numbers,
        spectral_radius=_list_of(_or_none(_is_number)),
        fits=_fits_gradient_flow,
    ),
    "text": _kind(
        tokens=_is_texts,
        surprisal=_is_numbers,
        surprisal_unit=_is_text,
        units=_is_texts,
        activity=_is_text,  # base64 of int8 (units, tokens), in units of scale / 127
        scale=_is_numbers,
        fits=_fits_text,
    ),
    "confusion": _kind(
        labels=_is_texts, counts=_list_of(_list_of(_is_count)), data=_is_text, fits=_fits_confusion
    ),
    "forecast": _kind(series=_list_of(_is_series), data=_is_text),
    "values": _kind(truth=_is_numbers, predicted=_is_numbers, data=_is_text, fits=_fits_values),
    "end": _kind(
        reason=_is_text, best_epoch=_or_none(_is_count), scores=_is_settings, notes=_is_texts, seconds=_is_number
    ),
}
TRAINING_FIELDS = ("epoch", "update", *KINDS["train"].fields, *KINDS["train"].optional)
EPOCH_FIELDS = ("epoch", "update", *KINDS["epoch"].fields, *KINDS["epoch"].optional)
TABLE_COLUMNS = ("kind", *dict.fromkeys((*TRAINING_FIELDS, *EPOCH_FIELDS)))


# ---- entries from files ----------------------------------------------------------------------------------------------


def _has_fields(value: Mapping[str, Any], required: Mapping[str, Check], optional: Mapping[str, Check]) -> bool:
    known = {**required, **optional}
    return required.keys() <= value.keys() <= known.keys() and all(known[name](each) for name, each in value.items())


def is_entry(value: object) -> bool:
    """Whether a value read from a file is an entry as a `crnn.TrainingLog` makes them."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    kind = KINDS.get(value["kind"])
    if kind is None:
        return False
    common: dict[str, Check] = {"kind": _is_text, "epoch": _is_count, "update": _is_count}
    return _has_fields(value, {**common, **kind.fields}, kind.optional) and kind.fits(value)


def is_history(entries: Sequence[Entry], update: int) -> bool:
    """Whether entries as `is_entry` accepts them can be the log of a run after this many updates."""
    epochs, last = 0, 0
    for entry in entries:
        expected = epochs + 1 if entry["kind"] in ("train", "epoch") else epochs
        if entry["epoch"] != expected or not last <= entry["update"] <= update:
            return False
        epochs, last = epochs + (entry["kind"] == "epoch"), entry["update"]
    return True
