# SPDX-License-Identifier: MIT
"""AnchoredUpdate: clipping, the optimizer, the decay towards an anchor, the bound, and gradients that are refused."""

import math
import tracemalloc

import numpy as np
import oracle_optim
import pytest
from kernel_tools import assert_close, assert_same_bits

from crnn.optim import SGD, Adam, AnchoredUpdate

N, UPDATES = 37, 6


def oracle(w, gradients, *, lr, clip_norm=None, clip_value=None, decay=0.0, factors=1.0, max_change=None):
    """The same rule in float64."""
    anchor, w = w.astype("f8"), w.astype("f8")
    radius = None if max_change is None else max_change * np.linalg.norm(anchor)
    for g in gradients:
        g = g.astype("f8")
        if clip_value is not None:
            g = np.clip(g, -clip_value, clip_value)
        norm = np.linalg.norm(g)
        if clip_norm is not None and norm > clip_norm:
            g = g * clip_norm / norm
        w = oracle_optim.pull(w - lr * g, anchor, factors * np.ones(len(w)), decay)
        if radius is not None and np.linalg.norm(w - anchor) > radius:
            w = anchor + (w - anchor) * radius / np.linalg.norm(w - anchor)
    return w


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"clip_norm": 2.0},
        {"clip_value": 0.5},
        {"clip_value": 0.5, "clip_norm": 2.0},
        {"decay": 0.25},
        {"max_change": 0.125},
        {"clip_norm": 2.0, "decay": 0.125, "max_change": 0.25},
    ],
    ids=repr,
)
@pytest.mark.parametrize("own_factors", [False, True])
def test_updates_follow_the_rule(rng, dtype, rule, own_factors):
    w = rng.normal(size=N).astype(dtype)
    gradients = rng.normal(size=(UPDATES, N)).astype(dtype)
    factors = rng.uniform(0, 6, size=N).astype(dtype) if own_factors else None
    ours = w.copy()
    update = AnchoredUpdate(ours, SGD(lr=0.25), decay_factors=factors, **rule)
    for g in gradients:
        assert update(ours, g.copy())
    expected = oracle(w, gradients, lr=0.25, factors=1.0 if factors is None else factors.astype("f8"), **rule)
    assert_close(ours, expected, least=4e-6 if dtype == np.float32 else 0.0)
    assert np.abs(ours - w).max() > 0.01
    assert (update.anchor is None) == (not rule.keys() & {"decay", "max_change"})
    if update.anchor is not None:
        assert_same_bits(update.anchor, w)


def test_parameters_never_move_further_than_the_bound(rng, dtype):
    w = rng.normal(size=N).astype(dtype)
    ours = w.copy()
    update = AnchoredUpdate(ours, Adam(lr=0.5), max_change=0.1)
    bound = 0.1 * np.linalg.norm(w.astype("f8"))
    for g in rng.normal(size=(20, N)).astype(dtype):
        update(ours, g)
        assert update.distance(ours) == pytest.approx(np.linalg.norm(ours.astype("f8") - w), rel=1e-12)
        assert update.distance(ours) <= bound * (1 + 1e-6)
    assert update.distance(ours) > 0.9 * bound


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, "largest"])
@pytest.mark.parametrize("clipping", [{}, {"clip_value": 1.0}])
def test_nothing_is_learnt_from_a_gradient_that_is_not_finite(rng, dtype, wrong, clipping):
    """Nor from one whose square is not: it would stay in Adam's average for ever."""
    w = rng.normal(size=N).astype(dtype)
    ours, optimizer = w.copy(), Adam()
    update = AnchoredUpdate(ours, optimizer, decay=0.5, max_change=0.5, **clipping)
    good = rng.normal(size=N).astype(dtype)
    assert update(ours, good.copy())
    after, m = ours.copy(), optimizer.arrays["m"].copy()
    bad = good.copy()
    bad[5] = np.finfo(dtype).max if wrong == "largest" else wrong
    clipped = wrong == "largest" and bool(clipping) and dtype == np.float32  # its norm is finite, so it can be clipped
    assert update(ours, bad) is clipped
    assert update.skipped == (not clipped)
    if not clipped:
        assert_same_bits(ours, after)
        assert_same_bits(optimizer.arrays["m"], m)
        assert optimizer.updates == 1
    assert update(ours, good.copy())
    assert np.isfinite(ours).all()


def test_parameters_that_leave_all_bounds_are_put_back(dtype):
    w = np.array([3.0, 4.0], dtype)
    update = AnchoredUpdate(w, SGD(lr=float(np.finfo(dtype).max)), max_change=0.5)
    update(w, np.array([10.0, -10.0], dtype))
    assert_same_bits(w, np.array([3.0, 4.0], dtype))


def test_an_update_resumes_with_the_anchor_that_it_had(rng):
    w = rng.normal(size=N).astype(np.float32)
    gradients = rng.normal(size=(UPDATES, N)).astype(np.float32)
    whole, parts = w.copy(), w.copy()
    update = AnchoredUpdate(whole, SGD(lr=0.5), decay=0.2, max_change=0.3)
    for g in gradients:
        update(whole, g)
    first = AnchoredUpdate(parts, SGD(lr=0.5), decay=0.2, max_change=0.3)
    for g in gradients[:3]:
        first(parts, g)
    second = AnchoredUpdate(parts, SGD(lr=0.5), decay=0.2, max_change=0.3, anchor=first.anchor)
    for g in gradients[3:]:
        second(parts, g)
    assert_same_bits(parts, whole)


def test_large_parameters_have_the_same_bits_at_any_number_of_threads(rng):
    n = 3 * 2**20 + 37
    w, g = rng.normal(size=(2, n)).astype(np.float32)
    results = []
    for threads in 1, 3:
        ours = w.copy()
        update = AnchoredUpdate(ours, SGD(lr=0.5), clip_norm=10.0, decay=0.1, max_change=1e-3, threads=threads)
        update(ours, g.copy())
        results.append(ours)
    assert (results[0] == w).mean() < 0.5
    assert_same_bits(*results)


def test_no_array_is_allocated_after_the_first_update(rng):
    w, g = rng.normal(size=(2, 10_000)).astype(np.float32)
    update = AnchoredUpdate(w, Adam(), clip_norm=1.0, clip_value=0.5, decay=0.1, max_change=0.1)
    update(w, g)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(10):
            update(w, g)
        assert tracemalloc.get_traced_memory()[1] - before < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda w: AnchoredUpdate(w, "adam"), TypeError, "optimizer: expected an optimizer .*, got str"),
        (lambda w: AnchoredUpdate(w, Adam(), clip_norm=0), ValueError, "clip_norm: expected a number above 0.*got 0"),
        (lambda w: AnchoredUpdate(w, Adam(), clip_value=-1), ValueError, "clip_value: .*got -1"),
        (lambda w: AnchoredUpdate(w, Adam(), decay=-0.1), ValueError, "decay: .*got -0.1"),
        (lambda w: AnchoredUpdate(w, Adam(), decay=1.1), ValueError, "decay: expected a number from 0 to 1, got 1.1"),
        (lambda w: AnchoredUpdate(w, Adam(), max_change=math.nan), ValueError, "max_change: .*got nan"),
        (lambda w: AnchoredUpdate(w, Adam(), threads=0), ValueError, "threads: .*got 0"),
        (lambda w: AnchoredUpdate(w.tolist(), Adam()), TypeError, "params: expected an array, got list"),
        (lambda w: AnchoredUpdate(w.astype(int), Adam()), ValueError, r"params: expected float32.*got int64"),
        (lambda w: AnchoredUpdate(w[None], Adam()), ValueError, r"params: .*shape \(n,\), got .*shape \(1, 3\)"),
        (lambda w: AnchoredUpdate(w / 0, Adam()), ValueError, "params: expected finite numbers"),
        (lambda w: AnchoredUpdate(w, Adam(), decay=0.1, anchor=w[:2]), ValueError, r"anchor: .*got .*\(2,\)"),
        (lambda w: AnchoredUpdate(w, Adam(), decay_factors=-w), ValueError, "decay_factors: .*at least 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(np.ones(3))
