# SPDX-License-Identifier: MIT
"""What a forecaster's file holds besides its network: arguments, layout, bands, and the ends of the series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from crnn.checks import Array
from crnn.io import model_file
from crnn.models.fitting.estimator import check_saved_learning
from crnn.models.forecasting.bands import PARTS, Bands
from crnn.models.forecasting.memory import Remembered, header_of, memory_from, tensors_of
from crnn.models.forecasting.preparation import LARGEST_LAG, LARGEST_SIZE, Settings
from crnn.models.forecasting.series_input import Columns
from crnn.models.forecasting.windows import Layout
from crnn.nn.config import in_file

MOST_LAYERS = 10_000
NAMES = ("arguments", "layout", "learning", "names", "several", "series")


@dataclass(frozen=True)
class Fitted:
    """What `Forecaster.fit` learns besides the weights.

    Attributes
    ----------
    layout : Layout
    columns : Columns
    settings : Settings
    several : bool
        Whether a list of series was learnt.
    shares : array (P,)
        The part of the network's predictions that is used, see `preparation.best_shares`.
    bands : Bands
    memory : list of Remembered
    """

    layout: Layout
    columns: Columns
    settings: Settings
    several: bool
    shares: Array
    bands: Bands
    memory: list[Remembered]

    def shortened(self) -> Fitted:
        """With as much of the ends of the series as forecasts depend on."""
        return replace(self, memory=[each.shortened(self.layout.reach) for each in self.memory])

    def header(self, arguments: Mapping[str, Any], learning: Mapping[str, Any]) -> dict[str, Any]:
        """What the header of a file says of it. ``arguments``: of the constructor, and those that say how to learn."""
        layout = {field.name: getattr(self.layout, field.name) for field in fields(Layout)}
        return {
            "arguments": {name: as_json(value) for name, value in in_file(arguments).items()},
            "learning": dict(learning),
            "layout": layout | {"lags": list(self.layout.lags)},
            "names": self.columns.names,
            "several": self.several,
            "series": header_of(self.memory),
        }

    def tensors(self) -> dict[str, Array]:
        """Its arrays, float64 vectors by name."""
        bands = {"bands.sizes": self.bands.sizes.reshape(-1), "bands.shape": self.bands.shape.reshape(-1)}
        return {"shares": self.shares} | bands | tensors_of(self.memory)


def as_json(value: Any) -> Any:
    """An argument as JSON can hold it."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return [as_json(each) for each in value] if isinstance(value, list | tuple) else value


def fitted_from(
    header: Any, tensors: Mapping[str, Array], defaults: Mapping[str, Any]
) -> tuple[Fitted, dict[str, Any], set[str]]:
    """What a file holds besides the network, the arguments of the constructor, and the names of the tensors it used.

    ``defaults`` : of the arguments, for those that a file does not have.

    Raises TypeError and ValueError.
    """
    if not isinstance(header, dict) or sorted(header) != sorted(NAMES) or type(header["several"]) is not bool:
        raise ValueError(f"expected a forecaster, got {header!r:.200}")
    if not isinstance(header["arguments"], dict) or not set(header["arguments"]) <= set(defaults):
        raise ValueError(f"expected arguments, got {header['arguments']!r:.200}")
    layers = header["arguments"].get("num_layers")
    if isinstance(layers, int | float) and layers > MOST_LAYERS:
        raise ValueError(f"expected a sensible number of layers, got {layers!r:.200}")
    layout, names = layout_from(header["layout"]), names_from(header["names"])
    widths = {"values": layout.targets, "past": layout.past, "future": layout.future}
    memory = memory_from(header["series"], tensors, widths)
    if len(memory) > 1 and not header["several"]:
        raise ValueError(f"expected one series, got {len(memory)}")
    parts = {}
    for name, shape in ("sizes", (layout.horizon, layout.targets)), ("shape", (PARTS - 1, layout.targets)):
        model_file.check_tensor(f"bands.{name}", tensors, (shape[0] * shape[1],), "float64")
        parts[name] = tensors[f"bands.{name}"].reshape(shape).copy()
    model_file.check_tensor("shares", tensors, (layout.targets,), "float64")
    shares = tensors["shares"].copy()
    columns = Columns(layout.targets, layout.past, layout.future, names)
    settings = Settings.of({**defaults, **header["arguments"]})
    fitted = Fitted(layout, columns, settings, header["several"], shares, Bands(**parts), memory)
    if fitted.settings.horizon != layout.horizon or (fitted.settings.gaps == "mask") != layout.mask:
        raise ValueError("expected arguments that fit the layout, got others")
    arguments = header["arguments"] | check_saved_learning(header["learning"])
    return fitted, arguments, set(fitted.tensors())


def layout_from(value: Any) -> Layout:
    """The layout of a JSON object. Raises ValueError."""
    names = [field.name for field in fields(Layout)]
    sensible = isinstance(value, dict) and sorted(value) == sorted(names)
    sensible = sensible and isinstance(value["lags"], list) and len(value["lags"]) <= 3
    numbers = [] if not sensible else [value[name] for name in names if name not in ("lags", "mask")]
    least = {"past": 0, "future": 0}
    if (
        not sensible
        or any(type(number) is not int or number > 2 * LARGEST_SIZE for number in numbers)
        or any(value[name] < least.get(name, 1) for name in names if name not in ("lags", "mask"))
        or any(type(lag) is not int or not 0 < lag <= LARGEST_LAG for lag in value["lags"])
        or type(value["mask"]) is not bool
    ):
        raise ValueError(f"expected a layout, got {value!r:.200}")
    return Layout(**(value | {"lags": tuple(value["lags"])}))


def names_from(value: Any) -> dict[str, list[str] | None]:
    """The names of columns of a JSON object. Raises ValueError."""
    if not isinstance(value, dict) or sorted(value) != ["future", "past", "series"]:
        raise ValueError(f"expected names of columns, got {value!r:.200}")
    for names in value.values():
        if names is not None and not (isinstance(names, list) and all(type(name) is str for name in names)):
            raise ValueError(f"expected names of columns, got {names!r:.200}")
    return dict(value)
