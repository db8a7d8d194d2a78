# SPDX-License-Identifier: MIT
"""The weights that ``fit`` begins from, so that a second fit does not continue the first one.

They are those of the seed, or those that the user has put there: loaded from a file, converted, assigned, trained with
`crnn.fit`. What a fit itself has learnt is no beginning. It is recognised by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.nn.module import Module
from crnn.training.exclusive import in_training

__all__ = ["Snapshot", "StartingPoint", "digest", "run_fit"]


@dataclass(frozen=True)
class Snapshot:
    """What training changes in a model."""

    weights: Array
    statistics: Mapping[str, Array]
    training_runs: tuple[Mapping[str, Any], ...]
    learnt: Mapping[str, Any]  # see `Module._learnt`
    digest: bytes

    @classmethod
    def of(cls, model: Module) -> Snapshot:
        """A copy of a model's weights, scaling, and what else it has learnt."""
        statistics = {name: values.copy() for name, values in model._statistics.items()}
        return cls(model._parameters.flat.copy(), statistics, model.training_runs, model._learnt(), digest(model))

    def restore(self, model: Module) -> None:
        """Put everything back into the model."""
        model._parameters.flat[...] = self.weights
        model._parameters.changed()
        model._set_statistics({name: values.copy() for name, values in self.statistics.items()})
        model.training_runs = self.training_runs
        model._set_learnt(self.learnt)

    def without(self, names: Iterable[str]) -> Snapshot:
        """The snapshot without these of the things ``learnt``."""
        names = set(names)
        return replace(self, learnt={name: value for name, value in self.learnt.items() if name not in names})

    def has_weights_of(self, model: Module) -> bool:
        """Whether the weights of the model are still these."""
        return bool(np.array_equal(self.weights.view(np.uint8), model._parameters.flat.view(np.uint8)))  # NaN too


def digest(model: Module) -> bytes:
    """A digest of weights and scaling."""
    found = hashlib.blake2b(model._parameters.flat.data, digest_size=16)
    for values in model._statistics.values():
        found.update(np.ascontiguousarray(values).data)
    return found.digest()


@dataclass(frozen=True)
class StartingPoint:
    """Where the fits of a model begin.

    Attributes
    ----------
    snapshot : Snapshot or None
        Of the model before its first fit, or before the first since the user has changed its weights.
    left : bytes or None
        Digest of the model as the last fit has left it.
    """

    snapshot: Snapshot | None = None
    left: bytes | None = None

    def before(self, model: Module) -> StartingPoint:
        """Where the next fit begins: at the model as it is, unless an earlier fit has left it so."""
        known = self.snapshot is not None and self.left == digest(model)
        return self if known else StartingPoint(Snapshot.of(model))

    def beginning(self, model: Module, *, continues: bool) -> Snapshot:
        """What the next fit begins from, after `before`; ``continues``: from the current weights."""
        return Snapshot.of(model) if continues or self.snapshot is None else self.snapshot

    def after(self, model: Module) -> StartingPoint:
        """The same, when a fit has trained the model."""
        return StartingPoint(self.snapshot, digest(model))


def run_fit(model: Any, begin: Callable[[], Snapshot], train: Callable[[], None], *, built: bool = True) -> None:
    """Train a model from a beginning. If nothing was trained, the model is afterwards what it was before.

    Parameters
    ----------
    model : Module
        Its attribute ``_starting`` is a `StartingPoint`.
    begin : callable
        Makes the model ready, and returns what it begins from.
    train : callable
        Calls `crnn.training.fit.fit_in_training`.
    built : bool
        Whether the model has weights already.

    Raises
    ------
    ValueError
        The model is in another fit, which is not disturbed.
    """
    with in_training(model):
        attributes, before = dict(vars(model)), Snapshot.of(model) if built else None
        start: Snapshot | None = None
        try:
            start = begin()
            start.restore(model)
            train()
        except BaseException:
            if start is None or start.has_weights_of(model):  # not trained
                vars(model).update(attributes)
                if before is not None:
                    before.restore(model)
            else:
                model._starting = model._starting.after(model)
            raise
        model._starting = model._starting.after(model)
