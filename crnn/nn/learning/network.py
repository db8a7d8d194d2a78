# SPDX-License-Identifier: MIT
"""NetworkLearner: a network alone that learns from a stream, by gradients that its user gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from crnn._core.arrays import checked_ids, take_row
from crnn._float_mode import public_methods_in_ieee_mode
from crnn.array_input import as_array, check_finite, in_precision, real_numbers
from crnn.checks import Array
from crnn.nn.learning.learner import Learner
from crnn.nn.learning.readout import NetworkReadout, Readout

__all__ = ["NetworkLearner", "network_inputs", "number_rows"]


class NetworkLearner(Learner):
    """A network that learns from a stream; ``net.learner()`` makes one. See `Learner`.

    There is no loss: `learn` takes the gradient of one at the last output, (H,), or (B, H). An update is by the sum of
    these gradients, as `RNN.backward` gives it for the steps of the window; with ``every`` below ``bptt``, a gradient
    that was given at an earlier output counts again at that of the current weights. None is a gradient of zeros.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(input_size=3, hidden_size=4, cell="gru", seed=0)
    >>> learner = net.learner(optimizer="sgd", lr=0.05, bptt=8, clip_norm=None)
    >>> for _ in range(800):
    ...     y = learner.step(np.ones(3))
    ...     learner.learn(y - 0.5)            # the gradient of the sum of (y - 0.5)**2 / 2
    >>> learner.updates, float(abs(y - 0.5).max()) < 0.01
    (100, True)
    """

    def step(self, x: Any) -> Any:
        """As `predict`."""
        return self.predict(x)

    def _network(self) -> Any:
        return self._module

    def _new_readout(self) -> Readout:
        return NetworkReadout(self._module.output_size, self._module.dtype)

    def _inputs(self, x: Any) -> Array:
        if not self._ids and take_row(self._row, x, None, None):
            return self._row
        return network_inputs(x, self.config.streams, self._module.input_size, self._module.dtype, self._ids)

    def _targets(self, y: Any) -> Array:
        if take_row(self._target_row, y, None, None):
            return self._target_row
        size = self._module.output_size
        if y is None:
            self._target_row.fill(0)
            return self._target_row
        return number_rows("dy", real_numbers("dy", y), self.config.streams, size, self._module.dtype)


def network_inputs(x: Any, streams: int, size: int, dtype: str, ids: bool) -> Array:
    """A step x of a network as (1, B, D), or ids (1, B). Integers stand for one-hot vectors. Raises TypeError and
    ValueError."""
    array = as_array("x", x)
    if array.dtype.kind in "iu" and array.ndim == (streams > 1):
        if streams > 1 and array.shape != (streams,):
            raise ValueError(f"x: expected {streams} ids, got {len(array)}")
        checked = checked_ids("x", array.reshape(1, streams), size)
        if ids:
            return checked
        one_hot = np.zeros((1, streams, size), dtype)
        one_hot[0, np.arange(streams), checked[0]] = 1
        return one_hot
    if ids:
        expected = "an integer id" if streams == 1 else f"integer ids ({streams},)"
        raise TypeError(f"x: expected {expected}, got {array.dtype} of shape {array.shape}")
    return number_rows("x", real_numbers("x", array), streams, size, dtype)


def number_rows(name: str, array: Array, streams: int, size: int, dtype: str) -> Array:
    """Numbers (size,), or of several streams (B, size), as (1, B, size). Raises ValueError unless they are finite."""
    shape = (size,) if streams == 1 else (streams, size)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    array = in_precision(name, array, dtype)
    check_finite(name, array)
    return array.reshape(1, streams, size)


public_methods_in_ieee_mode(NetworkLearner)
