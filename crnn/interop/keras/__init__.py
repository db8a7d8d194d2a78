# SPDX-License-Identifier: MIT
"""Conversion from and to Keras: ``.keras`` archives, ``.weights.h5``, the older ``.h5``, and models in memory.

    Keras, shape (in, out)                      crnn, shape (in, out)
    kernel                                      layer0.W_xh
    recurrent_kernel                            layer0.W_hh
    bias                                        layer0.b_h
    bias of a GRU with reset_after, (2, 3H)     their sum in layer0.b_h; block n: layer0.b_h, layer0.b_hn

The order of a GRU's gates differs. Files are read and written with h5py, without Keras. Only `to_model` imports Keras.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from crnn._float_mode import in_ieee_mode
from crnn.checks import Array
from crnn.interop.keras.architecture import KerasLayer, chain, with_arrays
from crnn.interop.keras.containers import Contents, naming, read, to_archive, to_h5
from crnn.interop.keras.reading import CLASS_KINDS, Request, check_request, model_of, plain
from crnn.interop.keras.weights_only import Stated, layers_of_weights
from crnn.interop.keras.writing import WrittenLayer, configuration, extra_of, layers_of, names_of
from crnn.interop.parts import KINDS
from crnn.io.atomic_write import PathLike, replacing
from crnn.models.outputs.pooling import POOLINGS
from crnn.nn.cells import check_cell
from crnn.text.vocab import Vocab

__all__ = ["from_model", "load", "save", "to_model", "without_padding"]


# ---- from Keras ------------------------------------------------------------------------------------------------------


@in_ieee_mode
def load(
    path: PathLike,
    *,
    kind: str | None = None,
    vocab: Vocab | None = None,
    cell: str | None = None,
    pooling: str | None = None,
    ignore_mask: bool = False,
    **options: Any,
) -> Any:
    """The model of a file that Keras wrote, or `save`. Needs h5py, not Keras.

    Parameters
    ----------
    path : str or path
        A ``.keras`` archive, a ``.weights.h5`` file, or an ``.h5`` file of the older format, of a Sequential model or
        of a functional one whose layers form a chain.
    kind : {"RNN", "LanguageModel", "SequenceClassifier", "SequenceTagger", "SequenceRegressor"}, optional
        What to make. If not given: an RNN without a Dense head; a LanguageModel if the head has an output for each
        token of ``vocab``; a classifier or tagger for a softmax or sigmoid head, for a loss on logits, or if
        ``classes`` are given; otherwise a regressor. Weights with a head and no configuration need it.
    vocab : Vocab, optional
        The vocabulary of the ids, of a language model, classifier or tagger.
    cell : str, optional
        For weights without a configuration, which do not tell "relu" from "tanh", the default, nor, without a bias,
        "original_gru" from "gru".
    pooling : {"last", "max", "mean", "flatten"}, optional
        For weights without a configuration: how a classifier or regressor reads the steps; None: every step.
    ignore_mask : bool
        Convert a model whose pooling includes masked steps, for sequences without padding.
    **options
        Options of the model that Keras does not have, such as ``classes`` or ``loss``; ``dropout`` if the file's does
        not suit crnn.

    Returns
    -------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
        float32 or float64 as the file's weights; float16 and bfloat16 become float32.

    Raises
    ------
    ModelFileError
        The file is damaged, or holds a layer or an option that crnn does not have, or an array of no layer; the message
        names it.
    TypeError, ValueError
        An argument is wrong.
    OSError
        The file cannot be read.
    ImportError
        h5py is not installed.
    """
    checked = check_request(kind, vocab, options)
    if cell is not None:
        check_cell("cell", cell)
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, or None, got {pooling!r:.100}")
    contents = read(path)
    if contents.config is not None and (cell, pooling) != (None, None):
        name = "cell" if pooling is None else "pooling"
        raise TypeError(f"{name}: expected none for a file with a configuration")

    def make() -> Any:
        request = _with_extra(Request(kind, vocab, ignore_mask, checked, _logits(contents.compiled)), contents.extra)
        return model_of(_layers(contents, request, cell, pooling), request)

    return naming(os.fsdecode(path), make)


def _layers(contents: Contents, request: Request, cell: str | None, pooling: str | None) -> list[KerasLayer]:
    """The layers of a file with their arrays."""
    if contents.config is not None:
        return with_arrays(chain(contents.config), contents)
    kind = request.kind or ("LanguageModel" if request.vocab is not None else None)
    activation = "linear" if kind in (None, "RNN", "SequenceRegressor") else "softmax"
    if kind in CLASS_KINDS and request.options.get("multilabel"):
        activation = "sigmoid"
    layers = layers_of_weights(contents, Stated(cell, pooling, activation))
    if kind is None and any(layer.kind == "Dense" for layer in layers):
        raise ValueError("kind: expected it for weights with a head and no configuration, got none")
    return layers


def _with_extra(request: Request, extra: Mapping[str, Any]) -> Request:
    """A request, completed by what crnn wrote besides the layers."""
    if not extra:
        return request
    options = extra.get("options")
    checked_kind = extra.get("kind") or "RNN"
    checked = check_request(checked_kind, None, options if isinstance(options, dict) else {})
    kind = request.kind or checked_kind
    vocab = request.vocab
    if vocab is None and "vocab" in KINDS[kind].attachments and extra.get("vocab") is not None:
        vocab = Vocab.from_dict(extra["vocab"])
    if kind != checked_kind:  # another kind has other options
        checked = {}
    if any(name in request.options for name in ("classes", "num_classes")):
        checked = {name: value for name, value in checked.items() if name not in ("classes", "num_classes")}
    return replace(request, kind=kind, vocab=vocab, options={**checked, **request.options})


def _logits(compiled: Mapping[str, Any]) -> str | None:
    """ "softmax" or "sigmoid" if the loss of a training configuration takes logits of one or of several classes."""
    loss = compiled.get("loss")
    if not isinstance(loss, dict) or not isinstance(loss.get("config"), dict) or not loss["config"].get("from_logits"):
        return None
    names = {"CategoricalCrossentropy": "softmax", "SparseCategoricalCrossentropy": "softmax"}
    return (names | {"BinaryCrossentropy": "sigmoid"}).get(str(loss.get("class_name")))


@in_ieee_mode
def from_model(
    keras_model: Any, *, kind: str | None = None, vocab: Vocab | None = None, ignore_mask: bool = False, **options: Any
) -> Any:
    """The model of a Keras model in memory, which is not changed; of any backend, Keras 2 or 3.

    Parameters
    ----------
    keras_model : keras.Model
        Built; Sequential, or functional with layers that form a chain.
    kind, vocab, ignore_mask, **options
        As in `load`.

    Returns
    -------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
        Shares no memory with the Keras model.

    Raises
    ------
    TypeError, ValueError
        As in `load`; the model holds a layer or an option that crnn does not have, which the message names.
    """
    checked = check_request(kind, vocab, options)
    missing = [name for name in ("get_config", "get_layer", "layers") if not hasattr(keras_model, name)]
    if missing:
        raise TypeError(f"keras_model: expected a Keras model, got {type(keras_model).__name__}")
    config = plain(keras_model.get_config())
    sequential = "Sequential" in [cls.__name__ for cls in type(keras_model).__mro__]
    if not isinstance(config, Mapping | list) or (isinstance(config, Mapping) and "layers" not in config):
        raise ValueError(f"keras_model: expected a Sequential or functional one, got {type(keras_model).__name__}")
    layers = chain({"class_name": "Sequential" if sequential else "Functional", "config": config})
    arrays: dict[str, list[Array]] = {layer.name: layer.get_weights() for layer in keras_model.layers}
    found = [KerasLayer(each.kind, each.name, each.config, arrays.get(each.name, [])) for each in layers]
    used, total = sum(len(each.arrays) for each in found), len(keras_model.get_weights())
    if used != total:
        raise ValueError(f"keras_model: expected the {used} weights of its layers, got {total}")
    loss: Any = getattr(keras_model, "loss", None)
    compiled: dict[str, Any] = {}
    if hasattr(loss, "get_config"):
        compiled["loss"] = {"class_name": type(loss).__name__, "config": loss.get_config()}
    return model_of(found, Request(kind, vocab, ignore_mask, checked, _logits(compiled)))


# ---- to Keras --------------------------------------------------------------------------------------------------------


def save(model: Any, path: PathLike) -> None:
    """Write a model for Keras 3, atomically: a ``.keras`` archive, or its weights if the name ends in ``.weights.h5``.

    ``keras.saving.load_model`` opens the archive; the ``load_weights`` of a Keras model with these layers reads the
    weights. An archive also has what Keras has no place for, such as names of classes and a vocabulary, in its
    metadata; `load` reads it. Needs h5py, not Keras.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
    path : str or path

    Raises
    ------
    TypeError
        The model is of another kind.
    ValueError
        The name ends otherwise; Keras cannot express an option, which the message names; or a value is not finite.
    OSError
        The file cannot be written.
    ImportError
        h5py is not installed.
    """
    name = os.fsdecode(path)
    if not name.endswith((".keras", ".weights.h5")):
        raise ValueError(f"path: expected a name that ends in .keras or .weights.h5, got {name!r}")
    layers, parts = layers_of(model)
    content = to_h5({name: layer.arrays for name, layer in zip(names_of(layers), layers, strict=True)})
    if name.endswith(".keras"):
        content = to_archive(configuration(layers, parts.network.dtype), content, extra_of(parts))
    with replacing(path) as file:
        file.write(content)


def to_model(model: Any) -> Any:
    """The Keras model that computes what a crnn model does, with the same weights, not compiled.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor

    Returns
    -------
    keras_model : keras.Sequential
        x is (B, T, D), or int32 ids (B, T) with an embedding. A model of ids without an embedding takes one-hot
        vectors. y is what ``predict_proba`` or ``predict`` return, for a LanguageModel the probabilities of the next
        token, for an RNN the outputs of all steps. Quantiles are (B, Q*P): those of the first level
        for all targets, then of the next.

    Raises
    ------
    TypeError, ValueError
        As in `save`.
    ImportError
        Keras 3 is not installed.
    """
    layers, parts = layers_of(model)
    try:
        import keras
    except ImportError:
        raise ImportError("to_model needs Keras 3: pip install keras") from None
    made = keras.saving.deserialize_keras_object(configuration(layers, parts.network.dtype))
    made.set_weights(_arrays(layers))
    for layer in made.layers:
        if hasattr(layer, "finalize_state"):  # Normalization computes with what it derives from its weights
            layer.finalize_state()
    return made


def _arrays(layers: list[WrittenLayer]) -> list[Array]:
    """The arrays of all layers in the order of get_weights."""
    return [array for layer in layers for array in layer.arrays.values()]


# ---- padding ---------------------------------------------------------------------------------------------------------


def without_padding(x: ArrayLike, mask_value: float = 0) -> list[Array]:
    """Sequences of different lengths, as crnn takes them, from a padded array as Keras takes it.

    Keras's Masking and Embedding(mask_zero=True) skip masked steps: the state is held. So a sequence with masked steps,
    at its end, at its beginning or inside, is the same as the sequence without them.

    Parameters
    ----------
    x : array (N, T, D), or integer ids (N, T)
    mask_value : float
        A step is masked if all its numbers have this value. Embedding(mask_zero=True) masks 0.

    Returns
    -------
    sequences : list of arrays (T_i, D) or (T_i,)
        Fresh.

    Raises
    ------
    ValueError
        x has another shape, or a sequence has no other steps.

    Examples
    --------
    >>> from crnn.interop.keras import without_padding
    >>> [ids.tolist() for ids in without_padding([[5, 2, 0, 0], [0, 3, 1, 4]])]
    [[5, 2], [3, 1, 4]]
    """
    array = np.asarray(x)
    if array.ndim not in (2, 3):
        raise ValueError(f"x: expected an array (N, T, D), or ids (N, T), got shape {array.shape}")
    kept = array != mask_value
    if array.ndim == 3:
        kept = kept.any(axis=2)
    empty = np.flatnonzero(~kept.any(axis=1))
    if empty.size:
        raise ValueError(f"x[{empty[0]}]: expected at least one step that is not masked, found none")
    return [sequence[steps] for sequence, steps in zip(array, kept, strict=True)]
