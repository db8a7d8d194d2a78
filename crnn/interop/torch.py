# SPDX-License-Identifier: MIT
"""Conversion from and to PyTorch: state dictionaries, modules, and safetensors files with PyTorch's names.

    PyTorch, shape (out, in)                       crnn, shape (in, out)
    weight_ih_l0                                   layer0.W_xh
    weight_hh_l0                                   layer0.W_hh
    bias_ih_l0 + bias_hh_l0                        layer0.b_h
    bias_ih_l0, bias_hh_l0 (block n of a GRU)      layer0.b_h, layer0.b_hn (block n)
    weight_ih_l0_reverse                           layer0.reverse.W_xh

The order of the gates is the same. Only `from_module` and `to_module` import torch: state dictionaries and files are
names and arrays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from crnn._float_mode import in_ieee_mode
from crnn.io import safetensors
from crnn.io.atomic_write import PathLike, replacing
from crnn.io.model_file import ModelFileError, check_finite, read_content
from crnn.models.language_model import LanguageModel
from crnn.nn.init import UNINITIALISED
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

__all__ = ["from_module", "from_state_dict", "load_file", "save_file", "to_module", "to_state_dict"]

FIRST = "weight_ih_l0"  # a tensor that every recurrent module has
NAME = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)_l(0|[1-9][0-9]{0,3})(_reverse)?")
CELLS = {1: "tanh", 3: "gru", 4: "lstm"}  # by number of gates; 1 can also be relu
MODES = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "GRU": "gru", "LSTM": "lstm"}  # by ``module.mode``
FILE_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy's dtypes by those of a file


# ---- state dictionaries ----------------------------------------------------------------------------------------------


@in_ieee_mode
def from_state_dict(
    state_dict: Mapping[str, Any],
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
) -> RNN:
    """A network with the weights of an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``.

    Cell, sizes, layers, directions and dtype are inferred from the tensors. float16 and bfloat16 are converted to
    float32. float32 and float64 are copied exactly, except that PyTorch's two biases are added if the cell has one.

    Parameters
    ----------
    state_dict : mapping of str to array or torch.Tensor
        May contain the tensors of other modules. Not modified; the network shares no memory with it.
    prefix : str, optional
        Text before ``weight_ih_l0`` in the names, such as ``"encoder.lstm."``. Needed only if there are several.
    nonlinearity : {"tanh", "relu"}, optional
        Of an ``nn.RNN``; tanh if not given, because the weights do not determine it.
    dropout : float
        Dropout between layers, which is not part of a state dictionary.

    Returns
    -------
    net : RNN

    Raises
    ------
    ValueError
        The tensors are not those of one such module, or a value is NaN or infinite; the message names the wrong one.
        Projections (``proj_size``) are not supported.

    Examples
    --------
    >>> import numpy as np
    >>> from crnn.interop.torch import from_state_dict
    >>> rng = np.random.default_rng(0)
    >>> weights = {"weight_ih_l0": rng.random((7, 5)), "weight_hh_l0": rng.random((7, 7))}
    >>> from_state_dict(weights, nonlinearity="relu").params["layer0.W_xh"].shape
    (5, 7)
    """
    tensors = {bare: _array(name, state_dict[name]) for bare, name in _select(state_dict, prefix).items()}
    arguments = _arguments(tensors, nonlinearity)
    return _network(arguments, _parameters(tensors, arguments), dropout)


def to_state_dict(net: RNN) -> dict[str, Array]:
    """The weights as a state dictionary of the corresponding PyTorch module.

    Parameters
    ----------
    net : RNN

    Returns
    -------
    state_dict : dict of str to array
        Fresh C-contiguous arrays in the network's dtype. ``bias_hh`` is zero except for the b_hn of a GRU, so that no
        value is rounded.

    Raises
    ------
    ValueError
        PyTorch has no such module: the network has an embedding, a trainable initial state, recurrent dropout, layers
        of different sizes, or a cell that PyTorch does not have, such as the original GRU. Or a weight is NaN or
        infinite.
    TypeError
        ``net`` is not an RNN.
    """
    if not isinstance(net, RNN):
        raise TypeError(f"net: expected an RNN, got {type(net).__name__}")
    if net.embedding_size is not None:
        raise ValueError(f"net: expected one without an embedding, got embedding_size={net.embedding_size}")
    return _recurrent_tensors(net)


def _select(names: Iterable[str], prefix: str | None) -> dict[str, str]:
    """The names of one module's tensors: from the name without the prefix to the full name."""
    names = list(names)
    found = sorted(name.removesuffix(FIRST) for name in names if name.endswith(FIRST))
    if not found:
        raise ValueError(f"expected a tensor {FIRST}, perhaps after a prefix, found none among {_listed(names)}")
    if prefix is None and len(found) == 1:
        prefix = found[0]
    if prefix not in found:
        raise ValueError(f"prefix: expected one of {_listed(found)}, got {prefix!r:.80}")
    bare = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return {short: name for short, name in bare.items() if short.startswith(("weight_", "bias_"))}


def _listed(names: list[str]) -> str:
    """The first names, for a message: a file may contain very many and very long ones."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"{name!r:.80}" for name in names[:8]) + more if names else "no tensors"


def _array(name: str, value: Any) -> Array:
    """A tensor or array as a NumPy array, float32 or float64, finite; borrowed if possible."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.name in ("float16", "bfloat16"):  # packages such as ml_dtypes add bfloat16 to NumPy
        array = array.astype(np.float32)
    if array.dtype.name not in ("float32", "float64"):
        raise ValueError(f"{name}: expected float32, float64, float16 or bfloat16, got {array.dtype}")
    check_finite({name: array})
    return array


def _arguments(tensors: Mapping[str, Array], nonlinearity: str | None) -> dict[str, Any]:
    """The arguments of the RNN that has these tensors.

    Raises ValueError unless all tensors are present, with the right shapes and the same dtype.
    """
    if nonlinearity not in (None, "tanh", "relu"):
        raise ValueError(f"nonlinearity: expected tanh or relu, got {nonlinearity!r}")
    layers = _layers(tensors)
    first = {name: tensors[name].shape for name in ("weight_ih_l0", "weight_hh_l0") if name in tensors}
    if len(first) < 2 or any(len(shape) != 2 or 0 in shape for shape in first.values()):
        raise ValueError(f"weight_ih_l0, weight_hh_l0: expected two matrices, neither empty, got shapes {first}")
    (_, D), (rows, H) = first.values()
    cell = CELLS.get(rows // H, "")
    if not cell or rows % H:
        raise ValueError(f"weight_hh_l0: expected (H, H), (3H, H) of a GRU or (4H, H) of an LSTM, got {(rows, H)}")
    if cell != "tanh" and nonlinearity:
        raise ValueError(f"nonlinearity: expected none for the weights of cell {cell!r}, got {nonlinearity!r}")

    bidirectional = any(name.endswith("_reverse") for name in tensors)
    biased = any(name.startswith("bias") for name in tensors)
    expected: dict[str, tuple[int, ...]] = {}
    for layer, suffix, _ in _layer_names(layers, bidirectional):
        expected["weight_ih" + suffix] = (rows, H * (1 + bidirectional) if layer else D)
        expected["weight_hh" + suffix] = (rows, H)
        if biased:
            expected["bias_ih" + suffix] = expected["bias_hh" + suffix] = (rows,)
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"{name}: expected a tensor of shape {shape}, found none")
        if tensors[name].shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tensors[name].shape}")
    dtypes = sorted({tensor.dtype.name for tensor in tensors.values()})
    if len(dtypes) > 1:
        raise ValueError(f"expected tensors of one dtype, got {' and '.join(dtypes)}")
    return {
        "input_size": D,
        "hidden_size": H,
        "num_layers": layers,
        "cell": nonlinearity or cell,
        "bidirectional": bidirectional,
        "dtype": dtypes[0],
    }


def _layers(names: Iterable[str]) -> int:
    """The number of layers. Raises ValueError for a gap in their numbers, or for a name that is not a plain stack's."""
    layers: set[int] = set()
    for name in names:
        match = NAME.fullmatch(name)
        if match is None:
            found = f"{name!r:.80}{' of a projection (proj_size)' if name.startswith('weight_hr_l') else ''}"
            raise ValueError(f"expected weight_ih, weight_hh, bias_ih and bias_hh by layer and no other, got {found}")
        layers.add(int(match[2]))
    if len(layers) <= max(layers):
        raise ValueError(f"expected layers numbered without a gap, got {len(layers)} up to number {max(layers)}")
    return len(layers)


def _layer_names(layers: int, bidirectional: bool) -> Iterator[tuple[int, str, str]]:
    """For every direction of every layer: number of the layer, suffix of PyTorch's names, prefix of crnn's names."""
    for layer in range(layers):
        yield layer, f"_l{layer}", f"layer{layer}."
        if bidirectional:
            yield layer, f"_l{layer}_reverse", f"layer{layer}.reverse."


def _parameters(tensors: Mapping[str, Array], arguments: Mapping[str, Any]) -> dict[str, Array]:
    """The parameters of the RNN with these arguments; the weights are views of the tensors."""
    params: dict[str, Array] = {}
    for _, suffix, prefix in _layer_names(arguments["num_layers"], arguments["bidirectional"]):
        params[prefix + "W_xh"] = tensors["weight_ih" + suffix].T
        params[prefix + "W_hh"] = tensors["weight_hh" + suffix].T
        zeros = np.zeros(len(tensors["weight_hh" + suffix]), arguments["dtype"])
        bias_ih = tensors.get("bias_ih" + suffix, zeros)
        bias_hh = np.array(tensors.get("bias_hh" + suffix, zeros))
        if arguments["cell"] == "gru":
            n = 2 * arguments["hidden_size"]
            params[prefix + "b_hn"] = bias_hh[n:].copy()
            bias_hh[n:] = 0
        with np.errstate(over="ignore"):
            params[prefix + "b_h"] = bias_ih + bias_hh
    check_finite(params)  # the sums
    return params


def _network(arguments: dict[str, Any], params: Mapping[str, Array], dropout: float) -> RNN:
    """A network with copies of these parameters."""
    net = RNN(**arguments, dropout=dropout, seed=UNINITIALISED)
    _set_params(net, params)
    return net


def _set_params(model: RNN | LanguageModel, params: Mapping[str, Array]) -> None:
    """Copy values into all parameters."""
    for name, values in model.params.items():
        values[...] = params[name]


def _recurrent_tensors(net: RNN) -> dict[str, Array]:
    """The tensors of a network's layers, without its embedding; fresh. Raises ValueError as `to_state_dict` does."""
    if not isinstance(net.hidden_size, int):
        raise ValueError(f"hidden_size: expected one size for all layers, as in PyTorch, got {net.hidden_size}")
    if net.cell not in CELLS.values() and net.cell != "relu":
        raise ValueError(f"cell: expected one that PyTorch has, got {net.cell!r}")
    if net.recurrent_dropout:
        raise ValueError(f"recurrent_dropout: expected 0, as in PyTorch, got {net.recurrent_dropout}")
    states = [name for name in net.params if name.endswith((".h0", ".c0"))]
    if states:
        raise ValueError(
            f"trainable_initial_state: expected False, as in PyTorch, got the parameters {_listed(states)}"
        )
    check_finite(net.params)
    tensors: dict[str, Array] = {}
    for _, suffix, prefix in _layer_names(net.num_layers, net.bidirectional):
        # np.array copies even if the transpose is contiguous.
        tensors["weight_ih" + suffix] = np.array(net.params[prefix + "W_xh"].T, order="C")
        tensors["weight_hh" + suffix] = np.array(net.params[prefix + "W_hh"].T, order="C")
        tensors["bias_ih" + suffix] = np.array(net.params[prefix + "b_h"])
        tensors["bias_hh" + suffix] = np.zeros_like(tensors["bias_ih" + suffix])
        if net.cell == "gru":
            tensors["bias_hh" + suffix][2 * net.hidden_size :] = net.params[prefix + "b_hn"]
    return tensors


# ---- files -----------------------------------------------------------------------------------------------------------


@in_ieee_mode
def load_file(
    path: PathLike, prefix: str | None = None, *, nonlinearity: str | None = None, dropout: float = 0.0
) -> RNN:
    """Read a network from a safetensors file that ``safetensors.torch.save_file`` wrote. Does not need torch.

    Parameters
    ----------
    path : str or path
    prefix, nonlinearity, dropout
        As in `from_state_dict`.

    Returns
    -------
    net : RNN

    Raises
    ------
    ModelFileError
        The file is truncated or damaged, its tensors are not those of one module, or a value is not finite; the message
        says what was found.
    OSError
        The file cannot be read.
    """
    # A hostile file cannot make this allocate much more than its own size: every shape is compared with the length of
    # the data, and the network is as large as its tensors.
    content = read_content(path)
    try:
        entries, _ = safetensors.parse(content)
        tensors = {bare: _file_array(name, entries[name]) for bare, name in _select(entries, prefix).items()}
        arguments = _arguments(tensors, nonlinearity)
        params = _parameters(tensors, arguments)
    except ValueError as error:
        raise ModelFileError(f"{os.fsdecode(path)}: {error}") from None
    return _network(arguments, params, dropout)


def save_file(net: RNN, path: PathLike) -> None:
    """Write `to_state_dict` as a safetensors file, atomically; ``safetensors.torch.load_file`` reads it.

    Raises TypeError and ValueError as `to_state_dict` does, OSError if the file cannot be written.
    """
    content = safetensors.to_bytes(to_state_dict(net), {"format": "pt"})
    with replacing(path) as file:
        file.write(content)


def _file_array(name: str, entry: Mapping[str, Any]) -> Array:
    """The array of an entry of a file, float32 or float64. Raises ValueError for another dtype."""
    array = safetensors.to_array(name, entry, FILE_DTYPES)
    if entry["dtype"] == "BF16":  # NumPy has no bfloat16: it is the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return _array(name, array)


# ---- modules ---------------------------------------------------------------------------------------------------------


@overload
def from_module(module: torch.nn.Module) -> RNN: ...


@overload
def from_module(
    module: torch.nn.Module, *, head: torch.nn.Module, embedding: torch.nn.Module | None = None, vocab: Vocab
) -> LanguageModel: ...


@in_ieee_mode
def from_module(
    module: torch.nn.Module,
    *,
    head: torch.nn.Module | None = None,
    embedding: torch.nn.Module | None = None,
    vocab: Vocab | None = None,
) -> RNN | LanguageModel:
    """A network with the weights of an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``; with a head, a language model.

    Parameters
    ----------
    module : torch.nn.RNN, torch.nn.GRU or torch.nn.LSTM
        Not modified. The network has the same dropout. ``batch_first`` is ignored: arrays are always (T, B, D).
    head : torch.nn.Linear, optional
        From hidden states to logits.
    embedding : torch.nn.Embedding, optional
        Without one, the module's inputs are one-hot tokens. ``padding_idx`` and ``scale_grad_by_freq``, which affect
        nothing but PyTorch's gradients, are ignored.
    vocab : Vocab, optional
        The vocabulary of the ids; needed with a head.

    Returns
    -------
    model : RNN or LanguageModel
        Shares no memory with the modules.

    Raises
    ------
    TypeError, ValueError
        As in `from_state_dict`, or the modules do not match each other.
    """
    import torch

    if not isinstance(module, torch.nn.RNNBase) or module.mode not in MODES:
        raise TypeError(f"module: expected an nn.RNN, nn.GRU or nn.LSTM, got {type(module).__name__}")
    cell = MODES[module.mode]
    tensors = {name: _array(name, value) for name, value in module.state_dict().items()}
    arguments = _arguments(tensors, cell if cell in ("tanh", "relu") else None)
    params = _parameters(tensors, arguments)
    if head is None and embedding is None and vocab is None:
        return _network(arguments, params, module.dropout)
    if not isinstance(head, torch.nn.Linear):
        raise TypeError(f"head: expected an nn.Linear, got {type(head).__name__}")
    if not isinstance(embedding, torch.nn.Embedding | None):
        raise TypeError(f"embedding: expected an nn.Embedding, got {type(embedding).__name__}")
    if not isinstance(vocab, Vocab):
        raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}")
    if arguments.pop("bidirectional"):
        raise ValueError("module: expected one direction for a language model, got bidirectional=True")
    D, H, V = arguments.pop("input_size"), arguments["hidden_size"], len(vocab)
    dtype = arguments["dtype"]
    tied = False
    if embedding is None:
        if D != V:
            raise ValueError(f"module: expected input_size={V}, one-hot tokens of the vocabulary, got {D}")
    else:
        if embedding.max_norm is not None:
            raise ValueError(f"embedding: expected no max_norm, got {embedding.max_norm}")
        params["embedding"] = _checked_array("embedding.weight", embedding.weight, (V, D), dtype)
        arguments["embedding_size"] = D
        tied = head.weight is embedding.weight
    params["W_hy"] = _checked_array("head.weight", head.weight, (V, H), dtype).T
    params["b_y"] = np.zeros(V, dtype) if head.bias is None else _checked_array("head.bias", head.bias, (V,), dtype)
    model = LanguageModel(vocab, **arguments, tie_weights=tied, dropout=module.dropout, seed=UNINITIALISED)
    _set_params(model, params)
    return model


def _checked_array(name: str, tensor: Any, shape: tuple[int, ...], dtype: str) -> Array:
    """The tensor as an array of this shape and dtype. Raises ValueError, which calls it ``name``."""
    array = _array(name, tensor)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array


def to_module(model: RNN | LanguageModel) -> torch.nn.Module:
    """The corresponding PyTorch module with the same weights, on the CPU and in training mode.

    Parameters
    ----------
    model : RNN or LanguageModel

    Returns
    -------
    module : torch.nn.Module
        For an RNN an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` that takes x (T, B, D). For a LanguageModel a module with
        the attributes ``embedding``, ``rnn``, ``dropout`` and ``head``; it takes int64 ids (T, B) and optionally a
        state, and returns logits (T, B, V) and the state after the last step. ``embedding`` is an ``nn.Embedding``,
        whose weight the head shares if the model has tied weights, or a module that makes ids one-hot.

    Raises
    ------
    TypeError
        ``model`` is not an RNN or LanguageModel.
    ValueError
        As in `to_state_dict`, except that a LanguageModel may have an embedding; or the model has variational dropout.
    """
    if isinstance(model, RNN):
        if model.embedding_size is not None:
            raise ValueError(f"model: expected an RNN without an embedding, got embedding_size={model.embedding_size}")
        module: torch.nn.Module = _recurrent_module(model)
        return module
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model: expected an RNN or a LanguageModel, got {type(model).__name__}")
    return _language_module(model)


def _recurrent_module(net: RNN) -> Any:
    """The ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` of a network, without its embedding."""
    import torch

    tensors = _recurrent_tensors(net)
    if net.dropout and net.variational_dropout:
        raise ValueError("variational_dropout: expected False, as PyTorch's dropout is, got True")
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(net.cell, torch.nn.RNN)
    options: dict[str, Any] = {"nonlinearity": net.cell} if kind is torch.nn.RNN else {}
    options["dropout"] = net.dropout if net.num_layers > 1 else 0.0  # with one layer PyTorch warns that it does nothing
    sizes = net.embedding_size or net.input_size, net.hidden_sizes[0], net.num_layers
    return _filled(tensors, kind, *sizes, bidirectional=net.bidirectional, **options)


def _language_module(model: LanguageModel) -> torch.nn.Module:
    """The module of a language model, see `to_module`."""
    import torch

    net, params, V = model.net, model.params, len(model.vocab)
    check_finite(params)
    rnn = _recurrent_module(net)
    if net.embedding_size is None:
        embedding = _modules()["OneHot"](V)
    else:
        embedding = _filled({"weight": np.array(params["embedding"])}, torch.nn.Embedding, V, net.embedding_size)
    weight = params["embedding"] if model.tie_weights else params["W_hy"].T
    tensors = {"weight": np.array(weight, order="C"), "bias": np.array(params["b_y"])}
    head = _filled(tensors, torch.nn.Linear, net.hidden_sizes[0], V)
    if model.tie_weights:
        head.weight = embedding.weight
    module: torch.nn.Module = _modules()["LanguageModel"](embedding, rnn, net.dropout, head)
    return module


def _filled(tensors: Mapping[str, Array], kind: Any, *sizes: int, **options: Any) -> Any:
    """A module ``kind(*sizes, **options)`` whose parameters are these arrays, whose memory it shares."""
    import torch

    with torch.device("meta"):  # allocates no memory and draws no random numbers
        module = kind(*sizes, **options)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
    return module


@cache
def _modules() -> dict[str, Any]:
    """Module classes by name. They are defined here because their base class needs the import of torch."""
    import torch

    Module: Any = torch.nn.Module

    class OneHot(Module):  # type: ignore[misc]
        """From ids (T, B) to one-hot vectors (T, B, size)."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(ids, self.size)

        def extra_repr(self) -> str:
            return str(self.size)

    class LanguageModel(Module):  # type: ignore[misc]
        """From ids (T, B) and a state to logits (T, B, V) and the state after the last step."""

        def __init__(self, embedding: torch.nn.Module, rnn: torch.nn.Module, dropout: float, head: torch.nn.Module):
            super().__init__()
            self.embedding, self.rnn, self.dropout, self.head = embedding, rnn, torch.nn.Dropout(dropout), head

        def forward(self, ids: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            x = self.embedding(ids).to(self.head.weight.dtype)  # one-hot vectors are integers
            y, state = self.rnn(x, state)
            return self.head(self.dropout(y)), state

    return {"OneHot": OneHot, "LanguageModel": LanguageModel}
