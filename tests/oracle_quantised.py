# SPDX-License-Identifier: MIT
"""Products with int8 and bf16 weights, in NumPy, by their definition in src_c/quant."""

from collections.abc import Callable

import numpy as np
from kernel_tools import bits, fma32
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LEAST = np.float32(2.0**-100)  # numbers below are zero in a row or column of int8


def int8_scales(w: Floats) -> Floats:
    """(N,): largest / 127, rounded up to 16 significant bits."""
    largest = np.abs(w).max(axis=0)
    exact = (largest / np.float32(127)).astype(np.float32)
    rounded = ((bits(exact).astype(np.int64) + 0xFF) & ~0xFF).astype(np.uint32).view(np.float32)
    return np.where(largest < LEAST, np.float32(0), rounded)


def int8_integers(w: Floats) -> NDArray[np.int64]:
    scales = int8_scales(w)
    return np.rint(w / np.where(scales == 0, np.float32(1), scales)).astype(np.int64)


def int8_weights(w: Floats) -> Floats:
    return int8_integers(w).astype(np.float32) * int8_scales(w)


def int8_rows(x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """x (M, K) as integers, and the scale of each row."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    finite, zero = np.isfinite(largest), largest < LEAST
    with np.errstate(all="ignore"):
        scales = np.where(finite, np.where(zero, np.float32(0), largest / np.float32(127)), np.float32(np.nan))
        inverse = np.float32(127) / largest
        p = np.where(finite & ~zero, np.rint(x * inverse), 0).astype(np.int64)
    return p, scales.astype(np.float32)


def int8_product(x: Floats, w: Floats, start: Floats) -> Floats:
    """start (M, N) + x (M, K) @ w (K, N)."""
    p, row_scales = int8_rows(x)
    total = (p @ int8_integers(w)).astype(np.float32)
    with np.errstate(all="ignore"):
        return fma32(total, row_scales * int8_scales(w), np.broadcast_to(start, total.shape))


def bf16(x: Floats) -> Floats:
    """To the upper 16 bits: nearest, halves to even; denormals are zero."""
    words = bits(x).astype(np.int64)
    rounded = (words + 0x7FFF + (words >> 16 & 1)) & 0xFFFF0000
    rounded = np.where(np.isnan(x), (words | 0x400000) & 0xFFFF0000, rounded)
    return np.where(np.abs(x) < np.finfo("f4").tiny, words & 0x80000000, rounded).astype(np.uint32).view(np.float32)


def bf16_product(x: Floats, w: Floats, start: Floats) -> Floats:
    x, w = bf16(x), bf16(w)
    if x.shape[1] % 2:
        x, w = np.pad(x, ((0, 0), (0, 1))), np.pad(w, ((0, 1), (0, 0)))
    y = np.broadcast_to(start, (len(x), w.shape[1])).astype(np.float32)
    for k in range(0, x.shape[1], 2):
        for of_pair in (k + 1, k):
            y = fma32(x[:, of_pair : of_pair + 1], w[of_pair], y)
    return y


PRODUCTS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {"bf16": bf16_product, "int8": int8_product}
WEIGHTS: dict[str, Callable[[Floats], Floats]] = {"bf16": bf16, "int8": int8_weights}
