# SPDX-License-Identifier: MIT
"""StreamParts: the arrays that the weights of a stream are packed from, in one form for all networks and models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Statistics = tuple[Array, Array]  # (mean, std), float64, one for each column


@dataclass(frozen=True, repr=False, match_args=False)
class StreamParts:
    """The weights of one step. Arrays are C-contiguous and of the same dtype, except for the statistics; borrowed.

    Attributes
    ----------
    kind : str
        Name of the model's class, for messages.
    cell : str
        The cell's name in C: "tanh", "lstm", ...
    input_size : int
        Number of elements of x, or of ids.
    layers : sequence of mappings
        Each layer's parameters by name: W_xh, W_hh, b_h, the cell's other vectors, and h0, c0 if they are trainable.
    dense_layers : bool
        Every layer reads the outputs of all layers below it, and the head, or y, has those of all.
    embedding : array (input_size, E), optional
        If given, steps accept ids only.
    W_hy, b_y : arrays (H, V) and (V,), optional
        The head; without one, outputs are h of the top layer, or with dense layers of all. If only b_y is given, W_hy
        is the embedding's transpose.
    tails : sequence of mappings
        Of an adaptive softmax: each tail's W_hp (H, P) and W_py (P, size). W_hy and b_y then have as many columns fewer
        as the tails have together, and one more for each tail; outputs are log-probabilities. See
        `crnn.models.outputs.clusters`.
    pooling : str, optional
        What the head reads, one of `crnn.stream.stream.STREAM_POOLINGS`: "max" or "mean" of the steps so far. Otherwise
        the last step.
    ids_only : bool
        Reject real inputs.
    precisions : mapping of str to str
        Of products with the matrices "layer0.W_xh", "layer0.W_hh", "layer1.W_xh", ..., "W_hy", which stands for a
        tied embedding too, and "tail0.W_hp", "tail0.W_py", ...: "bf16", "int8" or "int4", of float32 arrays only.
        Others: in the precision of the arrays.
    x, y : (mean, std), optional
        Statistics to standardise inputs, and to convert outputs to the units of the targets: column j by element
        j % len(mean).
    """

    kind: str
    cell: str
    input_size: int
    layers: Sequence[Mapping[str, Array]]
    dense_layers: bool = False
    embedding: Array | None = None
    W_hy: Array | None = None
    b_y: Array | None = None
    tails: Sequence[Mapping[str, Array]] = ()
    pooling: str | None = None
    ids_only: bool = False
    precisions: Mapping[str, str] = field(default_factory=dict)
    x: Statistics | None = None
    y: Statistics | None = None

    def map(self, function: Callable[[Any], Any]) -> StreamParts:
        """A copy in which every array is replaced by ``function(array)``."""

        def mapped(part: Any) -> Any:
            return None if part is None else function(part)

        return replace(
            self,
            layers=[{name: function(array) for name, array in layer.items()} for layer in self.layers],
            embedding=mapped(self.embedding),
            W_hy=mapped(self.W_hy),
            b_y=mapped(self.b_y),
            tails=[{name: function(array) for name, array in tail.items()} for tail in self.tails],
            x=None if self.x is None else (function(self.x[0]), function(self.x[1])),
            y=None if self.y is None else (function(self.y[0]), function(self.y[1])),
        )
