# SPDX-License-Identifier: MIT
"""WeightAverage: the running average of a model's weights, by a rule of `crnn.optim.averages`."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from crnn._core import optim as kernels
from crnn.checks import Array
from crnn.optim.averages import Average

__all__ = ["WeightAverage"]


class WeightAverage:
    """An average of the weights after updates. Its state is the array and how many updates it has.

    Attributes
    ----------
    rule : Average
    array : array (n,) or None
        The average; None before the first update that is averaged.
    count : int
        Updates that it has.
    """

    rule: Average
    array: Array | None
    count: int

    def __init__(self, rule: Average) -> None:
        self.rule, self._active = rule, False
        self.reset()

    def begin_epoch(self, epoch: int, valid_losses: Sequence[float]) -> None:
        """Average the updates of an epoch, counted from 1, if the rule says so or has said so before."""
        self._active = self.count > 0 or self.rule.begins(epoch, valid_losses)

    def update(self, weights: Array, threads: int) -> None:
        """Include the weights (n,) after an update. Raises ValueError for a wrong share of a user's rule."""
        if not self._active:
            return
        share = self.rule.share(self.count + 1)
        if not (isinstance(share, Real) and 0 <= share <= 1):
            raise ValueError(f"average: expected a share from 0 to 1 from {self.rule!r:.200}, got {share!r:.50}")
        self.count += 1
        if self.array is None:
            self.array = weights.copy()
        else:  # average -= share * (average - w), by the kernel of SGD: one pass, bit-identical on all threads
            kernels.sgd(self.array, None, weights, -1.0, share, 0.0, 1.0, False, threads)

    def restore(self, count: int, array: Array | None) -> None:
        """Continue from a checkpoint."""
        self.count, self.array = count, array

    def reset(self) -> None:
        """Forget all updates."""
        self.restore(0, None)
