# SPDX-License-Identifier: MIT
"""Pooling over time: the mean and the largest, and back."""

import numpy as np
import pytest
from kernel_tools import WIDTHS, assert_close, assert_same_bits, difference_gradient

from crnn._core import pool
from crnn._core.rows import Lengths

T, B, H = 4, 5, 11
LENGTHS = [3, 1, 4, 2, 4]

pytestmark = pytest.mark.usefixtures("isa")
with_lengths = pytest.mark.parametrize("given", [LENGTHS, None])
widths = pytest.mark.parametrize("H", WIDTHS)


def ends(given):
    return given or [T] * B


def forward(arrays, h, lengths=None, parts=((0, B),)):
    """The mean, the largest, and where that is."""
    shape = h.shape[1:]
    mean, largest, which = arrays.output(*shape), arrays.output(*shape), np.full(shape, -7, np.int32)
    for b0, b1 in parts:
        pool.pool_mean_forward(mean, h, b0, b1, lengths)
        pool.pool_max_forward(largest, which, h, b0, b1, lengths)
    return mean, largest, which


@widths
@with_lengths
def test_the_mean_is_that_of_the_steps_that_are_there(arrays, rng, H, given):
    h = rng.normal(size=(T, B, H)) + 3
    for b, end in enumerate(ends(given)):
        h[end:, b] = np.nan  # nobody may look there
    h = arrays.input(h)
    mean, _, _ = forward(arrays, h, given and Lengths(given, T, 1))
    assert_close(mean, np.array([h[:end, b].astype("f8").mean(axis=0) for b, end in enumerate(ends(given))]))
    for b, end in enumerate(ends(given)):  # t rising, then one product
        total = np.zeros(H, arrays.dtype)
        for t in range(end):
            total = total + h[t, b]
        assert_same_bits(mean[b], total * (1 / arrays.dtype.type(end)))


@widths
@with_lengths
def test_the_largest_is_the_first_of_its_size(arrays, rng, H, given):
    h = arrays.input(rng.integers(-3, 3, size=(T, B, H)) / 2)  # many are equal; some rows have none above 0
    _, largest, which = forward(arrays, h, given and Lengths(given, T, 1))
    for b, end in enumerate(ends(given)):
        np.testing.assert_array_equal(largest[b], h[:end, b].max(axis=0))
        np.testing.assert_array_equal(which[b], h[:end, b].argmax(axis=0))
    assert len(np.unique(which)) > 1 or H < 7


@pytest.mark.parametrize("H", [5, 17, 33])
def test_not_a_number_is_the_largest_and_the_first_one_counts(arrays, rng, H):
    h = rng.normal(size=(T, B, H))
    h[2, 0, 1] = h[3, 0, 1] = h[0, 1, 2] = h[3, 4, -1] = np.nan
    h[3, 1, 2] = h[1, 2, 3] = np.inf
    h[:, 3, 4] = -np.inf
    h = arrays.input(h)
    mean, largest, which = forward(arrays, h)
    np.testing.assert_array_equal(largest, h.max(axis=0))  # NumPy's max is NaN there, too
    np.testing.assert_array_equal(which, h.argmax(axis=0))  # and so is its argmax
    np.testing.assert_array_equal(np.isnan(mean), np.isnan(h).any(axis=0))


@widths
@with_lengths
def test_backward_overwrites_every_step(arrays, rng, H, given):
    lengths = given and Lengths(given, T, 1)
    dout, which = arrays.input(rng.normal(size=(B, H))), np.empty((B, H), np.int32)
    mean, largest = np.zeros((T, B, H)), np.zeros((T, B, H))
    for b, end in enumerate(ends(given)):
        which[b] = rng.integers(end, size=H)
        mean[:end, b] = dout[b] / end
        for j in range(H):
            largest[which[b, j], b, j] = dout[b, j]
    d_mean, d_largest = arrays.output(T, B, H), arrays.output(T, B, H)
    pool.pool_mean_backward(d_mean, dout, 0, B, lengths)
    pool.pool_max_backward(d_largest, dout, which, 0, B, lengths)
    assert_close(d_mean, mean)
    assert (d_mean[mean == 0] == 0).all()
    np.testing.assert_array_equal(d_largest, largest)


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_backward_is_the_gradient_of_forward(arrays, rng):
    lengths, dout = Lengths(LENGTHS, T, 1), arrays.input(rng.normal(size=(B, H)))
    h = rng.permutation(T * B * H).reshape(T, B, H) / 100  # no two within a difference's step
    for i, backward in enumerate([pool.pool_mean_backward, pool.pool_max_backward]):
        which = [forward(arrays, arrays.input(h), lengths)[2]] * i
        dh = arrays.output(T, B, H)
        backward(dh, dout, *which, 0, B, lengths)
        gradient = difference_gradient(lambda h, i=i: (dout * forward(arrays, arrays.input(h), lengths)[i]).sum(), h)
        assert_close(dh, gradient, 1e-9)


@pytest.mark.parametrize("parts", [1, 2, 3, B])
def test_parts_do_not_change_bits(arrays, rng, parts):
    h, dout = arrays.input(rng.normal(size=(T, B, 33))), arrays.input(rng.normal(size=(B, 33)))
    whole = forward(arrays, h, Lengths(LENGTHS, T, 1))
    lengths = Lengths(LENGTHS, T, parts)
    slices = [lengths.part(part) for part in reversed(range(parts))]
    for got, expected in zip(forward(arrays, h, lengths, slices), whole, strict=True):
        assert_same_bits(got, expected)
    for backward, which in [(pool.pool_mean_backward, []), (pool.pool_max_backward, [whole[2]])]:
        expected, dh = arrays.output(T, B, 33), arrays.output(T, B, 33)
        backward(expected, dout, *which, 0, B, Lengths(LENGTHS, T, 1))
        for b0, b1 in slices:
            backward(dh, dout, *which, b0, b1, lengths)
        assert_same_bits(dh, expected)


def test_a_slice_leaves_other_rows_alone(arrays, rng):
    h, dout = arrays.input(rng.normal(size=(T, B, H))), arrays.input(rng.normal(size=(B, H)))
    mean, largest, which = forward(arrays, h, None, [(1, 3)])
    dh = [arrays.output(T, B, H), arrays.output(T, B, H)]
    pool.pool_mean_backward(dh[0], dout, 1, 3)
    pool.pool_max_backward(dh[1], dout, np.zeros((B, H), np.int32), 1, 3)
    others = [0, 3, 4]
    for rows in (mean, largest, *(d.swapaxes(0, 1) for d in dh)):
        assert np.isnan(rows[others]).all()
        assert not np.isnan(rows[1:3]).any()
    assert (which[others] == -7).all()
    assert (which[1:3] >= 0).all()


@widths
@pytest.mark.parametrize("in_place", [False, True])
def test_steps_have_the_bits_of_forward(arrays, rng, H, in_place):
    h = rng.integers(-3, 3, size=(T, B, H)) / 7
    h[1, 0, 0], h[2, 1, 1 % H], h[0, 2] = np.nan, np.inf, -np.inf
    h[:, 3], h[:, 4] = -0.0, np.finfo(arrays.dtype).tiny / 8  # a denormal
    h = arrays.input(h)
    for b in range(B):
        total, best = arrays.input(np.zeros(H)).copy(), arrays.input(np.full(H, -np.inf)).copy()
        for t in range(T):
            mean, largest, _ = forward(arrays, h[: t + 1, b : b + 1].copy(), None, [(0, 1)])
            for function, state, expected in [(pool.pool_mean_step, total, mean), (pool.pool_max_step, best, largest)]:
                step = h[t, b].copy()
                out = step if in_place else arrays.output(H)
                function(out, state, step, *[1 / arrays.dtype.type(t + 1)][: function is pool.pool_mean_step])
                assert_same_bits(out, expected[0])
