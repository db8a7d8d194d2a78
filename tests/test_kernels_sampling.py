# SPDX-License-Identifier: MIT
"""The kernels that draw ids from logits, bit by bit against NumPy, which sorts."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays as arrays_of
from kernel_tools import WIDTHS, assert_same_bits

from crnn._core import dispatch
from crnn._core.sampling import candidates, place
from crnn._core.vecmath import exp

ALL = 2**31 - 1

# Few different values, so that ties are common; denormals, which are numbers; infinite ones, which exclude an id.
few = [0.0, -0.0, 1.0, 1.0 + 2**-20, -2.5, 80.0, -800.0, -3e38, 3e38, 1e-40, -1e-40, 1e-320, -np.inf]


def logits_of(dtype):
    values = st.sampled_from([value for value in few if dtype == "float64" or np.float32(value) == value or value < 1])
    values = values.map(lambda value: float(np.dtype(dtype).type(value)))
    narrow = st.floats(-30, 30, width=32 if dtype == "float32" else 64)
    return arrays_of(dtype, st.integers(1, 120), elements=values | narrow).filter(lambda z: z.max() > -np.inf)


def numerators(x):
    weights = np.empty_like(x)
    exp(weights, x)
    return weights


def keep_largest(x, count, smallest):
    """Set all but the ``count`` largest to -inf; of those equal to ``smallest``, the first ones are kept."""
    kept = x >= smallest
    surplus = np.count_nonzero(kept) - count
    if surplus:
        kept[np.flatnonzero(x == smallest)[-surplus:]] = False
    x[~kept] = -np.inf


def weights_by_sorting(logits, temperature, top_k, top_p):
    """The definition, by sorts and sequential sums of the logits' precision: a weight for each id."""
    x = logits.copy()
    best = int(x.argmax())
    if temperature == 0:
        return (np.arange(x.size) == best).astype(x.dtype)
    with np.errstate(over="ignore", under="ignore"):
        x -= x[best]
        if top_k < x.size:
            keep_largest(x, top_k, np.sort(x)[-top_k])
        x /= x.dtype.type(temperature)
    top_p = x.dtype.type(top_p)  # may be 1 then
    if top_p < 1:
        descending = np.sort(x)[::-1].copy()
        cumulative = np.cumsum(numerators(descending), dtype=x.dtype)
        wanted = top_p * cumulative[-1]
        last = int(cumulative.searchsorted(wanted))
        keep_largest(x, last + 1, descending[last])
    return numerators(x)


def weights_of(logits, temperature, top_k, top_p):
    """The same by the kernel."""
    ids, few_weights = candidates(logits, temperature, top_k, top_p)
    assert (np.diff(ids) > 0).all()
    assert few_weights.dtype == logits.dtype
    weights = np.zeros(logits.size, logits.dtype)
    weights[ids] = few_weights
    return weights


def check(logits, temperature, top_k, top_p):
    before = logits.copy()
    found = weights_of(logits, temperature, top_k, top_p)
    assert_same_bits(found, weights_by_sorting(logits, temperature, top_k, top_p))
    assert_same_bits(logits, before)


temperatures = st.sampled_from([0, 1e-30, 0.01, 0.7, 1.0, 3.0, 1e30])
counts = st.just(ALL) | st.integers(1, 130)
shares = st.just(1.0) | st.floats(2**-20, 1, width=32) | st.sampled_from([2**-100, 0.5, 1 - 2**-24, 1 - 2**-53])


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.usefixtures("any_isa")
@given(data=st.data(), temperature=temperatures, top_k=counts, top_p=shares)
def test_weights_are_those_of_numpy_on_every_instruction_set(precision, data, temperature, top_k, top_p):
    logits = data.draw(logits_of(precision))
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        check(logits, temperature, top_k, top_p)


@pytest.mark.parametrize("n", [*WIDTHS, 2500])
@pytest.mark.parametrize("spread", [0.0, 1e-6, 1.0, 9.0])
def test_cuts_of_normal_logits(isa, dtype, rng, n, spread):
    logits = rng.normal(0, spread, n).astype(dtype)
    logits[n // 2] += dtype.type(spread)
    for top_k, top_p in ((1, 1.0), (3, 1.0), (40, 0.9), (n // 2 + 1, 1.0), (n - 1 or 1, 0.5), (ALL, 0.1), (ALL, 0.99)):
        check(logits, 0.8, top_k, top_p)


def test_logits_that_are_masked_by_large_numbers_or_lie_far_apart(isa, dtype, rng):
    for far in (1e9, float(np.finfo(dtype).max)):
        logits = rng.normal(size=300).astype(dtype)
        logits[::3] = -far
        for top_k, top_p in ((20, 1.0), (150, 0.9), (201, 1.0), (250, 0.7), (ALL, 0.7)):
            check(logits, 1.0, top_k, top_p)
    scales = (-(dtype.type(2) ** np.arange(-120, 120))).astype(dtype)  # bisection of which takes long
    for top_k in (1, 26, 100, 200, 239):
        check(scales, 1.0, top_k, 0.999)


def test_a_sum_that_is_exactly_the_share_counts_as_reached(isa, dtype):
    equal = np.zeros(64, dtype)
    assert np.count_nonzero(weights_of(equal, 1.0, ALL, 0.5)) == 32
    assert np.count_nonzero(weights_of(equal, 1.0, ALL, float(np.nextafter(dtype.type(0.5), dtype.type(1))))) == 33
    assert np.count_nonzero(weights_of(np.zeros(5000, dtype), 1.0, ALL, 0.25)) == 1250
    ones = np.ones(4096, dtype)  # border after border
    for n in (0, 1, 511, 1024, 4095):
        assert place(ones.copy(), n / 4096) == n
        assert place(ones.copy(), float(np.nextafter(dtype.type(n / 4096), dtype.type(0)))) == max(n - 1, 0)


def test_what_is_no_number_is_found_first(isa, dtype):
    for n in (1, 9, 17, 40):
        for at in {0, n // 2, n - 1}:
            for wrong in (np.nan, -np.nan, np.inf):
                logits = np.zeros(n, dtype)
                logits[at:] = wrong
                with pytest.raises(ValueError, match=f"x: expected .*, got -?{abs(wrong)} at position {at}"):
                    candidates(logits, 1.0, ALL, 1.0)
        with pytest.raises(ValueError, match="got -inf at position 0"):
            candidates(np.full(n, -np.inf, dtype), 0.0, ALL, 1.0)


@pytest.mark.parametrize("n", [*WIDTHS, 1500, 5000])
def test_a_place_is_where_the_cumulative_sum_exceeds_the_share(isa, dtype, rng, n):
    weights = rng.random(n).astype(dtype) * (rng.random(n) < 0.7)
    weights[n // 2] = 1
    cumulative = np.cumsum(weights, dtype=dtype)
    for uniform in [0.0, *rng.random(20).astype(dtype).tolist(), 0.9999]:
        found = place(weights.copy(), uniform)
        assert found == cumulative.searchsorted(dtype.type(uniform) * cumulative[-1], side="right")
        assert weights[found] > 0


@pytest.mark.parametrize(
    ("uniform", "weights", "expected"),
    [
        (0.0, [0, 1, 1], 1),  # the smallest uniform falls on no excluded id before the first
        (0.5, [1, 1], 1),  # exactly one half, the border, belongs to the second
        (0.5 - 2**-20, [1, 1], 0),
        (0.5, [1, 0, 1, 0], 2),
        (1 - 2**-24, [1, 1, 0], 1),  # nor does the largest fall on one behind the last
        (1 - 2**-24, [0.7, 1, 0.9, 0, 0], 2),
    ],
)
def test_uniforms_at_the_borders_draw_only_possible_ids(isa, dtype, uniform, weights, expected):
    assert place(np.array(weights, dtype), uniform) == expected
