# SPDX-License-Identifier: MIT
"""Sampling an id from logits: temperature, top-k, top-p and a random draw, bit-identical on every machine.

Sorting, comparisons, sequential sums (`np.cumsum`) and the exp of the C core are the only operations, so the same
logits and seed give the same id on every CPU.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from crnn._core.vecmath import exp
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.array_input import real_numbers

__all__ = ["Sampler"]


class Sampler:
    """Draws ids from logits.

    The logits are divided by the temperature. Of these the `top_k` most probable ids are kept, and of those the `top_p`
    nucleus. One of the remaining ids is drawn by its softmax probability, computed in float64. Of equal logits, that of
    the lower id counts as the larger. An id of probability zero (logit -inf, or not kept) is never drawn.

    Parameters
    ----------
    temperature : float
        Values below 1 sharpen the distribution, values above 1 flatten it; 0 always takes the largest logit.
    top_k : int, optional
        Keep at most this many ids.
    top_p : float, optional
        Keep the smallest number of most probable ids whose probabilities sum to at least this, in (0, 1] [1]_.
    seed : int, optional
        Seed of the draws. If not given, the operating system provides one.
    ban : iterable of int
        Ids that are never drawn, as if their logits were -inf.

    Raises
    ------
    TypeError, ValueError
        An argument is out of range or of the wrong type.

    References
    ----------
    .. [1] Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.

    Examples
    --------
    >>> sampler = Sampler(top_k=2, seed=7)
    >>> [sampler([1.0, 3.0, 2.0]) for _ in range(8)]
    [1, 2, 2, 1, 1, 2, 1, 2]
    >>> Sampler(temperature=0)([1.0, 3.0, 3.0])
    1
    """

    temperature: float
    top_k: int | None
    top_p: float | None

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        ban: Iterable[int] = (),
    ) -> None:
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: expected a finite number >= 0, got {temperature}")
        if top_k is not None:
            if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer):
                raise TypeError(f"top_k: expected an int or None, got {type(top_k).__name__}")
            if top_k < 1:
                raise ValueError(f"top_k: expected at least 1, got {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p: expected a number in (0, 1], got {top_p}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
            raise ValueError(f"seed: expected an int of at least 0, or None, got {seed!r}")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self._banned = _ids("ban", ban)
        self._bits = np.random.PCG64(seed)

    def __repr__(self) -> str:
        return f"Sampler(temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p})"

    def __call__(self, logits: npt.ArrayLike) -> int:
        """Draw an id.

        Parameters
        ----------
        logits : float (V,)
            -inf forbids an id. Not modified.

        Returns
        -------
        id : int
            In 0 .. V - 1. Each call uses one random number, or none if the temperature is 0.

        Raises
        ------
        ValueError
            The logits are not of shape (V,), contain NaN or +inf, or are all -inf.
        """
        values, best = _checked(logits, self._banned)
        if self.temperature == 0:
            return best
        cumulative = np.cumsum(self._weights(values, best))
        # The first cumulative weight above u * total belongs to a weight > 0. It exists: u <= 1 - 2**-53, so
        # u * total < total also after rounding.
        uniform = (self._bits.random_raw() >> 11) * 2.0**-53
        return int(cumulative.searchsorted(uniform * cumulative[-1], side="right"))

    def probabilities(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The probabilities of the ids in a call with the same logits, after temperature, top-k and top-p.

        Parameters
        ----------
        logits : float (V,)
            Not modified.

        Returns
        -------
        probabilities : float64 (V,), fresh
            Sums to 1 up to rounding.

        Raises
        ------
        ValueError
            As in a call.

        Examples
        --------
        >>> Sampler(top_p=0.5).probabilities([0.0, 0.0, 0.0, 0.0])
        array([0.5, 0.5, 0. , 0. ])
        """
        values, best = _checked(logits, self._banned)
        if self.temperature == 0:
            chosen = np.zeros(values.size)
            chosen[best] = 1.0
            return chosen
        weights = self._weights(values, best)
        weights /= np.cumsum(weights)[-1]
        return weights

    def _weights(self, values: npt.NDArray[np.float64], best: int) -> npt.NDArray[np.float64]:
        """Softmax numerators, fresh, the largest 1; 0 for ids that top-k and top-p exclude. Overwrites `values`."""
        with np.errstate(over="ignore"):  # with a tiny temperature all but the largest become -inf, as they should
            values -= values[best]
            # Top-k comes first: the temperature keeps the order, but a huge one would make all values equal.
            if self.top_k is not None and self.top_k < values.size:
                _keep_largest(values, self.top_k, np.partition(values, -self.top_k)[-self.top_k])
            values /= self.temperature
        if self.top_p is not None and self.top_p < 1:
            descending = np.sort(values)[::-1].copy()
            cumulative = np.cumsum(_exp(descending))
            last = int(cumulative.searchsorted(self.top_p * cumulative[-1]))
            _keep_largest(values, last + 1, descending[last])
        return _exp(values)


public_methods_in_ieee_mode(Sampler)


def _ids(name: str, ids: Iterable[int]) -> list[int]:
    """Ids in rising order. Raises TypeError and ValueError."""
    numbers = sorted({operator.index(id) for id in ids})
    if numbers and numbers[0] < 0:
        raise ValueError(f"{name}: expected ids of at least 0, got {numbers[0]}")
    return numbers


def _checked(logits: npt.ArrayLike, banned: Sequence[int]) -> tuple[npt.NDArray[np.float64], int]:
    """A float64 copy of the logits, -inf where banned, and the index of their first maximum. Raises ValueError."""
    values = np.array(real_numbers("logits", logits), np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"logits: expected shape (V,), got {values.shape}")
    if banned:
        if banned[-1] >= values.size:
            raise ValueError(f"ban: expected ids below {values.size}, got {banned[-1]}")
        for id in banned:  # mostly one, for which this is faster than an array of indices
            values[id] = -math.inf
    best = int(values.argmax())  # if there is a NaN, the index of the first one
    if not math.isfinite(values[best]):
        largest = values[best]
        raise ValueError(f"logits: expected finite numbers (or -inf, not all), got {largest} at index {best}")
    return values, best


def _keep_largest(values: npt.NDArray[np.float64], count: int, smallest: np.float64) -> None:
    """Set all but the `count` largest values to -inf; of values equal to `smallest`, the first ones are kept."""
    kept = values >= smallest
    surplus = np.count_nonzero(kept) - count
    if surplus:
        kept[np.flatnonzero(values == smallest)[-surplus:]] = False
    values[~kept] = -np.inf


def _exp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """exp of the C core, fresh: bit-identical on every machine."""
    out = np.empty_like(values)
    exp(out, values)
    return out
