# SPDX-License-Identifier: MIT
"""What the kernel tests share: awkward sizes, guarded arrays, comparison by size and by bits, exact fma."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import ArrayLike, DTypeLike, NDArray

# At, under and over a line of 8 doubles or 16 floats; then up to 8 lines, the widest tile, and beyond.
WIDTHS = [1, 7, 8, 9, 15, 16, 17, 31, 33, 127, 209]
ROWS = [*range(1, 14), 25]  # tiles have 1 to 12 rows

SPECIAL = [0.0, -0.0, 20.0, -20.0, 1e4, -1e4, np.inf, -np.inf, np.nan]

TOLERANCE = {"float32": 2e-6, "float64": 1e-12}

GUARD_WORDS = 19  # odd, so that arrays do not start on a cache line either
# NaNs that no arithmetic makes.
GUARD = {"float32": np.uint32(0x7FC0BEEF), "float64": np.uint64(0x7FF8BEEFBEEFBEEF)}


def bits(a: ArrayLike) -> NDArray:
    a = np.asarray(a)
    return a.view(f"u{a.itemsize}")


class Guarded:
    """Arrays with words around them that must not change. Reading one gives NaN, so that shows as well."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.outputs: list[NDArray] = []
        self.inputs: list[tuple[NDArray, NDArray]] = []

    def _place(self, values: ArrayLike) -> tuple[NDArray, NDArray]:
        values = np.asarray(values)
        words = np.full(values.size + 2 * GUARD_WORDS, GUARD[self.dtype.name])
        array = words[GUARD_WORDS:-GUARD_WORDS].view(self.dtype).reshape(values.shape)
        array[...] = values
        return words, array

    def input(self, values: ArrayLike) -> NDArray:
        """A read-only copy, checked not to have been written all the same."""
        words, array = self._place(values)
        self.inputs.append((words, words.copy()))
        array.flags.writeable = False
        return array

    def inout(self, values: ArrayLike) -> NDArray:
        """A copy that a kernel may write, as ACCUMULATED outputs are."""
        words, array = self._place(values)
        self.outputs.append(words)
        return array

    def output(self, *shape: int) -> NDArray:
        """Filled with NaN, so that an element left out of an OVERWRITTEN output is seen."""
        return self.inout(np.full(shape, np.nan))

    def check(self) -> None:
        for words in self.outputs:
            guards = np.concatenate([words[:GUARD_WORDS], words[-GUARD_WORDS:]])
            assert (guards == GUARD[self.dtype.name]).all(), "a kernel wrote outside an array"
        for words, before in self.inputs:
            np.testing.assert_array_equal(words, before, "a kernel wrote into its input")


def assert_close(got: NDArray, expected: NDArray, least: float = 0.0) -> None:
    """Largest error within the precision's tolerance, or ``least``, measured against the largest element expected."""
    assert got.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0, "nothing to compare with"
    error = np.abs(got.astype(np.float64) - expected).max() / scale
    assert error <= max(TOLERANCE[got.dtype.name], least), f"error {error:.2g} of the largest element"


def assert_same_bits(got: ArrayLike, expected: ArrayLike) -> None:
    """Every bit, but for the sign and payload of NaN, which nobody promises."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if np.array_equal(bits(got), bits(expected)):
        return
    same = (bits(got) == bits(expected)) | (np.isnan(got) & np.isnan(expected))
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        pytest.fail(f"{(~same).sum()} of {same.size}, first at {at}: {got[at]!r}, not {expected[at]!r}")


def difference_gradient(f: Callable[[NDArray], float], x: NDArray, step: float = 1e-4) -> NDArray:
    """The gradient of f at x (float64) by central differences, their error in step**2 taken out (Richardson)."""
    gradient = np.empty_like(x)
    for at in np.ndindex(x.shape):
        there = x.copy()
        slopes = []
        for h in (step, 2 * step):
            there[at] = x[at] + h
            above = f(there)
            there[at] = x[at] - h
            slopes.append((above - f(there)) / (2 * h))
        gradient[at] = (4 * slopes[0] - slopes[1]) / 3
    return gradient


def slices(n: int, unit: int = 1) -> Iterator[tuple[int, int]]:
    """0 .. n in three uneven parts, out of order, each from a multiple of ``unit``. Some may be empty."""
    first, second = n // 3 // unit * unit, 2 * n // 3 // unit * unit
    yield from [(second, n), (0, first), (first, second)]


def fma32(a: NDArray, b: NDArray, c: NDArray) -> NDArray[np.float32]:
    """a * b + c of float32 arrays, rounded once.

    The product is exact in float64. The sum is rounded there to odd (if anything was cut off, the last bit is
    set), which leaves the second rounding, to float32, as good as the only one. Finite, normal values only.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    back = total - product
    cut_off = (product - (total - back)) + (c - back)  # Knuth's exact error of the sum
    toward = np.where(cut_off > 0, np.inf, -np.inf)
    odd = (bits(total) & np.uint64(1)) == 1
    return np.where((cut_off != 0) & ~odd, np.nextafter(total, toward), total).astype(np.float32)


def chain32(x: NDArray, w: NDArray, start: NDArray) -> NDArray[np.float32]:
    """start (M, N) + x (M, K) @ w (K, N) by crnn.h's definition: k rising, one fused multiply-add each."""
    y = np.broadcast_to(start, (len(x), w.shape[1])).astype(np.float32)
    for k in range(x.shape[1]):
        y = fma32(x[:, k : k + 1], w[k], y)
    return y
