# SPDX-License-Identifier: MIT
"""Keras's layers Normalization and Rescaling, and the mean and standard deviation of a model's scaling."""

from __future__ import annotations

from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.keras.architecture import KerasLayer
from crnn.interop.parts import ModelParts

EPSILON = 1e-7  # Keras's least standard deviation
MOST_SHIFT = 1000.0  # |mean| / std that float32 subtracts without losing more than four of its digits
LARGEST = {"float32": 1e18, "float64": 1e150}  # of a standard deviation and a mean: Keras squares them


def statistics(layer: KerasLayer, size: int, *, invert: bool, single: bool) -> tuple[Array, Array]:
    """Mean and standard deviation (size,) of a Normalization or Rescaling layer, float64."""
    if layer.kind == "Rescaling":
        layer.check_arrays(0)
        scale, offset = (_vector(layer, name, layer.option(name, 0.0), size) for name in ("scale", "offset"))
        if not (scale > 0).all():
            raise layer.fail("scale above 0", scale.tolist())
        return (offset, scale) if invert else (0.0 - offset / scale, 1 / scale)
    if layer.option("invert", False) != invert:
        raise layer.fail(f"invert={invert} there", not invert)
    axis, last = layer.config.get("axis", -1), 1 if single else 2
    if axis not in (-1, [-1], last, [last], None, []):
        raise layer.fail("axis=-1", axis)
    if layer.option("mean", None) is not None:
        layer.check_arrays(0)
        mean, variance = (_vector(layer, name, layer.option(name, None), size) for name in ("mean", "variance"))
    else:
        layer.check_arrays(2, 3)  # with or without the count
        mean, variance = (_vector(layer, "mean and variance", array, size) for array in layer.arrays[:2])
    if not (variance >= 0).all():
        raise layer.fail("variances of at least 0", variance.tolist())
    return mean, np.maximum(np.sqrt(variance), EPSILON)


def _vector(layer: KerasLayer, name: str, value: Any, size: int) -> Array:
    """Numbers as float64 (size,), fresh; one number stands for all."""
    try:
        array = np.array(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise layer.fail(f"{name}: numbers", value) from None
    if array.size not in (1, size) or not np.isfinite(array).all():
        raise layer.fail(f"{name}: {size} finite numbers", value)
    return np.broadcast_to(array, (size,)).copy()


def normalization(parts: ModelParts, name: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The configuration and the arrays of the layer that scales "x" or "y".

    The arrays are float64, from which Keras rounds to the model's dtype. Raises ValueError for numbers with which
    Keras's arithmetic would lose digits.
    """
    mean, std = parts.scaling[name]
    dtype = parts.network.dtype
    lost = [] if dtype == "float64" else list(np.flatnonzero(np.abs(mean) > MOST_SHIFT * std))
    if lost:
        column = int(lost[0])
        raise ValueError(
            f"scaling.{name}: expected means of at most {MOST_SHIFT:g} standard deviations, because Keras computes in"
            f" float32, got mean {mean[column]:g} and std {std[column]:g} in column {column};"
            " model.astype('float64') can be written"
        )
    if not (std > EPSILON).all() or not (np.maximum(std, np.abs(mean)) < LARGEST[dtype]).all():
        raise ValueError(
            f"scaling.{name}: expected standard deviations above {EPSILON:g}, which is Keras's smallest, and numbers"
            f" below {LARGEST[dtype]:g}, got {std.tolist()!r:.200} and means {mean.tolist()!r:.200}"
        )
    if name == "y":
        assert parts.head is not None
        levels = len(parts.head[1]) // len(mean)
        mean, std = np.tile(mean, levels), np.tile(std, levels)
    variance = std * std  # whose square root is the std again
    arrays = {"vars/0": mean, "vars/1": variance, "vars/2": np.array(0, np.int32)}
    return {"axis": -1, "invert": name == "y"}, arrays
