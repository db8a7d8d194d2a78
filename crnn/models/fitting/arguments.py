# SPDX-License-Identifier: MIT
"""A model's arguments: what ``fit`` builds from them and the data, and those that have been set since."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from crnn.models.fitting.built import Built, same_argument, same_arguments
from crnn.models.fitting.starting_weights import Snapshot, StartingPoint, digest
from crnn.nn.config import memory_of

__all__ = ["begin_fit", "check_applied", "found_by_fit"]

VOCABULARIES = ("vocab", "source_vocab", "target_vocab")  # weights are those of their tokens


def begin_fit(model: Any, X: Any, y: Any, current: Snapshot | None, *, continues: bool) -> Snapshot:
    """Build the model that the arguments and the data determine, unless it exists. Returns what the fit begins from.

    Parameters
    ----------
    model : SequenceModel
    X, y
        As `SequenceModel.fit` takes them.
    current : Snapshot or None
        Of the model, if it is built.
    continues : bool
        From the current weights, with the sizes, classes and vocabulary that belong to them.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or with ``continues`` the arguments need weights of other shapes.
    """
    old, given = model._built, model._own_arguments()
    start: Snapshot | None = None
    if old is not None:
        assert current is not None
        model._starting = model._starting.before(current)
        start = model._starting.beginning(current, continues=continues)
    missing = model._missing(given)
    open_names = [name for name, value in given.items() if value is None or name in missing]
    if old is not None and continues:
        arguments = given | {name: old.arguments[name] for name in open_names}
    else:
        arguments = given | model._arguments_from(given, X, y)
    model._not_applied = frozenset()
    if old is not None and same_arguments(arguments, old.arguments):
        assert start is not None
        return start
    with memory_of(arguments):
        built = model._build(arguments)
    built.arguments = arguments
    fits = old is not None and _fits(built, old, open_names)
    if start is not None and continues and not fits:
        raise ValueError(
            "warm_start: expected arguments that leave shapes and vocabulary of the weights as they are, got others; "
            "with warm_start=False fit starts over"
        )
    of_user = old is not None and start is not None and start.digest != old.drawn
    model._built = built
    built.drawn = digest(model)
    if start is not None and fits and (continues or of_user):
        start = start.without(name for name, value in arguments.items() if value is not None)
    else:
        start = Snapshot.of(model)
    model._starting = StartingPoint(start)
    return start


def check_applied(model: Any) -> None:
    """Raise ValueError if an argument of a built model has been set since, which the next ``fit`` of the model applies.
    """
    applied, given = model._built.arguments, model._own_arguments()
    for name in model._not_applied & given.keys():
        if not same_argument(given[name], applied[name]):
            raise ValueError(
                f"{name}: expected {applied[name]!r:.100}, with which the model was built, got {given[name]!r:.100}, "
                "which has been set since; call the model's fit, which applies it"
            )


def _fits(built: Built, old: Built, open_names: list[str]) -> bool:
    """Whether the weights of ``old`` mean the same in a new model. ``open_names``: arguments that the data decide."""
    identity: Mapping[str, None] = dict.fromkeys([*open_names, *VOCABULARIES])
    new, earlier = built.arguments, old.arguments
    return built.fits(old) and all(same_argument(new[name], earlier[name]) for name in identity if name in new)


def found_by_fit(model: Any) -> dict[str, Any]:
    """Copies of the arguments that say how `fit` finds a value, such as class_weight="balanced"."""
    given = model._all_arguments()
    return {name: deepcopy(given[name]) for name in model.learnt_names if isinstance(given[name], str | Mapping)}
