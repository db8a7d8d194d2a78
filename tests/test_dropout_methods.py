# SPDX-License-Identifier: MIT
"""Dropout of inputs, of ids and of recurrent weights: what the masks are, and that losses and gradients follow them.

The masked networks are compared with plain ones: of masked weights, or in float64 PyTorch with the same masks."""

import numpy as np
import pytest
from kernel_tools import assert_close, assert_same_bits

import crnn
from crnn.models.passes.predictor import Workspace
from crnn.nn.cells import CELLS

VOCAB = crnn.Vocab.from_text("abcdefghijk")
T, B = 5, 3
IDS = np.random.default_rng(1).integers(11, size=(T + 1, B))
METHODS = {
    "input": {"input_dropout": 0.4, "embedding_size": 7},
    "input, the same at all steps": {"input_dropout": 0.4, "embedding_size": 7, "variational_dropout": True},
    "ids": {"embedding_dropout": 0.4, "embedding_size": 7},
    "ids and input": {"embedding_dropout": 0.3, "input_dropout": 0.3, "embedding_size": 7},
    "weights": {"weight_dropout": 0.4},
    "all": {
        "dropout": 0.3,
        "recurrent_dropout": 0.2,
        "input_dropout": 0.3,
        "embedding_dropout": 0.3,
        "weight_dropout": 0.3,
        "embedding_size": 7,
    },
}


def model_of(cell="lstm", **options):
    return crnn.LanguageModel(VOCAB, cell, hidden_size=7, num_layers=2, dtype="float64", seed=3, **options)


def window(model, seed=5, threads=1, **options):
    """Loss, gradients and workspace of a window."""
    space = Workspace()
    model.flat_grads.fill(0)
    total, _, _ = model.loss_and_gradients(
        IDS[:-1], IDS[1:], workspace=space, dropout_seed=seed, threads=threads, **options
    )
    return total, model.flat_grads.copy(), space


# ---- weight drop -----------------------------------------------------------------------------------------------------

RECURRENT = [name for name, cell in CELLS.items() if cell.info.recurrent_gates]


@pytest.mark.parametrize("cell", RECURRENT)
def test_weight_drop_is_a_network_of_masked_weights_whose_gradient_is_masked(cell):
    model, plain = model_of(cell, weight_dropout=0.4), model_of(cell)
    total, grads, space = window(model)
    masks = {each.prefix + "W_hh": each.weight_mask for each in space.tape.recurrences}
    for name, mask in masks.items():
        assert mask.shape == model.params[name].shape
        assert 0.2 < (mask == 0).mean() < 0.6
        np.testing.assert_allclose(np.unique(mask[mask != 0]) * 0.6, 1, rtol=1e-4)
        plain.params[name][...] *= mask
    expected, expected_grads, _ = window(plain, seed=None)
    assert total == expected
    flat = plain._parameters
    for name, mask in masks.items():
        flat.grads[name][...] *= mask
    assert_same_bits(grads + 0.0, plain.flat_grads + 0.0)  # -0.0 is 0.0
    assert not np.array_equal(expected_grads, grads)


def test_weight_drop_has_one_mask_for_each_direction_and_its_gradient_accumulates():
    net = crnn.RNN(3, 5, 2, "gru", bidirectional=True, weight_dropout=0.5, dtype="float64")
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    for times in (1, 2):
        y, _, tape = net.forward(x, dropout_seed=1)
        net.flat_grads.fill(0)
        for _ in range(times):
            net.backward(tape, np.ones_like(y))
        if times == 1:
            once = net.flat_grads.copy()
    assert_close(net.flat_grads, 2 * once)
    masks = [cell.weight_mask.tobytes() for cell in tape.recurrences]
    assert len(set(masks)) == 4
    net.forward(x, tape=tape)
    assert all(cell.weight_mask is None for cell in tape.recurrences)


# ---- dropout of the input --------------------------------------------------------------------------------------------


def by_pytorch(torch, model, mask):
    """Loss and gradients of an LSTM language model in PyTorch, whose embedded ids are multiplied by a mask."""
    p = {name: torch.tensor(np.array(values), requires_grad=True) for name, values in model.params.items()}
    h = p["embedding"][torch.tensor(IDS[:-1])] * torch.tensor(mask)
    for layer in range(2):
        w, u, b = (p[f"layer{layer}.{name}"] for name in ("W_xh", "W_hh", "b_h"))
        state, c, steps = torch.zeros(B, 7, dtype=torch.float64), torch.zeros(B, 7, dtype=torch.float64), []
        for t in range(T):
            i, f, g, o = (h[t] @ w + state @ u + b).split(7, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(c)
            steps.append(state)
        h = torch.stack(steps)
    logits = (h @ p["W_hy"] + p["b_y"]).reshape(T * B, -1)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(IDS[1:].reshape(-1)), reduction="sum")
    (loss / (T * B)).backward()
    return loss.item(), {name: values.grad.numpy() for name, values in p.items()}


@pytest.mark.parametrize("name", ["input", "input, the same at all steps", "ids", "ids and input"])
def test_dropped_inputs_follow_pytorch(torch, name):
    model = model_of(**METHODS[name])
    total, _, space = window(model)
    mask = np.broadcast_to(space.tape.layers[0].mask, (T, B, 7))
    assert 0.1 < (mask == 0).mean() < 0.9
    loss, grads = by_pytorch(torch, model, mask)
    assert total == pytest.approx(loss, rel=1e-12)
    for each, grad in grads.items():
        assert_close(model.grads[each], grad)


def test_an_id_is_dropped_as_a_whole_wherever_it_is():
    _, _, space = window(model_of(**METHODS["ids"]))
    mask = np.broadcast_to(space.tape.layers[0].mask, (T, B, 7))
    for token in np.unique(IDS[:-1]):
        assert np.unique(mask[IDS[:-1] == token]).size == 1


@pytest.mark.parametrize("variational_dropout", [False, True])
def test_a_real_input_is_dropped_and_its_gradient_too(variational_dropout):
    options = {"cell": "gru", "bidirectional": True, "dtype": "float64", "seed": 2}
    net = crnn.RNN(3, 5, input_dropout=0.4, variational_dropout=variational_dropout, **options)
    plain = crnn.RNN(3, 5, **options)
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    lengths = [6, 2, 5, 1]
    y, _, tape = net.forward(x, lengths=lengths, dropout_seed=3)
    mask = tape.padded(np.array(np.broadcast_to(tape.layers[0].mask, tape.x.shape)))
    dy = np.random.default_rng(1).normal(size=y.shape)
    dx, _ = net.backward(tape, dy)
    expected, _, other = plain.forward(x * mask, lengths=lengths)
    assert_same_bits(y, expected)
    assert_close(dx, plain.backward(other, dy)[0] * mask)
    assert_close(net.flat_grads, plain.flat_grads)
    again, _, _ = net.forward(x, lengths=lengths, tape=tape)  # nothing is dropped without a seed
    assert_same_bits(again, plain.forward(x, lengths=lengths)[0])


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_dropped_without_a_seed(name):
    options = METHODS[name]
    plain = {key: value for key, value in options.items() if "dropout" not in key}
    ours, theirs = window(model_of(**options), seed=None), window(model_of(**plain), seed=None)
    assert ours[0] == theirs[0]
    assert_close(ours[1], theirs[1])
    ids = IDS.reshape(-1)
    assert model_of(**options).evaluate(ids) == model_of(**plain).evaluate(ids)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits_at_any_number_of_threads_and_others_others(name):
    model = model_of(**METHODS[name])
    one, other = window(model), window(model, seed=6)
    for threads in (2, 3):
        found = window(model, threads=threads)
        assert found[0] == one[0]
        assert_same_bits(found[1], one[1])
    assert one[0] != other[0]


def trained(**options):
    options = METHODS["all"] | options
    model = crnn.LanguageModel(VOCAB, hidden_size=9, num_layers=2, seed=3, **options)
    model.fit(IDS.reshape(-1).repeat(9), epochs=1, batch_size=3, bptt=5, valid=None)
    return model.flat_params.copy()


def test_training_has_the_same_bits_on_every_instruction_set(isas):
    from crnn._core import dispatch

    found = []
    for isa in isas:
        dispatch.use_isa(isa)
        found.append(trained())
    for other in found[1:]:
        assert_same_bits(other, found[0])
    assert not np.array_equal(found[0], trained(weight_dropout=0.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crnn.RNN(3, 4, cell="min_gru", weight_dropout=0.1), "weight_dropout: expected 0 for 'min_gru'"),
        (lambda: crnn.RNN(3, 4, weight_dropout=1.0), "weight_dropout: expected"),
        (lambda: crnn.RNN(3, 4, embedding_dropout=0.1), "embedding_dropout: expected 0 without an embedding_size"),
        (lambda: model_of(embedding_dropout=0.1), "embedding_dropout: expected 0 without an embedding_size"),
        (lambda: model_of(input_dropout=0.1), "input_dropout: expected 0 without an embedding_size"),
        (
            lambda: crnn.SequenceClassifier(vocab=VOCAB, num_classes=2, input_dropout=0.1),
            "input_dropout: expected 0 without an embedding_size",
        ),
        (
            lambda: crnn.SequenceToSequence(3, 3, real_source=True, input_dropout=0.1),
            "input_dropout: expected 0 without an embedding_size",
        ),
        (
            lambda: crnn.RNN(11, 4, input_dropout=0.1).forward(IDS, dropout_seed=1),
            "input_dropout: expected 0 for ids without an embedding_size",
        ),
    ],
)
def test_dropout_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tied_weights_have_an_embedding_to_drop():
    model = crnn.LanguageModel(VOCAB, hidden_size=7, tie_weights=True, embedding_dropout=0.4, input_dropout=0.4)
    loaded = crnn.LanguageModel.from_contents(model.contents()[1], model.contents()[0])
    assert loaded.config()["embedding_dropout"] == 0.4


@pytest.mark.parametrize("real_source", [False, True])
def test_encoder_and_decoder_drop_too(real_source):
    model = crnn.SequenceToSequence(
        3, 6, hidden_size=5, real_source=real_source, embedding_size=4, weight_dropout=0.4, input_dropout=0.3,
        embedding_dropout=0.2,
    )
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(4, 3)) if real_source else rng.integers(3, size=4) for _ in range(12)]
    model.fit(X, [rng.integers(6, size=3) for _ in range(12)], epochs=1, valid=None)
    assert np.isfinite(model.flat_params).all()
