# SPDX-License-Identifier: MIT
"""What gives a network or a model its streams, and lets it be copied and pickled. See `crnn.stream`."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn.stream import Stream, StreamWeights
from crnn.stream_batch import StreamBatch

if TYPE_CHECKING:
    from crnn.heads import Head
    from crnn.network import RNN
    from crnn.sequences import Scaling


@dataclass(frozen=True)
class StreamParts:
    """What a step goes through. ``x``, ``y``: scaling of real inputs, and of the head's outputs."""

    net: RNN
    head: Head | None = None
    x: Scaling | None = None
    y: Scaling | None = None
    ids_only: bool = False


class Streamable:
    """A network or a model that can be run one step at a time, copied and pickled, all by the values it has."""

    _stream_weights: weakref.ref[StreamWeights] | None = None

    @abstractmethod
    def _stream_parts(self) -> StreamParts:
        """Raises ValueError or TypeError where there is no output at every step."""

    def stream(self) -> Stream:
        """A `crnn.Stream`: one step at a time, from the initial state, with the weights as they are now.

        Raises ValueError for a model that reads a sequence from both ends or has no output at every step, and for
        float64. The weights are packed once for all streams, and anew when they have changed.
        """
        return Stream(self._weights_for_streams())

    def stream_batch(self, n: int = 0) -> StreamBatch:
        """A `crnn.StreamBatch`: ``n`` independent streams, stepped together. More can be added."""
        return StreamBatch(self._weights_for_streams(), n)

    def _weights_for_streams(self) -> StreamWeights:
        from crnn.serialize import contents

        parts = self._stream_parts()
        tensors, header = contents(self)  # type: ignore[arg-type]  # of all its kinds
        weights = self._stream_weights() if self._stream_weights is not None else None
        if weights is None or not weights.are_of(tensors, header):
            weights = pack(type(self).__name__, parts, ({name: a.copy() for name, a in tensors.items()}, header))
            self._stream_weights = weakref.ref(weights)
        return weights

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        from crnn.serialize import restore, to_bytes

        unsaved = {"seed": self.seed} if hasattr(self, "seed") else {}
        return restore, (to_bytes(self), unsaved)  # type: ignore[arg-type]


def pack(kind: str, parts: StreamParts, frozen: Any) -> StreamWeights:
    """A model's weights for its streams. ``frozen``: what `crnn.serialize.contents` says, copied."""
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
        net._recurrence.cell,
        net.input_size,
        layers,
        embedding=net.params.get("embedding"),
        W_hy=None if head is None or head.tied else head.w,
        b_y=None if head is None else head.b_y,
        ids_only=parts.ids_only,
        x_scaling=_scaling(parts.x),
        y_scaling=_scaling(parts.y),
        frozen=frozen,
    )


def _scaling(scaling: Scaling | None) -> Any:
    """(mean, deviation), or None where they change nothing."""
    if scaling is None or (not scaling.mean.any() and (scaling.deviation == 1).all()):
        return None
    return np.ascontiguousarray(scaling.mean), np.ascontiguousarray(scaling.deviation)
