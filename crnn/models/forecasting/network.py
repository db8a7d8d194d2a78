# SPDX-License-Identifier: MIT
"""The network of a forecaster: a `SequenceRegressor` that reads windows, and the options that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from crnn._options import options_of
from crnn.checks import check_seed
from crnn.models.forecasting.windows import Layout
from crnn.models.outputs.losses import Regression
from crnn.models.regressor import SequenceRegressor
from crnn.nn.config import NetworkConfig, config_from

OF_REGRESSOR = ("hidden_size", "num_layers", "cell", "loss", "delta", "seed")  # besides the options of networks
LOSSES = ("mae", "mse", "huber")
# Those of a network that reads numbers forwards.
OF_OTHERS = ("input_size", "bidirectional", "embedding_size", "embedding_dropout")
NETWORK_OPTIONS = tuple(each for each in options_of(NetworkConfig) if each.name not in OF_OTHERS)


def regressor_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a forecaster that its regressor has too, checked. Raises TypeError and ValueError."""
    options = {name: arguments[name] for name in (*OF_REGRESSOR, *(each.name for each in NETWORK_OPTIONS))}
    if options["loss"] not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {options['loss']!r:.200}")
    config_from({**options, "input_size": 1})
    Regression(options["loss"], 1, delta=options["delta"])
    check_seed("seed", options["seed"])
    return options


def regressor_for(layout: Layout, options: Mapping[str, Any], same: SequenceRegressor | None) -> SequenceRegressor:
    """A new regressor of these sizes; or a copy of ``same``, which has them, with its starting weights."""
    fresh = SequenceRegressor(layout.input_size, layout.targets, pooling=None, **options)
    return fresh if same is None else deepcopy(same).set_params(**fresh._own_arguments())
