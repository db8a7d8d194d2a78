# SPDX-License-Identifier: MIT
"""State dictionaries, and safetensors files with PyTorch's names. Needs no torch: they are names and arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, overload

from crnn._float_mode import in_ieee_mode
from crnn.checks import Array
from crnn.interop.parts import parts_of
from crnn.interop.torch.tensors import as_floats, of_file
from crnn.interop.torch.whole import NETWORK, Wanted, check_kind, model_from_names, whole_tensors
from crnn.io import safetensors
from crnn.io.atomic_write import PathLike, replacing
from crnn.io.model_file import ModelFileError, read_content
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab


@overload
def from_state_dict(
    state_dict: Mapping[str, Any],
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
) -> RNN: ...


@overload
def from_state_dict(
    state_dict: Mapping[str, Any],
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
    kind: str | type | None = None,
    head: str | None = None,
    embedding: str | None = None,
    vocab: Vocab | None = None,
    scaling: Mapping[str, tuple[Any, Any]] | None = None,
    **options: Any,
) -> Any: ...


@in_ieee_mode
def from_state_dict(
    state_dict: Mapping[str, Any],
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
    kind: str | type | None = None,
    head: str | None = None,
    embedding: str | None = None,
    vocab: Vocab | None = None,
    scaling: Mapping[str, tuple[Any, Any]] | None = None,
    **options: Any,
) -> Any:
    """A network with the weights of an ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` or one of their cells; or a whole model.

    Cell, sizes, layers, directions and dtype are inferred from the tensors. float16 and bfloat16 are converted to
    float32. float32 and float64 are copied exactly, except that PyTorch's two biases are added if the cell has one.

    Parameters
    ----------
    state_dict : mapping of str to array or torch.Tensor
        Not modified; the network shares no memory with it. Every tensor has a place in the model, or is named in the
        error. Only with ``prefix`` and without ``kind`` are those of other modules left out.
    prefix : str, optional
        Text before ``weight_ih_l0`` in the names, such as ``"encoder.lstm."``. Needed if there are several recurrent
        modules, or to take this one alone.
    nonlinearity : {"tanh", "relu"}, optional
        Of an ``nn.RNN``; tanh if not given, because the weights do not determine it.
    dropout : float
        Dropout between layers, and before the head, which is not part of a state dictionary.
    kind : {"classifier", "tagger", "regressor", "language_model"}, or the class of the model, optional
        The model that the tensors are: a recurrent module, perhaps an embedding, and a linear head.
    head, embedding : str, optional
        The names of these modules, such as ``"fc"``. Needed only if the shapes of several fit.
    vocab : Vocab, optional
        Of a language model.
    scaling : mapping, optional
        Mean and standard deviation, ``{"x": (mean, std)}``, by which inputs, or for a regressor targets ``"y"``, were
        standardised in PyTorch. The model then takes and returns numbers that are not standardised.
    **options
        Of the model, such as ``classes``, ``pooling`` ("last" if not given), ``multilabel`` or ``loss``.

    Returns
    -------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor

    Raises
    ------
    ValueError
        The tensors are not those of one such module, or a value is NaN or infinite; the message names the wrong one.
        Projections (``proj_size``) are not supported.
    TypeError
        An option is not one of the model, or is one that the tensors determine.

    Examples
    --------
    >>> import numpy as np
    >>> from crnn.interop.torch import from_state_dict
    >>> rng = np.random.default_rng(0)
    >>> weights = {"weight_ih_l0": rng.random((7, 5)), "weight_hh_l0": rng.random((7, 7))}
    >>> from_state_dict(weights, nonlinearity="relu").params["layer0.W_xh"].shape
    (5, 7)
    """
    if not isinstance(state_dict, Mapping):
        hint = "; from_module takes modules" if hasattr(state_dict, "state_dict") else ""
        raise TypeError(f"state_dict: expected a mapping of names to tensors, got {type(state_dict).__name__}{hint}")
    wanted = _wanted(kind, head, embedding, vocab, scaling, options)

    def read(name: str) -> Array:
        return as_floats(name, state_dict[name])

    return model_from_names(list(state_dict), read, wanted, prefix, nonlinearity, dropout)


def to_state_dict(
    model: Any, prefix: str | None = None, *, head: str | None = None, embedding: str | None = None
) -> dict[str, Array]:
    """The weights as a state dictionary of the module that `to_module` makes, or of yours.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
    prefix : str, optional
        Text before ``weight_ih_l0`` in the names, such as ``"encoder.lstm."``; ``"rnn."``, or none for an RNN, if not
        given.
    head, embedding : str, optional
        The names of these modules, such as ``"fc"``; ``"head"`` and ``"embedding"`` if not given.

    Returns
    -------
    state_dict : dict of str to array
        C-contiguous arrays in the network's dtype, fresh. Of an RNN the names are those of an ``nn.LSTM``; of a model
        they have the prefixes ``embedding.``, ``rnn.`` and ``head.``, and there are ``scaling.x.mean`` and so on in
        float64. ``bias_hh`` is zero except for the b_hn of a GRU, so that no value is rounded.

    Raises
    ------
    ValueError
        PyTorch has no such module: the network has a trainable initial state, recurrent dropout, layers of different
        sizes, or a cell that PyTorch does not have, such as the original GRU; or it is an RNN with an embedding. Or a
        weight is NaN or infinite. Or the model has no such module, or two modules would have the same name.
    TypeError
        ``model`` is of another kind, or a name is not a string.
    """
    parts = parts_of(model, adaptive_softmax=True)
    if parts.kind == NETWORK and parts.embedding is not None:
        size = parts.network.embedding_size
        raise ValueError(f"model: expected an RNN without an embedding, got embedding_size={size}")
    tensors = whole_tensors(parts)
    modules = {"head": head, "embedding": embedding}
    for module, name in {"prefix": prefix, **modules}.items():
        if name is not None and not isinstance(name, str):
            raise TypeError(f"{module}: expected the name of a module, got {type(name).__name__}")
        if module in modules and name is not None and not any(each.startswith(f"{module}.") for each in tensors):
            raise ValueError(f"{module}: expected none for a model without such a module, got {name!r:.80}")
    given = {f"{module}.": f"{name}." for module, name in modules.items() if name is not None}
    if prefix is not None:
        given["" if parts.kind == NETWORK else "rnn."] = prefix
    renamed: dict[str, Array] = {}
    for old, values in tensors.items():
        start = next((start for start in given if old.startswith(start)), None)
        new = old if start is None else given[start] + old.removeprefix(start)
        if new in renamed:
            raise ValueError(f"prefix, head, embedding: expected different names, got {new!r:.80} twice")
        renamed[new] = values
    return renamed


@overload
def load_file(
    path: PathLike, prefix: str | None = None, *, nonlinearity: str | None = None, dropout: float = 0.0
) -> RNN: ...


@overload
def load_file(
    path: PathLike,
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
    kind: str | type | None = None,
    head: str | None = None,
    embedding: str | None = None,
    vocab: Vocab | None = None,
    scaling: Mapping[str, tuple[Any, Any]] | None = None,
    **options: Any,
) -> Any: ...


@in_ieee_mode
def load_file(
    path: PathLike,
    prefix: str | None = None,
    *,
    nonlinearity: str | None = None,
    dropout: float = 0.0,
    kind: str | type | None = None,
    head: str | None = None,
    embedding: str | None = None,
    vocab: Vocab | None = None,
    scaling: Mapping[str, tuple[Any, Any]] | None = None,
    **options: Any,
) -> Any:
    """Read a model from a safetensors file that ``safetensors.torch.save_file`` wrote. Does not need torch.

    Parameters
    ----------
    path : str or path
    prefix, nonlinearity, dropout, kind, head, embedding, vocab, scaling, **options
        As in `from_state_dict`.

    Returns
    -------
    model : RNN, or as ``kind`` says

    Raises
    ------
    ModelFileError
        The file is truncated or damaged, its tensors are not those of one module or of the model, or a value is not
        finite; the message says what was found.
    OSError
        The file cannot be read.
    """
    # A hostile file cannot make this allocate much more than its own size: every shape is compared with the length of
    # the data, and the network is as large as its tensors.
    wanted = _wanted(kind, head, embedding, vocab, scaling, options)
    try:
        content = read_content(path)
    except ModelFileError as error:
        raise ModelFileError(f"{error}{_hint(path)}") from None
    try:
        entries, _ = safetensors.parse(content)

        def read(name: str) -> Array:
            return of_file(name, entries[name])

        return model_from_names(list(entries), read, wanted, prefix, nonlinearity, dropout)
    except ValueError as error:
        raise ModelFileError(f"{os.fsdecode(path)}: {error}") from None


def save_file(
    model: Any, path: PathLike, prefix: str | None = None, *, head: str | None = None, embedding: str | None = None
) -> None:
    """Write `to_state_dict` as a safetensors file, atomically; ``safetensors.torch.load_file`` reads it.

    Arguments are those of `to_state_dict`. Raises TypeError and ValueError as it does, OSError if the file cannot be
    written.
    """
    content = safetensors.to_bytes(to_state_dict(model, prefix, head=head, embedding=embedding), {"format": "pt"})
    with replacing(path) as file:
        file.write(content)


def _hint(path: PathLike) -> str:
    """What to do with a file of `torch.save`, a pickle or a zip archive of one."""
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        if file.read(4)[:2] not in (b"PK", b"\x80\x02"):
            return ""
    return (
        "; it looks like a file of torch.save, which can contain code. Where PyTorch is: "
        "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)"
    )


def _wanted(
    kind: Any, head: Any, embedding: Any, vocab: Any, scaling: Any, options: Mapping[str, Any]
) -> Wanted:
    """The arguments, checked."""
    kind = check_kind(kind, vocab, head, embedding)
    if kind == NETWORK and (options or scaling):
        given = next(iter(options), "scaling")
        raise TypeError(f"{given}: expected with a kind, which is not given")
    return Wanted(kind, head, embedding, vocab, scaling, options)
