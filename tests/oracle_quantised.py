# SPDX-License-Identifier: MIT
"""Products with int8, int4 and bf16 weights, in NumPy, by their definition in src_c/quant."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import oracle
from kernel_tools import bits, fma32
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MULTIPLIERS = (1, 2, 4, 5, 6, 9, 11, 14, 15, 16, 17, 18)  # of int4
LEAST = np.float32(2.0**-100)  # numbers below are zero in a row or column of int8


def int8_scales(w: Floats, most: int = 127) -> Floats:
    """(N,): largest / 127, rounded up to 16 significant bits."""
    largest = np.abs(w).max(axis=0)
    exact = (largest / np.float32(most)).astype(np.float32)
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


def int4_steps(w: Floats) -> Floats:
    """(K, N): the multiplier times the scale of each weight, by trying each multiplier."""
    scales = int8_scales(w, 126)
    steps = np.empty_like(w)
    for k in range(0, len(w), 32):
        for n in range(w.shape[1]):
            largest = np.abs(w[k : k + 32, n]).max()
            fitting = [g for g in MULTIPLIERS if largest <= np.float32(7 * g) * scales[n]]
            steps[k : k + 32, n] = np.float32(fitting[0] if fitting else 1) * scales[n]
    return steps


def int4_weights(w: Floats) -> Floats:
    steps = int4_steps(w)
    return np.rint(w / np.where(steps == 0, np.float32(1), steps)).astype(np.int64).astype(np.float32) * steps


def int4_product(x: Floats, w: Floats, start: Floats) -> Floats:
    """An int8 product with integers of other sizes."""
    p, row_scales = int8_rows(x)
    scales = int8_scales(w, 126)
    total = (p @ np.rint(int4_weights(w) / np.where(scales == 0, np.float32(1), scales)).astype(np.int64)).astype("f4")
    with np.errstate(all="ignore"):
        return fma32(total, row_scales * scales, np.broadcast_to(start, total.shape))


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


PRODUCTS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "bf16": bf16_product,
    "int8": int8_product,
    "int4": int4_product,
}
WEIGHTS: dict[str, Callable[[Floats], Floats]] = {"bf16": bf16, "int8": int8_weights, "int4": int4_weights}


# ---- training ------------------------------------------------------------------------------------------------------


class Rounding(np.ndarray[Any, Any]):
    """float64 numbers whose products round both operands to bf16: for the oracle of training in bf16.

    What is computed from them is such an array again. The rows that one-hot vectors select are not rounded.
    """

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        arrays = [np.asarray(each) for each in inputs]
        if ufunc is np.matmul:
            arrays = _operands(arrays)
        if out is not None:
            options["out"] = tuple(each.view(np.ndarray) for each in out)
        result = getattr(ufunc, method)(*arrays, **options)
        return result.view(Rounding) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        if function is np.einsum:  # of the oracle: a gradient of weights
            args = (args[0], *_operands([np.asarray(each) for each in args[1:]]))
            return np.einsum(*args).view(Rounding)
        result = super().__array_function__(function, kinds, args, options)
        return result.view(Rounding) if function is np.concatenate else result


def _operands(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    if any(map(_is_one_hot, arrays)):
        return arrays
    return [bf16(each.astype(np.float32)).astype(np.float64) for each in arrays]


def _is_one_hot(x: NDArray[Any]) -> bool:
    return x.ndim == 3 and bool(np.isin(x, (0, 1)).all() and (x.sum(axis=-1) == 1).all())


def in_bf16(params: Mapping[str, NDArray[Any]]) -> oracle.Params:
    """The oracle's parameters for training in bf16."""
    return {name: values.astype(np.float64).view(Rounding) for name, values in params.items()}


def backward_in_bf16(params: oracle.Params, tape: oracle.Tape, dy: NDArray[Any]) -> tuple[oracle.Params, Any, Any]:
    """`oracle.rnn_backward` of a tape with such parameters."""
    tape.inputs = [np.asarray(x).view(Rounding) for x in tape.inputs]
    tape.top = np.asarray(tape.top).view(Rounding)
    return oracle.rnn_backward(params, tape, dy)
