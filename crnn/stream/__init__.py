# SPDX-License-Identifier: MIT
"""Networks and models run one step at a time: one stream, or many at once; `text_stream`: a text as it arrives."""

from crnn.stream.stream import Stream, StreamWeights
from crnn.stream.stream_batch import StreamBatch

__all__ = ["Stream", "StreamBatch", "StreamWeights"]
