# SPDX-License-Identifier: MIT
"""Looking at gradients: are they right (gradient_check), and do they fade or explode (gradient_flow)?

Numbers first, pictures from them. Nothing here touches weights, so NumPy's own arithmetic is good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn.models import LanguageModel, Workspace
from crnn.network import RNN, Tape
from crnn.text import IGNORE

Array = NDArray[Any]
Batch = tuple[ArrayLike, ArrayLike]

SATURATED = 0.97  # |tanh| beyond which 1 - tanh^2, the slope, is below 0.06


# ---- are they right? ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientCheck:
    """Relative error of each gradient: largest |computed - numerical| over the array's largest |numerical|."""

    errors: dict[str, float]
    checked: int  # elements compared
    skipped: int  # ReLU elements on a kink, where there is no derivative to compare with

    @property
    def largest(self) -> float:
        """The largest relative error of all arrays."""
        return max(self.errors.values())

    def __str__(self) -> str:
        lines = [f"{name:<16} {error:.1e}" for name, error in self.errors.items()]
        return "\n".join([*lines, f"{'largest':<16} {self.largest:.1e}  ({self.checked} elements)"])


def gradient_check(
    model: LanguageModel | RNN,
    batch: Batch | ArrayLike,
    *,
    state: ArrayLike | None = None,
    samples: int | None = 100,
    step: float = 1e-3,
    seed: int = 0,
) -> GradientCheck:
    """Compare backpropagation with central differences, in float64.

    Parameters
    ----------
    model : LanguageModel or RNN
        Not changed: a float64 copy is checked.
    batch : (ids, targets) for a LanguageModel; x for an RNN
        As in their ``loss_and_gradients`` and ``forward``. An RNN's loss is a fixed random combination of its outputs
        and of its state after the last step.
    state : array (L, B, H), optional
        State before the first step; small random numbers if not given.
    samples : int or None
        Elements to check in each array, chosen at random; None: all.
    step : float
        Distance of the differences, which are of fourth order: error about step**4.

    Returns
    -------
    GradientCheck
        For every parameter, for ``state``, and for ``x`` where it is real.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(3, 4, num_layers=2, seed=0)
    >>> crnn.gradient_check(net, np.random.default_rng(0).normal(size=(5, 2, 3))).largest < 1e-8
    True
    """
    rng = np.random.default_rng(seed)
    net = model.net if isinstance(model, LanguageModel) else model
    x = np.array(batch[0] if isinstance(model, LanguageModel) else batch)  # type: ignore[index]
    if x.dtype.kind == "f":
        x = x.astype(np.float64)
    shape = (net.num_layers, x.shape[1], net.hidden_size)
    h0 = rng.uniform(-0.5, 0.5, shape) if state is None else np.array(state, np.float64)

    if isinstance(model, LanguageModel):
        model = model.astype("float64")
        objective = _language_model_objective(model, x, np.asarray(batch[1]), h0)  # type: ignore[index]
    else:
        model = _copy_of(model, "float64")
        objective = _network_objective(model, x, h0, rng)
    _, gradients, _ = objective(True)
    arrays = dict(model.params) | {"state": h0} | ({"x": x} if x.dtype.kind == "f" else {})
    kinks = net.cell == "relu"

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
            errors[name] = float(np.abs(computed - numerical_).max() / (largest if largest > 0 else 1.0))
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
    return b"".join(np.packbits(h > 0).tobytes() for h in tape.h) if net.cell == "relu" else b""


def _network_objective(net: RNN, x: Array, h0: Array, rng: np.random.Generator) -> Objective:
    y, state, _ = net.forward(x, h0)
    of_y, of_state = rng.normal(size=y.shape), rng.normal(size=state.shape)

    def objective(with_gradients: bool) -> tuple[float, dict[str, Array], bytes]:
        y, state, tape = net.forward(x, h0)
        value = float(np.sum(y * of_y) + np.sum(state * of_state))
        gradients: dict[str, Array] = {}
        if with_gradients:
            net.flat_grads.fill(0)
            dx, dstate = net.backward(tape, of_y, of_state)
            gradients = {name: grad.copy() for name, grad in net.grads.items()} | {"state": dstate}
            if dx is not None:
                gradients["x"] = dx
        return value, gradients, _pattern(net, tape)

    return objective


def _language_model_objective(model: LanguageModel, ids: Array, targets: Array, h0: Array) -> Objective:
    count = max(int(np.count_nonzero(targets != IGNORE)), 1)
    space = Workspace()

    def objective(with_gradients: bool) -> tuple[float, dict[str, Array], bytes]:
        gradients: dict[str, Array] = {}
        if with_gradients:
            model.flat_grads.fill(0)
            model.loss_and_gradients(ids, targets, h0, workspace=space)
            assert space.tape is not None
            assert space.tape.dh0 is not None
            gradients = {name: grad.copy() for name, grad in model.grads.items()}
            gradients["state"] = space.tape.dh0.copy()
        losses, _ = model.losses(ids, targets, h0, workspace=space)
        assert space.tape is not None
        return float(losses.sum()) / count, gradients, _pattern(model.net, space.tape)

    return objective


def _copy_of(net: RNN, dtype: str) -> RNN:
    copy = RNN(
        net.input_size,
        net.hidden_size,
        net.num_layers,
        net.cell,
        embedding_size=net.embedding_size,
        dtype=dtype,
        recurrent_init="zeros",
    )
    copy.flat_params[...] = net.flat_params
    return copy


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
    model: LanguageModel | RNN,
    batch: Batch | ArrayLike,
    *,
    state: ArrayLike | None = None,
    loss: str = "last",
) -> GradientFlow:
    """Measure |dL/dh_t| for every time step and layer.

    Parameters
    ----------
    model : LanguageModel or RNN
        Its gradients are left as they are.
    batch : (ids, targets) for a LanguageModel; x for an RNN
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
    if isinstance(model, LanguageModel):
        net, tape, dy = _language_model_flow(model, batch, state, loss)  # type: ignore[arg-type]
    else:
        net = _copy_of(model, model.dtype)
        y, _, tape = net.forward(batch, state)  # type: ignore[arg-type]
        dy = np.zeros_like(y)
        dy[-1 if loss == "last" else slice(None)] = 1
        net.backward(tape, dy)
    norms, saturation, radii = [], [], []
    arriving = dy.astype(np.float64)
    for layer in reversed(range(net.num_layers)):
        w_hh = net.params[f"layer{layer}.W_hh"].astype(np.float64)
        da, h = tape.da[layer].astype(np.float64), tape.h[layer]
        arriving[:-1] += da[1:] @ w_hh.T  # forward: a[t+1] = ... + h[t] @ W_hh
        norms.append(np.sqrt((arriving**2).sum(axis=(1, 2))))
        flat = np.abs(h) > SATURATED if net.cell == "tanh" else h <= 0
        saturation.append(flat.mean(axis=(1, 2)))
        radii.append(np.abs(np.linalg.eigvals(w_hh)).max())
        arriving = da @ net.params[f"layer{layer}.W_xh"].astype(np.float64).T
    return GradientFlow(np.array(norms[::-1]), np.array(saturation[::-1]), np.array(radii[::-1]))


def _language_model_flow(
    model: LanguageModel, batch: Batch, state: ArrayLike | None, loss: str
) -> tuple[RNN, Tape, Array]:
    copy = model.astype(model.dtype)
    ids, targets = np.asarray(batch[0]), np.array(batch[1])
    if loss == "last":
        targets[:-1] = IGNORE
    space = Workspace()
    copy.loss_and_gradients(ids, targets, state, workspace=space)
    assert space.tape is not None
    assert space.head is not None
    # The head has turned its logits into their gradient: logits = h @ W_hy + b_y, so dh = dlogits @ W_hy.T
    return copy.net, space.tape, space.head.logits @ copy.params["W_hy"].T
