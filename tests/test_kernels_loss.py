# SPDX-License-Identifier: MIT
"""Softmax, cross-entropy, sums."""

import math

import numpy as np
import oracle
import pytest
from kernel_tools import TOLERANCE, WIDTHS, Guarded, assert_close, assert_same_bits, difference_gradient, slices

from crnn._core import loss, vecmath
from crnn._core.rows import Lengths

T, B, V = 3, 5, 11
IGNORE_INDEX = -100

pytestmark = pytest.mark.usefixtures("isa")


def cross_entropy(arrays: Guarded, logits, targets, scale=1.0, parts=None):
    losses, dlogits = arrays.output(*targets.shape), arrays.output(*logits.shape)
    for b0, b1 in parts or [(0, targets.shape[1])]:
        loss.softmax_cross_entropy(losses, dlogits, logits, targets, scale, IGNORE_INDEX, b0, b1)
    return losses, dlogits


def some(arrays: Guarded, rng, V=V, size=3.0):
    return arrays.input(size * rng.normal(size=(T, B, V))), rng.integers(V, size=(T, B), dtype=np.int32)


@pytest.mark.parametrize("V", [*WIDTHS, 2, 65, 257])
@pytest.mark.parametrize("size", [0.01, 3.0, 100.0])
def test_cross_entropy_and_its_gradient(arrays, rng, V, size):
    logits, targets = some(arrays, rng, V, size)
    targets[1, 2] = targets[2, 4] = IGNORE_INDEX
    losses, dlogits = cross_entropy(arrays, logits, targets, 0.25)
    expected, gradient = oracle.cross_entropy(logits.astype("f8"), targets, IGNORE_INDEX)
    if V == 1:  # nothing to choose from
        np.testing.assert_array_equal(losses, 0)
        np.testing.assert_array_equal(dlogits, 0)
        return
    assert_close(losses, expected)
    assert_close(dlogits, 0.25 * gradient)
    assert (losses[targets == IGNORE_INDEX] == 0).all()
    assert (dlogits[targets == IGNORE_INDEX] == 0).all()


@pytest.mark.parametrize("V", [11, 16, 33])
def test_the_loss_alone_and_in_place_have_the_same_bits(arrays, rng, V):
    logits, targets = some(arrays, rng, V)
    targets[0, 1] = IGNORE_INDEX
    losses, dlogits = cross_entropy(arrays, logits, targets, 0.3)
    alone, in_place, separate = arrays.output(T, B), arrays.inout(logits), arrays.output(T, B)
    loss.softmax_cross_entropy(alone, None, logits, targets, 0.3, IGNORE_INDEX, 0, B)
    loss.softmax_cross_entropy(separate, in_place, in_place, targets, 0.3, IGNORE_INDEX, 0, B)
    assert_same_bits(alone, losses)
    assert_same_bits(separate, losses)
    assert_same_bits(in_place, dlogits)


def test_slices_and_places_in_the_batch_do_not_change_bits(arrays, rng):
    logits, targets = some(arrays, rng, 33)
    order = rng.permutation(B)
    losses, dlogits = cross_entropy(arrays, logits, targets)
    in_slices = cross_entropy(arrays, logits, targets, 1.0, slices(B))
    assert_same_bits(in_slices[0], losses)
    assert_same_bits(in_slices[1], dlogits)
    moved = cross_entropy(arrays, arrays.input(logits[:, order]), np.ascontiguousarray(targets[:, order]))
    assert_same_bits(moved[0], losses[:, order])
    assert_same_bits(moved[1], dlogits[:, order])
    part = cross_entropy(arrays, logits, targets, 1.0, [(1, 3)])
    for got, expected in zip(part, (losses, dlogits), strict=True):
        assert_same_bits(got[:, 1:3], expected[:, 1:3])
        assert np.isnan(np.delete(got, np.s_[1:3], axis=1)).all()


@pytest.mark.parametrize("V", [2, 7, 16, 65, 1000])
def test_uniform_logits_give_log_V(arrays, V):
    logits, targets = arrays.input(np.full((1, 2, V), 2.5)), np.array([[0, V - 1]], np.int32)
    losses, dlogits = cross_entropy(arrays, logits, targets)
    eps = np.finfo(arrays.dtype).eps
    np.testing.assert_allclose(losses, np.log(V), rtol=eps)
    np.testing.assert_allclose(dlogits[0, 0, 1:], 1 / V, rtol=eps)


def test_a_constant_added_to_logits_changes_no_bit(arrays, rng):
    logits = np.round(rng.normal(size=(T, B, V)) * 16) / 16  # so that adding is exact
    targets = rng.integers(V, size=(T, B), dtype=np.int32)
    moved = cross_entropy(arrays, arrays.input(logits + 1024), targets)
    for got, expected in zip(moved, cross_entropy(arrays, arrays.input(logits), targets), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1024 * np.finfo(arrays.dtype).eps)
    assert_same_bits(moved[1], cross_entropy(arrays, arrays.input(logits - 512), targets)[1])


def test_rows_of_dlogits_sum_to_zero(arrays, rng):
    _, dlogits = cross_entropy(arrays, *some(arrays, rng, 257))
    assert np.abs(dlogits.sum(axis=-1, dtype="f8")).max() < 257 * np.finfo(arrays.dtype).eps
    assert np.abs(dlogits).max() > 0.1


def test_large_logits_neither_overflow_nor_vanish(arrays):
    logits = arrays.input(np.array([[[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [20.0, -20.0, 0.0]]]))
    losses, dlogits = cross_entropy(arrays, logits, np.array([[1, 2, 1]], np.int32))
    np.testing.assert_allclose(losses, [[2e4, np.log(3), 40 + np.log1p(np.exp(-20))]], rtol=1e-6)
    np.testing.assert_allclose(dlogits[0, :2], [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("V", [11, 16, 37])
@pytest.mark.parametrize("where", [0, 5, -1])
def test_not_a_number_in_a_row_makes_its_loss_nan(arrays, rng, V, where):
    logits, targets = rng.normal(size=(1, B, V)), np.full((1, B), 3, np.int32)
    logits[0, 2, where] = np.nan
    losses, dlogits = cross_entropy(arrays, arrays.input(logits), targets)
    np.testing.assert_array_equal(np.isnan(losses[0]), np.arange(B) == 2)
    np.testing.assert_array_equal(np.isnan(dlogits[0]).all(axis=1), np.arange(B) == 2)
    assert not np.isnan(np.delete(dlogits, 2, axis=1)).any()


@pytest.mark.parametrize("V", [11, 16, 37])
def test_infinite_logits(arrays, rng, V):
    logits, targets = rng.normal(size=(1, 4, V)), np.full((1, 4), 3, np.int32)
    logits[0, 0, 5] = -np.inf  # an impossible class
    logits[0, 1, 3] = -np.inf  # the impossible class came
    logits[0, 2, 5] = np.inf
    logits[0, 3, :] = -np.inf
    losses, dlogits = cross_entropy(arrays, arrays.input(logits), targets)
    assert np.isfinite(losses[0, 0])
    assert dlogits[0, 0, 5] == 0
    assert losses[0, 1] == np.inf
    assert not np.isfinite(losses[0, 2:]).any()


# ---- cross-entropy with weights and smoothing ----------------------------------------------------------------


def weighted_cross_entropy(logits, targets, weights, smoothing):
    """The loss of each target by PyTorch's definition, from log softmax."""
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    safe = np.where(targets == IGNORE_INDEX, 0, targets)
    at_target = weights[safe] * -np.take_along_axis(log_p, safe[..., None], axis=-1)[..., 0]
    losses = (1 - smoothing) * at_target + smoothing / logits.shape[-1] * (weights * -log_p).sum(axis=-1)
    return np.where(targets == IGNORE_INDEX, 0, losses)


@pytest.mark.parametrize("V", [2, 7, 8, 9, 16, 33, 65])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.125, 1.0])
def test_weights_and_smoothing_and_their_gradient(arrays, rng, V, weighted, smoothing):
    logits, targets = some(arrays, rng, V)
    targets[1, 2] = IGNORE_INDEX
    weights = rng.uniform(0.2, 3, V) if weighted else np.ones(V)
    given = arrays.input(weights) if weighted else None
    losses, dlogits = arrays.output(T, B), arrays.output(T, B, V)
    loss.softmax_cross_entropy(losses, dlogits, logits, targets, 0.25, IGNORE_INDEX, 0, B, None, given, smoothing)
    x = logits.astype("f8")
    assert_close(losses, weighted_cross_entropy(x, targets, weights, smoothing))
    gradient = difference_gradient(lambda x: weighted_cross_entropy(x, targets, weights, smoothing).sum(), x)
    assert_close(dlogits, 0.25 * gradient, TOLERANCE["float32"])
    assert (dlogits[1, 2] == 0).all()
    assert losses[1, 2] == 0

    alone, separate, in_place = arrays.output(T, B), arrays.output(T, B), arrays.inout(logits)
    loss.softmax_cross_entropy(alone, None, logits, targets, 0.25, IGNORE_INDEX, 0, B, None, given, smoothing)
    loss.softmax_cross_entropy(separate, in_place, in_place, targets, 0.25, IGNORE_INDEX, 0, B, None, given, smoothing)
    assert_same_bits(alone, losses)
    assert_same_bits(separate, losses)
    assert_same_bits(in_place, dlogits)


def test_weights_of_one_and_no_smoothing_change_no_bit(arrays, rng):
    logits, targets = some(arrays, rng, 37)
    weighted, gradient = arrays.output(T, B), arrays.output(T, B, 37)
    loss.softmax_cross_entropy(
        weighted, gradient, logits, targets, 0.3, IGNORE_INDEX, 0, B, weights=arrays.input(np.ones(37)), smoothing=0.0
    )
    losses, dlogits = cross_entropy(arrays, logits, targets, 0.3)
    assert_same_bits(weighted, losses)
    assert_same_bits(gradient, dlogits)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [0.1, 3.0, 100.0])
def test_cross_entropy_agrees_with_pytorch(torch, arrays, rng, weighted, smoothing, size):
    logits, targets = some(arrays, rng, 37, size)
    targets[0, 3] = IGNORE_INDEX
    weights = arrays.input(rng.uniform(0.2, 3, 37)) if weighted else None
    losses, dlogits = arrays.output(T, B), arrays.output(T, B, 37)
    loss.softmax_cross_entropy(losses, dlogits, logits, targets, 1.0, IGNORE_INDEX, 0, B, None, weights, smoothing)
    x = torch.tensor(logits.reshape(-1, 37).astype("f8"), requires_grad=True)
    total = torch.nn.functional.cross_entropy(
        x,
        torch.tensor(targets.reshape(-1).astype("i8")),
        weight=torch.tensor(weights.astype("f8")) if weighted else None,
        label_smoothing=smoothing,
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )
    total.backward()
    assert losses.sum(dtype="f8") == pytest.approx(total.item(), rel=TOLERANCE[arrays.dtype.name])
    assert_close(dlogits, x.grad.numpy().reshape(T, B, 37))


# ---- sigmoid cross-entropy -------------------------------------------------------------------------------------


def sigmoid_loss(x, targets, weights):
    """By the definition, in float64; log(1 + e^x) is NumPy's logaddexp(0, x). NaN targets count for nothing."""
    each = weights * targets * np.logaddexp(0, -x) + (1 - targets) * np.logaddexp(0, x)
    return np.where(np.isnan(targets), 0, each).sum(axis=-1)


def answers(rng, *shape):
    """Yes, no, something between, or nothing."""
    return rng.choice([0, 1, 0.25, np.nan], shape, p=[0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("V", [*WIDTHS[:-2], 65])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [0.01, 3.0])
def test_sigmoid_cross_entropy_and_its_gradient(arrays, rng, V, weighted, size):
    logits = arrays.input(size * rng.normal(size=(T, B, V)))
    targets, weights = arrays.input(answers(rng, T, B, V)), arrays.input(rng.uniform(0.3, 3, V))
    losses, dlogits = arrays.output(T, B), arrays.output(T, B, V)
    loss.sigmoid_cross_entropy(losses, dlogits, logits, targets, 0.25, 0, B, None, weights if weighted else None)
    x, w = logits.astype("f8"), weights.astype("f8") if weighted else np.ones(V)
    assert_close(losses, sigmoid_loss(x, targets, w))
    gradient = difference_gradient(lambda x: sigmoid_loss(x, targets, w).sum(), x, 1e-3)
    assert_close(dlogits, 0.25 * gradient, TOLERANCE["float32"])
    assert (dlogits[np.isnan(targets)] == 0).all()


def test_sigmoid_cross_entropy_keeps_the_bits_of_small_results(arrays):
    """A sure and right answer: loss and gradient are e^-|x|, which 1 - sigmoid would have lost."""
    x = np.array([30.0, -30.0, 80.0, -80.0, 17.0])
    losses, dlogits = arrays.output(1, 5), arrays.output(1, 5, 1)
    logits, targets = arrays.input(x.reshape(1, 5, 1)), arrays.input((x > 0).reshape(1, 5, 1))
    loss.sigmoid_cross_entropy(losses, dlogits, logits, targets, 1.0, 0, 5)
    np.testing.assert_allclose(losses[0], np.log1p(np.exp(-np.abs(x))), rtol=8 * np.finfo(arrays.dtype).eps)
    slope = -np.sign(x) / (1 + np.exp(np.abs(x)))
    np.testing.assert_allclose(dlogits[0, :, 0], slope, rtol=8 * np.finfo(arrays.dtype).eps)


@pytest.mark.parametrize("V", [1, 11, 16, 37])
def test_sigmoid_cross_entropy_of_special_values(arrays, V):
    x = np.array([np.inf, np.inf, -np.inf, -np.inf, np.nan, np.nan, np.inf, 1e4, -1e4, 0.0, -0.0])
    target = np.array([1, 0, 1, 0, 1, np.nan, np.nan, 0, 1, 1, 0])
    expected = np.array([0, np.inf, np.inf, 0, np.nan, 0, 0, 1e4, 1e4, np.log(2), np.log(2)])
    slope = np.array([0, 1, -1, 0, np.nan, 0, 0, 1, -1, -0.5, 0.5])
    logits, targets = np.full((1, 11, V), -np.inf), np.zeros((1, 11, V))  # the others' loss is 0
    logits[0, :, -1], targets[0, :, -1] = x, target
    losses, dlogits = arrays.output(1, 11), arrays.output(1, 11, V)
    loss.sigmoid_cross_entropy(losses, dlogits, arrays.input(logits), arrays.input(targets), 1.0, 0, 11)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-6)
    np.testing.assert_allclose(dlogits[0, :, -1], slope, rtol=1e-6)
    assert (dlogits[..., :-1] == 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_cross_entropy_agrees_with_pytorch(torch, arrays, rng, weighted):
    logits, targets = arrays.input(4 * rng.normal(size=(T, B, 37))), arrays.input(rng.uniform(size=(T, B, 37)))
    weights = arrays.input(rng.uniform(0.3, 3, 37)) if weighted else None
    losses, dlogits = arrays.output(T, B), arrays.output(T, B, 37)
    loss.sigmoid_cross_entropy(losses, dlogits, logits, targets, 1.0, 0, B, pos_weights=weights)
    x = torch.tensor(logits.astype("f8"), requires_grad=True)
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        x,
        torch.tensor(targets.astype("f8")),
        pos_weight=torch.tensor(weights.astype("f8")) if weighted else None,
        reduction="none",
    )
    each.sum().backward()
    assert_close(losses, each.detach().numpy().sum(axis=-1))
    assert_close(dlogits, x.grad.numpy())


# ---- regression --------------------------------------------------------------------------------------------------

KINDS = {
    "squared": (loss.SQUARED, None),
    "absolute": (loss.ABSOLUTE, None),
    "huber": (loss.HUBER, [0.75]),
    "quantile": (loss.QUANTILE, [0.1, 0.5, 0.875]),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def errors_of(y, targets):
    """y - targets, each of y's blocks by itself: (T, B, P, N)."""
    return y.reshape(*targets.shape[:2], -1, targets.shape[2]) - targets[:, :, None]


def regression(kind, y, targets):
    """The losses by their definitions, and the slopes at y."""
    e, q = errors_of(y, targets), np.reshape(KINDS[kind][1] or [0], (-1, 1))
    each, slope = {
        "squared": (e**2, 2 * e),
        "absolute": (np.abs(e), np.sign(e)),
        "huber": (np.where(np.abs(e) <= q, e**2 / 2, q * (np.abs(e) - q / 2)), np.clip(e, -q, q)),
        "quantile": (np.maximum((1 - q) * e, -q * e), np.where(e > 0, 1 - q, np.where(e < 0, -q, 0 * e))),
    }[kind]
    missing = np.isnan(targets)[:, :, None]
    return np.where(missing, 0, each).sum(axis=(2, 3)), np.where(missing, 0, slope).reshape(y.shape)


def run_regression(arrays, kind, y, targets, scale=1.0, parts=((0, B),)):
    number, parameters = KINDS[kind]
    given = parameters and arrays.input(parameters)
    losses, dy = arrays.output(*targets.shape[:2]), arrays.output(*y.shape)
    for b0, b1 in parts:
        loss.regression_loss(losses, dy, y, targets, number, given, scale, b0, b1)
    return losses, dy


@kinds
@pytest.mark.parametrize("N", WIDTHS)
def test_regression_and_its_gradient(arrays, rng, kind, N):
    P = len(KINDS[kind][1] or [0])
    targets = rng.normal(size=(T, B, N))
    targets[rng.random(targets.shape) < 0.1] = np.nan
    y = rng.normal(size=(T, B, P * N))
    y[rng.random(y.shape) < 0.1] = 0.5  # hits some targets exactly
    targets[:, :, 0] = 0.5
    y, targets = arrays.input(y), arrays.input(targets)
    losses, dy = run_regression(arrays, kind, y, targets, 0.25)
    expected, gradient = regression(kind, y.astype("f8"), targets.astype("f8"))
    assert_close(losses, expected)
    assert_close(dy, 0.25 * gradient)


@kinds
@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_slopes_of_regression_are_those_of_its_losses(arrays, rng, kind):
    P = len(KINDS[kind][1] or [0])
    targets = arrays.input(np.round(rng.normal(size=(T, B, 11)), 2))
    y = np.round(rng.normal(size=(T, B, P * 11)), 2) + 0.003  # no kink within a difference's step
    _, dy = run_regression(arrays, kind, arrays.input(y), targets)
    gradient = difference_gradient(lambda y: run_regression(arrays, kind, arrays.input(y), targets)[0].sum(), y)
    assert_close(dy, gradient, 1e-9)


@kinds
@pytest.mark.parametrize("N", [1, 11, 16, 37])
def test_regression_of_special_values(arrays, kind, N):
    P = len(KINDS[kind][1] or [0])
    places = np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan, np.nan, np.inf, 1.0])
    wanted = np.array([0.0, 0.0, 1.5, 1.0, 1.0, 1.0, np.nan, np.nan, np.inf])
    y, targets = np.zeros((1, 9, P, N)), np.zeros((1, 9, N))
    y[0, :, :, -1], targets[0, :, -1] = places[:, None], wanted
    y = arrays.input(y.reshape(1, 9, P * N))
    losses, dy = run_regression(arrays, kind, y, arrays.input(targets), parts=[(0, 9)])
    with np.errstate(invalid="ignore"):
        _, slopes = regression(kind, y.astype("f8"), targets)
    slopes = slopes.reshape(9, P, N)[:, :, -1]
    np.testing.assert_array_equal(losses[0], [0, 0, 0, np.inf, np.inf, np.nan, 0, 0, np.inf])
    np.testing.assert_allclose(dy.reshape(9, P, N)[:, :, -1], slopes, rtol=1e-6)
    assert np.isnan(slopes[5]).all()
    assert (dy.reshape(9, P, N)[:, :, :-1] == 0).all()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"quantile"}))  # PyTorch has no quantile loss
def test_regression_agrees_with_pytorch(torch, arrays, rng, kind):
    y, targets = arrays.input(rng.normal(size=(T, B, 37))), arrays.input(rng.normal(size=(T, B, 37)))
    losses, dy = run_regression(arrays, kind, y, targets)
    x, z = torch.tensor(y.astype("f8"), requires_grad=True), torch.tensor(targets.astype("f8"))
    each = {
        "squared": lambda: torch.nn.functional.mse_loss(x, z, reduction="none"),
        "absolute": lambda: torch.nn.functional.l1_loss(x, z, reduction="none"),
        "huber": lambda: torch.nn.functional.huber_loss(x, z, reduction="none", delta=0.75),
    }[kind]()
    each.sum().backward()
    assert_close(losses, each.detach().numpy().sum(axis=-1))
    assert_close(dy, x.grad.numpy())


def test_a_quantiles_loss_is_least_at_the_quantile(arrays, rng):
    """The pinball loss of many draws, for three levels at once, over a grid of constant predictions."""
    draws, grid = rng.normal(size=(2000, 1, 1)), np.linspace(-2, 2, 41)
    y = np.broadcast_to(grid[:, None], (2000, 41, 3))
    losses, given = arrays.output(2000, 41), KINDS["quantile"][1]
    for p, level in enumerate(given):
        loss.regression_loss(
            losses,
            None,
            arrays.input(y[:, :, p : p + 1]),
            arrays.input(np.broadcast_to(draws, (2000, 41, 1))),
            loss.QUANTILE,
            arrays.input([level]),
            1.0,
            0,
            41,
        )
        best = grid[losses.sum(axis=0, dtype="f8").argmin()]
        assert abs(best - np.quantile(draws, level)) <= 0.1


# ---- what all losses do with slices and lengths --------------------------------------------------------------


def losses_to_try(arrays, rng):
    """By name: a function of (losses, gradient, input, slice, lengths), and its input."""
    logits, targets = some(arrays, rng, 17)
    weights = arrays.input(rng.uniform(0.2, 3, 17))
    reals = arrays.input(answers(rng, T, B, 17))
    made = {
        "softmax": lambda losses, dx, x, *rows: loss.softmax_cross_entropy(
            losses, dx, x, targets, 0.5, IGNORE_INDEX, *rows, weights=weights, smoothing=0.1
        ),
        "sigmoid": lambda losses, dx, x, *rows: loss.sigmoid_cross_entropy(
            losses, dx, x, reals, 0.5, *rows, pos_weights=weights
        ),
    }
    made = {name: (run, logits) for name, run in made.items()}
    for name, (kind, parameters) in KINDS.items():
        given, size = parameters and arrays.input(parameters), 17 * len(parameters or [0])

        def run(losses, dx, x, *rows, kind=kind, given=given):
            loss.regression_loss(losses, dx, x, reals, kind, given, 0.5, *rows)

        made[name] = (run, arrays.input(rng.normal(size=(T, B, size))))
    return made


each_loss = pytest.mark.parametrize("name", ["softmax", "sigmoid", *KINDS])


@each_loss
def test_losses_are_zero_beyond_a_sequences_end_and_in_order_within(arrays, rng, name):
    run, x = losses_to_try(arrays, rng)[name]
    whole, gradient = arrays.output(T, B), arrays.output(*x.shape)
    run(whole, gradient, x, 0, B, None)
    assert (np.abs(gradient).max(axis=-1) > 0).all()
    for parts in (1, 2, B):
        lengths = Lengths([2, 3, 1, 3, 2], T, parts)
        padding = lengths.padding()
        losses, dx = arrays.output(T, B), arrays.output(*x.shape)
        for part in reversed(range(parts)):
            run(losses, dx, x, *lengths.part(part), lengths)
        assert_same_bits(losses, np.where(padding, 0, whole).astype(arrays.dtype))
        assert_same_bits(dx, np.where(padding[..., None], 0, gradient).astype(arrays.dtype))

    lengths = Lengths([2, 3, 1, 3, 2], T, 2)  # a part leaves the other's rows alone
    losses, dx = arrays.output(T, B), arrays.output(*x.shape)
    run(losses, dx, x, *lengths.part(1), lengths)
    others = lengths.order[: lengths.part(0)[1]]
    assert np.isnan(losses[:, others]).all()
    assert np.isnan(dx[:, others]).all()
    assert not np.isnan(np.delete(dx, others, axis=1)).any()


@each_loss
@pytest.mark.parametrize("given", [None, [2, 3, 1, 3, 2]])
def test_every_loss_alone_and_in_place_has_the_same_bits(arrays, rng, name, given):
    run, x = losses_to_try(arrays, rng)[name]
    lengths = given and Lengths(given, T, 1)
    losses, dx = arrays.output(T, B), arrays.output(*x.shape)
    run(losses, dx, x, 0, B, lengths)
    alone, separate, in_place = arrays.output(T, B), arrays.output(T, B), arrays.inout(x)
    run(alone, None, x, 0, B, lengths)
    run(separate, in_place, in_place, 0, B, lengths)
    assert_same_bits(alone, losses)
    assert_same_bits(separate, losses)
    assert_same_bits(in_place, dx)


# ---- log softmax -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", [*WIDTHS, 2, 65, 257])
@pytest.mark.parametrize("size", [0.01, 3.0, 100.0])
def test_log_softmax_is_the_oracles(arrays, rng, V, size):
    """In place, and in some columns of a larger array, where each row starts from a number of its own."""
    logits, starts = arrays.input(size * rng.normal(size=(B, V))), arrays.input(rng.normal(size=(B, 4)))
    x = logits.astype("f8")
    x -= x.max(axis=1, keepdims=True)
    expected = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    in_place, y = arrays.inout(logits), arrays.output(B, V + 5)
    loss.log_softmax(in_place, 0, in_place)
    loss.log_softmax(y, 2, logits, starts, 3)
    tolerance = TOLERANCE[arrays.dtype.name] * max(1, np.abs(logits).max())
    np.testing.assert_allclose(in_place, expected, atol=tolerance)
    np.testing.assert_allclose(y[:, 2:-3], expected + starts[:, 3:].astype("f8"), atol=tolerance)
    assert np.isnan(np.delete(y, np.s_[2:-3], axis=1)).all()


def test_rows_of_a_log_softmax_do_not_change_each_others_bits(arrays, rng):
    logits = arrays.input(rng.normal(size=(B, 33)))
    together, alone = arrays.output(B, 33), arrays.output(1, 33)
    loss.log_softmax(together, 0, logits)
    for row in range(B):
        loss.log_softmax(alone, 0, logits[row : row + 1])
        assert_same_bits(alone[0], together[row])


# ---- softmax ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", WIDTHS)
def test_softmax_is_the_oracles(arrays, rng, V):
    logits, p = arrays.input(3 * rng.normal(size=(7, V))), arrays.output(7, V)
    loss.softmax(p, logits)
    assert_close(p, oracle.softmax(logits.astype("f8")))
    in_place = arrays.inout(logits)
    loss.softmax(in_place, in_place)
    assert_same_bits(in_place, p)


@pytest.mark.parametrize("V", [5, 8, 16, 21, 1009])
def test_softmax_sums_in_lanes_of_a_line(arrays, rng, V):
    M, line = 64, 64 // arrays.dtype.itemsize
    logits, p, e = arrays.input(3 * rng.normal(size=(M, V))), arrays.output(M, V), arrays.output(M, V)
    loss.softmax(p, logits)
    vecmath.exp(e.reshape(-1), (logits - logits.max(axis=1, keepdims=True)).reshape(-1))
    lanes = [sum(e[:, i::line].T, np.zeros(M, arrays.dtype)) for i in range(line)]
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [a + b for a, b in zip(lanes[:half], lanes[half:], strict=True)]
    assert_same_bits(p, e * (1 / lanes[0])[:, None])


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 1009])
def test_sums_run_in_lanes_of_a_line_in_double(arrays, rng, n):
    x = arrays.input(rng.normal(size=n))
    line = 64 // arrays.dtype.itemsize
    for got, terms in [(loss.sum(x), x.astype("f8")), (loss.sum_of_squares(x), x.astype("f8") ** 2)]:
        assert abs(got - math.fsum(terms)) <= 1e-14 * math.fsum(abs(terms))
        lanes = [0.0] * line
        for i, term in enumerate(terms.tolist()):
            lanes[i % line] += term
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [a + b for a, b in zip(lanes[:half], lanes[half:], strict=True)]
        assert got == lanes[0]


def test_sums_pass_on_what_is_not_finite(arrays):
    for bad, square in [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)]:
        for where in (3, 40):
            x = np.ones(41)
            x[where] = bad
            np.testing.assert_equal(loss.sum(arrays.input(x)), bad)
            np.testing.assert_equal(loss.sum_of_squares(arrays.input(x)), square)


@pytest.mark.parametrize("n", [0, 1, 3, 15, 16, 17, 31, 33, 65, 1009])
def test_one_number_that_is_not_finite_is_found_anywhere(arrays, rng, n):
    x = rng.normal(size=n)
    x[: n // 2] *= np.finfo(arrays.dtype).max / 8  # the largest numbers are finite, and so are denormal ones
    x[n // 2 : n // 2 + 1] = np.finfo(arrays.dtype).smallest_subnormal
    assert loss.all_finite(arrays.input(x))
    for where in {0, n // 2, n - 1} if n else ():
        for bad in (np.nan, -np.nan, np.inf, -np.inf):
            wrong = x.copy()
            wrong[where] = bad
            assert not loss.all_finite(arrays.input(wrong))


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_float32_is_summed_without_overflow_or_loss(arrays):
    x = arrays.input([3e38, 3e38, 1.0, -3e38, -3e38])
    assert loss.sum_of_squares(x) == pytest.approx(3.6e77, rel=1e-6)
    assert loss.sum(arrays.input([1e8] + 15 * [0.0] + [1.0])) == 1e8 + 1


# ---- sums of columns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", WIDTHS)
def test_sums_of_columns_leave_out_nan_and_take_rows_in_order(arrays, rng, N):
    M, start = 29, rng.normal(size=(3, N))
    x = rng.normal(size=(M, N))
    x[rng.random(x.shape) < 0.2] = np.nan
    x, means = arrays.input(x), start[2] / 3
    sums, counts, squares = start.copy()
    loss.column_sums(sums, counts, x)
    loss.column_squares(squares, x, means)
    expected, number, apart = start.copy()
    for row in x.astype("f8"):
        known = ~np.isnan(row)
        expected += np.where(known, row, 0)
        number += known
        apart += np.where(known, (row - means) ** 2, 0)
    assert_same_bits(sums, expected)
    assert_same_bits(counts, number)
    assert_same_bits(squares, apart)
    for more, (m0, m1) in enumerate([(0, 10), (10, 29)]):  # in two calls as in one
        if not more:
            sums, counts, squares = start.copy()
        loss.column_sums(sums, counts, x[m0:m1])
        loss.column_squares(squares, x[m0:m1], means)
    assert_same_bits(sums, expected)
    assert_same_bits(squares, apart)


def test_sums_of_columns_pass_on_infinity(arrays):
    x, sums, counts, squares = arrays.input([[np.inf, 1.0], [2.0, -np.inf]]), np.zeros(2), np.zeros(2), np.zeros(2)
    loss.column_sums(sums, counts, x)
    loss.column_squares(squares, x, np.ones(2))
    np.testing.assert_array_equal(sums, [np.inf, -np.inf])
    np.testing.assert_array_equal(counts, [2, 2])
    np.testing.assert_array_equal(squares, [np.inf, np.inf])


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 4), (24,)])
def test_numbers_that_are_not_finite_are_found_in_every_layout(arrays, shape):
    x = np.arange(24.0).reshape(shape).astype(arrays.dtype)
    for view in (x, x.T, x[::-1], x[..., ::2], x.astype(x.dtype.newbyteorder())):
        assert loss.all_finite(view)
        view = view.copy(order="K")
        view[(0,) * view.ndim] = np.nan
        assert not loss.all_finite(view)
        assert not loss.all_finite(view[..., ::-1])
