# SPDX-License-Identifier: MIT
"""SoftmaxHead: from hidden states to logits, and softmax cross-entropy.

    y_t = h_t W_hy + b_y          loss_t = log(sum exp y_t) - y_t[target_t]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import parallel
from crnn._core import gemm, loss
from crnn.params import Parameters

Array = NDArray[Any]
Ids = NDArray[np.int32]


@dataclass(eq=False)
class HeadTape:
    """What the head computes for T steps of B rows; backward turns logits into their gradient in place."""

    logits: Array  # (T, B, V)
    losses: Array  # (T, B), nats
    weights: gemm.Packed  # W_hy
    weights_t: gemm.Packed  # W_hy.T


class SoftmaxHead:
    """W_hy (H, V) and b_y (V,) on top of a network. Rows and columns are shared out as in `RNN`."""

    def __init__(self, parameters: Parameters, dtype: str) -> None:
        self.w_hy, self.b_y = parameters.values["W_hy"], parameters.values["b_y"]
        self.dw_hy, self.db_y = parameters.grads["W_hy"], parameters.grads["b_y"]
        self.dtype = dtype

    def new_tape(self, steps: int, batch: int) -> HeadTape:
        H, V = self.w_hy.shape
        return HeadTape(
            logits=gemm.aligned_empty((steps, batch, V), self.dtype),
            losses=gemm.aligned_empty((steps, batch), self.dtype),
            weights=gemm.Packed(H, V, self.dtype),
            weights_t=gemm.Packed(V, H, self.dtype),
        )

    def pack_forward(self, tape: HeadTape) -> None:
        tape.weights.pack(self.w_hy)

    def pack_backward(self, tape: HeadTape) -> None:
        tape.weights_t.pack_transposed(self.w_hy)

    def forward_rows(self, tape: HeadTape, h: Array, b0: int, b1: int) -> None:
        gemm.linear_forward(tape.logits, h, tape.weights, self.b_y, b0, b1)

    def loss_rows(self, tape: HeadTape, targets: Ids, ignore: int, b0: int, b1: int) -> None:
        loss.softmax_cross_entropy(tape.losses, None, tape.logits, targets, 1.0, ignore, b0, b1)

    def backward_rows(
        self, tape: HeadTape, dh: Array, targets: Ids, scale: float, ignore: int, b0: int, b1: int
    ) -> None:
        """Losses, and the gradient of scale * (their sum) at h, written into dh."""
        loss.softmax_cross_entropy(tape.losses, tape.logits, tape.logits, targets, scale, ignore, b0, b1)
        # forward: logits = h @ W_hy + b_y, so dh = dlogits @ W_hy.T
        gemm.linear_forward(dh, tape.logits, tape.weights_t, None, b0, b1)

    def weight_gradients(self, tape: HeadTape, h: Array, scratch: Array, part: int, parts: int) -> None:
        n0, n1 = parallel.share(len(self.b_y), part, parts, gemm.line_width(self.dtype))
        gemm.linear_backward_weight(self.dw_hy, h, tape.logits, scratch, n0, n1)
        gemm.bias_backward(self.db_y, tape.logits, n0, n1)
