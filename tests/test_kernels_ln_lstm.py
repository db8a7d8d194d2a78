# SPDX-License-Identifier: MIT
"""The layer-normalised LSTM: what its kernels compute beyond what every cell of test_kernels_cells.py is tested for."""

from itertools import pairwise

import numpy as np
import pytest
from cell_tools import assert_all_same_bits, backward, forward, layer
from kernel_tools import Guarded, assert_close, assert_same_bits, chain32, fma32
from numpy.typing import NDArray
from oracle_cells import cell_backward, cell_forward, sigmoid

from crnn._core import vecmath

T, B, H = 3, 13, 33
NAMES = "ifgo"

pytestmark = pytest.mark.usefixtures("isa")
in_float32 = pytest.mark.parametrize("dtype", ["float32"], indirect=True)


def of_gates(given: dict, name: str) -> list[NDArray]:
    return [given[f"{name}_{gate}"] for gate in NAMES]


def arriving(arrays: Guarded, rng: np.random.Generator, T: int, B: int, H: int) -> dict:
    return {"dh": arrays.input(rng.normal(size=(T, B, H))), "dc": arrays.input(rng.normal(size=(B, H)))}


# ---- what it computes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("H", [5, 16, 33, 209])
def test_what_is_normalised_has_mean_0_and_variance_1(arrays, rng, H):
    given = layer(arrays, rng, "ln_lstm", T, B, H)
    kept = forward(arrays, "ln_lstm", given)
    normal = kept["gates"].reshape(T, B, 4, H).astype("f8")
    variance = 1 / kept["scales"].astype("f8") ** 2
    np.testing.assert_allclose(normal.mean(axis=3), 0, atol=1e-5)
    np.testing.assert_allclose((normal**2).mean(axis=3), 1 - 1e-5 / variance, rtol=2e-5)


def test_a_single_unit_is_normalised_to_0_whatever_its_input_is(arrays, rng):
    given, arrived = layer(arrays, rng, "ln_lstm", T, B, 1), arriving(arrays, rng, T, B, 1)
    kept = forward(arrays, "ln_lstm", given)
    np.testing.assert_array_equal(kept["gates"], 0)
    np.testing.assert_allclose(kept["scales"], 1 / np.sqrt(1e-5), rtol=1e-6)
    f, o = (sigmoid(given[name].astype("f8")) for name in ("bias_f", "bias_o"))
    g, i = np.tanh(given["bias_g"].astype("f8")), sigmoid(given["bias_i"].astype("f8"))
    c = given["c0"].astype("f8")
    for t in range(T):
        c = f * c + np.minimum(i, 1 - f) * g
        assert_close(kept["c"][t], c)
        assert_close(kept["h"][t], o * c)
    back = backward(arrays, "ln_lstm", given, kept, arrived)
    np.testing.assert_array_equal(back["da"], 0)
    exact = {name: a.astype("f8") for name, a in given.items()}
    run = cell_forward("ln_lstm", exact.pop("xw"), (exact.pop("h0"), exact.pop("c0")), exact)
    _, _, grads = cell_backward(run, arrived["dh"].astype("f8"), (np.zeros((B, 1)), arrived["dc"].astype("f8")))
    for name in ("bias_i", "bias_f", "bias_g", "bias_o"):
        np.testing.assert_allclose(back["d" + name].sum(axis=0, dtype="f8"), grads[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_h_and_c_never_leave_the_interval_from_minus_1_to_1(arrays, rng, strength):
    T = 400
    given = layer(arrays, rng, "ln_lstm", T, 5, 17)
    given |= {"c0": arrays.input(rng.choice([-1.0, 1.0], size=(5, 17)))}
    given |= {name: arrays.input(strength * given[name]) for name in given if name.startswith(("gain", "bias"))}
    given["bias_g"] = arrays.input(np.full(17, 100.0))  # always in the same direction
    kept = forward(arrays, "ln_lstm", given)
    assert np.abs(kept["c"]).max() <= 1
    assert np.abs(kept["h"]).max() <= 1
    assert np.abs(kept["c"]).max() > 0.99


def test_the_same_added_to_all_units_of_a_gate_changes_little(arrays, rng):
    """And a factor common to all of them: that is what normalising is for."""
    given = layer(arrays, rng, "ln_lstm", 1, B, H)
    given["W_hh"] = arrays.input(np.zeros_like(given["W_hh"]))
    plain = forward(arrays, "ln_lstm", given)
    moved = forward(arrays, "ln_lstm", given | {"xw": arrays.input(8 * given["xw"].astype("f8") + 16)})
    np.testing.assert_allclose(moved["h"], plain["h"], atol=2e-5)
    np.testing.assert_allclose(moved["scales"], plain["scales"] / 8, rtol=1e-4)


def test_a_large_common_offset_does_not_spoil_the_variance(arrays, rng):
    """The mean is taken off before squares are: their difference would have no bit left."""
    values = rng.normal(size=(1, B, 4 * H))
    given = layer(arrays, rng, "ln_lstm", 1, B, H)
    given |= {"W_hh": arrays.input(np.zeros((H, 4 * H))), "xw": arrays.input(np.round(values * 64) / 64 + 4096)}
    kept = forward(arrays, "ln_lstm", given)
    exact = given["xw"].astype("f8").reshape(1, B, 4, H)
    np.testing.assert_allclose(kept["scales"], 1 / np.sqrt(exact.var(axis=3) + 1e-5), rtol=1e-5)


def test_where_the_input_gate_equals_what_is_forgotten_its_gradient_is_that_of_the_input_gate(arrays, rng):
    """With i = f = 1/2 the minimum of i and 1 - f has a kink; f gets none of the gradient."""
    given, arrived = layer(arrays, rng, "ln_lstm", 1, B, H), arriving(arrays, rng, 1, B, H)
    zero = arrays.input(np.zeros(H))
    given |= dict.fromkeys(("gain_i", "gain_f", "bias_i", "bias_f"), zero)
    kept = forward(arrays, "ln_lstm", given)
    back = backward(arrays, "ln_lstm", given, kept, arrived)
    exact = {name: a.astype("f8") for name, a in (given | arrived | kept).items()}
    _, _, n_g, n_o = np.split(exact["gates"][0], 4, axis=1)
    g, o = np.tanh(exact["gain_g"] * n_g + exact["bias_g"]), sigmoid(exact["gain_o"] * n_o + exact["bias_o"])
    dc = exact["dc"] + exact["dh"][0] * o
    assert_close(back["dbias_i"], dc * g / 4)
    assert_close(back["dbias_f"], dc * exact["c0"] / 4)


def test_inference_gives_the_same_h_and_c_without_what_the_way_back_needs(arrays, rng):
    given = layer(arrays, rng, "ln_lstm", T, 5, 17)
    whole = forward(arrays, "ln_lstm", given)
    got = forward(arrays, "ln_lstm", given, into={"scales": None})
    assert got.pop("scales") is None
    got.pop("gates")
    assert_all_same_bits(got, {name: whole[name] for name in ("h", "c")})


# ---- the order of arithmetic ---------------------------------------------------------------------------------------


def sum32(a: NDArray) -> NDArray:
    """Over the last axis, by crnn.h's definition: 16 lanes, folded in halves."""
    lanes = np.zeros((*a.shape[:-1], 16), "f4")
    for start in range(0, a.shape[-1], 16):
        columns = a[..., start : start + 16]
        lanes[..., : columns.shape[-1]] += columns
    return folded(lanes)


def sum_of_products32(a: NDArray, b: NDArray) -> NDArray:
    lanes = np.zeros((*a.shape[:-1], 16), "f4")
    for start, stop in pairwise([*range(0, a.shape[-1], 16), a.shape[-1]]):
        into = lanes[..., : stop - start]
        into[...] = fma32(a[..., start:stop], b[..., start:stop], into)
    return folded(lanes)


def folded(lanes: NDArray) -> NDArray:
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    return lanes


def through(function, a: NDArray) -> NDArray:
    y = np.empty(a.size, a.dtype)
    function(y, a.ravel())
    return y.reshape(a.shape)


@in_float32
def test_forward_and_backward_have_the_bits_of_the_written_order(arrays, rng):
    given, arrived = layer(arrays, rng, "ln_lstm", 1, B, H), arriving(arrays, rng, 1, B, H)
    kept = forward(arrays, "ln_lstm", given)
    one, units = np.float32(1), np.float32(H)
    a = np.split(chain32(given["h0"], given["W_hh"], given["xw"][0]), 4, axis=1)
    mean = [sum32(gate) / units for gate in a]
    scale = [
        one / np.sqrt(sum_of_products32(gate - m, gate - m) / units + np.float32(1e-5))
        for gate, m in zip(a, mean, strict=True)
    ]
    n = [(gate - m) * s for gate, m, s in zip(a, mean, scale, strict=True)]
    assert_same_bits(kept["gates"][0], np.concatenate(n, axis=1))
    assert_same_bits(kept["scales"][0], np.concatenate(scale, axis=1))
    z = [fma32(*each) for each in zip(n, of_gates(given, "gain"), of_gates(given, "bias"), strict=True)]
    functions = (vecmath.sigmoid, vecmath.sigmoid, vecmath.tanh, vecmath.sigmoid)
    i, f, g, o = (through(function, gate) for function, gate in zip(functions, z, strict=True))
    c = fma32(f, given["c0"], np.minimum(i, one - f) * g)
    assert_same_bits(kept["c"][0], c)
    assert_same_bits(kept["h"][0], o * c)

    back = backward(arrays, "ln_lstm", given, kept, arrived)
    dh, dc = arrived["dh"][0], fma32(arrived["dh"][0], o, arrived["dc"])
    limited, dmin = i > one - f, dc * g
    ds = [
        np.where(limited, np.float32(0), dmin),
        dc * given["c0"] - np.where(limited, dmin, np.float32(0)),
        dc * np.minimum(i, one - f),
        dh * c,
    ]
    slopes = [fma32(-i, i, i), fma32(-f, f, f), fma32(-g, g, np.full_like(g, 1)), fma32(-o, o, o)]
    dz = [d * slope for d, slope in zip(ds, slopes, strict=True)]
    dn = [d * gain for d, gain in zip(dz, of_gates(given, "gain"), strict=True)]
    da = [
        s * fma32(-normal, sum_of_products32(d, normal) / units, d - sum32(d) / units)
        for d, normal, s in zip(dn, n, scale, strict=True)
    ]
    assert_same_bits(back["da"][0], np.concatenate(da, axis=1))
    assert_same_bits(back["dc"], dc * f)
    for name, normal, d in zip(NAMES, n, dz, strict=True):
        assert_same_bits(back[f"dgain_{name}"], d * normal + np.float32(0))
        assert_same_bits(back[f"dbias_{name}"], d + np.float32(0))
