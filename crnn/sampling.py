# SPDX-License-Identifier: MIT
"""Sampling an id from logits: temperature, top-k, top-p and a random draw, bit-identical on every machine.

The C core computes with float64 in a fixed order, so the same logits and seed give the same id on every CPU.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from crnn._attributes import fixed_attributes
from crnn._core.sampling import Draws
from crnn._float_mode import in_ieee_mode
from crnn.array_input import real_numbers

__all__ = ["Sampler"]


def _check_temperature(name: str, value: Any) -> Any:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value}")
    return value


def _check_top_k(name: str, value: Any) -> Any:
    if value is not None:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}: expected an int or None, got {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    return value


def _check_top_p(name: str, value: Any) -> Any:
    if value is not None and not 0 < value <= 1:
        raise ValueError(f"{name}: expected a number in (0, 1], got {value}")
    return value


@fixed_attributes({"temperature": _check_temperature, "top_k": _check_top_k, "top_p": _check_top_p})
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
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
            raise ValueError(f"seed: expected an int of at least 0, or None, got {seed!r}")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p  # which checks them
        self._draws = Draws(np.random.PCG64(seed), _ids("ban", ban), _as_float64)

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
        return self._draws.draw(logits, self.temperature, self.top_k, self.top_p)

    def rows(self, logits: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Draw an id from each row of logits, bit-identical to a call for one row after the other.

        Parameters
        ----------
        logits : float (M, V)
            Such as `StreamBatch.step` returns. Not modified.

        Returns
        -------
        ids : int32 (M,), fresh

        Raises
        ------
        ValueError
            The logits are not of shape (M, V), or a row is refused as in a call. Then no random number is used.

        Examples
        --------
        >>> Sampler(seed=7, top_k=2).rows([[1.0, 3.0, 2.0], [0.0, 2.0, 2.0], [9.0, 2.0, 0.0]])
        array([1, 2, 0], dtype=int32)
        """
        return self._draws.draw_rows(logits, self.temperature, self.top_k, self.top_p)

    @in_ieee_mode
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
        size, ids, weights = self._draws.candidates(logits, self.temperature, self.top_k, self.top_p)
        probabilities = np.zeros(size)
        probabilities[ids] = weights / np.cumsum(weights)[-1]
        return probabilities


def _ids(name: str, ids: Iterable[int]) -> list[int]:
    """Ids in rising order. Raises TypeError and ValueError."""
    numbers = sorted({operator.index(id) for id in ids})
    if numbers and numbers[0] < 0:
        raise ValueError(f"{name}: expected ids of at least 0, got {numbers[0]}")
    return numbers


@in_ieee_mode
def _as_float64(logits: Any) -> npt.NDArray[np.float64]:
    """Raises TypeError and ValueError."""
    return np.asarray(real_numbers("logits", logits), np.float64)
