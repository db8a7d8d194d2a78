# SPDX-License-Identifier: MIT
"""`to_module` and `to_cell`: networks and models of crnn as PyTorch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crnn.checks import Array
from crnn.interop.parts import ModelParts, parts_of
from crnn.interop.torch.tensors import recurrent_tensors
from crnn.interop.torch.whole import NETWORK, whole_tensors
from crnn.models.outputs.clusters import DIVISOR
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
        that makes ids one-hot. ``head`` is an ``nn.Linear``, or with an adaptive softmax an
        ``nn.AdaptiveLogSoftmaxWithLoss``; what is returned are then log-probabilities.

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
    parts = parts_of(model, adaptive_softmax=True)
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
    parts.refuse_rare_dropouts("a module of PyTorch")
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

    from crnn.interop.torch import _modules

    is_text, net = parts.kind == "LanguageModel", parts.network
    rnn = _recurrent_module(parts, **({} if is_text else {"batch_first": True}))
    tensors = whole_tensors(parts)
    embedding: Any = None
    if net.embedding_size is not None:
        weight = {"weight": tensors["embedding.weight"]}
        embedding = _filled(weight, torch.nn.Embedding, net.input_size, net.embedding_size)
    elif is_text:
        embedding = _modules.OneHot(net.input_size)
    head = _head_module(parts, {name[5:]: array for name, array in tensors.items() if name.startswith("head.")})
    if "embedding.weight" in tensors and tensors.get("head.weight") is tensors["embedding.weight"]:
        head.weight = embedding.weight
    if is_text:
        text: torch.nn.Module = _modules.LanguageModel(embedding, rnn, net.dropout, head)
        return text
    scaling = {name: pair for name, pair in parts.scaling.items() if name == "y" or embedding is None}
    module: torch.nn.Module = _modules.SequenceModel(embedding, rnn, net.dropout, head, scaling, parts)
    return module


def _head_module(parts: ModelParts, tensors: Mapping[str, Array]) -> Any:
    """The ``nn.Linear`` or ``nn.AdaptiveLogSoftmaxWithLoss`` of these tensors."""
    import torch

    if not parts.cutoffs:
        outputs, inputs = tensors["weight"].shape
        return _filled(tensors, torch.nn.Linear, inputs, outputs)
    size = parts.network.output_size, parts.network.input_size
    kind = torch.nn.AdaptiveLogSoftmaxWithLoss
    return _filled(tensors, kind, *size, cutoffs=parts.cutoffs, div_value=float(DIVISOR), head_bias=True)


def _filled(tensors: Mapping[str, Array], kind: Any, *sizes: int, **options: Any) -> Any:
    """A module ``kind(*sizes, **options)`` whose parameters are these arrays, whose memory it shares."""
    import torch

    with torch.device("meta"):  # allocates no memory and draws no random numbers
        module = kind(*sizes, **options)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
    return module
