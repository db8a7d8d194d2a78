# SPDX-License-Identifier: MIT
"""SequenceRegressor: real values for every sequence or for every step, and forecasts from fed-back predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from crnn._options import takes_options
from crnn.array_input import items
from crnn.checks import Array, as_number, check_size
from crnn.models.fitting.built import Built, compose
from crnn.models.fitting.estimator import ESTIMATING, ModelOptions
from crnn.models.fitting.from_data import input_size_of, inputs_from, missing_inputs, target_size_of, windows_of
from crnn.models.fitting.weighting import of_rows
from crnn.models.inputs.data import Series, by_length, by_rows, is_one_series
from crnn.models.inputs.held_out import STEPS, is_auto
from crnn.models.inputs.standardizer import Standardizer
from crnn.models.inputs.text_inputs import is_learnt, optional_vocab, size_of
from crnn.models.learners.sequences import ValueLearner, learner_of
from crnn.models.observations import VALUES
from crnn.models.outputs.losses import Regression
from crnn.models.outputs.metrics import RegressionEvaluation, r_squared
from crnn.models.outputs.targets import ValueTargets
from crnn.models.sequence_model import POOLING_TYPES, SCALE_TYPES, SequenceModel, model_json_types
from crnn.nn.config import NetworkConfig, config_from
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.module import JsonTypes
from crnn.stream import StreamBatch, StreamWeights
from crnn.text.vocab import Vocab

FORECAST_BATCH = 256  # series that `forecast` reads at a time
VALUE_TYPES: JsonTypes = {  # the options that SequenceRegressor adds, with the types that a file may hold
    "output_size": (int, type(None)),
    "loss": (str,),
    "delta": (float, int),
    "quantiles": (list,),
}


class SequenceRegressor(
    SequenceModel[RegressionEvaluation],
    kind="SequenceRegressor",
    config_types=model_json_types(SCALE_TYPES, POOLING_TYPES, VALUE_TYPES),
    attachments={"vocab": optional_vocab},
):
    """Predicts real values for every sequence, or with ``pooling=None`` for every step.

    Conventions
    -----------
    X is as in `crnn.models.sequence_model.SequenceModel`. y is (N, P), or with ``pooling=None`` a list of arrays
    (T_i, P) or one array (N, T, P); the last axis may be left out if P is 1. NaN = missing. Targets are standardised as
    inputs are; predictions are in the units of the targets.

    To forecast, train with ``pooling=None`` and ``y=None``: the target of each step is then the input of the next step.
    `forecast` continues a series by feeding predictions back as inputs. A lone series, an array (T, D), or
    (T,) if D is 1, or a list of one, is cut into overlapping windows: each has an eighth of its steps, but at least 16
    and at most 128, and the next one starts a quarter of a window later. A share ``valid=`` is then the end of the
    series, by default a fifth of it if it is long enough. For other windows pass them as a list.

    Parameters
    ----------
    input_size : int, optional
        D: size of the input at each step, or the number of ids. If not given, `fit` takes it from X, whose integers are
        then numbers, or with ``embedding_size`` ids.
    output_size : int, optional
        P. If not given, `fit` takes it from y. Targets (N,) then have predictions (N,).
    hidden_size, num_layers, cell, seed
        As in `RNN`.
    vocab : Vocab or {"char", "byte", "word"}, optional
        For texts as X; as in `SequenceClassifier`.
    loss : {"mse", "mae", "huber", "quantile"}
        Loss of standardised targets, see `crnn.models.outputs.losses.Regression`.
    delta : float
        Error beyond which Huber's loss is linear, in standardised units.
    quantiles : sequence of float
        Levels Q for the "quantile" loss; predictions then have a last axis (Q,).
    pooling : {"last", "mean", "max", "flatten"} or None
        How the outputs of the steps become the input of the head, see `crnn.models.outputs.pooling`. None: values for
        every step. "flatten" has no streams.
    steps : int, optional
        Length of all sequences; needed for "flatten" only.
    scale : bool
        Standardise real inputs and targets by the training data.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> wave = np.sin(np.arange(400) / 5)[:, None]
    >>> model = crnn.SequenceRegressor(1, 1, hidden_size=16, pooling=None, seed=0)
    >>> ahead = model.fit(wave).forecast(wave, 5)
    >>> bool(np.abs(ahead[:, 0] - np.sin(np.arange(400, 405) / 5)).max() < 0.1)
    True
    """

    _estimator_type = "regressor"
    loss_unit: str = ""
    observed = VALUES
    output_size: int  # P
    flat: bool  # with pooling: targets and predictions have no axis of P values, of which there is one
    loss: str
    delta: float
    quantiles: list[float]
    _targets: ValueTargets

    def __init__(
        self,
        input_size: int | None = None,
        output_size: int | None = None,
        hidden_size: int | Sequence[int] = 64,
        num_layers: int | None = None,
        cell: str = "gru",
        *,
        vocab: Vocab | str | None = None,
        loss: str = "mse",
        delta: float = 1.0,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        pooling: str | None = "last",
        steps: int | None = None,
        scale: bool = True,
        seed: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        self._begin(locals())

    def _build(self, arguments: Mapping[str, Any]) -> Built:
        vocab, given = arguments["vocab"], arguments["output_size"]
        config = config_from(arguments, input_size=size_of("input_size", arguments["input_size"], "vocab", vocab))
        size = check_size("output_size", 1 if given is None else given)
        loss = Regression(arguments["loss"], size, delta=arguments["delta"], quantiles=arguments["quantiles"])
        scalings = {"x": Standardizer(config.input_size), "y": Standardizer(size)}
        return compose(
            config,
            loss,
            ValueTargets(loss, scalings["y"], config.input_size, config.dtype),
            scalings,
            **{name: arguments[name] for name in ("pooling", "steps", "scale", "seed")},
            vocab=vocab,
            own={"output_size": size, "flat": given is None and arguments["pooling"] is not None}
            | {"loss": loss.kind, "delta": loss.delta, "quantiles": loss.quantiles},
        )

    def _arguments_from(self, arguments: Mapping[str, Any], X: Any, y: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if is_learnt(arguments["vocab"]):
            found = inputs_from(arguments, X)
        elif missing_inputs(arguments):
            found["input_size"] = _input_size_of(X, y, ids=arguments["embedding_size"] is not None)
        if arguments["output_size"] is None:
            size = found.get("input_size", arguments["input_size"]) or 1
            found["output_size"] = target_size_of("y", y, size, single=arguments["pooling"] is not None)
        return found

    def _check_weighable(self, X: Any, y: Any) -> None:
        series = items("X", X, "a list of arrays, or an array (N, T, D)") if y is None else None
        whole = isinstance(series, np.ndarray) and series.ndim < 3
        if series is not None and (whole or len(series) == 1 or is_one_series(series, 1)):
            raise ValueError("sample_weight: expected None for a lone series, which fit cuts into windows")

    def _training_sequences(self, X: Any, y: Any, valid: Any) -> tuple[Any, Any, Series | None]:
        """A lone series to learn forecasting from, cut into windows; its end is the share ``valid`` of it."""
        if y is not None:
            return X, valid, None
        D = self.net.input_size
        X = items("X", X, "an array (T, D), or a list of arrays")
        X = [X] if is_one_series(X, D) else X
        if len(X) != 1 or self.output_size != D or self.pooling is not None:
            return X, valid, None
        series = self._sequences("X", X)[0]
        known = len(series)
        if is_auto(valid):
            valid = STEPS.share if len(series) >= STEPS.least else None
        share = as_number(valid)
        if share is not None and 0 < share < 1:
            steps = round(share * len(series))
            if not 1 < steps < len(series) - 1:
                raise ValueError(
                    f"valid: expected a share of {len(series)} steps that leaves two on both sides, got {valid!r}"
                )
            known, valid = len(series) - steps, ([series[-steps:]], None)
        return windows_of(series[:known], None), valid, Series(series, known)

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the number of outputs of the head of a model with this `config`: P, or P*Q for quantiles."""
        return (config["output_size"] or 1) * (len(config["quantiles"]) if config["loss"] == "quantile" else 1)

    def config(self) -> dict[str, Any]:
        return super().config() | ({"output_size": None} if self.flat else {})

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return super().scaled_sizes(config) | {"y": config["output_size"] or 1}

    def predict(self, X: Any, *, mask: Any = None, batch_size: int = 256, threads: int = 1) -> Any:
        """Values in the units of the targets, float64, fresh.

        Parameters
        ----------
        X : sequences, see the class
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`. Where it is False there is no prediction: NaN.
        batch_size : int
            Sequences that are computed at a time; does not change the result.
        threads : int

        Returns
        -------
        values : array (N, P)
            (N,) if ``output_size`` is not given and the targets were (N,). With ``pooling=None`` a list of arrays
            (T_i, P), or one array (N, T, P) if X is one. With the "quantile" loss there is a last axis (Q,).
        """
        return self._predict(X, self._values, batch_size, threads, mask)

    def _values(self, outputs: Array) -> Array:
        """Predictions (M, P), or (M,), of outputs (M, V); for quantiles with a last axis (Q,)."""
        values = self._targets.values(outputs)
        return values[:, 0] if self.flat else values

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, mask: Any = None) -> float:
        """The coefficient of determination R^2, of each target value; the mean of those of all P values.

        1 is the best; 0 is that of a constant prediction, the mean of the targets. With the "quantile" loss that of the
        quantile nearest to the median.

        Parameters
        ----------
        X : sequences, see the class
        y : targets, see the class
            Missing ones do not count.
        sample_weight : array (N,), optional
            Weights of the sequences; of steps also a list of arrays (T_i,), or an array (N, T).
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong, or no sequence with a weight above 0 has a target.
        """
        X, y = self._named("X", X), self._named_targets("y", y)
        if mask is not None:
            X, y, sample_weight, _ = self._without_masked(X, y, sample_weight, mask)
        x = self._sequences("X", X)
        targets = self._encode("y", y, x)
        weights = [np.ones(len(wanted)) for wanted in targets]
        if sample_weight is not None:
            weights = of_rows(sample_weight, targets, by_step=self.weighs_steps)
        predicted = by_rows(self._outputs(self._data(x, targets), 256, 1), self._targets.point_values)
        found = r_squared(*(np.concatenate(list(arrays)) for arrays in (targets, predicted, weights)))
        if np.isnan(found):
            raise ValueError("y: expected at least one target with a weight above 0, got none")
        return found

    def _new_learner(self, config: LearnerConfig) -> Any:
        return learner_of(self, config, ValueLearner)

    def forecast(self, series: Any, n: int) -> Array:
        """The next ``n`` steps of a series; each predicted step is fed back as the input of the next one.

        `crnn.Forecaster` also takes differences, finds seasons, reads other columns, and has bands.

        Parameters
        ----------
        series : array (T, D), or several series as a list or an array (N, T, D)
            A series may be (T,) if D is 1. Each is forecast independently.
        n : int

        Returns
        -------
        values : array (n, D), or (N, n, D) for several series
            In the units of the series, float64, fresh. With the "quantile" loss the quantile nearest to the median.

        Raises
        ------
        ValueError
            The model is bidirectional, has another number of outputs than of inputs, or pooling other than "last"; or
            the series are not real.
        """
        check_size("n", n)
        if self.net.bidirectional or self.output_size != self.net.input_size:
            raise ValueError(
                "forecast: expected a model that is not bidirectional and has as many outputs as inputs, got "
                f"bidirectional={self.net.bidirectional}, {self.output_size} outputs and {self.net.input_size} inputs"
            )
        if self.pooling not in (None, "last"):
            raise ValueError(f"forecast: expected pooling None or 'last', got {self.pooling!r}")
        series = items("series", self._named("series", series), "an array (T, D), or a list of arrays")
        single = is_one_series(series, self.net.input_size)
        x = self._sequences("series", [series] if single else series)
        if x[0].ndim != 2:
            raise ValueError("series: expected numbers, got ids")
        values = self._targets.point_values(self._forecast_outputs(x, n).reshape(len(x) * n, -1))
        values = values.reshape(len(x), n, -1)
        return values[0] if single else values

    def _forecast_outputs(self, x: list[Array], n: int) -> Array:
        """The head's outputs (N, n, V) for the n steps after each series (T_i, D), which is not standardised.

        All series are stepped together.
        """
        # The streams do not standardise, because their float32 inputs would be rounded before. It is done here.
        parts = self._predictor.stream_parts(type(self).__name__)
        streams = StreamBatch(StreamWeights(parts), len(x))
        outputs = np.empty((len(x), streams.output_size), self.dtype)
        no_targets = [np.zeros((1, self.output_size), self.dtype)] * len(x)
        data = self._data(x, no_targets)
        for chosen in by_length(data.lengths, FORECAST_BATCH):
            batch = data.inputs(chosen)
            after = self.net.last_state(batch.x, batch.lengths, 1)
            outputs[chosen] = self._head.apply(self.net.stack.last_output(after))
            streams.set_states(after.value, chosen)
        found = np.empty((len(x), n, streams.output_size), self.dtype)
        for step in range(n):
            found[:, step] = outputs
            if step < n - 1:
                fed_back = self._targets.point_values(outputs)
                streams.step(self.scalings["x"].apply(fed_back, self.dtype), out=outputs)
        return found


takes_options(NetworkConfig, ESTIMATING)(SequenceRegressor)


def _input_size_of(X: Any, y: Any, *, ids: bool) -> int:
    """D of sequences X, or without targets y of a lone series; with ``ids`` integers are ids, otherwise numbers."""
    series = items("X", X, "a list of arrays, or an array (N, T, D)")
    if y is None and isinstance(series, np.ndarray) and series.ndim < 3:  # one series
        if series.ndim == 2 and len(series) < series.shape[1]:
            raise ValueError(
                f"X: expected a series (T, D) of at least D steps, got shape {series.shape}; write x[:, :, None] if"
                f" it is {len(series)} series of one variable, or give input_size if it is one series"
            )
        return int(series.shape[1]) if series.ndim == 2 else 1
    if y is None and is_one_series(series, 1):
        return 1
    return input_size_of("X", series, ids=ids)
