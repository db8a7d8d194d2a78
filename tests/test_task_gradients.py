# SPDX-License-Identifier: MIT
"""Task models against the float64 oracle: predictions, losses, all gradients, an update; and gradients against
differences, for every combination that makes sense."""

import itertools

import numpy as np
import oracle
import pytest
from kernel_tools import TOLERANCE, assert_close
from oracle_cells import NORMALISED, WITH_C, WITHOUT_W_HH, cell_backward, cell_forward
from task_tools import (
    CELLS,
    EQUAL,
    LENGTHS,
    D,
    V,
    answers,
    as_batch,
    classifier,
    id_sequences,
    labels,
    oracle_outputs,
    reals,
    regression_loss,
    regressor,
    sigmoid_loss,
    softmax_loss,
    standardised,
    tagger,
    values,
)
from task_tools import (
    pooled as pooled_rows,
)

import crnn
from crnn.nn.stack import Stack

WEIGHTS = [0.5, 2.0, 0.0, 1.5]
cells = pytest.mark.parametrize("cell", CELLS)
unequal = pytest.mark.parametrize("lengths", [LENGTHS, EQUAL], ids=["unequal", "equal"])
directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "two ways"])
POOLINGS = ["last", "mean", "max", "flatten"]

# A loss: what makes the model for it, its targets, what the oracle has for it, how a prediction follows from outputs.
LOSSES = {
    "classes": ({}, softmax_loss),
    "weighted": ({"class_weight": WEIGHTS}, lambda y, t: softmax_loss(y, t, WEIGHTS)),
    "smoothed": ({"label_smoothing": 0.2}, lambda y, t: softmax_loss(y, t, None, 0.2)),
    "both": ({"class_weight": WEIGHTS, "label_smoothing": 0.1}, lambda y, t: softmax_loss(y, t, WEIGHTS, 0.1)),
    "questions": ({"multilabel": True}, sigmoid_loss),
    "weighted questions": ({"multilabel": True, "class_weight": WEIGHTS}, lambda y, t: sigmoid_loss(y, t, WEIGHTS)),
    "mse": ({"loss": "mse"}, lambda y, t: regression_loss(y, t, "mse")),
    "mae": ({"loss": "mae"}, lambda y, t: regression_loss(y, t, "mae")),
    "huber": ({"loss": "huber", "delta": 0.7}, lambda y, t: regression_loss(y, t, "huber", 0.7)),
    "quantile": (
        {"loss": "quantile", "quantiles": [0.2, 0.5, 0.95]},
        lambda y, t: regression_loss(y, t, "quantile", levels=[0.2, 0.5, 0.95]),
    ),
}


def problem(rng, loss, pooling, lengths, **options):
    """A model, its X and y, and y as the loss sees it, time-major."""
    options |= LOSSES[loss][0]
    whole = pooling is not None
    n = len(lengths)
    if loss in ("mse", "mae", "huber", "quantile"):
        model = regressor(pooling=pooling, steps=lengths[0] if pooling == "flatten" else None, **options)
        y = values(rng, [(2,) if whole else (length, 2) for length in lengths])
        padding = np.nan
    else:
        steps = lengths[0] if pooling == "flatten" else None
        model = classifier(pooling=pooling, steps=steps, **options) if whole else tagger(**options)
        if model.multilabel:
            y, padding = answers(rng, [(V,) if whole else (length, V) for length in lengths]), np.nan
        else:
            y, padding = labels(rng, None if whole else lengths, n), -1
    X = id_sequences(rng, lengths) if options.get("embedding_size") else reals(rng, lengths)
    if model.scalings.get("y"):
        scaled = standardised([np.atleast_2d(each) for each in y])
        targets = np.stack([each[0] for each in scaled])[None] if whole else as_batch(scaled, padding)
    else:
        targets = np.stack(list(y))[None] if whole else as_batch(y, padding)
    return model, X, y, targets


def learn_scaling(model, X, y):
    model._learn_scaling(model._sequences("X", X), model._encode("y", y, model._sequences("X", X)))


def shapes_of_pooling():
    yield from itertools.product([None, "last", "mean", "max"], [LENGTHS, EQUAL])
    yield "flatten", EQUAL


pooled = pytest.mark.parametrize(
    ("pooling", "lengths"),
    list(shapes_of_pooling()),
    ids=lambda value: f"{min(value)} to {max(value)}" if isinstance(value, list) else str(value),
)


# ---- the oracle ----------------------------------------------------------------------------------------------------


@pooled
@directions
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradients_follow_the_oracle(rng, dtype, loss, pooling, lengths, bidirectional):
    model, X, y, targets = problem(
        rng, loss, pooling, lengths, bidirectional=bidirectional, dtype=dtype.name, cell="lstm", hidden_size=[4, 5]
    )
    learn_scaling(model, X, y)
    batch, wanted = model.data(X, y).batch(np.arange(len(X)))
    outputs, back = oracle_outputs(model, standardised(X))
    for b, got in enumerate(model._outputs(model.data(X, y), 3, 1)):
        assert_close(got, outputs[: len(got), b])
    for reduction in ("mean", "sum"):
        model.flat_grads.fill(0)
        total, count, _ = model.loss_and_gradients(batch, wanted, reduction=reduction, threads=2)
        expected, dy, weight = LOSSES[loss][1](outputs, targets)
        assert total == pytest.approx(expected, rel=5 * TOLERANCE[dtype.name])
        assert count == np.count_nonzero(targets >= 0 if targets.dtype.kind == "i" else ~np.isnan(targets))
        grads = back(dy / weight if reduction == "mean" else dy)
        assert model.grads.keys() == grads.keys()
        for name, grad in model.grads.items():  # errors of the outputs enter the loss's gradient once more
            assert_close(grad, grads[name], 2 * TOLERANCE[dtype.name])


@cells
@directions
@pytest.mark.parametrize("pooling", [None, "last", "mean", "max"])
@pytest.mark.parametrize("kind", ["reals", "embedding", "learnt states", "dense"])
def test_every_cell_and_input_follows_the_oracle(rng, cell, bidirectional, pooling, kind):
    options = {
        "embedding": {"embedding_size": 2},
        "learnt states": {"trainable_initial_state": True},
        "dense": {"hidden_size": [4, 3, 5], "dense_layers": True},
    }.get(kind, {})
    model, X, y, targets = problem(
        rng, "weighted", pooling, LENGTHS, cell=cell, bidirectional=bidirectional, dtype="float64", **options
    )
    if kind != "embedding":
        learn_scaling(model, X, y)
        scaled = standardised(X)
    else:
        scaled = X
    batch, wanted = model.data(X, y).batch(np.arange(len(X)))
    total, _, _ = model.loss_and_gradients(batch, wanted)
    outputs, back = oracle_outputs(model, scaled)
    expected, dy, weight = softmax_loss(outputs, targets, WEIGHTS)
    assert total == pytest.approx(expected, rel=1e-12)
    for name, grad in back(dy / weight).items():
        assert_close(model.grads[name], grad)


@pytest.mark.parametrize("pooling", [None, "last", "max"])
@pytest.mark.parametrize("loss", LOSSES)
def test_predictions_and_evaluation_follow_the_oracle(rng, loss, pooling):
    model, X, y, targets = problem(rng, loss, pooling, LENGTHS, bidirectional=True, dtype="float64")
    learn_scaling(model, X, y)
    outputs, _ = oracle_outputs(model, standardised(X))
    total, _, _ = LOSSES[loss][1](outputs, targets)
    result = model.evaluate(X, y, batch_size=3)
    known = targets != -1 if targets.dtype.kind == "i" else ~np.isnan(targets)
    assert result.count == known.sum()
    assert result.loss == pytest.approx(total / known.sum(), rel=1e-10)

    rows = [outputs[0, b : b + 1] if pooling else outputs[:length, b] for b, length in enumerate(LENGTHS)]
    if isinstance(model, crnn.SequenceRegressor):
        flat = np.concatenate([np.atleast_2d(each) for each in y])
        mean, deviation = np.nanmean(flat, axis=0), np.nanstd(flat, axis=0)
        expected = [np.stack(np.split(row, len(model._head.loss.levels), axis=-1), axis=-1) for row in rows]
        expected = [row * deviation[:, None] + mean[:, None] for row in expected]
        middle = np.concatenate([row[..., 1 if loss == "quantile" else 0] for row in expected])
        error = (middle - flat)[~np.isnan(flat)]
        assert result.mse == pytest.approx((error**2).mean(), rel=1e-9)
        assert result.mae == pytest.approx(abs(error).mean(), rel=1e-9)
        assert result.rmse == pytest.approx(np.sqrt(result.mse))
        expected = [row if loss == "quantile" else row[..., 0] for row in expected]
        predicted = model.predict(X)
    else:
        predicted = model.predict_proba(X)
        expected = [1 / (1 + np.exp(-row)) if model.multilabel else np.exp(row) for row in rows]
        expected = [row if model.multilabel else row / row.sum(axis=-1, keepdims=True) for row in expected]
        chosen = [row > 0 if model.multilabel else row.argmax(axis=-1) for row in rows]
        got = np.concatenate([np.atleast_1d(row) for row in model.predict(X)])
        np.testing.assert_array_equal(got.ravel(), np.concatenate(chosen).ravel())
    if pooling:
        np.testing.assert_allclose(predicted, np.concatenate(expected), rtol=1e-9)
    else:
        for got, wanted in zip(predicted, expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.parametrize("loss", ["both", "questions", "huber", "quantile"])
@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_one_update_is_the_oracles(rng, loss, pooling, clip):
    model, X, y, targets = problem(rng, loss, pooling, LENGTHS, dtype="float64")
    learn_scaling(model, X, y)
    before = {name: array.copy() for name, array in model.params.items()}
    outputs, back = oracle_outputs(model, standardised(X))
    total, dy, weight = LOSSES[loss][1](outputs, targets)
    grads = back(dy / weight)
    norm = np.sqrt(sum((grad**2).sum() for grad in grads.values()))
    log = model.fit(X, y, epochs=1, batch_size=100, optimizer=crnn.optim.SGD(0.3), clip_norm=clip, log_every=1).log
    factor = 1 if clip is None else clip / norm
    assert norm > 0.05
    for name, array in model.params.items():
        np.testing.assert_allclose(array, before[name] - 0.3 * factor * grads[name], rtol=1e-9, atol=1e-12)
    (entry,) = [entry for entry in log.entries if entry["kind"] == "train"]
    assert entry["grad_norm"] == pytest.approx(norm, rel=1e-9)
    known = targets != -1 if targets.dtype.kind == "i" else ~np.isnan(targets)
    assert entry["tokens"] == known.sum()
    assert entry["train_loss"] == pytest.approx(total / known.sum(), rel=1e-9)


# ---- gradient flow -------------------------------------------------------------------------------------------------


def flow_by_the_oracle(model, sequences, dh):
    """(directions, T): norms of dL/dh_t, each of them what later steps send back to the state they start from, and
    what arrives at the output itself. dh (T, B, F)."""
    params, squares = {k: v.astype(float) for k, v in model.params.items()}, np.zeros((model.net.directions, len(dh)))
    for b, x in enumerate(sequences):
        for direction in range(model.net.directions):
            prefix = f"layer0.{'reverse.' * direction}"
            order = slice(None, None, -1) if direction else slice(None)
            arriving = np.split(dh[: len(x), b], model.net.directions, axis=-1)[direction][order][:, None]
            weights = oracle.recurrent_weights(params, prefix)
            xw = (x[order] @ params[prefix + "W_xh"] + params[prefix + "b_h"])[:, None]
            start = tuple(np.zeros((1, model.net.hidden_size)) for _ in range(2 if model.net.cell in WITH_C else 1))
            run, norms = cell_forward(model.net.cell, xw, start, weights), []
            for t in range(len(x)):
                total = arriving[t]
                if t + 1 < len(x):
                    later = cell_forward(model.net.cell, xw[t + 1 :], run.before[t + 1], weights)
                    total = total + cell_backward(later, arriving[t + 1 :])[1][0]
                norms.append((total**2).sum())
            squares[direction, : len(x)] += norms[order]
    return np.sqrt(squares)


@cells
@directions
@pytest.mark.parametrize("pooling", [None, "last", "mean", "max"])
@pytest.mark.parametrize("loss", ["last", "mean"])
def test_gradient_flow_is_the_norm_of_what_reaches_each_step(rng, cell, bidirectional, pooling, loss):
    model, X, y, targets = problem(
        rng, "classes", pooling, LENGTHS, cell=cell, bidirectional=bidirectional, dtype="float64"
    )
    flow = crnn.gradient_flow(model, (X, y), loss=loss)
    outputs, _ = oracle_outputs(model, X)
    if loss == "last" and pooling is None:
        for b in range(len(LENGTHS)):  # the last target that is known
            known = [t for t in range(len(targets)) if targets[t, b] != -1]
            targets[known[:-1], b] = -1
    _, dy, weight = softmax_loss(outputs, targets)
    dh = dy / weight @ model.params["W_hy"].T
    if pooling:
        of_net = {name: model.params[name] for name in model.net.params}
        tape = oracle.rnn_forward(of_net, as_batch(X), None, model.net.cell, lengths=LENGTHS)
        dh = pooled_rows(tape.y, LENGTHS, pooling, model.net.hidden_sizes, model.net.directions)[1](dh[0])
    np.testing.assert_allclose(flow.norms, flow_by_the_oracle(model, X, dh), rtol=1e-9, atol=1e-15)
    assert flow.saturation.shape == flow.norms.shape
    assert ((flow.saturation >= 0) & (flow.saturation <= 1)).all()
    H = model.net.hidden_size
    for n, radius in enumerate(flow.spectral_radius):
        if cell in WITHOUT_W_HH:
            assert np.isnan(radius)
            continue
        candidate = model.params[f"layer0.{'reverse.' * n}W_hh"][:, (model.net.gates > 1) * 2 * H :][:, :H]
        assert radius == pytest.approx(np.abs(np.linalg.eigvals(candidate)).max())
    assert not model.flat_grads.any()
    assert len(str(flow).splitlines()) == 1 + len(flow.norms)


# ---- differences ---------------------------------------------------------------------------------------------------


def checked(model, X, y, samples=8, most_skipped=0.15):
    check = crnn.gradient_check(model, (X, y), samples=samples)
    assert check.largest < (1e-6 if model.net.cell in NORMALISED else 1e-7), check
    assert check.errors.keys() >= model.params.keys()
    assert check.skipped <= most_skipped * (check.checked + check.skipped)
    return check


@pooled
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_every_loss_and_pooling_agree_with_differences(rng, loss, pooling, lengths):
    model, X, y, _ = problem(rng, loss, pooling, lengths)
    learn_scaling(model, X, y)
    checked(model, X, y)


@cells
@directions
@pytest.mark.parametrize(
    "options",
    [
        {"hidden_size": [4, 3, 5]},
        {"trainable_initial_state": True, "num_layers": 2},
        {"embedding_size": 2, "trainable_initial_state": True},
        {"hidden_size": [4, 3, 5], "dense_layers": True},
    ],
    ids=["sizes", "learnt states", "embedding", "dense"],
)
@pytest.mark.parametrize("pooling", [None, "last", "max"])
def test_gradients_of_every_cell_agree_with_differences(rng, cell, bidirectional, options, pooling):
    model, X, y, _ = problem(rng, "classes", pooling, LENGTHS, cell=cell, bidirectional=bidirectional, **options)
    if "embedding_size" not in options:
        learn_scaling(model, X, y)
    check = checked(model, X, y, samples=4, most_skipped=0.3)
    starts = [name for name in check.errors if name.rpartition(".")[2] in ("h0", "c0")]
    if options.get("trainable_initial_state"):
        assert starts
        assert not any(name.startswith("state") for name in check.errors)
    else:
        assert not starts


def test_a_learnt_state_is_checked_where_it_is_used(rng, monkeypatch):
    """Spoiled, it is found; given another state it is not used, and that one is checked."""
    net = crnn.RNN(D, 5, cell="lstm", trainable_initial_state=True, bidirectional=True)
    net.flat_params[...] += rng.uniform(-0.1, 0.1, net.flat_params.shape)
    x = rng.normal(size=(4, 2, D))
    assert crnn.gradient_check(net, x).largest < 1e-7
    h, c = rng.normal(size=(2, 2, 2, 5))
    assert {"state.h", "state.c"} < crnn.gradient_check(net, x, state=(h, c)).errors.keys()
    original = Stack.finish_gradients

    def spoiled(self, tape):
        original(self, tape)
        self.grads["layer0.reverse.c0"][0] *= 1.01

    monkeypatch.setattr(Stack, "finish_gradients", spoiled)
    assert crnn.gradient_check(net, x).errors["layer0.reverse.c0"] > 1e-5


def test_a_gradient_that_is_zero_but_for_rounding_is_not_all_wrong():
    """As many errors above as below: the absolute error's gradient at the bias is 0, its difference is not quite."""
    model = regressor(1, loss="mae", scale=False, cell="tanh")
    X = [np.full((2, D), 0.1 * i) for i in range(4)]
    check = crnn.gradient_check(model, (X, [-1.3, 2.7, -3.1, 4.7]), samples=None)
    assert check.largest < 1e-7


def test_hubers_kinks_lie_at_delta_not_at_the_target():
    """One value an error away from its target: differences are taken unless they step over delta."""
    model = regressor(1, loss="huber", delta=0.5, scale=False, cell="tanh", dtype="float64")
    X = [np.ones((3, D))]
    (out,) = model.predict(X)
    for error, skipped in ((0.0, False), (0.5, True), (-0.5, True), (0.3, False), (0.9, False)):
        check = crnn.gradient_check(model, (X, [out - error]), state=np.zeros((1, 1, 5)), samples=None)
        assert (check.skipped > 0) == skipped
        assert check.skipped == 0 or "b_y" not in check.errors
        assert max(check.errors.values(), default=0) < 1e-7
