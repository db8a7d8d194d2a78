# SPDX-License-Identifier: MIT
"""Packing the weights of a network or model for its streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn.stream.stream import StreamWeights

if TYPE_CHECKING:
    from crnn.models.head import Head
    from crnn.models.standardizer import Standardizer
    from crnn.nn.network import RNN


@dataclass(frozen=True)
class StreamParts:
    """What a step goes through. ``x``, ``y``: scaling of real inputs, and of the head's outputs."""

    net: RNN
    head: Head | None = None
    x: Standardizer | None = None
    y: Standardizer | None = None
    ids_only: bool = False


def pack(kind: str, parts: StreamParts, frozen: Any) -> StreamWeights:
    """A model's weights for its streams. ``frozen``: what `Module._contents` says, copied."""
    net, head = parts.net, parts.head
    if net.bidirectional:
        raise ValueError(
            "stream: expected a network that reads forward, got bidirectional=True, which needs whole sequences"
        )
    if net.dtype != "float32":
        raise ValueError(f"stream: expected float32, got {net.dtype}; use astype('float32').stream()")
    layers = []
    for number in range(net.num_layers):
        prefix = f"layer{number}."
        layers.append({name.removeprefix(prefix): a for name, a in net.params.items() if name.startswith(prefix)})
    return StreamWeights(
        kind,
        net.cell,
        net.input_size,
        layers,
        embedding=net.params.get("embedding"),
        W_hy=None if head is None or head.tie_weights else head.w,
        b_y=None if head is None else head.b_y,
        ids_only=parts.ids_only,
        x_scaling=_scaling(parts.x),
        y_scaling=_scaling(parts.y),
        frozen=frozen,
    )


def _scaling(scaling: Standardizer | None) -> Any:
    """(mean, std), or None where they change nothing."""
    if scaling is None or (not scaling.mean.any() and (scaling.std == 1).all()):
        return None
    return np.ascontiguousarray(scaling.mean), np.ascontiguousarray(scaling.std)
