# SPDX-License-Identifier: MIT
"""What the tests of the task models share: data of unequal lengths, and the oracle with a head, pooling and a loss."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import oracle
from model_tools import stir
from numpy.typing import ArrayLike, NDArray
from oracle_cells import steps_there

import crnn
from crnn._core import cells

Array = NDArray[Any]

CELLS = list(cells.CELLS)
LENGTHS = [4, 1, 6, 3, 6, 2, 5]  # in no order; some twice
EQUAL = [5] * 7
D, V, H = 3, 4, 5  # inputs, classes or ids, units


def make(kind: type[Any], *args: Any, cell: str = "gru", **options: Any) -> Any:
    """A small model with weights that hide nothing."""
    model = kind(*args, cell=cell, **({"hidden_size": H, "seed": 3} | options))
    stir(model.flat_params)
    return model


def classifier(**options: Any) -> crnn.SequenceClassifier:
    return make(crnn.SequenceClassifier, D, V, **options)


def tagger(**options: Any) -> crnn.SequenceTagger:
    return make(crnn.SequenceTagger, D, V, **options)


def regressor(P: int = 2, **options: Any) -> crnn.SequenceRegressor:
    return make(crnn.SequenceRegressor, D, P, **options)


def everything(model: Any) -> Array:
    """What an error must not change."""
    parts = [part for scaling in model.scalings.values() for part in (scaling.mean, scaling.std)]
    return np.concatenate([model.flat_params.astype(np.float64), *parts])


def reals(rng: np.random.Generator, lengths: Sequence[int] = LENGTHS, size: int = D) -> list[Array]:
    """Real sequences whose columns have different means and deviations."""
    return [rng.normal(np.arange(size) + 1, np.arange(size) + 0.5, (n, size)) for n in lengths]


def id_sequences(rng: np.random.Generator, lengths: Sequence[int] = LENGTHS, size: int = D) -> list[Array]:
    return [rng.integers(size, size=n) for n in lengths]


def labels(rng: np.random.Generator, lengths: Sequence[int] | None = None, n: int = len(LENGTHS)) -> Any:
    """Class numbers of n sequences, or of the steps of each; some of them unknown."""
    if lengths is None:
        numbers = rng.integers(V, size=n)
        numbers[1] = -1
        return numbers
    steps = [rng.integers(V, size=n) for n in lengths]
    steps[0][-1] = steps[2][1] = -1
    return steps


def answers(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Yes or no, or how sure, with holes."""
    drawn = [rng.integers(2, size=shape).astype(float) for shape in shapes]
    drawn[0].reshape(-1)[0] = np.nan
    drawn[-1].reshape(-1)[-1] = 0.25
    return drawn


def values(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Targets far from the unit normal, with two holes, in the first column: an odd number is left in each."""
    drawn = [rng.normal(7, 3, shape) for shape in shapes]
    drawn[0].reshape(-1)[0] = drawn[2].reshape(-1)[0] = np.nan
    return drawn


# ---- the oracle ----------------------------------------------------------------------------------------------------


def as_batch(sequences: Sequence[Array], padding: float = 0) -> Array:
    """(T, B, ...) of sequences (T_b, ...)."""
    shape = (max(map(len, sequences)), len(sequences), *np.shape(sequences[0])[1:])
    together = np.full(shape, padding, np.asarray(sequences[0]).dtype)
    for b, sequence in enumerate(sequences):
        together[: len(sequence), b] = sequence
    return together


def pooled(
    y: Array, lengths: ArrayLike, how: str, sizes: Sequence[int], directions: int
) -> tuple[Array, Callable[[Array], Array]]:
    """One row a sequence, (B, F'), of y (T, B, F); and what takes its gradient back to y. ``sizes``: H of each layer in
    y."""
    T, B, F = y.shape
    there, rows, last = steps_there(T, B, lengths), np.arange(B), np.asarray(lengths) - 1
    if how == "last":
        forward = np.concatenate([np.repeat([True, False][:directions], H) for H in sizes])
        # the reverse direction ends at the first step
        ends = np.where(forward, (np.arange(T)[:, None] == last)[..., None], (np.arange(T) == 0)[:, None, None])
        return (y * ends).sum(axis=0), lambda d: d * ends
    if how == "mean":
        share = there / np.asarray(lengths)[:, None]
        return (y * share).sum(axis=0), lambda d: d * share
    if how == "max":
        which = np.where(there, y, -np.inf).argmax(axis=0)
        return y[which, rows[:, None], np.arange(F)], lambda d: d * (np.arange(T)[:, None, None] == which)
    side_by_side = y.transpose(1, 0, 2)
    return side_by_side.reshape(B, -1), lambda d: d.reshape(B, T, F).transpose(1, 0, 2)


def log_sigmoid(y: Array) -> Array:
    return -np.logaddexp(0, -y)


def softmax_loss(
    y: Array, targets: Array, weights: ArrayLike | None = None, smoothing: float = 0.0
) -> tuple[float, Array, float]:
    """The sum of the losses, its gradient at y, and what their mean is divided by; as PyTorch defines them."""
    size = y.shape[-1]
    known = targets != -1
    w = np.ones(size) if weights is None else np.asarray(weights, float)
    safe = np.where(known, targets, 0)
    wanted = ((1 - smoothing) * np.eye(size)[safe] + smoothing / size) * w * known[..., None]
    log_p = y - y.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    dy = np.exp(log_p) * wanted.sum(axis=-1, keepdims=True) - wanted
    return -(wanted * log_p).sum(), dy, (w[safe] * known).sum()


def sigmoid_loss(y: Array, targets: Array, weights: ArrayLike | None = None) -> tuple[float, Array, float]:
    known = ~np.isnan(targets)
    t, w = np.where(known, targets, 0), np.ones(y.shape[-1]) if weights is None else np.asarray(weights, float)
    losses = -(w * t * log_sigmoid(y) + (1 - t) * log_sigmoid(-y))
    p = np.exp(log_sigmoid(y))
    return losses[known].sum(), np.where(known, (1 - t) * p - w * t * (1 - p), 0), known.sum()


def regression_loss(
    y: Array, targets: Array, kind: str, delta: float = 1.0, levels: Sequence[float] = (0.5,)
) -> tuple[float, Array, float]:
    """The outputs of a quantile loss lie in blocks, one for each level."""
    known = ~np.isnan(targets)
    total, blocks = 0.0, []
    for level, block in zip(levels, np.split(y, len(levels), axis=-1), strict=True):
        e = np.where(known, block - np.where(known, targets, 0), 0)
        if kind == "mse":
            loss, de = e**2, 2 * e
        elif kind == "mae":
            loss, de = abs(e), np.sign(e)
        elif kind == "huber":
            loss, de = np.where(abs(e) <= delta, e**2 / 2, delta * (abs(e) - delta / 2)), np.clip(e, -delta, delta)
        else:
            slope = np.where(e > 0, 1 - level, np.where(e < 0, -level, 0))
            loss, de = slope * e, slope
        total += loss.sum()
        blocks.append(de)
    return total, np.concatenate(blocks, axis=-1), known.sum()


def oracle_outputs(
    model: Any, sequences: Sequence[Array], mask: Array | float = 1.0
) -> tuple[Array, Callable[[Array], dict[str, Array]]]:
    """The head's outputs (T, B, V) or (1, B, V) of scaled sequences; and what turns their gradient into all others.

    ``mask`` is that of the head's input.
    """
    params = {name: array.astype(np.float64) for name, array in model.params.items()}
    of_net = {name: params[name] for name in model.net.params}
    W, b = params["W_hy"], params["b_y"]
    lengths = [len(sequence) for sequence in sequences]
    dense = model.net.dense_layers
    tape = oracle.rnn_forward(of_net, as_batch(sequences), None, model.net.cell, lengths=lengths, dense=dense)
    if model.pooling is None:
        h, back = tape.y, lambda d: d
    else:
        sizes = model.net.hidden_sizes[0 if dense else -1 :]
        row, back = pooled(tape.y, lengths, model.pooling, sizes, model.net.directions)
        h = row[None]

    h = h * mask

    def gradients(dy: Array) -> dict[str, Array]:
        dh = dy @ W.T * mask
        grads, _, _ = oracle.rnn_backward(of_net, tape, back(dh[0] if model.pooling else dh))
        return grads | {"W_hy": np.einsum("tbh,tbv->hv", h, dy), "b_y": dy.sum(axis=(0, 1))}

    return h @ W + b, gradients


def standardised(sequences: Sequence[Array]) -> list[Array]:
    """By mean and deviation of all steps, NaN left out."""
    together = np.concatenate(sequences)
    return [(s - np.nanmean(together, axis=0)) / np.nanstd(together, axis=0) for s in sequences]
