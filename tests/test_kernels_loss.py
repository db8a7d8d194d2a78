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
IGNORE = -100

pytestmark = pytest.mark.usefixtures("isa")


def cross_entropy(arrays: Guarded, logits, targets, scale=1.0, parts=None):
    losses, dlogits = arrays.output(*targets.shape), arrays.output(*logits.shape)
    for b0, b1 in parts or [(0, targets.shape[1])]:
        loss.softmax_cross_entropy(losses, dlogits, logits, targets, scale, IGNORE, b0, b1)
    return losses, dlogits


def some(arrays: Guarded, rng, V=V, size=3.0):
    return arrays.input(size * rng.normal(size=(T, B, V))), rng.integers(V, size=(T, B), dtype=np.int32)


@pytest.mark.parametrize("V", [*WIDTHS, 2, 65, 257])
@pytest.mark.parametrize("size", [0.01, 3.0, 100.0])
def test_cross_entropy_and_its_gradient(arrays, rng, V, size):
    logits, targets = some(arrays, rng, V, size)
    targets[1, 2] = targets[2, 4] = IGNORE
    losses, dlogits = cross_entropy(arrays, logits, targets, 0.25)
    expected, gradient = oracle.cross_entropy(logits.astype("f8"), targets, IGNORE)
    if V == 1:  # nothing to choose from
        np.testing.assert_array_equal(losses, 0)
        np.testing.assert_array_equal(dlogits, 0)
        return
    assert_close(losses, expected)
    assert_close(dlogits, 0.25 * gradient)
    assert (losses[targets == IGNORE] == 0).all()
    assert (dlogits[targets == IGNORE] == 0).all()


@pytest.mark.parametrize("V", [11, 16, 33])
def test_the_loss_alone_and_in_place_have_the_same_bits(arrays, rng, V):
    logits, targets = some(arrays, rng, V)
    targets[0, 1] = IGNORE
    losses, dlogits = cross_entropy(arrays, logits, targets, 0.3)
    alone, in_place, beside = arrays.output(T, B), arrays.inout(logits), arrays.output(T, B)
    loss.softmax_cross_entropy(alone, None, logits, targets, 0.3, IGNORE, 0, B)
    loss.softmax_cross_entropy(beside, in_place, in_place, targets, 0.3, IGNORE, 0, B)
    assert_same_bits(alone, losses)
    assert_same_bits(beside, losses)
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
    safe = np.where(targets == IGNORE, 0, targets)
    at_target = weights[safe] * -np.take_along_axis(log_p, safe[..., None], axis=-1)[..., 0]
    losses = (1 - smoothing) * at_target + smoothing / logits.shape[-1] * (weights * -log_p).sum(axis=-1)
    return np.where(targets == IGNORE, 0, losses)


@pytest.mark.parametrize("V", [2, 7, 8, 9, 16, 33, 65])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.125, 1.0])
def test_weights_and_smoothing_and_their_gradient(arrays, rng, V, weighted, smoothing):
    logits, targets = some(arrays, rng, V)
    targets[1, 2] = IGNORE
    weights = rng.uniform(0.2, 3, V) if weighted else np.ones(V)
    given = arrays.input(weights) if weighted else None
    losses, dlogits = arrays.output(T, B), arrays.output(T, B, V)
    loss.softmax_cross_entropy(losses, dlogits, logits, targets, 0.25, IGNORE, 0, B, None, given, smoothing)
    x = logits.astype("f8")
    assert_close(losses, weighted_cross_entropy(x, targets, weights, smoothing))
    gradient = difference_gradient(lambda x: weighted_cross_entropy(x, targets, weights, smoothing).sum(), x)
    assert_close(dlogits, 0.25 * gradient, TOLERANCE["float32"])
    assert (dlogits[1, 2] == 0).all()
    assert losses[1, 2] == 0

    alone, beside, in_place = arrays.output(T, B), arrays.output(T, B), arrays.inout(logits)
    loss.softmax_cross_entropy(alone, None, logits, targets, 0.25, IGNORE, 0, B, None, given, smoothing)
    loss.softmax_cross_entropy(beside, in_place, in_place, targets, 0.25, IGNORE, 0, B, None, given, smoothing)
    assert_same_bits(alone, losses)
    assert_same_bits(beside, losses)
    assert_same_bits(in_place, dlogits)


def test_weights_of_one_and_no_smoothing_change_no_bit(arrays, rng):
    logits, targets = some(arrays, rng, 37)
    weighted, gradient = arrays.output(T, B), arrays.output(T, B, 37)
    loss.softmax_cross_entropy(
        weighted, gradient, logits, targets, 0.3, IGNORE, 0, B, weights=arrays.input(np.ones(37)), smoothing=0.0
    )
    losses, dlogits = cross_entropy(arrays, logits, targets, 0.3)
    assert_same_bits(weighted, losses)
    assert_same_bits(gradient, dlogits)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [0.1, 3.0, 100.0])
def test_cross_entropy_agrees_with_pytorch(arrays, rng, weighted, smoothing, size):
    torch = pytest.importorskip("torch")
    logits, targets = some(arrays, rng, 37, size)
    targets[0, 3] = IGNORE
    weights = arrays.input(rng.uniform(0.2, 3, 37)) if weighted else None
    losses, dlogits = arrays.output(T, B), arrays.output(T, B, 37)
    loss.softmax_cross_entropy(losses, dlogits, logits, targets, 1.0, IGNORE, 0, B, None, weights, smoothing)
    x = torch.tensor(logits.reshape(-1, 37).astype("f8"), requires_grad=True)
    total = torch.nn.functional.cross_entropy(
        x,
        torch.tensor(targets.reshape(-1).astype("i8")),
        weight=torch.tensor(weights.astype("f8")) if weighted else None,
        label_smoothing=smoothing,
        ignore_index=IGNORE,
        reduction="sum",
    )
    total.backward()
    assert losses.sum(dtype="f8") == pytest.approx(total.item(), rel=TOLERANCE[arrays.dtype.name])
    assert_close(dlogits, x.grad.numpy().reshape(T, B, 37))


# ---- what all losses do with slices and lengths --------------------------------------------------------------


def softmax_loss(arrays: Guarded, rng):
    logits, targets = some(arrays, rng, 17)
    weights = arrays.input(rng.uniform(0.2, 3, 17))

    def run(losses, dlogits, b0, b1, lengths):
        loss.softmax_cross_entropy(
            losses, dlogits, logits, targets, 0.5, IGNORE, b0, b1, lengths, weights=weights, smoothing=0.1
        )

    return run, 17


LOSSES = {"softmax": softmax_loss}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_zero_beyond_a_sequences_end_and_in_order_within(arrays, rng, name):
    run, width = LOSSES[name](arrays, rng)
    whole, gradient = arrays.output(T, B), arrays.output(T, B, width)
    run(whole, gradient, 0, B, None)
    assert (np.abs(gradient).max(axis=-1) > 0).all()
    for parts in (1, 2, B):
        lengths = Lengths([2, 3, 1, 3, 2], T, parts)
        padding = lengths.padding()
        losses, dx = arrays.output(T, B), arrays.output(T, B, width)
        for part in reversed(range(parts)):
            run(losses, dx, *lengths.part(part), lengths)
        assert_same_bits(losses, np.where(padding, 0, whole).astype(arrays.dtype))
        assert_same_bits(dx, np.where(padding[..., None], 0, gradient).astype(arrays.dtype))
        alone = arrays.output(T, B)
        run(alone, None, 0, B, lengths if parts == 1 else None)
        assert_same_bits(alone, losses if parts == 1 else whole)

    lengths = Lengths([2, 3, 1, 3, 2], T, 2)  # a part leaves the other's rows alone
    losses, dx = arrays.output(T, B), arrays.output(T, B, width)
    run(losses, dx, *lengths.part(1), lengths)
    others = lengths.order[: lengths.part(0)[1]]
    assert np.isnan(losses[:, others]).all()
    assert np.isnan(dx[:, others]).all()
    assert not np.isnan(np.delete(dx, others, axis=1)).any()


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


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_float32_is_summed_without_overflow_or_loss(arrays):
    x = arrays.input([3e38, 3e38, 1.0, -3e38, -3e38])
    assert loss.sum_of_squares(x) == pytest.approx(3.6e77, rel=1e-6)
    assert loss.sum(arrays.input([1e8] + 15 * [0.0] + [1.0])) == 1e8 + 1
