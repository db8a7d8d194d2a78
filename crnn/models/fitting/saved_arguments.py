# SPDX-License-Identifier: MIT
"""Arguments from which `fit` finds a value, as the user gave them: files hold them besides the value in the config.

Such as class_weight="balanced", for which the config has the numbers that the labels gave. A model that was loaded has
the argument again, for `get_params`, clones, and its next `fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from crnn.checks import as_integer, as_number
from crnn.models.fitting.starting_weights import Snapshot, StartingPoint, digest
from crnn.models.fitting.weighting import BALANCED
from crnn.models.outputs.targets import as_label
from crnn.models.outputs.thresholds import check_thresholds

__all__ = ["check_given", "given_by_user", "saved_given", "take_given"]

UNSAVED = object()  # what the JSON of a file cannot hold


def given_by_user(model: Any) -> dict[str, Any]:
    """Copies of these arguments of a model, by name."""
    arguments = model._all_arguments()
    return {name: deepcopy(arguments[name]) for name in model.learnt_names if name in KEPT}


def take_given(model: Any, values: Mapping[str, Any]) -> None:
    """Set these arguments of a model whose weights are those of other values, without rebuilding it.

    Thresholds that were tuned stay, until a `fit` begins with those that were given. Raises ValueError for wrong ones.
    """
    first = _thresholds(model, values["thresholds"]) if "thresholds" in values else None
    if "thresholds" in values and first != model.thresholds:
        start = Snapshot.of(model)
        model._starting = StartingPoint(replace(start, learnt={**start.learnt, "thresholds": first}), digest(model))
    model._arguments = model._arguments | values
    vars(model._built)["arguments"] = model._built.arguments | values


def _thresholds(model: Any, value: Any) -> list[float] | None:
    return check_thresholds(value, model.num_classes, multilabel=model.multilabel)


def saved_given(model: Any) -> dict[str, Any]:
    """These arguments as JSON can hold them, if the model's config has other values; wrong ones are left out."""
    arguments = model._all_arguments()
    saved = {name: KEPT[name][0](arguments[name]) for name in model.learnt_names if name in KEPT}
    if "thresholds" in saved:
        try:
            _thresholds(model, arguments["thresholds"])
        except (TypeError, ValueError):  # set for the next fit, which will refuse them
            del saved["thresholds"]
    return {name: value for name, value in saved.items() if value is not UNSAVED and value != getattr(model, name)}


def check_given(values: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """These arguments from a file, of a class with such ``learnt_names``. Raises ValueError."""
    known = {name: KEPT[name] for name in names if name in KEPT}
    if not isinstance(values, dict) or not values.keys() <= known.keys():
        raise ValueError(f"expected given, arguments among {', '.join(known) or 'none'}, got {values!r:.200}")
    found = {}
    for name, value in values.items():
        encode, decode = known[name]
        found[name] = decode(value)
        if found[name] is UNSAVED or encode(found[name]) != value:
            raise ValueError(f"{name}: expected an argument of the constructor, got {value!r:.200}")
    return found


def _numbers_to_json(value: Any) -> Any:
    """A number, several or none."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if value is None:
        return None
    if isinstance(value, list | tuple):
        numbers = [_finite(each) for each in value]
        return UNSAVED if None in numbers else numbers
    number = _finite(value)
    return UNSAVED if number is None else number


def _finite(value: Any) -> float | None:
    number = as_number(value)
    return None if number is None or not np.isfinite(number) else float(number)


def _size_to_json(value: Any) -> Any:
    """An integer or none."""
    size = None if value is None else as_integer(value)
    return size if value is None or (size is not None and size > 0) else UNSAVED


def _weights_to_json(value: Any) -> Any:
    """ "balanced", or the pairs of a dict by label. Lists are in the config."""
    if isinstance(value, str):
        return value if value == BALANCED else UNSAVED
    if not isinstance(value, Mapping):
        return UNSAVED
    pairs = [[as_label(label), _finite(weight)] for label, weight in value.items()]
    sensible = all(type(label) in (str, int, bool) and weight is not None and weight >= 0 for label, weight in pairs)
    return pairs if sensible else UNSAVED


def _weights_from_json(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return UNSAVED
    labels = [pair[0] for pair in value]
    if any(type(label) not in (str, int, bool) for label in labels) or len(set(labels)) < len(labels):
        return UNSAVED
    return dict(value)


# To JSON, and back.
KEPT: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "class_weight": (_weights_to_json, _weights_from_json),
    "thresholds": (_numbers_to_json, lambda value: value),
    "longest_target": (_size_to_json, lambda value: value),
}
