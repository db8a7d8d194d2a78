# SPDX-License-Identifier: MIT
"""Sampling: the pipeline against its definition, draws against their probabilities, errors by message."""

import doctest
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

import crnn.sampling
from crnn.sampling import Sampler

LOGITS = np.array([0.5, 2.0, -1.0, 1.0, 1.5], np.float32)

# Few different values, so that ties are common; some forbidden; some so large that they overflow once scaled.
few = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, -2.5, 700.0, -1e308, 1e308, -math.inf])
values = few | st.floats(-30, 30)
logit_arrays = arrays(np.float64, st.integers(1, 30), elements=values).filter(lambda z: z.max() > -math.inf)
temperatures = st.sampled_from([0, 1e-310, 0.01, 0.7, 1.0, 3.0, 1e300])
pipelines = {
    "temperature": temperatures,
    "top_k": st.none() | st.integers(1, 35),
    "top_p": st.none() | st.floats(0, 1, exclude_min=True),
}


def plain_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    """The definition, in Python floats: rank by (value falling, index), cut, renormalise."""
    scaled = [(float(z) - float(max(logits))) / temperature for z in logits]
    ranked = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))[:top_k]
    if top_p is not None:
        total, mass = math.fsum(math.exp(scaled[i]) for i in ranked), 0.0
        for count, i in enumerate(ranked, 1):
            mass += math.exp(scaled[i]) / total
            if mass >= top_p:
                ranked = ranked[:count]
                break
    total = math.fsum(math.exp(scaled[i]) for i in ranked)
    return [math.exp(scaled[i]) / total if i in ranked else 0.0 for i in range(len(scaled))]


def test_docstring_examples_run():
    failed, attempted = doctest.testmod(crnn.sampling)
    assert attempted >= 4
    assert failed == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 9},
        {"top_p": 0.5},
        {"top_p": 0.7},
        {"top_p": 0.99},
        {"temperature": 3.0, "top_k": 4, "top_p": 0.6},
    ],
)
def test_probabilities_follow_the_definition(options, dtype):
    logits = LOGITS.astype(dtype)
    p = Sampler(**options).probabilities(logits)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, plain_probabilities(logits, **options), rtol=1e-14, atol=0)
    np.testing.assert_array_equal(logits, LOGITS)  # not modified


def test_top_p_is_applied_to_what_top_k_left():
    equal = np.zeros(10)
    assert np.count_nonzero(Sampler(top_p=0.5).probabilities(equal)) == 5
    assert np.count_nonzero(Sampler(top_k=4, top_p=0.5).probabilities(equal)) == 2


def test_temperature_is_applied_before_top_p():
    sharp = Sampler(temperature=0.25, top_p=0.9).probabilities(LOGITS)
    flat = Sampler(temperature=4.0, top_p=0.9).probabilities(LOGITS)
    assert np.count_nonzero(sharp) == 2
    assert np.count_nonzero(flat) == 5


def test_of_equal_logits_the_lower_index_is_kept():
    logits = [1.0, 3.0, 2.0, 3.0, 3.0, 2.0]
    assert np.flatnonzero(Sampler(top_k=2).probabilities(logits)).tolist() == [1, 3]
    assert np.flatnonzero(Sampler(top_k=4).probabilities(logits)).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(Sampler(top_p=0.5).probabilities(logits)).tolist() == [1, 3]
    assert Sampler(temperature=0)(logits) == 1


def test_temperature_zero_is_argmax_and_uses_no_random_number():
    greedy, other = Sampler(temperature=0, seed=3), Sampler(seed=3)
    assert [greedy(LOGITS) for _ in range(5)] == [1] * 5
    np.testing.assert_array_equal(greedy.probabilities(LOGITS), [0, 1, 0, 0, 0])
    greedy.temperature = 1.0
    assert [greedy(LOGITS) for _ in range(50)] == [other(LOGITS) for _ in range(50)]


@given(logits=logit_arrays, seed=st.integers(0, 2**64), **pipelines)
def test_no_draw_has_probability_zero_and_probabilities_sum_to_one(logits, seed, temperature, top_k, top_p):
    sampler = Sampler(temperature, top_k, top_p, seed)
    p = sampler.probabilities(logits)
    assert abs(math.fsum(p) - 1) < 1e-14
    assert (p >= 0).all()
    assert not p[np.isneginf(logits)].any()
    if top_k is not None:
        assert np.count_nonzero(p) <= top_k
    for _ in range(5):
        drawn = sampler(logits)
        assert type(drawn) is int
        assert p[drawn] > 0


@given(logits=logit_arrays, temperature=temperatures, seed=st.integers(0, 2**32))
def test_top_k_of_one_and_a_tiny_top_p_are_argmax(logits, temperature, seed):
    assert Sampler(temperature, top_k=1, seed=seed)(logits) == np.argmax(logits)
    if temperature < 1e300:  # which leaves nothing of small differences
        with np.errstate(over="ignore"):
            scaled = (logits - logits.max()) / (temperature or 1)  # denormal differences may vanish
        assert Sampler(temperature, top_p=1e-12, seed=seed)(logits) == np.argmax(scaled)


@given(logits=logit_arrays, temperature=temperatures)
def test_cuts_that_cut_nothing_change_no_bit(logits, temperature):
    p = Sampler(temperature).probabilities(logits)
    np.testing.assert_array_equal(Sampler(temperature, top_k=logits.size, top_p=1.0).probabilities(logits), p)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.7}, {"top_k": 3}, {"top_p": 0.8}])
def test_draws_have_their_probabilities_by_chi_square(options):
    p = np.array(plain_probabilities(LOGITS, **options))
    sampler = Sampler(**options, seed=20)
    draws = 20_000
    counts = np.bincount([sampler(LOGITS) for _ in range(draws)], minlength=p.size)
    assert counts[p == 0].sum() == 0
    expected = draws * p[p > 0]
    chi_square = (((counts[p > 0] - expected) ** 2) / expected).sum()
    assert expected.size >= 3
    limit = {3: 13.8, 4: 16.3, 5: 18.5}[expected.size]  # 0.999 quantiles, at one degree of freedom less
    assert chi_square < limit


def test_equal_seeds_draw_equal_ids_and_others_do_not():
    def draws(seed):
        sampler = Sampler(seed=seed)
        return [sampler(LOGITS) for _ in range(100)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_the_draw_is_the_inverse_of_the_cumulative_sum_at_a_pcg64_uniform():
    sampler, bits = Sampler(seed=11), np.random.PCG64(11)
    p = plain_probabilities(LOGITS)
    drawn = [sampler(LOGITS) for _ in range(200)]
    uniforms = [(bits.random_raw() >> 11) * 2.0**-53 for _ in range(200)]
    assert drawn == [next(i for i in range(5) if math.fsum(p[: i + 1]) > u) for u in uniforms]
    assert set(drawn) == set(range(5))


class FixedBits:
    """A generator that always gives the same 64 bits."""

    def __init__(self, raw):
        self.raw = raw

    def random_raw(self):
        return self.raw


@pytest.mark.parametrize(
    ("raw", "logits", "expected"),
    [
        (0, [-math.inf, 0.0, 0.0], 1),  # the smallest uniform falls on no forbidden id before the first
        (2**63, [0.0, 0.0], 1),  # exactly one half, the border, belongs to the second
        (2**63 - 2048, [0.0, 0.0], 0),
        (2**63, [0.0, -math.inf, 0.0, -math.inf], 2),
        (2**64 - 1, [0.0, 0.0, -math.inf], 1),  # nor does the largest fall on one behind the last
        (2**64 - 1, [-0.3, 0.1, 0.0, -800.0, -math.inf], 2),
    ],
)
def test_uniforms_at_the_borders_draw_only_possible_ids(raw, logits, expected):
    sampler = Sampler()
    sampler._bits = FixedBits(raw)
    assert sampler(logits) == expected


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -0.1}, ValueError, "temperature: expected a finite number >= 0, got -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature: .* got nan"),
        ({"temperature": math.inf}, ValueError, "temperature: .* got inf"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1, got 0"),
        ({"top_k": 2.0}, TypeError, "top_k: expected an int or None, got float"),
        ({"top_k": True}, TypeError, "top_k: expected an int or None, got bool"),
        ({"top_p": 0.0}, ValueError, r"top_p: expected a number in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, ValueError, r"top_p: expected a number in \(0, 1\], got 1.1"),
        ({"top_p": math.nan}, ValueError, "top_p: .* got nan"),
    ],
)
def test_bad_options_are_clear(options, error, message):
    with pytest.raises(error, match=message):
        Sampler(**options)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0.0, math.nan, 1.0], "logits: expected finite numbers .*, got nan at index 1"),
        ([0.0, 1.0, math.inf], "logits: expected finite numbers .*, got inf at index 2"),
        ([-math.inf, -math.inf], "logits: expected finite numbers .*, got -inf at index 0"),
        ([], r"logits: expected shape \(V,\), got \(0,\)"),
        ([[0.0, 1.0]], r"logits: expected shape \(V,\), got \(1, 2\)"),
    ],
)
def test_bad_logits_are_clear(temperature, logits, message):
    sampler = Sampler(temperature)
    with pytest.raises(ValueError, match=message):
        sampler(logits)
    with pytest.raises(ValueError, match=message):
        sampler.probabilities(logits)


@pytest.mark.parametrize("logits", ["abc", np.zeros(3, complex), np.zeros(3, "M8[s]"), [object()]])
def test_logits_that_are_not_real_numbers_are_refused(logits):
    with pytest.raises((TypeError, ValueError), match="logits: expected numbers, got"):
        Sampler(0)(logits)
