# SPDX-License-Identifier: MIT
"""ActivationPenalty: what training adds to the loss for large, and for quickly changing, outputs of a network."""

from __future__ import annotations

from dataclasses import dataclass

from crnn.checks import Array
from crnn.nn.slices import Slice

__all__ = ["ActivationPenalty"]


@dataclass(frozen=True)
class ActivationPenalty:
    """size * mean((h * mask)^2) + change * mean((h_t - h_{t-1})^2), of the outputs h (T, B, H) of the top layer.

    Merity, McCann, Socher 2017 (arXiv 1708.01009). Losses that are reported do not have it.

    Attributes
    ----------
    size, change : float
    """

    size: float
    change: float

    def add_gradient(self, dh: Array, h: Array, mask: Array | None, scale: float, part: Slice) -> None:
        """ADD the gradient to dh (T, B, H) for the rows of ``part``.

        Parameters
        ----------
        dh, h : array (T, B, H)
        mask : array (T, B, H) or (1, B, H), or None
            Dropout between h and the head.
        scale : float
            Factor of the sum of the losses in the gradient: 1 / (T * B) for their mean, as that of this penalty.
        part : Slice
        """
        T, _, H = h.shape
        of_part, gradient, number = h[:, part.rows], dh[:, part.rows], h.dtype.type
        if self.size:
            more = of_part * number(2 * self.size * scale / H)
            if mask is not None:
                more *= mask[:, part.rows]
                more *= mask[:, part.rows]
            gradient += more
        if self.change and T > 1:
            steps = (of_part[1:] - of_part[:-1]) * number(2 * self.change * scale * T / ((T - 1) * H))
            gradient[1:] += steps
            gradient[:-1] -= steps
        dh[:, part.rows] = gradient
