# SPDX-License-Identifier: MIT
"""Files of Neural Amp Modeler (.nam) of architecture LSTM, and back.

    {"version": "0.5.4", "architecture": "LSTM", "config": {"input_size": 1, "hidden_size": H, "num_layers": L},
     "weights": [...], "sample_rate": 48000, "metadata": {...}}

``weights`` has for each layer the matrix (4H, D + H) of W_xh and W_hh side by side, rows i, f, g, o, then the bias
(4H,), h (H,) and c (H,) before the first sample; then the head's H weights and its bias. Sources:
docs/source/model-file.rst of neural-amp-modeler, NAM/lstm.cpp of NeuralAmpModelerCore.
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
from crnn.interop.layouts import check_cell, from_crnn, to_crnn
from crnn.interop.parts import model_from, parts_of
from crnn.io.atomic_write import PathLike

FORMAT = "nam"
VERSION = "0.5.4"  # of the files that are written
CONFIG = {"input_size", "hidden_size", "num_layers"}


@in_ieee_mode
def load(path: PathLike, *, dtype: str = "float32") -> AudioModel:
    """Read a .nam file.

    Parameters
    ----------
    path : str or path
    dtype : {"float32", "float64"}
        Of the model; the file does not say.

    Returns
    -------
    AudioModel
        Its model has ``trainable_initial_state`` if the file's initial state is not 0. ``sample_rate`` and ``metadata``
        are the file's; without a rate, 48 kHz is usual.

    Raises
    ------
    ModelFileError
        The file is damaged, or of another architecture, such as WaveNet. The message has the file's name and what was
        found.
    OSError
        The file cannot be read.

    Notes
    -----
    Plug-ins run such a model on half a second of silence before the first sample, so that it has settled.
    """
    return json_file.load(path, dtype, _model)


def _model(content: Mapping[str, Any], dtype: str) -> AudioModel:
    architecture = field(content, "architecture", str)
    if architecture != "LSTM":
        raise ValueError(f"architecture: expected LSTM, which crnn has, got {architecture!r:.80}")
    config = field(content, "config", dict)
    unknown = sorted(set(config) - CONFIG)
    if unknown:
        raise ValueError(f"config: expected {', '.join(sorted(CONFIG))} and no other, got {unknown[0]!r:.80}")
    D, H, L = (size(config, name) for name in ("input_size", "hidden_size", "num_layers"))
    per_layer = 4 * H * H + 4 * H + 2 * H
    count = 4 * H * (D + H * (L - 1)) + L * per_layer + H + 1
    values = numbers("weights", field(content, "weights", list), (count,), dtype)
    layers, position = [], 0
    for layer in range(L):
        inputs = H if layer else D
        end = position + 4 * H * inputs + per_layer
        layers.append(_layer(values[position:end], inputs, H))
        position = end
    head = values[position : position + H, None], values[position + H :]
    stateful = any(params["h0"].any() or params["c0"].any() for params in layers)
    kept = [(params if stateful else {name: params[name] for name in ("W_xh", "W_hh", "b_h")},) for params in layers]
    options: dict[str, Any] = {"output_size": 1, "pooling": None, "scale": False, "trainable_initial_state": stateful}
    model = model_from("SequenceRegressor", "lstm", kept, head=head, **options)
    rate = content.get("sample_rate")
    metadata = content.get("metadata")
    return AudioModel(model, rate, 0, {} if metadata is None else field(content, "metadata", dict))


def _layer(values: Array, inputs: int, H: int) -> dict[str, Array]:
    """The parameters of a layer, from its part of the weights."""
    width = 4 * H * (inputs + H)
    matrix, bias = values[:width].reshape(4 * H, inputs + H), values[width : width + 4 * H]
    params = to_crnn(FORMAT, "lstm", matrix[:, :inputs], matrix[:, inputs:], bias)
    return params | {"h0": values[width + 4 * H : width + 5 * H], "c0": values[width + 5 * H :]}


def save(
    model: Any, path: PathLike, *, sample_rate: float | None = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a .nam file, atomically.

    Parameters
    ----------
    model : AudioModel, or SequenceRegressor with ``pooling=None``
        Of cell "lstm", with one input and one output. Scaling is multiplied into the weights.
    path : str or path
    sample_rate : float, optional
        Samples per second; that of an AudioModel if not given.
    metadata : mapping, optional
        What JSON can hold, such as ``{"name": ..., "gear_type": "amp"}``.

    Raises
    ------
    TypeError, ValueError
        NAM cannot express the model, or a value is NaN or infinite; the message names it. An existing file is then
        unchanged.
    OSError
        The file cannot be written.
    """
    audio = audio_model(model, sample_rate, None, metadata)
    if audio.skip:
        raise ValueError(f"skip: expected 0, which NAM can express, got {audio.skip}")
    parts = parts_of(audio.model)
    check_cell(FORMAT, parts.network.cell)
    parts.refuse("NAM", bidirectional=False, embedding_size=None, input_size=1, output_size=1)
    if len(set(parts.network.hidden_sizes)) > 1:
        raise ValueError(f"hidden_size: expected one size for all layers, got {parts.network.hidden_size}")
    layers, head = folded("NAM", parts)
    assert head is not None  # of every regressor
    arrays: list[Array] = []
    for (params,) in layers:
        W_xh, W_hh, b_h, _ = from_crnn(FORMAT, "lstm", params)
        zeros = np.zeros(len(W_hh) // 4)
        arrays += [np.hstack([W_xh, W_hh]), b_h, params.get("h0", zeros), params.get("c0", zeros)]
    weights = [value for array in (*arrays, *head) for value in array.ravel().tolist()]
    H, L = parts.network.hidden_sizes[0], len(layers)
    content: dict[str, Any] = {"version": VERSION, "architecture": "LSTM"}
    content["config"] = {"input_size": 1, "hidden_size": H, "num_layers": L}
    content |= {"weights": weights, "metadata": dict(audio.metadata)}
    json_file.write(path, content | ({} if audio.sample_rate is None else {"sample_rate": audio.sample_rate}))
