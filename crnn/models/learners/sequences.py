# SPDX-License-Identifier: MIT
"""ClassLearner and ValueLearner: classifiers, taggers and regressors that learn from a stream."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from crnn._core.arrays import take_row
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.array_input import as_array, check_finite, in_precision, is_finite, items, real_numbers
from crnn.checks import Array
from crnn.models.learners.readout import HeadReadout
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.learning.learner import Learner
from crnn.nn.learning.network import network_inputs, number_rows

__all__ = ["ClassLearner", "SequenceLearner", "ValueLearner", "learner_of"]

LARGE = 3e38  # of what any dtype can hold


class SequenceLearner(Learner):
    """What `ClassLearner` and `ValueLearner` have in common: an output for every step, of what was read so far."""

    def _network(self) -> Any:
        return self._module.net

    def _new_readout(self) -> HeadReadout:
        parameters = self._module._parameters
        return HeadReadout(parameters.values, parameters.grads, self._module._head.loss)

    def _inputs(self, x: Any) -> Array:
        if not self._ids and take_row(self._row, x, *self._x_scaling):
            return self._row
        model, streams = self._module, self.config.streams
        size, dtype = model.net.input_size, model.dtype
        array = as_array("x", x)
        if self._ids or not model.scale or (array.dtype.kind in "iu" and array.ndim == (streams > 1)):
            return network_inputs(array, streams, size, dtype, self._ids)
        rows = number_rows("x", real_numbers("x", array), streams, size, "float64")
        with np.errstate(over="ignore"):
            scaled = model.scalings["x"].apply(rows, dtype)
        if not is_finite(scaled):
            raise ValueError(f"x: expected numbers that {dtype} can hold once scaled, got {rows[np.isinf(scaled)][0]}")
        return np.ascontiguousarray(scaled)

    @cached_property
    def _x_scaling(self) -> tuple[Array | None, Array | None]:
        """Mean and std of inputs."""
        return _scaling(self._module, "x")

    @cached_property
    def _stream_dtype(self) -> str:
        """The dtype of what the model's streams return."""
        dtype: str = self._module._weights_for_streams().io_dtype
        return dtype

    def _predictions(self, outputs: Array) -> Array:
        return outputs.astype(self._stream_dtype)  # a copy

class ClassLearner(SequenceLearner):
    """A `SequenceTagger`, or a `SequenceClassifier` with pooling "last", that learns from a stream. See `Learner`.

    `predict` returns logits (V,), of which `probabilities` and `labels` make what the model's methods return. `learn`
    takes the class of the step: its number or name; -1 or None = unlabelled. With ``multilabel`` numbers (V,): 1 for
    each class that applies, NaN = unlabelled. With several streams it takes a list of these. Losses are in nats, with
    the model's ``class_weight`` and ``label_smoothing``.

    A classifier learns, at every step that has a target, the class of the sequence so far; `reset` begins another.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> model = crnn.SequenceTagger(2, classes=["falls", "rises"], hidden_size=8, seed=0)
    >>> learner, before = model.learner(lr=1e-2, bptt=8), 0.0
    >>> for value in np.sin(np.arange(2000) / 3):
    ...     logits = learner.predict([value, value - before])
    ...     loss, truth = learner.learn("rises" if value > before else "falls"), value > before
    ...     before = value
    >>> learner.labels(logits) == ("rises" if truth else "falls"), loss < 0.2
    (True, True)
    """

    def _targets(self, y: Any) -> Array:
        number = self._numbers.get(y) if type(y) is str or type(y) is int else None
        if number is not None and not self._several:
            self._target_row[0, 0] = number
            return self._target_row
        streams, model = self.config.streams, self._module
        labels = self._entries(y)
        encoded = model._targets.encode("y", labels, [np.zeros(1)] * streams, True)
        stacked = np.stack(encoded, axis=1)  # (1, B), or (1, B, V)
        return stacked if model.multilabel else stacked.astype(np.int32, copy=False)

    @cached_property
    def _numbers(self) -> dict[str | int, int]:
        """The number of each class, by its name if it has one; none for what needs another look."""
        model = self._module
        names: list[Any] = list(range(model.num_classes)) if model.classes is None else model.classes
        plain = not model.multilabel and all(type(name) in (str, int) for name in names)
        return {name: number for number, name in enumerate(names)} if plain else {}

    def _entries(self, y: Any) -> list[Any]:
        """The target of each stream, NaN for None: -1 may be the name of a class."""
        streams, model = self.config.streams, self._module
        if streams == 1 or y is None:
            entries = [y] * streams
        else:
            entries = list(items("y", y, f"a list of {streams} targets, one of each stream"))
        if len(entries) != streams:
            raise ValueError(f"y: expected {streams} targets, one of each stream, got {len(entries)}")
        missing = np.full(model.num_classes, np.nan) if model.multilabel else np.nan
        return [missing if entry is None else entry for entry in entries]

    def probabilities(self, logits: Any) -> Array:
        """Probabilities of the classes, of logits (V,) or (B, V) that `predict` has returned; fresh."""
        rows = self._rows(logits)
        p: Array = self._module._targets.probabilities(rows)
        return p.reshape(np.shape(logits))

    def labels(self, logits: Any) -> Any:
        """The most probable class of logits (V,), or of each row of logits (B, V); with ``multilabel`` bool (V,) or
        (B, V)."""
        found = self._module._targets.labels(self._rows(logits))
        return found[0] if np.ndim(logits) == 1 else found

    def _rows(self, logits: Any) -> Array:
        rows = real_numbers("logits", logits)
        if rows.ndim not in (1, 2) or rows.shape[-1] != self._module.num_classes:
            expected = f"({self._module.num_classes},) or (B, {self._module.num_classes})"
            raise ValueError(f"logits: expected shape {expected}, got {rows.shape}")
        rows = in_precision("logits", rows, self._module.dtype)
        check_finite("logits", rows)
        return np.array(rows.reshape(-1, rows.shape[-1]), order="C")


class ValueLearner(SequenceLearner):
    """A `SequenceRegressor` with pooling None or "last" that learns from a stream. See `Learner`.

    `predict` returns values (P,) in the units of the targets, as a stream of the model does; quantiles are in blocks of
    the targets' columns, one block for each level. `learn` takes a number if P is 1, or numbers (P,); with several
    streams (B, P), or (B,). NaN or None = missing. The loss is that of standardised targets. Mean and standard
    deviation of a model with ``scale`` are those that it has been fitted with, and do not change.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> model = crnn.SequenceRegressor(1, 1, hidden_size=16, seed=0)
    >>> learner, errors = model.learner(lr=1e-2, bptt=16), []
    >>> series = np.sin(np.arange(3000) / 5)
    >>> for value, following in zip(series, series[1:]):
    ...     prediction = learner.predict([value])
    ...     errors.append(abs(prediction[0] - following))
    ...     loss = learner.learn(following)
    >>> bool(np.mean(errors[-100:]) < np.mean(errors[:100]) / 10)
    True
    """

    def _targets(self, y: Any) -> Array:
        mean, std = self._y_scaling
        if isinstance(y, float | np.floating) and not self._several and self._target_row.size == 1:
            value = (float(y) - self._y_first[0]) / self._y_first[1]
            if -LARGE < value < LARGE:
                self._target_row[0, 0, 0] = value
                return self._target_row
        if take_row(self._target_row, y, mean, std, True, True):
            return self._target_row
        targets, streams = self._module._targets, self.config.streams
        P: int = targets.size
        shape = (P,) if streams == 1 else (streams, P)
        values = np.full(shape, np.nan) if y is None else real_numbers("y", y)
        if values.dtype.kind == "b":
            raise TypeError("y: expected numbers, got bool")
        if values.shape != shape and not (P == 1 and values.shape == shape[:-1]):
            raise ValueError(f"y: expected shape {shape}, got {values.shape}")
        values = np.asarray(values, np.float64).reshape(1, streams, P)
        with np.errstate(over="ignore"):
            scaled: Array = targets.standardizer.apply(values, self._module.dtype)
        if not is_finite(scaled) and np.isinf(scaled).any():
            raise ValueError(
                f"y: expected numbers that {self._module.dtype} can hold once scaled, or NaN for none, got "
                f"{values[np.isinf(scaled)][0]}"
            )
        return scaled

    @cached_property
    def _y_scaling(self) -> tuple[Array | None, Array | None]:
        """Mean and std of targets."""
        return _scaling(self._module, "y")

    @cached_property
    def _y_tiled(self) -> tuple[Array, Array]:
        """Mean and std of each output."""
        scaling, levels = self._module.scalings["y"], len(self._module._targets.loss.levels)
        return np.tile(scaling.mean, levels), np.tile(scaling.std, levels)

    @cached_property
    def _y_first(self) -> tuple[float, float]:
        """Mean and std of the first target."""
        scaling = self._module.scalings["y"]
        return float(scaling.mean[0]), float(scaling.std[0])

    @cached_property
    def _scales(self) -> bool:
        """Whether targets are standardised."""
        scales: bool = self._module.scale
        return scales

    def _predictions(self, outputs: Array) -> Array:
        if not self._scales:
            return super()._predictions(outputs)
        # as `Standardizer.undo` does, for all levels of quantiles at once
        values: Array
        if outputs.size == 1:  # the same two roundings, of one number
            values = np.empty((1, 1))
            values[0, 0] = float(outputs[0, 0]) * self._y_first[1] + self._y_first[0]
            return values
        mean, std = self._y_tiled  # float64
        values = outputs * std
        values += mean
        return values


def _scaling(model: Any, name: str) -> tuple[Array | None, Array | None]:
    """Mean and std of what is standardised; None for what changes nothing."""
    scaling = model.scalings[name]
    if scaling.is_identity:
        return None, None
    return np.ascontiguousarray(scaling.mean), np.ascontiguousarray(scaling.std)


def learner_of(model: Any, config: LearnerConfig, kind: type[SequenceLearner]) -> SequenceLearner:
    """The learner of a sequence model. Raises ValueError for one that has no output at every step."""
    if model.pooling not in (None, "last"):
        raise ValueError(
            f"learner: expected pooling None or 'last', got {model.pooling!r}, whose gradient needs whole sequences"
        )
    return kind(model, config, ids=model.vocab is not None or model.net.embedding_size is not None)


for _kind in (SequenceLearner, ClassLearner, ValueLearner):
    public_methods_in_ieee_mode(_kind)
