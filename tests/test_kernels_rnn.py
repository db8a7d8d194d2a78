# SPDX-License-Identifier: MIT
"""The recurrent cell through time, alone and in a whole network made of kernels."""

import numpy as np
import oracle
import pytest
from kernel_tools import ROWS, SPECIAL, WIDTHS, Guarded, assert_close, assert_same_bits, chain32, fma32, slices

from crnn._core import cells, gemm, loss

T, B, D, H, V = 3, 2, 5, 7, 11
ACTS = ["tanh", "relu"]

pytestmark = pytest.mark.usefixtures("isa")
activations = pytest.mark.parametrize("activation", ACTS)


def recurrent_weights(rng: np.random.Generator, H: int):
    """Strong enough that the state matters, weak enough that rounding does not grow."""
    return rng.normal(size=(H, H)) * 0.9 / np.sqrt(H)


def forward(arrays: Guarded, xw, ids, h0, w_hh, activation, parts=None):
    steps = xw.shape[0] if ids is None else len(ids)
    h, packed = arrays.output(steps, *h0.shape), gemm.Packed(*w_hh.shape, arrays.dtype).pack(w_hh)
    for b0, b1 in parts or [(0, len(h0))]:
        cells.forward(activation, {"h": h, "xw": xw, "ids": ids, "h0": h0, "w_hh": packed}, b0, b1)
    return h


def backward(arrays: Guarded, dh, h, w_hh, activation, parts=None):
    da, dh0, h0 = arrays.inout(dh), arrays.output(*h.shape[1:]), arrays.input(np.zeros(h.shape[1:]))
    packed = gemm.Packed(*w_hh.shape, arrays.dtype).pack_transposed(w_hh)
    for b0, b1 in parts or [(0, h.shape[1])]:
        given = {"dh": da, "da": da, "dh0": dh0, "h": h, "h0": h0, "w_hh_t": packed}
        cells.backward(activation, given, b0, b1)
    return da, dh0


def layer(arrays: Guarded, rng, T=T, B=B, H=H):
    return (
        arrays.input(rng.normal(0.5, size=(T, B, H))),  # so that even a single ReLU opens now and then
        arrays.input(rng.uniform(-1, 1, size=(B, H))),
        arrays.input(recurrent_weights(rng, H)),
    )


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_a_cell_is_applied_once_a_long_sum_is_complete(arrays, rng):
    H = 4097
    xw, h0, w_hh = layer(arrays, rng, T=1, B=1, H=H)
    h = forward(arrays, xw, None, h0, w_hh, "relu")
    assert_same_bits(h[0], np.maximum(chain32(h0, w_hh, xw[0]), 0))


# ---- forward -----------------------------------------------------------------------------------------------


@activations
@pytest.mark.parametrize("H", WIDTHS)
def test_forward_is_the_recurrence(arrays, rng, H, activation):
    for B in ROWS if H <= 33 else [1, 3, 13]:
        xw, h0, w_hh = layer(arrays, rng, B=B, H=H)
        expected = oracle.recurrence_forward(*(a.astype("f8") for a in (xw, h0, w_hh)), activation)
        assert_close(forward(arrays, xw, None, h0, w_hh, activation), expected)


@activations
@pytest.mark.parametrize("H", [1, 7, 16, 33])
def test_forward_of_ids_reads_their_rows(arrays, rng, H, activation):
    for B in (1, 2, 13):
        table, ids = arrays.input(rng.normal(size=(V, H))), rng.integers(V, size=(T, B), dtype=np.int32)
        _, h0, w_hh = layer(arrays, rng, B=B, H=H)
        h = forward(arrays, table, ids, h0, w_hh, activation)
        assert_same_bits(h, forward(arrays, arrays.input(table[ids]), None, h0, w_hh, activation))
        assert_same_bits(forward(arrays, table, ids, h0, w_hh, activation, slices(B)), h)


@activations
@pytest.mark.parametrize("H", [7, 33])
def test_forward_may_replace_its_input(arrays, rng, H, activation):
    xw, h0, w_hh = layer(arrays, rng, B=13, H=H)
    h, packed = arrays.inout(xw), gemm.Packed(H, H, arrays.dtype).pack(w_hh)
    cells.forward(activation, {"h": h, "xw": h, "h0": h0, "w_hh": packed}, 0, 13)
    assert_same_bits(h, forward(arrays, xw, None, h0, w_hh, activation))


@activations
def test_two_windows_with_the_state_carried_are_one(arrays, rng, activation):
    xw, h0, w_hh = layer(arrays, rng, T=2 * T, B=5, H=17)
    whole = forward(arrays, xw, None, h0, w_hh, activation)
    first = forward(arrays, xw[:T], None, h0, w_hh, activation)
    second = forward(arrays, xw[T:], None, first[-1], w_hh, activation)
    assert_same_bits(np.concatenate([first, second]), whole)
    state = h0
    for t in range(2 * T):
        state = forward(arrays, xw[t : t + 1], None, state, w_hh, activation)[0]
        assert_same_bits(state, whole[t])


@activations
@pytest.mark.parametrize("H", [7, 33, 209])
def test_the_bits_of_a_stream_do_not_depend_on_its_place(arrays, rng, H, activation):
    B, order = 13, rng.permutation(13)
    xw, h0, w_hh = layer(arrays, rng, B=B, H=H)
    dh = arrays.input(rng.normal(size=(T, B, H)))
    h = forward(arrays, xw, None, h0, w_hh, activation)
    da, dh0 = backward(arrays, dh, h, w_hh, activation)
    h_moved = forward(arrays, arrays.input(xw[:, order]), None, arrays.input(h0[order]), w_hh, activation)
    da_moved, dh0_moved = backward(arrays, arrays.input(dh[:, order]), h_moved, w_hh, activation)
    assert_same_bits(h_moved, h[:, order])
    assert_same_bits(da_moved, da[:, order])
    assert_same_bits(dh0_moved, dh0[order])


@activations
def test_a_slice_of_the_batch_leaves_the_others_alone(arrays, rng, activation):
    B = 13
    xw, h0, w_hh = layer(arrays, rng, B=B)
    dh = arrays.input(rng.normal(size=(T, B, H)))
    h = forward(arrays, xw, None, h0, w_hh, activation)
    da, dh0 = backward(arrays, dh, h, w_hh, activation)
    for b0, b1 in [(0, 1), (4, 9), (12, 13), (5, 5)]:
        h_part = forward(arrays, xw, None, h0, w_hh, activation, [(b0, b1)])
        da_part, dh0_part = backward(arrays, dh, h, w_hh, activation, [(b0, b1)])
        assert_same_bits(h_part[:, b0:b1], h[:, b0:b1])
        assert np.isnan(np.delete(h_part, np.s_[b0:b1], axis=1)).all()
        assert_same_bits(da_part[:, b0:b1], da[:, b0:b1])
        assert_same_bits(np.delete(da_part, np.s_[b0:b1], axis=1), np.delete(dh, np.s_[b0:b1], axis=1))
        assert_same_bits(dh0_part[b0:b1], dh0[b0:b1])
        assert np.isnan(np.delete(dh0_part, np.s_[b0:b1], axis=0)).all()
    assert_same_bits(forward(arrays, xw, None, h0, w_hh, activation, slices(B)), h)
    for got, expected in zip(backward(arrays, dh, h, w_hh, activation, slices(B)), (da, dh0), strict=True):
        assert_same_bits(got, expected)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_the_relu_layer_has_the_bits_of_the_written_order(arrays, rng):
    xw, h, w_hh = layer(arrays, rng, B=13, H=33)
    dh = arrays.input(rng.normal(size=(T, 13, 33)))
    hs = forward(arrays, xw, None, h, w_hh, "relu")
    for t in range(T):
        h = np.maximum(chain32(h, w_hh, xw[t]), np.float32(0))
        assert_same_bits(hs[t], h)
    da, dh0 = backward(arrays, dh, hs, w_hh, "relu")
    for t in reversed(range(T)):
        arrived = dh[t] if t == T - 1 else chain32(da[t + 1], w_hh.T, dh[t])
        assert_same_bits(da[t], np.where(hs[t] > 0, arrived, np.float32(0)))
    assert_same_bits(dh0, chain32(da[0], w_hh.T, np.zeros(33, "f4")))


def test_special_pre_activations(arrays):
    xw = arrays.input(np.array(SPECIAL).reshape(1, 1, -1))
    h0, w_hh = arrays.input(np.full((1, len(SPECIAL)), 0.5)), arrays.input(np.zeros((len(SPECIAL),) * 2))
    h = forward(arrays, xw, None, h0, w_hh, "tanh")[0, 0]
    np.testing.assert_array_equal(h, [0, 0, 1, -1, 1, -1, 1, -1, np.nan])  # 1 - tanh 20 is 8e-18
    h = forward(arrays, xw, None, h0, w_hh, "relu")[0, 0]
    np.testing.assert_array_equal(h, [0, 0, 20, 0, 1e4, 0, np.inf, 0, np.nan])


@activations
def test_not_a_number_stays_in_its_stream(arrays, rng, activation):
    B = 13
    xw, h0 = rng.normal(size=(T, B, H)), arrays.input(rng.normal(size=(B, H)))
    xw[1, 4, 3] = np.nan
    w_hh = arrays.input(recurrent_weights(rng, H))
    h = forward(arrays, arrays.input(xw), None, h0, w_hh, activation)
    assert not np.isnan(np.delete(h, 4, axis=1)).any()
    np.testing.assert_array_equal(np.isnan(h[1, 4]), np.arange(H) == 3)
    assert np.isnan(h[2, 4]).all()
    dh = rng.normal(size=(T, B, H))
    dh[1, 4, 3] = np.nan
    good = forward(arrays, arrays.input(np.nan_to_num(xw) + 5), None, h0, w_hh, activation)
    da, dh0 = backward(arrays, dh, good, w_hh, activation)
    assert not np.isnan(np.delete(da, 4, axis=1)).any()
    assert not np.isnan(np.delete(dh0, 4, axis=0)).any()
    assert np.isnan(da[1, 4, 3])
    assert not np.isnan(da[2]).any()
    assert np.isnan(dh0[4]).all()


# ---- backward ----------------------------------------------------------------------------------------------


@activations
@pytest.mark.parametrize("H", WIDTHS)
def test_backward_is_the_recurrence_reversed(arrays, rng, H, activation):
    for B in ROWS if H <= 33 else [1, 3, 13]:
        xw, h0, w_hh = layer(arrays, rng, B=B, H=H)
        h, dh = forward(arrays, xw, None, h0, w_hh, activation), arrays.input(rng.normal(size=(T, B, H)))
        da, dh0 = backward(arrays, dh, h, w_hh, activation)
        expected = oracle.recurrence_backward(*(a.astype("f8") for a in (dh, h, w_hh)), activation)
        assert_close(da, expected[0])
        if np.abs(expected[1]).max() > 0:  # one ReLU unit may be closed
            assert_close(dh0, expected[1])


@activations
def test_backward_of_a_single_step(arrays, rng, activation):
    xw, h0, w_hh = layer(arrays, rng, T=1)
    h, dh = forward(arrays, xw, None, h0, w_hh, activation), arrays.input(rng.normal(size=(1, B, H)))
    expected = oracle.recurrence_backward(*(a.astype("f8") for a in (dh, h, w_hh)), activation)
    for got, wanted in zip(backward(arrays, dh, h, w_hh, activation), expected, strict=True):
        assert_close(got, wanted)


def test_a_saturated_tanh_lets_no_gradient_through(arrays, rng):
    _, h0, w_hh = layer(arrays, rng)
    h = forward(arrays, arrays.input(rng.choice([-40.0, 40.0], size=(T, B, H))), None, h0, w_hh, "tanh")
    da, dh0 = backward(arrays, arrays.input(rng.normal(size=(T, B, H))), h, w_hh, "tanh")
    np.testing.assert_array_equal(np.abs(h), 1)
    np.testing.assert_array_equal(da, 0)
    np.testing.assert_array_equal(dh0, 0)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_the_slope_of_a_nearly_saturated_tanh_is_rounded_once(arrays, rng):
    h = arrays.input(1 - rng.uniform(0, 1e-3, size=(1, B, H)))
    da, _ = backward(arrays, arrays.input(np.ones((1, B, H))), h, arrays.input(np.zeros((H, H))), "tanh")
    assert_same_bits(da, fma32(-h, h, np.ones_like(h)))


def test_a_relu_at_zero_is_closed(arrays, rng):
    h = rng.choice([0.0, -0.0, 1.5], size=(T, B, H))
    dh, w_hh = rng.normal(size=(T, B, H)), np.zeros((H, H))
    da, _ = backward(arrays, dh, arrays.input(h), arrays.input(w_hh), "relu")
    np.testing.assert_array_equal(da, np.where(h > 0, dh, 0).astype(arrays.dtype))


# ---- the whole network -------------------------------------------------------------------------------------


def network(arrays: Guarded, params, x, h0, targets, dstate, activation: str):
    """Forward, loss and backward of a stack of layers, kernel by kernel. x (T, B, D) or ids (T, B)."""
    T, B = targets.shape
    everything, L = (0, B), len(h0)
    new, full = arrays.output, lambda a: (0, a.shape[-1])
    pack = lambda w: gemm.Packed(*w.shape, arrays.dtype).pack(w)  # noqa: E731
    turn = lambda w: gemm.Packed(*w.shape[::-1], arrays.dtype).pack_transposed(w)  # noqa: E731
    scratch = gemm.grad_scratch(arrays.dtype, 500)
    inputs, hs = [x], []
    for i in range(L):
        w_xh, w_hh, b_h = (params[f"layer{i}.{name}"] for name in ("W_xh", "W_hh", "b_h"))
        h, ids = new(T, B, len(b_h)), None
        if inputs[-1].dtype == np.int32:
            xw, ids = new(*w_xh.shape), inputs[-1]
            gemm.rows_add_bias(xw, w_xh, b_h)
        else:
            xw = h
            gemm.linear_forward(xw, inputs[-1], pack(w_xh), b_h, *everything)
        cells.forward(activation, {"h": h, "xw": xw, "ids": ids, "h0": h0[i], "w_hh": pack(w_hh)}, *everything)
        inputs.append(h)
        hs.append(h)
    logits, losses = new(T, B, len(params["b_y"])), new(T, B)
    gemm.linear_forward(logits, hs[-1], pack(params["W_hy"]), params["b_y"], *everything)
    y = logits.copy()
    loss.softmax_cross_entropy(losses, logits, logits, targets, 1.0, -1, *everything)

    grads = {name: arrays.inout(np.zeros(p.shape)) for name, p in params.items()}
    gemm.linear_backward_weight(grads["W_hy"], hs[-1], logits, scratch, *full(logits))
    gemm.bias_backward(grads["b_y"], logits, *full(logits))
    da, dh0 = new(*hs[-1].shape), new(*h0.shape)
    gemm.linear_forward(da, logits, turn(params["W_hy"]), None, *everything)
    dx = None
    for i in reversed(range(L)):
        da[-1] += dstate[i]
        given = {"dh": da, "da": da, "dh0": dh0[i], "h": hs[i], "h0": h0[i]}
        cells.backward(activation, given | {"w_hh_t": turn(params[f"layer{i}.W_hh"])}, *everything)
        before = np.concatenate([h0[i][None], hs[i][:-1]])
        gemm.linear_backward_weight(grads[f"layer{i}.W_hh"], before, da, scratch, *full(da))
        gemm.bias_backward(grads[f"layer{i}.b_h"], da, *full(da))
        if inputs[i].dtype == np.int32:
            gemm.rows_backward(grads[f"layer{i}.W_xh"], inputs[i], da, *full(da))
            break
        gemm.linear_backward_weight(grads[f"layer{i}.W_xh"], inputs[i], da, scratch, *full(da))
        dx = new(*inputs[i].shape)
        gemm.linear_forward(dx, da, turn(params[f"layer{i}.W_xh"]), None, *everything)
        da = dx
    return losses, y, hs, grads, dx, dh0


@activations
@pytest.mark.parametrize("L", [1, 2, 3])
@pytest.mark.parametrize("kind", ["dense", "ids"])
def test_a_network_of_kernels_agrees_with_the_oracle(arrays, rng, kind, L, activation):
    for T, B, D, H, V in [(3, 2, 5, 7, 11), (7, 13, 17, 33, 29)]:
        sizes = [D if kind == "dense" else V] + [H] * (L - 1)
        params = {"W_hy": rng.normal(size=(H, V)) / np.sqrt(H), "b_y": rng.normal(size=V)}
        for i, size in enumerate(sizes):
            one_hot = kind == "ids" and i == 0
            params[f"layer{i}.W_xh"] = rng.normal(size=(size, H)) / np.sqrt(1 if one_hot else size)
            params[f"layer{i}.W_hh"] = recurrent_weights(rng, H)
            params[f"layer{i}.b_h"] = rng.normal(size=H)
        params = {name: arrays.input(p) for name, p in params.items()}
        x = rng.integers(V, size=(T, B), dtype="i4")
        if kind == "dense":
            x = arrays.input(rng.normal(size=(T, B, D)))
        h0, dstate = (arrays.input(rng.uniform(-1, 1, size=(L, B, H))) for _ in range(2))
        targets = rng.integers(V, size=(T, B), dtype=np.int32)
        losses, y, hs, grads, dx, dh0 = network(arrays, params, x, h0, targets, dstate, activation)

        exact = {name: p.astype("f8") for name, p in params.items()}
        exact_x, exact_h0, exact_dstate = (
            x if kind == "ids" else x.astype("f8"),
            h0.astype("f8"),
            dstate.astype("f8"),
        )
        tape = oracle.rnn_forward(exact, exact_x, exact_h0, activation)
        exact_losses, dy = oracle.cross_entropy(tape.y, targets)
        exact_grads, exact_dx, exact_dh0 = oracle.rnn_backward(exact, tape, dy, exact_dstate)
        assert_close(y, tape.y)
        assert_close(losses, exact_losses)
        for h, wanted in zip(hs, tape.h, strict=True):
            assert_close(h, wanted)
        for name, grad in grads.items():
            assert_close(grad, exact_grads[name])
        assert_close(dh0, exact_dh0)
        if kind == "dense":
            assert_close(dx, exact_dx)
