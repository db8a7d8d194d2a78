# SPDX-License-Identifier: MIT
"""Forecaster: the next steps of time series, from their past and from columns that are known ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self, Unpack

from crnn._float_mode import in_ieee_mode
from crnn._options import takes_options
from crnn.checks import Array, check_size
from crnn.models.fitting.estimator import ESTIMATING, Estimator, EstimatorConfig, FitOptions, ModelOptions, not_fitted
from crnn.models.forecasting.backtest import BAND, Backtest
from crnn.models.forecasting.bands import checked_levels
from crnn.models.forecasting.files import Fitted, fitted_from
from crnn.models.forecasting.forecasts import forecasts, series_ahead
from crnn.models.forecasting.frames import as_given
from crnn.models.forecasting.learning import Learning, learning_of
from crnn.models.forecasting.naive import back_test_beside_naive, continued
from crnn.models.forecasting.network import NETWORK_OPTIONS, regressor_options
from crnn.models.forecasting.preparation import Settings, check_logarithm, steps_ahead
from crnn.models.forecasting.scoring import score_of
from crnn.models.forecasting.series_input import check_names, read_all
from crnn.models.inputs.held_out import AUTO
from crnn.models.regressor import SequenceRegressor
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.module import Module
from crnn.nn.params import Shapes
from crnn.nn.precision import check_trainable
from crnn.stream.parts import StreamParts
from crnn.training.communicator import on_all_ranks
from crnn.training.config import TrainingConfig
from crnn.training.exclusive import check_not_in_training, in_training


class Forecaster(Estimator, Module, kind="Forecaster", config_types=SequenceRegressor.config_types):
    """Forecasts time series: one, or several that one network learns together.

    A network reads the last steps before an origin and then the steps ahead, whose values it does not know, and answers
    there with the deviation of each value from a naive forecast. What is done to values before and after is listed in
    `crnn.models.forecasting.transformations`, what the network reads in `crnn.models.forecasting.windows`.

    Conventions
    -----------
    A series is (T,) or (T, P), an array or a Series or DataFrame of pandas; several are a list of them, of any lengths.
    A list of numbers is one series. NaN = missing. With pandas the index needs a frequency, and forecasts continue it;
    other columns have the same index.

    ``past`` are columns (T, E) that are known up to the origin, ``future`` columns that are known ahead too: (T, F) to
    learn from, and as many rows more as are forecast in `forecast`. Missing numbers are filled there as in series.

    Parameters
    ----------
    horizon : int
        Steps that the network forecasts at once. Beyond it forecasts are made from forecasts.
    season : int or "auto"
        Steps of a season; 1: none. The network reads the values one and two seasons before each step. "auto": that of
        the index's frequency (24 hours, 7 days, 5 business days, 52 weeks, 12 months, 4 quarters), or without an index
        the lag at which the detrended series resembles itself; if it does so clearly, and at twice the lag too.
    difference : int, sequence of int, "auto" or None
        Lags of the differences. 1: the naive forecast is the last value, and values are read relative to it; 12: the
        value 12 steps before; (12, 1): both differences; None: the mean. "auto": 1 if the last value is a better
        forecast of the steps of the horizon than the mean, in the training part without its season; otherwise None.
    logarithm : bool
        Take the logarithm of the values first, which must be above 0.
    gaps : {"interpolate", "carry", "mask"}
        What missing values are replaced by: the line between the known neighbours, the last known value, or 0 and a
        mask that the network reads. They are never targets.
    window : int, optional
        Steps that the network reads before an origin. If not given: two seasons, but at least 24.
    hidden_size, num_layers, cell, seed
        As in `RNN`.
    loss, delta
        As in `SequenceRegressor`: "mae", "mse" or "huber".
    {options}

    Attributes
    ----------
    season_ : int
    difference_ : tuple of int
        What `fit` has found, or was given.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> month = np.arange(240)
    >>> series = 0.1 * month + np.array([0, 1, 3, 4, 6, 7, 8, 7, 5, 3, 2, 1])[month % 12]
    >>> model = crnn.Forecaster(seed=0).fit(series[:-12])
    >>> model.season_, model.difference_
    (12, (1,))
    >>> bool(np.abs(model.forecast(12) - series[-12:]).max() < 0.5)
    True
    """

    _regressor: SequenceRegressor | None
    _fitted: Fitted | None

    def __init__(
        self,
        horizon: int = 12,
        *,
        season: int | str = "auto",
        difference: int | Sequence[int] | str | None = "auto",
        logarithm: bool = False,
        gaps: str = "interpolate",
        window: int | None = None,
        hidden_size: int | Sequence[int] = 32,
        num_layers: int | None = None,
        cell: str = "gru",
        loss: str = "mae",
        delta: float = 1.0,
        seed: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        self._regressor, self._fitted = None, None
        self._keep_arguments(locals())
        regressor_options(self._own_arguments())  # checks the arguments now
        Settings.of(self._own_arguments())

    # ---- training -------------------------------------------------------------------------------------------------

    @takes_options(EstimatorConfig, TrainingConfig)
    @on_all_ranks
    def fit(self, series: Any, past: Any = None, future: Any = None, **options: Unpack[FitOptions]) -> Self:
        """Learn from a series, or from several. Returns the model; its attribute `log` is the log of the training.

        The model remembers the ends of the series, which `forecast` continues.

        Parameters
        ----------
        series : (T,), (T, P), or a list of them
        past, future : (T, E) and (T, F), or lists of them, optional
            Other columns, see the class.
        valid : float, "auto" or None
            The share of steps at the end of each series to validate on after every epoch. The weights of the best epoch
            are kept, forecasts follow the network as far as it was right there, and bands are those of the errors
            there. "auto": a fifth, of series of 40 steps or more. With None, or fewer steps, all steps are trained on,
            and bands are those of the naive forecast.
        warm_start : bool
            Continue from the current weights, with the season and the differences that belong to them.
        **options
            As in `crnn.fit`. Those that are not given are the constructor's, or have the same defaults; but without
            ``epochs`` and ``max_updates`` there are 200 updates, or 10 epochs if those are more. `crnn.load` reads a
            forecaster from a checkpoint.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; the model is then unchanged.
        FloatingPointError, KeyboardInterrupt
            As in `crnn.fit`.
        """
        self.check_trainable()
        with in_training(self):
            self._learn(series, past, future, options)
        return self

    def _learn(self, series: Any, past: Any, future: Any, options: Mapping[str, Any]) -> None:
        """See `fit`."""
        check_names(options)
        training, own = self._fit_options(options)
        learning = self.learning(series, past, future, **own)
        learning.run(training | {"warm_start": own["warm_start"]})

    def learning(
        self, series: Any, past: Any = None, future: Any = None, *, valid: Any = AUTO, warm_start: bool = False
    ) -> Learning:
        """What `fit` trains, and on what. Nothing of this model is changed before `Learning.finish`."""
        settings = Settings.of(self._own_arguments())
        given, kept = read_all(series, past, future), (self._fitted, self._regressor)
        header = self._own_arguments(), self._saved_learning()
        return learning_of(given, settings, valid, kept, header, self._take, continues=warm_start)

    def _take(self, regressor: SequenceRegressor, fitted: Fitted) -> None:
        """Become a forecaster with this regressor."""
        self._regressor, self._log, self._fitted = regressor, regressor.log, fitted

    def windows(self, *arguments: Any) -> Any:
        """For `crnn.fit`, which cannot train a forecaster. Raises TypeError."""
        raise TypeError(f"model: expected one that reads its own windows, got {type(self).__name__}; call its fit")

    # ---- what was learnt ------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """An argument of the constructor. Called for missing attributes only."""
        if "_arguments" in vars(self) and name in self._defaults():
            return self._all_arguments()[name]
        if hasattr(type(self), name):  # a property of what `fit` has not learnt yet
            raise not_fitted(f"{type(self).__name__}: expected a call of fit before this")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _is_fitted(self) -> bool:
        return self._fitted is not None

    @property
    def fitted(self) -> Fitted:
        """What `fit` has learnt besides the weights. Raises NotFittedError before."""
        if self._fitted is None:
            raise not_fitted(f"{type(self).__name__}: expected a call of fit before this")
        return self._fitted

    @property
    def regressor(self) -> SequenceRegressor:
        """The network with its head, which predicts the steps ahead of windows."""
        if self._regressor is None:
            raise not_fitted(f"{type(self).__name__}: expected a call of fit before this")
        return self._regressor

    @property
    def season_(self) -> int:
        """Steps of a season; 1: none."""
        return self.fitted.layout.season

    @property
    def difference_(self) -> tuple[int, ...]:
        """Lags of the differences."""
        return self.fitted.layout.lags

    def __repr__(self) -> str:
        if self._fitted is None:
            defaults, params = self._defaults(), self._all_arguments()
            given = [f"{name}={value!r:.100}" for name, value in params.items() if value is not defaults[name]]
            return f"{type(self).__name__}({', '.join(given)})"
        layout, net = self._fitted.layout, self.regressor.net
        return (
            f"{type(self).__name__}(horizon={layout.horizon}, season={layout.season}, difference={layout.lags}, "
            f"window={layout.window}, {net.describe()}, {self.num_parameters:,} parameters)"
        )

    # ---- forecasts ------------------------------------------------------------------------------------------------

    def forecast(
        self,
        n: int | None = None,
        series: Any = None,
        past: Any = None,
        future: Any = None,
        *,
        quantiles: Sequence[float] | None = None,
        threads: int = 1,
    ) -> Any:
        """The next ``n`` steps of the series that were learnt, or of others.

        Parameters
        ----------
        n : int, optional
            If not given: the horizon.
        series : (T,), (T, P), or a list of them, optional
            Series to continue, with all that is known of them. If not given, those of `fit`, with the values that
            `update` has added. If one series was learnt, its mean and scale are used; if several, each has its own.
        past : (T, E), optional
            The columns of ``series``.
        future : (n, F), optional
            The columns at the steps ahead; (T + n, F) with ``series``.
        quantiles : sequence of float, optional
            Levels of bands, from 0.005 to 0.995, such as (0.1, 0.9). They come from the errors in the validation part.
        threads : int

        Returns
        -------
        values : array, Series or DataFrame, or a list of them for several series
            As the series: (n,) or (n, P), float64, fresh, with the index continued; with ``quantiles`` there is a last
            axis (Q,), or a column for each.

        Raises
        ------
        TypeError, ValueError
        """
        fitted = self.fitted
        n = fitted.layout.horizon if n is None else steps_ahead(n)
        levels = None if quantiles is None else checked_levels(quantiles)
        memory, several = series_ahead(fitted, n, series, past, future)
        found = forecasts(self.regressor, fitted, memory, n, levels, threads)
        values = [as_given(v, each.frame, each.axis, levels) for v, each in zip(found, memory, strict=True)]
        return values if several else values[0]

    def predict(
        self, n: int | None = None, series: Any = None, past: Any = None, future: Any = None, *, threads: int = 1
    ) -> Any:
        """The next ``n`` steps, as `forecast` returns them, under the name that other libraries have for it.

        Parameters
        ----------
        n : int, optional
            If not given: the horizon. It is what sktime writes as ``fh=range(1, n + 1)``.
        series, past, future, threads
            As in `forecast`.
        """
        return self.forecast(n, series, past, future, threads=threads)

    def score(self, series: Any, future: Any = None, *, threads: int = 1) -> float:
        """The coefficient of determination R^2 of the forecast of the steps that came after the remembered series.

        1 is the best; 0 is that of the mean of these values. It is the mean of those of all columns, and of all series.
        `backtest` says more: errors from several origins, and those of `SeasonalNaive`.

        Parameters
        ----------
        series : (m,), (m, P), or a list of them for several series
            What came next, at least two values in each column; NaN does not count. With pandas their index is the one
            that follows.
        future : (m, F), optional
            The columns that are known ahead, at these steps.
        threads : int

        Raises
        ------
        TypeError, ValueError
        """
        fitted = self.fitted

        def ahead(n: int) -> Any:
            return self.forecast(steps_ahead(n), future=future, threads=threads)

        return score_of(series, fitted.memory, fitted.columns, fitted.several, ahead)

    def update(self, series: Any, past: Any = None, future: Any = None) -> Self:
        """Add the values that came after the remembered series, without learning from them. Returns the model.

        Parameters
        ----------
        series : (m,), (m, P), or a list of them for several series
            With pandas their index is the one that follows.
        past, future : (m, E), (m, F), optional

        Raises
        ------
        TypeError, ValueError
            The model is then unchanged.
        """
        check_not_in_training(self, "update")  # the end of fit would undo it
        fitted = self.fitted
        given = read_all(series, past, future, like=fitted.columns, continues=True)
        check_logarithm(given, fitted.settings)
        memory = [each.shortened(fitted.layout.reach) for each in continued(fitted.memory, given)]
        self._fitted = replace(fitted, memory=memory)
        return self

    def fresh(self) -> Self:
        """A copy with the same arguments that has not learnt anything."""
        copy = type(self).__new__(type(self))
        learnt = {"_regressor": None, "_fitted": None, "_log": None, "_stream_weights": None}
        vars(copy).update(deepcopy({name: value for name, value in vars(self).items() if name not in learnt}) | learnt)
        return copy

    def backtest(
        self,
        series: Any,
        horizon: int | None = None,
        origins: int = 5,
        *,
        stride: int | None = None,
        refit: bool = False,
        past: Any = None,
        future: Any = None,
        quantiles: Sequence[float] = BAND,
        **options: Any,
    ) -> Backtest:
        """The errors of forecasts from several origins, and those of `SeasonalNaive`.

        A copy of this model learns from what lies before the first origin only, and forecasts from each origin with
        all that is known there. This model is not changed, and what it has learnt is not used.

        Parameters
        ----------
        series : (T,), (T, P), or a list of them
        horizon : int, optional
            Steps of each forecast. If not given: that of the model.
        origins : int
        stride : int, optional
            Steps between two origins; the last one is a horizon before the end. If not given: the horizon.
        refit : bool
            Train a new model at each origin, on what lies before it.
        past, future : (T, E) and (T, F), optional
            Needed if the model was trained with such columns.
        quantiles : two floats
            Levels of the band whose coverage is counted.
        **options
            As in `fit`.

        Returns
        -------
        Backtest
            Its ``naive`` is that of `SeasonalNaive` with the same season.
        """
        n = check_size("horizon", self._all_arguments()["horizon"] if horizon is None else horizon)
        known = (0, 0) if self._fitted is None else (self._fitted.columns.past, self._fitted.columns.future)
        for name, columns, given in zip(("past", "future"), known, (past, future), strict=True):
            if columns and given is None:
                raise ValueError(f"{name}: expected the {columns} columns that the model was trained with, got none")
        how: dict[str, Any] = {"origins": origins, "stride": stride, "refit": refit, "levels": quantiles}
        return back_test_beside_naive(self, series, past, future, n, options, **how)

    # ---- files and copies -----------------------------------------------------------------------------------------

    @property
    def _parameters(self) -> Any:  # type: ignore[override]
        return self.regressor._parameters

    @property
    def training_runs(self) -> tuple[Mapping[str, Any], ...]:
        """See `crnn.nn.module.Module`."""
        return () if self._regressor is None else self._regressor.training_runs

    @training_runs.setter
    def training_runs(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.regressor.training_runs = tuple(records)

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return str(self._all_arguments()["dtype"])

    def config(self) -> dict[str, Any]:
        """The sizes and options of the network, as values that JSON can hold."""
        return self.regressor.config()

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters."""
        return SequenceRegressor.shapes_of(config)

    @classmethod
    def statistics_of(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return SequenceRegressor.statistics_of(config)

    def _stream_parts(self) -> StreamParts:
        raise ValueError("stream: a Forecaster reads windows; update adds new values, and forecast continues them")

    def _new_learner(self, config: LearnerConfig) -> Any:
        raise ValueError("learner: a Forecaster reads windows; a SequenceRegressor learns from a stream")

    def astype(self, dtype: str) -> Self:
        """A copy in another precision, float32 or float64, see `crnn.nn.module.Module.astype`."""
        return self._with(self.regressor.astype(dtype), dtype=dtype, precision=None)

    def quantize(
        self, precision: str | Mapping[str, str] = "int8", calibration: Any = None, *, tolerance: float | None = None
    ) -> Self:
        """A copy in fewer bits, see `crnn.nn.module.Module.quantize`.

        ``calibration`` is a series, or a tuple (series, past, future), as `fit` takes them; its windows are compared.
        """
        windows = None
        if calibration is not None:
            given = calibration if isinstance(calibration, tuple) else (calibration,)
            if len(given) > 3:
                raise ValueError(f"calibration: expected a series or (series, past, future), got {len(given)} entries")
            windows = self.learning(*given, valid=None, warm_start=True).X
        regressor = self.regressor.quantize(precision, windows, tolerance=tolerance)
        return self._with(regressor, precision=regressor.config()["precision"])

    def _with(self, regressor: SequenceRegressor, **arguments: Any) -> Self:
        """A copy with another regressor, and arguments that are those of it."""
        copy = deepcopy(self)
        copy._set_arguments(**arguments)
        copy._regressor = regressor
        return copy

    def check_trainable(self) -> None:
        """Raise ValueError for a model that is for inference only, as an int8 model is."""
        check_trainable(self._all_arguments()["precision"])

    def _calibration_outputs(self, inputs: Any) -> list[Array]:
        return self.regressor._calibration_outputs(inputs)

    def contents(self) -> tuple[dict[str, Array], dict[str, Any]]:
        tensors, header = self.regressor.contents()
        own = self.fitted.header(self._own_arguments(), self._saved_learning())
        return tensors | self.fitted.tensors(), header | {"kind": type(self).__name__, "forecaster": own}

    @classmethod
    def from_contents(cls, header: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """The forecaster of a file, after everything in it has been checked. Raises TypeError and ValueError."""
        fitted, arguments, used = fitted_from(header.get("forecaster"), tensors, cls._defaults())
        rest = {name: values for name, values in tensors.items() if name not in used}
        regressor = SequenceRegressor.from_contents(header, rest)
        sizes = (regressor.net.input_size, regressor.output_size, regressor.pooling)
        if sizes != (fitted.layout.input_size, fitted.layout.targets, None):
            raise ValueError(f"expected a network of the layout's sizes, got {sizes}")
        model = cls._made(**arguments)
        model._regressor, model._fitted = regressor, fitted
        return model

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _restored, (type(self), {name: value for name, value in vars(self).items() if name != "_stream_weights"})


@in_ieee_mode
def _restored(cls: type[Forecaster], own: Mapping[str, Any]) -> Forecaster:
    """The forecaster that pickle or copy restores."""
    model = cls.__new__(cls)
    vars(model).update(own)
    return model


takes_options(NETWORK_OPTIONS, ESTIMATING)(Forecaster)
