# SPDX-License-Identifier: MIT
"""Parameters: one flat buffer, one of the same size for gradients, and named views into both."""

from __future__ import annotations

import math
from collections.abc import Mapping

from crnn._core.gemm import aligned_empty
from crnn.checks import Array

Shapes = Mapping[str, tuple[int, ...]]


class Parameters:
    """Named arrays that lie one after the other in a flat buffer, and their gradients likewise.

    Parameters
    ----------
    shapes : mapping of name to shape
        In the order in which they lie in the buffer.
    dtype : str
        float32 or float64.
    buffers : (flat, flat_grads), optional
        Existing buffers to live in, 1-d arrays of the right size; fresh zeros if not given.
    """

    def __init__(self, shapes: Shapes, dtype: str, buffers: tuple[Array, Array] | None = None) -> None:
        self.shapes = dict(shapes)
        self.size = self.count(self.shapes)
        if buffers is None:
            buffers = aligned_empty((self.size,), dtype), aligned_empty((self.size,), dtype)
            for buffer in buffers:
                buffer.fill(0)
        self.flat, self.flat_grads = buffers
        self.values = self._views(self.flat)
        self.grads = self._views(self.flat_grads)

    def part(self, prefix: str, shapes: Shapes) -> Parameters:
        """The arrays ``prefix`` + name of ``shapes``, which lie side by side, under their names without the prefix."""
        names = list(self.shapes)
        first = names.index(prefix + next(iter(shapes)))
        start = self.count({name: self.shapes[name] for name in names[:first]})
        chosen = slice(start, start + self.count(shapes))
        return Parameters(shapes, self.flat.dtype.name, (self.flat[chosen], self.flat_grads[chosen]))

    @staticmethod
    def count(shapes: Shapes) -> int:
        """Elements that arrays of these shapes take together."""
        return sum(math.prod(shape) for shape in shapes.values())

    def _views(self, flat: Array) -> dict[str, Array]:
        views, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(shape)
            start = stop
        return views


class ParameterViews:
    """The public views of a network's or a model's `Parameters`."""

    _parameters: Parameters

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name: writable views into `flat_params`."""
        return self._parameters.values

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients by the parameters' names: writable views into `flat_grads`."""
        return self._parameters.grads

    @property
    def flat_params(self) -> Array:
        """All parameters as one 1-d array, writable."""
        return self._parameters.flat

    @property
    def flat_grads(self) -> Array:
        """All gradients as one 1-d array, writable. `backward` adds to it; set it to 0 before a new step."""
        return self._parameters.flat_grads
