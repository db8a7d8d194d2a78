# SPDX-License-Identifier: MIT
"""RNN with every cell, depth, direction and set of lengths against the float64 oracle, and what lengths promise."""

import numpy as np
import oracle
import pytest
from kernel_tools import assert_close, assert_same_bits
from model_tools import network, oracle_backward, oracle_forward
from oracle_cells import NORMALISED, WITH_C, WITHOUT_W_HH

from crnn._core import cells as core

cells = pytest.mark.parametrize("kind", core.CELLS)
WAYS = [{}, {"bidirectional": True}, {"dense_layers": True}, {"dense_layers": True, "bidirectional": True}]
ways = pytest.mark.parametrize("ways", WAYS, ids=["one way", "two ways", "dense", "dense, two ways"])
unequal = pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])

SMALL, LARGE = (5, 3, 5, 7), (7, 13, 17, 33)  # T, B, D, H


def net_of(kind, D, H, L=1, dtype="float32", **options):
    return network(D, H, L, kind, dtype, **options)


def draw_lengths(rng, T, B):
    """In no order; one row has all steps, not the first, and one has a single step."""
    lengths = rng.integers(1, T, size=B, endpoint=True)
    lengths[[1, -1]] = T, 1
    return lengths


def draw_states(rng, net, B):
    parts = 2 if net.cell in WITH_C else 1
    return oracle.packed_states(
        [
            tuple(rng.normal(size=(B, H)).astype(net.dtype) for _ in range(parts))
            for H in net.hidden_sizes
            for _ in range(net.directions)
        ]
    )


def arrays_of(states):
    """The arrays of a state one after the other."""
    return [states] if isinstance(states, np.ndarray) else [array for part in states for array in arrays_of(part)]


def assert_near(net, got, expected):
    """Where few units are normalised, those that differ little are scaled up, and their rounding errors with them. One
    unit alone is normalised to 0, and has no gradient."""
    if net.cell not in NORMALISED:
        assert_close(got, expected)
    elif expected.any():
        assert_close(got, expected, (1e-4 if min(net.hidden_sizes) > 3 else 1e-2) if net.dtype == "float32" else 1e-9)
    else:
        np.testing.assert_array_equal(got, 0)


def states_are_close(net, got, expected):
    assert type(got) is type(expected)
    for ours, theirs in zip(arrays_of(got), arrays_of(expected), strict=True):
        assert_near(net, ours, theirs)


def gradients_are_close(net, expected):
    assert net.grads.keys() == expected.keys()
    for name, grad in net.grads.items():
        assert_near(net, grad, expected[name])


def assert_follows_the_oracle(rng, net, x, lengths=None, *, with_states=True):
    T, B = x.shape[:2]
    state, dstate = (draw_states(rng, net, B) if with_states else None for _ in range(2))
    dy = rng.normal(size=(T, B, net.output_size)).astype(net.dtype)
    y, last, tape = net.forward(x, state, lengths=lengths)
    dx, dfirst = net.backward(tape, dy, dstate)

    truth = oracle_forward(net, x, state, lengths=lengths)
    grads, true_dx, true_dfirst = oracle_backward(net, truth, dy, dstate)
    assert_near(net, y, truth.y)
    states_are_close(net, last, truth.state)
    states_are_close(net, dfirst, true_dfirst)
    gradients_are_close(net, grads)
    if x.dtype.kind == "f":
        assert_near(net, dx, true_dx)
    else:
        assert dx is None
    if lengths is not None:
        padded = np.arange(T)[:, None] >= np.asarray(lengths)
        assert not y[padded].any()
        assert dx is None or not dx[padded].any()


# ---- the oracle ----------------------------------------------------------------------------------------------------


@unequal
@ways
@pytest.mark.parametrize("layers", [1, 2, 3])
@cells
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_forward_and_backward_follow_the_oracle(rng, dtype, sizes, kind, layers, ways, unequal):
    T, B, D, H = sizes
    net = net_of(kind, D, H, layers, dtype.name, **ways)
    x = rng.normal(size=(T, B, D)).astype(dtype)
    assert_follows_the_oracle(rng, net, x, draw_lengths(rng, T, B) if unequal else None)


@unequal
@ways
@pytest.mark.parametrize("sizes", [[7, 3], [3, 17, 5, 2], [7, 7]], ids=str)
@cells
def test_every_layer_may_have_a_size_of_its_own(rng, dtype, kind, sizes, ways, unequal):
    net = net_of(kind, 5, sizes, None, dtype.name, **ways)
    assert net.hidden_sizes == tuple(sizes)
    assert net.output_size == sum(sizes if "dense_layers" in ways else sizes[-1:]) * net.directions
    assert_follows_the_oracle(rng, net, rng.normal(size=(5, 3, 5)).astype(dtype), [2, 5, 3] if unequal else None)


@unequal
@ways
@pytest.mark.parametrize("D", [5, 23])  # fewer ids than steps; more, which an embedding treats in another way
@pytest.mark.parametrize("E", [None, 4])
@cells
def test_ids_and_embeddings_follow_the_oracle(rng, dtype, kind, E, D, ways, unequal):
    net = net_of(kind, D, 7, 2, dtype.name, E=E, **ways)
    ids = rng.integers(D, size=(5, 3), dtype=np.int32)
    assert_follows_the_oracle(rng, net, ids, [2, 5, 3] if unequal else None)


@unequal
@ways
@cells
def test_learned_states_follow_the_oracle(rng, dtype, kind, ways, unequal):
    net = net_of(kind, 5, [7, 3], None, dtype.name, **ways, trainable_initial_state=True)
    learned = [name for name in net.params if name.rsplit(".")[-1] in ("h0", "c0")]
    assert len(learned) == 2 * net.directions * (2 if kind in WITH_C else 1)
    x, lengths = rng.normal(size=(5, 3, 5)).astype(dtype), [2, 5, 3] if unequal else None
    assert_follows_the_oracle(rng, net, x, lengths, with_states=False)
    net.flat_grads.fill(0)
    _, _, tape = net.forward(x, draw_states(rng, net, 3), lengths=lengths)
    net.backward(tape, np.ones((5, 3, net.output_size), dtype))
    for name in learned:  # they were not used
        assert not net.grads[name].any()


@pytest.mark.parametrize("T", [1, 2])
@ways
@cells
def test_the_shortest_windows_follow_the_oracle(rng, dtype, kind, ways, T):
    net = net_of(kind, 5, 7, 2, dtype.name, **ways)
    assert_follows_the_oracle(rng, net, rng.normal(size=(T, 1, 5)).astype(dtype))


@ways
@cells
def test_saturated_gates_follow_the_oracle(rng, dtype, kind, ways):
    net = net_of(kind, 5, 7, 1, dtype.name, **ways)
    assert_follows_the_oracle(rng, net, (30 * rng.normal(size=(5, 3, 5))).astype(dtype), [2, 5, 3])


@unequal
@pytest.mark.parametrize("variational_dropout", [False, True], ids=["each step", "variational_dropout"])
@ways
@cells
def test_dropout_follows_the_oracle_with_the_masks_that_were_drawn(
    rng, dtype, kind, ways, variational_dropout, unequal
):
    recurrent_dropout = 0.0 if kind in WITHOUT_W_HH else 0.4
    options = {
        "dropout": 0.3,
        "recurrent_dropout": recurrent_dropout,
        "variational_dropout": variational_dropout,
        **ways,
    }
    net = net_of(kind, 5, [17, 7, 3] if "dense_layers" in ways else [17, 7], None, dtype.name, **options)
    x, dy = (rng.normal(size=(5, 13, size)).astype(dtype) for size in (5, net.output_size))
    state, dstate = draw_states(rng, net, 13), draw_states(rng, net, 13)
    lengths = draw_lengths(rng, 5, 13) if unequal else None
    y, last, tape = net.forward(x, state, lengths=lengths, dropout_seed=9)
    dx, dfirst = net.backward(tape, dy, dstate)

    masks = {
        "dropout": [layer.mask.astype("f8") for layer in tape.layers[1:]],  # packed if lengths are unequal
    }
    if recurrent_dropout:
        runs = [cell for layer in tape.layers for _, cell in layer.directions]
        masks["recurrent_dropout"] = [cell.mask.astype("f8") for cell in runs]
    for name, drawn in masks.items():
        for mask in drawn:
            np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - options[name])], rtol=1e-4)
    masks["dropout"] = [np.broadcast_to(tape.padded(mask), (5, 13, mask.shape[2])) for mask in masks["dropout"]]
    for mask in masks["dropout"]:
        longest = mask if lengths is None else mask[:, lengths == 5]
        assert (longest == longest[0]).all() == variational_dropout
    truth = oracle_forward(net, x, state, lengths=lengths, **masks)
    grads, true_dx, true_dfirst = oracle_backward(net, truth, dy, dstate)
    assert_near(net, y, truth.y)
    assert_near(net, dx, true_dx)
    states_are_close(net, last, truth.state)
    states_are_close(net, dfirst, true_dfirst)
    gradients_are_close(net, grads)


@cells
def test_there_is_no_dropout_without_its_seed_and_each_seed_has_its_own(rng, kind):
    options = {"dropout": 0.3, "recurrent_dropout": 0.0 if kind in WITHOUT_W_HH else 0.4}
    net, plain = net_of(kind, 5, 7, 2, **options), net_of(kind, 5, 7, 2)
    x = rng.normal(size=(5, 3, 5)).astype(np.float32)
    assert_same_bits(net.forward(x)[0], plain(x)[0])
    first, again, other = (net.forward(x, dropout_seed=seed)[0] for seed in (1, 1, 2))
    assert_same_bits(again, first)
    assert (other != first).any()


# ---- lengths -------------------------------------------------------------------------------------------------------


@ways
@cells
def test_no_row_has_to_be_as_long_as_the_array(rng, dtype, kind, ways):
    net = net_of(kind, 5, 7, 2, dtype.name, **ways)
    assert_follows_the_oracle(rng, net, rng.normal(size=(7, 3, 5)).astype(dtype), [4, 2, 5])


@pytest.mark.parametrize("threads", [1, 2])
@ways
@cells
def test_what_stands_at_padded_steps_does_not_matter(rng, kind, ways, threads):
    net = net_of(kind, 5, 7, 2, **ways)
    x, dy = (rng.normal(size=(7, 13, size)).astype(np.float32) for size in (5, net.output_size))
    lengths = draw_lengths(rng, 7, 13)
    padded = np.arange(7)[:, None] >= lengths
    results = []
    for filling in (0, np.nan):
        x[padded] = dy[padded] = filling
        net.flat_grads.fill(0)
        y, state, tape = net.forward(x, lengths=lengths, threads=threads)
        dx, dstate = net.backward(tape, dy, threads=threads)
        results.append([a.copy() for a in (y, dx, net.flat_grads, *arrays_of(state), *arrays_of(dstate))])
    for clean, dirty in zip(*results, strict=True):
        assert not np.isnan(dirty).any()
        assert_same_bits(dirty, clean)


@unequal
@ways
@cells
def test_threads_and_the_batchs_order_do_not_matter(rng, dtype, kind, ways, unequal):
    net = net_of(kind, 5, 17, 2, dtype.name, **ways)
    T, B = 7, 13
    x, dy = (rng.normal(size=(T, B, size)).astype(dtype) for size in (5, net.output_size))
    lengths = draw_lengths(rng, T, B) if unequal else None
    state = draw_states(rng, net, B)

    def run(threads, order=slice(None)):
        rows = lambda states: tuple(s[:, order] for s in arrays_of(states))  # noqa: E731
        start = rows(state) if kind in WITH_C else rows(state)[0]
        net.flat_grads.fill(0)
        these = None if lengths is None else lengths[order]
        y, last, tape = net.forward(x[:, order], start, lengths=these, threads=threads)
        dx, first = net.backward(tape, dy[:, order], threads=threads)
        return [a.copy() for a in (y, dx, *arrays_of(last), *arrays_of(first))], net.flat_grads.copy()

    once, grads = run(1)
    for threads in (2, 3):
        more, more_grads = run(threads)
        assert_same_bits(more_grads, grads)
        for got, expected in zip(more, once, strict=True):
            assert_same_bits(got, expected)
    order = rng.permutation(B)
    for got, expected in zip(run(2, order)[0], once, strict=True):
        assert_same_bits(got, expected[:, order])


@ways
@cells
def test_full_lengths_give_the_bits_of_none(rng, kind, ways):
    net = net_of(kind, 5, 7, 2, **ways)
    x, dy = (rng.normal(size=(5, 3, size)).astype(np.float32) for size in (5, net.output_size))
    results = []
    for lengths in (None, [5, 5, 5]):
        net.flat_grads.fill(0)
        y, state, tape = net.forward(x, lengths=lengths)
        dx, dstate = net.backward(tape, dy)
        results.append([a.copy() for a in (y, dx, net.flat_grads, *arrays_of(state), *arrays_of(dstate))])
    for without, with_lengths in zip(*results, strict=True):
        assert_same_bits(with_lengths, without)


# ---- windows and tapes ---------------------------------------------------------------------------------------------


@unequal
@ways
@pytest.mark.parametrize("T", [5, 301])  # a call that keeps no tape works on a few steps at a time
@cells
def test_a_call_gives_the_bits_of_forward(rng, kind, T, ways, unequal):
    net = net_of(kind, 5, 33, 2, **ways)
    x, state = rng.normal(size=(T, 13, 5)).astype(np.float32), draw_states(rng, net, 13)
    lengths = draw_lengths(rng, T, 13) if unequal else None
    y, last, _ = net.forward(x, state, lengths=lengths)
    for threads in (1, 2):
        called, after = net(x, state, lengths=lengths, threads=threads)
        assert_same_bits(called, y)
        for got, expected in zip(arrays_of(after), arrays_of(last), strict=True):
            assert_same_bits(got, expected)


@cells
def test_two_windows_with_the_state_carried_give_the_bits_of_one(rng, dtype, kind):
    net = net_of(kind, 5, 7, 2, dtype.name)
    x = rng.normal(size=(8, 3, 5)).astype(dtype)
    y, state, _ = net.forward(x)
    first, between, tape = net.forward(x[:4])
    first = first.copy()
    second, last, same = net.forward(x[4:], between, tape=tape)  # the tape's own state
    assert same is tape
    assert_same_bits(np.concatenate([first, second]), y)
    for got, expected in zip(arrays_of(last), arrays_of(state), strict=True):
        assert_same_bits(got, expected)


@unequal
@ways
@cells
def test_a_tape_used_again_leaves_nothing_of_its_first_window(rng, kind, ways, unequal):
    net = net_of(kind, 5, 7, 2, **ways)
    x, other = rng.normal(size=(2, 5, 3, 5)).astype(np.float32)
    dy = rng.normal(size=(5, 3, net.output_size)).astype(np.float32)
    lengths = [2, 5, 3] if unequal else None

    def run(tape):
        net.flat_grads.fill(0)
        y, state, tape = net.forward(x, lengths=lengths, tape=tape)
        dx, dstate = net.backward(tape, dy)
        return [a.copy() for a in (y, dx, net.flat_grads, *arrays_of(state), *arrays_of(dstate))]

    expected = run(None)
    for earlier in (None, [5, 1, 4], [5, 5, 5]):
        _, _, tape = net.forward(other, draw_states(rng, net, 3), lengths=earlier)
        net.backward(tape, 1 + dy, draw_states(rng, net, 3))
        for got, wanted in zip(run(tape), expected, strict=True):
            assert_same_bits(got, wanted)


@unequal
@ways
@cells
def test_backward_adds_to_the_gradients(rng, kind, ways, unequal):
    net = net_of(kind, 5, 7, 2, "float64", **ways, trainable_initial_state=True)
    x, dy = rng.normal(size=(5, 3, 5)), rng.normal(size=(5, 3, net.output_size))
    _, _, tape = net.forward(x, lengths=[2, 5, 3] if unequal else None)
    net.backward(tape, dy)
    once = net.flat_grads.copy()
    net.backward(tape, dy)
    np.testing.assert_allclose(net.flat_grads, 2 * once, rtol=1e-12, atol=1e-14)
    for name, grad in net.grads.items():
        assert grad.any(), name


# ---- names ---------------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize(("kind", "gates"), [("tanh", 1), ("relu", 1), ("lstm", 4), ("gru", 3), ("original_gru", 3)])
def test_names_and_shapes_are_those_of_the_conventions(kind, gates, ways):
    net = net_of(kind, 11, [7, 3], None, E=5, **ways, trainable_initial_state=True)
    expected = {"embedding": (11, 5)}
    D = 5
    for layer, H in enumerate([7, 3]):
        for prefix in (f"layer{layer}.", f"layer{layer}.reverse.")[: net.directions]:
            expected |= {f"{prefix}W_xh": (D, gates * H), f"{prefix}W_hh": (H, gates * H), f"{prefix}b_h": (gates * H,)}
            expected |= {f"{prefix}b_hn": (H,)} if kind == "gru" else {}
            expected |= {f"{prefix}h0": (H,)} | ({f"{prefix}c0": (H,)} if kind in WITH_C else {})
        D = H * net.directions  # with dense layers the second one reads the first alone as well
    assert {name: values.shape for name, values in net.params.items()} == expected
    assert net.flat_params.size == sum(np.prod(shape) for shape in expected.values())


@pytest.mark.parametrize("directions", [1, 2])
def test_dense_layers_read_all_layers_below_and_y_has_all(rng, directions):
    net = net_of("gru", 5, [7, 3, 4], None, bidirectional=directions == 2, dense_layers=True)
    assert [net.params[f"layer{number}.W_xh"].shape[0] for number in range(3)] == [5, 7 * directions, 10 * directions]
    assert net.output_size == 14 * directions
    y, state = net(rng.normal(size=(6, 2, 5)).astype(np.float32))
    first = 0
    for index, h in enumerate(state):
        step = 0 if directions == 2 and index % 2 else -1  # a reverse direction ends at the first step
        assert_same_bits(np.ascontiguousarray(y[step, :, first : first + h.shape[1]]), h)
        first += h.shape[1]


def test_one_dense_layer_is_a_layer(rng):
    plain, dense = net_of("lstm", 5, 7), net_of("lstm", 5, 7, dense_layers=True)
    assert_same_bits(dense.flat_params, plain.flat_params)
    x = rng.normal(size=(5, 3, 5)).astype(np.float32)
    assert_same_bits(dense(x)[0], plain(x)[0])
