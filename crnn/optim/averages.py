# SPDX-License-Identifier: MIT
"""Averages of the weights over updates, which are evaluated and kept in place of the last weights.

A rule says when averaging begins and how much each update counts. `crnn.training.averaging` has the array. `AVERAGES`
lists the rules by the names that the command line uses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from crnn._attributes import fixed_attributes
from crnn.checks import check_number, check_size

__all__ = ["ASGD", "AVERAGES", "EMA", "Average"]


@fixed_attributes()
class Average(ABC):
    """A rule of an average of the weights. Its arguments are attributes of the same names, and it never changes."""

    @property
    def needs_validation(self) -> bool:
        """Whether its beginning depends on validation losses."""
        return False

    @abstractmethod
    def begins(self, epoch: int, valid_losses: Sequence[float]) -> bool:
        """Whether epoch ``epoch``, counted from 1, after epochs with these validation losses, is averaged."""

    @abstractmethod
    def share(self, k: int) -> float:
        """How much the weights after the k-th averaged update, from 1, count: average += share * (w - average)."""

    def settings(self) -> dict[str, Any]:
        """The arguments that make a rule like this one."""
        return dict(vars(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings().items())})"


class EMA(Average):
    """The exponential moving average: decay * average + (1 - decay) * w.

    Until 1 / (1 - decay) updates it is their mean, so that the initial weights have no part in it.

    Parameters
    ----------
    decay : float
        In [0, 1).
    start : int
        The epoch in which averaging begins, from 1.

    Examples
    --------
    >>> [round(EMA(0.75).share(k), 3) for k in range(1, 7)]
    [1.0, 0.5, 0.333, 0.25, 0.25, 0.25]
    """

    decay: float
    start: int

    def __init__(self, decay: float = 0.999, start: int = 1) -> None:
        self.decay = check_number("decay", decay, 0.0, 1.0)
        self.start = check_size("start", start)

    def begins(self, epoch: int, valid_losses: Sequence[float]) -> bool:
        return epoch >= self.start

    def share(self, k: int) -> float:
        return max(1.0 - self.decay, 1.0 / k)


class ASGD(Average):
    """The mean of the weights after all updates from some epoch on. Polyak, Juditsky 1992.

    Parameters
    ----------
    start : int, optional
        The epoch in which averaging begins, from 1. If not given, it begins when the validation loss stops falling, as
        in AWD-LSTM (Merity, Keskar, Socher 2017): after an epoch whose loss is higher than the lowest of all epochs
        that are more than ``nonmono`` before it.
    nonmono : int
        At least 1.

    Examples
    --------
    >>> ASGD(nonmono=1).begins(4, [3.0, 2.0, 2.5]), ASGD(nonmono=1).begins(5, [3.0, 2.0, 2.5, 3.5])
    (False, True)
    """

    start: int | None
    nonmono: int

    def __init__(self, start: int | None = None, nonmono: int = 5) -> None:
        self.start = None if start is None else check_size("start", start)
        self.nonmono = check_size("nonmono", nonmono)

    @property
    def needs_validation(self) -> bool:
        """Whether its beginning depends on validation losses."""
        return self.start is None

    def begins(self, epoch: int, valid_losses: Sequence[float]) -> bool:
        if self.start is not None:
            return epoch >= self.start
        n = self.nonmono
        return any(valid_losses[t] > min(valid_losses[: t - n]) for t in range(n + 1, len(valid_losses)))

    def share(self, k: int) -> float:
        return 1.0 / k


# Every rule by name: the choices of ``average=`` in `crnn.fit` and of ``crnn train --average``.
AVERAGES: dict[str, Callable[..., Average]] = {"ema": EMA, "asgd": ASGD}
