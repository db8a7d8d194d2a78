# SPDX-License-Identifier: MIT
"""RNN against the float64 oracle: outputs, states and every gradient; and what callers may rely on around it."""

import numpy as np
import pytest
from kernel_tools import assert_close, assert_same_bits
from model_tools import network, oracle_backward, oracle_forward

import crnn

CELLS = ["tanh", "relu"]
LAYERS = [1, 2, 3]
# T, B, D, H: all different, none a multiple of a vector; several tiles wide with a rest in every direction; and more
# kinds of id than there are ids in a window, which an embedding treats in another way.
SMALL, LARGE, MANY_IDS = (3, 2, 5, 7), (6, 13, 33, 67), (3, 2, 11, 7)


KINDS = ["dense", "ids", "embedding"]


def of_kind(kind, D, H, L=1, cell="tanh", dtype="float32"):
    return network(D, H, L, cell, dtype, E=4 if kind == "embedding" else None)


def inputs(rng, net, T, B, kind):
    if kind == "dense":
        return rng.normal(size=(T, B, net.input_size)).astype(net.dtype)
    return rng.integers(net.input_size, size=(T, B), dtype=np.int32)


def states(rng, net, B):
    return rng.normal(size=(net.num_layers, B, net.hidden_size)).astype(net.dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [SMALL, LARGE, MANY_IDS])
def test_forward_and_backward_follow_the_oracle(rng, dtype, sizes, cell, layers, kind, threads):
    T, B, D, H = sizes
    net = of_kind(kind, D, H, layers, cell, dtype.name)
    x, h0 = inputs(rng, net, T, B, kind), states(rng, net, B)
    dy, dstate = rng.normal(size=(T, B, H)).astype(dtype), states(rng, net, B)
    y, state, tape = net.forward(x, h0, threads=threads)
    dx, dh0 = net.backward(tape, dy, dstate, threads=threads)

    truth = oracle_forward(net, x, h0)
    grads, true_dx, true_dh0 = oracle_backward(net, truth, dy, dstate)
    assert_close(y, truth.y)
    assert_close(state, truth.state)
    assert_close(dh0, true_dh0)
    for name, grad in net.grads.items():
        assert_close(grad, grads[name])
    if kind == "dense":
        assert_close(dx, true_dx)
    else:
        assert dx is None


def test_without_states_both_are_zero(rng, dtype):
    net = network(L=2, dtype=dtype.name)
    x, dy = rng.normal(size=(3, 2, 5)).astype(dtype), rng.normal(size=(3, 2, 7)).astype(dtype)
    zeros = np.zeros((2, 2, 7), dtype)
    y, state, tape = net.forward(x)
    dx, dh0 = net.backward(tape, dy)
    grads = net.flat_grads.copy()
    net.flat_grads.fill(0)
    y0, state0, tape0 = net.forward(x, zeros)
    dx0, dh00 = net.backward(tape0, dy, zeros)
    for got, expected in ((y, y0), (state, state0), (dx, dx0), (dh0, dh00), (grads, net.flat_grads)):
        assert_same_bits(got, expected)


def test_call_gives_fresh_arrays_with_the_bits_of_forward(rng):
    net = network(L=2)
    x = rng.normal(size=(3, 2, 5)).astype(np.float32)
    y, state = net(x)
    first = y.copy(), state.copy()
    again = net(x + 1)
    assert not np.shares_memory(y, again[0])
    assert_same_bits(y, first[0])
    assert_same_bits(state, first[1])
    assert_same_bits(net.forward(x)[0], y)


def test_backward_adds_to_the_gradients(rng):
    net = network(L=2, dtype="float64")
    x, dy = rng.normal(size=(3, 2, 5)), rng.normal(size=(3, 2, 7))
    _, _, tape = net.forward(x)
    net.backward(tape, dy)
    once = net.flat_grads.copy()
    net.backward(tape, dy)
    assert np.all(once != 0)
    np.testing.assert_allclose(net.flat_grads, 2 * once, rtol=1e-12)


def test_ids_give_what_their_one_hot_vectors_give(rng, dtype):
    net = network(D=11, L=2, dtype=dtype.name)
    ids = rng.integers(11, size=(4, 3))
    y, state, tape = net.forward(ids)
    y_dense, state_dense, tape_dense = net.forward(np.eye(11, dtype=dtype)[ids])
    assert_close(y, y_dense.astype(np.float64))
    assert_close(state, state_dense.astype(np.float64))
    dy = rng.normal(size=y.shape).astype(dtype)
    net.backward(tape, dy)
    of_ids = net.flat_grads.copy()
    net.flat_grads.fill(0)
    net.backward(tape_dense, dy)
    assert_close(of_ids, net.flat_grads.astype(np.float64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("D", [5, 23])
def test_a_tape_is_reused_where_it_fits_and_results_are_the_same(rng, kind, D):
    net = of_kind(kind, D, 7, 2)
    first, second, other = (inputs(rng, net, T, B, kind) for T, B in ((4, 3), (4, 3), (5, 3)))
    h0, dy = states(rng, net, 3), rng.normal(size=(4, 3, 7)).astype(np.float32)
    _, _, tape = net.forward(first, states(rng, net, 3))
    net.backward(tape, dy)
    net.flat_grads.fill(0)

    y, _, expected = net.forward(second, h0)
    _, dh0 = net.backward(expected, dy)
    grads, dh0, y = net.flat_grads.copy(), dh0.copy(), y.copy()
    net.flat_grads.fill(0)
    y2, _, tape2 = net.forward(second, h0, tape=tape)
    assert tape2 is tape
    _, dh02 = net.backward(tape2, dy)
    for got, wanted in ((y2, y), (dh02, dh0), (net.flat_grads, grads)):
        assert_same_bits(got, wanted)
    assert net.forward(other, h0, tape=tape)[2] is not tape


def test_a_tape_of_another_kind_of_input_is_left_alone(rng):
    net = network(L=2)
    x, ids = rng.normal(size=(3, 2, 5)).astype(np.float32), rng.integers(5, size=(3, 2))
    for first, second in ((x, ids), (ids, x)):
        _, _, tape = net.forward(first)
        y, _, another = net.forward(second, tape=tape)
        assert another is not tape
        assert_same_bits(y, net(second)[0])


def test_a_tapes_own_state_can_start_its_next_window(rng):
    net = network(L=2)
    x = rng.normal(size=(8, 3, 5)).astype(np.float32)
    _, state, tape = net.forward(x[:4])
    y, _, same = net.forward(x[4:], state, tape=tape)
    assert same is tape
    assert_same_bits(y, net(x)[0][4:])


def test_arguments_are_not_written(rng):
    net = network(L=2)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 2, 5), (2, 2, 7), (3, 2, 7), (2, 2, 7))]
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    x, h0, dy, dstate = arrays
    _, _, tape = net.forward(x, h0)
    net.backward(tape, dy, dstate)
    for array, copy in zip(arrays, copies, strict=True):
        assert_same_bits(array, copy)


def test_any_memory_order_and_any_integer_type_will_do(rng):
    net = network()
    x = rng.normal(size=(3, 2, 5)).astype(np.float32)
    h0 = rng.normal(size=(1, 2, 7)).astype(np.float32)
    expected = net(x, h0)[0]
    assert_same_bits(net(np.asfortranarray(x), np.asfortranarray(h0))[0], expected)
    assert_same_bits(net(np.repeat(x, 2, axis=1)[:, ::2], h0)[0], expected)
    assert_same_bits(net(np.ascontiguousarray(x[::-1])[::-1], h0)[0], expected)
    ids = rng.integers(5, size=(3, 2))
    expected = net(ids)[0]
    for integer in "bBhHiIlLqQ":
        assert_same_bits(net(ids.astype(integer))[0], expected)
    assert_same_bits(net(ids.tolist())[0], expected)


def test_named_arrays_are_views_of_the_flat_ones_in_order():
    net = network(D=5, H=7, L=2)
    expected = {
        "layer0.W_xh": (5, 7), "layer0.W_hh": (7, 7), "layer0.b_h": (7,),
        "layer1.W_xh": (7, 7), "layer1.W_hh": (7, 7), "layer1.b_h": (7,),
    }  # fmt: skip
    for named, flat in ((net.params, net.flat_params), (net.grads, net.flat_grads)):
        assert {name: array.shape for name, array in named.items()} == expected
        flat[...] = np.arange(flat.size)
        assert_same_bits(np.concatenate([array.ravel() for array in named.values()]), flat)
        named["layer1.b_h"][-1] = -5
        assert flat[-1] == -5


@pytest.mark.parametrize("D", [5, 23])
@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_used_at_once_by_an_old_tape_too(rng, kind, D):
    net = of_kind(kind, D, 7, 2)
    x, dy = inputs(rng, net, 3, 2, kind), rng.normal(size=(3, 2, 7)).astype(np.float32)
    _, _, tape = net.forward(x)
    net.backward(tape, dy)
    for name in net.params:
        net.params[name][...] *= -0.9
        y, _, tape = net.forward(x, tape=tape)
        net.flat_grads.fill(0)
        net.backward(tape, dy)
        truth = oracle_forward(net, x)
        assert_close(y, truth.y)
        for other, expected in oracle_backward(net, truth, dy)[0].items():
            if other in net.grads:
                assert_close(net.grads[other], expected)


def test_what_is_not_finite_is_refused_but_not_in_padding(rng):
    for cell in CELLS:
        net = network(L=2, cell=cell)
        x = rng.normal(size=(5, 3, 5)).astype(np.float32)
        expected = net(x, lengths=[5, 2, 5])[0]
        x[2, 1, 0] = np.nan
        assert_same_bits(net(x, lengths=[5, 2, 5])[0], expected)
        for lengths in (None, [5, 3, 5], [1, 5, 1]):
            with pytest.raises(ValueError, match=r"x: expected finite numbers, got nan"):
                net(x, lengths=lengths)
        with pytest.raises(ValueError, match="lengths: expected shape"):
            net(x, lengths=[5, 2])


@pytest.mark.parametrize("E", [None, 4])
def test_repr_makes_a_network_of_the_same_shape(E):
    net = network(D=5, H=7, L=2, cell="relu", dtype="float64", E=E)
    twin = eval(repr(net), {"RNN": crnn.RNN})
    assert repr(twin) == repr(net)
    assert {name: array.shape for name, array in twin.params.items()} == {
        name: array.shape for name, array in net.params.items()
    }


def test_the_smallest_network_runs():
    net = crnn.RNN(1, 1, dtype="float64", seed=0)
    net.flat_params[...] = 0.5, -0.25, 0.125
    y, _ = net(np.full((2, 1, 1), 2.0))
    first = np.tanh(1.125)
    np.testing.assert_allclose(y.ravel(), [first, np.tanh(1.125 - 0.25 * first)], rtol=1e-15)


def test_a_name_of_numpy_is_a_name():
    net = crnn.RNN(3, 4, cell=np.array(["gru"])[0], seed=1)
    assert type(net.cell) is str
    assert net.stream().step(np.ones(3, np.float32)).shape == (4,)
