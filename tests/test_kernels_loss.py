# SPDX-License-Identifier: MIT
"""Softmax, cross-entropy, sums."""

import math

import numpy as np
import oracle
import pytest
from kernel_tools import WIDTHS, Guarded, assert_close, assert_same_bits, slices

from crnn._core import loss, vecmath

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
