# SPDX-License-Identifier: MIT
"""SequenceRegressor: values for every sequence, or for every step of it; and forecasts fed back on themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from crnn._options import takes_options
from crnn.checks import Array, check_size
from crnn.models.data import by_length
from crnn.models.losses import Regression
from crnn.models.metrics import RegressionEvaluation
from crnn.models.sequence_model import POOLING_TYPES, SCALE_TYPES, SequenceModel, model_json_types
from crnn.models.standardizer import Standardizer
from crnn.models.targets import ValueTargets
from crnn.nn.config import NetworkConfig, NetworkOptions, config_from
from crnn.stream import StreamBatch, StreamWeights

BATCH = 256  # series that `forecast` reads at a time
VALUE_TYPES = {  # options that a model of values adds, with the types a file may hold
    "output_size": (int,),
    "loss": (str,),
    "delta": (float, int),
    "quantiles": (list,),
}


class SequenceRegressor(
    SequenceModel[RegressionEvaluation],
    kind="SequenceRegressor",
    config_types=model_json_types(SCALE_TYPES, POOLING_TYPES, VALUE_TYPES),
):
    """Values for every sequence, or with ``pooling=None`` for every step of it. See
    `crnn.models.sequence_model.SequenceModel` for what X may be.

    y holds N rows of P values, or for each sequence (T_i, P); P may be left out where it is 1. NaN: no target there.
    Targets are standardised as inputs are, and predictions are in the targets' own units.

    To forecast, train with ``pooling=None`` and ``y=None``: every step's target is then the next step's input, and
    `forecast` continues a series from its end by feeding predictions back.

    Parameters
    ----------
    input_size : int
    output_size : int
        P.
    hidden_size, num_layers, cell, seed
        As in `RNN`.
    loss : {"mse", "mae", "huber", "quantile"}
        See `crnn.models.losses.Regression`; of standardised targets.
    delta : float
        Where Huber's loss turns from squares to lines.
    quantiles : sequence of float
        Levels for "quantile": predictions then have a last axis of them.
    pooling : {"last", "mean", "max", "flatten"} or None
    steps : int, optional
        Length of all sequences, for "flatten".
    scale : bool
        Standardise real inputs and targets by the training data.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> wave = np.sin(np.arange(400) / 5)[:, None]
    >>> model = crnn.SequenceRegressor(1, 1, hidden_size=16, pooling=None, seed=0)
    >>> pieces = [wave[i : i + 60] for i in range(0, 340, 10)]
    >>> log = model.fit(pieces, None, epochs=60, batch_size=8, optimizer=crnn.optim.Adam(lr=1e-2))
    >>> ahead = model.forecast(wave, 5)
    >>> bool(np.abs(ahead[:, 0] - np.sin(np.arange(400, 405) / 5)).max() < 0.1)
    True
    """

    loss_unit = ""
    _targets: ValueTargets

    def __init__(
        self,
        input_size: int,
        output_size: int = 1,
        hidden_size: int | Sequence[int] = 64,
        num_layers: int | None = None,
        cell: str = "gru",
        *,
        loss: str = "mse",
        delta: float = 1.0,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        pooling: str | None = "last",
        steps: int | None = None,
        scale: bool = True,
        seed: int = 0,
        **options: Unpack[NetworkOptions],
    ) -> None:
        named = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "cell": cell}
        config = config_from(named | options, type(self).__name__)
        self.output_size = check_size("output_size", output_size)
        chosen = Regression(loss, self.output_size, delta=delta, quantiles=quantiles)
        self.loss, self.delta, self.quantiles = loss, chosen.delta, chosen.quantiles
        scalings = {"x": Standardizer(config.input_size), "y": Standardizer(self.output_size)}
        targets = ValueTargets(chosen, scalings["y"], config.input_size, config.dtype)
        self._compose(config, chosen, targets, scalings, pooling=pooling, steps=steps, scale=scale, seed=seed)

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        return int(config["output_size"]) * (len(config["quantiles"]) if config["loss"] == "quantile" else 1)

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return super().scaled_sizes(config) | {"y": config["output_size"]}

    def predict(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """Values (N, P), or with ``pooling=None`` (N, T, P) or a list of (T_i, P); for quantiles a last axis more."""
        outputs = self._outputs_for(X, batch_size, threads)
        return self._arranged([self._targets.values(out) for out in outputs], X)

    def forecast(self, series: Any, n: int) -> Array:
        """The next ``n`` steps of a series (T, D), each fed back as the input of the one after: (n, D).

        Of several series, a list or an array (N, T, D), each is forecast independently: (N, n, D). A series of one
        value a step may be (T,). Of predicted quantiles the one nearest to the median is fed back.
        """
        check_size("n", n)
        if self.net.bidirectional or self.output_size != self.net.input_size:
            raise ValueError(
                "forecast: expected a model that is not bidirectional and has as many outputs as inputs, got "
                f"bidirectional={self.net.bidirectional}, {self.output_size} outputs and {self.net.input_size} inputs"
            )
        if self.pooling not in (None, "last"):
            raise ValueError(f"forecast: expected pooling None or 'last', got {self.pooling!r}")
        shape = series.shape if isinstance(series, np.ndarray) else (0, 0, 0)
        single = shape[1:] in ((), (self.net.input_size,))
        x = self._sequences("series", [series] if single else series)
        if x[0].ndim != 2:
            raise ValueError("series: expected numbers, got ids")
        ahead = self._continued(x, n)
        return ahead[0] if single else ahead

    def _continued(self, x: list[Array], n: int) -> Array:
        """The next n steps of each series: (N, n, D). All are stepped together."""
        parts = self._predictor.stream_parts(type(self).__name__)  # standardised here, in float64
        streams = StreamBatch(StreamWeights(parts), len(x))
        outputs = np.empty((len(x), streams.output_size), self.dtype)
        no_targets = [np.zeros((1, self.output_size), self.dtype)] * len(x)
        for chosen, batch, _ in by_length(self._data(x, no_targets), BATCH):
            tape = self.net.run_forward(batch.x, None, batch.lengths, 1, None, None, keep=False)
            last = tape.steps - 1 if batch.lengths is None else np.asarray(batch.lengths) - 1
            outputs[chosen] = self._head.apply(np.ascontiguousarray(tape.y[last, np.arange(len(chosen))]))
            streams.set_states(tape.after.value, chosen)
        ahead = np.empty((len(x), n, self.output_size))
        for step in range(n):
            ahead[:, step] = self._targets.central(outputs)
            if step < n - 1:
                streams.step(self.scalings["x"].apply(ahead[:, step], self.dtype), out=outputs)
        return ahead


takes_options(NetworkConfig)(SequenceRegressor)
