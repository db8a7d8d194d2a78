# SPDX-License-Identifier: MIT
"""PyTorch's recurrent layers with our weights. Its order of gates is crnn's: i, f, g, o and r, z, n."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GATES = {"tanh": 1, "gru": 3, "lstm": 4}
TORCH_NAMES = {"tanh": "RNN", "gru": "GRU", "lstm": "LSTM"}


def torch_layers(params: Mapping[str, Array], cell: str, *, one_bias: bool = False) -> Any:
    """`torch.nn.RNN`, `GRU` or `LSTM` of all the layers in ``params``.

    PyTorch has two biases where one is enough, and trains both. ``one_bias``: of the second, train only what crnn has
    too (a GRU's b_hn), so that the models are the same.
    """
    import torch

    layers = sum(name.endswith(".W_hh") for name in params)
    D, H = len(params["layer0.W_xh"]), len(params["layer0.W_hh"])
    module: Any = getattr(torch.nn, TORCH_NAMES[cell])(D, H, layers)
    for k in range(layers):
        second: Any = getattr(module, f"bias_hh_l{k}")
        with torch.no_grad():
            getattr(module, f"weight_ih_l{k}").copy_(torch.from_numpy(params[f"layer{k}.W_xh"].T))
            getattr(module, f"weight_hh_l{k}").copy_(torch.from_numpy(params[f"layer{k}.W_hh"].T))
            getattr(module, f"bias_ih_l{k}").copy_(torch.from_numpy(params[f"layer{k}.b_h"]))
            second.copy_(torch.from_numpy(second_bias(params, k, GATES[cell] * H)))
        if one_bias and cell == "gru":
            trained = torch.arange(3 * H) >= 2 * H
            second.register_hook(lambda gradient, trained=trained: gradient * trained)
        elif one_bias:
            second.requires_grad_(False)
    return module


def second_bias(params: Mapping[str, Array], layer: int, width: int) -> Array:
    """The bias of the recurrent product: zero except for a GRU's b_hn, the last block."""
    bias = np.zeros(width, np.float32)
    b_hn = params.get(f"layer{layer}.b_hn")
    if b_hn is not None:
        bias[-len(b_hn) :] = b_hn
    return bias
