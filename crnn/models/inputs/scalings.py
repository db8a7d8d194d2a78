# SPDX-License-Identifier: MIT
"""Scalings: the standardizers of a model, "x" of real inputs and "y" of real targets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crnn.checks import Array
from crnn.models.inputs.data import Sequences, by_rows
from crnn.models.inputs.standardizer import Standardizer

__all__ = ["Scalings"]


class Scalings(dict[str, Standardizer]):
    """Standardizers by name. A file holds their statistics as ``scaling.x.mean`` and so on."""

    @property
    def statistics(self) -> dict[str, Array]:
        """Mean and std of each, borrowed, by their names in files."""
        found: dict[str, Array] = {}
        for name, scaling in self.items():
            found |= {f"scaling.{name}.mean": scaling.mean, f"scaling.{name}.std": scaling.std}
        return found

    def set_statistics(self, values: Mapping[str, Array]) -> None:
        """Set `statistics`. Raises ValueError for impossible values."""
        for name, scaling in self.items():
            mean, std = values[f"scaling.{name}.mean"], values[f"scaling.{name}.std"]
            scaling.set_statistics(f"scaling.{name}.std", mean, std)

    @property
    def are_learnt(self) -> bool:
        """Whether one of them changes numbers."""
        return not all(scaling.is_identity for scaling in self.values())

    def learn(self, x: Sequences, y: list[Array], weights: list[Array] | None) -> None:
        """Learn mean and std from sequences and encoded targets. ``weights``: of the rows of the targets."""
        if x[0].ndim == 2:
            of_x = None if weights is None else [_of_steps(w, len(each)) for w, each in zip(weights, x, strict=True)]
            self["x"].learn("X", x, of_x)
        if "y" in self:
            self["y"].learn("y", y, weights)

    def for_streams(self, *, ids_only: bool) -> dict[str, tuple[Array, Array]]:
        """Mean and std of each, C-contiguous, as `StreamParts` has them; not of x if that is ids."""
        return {
            name: (np.ascontiguousarray(scaling.mean), np.ascontiguousarray(scaling.std))
            for name, scaling in self.items()
            if not (ids_only and name == "x")
        }

    def scaled(self, x: Sequences, dtype: str) -> Sequences:
        """Sequences standardised, in ``dtype``; ids as they are. Raises ValueError for a number that overflows."""
        if x[0].ndim == 1:
            return x
        try:
            return by_rows(x, lambda rows: self["x"].apply_checked(rows, dtype))
        except OverflowError:
            return self["x"].apply_to_all("X", list(x), dtype)  # raises an error that names the number


def _of_steps(weights: Array, steps: int) -> Array:
    """The weight of each step of a sequence, from those of the rows of its targets."""
    return weights if len(weights) == steps else np.full(steps, weights[0])
