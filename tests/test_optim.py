# SPDX-License-Identifier: MIT
"""Optimisers over many updates against the oracle's rules (the kernels have separate tests), and schedules."""

import inspect
import math

import numpy as np
import pytest
from kernel_tools import assert_close, assert_same_bits
from oracle_optim import adagrad, adam, rmsprop, sgd

import crnn.optim
from crnn.optim import SCHEDULES, SGD, Adagrad, Adam, AdamW, RMSprop, global_norm

UPDATES, N = 7, 37
LR, FACTOR = 0.03, 0.7


# optimizer, rule, its settings, what each of its arrays starts from
CASES = [
    (SGD(LR), sgd, {}, [0]),
    (SGD(LR, 0.9), sgd, {"momentum": 0.9}, [0]),
    (
        SGD(LR, momentum=0.8, nesterov=True, weight_decay=0.1),
        sgd,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        [0],
    ),
    (Adagrad(LR), adagrad, {}, [0]),
    (Adagrad(LR, 0.1, initial=0.5, weight_decay=0.1), adagrad, {"eps": 0.1, "weight_decay": 0.1}, [0.5]),
    (Adagrad(LR, eps=0, initial=1e-8), adagrad, {"eps": 0}, [1e-8]),
    (RMSprop(LR), rmsprop, {}, [0, 0]),
    (
        RMSprop(LR, 0.9, 1e-3, 0.8, weight_decay=0.1),
        rmsprop,
        {"alpha": 0.9, "eps": 1e-3, "momentum": 0.8, "weight_decay": 0.1},
        [0, 0],
    ),
    (Adam(LR), adam, {}, [0, 0]),
    (
        Adam(LR, 0.8, 0.95, 1e-2, weight_decay=0.1),
        adam,
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-2, "weight_decay": 0.1},
        [0, 0],
    ),
    (AdamW(LR), adam, {"decoupled": True, "weight_decay": 0.01}, [0, 0]),
    (AdamW(LR, weight_decay=0.2), adam, {"decoupled": True, "weight_decay": 0.2}, [0, 0]),
]


def fresh(optimizer):
    return type(optimizer)(**optimizer.settings())


def gradients(dtype):
    rng = np.random.default_rng(2)
    return [(rng.normal(size=N) * rng.choice([1e-3, 1, 5])).astype(dtype) for _ in range(UPDATES)]


@pytest.mark.parametrize(("optimizer", "rule", "settings", "start"), CASES, ids=lambda case: repr(case)[:60])
def test_updates_follow_the_rule(rng, dtype, optimizer, rule, settings, start):
    """Bias corrections move, the gradient comes with a factor, the rate with a schedule's."""
    optimizer = fresh(optimizer)
    w = rng.normal(size=N).astype(dtype)
    expected, arrays = w.astype(np.float64), [np.full(N, value, np.float64) for value in start]
    counts = "t" in inspect.signature(rule).parameters
    for t, g in enumerate(gradients(dtype), 1):
        kept = g.copy()
        optimizer.update(w, g, factor=FACTOR, lr_scale=1 / t)
        assert_same_bits(g, kept)
        count = {"t": t} if counts else {}
        expected, *arrays = rule(expected, *arrays, FACTOR * g.astype(np.float64), lr=LR / t, **count, **settings)
        assert_close(w, expected)
    assert optimizer.updates == UPDATES
    assert np.abs(w - expected).max() < np.abs(w).max()
    for ours, theirs in zip(optimizer.arrays.values(), arrays, strict=False):
        tolerance = 2e-5 if dtype == np.float32 else 1e-12  # 1 - beta in float32
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize(("optimizer", "rule", "settings", "start"), CASES, ids=lambda case: repr(case)[:60])
def test_state_goes_on_bit_for_bit(rng, optimizer, rule, settings, start):
    w = rng.normal(size=N).astype(np.float32)
    whole, first = fresh(optimizer), fresh(optimizer)
    w_whole, w_parts = w.copy(), w.copy()
    for g in gradients(np.float32):
        whole.update(w_whole, g)
    for number, g in enumerate(gradients(np.float32)):
        if number == 3:
            numbers, arrays = first.state(), {name: array.copy() for name, array in first.arrays.items()}
            first = fresh(optimizer)
            first.set_state(numbers, arrays)
        first.update(w_parts, g)
    assert_same_bits(w_parts, w_whole)


LARGE = 3 * 2**20 + 37  # parameters, so that three threads share them


@pytest.mark.parametrize(("optimizer", "rule", "settings", "start"), CASES, ids=lambda case: repr(case)[:60])
def test_a_large_update_has_the_same_bits_at_any_number_of_threads(rng, optimizer, rule, settings, start):
    w, gradient = rng.normal(size=(2, LARGE)).astype(np.float32)
    results = []
    for threads in 1, 3:
        ours, mine = fresh(optimizer), w.copy()
        for factor in 1.0, FACTOR:
            ours.update(mine, gradient, factor=factor, threads=threads)
        results.append([mine, *ours.arrays.values()])
    assert (results[0][0] == w).mean() < 0.01
    for got, expected in zip(*results, strict=True):
        assert_same_bits(got, expected)


def test_a_number_of_threads_is_checked_before_anything_changes():
    optimizer, w = Adam(), np.ones(3)
    with pytest.raises(ValueError, match="threads: expected an integer of at least 1, got 0"):
        optimizer.update(w, w.copy(), threads=0)
    with pytest.raises(ValueError, match="threads: expected an integer of at least 1, got 0"):
        global_norm(w, threads=0)
    assert optimizer.updates == 0
    assert (w == 1).all()


def test_state_of_another_rule_is_refused():
    with pytest.raises(ValueError, match=r"arrays: expected \['m', 'v'\], got \['velocity'\]"):
        Adam().set_state({"updates": 3, "power1": 0.5, "power2": 0.5}, {"velocity": np.zeros(3)})


def test_an_optimizer_belongs_to_one_model():
    optimizer = Adam()
    optimizer.update(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"params: expected float64 of shape \(3,\).*got float64 of shape \(4,\)"):
        optimizer.update(np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match=r"params: expected float64.*got float32"):
        optimizer.update(np.ones(3, np.float32), np.ones(3, np.float32))


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0]))
def test_repr_makes_an_optimizer_like_it(case):
    optimizer = case[0]
    twin = eval(repr(optimizer), vars(crnn.optim))
    assert repr(twin) == repr(optimizer)
    assert twin.settings() == optimizer.settings()
    assert optimizer.settings()["lr"] == LR


def test_every_rule_is_tested():
    assert set(crnn.optim.RULES.values()) == {type(case[0]) for case in CASES}


def test_a_rule_is_public_and_has_the_name_of_its_class():
    for name, rule in crnn.optim.RULES.items():
        assert rule.__name__.lower() == name
        assert rule.__name__ in crnn.optim.__all__


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(lr=-1), "lr: expected a number of at least 0, got -1"),
        (lambda: Adam(lr=math.nan), "lr: .*got nan"),
        (lambda: Adam(lr=math.inf), "lr: .*got inf"),
        (lambda: Adam(lr="1e-3"), "lr: .*got '1e-3'"),
        (lambda: Adam(lr=None), "lr: .*got None"),
        (lambda: Adam(beta1=1.0), "beta1: expected a number of at least 0 and below 1, got 1.0"),
        (lambda: Adam(beta2=-0.1), "beta2: .*got -0.1"),
        (lambda: Adam(eps=0), "eps: .*got 0"),
        (lambda: AdamW(weight_decay=-1), "weight_decay: .*got -1"),
        (lambda: SGD(momentum=1), "momentum: .*got 1"),
        (lambda: SGD(nesterov=True), "nesterov: expected a momentum above 0 with it, got momentum=0"),
        (lambda: Adagrad(eps=0), "eps: expected above 0 unless initial is"),
        (lambda: Adagrad(initial=-1), "initial: .*got -1"),
        (lambda: RMSprop(alpha=1.5), "alpha: .*got 1.5"),
        (lambda: RMSprop(eps=0), "eps: .*got 0"),
        (lambda: crnn.optim.exponential(final=0), "final: .*got 0"),
        (lambda: crnn.optim.cosine(warmup=-1), "warmup: expected an integer of at least 0, got -1"),
        (lambda: crnn.optim.linear(warmup=1.5), "warmup: .*got 1.5"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- schedules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [1, 1, 1, 1, 1]),
        ("linear", {}, [1, 0.8, 0.6, 0.4, 0.2]),
        ("linear", {"final": 0.5}, [1, 0.9, 0.8, 0.7, 0.6]),
        ("cosine", {}, [0.5 + 0.5 * math.cos(math.pi * k / 5) for k in range(5)]),
        ("cosine", {"final": 0.2}, [0.2 + 0.8 * (0.5 + 0.5 * math.cos(math.pi * k / 5)) for k in range(5)]),
        ("exponential", {}, [0.01 ** (k / 5) for k in range(5)]),
        ("exponential", {"final": 0.5}, [0.5 ** (k / 5) for k in range(5)]),
        ("constant", {"warmup": 3}, [1 / 3, 2 / 3, 1, 1, 1]),
        ("linear", {"warmup": 2}, [0.5, 0.8, 0.6, 0.4, 0.2]),
    ],
)
def test_schedules(name, options, expected):
    schedule = SCHEDULES[name](**options)
    np.testing.assert_allclose([schedule(k, 5) for k in range(5)], expected, rtol=1e-14)


def test_global_norm(rng, dtype):
    grads = rng.normal(size=(5, 7)).astype(dtype)
    assert global_norm(grads.ravel()) == pytest.approx(np.linalg.norm(grads.astype(np.float64)), rel=1e-12)


def test_global_norm_has_the_same_bits_at_any_number_of_threads(rng):
    grads = (rng.normal(size=2**21 + 5) * rng.choice([1e-3, 1, 5], size=2**21 + 5)).astype(np.float32)
    norms = {global_norm(grads, threads=threads) for threads in (1, 2, 3, 8)}
    assert len(norms) == 1
    assert norms.pop() == pytest.approx(np.linalg.norm(grads.astype(np.float64)), rel=1e-12)
