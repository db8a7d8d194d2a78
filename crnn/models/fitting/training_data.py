# SPDX-License-Identifier: MIT
"""The data of a ``fit``: what is trained on and what is validated on, checked and standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crnn.checks import Array, check_flag
from crnn.models.fitting.weighting import present, row_weights, without_zeros
from crnn.models.inputs.data import SequenceData, Sequences, Series
from crnn.models.inputs.held_out import held_out, held_out_notes, is_auto

__all__ = ["Part", "part_of", "training_data"]


@dataclass(frozen=True)
class Part:
    """Some of the sequences, their targets, not standardised, and the weights of the rows of those; None: all equal."""

    x: Sequences
    targets: list[Array]
    weights: list[Array] | None

    def chosen(self, indices: Sequence[int]) -> Part:
        """Those with these indices."""
        weights = None if self.weights is None else [self.weights[i] for i in indices]
        return Part([self.x[i] for i in indices], [self.targets[i] for i in indices], weights)


def training_data(
    model: Any,
    X: Any,
    y: Any,
    valid: Any,
    *,
    rescale: bool,
    settings: Mapping[str, Any],
    weights: list[Array] | None = None,
) -> tuple[SequenceData, SequenceData | None]:
    """The data to train on, and those to validate on or None.

    The model learns from them the names of classes, their weights, and the scaling.

    Parameters
    ----------
    model : SequenceModel
    X, y, valid, rescale
        As in `SequenceModel.fit`.
    weights : list of arrays, optional
        As `crnn.models.fitting.weighting.present` returns them.
    settings : mapping
        The options of `crnn.fit`.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong.
    """
    share = valid
    X, valid, series = model._training_sequences(X, y, share)
    train, unseen, notes = _split(model, _part(model, ("X", "y"), X, y, weights, learns=True), valid)
    if series is not None and is_auto(share):
        notes = held_out_notes(len(series.values) - series.known, len(series.values), "steps")
    model._check_any_target("y", train.targets)
    if unseen is not None:
        model._check_any_target("valid", unseen.targets)
    resumed = settings.get("checkpoint") if settings.get("resume") else None
    if check_flag("rescale", rescale) and resumed is not None:
        raise ValueError("rescale: expected False with resume, which takes the checkpoint's scaling, got True")
    model._prepare_targets(train)
    model._prepare_scaling(train, rescale=rescale, checkpoint=resumed)
    data, judged = (None if each is None else _data(model, each) for each in (train, unseen))
    assert data is not None
    data.notes = notes
    if series is not None:
        data.series = Series(series.values[: series.known], series.known)
        if judged is not None and series.known < len(series.values):
            judged.series = series
    return data, judged


def part_of(model: Any, X: Any, y: Any, weights: Any, names: tuple[str, str] = ("X", "y")) -> Part:
    """X, y and weights as `SequenceModel.fit` takes them, checked. ``names``: of X and y, for messages."""
    if weights is not None:
        X, y, weights = present(X, y, weights, by_step=model.weighs_steps)
    return _part(model, names, X, y, weights)


def _part(
    model: Any, names: tuple[str, str], X: Any, y: Any, weights: list[Array] | None, *, learns: bool = False
) -> Part:
    x = model._sequences(names[0], X)
    if learns:
        model._learn_classes(y)
    targets = model._encode(names[1], y, x)
    if weights is None:
        return Part(x, targets, None)
    rows = row_weights(weights, list(map(len, targets)), by_step=model.weighs_steps)
    return Part(x, [without_zeros(*each) for each in zip(targets, rows, strict=True)], rows)


def _data(model: Any, part: Part) -> SequenceData:
    data: SequenceData = model._data(part.x, model._targets.standardised(part.targets), part.weights)
    return data


def _split(model: Any, whole: Part, valid: Any) -> tuple[Part, Part | None, list[str]]:
    """What to train on, what to validate on, and what the log says of it."""
    if valid is None:
        return whole, None, []
    if isinstance(valid, tuple | list):
        if len(valid) not in (2, 3):
            raise ValueError(f"valid: expected a share of X, or (X, y), or (X, y, weights), got {len(valid)} items")
        X, y, weights = [*valid, None][:3]
        return whole, part_of(model, X, y, weights, ("valid[0]", "valid[1]")), []
    n, targets = len(whole.targets), whole.targets
    chosen = held_out(valid, model._targets.groups(targets), model.seed, model._targets.held_out)
    if is_auto(valid) and not any(model._head.loss.count(targets[i]) for i in chosen):
        return whole, None, held_out_notes(0, n, "sequences")
    rest = sorted(set(range(n)) - set(chosen))
    notes = held_out_notes(len(chosen), n, "sequences") if is_auto(valid) else []
    return whole.chosen(rest), whole.chosen(chosen), notes
