# SPDX-License-Identifier: MIT
"""InitialWeights: the initial weights of a network and of the head on it, by the rules that its options name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from crnn.checks import Array
from crnn.nn.config import NetworkConfig
from crnn.nn.init import Draw, check_has_parameters, initial_matrix
from crnn.nn.recurrence import Recurrence


class InitialWeights:
    """Draws the weights of a network that was made with ``config``, into its parameters ``values``."""

    def __init__(self, config: NetworkConfig, cell: type[Recurrence], values: Mapping[str, Array]) -> None:
        self._config, self._cell, self._values = config, cell, values

    def check_rules(self, parameters: Iterable[str]) -> None:
        """Raise ValueError if the option ``init`` has a rule for none of the ``parameters`` of the whole model."""
        check_has_parameters("init", self._config.init, parameters)

    def draw_network(self, draw: Draw) -> None:
        """All weights of the network, in the order of the parameters."""
        for name, values in self._values.items():
            kind, rule = name.rpartition(".")[2], self._config.rule_of(name)
            if kind in ("W_hh", "W_xh"):
                argument = "recurrent_init" if kind == "W_hh" else "input_init"
                rule = rule or getattr(self._config, argument) or "glorot"
                for block in np.split(values, values.shape[1] // self._units(name), axis=1):  # views, gate by gate
                    block[...] = initial_matrix(rule, draw, block.shape, argument)
            elif kind == "embedding":
                values[...] = initial_matrix(rule or "unit_variance", draw, values.shape, "embedding")
            elif kind == "b_h":
                self._cell.initialise_bias(values, self._config.forget_bias)
            elif kind in self._cell.info.vectors:
                self._cell.initialise_vector(kind, values, self._config.forget_bias)
            if rule is not None and values.ndim == 1:
                values += initial_matrix(rule, draw, values.shape, "init").astype(values.dtype)

    def draw_rows(self, draw: Draw) -> None:
        """The first layer's W_xh again, by the rule for one-hot ids, `crnn.nn.init.unit_variance`, unless the option
        ``init`` has one."""
        if self._config.rule_of("W_xh") is not None:
            return
        for prefix in ("layer0.", "layer0.reverse.")[: self._config.directions]:
            for block in np.split(self._values[prefix + "W_xh"], self._cell.gates, axis=1):  # views
                block[...] = initial_matrix("unit_variance", draw, block.shape, "input_init")

    def draw_head(self, params: Mapping[str, Array], draw: Draw, *, tie_weights: bool = False) -> None:
        """The head's weights among those of a model, ``params``: by the glorot rule unless the option ``init`` has
        another one."""
        self.check_rules(params)
        # Tied rows need the scale that suits the head's sums.
        names = ["embedding" if tie_weights else "W_hy", *(name for name in params if name.startswith("tail"))]
        for name in names:
            params[name][...] = initial_matrix(self._config.rule_of(name) or "glorot", draw, params[name].shape, name)
        bias = self._config.rule_of("b_y")
        if bias is not None:
            params["b_y"][...] = initial_matrix(bias, draw, params["b_y"].shape, "init")

    def _units(self, name: str) -> int:
        """H of the layer of the parameter ``name``."""
        return self._values[name.rpartition(".")[0] + ".b_h"].size // self._cell.gates
