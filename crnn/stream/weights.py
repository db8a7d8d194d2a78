# SPDX-License-Identifier: MIT
"""A model's packed weights, shared by its streams while they have not changed."""

from __future__ import annotations

import weakref

from crnn.stream.parts import StreamParts
from crnn.stream.stream import StreamWeights


def stream_weights(parts: StreamParts, cached: weakref.ref[StreamWeights] | None = None) -> StreamWeights:
    """Weights packed from ``parts``: those of an earlier call, if they are still alive and hold the same values."""
    weights = None if cached is None else cached()
    return weights if weights is not None and weights.holds(parts) else StreamWeights(parts)
