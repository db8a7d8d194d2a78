# SPDX-License-Identifier: MIT
"""gradient_check: below 1e-6 for every parameter, input and state, large when a gradient is wrong; gradient_flow."""

import math

import numpy as np
import oracle
import pytest
from model_tools import language_model, network, oracle_forward

import crnn
import crnn.diagnostics
import crnn.models.gradient_flow
from crnn._core import gemm
from crnn.nn.cells import CELLS
from crnn.nn.precision import PRECISIONS
from crnn.nn.stack import Stack


@pytest.mark.parametrize("kind", ["dense", "ids", "embedding", "embedding, many ids"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_gradients_of_a_network_agree_with_differences(rng, cell, layers, kind):
    D = 17 if kind.endswith("many ids") else 5
    net = network(D, 7, layers, cell, E=4 if kind.startswith("embedding") else None)
    x = rng.normal(size=(6, 2, D)) if kind == "dense" else rng.integers(D, size=(6, 2))
    check = crnn.gradient_check(net, x, samples=None)
    assert check.largest < 1e-6
    assert set(check.errors) == {*net.params, "state"} | ({"x"} if kind == "dense" else set())
    everything = net.flat_params.size + layers * 2 * 7 + (x.size if kind == "dense" else 0)
    assert check.checked + check.skipped == everything
    assert check.skipped <= (everything // 50 if cell == "relu" else 0)


@pytest.mark.parametrize("E", [None, 4])
@pytest.mark.parametrize(("cell", "layers"), [("tanh", 1), ("tanh", 3), ("relu", 2)])
def test_gradients_of_a_language_model_agree_with_differences(rng, cell, layers, E):
    model = language_model(L=layers, cell=cell, E=E)
    V = len(model.vocab)
    ids, targets = rng.integers(V, size=(2, 6, 3))
    targets[2, 1] = -1
    state = rng.normal(size=(layers, 3, 7))
    check = crnn.gradient_check(model, (ids, targets), state=state, samples=None)
    assert check.largest < 1e-6
    assert set(check.errors) == {*model.params, "state"}


def spoil(monkeypatch, name):
    """Make every gradient named so a little wrong, as one forgotten term would."""
    original = Stack.finish_gradients

    def spoiled(self, tape):
        original(self, tape)
        self.grads[name].reshape(-1)[0] *= 1.001

    monkeypatch.setattr(Stack, "finish_gradients", spoiled)


@pytest.mark.parametrize("cell", [name for name, cell in CELLS.items() if cell.has_kinks])
def test_smoothed_gradients_agree_with_differences_on_one_side_of_each_kink(cell):
    """The backward pass, which has the smoothed losses, overwrites gates that tell on which side a unit is."""
    vocab = crnn.Vocab.from_text("abcdefghijklmnopqrstuvwxyz")
    model = crnn.LanguageModel(vocab, cell, 8, 2, tie_weights=True, label_smoothing=0.2, seed=3)
    x, y = np.random.default_rng(3).integers(len(vocab), size=(2, 6, 4))
    assert crnn.gradient_check(model, (x, y), samples=None).largest < 1e-6


@pytest.mark.parametrize("name", ["layer0.W_xh", "layer0.W_hh", "layer0.b_h", "layer1.W_hh"])
def test_a_wrong_gradient_is_found_and_named(rng, monkeypatch, name):
    spoil(monkeypatch, name)
    net = network(L=2)
    errors = crnn.gradient_check(net, rng.normal(size=(6, 2, 5)), samples=None).errors
    assert 1e-6 < errors.pop(name) < 1e-2
    assert max(errors.values()) < 1e-6
    model = language_model(L=2)
    ids, targets = rng.integers(9, size=(2, 6, 3))
    ids[0] = 0
    errors = crnn.gradient_check(model, (ids, targets), samples=None).errors
    assert errors.pop(name) > 1e-6
    assert max(errors.values()) < 1e-6


def test_gradient_check_leaves_the_model_and_the_batch_alone(rng):
    model, net = language_model(L=2), network()
    model.flat_grads.fill(3)
    ids, targets = rng.integers(9, size=(2, 6, 3))
    x = rng.normal(size=(6, 2, 5)).astype(np.float32)
    before = [array.copy() for array in (model.flat_params, model.flat_grads, net.flat_params, ids, targets, x)]
    crnn.gradient_check(model, (ids, targets), samples=3)
    crnn.gradient_check(net, x, samples=3)
    after = (model.flat_params, model.flat_grads, net.flat_params, ids, targets, x)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradient_check_samples_as_asked_and_says_so(rng):
    net = network()
    x = rng.normal(size=(6, 2, 5))
    check = crnn.gradient_check(net, x, samples=4)
    assert check.checked == 5 * 4  # W_xh, W_hh, b_h, state, x
    assert f"{check.largest:.1e}  (20 elements)" in str(check)
    assert all(name in str(check) for name in check.errors)
    assert crnn.gradient_check(net, x, samples=4).errors == check.errors
    assert crnn.gradient_check(net, x, samples=4, seed=1).errors != check.errors


# ---- gradient flow ---------------------------------------------------------------------------------------------


def flow_by_the_oracle(net, x, dy):
    """|dL/dh_t| of one layer by the oracle: every dh_t is the h0-gradient of the steps after it."""
    tape = oracle_forward(net, x)
    params = {name: values.astype(np.float64) for name, values in net.params.items()}
    norms = []
    for t in range(len(x) - 1):
        _, from_later = oracle.recurrence_backward(dy[t + 1 :], tape.h[0][t + 1 :], params["layer0.W_hh"], net.cell)
        norms.append(np.linalg.norm(dy[t] + from_later))
    return [*norms, np.linalg.norm(dy[-1])]


@pytest.mark.parametrize("cell", ["tanh", "relu"])
@pytest.mark.parametrize("loss", ["last", "mean"])
def test_norms_are_those_of_the_oracle(rng, cell, loss):
    net = network(cell=cell, dtype="float64")
    x = rng.normal(size=(9, 2, 5))
    dy = np.zeros((9, 2, 7))
    dy[-1 if loss == "last" else slice(None)] = 1
    flow = crnn.gradient_flow(net, x, loss=loss)
    assert flow.norms.shape == flow.saturation.shape == (1, 9)
    np.testing.assert_allclose(flow.norms[0], flow_by_the_oracle(net, x, dy), rtol=1e-10)
    h = oracle_forward(net, x).h[0]
    expected = (np.abs(h) > 0.97 if cell == "tanh" else h <= 0).mean(axis=(1, 2))
    np.testing.assert_array_equal(flow.saturation[0], expected)
    radius = np.abs(np.linalg.eigvals(net.params["layer0.W_hh"])).max()
    np.testing.assert_allclose(flow.spectral_radius, [radius], rtol=1e-12)
    np.testing.assert_allclose(flow.rate, (flow.norms[:, 0] / flow.norms[:, -1]) ** (1 / 8))


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
def test_saturation_is_that_of_the_steps_there_are(rng, monkeypatch, cell):
    """Whatever the memory beyond a sequence's end holds."""
    fresh = gemm.aligned_empty

    def spoiled(shape, dtype):
        array = fresh(shape, dtype)
        array.fill(np.inf if array.dtype.kind == "f" else 255)  # bytes of packed weights, of which NaN consists
        return array

    monkeypatch.setattr(gemm, "aligned_empty", spoiled)
    net = network(cell=cell)
    net.flat_params[...] *= 3
    x = rng.normal(size=(9, 2, 5)).astype(np.float32)
    long, short = (crnn.gradient_flow(net, x[:T, b : b + 1]).saturation[0] for T, b in ((9, 0), (4, 1)))
    both = crnn.gradient_flow(net, x, lengths=[9, 4]).saturation[0]
    np.testing.assert_allclose(both, [*((long[:4] + short) / 2), *long[4:]], rtol=1e-12)
    assert both.max() > 0


@pytest.mark.parametrize("loss", ["last", "mean"])
def test_flow_of_a_language_model_starts_at_its_loss(rng, loss):
    """Two layers: the lower one's dL/dh_t is the difference of the loss when h_t is moved, by the oracle."""
    model = language_model(L=2, dtype="float64")
    ids, targets = rng.integers(12, size=(2, 5, 2))
    flow = crnn.gradient_flow(model, (ids, targets), loss=loss)
    tape = oracle_forward(model, ids)
    _, dy = oracle.cross_entropy(tape.y, targets)
    if loss == "last":
        dy[:-1] = 0
    dy /= 2 if loss == "last" else 10
    params = {name: values.astype(np.float64) for name, values in model.params.items()}
    dh = dy @ params["W_hy"].T
    for layer in (1, 0):
        W_hh = params[f"layer{layer}.W_hh"]
        da, _ = oracle.recurrence_backward(dh, tape.h[layer], W_hh, "tanh")
        whole = dh.copy()
        whole[:-1] += da[1:] @ W_hh.T
        np.testing.assert_allclose(flow.norms[layer], np.linalg.norm(whole, axis=(1, 2)), rtol=1e-10)
        dh = da @ params[f"layer{layer}.W_xh"].T


def test_gradients_fade_and_explode_with_the_spectral_radius():
    x = np.zeros((20, 1, 2), np.float32)
    for gain in (0.5, 1.0, 1.5):
        net = crnn.RNN(2, 8, cell="tanh", recurrent_init=f"{gain}*orthogonal", seed=0)
        flow = crnn.gradient_flow(net, x)
        np.testing.assert_allclose(flow.rate, gain, rtol=1e-5)
        np.testing.assert_allclose(flow.spectral_radius, gain, rtol=1e-5)
        np.testing.assert_allclose(flow.norms[0], math.sqrt(8) * gain ** np.arange(19.0, -1, -1), rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
@pytest.mark.parametrize("scale", [1e-20, 0.5, 1.0, 30.0])
def test_an_estimated_spectral_radius_is_near_the_largest_eigenvalue(rng, size, scale):
    matrix = (scale / np.sqrt(size) * rng.normal(size=(size, size))).astype(np.float32)
    radius = np.abs(np.linalg.eigvals(matrix.astype(np.float64))).max()
    assert crnn.models.gradient_flow.estimated_radius(matrix) == pytest.approx(radius, rel=1e-2)


def test_an_estimated_spectral_radius_of_a_rotation_and_of_a_nilpotent_matrix():
    turn = np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]]) * 0.9
    estimate = crnn.models.gradient_flow.estimated_radius
    assert estimate(turn) == pytest.approx(0.9, rel=1e-3)
    assert estimate(np.triu(np.ones((5, 5)), 1)) == 0
    assert math.isnan(estimate(np.full((2, 2), np.nan)))


def test_gradient_flow_leaves_gradients_alone(rng):
    model, net = language_model(), network()
    for each in (model, net):
        each.flat_grads.fill(3)
    crnn.gradient_flow(model, tuple(rng.integers(12, size=(2, 5, 2))))
    crnn.gradient_flow(net, rng.normal(size=(5, 2, 5)).astype(np.float32))
    assert (model.flat_grads == 3).all()
    assert (net.flat_grads == 3).all()


def test_flow_as_text_and_as_a_picture(rng):
    flow = crnn.gradient_flow(network(L=2), rng.normal(size=(5, 2, 5)).astype(np.float32))
    lines = str(flow).splitlines()
    assert len(lines) == 3
    assert f"{flow.spectral_radius[1]:.3f}" in lines[2]
    pytest.importorskip("matplotlib")
    axes = flow.plot()
    assert len(axes.lines) == 2
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), flow.norms[1])
    assert flow.plot(axes) is axes


def test_bad_arguments_are_named(rng):
    with pytest.raises(ValueError, match="loss: expected last or mean, got 'first'"):
        crnn.gradient_flow(network(), np.zeros((5, 2, 5), np.float32), loss="first")
    with pytest.raises(ValueError, match=r"x: expected shape \(T, B, 5\), got \(5, 2, 4\)"):
        crnn.gradient_check(network(), np.zeros((5, 2, 4)))
    for options in ({"samples": 0}, {"samples": 1.5}, {"step": 0}, {"step": -1e-3}, {"step": math.nan}, {"seed": -1}):
        (name,) = options
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            crnn.gradient_check(network(), np.zeros((5, 2, 5)), **options)


@pytest.mark.parametrize("look", [crnn.gradient_check, crnn.gradient_flow])
def test_what_is_no_model_with_a_loss_or_no_batch_of_one_is_named(look):
    regressor = crnn.SequenceRegressor(2, 1, hidden_size=3)
    X = np.zeros((3, 4, 2))
    for model in (crnn.Forecaster(hidden_size=3), crnn.SeasonalNaive(2), "model", None):
        with pytest.raises(TypeError, match=f"model: expected an RNN, .*got {type(model).__name__}"):
            look(model, (X, np.zeros(3)))
    for batch in (X, (X,), (X, X, X)):
        with pytest.raises(TypeError, match=r"batch: expected a pair \(inputs, targets\)"):
            look(regressor, batch)
    with pytest.raises(ValueError, match="expected a call of fit"):
        look(crnn.SequenceClassifier(hidden_size=3), (X, [0, 1, 0]))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_gradients_of_a_quantised_model_are_those_of_its_weights(rng, precision):
    """Its own products have none."""
    net, x = network(), rng.normal(size=(5, 2, 5))
    small = net.quantize(precision)
    found = crnn.gradient_check(small, x)
    assert found == crnn.gradient_check(small.astype("float64"), x)
    assert found.largest < 1e-7
    for model, batch in ((small, x), (language_model().quantize(precision), ([[0], [1]], [[1], [2]]))):
        with pytest.raises(ValueError, match=rf"precision: expected .*got '{precision}'.*astype\('float32'\)"):
            crnn.gradient_flow(model, batch)


@pytest.mark.parametrize("look", [crnn.gradient_check, crnn.gradient_flow])
def test_lengths_are_for_networks_only(look):
    model = crnn.SequenceClassifier(2, 2, hidden_size=3)
    with pytest.raises(ValueError, match="lengths: expected with an RNN only"):
        look(model, (np.zeros((2, 4, 2)), [0, 1]), lengths=[4, 3])
