# SPDX-License-Identifier: MIT
"""Post-training quantisation of a network or model: `crnn.nn.module.Module.quantize`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from crnn.checks import Array, check_number, warn
from crnn.nn.params import Parameters
from crnn.nn.precision import MOST_TERMS, PRECISIONS, check_names, check_precision, precision_of, rounded, terms_axis

__all__ = ["matrices_of", "quantized"]

TOLERANCE = 0.02


class Quantizable(Protocol):
    """What `quantized` needs of a network or model."""

    _parameters: Parameters

    def config(self) -> dict[str, Any]: ...
    def _changed(self, params: Mapping[str, Array], **options: Any) -> Self: ...
    def _calibration_outputs(self, inputs: Any) -> list[Array]: ...


M = TypeVar("M", bound=Quantizable)


def matrices_of(model: Quantizable) -> list[str]:
    """The names of the weight matrices of a network or model: what can be quantised."""
    return [name for name in model._parameters.shapes if precision_of(PRECISIONS[0], name)]


def quantized(model: M, precision: Any, calibration: Any, tolerance: float | None) -> M:
    """A copy of ``model`` with rounded weights. Arguments and errors as in `crnn.nn.module.Module.quantize`."""
    wanted = _matrices(model, precision)
    if tolerance is not None and calibration is None:
        raise ValueError(f"tolerance: expected with calibration only, got {tolerance!r} without it")
    bound = check_number("tolerance", TOLERANCE if tolerance is None else tolerance, 0)
    if calibration is not None:
        outputs = model._calibration_outputs(calibration)
        lost = {name: _loss(_rounded(model, {name: kind}), calibration, outputs) for name, kind in wanted.items()}
        kept = {name: loss for name, loss in lost.items() if not loss <= bound}
        if kept:
            named = ", ".join(f"{name} ({loss:.3g})" for name, loss in kept.items())
            stay = "stay in float32" if model.config()["precision"] is None else "stay as they are"
            warn(f"quantize: weights that would change the outputs by more than {bound} {stay}: {named}")
        wanted = {name: kind for name, kind in wanted.items() if name not in kept}
    return _rounded(model, wanted)


def _matrices(model: Quantizable, precision: Any) -> dict[str, str]:
    """The precision of each weight matrix that is to be rounded. Raises ValueError."""
    checked = check_precision("precision", precision)
    if checked is None:
        known = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"precision: expected {known}, or a dict from weight matrices to them, got None")
    if model.config()["dtype"] != "float32":
        raise ValueError(f"quantize: expected a float32 model, got {model.config()['dtype']}; see astype")
    params = model._parameters.read_only()
    found = {name: precision_of(checked, name) for name in params}
    wanted = {name: kind for name, kind in found.items() if kind is not None}
    check_names(checked, params)
    for name, kind in wanted.items():
        terms = params[name].shape[terms_axis(name)]
        if terms > MOST_TERMS.get(kind, terms):
            raise ValueError(f"{name}: expected at most {MOST_TERMS[kind]} inputs of an {kind} product, got {terms}")
        if not np.isfinite(params[name]).all():
            raise ValueError(f"{name}: expected finite weights, got NaN or infinity")
    return wanted


def _rounded(model: M, wanted: Mapping[str, str]) -> M:
    """A copy whose named weights are rounded, and multiplied in their precision; others keep the one that they have."""
    values = model._parameters.values
    params = {name: rounded(array, wanted.get(name), terms_axis(name)) for name, array in values.items()}
    before = model.config()["precision"]
    after = {name: wanted.get(name) or precision_of(before, name) for name in matrices_of(model)}
    named = {name: kind for name, kind in after.items() if kind is not None}
    kinds = set(named.values())
    uniform = len(named) == len(after) and len(kinds) == 1
    return model._changed(params, precision=kinds.pop() if uniform else named or None)


def _loss(model: Quantizable, inputs: Any, expected: list[Array]) -> float:
    """Root mean square of the difference of the outputs, divided by their standard deviation."""
    of_model = model._calibration_outputs(inputs)
    errors = math.fsum(float(np.square(a - b, dtype="float64").sum()) for a, b in zip(of_model, expected, strict=True))
    everything = np.concatenate([array.ravel() for array in expected]).astype("float64")
    spread = float(everything.std()) * math.sqrt(everything.size)
    return math.sqrt(errors) / spread if spread else math.sqrt(errors)
