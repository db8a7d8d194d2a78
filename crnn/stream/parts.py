# SPDX-License-Identifier: MIT
"""What a stream's weights are packed from: names and arrays, of whatever network or model they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Statistics = tuple[Array, Array]  # (mean, std), float64, one for each column


@dataclass(frozen=True)
class StreamParts:
    """What one step computes. Arrays are C-contiguous, all of one precision but for the statistics; borrowed.

    Attributes
    ----------
    kind : str
        The model's class, for messages.
    cell : str
        The cell's name in C: "tanh", "lstm", ...
    input_size : int
        Elements of x, or how many ids there are.
    layers : sequence of mappings
        Each layer's parameters by name: W_xh, W_hh, b_h, the cell's further vectors, and h0, c0 where they are learnt.
    embedding : array (input_size, E), optional
        A step then takes ids only.
    W_hy, b_y : arrays (H, V) and (V,), optional
        The head; without one the output is h of the top layer. b_y alone: W_hy is the embedding's transpose.
    ids_only : bool
        Refuse real inputs.
    x, y : (mean, std), optional
        Inputs are standardised; outputs, column j by statistic j % len(mean), are given in the targets' units.
    """

    kind: str
    cell: str
    input_size: int
    layers: Sequence[Mapping[str, Array]]
    embedding: Array | None = None
    W_hy: Array | None = None
    b_y: Array | None = None
    ids_only: bool = False
    x: Statistics | None = None
    y: Statistics | None = None

    def map(self, function: Callable[[Any], Any]) -> StreamParts:
        """The same with ``function(array)`` in the place of every array."""

        def of(part: Any) -> Any:
            return None if part is None else function(part)

        return replace(
            self,
            layers=[{name: function(array) for name, array in layer.items()} for layer in self.layers],
            embedding=of(self.embedding),
            W_hy=of(self.W_hy),
            b_y=of(self.b_y),
            x=None if self.x is None else (function(self.x[0]), function(self.x[1])),
            y=None if self.y is None else (function(self.y[0]), function(self.y[1])),
        )
