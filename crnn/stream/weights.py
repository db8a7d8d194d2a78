# SPDX-License-Identifier: MIT
"""The packed weights of a model, shared by its streams as long as the model does not change."""

from __future__ import annotations

import weakref

from crnn.stream.parts import StreamParts
from crnn.stream.stream import StreamWeights


def stream_weights(parts: StreamParts, cached: weakref.ref[StreamWeights] | None = None) -> StreamWeights:
    """Weights packed from ``parts``. Returns ``cached`` if it is still alive and has the same values."""
    weights = None if cached is None else cached()
    return weights if weights is not None and weights.holds(parts) else StreamWeights(parts)
