# SPDX-License-Identifier: MIT
"""Sampling: the pipeline against its definition, draws against their probabilities, errors by message.

tests/test_kernels_sampling.py compares the kernels with NumPy, bit by bit."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

import crnn
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


def test_rows_are_drawn_as_one_call_after_the_other():
    logits = np.random.default_rng(3).normal(0, 2, (40, 23)).astype(np.float32)
    for options in ({}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.8, "ban": [3, 5]}, {"temperature": 0}):
        single, several = Sampler(**options, seed=4), Sampler(**options, seed=4)
        drawn = several.rows(logits)
        assert drawn.dtype == np.int32
        assert drawn.tolist() == [single(row) for row in logits]
        assert several(logits[0]) == single(logits[0])
    assert Sampler().rows(np.empty((0, 5))).tolist() == []
    assert Sampler(temperature=0).rows([[1, 2], [4, 3]]).tolist() == [1, 0]
    large = np.random.default_rng(4).normal(0, 2, (9, 5001))  # for which the GIL is released
    assert Sampler(seed=1).rows(large).tolist() == list(map(Sampler(seed=1), large))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_row_that_is_refused_is_named_and_uses_no_random_numbers(wrong):
    logits = np.zeros((5, 4))
    logits[3, 2] = wrong
    sampler, other = Sampler(seed=4), Sampler(seed=4)
    with pytest.raises(ValueError, match=rf"logits: expected finite numbers .*, got {wrong} at index \(3, 2\)"):
        sampler.rows(logits)
    assert [sampler(logits[0]) for _ in range(30)] == [other(logits[0]) for _ in range(30)]
    for shape in ((4,), (2, 0), (2, 3, 4)):
        with pytest.raises(ValueError, match=r"logits: expected shape \(M, V\), got"):
            sampler.rows(np.zeros(shape))
    with pytest.raises(ValueError, match="ban: expected ids below 4, got 7"):
        Sampler(ban=[7]).rows(logits)
    with pytest.raises(ValueError, match=r"got -inf at index \(0, 0\)"):
        Sampler(ban=[0, 1]).rows([[0, 1]])


def test_logits_in_any_layout_are_drawn_from_alike():
    logits = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    expected = [Sampler(seed=s)(logits[:, 2].copy()) for s in range(9)]
    swapped = logits[:, 2].astype(">f4")
    for form in (logits[:, 2], swapped, logits[:, 2].astype("f8"), logits[:, 2].tolist(), logits[::-1, 2][::-1]):
        assert [Sampler(seed=s)(form) for s in range(9)] == expected


def test_copies_and_pickles_continue_with_the_same_numbers():
    sampler = Sampler(0.8, top_k=4, seed=1, ban=[0])
    drawn = [sampler(LOGITS) for _ in range(7)]
    copies = [copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))]
    rest = [sampler(LOGITS) for _ in range(40)]
    for other in copies:
        assert [other(LOGITS) for _ in range(40)] == rest
    assert 0 not in drawn + rest


def test_threads_that_share_a_sampler_share_its_numbers():
    sampler, alone = Sampler(seed=1), Sampler(seed=1)
    logits = np.random.default_rng(1).normal(size=300)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: [sampler(logits) for _ in range(200)], range(4)))
    assert sorted(id for part in parts for id in part) == sorted(alone(logits) for _ in range(800))


def test_changed_options_count_and_impossible_ones_are_refused():
    sampler = Sampler(seed=1)
    sampler.top_k, sampler.temperature, sampler.top_p = 1, 0.5, 0.5
    assert sampler(LOGITS) == 1
    for name, value in (("top_k", 0), ("temperature", -1.0), ("temperature", math.nan), ("top_p", 0.0)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            setattr(sampler, name, value)


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_of_streams_samples_for_all_its_rows(shared):
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcdefgh"), cell="gru", hidden_size=6, seed=1)
    batch, other = model.stream_batch(4), model.stream_batch(4)
    batch.remove(1), other.remove(1)
    samplers = [Sampler(0.9, top_k=5, seed=seed) for seed in range(1 if shared else 3)]
    same = copy.deepcopy(samplers)
    ids = expected = np.array([1, 2, 3])
    for rows in (None, [3, 0, 2], None):
        ids = batch.sample(ids, samplers[0] if shared else samplers, rows)
        logits = other.step(expected, rows)
        expected = same[0].rows(logits) if shared else np.array([s(z) for s, z in zip(same, logits, strict=True)])
        np.testing.assert_array_equal(ids, expected)
        assert ids.dtype == np.int32


def test_a_batch_is_not_stepped_with_wrong_samplers():
    model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=6, seed=1)
    batch = model.stream_batch(2)
    before = batch.states()
    for wrong, message in ((None, "got NoneType None"), ([Sampler(), 3], "or a list of them, got list")):
        with pytest.raises(TypeError, match=f"sampler: expected a Sampler.*{message}"):
            batch.sample([0, 1], wrong)
    with pytest.raises(ValueError, match="sampler: expected a Sampler for each of the 2 rows of x, got 3"):
        batch.sample([0, 1], [Sampler()] * 3)
    with pytest.raises(ValueError, match="x: expected ids from 0 to 2"):
        batch.sample([0, 3], Sampler())
    for state, other in zip(before, batch.states(), strict=True):
        np.testing.assert_array_equal(state, other)
