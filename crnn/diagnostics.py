# SPDX-License-Identifier: MIT
"""Looking at gradients: are they right (gradient_check), and do they fade or explode (gradient_flow)?

Numbers first, pictures from them. Nothing here touches weights, so NumPy's own arithmetic is good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from crnn.checks import Array
from crnn.models.head import HeadTape
from crnn.models.language_model import LanguageModel
from crnn.models.losses import Regression
from crnn.models.pooling import Max
from crnn.models.predictor import Workspace
from crnn.models.sequence_model import SequenceModel
from crnn.nn.cells import Recurrence
from crnn.nn.network import RNN
from crnn.nn.state import State, StateLike
from crnn.nn.tape import Tape

Batch = tuple[ArrayLike, ArrayLike]
Model: TypeAlias = LanguageModel | SequenceModel[Any]


# ---- are they right? ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientCheck:
    """Relative error of each gradient: largest |computed - numerical| over the array's largest |numerical|, or where
    that is no more than rounding, over 1."""

    errors: dict[str, float]
    checked: int  # elements compared
    skipped: int  # elements on a kink (ReLU, max, |error|), where there is no derivative to compare with

    @property
    def largest(self) -> float:
        """The largest relative error of all arrays."""
        return max(self.errors.values())

    def __str__(self) -> str:
        lines = [f"{name:<16} {error:.1e}" for name, error in self.errors.items()]
        return "\n".join([*lines, f"{'largest':<16} {self.largest:.1e}  ({self.checked} elements)"])


def gradient_check(
    model: Model | RNN,
    batch: Batch | ArrayLike,
    *,
    state: StateLike | None = None,
    lengths: ArrayLike | None = None,
    samples: int | None = 100,
    step: float = 1e-3,
    seed: int = 0,
) -> GradientCheck:
    """Compare backpropagation with central differences, in float64.

    Parameters
    ----------
    model : RNN, or a model
        Not changed: a float64 copy is checked.
    batch : (ids, targets) for a LanguageModel, (X, y) for models of whole sequences; x for an RNN
        As in their ``loss_and_gradients``, ``fit`` and ``forward``. An RNN's loss is a fixed random combination of its
        outputs and of its state after the last step.
    state : array (L, B, H), optional
        State before the first step, of x; small random numbers if not given, or the learnt state of a model that has
        one.
    samples : int or None
        Elements to check in each array, chosen at random; None: all.
    step : float
        Distance of the differences, which are of fourth order: error about step**4.

    Returns
    -------
    GradientCheck
        For every parameter, for ``state`` but where it is learnt, and for ``x`` where it is real.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(3, 4, num_layers=2, seed=0)
    >>> crnn.gradient_check(net, np.random.default_rng(0).normal(size=(5, 2, 3))).largest < 1e-8
    True
    """
    rng = np.random.default_rng(seed)
    model = model.astype("float64")
    net = model.networks[0] if not isinstance(model, RNN) else model
    if not isinstance(model, RNN):
        _need_no_lengths(lengths)
        x, targets, lengths = model.window(*batch)  # type: ignore[misc]
    else:
        x, targets = net.stack.check_input(_in_float64(batch)), None
    x = x.copy()
    before = None
    if state is not None or not net.trainable_initial_state:
        before = net.stack.new_state(x.shape[1])
        for _, layers in before.parts:
            for array in layers:
                array[...] = rng.uniform(-0.5, 0.5, array.shape)
        if state is not None:
            before.assign("state", _in_float64(state))
    if not isinstance(model, RNN):
        objective = _model_objective(model, x, targets, lengths, before)
    else:
        objective = _network_objective(net, x, lengths, before, rng)
    value, gradients, _ = objective(True)
    arrays = dict(model.params) | ({} if before is None else state_by_name(before))
    arrays |= {"x": x} if x.dtype.kind == "f" else {}
    kinks = net.stack.cell.has_kinks or (not isinstance(model, RNN) and _kinked(model))
    # What rounding leaves of a difference that should be 0.
    noise = 16 * np.finfo(np.float64).eps * max(1.0, abs(value)) / (step / 1000 if kinks else step)

    errors, checked, skipped = {}, 0, 0
    for name, array in arrays.items():
        size = array.size
        chosen = np.arange(size) if samples is None or samples >= size else rng.choice(size, samples, replace=False)
        pairs = []
        for index in chosen:
            numerical = _difference(objective, array.reshape(-1), int(index), step, kinks)
            if numerical is None:
                skipped += 1
            else:
                pairs.append((gradients[name].reshape(-1)[index], numerical))
        if pairs:
            computed, numerical_ = np.array(pairs).T
            largest = np.abs(numerical_).max()
            errors[name] = float(np.abs(computed - numerical_).max() / (largest if largest > noise else 1.0))
            checked += len(pairs)
    return GradientCheck(errors, checked, skipped)


# From "gradients too?" to the loss, the gradients by name, and which ReLUs are on: their pattern must not change while
# a difference is taken.
Objective = Callable[[bool], tuple[float, dict[str, Array], bytes]]


def _difference(objective: Objective, flat: Array, index: int, step: float, kinks: bool) -> float | None:
    """Fourth-order central difference; with kinks, by the first step that stays on one side of all of them."""
    here = flat[index]
    for size in (step, step / 10, step / 100, step / 1000) if kinks else (step,):
        values, patterns = [], set()
        for distance in (-2, -1, 1, 2):
            flat[index] = here + distance * size
            value, _, pattern = objective(False)
            values.append(value)
            patterns.add(pattern)
        flat[index] = here
        if not kinks or len(patterns) == 1:
            before2, before1, after1, after2 = values
            return float((8 * (after1 - before1) - (after2 - before2)) / (12 * size))
    return None


def _pattern(net: RNN, tape: Tape) -> bytes:
    if not net.stack.cell.has_kinks:
        return b""
    return b"".join(np.packbits(cell.side_of_kinks()).tobytes() for cell in tape.recurrences)


def _kinked(model: Model) -> bool:
    """Whether the head or the loss has points without a derivative."""
    loss = model._head.loss
    return model._head.pooling == "max" or (isinstance(loss, Regression) and loss.kind != "mse")


def _head_pattern(model: Model, head: HeadTape, targets: Array) -> bytes:
    """Which step is the largest, and on which side of its target, or of Huber's delta from it, every value is."""
    pattern = head.pooling.which.tobytes() if isinstance(head.pooling, Max) else b""
    loss = model._head.loss
    if isinstance(loss, Regression) and loss.kind != "mse":
        errors = head.outputs.reshape(*targets.shape[:2], len(loss.levels), -1) - targets[:, :, None]
        for kink in (-loss.delta, loss.delta) if loss.kind == "huber" else (0.0,):
            pattern += np.packbits(errors > kink).tobytes()
    return pattern


def _need_no_lengths(lengths: object) -> None:
    if lengths is not None:
        raise ValueError("lengths: expected with an RNN only; a model's sequences have their own")


def _in_float64(value: Any) -> Any:
    """Arrays in a state, or x, in float64; ids stay ids."""
    if isinstance(value, tuple | list) and value and not np.isscalar(value[0]) and np.ndim(value[0]):
        return type(value)(_in_float64(part) for part in value)
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def state_by_name(state: State) -> dict[str, Array]:
    """The arrays of a state: ``state``, or ``state.h`` and ``state.c``, and with [i] where layers differ in size."""
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
    y, _ = net(x, None if before is None else before.value, lengths=lengths)
    of_y, of_state = rng.normal(size=y.shape), net.stack.new_state(x.shape[1])
    for array in state_by_name(of_state).values():
        array[...] = rng.normal(size=array.shape)

    def objective(with_gradients: bool) -> tuple[float, dict[str, Array], bytes]:
        y, _, tape = net.forward(x, None if before is None else before.value, lengths=lengths)
        pairs = zip(state_by_name(tape.after).values(), state_by_name(of_state).values(), strict=True)
        value = float(np.sum(y * of_y) + sum(np.sum(after * factor) for after, factor in pairs))
        gradients: dict[str, Array] = {}
        if with_gradients:
            net.flat_grads.fill(0)
            dx, _ = net.backward(tape, of_y, of_state.value)
            assert tape.dbefore is not None
            gradients = {name: grad.copy() for name, grad in net.grads.items()} | state_by_name(tape.dbefore)
            if dx is not None:
                gradients["x"] = dx
        return value, gradients, _pattern(net, tape)

    return objective


def _model_objective(model: Model, x: Array, targets: Any, lengths: Any, before: State | None) -> Objective:
    weight = model._head.loss.weight(targets) or 1.0
    space, networks = Workspace(), model.networks

    def objective(with_gradients: bool) -> tuple[float, dict[str, Array], bytes]:
        gradients: dict[str, Array] = {}
        start, scale = None if before is None else before.value, 1.0 / weight if with_gradients else None
        model.flat_grads.fill(0)
        tapes, head = model._pass(x, targets, space, state=start, lengths=lengths, scale=scale)
        if with_gradients:
            first = tapes[0]
            assert first.dbefore is not None
            gradients = {name: grad.copy() for name, grad in model.grads.items()}
            gradients |= {name: array.copy() for name, array in state_by_name(first.dbefore).items()}
            dx = networks[0].stack.dx(first)
            if dx is not None:
                gradients["x"] = dx.copy()
        pattern = b"".join(_pattern(net, tape) for net, tape in zip(networks, tapes, strict=True))
        pattern += b"" if with_gradients else _head_pattern(model, head, targets)
        return float(head.losses.sum()) / weight, gradients, pattern

    return objective


# ---- do they fade or explode? ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientFlow:
    """How a loss's gradient travels back through time.

    Attributes
    ----------
    norms : array (L, T)
        2-norm of dL/dh_t over batch and units.
    saturation : array (L, T)
        tanh: share of units with |h| > 0.97, whose slope is nearly 0. ReLU: share of units at 0, whose slope is 0.
    spectral_radius : array (L,)
        Largest |eigenvalue| of W_hh: below 1 gradients tend to fade, above 1 they can explode.
    """

    norms: Array
    saturation: Array
    spectral_radius: Array

    @property
    def rate(self) -> Array:
        """(L,) factor by which the norm changes per step back in time, on average from the last step to the first."""
        first, last = self.norms[:, 0], self.norms[:, -1]
        steps = max(self.norms.shape[1] - 1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate: Array = (first / last) ** (1.0 / steps)
        return rate

    def __str__(self) -> str:
        lines = ["layer  |dL/dh_first|  |dL/dh_last|  per step  saturated  spectral radius"]
        for layer, norms in enumerate(self.norms):
            lines.append(
                f"{layer:5d}  {norms[0]:13.3e}  {norms[-1]:12.3e}  {self.rate[layer]:8.3f}  "
                f"{self.saturation[layer].mean():9.1%}  {self.spectral_radius[layer]:15.3f}"
            )
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the norms over time, a line for each layer, and return the axes. Needs the extra ``plot``."""
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(7, 4), layout="constrained").add_subplot()
        steps = np.arange(1, self.norms.shape[1] + 1)
        for layer, norms in enumerate(self.norms):
            visible = np.where(norms > 0, norms, np.nan)
            ax.semilogy(steps, visible, label=f"layer {layer}, radius {self.spectral_radius[layer]:.2f}")
        ax.set_xlabel("time step t")
        ax.set_ylabel("|dL/dh_t|")
        ax.legend()
        return ax


def gradient_flow(
    model: Model | RNN,
    batch: Batch | ArrayLike,
    *,
    state: StateLike | None = None,
    lengths: Any = None,
    loss: str = "last",
) -> GradientFlow:
    """Measure |dL/dh_t| for every time step and layer; of a SequenceToSequence for its encoder.

    Parameters
    ----------
    model : RNN, or a model
        Its gradients are left as they are.
    batch : (ids, targets) for a LanguageModel, (X, y) for models of whole sequences; x for an RNN
    state : array (L, B, H), optional
    loss : {"last", "mean"}
        Where the gradient starts: at the last step only, so that the norms show what is left of it on the way back, or
        at the mean loss of all steps. An RNN has no loss of its own: its gradient starts at the sum of its outputs.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> x = np.zeros((20, 1, 2), np.float32)
    >>> fading = crnn.RNN(2, 8, recurrent_init="0.5*orthogonal", seed=0)
    >>> crnn.gradient_flow(fading, x).rate.round(3)
    array([0.5])
    """
    if loss not in ("last", "mean"):
        raise ValueError(f"loss: expected last or mean, got {loss!r}")
    copy = model.astype(model.dtype)
    net = copy.networks[0] if not isinstance(copy, RNN) else copy
    if not isinstance(copy, RNN):
        _need_no_lengths(lengths)
        x, targets, lengths = copy.window(*batch)  # type: ignore[misc]
        tape = _flow_of_model(copy, x, targets, lengths, state, loss)
    else:
        x = net.stack.check_input(np.asarray(batch))
        y, _, tape = net.forward(x, state, lengths=lengths)
        dy = np.zeros_like(y)
        dy[last_steps(tape) if loss == "last" else slice(None)] = 1
        _keep_dh(tape)
        net.backward(tape, dy)
    there = np.ones((tape.steps, tape.batch, 1), bool) if tape.lengths is None else ~tape.lengths.padding()[:, :, None]
    norms, saturation, radii = [], [], []
    for cell in tape.recurrences:
        dh = np.where(there, cell.dh, 0).astype(np.float64)
        norms.append(np.sqrt((dh**2).sum(axis=(1, 2))))
        saturation.append(cell.saturation(there))
        radii.append(_spectral_radius(cell, net.params.get(cell.prefix + "W_hh")))
    return GradientFlow(np.array(norms), np.array(saturation), np.array(radii))


def _spectral_radius(cell: Recurrence, w_hh: Array | None) -> float:
    """Of the candidate's block of W_hh; NaN where the cell has none."""
    if w_hh is None:
        return float("nan")
    block = cell.gate(w_hh, cell.info.gate_names[cell.info.candidate]).astype(np.float64)
    return float(np.abs(np.linalg.eigvals(block)).max())


def _flow_of_model(
    model: Model, x: Array, targets: Array, lengths: ArrayLike | None, state: StateLike | None, loss: str
) -> Tape:
    """The tape of the network that reads x, after a backward pass from the model's loss."""
    space, only, wanted = Workspace(), None, targets
    if loss == "last":
        only = last_targets(targets, model._target_lengths(targets, lengths))
        wanted = model._head.loss.keep_only(targets, only)
    scale = 1.0 / (model._head.loss.weight(wanted) or 1.0)
    tapes, _ = model._pass(x, targets, space, state=state, lengths=lengths)
    _keep_dh(tapes[0])  # before the first backward pass, which makes the arrays
    tapes, _ = model._pass(x, targets, space, only=only, state=state, lengths=lengths, scale=scale)
    return tapes[0]


def _keep_dh(tape: Tape) -> None:
    for cell in tape.recurrences:
        cell.keep_dh = True


def last_targets(targets: Array, lengths: ArrayLike | None) -> Array:
    """bool (T, B): each sequence's last target; the only one, where it has one."""
    T, B = targets.shape[:2]
    last = np.full(B, T) if lengths is None or T == 1 else np.asarray(lengths)
    flags: Array = np.arange(1, T + 1)[:, None] == last
    return flags


def last_steps(tape: Tape) -> Any:
    """Index of each sequence's last step into (T, B, ...)."""
    if tape.lengths is None:
        return -1
    return tape.lengths.lengths - 1, np.arange(tape.batch)
