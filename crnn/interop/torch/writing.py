# SPDX-License-Identifier: MIT
"""`to_module` and `to_cell`: networks and models of crnn as PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn.checks import Array
from crnn.interop.parts import ModelParts, parts_of
from crnn.interop.torch.tensors import recurrent_tensors
from crnn.interop.torch.whole import FROM_TENSORS, NETWORK, TASKS, whole_tensors
from crnn.nn.network import RNN

if TYPE_CHECKING:
    import torch


def to_module(model: Any) -> torch.nn.Module:
    """The corresponding PyTorch module with the same weights, on the CPU and in training mode.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor

    Returns
    -------
    module : torch.nn.Module
        For an RNN an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` that takes x (T, B, D).

        For a LanguageModel a module with the attributes ``embedding``, ``rnn``, ``dropout`` and ``head``; it takes
        int64 ids (T, B) and optionally a state, and returns logits (T, B, V) and the state after the last step.
        ``embedding`` is an ``nn.Embedding``, whose weight the head shares if the model has tied weights, or a module
        that makes ids one-hot.

        For the other models a module with the same attributes that takes x (N, T, D), or int64 ids (N, T), and
        optionally ``lengths`` (N,). A classifier or tagger returns logits, as ``nn.CrossEntropyLoss`` or
        ``nn.BCEWithLogitsLoss`` expects: (N, V), or (N, T, V) without pooling. A regressor returns values in the units
        of its targets, (N, P) or (N, T, P); with the "quantile" loss there is a last axis (Q,). The scaling of inputs
        and targets is part of it, as buffers.

    Raises
    ------
    TypeError
        ``model`` is of another kind.
    ValueError
        As in `to_state_dict`, or the model has variational dropout.
    """
    parts = parts_of(model)
    if parts.kind == NETWORK:
        if parts.embedding is not None:
            size = parts.network.embedding_size
            raise ValueError(f"model: expected an RNN without an embedding, got embedding_size={size}")
        module: torch.nn.Module = _recurrent_module(parts)
        return module
    return _whole_module(parts)


def to_cell(net: RNN) -> torch.nn.Module:
    """The ``nn.RNNCell``, ``nn.GRUCell`` or ``nn.LSTMCell`` of a network with one layer and one direction.

    Raises TypeError and ValueError as `to_state_dict` does, and ValueError if there are several layers.
    """
    import torch

    parts = parts_of(net, NETWORK)
    parts.refuse("a cell of PyTorch", num_layers=1, bidirectional=False, embedding_size=None)
    tensors, cell = recurrent_tensors(parts, stacked=False), parts.network.cell
    kind = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}.get(cell, torch.nn.RNNCell)
    options = {"nonlinearity": cell} if kind is torch.nn.RNNCell else {}
    module: torch.nn.Module = _filled(tensors, kind, parts.network.input_size, parts.network.hidden_sizes[0], **options)
    return module


def _recurrent_module(parts: ModelParts, **options: Any) -> Any:
    """The ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` of a network, without its embedding."""
    import torch

    net = parts.network
    tensors = recurrent_tensors(parts)
    if net.dropout and net.variational_dropout:
        raise ValueError("variational_dropout: expected False, as PyTorch's dropout is, got True")
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(net.cell, torch.nn.RNN)
    options |= {"nonlinearity": net.cell} if kind is torch.nn.RNN else {}
    layers = len(net.hidden_sizes)
    options["dropout"] = net.dropout if layers > 1 else 0.0  # with one layer PyTorch warns that it does nothing
    sizes = net.embedding_size or net.input_size, net.hidden_sizes[0], layers
    return _filled(tensors, kind, *sizes, bidirectional=net.bidirectional, **options)


def _whole_module(parts: ModelParts) -> torch.nn.Module:
    """The module of a model, see `to_module`."""
    import torch

    is_text, net = parts.kind == "LanguageModel", parts.network
    rnn = _recurrent_module(parts, **({} if is_text else {"batch_first": True}))
    tensors = whole_tensors(parts)
    embedding = None
    if net.embedding_size is not None:
        weight = {"weight": tensors["embedding.weight"]}
        embedding = _filled(weight, torch.nn.Embedding, net.input_size, net.embedding_size)
    elif is_text:
        embedding = _modules()["OneHot"](net.input_size)
    outputs, inputs = tensors["head.weight"].shape
    head = _filled({name: tensors["head." + name] for name in ("weight", "bias")}, torch.nn.Linear, inputs, outputs)
    if tensors["head.weight"] is tensors.get("embedding.weight"):
        assert embedding is not None
        head.weight = embedding.weight
    if is_text:
        text: torch.nn.Module = _modules()["LanguageModel"](embedding, rnn, net.dropout, head)
        return text
    scaling = {name: pair for name, pair in parts.scaling.items() if name == "y" or embedding is None}
    module: torch.nn.Module = _modules()["SequenceModel"](embedding, rnn, net.dropout, head, scaling, parts)
    return module


def _filled(tensors: Mapping[str, Array], kind: Any, *sizes: int, **options: Any) -> Any:
    """A module ``kind(*sizes, **options)`` whose parameters are these arrays, whose memory it shares."""
    import torch

    with torch.device("meta"):  # allocates no memory and draws no random numbers
        module = kind(*sizes, **options)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
    return module


def _options(parts: ModelParts) -> dict[str, Any]:
    """The options of the model that neither tensors nor modules determine, for `from_module`."""
    return {name: value for name, value in parts.config.items() if name not in FROM_TENSORS | {"dropout"}}


@cache
def _modules() -> dict[str, Any]:
    """Module classes by name. They are defined here because their base class needs the import of torch."""
    import torch

    Module: Any = torch.nn.Module

    class OneHot(Module):
        """From ids (T, B) to one-hot vectors (T, B, size)."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(ids, self.size)

        def extra_repr(self) -> str:
            return str(self.size)

    class LanguageModel(Module):
        """From ids (T, B) and a state to logits (T, B, V) and the state after the last step."""

        def __init__(self, embedding: torch.nn.Module, rnn: torch.nn.Module, dropout: float, head: torch.nn.Module):
            super().__init__()
            self.embedding, self.rnn, self.dropout, self.head = embedding, rnn, torch.nn.Dropout(dropout), head

        def forward(self, ids: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            x = self.embedding(ids).to(self.head.weight.dtype)  # one-hot vectors are integers
            y, state = self.rnn(x, state)
            return self.head(self.dropout(y)), state

    class Statistics(Module):
        """Mean and std of columns, which do not train."""

        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self, mean: Array, std: Array) -> None:
            super().__init__()
            self.register_buffer("mean", torch.from_numpy(np.array(mean)))
            self.register_buffer("std", torch.from_numpy(np.array(std)))

    class SequenceModel(Module):
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

    classes = (OneHot, LanguageModel, Statistics, SequenceModel)
    for each in classes:  # pickle finds them by `__getattr__`
        each.__module__, each.__qualname__ = __name__, each.__name__
    return {each.__name__: each for each in classes}


def __getattr__(name: str) -> Any:
    """A class of `_modules`."""
    if name in ("OneHot", "LanguageModel", "Statistics", "SequenceModel"):
        return _modules()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
