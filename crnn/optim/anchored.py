# SPDX-License-Identifier: MIT
"""AnchoredUpdate: updates of weights that keep learning while they are used, held near those that they began with."""

from __future__ import annotations

import math

import numpy as np

from crnn._attributes import fixed_attributes
from crnn._core import optim as kernels
from crnn._core.gemm import aligned_empty
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.checks import Array, check_limit, check_number, check_threads
from crnn.optim.optimizers import Optimizer, norm_of

__all__ = ["AnchoredUpdate"]


@fixed_attributes()
class AnchoredUpdate:
    """Updates flat parameters by an optimizer, and keeps them near an anchor: a copy of what they began with.

    One update clips the gradient g, calls the optimizer, and then, with p the parameters and a the anchor:

    - with ``decay``: p += min(1, decay * factors) * (a - p), the decay of dynamic evaluation (Krause et al. 2018);
    - with ``max_change``: if \\|p - a\\| > max_change * \\|a\\|, p = a + (p - a) * max_change * \\|a\\| / \\|p - a\\|,
      where \\|.\\| is the 2-norm.

    The results are bit-identical on every instruction set and for any number of threads. No array is allocated after
    the first update.

    Parameters
    ----------
    params : array (n,)
        The current parameters, float32 or float64, finite. They are copied if ``decay`` or ``max_change`` needs an
        anchor.
    optimizer : Optimizer
    clip_norm : float, optional
        The gradient is scaled down to this 2-norm if its norm is larger. Above 0.
    clip_value : float, optional
        Elements of the gradient are clipped to [-clip_value, clip_value], before ``clip_norm``. Above 0.
    decay : float
        In [0, 1]: the part of the way to the anchor that each update goes back.
    decay_factors : array (n,), optional
        Factors of ``decay``, one for each parameter, finite and at least 0. Ones if not given. Borrowed.
    max_change : float, optional
        Above 0. Bounds how far the parameters may move, relative to the norm of the anchor.
    anchor : array (n,), optional
        The anchor, if not ``params``: that of an update which is resumed. Copied.
    threads : int
        Threads that share the work if there are many parameters.

    Attributes
    ----------
    optimizer : Optimizer
    anchor : array (n,) or None
        Read-only. None if neither ``decay`` nor ``max_change`` is given.
    norm : float
        2-norm of the last gradient, after ``clip_value`` and before ``clip_norm``.
    skipped : int
        Gradients so far that were not finite, or too large for their squares to be finite. Nothing was learnt from
        them.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from crnn.optim import SGD
    >>> w = np.array([3.0, 4.0])
    >>> update = AnchoredUpdate(w, SGD(lr=1.0), max_change=0.2)
    >>> update(w, np.array([0.0, -10.0]))
    True
    >>> w
    array([3., 5.])
    """

    optimizer: Optimizer
    clip_norm: float | None
    clip_value: float | None
    decay: float
    max_change: float | None
    threads: int
    decay_factors: Array | None
    anchor: Array | None

    def __init__(
        self,
        params: Array,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        decay: float = 0.0,
        decay_factors: Array | None = None,
        max_change: float | None = None,
        anchor: Array | None = None,
        threads: int = 1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer: expected an optimizer such as crnn.optim.Adam(), got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        self.clip_norm = check_limit("clip_norm", clip_norm)
        self.clip_value = check_limit("clip_value", clip_value)
        self.decay = check_number("decay", decay, 0.0)
        if self.decay > 1.0:
            raise ValueError(f"decay: expected a number from 0 to 1, got {decay!r:.200}")
        self.max_change = check_limit("max_change", max_change)
        self.threads = check_threads(threads)
        _checked("params", params, None)
        self.decay_factors = decay_factors
        if decay_factors is not None and (_checked("decay_factors", decay_factors, params) < 0).any():
            raise ValueError("decay_factors: expected numbers of at least 0, got some below")
        kept = None
        if self.decay or self.max_change is not None:
            kept = aligned_empty(params.shape, params.dtype)
            kept[...] = params if anchor is None else _checked("anchor", anchor, params)
            kept.flags.writeable = False
        self.anchor = kept
        self._radius = 0.0
        if self.anchor is not None and self.max_change is not None:
            self._radius = self.max_change * norm_of(self.anchor, self.threads)
        # A rule that averages g^2 would never recover from an infinite one.
        self._largest = math.sqrt(float(np.finfo(params.dtype).max))
        self._norm, self._skipped = 0.0, 0

    @property
    def norm(self) -> float:
        """2-norm of the last gradient, after ``clip_value`` and before ``clip_norm``."""
        return self._norm

    @property
    def skipped(self) -> int:
        """Gradients so far that were not finite, or too large for their squares to be finite."""
        return self._skipped

    def __call__(self, params: Array, grads: Array, *, lr_scale: float = 1.0) -> bool:
        """Update the parameters once. Returns whether it did: not by a gradient that is not finite.

        Parameters
        ----------
        params : array (n,)
            Changed in place; contiguous.
        grads : array (n,)
            The gradient; its elements are clipped in place.
        lr_scale : float
            Multiplies the learning rate.
        """
        return self._update(params, grads, lr_scale)

    def _update(self, params: Array, grads: Array, lr_scale: float = 1.0) -> bool:
        """As a call, of callers in IEEE mode."""
        factor = self._clipping(grads)
        if not factor * self._norm < self._largest:
            self._skipped += 1
            return False
        update = self.optimizer.update
        if getattr(update, "__func__", None) is Optimizer.update and isinstance(params, np.ndarray):  # not a user's
            self.optimizer._update(params, grads, factor, lr_scale, self.threads)
        else:
            update(params, grads, factor=factor, lr_scale=lr_scale, threads=self.threads)
        if self.decay and self.anchor is not None:
            kernels.pull(params, self.anchor, self.decay_factors, self.decay, self.threads)
        if self.max_change is not None and self.anchor is not None:
            distance = self.distance(params)
            if not math.isfinite(distance):  # a learning rate that no number of this precision holds
                params[...] = self.anchor
            elif distance > self._radius:
                kernels.pull(params, self.anchor, None, 1.0 - self._radius / distance, self.threads)
        return True

    def distance(self, params: Array) -> float:
        """The 2-norm of the difference between parameters (n,) and the anchor; 0 without an anchor."""
        if self.anchor is None:
            return 0.0
        return math.sqrt(kernels.squared_distance(params, self.anchor, self.threads))

    def _clipping(self, grads: Array) -> float:
        """Clip the elements of the gradient, and note its norm. Returns the factor that clips the norm."""
        self._norm = norm_of(grads, self.threads)
        if not math.isfinite(self._norm):  # clipping would hide an infinite element
            return 1.0
        if self.clip_value is not None and kernels.clip(grads, self.clip_value, self.threads):
            self._norm = norm_of(grads, self.threads)
        limit = self.clip_norm
        return limit / self._norm if limit is not None and self._norm > limit else 1.0


def _checked(name: str, array: Array, like: Array | None) -> Array:
    """A finite flat array, of the shape and dtype of ``like`` if given. Raises TypeError and ValueError."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array, got {type(array).__name__}")
    if like is None:
        good = array.ndim == 1 and array.dtype in (np.float32, np.float64)
    else:
        good = array.shape == like.shape and array.dtype == like.dtype
    if not good:
        wanted = "float32 or float64 of shape (n,)" if like is None else f"{like.dtype} of shape {like.shape}"
        raise ValueError(f"{name}: expected {wanted}, got {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got some that are not")
    return array


public_methods_in_ieee_mode(AnchoredUpdate)
