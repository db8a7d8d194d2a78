# SPDX-License-Identifier: MIT
"""Model files: safetensors, so no code is ever loaded. Knows names, shapes and dtypes, not kernels.

A model file holds one tensor per parameter under its public name, and what data are scaled by. Its header's metadata
has one key, ``crnn``: a JSON object with ``format`` (a version number), ``kind`` (which class), ``config`` (its
arguments) and, where the model has them, ``vocab``, or ``source_vocab`` and ``target_vocab``. A file is hostile input:
names, shapes, dtypes and values are all checked against what the configuration demands. Files are written under a
temporary name in the same folder, flushed to the disk and then renamed, so the old file survives any failure.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crnn.checks import DTYPES
from crnn.io.atomic_write import PathLike, replacing
from crnn.models.classifier import SequenceClassifier, SequenceTagger
from crnn.models.language_model import LanguageModel
from crnn.models.regressor import SequenceRegressor
from crnn.models.seq2seq import SequenceToSequence
from crnn.models.sequence_model import SequenceModel
from crnn.nn.init import initial_matrix, uniform_draws
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab

Array = NDArray[Any]
Model: TypeAlias = LanguageModel | SequenceModel[Any] | RNN

FORMAT = 1
HEADER_LIMIT = 64 << 20  # bytes; a large word vocabulary takes a few MB
SIZE_LIMIT = 1 << 31  # parameters


class ModelFileError(ValueError):
    """A file that is not a model crnn can load."""


def save(model: Model, path: PathLike) -> None:
    """Write a model to ``path``, whole or not at all. Raises OSError where the file system does."""
    write(path, *contents(model))


def contents(model: Model) -> tuple[dict[str, Array], dict[str, Any]]:
    """What a model's file holds: tensors, borrowed, and our part of the header."""
    header: dict[str, Any] = {"kind": type(model).__name__, "config": model.config()}
    tensors = dict(model.params)
    if not isinstance(model, RNN):
        header |= {name: vocab.to_dict() for name, vocab in model._vocabs.items()}
    if isinstance(model, SequenceModel):
        for name, scaling in model.scalings.items():
            tensors |= {f"scaling.{name}.mean": scaling.mean, f"scaling.{name}.std": scaling.std}
    return tensors, header


def load(path: PathLike) -> Any:
    """Read a model that `save` wrote: a `LanguageModel`, or whichever kind it was.

    Raises
    ------
    ModelFileError
        The file is truncated, damaged, or not a crnn model; the message says what was found.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import crnn, tempfile, os
    >>> corpus = crnn.TextCorpus.from_text("hello world " * 50)
    >>> model = crnn.LanguageModel(corpus.vocab, hidden_size=8)
    >>> path = os.path.join(tempfile.mkdtemp(), "m.safetensors")
    >>> model.save(path)
    >>> crnn.load(path)
    LanguageModel(8 chars, cell='tanh', hidden_size=8, num_layers=1, 208 parameters, dtype='float32')
    """
    return _model(os.fspath(path), *read(path))


def to_bytes(model: Model) -> bytes:
    """What `save` would write into a file. TypeError for a class that `from_bytes` would not know."""
    return model_bytes(*contents(model))


def model_bytes(tensors: Mapping[str, Array], header: Mapping[str, Any]) -> bytes:
    """Of what `contents` says, or a copy of that."""
    if header["kind"] not in KINDS:
        raise TypeError(f"model: expected one of {', '.join(KINDS)}, got {header['kind']}")
    return _file_bytes(tensors, header)


def from_bytes(content: bytes) -> Any:
    """The model of `to_bytes`, or of the content of a file that `save` wrote. Raises ModelFileError as `load` does.

    Examples
    --------
    >>> import crnn
    >>> crnn.io.model_file.from_bytes(crnn.io.model_file.to_bytes(crnn.RNN(2, 3)))
    RNN(input_size=2, hidden_size=3, num_layers=1, cell='tanh', embedding_size=None, dtype='float32')
    """
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"content: expected bytes, got {type(content).__name__}")
    whole = bytes(content)
    header_end = 8 + int.from_bytes(whole[:8], "little")
    return _model("content", *parse("content", whole, header_end))


def restore(content: bytes, attributes: Mapping[str, Any]) -> Any:
    """For pickle and copy: a model that may have diverged, and what its file does not hold."""
    header_end = 8 + int.from_bytes(content[:8], "little")
    model = _model("pickle", *parse("pickle", content, header_end), finite=False)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def _file_bytes(tensors: Mapping[str, Array], header: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save as as_bytes

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return bytes(as_bytes(arrays, metadata={"crnn": json.dumps({"format": FORMAT, **header})}))


def _model(name: str, tensors: Mapping[str, Array], header: Mapping[str, Any], *, finite: bool = True) -> Any:
    """The model that a file holds. ``name``: what errors call it."""
    kind = KINDS.get(str(header.get("kind")))
    if kind is None:
        raise ModelFileError(f"{name}: expected one of {', '.join(KINDS)}, got {header.get('kind')!r}")
    try:
        model = _from_header(kind, header, tensors, finite)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{name}: {error}") from None
    for parameter, values in model.params.items():
        values[...] = tensors[parameter]
    return model


def _from_header(kind: type[Any], header: Mapping[str, Any], tensors: Mapping[str, Array], finite: bool) -> Any:
    """A model with the configuration in the header, once all tensors are what that demands; their values not yet."""
    config = _checked_config(header.get("config"), kind)
    vocabs = _vocabs(kind, header)
    sizes = [len(vocabs["vocab"])] if kind is LanguageModel else []
    shapes = {name: (shape, config["dtype"]) for name, shape in kind.shapes_of(config, *sizes).items()}
    if sum(math.prod(shape) for shape, _ in shapes.values()) > SIZE_LIMIT:
        raise ValueError(f"expected at most {SIZE_LIMIT} parameters")
    scaled = kind.scaled_sizes(config) if issubclass(kind, SequenceModel) else {}
    for name, size in scaled.items():
        shapes |= dict.fromkeys((f"scaling.{name}.mean", f"scaling.{name}.std"), ((size,), "float64"))
    for name, (shape, dtype) in shapes.items():
        check_tensor(name, tensors, shape, dtype, finite=finite)
    extra = sorted(set(tensors) - set(shapes))
    if extra:
        raise ValueError(f"expected no tensor {extra[0]!r}")
    for rule in ("recurrent_init", "input_init"):  # not used here, but by copies of the model
        if config[rule] is not None:
            initial_matrix(config[rule], uniform_draws(0), (1, 1), rule)
    model = kind(**vocabs, **(config | {"recurrent_init": "zeros", "input_init": "zeros"}))
    for net in [model] if kind is RNN else model._networks:
        net.recurrent_init, net.input_init = config["recurrent_init"], config["input_init"] or "glorot"
    if hasattr(model, "input_init"):  # which may also be None
        model.input_init = config["input_init"]
    for name in scaled:
        scaling = model.scalings[name]
        scaling.mean, scaling.std = tensors[f"scaling.{name}.mean"], tensors[f"scaling.{name}.std"]
        if (scaling.std <= 0).any():
            raise ValueError(f"scaling.{name}.std: expected numbers above 0")
    return model


def _vocabs(kind: type[Any], header: Mapping[str, Any]) -> dict[str, Vocab]:
    """The vocabularies by the names of the arguments: a language model has to have one."""
    names = () if kind is RNN else kind.vocab_names
    return {
        name: Vocab.from_dict(header.get(name))
        for name in names
        if kind is LanguageModel or header.get(name) is not None
    }


KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (LanguageModel, SequenceClassifier, SequenceTagger, SequenceRegressor, SequenceToSequence, RNN)
}
NETWORK_TYPES: dict[str, tuple[type, ...]] = {
    "hidden_size": (int, list),
    "num_layers": (int,),
    "cell": (str,),
    "reset_after": (bool,),
    "forget_bias": (float, int),
    "embedding_size": (int, type(None)),
    "dropout": (float, int),
    "variational_dropout": (bool,),
    "recurrent_dropout": (float, int),
    "trainable_initial_state": (bool,),
    "dtype": (str,),
    "recurrent_init": (str,),
    "input_init": (str,),
}
STACK_TYPES: dict[str, tuple[type, ...]] = NETWORK_TYPES | {"input_size": (int,), "bidirectional": (bool,)}
POOLED: dict[str, tuple[type, ...]] = {"pooling": (str, type(None)), "steps": (int, type(None))}
CLASSES: dict[str, tuple[type, ...]] = {
    "scale": (bool,),
    "num_classes": (int,),
    "classes": (list, type(None)),
    "multilabel": (bool,),
    "class_weight": (list, type(None)),
    "label_smoothing": (float, int),
}
VALUES: dict[str, tuple[type, ...]] = {
    "scale": (bool,),
    "output_size": (int,),
    "loss": (str,),
    "delta": (float, int),
    "quantiles": (list,),
}
WRITTEN: dict[str, tuple[type, ...]] = {
    "scale": (bool,),
    "output_size": (int,),
    "real_source": (bool,),
    "reverse_source": (bool,),
    "label_smoothing": (float, int),
    "longest_target": (int, type(None)),
    "input_init": (str, type(None)),
}
CONFIG_TYPES: dict[type[Any], dict[str, tuple[type, ...]]] = {
    RNN: STACK_TYPES,
    LanguageModel: NETWORK_TYPES | {"tie_weights": (bool,), "input_init": (str, type(None))},
    SequenceClassifier: STACK_TYPES | POOLED | CLASSES,
    SequenceTagger: STACK_TYPES | CLASSES,
    SequenceRegressor: STACK_TYPES | POOLED | VALUES,
    SequenceToSequence: {name: kind for name, kind in STACK_TYPES.items() if name != "trainable_initial_state"}
    | WRITTEN,
}
SIZES = ("input_size", "embedding_size", "num_classes", "output_size", "steps", "longest_target")


def _checked_config(config: Any, kind: type[Any]) -> dict[str, Any]:
    """A configuration whose values have the right types, and no size that is not one."""
    types = CONFIG_TYPES[kind]
    known = isinstance(config, dict) and set(config) == set(types)
    if not known or any(type(config[name]) not in allowed for name, allowed in types.items()):
        raise ValueError(f"expected a config of {sorted(types)}, got {config!r:.200}")
    hidden, layers = config["hidden_size"], config["num_layers"]
    sizes = hidden if isinstance(hidden, list) else [hidden]
    sizes = sizes + [config[name] for name in SIZES if config.get(name) is not None]
    sensible = 0 < layers < 10_000 and len(sizes) < 10_000
    sensible = sensible and all(type(size) is int and 0 < size < SIZE_LIMIT for size in sizes)
    if not sensible or config["dtype"] not in DTYPES:
        raise ValueError(f"expected a sensible config, got {config!r:.200}")
    return dict(config)


def check_tensor(
    name: str, tensors: Mapping[str, Array], shape: tuple[int, ...], dtype: str, *, finite: bool = True
) -> None:
    if name not in tensors:
        raise ValueError(f"expected a tensor {name!r}, found none")
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}")
    if finite and not np.isfinite(tensor).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


# ---- files -------------------------------------------------------------------------------------------------------


def write(path: PathLike, tensors: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    content = _file_bytes(tensors, header)
    with replacing(path) as file:
        file.write(content)


def read_content(path: PathLike) -> tuple[bytes, int]:
    """All of a safetensors file, and where its header ends; nothing of it is checked but that header's length."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            raise ModelFileError(
                f"{os.fspath(path)}: expected a safetensors file with a header of at most {HEADER_LIMIT} bytes"
            )
        file.seek(0)
        # Not mapped: a file cut short meanwhile is a SIGBUS.
        return file.read(os.fstat(file.fileno()).st_size), 8 + length


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and our part of the header, both only as trustworthy as the file."""
    return parse(os.fspath(path), *read_content(path))


def parse(name: str, content: bytes, header_end: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Of a file's content; errors call it ``name``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as tensors_of

    try:
        tensors = tensors_of(content)
        metadata = json.loads(content[8:header_end]).get("__metadata__", {})
        header = json.loads(metadata["crnn"]) if "crnn" in metadata else None
    except (SafetensorError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        # safetensors' own messages do not name the file
        raise ModelFileError(f"{name}: expected a safetensors file written by crnn: {error}") from None
    if not isinstance(header, dict):
        raise ModelFileError(f"{name}: expected a file written by crnn, got a foreign safetensors file")
    if header.get("format") != FORMAT:
        raise ModelFileError(f"{name}: expected format {FORMAT}, got {header.get('format')!r}")
    return tensors, header
