# SPDX-License-Identifier: MIT
"""Keras's description of a model as a chain of layers with their arrays. Independent of crnn's models.

    configuration of a Sequential or functional model --chain--> layers --with_arrays--> layers with arrays
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crnn.checks import Array
from crnn.interop.keras.containers import Contents

RECURRENT = ("SimpleRNN", "LSTM", "GRU")
# The configuration's keys that decide what a layer computes, with the values that a chain of crnn's layers can express.
# A key that is not listed, here or in IGNORED, must have a value that switches it off.
_ACTIVATED = {"units": None, "use_bias": (True, False), "activation": None}
_RUNS = {
    "return_sequences": (True, False),
    "return_state": (False,),
    "go_backwards": (False,),
    "time_major": (False,),
    "zero_output_for_mask": (True, False),
}
_DROPS = {"dropout": None, "recurrent_dropout": None}
_UNITS = _ACTIVATED | _DROPS
LAYERS: dict[str, Mapping[str, tuple[Any, ...] | None]] = {  # by class; None: interpreted elsewhere
    "InputLayer": {"sparse": (False,), "ragged": (False,)},
    "Embedding": {"input_dim": None, "output_dim": None, "mask_zero": (True, False), "input_length": None},
    "Masking": {"mask_value": None},
    "Normalization": {"axis": None, "mean": None, "variance": None, "invert": (True, False)},
    "Rescaling": {"scale": None, "offset": None},
    "SimpleRNN": {**_UNITS, **_RUNS},
    "LSTM": {**_UNITS, **_RUNS, "recurrent_activation": ("sigmoid",)},
    "GRU": {**_UNITS, **_RUNS, "recurrent_activation": ("sigmoid",), "reset_after": (True, False)},
    "RNN": {**_RUNS, "cell": None},
    "Bidirectional": {"layer": None, "backward_layer": None, "merge_mode": ("concat",)},
    "Dropout": {"rate": None, "noise_shape": None},
    "SpatialDropout1D": {"rate": None, "noise_shape": None},
    "GaussianNoise": {"stddev": None},
    "GaussianDropout": {"rate": None},
    "AlphaDropout": {"rate": None, "noise_shape": None},
    "GlobalMaxPooling1D": {"data_format": ("channels_last", None), "keepdims": (False,)},
    "GlobalAveragePooling1D": {"data_format": ("channels_last", None), "keepdims": (False,)},
    "Flatten": {"data_format": ("channels_last", None)},
    "TimeDistributed": {"layer": None},
    "Dense": {"units": None, "use_bias": (True, False), "activation": None},
    "Activation": {"activation": None},
    "Softmax": {"axis": (-1, [-1])},
}
SINGLE_CELLS = {"SimpleRNNCell": "SimpleRNN", "LSTMCell": "LSTM", "GRUCell": "GRU"}  # of the layer RNN
# Keys that concern training in Keras, or the way it computes, or repeat what the arrays say.
IGNORED = re.compile(
    r"name|trainable|dtype|batch_input_shape|batch_shape|batch_size|input_dtype|optional|stateful|unroll|implementation"
    r"|seed|unit_forget_bias|supports_masking|autocast|.*_(initializer|regularizer|constraint)"
)
POOLED = {"max": "GlobalMaxPooling1D", "mean": "GlobalAveragePooling1D", "flatten": "Flatten"}
MASK_OPERATIONS = ("NotEqual", "Any")  # how a functional model computes the mask of Embedding and Masking


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a chain."""

    kind: str  # its class, a key of `LAYERS`
    name: str
    config: Mapping[str, Any]
    arrays: list[Array] = field(default_factory=list)  # in the order of Keras's get_weights
    stored: str = ""  # its class in paths of files: "rnn" of an RNN(LSTMCell)

    def option(self, name: str, default: Any) -> Any:
        """A value of the configuration, or Keras's default."""
        value = self.config.get(name)
        return default if value is None else value

    def check_arrays(self, *counts: int) -> None:
        """Raise ValueError unless the layer has one of these numbers of arrays."""
        if len(self.arrays) not in counts:
            expected = " or ".join(map(str, counts))
            raise self.fail(f"{expected} arrays", [array.shape for array in self.arrays])

    def fail(self, expected: str, got: Any) -> ValueError:
        """An error that names the layer."""
        return ValueError(f"layer {self.name!r:.100} ({self.kind}): expected {expected}, got {got!r:.200}")


# ---- configurations --------------------------------------------------------------------------------------------------


def chain(config: Mapping[str, Any]) -> list[KerasLayer]:
    """The layers of a model's configuration, in the order in which they compute.

    ``config`` has the keys class_name and config. Raises ValueError, which names the layer, for a model that is no
    chain and for a layer that crnn does not have.
    """
    kind, inner = config.get("class_name"), config.get("config")
    if kind == "Sequential":
        listed = inner.get("layers") if isinstance(inner, dict) else inner  # a list in the oldest files
        entries = [_entry(each) for each in _list("layers", listed)]
    elif kind in ("Functional", "Model") and isinstance(inner, dict):
        entries = _functional(inner)
    else:
        raise ValueError(f"expected a Sequential or functional model, got {kind!r:.100}")
    layers = [_layer(entry) for entry in entries]
    names = [layer.name for layer in layers]
    if len(set(names)) != len(names):
        raise ValueError("layers: expected each name once, got one twice")
    return layers


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list, got {value!r:.100}")
    return value


def _entry(value: Any) -> dict[str, Any]:
    """A serialised layer: class_name and config."""
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        raise ValueError(f"layers: expected layers with a configuration, got {value!r:.100}")
    return value


def _layer(entry: Mapping[str, Any]) -> KerasLayer:
    """The layer of an entry, with every key of its configuration checked."""
    kind, config = entry.get("class_name"), entry["config"]
    layer = KerasLayer(str(kind), str(config.get("name", kind)), config, stored=snake_case(str(kind)))
    module, registered = entry.get("module"), entry.get("registered_name")
    custom = registered not in (None, kind) or not (module is None or f"{module}.".startswith(("keras.", "tf_keras.")))
    if kind not in LAYERS or custom:
        shown = registered if custom and registered is not None else kind
        raise layer.fail(f"one of Keras's layers {', '.join(LAYERS)}", shown)
    if kind == "RNN":
        return _layer_of_cell(layer)
    allowed = LAYERS[layer.kind]
    for key, value in config.items():
        values = allowed.get(key)
        if key not in allowed and not IGNORED.fullmatch(key):
            switched_off = value is None or value is False
            values = (value,) if switched_off else ("nothing that crnn does not know",)
        if values is not None and value not in values:
            raise layer.fail(f"{key}={' or '.join(map(str, values))}", value)
    return layer


def _layer_of_cell(layer: KerasLayer) -> KerasLayer:
    """The layer of an RNN with one cell, such as LSTM of RNN(LSTMCell)."""
    cell = _entry(layer.config.get("cell"))
    if cell.get("class_name") not in SINGLE_CELLS:
        raise layer.fail(f"a cell of {', '.join(SINGLE_CELLS)}", cell.get("class_name"))
    merged = {key: value for key, value in layer.config.items() if key != "cell"}
    merged = {key: value for key, value in cell["config"].items() if key != "name"} | merged
    made = _layer({**cell, "class_name": SINGLE_CELLS[cell["class_name"]], "config": merged})
    return replace(made, stored=layer.stored)


def inner_layer(layer: KerasLayer, key: str = "layer") -> KerasLayer:
    """The layer that a Bidirectional or TimeDistributed layer wraps."""
    return _layer(_entry(layer.config.get(key)))


def _functional(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a functional model, which must be a chain: each layer reads the one before it and no other."""
    entries = {str(each.get("name")): each for each in map(_entry, _list("layers", config.get("layers")))}
    masks = {name for name, entry in entries.items() if entry.get("class_name") in MASK_OPERATIONS}
    sources: dict[str, str] = {}
    starts: list[str] = []
    for name, entry in entries.items():
        if name in masks:
            continue
        nodes = _list(f"{name!r:.100}: inbound_nodes", entry.get("inbound_nodes"))
        inputs = sorted(set(_inputs(nodes)) - masks)
        if len(nodes) > 1 or len(inputs) > 1:
            raise ValueError(f"layer {name!r:.100}: expected it to be used once, with one input, got {inputs!r:.200}")
        if not inputs:
            starts.append(name)
        elif inputs[0] not in entries or inputs[0] in sources:
            raise ValueError(f"layer {name!r:.100}: expected a chain of layers, got a model that branches")
        else:
            sources[inputs[0]] = name
    if len(starts) != 1:
        raise ValueError(f"expected a model with one input, got {starts!r:.200}")
    order = [starts[0]]
    while order[-1] in sources and len(order) <= len(entries):
        order.append(sources[order[-1]])
    if len(order) != len(entries) - len(masks):
        raise ValueError("expected a chain of layers, got a model that branches")
    _check_masks(entries, masks, order)
    outputs = [each[0] for each in _histories(config.get("output_layers"))]
    if outputs != [order[-1]]:
        raise ValueError(f"expected the last layer {order[-1]!r:.100} as the one output, got {outputs!r:.200}")
    return [entries[name] for name in order]


def _inputs(nodes: Any) -> Iterator[str]:
    """The names of the layers that nodes read."""
    for history in _histories(nodes):
        yield history[0]


def _histories(value: Any) -> Iterator[tuple[str, int, int]]:
    """The tensors in a part of a functional configuration, as layer, node and number: [name, 0, 0] or [.., {...}]."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _histories(each)
    elif isinstance(value, list):
        numbers = value[1:3]
        if len(value) in (3, 4) and isinstance(value[0], str) and [type(each) for each in numbers] == [int, int]:
            yield value[0], numbers[0], numbers[1]
            yield from _histories(value[3:])
        else:
            for each in value:
                yield from _histories(each)


def _check_masks(entries: Mapping[str, Mapping[str, Any]], masks: set[str], order: Sequence[str]) -> None:
    """Raise ValueError unless the operations ``masks`` compute the mask of the chain's Embedding or Masking layer."""
    if not masks:
        return
    masking = [i for i, name in enumerate(order) if entries[name].get("class_name") in ("Embedding", "Masking")]
    for name in masks:
        read = set(_inputs(entries[name].get("inbound_nodes")))
        of_input = {order[i - 1] for i in masking if i > 0}
        config = entries[name]["config"]
        if not masking or not read <= of_input | masks or config.get("axis", -1) not in (-1, [-1]):
            raise ValueError(f"layer {name!r:.100}: expected the mask of an Embedding or Masking layer")
    values = {0}
    for i in masking:
        values.add(entries[order[i]]["config"].get("mask_value", 0))
    for name in masks:
        if entries[name].get("class_name") == "NotEqual":
            compared = [each for node in entries[name]["inbound_nodes"] for each in node.get("args", [])]
            constants = [each for each in compared if not isinstance(each, dict)]
            if len(constants) != 1 or constants[0] not in values:
                raise ValueError(f"layer {name!r:.100}: expected the mask of an Embedding or Masking layer")


# ---- arrays ----------------------------------------------------------------------------------------------------------

# The places of a layer's arrays below its group in a ``.weights.h5``, in the order of get_weights.
PLACES = ("", "cell/", "layer/", "forward_layer/cell/", "forward_layer/", "backward_layer/cell/", "backward_layer/")
PLACE = re.compile(rf"({'|'.join(PLACES)})vars/(0|[1-9][0-9]?)")
SEEDS = re.compile(r"(.*/)?seed_generator/vars/0")  # the state of a dropout's random numbers
CONTAINERS = ("layers/", "_layer_checkpoint_dependencies/")  # of Keras 3, and of 2.12


def snake_case(name: str) -> str:
    """Keras's name of a class in paths: "simple_rnn" of "SimpleRNN"."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def numbered(names: Sequence[str]) -> list[str]:
    """The names with _1, _2 ... after the second, third ... of equal ones, as Keras names groups of layers."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        found.append(f"{name}_{counts[name]}" if counts.get(name) else name)
        counts[name] = counts.get(name, 0) + 1
    return found


def with_arrays(layers: Sequence[KerasLayer], contents: Contents) -> list[KerasLayer]:
    """The layers of a configuration with their arrays. Raises ValueError, which names it, for an array of no layer."""
    groups = grouped(contents)
    if contents.layer_names is None:
        names = numbered([layer.stored for layer in layers])
        by_name = [layer.name for layer in layers]
        if not set(groups) <= set(names) and set(groups) <= set(by_name):
            names = by_name
    else:
        names = [layer.name for layer in layers]
    extra = sorted(set(groups) - set(names))
    if extra:
        path = next(iter(groups[extra[0]]), extra[0])
        raise ValueError(f"{path!r:.200}: expected arrays of the model's layers only")
    arrays = [list(groups.get(name, {}).values()) for name in names]
    return [replace(layer, arrays=of) for layer, of in zip(layers, arrays, strict=True)]


def grouped(contents: Contents) -> dict[str, dict[str, Array]]:
    """The arrays of each layer by path, in the order of get_weights, by the name of the layer's group."""
    if contents.layer_names is not None:
        return _listed_groups(contents)
    found: dict[str, dict[str, tuple[tuple[int, int], Array]]] = {}
    for path, array in contents.arrays.items():
        if SEEDS.fullmatch(path):
            continue
        below = path.replace("\\", "/")  # written on Windows
        start = next((each for each in CONTAINERS if below.startswith(each)), "")
        group, _, inner = below.removeprefix(start).partition("/")
        match = PLACE.fullmatch(inner)
        if match is None or not group:
            raise ValueError(f"{path!r:.200}: expected arrays of a Sequential or functional model's layers")
        place = PLACES.index(match[1]), int(match[2])
        found.setdefault(group, {})[path] = place, array
    return {
        group: {path: array for path, (_, array) in sorted(arrays.items(), key=lambda item: item[1][0])}
        for group, arrays in found.items()
    }


def _listed_groups(contents: Contents) -> dict[str, dict[str, Array]]:
    """`grouped` of the older format, which lists names."""
    groups: dict[str, dict[str, Array]] = {}
    unread = {path for path in contents.arrays if not SEEDS.fullmatch(path)}
    for group, paths in contents.weight_names.items():
        for path in paths:
            if path not in contents.arrays:
                raise ValueError(f"{path!r:.200}: expected an array, found none")
        unread -= set(paths)
        if paths:
            groups[group] = {path: contents.arrays[path] for path in paths}
    if unread:
        raise ValueError(f"{min(unread)!r:.200}: expected an array that weight_names lists")
    return groups
