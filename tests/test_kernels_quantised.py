# SPDX-License-Identifier: MIT
"""Products with bf16, int8 and int4 weights: bit for bit by their definition, on every instruction set here."""

from collections.abc import Iterator

import cell_tools
import numpy as np
import pytest
from cell_tools import Arrays, calls
from kernel_tools import SPECIAL, Guarded, assert_same_bits
from numpy.typing import NDArray
from oracle_quantised import PRODUCTS, WEIGHTS, int4_steps, int8_integers, int8_scales

from crnn._core import cells, dispatch, gemm, program

WITH_PRODUCT = [kind for kind, info in cells.CELLS.items() if info.recurrent_gates]

precisions = pytest.mark.parametrize("precision", gemm.QUANTISED)
of_integers = pytest.mark.parametrize("precision", ["int8", "int4"])


@pytest.fixture
def dtype() -> np.dtype:
    return np.dtype("float32")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def drawn(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)


def packed(w: NDArray, precision: str, gates: int = 1) -> gemm.Packed:
    K, N = w.shape
    return gemm.Packed(K, N // gates, "float32", gates, precision).pack(w)


def product(
    arrays: Guarded, x: NDArray, w: gemm.Packed, bias: NDArray | None, parts: int = 1, lengths: NDArray | None = None
) -> NDArray:
    T, B, _ = x.shape
    y = arrays.output(T, B, w.N)
    for part in calls(B, T, lengths, parts):
        gemm.linear_forward(y, arrays.input(x), w, bias, **part, scratch=gemm.product_scratch(w, T * B))
    return y


# ---- packing -------------------------------------------------------------------------------------------------------


@precisions
@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize(
    ("K", "N", "gates"), [(1, 1, 1), (5, 17, 1), (7, 33, 3), (64, 16, 4), (255, 31, 2), (256, 40, 1)]
)
def test_unpacked_weights_are_those_of_the_definition(rng, precision, K, N, gates):
    w = drawn(rng, K, gates * N)
    assert_same_bits(packed(w, precision, gates).unpacked(), WEIGHTS[precision](w))


@precisions
@pytest.mark.usefixtures("each_isa")
def test_packing_what_was_unpacked_changes_nothing(rng, precision):
    w = drawn(rng, 77, 3 * 21) * np.exp2(rng.uniform(-80, 80, 63)).astype("f4")
    once = packed(w, precision, 3)
    again = packed(once.unpacked(), precision, 3)
    assert_same_bits(again.unpacked(), once.unpacked())
    assert once.holds(w)
    assert once.holds(once.unpacked())
    w[40, 50] = -w[40, 50]
    assert not once.holds(w)


@precisions
@pytest.mark.usefixtures("each_isa")
def test_a_transpose_is_packed_by_its_columns(rng, precision):
    w = drawn(rng, 21, 90)
    got = gemm.Packed(77, 21, "float32", precision=precision).pack_transposed(w, 5)
    assert_same_bits(got.unpacked(), WEIGHTS[precision](np.ascontiguousarray(w[:, 5:82].T)))


def test_int8_weights_use_all_of_their_range(rng):
    w = drawn(rng, 50, 37)
    q, s = int8_integers(packed(w, "int8").unpacked()), int8_scales(w)
    assert (np.abs(q).max(axis=0) == 127).all()
    assert (np.abs(w - q * s) <= s / 2 * (1 + 1e-5)).all()


def test_int4_weights_are_the_nearest_of_steps_that_each_32_rows_have(rng):
    w = drawn(rng, 75, 37) * np.repeat(np.exp2(rng.uniform(-4, 0, (3, 37))), 25, axis=0).astype("f4")
    got, steps = packed(w, "int4").unpacked(), int4_steps(w)
    assert (np.abs(w - got) <= steps / 2 * (1 + 1e-5)).all()
    assert (np.abs(got) <= 7 * steps).all()
    assert len(np.unique(steps[:, 3])) == 3
    np.testing.assert_array_equal(steps[:32], np.broadcast_to(steps[0], (32, 37)))


@pytest.mark.usefixtures("each_isa")
def test_columns_of_zeros_and_of_tiny_or_huge_numbers():
    w = np.array([[0, 1e-38, 2.0**-101, 2.0**-100, 2.0**127, 1], [-0.0, 1e-45, 0, 2.0**-100, -(2.0**127), 1e-45]], "f4")
    for precision in gemm.QUANTISED:
        unpacked = packed(w, precision).unpacked()
        assert np.isfinite(unpacked).all()
        assert_same_bits(np.abs(unpacked), np.abs(WEIGHTS[precision](w)))
        assert precision == "bf16" or (unpacked[:, :3] == 0).all()


@precisions
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2.1e38])
def test_weights_that_cannot_be_rounded_are_refused(precision, wrong):
    w = np.ones((5, 7), "f4")
    w[3, 2] = wrong
    with pytest.raises(ValueError, match=rf"^w: expected finite numbers up to 2\*\*127 for {precision}, got "):
        packed(w, precision)
    with pytest.raises(ValueError, match=r"^w: expected finite numbers"):
        gemm.Packed(7, 5, "float32", precision=precision).pack_transposed(w)
    assert gemm.Packed(5, 2, "float32", precision=precision).pack(w, 0)


def test_precisions_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"^precision: expected 'float32' or 'bf16' or 'int8' or 'int4' .* got 'int2'"):
        gemm.Packed(3, 4, "float32", precision="int2")
    with pytest.raises(ValueError, match=r"^precision: expected 'float64' for weights of float64, got 'int8'"):
        gemm.Packed(3, 4, "float64", precision="int8")
    for precision in ("int8", "int4"):
        with pytest.raises(ValueError, match=rf"^Packed: expected fewer than 131072 rows in {precision}"):
            gemm.Packed(131072, 1, "float32", precision=precision)
        assert gemm.Packed(131071, 1, "float32", precision=precision).K == 131071


# ---- products ------------------------------------------------------------------------------------------------------


@precisions
@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize("M", [1, 2, 3, 4, 5, 7, 12, 13, 25, 150])
def test_a_product_has_the_bits_of_its_definition(arrays, rng, precision, M):
    for K, N in [(1, 1), (2, 16), (5, 37), (33, 129), (64, 16), (130, 48)] if M < 25 else [(19, 37)]:
        x, w, bias = drawn(rng, 1, M, K), drawn(rng, K, N), drawn(rng, N)
        expected = PRODUCTS[precision](x[0], w, bias)
        assert_same_bits(product(arrays, x, packed(w, precision), arrays.input(bias))[0], expected)


@precisions
@pytest.mark.usefixtures("each_isa")
def test_without_a_bias_sums_start_from_zero(arrays, rng, precision):
    x, w = drawn(rng, 1, 5, 6), drawn(rng, 6, 20)
    expected = PRODUCTS[precision](x[0], w, np.zeros(20, "f4"))
    assert_same_bits(product(arrays, x, packed(w, precision), None)[0], expected)


@of_integers
@pytest.mark.usefixtures("each_isa")
def test_sums_of_the_most_rows_that_integers_have_are_exact(arrays, precision):
    K = 131071
    x, w = np.ones((1, 2, K), "f4"), np.full((K, 3), [1, -1, 0.5], "f4")
    x[0, 1, ::2] = -1
    expected = PRODUCTS[precision](x[0], w, np.zeros(3, "f4"))
    assert_same_bits(product(arrays, x, packed(w, precision), None)[0], expected)
    assert expected[0, 0] == pytest.approx(K, rel=1e-4)


@precisions
@pytest.mark.usefixtures("each_isa")
def test_a_product_with_more_terms_than_the_cache_takes_at_once(arrays, rng, precision):
    x, w = drawn(rng, 1, 3, 4801), drawn(rng, 4801, 17)
    expected = PRODUCTS[precision](x[0], w, np.zeros(17, "f4"))
    assert_same_bits(product(arrays, x, packed(w, precision), None)[0], expected)


def strange_rows(rng: np.random.Generator, K: int) -> NDArray[np.float32]:
    """Rows with zeros, denormals, numbers that are not finite, and of every size."""
    x = drawn(rng, 16, K)
    x[0], x[1], x[2] = 0, -0.0, 1e-40
    x[3, 2] = np.nan
    x[4, K - 1] = np.inf
    x[5, 0] = -np.inf
    x[6] *= 1e-32  # below the least number of int8
    x[7] *= 1e-29
    x[8], x[8, 3] = 1e-40, 3
    x[9] *= 1e37
    x[10] = rng.choice(SPECIAL, K)
    return x


@of_integers
@pytest.mark.usefixtures("each_isa")
def test_integer_rows_that_are_not_finite_give_nan_and_rows_of_zeros_the_bias(arrays, rng, precision):
    x, w, bias = strange_rows(rng, 37), drawn(rng, 37, 21), drawn(rng, 21)
    got = product(arrays, x[None], packed(w, precision), arrays.input(bias))[0]
    assert np.isnan(got[[3, 4, 5, 10]]).all()
    assert_same_bits(got[[0, 1, 2, 6]], np.broadcast_to(bias, (4, 21)))
    assert_same_bits(got, PRODUCTS[precision](x, w, bias))


@precisions
@pytest.mark.thread_unsafe
def test_instruction_sets_give_the_same_bits_for_strange_rows(any_isa, arrays, rng, precision):
    x, w, bias = strange_rows(rng, 37), drawn(rng, 37, 21), drawn(rng, 21)
    w[:, 3], w[:, 4], w[:, 5] = 0, 1e-39, w[:, 5] * 1e30
    results = []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        results.append(product(arrays, x[None], packed(w, precision), arrays.input(bias)))
    for result in results:
        assert_same_bits(result, results[0])
    assert np.isnan(results[0][0, 3]).all()


@precisions
@pytest.mark.usefixtures("each_isa")
def test_ragged_rows_and_slices_do_not_change_the_bits(arrays, rng, precision):
    T, B, K, N = 5, 7, 19, 35
    x, w = drawn(rng, T, B, K), packed(drawn(rng, K, N), precision)
    whole, lengths = product(arrays, x, w, None), np.array([3, 1, 5, 2, 4, 5, 1])
    assert_same_bits(product(arrays, x, w, None, parts=3), whole)
    some = product(arrays, x, w, None, parts=2, lengths=lengths)
    there = np.arange(T)[:, None] < lengths
    assert_same_bits(some[there], whole[there])
    assert np.isnan(some[~there]).all()


@precisions
@pytest.mark.usefixtures("each_isa")
def test_a_product_writes_no_more_than_its_scratch(arrays, rng, precision):
    for M, K in [(1, 1), (5, 64), (3, 65), (145, 30)]:
        w = packed(drawn(rng, K, 20), precision)
        size = gemm.product_scratch(w, M).size
        around = gemm.aligned_empty((size + 192,), np.uint8)
        around[...] = 171
        gemm.linear_forward(arrays.output(1, M, 20), drawn(rng, 1, M, K), w, None, 0, M, scratch=around[64 : 64 + size])
        assert (around[:64] == 171).all()
        assert (around[64 + size :] == 171).all()


def test_scratch_that_is_too_small_or_not_aligned_is_refused_and_allocated_if_there_is_none(rng):
    w, x, y = packed(drawn(rng, 5, 20), "int8"), drawn(rng, 1, 3, 5), np.empty((1, 3, 20), "f4")
    right = gemm.product_scratch(w, 3)
    cases = [
        (right[64:], "^scratch: expected at least 384 bytes that start on a cache line, got 320"),
        (gemm.aligned_empty((448,), np.uint8)[1:], "^scratch: expected at least 384 .* got 447 bytes 1 beyond one"),
        (np.zeros(4, "f4"), "^scratch: expected writable C-contiguous uint8"),
    ]
    for scratch, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            gemm.linear_forward(y, x, w, None, 0, 3, scratch=scratch)
    gemm.linear_forward(y, x, w, None, 0, 3)
    wanted = y.copy()
    gemm.linear_forward(y, x, w, None, 0, 3, scratch=right)
    assert y.tobytes() == wanted.tobytes()
    assert gemm.product_scratch(gemm.Packed(5, 20, "float32"), 3) is None


# ---- cells ---------------------------------------------------------------------------------------------------------


def by_steps(kind: str, given: Arrays, precision: str) -> Arrays:
    """h, and c, of a cell whose products are those of the oracle: its own arithmetic is left to the kernel in float32,
    with weights of zero and the products in xw, or, where they are not added to xw, in b_hn."""
    info = cells.CELLS[kind]
    T, B = given["xw"].shape[:2]
    H = given["h0"].shape[1]
    n, W = info.packed_gates * H, given["W_hh"]
    last = info.recurrent_gates > info.packed_gates
    nothing = {"W_hh": np.zeros_like(W)}
    out = {name: np.empty((T, B, H), "f4") for name in ("h", "c")[: 1 + info.has_c]}
    state = {name: given[f"{name}0"] for name in out}
    for t in range(T):
        for b in range(B):
            row = {"xw": given["xw"][t : t + 1, b : b + 1].copy()}
            row |= {f"{name}0": state[name][b : b + 1] for name in out} | {name: given[name] for name in info.vectors}
            h = row["h0"]
            row["xw"][0, :, :n] = PRODUCTS[precision](h, W[:, :n], row["xw"][0, :, :n])
            if "b_hn" in info.vectors:
                row["b_hn"] = PRODUCTS[precision](h, W[:, n:], given["b_hn"])[0]
            elif last:
                hn = cell_tools.forward(Guarded("f4"), kind, row | nothing)["hn"][0]
                row["xw"][0, :, n:] = PRODUCTS[precision](hn, W[:, n:], row["xw"][0, :, n:])
            step = cell_tools.forward(Guarded("f4"), kind, row | nothing)
            for name in out:
                out[name][t, b] = step[name][0, 0]
        state = {name: out[name][t] for name in out}
    return out


@precisions
@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize("kind", WITH_PRODUCT)
def test_a_cell_has_the_products_of_the_definition(arrays, rng, kind, precision):
    given = cell_tools.layer(arrays, rng, kind, T=3, B=2, H=19)
    got = cell_tools.forward(arrays, kind, given, precision=precision)
    for name, expected in by_steps(kind, given, precision).items():
        assert_same_bits(got[name], expected)


@precisions
@pytest.mark.thread_unsafe
@pytest.mark.parametrize("kind", WITH_PRODUCT)
def test_every_instruction_set_gives_a_cell_the_same_bits_in_any_direction(any_isa, arrays, rng, kind, precision):
    given, masked = (cell_tools.layer(arrays, rng, kind, T=4, B=14, H=37, masked=masked) for masked in (False, True))
    lengths = np.arange(14) % 4 + 1

    def results() -> Iterator[Arrays]:
        for parts in (1, 3):
            yield cell_tools.forward(arrays, kind, given, precision=precision, parts=parts)
            yield cell_tools.forward(
                arrays, kind, masked, precision=precision, parts=parts, lengths=lengths, reverse=True
            )

    expected = None
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        got = list(results())
        expected = expected or got
        for i, mine in enumerate(got):
            cell_tools.assert_all_same_bits(mine, expected[i % 2])


@precisions
@pytest.mark.thread_unsafe
def test_a_recorded_call_runs_on_the_instruction_set_that_is_in_use(any_isa, rng, precision):
    """The shape of a tile is that of its set: the functions of another one would read other memory."""
    B, H = 13, 37
    W, results = drawn(rng, H, H), []
    arrays = {"h": np.empty((1, B, H), "f4"), "h0": drawn(rng, B, H), "xw": drawn(rng, 1, B, H)}
    arrays["w_hh"] = packed(W, precision)
    arrays["scratch"] = gemm.product_scratch(arrays["w_hh"], B)
    recorded = program.Program()
    dispatch.use_isa("generic")
    recorded.record(cells.forward, "tanh", arrays, 0, B)
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        arrays["h"][...] = np.nan
        recorded.run()
        results.append(arrays["h"].copy())
    for result in results:
        assert_same_bits(result, results[0])


@precisions
@pytest.mark.parametrize("kind", WITH_PRODUCT)
def test_a_cell_with_quantised_weights_is_near_the_one_in_float32(arrays, rng, kind, precision):
    given = cell_tools.layer(arrays, rng, kind, T=6, B=3, H=64)
    exact = cell_tools.forward(arrays, kind, given)["h"]
    got = cell_tools.forward(arrays, kind, given, precision=precision)["h"]
    error = np.abs(got - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < (0.3 if precision == "int4" else 0.05)


def test_weights_of_two_precisions_are_refused(arrays, rng):
    given = cell_tools.layer(arrays, rng, "gru", T=2, B=3, H=8)
    W, H = given["W_hh"], 8
    call = {name: given[name] for name in ("xw", "h0", "b_hn")}
    call |= {"h": arrays.output(2, 3, H), "gates": arrays.output(2, 3, 3 * H), "hn": arrays.output(2, 3, H)}
    call["w_hh"] = gemm.Packed(H, H, "float32", 2, "int8").pack(W, 0)
    call["w_hn"] = gemm.Packed(H, H, "float32").pack(W, 2 * H)
    scratch = gemm.product_scratch(call["w_hh"], 3)
    with pytest.raises(ValueError, match=r"^w_hn: expected weights in int8, as w_hh, got float32"):
        cells.forward("gru", call | {"scratch": scratch}, 0, 3)
    call["w_hn"] = gemm.Packed(H, H, "float32", precision="int8").pack(W, 2 * H)
    cells.forward("gru", call | {"scratch": scratch}, 0, 3)
    wanted = call["h"].copy()
    cells.forward("gru", call, 0, 3)
    assert call["h"].tobytes() == wanted.tobytes()


def test_backward_takes_no_int8_weights():
    H = 8
    steps = {name: np.zeros((2, 3, H), "f4") for name in ("h", "dh", "da")}
    steps |= {name: np.zeros((3, H), "f4") for name in ("h0", "dh0")}
    w = gemm.Packed(H, H, "float32", precision="int8").pack(np.ones((H, H), "f4"))
    with pytest.raises(ValueError, match=r"^w_hh_t: expected weights in float32 or bf16 in backward, got int8$"):
        cells.backward("tanh", steps | {"w_hh_t": w}, 0, 3)

