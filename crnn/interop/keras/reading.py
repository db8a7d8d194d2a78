# SPDX-License-Identifier: MIT
"""A chain of Keras's layers becomes a crnn model.

    InputLayer, Masking, Normalization, Embedding -> recurrent layers -> pooling -> Dense -> activation, Normalization
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.interop.keras.architecture import POOLED, RECURRENT, KerasLayer, inner_layer
from crnn.interop.keras.scaling import statistics
from crnn.interop.layouts import to_crnn
from crnn.interop.parts import KINDS, Layer, model_from
from crnn.text.vocab import Vocab

DROPOUTS = {"Dropout": "rate", "SpatialDropout1D": "rate", "GaussianDropout": "rate", "AlphaDropout": "rate"}
DROPOUTS["GaussianNoise"] = "stddev"
POOLINGS = {layer: pooling for pooling, layer in POOLED.items()}
ACTIVATIONS = ("linear", "softmax", "sigmoid")
CLASS_KINDS = ("SequenceClassifier", "SequenceTagger")
# Options that the layers determine.
DETERMINED = {"input_size", "hidden_size", "num_layers", "cell", "bidirectional", "embedding_size", "dtype"}
DETERMINED |= {"pooling", "steps", "output_size"}


@dataclass
class Found:
    """What a chain of layers says, in crnn's terms."""

    cell: str = ""
    layers: list[Layer] = field(default_factory=list)
    embedding: Array | None = None
    scaling: dict[str, KerasLayer] = field(default_factory=dict)  # the layers that scale "x" and "y"
    masked: bool = False
    every_step: bool = True  # whether the last recurrent layer returns sequences
    pooling: str | None = None
    pooling_layer: KerasLayer | None = None
    head: tuple[Array, Array] | None = None
    activation: str = "linear"
    # Before each recurrent layer and before the head: rates of dropout, and whether one mask is used for all steps.
    drops: list[list[tuple[float, bool]]] = field(default_factory=list)
    recurrent_drops: set[float] = field(default_factory=set)
    unlike: bool = False  # whether a dropout has a place or form that crnn does not have


@dataclass(frozen=True)
class Request:
    """What the caller states besides the layers."""

    kind: str | None
    vocab: Vocab | None
    ignore_mask: bool
    options: Mapping[str, Any]
    logits: str | None = None  # "softmax" or "sigmoid" if the training loss takes linear outputs as logits


def check_request(kind: Any, vocab: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as a file's header holds them. Raises TypeError and ValueError for wrong arguments."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r:.100}")
    if vocab is not None and not isinstance(vocab, Vocab):
        raise TypeError(f"vocab: expected a Vocab, got {type(vocab).__name__}")
    known = {name for each in KINDS.values() for name in each.config_types} - DETERMINED
    unknown = sorted(set(options) - known)
    if unknown:
        hint = ", which the layers determine" if unknown[0] in DETERMINED else ""
        raise TypeError(f"unexpected argument {unknown[0]!r}{hint}")
    return {name: plain(value) for name, value in options.items()}


def plain(value: Any) -> Any:
    """A value as JSON holds it: arrays, Series and tuples as lists, NumPy's numbers as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


# ---- the chain -------------------------------------------------------------------------------------------------------


def read_chain(layers: Sequence[KerasLayer]) -> Found:
    """What the layers say. Raises ValueError, which names the layer, for what crnn does not have."""
    found = Found()
    for layer in layers:
        if layer.kind in DROPOUTS:
            layer.check_arrays(0)
            _read_dropout(found, layer)
        elif layer.kind in (*RECURRENT, "Bidirectional"):
            _read_recurrent(found, layer)
        elif not found.layers:
            _read_input(found, layer)
        else:
            _read_output(found, layer)
    if not found.layers:
        raise ValueError(f"expected a recurrent layer, one of {', '.join(RECURRENT)}, found none")
    return found


def _shaped(layer: KerasLayer, array: Array, *shape: int | None) -> Array:
    """The array if it is of floating point and has this shape, of which None is any size but 0."""
    fits = array.ndim == len(shape) and all(n > 0 and n == (m or n) for n, m in zip(array.shape, shape, strict=True))
    narrow = array.dtype.name in ("float16", "bfloat16")  # packages such as ml_dtypes add bfloat16 to NumPy
    if not fits or not (narrow or array.dtype.name in ("float32", "float64")):
        wanted = str(tuple("any" if n is None else n for n in shape))
        raise layer.fail(f"an array of floating point of shape {wanted}", f"{array.dtype} {array.shape}")
    return array.astype(np.float32) if narrow else array


def _read_input(found: Found, layer: KerasLayer) -> None:
    """A layer before the first recurrent one."""
    if layer.kind == "InputLayer":
        layer.check_arrays(0)
    elif layer.kind == "Masking":
        layer.check_arrays(0)
        found.masked = True
    elif layer.kind == "Embedding" and found.embedding is None and not found.scaling:
        layer.check_arrays(1)
        found.embedding = _shaped(layer, layer.arrays[0], layer.config.get("input_dim"), layer.config.get("output_dim"))
        found.masked |= layer.option("mask_zero", False)
    elif layer.kind in ("Normalization", "Rescaling") and found.embedding is None and not found.scaling:
        found.scaling["x"] = layer
    else:
        raise layer.fail("a recurrent layer before it", layer.kind)


def _read_dropout(found: Found, layer: KerasLayer) -> None:
    name = DROPOUTS[layer.kind]
    rate = layer.option(name, 0.0) if name == "stddev" else _rate(layer, name)
    if not rate:
        return
    known = layer.kind in ("Dropout", "SpatialDropout1D") and layer.config.get("noise_shape") is None
    if found.head is not None or not known:
        found.unlike = True
    while len(found.drops) <= len(found.layers):
        found.drops.append([])
    found.drops[len(found.layers)].append((rate, layer.kind == "SpatialDropout1D"))


def _rate(layer: KerasLayer, name: str) -> float:
    """A dropout rate of the layer's configuration."""
    value = layer.option(name, 0.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise layer.fail(f"{name} from 0 to less than 1", value)
    return float(value)


# ---- recurrent layers ------------------------------------------------------------------------------------------------


def _read_recurrent(found: Found, layer: KerasLayer) -> None:
    if found.head is not None or found.pooling is not None or not found.every_step:
        raise layer.fail("a recurrent layer before it that returns sequences, and no other", layer.kind)
    directions, inner = _directions(layer)
    cell = ""
    for each in directions:
        cell = _cell(each)
        if found.cell not in ("", cell):
            raise layer.fail(f"the cell of all layers, {found.cell!r}", cell)
        found.cell = cell
    size = None
    if found.layers:
        if len(directions) != len(found.layers[0]):
            raise layer.fail("Bidirectional in all recurrent layers or in none", layer.kind)
        size = sum(len(each["W_hh"]) for each in found.layers[-1])
    elif found.embedding is not None:
        size = found.embedding.shape[1]
    params = tuple(_parameters(each, cell, size) for each in directions)
    if len({len(each["W_hh"]) for each in params}) > 1:
        raise layer.fail("the same number of units in both directions", [len(each["W_hh"]) for each in params])
    own = {_rate(each, "dropout") for each in directions}
    recurrent = {_rate(each, "recurrent_dropout") for each in directions}
    while len(found.drops) <= len(found.layers):
        found.drops.append([])
    found.drops[len(found.layers)] += [(rate, True) for rate in own if rate]
    found.recurrent_drops |= recurrent
    found.layers.append(params)
    found.every_step = bool(inner.option("return_sequences", False))


def _directions(layer: KerasLayer) -> tuple[list[KerasLayer], KerasLayer]:
    """The layers of the directions with their arrays, and the one that says what is returned."""
    if layer.kind != "Bidirectional":
        return [layer], layer
    forward = inner_layer(layer)
    backward = forward
    given = layer.config.get("backward_layer")
    if given is not None:
        if not isinstance(given, dict) or not isinstance(given.get("config"), dict):
            raise layer.fail("a backward_layer", given)
        if given["config"].get("go_backwards") is not True:
            raise layer.fail("a backward_layer with go_backwards=True", given["config"].get("go_backwards"))
        # The only value that a layer outside of Bidirectional must not have.
        entry = {**given, "config": {**given["config"], "go_backwards": False}}
        backward = inner_layer(KerasLayer(layer.kind, layer.name, {"backward_layer": entry}), "backward_layer")
    if forward.kind not in RECURRENT or backward.kind != forward.kind:
        raise layer.fail(f"one of {', '.join(RECURRENT)} in both directions", [forward.kind, backward.kind])
    if forward.option("return_sequences", False) != backward.option("return_sequences", False):
        raise layer.fail("the same return_sequences in both directions", backward.option("return_sequences", False))
    return _halves(layer, forward, backward), forward


def _halves(layer: KerasLayer, forward: KerasLayer, backward: KerasLayer) -> list[KerasLayer]:
    """The two directions, with half of the arrays each."""
    layer.check_arrays(4, 6)
    half = len(layer.arrays) // 2
    pairs = (forward, layer.arrays[:half]), (backward, layer.arrays[half:])
    return [KerasLayer(each.kind, layer.name, each.config, arrays) for each, arrays in pairs]


def _cell(layer: KerasLayer) -> str:
    """crnn's name of a recurrent layer's cell."""
    activation = _activation(layer, "tanh")
    if layer.kind == "SimpleRNN":
        if activation not in ("tanh", "relu"):
            raise layer.fail("activation='tanh' or 'relu'", activation)
        return activation
    if activation != "tanh":
        raise layer.fail("activation='tanh'", activation)
    if layer.kind == "LSTM":
        return "lstm"
    biased = len(layer.arrays) == 3
    after = layer.arrays[2].ndim == 2 if biased else bool(layer.option("reset_after", True))
    if layer.option("reset_after", after) != after:
        raise layer.fail(f"the bias of reset_after={not after}", layer.arrays[2].shape)
    return "gru" if after else "original_gru"


def _activation(layer: KerasLayer, default: str) -> str:
    """The name of an activation. What is not a name, but a mapping, is the user's own function."""
    value = layer.config.get("activation", default)
    if value is None:
        return "linear"
    if not isinstance(value, str):
        raise layer.fail("activation: the name of one of Keras's", value)
    return value


def _parameters(layer: KerasLayer, cell: str, inputs: int | None) -> dict[str, Array]:
    """The parameters of one direction by crnn's names."""
    biased = layer.option("use_bias", len(layer.arrays) != 2)
    layer.check_arrays(3 if biased else 2)
    kernel, recurrent = (_shaped(layer, array, None, None) for array in layer.arrays[:2])
    H = len(recurrent)
    gates = {"tanh": 1, "relu": 1, "lstm": 4}.get(cell, 3)
    if layer.option("units", H) != H:
        raise layer.fail(f"arrays of units={layer.config['units']}", recurrent.shape)
    _shaped(layer, kernel, inputs, gates * H)
    _shaped(layer, recurrent, H, gates * H)
    bias = second = None
    if biased and cell == "gru":
        bias, second = _shaped(layer, layer.arrays[2], 2, 3 * H)
    elif biased:
        bias = _shaped(layer, layer.arrays[2], gates * H)
    try:
        return to_crnn("keras", cell, kernel, recurrent, bias, second)
    except ValueError as error:
        raise ValueError(f"layer {layer.name!r:.100} ({layer.kind}): {error}") from None


# ---- after the recurrent layers --------------------------------------------------------------------------------------


def _read_output(found: Found, layer: KerasLayer) -> None:
    """A layer after the last recurrent one."""
    if layer.kind in POOLINGS and found.every_step and found.pooling is None and found.head is None:
        layer.check_arrays(0)
        found.pooling, found.pooling_layer = POOLINGS[layer.kind], layer
        if len(found.drops) > len(found.layers) and layer.kind != "Flatten":
            found.unlike = True  # dropped before pooling, not after
    elif layer.kind in ("Dense", "TimeDistributed") and found.head is None:
        dense = layer
        if layer.kind == "TimeDistributed":
            if not found.every_step or found.pooling is not None:
                raise layer.fail("a layer before it that returns sequences", layer.kind)
            dense = inner_layer(layer)
            if dense.kind != "Dense":
                raise layer.fail("a Dense layer in it", dense.kind)
            dense = KerasLayer(dense.kind, layer.name, dense.config, layer.arrays)
        _read_head(found, dense)
    elif layer.kind in ("Activation", "Softmax") and found.head is not None and found.activation == "linear":
        layer.check_arrays(0)
        found.activation = "softmax" if layer.kind == "Softmax" else _activation(layer, "linear")
        _check_head_activation(layer, found.activation)
    elif layer.kind in ("Normalization", "Rescaling") and found.head is not None and "y" not in found.scaling:
        found.scaling["y"] = layer
    elif layer.kind == "Dense":
        raise layer.fail("one Dense layer, the head; crnn has no hidden ones", "another one")
    else:
        raise layer.fail("pooling, then one Dense layer and its activation, after the recurrent layers", layer.kind)


def _read_head(found: Found, layer: KerasLayer) -> None:
    biased = layer.option("use_bias", len(layer.arrays) != 1)
    layer.check_arrays(2 if biased else 1)
    outputs = sum(len(each["W_hh"]) for each in found.layers[-1])
    if found.pooling == "flatten" and len(layer.arrays[0]) % outputs:
        raise layer.fail(f"a kernel of a multiple of {outputs} rows, those of a step", layer.arrays[0].shape)
    rows = None if found.pooling == "flatten" else outputs
    weights = _shaped(layer, layer.arrays[0], rows, layer.config.get("units"))
    bias = _shaped(layer, layer.arrays[1], weights.shape[1]) if biased else np.zeros(weights.shape[1], weights.dtype)
    found.head, found.activation = (weights, bias), _activation(layer, "linear")
    _check_head_activation(layer, found.activation)


def _check_head_activation(layer: KerasLayer, activation: str) -> None:
    if activation not in ACTIVATIONS:
        hint = "; crnn has no hidden Dense layers" if activation in ("relu", "tanh") else ""
        raise layer.fail(f"activation {', '.join(map(repr, ACTIVATIONS))}, as of a head{hint}", activation)


# ---- the model -------------------------------------------------------------------------------------------------------


def model_of(layers: Sequence[KerasLayer], request: Request) -> Any:
    """The crnn model of the layers. Raises TypeError and ValueError."""
    found = read_chain(layers)
    if found.head is not None and not found.every_step:
        found.pooling = "last"
    kind = request.kind or _kind(found, request)
    options = dict(request.options)
    _check_mask(found, request.ignore_mask)
    options |= _dropout(found, options)
    if kind != "RNN" and found.head is None:
        raise ValueError(f"kind: expected 'RNN' for layers without a Dense head, got {kind!r}")
    if kind == "RNN" and found.head is not None:
        raise ValueError("kind: expected a model with a head, as the layers have, got 'RNN'")
    if request.vocab is not None and "vocab" not in KINDS[kind].attachments:
        raise ValueError(f"vocab: expected none for a {kind}, got one")
    _as_kind(kind, found, options, request)
    unknown = sorted(set(options) - set(KINDS[kind].config_types))
    if unknown:
        raise TypeError(f"{kind}: unexpected argument {unknown[0]!r}")
    if "scale" in KINDS[kind].config_types and not found.scaling:
        options.setdefault("scale", False)  # otherwise the next `fit` would standardise data under these weights
    arrays = [array for directions in found.layers for each in directions for array in each.values()]
    arrays += [array for array in (found.embedding, *(found.head or ())) if array is not None]
    dtype = np.result_type(*arrays)
    head = None if found.head is None else (found.head[0].astype(dtype), found.head[1].astype(dtype))
    return model_from(
        kind,
        found.cell,
        [tuple({name: a.astype(dtype) for name, a in each.items()} for each in of) for of in found.layers],
        embedding=None if found.embedding is None else found.embedding.astype(dtype),
        head=head,
        vocab=request.vocab,
        scaling=_scalings(found, kind, options),
        **options,
    )


def _kind(found: Found, request: Request) -> str:
    """The kind of model that the layers suggest."""
    named = any(request.options.get(name) is not None for name in ("classes", "num_classes", "multilabel"))
    vocab = request.vocab
    if vocab is not None and not named and found.head is not None and found.head[0].shape[1] == len(vocab):
        return "LanguageModel"
    if found.head is None:
        return "RNN"
    if found.activation != "linear" or named or request.logits:
        return "SequenceTagger" if found.pooling is None else "SequenceClassifier"
    return "SequenceRegressor"


def _as_kind(kind: str, found: Found, options: dict[str, Any], request: Request) -> None:
    """Set what the head says in the options of this kind, and the head as the kind has it."""
    if found.head is None:
        return
    outputs = found.head[0].shape[1]
    activation = request.logits or found.activation if found.activation == "linear" else found.activation
    if kind == "LanguageModel":
        if request.vocab is None:
            raise ValueError("vocab: expected the vocabulary of a language model, got none")
        if found.pooling not in (None, "last"):
            raise ValueError(f"kind: expected a model without pooling for a LanguageModel, got {found.pooling!r}")
        if activation == "sigmoid":
            raise ValueError("vocab: expected none for a head with a sigmoid activation")
        if options.get("tie_weights"):
            tied = found.embedding is not None and np.array_equal(found.head[0], found.embedding.T)
            if not tied:
                raise ValueError("tie_weights: expected a head that is the transposed embedding, got another one")
        return
    if kind == "SequenceRegressor":
        if activation != "linear":
            raise ValueError(f"kind: expected a linear head for a SequenceRegressor, got {activation!r}")
        levels = len(options.get("quantiles") or (0.1, 0.5, 0.9)) if options.get("loss") == "quantile" else 1
        if outputs % levels:
            raise ValueError(f"quantiles: expected a divisor of the head's {outputs} outputs, got {levels}")
        options["output_size"] = outputs // levels
        options.setdefault("quantiles", [0.1, 0.5, 0.9])
    else:
        _as_classes(found, options, outputs, activation)
    if kind != "SequenceTagger":
        options["pooling"] = found.pooling
        if kind == "SequenceClassifier" and found.pooling is None:
            raise ValueError("kind: expected 'SequenceTagger' for layers that return sequences without pooling")
        if found.pooling == "flatten":
            options["steps"] = len(found.head[0]) // sum(len(each["W_hh"]) for each in found.layers[-1])
    elif found.pooling is not None:
        raise ValueError("kind: expected 'SequenceClassifier' for layers that return one vector, got 'SequenceTagger'")


def _as_classes(found: Found, options: dict[str, Any], outputs: int, activation: str) -> None:
    """Set num_classes and multilabel. A sigmoid of one output becomes two classes if they are named, or counted."""
    assert found.head is not None
    classes, given = options.get("classes"), options.get("num_classes")
    wanted = len(classes) if classes is not None else given
    if activation == "sigmoid" and outputs == 1 and wanted == 2 and not options.get("multilabel"):
        # softmax of (0, a) is (1 - sigmoid(a), sigmoid(a))
        W, b = (np.concatenate([np.zeros_like(each), each], axis=-1) for each in found.head)
        found.head = W, b
        outputs, activation = 2, "softmax"
    for name, number in (("classes", wanted), ("num_classes", given)):
        if number not in (None, outputs):
            raise ValueError(f"{name}: expected {outputs}, as many as the head has outputs, got {number}")
    options["num_classes"] = outputs
    multilabel = {"softmax": False, "sigmoid": True}.get(activation, bool(options.get("multilabel")))
    if bool(options.get("multilabel", multilabel)) != multilabel:
        raise ValueError(f"multilabel: expected {multilabel}, as the activation {activation!r} says")
    options["multilabel"] = multilabel


def _check_mask(found: Found, ignore_mask: bool) -> None:
    """Raise ValueError if steps that Keras masks would change what is pooled."""
    if not found.masked or ignore_mask or found.pooling_layer is None:
        return
    if found.pooling != "mean":
        raise found.pooling_layer.fail(
            "pooling that leaves masked steps out, as GlobalAveragePooling1D; pass ignore_mask=True to convert the"
            " model for sequences without padding",
            found.pooling_layer.kind,
        )


def _dropout(found: Found, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of dropout, unless they are given."""
    options: dict[str, Any] = {}
    if "dropout" not in given:
        L = len(found.layers)
        gaps = [found.drops[i] if i < len(found.drops) else [] for i in range(L + 1)]
        inside = gaps[1:] if found.head is not None else gaps[1:L]
        used = {drop for gap in gaps for drop in gap}
        single = found.pooling is not None  # the head reads one vector: the form of the mask does not matter
        forms = {drop for gap in (inside[:-1] if single else inside) for drop in gap}
        same = len({rate for rate, _ in used}) == 1 and len({form for _, form in forms}) <= 1
        outside = bool(gaps[0]) or (found.head is None and bool(gaps[L]))
        if used and (found.unlike or outside or not same or any(len(gap) != 1 for gap in inside)):
            rates = sorted({str(rate) for rate, _ in used})
            raise ValueError(
                f"dropout: expected one rate between all layers and before the head, as crnn has, got {rates} in other"
                " places or of another kind; pass dropout= for the rate to train with, such as 0"
            )
        if used:
            options["dropout"] = used.pop()[0]
            options["variational_dropout"] = bool(forms) and forms.pop()[1]
    if "recurrent_dropout" not in given:
        if len(found.recurrent_drops) > 1:
            raise ValueError(
                f"recurrent_dropout: expected the same in all layers, got {sorted(found.recurrent_drops)}; pass"
                " recurrent_dropout= for the rate to train with"
            )
        options["recurrent_dropout"] = found.recurrent_drops.pop() if found.recurrent_drops else 0.0
    return options


def _scalings(found: Found, kind: str, options: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
    """Mean and standard deviation of inputs and targets."""
    scaling: dict[str, tuple[Array, Array]] = {}
    for name, layer in found.scaling.items():
        if kind in ("RNN", "LanguageModel") or (name == "y" and kind != "SequenceRegressor"):
            raise layer.fail(f"no such layer in a {kind}, which does not scale {name}", layer.kind)
        if name == "x":
            size = len(found.layers[0][0]["W_xh"])
        else:
            assert found.head is not None
            size = found.head[1].size
        mean, std = statistics(layer, size, invert=name == "y", single=name == "y" and found.pooling is not None)
        if name == "y":
            P = options["output_size"]  # the outputs are those of the first quantile, then of the next, and so on
            for values in (mean, std):
                if not (values.reshape(-1, P) == values[:P]).all():
                    raise layer.fail("the same for all quantiles of a target", values.tolist())
            mean, std = mean[:P].copy(), std[:P].copy()
        scaling[name] = mean, std
    return scaling
