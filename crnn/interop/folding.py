# SPDX-License-Identifier: MIT
"""The scaling of inputs and targets, multiplied into the weights, for formats that have no place for it.

    ((x - mean) / std) W_xh + b_h = x (W_xh / std) + (b_h - (mean / std) W_xh)
    (h W_hy + b_y) * std + mean = h (W_hy * std) + (b_y * std + mean)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crnn.checks import Array
from crnn.interop.parts import Layer, ModelParts

LARGEST_MEAN = 1000  # in standard deviations


def folded(format: str, parts: ModelParts) -> tuple[list[Layer], tuple[Array, Array] | None]:
    """Layers and head of a model, with its scaling multiplied in: in float64 where there is any, otherwise borrowed.

    Raises ValueError if a mean is so large compared with its standard deviation that float32 would lose the
    differences, which crnn's subtraction in float64 does not.
    """
    for name, (mean, std) in parts.scaling.items():
        ratio = float(np.abs(mean / std).max())
        if ratio > LARGEST_MEAN and not (name == "x" and parts.embedding is not None):
            raise ValueError(
                f"scaling: expected means of {name} of at most {LARGEST_MEAN} standard deviations, because {format} "
                f"has no scaling and computes in float32, got {ratio:.4g}; train on data from which it is subtracted"
            )
    layers, head = parts.layers, parts.head
    if "x" in parts.scaling and parts.embedding is None:
        mean, std = parts.scaling["x"]
        layers = [tuple(_with_inputs(params, mean, std) for params in layers[0]), *layers[1:]]
    if "y" in parts.scaling and head is not None:
        repeats = len(head[1]) // len(parts.scaling["y"][0])  # quantiles are blocks of the targets' columns
        mean, std = (np.tile(values, repeats) for values in parts.scaling["y"])
        head = head[0].astype(np.float64) * std, head[1].astype(np.float64) * std + mean
    return layers, head


def _with_inputs(params: Mapping[str, Array], mean: Array, std: Array) -> dict[str, Array]:
    """The parameters of a direction of the first layer, for inputs that are not standardised."""
    W_xh = params["W_xh"].astype(np.float64) / std[:, None]
    return {**params, "W_xh": W_xh, "b_h": params["b_h"].astype(np.float64) - mean @ W_xh}
