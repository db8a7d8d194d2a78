# SPDX-License-Identifier: MIT
"""The oracle itself: its gradients against central differences, its losses against closed forms."""

import numpy as np
import oracle
import pytest

T, B, D, H, V = 3, 2, 5, 7, 11


def random_params(rng: np.random.Generator, L: int, D: int) -> oracle.Params:
    params = {"W_hy": rng.normal(size=(H, V)), "b_y": rng.normal(size=V)}
    for layer in range(L):
        params[f"layer{layer}.W_xh"] = rng.normal(size=(H if layer else D, H))
        params[f"layer{layer}.W_hh"] = 0.5 * rng.normal(size=(H, H))
        params[f"layer{layer}.b_h"] = rng.normal(size=H)
    return params


@pytest.mark.parametrize("L", [1, 2, 3])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradients_are_the_slopes_of_the_loss(rng, activation, L):
    params = random_params(rng, L, D)
    at = params | {"x": rng.normal(size=(T, B, D)), "h0": rng.normal(size=(L, B, H))}
    targets = rng.integers(V, size=(T, B))
    pull = rng.normal(size=(L, B, H))  # a second loss, pull . last state, makes dstate

    def loss() -> float:
        tape = oracle.rnn_forward(at, at["x"], at["h0"], activation)
        return float(oracle.cross_entropy(tape.y, targets)[0].sum() + (pull * tape.state).sum())

    tape = oracle.rnn_forward(at, at["x"], at["h0"], activation)
    dy = oracle.cross_entropy(tape.y, targets)[1]
    grads, dx, dh0 = oracle.rnn_backward(params, tape, dy, pull, activation)
    for name, grad in (grads | {"x": dx, "h0": dh0}).items():
        slopes, value = np.empty_like(grad), at[name]
        for i in np.ndindex(value.shape):
            here = value[i]
            ends = []
            for value[i] in (here - 1e-6, here + 1e-6):
                ends.append(loss())
            value[i] = here
            slopes[i] = (ends[1] - ends[0]) / 2e-6
        assert np.abs(grad - slopes).max() <= 1e-7 * np.abs(slopes).max(), name


def test_ids_are_one_hot_rows(rng):
    params = random_params(rng, 1, V)
    ids, h0 = rng.integers(V, size=(T, B)), rng.normal(size=(1, B, H))
    y = oracle.rnn_forward(params, ids, h0).y
    a = params["layer0.W_xh"][ids[0]] + params["layer0.b_h"] + h0[0] @ params["layer0.W_hh"]
    np.testing.assert_allclose(y[0], np.tanh(a) @ params["W_hy"] + params["b_y"], rtol=1e-13)


def test_cross_entropy_of_known_distributions():
    losses, dy = oracle.cross_entropy(np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([1, 2]))
    np.testing.assert_allclose(losses, [np.log(4), -np.log(0.7)], rtol=1e-14)
    np.testing.assert_allclose(dy, [[0.5, -0.75, 0.25], [0.1, 0.2, -0.3]], rtol=1e-13)


def test_char_rnn_starts_at_log_V_per_character_and_learns_a_cycle():
    ids = np.tile(np.arange(V), 20)
    losses = list(oracle.train_char_rnn(oracle.char_rnn_params(V, H=17), ids, updates=60, T=5))
    assert losses[0] == pytest.approx(5 * np.log(V), rel=1e-3)
    assert losses[-1] < 0.5 * losses[0]
