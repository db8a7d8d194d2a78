# SPDX-License-Identifier: MIT
"""SequenceRegressor: values for every sequence, or for every step of it; and forecasts fed back on themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from crnn.checks import check_size
from crnn.models.data import SequenceData, Standardizer, array_of, check_entries
from crnn.models.losses import Regression
from crnn.models.metrics import RegressionEvaluation
from crnn.models.tasks import NetworkOptions, TaskModel, is_stacked

Array = NDArray[Any]


class SequenceRegressor(TaskModel[RegressionEvaluation]):
    """Values for every sequence, or with ``pooling=None`` for every step of it. See `TaskModel` for what X may be.

    y holds N rows of P values, or for each sequence (T_i, P); P may be left out where it is 1. NaN: no target there.
    Targets are standardised as inputs are, and predictions are in the targets' own units.

    To forecast, train with ``pooling=None`` and ``y=None``: every step's target is then the next step's input, and
    `forecast` goes on from the end of a series by feeding predictions back.

    Parameters
    ----------
    input_size : int
    output_size : int
        P.
    hidden_size, num_layers, cell, seed, **network
        As in `RNN`.
    loss : {"mse", "mae", "huber", "quantile"}
        See `crnn.losses.Regression`; of standardised targets.
    delta : float
        Where Huber's loss turns from squares to lines.
    quantiles : sequence of float
        Levels for "quantile": predictions then have a last axis of them.
    pooling : {"last", "mean", "max", "flatten"} or None
    steps : int, optional
        Length of all sequences, for "flatten".
    scale : bool
        Standardise real inputs and targets by the training data.

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
        **network: Unpack[NetworkOptions],
    ) -> None:
        self.output_size = check_size("output_size", output_size)
        chosen = Regression(loss, self.output_size, delta=delta, quantiles=quantiles)
        self.loss, self.delta, self.quantiles = loss, chosen.delta, chosen.quantiles
        self._make(input_size, hidden_size, num_layers, cell, chosen, pooling, steps, scale, seed, network)
        self.scalings["y"] = Standardizer(self.output_size)

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the outputs of a head of a model with this `config`."""
        return int(config["output_size"]) * (len(config["quantiles"]) if config["loss"] == "quantile" else 1)

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """What is standardised, and how many columns it has."""
        return super().scaled_sizes(config) | {"y": config["output_size"]}

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape. JSON-able."""
        names = ("output_size", "loss", "delta", "quantiles")
        return self._shared_config() | {name: getattr(self, name) for name in names}

    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        if y is None:
            return self._next_steps(name, x)
        check_entries(name, y, len(x))
        P = self.output_size
        targets = []
        for i, entry in enumerate(y):
            values = array_of(f"{name}[{i}]", entry, np.float64)
            steps = 1 if self.pooling is not None else len(x[i])
            shape = (P,) if self.pooling is not None else (steps, P)
            if values.shape != shape and not (P == 1 and values.shape == shape[:-1]):
                raise ValueError(f"{name}[{i}]: expected shape {shape}, got {values.shape}")
            if np.isinf(values).any():
                raise ValueError(f"{name}[{i}]: expected finite numbers, or NaN for none, got infinity")
            targets.append(values.reshape(steps, P))
        return targets

    def _next_steps(self, name: str, x: list[Array]) -> list[Array]:
        """Forecasting: the target of each step is the next step's input; the last one has none."""
        if self.pooling is not None or x[0].ndim != 2 or self.output_size != self.net.input_size:
            raise ValueError(
                f"{name}: expected targets; only a model of real inputs with pooling=None and as many outputs as "
                "inputs can learn from X alone"
            )
        nothing = np.full((1, self.output_size), np.nan)
        return [np.concatenate([np.asarray(series[1:], np.float64), nothing]) for series in x]

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        super()._learn_scaling(x, y)
        if self.scale:
            self.scalings["y"].learn("y", y)

    def _scaled_targets(self, targets: list[Array]) -> list[Array]:
        return [self.scalings["y"].apply(values, self.dtype) for values in targets]

    def _values(self, outputs: Array) -> Array:
        """Outputs (M, Q*P) in the targets' units: (M, P), or (M, P, Q) for Q quantiles."""
        levels = self._head.loss.outputs // self.output_size
        values = self.scalings["y"].undo(outputs.reshape(len(outputs), levels, self.output_size))
        return values.transpose(0, 2, 1) if self.loss == "quantile" else values[:, 0]

    def predict(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """Values (N, P), or with ``pooling=None`` (N, T, P) or a list of (T_i, P); for quantiles a last axis more."""
        outputs = self._predict(X, batch_size, threads)
        return self._decode([self._values(out) for out in outputs], is_stacked(X))

    def _middle(self, outputs: Array) -> Array:
        """(M, P) in the targets' units; of quantiles the one nearest to the median."""
        values = self._values(outputs)
        if self.loss != "quantile":
            return values
        return values[:, :, int(np.argmin(np.abs(np.array(self.quantiles) - 0.5)))]

    def _judge(self, data: SequenceData, outputs: list[Array]) -> RegressionEvaluation:
        total, count = self._losses(data, outputs)
        squares = sizes = 0.0
        for out, targets in zip(outputs, data.targets, strict=True):
            error = self._middle(out) - self.scalings["y"].undo(targets)
            error = error[~np.isnan(error)]
            squares += float((error**2).sum())
            sizes += float(np.abs(error).sum())
        n = max(count, 1)
        return RegressionEvaluation(total / n, squares / n, sizes / n, count)

    def forecast(self, series: Any, n: int) -> Array:
        """The next ``n`` steps of a series (T, D), each fed back as the input of the one after: (n, D).

        Of several series, a list or an array (N, T, D), each goes on by itself: (N, n, D). A series of one value a step
        may be (T,). Predicted quantiles go on
        from the one nearest to the median.
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
        ahead = np.stack([self._go_on(values, n) for values in self._scaled(x)])
        return ahead[0] if single else ahead

    def _go_on(self, series: Array, n: int) -> Array:
        y, state = self.net(series[:, None])
        steps = []
        for _ in range(n):
            out = self._head.apply(y[-1])
            steps.append(self._middle(out)[0])
            y, state = self.net(self.scalings["x"].apply(steps[-1], self.dtype)[None, None], state)
        return np.stack(steps)
