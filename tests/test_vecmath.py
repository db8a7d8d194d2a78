# SPDX-License-Identifier: MIT
"""exp, tanh, sigmoid and log1p: errors in ulp over the floats, monotone, specials, the same bits everywhere."""

from collections.abc import Iterator

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from numpy.typing import NDArray

from crnn._core import dispatch, vecmath

INF = 0x7F800000  # infinity's bits; the floats are numbered from -INF to INF in rising order
TINY = np.finfo(np.float32).tiny

TRUTH = {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "log1p": np.log1p}
functions = pytest.mark.parametrize("name", TRUTH)


def run(name: str, x: NDArray) -> NDArray:
    y = np.full_like(x, np.nan)
    getattr(vecmath, name)(y, x)
    return y


def within(name: str, x: NDArray) -> NDArray:
    """Those x that the function is for."""
    return x[(x >= 0) & (x <= 1)] if name == "log1p" else x


def float_at(i: NDArray) -> NDArray[np.float32]:
    """The float32 numbered i; 0.0 is number 0 and -0.0 has none."""
    return np.where(i < 0, 0x80000000 - i, i).astype(np.uint32).view(np.float32)


def chunks(stride: int) -> Iterator[NDArray[np.float32]]:
    """Every stride-th float32, rising; each chunk begins with the number that ended the one before."""
    size = 1 << 20
    for start in range(-INF, INF, size * stride):
        yield float_at(np.minimum(start + stride * np.arange(size + 1), INF))


def check_float32(name: str, x: NDArray[np.float32]) -> None:
    """x rising: within 2 ulp, rising, and the same on every instruction set."""
    x = within(name, x)
    if not len(x):
        return
    y = run(name, x)
    falls = np.flatnonzero(y[1:] < y[:-1])
    assert not len(falls), f"{name} falls after {x[falls[0]]!r}"
    assert ((np.abs(y) >= TINY) | (y == 0)).all(), "denormal result"
    before = dispatch.isa()
    for isa in set(dispatch.available_isas()) - {before}:
        dispatch.use_isa(isa)
        assert_same_bits(run(name, x), y)
    dispatch.use_isa(before)

    if y[0] == y[-1]:  # the truth rises too, so that between its ends it is no further off
        x, y = x[[0, -1]], y[[0, -1]]
    with np.errstate(over="ignore"):
        truth = TRUTH[name](x.astype(np.float64))
        rounded = truth.astype(np.float32)
    with np.errstate(invalid="ignore"):  # inf - inf
        error = np.abs(y - truth) / np.spacing(np.abs(rounded))
    # Results too small for a normal number are 0; at the edge either will do.
    good = (y == rounded) | (error <= 2) | ((np.abs(truth) < TINY * (1 + 2**-22)) & (y == 0))
    assert good.all(), f"{name}({x[~good][0]!r}) is off by {error[~good][0]:.2f} ulp"


@functions
@pytest.mark.thread_unsafe
@pytest.mark.usefixtures("any_isa")
def test_float32_on_every_97th_float(name):
    for x in chunks(97):
        check_float32(name, x)


@functions
@pytest.mark.slow
@pytest.mark.thread_unsafe
@pytest.mark.usefixtures("any_isa")
def test_float32_on_every_float(name):
    for x in chunks(1):
        check_float32(name, x)


@functions
@pytest.mark.thread_unsafe
@pytest.mark.usefixtures("any_isa")
def test_float32_on_runs_of_floats_where_the_formula_changes(name):
    """Powers of two, where the spacing does, and multiples of ln 2 / 2, where n of x = n ln 2 + r does."""
    switch = np.arange(-255, 256) * np.log(2) / (4 if name == "tanh" else 2)
    places = np.abs(np.concatenate([switch, 2.0 ** np.arange(-126, 128)])).astype(np.float32).view(np.int32)
    for start in {int(i) for i in places} | {-int(i) for i in places}:
        if abs(start) < INF - 500:
            check_float32(name, float_at(start + np.arange(-499, 500)))


@functions
@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
def test_float64_at_random_points(name, dtype, isa, rng):
    x = np.concatenate(
        [
            rng.uniform(-708, 709, 100_000),
            rng.uniform(-22, 22, 100_000),
            rng.choice([-1, 1], 200_000) * 2 ** rng.uniform(-6, 1, 200_000),
            rng.choice([-1, 1], 50_000) * 2 ** rng.uniform(-1022, -6, 50_000),
        ]
    )
    x = within(name, x)
    y, truth = run(name, x), TRUTH[name](x.astype(np.longdouble))
    error = np.abs(y - truth) / np.spacing(np.abs(truth.astype(np.float64)))
    assert error.max() <= 2.1, f"{float(error.max()):.2f} ulp at {x[error.argmax()]!r}"


@functions
@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_float64_does_not_fall_between_neighbours(name, dtype, isa, rng):
    switch = np.arange(-255, 256) * np.log(2) / (4 if name == "tanh" else 2)
    starts = np.abs(np.concatenate([switch, rng.uniform(-30, 30, 200), 2.0 ** np.arange(-60, 5)]))
    if name == "log1p":
        starts = starts[starts < 1 - 1e-10]  # it is defined on 0 .. 1
    assert len(starts) > 60
    for start in starts:
        low = np.array(start).view(np.int64)
        x = np.maximum(low + np.arange(-200, 200), 0).view(np.float64)
        assert (np.diff(run(name, x)) >= 0).all(), start
        assert name == "log1p" or (np.diff(run(name, -x)) <= 0).all(), -start


def test_special_values(dtype, isa):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, 1e-40 if dtype == "f4" else 1e-310], dtype)
    assert_same_bits(run("exp", x), np.array([1, 1, np.inf, 0, np.nan, np.inf, 0, 1], dtype))
    assert_same_bits(run("tanh", x), np.array([0, -0.0, 1, -1, np.nan, 1, -1, 0], dtype))
    assert_same_bits(run("sigmoid", x), np.array([0.5, 0.5, 1, 0, np.nan, 1, 0, 0.5], dtype))
    assert_same_bits(run("log1p", x[[0, 4, 7]]), np.array([0, np.nan, 0], dtype))
    assert_same_bits(run("tanh", -x[-1:]), np.array([-0.0], dtype))
    assert_same_bits(run("tanh", np.array([20, -20], dtype)), np.array([1, -1], dtype))


def test_exp_ends_where_the_normal_numbers_end(dtype, isa):
    info = np.finfo(dtype)
    for edge, outside, limit in [(np.log(info.max), np.inf, np.inf), (np.log(info.tiny), 0, -np.inf)]:
        inside = np.array([edge], dtype)
        while run("exp", inside)[0] == outside:  # rounding the logarithm may have crossed the edge
            inside = np.nextafter(inside, -np.array([limit], dtype))
        beyond = np.nextafter(inside, np.array([limit], dtype))
        while run("exp", beyond)[0] != outside:
            inside, beyond = beyond, np.nextafter(beyond, np.array([limit], dtype))
        assert abs(inside[0] - edge) <= 2 * np.spacing(np.abs(edge).astype(dtype))
        assert info.tiny <= run("exp", inside)[0] <= info.max


def test_tanh_is_odd_to_the_bit(dtype, isa, rng):
    x = np.concatenate([rng.uniform(-12, 12, 20_001), 2.0 ** np.arange(-120, 8)]).astype(dtype)
    assert_same_bits(run("tanh", -x), -run("tanh", x))


def test_sigmoids_of_opposites_sum_to_one(dtype, isa, rng):
    x = rng.uniform(-30, 30, 10_001).astype(dtype)
    assert np.abs(run("sigmoid", x) + run("sigmoid", -x) - 1).max() <= np.finfo(dtype).eps


@functions
def test_any_length_and_in_place(name, arrays, isa, rng):
    values = rng.normal(size=70).astype(arrays.dtype)
    whole = run(name, values)
    for n in range(70):
        y, in_place = arrays.output(n), arrays.inout(values[:n])
        getattr(vecmath, name)(y, arrays.input(values[:n]))
        getattr(vecmath, name)(in_place, in_place)
        assert_same_bits(y, whole[:n])
        assert_same_bits(in_place, whole[:n])
