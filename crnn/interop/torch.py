# SPDX-License-Identifier: MIT
"""To and from PyTorch: state dictionaries, modules, and safetensors files under PyTorch's names.

    PyTorch, stored (out, in)                      crnn, stored (in, out)
    weight_ih_l0                                   layer0.W_xh
    weight_hh_l0                                   layer0.W_hh
    bias_ih_l0 + bias_hh_l0                        layer0.b_h
    bias_ih_l0, bias_hh_l0 (a GRU's part for n)    layer0.b_h, layer0.b_hn (that part)
    weight_ih_l0_reverse                           layer0.reverse.W_xh

The gates lie in the same order. State dictionaries and files are names and arrays: only `from_module` and `to_module`
import torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from crnn.io.atomic_write import PathLike, replacing
from crnn.io.model_file import ModelFileError, read_content
from crnn.models.language_model import LanguageModel
from crnn.nn.init import UNINITIALISED
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

FIRST = "weight_ih_l0"  # every recurrent module has it
NAME = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)_l(0|[1-9][0-9]{0,3})(_reverse)?")
CELLS = {1: "tanh", 3: "gru", 4: "lstm"}  # by the number of gates; 1 may be relu as well
MODES = {"RNN_TANH": "tanh", "RNN_RELU": "relu", "GRU": "gru", "LSTM": "lstm"}
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # a file's dtypes


# ---- state dictionaries ----------------------------------------------------------------------------------------------


def from_state_dict(
    state_dict: Mapping[str, Any],
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
) -> RNN:
    """A network with the weights of an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``.

    Cell, sizes, layers, directions and dtype are those of the tensors. float16 and bfloat16 become float32; float32 and
    float64 keep their bits, but that PyTorch's two biases become their sum where the cell has only that.

    Parameters
    ----------
    state_dict : mapping of name to array or torch.Tensor
        May hold other modules' tensors too. Not modified, nothing is shared with it.
    prefix : str, optional
        What stands before ``weight_ih_l0``, as in ``"encoder.lstm."``. Not needed where only one thing does.
    nonlinearity : {"tanh", "relu"}, optional
        Of a plain RNN, whose weights do not tell: tanh unless given.
    dropout : float
        Between layers, while training. It is not part of a state dictionary.

    Raises
    ------
    ValueError
        The tensors are not those of one such module: the message names the one at fault. A projection (``proj_size``),
        which crnn does not have, is refused here.

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
    """The weights under PyTorch's names, as fresh arrays: what ``load_state_dict`` of the like module takes as tensors.

    ``bias_hh`` is zero but for a GRU's b_hn, so that nothing is rounded.

    Raises
    ------
    ValueError
        PyTorch's modules have no such network: an embedding, a learnt initial state, dropout of recurrent connections,
        a GRU that resets before the product, or layers of different sizes.
    """
    if not isinstance(net, RNN):
        raise TypeError(f"net: expected an RNN, got {type(net).__name__}")
    if net.embedding_size is not None:
        raise ValueError(f"net: expected one without an embedding, got embedding_size={net.embedding_size}")
    return _recurrent_tensors(net)


def _select(names: Iterable[str], prefix: str | None) -> dict[str, str]:
    """Names of one module's tensors, without the prefix: with it."""
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
    """A few of them: a file may hold very many, and very long ones."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"{name!r:.80}" for name in names[:8]) + more if names else "no tensors"


def _array(name: str, value: Any) -> Array:
    """A NumPy array of a tensor or array, float32 or float64."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.name in ("float16", "bfloat16"):  # the latter from a package that gives NumPy the type
        array = array.astype(np.float32)
    if array.dtype.name not in ("float32", "float64"):
        raise ValueError(f"{name}: expected float32, float64, float16 or bfloat16, got {array.dtype}")
    return array


def _arguments(tensors: Mapping[str, Array], nonlinearity: str | None) -> dict[str, Any]:
    """Those of the RNN that these tensors make, once every tensor is there, of the right shape and of one dtype."""
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
    for layer, place, _ in _places(layers, bidirectional):
        expected["weight_ih" + place] = (rows, H * (1 + bidirectional) if layer else D)
        expected["weight_hh" + place] = (rows, H)
        if biased:
            expected["bias_ih" + place] = expected["bias_hh" + place] = (rows,)
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
    """How many there are, if they are numbered without a gap and every name is one that a plain stack has."""
    layers = set()
    for name in names:
        match = NAME.fullmatch(name)
        if match is None:
            found = f"{name!r:.80}{' of a projection (proj_size)' if name.startswith('weight_hr_l') else ''}"
            raise ValueError(f"expected weight_ih, weight_hh, bias_ih and bias_hh by layer and no other, got {found}")
        layers.add(int(match[2]))
    if len(layers) <= max(layers):
        raise ValueError(f"expected layers numbered without a gap, got {len(layers)} up to number {max(layers)}")
    return len(layers)


def _places(layers: int, bidirectional: bool) -> Iterator[tuple[int, str, str]]:
    """Of every direction of every layer: the layer, and what names it in PyTorch, behind, and here, in front."""
    for layer in range(layers):
        yield layer, f"_l{layer}", f"layer{layer}."
        if bidirectional:
            yield layer, f"_l{layer}_reverse", f"layer{layer}.reverse."


def _parameters(tensors: Mapping[str, Array], arguments: Mapping[str, Any]) -> dict[str, Array]:
    """The RNN's own, some of them views of the tensors."""
    params: dict[str, Array] = {}
    for _, theirs, ours in _places(arguments["num_layers"], arguments["bidirectional"]):
        params[ours + "W_xh"] = tensors["weight_ih" + theirs].T
        params[ours + "W_hh"] = tensors["weight_hh" + theirs].T
        none = np.zeros(len(tensors["weight_hh" + theirs]), arguments["dtype"])
        outside = tensors.get("bias_ih" + theirs, none)
        inside = np.array(tensors.get("bias_hh" + theirs, none))
        if arguments["cell"] == "gru":
            n = 2 * arguments["hidden_size"]
            params[ours + "b_hn"] = inside[n:].copy()
            inside[n:] = 0
        with np.errstate(over="ignore", invalid="ignore"):  # a file's sums are looked at afterwards
            params[ours + "b_h"] = outside + inside
    return params


def _network(arguments: dict[str, Any], params: Mapping[str, Array], dropout: float) -> RNN:
    net = RNN(**arguments, dropout=dropout, seed=UNINITIALISED)
    for name, values in net.params.items():
        values[...] = params[name]
    return net


def _recurrent_tensors(net: RNN) -> dict[str, Array]:
    """The layers of a network, whatever is before them."""
    if not isinstance(net.hidden_size, int):
        raise ValueError(f"hidden_size: expected one size for all layers, as in PyTorch, got {net.hidden_size}")
    if net.cell not in CELLS.values() and net.cell != "relu":
        raise ValueError(f"cell: expected one that PyTorch has, got {net.cell!r}")
    if net.recurrent_dropout:
        raise ValueError(f"recurrent_dropout: expected 0, as in PyTorch, got {net.recurrent_dropout}")
    learnt = [name for name in net.params if name.endswith((".h0", ".c0"))]
    if learnt:
        raise ValueError(
            f"trainable_initial_state: expected False, as in PyTorch, got the parameters {_listed(learnt)}"
        )
    tensors = {}
    for _, theirs, ours in _places(net.num_layers, net.bidirectional):
        # Copies even where a transpose is contiguous as it is.
        tensors["weight_ih" + theirs] = np.array(net.params[ours + "W_xh"].T, order="C")
        tensors["weight_hh" + theirs] = np.array(net.params[ours + "W_hh"].T, order="C")
        tensors["bias_ih" + theirs] = np.array(net.params[ours + "b_h"])
        tensors["bias_hh" + theirs] = np.zeros_like(tensors["bias_ih" + theirs])
        if net.cell == "gru":
            tensors["bias_hh" + theirs][2 * net.hidden_size :] = net.params[ours + "b_hn"]
    return tensors


# ---- files -----------------------------------------------------------------------------------------------------------


def load_file(
    path: PathLike, prefix: str | None = None, *, nonlinearity: str | None = None, dropout: float = 0.0
) -> RNN:
    """Read a safetensors file that holds a state dictionary, as ``safetensors.torch.save_file`` writes; without torch.

    Parameters
    ----------
    path : str or path
    prefix, nonlinearity, dropout
        As in `from_state_dict`.

    Raises
    ------
    ModelFileError
        The file is truncated, damaged, or does not hold just what was asked for; the message says what was found.
    OSError
        The file cannot be read.
    """
    from safetensors import SafetensorError, deserialize

    # No size in the file is believed: safetensors compares every shape with the bytes that are there, and a network
    # takes in proportion to the tensors that it is made of.
    content, _ = read_content(path)
    parse: Any = deserialize  # not typed
    try:
        entries = dict(parse(content))
        tensors = {bare: _stored(name, entries[name]) for bare, name in _select(entries, prefix).items()}
        arguments = _arguments(tensors, nonlinearity)
        params = _parameters(tensors, arguments)
        for name, values in params.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    except (SafetensorError, ValueError) as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from None
    return _network(arguments, params, dropout)


def save_file(net: RNN, path: PathLike) -> None:
    """Write `to_state_dict` as a safetensors file, whole or not at all. ``safetensors.torch.load_file`` reads it."""
    from safetensors.numpy import save as to_bytes

    content = to_bytes(to_state_dict(net), metadata={"format": "pt"})
    with replacing(path) as file:
        file.write(content)


def _stored(name: str, entry: Mapping[str, Any]) -> Array:
    """The array of a file's entry. NumPy has no bfloat16: the upper half of a float32."""
    if entry["dtype"] not in STORED:
        raise ValueError(f"{name}: expected one of {', '.join(STORED)}, got {entry['dtype']}")
    array = np.frombuffer(entry["data"], STORED[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return _array(name, array.astype(array.dtype.newbyteorder("="), copy=False))


# ---- modules ---------------------------------------------------------------------------------------------------------


@overload
def from_module(module: torch.nn.Module) -> RNN: ...


@overload
def from_module(
    module: torch.nn.Module, *, head: torch.nn.Module, embedding: torch.nn.Module | None = None, vocab: Vocab
) -> LanguageModel: ...


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
        Not modified. Its dropout is taken over. ``batch_first`` only says how PyTorch's arrays lie: here they are
        (T, B, D) always.
    head : torch.nn.Linear, optional
        From hidden states to logits.
    embedding : torch.nn.Embedding, optional
        Without one, the module's inputs are one-hot tokens.
    vocab : Vocab, optional
        What the ids mean. Head and vocabulary come together.

    Raises
    ------
    TypeError, ValueError
        As `from_state_dict`, and where the parts do not fit each other.
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
        params["embedding"] = _part("embedding.weight", embedding.weight, (V, D), dtype)
        arguments["embedding_size"] = D
        tied = head.weight is embedding.weight
    params["W_hy"] = _part("head.weight", head.weight, (V, H), dtype).T
    params["b_y"] = np.zeros(V, dtype) if head.bias is None else _part("head.bias", head.bias, (V,), dtype)
    model = LanguageModel(vocab, **arguments, tie_weights=tied, dropout=module.dropout, seed=UNINITIALISED)
    for name, values in model.params.items():
        values[...] = params[name]
    return model


def _part(name: str, tensor: Any, shape: tuple[int, ...], dtype: str) -> Array:
    array = _array(name, tensor)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array


def to_module(model: RNN | LanguageModel) -> torch.nn.Module:
    """The like PyTorch module with the same weights, on the CPU, as new: in training mode.

    Parameters
    ----------
    model : RNN or LanguageModel

    Returns
    -------
    module : torch.nn.RNN, torch.nn.GRU or torch.nn.LSTM
        For an RNN; it takes (T, B, D). For a LanguageModel a module with the attributes ``embedding``, ``rnn``,
        ``dropout`` and ``head`` that is called with ids (T, B), an int64 tensor, and perhaps a state, and returns
        logits (T, B, V) and the state after the last step. Its embedding is an ``nn.Embedding``, tied to the head if
        the model's is, or what makes ids one-hot.

    Raises
    ------
    ValueError
        As `to_state_dict`, but that a LanguageModel may have an embedding; and for variational dropout.
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
    import torch

    net, params, V = model.net, model.params, len(model.vocab)
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
    """A module of that kind that has taken over these arrays, and so their dtype."""
    import torch

    with torch.device("meta"):  # takes neither memory nor numbers from torch's generator
        module = kind(*sizes, **options)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, assign=True)
    return module


@cache
def _modules() -> dict[str, Any]:
    """Classes of our own, made when first needed because they are torch's children."""
    import torch

    Module: Any = torch.nn.Module

    class OneHot(Module):  # type: ignore[misc]
        """ids (T, B) to (T, B, size)"""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(ids, self.size)

        def extra_repr(self) -> str:
            return str(self.size)

    class LanguageModel(Module):  # type: ignore[misc]
        """Ids (T, B) and a state to logits (T, B, V) and the state after the last step."""

        def __init__(self, embedding: torch.nn.Module, rnn: torch.nn.Module, dropout: float, head: torch.nn.Module):
            super().__init__()
            self.embedding, self.rnn, self.dropout, self.head = embedding, rnn, torch.nn.Dropout(dropout), head

        def forward(self, ids: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            x = self.embedding(ids).to(self.head.weight.dtype)  # one-hot vectors are integers
            y, state = self.rnn(x, state)
            return self.head(self.dropout(y)), state

    return {"OneHot": OneHot, "LanguageModel": LanguageModel}
