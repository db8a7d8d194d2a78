# SPDX-License-Identifier: MIT
"""Products of training in bf16: bit for bit by their definition, on every instruction set of this machine. Forward
products, and how weights are rounded, are in test_kernels_quantised.py."""

from collections.abc import Iterator

import cell_tools
import numpy as np
import pytest
from cell_tools import Arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_tools import SPECIAL, Guarded, assert_same_bits, fma32, slices
from numpy.typing import NDArray
from oracle_quantised import bf16, bf16_product

from crnn._core import cells, dispatch, gemm, program
from crnn._core.rows import Lengths

WITH_PRODUCT = [kind for kind, info in cells.CELLS.items() if info.recurrent_gates]


@pytest.fixture
def dtype() -> np.dtype:
    return np.dtype("float32")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def drawn(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)


def flat(a: NDArray) -> NDArray:
    return a.reshape(-1, a.shape[-1])


# ---- packing -------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1), (2, 16), (5, 17), (63, 33), (64, 15), (65, 16), (127, 8), (128, 40), (131, 47), (258, 16)]


@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_weights_and_their_transpose_are_rounded_each_by_itself(rng, K, N):
    w = drawn(rng, K, N) * np.exp2(rng.uniform(-60, 60, N)).astype("f4")
    packed, turned = (gemm.Packed(K, N, "float32", precision="bf16") for _ in range(2))
    assert_same_bits(packed.pack(w).unpacked(), bf16(w))
    assert_same_bits(turned.pack_transposed(np.ascontiguousarray(w.T)).unpacked(), bf16(w))
    x = drawn(rng, 1, 3, K)
    y, y_turned = np.empty((2, 1, 3, N), "f4")
    gemm.linear_forward(y, x, packed, None, 0, 3)
    gemm.linear_forward(y_turned, x, turned, None, 0, 3)
    assert_same_bits(y[0], bf16_product(x[0], w, np.zeros(N, "f4")))
    assert_same_bits(y_turned, y)


def test_values_on_and_between_the_grid_are_rounded_to_nearest_with_halves_to_even_on_every_set(any_isa):
    halves = np.arange(0x3F80_0000, 0x3F90_0000, 0x4000, dtype=np.uint32)
    ends = np.array([0x7F7F_7FFF, 0x7F7F_8000, 0x7F7F_FFFF, 0x7F80_0000, 0x7F80_0001, 0x7FFF_FFFF, 0, 1, 0x7F_FFFF,
                     0x80_0000, 0x80_8000, 0x80_8001], np.uint32)  # fmt: skip
    words = np.concatenate([halves, ends])
    values = np.concatenate([words, words | np.uint32(1 << 31)]).view("f4")[None]
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        for w in (values, np.ascontiguousarray(values.T)):
            packed, turned = (gemm.Packed(*shape, "float32", precision="bf16") for shape in (w.shape, w.shape[::-1]))
            assert_same_bits(packed.pack(w, any_values=True).unpacked(), bf16(w))
            assert_same_bits(turned.pack_transposed(w, any_values=True).unpacked(), bf16(w.T))


def test_weights_that_are_not_finite_are_packed_on_demand_except_as_int8(rng):
    w = drawn(rng, 6, 5)
    w[1, 2], w[3, 3], w[4, 0] = np.nan, np.inf, 3.4e38
    packed = gemm.Packed(6, 5, "float32", precision="bf16")
    with pytest.raises(ValueError, match=r"^w: expected finite numbers up to 2\*\*127 for bf16"):
        packed.pack(w)
    assert_same_bits(packed.pack(w, any_values=True).unpacked(), bf16(w))
    int8 = gemm.Packed(6, 5, "float32", precision="int8")
    with pytest.raises(ValueError, match=r"^any_values: expected False for weights in int8, got True$"):
        int8.pack(w, any_values=True)
    with pytest.raises(ValueError, match=r"^any_values: expected False for weights in int8, got True$"):
        int8.pack_transposed(np.ascontiguousarray(w.T), any_values=True)


# ---- gradients of weights ------------------------------------------------------------------------------------------


def weight_gradient(
    arrays: Guarded, dw: NDArray, x: NDArray, dy: NDArray, db: NDArray | None = None, precision: str | None = "bf16"
) -> NDArray:
    """dw + x^T dy, column slices out of order."""
    dw, (K, N) = arrays.inout(dw), dw.shape
    scratch = arrays.output(gemm.grad_scratch("f4", K).size)
    for n0, n1 in slices(N):
        gemm.linear_backward_weight(dw, arrays.input(x), arrays.input(dy), scratch, n0, n1, db=db, precision=precision)
    return dw


@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize(
    ("T", "B", "K", "N"),
    [(1, 1, 1, 1), (1, 2, 3, 5), (3, 5, 7, 17), (1, 15, 16, 33), (2, 8, 33, 129), (5, 51, 12, 64), (8, 32, 31, 16),
     (257, 1, 13, 40), (23, 25, 9, 70)],
)  # fmt: skip
def test_the_gradient_of_weights_has_the_bits_of_its_definition(arrays, rng, T, B, K, N):
    x, dy, dw = drawn(rng, T, B, K), drawn(rng, T, B, N), drawn(rng, K, N)
    assert_same_bits(weight_gradient(arrays, dw, x, dy), bf16_product(flat(x).T, flat(dy), dw))


@pytest.mark.usefixtures("each_isa")
def test_the_sum_of_dy_is_not_rounded(arrays, rng):
    x, dy, dw, db = drawn(rng, 7, 43, 5), drawn(rng, 7, 43, 90), drawn(rng, 5, 90), drawn(rng, 90)
    dy[0, 0], db[3] = -0.0, -0.0
    exact, got = arrays.inout(db), arrays.inout(db)
    weight_gradient(arrays, dw, x, dy, exact, None)
    weight_gradient(arrays, dw, x, dy, got)
    assert_same_bits(got, exact)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(T=st.integers(1, 40), B=st.integers(1, 20), K=st.integers(1, 70), N=st.integers(1, 150), seed=st.integers(0, 99))
def test_sums_of_rounded_factors_are_exact_up_to_the_rounding_of_sums(T, B, K, N, seed):
    rng = np.random.default_rng(seed)
    x, dy, dw = drawn(rng, T, B, K), drawn(rng, T, B, N), drawn(rng, K, N)
    got = weight_gradient(Guarded("f4"), dw, x, dy)
    xs, dys = flat(bf16(x)).astype("f8"), flat(bf16(dy)).astype("f8")
    most = (T * B + 1) * 2.0**-24 * (np.abs(dw) + np.abs(xs).T @ np.abs(dys))
    assert (np.abs(got - (dw + xs.T @ dys)) <= most).all()


@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_recurrent_gradient_multiplies_by_h_of_the_step_before(arrays, rng, ragged, reverse, packed):
    T, B, H, N = 5, 7, 19, 37
    lengths = [3, 1, 5, 2, 4, 5, 1] if ragged else [T] * B
    h, h0, da, dw = drawn(rng, T, B, H), drawn(rng, B, H), drawn(rng, T, B, N), drawn(rng, H, N)
    rows = [(t, b) for t in range(T) for b in range(B) if t < lengths[b]]
    step = 1 if reverse else -1
    first = {b: lengths[b] - 1 if reverse else 0 for b in range(B)}
    before = np.array([h0[b] if t == first[b] else h[t + step, b] for t, b in rows])
    expected = bf16_product(before.T, np.array([da[row] for row in rows]), dw)
    dealt = Lengths(lengths, T, 2, packed)
    if packed:
        h, da = dealt.pack(h), dealt.pack(da)
    got, scratch = arrays.inout(dw), gemm.grad_scratch("f4", H)
    gemm.recurrent_backward_weight(got, h, h0, da, scratch, reverse, 0, N, dealt, precision="bf16")
    assert_same_bits(got, expected)


@pytest.mark.thread_unsafe
def test_factors_that_are_tiny_or_not_finite_give_the_same_bits_on_every_set(any_isa, arrays, rng):
    x, dy, dw = drawn(rng, 1, 13, 20), drawn(rng, 1, 13, 40), drawn(rng, 20, 40)
    x[0, :, 1], x[0, :, 2], x[0, 3, 3] = 1e-40, -0.0, np.nan
    x[0, :, 4], x[0, 5, 5], x[0, :, 6] = rng.choice(SPECIAL, 13), np.inf, 1e-30
    dy[0, :, 7], dy[0, 2, 8], dy[0, :, 9], dy[0, :, 10] = 1e-39, -np.inf, 1e-25, rng.choice(SPECIAL, 13)
    dw[:, 11] = 1e-39
    results = []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        results.append(weight_gradient(arrays, dw, x, dy))
        assert_same_bits(results[-1], results[0])
    got = results[0]
    assert np.isnan(got[3]).all()
    assert_same_bits(got[1:3, :7], dw[1:3, :7])  # denormals are zero
    finite = [i for i in range(20) if np.isfinite(x[0, :, i]).all() and i != 6]
    columns = [j for j in range(40) if np.isfinite(dy[0, :, j]).all() and j not in (9, 11)]
    expected = bf16_product(x[0, :, finite], dy[0][:, columns], dw[np.ix_(finite, columns)])
    assert_same_bits(got[np.ix_(finite, columns)], expected)


@pytest.mark.thread_unsafe
def test_a_recorded_gradient_runs_on_the_instruction_set_that_is_in_use(any_isa, rng):
    K, N, results = 29, 37, []
    x, dy, dw = drawn(rng, 2, 13, K), drawn(rng, 2, 13, N), np.zeros((K, N), "f4")
    recorded = program.Program()
    dispatch.use_isa("generic")
    arguments = (dw, x, dy, gemm.grad_scratch("f4", K), 0, N, None, None, "bf16")
    recorded.record(gemm.linear_backward_weight, *arguments)
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        dw[...] = 0
        recorded.run()
        results.append(dw.copy())
    for result in results:
        assert_same_bits(result, bf16_product(flat(x).T, flat(dy), np.zeros((K, N), "f4")))


def test_gradients_of_weights_take_no_other_precision(rng):
    for dtype, wrong, expected in [
        ("f4", "int8", "None or 'bf16'"), ("f4", "float32", "None or 'bf16'"), ("f8", "bf16", "None for float64")
    ]:  # fmt: skip
        x, dw, h0 = np.ones((2, 3, 4), dtype), np.zeros((4, 4), dtype), np.ones((3, 4), dtype)
        scratch = gemm.grad_scratch(dtype, 4)
        message = f"^precision: expected {expected} for the gradient of weights, got '{wrong}'$"
        with pytest.raises(ValueError, match=message):
            gemm.linear_backward_weight(dw, x, x, scratch, 0, 4, precision=wrong)
        with pytest.raises(ValueError, match=message):
            gemm.recurrent_backward_weight(dw, x, h0, x, scratch, False, 0, 4, precision=wrong)
        assert not dw.any()


# ---- cells ---------------------------------------------------------------------------------------------------------


def arrived_at(rng: np.random.Generator, kind: str, T: int, B: int, H: int) -> Arrays:
    arrived = {"dh": drawn(rng, T, B, H)}
    return arrived | ({"dc": drawn(rng, B, H)} if cells.CELLS[kind].has_c else {})


def expected_dh(kind: str, given: Arrays, kept: Arrays, back: Arrays, arrived: Arrays) -> tuple[NDArray, NDArray]:
    """dh and dh0, from the gradients at the pre-activations: products of the definition."""
    T, B, H = arrived["dh"].shape
    W, da = given["W_hh"], back.get("da_h", back["da"])
    one = np.float32(1)
    results = []
    for t in range(T):  # the step whose products these are
        start = arrived["dh"][t - 1] if t else np.zeros((B, H), "f4")
        if "gru" in kind:
            start = fma32(back["dh"][t], kept["gates"][t, :, H : 2 * H], start)
        if kind == "original_gru":
            dhn = bf16_product(da[t, :, 2 * H :], W[:, 2 * H :].T, np.zeros((B, H), "f4"))
            start = fma32(dhn * kept["gates"][t, :, :H], one, start)
            results.append(bf16_product(da[t, :, : 2 * H], W[:, : 2 * H].T, start))
        else:
            results.append(bf16_product(da[t], W.T, start))
    return np.stack([*results[1:], arrived["dh"][-1]]), results[0]


@pytest.mark.usefixtures("each_isa")
@pytest.mark.parametrize("kind", WITH_PRODUCT)
def test_a_cell_has_the_products_of_the_definition_on_its_way_back(arrays, rng, kind):
    given = cell_tools.layer(arrays, rng, kind, T=3, B=5, H=19)
    kept = cell_tools.forward(arrays, kind, given, precision="bf16")
    arrived = arrived_at(rng, kind, 3, 5, 19)
    back = cell_tools.backward(arrays, kind, given, kept, arrived, precision="bf16")
    dh, dh0 = expected_dh(kind, given, kept, back, arrived)
    assert_same_bits(back["dh"], dh)
    assert_same_bits(back["dh0"], dh0)


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("kind", WITH_PRODUCT)
def test_every_instruction_set_gives_a_cell_the_same_gradients_in_any_direction(any_isa, arrays, rng, kind):
    T, B, H = 4, 14, 37
    plain, masked = (cell_tools.layer(arrays, rng, kind, T, B, H, masked) for masked in (False, True))
    lengths, arrived = np.arange(B) % T + 1, arrived_at(rng, kind, T, B, H)
    blocks = cells.CELLS[kind].recurrent_gates

    def results() -> Iterator[Arrays]:
        for parts in (1, 3):
            for layer, how in [(plain, {}), (masked, {"lengths": lengths, "reverse": True})]:
                kept = cell_tools.forward(arrays, kind, layer, **how, precision="bf16", parts=parts)
                back = cell_tools.backward(arrays, kind, layer, kept, arrived, **how, precision="bf16", parts=parts)
                dw = arrays.inout(np.zeros((H, blocks * H)))
                cell_tools.recurrent_gradient(arrays, kind, layer, kept, back, dw, **how, precision="bf16")
                yield back | {"dW_hh": dw}

    expected = None
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        got = list(results())
        expected = expected or got
        for i, mine in enumerate(got):
            cell_tools.assert_all_same_bits(mine, expected[i % 2])


@pytest.mark.parametrize("kind", WITH_PRODUCT)
def test_gradients_are_near_those_in_float32_and_not_equal(arrays, rng, kind):
    T, B, H = 6, 8, 64
    given, arrived = cell_tools.layer(arrays, rng, kind, T, B, H, masked=True), arrived_at(rng, kind, T, B, H)
    grads = []
    for precision in (None, "bf16"):
        kept = cell_tools.forward(arrays, kind, given, precision=precision, reverse=True)
        back = cell_tools.backward(arrays, kind, given, kept, arrived, precision=precision, reverse=True)
        dw = arrays.inout(np.zeros_like(given["W_hh"]))
        cell_tools.recurrent_gradient(arrays, kind, given, kept, back, dw, reverse=True, precision=precision)
        grads.append((dw, back["dh0"]))
    for exact, got in zip(*grads, strict=True):
        error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
        assert 1e-5 < error < (0.3 if kind == "relu" else 0.03)  # a ReLU may open or close


def test_backward_refuses_weights_of_two_precisions_and_scratch_that_is_too_small(arrays, rng):
    T, B, H = 2, 3, 16
    given = cell_tools.layer(arrays, rng, "original_gru", T, B, H)
    kept = cell_tools.forward(arrays, "original_gru", given)
    call = {name: given[name] for name in ("h0",)} | kept
    call |= {"dh": drawn(rng, T, B, H), "da": arrays.output(T, B, 3 * H), "dh0": arrays.output(B, H)}
    call |= {"dhn": arrays.output(B, H)}
    call["w_hh_t"] = gemm.Packed(2 * H, H, "float32", precision="bf16").pack_transposed(given["W_hh"], 0)
    call["w_hn_t"] = gemm.Packed(H, H, "float32").pack_transposed(given["W_hh"], 2 * H)
    with pytest.raises(ValueError, match=r"^w_hn_t: expected weights in bf16, as w_hh_t, got float32$"):
        cells.backward("original_gru", call, 0, B)
    call["w_hn_t"] = gemm.Packed(H, H, "float32", precision="bf16").pack_transposed(given["W_hh"], 2 * H)
    small = gemm.product_scratch(call["w_hn_t"], B)
    with pytest.raises(ValueError, match=r"^scratch: expected at least \d+ bytes that start on a cache line, got \d+"):
        cells.backward("original_gru", call | {"scratch": small}, 0, B)
    assert np.isnan(call["da"]).all()
    cells.backward("original_gru", call, 0, B)  # makes its scratch
    assert np.isfinite(call["da"]).all()
