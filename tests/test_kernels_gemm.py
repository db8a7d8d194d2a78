# SPDX-License-Identifier: MIT
"""Matrix products, their gradients, and one-hot rows."""

import numpy as np
import pytest
from kernel_tools import ROWS, WIDTHS, Guarded, assert_close, assert_same_bits, chain32, slices

from crnn._core import gemm, vecmath
from crnn._core.rows import Lengths

T, B, D, H, V = 3, 2, 5, 7, 11

pytestmark = pytest.mark.usefixtures("isa")


def linear(arrays: Guarded, x, w, bias, parts=None):
    """y = x @ w + bias by the kernel, in the given slices of the batch."""
    packed = gemm.Packed(*w.shape, arrays.dtype).pack(w)
    y = arrays.output(*x.shape[:2], w.shape[1])
    for b0, b1 in parts or [(0, x.shape[1])]:
        gemm.linear_forward(y, x, packed, bias, b0, b1)
    return y


def linear_grad(arrays: Guarded, dw, x, dy, parts=None):
    """dw += x.T @ dy by the kernel, in the given slices of the columns."""
    scratch = arrays.output(gemm.grad_scratch(arrays.dtype, len(dw)).size)
    for n0, n1 in parts or [(0, dw.shape[1])]:
        gemm.linear_backward_weight(dw, x, dy, scratch, n0, n1)
    return dw


# ---- forward -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", WIDTHS)
def test_linear_forward_is_x_w_plus_bias(arrays, rng, N):
    for K, M in [*((5, M) for M in ROWS), (1, 3), (33, 7), (300, 2)]:
        x, w = arrays.input(rng.normal(size=(M, 1, K))), arrays.input(rng.normal(size=(K, N)))
        bias = arrays.input(rng.normal(size=N))
        assert_close(linear(arrays, x, w, bias), x.astype("f8") @ w.astype("f8") + bias)
        assert_close(linear(arrays, x, w, None), x.astype("f8") @ w.astype("f8"))


def test_linear_forward_with_more_rows_than_the_cache_takes_at_once(arrays, rng):
    x, w = arrays.input(rng.normal(size=(37, 3, 701))), arrays.input(rng.normal(size=(701, 17)))
    bias = arrays.input(rng.normal(size=17))
    y = linear(arrays, x, w, bias)
    assert_close(y, x.astype("f8") @ w.astype("f8") + bias)
    assert_same_bits(linear(arrays, x, w, bias, slices(3)), y)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize("B", [4, 7, 23])
def test_weights_beyond_the_second_level_cache_give_the_bits_of_the_written_order(arrays, rng, B):
    """Their tiles fetch the next columns' panels, of which there may be fewer or more than tiles."""
    K, N = 331, 421  # 570 KB
    x, w = arrays.input(rng.normal(size=(2, B, K))), arrays.input(rng.normal(size=(K, N)))
    bias = arrays.input(rng.normal(size=N))
    assert_same_bits(linear(arrays, x, w, bias).reshape(2 * B, N), chain32(x.reshape(2 * B, K), w, bias))


@pytest.mark.parametrize("gates", [1, 2, 3, 4])
def test_packed_gates_keep_every_column_however_their_last_ones_share_panels(arrays, rng, gates):
    for K, N in [(3, N) for N in (1, 7, 16, 17, 18, 20, 21, 22, 24, 25, 32, 33)]:
        w = arrays.input(rng.normal(size=(K, gates * N)))
        packed = gemm.Packed(K, N, arrays.dtype, gates=gates).pack(w)
        assert_same_bits(packed.unpacked(), w)
        assert packed.holds(w)
        for column in range(gates * N):
            other = w.copy()
            other[-1, column] += 1
            assert not packed.holds(other)


@pytest.mark.parametrize("N", [1, 15, 16, 17, 33])
def test_packing_the_transpose_is_packing(arrays, rng, N):
    for K in (1, 15, 16, 17, 33):
        x, w = arrays.input(rng.normal(size=(T, B, K))), arrays.input(rng.normal(size=(K, N)))
        y = arrays.output(T, B, N)
        packed = gemm.Packed(K, N, arrays.dtype).pack_transposed(arrays.input(w.T))
        gemm.linear_forward(y, x, packed, None, 0, B)
        assert_same_bits(y, linear(arrays, x, w, None))


@pytest.mark.parametrize("first", [0, 1, 16, 17])
@pytest.mark.parametrize("N", [1, 15, 16, 33])
def test_some_columns_can_be_packed_alone(arrays, rng, N, first):
    """And some rows of the transpose: their neighbours in memory have no effect."""
    x, w = arrays.input(rng.normal(size=(T, B, K := 19))), rng.normal(size=(K, first + N + 3))
    w[:, :first] = w[:, first + N :] = np.nan
    wanted = linear(arrays, x, arrays.input(w[:, first : first + N]), None)
    y = arrays.output(T, B, N)
    gemm.linear_forward(y, x, gemm.Packed(K, N, arrays.dtype).pack(arrays.input(w), first), None, 0, B)
    assert_same_bits(y, wanted)
    x, w = arrays.input(rng.normal(size=(T, B, N))), arrays.input(w)
    wanted, y = linear(arrays, x, arrays.input(w[:, first : first + N].T), None), arrays.output(T, B, K)
    gemm.linear_forward(y, x, gemm.Packed(N, K, arrays.dtype).pack_transposed(w, first), None, 0, B)
    assert_same_bits(y, wanted)


def test_packed_weights_are_a_copy_and_can_be_packed_again(arrays, rng):
    x, first, second = (arrays.input(rng.normal(size=s)) for s in [(T, B, H), (H, V), (H, V)])
    w = first.copy()
    packed = gemm.Packed(H, V, arrays.dtype).pack(w)
    w[...] = second
    before, after = arrays.output(T, B, V), arrays.output(T, B, V)
    gemm.linear_forward(before, x, packed, None, 0, B)
    gemm.linear_forward(after, x, packed.pack(w), None, 0, B)
    assert_same_bits(before, linear(arrays, x, first, None))
    assert_same_bits(after, linear(arrays, x, second, None))


def test_a_slice_of_the_batch_leaves_the_others_alone(arrays, rng):
    B = 13
    x, w = arrays.input(rng.normal(size=(T, B, D))), arrays.input(rng.normal(size=(D, H)))
    whole = linear(arrays, x, w, None)
    for b0, b1 in [(0, 1), (4, 9), (12, 13), (5, 5)]:
        y = linear(arrays, x, w, None, [(b0, b1)])
        assert_same_bits(y[:, b0:b1], whole[:, b0:b1])
        assert np.isnan(np.delete(y, np.s_[b0:b1], axis=1)).all()
    assert_same_bits(linear(arrays, x, w, None, slices(B)), whole)


@pytest.mark.parametrize("N", [1, 17, 33, 209])
def test_the_bits_of_a_row_do_not_depend_on_its_place(arrays, rng, N):
    B = 25
    x, w = arrays.input(rng.normal(size=(T, B, D))), arrays.input(rng.normal(size=(D, N)))
    bias, order = arrays.input(rng.normal(size=N)), rng.permutation(B)
    whole = linear(arrays, x, w, bias)
    assert_same_bits(linear(arrays, arrays.input(x[:, order]), w, bias), whole[:, order])
    alone = [linear(arrays, arrays.input(x[:1, b : b + 1]), w, bias)[0, 0] for b in range(B)]
    assert_same_bits(np.stack(alone), whole[0])


def test_terms_are_added_in_rising_order(arrays):
    big = 1e9 if arrays.dtype == "f4" else 1e18
    x = arrays.input(np.full((1, 13, 4), 1.0))
    for terms, expected in [([1, big, -big, 1], 1), ([big, -big, 1, 1], 2), ([big, 1, 1, -big], 0)]:
        w = arrays.input(np.tile(np.array(terms)[:, None], 33))
        np.testing.assert_array_equal(linear(arrays, x, w, None), expected)


def test_terms_are_added_to_the_bias_first_to_last(arrays):
    big = 1e9 if arrays.dtype == "f4" else 1e18
    x, w = arrays.input(np.ones((1, 13, 2))), arrays.input(np.tile([[1.0], [-big]], 33))
    np.testing.assert_array_equal(linear(arrays, x, w, arrays.input(np.full(33, big))), 0)


def test_products_are_not_rounded_before_they_are_added(arrays):
    e = 2.0 ** (-12 if arrays.dtype == "f4" else -27)  # (1 + e)^2 - (1 + 2e) = e^2 needs a fused multiply-add
    x, w = arrays.input(np.full((1, 13, 1), 1 + e)), arrays.input(np.full((1, 33), 1 + e))
    np.testing.assert_array_equal(linear(arrays, x, w, arrays.input(np.full(33, -1 - 2 * e))), e * e)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_linear_forward_has_the_bits_of_the_written_order(arrays, rng):
    x, w = arrays.input(rng.normal(size=(13, 3, 31))), arrays.input(rng.normal(size=(31, 209)))
    bias = arrays.input(rng.normal(size=209))
    assert_same_bits(linear(arrays, x, w, bias).reshape(39, 209), chain32(x.reshape(39, 31), w, bias))


@pytest.mark.parametrize("precision", [None, "bf16", "int8"])
def test_products_of_some_columns_and_of_some_terms_have_the_bits_of_whole_ones(arrays, rng, precision):
    """Columns of w one range after another; rows of w too, where what is added continues the chain of what is there."""
    if precision is not None and arrays.dtype != "f4":
        pytest.skip("quantised weights are those of float32")
    for M, K, N in [(1, 38, 21), (5, 70, 33), (29, 130, 100)]:
        x, w = arrays.input(rng.normal(size=(1, M, K))), rng.normal(size=(K, N)).astype(arrays.dtype)
        bias = arrays.input(rng.normal(size=N))
        whole = np.empty((1, M, N), arrays.dtype)
        gemm.linear_forward(whole, x, gemm.Packed(K, N, arrays.dtype, precision=precision).pack(w), bias, 0, M)
        y, middle = arrays.output(1, M, N), N // 2
        for n0, n1 in [(middle, N), (0, middle)]:
            packed = gemm.Packed(K, n1 - n0, arrays.dtype, precision=precision).pack(w, n0)
            gemm.linear_columns(y, n0, x, 0, packed, bias[n0:n1], 0, M)
        assert_same_bits(y, whole)
        if precision == "int8":  # a scale for each column of all terms
            continue
        gemm.linear_forward(whole, x, gemm.Packed(K, N, arrays.dtype, precision=precision).pack(w), None, 0, M)
        for n0, n1 in [(0, 3), (3, N)]:
            for k0, k1 in [(0, 2), (2, 36), (36, K)]:
                packed = gemm.Packed(k1 - k0, n1 - n0, arrays.dtype, precision=precision).pack(w[k0:k1], n0)
                gemm.linear_columns(y, n0, x, k0, packed, None, 0, M, adds=k0 > 0)
        assert_same_bits(y, whole)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize("K", [4095, 4096, 4097, 6145])
def test_a_long_sum_that_waits_in_y_is_one_chain(arrays, rng, K):
    """In rows that lie equally far apart, and, where sequences end, in rows that do not."""
    x, w = arrays.input(rng.normal(size=(2, 13, K))), arrays.input(rng.normal(size=(K, 35)))
    bias = arrays.input(rng.normal(size=35))
    wanted = chain32(x.reshape(26, K), w, bias).reshape(2, 13, 35)
    assert_same_bits(linear(arrays, x, w, bias), wanted)
    lengths, y = np.where(np.arange(13) % 3, 2, 1), arrays.output(2, 13, 35)
    gemm.linear_forward(y, x, gemm.Packed(K, 35, arrays.dtype).pack(w), bias, 0, 13, Lengths(lengths, 2, 1))
    there = np.arange(2)[:, None] < lengths
    assert_same_bits(y[there], wanted[there])


def test_not_a_number_stays_in_its_row_and_column(arrays, rng):
    x, w = rng.normal(size=(T, 5, D)), rng.normal(size=(D, 33))
    x[1, 3, 2], w[4, 19], w[0, 32] = np.nan, np.inf, -np.inf
    y = linear(arrays, arrays.input(x), arrays.input(w), None)
    expected = np.ones_like(y, bool)
    expected[1, 3] = False
    expected[..., [19, 32]] = False
    np.testing.assert_array_equal(np.isfinite(y), expected)
    np.testing.assert_array_equal(np.isnan(y[1, 3]), True)
    assert (np.delete(y[..., 19], 8) == np.sign(np.delete(x[..., 4], 8)) * np.inf).all()


# ---- gradients of weights and biases -----------------------------------------------------------------------


@pytest.mark.parametrize("N", WIDTHS)
def test_linear_backward_weight_accumulates_into_dw(arrays, rng, N):
    at_the_block_of_256_rows = [(5, (5, 51)), (5, (4, 64)), (13, (257, 1)), (2, (3, 171))]
    for K, rows in [*((K, (T, B)) for K in ROWS), (5, (1, 1)), *at_the_block_of_256_rows]:
        x, dy = arrays.input(rng.normal(size=(*rows, K))), arrays.input(rng.normal(size=(*rows, N)))
        before = rng.normal(size=(K, N)).astype(arrays.dtype)
        dw = linear_grad(arrays, arrays.inout(before), x, dy)
        assert_close(dw, before + np.einsum("tbk,tbn->kn", x, dy, dtype="f8", casting="safe"))


@pytest.mark.parametrize("N", [17, 33, 64, 127])
def test_linear_backward_weight_leaves_other_columns_alone(arrays, rng, N):
    line = gemm.line_width(arrays.dtype)
    x, dy = arrays.input(rng.normal(size=(T, B, D))), arrays.input(rng.normal(size=(T, B, N)))
    before = rng.normal(size=(D, N)).astype(arrays.dtype)
    whole = linear_grad(arrays, arrays.inout(before), x, dy)
    assert_same_bits(linear_grad(arrays, arrays.inout(before), x, dy, slices(N, line)), whole)
    for n0, n1 in [(line, N), (0, line), (0, 5), (line, line + 1), (line, line)]:
        dw = linear_grad(arrays, arrays.inout(before), x, dy, [(n0, n1)])
        assert_same_bits(dw[:, n0:n1], whole[:, n0:n1])
        assert_same_bits(np.delete(dw, np.s_[n0:n1], axis=1), np.delete(before, np.s_[n0:n1], axis=1))


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_linear_backward_weight_has_the_bits_of_the_written_order(arrays, rng):
    M, K, N = 261, 14, 40
    x, dy = arrays.input(rng.normal(size=(M, 1, K))), arrays.input(rng.normal(size=(M, 1, N)))
    before = rng.normal(size=(K, N)).astype("f4")
    dw = linear_grad(arrays, arrays.inout(before), x, dy)
    assert_same_bits(dw, chain32(x.reshape(M, K).T, dy.reshape(M, N), before))


def test_gradients_over_a_window_are_those_over_its_halves(arrays, rng):
    N = 83
    x, dy = arrays.input(rng.normal(size=(2 * T, B, D))), arrays.input(rng.normal(size=(2 * T, B, N)))
    ids = rng.integers(V, size=(2 * T, B), dtype=np.int32)
    halves = [np.s_[:T], np.s_[T:]]
    whole = [arrays.inout(rng.normal(size=s)) for s in [(D, N), (N,), (V, N)]]
    parts = [arrays.inout(a) for a in whole]
    for (dw, db, drows), spans in [(whole, [np.s_[:]]), (parts, halves)]:
        for span in spans:
            linear_grad(arrays, dw, x[span], dy[span])
            gemm.bias_backward(db, dy[span], 0, N)
            gemm.rows_backward(drows, ids[span], dy[span], 0, N)
    for got, expected in zip(parts, whole, strict=True):
        assert_same_bits(got, expected)


def test_gradients_over_no_rows_change_nothing(arrays, rng):
    x, dy = arrays.input(np.empty((0, B, D))), arrays.input(np.empty((0, B, H)))
    ids = np.empty((0, B), np.int32)
    before = rng.normal(size=(D, H)).astype(arrays.dtype)
    assert_same_bits(linear_grad(arrays, arrays.inout(before), x, dy), before)
    db, drows = arrays.inout(before[0]), arrays.inout(before)
    gemm.bias_backward(db, dy, 0, H)
    gemm.rows_backward(drows, ids, dy, 0, H)
    assert_same_bits(db, before[0])
    assert_same_bits(drows, before)


@pytest.mark.parametrize("N", [*WIDTHS, 63, 64, 65])
def test_bias_backward_accumulates_into_db(arrays, rng, N):
    for rows in [(1, 1), (T, B), (5, 25)]:
        dy, before = arrays.input(rng.normal(size=(*rows, N))), rng.normal(size=N).astype(arrays.dtype)
        db = arrays.inout(before)
        gemm.bias_backward(db, dy, 0, N)
        assert_close(db, before + dy.sum(axis=(0, 1), dtype="f8"))
        in_order = before.copy()
        for row in dy.reshape(-1, N):
            in_order += row
        assert_same_bits(db, in_order)
        parts = arrays.inout(before)
        for n0, n1 in slices(N, gemm.line_width(arrays.dtype)):
            gemm.bias_backward(parts, dy, n0, n1)
        assert_same_bits(parts, db)


# ---- one-hot rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", WIDTHS)
def test_rows_add_bias_adds_it_to_every_row(arrays, rng, N):
    w, bias, y = arrays.input(rng.normal(size=(V, N))), arrays.input(rng.normal(size=N)), arrays.output(V, N)
    gemm.rows_add_bias(y, w, bias)
    assert_same_bits(y, w + bias)


@pytest.mark.parametrize("N", WIDTHS)
def test_rows_backward_accumulates_rows_in_order(arrays, rng, N):
    ids = rng.integers(V - 1, size=(T, 7), dtype=np.int32)  # some twice and more, row V - 1 never
    ids[0, 0] = ids[2, 6] = 4
    dy, before = arrays.input(rng.normal(size=(T, 7, N))), rng.normal(size=(V, N)).astype(arrays.dtype)
    dw, parts, expected = arrays.inout(before), arrays.inout(before), before.copy()
    gemm.rows_backward(dw, ids, dy, 0, N)
    for m, v in enumerate(ids.flat):
        expected[v] += dy.reshape(-1, N)[m]
    assert_same_bits(dw, expected)
    for n0, n1 in slices(N, gemm.line_width(arrays.dtype)):
        gemm.rows_backward(parts, ids, dy, n0, n1)
    assert_same_bits(parts, dw)


@pytest.mark.parametrize("backward", ["bias", "rows"])
def test_column_slices_leave_other_columns_alone(arrays, rng, backward):
    N, line = 131, gemm.line_width(arrays.dtype)
    dy, ids = arrays.input(rng.normal(size=(T, B, N))), np.array([[3, 1], [3, 0], [2, 1]], np.int32)
    before = rng.normal(size=(4, N)).astype(arrays.dtype)
    for n0, n1 in [(0, line), (line, 3 * line + 1), (line, 6 * line + 3), (2 * line, 2 * line)]:
        got = arrays.inout(before)
        if backward == "bias":
            gemm.bias_backward(got[1], dy, n0, n1)
        else:
            gemm.rows_backward(got, ids, dy, n0, n1)
        changed = np.argwhere((got != before).any(axis=0))[:, 0]
        np.testing.assert_array_equal(changed, np.arange(n0, n1))


# ---- orthonormal rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("H", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100])
def test_orthonormalize_is_the_q_of_qr(arrays, rng, H):
    for n in {1, (H + 1) // 2, H}:
        start = rng.normal(size=(n, H)).astype(arrays.dtype)
        q = arrays.inout(start)
        assert vecmath.orthonormalize(q) == 0
        error = np.abs(q.astype("f8") @ q.T.astype("f8") - np.eye(n)).max()
        assert error <= {"float32": 2e-6, "float64": 1e-14}[arrays.dtype.name]
        Q, R = np.linalg.qr(start.T.astype("f8"))  # Gram-Schmidt's where R's diagonal is positive
        expected = (Q * np.sign(np.diag(R))).T
        condition = np.linalg.cond(R)
        assert np.abs(q - expected).max() <= 10 * condition * np.finfo(arrays.dtype).eps


def test_orthonormalize_names_the_first_dependent_row(arrays, rng):
    rows = rng.normal(size=(H, H))
    rows[4] = 2 * rows[0] - rows[3]
    assert vecmath.orthonormalize(arrays.inout(rows)) == 1 + 4
    rows[0] = 0
    assert vecmath.orthonormalize(arrays.inout(rows)) == 1 + 0
    too_many = rng.normal(size=(H + 1, H))
    assert vecmath.orthonormalize(arrays.inout(too_many)) == 1 + H


def test_orthonormalize_refuses_rows_that_are_not_finite(arrays, rng):
    rows = rng.normal(size=(H, H))
    rows[2, 3] = np.nan
    assert vecmath.orthonormalize(arrays.inout(rows)) == 1 + 2


@pytest.mark.parametrize("N", [7, 16, 33, 127])
def test_a_bias_gradient_that_goes_along_has_the_bits_of_its_own_kernel(arrays, rng, N):
    K = 21
    x, h0 = arrays.input(rng.normal(size=(T, 13, K))), arrays.input(rng.normal(size=(13, K)))
    dy, start = arrays.input(rng.normal(size=(T, 13, N))), rng.normal(size=N)
    scratch, wanted = gemm.grad_scratch(arrays.dtype, K), arrays.inout(start)
    gemm.bias_backward(wanted, dy, 0, N)
    for also in (None, h0):
        dw, dw_alone, db = arrays.inout(np.zeros((K, N))), arrays.inout(np.zeros((K, N))), arrays.inout(start)
        for n0, n1 in slices(N):
            if also is None:
                gemm.linear_backward_weight(dw, x, dy, scratch, n0, n1, db=db)
                gemm.linear_backward_weight(dw_alone, x, dy, scratch, n0, n1)
            else:
                gemm.recurrent_backward_weight(dw, x, h0, dy, scratch, False, n0, n1, db=db)
                gemm.recurrent_backward_weight(dw_alone, x, h0, dy, scratch, False, n0, n1)
        assert_same_bits(db, wanted)
        assert_same_bits(dw, dw_alone)
