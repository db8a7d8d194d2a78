# SPDX-License-Identifier: MIT
"""The weights that ``fit`` begins from, so that a second fit does not continue the first one.

They are those of the seed, or those that the user has put there: loaded from a file, converted, assigned, trained with
`crnn.fit`. What a fit itself has learnt is no beginning. It is recognised by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from crnn.checks import Array
from crnn.nn.module import Module
from crnn.training.exclusive import in_training

__all__ = ["Drawing", "Snapshot", "StartingPoint", "digest", "run_fit"]

LARGE = 16 << 20  # bytes of weights that are drawn again rather than kept


class Drawing(Protocol):
    """How the initial weights of a model are drawn; a model's ``_drawing`` returns one, or None."""

    def weights(self) -> Array: ...


@dataclass(frozen=True)
class Snapshot:
    """What training changes in a model."""

    weights: Array | Drawing
    statistics: Mapping[str, Array]
    training_runs: tuple[Mapping[str, Any], ...]
    learnt: Mapping[str, Any]  # see `Module._learnt`
    digest: bytes

    @classmethod
    def of(cls, model: Module) -> Snapshot:
        """A copy of a model's weights, scaling, and what else it has learnt.

        Instead of many weights that are those of the model's seed it has what draws them again.
        """
        flat = model._parameters.flat
        drawing: Drawing | None = getattr(model, "_drawing", lambda: None)() if flat.nbytes >= LARGE else None
        weights = drawing if drawing is not None and same_bytes(drawing.weights(), flat) else flat.copy()
        statistics = {name: values.copy() for name, values in model._statistics.items()}
        return cls(weights, statistics, model.training_runs, model._learnt(), digest(model))

    def restore(self, model: Module) -> None:
        """Put everything back into the model."""
        if not self.has_weights_of(model):
            weights = self.weights
            model._parameters.flat[...] = weights if isinstance(weights, np.ndarray) else weights.weights()
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
        if isinstance(self.weights, np.ndarray):
            return same_bytes(self.weights, model._parameters.flat)
        return self.digest == digest(model)  # models that draw their weights again have no scaling


def same_bytes(a: Array, b: Array) -> bool:
    """Whether two arrays (n,) are bit-identical, NaN too; without memory for all comparisons."""
    parts = (slice(start, start + LARGE) for start in range(0, len(a), LARGE))
    return all(np.array_equal(a[part].view(np.uint8), b[part].view(np.uint8)) for part in parts)


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

    def before(self, current: Snapshot) -> StartingPoint:
        """Where the next fit begins: at the model as it is, ``current``, unless an earlier fit has left it so."""
        known = self.snapshot is not None and self.left == current.digest
        return self if known else StartingPoint(current)

    def beginning(self, current: Snapshot, *, continues: bool) -> Snapshot:
        """What the next fit begins from, after `before`; ``continues``: from the current weights."""
        return current if continues or self.snapshot is None else self.snapshot

    def after(self, model: Module) -> StartingPoint:
        """The same, when a fit has trained the model."""
        return StartingPoint(self.snapshot, digest(model))


def run_fit(
    model: Any, begin: Callable[[Snapshot | None], Snapshot], train: Callable[[], None], *, built: bool = True
) -> None:
    """Train a model from a beginning. If nothing was trained, the model is afterwards what it was before.

    Parameters
    ----------
    model : Module
        Its attribute ``_starting`` is a `StartingPoint`.
    begin : callable
        Makes the model ready, and returns what it begins from; gets what the model is, None if it is not built.
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
            start = begin(before)
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
