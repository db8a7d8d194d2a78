# SPDX-License-Identifier: MIT
"""Every cell's kernels through time, forward and back, against the oracle. Sequences of different lengths: see
test_kernels_lengths.py; the plain cell alone: test_kernels_rnn.py."""

import numpy as np
import pytest
from cell_tools import (
    GATED,
    GATES,
    KINDS,
    assert_agree,
    assert_all_same_bits,
    backward,
    before_a_call,
    expected_backward,
    expected_forward,
    forward,
    layer,
    recurrent_gradient,
    rows_of,
    weights_of,
)
from kernel_tools import ROWS, SPECIAL, WIDTHS, Guarded, assert_close, assert_same_bits, chain32, fma32, slices
from oracle_cells import NORMALISED, cell_backward, cell_forward, concatenated

from crnn._core import cells, vecmath

T, B, H, V = 3, 2, 7, 11
WITH_C = [kind for kind in KINDS if cells.CELLS[kind].has_c]
GRUS = ["gru", "original_gru"]

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
with_and_without_mask = pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
in_float32 = pytest.mark.parametrize("dtype", ["float32"], indirect=True)


def arriving(arrays: Guarded, rng: np.random.Generator, T: int, B: int, H: int) -> dict:
    """Gradients at h, and at an LSTM's last c."""
    return {"dh": arrays.input(rng.normal(size=(T, B, H))), "dc": arrays.input(rng.normal(size=(B, H)))}


def turned(arrays: Guarded, given: dict) -> dict:
    return {name: arrays.input(a[::-1]) if a.ndim == 3 else a for name, a in given.items()}


# ---- against the oracle --------------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("H", [*WIDTHS[:-1], 20, 22])
def test_forward_and_backward_are_the_cell_and_its_gradient(arrays, rng, H, kind):
    """Once in a batch that is large enough that no sum is small by chance; then batches of all sizes, by their bits."""
    if H == 1 and kind in NORMALISED:
        pytest.skip("what is normalised over one unit is 0: see test_kernels_ln_lstm.py")
    given, arrived = layer(arrays, rng, kind, T, 25, H), arriving(arrays, rng, T, 25, H)
    wanted, run = expected_forward(kind, given)
    kept = forward(arrays, kind, given)
    assert_agree(kept, wanted)
    back = backward(arrays, kind, given, kept, arrived)
    assert_agree(back, expected_backward(kind, run, arrived)[0])
    for B in ROWS[:-1] if H <= 33 else [1, 3, 13]:
        few, few_arrived = rows_of(given, np.s_[:B], arrays), {"dh": arrived["dh"][:, :B], "dc": arrived["dc"][:B]}
        few_kept = forward(arrays, kind, few)
        for name, a in few_kept.items():
            assert_same_bits(a, kept[name][:, :B])
        for name, a in backward(arrays, kind, few, few_kept, few_arrived).items():
            assert_same_bits(a, back[name][:, :B] if a.ndim == 3 else back[name][:B])


@each_kind
@both_directions
@with_and_without_mask
@pytest.mark.parametrize("H", [7, 17])
def test_every_direction_with_and_without_a_mask(arrays, rng, H, kind, reverse, masked):
    given, arrived = layer(arrays, rng, kind, 5, 13, H, masked), arriving(arrays, rng, 5, 13, H)
    wanted, run = expected_forward(kind, given, reverse=reverse)
    kept = forward(arrays, kind, given, reverse=reverse, parts=3)
    assert_agree(kept, wanted)
    back = backward(arrays, kind, given, kept, arrived, reverse=reverse, parts=3)
    wanted, grads = expected_backward(kind, run, arrived, reverse=reverse)
    assert_agree(back, wanted)
    if "W_hh" in grads:
        before = rng.normal(size=grads["W_hh"].shape).astype(arrays.dtype)
        dw = arrays.inout(before)
        recurrent_gradient(arrays, kind, given, kept, back, dw, reverse=reverse)
        assert_close(dw, before + grads["W_hh"])


@each_kind
@with_and_without_mask
def test_the_whole_gradient_at_h_is_left_in_dh(arrays, rng, kind, masked):
    """At h[t] it is what arrived there, and what the oracle hands back from the steps after t alone."""
    given, arrived = layer(arrays, rng, kind, T, 5, H, masked), arriving(arrays, rng, T, 5, H)
    dh = backward(arrays, kind, given, forward(arrays, kind, given), arrived)["dh"]
    assert_same_bits(dh[-1], arrived["dh"][-1])
    exact = {name: a.astype("f8") for name, a in (given | arrived).items()}
    wanted, _ = expected_forward(kind, given)
    weights = {name: exact[name] for name in weights_of(given)}
    for t in range(1, T):
        state = tuple(wanted[name][t - 1] for name in (("h", "c") if kind in WITH_C else ("h",)))
        after = (np.zeros_like(exact["dc"]), exact["dc"]) if kind in WITH_C else None
        rest = cell_forward(kind, exact["xw"][t:], state, weights, mask=exact.get("mask"))
        _, from_later, _ = cell_backward(rest, exact["dh"][t:], after)
        assert_close(dh[t - 1], exact["dh"][t - 1] + from_later[0])


@each_kind
@with_and_without_mask
def test_the_gradient_at_the_pre_activations_needs_no_room_of_its_own(arrays, rng, kind, masked):
    """It may take the place of what arrives at a plain cell, and of a gated one's gates."""
    given, arrived = layer(arrays, rng, kind, T, 5, 17, masked), arriving(arrays, rng, T, 5, 17)
    kept = forward(arrays, kind, given)
    apart = backward(arrays, kind, given, kept, arrived)
    in_place = backward(arrays, kind, given, kept, arrived, in_place=True)
    if "dh" not in in_place:
        del apart["dh"]
    assert_all_same_bits(in_place, apart)


@each_kind
@both_directions
@with_and_without_mask
def test_a_single_step(arrays, rng, kind, reverse, masked):
    given, arrived = layer(arrays, rng, kind, 1, 13, H, masked), arriving(arrays, rng, 1, 13, H)
    wanted, run = expected_forward(kind, given)
    kept = forward(arrays, kind, given, reverse=reverse)
    assert_agree(kept, wanted)
    back = backward(arrays, kind, given, kept, arrived, reverse=reverse)
    assert_agree(back, expected_backward(kind, run, arrived)[0])


# ---- the same bits, however it is called ---------------------------------------------------------------------------


@each_kind
@with_and_without_mask
@pytest.mark.parametrize("H", [7, 33])
def test_reverse_is_the_sequence_turned_round(arrays, rng, H, kind, masked):
    given, arrived = layer(arrays, rng, kind, 4, 5, H, masked), arriving(arrays, rng, 4, 5, H)
    kept = forward(arrays, kind, given, reverse=True)
    back = backward(arrays, kind, given, kept, arrived, reverse=True)
    given, arrived = turned(arrays, given), turned(arrays, arrived)
    kept_onward = forward(arrays, kind, given)
    assert_all_same_bits(turned(arrays, kept), kept_onward)
    assert_all_same_bits(turned(arrays, back), backward(arrays, kind, given, kept_onward, arrived))


@each_kind
@both_directions
@pytest.mark.parametrize("H", [1, 7, 16, 33])
def test_forward_of_ids_reads_their_rows(arrays, rng, H, kind, reverse):
    for B in (1, 2, 13):
        given = layer(arrays, rng, kind, T, B, H)
        table, ids = arrays.input(rng.normal(size=(V, GATES[kind] * H))), rng.integers(V, size=(T, B), dtype=np.int32)
        dense = forward(arrays, kind, given | {"xw": arrays.input(table[ids])}, reverse=reverse)
        for parts in (1, slices(B)):
            got = forward(arrays, kind, given | {"xw": table}, ids=ids, parts=parts, reverse=reverse)
            assert_all_same_bits(got, dense)


@each_kind
@both_directions
@pytest.mark.parametrize("H", [7, 33])
def test_forward_may_replace_its_input(arrays, rng, H, kind, reverse):
    given = layer(arrays, rng, kind, T, 13, H)
    shared = arrays.inout(given["xw"])
    into = {"gates" if kind in GATED else "h": shared}
    got = forward(arrays, kind, given | {"xw": shared}, into=into, parts=2, reverse=reverse)
    assert_all_same_bits(got, forward(arrays, kind, given, reverse=reverse))


@each_kind
@both_directions
@with_and_without_mask
def test_two_windows_with_the_state_carried_are_one(arrays, rng, kind, reverse, masked):
    given = layer(arrays, rng, kind, 2 * T, 5, 17, masked)
    whole = forward(arrays, kind, given, reverse=reverse)
    for size in (T, 1):
        windows = [np.s_[t : t + size] for t in range(0, 2 * T, size)]
        state = {}
        for window in reversed(windows) if reverse else windows:
            part = forward(arrays, kind, given | {"xw": given["xw"][window]} | state, reverse=reverse)
            assert_all_same_bits(part, {name: a[window] for name, a in whole.items()})
            last = 0 if reverse else -1
            state = {"h0": part["h"][last]} | ({"c0": part["c"][last]} if kind in WITH_C else {})


@both_directions
@pytest.mark.parametrize("size", [1, T])
def test_an_lstm_may_carry_c_in_the_memory_that_it_writes(arrays, rng, size, reverse):
    """What a pass that keeps nothing does: each window's c replaces the one before it."""
    given = layer(arrays, rng, "lstm", 2 * T, 13, 17)
    whole = forward(arrays, "lstm", given, reverse=reverse)
    c, last, state = arrays.output(size, 13, 17), 0 if reverse else -1, {}
    windows = [np.s_[t : t + size] for t in range(0, 2 * T, size)]
    for window in reversed(windows) if reverse else windows:
        part = forward(arrays, "lstm", given | {"xw": given["xw"][window]} | state, into={"c": c}, parts=2,
                       reverse=reverse)  # fmt: skip
        assert_all_same_bits(part, {name: a[window] for name, a in whole.items()})
        state = {"h0": part["h"][last], "c0": c[last]}


def test_an_lstm_need_not_keep_what_only_the_way_back_needs(arrays, rng):
    given = layer(arrays, rng, "lstm", T, 5, 17)
    whole = forward(arrays, "lstm", given)
    got = forward(arrays, "lstm", given, into={"tanh_c": None})
    assert got.pop("tanh_c") is None
    for name in ("tanh_c", "gates"):
        whole.pop(name)
    got.pop("gates")
    assert_all_same_bits(got, whole)


@each_kind
@with_and_without_mask
@pytest.mark.parametrize("H", [7, 33, 209])
def test_the_bits_of_a_stream_do_not_depend_on_its_place(arrays, rng, H, kind, masked):
    order = rng.permutation(13)
    given, arrived = layer(arrays, rng, kind, T, 13, H, masked), arriving(arrays, rng, T, 13, H)
    kept = forward(arrays, kind, given)
    back = backward(arrays, kind, given, kept, arrived)
    moved = rows_of(given, order, arrays)
    moved_arrived = {"dh": arrived["dh"][:, order], "dc": arrived["dc"][order]}
    moved_kept = forward(arrays, kind, moved)
    assert_all_same_bits(moved_kept, {name: a[:, order] for name, a in kept.items()})
    moved_back = backward(arrays, kind, moved, moved_kept, moved_arrived)
    assert_all_same_bits(moved_back, {name: a[:, order] if a.ndim == 3 else a[order] for name, a in back.items()})


@each_kind
@both_directions
@with_and_without_mask
def test_a_slice_of_the_batch_leaves_the_others_alone(arrays, rng, kind, reverse, masked):
    B = 13
    given, arrived = layer(arrays, rng, kind, T, B, H, masked), arriving(arrays, rng, T, B, H)
    kept = forward(arrays, kind, given, reverse=reverse)
    back = backward(arrays, kind, given, kept, arrived, reverse=reverse)
    for b0, b1 in [(0, 1), (4, 9), (12, 13), (5, 5)]:
        got = forward(arrays, kind, given, parts=[(b0, b1)], reverse=reverse)
        got |= backward(arrays, kind, given, kept, arrived, parts=[(b0, b1)], reverse=reverse)
        for name, whole in (kept | back).items():
            wanted = before_a_call(kind, name, whole, arrived)
            inside = np.s_[:, b0:b1] if whole.ndim == 3 else np.s_[b0:b1]
            wanted[inside] = whole[inside]
            assert_same_bits(got[name], wanted)
    for parts in (slices(B), 2, 8):
        parts = list(parts) if not isinstance(parts, int) else parts
        assert_all_same_bits(forward(arrays, kind, given, parts=parts, reverse=reverse), kept)
        assert_all_same_bits(backward(arrays, kind, given, kept, arrived, parts=parts, reverse=reverse), back)


@each_kind
def test_a_batch_of_more_rows_than_the_cache_takes_at_once(arrays, rng, kind):
    given, arrived = layer(arrays, rng, kind, 2, 79, 209), arriving(arrays, rng, 2, 79, 209)
    kept = forward(arrays, kind, given)
    back = backward(arrays, kind, given, kept, arrived)
    assert_all_same_bits(kept, forward(arrays, kind, given, parts=5))
    assert_all_same_bits(back, backward(arrays, kind, given, kept, arrived, parts=5))


# ---- the order of arithmetic ---------------------------------------------------------------------------------------


def through(function, a):
    y = np.empty(a.size, a.dtype)
    function(y, a.ravel())
    return y.reshape(a.shape)


@in_float32
@pytest.mark.parametrize("kind", ["lstm", *GRUS])
def test_the_gates_have_the_bits_of_the_written_order(arrays, rng, kind):
    B, H = 13, 33
    given = layer(arrays, rng, kind, T, B, H)
    kept = forward(arrays, kind, given)
    sigmoid, tanh = (lambda a, f=f: through(f, a) for f in (vecmath.sigmoid, vecmath.tanh))
    h, w, xw = given["h0"], given["W_hh"], given["xw"]
    for t in range(T):
        gates = np.split(kept["gates"][t], GATES[kind], axis=1)
        if kind == "lstm":
            a_i, a_f, a_g, a_o = np.split(chain32(h, w, xw[t]), 4, axis=1)
            wanted = [sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)]
        else:
            before, n = np.s_[:, : 2 * H], np.s_[:, 2 * H :]
            wanted = np.split(sigmoid(chain32(h, w[before], xw[t][before])), 2, axis=1)
            if kind == "gru":
                hn = chain32(h, w[n], given["b_hn"])
                wanted.append(tanh(fma32(wanted[0], hn, xw[t][n])))
            else:
                hn = wanted[0] * h
                wanted.append(tanh(chain32(hn, w[n], xw[t][n])))
            assert_same_bits(kept["hn"][t], hn)
        for got, gate in zip(gates, wanted, strict=True):
            assert_same_bits(got, gate)
        h = kept["h"][t]


@in_float32
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_gradient_at_h_has_the_bits_of_the_written_order(arrays, rng, kind):
    """Its chain starts from what arrived, in a GRU with what came past the products added."""
    B, H = 13, 33
    given, arrived = layer(arrays, rng, kind, T, B, H), arriving(arrays, rng, T, B, H)
    kept = forward(arrays, kind, given)
    back = backward(arrays, kind, given, kept, arrived)
    da, nothing = back.get("da_h", back["da"]), np.zeros((B, H), "f4")
    for t in range(T):
        start = arrived["dh"][t - 1] if t else nothing
        if kind == "gru":
            start = fma32(back["dh"][t], kept["gates"][t][:, H : 2 * H], start)
        assert_same_bits(back["dh"][t - 1] if t else back["dh0"], chain32(da[t], given["W_hh"].T, start))


# ---- special values ------------------------------------------------------------------------------------------------


@each_kind
def test_special_pre_activations(arrays, rng, kind):
    """Each special value in each gate, the others harmless."""
    special = [a for a in SPECIAL if np.isfinite(a) or kind not in NORMALISED]  # others make a whole row NaN
    n, gates = len(special), GATES[kind]
    xw = rng.normal(size=(gates, gates, n))  # a row of the batch for each gate that is special
    for gate in range(gates):
        xw[gate, gate] = special
    given = layer(arrays, rng, kind, 1, gates, n)
    given |= {"xw": arrays.input(xw.reshape(1, gates, gates * n)), "W_hh": arrays.input(np.zeros((n, gates * n)))}
    with np.errstate(invalid="ignore"):
        wanted, _ = expected_forward(kind, given)
    for name, got in forward(arrays, kind, given).items():
        rtol, atol = (1e-6, 1e-7) if arrays.dtype == "f4" else (1e-14, 1e-8)  # a GRU's n and h' may cancel
        np.testing.assert_allclose(got, wanted[name], rtol=rtol, atol=atol)
        assert np.isnan(wanted[name]).mean() < 0.5


def saturated(arrays: Guarded, rng, kind: str, T: int, B: int, H: int, *signs: int) -> dict:
    """A layer whose gates are all quite open (1), quite shut (-1) or undecided (0)."""
    given = layer(arrays, rng, kind, T, B, H)
    blocks = [sign * 1e4 + rng.normal(size=(T, B, H)) for sign in signs]
    return given | {"xw": arrays.input(concatenated(*blocks))}


def test_an_lstm_that_neither_forgets_nor_reads_carries_c_and_its_gradient_for_ever(arrays, rng):
    T, B, H = 20, 3, 17
    given, arrived = saturated(arrays, rng, "lstm", T, B, H, -1, 1, 0, 0), arriving(arrays, rng, T, B, H)
    kept = forward(arrays, "lstm", given)
    assert_same_bits(kept["c"], np.broadcast_to(given["c0"], (T, B, H)))
    arrived["dh"] = np.zeros_like(arrived["dh"])
    back = backward(arrays, "lstm", given, kept, arrived)
    assert_same_bits(back["dc"], arrived["dc"])
    np.testing.assert_array_equal(back["da"], 0)


def test_an_lstm_that_forgets_lets_no_gradient_at_c_through(arrays, rng):
    given, arrived = saturated(arrays, rng, "lstm", T, B, H, 0, -1, 0, 0), arriving(arrays, rng, T, B, H)
    kept = forward(arrays, "lstm", given)
    i, f, g, _ = np.split(kept["gates"], 4, axis=2)
    np.testing.assert_array_equal(f, 0)
    assert_same_bits(kept["c"], i * g)
    back = backward(arrays, "lstm", given, kept, arrived)
    np.testing.assert_array_equal(back["dc"], 0)
    assert np.abs(back["da"]).max() > 0


@pytest.mark.parametrize("kind", ["lstm", *GRUS])
def test_saturated_gates_have_no_gradient(arrays, rng, kind):
    signs = [1, -1, 1, -1][: GATES[kind]]
    given, arrived = saturated(arrays, rng, kind, T, B, H, *signs), arriving(arrays, rng, T, B, H)
    kept = forward(arrays, kind, given)
    np.testing.assert_array_equal(np.abs(2 * kept["gates"] - 1)[..., : 2 * H], 1)
    np.testing.assert_array_equal(backward(arrays, kind, given, kept, arrived)["da"], 0)


@pytest.mark.parametrize("kind", GRUS)
def test_a_gru_that_does_not_update_forgets_and_one_that_updates_keeps(arrays, rng, kind):
    given = saturated(arrays, rng, kind, T, 5, H, 0, -1, 0)
    kept = forward(arrays, kind, given)
    assert_same_bits(kept["h"], kept["gates"][..., 2 * H :])
    given = saturated(arrays, rng, kind, T, 5, H, 0, 1, 0)
    kept = forward(arrays, kind, given)
    assert_close(kept["h"], np.broadcast_to(given["h0"].astype("f8"), kept["h"].shape))
    arrived = {"dh": arrays.input(rng.normal(size=kept["h"].shape))}
    back = backward(arrays, kind, given, kept, arrived)
    assert_close(back["dh0"], arrived["dh"].sum(axis=0, dtype="f8"))


@each_kind
def test_not_a_number_stays_in_its_stream(arrays, rng, kind):
    B, gates = 13, GATES[kind]
    given, arrived = layer(arrays, rng, kind, T, B, H), arriving(arrays, rng, T, B, H)
    kept = forward(arrays, kind, given)
    for gate in range(gates):
        xw = given["xw"].copy()
        xw[1, 4, gate * H + 3] = np.nan
        bad = forward(arrays, kind, given | {"xw": arrays.input(xw)})
        for name, a in bad.items():
            assert_same_bits(np.delete(a, 4, axis=1), np.delete(kept[name], 4, axis=1))
            assert_same_bits(a[0], kept[name][0])
        assert np.isnan(bad["h"][1, 4, 3])
        if cells.CELLS[kind].recurrent_gates:
            assert np.isnan(bad["h"][2, 4]).all()
        else:  # units are independent
            np.testing.assert_array_equal(np.isnan(bad["h"][2, 4]), np.arange(H) == 3)
    dh = arrived["dh"].copy()
    dh[1, 4] = np.nan
    good, bad = (backward(arrays, kind, given, kept, arrived | {"dh": a}) for a in (arrived["dh"], dh))
    for name, a in bad.items():
        axis = 1 if a.ndim == 3 else 0
        assert_same_bits(np.delete(a, 4, axis), np.delete(good[name], 4, axis))
        if axis:
            assert_same_bits(a[2], good[name][2])
    assert np.isnan(bad["dh0"][4]).all()
