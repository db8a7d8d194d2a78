# SPDX-License-Identifier: MIT
"""Lines that are learnt after they were scored: which are unusual, what an update is, and what it is independent of."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn.models.language.lines import LONGEST, LineLearner, LinesConfig, RecentScores
from crnn.nn.learning.config import LearnerConfig
from crnn.optim import SGD, Adam

VOCAB_TEXT = "abcdefgh 0123456789:\n"


def a_learner(model=None, *, every=4, skip=0.0, recent=1, anchor=None, **options):
    model = language_model(VOCAB_TEXT, H=8) if model is None else model
    config = LearnerConfig(**{"lr": 0.05} | options)
    return LineLearner(model, LinesConfig(every=every, skip=skip, recent=recent), config, anchor)


def lines(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(20, size=rng.integers(2, 15)).astype(np.int32) for _ in range(count)]


# ---- which lines are unusual -------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 7.0]) | st.floats(0, 10), max_size=120),
    st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    st.sampled_from([1, 5, 20, 50]),
)
def test_a_score_is_usual_if_more_than_the_share_of_the_last_ones_is_as_high(scores, skip, recent):
    rule = RecentScores(skip, recent)
    for i, score in enumerate(scores):
        last = scores[max(0, i + 1 - recent) : i + 1]
        as_high = sum(other >= score for other in last)
        assert rule.add(score) == (i >= recent // 10 and as_high > skip * len(last))


def test_rare_anomalies_are_never_learnt_however_long_the_log(rng):
    rule = RecentScores(skip=0.02, recent=500)
    taken = 0
    for i in range(20_000):
        if i % 100 == 37:
            taken += rule.add(5.0 + rng.uniform())
        else:
            rule.add(rng.uniform(0.5, 1.5))
    assert taken == 0


def test_what_becomes_frequent_is_let_in_after_its_share_of_the_last_lines(rng):
    """One line in ten is of a new kind with a score far above all others: it takes skip * recent of them."""
    rule = RecentScores(skip=0.02, recent=500)
    for _ in range(2000):
        rule.add(rng.uniform(0.5, 1.5))
    of_new = [rule.add(9.0) for i in range(1000) if i % 10 == 0 or rule.add(1.0) is None]
    assert of_new[:10] == [False] * 10
    assert all(of_new[10:])


@pytest.mark.parametrize("shift", [3.0, 100.0])
def test_a_change_of_everything_does_not_make_it_deaf(rng, shift):
    rule = RecentScores(skip=0.01, recent=1000)
    for _ in range(3000):
        rule.add(rng.uniform(0.5, 1.5))
    after = [rule.add(shift + rng.uniform()) for _ in range(1000)]
    assert sum(after[:50]) >= 1
    assert np.mean(after) > 0.9


# ---- what an update is -------------------------------------------------------------------------------------------


def test_an_update_is_that_of_the_mean_loss_of_the_tokens_of_the_lines():
    model = language_model(VOCAB_TEXT, H=8, dtype="float64")
    learner = a_learner(model, every=5, optimizer="sgd", lr=0.5, clip_norm=None)
    chosen = lines(5)
    for ids in chosen:
        assert_same_bits(learner.model.flat_params, model.flat_params)
        assert learner.add(ids, 1.0)
    plain = copy.deepcopy(model)
    plain.flat_grads[...] = 0
    count = sum(len(ids) - 1 for ids in chosen)
    for ids in chosen:
        plain.loss_and_gradients(ids[:-1, None], ids[1:, None], reduction="sum")
    expected = model.flat_params - 0.5 * plain.flat_grads / count
    np.testing.assert_allclose(learner.model.flat_params, expected, rtol=1e-9, atol=1e-13)
    assert np.abs(expected - model.flat_params).max() > 1e-3
    assert (learner.updates, learner.learnt, learner.unusual) == (1, 5, 0)


def test_unusual_lines_and_lines_without_a_finite_score_are_not_learnt():
    learner, other = a_learner(every=3, skip=0.2, recent=10), a_learner(every=3, skip=0.2, recent=10)
    for number, ids in enumerate(lines(12)):
        both = [each.add(ids, 1.0 + 0.01 * (number % 5)) for each in (learner, other)]
        assert both[0] == both[1]
    before = learner.learnt
    for score in (9.0, math.inf, math.nan):
        assert not learner.add(lines(1, seed=9)[0], score)
    assert learner.learnt == before
    assert learner.unusual == other.unusual + 3
    learner.finish()
    other.finish()
    assert_same_bits(learner.model.flat_params, other.model.flat_params)


@pytest.mark.parametrize("together", [1, 2, 7, 100])
def test_scores_and_weights_do_not_depend_on_how_many_lines_are_scored_at_once(together):
    def run(most):
        learner, scores, sequences = a_learner(every=5, skip=0.1, recent=20), [], lines(60)
        while len(scores) < len(sequences):
            group = sequences[len(scores) :][: min(most, learner.room)]
            for ids, nats in zip(group, learner.model.surprisals(group), strict=True):
                scores.append(float(nats.mean()))
                learner.add(ids, scores[-1])
        learner.finish()
        return np.array(scores), learner

    scores, learner = run(together)
    alone, same = run(1)
    assert_same_bits(scores, alone)
    assert_same_bits(learner.model.flat_params, same.model.flat_params)
    assert learner.updates > 5
    static = language_model(VOCAB_TEXT, H=8).surprisals(lines(60))
    assert_same_bits(scores[:5], np.array([float(nats.mean()) for nats in static[:5]]))
    assert (scores[-20:] != np.array([float(nats.mean()) for nats in static[-20:]])).all()


def test_the_model_and_the_lines_are_copied():
    model, ids = language_model(VOCAB_TEXT, H=8), lines(4)
    before, kept = model.flat_params.copy(), [each.copy() for each in ids]
    learner, other = a_learner(model), a_learner(model)
    for each, copied in zip(ids, kept, strict=True):
        learner.add(each, 1.0)
        each[...] = 0
        other.add(copied, 1.0)
    assert_same_bits(model.flat_params, before)
    assert_same_bits(learner.model.flat_params, other.model.flat_params)


def test_of_a_long_line_the_beginning_is_learnt():
    long = np.arange(3 * LONGEST, dtype=np.int32) % 20
    learner, other = a_learner(every=1), a_learner(every=1)
    learner.add(long, 1.0)
    other.add(long[: LONGEST + 1], 1.0)
    assert_same_bits(learner.model.flat_params, other.model.flat_params)
    assert learner.updates == 1


def test_an_adaptive_softmax_learns_lines_too():
    words = " ".join(f"w{i * i % 97 % (3 + i % 41)}" for i in range(2000))
    vocab = crnn.Vocab.from_text(words, "word", order="frequency")
    model = crnn.LanguageModel(vocab, hidden_size=8, adaptive_softmax=[6], seed=1)
    learner = a_learner(model, every=2, lr=0.05)
    ids = vocab.encode(words)[:40]
    before = learner.model.surprisals([ids])[0].mean()
    for _ in range(60):
        learner.add(ids[:20], 1.0)
        learner.add(ids[20:], 1.0)
    assert learner.model.surprisals([ids])[0].mean() < 0.5 * before


def test_weights_are_held_near_the_anchor():
    model = language_model(VOCAB_TEXT, H=8)
    learnt = copy.deepcopy(model)
    learnt.flat_params[...] *= 1.05
    for anchor, center in ((None, learnt), (model, model)):
        learner = a_learner(learnt, every=1, max_change=0.01, anchor=anchor)
        for ids in lines(10):
            learner.add(ids, 1.0)
        distance = np.linalg.norm(learner.model.flat_params - center.flat_params)
        assert distance == pytest.approx(0.01 * np.linalg.norm(center.flat_params), rel=1e-4)


def test_an_empty_line_is_neither_learnt_nor_an_error():
    learner = a_learner(every=1)
    assert not learner.add(np.empty(0, np.int32), 0.0)
    assert not learner.add(np.zeros(1, np.int32), 0.0)
    assert learner.updates == 0


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: a_learner(every=0), ValueError, "every: expected an integer of at least 1, got 0"),
        (lambda: a_learner(skip=1.0), ValueError, "skip: expected a probability of at least 0 and below 1"),
        (lambda: a_learner(recent=0), ValueError, "recent: .*got 0"),
        (lambda: a_learner(language_model(VOCAB_TEXT, H=8).quantize()), ValueError, "int8"),
        (lambda: a_learner(anchor=language_model(VOCAB_TEXT, H=9)), ValueError, "anchor: expected "),
        (lambda: a_learner(anchor=language_model("abc", H=8)), ValueError, "anchor: expected "),
        (lambda: a_learner(anchor=crnn.RNN(3, 4)), ValueError, "anchor: expected "),
        (lambda: a_learner(optimizer=_used(), lr=None), ValueError, "optimizer: expected one that has done no updates"),
    ],
)
def test_wrong_arguments_are_named(act, error, message):
    with pytest.raises(error, match=message):
        act()


def _used():
    optimizer = Adam()
    optimizer.update(np.ones(3), np.ones(3))
    return optimizer


def test_an_optimizer_is_copied():
    optimizer = SGD(0.1)
    learner = a_learner(every=1, optimizer=optimizer, lr=None)
    learner.add(lines(1)[0], 1.0)
    assert learner.updates == 1
    assert optimizer.updates == 0
