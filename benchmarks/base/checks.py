# SPDX-License-Identifier: MIT
"""A contender is timed only after its results have been checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def require_close(who: str, theirs: ArrayLike, ours: ArrayLike, tolerance: float = 1e-4) -> None:
    """Raise RuntimeError unless both agree within ``tolerance``, relative to the largest element."""
    a, b = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    if a.shape != b.shape:
        raise RuntimeError(f"{who} computes something else: shape {a.shape}, ours {b.shape}")
    error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)
    if not error <= tolerance:
        raise RuntimeError(f"{who} computes something else: relative difference {error:.1e}")
