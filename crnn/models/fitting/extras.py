# SPDX-License-Identifier: MIT
"""Extras: what files and copies of a sequence model hold besides weights, scaling, configuration and vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crnn._float_mode import in_ieee_mode
from crnn.checks import check_seed
from crnn.io import model_file
from crnn.models.fitting.saved_arguments import check_given, given_by_user, saved_given, take_given
from crnn.models.inputs.names import Names, names_to_save
from crnn.nn.module import Module

__all__ = ["Extras", "header_of", "reduced"]

# Attributes of a `Built` that no file holds, or not all.
OF_BUILT = ("arguments", "drawn", "seed", "feature_names", "target_names")


@dataclass(frozen=True)
class Extras:
    """What a model has besides weights, scaling, configuration and vocabularies.

    Attributes
    ----------
    seed : int
        Determines what the next `fit` holds out for validation.
    argument : int
        The argument ``seed``, which may be set for the next `fit`.
    feature_names, target_names : Names
        Of the columns of the DataFrames that `fit` was given as inputs and as targets.
    given : dict
        Arguments from which `fit` finds a value, see `crnn.models.fitting.saved_arguments`.
    """

    seed: int
    argument: int
    feature_names: Names
    target_names: Names
    given: Mapping[str, Any]

    @classmethod
    def of(cls, model: Any) -> Extras:
        """What a model has, to be copied."""
        seed, built = model._all_arguments()["seed"], model._built
        return cls(model.seed, seed, built.feature_names, built.target_names, given_by_user(model))

    @classmethod
    def from_header(cls, header: Mapping[str, Any], learnt_names: tuple[str, ...]) -> Extras:
        """What the header of a file has. Raises TypeError and ValueError."""
        given = check_given(header.get("given", {}), learnt_names)
        names, of_targets = (names_to_save(header.get(entry), entry) for entry in ("feature_names", "target_names"))
        seed = check_seed("seed", header.get("seed", 0))
        return cls(seed, seed, names, of_targets, given)

    def put_into(self, model: Any) -> None:
        """Set all this in a model that has its weights. Raises ValueError."""
        vars(model._built).update(seed=self.seed, feature_names=self.feature_names, target_names=self.target_names)
        model._arguments = model._arguments | {"seed": self.argument}
        take_given(model, self.given)


def header_of(model: Any) -> dict[str, Any]:
    """The entries of a file's header, with the options of training."""
    built = model._built
    names = {} if built is None else {entry: getattr(built, entry) for entry in ("feature_names", "target_names")}
    entries = {"learning": model._saved_learning(), "given": saved_given(model)}
    entries |= {entry: list(value or ()) for entry, value in names.items()}
    return {name: value for name, value in {**entries, "seed": model.seed}.items() if value}


# ---- pickles and copies ----------------------------------------------------------------------------------------------


def reduced(model: Any) -> tuple[Any, tuple[Any, ...]]:
    """The result of ``__reduce__``."""
    own = {name: value for name, value in vars(model).items() if name not in ("_built", "_stream_weights")}
    if model._built is None:
        return _restored, (type(model), own, None, {})
    unsaved = {name: getattr(model._built, name) for name in OF_BUILT}
    return _restored, (type(model), own, model_file.to_bytes(*model.contents()), unsaved)


@in_ieee_mode
def _restored(cls: type[Module], own: Mapping[str, Any], content: bytes | None, unsaved: Mapping[str, Any]) -> Any:
    """The model that pickle or copy restores; ``own`` and ``unsaved`` are not in a file."""
    model: Any = cls.__new__(cls)
    vars(model).update(own)
    model._built = None
    if content is not None:
        tensors, header = model_file.from_bytes("pickle", content)
        registered: Any = next(each for each in cls.__mro__ if "__signature__" in vars(each))  # no subclass of a user
        model._built = registered.from_contents(header, tensors)._built
        vars(model._built).update(unsaved)
    return model
