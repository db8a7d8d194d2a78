# SPDX-License-Identifier: MIT
"""Learners: a network or a language model that learns while it reads equals forward, backward and update by hand."""

import copy
import threading

import numpy as np
import pytest
from model_tools import stir, text

import crnn
from crnn.nn.cells import CELLS
from crnn.nn.state import state_arrays

T, B, D, H = 5, 3, 2, 7
CORPUS = crnn.TextCorpus.from_text(text(1500))
IDS = CORPUS.vocab.encode(text(1500))


def language(seed=1, **options):
    model = crnn.LanguageModel(CORPUS.vocab, **{"hidden_size": 9, "seed": seed} | options)
    stir(model.flat_params)
    return model


def same(a, b):
    return np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype


def train_by_hand(model, ids, bptt, optimizer, clip_norm):
    """The losses (N-1, B) of ids (N, B), window by window; full windows are learnt after their losses are known."""
    state, found = None, []
    for start in range(0, len(ids) - 1, bptt):
        x, y = ids[start : start + bptt], ids[start + 1 : start + bptt + 1]
        x = x[: len(y)]
        found.append(model.losses(x, y, state)[0])
        if len(x) == bptt:
            model.flat_grads[:] = 0
            _, _, after = model.loss_and_gradients(x, y, state)
            state, norm = copy.deepcopy(after), crnn.optim.global_norm(model.flat_grads)
            optimizer.update(model.flat_params, model.flat_grads, factor=min(1.0, clip_norm / norm))
    return np.concatenate(found)


@pytest.mark.parametrize("options", [{}, {"dense_layers": True}], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_updates_of_a_network_are_those_of_backward_for_the_window_to_the_bit(cell, rng, dtype, options):
    net = crnn.RNN(D, [4, H], cell=cell, seed=3, dtype=dtype.name, trainable_initial_state=True, **options)
    by_hand, sgd, state = net.astype(dtype.name), crnn.optim.SGD(lr=0.05), None
    learner = net.learner(optimizer="sgd", lr=0.05, bptt=T, clip_norm=None, streams=B)
    for _ in range(4):
        x, dy = (rng.normal(size=(T, B, size)).astype(dtype) for size in (D, net.output_size))
        found = []
        for x_t, dy_t in zip(x, dy, strict=True):
            found.append(learner.step(x_t))
            assert learner.learn(dy_t) is None
        y, after, tape = by_hand.forward(x, state)
        assert same(np.stack(found), y)
        by_hand.flat_grads[:] = 0
        by_hand.backward(tape, dy)
        state = copy.deepcopy(after)
        sgd.update(by_hand.flat_params, by_hand.flat_grads)
        assert same(learner.model.flat_params, by_hand.flat_params)
        assert all(map(same, state_arrays(learner.state), state_arrays(state)))
    assert (learner.steps, learner.updates, learner.skipped) == (4 * T, 4, 0)


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embedding_size": 5, "num_layers": 2},
        {"embedding_size": 40, "cell": "gru"},
        {"tie_weights": True},
        {"trainable_initial_state": True, "dropout": 0.3, "weight_dropout": 0.2},
        {"num_layers": 3, "dense_layers": True, "dropout": 0.2, "embedding_size": 40},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_surprisals_and_weights_are_those_of_windows_learnt_by_hand_to_the_bit(options, streams):
    model = language(**options)
    by_hand, ids = model.astype("float32"), IDS[: 200 * streams].reshape(streams, -1).T
    expected = train_by_hand(by_hand, ids, 8, crnn.optim.Adam(lr=0.01), 0.5)
    learner = model.learner(lr=0.01, bptt=8, clip_norm=0.5, streams=streams)
    pieces = np.split(ids if streams > 1 else ids[:, 0], [1, 2, 4, 9, 40, 41, 60, 64, 130])
    learner.feed(pieces[0])
    found = np.concatenate([learner.surprisal(piece) for piece in pieces[1:]])
    assert same(found, expected if streams > 1 else expected[:, 0])
    assert same(learner.model.flat_params, by_hand.flat_params)
    assert learner.updates == 199 // 8


def test_a_window_of_the_whole_text_is_one_update_by_its_whole_gradient():
    model = language()
    n, by_hand = 120, model.astype("float32")
    expected = train_by_hand(by_hand, IDS[: n + 1, None], n, crnn.optim.SGD(lr=0.3), np.inf)
    learner = model.learner(optimizer="sgd(lr=0.3)", bptt=n, clip_norm=None).feed(IDS[:1])
    assert same(learner.surprisal(IDS[1 : n + 1]), expected[:, 0])
    assert learner.updates == 1
    assert same(learner.model.flat_params, by_hand.flat_params)


def test_text_in_any_pieces_by_feed_surprisal_step_predict_and_learn_gives_the_same_bits():
    model, piece = language(), text(300, seed=4)
    ids = CORPUS.vocab.encode(piece)
    whole = model.learner(bptt=16, lr=0.01).feed(piece)
    by_step = model.learner(bptt=16, lr=0.01)
    logits = [by_step.step(int(id)) for id in ids][-1]
    by_halves = model.learner(bptt=16, lr=0.01)
    for id, following in zip(ids, [*ids[1:], None], strict=True):
        halves = by_halves.predict(id)
        if following is not None:
            assert by_halves.learn(following) > 0
    assert same(logits, halves)
    for other in (by_step, by_halves):
        assert same(other.model.flat_params, whole.model.flat_params)
        assert same(other.next_probabilities(), whole.next_probabilities())


def test_learning_a_text_predicts_it_better_and_leaves_the_model_as_it_was():
    model = language()
    before, piece = model.to_bytes(), text(1400, seed=5)
    learner = model.learner(lr=0.02, bptt=16).feed(piece[:200])
    learner.feed(piece[200:])
    assert model.to_bytes() == before
    static = model.losses(IDS[:-1, None], IDS[1:, None])[0].mean()
    assert learner.model.losses(IDS[:-1, None], IDS[1:, None])[0].mean() < 0.8 * static


def test_a_frozen_learner_is_a_stream_to_the_bit_and_its_steps_are_not_learnt_later():
    learner = language().learner(bptt=8).feed(text(100))
    learner.freeze()
    stream, weights = learner.snapshot(), learner.model.flat_params
    piece = text(150, seed=7)
    assert same(learner.surprisal(piece), stream.surprisal(piece))
    assert same(learner.next_probabilities(), stream.next_probabilities())
    assert learner.frozen
    learner.unfreeze()
    assert same(learner.surprisal("the "), stream.surprisal("the "))
    assert same(learner.model.flat_params, weights)
    learner.feed(piece)
    assert not same(learner.model.flat_params, weights)


def test_a_snapshot_is_not_changed_by_later_learning():
    learner = language().learner(bptt=4, lr=0.1).feed(text(50))
    snapshot, twin = learner.snapshot(), learner.snapshot()
    learner.feed(text(80, seed=2))
    assert same(snapshot.surprisal("other word"), twin.surprisal("other word"))
    assert isinstance(snapshot, crnn.TextStream)
    assert learner.generate(5, seed=1) == learner.snapshot().generate(5, seed=1)
    assert "".join(learner.iter_generate(5, seed=1)) == learner.generate(5, seed=1)
    assert learner.top_tokens(2) == learner.snapshot().top_tokens(2)


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_loop_in_pytorch_agrees(torch, rng, cell):
    """predict, learn every 6 steps, state detached: with PyTorch's cells, loss, clipping and Adam."""
    net = crnn.RNN(D, H, cell=cell, seed=2)
    stir(net.flat_params)
    kinds = {"tanh": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}
    twin = kinds[cell](D, H)
    with torch.no_grad():
        for ours, theirs in (("W_xh", "weight_ih"), ("W_hh", "weight_hh")):
            getattr(twin, theirs).copy_(torch.from_numpy(net.params["layer0." + ours].T))
        twin.bias_ih.copy_(torch.from_numpy(net.params["layer0.b_h"]))
        twin.bias_hh.zero_()
        if cell == "gru":
            twin.bias_hh[2 * H :] = torch.from_numpy(net.params["layer0.b_hn"])
    weights = [twin.weight_ih, twin.weight_hh, twin.bias_ih]  # one bias of the two, as crnn has
    optimizer = torch.optim.Adam(weights, lr=1e-3, eps=1e-4)
    optimizer_of_ours = crnn.optim.Adam(lr=1e-3, eps=1e-4)  # where a gradient is nearly 0, Adam enlarges its rounding
    learner = net.learner(optimizer=optimizer_of_ours, bptt=6, clip_norm=0.5)
    if cell == "gru":  # b_hn is in the other bias
        weights.append(twin.bias_hh)
        optimizer.add_param_group({"params": [twin.bias_hh]})
        mask = torch.cat([torch.zeros(2 * H), torch.ones(H)])
        twin.bias_hh.register_hook(lambda gradient: gradient * mask)
    state = (torch.zeros(1, H), torch.zeros(1, H)) if cell == "lstm" else torch.zeros(1, H)
    total = 0
    for step in range(60):
        x, target = rng.normal(size=D).astype(np.float32), rng.normal(size=H).astype(np.float32)
        y = learner.step(x)
        learner.learn(y - target)
        state = twin(torch.from_numpy(x)[None], state)
        h = state[0] if cell == "lstm" else state
        assert np.abs(h.detach().numpy()[0] - y).max() < 2e-6
        total = total + ((h - torch.from_numpy(target)) ** 2).sum() / 2
        if step % 6 == 5:
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(weights, 0.5)
            optimizer.step()
            total = 0
            state = tuple(part.detach() for part in state) if cell == "lstm" else state.detach()
    expected = twin.weight_hh.detach().numpy().T
    assert np.abs(learner.model.params["layer0.W_hh"] - expected).max() < 2e-6
    assert np.abs(net.params["layer0.W_hh"] - expected).max() > 1e-3


def test_threads_change_no_bit():
    ids = IDS[:1200].reshape(4, -1).T
    learners = [language().learner(streams=4, bptt=7, threads=threads) for threads in (1, 2, 3)]
    found = [learner.feed(ids[:1]).surprisal(ids[1:]) for learner in learners]
    for learner, nats in zip(learners[1:], found[1:], strict=True):
        assert same(nats, found[0])
        assert same(learner.model.flat_params, learners[0].model.flat_params)


def test_the_weights_stay_within_max_change_of_those_of_the_beginning():
    model = language()
    start = model.flat_params.copy()
    learner = model.learner(lr=0.1, bptt=4, max_change=0.05).feed(text(400))
    change = np.linalg.norm(learner.model.flat_params - start) / np.linalg.norm(start)
    assert 0.04 < change <= 0.05 * (1 + 1e-5)


def test_an_update_with_a_gradient_that_is_not_finite_is_skipped_and_counted():
    learner = crnn.RNN(D, H, seed=0).learner(bptt=2, clip_norm=None)
    weights = learner.model.flat_params
    for _ in range(2):
        learner.step(np.ones(D))
        learner.learn(np.full(H, 3e38))
    assert (learner.updates, learner.skipped) == (0, 1)
    assert same(learner.model.flat_params, weights)
    for _ in range(2):
        learner.step(np.ones(D))
        learner.learn(np.ones(H))
    assert (learner.updates, learner.skipped) == (1, 1)


def test_a_call_while_another_thread_uses_the_learner_is_refused():
    learner = language().learner(bptt=4)
    started, release = threading.Event(), threading.Event()

    def hold():
        with learner._exclusive:
            started.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait(10)
    try:
        with pytest.raises(RuntimeError, match="another thread"):
            learner.feed("the")
        with pytest.raises(RuntimeError, match="another thread"):
            learner.snapshot()
    finally:
        release.set()
        thread.join()
    learner.feed("the")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bptt": 0}, "bptt: expected"),
        ({"bptt": 4, "every": 5}, "every: expected at most bptt=4, got 5"),
        ({"every": 0}, "every: expected"),
        ({"streams": 0}, "streams: expected"),
        ({"threads": -1}, "threads: expected"),
        ({"optimizer": "sdg"}, "optimizer: expected"),
        ({"lr": -1.0}, "lr: expected"),
        ({"decay": 1.5}, "decay: expected a number from 0 to 1"),
        ({"max_change": 0}, "max_change: expected"),
        ({"clip_norm": "a"}, "clip_norm: expected"),
        ({"optimizer": crnn.optim.Adam(), "lr": 0.1}, "lr: expected None"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        language().learner(**options)


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(TypeError, match=r"learning_rate: expected lr, such as lr=1e-3"):
        language().learner(learning_rate=0.1)
    with pytest.raises(TypeError, match=r"bttp: there is no such option; did you mean bptt\?"):
        language().learner(bttp=3)


def test_an_optimizer_is_copied_and_one_that_has_been_used_is_refused():
    optimizer = crnn.optim.Adam(lr=0.01)
    learners = [language().learner(optimizer=optimizer, bptt=4).feed(text(50)) for _ in range(2)]
    assert same(learners[0].model.flat_params, learners[1].model.flat_params)
    assert optimizer.updates == 0
    optimizer.update(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"optimizer: expected one that has done no updates"):
        language().learner(optimizer=optimizer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crnn.RNN(D, H, bidirectional=True), "bidirectional=True"),
        (lambda: crnn.RNN(D, H).quantize(), "inference"),
        (lambda: language().quantize(), "inference"),
        (
            lambda: crnn.LanguageModel(
                crnn.TextCorpus.from_text(text(3000), unit="word", order="frequency").vocab, adaptive_softmax=[9]
            ),
            "adaptive_softmax",
        ),
        (lambda: crnn.SequenceToSequence(5, 5), "SequenceToSequence"),
    ],
)
def test_models_that_cannot_learn_from_a_stream_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().learner()


def test_wrong_inputs_and_targets_are_refused_and_change_nothing(rng):
    learner, twin = (crnn.RNN(D, H, seed=0).learner(bptt=3) for _ in range(2))
    for x in ([1.0], np.ones((1, D)), [np.nan, 1.0], [np.inf, 1.0], "ab", [1e60, 1.0], D):
        with pytest.raises((TypeError, ValueError), match="x: expected"):
            learner.step(x)
    with pytest.raises(ValueError, match="learn: expected a call of predict"):
        learner.learn(np.ones(H))
    for t in range(7):
        x, dy = rng.normal(size=(2, D)), rng.normal(size=H)
        for each in (learner, twin):
            each.step(x[0])
        for wrong in (np.ones(H + 1), [np.nan] * H, "a", np.ones((1, H))):
            with pytest.raises((TypeError, ValueError), match="dy: expected"):
                learner.learn(wrong)
        for each in (learner, twin):
            each.learn(dy)
        with pytest.raises(ValueError, match="learn: expected a call of predict"):
            learner.learn(dy)
        with pytest.raises(ValueError, match="x: expected"):
            learner.step(np.ones(t + 3))
    assert same(learner.model.flat_params, twin.model.flat_params)


def test_wrong_texts_and_ids_are_refused_and_nothing_is_read():
    learner, twin = (language().learner(bptt=3).feed("the ") for _ in range(2))
    V = len(CORPUS.vocab)
    for call, wrong in (
        (learner.feed, "the \u20ac"), (learner.feed, [0, V]), (learner.feed, [[0]]), (learner.feed, [0.5]),
        (learner.step, V), (learner.step, -1), (learner.step, [0]), (learner.step, 1.0), (learner.step, "a"),
        (learner.surprisal, [1, 2**40]), (learner.predict, 2**40),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            call(wrong)
    learner.feed("")
    assert len(learner.surprisal([])) == 0
    assert same(learner.surprisal("other"), twin.surprisal("other"))
    with pytest.raises(crnn.TextError, match="feed a text first"):
        language().learner().surprisal("the")
    with pytest.raises(crnn.TextError, match="feed a text first"):
        language().learner().generate()
    with pytest.raises(ValueError, match="one stream"):
        language().learner(streams=2).generate()
    with pytest.raises(TypeError, match="one column for each stream"):
        language().learner(streams=2).feed("the")
    assert "bptt=3" in repr(learner)
    assert learner.max_change is None
    with pytest.raises(AttributeError, match="no attribute 'bppt'"):
        learner.bppt  # noqa: B018


def test_one_hot_ids_are_rows_of_a_network(rng):
    learner, twin = (crnn.RNN(4, H, seed=0).learner(bptt=3) for _ in range(2))
    for id in (0, 3, np.int64(2), 1):
        assert same(learner.step(id), twin.step(np.eye(4)[int(id)]))
    embedded = crnn.RNN(4, H, embedding_size=3, seed=0).learner(bptt=3)
    assert same(embedded.step(2), crnn.RNN(4, H, embedding_size=3, seed=0).stream().step(2))
    with pytest.raises(TypeError, match="x: expected an integer id"):
        embedded.step(np.eye(4)[2])


def test_options_and_frozen_cannot_be_set():
    learner = language().learner(bptt=3)
    for name in ("lr", "bptt", "every", "optimizer", "threads"):
        with pytest.raises(AttributeError, match=f"{name}: expected an option of learner"):
            setattr(learner, name, 2)
    with pytest.raises(AttributeError, match="frozen"):
        learner.frozen = True
    assert (learner.bptt, learner.frozen) == (3, False)


def test_the_rate_of_a_learners_optimizer_counts_for_the_next_update_and_stays_in_files(tmp_path):
    given = crnn.optim.SGD(0.1)
    learner = language().learner(optimizer=given, bptt=3)
    learner.optimizer.lr = 0.0
    before = learner.model.flat_params
    assert same(learner.feed(text(50)).model.flat_params, before)
    learner.save(tmp_path / "l")
    assert (crnn.Learner.load(tmp_path / "l").optimizer.lr, given.lr) == (0.0, 0.1)
    learner.optimizer.lr = 0.1
    assert not same(learner.feed(text(50)).model.flat_params, before)
