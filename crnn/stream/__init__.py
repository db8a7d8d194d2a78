# SPDX-License-Identifier: MIT
"""Networks and models run one step at a time: one stream, many at once, or a text as it arrives."""

from crnn.stream.stream import Stream, StreamWeights
from crnn.stream.stream_batch import StreamBatch
from crnn.stream.text_stream import TextStream

__all__ = ["Stream", "StreamBatch", "StreamWeights", "TextStream"]
