# SPDX-License-Identifier: MIT
"""Learning: what a forecaster trains, and on what, for those that run the training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crnn.checks import Array, check_size
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import ModelFileError
from crnn.models.fitting.fit import fit_sequences
from crnn.models.forecasting.bands import PARTS, Bands
from crnn.models.forecasting.files import Fitted
from crnn.models.forecasting.memory import tensors_of
from crnn.models.forecasting.network import regressor_for, regressor_options
from crnn.models.forecasting.preparation import (
    Settings,
    ahead_of,
    best_shares,
    check_shape,
    check_values,
    data_of,
    held_out_steps,
    layout_for,
    remember,
    steps_of,
    training_windows,
)
from crnn.models.forecasting.series_input import SeriesInput
from crnn.models.forecasting.windows import Layout, Window
from crnn.models.regressor import SequenceRegressor
from crnn.training.config import TrainingConfig
from crnn.training.protocols import changing
from crnn.training.stored import Contents, stored_rest

# Of a training whose length is not given; docs/forecasting.md says how they were chosen.
UPDATES = 200
LEAST_EPOCHS = 10


@dataclass(frozen=True)
class Learning:
    """A network that is to be trained, and windows of series.

    Attributes
    ----------
    regressor : SequenceRegressor
    layout : Layout
    X, y : lists of arrays
        Windows to learn from, and their targets, as the regressor's ``fit`` takes them.
    valid : (X, y) or None
        Windows to validate on.
    """

    regressor: SequenceRegressor
    layout: Layout
    X: list[Array]
    y: list[Array]
    valid: tuple[list[Array], list[Array]] | None
    _fitted: Fitted  # before the errors of forecasts are known
    _windows: list[Window]  # in which they are measured
    _header: tuple[Mapping[str, Any], Mapping[str, Any]]  # arguments of the forecaster, and those for learning
    _take: Callable[[SequenceRegressor, Fitted], None]
    _known: dict[bytes, Fitted] = field(default_factory=dict)  # by the digest of the weights

    def run(self, training: dict[str, Any]) -> None:
        """Train the regressor with these options of ``fit``, and make the forecaster what was learnt."""
        if training.get("epochs") is None and training.get("max_updates") is None:
            batch_size = check_size("batch_size", training.get("batch_size", TrainingConfig.batch_size))
            training["epochs"] = self.epochs(batch_size)
        if training.get("resume") and training.get("checkpoint") is not None:
            self.check_resumed(training["checkpoint"])
        training["valid"] = self.valid
        try:
            fit_sequences(self.regressor, self.X, self.y, None, None, False, training, rest=self.rest)
        except (TypeError, ValueError):
            raise
        except BaseException:  # interrupted, or diverged: the weights of that moment are the user's
            if self.regressor.training_runs:
                self.finish()
            raise
        self.finish()

    def finish(self) -> None:
        """Make the forecaster what was learnt, with the weights that the regressor has now."""
        self._take(self.regressor, self._judged())

    def rest(self, weights: Array) -> Contents:
        """What the forecaster's file has besides the regressor, if that has these weights; for checkpoints."""
        key = hashlib.blake2b(np.ascontiguousarray(weights).data).digest()
        if key not in self._known:  # most epochs are not the best one
            with changing(self.regressor) as own:
                kept = own.copy()
                try:
                    own[...] = weights
                    self.regressor._parameters.changed()
                    fitted = self._judged()
                finally:
                    own[...] = kept
            self._known.clear()
            self._known[key] = fitted
        return self._known[key].tensors(), self._about(self._known[key])

    def check_resumed(self, path: PathLike) -> None:
        """Raise ModelFileError if a checkpoint is that of another forecaster, whose windows may be the same."""
        stored = stored_rest(path) if isinstance(path, str | bytes | os.PathLike) and os.path.isfile(path) else None
        if stored is None:  # of an older version, or what the reading of the checkpoint refuses
            return
        name = os.fsdecode(path)
        tensors, header = stored
        of_file, own = (_settings_of(each) for each in (header, json.loads(json.dumps(self._about(self._fitted)))))
        for setting, value in sorted(own.items(), key=lambda pair: pair[0] == "window"):  # it may follow from others
            if of_file.get(setting) != value:
                raise ModelFileError(f"{setting}: expected {of_file.get(setting)!r}, as in {name}, got {value!r}")
        for key, values in tensors_of(self._fitted.shortened().memory).items():
            if key not in tensors or tensors[key].tobytes() != values.tobytes():
                raise ModelFileError(f"series: expected those of {name}, got others; resuming needs the same data")

    def _about(self, fitted: Fitted) -> dict[str, Any]:
        return {"kind": "Forecaster", "forecaster": fitted.header(*self._header)}

    def _judged(self) -> Fitted:
        """What is learnt besides the weights, with the errors that the regressor makes now."""
        layout = self.layout
        X, y = self.valid or (self.X, self.y)
        wanted = ahead_of(self._windows, y, layout)
        shares, errors = np.ones(layout.targets), wanted  # those of the naive forecast
        if self.valid is not None:
            predicted = ahead_of(self._windows, self.regressor.predict(X), layout)
            shares = best_shares(wanted, predicted, squares=self.regressor.loss == "mse")
            errors = wanted - shares * predicted
        separate = (len(self._windows) + layout.horizon - 1) / layout.horizon
        bands = Bands.of_windows(errors, separate)
        return replace(self._fitted.shortened(), shares=shares, bands=bands)

    def epochs(self, batch_size: int) -> int:
        """How many epochs make a training whose length is not given.

        Windows overlap: a network that sees each of them often overfits.
        """
        return max(LEAST_EPOCHS, -(-UPDATES // -(-len(self.X) // batch_size)))

    def describe(self) -> str:
        """What was found in the series, for people."""
        layout, judged = self.layout, 0 if self.valid is None else len(self.valid[0])
        difference = ", ".join(map(str, layout.lags)) or "none"
        season = "none" if layout.season == 1 else f"{layout.season} steps"
        return (
            f"season: {season}; differences: {difference}; {len(self.X):,} windows to learn from, "
            f"{judged:,} to validate on"
        )


def continued_layout(kept: Layout, found: Layout) -> Layout:
    """``kept``, the layout of the last fit. Raises ValueError if it is not one of series like those of ``found``."""
    if replace(found, season=kept.season, lags=kept.lags, window=kept.window) != kept:
        raise ValueError("warm_start: expected the columns, horizon and gaps of the last fit, got others")
    return kept


def learning_of(
    given: SeriesInput,
    settings: Settings,
    valid: Any,
    kept: tuple[Fitted | None, SequenceRegressor | None],
    header: tuple[Mapping[str, Any], Mapping[str, Any]],
    take: Callable[[SequenceRegressor, Fitted], None],
    *,
    continues: bool,
) -> Learning:
    """A training on the beginnings of these series, and a validation on the rest. Raises TypeError and ValueError.

    Parameters
    ----------
    valid : as in `Forecaster.fit`
    kept : of the last fit
    header : see `Learning`
    take : called with what was learnt
    continues : bool
        Whether the season and the differences are those of the last fit.
    """
    check_shape(given)
    check_values(given, settings)
    stops = [len(frame) - n for frame, n in zip(given.frames, held_out_steps(given, valid), strict=True)]
    layout, (before, trained) = layout_for(given, settings, stops), kept
    if continues and before is not None:
        layout = continued_layout(before.layout, layout)
    same = trained if before is not None and before.layout == layout else None
    regressor = regressor_for(layout, regressor_options(header[0]), same)
    memory = remember(given, layout, settings, stops)
    all_steps = [steps_of(each, layout, settings.gaps, settings.logarithm) for each in memory]
    learn, judge = training_windows(all_steps, layout, stops)
    if not learn:
        longest = max(map(len, given.frames))
        hint = "; write np.array(x) if it is one series" if longest == 1 and len(given.frames) > 1 else ""
        raise ValueError(f"series: expected more steps, to learn to forecast {layout.horizon}, got {longest}{hint}")
    no_bands = Bands(np.zeros((layout.horizon, layout.targets)), np.zeros((PARTS - 1, layout.targets)))
    fitted = Fitted(layout, given.columns, settings, given.several, np.ones(layout.targets), no_bands, memory)
    judged = data_of(judge) if judge else None
    return Learning(regressor, layout, *data_of(learn), judged, fitted, judge or learn, header, take)


def _settings_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header of a file says that is done to series, by the names of arguments."""
    own = header.get("forecaster")
    parts = [own.get(name) if isinstance(own, dict) else None for name in ("layout", "arguments")]
    layout, arguments = (part if isinstance(part, dict) else {} for part in parts)
    found = {"difference" if name == "lags" else str(name): value for name, value in layout.items()}
    return found | {name: arguments.get(name) for name in ("gaps", "logarithm")}
