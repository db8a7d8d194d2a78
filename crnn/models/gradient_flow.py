# SPDX-License-Identifier: MIT
"""Gradient flow: the gradient of a loss at the state of every step, which shows whether it vanishes or explodes.

Computed from the kernels' arrays with NumPy, so results are not bit-identical on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from crnn._core.rows import Lengths
from crnn._float_mode import in_ieee_mode
from crnn.checks import Array
from crnn.models.inputs.data import Batch
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.nn.network import RNN
from crnn.nn.recurrence import Recurrence
from crnn.nn.state import StateLike
from crnn.nn.tape import Tape

__all__ = ["GradientFlow", "Model", "check_no_lengths", "estimated_radius", "flow_of_batch", "gradient_flow"]


SQUARINGS = 10  # of `estimated_radius`


class Model(Protocol):
    """A model of this package, as `gradient_flow` needs it."""

    _predictor: Predictor

    def window(self, x: Any, targets: Any, /) -> tuple[Batch, Array]:
        """Checked inputs and targets as one batch."""
        ...


@dataclass(frozen=True)
class GradientFlow:
    """The gradient of a loss at the state of every step: the result of `gradient_flow`.

    Attributes
    ----------
    norms : float64 array (L*directions, T)
        2-norm of dL/dh_t over batch and units.
    saturation : array (L*directions, T)
        Fraction of the activations whose slope is nearly 0. tanh: |h| > 0.97. ReLU: h = 0. Gated cells: all gates.
    spectral_radius : float64 array (L*directions,)
        Largest |eigenvalue| of W_hh, of gated cells of the candidate's block: gradients tend to vanish below 1 and can
        explode above 1. NaN for cells without W_hh.
    """

    norms: Array
    saturation: Array
    spectral_radius: Array

    @property
    def rate(self) -> Array:
        """Factor (L*directions,) by which the norm changes per step back in time, averaged over all steps."""
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
        """Plot the norms over time, one line per layer. Needs the extra ``plot``.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; fresh ones, not connected to pyplot, if not given.

        Returns
        -------
        matplotlib.axes.Axes
        """
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


@in_ieee_mode
def gradient_flow(
    model: Model | RNN,
    batch: tuple[ArrayLike, ArrayLike] | ArrayLike,
    *,
    state: StateLike | None = None,
    lengths: Any = None,
    loss: str = "last",
) -> GradientFlow:
    """Measure |dL/dh_t| for every time step and layer; for a SequenceToSequence, of its encoder.

    Parameters
    ----------
    model : RNN, or a model
        Not changed, including its gradients.
    batch : (ids, targets) for a LanguageModel, (X, y) for models of whole sequences, x for an RNN
    state : see `RNN`, optional
        State before the first step.
    lengths : integers (B,), optional
        As in `RNN.forward`; with an RNN only.
    loss : {"last", "mean"}
        L: the loss of the last target only, so that the norms show how the gradient changes on its way back, or the
        mean loss of all targets. For an RNN, which has no loss, the sum of its outputs at the last step or at all.

    Returns
    -------
    GradientFlow

    Raises
    ------
    TypeError, ValueError
        As in `gradient_check`, or a quantised model, which has no gradients.

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
    if not isinstance(model, RNN):
        check_no_lengths(lengths)
        x, targets = pair_of(model, batch)
        window = model.window(x, targets)
        check_can_have_gradients(model._predictor.networks[0])
        return flow_of_batch(model._predictor, *window, state=state, loss=loss)
    check_can_have_gradients(model)
    y, _, tape = model.forward(np.asarray(batch), state, lengths=lengths)
    dy = np.zeros_like(y)
    dy[last_steps(tape) if loss == "last" else slice(None)] = 1
    for cell in tape.recurrences:
        cell.keep_dh = True
    model.run_backward(tape, dy if tape.lengths is None else tape.lengths.pack(dy), None)
    return _flow(model, tape)


def flow_of_batch(
    predictor: Predictor,
    window: Batch,
    targets: Array,
    *,
    state: StateLike | None = None,
    loss: str = "last",
    largest: int | None = None,
) -> GradientFlow:
    """`gradient_flow` of a model with this predictor, for a batch and targets as `Loss.check` returns them.

    ``largest``: spectral radii of matrices with more rows are estimated, see `estimated_radius`.
    """
    only, wanted = None, targets
    if loss == "last":
        only = last_targets(predictor.head.loss.present(targets), window.target_lengths)
        wanted = predictor.head.loss.keep_only(targets, only)
    options = WindowOptions(
        state=state,
        lengths=window.lengths,
        target_lengths=window.target_lengths,
        only=only,
        scale=1.0 / (predictor.head.loss.weight(wanted) or 1.0),
        states_only=True,
    )
    tapes, _ = predictor.window(window.x, targets, Workspace(), options)
    return _flow(predictor.networks[0], tapes[0], largest)


def _flow(net: RNN, tape: Tape, largest: int | None = None) -> GradientFlow:
    """What a backward pass that keeps the gradients at the states has left in a tape of ``net``."""
    norms, saturation, radii = [], [], []
    for cell in tape.recurrences:
        dh = tape.padded(cell.dh).astype(np.float64)
        norms.append(np.sqrt((dh**2).sum(axis=(1, 2))))
        saturation.append(cell.saturation(tape.lengths))
        radii.append(_spectral_radius(cell, net.stack.params.get(cell.prefix + "W_hh"), largest))
    return GradientFlow(np.array(norms), np.array(saturation), np.array(radii))


def _spectral_radius(cell: Recurrence, w_hh: Array | None, largest: int | None) -> float:
    """Spectral radius of the candidate's block of W_hh; NaN for a cell without W_hh."""
    if w_hh is None:
        return float("nan")
    block = cell.gate(w_hh, cell.info.gate_names[cell.info.candidate])
    if largest is not None and len(block) > largest:
        return estimated_radius(block)
    return float(np.abs(np.linalg.eigvals(block.astype(np.float64))).max())


def estimated_radius(matrix: Array) -> float:
    """Spectral radius of a matrix (H, H) to about 1 %, 8 times faster than from its eigenvalues at H = 512.

    By Gelfand's formula: |A^2k| / |A^k| tends to radius^k.
    """
    power, log_norm, logs = matrix.astype(np.float32), 0.0, [0.0]
    for _ in range(SQUARINGS):
        norm = float(np.linalg.norm(power))
        if not norm > 0:
            return norm  # 0, or NaN
        log_norm += np.log(norm)
        logs.append(log_norm)  # of the power 1, 2, 4, ...
        power /= np.float32(norm)
        power, log_norm = power @ power, 2 * log_norm
    return float(np.exp((logs[-1] - logs[-2]) / 2 ** (SQUARINGS - 2)))


def pair_of(model: object, batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch for a model with a loss. Raises TypeError for another model or batch."""
    if not callable(getattr(type(model), "window", None)):
        raise TypeError(f"model: expected an RNN, or a model with a loss, got {type(model).__name__}")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        of = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(f"batch: expected a pair (inputs, targets) for a model, got {type(batch).__name__}{of}")
    return batch[0], batch[1]


def check_can_have_gradients(net: RNN) -> None:
    """Raise ValueError for a network whose weights are rounded: its products have no gradients."""
    if net.precision is not None:
        raise ValueError(
            f"precision: expected a model in float32 or float64, got {net.precision!r}, which has no gradients; "
            "model.astype('float32') has the same weights"
        )


def check_no_lengths(lengths: object) -> None:
    """Raise ValueError if there are lengths: those of a model's sequences are known."""
    if lengths is not None:
        raise ValueError("lengths: expected with an RNN only; a model's sequences have their own")


def last_targets(present: Array, lengths: Lengths | None) -> Array:
    """bool (T, B), or packed: True for the last target of each sequence that is ``present``, of the same shape."""
    flags = present if lengths is None else lengths.unpack(present)
    later = np.cumsum(flags[::-1], axis=0)[::-1]  # targets from this step on
    last: Array = flags & (later == 1)
    return last if lengths is None else lengths.pack(last)


def last_steps(tape: Tape) -> Any:
    """Index into padded arrays (T, B, ...) of the last step of each sequence."""
    if tape.lengths is None:
        return -1
    return tape.lengths.lengths - 1, np.arange(tape.batch)
