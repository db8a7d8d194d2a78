# SPDX-License-Identifier: MIT
"""Diagnostics of gradients: are they correct (gradient_check), and do they vanish or explode?

`gradient_flow` is that of `crnn.models.gradient_flow`.

Models are not changed. Results are computed with NumPy, so they are not bit-identical on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from crnn._float_mode import in_ieee_mode
from crnn.array_input import as_array
from crnn.checks import Array, check_number, check_seed, check_size
from crnn.models.gradient_flow import GradientFlow, check_no_lengths, gradient_flow, pair_of
from crnn.models.inputs.data import Batch as Window
from crnn.models.language_model import LanguageModel
from crnn.models.outputs.head import HeadTape
from crnn.models.outputs.losses import Regression
from crnn.models.outputs.pooling import Max
from crnn.models.passes.predictor import Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.models.sequence_model import SequenceModel
from crnn.nn.network import RNN
from crnn.nn.state import State, StateLike
from crnn.nn.tape import Tape

__all__ = ["GradientCheck", "GradientFlow", "gradient_check", "gradient_flow"]

Batch: TypeAlias = tuple[ArrayLike, ArrayLike]
Model: TypeAlias = LanguageModel | SequenceModel[Any]
SMALLEST_STEP = 1e-9  # differences of a smaller one are rounding errors
# From whether gradients are wanted to a scalar, its gradients by name, and on which side of their kinks (points without
# a derivative) all values are: while a difference is taken, that must not change.
Objective: TypeAlias = Callable[[bool], tuple[float, dict[str, Array], bytes]]


@dataclass(frozen=True)
class GradientCheck:
    """The result of `gradient_check`.

    Attributes
    ----------
    errors : dict of str to float
        For each array the largest |computed - numerical|, divided by the largest |numerical|, or by 1 if that is only
        rounding error.
    checked : int
        Number of elements that were compared.
    skipped : int
        Number of elements where a kink (of ReLU, max or |error|) is so near that there is no derivative to compare.
    """

    errors: dict[str, float]
    checked: int
    skipped: int

    @property
    def largest(self) -> float:
        """The largest relative error of all arrays."""
        return max(self.errors.values())

    def __str__(self) -> str:
        lines = [f"{name:<16} {error:.1e}" for name, error in self.errors.items()]
        return "\n".join([*lines, f"{'largest':<16} {self.largest:.1e}  ({self.checked} elements)"])


@in_ieee_mode
def gradient_check(
    model: Model | RNN,
    batch: Batch | ArrayLike,
    *,
    state: StateLike | None = None,
    lengths: ArrayLike | None = None,
    samples: int | None = 100,
    step: float | None = None,
    seed: int = 0,
) -> GradientCheck:
    """Compare backpropagation with central differences, in float64.

    Parameters
    ----------
    model : RNN, or a model
        Not changed: a float64 copy is checked, which of a quantised model has its rounded weights.
    batch : (ids, targets) for a LanguageModel, (X, y) for models of whole sequences, x for an RNN
        As in their ``loss_and_gradients``, ``fit`` and ``forward``. The loss of an RNN is a random linear combination
        of its outputs and of its state after the last step.
    state : see `RNN`, optional
        State before the first step of x. If not given: the trainable initial state if the model has one, otherwise
        small random numbers.
    lengths : integers (B,), optional
        As in `RNN.forward`; with an RNN only.
    samples : int or None
        At least 1: number of elements of each array to check, chosen at random; None: all.
    step : float, optional
        Step of the differences, which are of fourth order: their error is about step**4. Below 1. If not given: 1e-3,
        but 1e-4 for an ln_lstm, whose normalisation may be steep.
    seed : int
        Of the random numbers.

    Returns
    -------
    GradientCheck
        Of every parameter; of ``state`` unless it is a parameter; of ``x`` if it is real.

    Raises
    ------
    TypeError, ValueError
        A model of another kind, such as a Forecaster (its ``regressor`` can be checked), one that waits for `fit`, or a
        batch that is not one of the model's.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(3, 4, num_layers=2, seed=0)
    >>> crnn.gradient_check(net, np.random.default_rng(0).normal(size=(5, 2, 3))).largest < 1e-8
    True
    """
    pair = None if isinstance(model, RNN) else pair_of(model, batch)
    samples = None if samples is None else check_size("samples", samples)
    step = None if step is None else check_number("step", step, SMALLEST_STEP, 1)
    rng = np.random.default_rng(check_seed("seed", seed))
    model = model.astype("float64")
    net = _first_network(model)
    if not isinstance(model, RNN):
        assert pair is not None
        check_no_lengths(lengths)
        window, targets = model.window(*pair)
        window = replace(window, x=window.x.copy())
        x, size = window.x, window.size
    else:
        x = net.stack.check_padded(_in_float64("batch", batch), None)[0].copy()
        size = x.shape[1]
    before = None
    if state is not None or not net.trainable_initial_state:
        before = _random_state(net, size, rng)
        if state is not None:
            before.assign("state", _in_float64("state", state))
    if not isinstance(model, RNN):
        objective = _model_objective(model, window, targets, before)
    else:
        objective = _network_objective(net, x, lengths, before, rng)
    arrays = dict(model.params) | ({} if before is None else state_by_name(before))
    arrays |= {"x": x} if x.dtype.kind == "f" else {}
    kinks = net.stack.cell.has_kinks or (not isinstance(model, RNN) and _has_kinks(model))
    return _compare(objective, arrays, samples, step or net.stack.cell.difference_step, kinks, rng)


def _compare(
    objective: Objective,
    arrays: dict[str, Array],
    samples: int | None,
    step: float,
    kinks: bool,
    rng: np.random.Generator,
) -> GradientCheck:
    """Compare the gradients of an objective with differences in random elements of the arrays that it reads."""
    value, gradients, _ = objective(True)
    # Largest rounding error of a difference whose true value is 0.
    noise = 16 * np.finfo(np.float64).eps * max(1.0, abs(value)) / (step / 1000 if kinks else step)
    errors, checked, skipped = {}, 0, 0
    for name, array in arrays.items():
        size = array.size
        indices = np.arange(size) if samples is None or samples >= size else rng.choice(size, samples, replace=False)
        pairs = []
        for index in indices:
            difference = _difference(objective, array.reshape(-1), int(index), step, kinks)
            if difference is None:
                skipped += 1
            else:
                pairs.append((gradients[name].reshape(-1)[index], difference))
        if pairs:
            computed, numerical = np.array(pairs).T
            largest = np.abs(numerical).max()
            errors[name] = float(np.abs(computed - numerical).max() / (largest if largest > noise else 1.0))
            checked += len(pairs)
    return GradientCheck(errors, checked, skipped)


def _difference(objective: Objective, flat: Array, index: int, step: float, kinks: bool) -> float | None:
    """Fourth-order central difference of the objective at flat[index].

    With kinks, the step is reduced until all points are on the same side of every kink; None if they never are.
    """
    center = flat[index]
    for size in (step, step / 10, step / 100, step / 1000) if kinks else (step,):
        values, patterns = [], set()
        for distance in (-2, -1, 1, 2):
            flat[index] = center + distance * size
            value, _, pattern = objective(False)
            values.append(value)
            patterns.add(pattern)
        flat[index] = center
        if not kinks or len(patterns) == 1:
            before2, before1, after1, after2 = values
            return float((8 * (after1 - before1) - (after2 - before2)) / (12 * size))
    return None


def _kink_pattern(net: RNN, tape: Tape) -> bytes:
    """On which side of its kinks every unit of the network is; empty for smooth cells."""
    if not net.stack.cell.has_kinks:
        return b""
    return b"".join(np.packbits(cell.side_of_kinks()).tobytes() for cell in tape.recurrences)


def _has_kinks(model: Model) -> bool:
    """Whether the head or the loss has points without a derivative."""
    head = model._predictor.head
    return head.pooling == "max" or (isinstance(head.loss, Regression) and head.loss.kind != "mse")


def _head_kink_pattern(model: Model, head_tape: HeadTape, targets: Array) -> bytes:
    """Which step has the maximum, and on which side of the kinks of the loss every error is."""
    pattern = head_tape.pooling.which.tobytes() if isinstance(head_tape.pooling, Max) else b""
    loss = model._predictor.head.loss
    if isinstance(loss, Regression) and loss.kind != "mse":
        errors = head_tape.outputs.reshape(*targets.shape[:2], len(loss.levels), -1) - targets[:, :, None]
        for kink in (-loss.delta, loss.delta) if loss.kind == "huber" else (0.0,):
            pattern += np.packbits(errors > kink).tobytes()
    return pattern


def _first_network(model: Model | RNN) -> RNN:
    """The network that reads x."""
    return model if isinstance(model, RNN) else model._predictor.networks[0]


def _random_state(net: RNN, batch: int, rng: np.random.Generator) -> State:
    """A state of small random numbers, uniform in [-0.5, 0.5)."""
    state = net.stack.new_state(batch)
    for _, layers in state.parts:
        for array in layers:
            array[...] = rng.uniform(-0.5, 0.5, array.shape)
    return state


def _in_float64(name: str, value: Any) -> Any:
    """x or a state with all arrays in float64; ids are not converted."""
    if isinstance(value, tuple | list) and value and not np.isscalar(value[0]) and np.ndim(value[0]):
        return type(value)(_in_float64(name, part) for part in value)
    array = as_array(name, value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def state_by_name(state: State) -> dict[str, Array]:
    """The arrays of a state by name: "state", or "state.h" and "state.c"; with [i] if the layers' sizes differ."""
    named: dict[str, Array] = {}
    for part, layers in state.parts:
        name = "state" if len(state.parts) == 1 else f"state.{part}"
        if isinstance(layers, list):
            named |= {f"{name}[{i}]": array for i, array in enumerate(layers)}
        else:
            named[name] = layers
    return named


def _network_objective(
    net: RNN, x: Array, lengths: ArrayLike | None, before: State | None, rng: np.random.Generator
) -> Objective:
    """A random linear combination of the outputs and of the state after the last step."""
    y, _ = net(x, None if before is None else before.value, lengths=lengths)
    dy, dstate = rng.normal(size=y.shape), net.stack.new_state(x.shape[1])
    for array in state_by_name(dstate).values():
        array[...] = rng.normal(size=array.shape)

    def objective(with_gradients: bool) -> tuple[float, dict[str, Array], bytes]:
        y, _, tape = net.forward(x, None if before is None else before.value, lengths=lengths)
        pairs = zip(state_by_name(tape.after).values(), state_by_name(dstate).values(), strict=True)
        value = float(np.sum(y * dy) + sum(np.sum(after * factor) for after, factor in pairs))
        gradients: dict[str, Array] = {}
        if with_gradients:
            net.flat_grads.fill(0)
            dx, _ = net.backward(tape, dy, dstate.value)
            assert tape.dbefore is not None
            gradients = {name: grad.copy() for name, grad in net.grads.items()} | state_by_name(tape.dbefore)
            if dx is not None:
                gradients["x"] = dx
        return value, gradients, _kink_pattern(net, tape)

    return objective


def _model_objective(model: Model, window: Window, targets: Any, before: State | None) -> Objective:
    """The mean loss of a model."""
    predictor, workspace, reading = model._predictor, Workspace(), Workspace()
    options = WindowOptions(lengths=window.lengths, target_lengths=window.target_lengths)
    weight = predictor.head.loss.weight(targets) or 1.0

    def objective(with_gradients: bool) -> tuple[float, dict[str, Array], bytes]:
        gradients: dict[str, Array] = {}
        needs_gradient = with_gradients or getattr(predictor.head.loss, "smooths_gradients_only", False)
        start, scale = None if before is None else before.value, 1.0 / weight if needs_gradient else None
        model.flat_grads.fill(0)
        tapes, head_tape = predictor.window(window.x, targets, workspace, options._replace(state=start, scale=scale))
        if with_gradients:
            first = tapes[0]
            assert first.dbefore is not None
            gradients = {name: grad.copy() for name, grad in model.grads.items()}
            gradients |= {name: array.copy() for name, array in state_by_name(first.dbefore).items()}
            dx = predictor.networks[0].stack.dx(first)
            if dx is not None:
                gradients["x"] = dx.copy()
        value = float(head_tape.losses.sum()) / weight
        if needs_gradient and not with_gradients:  # the backward pass has overwritten the gates, which tell the sides
            tapes, head_tape = predictor.window(window.x, targets, reading, options._replace(state=start))
        pattern = b"".join(_kink_pattern(net, tape) for net, tape in zip(predictor.networks, tapes, strict=True))
        pattern += b"" if with_gradients else _head_kink_pattern(model, head_tape, targets)
        return value, gradients, pattern

    return objective
