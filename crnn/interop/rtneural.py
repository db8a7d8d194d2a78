# SPDX-License-Identifier: MIT
"""Models as JSON files of RTNeural, a C++ library that runs networks in audio plug-ins, and back.

    {"in_shape": [null, null, D],
     "layers": [{"type": "lstm", "activation": "tanh", "shape": [null, null, H], "weights": [W_xh, W_hh, b_h]}, ...,
                {"type": "dense", "activation": "", "shape": [null, null, V], "weights": [W_hy, b_y]}]}

The arrays are Keras's: gates of an LSTM i, f, g, o; of a GRU z, r, n, with two rows of biases. Source:
RTNeural/model_loader.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crnn._float_mode import in_ieee_mode
from crnn.checks import Array
from crnn.interop import json_file
from crnn.interop.folding import folded
from crnn.interop.json_file import field, numbers, size
from crnn.interop.layouts import LAYOUTS, check_cell, from_crnn, to_crnn
from crnn.interop.parts import Layer, ModelParts, model_from, parts_of
from crnn.io.atomic_write import PathLike
from crnn.nn.cells import CELLS

FORMAT = "rtneural"
DENSE = ("dense", "time-distributed-dense")
# The activation of the head, by the model whose outputs it makes, and whether its classes are independent.
ACTIVATIONS = {
    "": ("SequenceRegressor", False),
    "softmax": ("SequenceTagger", False),
    "sigmoid": ("SequenceTagger", True),
}
AIDAX = ("in_skip", "in_gain", "out_gain")  # keys of AIDA-X, a plug-in: where they are not 0 its layers are not all


# ---- writing ---------------------------------------------------------------------------------------------------------


def save(model: Any, path: PathLike) -> None:
    """Write a model as RTNeural's JSON, atomically.

    Parameters
    ----------
    model : SequenceRegressor, SequenceTagger or RNN
        Of cell "lstm" or "gru", in one direction, with real inputs. A regressor without pooling, or with "last", which
        RTNeural computes at every step. A tagger becomes a head with softmax, or with ``multilabel`` with sigmoid, so
        that RTNeural returns probabilities. Scaling is multiplied into the weights. Names of classes and options of
        training are not part of such a file.
    path : str or path

    Raises
    ------
    TypeError, ValueError
        RTNeural cannot express the model, or a value is NaN or infinite; the message names it. An existing file is then
        unchanged.
    OSError
        The file cannot be written.
    """
    json_file.write(path, content_of(model))


def content_of(model: Any) -> dict[str, Any]:
    """What `save` writes. Raises TypeError and ValueError as it does."""
    parts = parts_of(model, "SequenceRegressor", "SequenceTagger", "RNN")
    check_cell(FORMAT, parts.network.cell)
    parts.refuse("RTNeural", bidirectional=False, embedding_size=None, trainable_initial_state=False)
    if "pooling" in parts.config:
        parts.refuse("RTNeural", pooling=(None, "last"), loss=("mse", "mae", "huber"))
    layers, head = folded("RTNeural", parts)
    written = [_recurrent(parts.network.cell, params) for (params,) in layers]
    if head is not None:
        written.append(_layer("dense", _activation(parts), [head[0], head[1]]))
    return {"in_shape": [None, None, parts.network.input_size], "layers": written}


def _recurrent(cell: str, params: Mapping[str, Array]) -> dict[str, Any]:
    W_xh, W_hh, b_h, recurrent = from_crnn(FORMAT, cell, params)
    bias = b_h.tolist() if recurrent is None else [b_h.tolist(), recurrent.tolist()]
    return _layer(cell, "tanh", [W_xh, W_hh], bias, len(W_hh))


def _layer(
    type: str, activation: str, arrays: list[Array], bias: list[Any] | None = None, units: int | None = None
) -> dict[str, Any]:
    weights = [array.tolist() for array in arrays] + ([] if bias is None else [bias])
    units = arrays[-1].shape[-1] if units is None else units
    return {"type": type, "activation": activation, "shape": [None, None, units], "weights": weights}


def _activation(parts: ModelParts) -> str:
    wanted = parts.kind, bool(parts.config.get("multilabel"))
    return next(name for name, meaning in ACTIVATIONS.items() if meaning == wanted)


# ---- reading ---------------------------------------------------------------------------------------------------------


@in_ieee_mode
def load(path: PathLike, *, dtype: str = "float32") -> Any:
    """Read a model from RTNeural's JSON.

    Parameters
    ----------
    path : str or path
    dtype : {"float32", "float64"}
        Of the model; the file does not say.

    Returns
    -------
    model : SequenceRegressor, SequenceTagger or RNN
        Recurrent layers and a dense one without activation are a regressor with ``pooling=None``; with softmax, or with
        sigmoid, which is ``multilabel``, a tagger; without a dense one they are an RNN.

    Raises
    ------
    ModelFileError
        The file is damaged, or has something that crnn cannot express, such as convolutions or several dense layers.
        The message has the file's name and what was found.
    OSError
        The file cannot be read.
    """
    return json_file.load(path, dtype, _model)


def _model(content: Mapping[str, Any], dtype: str) -> Any:
    for name in AIDAX:
        if content.get(name):
            raise ValueError(
                f"{name}: expected 0, or none, got {content[name]!r:.80}; crnn.interop.aidax reads such files"
            )
    return model_of(content, dtype)


def model_of(content: Mapping[str, Any], dtype: str) -> Any:
    """The model of the layers in a file. Raises ValueError as `load` does, without the file's name."""
    entries = field(content, "layers", list)
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"layers: expected a list of objects, got {entries!r:.80}")
    D = _last(content, "in_shape")
    types = [field(entry, "type", str) for entry in entries]
    count = next((i for i, type in enumerate(types) if type not in LAYOUTS[FORMAT].gates), len(types))
    if count == 0:
        raise ValueError(f"layers[0]: expected gru or lstm, got {types[0]!r:.80}")
    if len(set(types[:count])) > 1:
        raise ValueError("layers: expected recurrent layers of one type, got gru and lstm")
    layers, inputs = [], D
    for i in range(count):
        layers.append(_read_recurrent(f"layers[{i}]", types[i], entries[i], inputs, dtype))
        inputs = _last(entries[i], "shape")
    kind, options, head = _head(entries[count:], types[count:], count, inputs, dtype)
    return model_from(kind, types[0], layers, head=head, **options)


def _last(where: Mapping[str, Any], name: str) -> int:
    """The last of a list of sizes, of which the others are unknown."""
    sizes = field(where, name, list)
    return size({name: sizes[-1] if sizes else None}, name)


def _weights(where: str, entry: Mapping[str, Any], count: int) -> list[Any]:
    weights: list[Any] = field(entry, "weights", list)
    if len(weights) != count:
        raise ValueError(f"{where}: expected {count} arrays of weights, got {len(weights)}")
    return weights


def _read_recurrent(where: str, cell: str, entry: Mapping[str, Any], inputs: int, dtype: str) -> Layer:
    H, gates = _last(entry, "shape"), CELLS[cell].info.gates
    activation = entry.get("activation", "")
    if activation not in ("", "tanh"):
        raise ValueError(f"{where}.activation: expected tanh, got {activation!r:.80}")
    kernel, recurrent, bias = _weights(where, entry, 3)
    W_xh = numbers(f"{where}.weights[0]", kernel, (inputs, gates * H), dtype)
    W_hh = numbers(f"{where}.weights[1]", recurrent, (H, gates * H), dtype)
    two = cell in LAYOUTS[FORMAT].two_biases
    b = numbers(f"{where}.weights[2]", bias, (2, gates * H) if two else (gates * H,), dtype)
    biases = (b[0], b[1]) if two else (b, None)
    return (to_crnn(FORMAT, cell, W_xh, W_hh, *biases, prefix=where + "."),)


def _head(
    entries: list[Mapping[str, Any]], types: list[str], count: int, inputs: int, dtype: str
) -> tuple[str, dict[str, Any], tuple[Array, Array] | None]:
    """Kind and options of the model, and its head, from the layers after the recurrent ones."""
    if not entries:
        return "RNN", {}, None
    if types[0] not in DENSE:
        raise ValueError(f"layers[{count}]: expected dense after the recurrent layers, got {types[0]!r:.80}")
    activation = entries[0].get("activation", "")
    if len(entries) == 2 and types[1] == "activation" and activation == "":
        activation = entries[1].get("activation", "")
    elif len(entries) > 1:
        raise ValueError(f"layers[{count + 1}]: expected one dense layer and no other after it, got {types[1]!r:.80}")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"layers[{count}].activation: expected none, softmax or sigmoid, got {activation!r:.80}")
    V, where = _last(entries[0], "shape"), f"layers[{count}].weights"
    kernel, bias = _weights(f"layers[{count}]", entries[0], 2)
    head = numbers(f"{where}[0]", kernel, (inputs, V), dtype), numbers(f"{where}[1]", bias, (V,), dtype)
    kind, multilabel = ACTIVATIONS[activation]
    if kind == "SequenceRegressor":
        return kind, {"output_size": V, "pooling": None, "scale": False}, head
    return kind, {"num_classes": V, "multilabel": multilabel, "scale": False}, head
