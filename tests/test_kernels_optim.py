# SPDX-License-Identifier: MIT
"""Update rules and clipping, each over several updates so that the state counts."""

import math

import numpy as np
import oracle_optim
import pytest
from kernel_tools import SPECIAL, Guarded, assert_close, assert_same_bits

from crnn._core import optim
from crnn._core.loss import sum_of_squares

SIZES = [1, 7, 8, 9, 15, 16, 17, 31, 33, 83]
UPDATES = 4

pytestmark = pytest.mark.usefixtures("isa")
sizes = pytest.mark.parametrize("n", SIZES)


def gradients(rng, n: int, dtype):
    return rng.normal(size=(UPDATES, n)).astype(dtype)


def start(arrays: Guarded, rng, n: int, states: int):
    """w and that many state arrays, never negative: the kernel's, and the oracle's."""
    values = [rng.normal(size=n), *(rng.uniform(0.1, 2, size=n) for _ in range(states))]
    mine = [arrays.inout(a) for a in values]
    return mine, [a.astype("f8") for a in mine]


def rounded(dtype, *rates: float) -> list[float]:
    """The rates as the kernel gets them: the oracle must not be blamed for 0.1 not being a float32."""
    return [float(dtype.type(rate)) for rate in rates]


def assert_all_close(mine, exact):
    for got, expected in zip(mine, exact, strict=True):
        assert_close(got, expected)


@sizes
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(arrays, rng, n, momentum, nesterov):
    lr, momentum, decay, factor = rounded(arrays.dtype, 0.1, momentum, 0.03, 0.7)
    (w, v), exact = start(arrays, rng, n, 1)
    untouched = v.copy()
    for g in gradients(rng, n, arrays.dtype):
        optim.sgd(w, v if momentum else None, arrays.input(g), factor, lr, momentum, decay, nesterov)
        exact = oracle_optim.sgd(
            *exact, factor * g.astype("f8"), lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov
        )
    assert_close(w, exact[0])
    if momentum:
        assert_close(v, exact[1])
    else:
        w_before = w.copy()
        optim.sgd(w, v, arrays.input(g), factor, lr, 0.0, decay, nesterov)
        assert (w != w_before).all()
        assert_same_bits(v, untouched)


@sizes
def test_adagrad(arrays, rng, n):
    lr, eps, decay, factor = rounded(arrays.dtype, 0.1, 0.01, 0.03, 0.7)
    mine, exact = start(arrays, rng, n, 1)
    for g in gradients(rng, n, arrays.dtype):
        optim.adagrad(*mine, arrays.input(g), factor, lr, eps, decay)
        exact = oracle_optim.adagrad(*exact, factor * g.astype("f8"), lr=lr, eps=eps, weight_decay=decay)
    assert_all_close(mine, exact)


@sizes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop(arrays, rng, n, momentum):
    lr, alpha, eps, momentum, decay, factor = rounded(arrays.dtype, 0.1, 0.9, 0.01, momentum, 0.03, 0.7)
    (w, s, v), exact = start(arrays, rng, n, 2)
    untouched = v.copy()
    for g in gradients(rng, n, arrays.dtype):
        velocity = v if momentum else None
        optim.rmsprop(w, s, velocity, arrays.input(g), factor, lr, alpha, eps, momentum, decay)
        exact = oracle_optim.rmsprop(
            *exact,
            factor * g.astype("f8"),
            lr=lr,
            alpha=alpha,
            eps=eps,
            momentum=momentum,
            weight_decay=decay,
        )
    assert_all_close([w, s], exact[:2])
    if momentum:
        assert_close(v, exact[2])
    else:
        optim.rmsprop(w, s, v, arrays.input(g), factor, lr, alpha, eps, 0.0, decay)
        assert_same_bits(v, untouched)


@sizes
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(arrays, rng, n, decoupled):
    # Dyadic rates: 1 - beta is exact, and the corrections are the oracle's own up to their one rounding.
    lr, beta1, beta2, eps, decay, factor = *rounded(arrays.dtype, 0.1), 0.875, 1 - 2**-10, 2**-7, 2**-5, 0.75
    mine, exact = start(arrays, rng, n, 2)
    for t, g in enumerate(gradients(rng, n, arrays.dtype), 1):
        step, root = lr / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)
        plain, shrink = (0.0, lr * decay) if decoupled else (decay, 0.0)
        optim.adam(*mine, arrays.input(g), factor, step, beta1, beta2, root, eps, plain, shrink)
        exact = oracle_optim.adam(
            *exact,
            factor * g.astype("f8"),
            t=t,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=decay,
            decoupled=decoupled,
        )
    assert_all_close(mine, exact)


@sizes
def test_scale_and_clip(arrays, rng, n):
    values = np.resize([*SPECIAL, 1.5, -1.5, 0.25, 0.1], n).astype(arrays.dtype)
    scaled, clipped = arrays.inout(values), arrays.inout(values)
    optim.scale(scaled, 0.5)
    assert optim.clip(clipped, 1.5) == bool((np.abs(values) > 1.5).any())
    assert not optim.clip(clipped, 1.5)
    assert_same_bits(scaled, values * arrays.dtype.type(0.5))
    assert_same_bits(clipped, np.clip(values, -1.5, 1.5).astype(arrays.dtype))


@pytest.mark.parametrize("threads", [1, 2])
def test_large_arrays_are_changed_from_end_to_end(rng, dtype, threads):
    n = 2 * 2**20 + 37  # two threads at most
    values = rng.normal(size=n).astype(dtype)
    for change, expected in (
        (lambda x: optim.scale(x, 0.5, threads), values * dtype.type(0.5)),
        (lambda x: optim.clip(x, 0.5, threads), np.clip(values, dtype.type(-0.5), dtype.type(0.5))),
        (lambda x: optim.clear(x, threads), np.zeros(n, dtype)),
    ):
        guarded = np.full(n + 2, 7, dtype)
        guarded[1:-1] = values
        change(guarded[1:-1])
        assert_same_bits(guarded[1:-1], expected)
        assert guarded[0] == guarded[-1] == 7


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_clipping_finds_the_one_number_beyond_the_limit(dtype, threads):
    x = np.ones(3 * 2**20 + 37, dtype)
    for place in (0, 2**20 + 5, -1):
        x[place] = -1.5
        assert optim.clip(x, 1, threads)
        assert not optim.clip(x, 1, threads)


def test_squares_are_summed_in_blocks_and_then_the_blocks_in_order(rng, dtype):
    block = 2**19
    x = rng.normal(size=2 * block + 3).astype(dtype)
    parts = [optim.sum_of_squares(x[first : first + block]) for first in (0, block, 2 * block)]
    assert optim.sum_of_squares(x, 2) == parts[0] + parts[1] + parts[2]
    assert parts[0] == sum_of_squares(x[:block])  # one block in one go


@sizes
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 4.0])
def test_pull(arrays, rng, n, strength):
    w, anchor, factors = rng.normal(size=n), rng.normal(size=n), rng.uniform(0, 2, size=n)
    (strength,) = rounded(arrays.dtype, strength)
    with_factors, without, at_anchor = arrays.inout(w), arrays.inout(w), arrays.inout(anchor)
    w, anchor, factors = (arrays.input(a) for a in (w, anchor, factors))
    wide = [a.astype("f8") for a in (w, anchor, factors)]
    optim.pull(with_factors, anchor, factors, strength)
    assert_close(with_factors, oracle_optim.pull(*wide, strength))
    optim.pull(without, anchor, None, strength)
    assert_close(without, oracle_optim.pull(*wide[:2], np.ones(n), strength))
    optim.pull(at_anchor, anchor, factors, strength)
    assert_same_bits(at_anchor, anchor)


@sizes
def test_squared_distance(arrays, rng, n):
    x, y = (arrays.input(rng.normal(size=n)) for _ in range(2))
    exact = math.fsum(((x.astype("f8") - y.astype("f8")) ** 2).tolist())
    assert optim.squared_distance(x, y) == pytest.approx(exact, rel=1e-14)
    assert optim.squared_distance(x, x) == 0


def test_a_distance_is_summed_in_the_order_of_a_norm(rng, dtype):
    x = rng.normal(size=2 * 2**19 + 3).astype(dtype)
    for threads in 1, 2:
        assert optim.squared_distance(x, np.zeros_like(x), threads) == optim.sum_of_squares(x)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_pull_changes_an_array_from_end_to_end(rng, dtype, threads):
    w, anchor, factors = rng.normal(size=(3, 2 * 2**20 + 37)).astype(dtype)
    guarded = np.full(len(w) + 2, 7, dtype)
    guarded[1:-1] = w
    optim.pull(guarded[1:-1], anchor, np.abs(factors), 0.25, threads)
    assert_close(guarded[1:-1], oracle_optim.pull(*(a.astype("f8") for a in (w, anchor, np.abs(factors))), 0.25))
    assert guarded[0] == guarded[-1] == 7


def test_a_gradient_that_is_not_finite_reaches_its_weight_alone(arrays, rng):
    n = 33
    g = rng.normal(size=n)
    g[20] = np.nan
    (w, s), _ = start(arrays, rng, n, 1)
    optim.adagrad(w, s, arrays.input(g), 1.0, 0.1, 1e-8, 0.0)
    np.testing.assert_array_equal(np.isnan(w), np.arange(n) == 20)
    np.testing.assert_array_equal(np.isnan(s), np.arange(n) == 20)


def test_no_gradient_so_far_means_no_step(arrays):
    """Where all state is zero the rule divides by eps alone, not by zero."""
    n = 17
    zero, w = arrays.input(np.zeros(n)), np.linspace(-1, 1, n)
    for rule in (
        lambda w, m, v: optim.adagrad(w, v, zero, 1.0, 0.1, 1e-10, 0.0),
        lambda w, m, v: optim.rmsprop(w, v, m, zero, 1.0, 0.1, 0.9, 1e-8, 0.9, 0.0),
        lambda w, m, v: optim.adam(w, m, v, zero, 1.0, 0.1, 0.9, 0.999, 31.0, 1e-8, 0.0, 0.0),
    ):
        after, m, v = arrays.inout(w), arrays.inout(np.zeros(n)), arrays.inout(np.zeros(n))
        rule(after, m, v)
        np.testing.assert_array_equal(after, w.astype(arrays.dtype))
        np.testing.assert_array_equal([m, v], 0)
