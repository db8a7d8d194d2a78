# SPDX-License-Identifier: MIT
"""Files of GuitarML (Proteus, NeuralPi) and Automated-GuitarAmpModelling, and back.

    {"model_data": {"model": "SimpleRNN", "input_size": D, "skip": 1, "output_size": P, "unit_type": "LSTM",
                    "num_layers": L, "hidden_size": H, "bias_fl": true},
     "state_dict": {"rec.weight_ih_l0": [[...], ...], ..., "lin.weight": [[...]], "lin.bias": [...]}}

The arrays are PyTorch's. With ``skip`` the first input columns are added to the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crnn._float_mode import in_ieee_mode
from crnn.checks import Array
from crnn.interop import json_file
from crnn.interop.audio import AudioModel, audio_model
from crnn.interop.folding import folded
from crnn.interop.json_file import field, numbers, size
from crnn.interop.layouts import from_crnn, to_crnn
from crnn.interop.parts import Layer, model_from, parts_of
from crnn.io.atomic_write import PathLike

UNITS = {"LSTM": "lstm", "GRU": "gru", "RNN": "tanh"}
GATES = {"lstm": 4, "gru": 3, "tanh": 1}
KNOWN = {"model", "input_size", "skip", "output_size", "unit_type", "num_layers", "hidden_size", "bias_fl"}


@in_ieee_mode
def load(path: PathLike, *, dtype: str = "float32") -> AudioModel:
    """Read a JSON file of GuitarML.

    Parameters
    ----------
    path : str or path
    dtype : {"float32", "float64"}
        Of the model; the file does not say.

    Returns
    -------
    AudioModel
        With the file's ``skip``. Such files have no sample rate; 44.1 kHz is usual. What else is in ``model_data`` is
        ``metadata``.

    Raises
    ------
    ModelFileError
        The file is damaged, or of another model, such as the GatedConvNet. The message has the file's name and what was
        found.
    OSError
        The file cannot be read.
    """
    return json_file.load(path, dtype, _model)


def _model(content: Mapping[str, Any], dtype: str) -> AudioModel:
    data, tensors = field(content, "model_data", dict), field(content, "state_dict", dict)
    name = field(data, "model", str)
    if name != "SimpleRNN":
        raise ValueError(f"model: expected SimpleRNN, which crnn has, got {name!r:.80}")
    unit = field(data, "unit_type", str)
    if unit not in UNITS:
        raise ValueError(f"unit_type: expected {', '.join(UNITS)}, got {unit!r:.80}")
    D, H, L, P = (size(data, name) for name in ("input_size", "hidden_size", "num_layers", "output_size"))
    if len(tensors) < L:
        raise ValueError(f"num_layers: expected layers that the state_dict has, got {L} and {len(tensors)} tensors")
    biased = field(data, "bias_fl", bool, int)
    used: set[str] = set()

    def read(name: str, *shape: int) -> Array:
        used.add(name)
        return numbers(name, field(tensors, name, list), shape, dtype)

    cell = UNITS[unit]
    layers = [_layer(read, cell, layer, H if layer else D, H) for layer in range(L)]
    head = read("lin.weight", P, H).T, read("lin.bias", P) if biased else np.zeros(P, dtype)
    unused = sorted(set(tensors) - used)
    if unused:
        raise ValueError(f"state_dict: expected rec.weight_ih_l0 and so on, and no other, got {unused[0]!r:.80}")
    skip = int(field(data, "skip", int, bool))
    options: dict[str, Any] = {"output_size": P, "pooling": None, "scale": False}
    model = model_from("SequenceRegressor", cell, layers, head=head, **options)
    return AudioModel(model, data.get("samplerate"), skip, {key: data[key] for key in data if key not in KNOWN})


def _layer(read: Any, cell: str, layer: int, inputs: int, H: int) -> Layer:
    rows, suffix = GATES[cell] * H, f"_l{layer}"
    matrices = read("rec.weight_ih" + suffix, rows, inputs), read("rec.weight_hh" + suffix, rows, H)
    biases = read("rec.bias_ih" + suffix, rows), read("rec.bias_hh" + suffix, rows)
    return (to_crnn("torch", cell, *matrices, *biases, prefix=f"layer{layer}."),)


def save(
    model: Any, path: PathLike, *, skip: int | None = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a JSON file of GuitarML, atomically.

    Parameters
    ----------
    model : AudioModel, or SequenceRegressor with ``pooling=None``
        Of cell "lstm", "gru" or "tanh". Scaling is multiplied into the weights.
    path : str or path
    skip : int, optional
        How many of the first input columns are added to the outputs; that of an AudioModel if not given, otherwise 0.
    metadata : mapping, optional
        More entries of ``model_data``, which JSON can hold.

    Raises
    ------
    TypeError, ValueError
        GuitarML cannot express the model, or a value is NaN or infinite; the message names it. An existing file is then
        unchanged.
    OSError
        The file cannot be written.
    """
    audio = audio_model(model, None, skip, metadata)
    parts = parts_of(audio.model)
    parts.refuse("GuitarML", cell=tuple(UNITS.values()), bidirectional=False, embedding_size=None)
    parts.refuse("GuitarML", trainable_initial_state=False)
    if len(set(parts.network.hidden_sizes)) > 1:
        raise ValueError(f"hidden_size: expected one size for all layers, got {parts.network.hidden_size}")
    taken = sorted(KNOWN & set(audio.metadata))
    if taken:
        raise ValueError(f"metadata: expected no key that the file needs, got {taken[0]!r}")
    layers, head = folded("GuitarML", parts)
    assert head is not None  # of every regressor
    tensors: dict[str, Any] = {}
    for layer, (params,) in enumerate(layers):
        arrays = from_crnn("torch", parts.network.cell, params)
        for name, array in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), arrays, strict=True):
            assert array is not None  # both biases are in PyTorch's layout
            tensors[f"rec.{name}_l{layer}"] = array.tolist()
    tensors |= {"lin.weight": head[0].T.tolist(), "lin.bias": head[1].tolist()}
    data: dict[str, Any] = {"model": "SimpleRNN", "input_size": parts.network.input_size, "skip": audio.skip}
    data |= {"output_size": len(head[1]), "num_layers": len(layers), "hidden_size": parts.network.hidden_sizes[0]}
    data |= {"unit_type": next(unit for unit, cell in UNITS.items() if cell == parts.network.cell), "bias_fl": True}
    rate = {} if audio.sample_rate is None else {"samplerate": audio.sample_rate}
    json_file.write(path, {"model_data": data | rate | dict(audio.metadata), "state_dict": tensors})
