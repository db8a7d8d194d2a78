# SPDX-License-Identifier: MIT
"""LanguageModel with every cell: tied embeddings, dropout, learnt states, pairs of states; carried, resumed."""

import itertools

import numpy as np
import oracle
import pytest
from kernel_tools import assert_close, assert_same_bits
from model_tools import as_oracle, stir, text
from test_network_cells import arrays_of, states_are_close

import crnn
from crnn.models.passes.predictor import Workspace

CORPUS = crnn.TextCorpus.from_text(text(700), valid=0.1, test=0)
V = len(CORPUS.vocab)
FIT = {"batch_size": 3, "bptt": 7, "schedule": None, "clip_norm": None, "optimizer": crnn.optim.Adam(1e-2)}
KINDS = {
    "tanh": {"cell": "tanh"},
    "IRNN": {"cell": "relu", "recurrent_init": "identity"},
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "original_gru": {"cell": "original_gru"},
    "lstm of two sizes": {"cell": "lstm", "hidden_size": [9, 7], "num_layers": None},
    "tie_weights": {"cell": "lstm", "embedding_size": 7, "tie_weights": True},
    "learnt": {"cell": "lstm", "trainable_initial_state": True},
    "dropout": {"cell": "gru", "dropout": 0.3, "recurrent_dropout": 0.2},
    "variational_dropout": {"cell": "lstm", "dropout": 0.3, "variational_dropout": True, "embedding_size": 5},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def model_of(kind, dtype="float32", **more):
    options = {"hidden_size": 7, "num_layers": 2, "dtype": dtype, "seed": 3} | KINDS[kind] | more
    model = crnn.LanguageModel(CORPUS.vocab, **options)
    stir(model.flat_params)
    return model


def fit(model, **options):
    return crnn.fit(model, CORPUS, **(FIT | {"optimizer": crnn.optim.Adam(1e-2)} | options))


# ---- the oracle ----------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("given", [False, True])
def test_loss_and_gradients_follow_the_oracle(rng, dtype, kind, given):
    """With the masks that were drawn. Of a tied embedding both uses count."""
    model = model_of(kind, dtype.name)
    ids, targets = rng.integers(V, size=(2, 6, 5))
    targets[2, 1] = -1
    state = None
    if given:
        _, state = model.forward(rng.integers(V, size=(3, 5)))
    space = Workspace()
    total, count, after = model.loss_and_gradients(ids, targets, state, workspace=space, dropout_seed=4)

    params = as_oracle(model)
    if model.tie_weights:
        params["W_hy"] = params["embedding"].T
    masks = [layer.mask for layer in space.tape.layers[1:]] + [space.head.mask]
    recurrent = [cell.mask for cell in space.tape.recurrences]
    assert all((mask is None) == (model.net.dropout == 0) for mask in masks)
    tape = oracle.rnn_forward(
        params, ids, state, model.net.cell, dropout=masks,
        recurrent_dropout=recurrent if model.net.recurrent_dropout else None,
    )  # fmt: skip
    losses, dy = oracle.cross_entropy(tape.y, targets, ignore=-1)
    grads, _, _ = oracle.rnn_backward(params, tape, dy / count)
    if model.tie_weights:
        grads["embedding"] += grads.pop("W_hy").T
    assert count == 29
    assert total == pytest.approx(losses.sum(), rel=1e-6)
    states_are_close(model.net, after, tape.state)
    assert model.grads.keys() == grads.keys()
    for name, grad in model.grads.items():
        if grads[name].any():
            assert_close(grad, grads[name])
        else:  # of a learnt state that was not used
            assert given
            assert name.endswith(("h0", "c0"))
            assert not grad.any()


@kinds
def test_every_gradient_agrees_with_differences(rng, kind):
    ids, targets = rng.integers(V, size=(2, 4, 3))
    model = model_of(kind)
    check = crnn.gradient_check(model, (ids, targets), samples=8)
    assert check.largest < 1e-7
    assert check.errors.keys() >= model.params.keys()
    for name, grad in model.grads.items():
        assert not grad.any(), name  # the model's own are left alone


# ---- windows, states, checkpoints ----------------------------------------------------------------------------------


@kinds
def test_windows_with_the_state_carried_give_the_bits_of_the_whole(rng, kind):
    model = model_of(kind)
    ids, targets = rng.integers(V, size=(2, 12, 5))
    whole, end = model.losses(ids, targets)
    parts, state, space = [], None, Workspace()
    for t in range(0, 12, 5):
        losses, state = model.losses(ids[t : t + 5], targets[t : t + 5], state, workspace=space)
        parts.append(losses.copy())
    assert_same_bits(np.concatenate(parts), whole)
    for got, expected in zip(arrays_of(state), arrays_of(end), strict=True):
        assert_same_bits(got, expected)


@kinds
@pytest.mark.parametrize("carry", [None, 0, 14])
def test_training_carries_the_state_as_far_as_it_is_told(kind, carry):
    """By hand: the same windows, states, masks and updates."""
    fitted, model = model_of(kind), model_of(kind)
    crnn.fit(fitted, CORPUS.train, epochs=2, carry=carry, seed=6, **FIT | {"optimizer": crnn.optim.SGD(0.1)})
    optimizer, update = crnn.optim.SGD(0.1), 0
    for _ in range(2):
        state = None
        for number, (x, y) in enumerate(crnn.text.contiguous_batches(CORPUS.train, 3, 7)):
            if carry is not None and number % max(1, carry // 7) == 0:
                state = None
            model.flat_grads.fill(0)
            _, _, state = model.loss_and_gradients(x, y, state, dropout_seed=[6, update])
            optimizer.update(model.flat_params, model.flat_grads)
            update += 1
    assert_same_bits(fitted.flat_params, model.flat_params)


@kinds
@pytest.mark.parametrize("stop", [5, 37])  # in the first epoch and in the second, of 30 windows each
def test_training_resumed_within_an_epoch_gives_the_bits_of_one_run(tmp_path, kind, stop):
    whole, first, second = (model_of(kind) for _ in range(3))
    expected = fit(whole, epochs=2, seed=9)
    assert stop < expected.entries[-1]["update"] == 60
    path = tmp_path / "c"
    fit(first, epochs=2, max_updates=stop, checkpoint=path, seed=9)
    log = fit(second, epochs=2, checkpoint=path, resume=True, seed=9)
    assert_same_bits(second.flat_params, whole.flat_params)
    assert log.column("valid_loss", "epoch")[-1] == expected.column("valid_loss", "epoch")[-1]


def test_a_state_of_more_than_ten_arrays_is_resumed_in_order(tmp_path):
    """Sorted as texts, state.10 would come before state.2."""
    whole, first, second = (model_of("lstm", hidden_size=[3, 4, 3, 4, 5, 3], num_layers=None) for _ in range(3))
    fit(whole, epochs=1)
    fit(first, epochs=1, max_updates=5, checkpoint=tmp_path / "c")
    fit(second, epochs=1, checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(second.flat_params, whole.flat_params)


@kinds
def test_training_does_not_depend_on_threads(kind):
    models = [model_of(kind) for _ in range(3)]
    for threads, model in enumerate(models, 1):
        fit(model, epochs=1, max_updates=12, threads=threads)
    for model in models[1:]:
        assert_same_bits(model.flat_params, models[0].flat_params)


# ---- using ---------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_evaluate_is_the_mean_of_streams_from_their_first_state(kind, batch_size):
    model = model_of(kind, "float64")
    ids = CORPUS.valid
    n = len(ids) - 1
    ends = np.cumsum([0] + [n // batch_size + (b < n % batch_size) for b in range(batch_size)])
    losses = [model.losses(ids[a:b, None], ids[a + 1 : b + 1, None])[0] for a, b in itertools.pairwise(ends)]
    result = model.evaluate(ids, batch_size=batch_size)
    assert result.count == n
    assert result.nats == pytest.approx(np.concatenate(losses).mean(), rel=1e-12)


@kinds
def test_streaming_gives_the_bits_of_the_whole_window_and_drops_nothing(rng, kind):
    model = model_of(kind)
    ids = rng.integers(V, size=30)
    logits, _ = model.forward(ids[:, None])
    stream = model.stream()
    for token, expected in zip(ids.tolist(), logits[:, 0], strict=True):
        assert_same_bits(stream.step(token), expected)
    undropped = model_of(kind, dropout=0.0, recurrent_dropout=0.0)
    assert_same_bits(undropped.forward(ids[:, None])[0], logits)


@kinds
def test_a_text_is_what_the_likeliest_token_after_each_makes_it(kind):
    model = model_of(kind)
    ids = model.vocab.encode("the ").tolist()
    for _ in range(15):
        logits, _ = model.forward(np.array(ids)[:, None])
        ids.append(int(logits[-1, 0].argmax()))
    assert model.generate("the ", 15, temperature=0) == model.vocab.decode(ids)[4:]


@kinds
def test_a_model_comes_back_whole_from_a_file_and_trains_on(tmp_path, kind):
    model = model_of(kind)
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    assert loaded.config() == model.config()
    assert repr(loaded) == repr(model)
    assert loaded.params.keys() == model.params.keys()
    for each in (model, loaded):
        fit(each, epochs=1, max_updates=3)
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.generate("the ", 9, seed=1) == model.generate("the ", 9, seed=1)
    double = loaded.astype("float64")
    np.testing.assert_array_equal(double.flat_params, loaded.flat_params)


# ---- how it starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [1.0, 0, -2.5])
def test_an_lstms_forget_gates_start_open(bias):
    model = crnn.LanguageModel(CORPUS.vocab, "lstm", 7, 2, forget_bias=bias)
    for layer in range(2):
        expected = np.repeat([0, bias, 0, 0], 7)
        np.testing.assert_array_equal(model.params[f"layer{layer}.b_h"], expected)
    gru = crnn.LanguageModel(CORPUS.vocab, "gru", 7, forget_bias=bias)
    assert not gru.params["layer0.b_h"].any()


def test_an_irnn_starts_as_the_identity_and_remembers():
    net = crnn.RNN(2, 5, cell="relu", recurrent_init="identity")
    np.testing.assert_array_equal(net.params["layer0.W_hh"], np.eye(5))
    assert not net.params["layer0.b_h"].any()
    x = np.zeros((9, 1, 2), np.float32)
    x[0] = 1
    y, _ = net(x)
    assert_same_bits(y, np.broadcast_to(np.maximum(net.params["layer0.W_xh"].sum(axis=0), 0), (9, 1, 5)).copy())


def test_a_tied_head_has_no_weights_of_its_own_and_must_fit():
    model = model_of("tie_weights")
    assert set(model.params) & {"W_hy"} == set()
    logits, _ = model.forward([[1, 2]])
    h, _ = model.net(np.array([[1, 2]]))
    expected = h.astype(float) @ model.params["embedding"].T.astype(float) + model.params["b_y"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"tie_weights: expected an embedding as large .* \(7\), got embedding_size=6"):
        crnn.LanguageModel(CORPUS.vocab, "lstm", [9, 7], tie_weights=True, embedding_size=6)
    for given in ({}, {"embedding_size": None}, {"embedding_size": 7}):
        tied = crnn.LanguageModel(CORPUS.vocab, "lstm", [9, 7], tie_weights=True, **given)
        assert tied.config()["embedding_size"] == 7
        tied.forward([[1, 2]])


# ---- states that are none of this model's --------------------------------------------------------------------------

IDS = np.zeros((2, 3), int)
STATE = np.zeros((2, 3, 7), np.float32)
PAIRS = {
    "one of two": (STATE, r"state: expected a pair \(h, c\), got ndarray"),
    "three": ((STATE,) * 3, r"state: expected a pair \(h, c\), got tuple"),
    "of another batch": ((STATE, STATE[:, :2]), r"state\[1\]: expected shape \(2, 3, 7\), got \(2, 2, 7\)"),
    "of one layer": ((STATE[:1], STATE), r"state\[0\]: expected shape \(2, 3, 7\), got \(1, 3, 7\)"),
    "too large for float32": (
        (STATE, np.full(STATE.shape, 1e300)),
        r"state\[1\]: expected numbers that float32 can hold, got 1e\+300",
    ),
    "a list of layers": (([STATE[0]], [STATE[0]]), r"state\[0\]: expected shape \(2, 3, 7\)"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_state_that_does_not_fit_is_named(case):
    state, message = PAIRS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        model_of("lstm").losses(IDS, IDS, state)


def test_a_state_in_double_is_converted():
    model, values = model_of("lstm"), np.random.default_rng(0).normal(size=STATE.shape)
    expected = model.losses(IDS, IDS, (STATE, values.astype(np.float32)))[0]
    assert_same_bits(model.losses(IDS, IDS, (STATE, values))[0], expected)


def test_states_of_layers_of_other_sizes_come_in_lists():
    model = model_of("lstm of two sizes")
    _, (h, c) = model.forward(IDS)
    model.losses(IDS, IDS, (h, tuple(c)))
    for bad, message in (
        ((h, c[0]), r"state\[1\]: expected a list of 2 arrays, got ndarray"),
        ((h[::-1], c), r"state\[0\]\[0\]: expected shape \(3, 9\), got \(3, 7\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.losses(IDS, IDS, bad)
