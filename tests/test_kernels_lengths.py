# SPDX-License-Identifier: MIT
"""Sequences of different lengths in one batch: how they are dealt out, and that no kernel works beyond their ends."""

import numpy as np
import pytest
from cell_tools import (
    GATES,
    KINDS,
    assert_agree,
    assert_all_same_bits,
    backward,
    before_a_call,
    calls,
    expected_backward,
    expected_forward,
    forward,
    layer,
    recurrent_gradient,
    rows_of,
)
from kernel_tools import Guarded, assert_close, assert_same_bits, slices

from crnn._core import cells, gemm, loss, pool
from crnn._core.rows import Lengths

T, B, K, N, V = 5, 13, 7, 37, 11
LENGTHS = np.array([3, 1, 5, 5, 2, 4, 1, 3, 5, 2, 4, 4, 1])  # in no order, some equal
THERE = np.arange(T)[:, None] < LENGTHS
ALL_THERE = np.full(B, T)
WITHOUT_LAST_STEP = np.minimum(LENGTHS, T - 1)  # nobody has the last step

each_kind = pytest.mark.parametrize("kind", KINDS)
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
on_every_isa = pytest.mark.usefixtures("isa")


# ---- how they are dealt out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 13, 16])
def test_every_row_is_dealt_out_once_longest_first_in_each_part(parts):
    dealt = Lengths(LENGTHS, T, parts)
    bounds = [dealt.part(part) for part in range(parts)]
    assert [b0 for b0, _ in bounds] == [0, *(b1 for _, b1 in bounds[:-1])]
    assert bounds[-1][1] == B
    assert sorted(dealt.order) == list(range(B))
    for b0, b1 in bounds:
        assert (np.diff(LENGTHS[dealt.order[b0:b1]]) <= 0).all()


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_parts_have_about_equal_work(parts):
    lengths = np.random.default_rng(3).integers(1, 100, size=60)
    dealt = Lengths(lengths, 100, parts)
    work = [lengths[dealt.order[slice(*dealt.part(part))]].sum() for part in range(parts)]
    assert max(work) - min(work) <= 100  # one sequence at most


def test_padding_is_where_there_is_no_step():
    np.testing.assert_array_equal(Lengths(LENGTHS, T, 3).padding(), ~THERE)
    np.testing.assert_array_equal(Lengths(LENGTHS, T + 2, 1).padding()[T:], True)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64"], indirect=True)
def test_lengths_are_a_copy_that_cannot_be_written(dtype):
    """The kernels trust them: whatever is written over them later would be an address."""
    given = LENGTHS.astype(dtype)
    dealt = Lengths(given, T, 2)
    given[:] = 100
    np.testing.assert_array_equal(dealt.lengths, LENGTHS)
    for array in (dealt.lengths, dealt.order):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_lengths_may_be_a_list():
    assert Lengths([2, 1, 3], 3, 1).order.tolist() == [2, 0, 1]


@pytest.mark.parametrize("bad", [0, -1, T + 1, 2**31, 2**32 + 1, -(2**40)])
def test_lengths_out_of_range_are_refused(bad):
    lengths = LENGTHS.copy()
    lengths[4] = bad
    with pytest.raises(ValueError, match=rf"^lengths: expected from 1 to {T}, got .*{bad}"):
        Lengths(lengths, T, 2)


@pytest.mark.parametrize("bad", [[], [[1, 2]], 3, [1.0, 2.0], [True, False], ["1"], None], ids=repr)
def test_what_are_no_lengths_is_refused(bad):
    with pytest.raises(ValueError, match=r"^lengths: expected integers of shape \(B,\), got "):
        Lengths(bad, T, 2)


@pytest.mark.parametrize("parts", [0, -1])
def test_no_parts_are_refused(parts):
    with pytest.raises(ValueError, match=f"^parts: expected 1 or more, got {parts}"):
        Lengths(LENGTHS, T, parts)


# ---- cells -----------------------------------------------------------------------------------------------------------


def arriving(arrays: Guarded, rng: np.random.Generator, H: int) -> dict:
    """Gradients; NaN where there is no step, so that reading one shows."""
    dh = np.where(THERE[..., None], rng.normal(size=(T, B, H)), np.nan)
    return {"dh": arrays.input(dh), "dc": arrays.input(rng.normal(size=(B, H)))}


def padded_layer(arrays: Guarded, rng: np.random.Generator, kind: str, H: int, masked: bool) -> dict:
    given = layer(arrays, rng, kind, T, B, H, masked)
    return given | {"xw": arrays.input(np.where(THERE[..., None], given["xw"], np.nan))}


def finite(arrays: Guarded, given: dict) -> dict:
    return {name: arrays.input(np.nan_to_num(a, nan=0.25)) for name, a in given.items()}


@on_every_isa
@each_kind
@both_directions
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("H", [7, 17])
def test_cells_read_and_write_only_the_steps_that_are_there(arrays, rng, H, kind, reverse, masked):
    given, arrived = padded_layer(arrays, rng, kind, H, masked), arriving(arrays, rng, H)
    wanted, run = expected_forward(kind, finite(arrays, given), LENGTHS, reverse)
    kept = forward(arrays, kind, given, lengths=LENGTHS, reverse=reverse)
    assert_agree(kept, wanted, LENGTHS)
    back = backward(arrays, kind, given, kept, arrived, lengths=LENGTHS, reverse=reverse)
    wanted, grads = expected_backward(kind, run, finite(arrays, arrived), LENGTHS, reverse)
    assert_agree(back, wanted, LENGTHS)
    assert np.isnan(back["dh"][~THERE]).all()
    if "W_hh" in grads:
        before = rng.normal(size=grads["W_hh"].shape).astype(arrays.dtype)
        dw = arrays.inout(before)
        recurrent_gradient(arrays, kind, given, kept, back, dw, lengths=LENGTHS, reverse=reverse)
        assert_close(dw, before + grads["W_hh"])


@on_every_isa
@each_kind
@both_directions
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_what_lies_beyond_the_end_changes_nothing_and_stays(arrays, rng, kind, reverse, masked):
    """There are numbers this time, so that a result that is written there is no NaN like the one that it replaces."""
    given, arrived = padded_layer(arrays, rng, kind, 7, masked), arriving(arrays, rng, 7)
    ways = {"lengths": LENGTHS, "reverse": reverse, "parts": 2}
    kept = forward(arrays, kind, given, **ways)
    back = backward(arrays, kind, given, kept, arrived, **ways)
    filled, filled_arrived = finite(arrays, given), finite(arrays, arrived)
    assert_all_same_bits(forward(arrays, kind, filled, **ways), kept)
    got = backward(arrays, kind, filled, finite(arrays, kept), filled_arrived, **ways)
    np.testing.assert_array_equal(got["dh"][~THERE], 0.25)
    got["dh"][~THERE] = np.nan
    assert_all_same_bits(got, back)


@on_every_isa
@each_kind
@both_directions
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_a_sequence_has_the_bits_that_it_has_alone(arrays, rng, kind, reverse, masked):
    H = 17
    given, arrived = padded_layer(arrays, rng, kind, H, masked), arriving(arrays, rng, H)
    kept = forward(arrays, kind, given, lengths=LENGTHS, reverse=reverse)
    back = backward(arrays, kind, given, kept, arrived, lengths=LENGTHS, reverse=reverse)
    for b in [1, 2, 5, 12]:
        cut, row = np.s_[: LENGTHS[b]], np.s_[b : b + 1]
        alone = rows_of(given, row, arrays)
        alone |= {"xw": arrays.input(alone["xw"][cut])}
        alone_kept = forward(arrays, kind, alone, reverse=reverse)
        assert_all_same_bits(alone_kept, {name: a[cut, row] for name, a in kept.items()})
        alone_arrived = {"dh": arrived["dh"][cut, row], "dc": arrived["dc"][row]}
        alone_back = backward(arrays, kind, alone, alone_kept, alone_arrived, reverse=reverse)
        assert_all_same_bits(alone_back, {n: a[cut, row] if a.ndim == 3 else a[row] for n, a in back.items()})


@on_every_isa
@each_kind
@both_directions
def test_however_the_rows_are_dealt_out_the_bits_are_the_same(arrays, rng, kind, reverse):
    given, arrived = padded_layer(arrays, rng, kind, 7, True), arriving(arrays, rng, 7)
    kept = forward(arrays, kind, given, lengths=LENGTHS, reverse=reverse)
    back = backward(arrays, kind, given, kept, arrived, lengths=LENGTHS, reverse=reverse)
    for parts in (2, 3, 8, 16, list(slices(B))):
        got = forward(arrays, kind, given, lengths=LENGTHS, reverse=reverse, parts=parts)
        assert_all_same_bits(got, kept)
        got = backward(arrays, kind, given, kept, arrived, lengths=LENGTHS, reverse=reverse, parts=parts)
        assert_all_same_bits(got, back)


@on_every_isa
@each_kind
@both_directions
def test_a_part_leaves_the_other_rows_alone(arrays, rng, kind, reverse):
    given, arrived = padded_layer(arrays, rng, kind, 7, True), arriving(arrays, rng, 7)
    kept = forward(arrays, kind, given, lengths=LENGTHS, reverse=reverse)
    back = backward(arrays, kind, given, kept, arrived, lengths=LENGTHS, reverse=reverse)
    order = Lengths(LENGTHS, T, 1).order
    for b0, b1 in [(0, 2), (3, 8), (12, 13), (6, 6)]:
        rows, one = order[b0:b1], {"lengths": LENGTHS, "reverse": reverse, "parts": [(b0, b1)]}
        got = forward(arrays, kind, given, **one) | backward(arrays, kind, given, kept, arrived, **one)
        for name, whole in (kept | back).items():
            wanted = before_a_call(kind, name, whole, arrived)
            inside = np.s_[:, rows] if whole.ndim == 3 else np.s_[rows]
            wanted[inside] = whole[inside]
            assert_same_bits(got[name], wanted)


@on_every_isa
@each_kind
@both_directions
@pytest.mark.parametrize("lengths", [ALL_THERE, WITHOUT_LAST_STEP], ids=["all", "without the last step"])
def test_lengths_that_cut_nothing_or_a_whole_step_off(arrays, rng, kind, reverse, lengths):
    steps = lengths.max()
    given, dh = layer(arrays, rng, kind, T, B, 7), rng.normal(size=(T, B, 7))
    arrived = {"dh": arrays.input(dh), "dc": arrays.input(dh[0])}
    kept = forward(arrays, kind, given, lengths=lengths, reverse=reverse, parts=2)
    back = backward(arrays, kind, given, kept, arrived, lengths=lengths, reverse=reverse, parts=2)
    cut = given | {"xw": arrays.input(given["xw"][:steps])}
    cut_lengths = None if steps == T else lengths
    cut_kept = forward(arrays, kind, cut, lengths=cut_lengths, reverse=reverse)
    assert_all_same_bits({name: a[:steps] for name, a in kept.items()}, cut_kept)
    arrived |= {"dh": arrays.input(dh[:steps])}
    cut_back = backward(arrays, kind, cut, cut_kept, arrived, lengths=cut_lengths, reverse=reverse)
    assert_all_same_bits({name: a[:steps] if a.ndim == 3 else a for name, a in back.items()}, cut_back)


@on_every_isa
@each_kind
@both_directions
def test_ids_beyond_the_end_are_not_looked_up(arrays, rng, kind, reverse):
    """They must be ids all the same: the wrapper does not ask where a sequence ends."""
    given, table = layer(arrays, rng, kind, T, B, 7), rng.normal(size=(V, GATES[kind] * 7))
    table[0] = np.nan
    ids = np.where(THERE, rng.integers(1, V, size=(T, B)), 0).astype(np.int32)
    dense = given | {"xw": arrays.input(table[ids])}
    wanted = forward(arrays, kind, dense, lengths=LENGTHS, reverse=reverse)
    got = forward(arrays, kind, given | {"xw": arrays.input(table)}, ids=ids, lengths=LENGTHS, reverse=reverse, parts=3)
    assert_all_same_bits(got, wanted)
    assert not np.isnan(got["h"][THERE]).any()


# ---- products and their gradients ------------------------------------------------------------------------------------


@on_every_isa
@pytest.mark.parametrize("parts", [1, 2, 5, list(slices(B))], ids=str)
def test_linear_forward_leaves_rows_beyond_the_end_as_they_are(arrays, rng, parts):
    x = arrays.input(np.where(THERE[..., None], rng.normal(size=(T, B, K)), np.nan))
    packed, bias = gemm.Packed(K, N, arrays.dtype).pack(arrays.input(rng.normal(size=(K, N)))), arrays.input(np.ones(N))
    before = rng.normal(size=(T, B, N)).astype(arrays.dtype)  # no NaN: a product with x beyond the end is one
    y, whole = arrays.inout(before), arrays.output(T, B, N)
    for part in calls(B, T, LENGTHS, parts):
        gemm.linear_forward(y, x, packed, bias, **part)
    gemm.linear_forward(whole, x, packed, bias, 0, B)
    assert_same_bits(y, np.where(THERE[..., None], whole, before))


def gradients(arrays: Guarded, before: dict, x, dy, ids, dealt):
    """dw, db and the rows' dw, from what they are ``before``."""
    dw, db, drows = (arrays.inout(before[name]) for name in ("dw", "db", "drows"))
    gemm.linear_backward_weight(dw, x, dy, arrays.output(gemm.grad_scratch(arrays.dtype, len(dw)).size), 0, N, dealt)
    gemm.bias_backward(db, dy, 0, N, dealt)
    gemm.rows_backward(drows, ids, dy, 0, N, dealt)
    return {"dw": dw, "db": db, "drows": drows}


@on_every_isa
@pytest.mark.parametrize("copies", [1, 11], ids=["a block of rows", "several"])
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_are_those_over_the_rows_that_are_there_in_the_order_of_time(arrays, rng, copies, parts):
    lengths, there = np.tile(LENGTHS, copies), np.tile(THERE, copies)
    x, dy = (np.where(there[..., None], rng.normal(size=(*there.shape, n)), np.nan) for n in (K, N))
    ids = rng.integers(V, size=there.shape, dtype=np.int32)
    before = {"dw": rng.normal(size=(K, N)), "db": rng.normal(size=N), "drows": rng.normal(size=(V, N))}
    got = gradients(arrays, before, arrays.input(x), arrays.input(dy), ids, Lengths(lengths, T, parts))
    flat = (arrays.input(a[there][:, None]) for a in (x, dy))
    assert_all_same_bits(got, gradients(arrays, before, *flat, np.ascontiguousarray(ids[there][:, None]), None))


@on_every_isa
@both_directions
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["", "lengths"])
@pytest.mark.parametrize("N", [1, 15, 17, 33, 64, 127])
def test_recurrent_backward_weight_takes_h_of_the_step_before(arrays, rng, N, reverse, lengths):
    """The bits are those of linear_backward_weight on h put together as it was before each step."""
    line, H = gemm.line_width(arrays.dtype), 19
    there = THERE if lengths is not None else np.ones((T, B), bool)
    h, da = (np.where(there[..., None], rng.normal(size=(T, B, n)), np.nan) for n in (H, N))
    h0 = rng.normal(size=(B, H))
    before = np.concatenate([h[1:], h0[None]] if reverse else [h0[None], h[:-1]])
    if reverse:
        before[there.sum(axis=0) - 1, np.arange(B)] = h0
    start = rng.normal(size=(H, N)).astype(arrays.dtype)
    wanted, scratch = arrays.inout(start), arrays.output(gemm.grad_scratch(arrays.dtype, len(start)).size)
    rows = (arrays.input(a[there][:, None]) for a in (before, da))
    gemm.linear_backward_weight(wanted, *rows, scratch, 0, N)
    h, h0, da = (arrays.input(a) for a in (h, h0, da))
    dealt = None if lengths is None else Lengths(lengths, T, 2)
    for parts in ([(0, N)], list(slices(N, line))):
        dw = arrays.inout(start)
        for n0, n1 in parts:
            gemm.recurrent_backward_weight(dw, h, h0, da, scratch, reverse, n0, n1, dealt)
        assert_same_bits(dw, wanted)
    dw, (n0, n1) = arrays.inout(start), (N // 3, N - N // 3)
    gemm.recurrent_backward_weight(dw, h, h0, da, scratch, reverse, n0, n1, dealt)
    assert_same_bits(dw[:, n0:n1], wanted[:, n0:n1])
    assert_same_bits(np.delete(dw, np.s_[n0:n1], axis=1), np.delete(start, np.s_[n0:n1], axis=1))


# ---- packed arrays --------------------------------------------------------------------------------------------------

PACKED = Lengths(LENGTHS, T, 1, packed=True)
UNSORTED = [LENGTHS, [1, 9, 1, 1, 4, 9], [7, 1, 1], [1, 2, 3], [1], [4, 4], [1 + 7 * i % 6 for i in range(40)]]


def packed_rows(lengths):
    """(t, b) of every packed row: step by step, the longest sequence first."""
    longest_first = sorted(range(len(lengths)), key=lambda b: -lengths[b])
    return [(t, b) for t in range(max(lengths)) for b in longest_first if lengths[b] > t]


@pytest.mark.parametrize("lengths", UNSORTED, ids=str)
@pytest.mark.parametrize("more", [0, 3])
def test_packed_rows_lie_step_by_step_the_longest_sequence_first(lengths, more):
    steps, B = max(lengths) + more, len(lengths)
    packing = Lengths(lengths, steps, 1, packed=True)
    rows = packed_rows(lengths)
    assert packing.rows == len(rows) == sum(lengths)
    assert packing.padded_rows().tolist() == [t * B + b for t, b in rows]
    assert packing.sequences().tolist() == [b for _, b in rows]
    assert [packing.starts[t] + packing.places[b] for t, b in rows] == list(range(len(rows)))
    every = np.arange(B)
    assert [rows[g] for g in packing.first_rows(every)] == [(0, b) for b in every]
    assert [rows[g] for g in packing.last_rows(every)] == [(lengths[b] - 1, b) for b in every]
    assert [rows[g] for g in packing.rows_before()] == [(t - 1, b) for t, b in rows[B:]]


@pytest.mark.parametrize("lengths", UNSORTED, ids=str)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_range_of_steps_has_the_sequences_that_reach_it_in_the_same_order(lengths, parts):
    steps, B = max(lengths) + 2, len(lengths)
    given = Lengths(lengths, steps, min(parts, B))
    for part in range(min(parts, B)):
        b0, b1 = given.part(part)
        for t0 in range(steps):
            for t1 in range(t0 + 1, steps + 1):
                of_range, end, after = given.steps(t0, t1, b0, b1)
                assert (of_range.T, of_range.B, of_range.packed) == (t1 - t0, B, False)
                assert of_range.order.tolist() == given.order.tolist()
                assert set(given.order[b0:end].tolist()) == {b for b in given.order[b0:b1] if lengths[b] > t0}
                assert set(given.order[b0:after].tolist()) == {b for b in given.order[b0:b1] if lengths[b] > t1}
                for b in given.order[b0:end].tolist():
                    assert of_range.lengths[b] == min(lengths[b], t1) - t0
    for wrong in ((2, 1, 0, B), (-1, 1, 0, B), (0, steps + 1, 0, B), (0, 1, 0, B + 1), (0, 1, -1, B)):
        with pytest.raises(ValueError, match=r"^(t0, t1|b0, b1):"):
            given.steps(*wrong)


@pytest.mark.parametrize("lengths", UNSORTED, ids=str)
def test_padding_is_cleared_and_nothing_else(rng, lengths):
    steps, B = max(lengths) + 2, len(lengths)
    given = Lengths(lengths, steps, 1)
    for shape, dtype in (((3,), "f4"), ((), "i4"), ((2, 1), "f8"), ((0,), "f4")):
        array = rng.integers(1, 9, size=(steps, B, *shape)).astype(dtype)
        padding = given.padding().reshape(steps, B, *(1 for _ in shape))
        wanted = np.where(padding, 0, array)
        given.clear_padding(array)
        assert_same_bits(array, wanted.astype(dtype))
    read_only = np.ones((steps, B))
    read_only.flags.writeable = False
    for wrong in (np.ones((steps + 1, B)), np.ones((steps, B, 2))[:, :, :1], np.ones(steps), read_only):
        with pytest.raises(ValueError, match=r"^array: expected a writable one of shape"):
            given.clear_padding(wrong)


@pytest.mark.parametrize("lengths", UNSORTED, ids=str)
def test_packing_and_unpacking_lose_nothing(rng, lengths):
    steps, B = max(lengths) + 2, len(lengths)
    packing = Lengths(lengths, steps, 1, packed=True)
    padded = np.where(packing.padding()[:, :, None], 0, rng.normal(size=(steps, B, 3)))
    packed = packing.pack(padded)
    assert packed.shape == (1, sum(lengths), 3)
    assert_same_bits(packing.unpack(packed), padded)
    assert_same_bits(packing.pack(np.asfortranarray(padded)), packed)
    sequences = [padded[:n, b] for b, n in enumerate(lengths)]
    assert_same_bits(packing.pack_list(sequences), packed)
    for got, wanted in zip(packing.unpack_list(packed), sequences, strict=True):
        assert_same_bits(got, np.ascontiguousarray(wanted))


@pytest.mark.parametrize("lengths", [*UNSORTED, [4, 4, 4]], ids=str)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_ids_are_padded_and_values_unpadded_sequence_by_sequence(rng, lengths, first):
    steps, given = max(lengths) + 2, Lengths(lengths, max(lengths) + 2, 1)
    sequences = [rng.integers(0, 99, first + n + b % 2, dtype=np.int32) for b, n in enumerate(lengths)]
    padded = given.pad_ids(sequences, first, -7)
    assert padded.dtype == np.int32
    assert padded.shape == (steps, len(lengths))
    for b, (n, ids) in enumerate(zip(lengths, sequences, strict=True)):
        assert padded[:, b].tolist() == ids[first : first + n].tolist() + [-7] * (steps - n)
    for dtype in (np.float32, np.float64):
        values = rng.normal(size=(steps, len(lengths))).astype(dtype)
        for b, (n, got) in enumerate(zip(lengths, given.unpad_list(values), strict=True)):
            assert_same_bits(got, values[:n, b].copy())


def test_padding_refuses_sequences_that_are_no_ids_or_too_short():
    given, ids = Lengths([3, 2], 3, 1), np.zeros(4, np.int32)
    with pytest.raises(ValueError, match=r"sequences: expected 2, got 1"):
        given.pad_ids([ids], 0, 0)
    for first in (2, -1):
        with pytest.raises(ValueError, match=rf"sequences\[0\]: expected 3 ids from number {first} on, got 4 in all"):
            given.pad_ids([ids, ids], first, 0)
    for wrong in (ids.astype(np.int64), ids[::2], np.zeros((2, 2), np.int32)):
        with pytest.raises(ValueError, match=r"sequences: expected C-contiguous int32 array"):
            given.pad_ids([ids, wrong], 0, 0)
    for array in (np.zeros((2, 2)), np.zeros((3, 2, 1)), np.asfortranarray(np.zeros((3, 2)))):
        with pytest.raises(ValueError, match=r"array: expected C-contiguous float64 array of shape \(3, 2\)"):
            given.unpad_list(array)


@pytest.mark.parametrize("parts", [1, 2, 3, 13])
def test_packed_lengths_are_split_as_others_are(parts):
    split, wanted = PACKED.split(parts), Lengths(LENGTHS, T, parts)
    assert split.order.tolist() == wanted.order.tolist()
    assert [split.part(part) for part in range(parts)] == [wanted.part(part) for part in range(parts)]
    rows = [split.rows_of_part(*split.part(part)).tolist() for part in range(parts)]
    assert sorted(row for rows_of_part in rows for row in rows_of_part) == list(range(LENGTHS.sum()))
    assert all(row == sorted(row) for row in rows)


def test_one_long_sequence_does_not_share_its_part_with_half_of_the_others():
    split = Lengths([50] * 255 + [10_000], 10_000, 2)
    works = [split.lengths[split.order[slice(*split.part(part))]].sum() for part in (0, 1)]
    assert abs(works[0] - works[1]) <= 50


def pack_all(arrays, given):
    """All arrays (T, B, ...) packed."""
    return {name: arrays.input(PACKED.pack(a)) if a.ndim == 3 else a for name, a in given.items()}


@on_every_isa
@each_kind
@both_directions
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("H", [7, 17])
def test_packed_arrays_give_the_bits_of_padded_ones(arrays, rng, H, kind, reverse, masked):
    given, arrived = padded_layer(arrays, rng, kind, H, masked), arriving(arrays, rng, H)
    kept = forward(arrays, kind, given, lengths=LENGTHS, reverse=reverse)
    back = backward(arrays, kind, given, kept, arrived, lengths=LENGTHS, reverse=reverse)
    for parts in (1, 3, 13):
        ways = {"lengths": LENGTHS, "reverse": reverse, "parts": parts, "packed": True}
        got = forward(arrays, kind, pack_all(arrays, given), **ways)
        assert_all_same_bits(got, pack_all(arrays, kept))
        got_back = backward(arrays, kind, pack_all(arrays, given), got, pack_all(arrays, arrived), **ways)
        assert_all_same_bits(got_back, pack_all(arrays, back))
    if "W_hh" in given:
        before = rng.normal(size=given["W_hh"].shape).astype(arrays.dtype)
        dw, wanted = arrays.inout(before), arrays.inout(before)
        ways = {"lengths": LENGTHS, "reverse": reverse}
        recurrent_gradient(arrays, kind, given, kept, back, wanted, **ways)
        recurrent_gradient(arrays, kind, pack_all(arrays, given), got, got_back, dw, **ways, packed=True)
        assert_same_bits(dw, wanted)


@on_every_isa
@each_kind
def test_packed_ids_select_the_rows_of_a_table(arrays, rng, kind):
    given, table = layer(arrays, rng, kind, T, B, 7), rng.normal(size=(V, GATES[kind] * 7))
    ids = rng.integers(V, size=(T, B), dtype=np.int32)
    wanted = forward(arrays, kind, given | {"xw": arrays.input(table)}, ids=ids, lengths=LENGTHS)
    ways = {"ids": PACKED.pack(ids), "lengths": LENGTHS, "parts": 3, "packed": True}
    assert_all_same_bits(forward(arrays, kind, given | {"xw": arrays.input(table)}, **ways), pack_all(arrays, wanted))


@on_every_isa
@pytest.mark.parametrize("lengths", [*UNSORTED, np.tile(LENGTHS, 11)], ids=lambda lengths: str(len(lengths)))
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_of_packed_arrays_are_summed_in_the_same_order(arrays, rng, lengths, parts):
    steps, n = max(lengths), len(lengths)
    x, dy = (arrays.input(rng.normal(size=(steps, n, width))) for width in (K, N))
    ids = rng.integers(V, size=(steps, n), dtype=np.int32)
    before = {"dw": rng.normal(size=(K, N)), "db": rng.normal(size=N), "drows": rng.normal(size=(V, N))}
    wanted = gradients(arrays, before, x, dy, ids, Lengths(lengths, steps, parts))
    packing = Lengths(lengths, steps, min(parts, n), packed=True)
    packed = [packing.pack(a) for a in (x, dy, ids)]
    assert_all_same_bits(gradients(arrays, before, *packed, packing), wanted)


@on_every_isa
def test_losses_and_pooling_of_packed_arrays_are_those_of_padded_ones(arrays, rng):
    logits, classes = arrays.input(rng.normal(size=(T, B, V))), rng.integers(V, size=(T, B), dtype=np.int32)
    goals, positive = arrays.input(rng.normal(size=(T, B, V))), arrays.input(rng.uniform(size=(T, B, V)))
    dout, results = arrays.input(rng.normal(size=(B, V))), []
    for packed in (False, True):
        lengths = Lengths(LENGTHS, T, 3, packed)
        x, c, g, p = (PACKED.pack(a) if packed else a for a in (logits, classes, goals, positive))
        size, got = x.shape[:2], []
        for part in range(3):
            ways = (*lengths.part(part), lengths)
            outs = [arrays.output(*size), arrays.output(*size, V)]
            outs += [arrays.output(*size), arrays.output(*size, V)]
            outs += [arrays.output(*size), arrays.output(*size, V)]
            outs += [arrays.output(B, V), arrays.output(*size, V), arrays.output(B, V), arrays.output(*size, V)]
            which = np.full((B, V), -7, np.int32)
            loss.softmax_cross_entropy(*outs[:2], x, c, 0.5, -1, *ways)
            loss.sigmoid_cross_entropy(*outs[2:4], x, p, 0.5, *ways)
            loss.regression_loss(*outs[4:6], x, g, loss.SQUARED, None, 0.5, *ways)
            pool.pool_mean_forward(outs[6], x, *ways)
            pool.pool_mean_backward(outs[7], dout, *ways)
            pool.pool_max_forward(outs[8], which, x, *ways)
            pool.pool_max_backward(outs[9], dout, np.maximum(which, 0), *ways)
            got.append([*outs, which])
        results.append(got)
    for part, (padded, packed) in enumerate(zip(*results, strict=True)):
        rows = np.zeros((T, B), bool)
        rows[:, Lengths(LENGTHS, T, 3).order[slice(*Lengths(LENGTHS, T, 3).part(part))]] = True
        mine = PACKED.pack(rows)[0]
        for a, b in zip(padded, packed, strict=True):
            if a.shape == b.shape:  # (B, V)
                assert_same_bits(b, a)
            else:
                assert_same_bits(b[0, mine], PACKED.pack(a)[0, mine])
                assert np.isnan(b[0, ~mine]).all()


def test_arrays_that_are_not_packed_are_refused_with_packed_lengths(rng):
    arrays = {"h": np.zeros((T, B, 7), "f4"), "h0": np.zeros((B, 7), "f4"), "xw": np.zeros((T, B, 7), "f4")}
    with pytest.raises(ValueError, match=f"^lengths: expected those of {T * B} packed rows, got {LENGTHS.sum()}"):
        cells.forward("tanh", arrays, 0, B, PACKED)
