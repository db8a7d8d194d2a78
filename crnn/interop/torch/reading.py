# SPDX-License-Identifier: MIT
"""`from_module`: PyTorch modules as networks and models of crnn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crnn._float_mode import in_ieee_mode
from crnn.interop.torch.tensors import Recurrent, as_floats, listed, recurrent_of, stacked
from crnn.interop.torch.whole import (
    NETWORK,
    TASKS,
    Head,
    Wanted,
    check_kind,
    is_one_logit,
    model_of,
    network_of,
)
from crnn.text.vocab import Vocab

if TYPE_CHECKING:
    import torch

MODES = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "GRU": "gru", "LSTM": "lstm"}  # by ``module.mode``
ONE_ONLY = "expected one {what}, got {found}; give the modules, as in from_module({example}, head=m.fc, kind=...)"


@in_ieee_mode
def from_module(
    module: torch.nn.Module | Sequence[torch.nn.Module],
    *,
    kind: str | type | None = None,
    head: torch.nn.Module | None = None,
    embedding: torch.nn.Module | None = None,
    vocab: Vocab | None = None,
    scaling: Mapping[str, tuple[Any, Any]] | None = None,
    **options: Any,
) -> Any:
    """The network or model that a PyTorch module is.

    Parameters
    ----------
    module : torch.nn.Module
        An ``nn.RNN``, ``nn.GRU``, ``nn.LSTM``, ``nn.RNNCell``, ``nn.GRUCell`` or ``nn.LSTMCell``; or a module of your
        own, or an ``nn.Sequential``, that has exactly one of these, at most one ``nn.Embedding`` and at most one
        ``nn.Linear`` or ``nn.AdaptiveLogSoftmaxWithLoss``, which are found by their type. Or a list of recurrent
        modules, each of which reads the outputs of the one before. Not modified. ``batch_first`` is ignored.
    kind : {"classifier", "tagger", "regressor", "language_model"}, or the class of the model, optional
        The model that it is. Not needed without a head, with a ``vocab``, or for what `to_module` made.
    head : torch.nn.Linear, or torch.nn.AdaptiveLogSoftmaxWithLoss for a language model, optional
        From hidden states to logits or values, if ``module`` is a recurrent one.
    embedding : torch.nn.Embedding, optional
        Likewise. Without one, inputs are numbers, or for a language model one-hot tokens. ``padding_idx`` and
        ``scale_grad_by_freq``, which affect nothing but PyTorch's gradients, are ignored.
    vocab : Vocab, optional
        The vocabulary of the ids of a language model.
    scaling : mapping, optional
        As in `from_state_dict`.
    **options
        Of the model, as in `from_state_dict`. ``dropout`` is that of the module if not given.

    Returns
    -------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
        Shares no memory with the modules.

    Raises
    ------
    TypeError, ValueError
        As in `from_state_dict`; the modules do not match each other; there are several of a type, or others that
        compute something, such as an ``nn.LayerNorm``. A parameter or buffer without a place is named.

    Notes
    -----
    The method ``forward`` of your own module cannot be read: state by ``pooling`` how the head gets the outputs of the
    steps, and compare the outputs of both models once.
    """
    import torch

    module = getattr(module, "_orig_mod", module)  # of a module that torch.compile returned
    recurrent = list(module) if isinstance(module, list | tuple) else [module]
    if recurrent and all(isinstance(each, torch.nn.RNNBase | torch.nn.RNNCellBase) for each in recurrent):
        if kind is None and (head is not None or embedding is not None or vocab is not None):
            kind = "language_model"
            if not isinstance(head, torch.nn.AdaptiveLogSoftmaxWithLoss):
                _expect("head", head, torch.nn.Linear)
            _expect("embedding", embedding, torch.nn.Embedding, optional=True)
            if not isinstance(vocab, Vocab):
                raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}; or give the kind of the model")
        found = Found(recurrent, head, embedding, {})
    elif not isinstance(module, torch.nn.Module):
        hint = "; from_state_dict takes state dictionaries" if isinstance(module, Mapping) else ""
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}{hint}")
    elif head is not None or embedding is not None:
        raise TypeError(
            "module: expected an nn.RNN, nn.GRU, nn.LSTM or a cell with head= or embedding=, "
            f"got {type(module).__name__}"
        )
    else:
        kind, options = _as_it_was_made(module, kind, vocab, options)
        found = _find(module)
        scaling = found.scaling or scaling
    kind = _kind_of(kind, vocab, found)
    _check_activations(found, kind, options)
    if "dropout" not in options:
        options["dropout"] = _dropout(None if found.recurrent == recurrent else module, found)
    return _model(Wanted(kind, vocab=vocab, scaling=scaling, options=options), found)


@dataclass(frozen=True)
class Found:
    """The modules that make a model."""

    recurrent: list[Any]  # modules, each of which reads the outputs of the one before
    head: Any  # or None
    embedding: Any  # or None
    scaling: Mapping[str, tuple[Any, Any]]  # of a module that `to_module` made
    activations: Mapping[str, Any] = field(default_factory=dict)  # modules that make probabilities, by name


def _expect(name: str, value: Any, cls: type, *, optional: bool = False) -> None:
    if not isinstance(value, cls) and not (optional and value is None):
        raise TypeError(f"{name}: expected an nn.{cls.__name__}, got {type(value).__name__}")


def _kind_of(kind: Any, vocab: Any, found: Found) -> str:
    """The kind of model. Raises TypeError if it is not said and there is a head."""
    if kind is None and vocab is None and found.head is not None:
        raise TypeError(f"kind: expected one of {', '.join(TASKS)}, because there is a head, got None")
    return check_kind(kind, vocab)


def _as_it_was_made(module: Any, kind: Any, vocab: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Kind and options of a module that `to_module` made, where they are not given."""
    made = getattr(module, "crnn_kind", None)
    if made not in TASKS or kind not in (None, made):
        return kind, options
    return made, {**module.crnn_options, **options}


# ---- finding the modules ---------------------------------------------------------------------------------------------


def _find(module: Any) -> Found:
    """The modules in ``module`` that make a model. Raises ValueError if there are others, which are named."""
    import torch

    nn = torch.nn
    by_type: dict[type, dict[str, Any]] = {nn.RNNBase: {}, nn.Linear: {}, nn.Embedding: {}}
    adaptive = {name: m for name, m in module.named_modules() if isinstance(m, nn.AdaptiveLogSoftmaxWithLoss)}
    by_type[nn.Linear] |= adaptive
    activations: dict[str, Any] = {}
    for name, child in module.named_modules():
        if any(name.startswith(rnn + ".") for rnn in by_type[nn.RNNBase]):
            continue  # parametrizations, which `recurrent_of` refuses by name
        if any(name == head or name.startswith(head + ".") for head in adaptive):
            continue
        for cls, modules in by_type.items():
            if isinstance(child, (cls, nn.RNNCellBase) if cls is nn.RNNBase else cls):
                modules[name] = child
                break
        else:
            if isinstance(child, nn.Softmax | nn.LogSoftmax | nn.Sigmoid):
                activations[name] = child
            elif not _is_harmless(child):
                _refuse(name, child)
    recurrent, heads, embeddings = (list(modules) for modules in by_type.values())
    if len(recurrent) != 1:
        example = "[m.first, m.second]" if recurrent else "m.rnn"
        message = ONE_ONLY.format(what="recurrent module", found=listed(recurrent), example=example)
        raise ValueError(f"module: {message}")
    for what, names in (("nn.Linear", heads), ("nn.Embedding", embeddings)):
        if len(names) > 1:
            raise ValueError(f"module: {ONE_ONLY.format(what=what, found=listed(names), example='m.rnn')}")
    rnn = by_type[nn.RNNBase][recurrent[0]]
    head = by_type[nn.Linear][heads[0]] if heads else None
    embedding = by_type[nn.Embedding][embeddings[0]] if embeddings else None
    scaling = module.scaling_pairs() if hasattr(module, "crnn_kind") else {}
    _check_all_used(module, [rnn, head, embedding], scaling)
    return Found([rnn], head, embedding, scaling, activations)


def _is_harmless(child: Any) -> bool:
    """Whether a module is no module of PyTorch that computes something that the model would not."""
    import torch

    nn = torch.nn
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.DataParallel, nn.parallel.DistributedDataParallel)
    harmless = (*containers, nn.Identity, nn.Flatten, nn.Dropout, nn.modules.loss._Loss)
    return isinstance(child, harmless) or not type(child).__module__.startswith("torch.")


def _check_activations(found: Found, kind: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for a softmax or sigmoid that does not make the probabilities of such a model."""
    import torch

    nn = torch.nn
    binary = bool(options.get("multilabel")) or (
        isinstance(found.head, nn.Linear) and is_one_logit(kind, found.head.out_features, options)
    )
    makes = () if kind in (NETWORK, "regressor") else (nn.Sigmoid,) if binary else (nn.Softmax, nn.LogSoftmax)
    for name, child in found.activations.items():
        if not isinstance(child, makes):
            _refuse(name, child)


def _refuse(name: str, child: Any) -> None:
    raise ValueError(
        f"module: expected a recurrent module, an nn.Embedding, an nn.Linear and dropout, got {name!r:.80}, "
        f"an nn.{type(child).__name__}, which the model would not compute"
    )


def _check_all_used(module: Any, parts: list[Any], scaling: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise ValueError, which names it, if a parameter or buffer belongs to none of the parts."""
    used = {id(tensor) for part in parts if part is not None for tensor in (*part.parameters(), *part.buffers())}
    used |= {id(tensor) for pair in scaling.values() for tensor in pair}
    unused = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if id(tensor) not in used]
    if unused:
        raise ValueError(
            "module: expected parameters and buffers of one recurrent module, an nn.Embedding and an nn.Linear, "
            f"and no others, got {listed(unused)}"
        )


def _dropout(module: Any, found: Found) -> float:
    """The one probability of dropout; ``module`` has the parts, or is None. Raises ValueError if there are several."""
    import torch

    if module is None and len(found.recurrent) == 1:
        return float(getattr(found.recurrent[0], "dropout", 0.0))
    values = {each.dropout for each in found.recurrent if getattr(each, "num_layers", 1) > 1}
    if module is not None:
        values |= {child.p for child in module.modules() if isinstance(child, torch.nn.Dropout)}
    if len(values) > 1:
        raise ValueError(
            "dropout: expected one probability between the layers and before the head, got "
            f"{', '.join(map(str, sorted(values)))}; give dropout="
        )
    return float(values.pop()) if values else 0.0


# ---- their tensors ---------------------------------------------------------------------------------------------------


def _model(wanted: Wanted, found: Found) -> Any:
    recurrent = stacked([_recurrent(each) for each in found.recurrent])
    _expect("embedding", found.embedding, _nn().Embedding, optional=True)
    embedding = None
    if found.embedding is not None:
        if found.embedding.max_norm is not None:
            raise ValueError(f"embedding: expected no max_norm, got {found.embedding.max_norm}")
        embedding = _plain("embedding", found.embedding)["weight"]
    options = dict(wanted.options or {})
    if wanted.kind == NETWORK:
        dropout = options.pop("dropout")
        if options or wanted.scaling:
            raise TypeError(f"{next(iter(options), 'scaling')}: expected with a head and a kind, which are not given")
        return network_of(recurrent, dropout, embedding)
    if isinstance(found.head, _nn().AdaptiveLogSoftmaxWithLoss):
        state = found.head.state_dict()
        adaptive = Head.adaptive({name: as_floats(f"head.{name}", value) for name, value in state.items()})
        return model_of(wanted, recurrent, adaptive, embedding)
    _expect("head", found.head, _nn().Linear)
    head = _plain("head", found.head)
    tied = found.embedding is not None and found.head.weight is found.embedding.weight
    return model_of(wanted, recurrent, Head(head["weight"], head.get("bias")), embedding, tied=tied)


def _nn() -> Any:
    import torch

    return torch.nn


def _recurrent(module: Any) -> Recurrent:
    """The tensors of an ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` or one of their cells."""
    mode = getattr(module, "mode", None)
    if isinstance(module, _nn().RNNBase) and mode not in MODES:
        raise TypeError(f"module: expected an nn.RNN, nn.GRU or nn.LSTM, got {type(module).__name__}")
    cell = MODES.get(str(mode), getattr(module, "nonlinearity", None))
    tensors = {name: as_floats(name, value) for name, value in module.state_dict().items()}
    return recurrent_of(tensors, frozenset(tensors), cell if cell in ("tanh", "relu") else None)


def _plain(name: str, module: Any) -> dict[str, Any]:
    """The tensors of a head or an embedding. Raises ValueError for others than weight and bias."""
    state = module.state_dict()
    others = [f"{name}.{each}" for each in state if each not in ("weight", "bias")]
    if others:
        raise ValueError(f"{name}: expected a weight and a bias and no other tensor, got {listed(others)}")
    return {each: as_floats(f"{name}.{each}", value) for each, value in state.items()}
