# SPDX-License-Identifier: MIT
"""The data of a ``fit``: what is trained on and what is validated on, checked and standardised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from crnn.checks import Array, check_flag
from crnn.models.data import SequenceData, Sequences, Series
from crnn.models.held_out import held_out, held_out_notes, is_auto

__all__ = ["training_data"]

Part: TypeAlias = tuple[Sequences, list[Array]]  # some of the sequences, and their targets


def training_data(
    model: Any, X: Any, y: Any, valid: Any, *, rescale: bool, settings: Mapping[str, Any]
) -> tuple[SequenceData, SequenceData | None]:
    """The data to train on, and those to validate on or None. The model learns the names of classes and the scaling.

    Parameters
    ----------
    model : SequenceModel
    X, y, valid, rescale
        As in `SequenceModel.fit`.
    settings : mapping
        The options of `crnn.fit`.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong.
    """
    share = valid
    X, valid, series = model._training_sequences(X, y, share)
    x = model._sequences("X", X)
    model._learn_classes(y)
    targets = model._encode("y", y, x)
    (x, targets), unseen, notes = _split(model, x, targets, valid)
    if series is not None and is_auto(share):
        notes = held_out_notes(len(series.values) - series.known, len(series.values), "steps")
    model._check_any_target("y", targets)
    if unseen is not None:
        model._check_any_target("valid", unseen[1])
    resumed = settings.get("checkpoint") if settings.get("resume") else None
    if check_flag("rescale", rescale) and resumed is not None:
        raise ValueError("rescale: expected False with resume, which takes the checkpoint's scaling, got True")
    model._prepare_scaling(x, targets, rescale=rescale, checkpoint=resumed)
    standardised = model._targets.standardised
    train = model._data(x, standardised(targets))
    train.notes = notes
    judged = None if unseen is None else model._data(unseen[0], standardised(unseen[1]))
    if series is not None:
        train.series = Series(series.values[: series.known], series.known)
        if judged is not None and series.known < len(series.values):
            judged.series = series
    return train, judged


def _split(model: Any, x: Sequences, targets: list[Array], valid: Any) -> tuple[Part, Part | None, list[str]]:
    """Sequences and targets to train on, those to validate on, and what the log says of it."""
    if valid is None:
        return (x, targets), None, []
    if isinstance(valid, tuple | list):
        if len(valid) != 2:
            raise ValueError(f"valid: expected a share of X, or a pair (X, y), got {len(valid)} items")
        given = model._sequences("valid[0]", valid[0])
        return (x, targets), (given, model._encode("valid[1]", valid[1], given)), []
    chosen = held_out(valid, model._targets.groups(targets), model.seed, model._targets.held_out)
    if is_auto(valid) and not any(model._head.loss.count(targets[i]) for i in chosen):
        return (x, targets), None, held_out_notes(0, len(x), "sequences")
    rest = sorted(set(range(len(x))) - set(chosen))
    train, unseen = (([x[i] for i in part], [targets[i] for i in part]) for part in (rest, chosen))
    return train, unseen, held_out_notes(len(chosen), len(x), "sequences") if is_auto(valid) else []
