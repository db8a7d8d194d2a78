# SPDX-License-Identifier: MIT
"""Dropout: what masks are made of, where they act, and where nothing is dropped."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from kernel_tools import assert_close, assert_same_bits
from model_tools import padded
from task_tools import LENGTHS, classifier, labels, oracle_outputs, reals, regressor, softmax_loss, tagger

import crnn
from crnn._core.rows import Lengths
from crnn.models.passes.predictor import Workspace
from crnn.nn.dropout import LEVELS, Masks

DROPPING = {"dropout": 0.4, "recurrent_dropout": 0.3}


# ---- masks ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2**40), st.sampled_from(["float32", "float64"]))
def test_a_mask_is_zeros_and_one_larger_number_whose_mean_is_one(p, seed, dtype):
    mask = Masks(seed).draw(p, (5, 7), dtype)
    assert mask.shape == (5, 7)
    assert mask.dtype == dtype
    dropped = min(round(p * LEVELS), LEVELS - 1) / LEVELS  # the probability that 16 bits can say
    kept = np.unique(mask[mask != 0])
    assert len(kept) <= 1
    np.testing.assert_allclose(kept * (1 - dropped), 1, rtol=1e-6)
    assert abs(dropped - p) <= 1 / LEVELS


@pytest.mark.parametrize("lengths", [[3, 1, 7, 7, 2], [1, 1, 40, 1, 1, 1, 1], [30, 1, 2, 2, 1, 30, 1, 1], [5, 6], [4]])
@pytest.mark.parametrize("K", [1, 3, 8])
@pytest.mark.parametrize("block", [1, 1 << 18])
def test_a_packed_mask_is_the_padded_one_without_its_padding(monkeypatch, lengths, K, block):
    monkeypatch.setattr("crnn.nn.dropout.BLOCK", block)
    T, B = max(lengths) + 1, len(lengths)
    packing = Lengths(lengths, T, 1, packed=True)
    for same in (False, True):
        masks, others = Masks(3), Masks(3)
        for dtype in ("float32", "float64"):  # the second begins where the first ended
            whole = masks.draw_rows(0.4, T, B, K, dtype, same_for_all_steps=same, lengths=None)
            got = others.draw_rows(0.4, T, B, K, dtype, same_for_all_steps=same, lengths=packing)
            assert_same_bits(got, packing.pack(np.array(np.broadcast_to(whole, (T, B, K)))))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_the_probability_says(p):
    mask = Masks(7).draw(p, (400, 503), "float64")
    assert (mask == 0).mean() == pytest.approx(p, abs=0.005)
    assert mask.mean() == pytest.approx(1, abs=0.02)
    for axis in (0, 1):  # neither rows nor columns are dropped as one
        assert 0 < (mask == 0).mean(axis=axis).std() < 0.05


def test_the_same_seed_draws_the_same_masks_in_their_order():
    one, same, other = Masks([3, 4]), Masks([3, 4]), Masks([3, 5])
    for shape in ((3, 5), (1, 2, 3)):
        assert_same_bits(one.draw(0.5, shape, "float32"), same.draw(0.5, shape, "float32"))
    assert (one.draw(0.5, (9, 9), "float32") != other.draw(0.5, (9, 9), "float32")).any()
    assert (one.draw(0.5, (9, 9), "float32") != one.draw(0.5, (9, 9), "float32")).any()
    assert_same_bits(Masks(8).draw(0.5, (9,), "float64"), Masks(8).draw(0.5, (9,), "float32").astype(float))


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, [3, -1], None, [None]])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(ValueError, match="dropout_seed: expected an integer of at least 0, got"):
        Masks(seed)
    if not isinstance(seed, list):
        before = classifier()
        with pytest.raises(ValueError, match="seed: expected an integer of at least 0, got"):
            crnn.fit(before, None, seed=seed)


# ---- where they act ------------------------------------------------------------------------------------------------


def passes(model, rng, seed, y):
    X = reals(rng)
    batch, wanted = model.data(X, y).batch(np.arange(len(X)))
    space = Workspace()
    model.flat_grads.fill(0)
    total, count, _ = model.loss_and_gradients(batch, wanted, workspace=space, dropout_seed=seed)
    return total / count, model.flat_grads.copy(), space


@pytest.mark.parametrize("variational_dropout", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean"])
def test_each_step_or_each_sequence_has_a_mask(rng, pooling, variational_dropout):
    options = DROPPING | {"variational_dropout": variational_dropout, "num_layers": 2, "bidirectional": True}
    model = classifier(pooling=pooling, **options) if pooling else tagger(**options)
    _, _, space = passes(model, rng, 5, labels(rng, None if pooling else LENGTHS))
    steps, B = (1 if variational_dropout else max(LENGTHS)), len(LENGTHS)
    padded = space.tape.padded
    below, top = padded(space.tape.layers[1].mask), space.head.mask if pooling else padded(space.head.mask)
    assert below.shape == (max(LENGTHS), B, 10)
    assert top.shape == (1 if pooling else max(LENGTHS), B, 10)
    whole = below[:, np.array(LENGTHS) == max(LENGTHS)]
    assert len({mask.tobytes() for mask in whole}) == steps
    recurrent = [cell.mask for cell in space.tape.recurrences]
    assert [mask.shape for mask in recurrent] == [(B, 5)] * 4
    assert space.tape.layers[0].mask is None
    everything = [below[0, :, :5], below[0, :, 5:], top[0, :, :5], top[0, :, 5:], *recurrent]
    assert len({mask.tobytes() for mask in everything}) == len(everything)  # each its own


@pytest.mark.parametrize("pooling", [None, "last", "max"])
def test_dropout_before_the_head_follows_the_oracle(rng, pooling):
    """One layer: only the head's input is dropped. The mask is one on its rows of W_hy, sequence by sequence."""
    options = {"dropout": 0.4, "dtype": "float64"}
    model = classifier(pooling=pooling, **options) if pooling else tagger(**options)
    X, y = reals(rng), labels(rng, None if pooling else LENGTHS)
    batch, wanted = model.data(X, y).batch(np.arange(len(X)))
    space = Workspace()
    total, _, _ = model.loss_and_gradients(batch, wanted, workspace=space, dropout_seed=3)
    mask = space.head.mask if pooling else space.tape.padded(space.head.mask)
    assert 0 < (mask == 0).mean() < 1
    outputs, back = oracle_outputs(model, X, mask)
    expected, dy, weight = softmax_loss(outputs, padded(batch, wanted)[2])
    assert total == pytest.approx(expected, rel=1e-12)
    for name, grad in back(dy / weight).items():
        assert_close(model.grads[name], grad)


@pytest.mark.parametrize("kind", ["classifier", "tagger", "regressor"])
def test_nothing_is_dropped_without_a_seed(rng, kind):
    """In prediction, evaluation, gradient checks and gradient flow."""
    make = {"classifier": classifier, "tagger": tagger, "regressor": regressor}[kind]
    dropping, plain = make(num_layers=2, **DROPPING), make(num_layers=2)
    X = reals(rng)
    y = {"classifier": labels(rng), "tagger": labels(rng, LENGTHS), "regressor": rng.normal(size=(7, 2))}[kind]
    assert_same_bits(dropping.flat_params, plain.flat_params)
    for one, other in zip(dropping.predict(X), plain.predict(X), strict=True):
        assert_same_bits(one, other)
    assert dropping.evaluate(X, y) == plain.evaluate(X, y)
    assert crnn.gradient_check(dropping, (X, y), samples=3) == crnn.gradient_check(plain, (X, y), samples=3)
    assert_same_bits(crnn.gradient_flow(dropping, (X, y)).norms, crnn.gradient_flow(plain, (X, y)).norms)
    ours, theirs = (passes(model, np.random.default_rng(2), None, y) for model in (dropping, plain))
    assert_same_bits(ours[1], theirs[1])


def test_every_seed_drops_others_and_the_same_seed_the_same(rng):
    model, y = classifier(**DROPPING), labels(rng)
    one, same, other = (passes(model, np.random.default_rng(2), seed, y) for seed in (1, 1, 2))
    assert_same_bits(one[1], same[1])
    assert one[0] == same[0] != other[0]
