# SPDX-License-Identifier: MIT
"""The modules that `to_module` makes of models. Only `writing.py` imports this, when it needs it: it imports torch.

    module.embedding, module.rnn, module.dropout, module.head
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crnn.checks import Array
from crnn.interop.parts import ModelParts
from crnn.interop.torch.whole import FROM_TENSORS, TASKS


class OneHot(torch.nn.Module):
    """From ids (T, B) to one-hot vectors (T, B, size)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(ids, self.size)

    def extra_repr(self) -> str:
        return str(self.size)


class LanguageModel(torch.nn.Module):
    """From ids (T, B) and a state to logits (T, B, V) and the state after the last step. With an
    ``nn.AdaptiveLogSoftmaxWithLoss`` as the head they are log-probabilities."""

    def __init__(self, embedding: torch.nn.Module, rnn: torch.nn.Module, dropout: float, head: torch.nn.Module):
        super().__init__()
        self.embedding, self.rnn, self.dropout, self.head = embedding, rnn, torch.nn.Dropout(dropout), head

    def forward(self, ids: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        x = self.embedding(ids).to(self.rnn.weight_ih_l0.dtype)  # one-hot vectors are integers
        y, state = self.rnn(x, state)
        y = self.dropout(y)
        if isinstance(self.head, torch.nn.AdaptiveLogSoftmaxWithLoss):
            return self.head.log_prob(y.flatten(0, 1)).reshape(*y.shape[:2], -1), state
        return self.head(y), state


class Statistics(torch.nn.Module):
    """Mean and std of columns, which do not train."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Array, std: Array) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.array(mean)))
        self.register_buffer("std", torch.from_numpy(np.array(std)))


class SequenceModel(torch.nn.Module):
    """From x (N, T, D), or ids (N, T), and lengths (N,) to logits or values (N, V); without pooling (N, T, V)."""

    def __init__(
        self, embedding: Any, rnn: Any, dropout: float, head: Any, scaling: Mapping[str, Any], parts: ModelParts
    ) -> None:
        super().__init__()
        self.embedding, self.rnn, self.dropout, self.head = embedding, rnn, torch.nn.Dropout(dropout), head
        self.scaling: Any = torch.nn.ModuleDict({name: Statistics(*pair) for name, pair in scaling.items()})
        self.pooling = parts.pooling
        self.levels = len(parts.config["quantiles"]) if parts.config.get("loss") == "quantile" else None
        self.crnn_kind = next(name for name, kind in TASKS.items() if kind == parts.kind)
        self.crnn_options = _options(parts)

    def scaling_pairs(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {name: (each.mean, each.std) for name, each in self.scaling.items()}

    def forward(self, x: torch.Tensor, lengths: Any = None) -> Any:
        return self.values(self.head(self.dropout(self.pooled(self.outputs(self.inputs(x), lengths), lengths))))

    def inputs(self, x: Any) -> Any:
        """The inputs of the recurrent module (N, T, D)."""
        if self.embedding is not None:
            return self.embedding(x)
        if not x.is_floating_point() and x.ndim == 2:
            x = torch.nn.functional.one_hot(x, self.rnn.input_size)
        elif "x" in self.scaling:
            scaling = self.scaling["x"]
            x = (x.to(scaling.mean.dtype) - scaling.mean) / scaling.std
        return x.to(self.head.weight.dtype)

    def outputs(self, x: Any, lengths: Any) -> Any:
        """The outputs of the steps (N, T, F), 0 beyond the end of a sequence."""
        if lengths is None:
            return self.rnn(x)[0]
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, torch.as_tensor(lengths).cpu(), batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    def pooled(self, y: Any, lengths: Any) -> Any:
        """The input of the head: (N, F), or without pooling (N, T, F)."""
        if self.pooling is None:
            return y
        if self.pooling == "flatten":
            return y.flatten(1)
        N, T, F = y.shape
        ends = torch.full((N,), T) if lengths is None else torch.as_tensor(lengths)
        ends = ends.to(y.device)
        if self.pooling == "mean":
            return y.sum(1) / ends[:, None].to(y.dtype)
        if self.pooling == "max":
            padding = torch.arange(T, device=y.device)[None, :, None] >= ends[:, None, None]
            return y.masked_fill(padding, -torch.inf).max(1).values
        half = self.rnn.hidden_size  # the reverse direction, if there is one, ends at the first step
        last = y[torch.arange(N, device=y.device), ends - 1, :half]
        return torch.cat([last, y[:, 0, half:]], 1) if half < F else last

    def values(self, outputs: Any) -> Any:
        """Outputs in the units of the targets, with a last axis of quantiles if there are any."""
        if self.levels is not None:
            outputs = outputs.reshape(*outputs.shape[:-1], self.levels, -1)
        if "y" in self.scaling:
            scaling = self.scaling["y"]
            outputs = outputs * scaling.std.to(outputs.dtype) + scaling.mean.to(outputs.dtype)
        return outputs if self.levels is None else outputs.transpose(-1, -2)


def _options(parts: ModelParts) -> dict[str, Any]:
    """The options of the model that neither tensors nor modules determine, for `from_module`."""
    return {name: value for name, value in parts.config.items() if name not in FROM_TENSORS | {"dropout"}}
