# SPDX-License-Identifier: MIT
"""Files of AIDA-X, a plug-in, and back: those of RTNeural with a skip connection and a gain.

    {"in_skip": 1, "out_gain": dB, "in_shape": ..., "layers": ...}        see rtneural.py

    output = in_skip * input + 10 ** (out_gain / 20) * (output of the layers)

Source: src/aidadsp-plugin.cpp: applyModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crnn._float_mode import in_ieee_mode
from crnn.checks import as_number
from crnn.interop import json_file, rtneural
from crnn.interop.audio import AudioModel, audio_model
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import check_finite
from crnn.models.regressor import SequenceRegressor

KNOWN = {"in_shape", "layers", "in_skip", "out_gain", "in_gain", "samplerate"}
LOUDEST = 200  # dB


@in_ieee_mode
def load(path: PathLike, *, dtype: str = "float32") -> AudioModel:
    """Read a file of AIDA-X.

    Parameters
    ----------
    path : str or path
    dtype : {"float32", "float64"}
        Of the model; the file does not say.

    Returns
    -------
    AudioModel
        With the file's skip connection. The gain is multiplied into the head. ``sample_rate`` is the file's
        ``samplerate``; 48 kHz is usual. Other entries are ``metadata``.

    Raises
    ------
    ModelFileError
        As in `crnn.interop.rtneural.load`; or the file's outputs are not values.
    OSError
        The file cannot be read.
    """
    return json_file.load(path, dtype, _model)


def _model(content: Mapping[str, Any], dtype: str) -> AudioModel:
    if content.get("in_gain"):
        raise ValueError(f"in_gain: expected 0, or none, got {content['in_gain']!r:.80}")
    skip, gain = content.get("in_skip", 0), as_number(content.get("out_gain", 0))
    if skip not in (0, 1):
        raise ValueError(f"in_skip: expected 0 or 1, got {skip!r:.80}")
    if gain is None or not abs(gain) <= LOUDEST:
        raise ValueError(f"out_gain: expected at most {LOUDEST} dB, got {content['out_gain']!r:.80}")
    model = rtneural.model_of(content, dtype)
    if not isinstance(model, SequenceRegressor):
        raise ValueError("layers: expected a dense layer without activation at the end")
    if gain:
        for name in ("W_hy", "b_y"):
            with np.errstate(over="ignore"):
                values = model._parameters.values[name]
                values[...] = values.astype(np.float64) * 10 ** (gain / 20)
        check_finite(model._parameters.values)
    rate = content.get("samplerate")
    rate = float(rate) if isinstance(rate, str) and rate.replace(".", "", 1).isdecimal() else rate
    return AudioModel(model, rate, int(skip), {key: content[key] for key in content if key not in KNOWN})


def save(
    model: Any,
    path: PathLike,
    *,
    skip: int | None = None,
    sample_rate: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a file of AIDA-X, atomically.

    Parameters
    ----------
    model : AudioModel, or SequenceRegressor with ``pooling=None``
        Of cell "lstm" or "gru", with one input and one output. Scaling is multiplied into the weights. AIDA-X runs only
        sizes that it was compiled with, such as one LSTM layer of 16.
    path : str or path
    skip : {0, 1}, optional
        Whether the input is added to the output; that of an AudioModel if not given, otherwise 0.
    sample_rate, metadata : optional
        Those of an AudioModel if not given.

    Raises
    ------
    TypeError, ValueError
        As in `crnn.interop.rtneural.save`. An existing file is then unchanged.
    OSError
        The file cannot be written.
    """
    audio = audio_model(model, sample_rate, skip, metadata)
    sizes = {"input_size": audio.model.net.input_size, "output_size": audio.model.output_size}
    for name, value in sizes.items():
        if value != 1:
            raise ValueError(f"{name}: expected 1, which AIDA-X can express, got {value}")
    taken = sorted(KNOWN & set(audio.metadata))
    if taken:
        raise ValueError(f"metadata: expected no key that the file needs, got {taken[0]!r}")
    rate = {} if audio.sample_rate is None else {"samplerate": audio.sample_rate}
    entries = {"in_skip": audio.skip, "in_gain": 0, "out_gain": 0, **rate, **audio.metadata}
    json_file.write(path, entries | rtneural.content_of(audio.model))
