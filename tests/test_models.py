# SPDX-License-Identifier: MIT
"""LanguageModel against the float64 oracle: losses, gradients, evaluation and scores; and its smaller promises."""

import itertools
import math

import numpy as np
import oracle
import pytest
from kernel_tools import TOLERANCE, assert_close, assert_same_bits
from model_tools import language_model, oracle_backward, oracle_forward, oracle_losses, text

import crnn
import crnn.models.language_model
from crnn.models.passes.predictor import Workspace
from crnn.text.reading import TextError

IGNORE_INDEX = -1


def batch(rng, model, T=6, B=5, ignored=3):
    V = len(model.vocab)
    ids, targets = rng.integers(V, size=(T, B)), rng.integers(V, size=(T, B))
    targets.ravel()[rng.choice(T * B, ignored, replace=False)] = IGNORE_INDEX
    h0 = rng.normal(size=(model.net.num_layers, B, model.net.hidden_size)).astype(model.dtype)
    return ids, targets, h0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("E", [None, 3])
@pytest.mark.parametrize(("cell", "layers", "H"), [("tanh", 1, 7), ("relu", 2, 19), ("tanh", 3, 37)])
def test_loss_and_gradients_follow_the_oracle(rng, dtype, cell, layers, H, E, reduction, threads):
    model = language_model(H=H, L=layers, cell=cell, dtype=dtype.name, E=E)
    ids, targets, h0 = batch(rng, model)
    total, count, state = model.loss_and_gradients(ids, targets, h0, reduction=reduction, threads=threads)

    tape = oracle_forward(model, ids, h0)
    losses, dy = oracle.cross_entropy(tape.y, targets, ignore=IGNORE_INDEX)
    grads, _, _ = oracle_backward(model, tape, dy / 27 if reduction == "mean" else dy)
    assert count == 27
    assert total == pytest.approx(losses.sum(), rel=TOLERANCE[dtype.name])
    assert_close(state, tape.state)
    assert set(model.grads) == set(grads)
    for name, grad in model.grads.items():
        assert_close(grad, grads[name])


def test_losses_and_logits_follow_the_oracle(rng, dtype):
    model = language_model(H=19, L=2, dtype=dtype.name)
    ids, targets, h0 = batch(rng, model)
    expected, logits = oracle_losses(model, ids, targets, h0)
    losses, state = model.losses(ids, targets, h0)
    assert_close(losses, expected)
    assert np.all(losses[targets == IGNORE_INDEX] == 0)
    got, state_too = model.forward(ids, h0)
    assert_close(got, logits)
    assert_same_bits(state, state_too)
    assert_close(state, oracle_forward(model, ids, h0).state)


def test_losses_of_a_model_that_knows_nothing_are_log_v():
    model = language_model(dtype="float64")
    model.flat_params.fill(0)
    losses, _ = model.losses([[1, 2]], [[3, 4]])
    np.testing.assert_allclose(losses, math.log(len(model.vocab)), rtol=1e-15)


def test_gradients_add_up_over_calls(rng):
    model = language_model(L=2, dtype="float64", E=3)
    ids, targets, h0 = batch(rng, model)
    model.loss_and_gradients(ids, targets, h0)
    once = model.flat_grads.copy()
    model.loss_and_gradients(ids, targets, h0)
    np.testing.assert_allclose(model.flat_grads, 2 * once, rtol=1e-12)


def test_a_window_without_targets_counts_nothing_and_leaves_no_gradient(rng):
    model = language_model()
    ids, targets, _ = batch(rng, model)
    total, count, _ = model.loss_and_gradients(ids, np.full_like(targets, IGNORE_INDEX))
    assert (total, count) == (0, 0)
    assert not model.flat_grads.any()


@pytest.mark.parametrize("E", [None, 3])
def test_a_workspace_changes_no_bits_whatever_shapes_it_has_seen(rng, E):
    model = language_model(L=2, E=E)
    space = Workspace()
    for T, B in ((6, 5), (6, 5), (2, 5), (6, 5), (6, 4)):
        ids, targets, h0 = batch(rng, model, T, B)
        model.flat_grads.fill(0)
        fresh = model.loss_and_gradients(ids, targets, h0)
        grads = model.flat_grads.copy()
        model.flat_grads.fill(0)
        reused = model.loss_and_gradients(ids, targets, h0, workspace=space)
        assert fresh[:2] == reused[:2]
        assert_same_bits(fresh[2], reused[2])
        assert_same_bits(grads, model.flat_grads)


def test_the_state_that_a_workspace_owns_starts_its_next_window(rng):
    model = language_model(L=2)
    ids, targets, h0 = batch(rng, model, T=8)
    whole, end = model.losses(ids, targets, h0)
    space = Workspace()
    first, state = model.losses(ids[:4], targets[:4], h0, workspace=space)
    first = first.copy()
    second, state = model.losses(ids[4:], targets[4:], state, workspace=space)
    assert_same_bits(np.concatenate([first, second]), whole)
    assert_same_bits(state, end)


# ---- whole texts -----------------------------------------------------------------------------------------------


def stream_losses(model, ids):
    """Per prediction: nats, and whether the largest logit was the target, over one stream from a zero state."""
    losses, logits = oracle_losses(model, ids[:-1, None], ids[1:, None])
    return losses[:, 0], logits[:, 0].argmax(axis=1) == ids[1:]


@pytest.mark.parametrize("length", [2, 3, 257, 258, 700])
def test_evaluate_carries_the_state_and_loses_no_token(dtype, length):
    model = language_model(text(2000), H=19, L=2, dtype=dtype.name)
    ids = model.vocab.encode(text(length, seed=4))
    losses, right = stream_losses(model, ids)
    for given in (text(length, seed=4), ids, ids.astype(np.uint8)):
        result = model.evaluate(given)
        assert result.count == length - 1
        assert result.nats == pytest.approx(losses.mean(), rel=TOLERANCE[dtype.name])
        assert result.accuracy == right.mean()


@pytest.mark.parametrize("batch_size", [2, 3, 7, 64, 10_000])
def test_evaluate_in_a_batch_predicts_the_same_tokens(batch_size):
    """As many streams, each from a zero state; the extra predictions go to the first ones."""
    model = language_model(text(2000), H=19, dtype="float64")
    ids = model.vocab.encode(text(300, seed=4))
    result = model.evaluate(ids, batch_size=batch_size, threads=2)
    B = min(batch_size, 299)
    ends = np.cumsum([0] + [299 // B + (b < 299 % B) for b in range(B)])
    parts = [stream_losses(model, ids[a : b + 1]) for a, b in itertools.pairwise(ends)]
    losses, right = map(np.concatenate, zip(*parts, strict=True))
    assert result.count == 299
    assert result.nats == pytest.approx(losses.mean(), rel=1e-12)
    assert result.accuracy == right.mean()


def test_evaluate_does_not_depend_on_threads():
    model = language_model(text(2000), H=19)
    results = {model.evaluate(text(500), batch_size=7, threads=threads) for threads in (1, 2, 3)}
    assert len(results) == 1


def test_evaluation_in_bits_and_perplexity():
    result = crnn.Evaluation(nats=math.log(8), accuracy=0.5, count=3)
    assert result.bits == pytest.approx(3)
    assert result.perplexity == pytest.approx(8)
    assert crnn.Evaluation(800.0, 0.0, 1).perplexity == math.inf


def test_evaluate_refuses_a_text_with_nothing_to_predict():
    model = language_model()
    for nothing in ("", "h", np.array([1])):
        with pytest.raises(TextError, match=r"text: expected at least 2 tokens.* got [01]"):
            model.evaluate(nothing)


@pytest.mark.parametrize("prompt", [None, "h", "hello "])
def test_score_is_the_oracles_nats_per_token(dtype, prompt):
    model = language_model(H=19, L=2, dtype=dtype.name)
    texts = ["world", "we", "\n\n\n\n", "hello, new world!" * 5]
    expected = []
    for each in texts:
        losses, _ = stream_losses(model, model.vocab.encode((prompt or "") + each))
        expected.append(losses[-(len(each) - (prompt is None)) :].mean())
    np.testing.assert_allclose(model.score(texts, prompt=prompt), expected, rtol=TOLERANCE[dtype.name])


def test_score_of_one_token_needs_a_prime():
    model = language_model()
    expected, _ = stream_losses(model, model.vocab.encode("oh"))
    np.testing.assert_allclose(model.score(["h"], prompt="o"), expected, rtol=1e-6)
    with pytest.raises(TextError, match=r"texts\[1\]: expected at least one token with one before it, got 'h'"):
        model.score(["he", "h"])
    with pytest.raises(TextError, match=r"texts\[0\]"):
        model.score([""], prompt="hello")
    assert model.score([]) == []


def test_score_refuses_one_text_and_unknown_characters():
    model = language_model()
    with pytest.raises(TypeError, match=r"texts: expected several texts, as in \[text\], got one"):
        model.score("hello")
    with pytest.raises(crnn.VocabError, match="'q' at position 1"):
        model.score(["hq"])


# ---- smaller promises ------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("E", [None, 3])
def test_a_stream_gives_the_bits_of_the_whole_window(rng, isa, dtype, E):
    model = language_model(H=37, L=2, dtype=dtype.name, E=E)
    ids = rng.integers(len(model.vocab), size=40)
    logits, _ = model.forward(ids[:, None])
    stream = model.stream()
    for token, expected in zip(ids.tolist(), logits[:, 0], strict=True):
        assert_same_bits(stream.step(token), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stream_refuses_a_token_outside_the_vocabulary(dtype):
    model = language_model(dtype=dtype)
    for token in (-1, len(model.vocab)):
        with pytest.raises(ValueError, match=f"got .*{token}"):
            model.stream().step(token)


def test_the_network_and_its_model_share_their_weights_and_gradients(rng):
    model = language_model(L=2, E=3)
    for name, array in model.net.params.items():
        assert np.shares_memory(array, model.params[name])
        assert np.shares_memory(model.net.grads[name], model.grads[name])
    assert set(model.params) - set(model.net.params) == {"W_hy", "b_y"}
    assert sum(array.size for array in model.params.values()) == model.flat_params.size == model.flat_grads.size


@pytest.mark.parametrize("E", [None, 3])
def test_astype_copies_the_model_in_another_precision(E):
    model = language_model(L=2, cell="relu", E=E)
    double = model.astype("float64")
    assert double.flat_params.dtype == np.float64
    np.testing.assert_array_equal(double.flat_params, model.flat_params)
    assert double.config() == model.config() | {"dtype": "float64"}
    assert double.vocab == model.vocab
    double.flat_params.fill(0)
    assert model.flat_params.any()


@pytest.mark.parametrize("E", [None, 3])
def test_config_makes_a_model_of_the_same_shape(E):
    model = crnn.LanguageModel(
        crnn.Vocab.from_text("abc"), "relu", 5, 2, embedding_size=E, recurrent_init="0.5*identity", input_init="uniform"
    )
    twin = crnn.LanguageModel(model.vocab, **model.config())
    assert_same_bits(twin.flat_params, model.flat_params)
    assert repr(twin) == repr(model)


def test_repr_says_what_it_is():
    text = repr(crnn.LanguageModel(crnn.Vocab.from_text("abc"), "relu", 5, 2, embedding_size=4))
    for part in ("3 chars", "cell='relu'", "hidden_size=5", "num_layers=2", "embedding_size=4", "dtype='float32'"):
        assert part in text
    assert "135 parameters" in text  # 3*4 + 4*5 + 5*5 + 5 + 5*5 + 5*5 + 5 + 5*3 + 3


def test_windows_are_those_of_contiguous_batches():
    model = language_model()
    ids = np.arange(20) % 5
    got, expected = model.windows(ids, 2, 3), crnn.text.contiguous_batches(ids, 2, 3)
    for (x, y), (x2, y2) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
