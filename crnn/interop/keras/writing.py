# SPDX-License-Identifier: MIT
"""A crnn model becomes a chain of Keras's layers: their configuration, and their arrays in Keras's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.keras.architecture import POOLED, numbered, snake_case
from crnn.interop.keras.reading import CLASS_KINDS, DETERMINED
from crnn.interop.keras.scaling import normalization
from crnn.interop.layouts import LAYOUTS, from_crnn
from crnn.interop.parts import KINDS, ONLY_TRAINING, ModelParts, parts_of
from crnn.io.model_file import check_finite

CLASSES = {"tanh": "SimpleRNN", "relu": "SimpleRNN", "lstm": "LSTM", "gru": "GRU", "original_gru": "GRU"}
# The options of a model that Keras's layers compute, or that have their place in the metadata of an archive. One that
# is neither here nor in ONLY_TRAINING is refused until somebody has decided.
EXPRESSED = {
    *("input_size", "hidden_size", "num_layers", "cell", "bidirectional", "embedding_size", "dtype"),
    *("trainable_initial_state", "tie_weights", "pooling", "steps"),  # the first is refused if it is True
    *("num_classes", "classes", "multilabel", "thresholds", "output_size", "loss", "quantiles"),
}
IN_LAYERS = ("dropout", "variational_dropout", "recurrent_dropout", "trainable_initial_state")  # and in DETERMINED


@dataclass(frozen=True)
class WrittenLayer:
    """A layer as Keras describes it."""

    kind: str
    config: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)  # by path below its group, in the order of get_weights


def layers_of(model: object) -> tuple[list[WrittenLayer], ModelParts]:
    """The layers of a model, and its parts. Raises TypeError, and ValueError for what Keras cannot express."""
    parts = parts_of(model)
    for name, value in parts.config.items():
        if name not in EXPRESSED | ONLY_TRAINING:
            raise ValueError(f"{name}: expected a model without this option, which Keras lacks, got {value!r:.100}")
    parts.refuse("Keras", cell=tuple(LAYOUTS["keras"].gates), trainable_initial_state=False)
    parts.refuse_rare_dropouts("Keras")
    net, dtype = parts.network, parts.network.dtype
    steps = parts.config.get("steps")
    shape = [None, steps] if net.embedding_size is not None else [None, steps, net.input_size]
    inputs = "int32" if net.embedding_size is not None else dtype
    layers = [WrittenLayer("InputLayer", {"batch_shape": shape, "dtype": inputs})]
    if "x" in parts.scaling:
        layers.append(WrittenLayer("Normalization", *normalization(parts, "x")))
    if parts.embedding is not None:
        sizes = {"input_dim": net.input_size, "output_dim": net.embedding_size, "mask_zero": False}
        layers.append(WrittenLayer("Embedding", sizes, {"vars/0": np.array(parts.embedding)}))
    number = len(parts.layers)
    for i, directions in enumerate(parts.layers):
        layers.append(_recurrent(parts, directions, i < number - 1 or parts.pooling != "last"))
        if i < number - 1 and net.dropout:
            layers.append(_dropout(parts, steps=True))
    if parts.pooling in POOLED:
        layers.append(WrittenLayer(POOLED[parts.pooling], {}))
    if parts.head is not None:
        if net.dropout:
            layers.append(_dropout(parts, steps=parts.pooling is None))
        layers.append(_head(parts))
    if "y" in parts.scaling:
        layers.append(WrittenLayer("Normalization", *normalization(parts, "y")))
    for layer in layers:
        check_finite(layer.arrays)  # these copies: another thread may be training the model
    return layers, parts


def _recurrent(parts: ModelParts, directions: tuple[Mapping[str, Array], ...], returns: bool) -> WrittenLayer:
    cell, net = parts.network.cell, parts.network
    config: dict[str, Any] = {
        "units": len(directions[0]["W_hh"]),
        "activation": "relu" if cell == "relu" else "tanh",
        "use_bias": True,
        "return_sequences": returns,
        "recurrent_dropout": net.recurrent_dropout,
        "dtype": net.dtype,
    }
    if CLASSES[cell] != "SimpleRNN":
        config["recurrent_activation"] = "sigmoid"
    if CLASSES[cell] == "GRU":
        config["reset_after"] = cell == "gru"
    arrays: dict[str, Array] = {}
    places = ("cell/",) if len(directions) == 1 else ("forward_layer/cell/", "backward_layer/cell/")
    for place, params in zip(places, directions, strict=True):
        W_xh, W_hh, bias, second = from_crnn("keras", cell, params)
        if second is not None:
            bias = np.stack([bias, second])
        arrays |= {f"{place}vars/{number}": array for number, array in enumerate((W_xh, W_hh, bias))}
    if len(directions) == 1:
        return WrittenLayer(CLASSES[cell], config, arrays)
    inner: dict[str, Any] = {"module": "keras.layers", "class_name": CLASSES[cell], "registered_name": None}
    inner["config"] = {"name": snake_case(CLASSES[cell]), **config}
    return WrittenLayer("Bidirectional", {"merge_mode": "concat", "layer": inner, "dtype": net.dtype}, arrays)


def _dropout(parts: ModelParts, *, steps: bool) -> WrittenLayer:
    """Dropout of the vectors of all steps, or of one vector per sequence."""
    same = steps and parts.network.variational_dropout
    return WrittenLayer("SpatialDropout1D" if same else "Dropout", {"rate": parts.network.dropout})


def _head(parts: ModelParts) -> WrittenLayer:
    assert parts.head is not None
    activation = "linear"
    if parts.kind in (*CLASS_KINDS, "LanguageModel"):
        activation = "sigmoid" if parts.config.get("multilabel") else "softmax"
    weights, bias = (np.array(array, order="C") for array in parts.head)
    config = {"units": len(bias), "activation": activation, "use_bias": True}
    return WrittenLayer("Dense", config, {"vars/0": weights, "vars/1": bias})


# ---- documents -------------------------------------------------------------------------------------------------------


def configuration(layers: list[WrittenLayer], dtype: str) -> dict[str, Any]:
    """The configuration of a Sequential model of the layers, as Keras 3 reads it."""
    entries = []
    for layer, name in zip(layers, names_of(layers), strict=True):
        config = {"name": name, "dtype": dtype, **layer.config}
        entries.append(
            {"module": "keras.layers", "class_name": layer.kind, "config": config, "registered_name": None}
        )
    config = {"name": "sequential", "trainable": True, "dtype": dtype, "layers": entries}
    config["build_input_shape"] = layers[0].config["batch_shape"]
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def names_of(layers: list[WrittenLayer]) -> list[str]:
    """The name of each layer, and of its group in a file."""
    return numbered([snake_case(layer.kind) for layer in layers])


def extra_of(parts: ModelParts) -> dict[str, Any]:
    """What Keras has no place for: the kind, the options that are not in the layers, and the vocabulary."""
    known = set(KINDS[parts.kind].config_types) - DETERMINED - set(IN_LAYERS)
    extra: dict[str, Any] = {"kind": parts.kind}
    extra["options"] = {name: value for name, value in parts.config.items() if name in known}
    if parts.vocab is not None:
        extra["vocab"] = parts.vocab.to_dict()
    return extra
