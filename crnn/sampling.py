# SPDX-License-Identifier: MIT
"""From logits to an id: temperature, top-k, top-p, and a draw that is the same on every machine.

Only sorts, comparisons, sequential sums (`np.cumsum`) and the core's own exp stand between the logits and the
id, so equal logits and an equal seed give equal ids on any CPU.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from crnn._core.vecmath import exp

__all__ = ["Sampler"]


class Sampler:
    """Draws ids from logits.

    The logits are divided by the temperature, then cut to the `top_k` most likely ids, then to the `top_p`
    nucleus of those, and one of the rest is drawn by its softmax probability (float64). Of equal logits the
    lower index counts as the likelier. An id of probability zero (logit -inf, or cut) is never drawn.

    Parameters
    ----------
    temperature : float
        Below 1 sharper, above 1 flatter; 0 always takes the largest logit.
    top_k : int, optional
        Keep at most this many ids.
    top_p : float, optional
        Keep the fewest most likely ids that together have at least this probability, in (0, 1] [1]_.
    seed : int, optional
        Of the draws. Default: from the operating system, different every time.

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

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
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
            In 0 .. V - 1. A temperature of 0 uses no random number, otherwise each call uses one.

        Raises
        ------
        ValueError
            Not of shape (V,), a NaN or +inf among the logits, or all of them -inf.
        """
        values, best = _checked(logits)
        if self.temperature == 0:
            return best
        heights = np.cumsum(self._weights(values, best))
        # The first height above u * total belongs to a weight > 0. There is one: u <= 1 - 2**-53, so that
        # u * total < total after rounding too.
        uniform = (self._bits.random_raw() >> 11) * 2.0**-53
        return int(heights.searchsorted(uniform * heights[-1], side="right"))

    def probabilities(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The probabilities that a call draws by, after temperature, top-k and top-p.

        Parameters
        ----------
        logits : float (V,)

        Returns
        -------
        probabilities : float64 (V,), fresh
            Sums to 1 up to rounding.

        Examples
        --------
        >>> Sampler(top_p=0.5).probabilities([0.0, 0.0, 0.0, 0.0])
        array([0.5, 0.5, 0. , 0. ])
        """
        values, best = _checked(logits)
        if self.temperature == 0:
            chosen = np.zeros(values.size)
            chosen[best] = 1.0
            return chosen
        weights = self._weights(values, best)
        weights /= np.cumsum(weights)[-1]
        return weights

    def _weights(self, values: npt.NDArray[np.float64], best: int) -> npt.NDArray[np.float64]:
        """Softmax numerators, the largest 1; 0 for what top-k and top-p cut. Overwrites `values`."""
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf, rightly
            values -= values[best]
            # A temperature changes no order, so top-k may come first, while a huge one has not made all values equal.
            if self.top_k is not None and self.top_k < values.size:
                _keep_largest(values, self.top_k, np.partition(values, -self.top_k)[-self.top_k])
            values /= self.temperature
        if self.top_p is not None and self.top_p < 1:
            falling = np.sort(values)[::-1].copy()
            heights = np.cumsum(_exp(falling))
            last = int(heights.searchsorted(self.top_p * heights[-1]))
            _keep_largest(values, last + 1, falling[last])
        return _exp(values)


def _checked(logits: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], int]:
    """A float64 copy of the logits, and the index of the first largest."""
    values = np.array(logits, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"logits: expected shape (V,), got {values.shape}")
    best = int(values.argmax())  # of the first NaN, if there is one
    if not math.isfinite(values[best]):
        largest = values[best]
        raise ValueError(f"logits: expected finite numbers (or -inf, not all), got {largest} at index {best}")
    return values, best


def _keep_largest(values: npt.NDArray[np.float64], count: int, smallest: np.float64) -> None:
    """Set all but the `count` largest values to -inf; of those equal to the smallest the first stay."""
    kept = values >= smallest
    surplus = np.count_nonzero(kept) - count
    if surplus:
        kept[np.flatnonzero(values == smallest)[-surplus:]] = False
    values[~kept] = -np.inf


def _exp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    out = np.empty_like(values)
    exp(out, values)
    return out
