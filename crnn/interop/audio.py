# SPDX-License-Identifier: MIT
"""AudioModel: a model of an amplifier or an effect, as plug-ins run it: one sample in, one sample out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crnn.array_input import real_numbers
from crnn.checks import Array, as_number
from crnn.models.regressor import SequenceRegressor


@dataclass(frozen=True)
class AudioModel:
    """A regressor, with what files of audio models hold besides the weights.

    Attributes
    ----------
    model : SequenceRegressor
        With ``pooling=None``, and not of quantiles. From the D columns of each sample to P columns; D is 1, or more if
        there are knobs.
    sample_rate : float or None
        Samples per second of the signals that it is for. None: the file does not say.
    skip : int
        How many of the first input columns are added to the outputs, as files with a skip connection want it: 0 or 1,
        or P. The model then predicts the difference between output and input; train it on that.
    metadata : mapping
        What else the file says, such as its name; it holds no weights.
    """

    model: SequenceRegressor
    sample_rate: float | None = None
    skip: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, SequenceRegressor):
            raise TypeError(f"model: expected a SequenceRegressor, got {type(self.model).__name__}")
        if self.model.deferred:
            raise ValueError("model: expected one with weights, got one that waits for fit")
        if self.model.pooling is not None or self.model.loss == "quantile":
            found = f"pooling={self.model.pooling!r} and loss={self.model.loss!r}"
            raise ValueError(f"model: expected pooling=None, one output for each sample, and no quantiles, got {found}")
        D, P = self.model.net.input_size, self.model.output_size
        if type(self.skip) is not int or self.skip not in {0, 1, P} or self.skip > D:
            raise ValueError(f"skip: expected 0, or 1 or {P} of {D} columns, got {self.skip!r:.80}")
        rate = as_number(self.sample_rate)
        if self.sample_rate is not None and (rate is None or not 0 < rate < float("inf")):
            raise ValueError(f"sample_rate: expected a number above 0, or None, got {self.sample_rate!r:.80}")
        object.__setattr__(self, "sample_rate", rate)

    def process(self, x: Any) -> Array:
        """The output for a signal, from the initial state.

        Parameters
        ----------
        x : array (T,), or (T, D)

        Returns
        -------
        array (T,), or (T, P) if P is not 1
            Fresh, float64; bit-identical to the steps of a `stream`.
        """
        signal = _signal(x, self.model.net.input_size)
        return _with_skip(self.model.predict([signal])[0], signal, self.skip)

    def stream(self) -> AudioStream:
        """Inference one sample at a time, from the initial state."""
        return AudioStream(self)


class AudioStream:
    """An `AudioModel`, one sample at a time. One thread at a time may use it."""

    def __init__(self, audio: AudioModel) -> None:
        self._stream = audio.model.stream()
        weights = self._stream.weights
        self._skip, self._size = audio.skip, audio.model.net.input_size
        self._x = np.zeros(self._size, weights.io_dtype)
        self._y = np.zeros(weights.output_size, weights.io_dtype)

    def step(self, x: Any) -> Any:
        """The output for one more sample.

        Parameters
        ----------
        x : float, or array (D,) if D is not 1

        Returns
        -------
        float, or array (P,) if P is not 1
        """
        if type(x) is not float:
            x = self._checked(x)
        elif self._size != 1:
            raise ValueError(f"x: expected shape ({self._size},), got a number")
        self._x[:] = x
        self._stream.step(self._x, self._y)
        added: Any = 0.0
        if self._skip:
            added = x if self._size == 1 else x[: self._skip]
        if len(self._y) > 1:
            return self._y.astype(np.float64) + added
        return float(self._y[0]) + (added if self._size == 1 or not self._skip else float(added[0]))

    def run(self, x: Any) -> Array:
        """The outputs for a block of samples, as `AudioModel.process` takes and returns them.

        The state is carried over to the next block.
        """
        signal = _signal(x, self._size)
        return _with_skip(self._stream.run(signal.astype(self._x.dtype)), signal, self._skip)

    def _checked(self, x: Any) -> Any:
        """A number, or an array (D,) in float64."""
        array = real_numbers("x", x)
        if array.shape != (self._size,) and not (self._size == 1 and array.ndim == 0):
            raise ValueError(f"x: expected shape ({self._size},), got {array.shape}")
        return float(array.reshape(())) if self._size == 1 else array.astype(np.float64)

    def reset(self) -> None:
        """Return to the initial state."""
        self._stream.reset()


def _signal(x: Any, size: int) -> Array:
    """Samples (T, D) of a signal."""
    signal = real_numbers("x", x)
    signal = signal[:, None] if signal.ndim == 1 and size == 1 else signal
    if signal.ndim != 2 or signal.shape[1] != size or not len(signal):
        raise ValueError(f"x: expected shape (T, {size}){' or (T,)' if size == 1 else ''}, got {signal.shape}")
    return signal


def _with_skip(values: Array, signal: Array, skip: int) -> Array:
    """Outputs (T, P), or (T,) if P is 1, of a model's values (T, P), in float64."""
    values = values.astype(np.float64)
    if skip:
        values = values + signal[:, :skip].astype(np.float64)
    return values[:, 0] if values.shape[1] == 1 else values


def audio_model(model: Any, sample_rate: Any, skip: Any, metadata: Any) -> AudioModel:
    """What a function that writes a file was given: an AudioModel, or a regressor and the rest, which override it."""
    if isinstance(model, AudioModel):
        sample_rate = model.sample_rate if sample_rate is None else sample_rate
        skip = model.skip if skip is None else skip
        metadata = model.metadata if metadata is None else metadata
        model = model.model
    metadata = {} if metadata is None else metadata
    try:
        json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: expected a mapping that JSON can hold, got {metadata!r:.80}: {error}") from None
    return AudioModel(model, sample_rate, 0 if skip is None else skip, metadata)

