# SPDX-License-Identifier: MIT
"""The windows of learners: updates more often than windows, resets of some streams, missing targets, many streams."""

import copy
import tracemalloc
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from learner_tools import PACKAGE, interrupted_at
from model_tools import stir, text

import crnn
from crnn.nn.cells import CELLS
from crnn.nn.state import state_arrays

D, H = 2, 5
CORPUS = crnn.TextCorpus.from_text(text(1500))
IDS = CORPUS.vocab.encode(text(1500))


def language(**options):
    model = crnn.LanguageModel(CORPUS.vocab, **{"hidden_size": 9, "seed": 1} | options)
    stir(model.flat_params)
    return model


def same(a, b):
    return np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype


@pytest.mark.parametrize(("bptt", "every"), [(6, 1), (6, 4), (7, 3), (5, 5), (1, 1), (8, 2)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_every_update_is_by_the_last_steps_from_the_state_that_was_computed_when_they_were_read(cell, bptt, every):
    model, B, n = language(cell=cell, num_layers=2, hidden_size=[7, 9]), 2, 40
    ids = IDS[: B * (n + 1)].reshape(B, -1).T
    learner = model.learner(optimizer="sgd", lr=0.2, bptt=bptt, every=every, clip_norm=None, streams=B)
    learner.feed(ids[:1])
    found = learner.surprisal(ids[1:])

    by_hand, sgd, states, expected = model.astype("float32"), crnn.optim.SGD(lr=0.2), [None], []
    for t in range(n):
        losses, after = by_hand.losses(ids[t : t + 1], ids[t + 1 : t + 2], states[t])
        expected.append(losses)
        states.append(copy.deepcopy(after))
        if (t + 1) % every == 0:
            first = max(0, t + 1 - bptt)
            by_hand.flat_grads[:] = 0
            by_hand.loss_and_gradients(ids[first : t + 1], ids[first + 1 : t + 2], states[first])
            sgd.update(by_hand.flat_params, by_hand.flat_grads)
    assert same(found, np.concatenate(expected))
    assert same(learner.model.flat_params, by_hand.flat_params)
    assert learner.updates == n // every


def window_by_hand(net, x, dy, starts, before):
    """Add the gradient of a window x (T, B, D) with the gradients dy at its outputs to the network's.

    ``starts`` (T, B): before which steps streams are reset. ``before``: the state before the window. The pieces between
    resets are run one by one; the gradient at the last state of each is that at the first of the next one.
    """
    bounds = [0, *(t for t in range(1, len(starts)) if starts[t].any()), len(starts)]
    initial = [net.params.get(f"layer{layer}.{name}0") for name in ("h", "c")[: len(before)] for layer in range(2)]
    state, tapes = before, []
    for start, stop in pairwise(bounds):
        arrays = [array.copy() for part in state for array in part]
        for array, values in zip(arrays, initial, strict=True):
            array[starts[start]] = 0 if values is None else values
        parts = [arrays[:2], arrays[2:]][: len(before)]
        _, after, tape = net.forward(x[start:stop], tuple(parts) if len(parts) > 1 else parts[0])
        tapes.append(tape)
        after = after if len(parts) > 1 else (after,)
        state = copy.deepcopy(after)
    later = None
    for start, stop, tape in reversed(list(zip(bounds[:-1], bounds[1:], tapes, strict=True))):
        _, first = net.backward(tape, dy[start:stop], later)
        first = copy.deepcopy(first if len(before) > 1 else (first,))
        for index, array in enumerate(array for part in first for array in part):
            name = f"layer{index % 2}.{'hc'[index // 2]}0"
            if name in net.grads:
                net.grads[name][:] += array[starts[start]].sum(axis=0)
            array[starts[start]] = 0
        later = first if len(before) > 1 else first[0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("every", [6, 4])
def test_no_gradient_passes_a_reset_and_others_are_not_touched(cell, trainable, every, rng):
    """In float64: the order of the sums of the initial state's gradient is not that of the learner."""
    bptt, B, n = 6, 3, 48
    net = crnn.RNN(D, [4, H], cell=cell, seed=3, dtype="float64", trainable_initial_state=trainable)
    stir(net.flat_params)
    learner = net.learner(optimizer="sgd", lr=0.02, bptt=bptt, every=every, clip_norm=None, streams=B)
    by_hand, sgd = net.astype("float64"), crnn.optim.SGD(lr=0.02)
    starts = rng.random((n, B)) < 0.1
    starts[6], starts[0], starts[11], starts[20] = False, True, [False, True, False], True
    x, dy = rng.normal(size=(n, B, D)), rng.normal(size=(n, B, H))
    has_c = CELLS[cell].has_c
    zero = [np.zeros((B, 4)), np.zeros((B, H))]
    states = [(zero, zero) if has_c else (zero,)]
    for t in range(n):
        if t:
            learner.reset(np.flatnonzero(starts[t]) if t % 2 else starts[t])
        y = learner.step(x[t])
        learner.learn(dy[t])
        arrays = [array.copy() for part in states[t] for array in part]
        for index, array in enumerate(arrays):
            initial = by_hand.params.get(f"layer{index % 2}.{'hc'[index // 2]}0")
            array[starts[t]] = 0 if initial is None else initial
        before = (arrays[:2], arrays[2:]) if has_c else arrays
        expected, after, _ = by_hand.forward(x[t : t + 1], before)
        assert np.abs(y - expected[0]).max() < 1e-12
        states.append(copy.deepcopy(after if has_c else (after,)))
        if (t + 1) % every == 0:
            first = max(0, t + 1 - bptt)
            window = slice(first, t + 1)
            by_hand.flat_grads[:] = 0
            window_by_hand(by_hand, x[window], dy[window], starts[window], states[first])
            sgd.update(by_hand.flat_params, by_hand.flat_grads)
            assert np.abs(learner.model.flat_params - by_hand.flat_params).max() < 1e-11
    got, wanted = state_arrays(learner.state), [array for part in states[-1] for array in part]
    assert max(np.abs(a - b).max() for a, b in zip(got, wanted, strict=True)) < 1e-11


@pytest.mark.parametrize("every", [4, 1, 3])
def test_the_equations_in_numpy_agree_in_float64(every, rng):
    """h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h), the loss |h_t - y_t|^2 / 2; an update by the last 4 steps."""
    net, bptt, lr = crnn.RNN(D, H, seed=1, dtype="float64"), 4, 0.1
    stir(net.flat_params)
    learner = net.learner(optimizer="sgd", lr=lr, bptt=bptt, every=every, clip_norm=None)
    W_x, W_h, b = (net.params[f"layer0.{name}"].copy() for name in ("W_xh", "W_hh", "b_h"))
    X, Y, states, given = rng.normal(size=(25, D)), rng.normal(size=(25, H)) / 2, [np.zeros(H)], []
    for t in range(25):
        h = np.tanh(X[t] @ W_x + states[t] @ W_h + b)
        assert np.abs(learner.step(X[t]) - h).max() < 1e-13
        given.append(h - Y[t])  # a network is given gradients: they stay those at the outputs of then
        learner.learn(given[t])
        states.append(h)
        if (t + 1) % every:
            continue
        steps = range(max(0, t + 1 - bptt), t + 1)
        again = [states[steps[0]]]
        for s in steps:
            again.append(np.tanh(X[s] @ W_x + again[-1] @ W_h + b))
        dW_x, dW_h, db, dh_next = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros(H), np.zeros(H)
        for i, s in reversed(list(enumerate(steps))):
            da = (given[s] + dh_next) * (1 - again[i + 1] ** 2)
            dW_x, dW_h, db = dW_x + np.outer(X[s], da), dW_h + np.outer(again[i], da), db + da
            dh_next = W_h @ da
        W_x, W_h, b = W_x - lr * dW_x, W_h - lr * dW_h, b - lr * db
    for name, expected in (("W_xh", W_x), ("W_hh", W_h), ("b_h", b)):
        assert np.abs(learner.model.params[f"layer0.{name}"] - expected).max() < 1e-12


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("bptt", [6, 8])
@pytest.mark.parametrize("streams", [1, 3])
def test_a_window_between_whose_resets_are_as_many_steps_learns_what_a_batch_of_sequences_does(
    cell, trainable, bptt, streams, rng
):
    net = crnn.RNN(D, [4, H], cell=cell, seed=3, dtype="float64", trainable_initial_state=trainable)
    stir(net.flat_params)
    x, dy = rng.normal(size=(6, streams, D)), rng.normal(size=(6, streams, H))
    learner = net.learner(optimizer="sgd", lr=1.0, bptt=bptt, every=6, clip_norm=None, streams=streams)
    for t in range(6):
        if t % 2 == 0:
            learner.reset()
        learner.predict(x[t] if streams > 1 else x[t, 0])
        learner.learn(dy[t] if streams > 1 else dy[t, 0])
    assert learner.updates == 1
    _, _, tape = net.forward(np.concatenate([x[t : t + 2] for t in (0, 2, 4)], axis=1))
    net.backward(tape, np.concatenate([dy[t : t + 2] for t in (0, 2, 4)], axis=1))
    change = net.flat_params - learner.model.flat_params
    assert np.abs(change - net.flat_grads).max() < 1e-11
    assert np.abs(net.flat_grads).max() > 0.1


@pytest.mark.parametrize("every", [1, 10])
def test_resets_of_all_streams_need_at_most_a_tape_for_each_length(every, rng):
    learner = crnn.SequenceRegressor(2, 1, hidden_size=4, seed=0).learner(lr=1e-2, bptt=10, every=every)
    made, lengths = learner._window._again._make, []
    learner._window._again._make = lambda steps: lengths.append(steps) or made(steps)
    for _ in range(500):
        if rng.random() < 0.5:
            learner.reset()
        learner.predict(rng.normal(size=2))
        learner.learn(np.float32(rng.normal()))
    assert sorted(lengths) == sorted(set(lengths))


def test_a_target_of_any_type_of_numbers_is_the_same_number(rng):
    xs, losses = rng.normal(size=(20, 2)), []
    for kind in (float, np.float32, np.float64, lambda y: np.array([y]), lambda y: np.array(y, np.float32)):
        learner = crnn.SequenceRegressor(2, 1, hidden_size=4, seed=0).learner(lr=1e-2, bptt=5, every=1)
        losses.append([(learner.predict(x), learner.learn(kind(0.25)))[1] for x in xs])
        learner.predict(xs[0])
        with pytest.raises(ValueError, match="y: expected"):
            learner.learn(kind(float("inf")))
    assert all(each == losses[0] for each in losses)


def test_a_reset_of_one_stream_of_text_has_no_target_and_no_surprisal():
    learner, ids = language().learner(streams=2, bptt=6), IDS[:80].reshape(2, -1).T
    learner.feed(ids[:9])
    learner.reset([1])
    nats = learner.surprisal(ids[9:20])
    assert np.isnan(nats[0, 1])
    assert np.isfinite(nats).sum() == nats.size - 1
    alone = language().learner(bptt=100).feed(ids[9, 1:2])
    learner.freeze()
    state = learner.state
    learner.reset()
    assert not any(array.any() for array in state_arrays(learner.state))
    assert any(array.any() for array in state_arrays(state))
    with pytest.raises(crnn.TextError):
        learner.next_probabilities()
    assert alone.steps == 1


@pytest.mark.parametrize("wrong", [[3], [-1], [0.5], "a", [True, False], 5])
def test_resets_of_streams_that_do_not_exist_are_refused(wrong):
    learner = language().learner(streams=3, bptt=4)
    with pytest.raises((TypeError, ValueError), match="streams: expected"):
        learner.reset(wrong)


@pytest.mark.parametrize("every", [4, 1])
def test_streams_in_another_order_give_the_same_bits_until_the_first_update_and_the_same_up_to_rounding_after(every):
    ids, order = IDS[:400].reshape(4, -1).T, [2, 0, 3, 1]
    found = []
    for columns in ([0, 1, 2, 3], order):
        learner = language().learner(streams=4, bptt=4, every=every, lr=0.01)
        learner.feed(ids[:1, columns])
        found.append(learner.surprisal(ids[1:, columns]))
    assert same(found[0][: every, order], found[1][:every])
    assert np.allclose(found[0][:, order], found[1], rtol=1e-3)


@pytest.mark.parametrize("every", [5, 2])
def test_one_of_several_streams_without_targets_learns_what_one_alone_does(every):
    net = crnn.RNN(D, H, cell="gru", seed=0, dtype="float64")
    two, one = (net.learner(optimizer="sgd", bptt=5, every=every, streams=B) for B in (2, 1))
    for x in np.random.default_rng(0).normal(size=(23, D)):
        y = two.step(np.stack([x, x * 2]))
        assert np.abs(y[0] - one.step(x)).max() < 1e-12
        two.learn(np.stack([np.ones(H), np.zeros(H)]))
        one.learn(np.ones(H))
    assert np.abs(two.model.flat_params - one.model.flat_params).max() < 1e-12


@pytest.mark.parametrize("every", [6, 2])
def test_steps_without_a_target_have_no_loss_and_windows_without_one_no_update(every):
    model = crnn.SequenceTagger(D, 3, hidden_size=H, seed=0)
    learner = model.learner(bptt=6, every=every, optimizer="sgd")
    x = np.random.default_rng(0).normal(size=(24, D))
    for t in range(12):  # no target at all
        learner.predict(x[t])
        if t % 2:
            assert learner.learn(None if t % 4 == 1 else -1) == 0
    assert (learner.steps, learner.updates) == (12, 0)
    assert same(learner.model.flat_params, model.flat_params)
    learner.predict(x[12])
    assert learner.learn(2) > 0
    for t in range(13, 19):
        learner.predict(x[t])
    assert learner.updates == (1 if every == 6 else 3)


@pytest.mark.parametrize("loss", ["mse", "quantile", "huber"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("pooling", [None, "last"])
def test_a_frozen_regressor_is_a_stream_to_the_bit_in_the_units_of_the_targets(loss, scale, pooling, rng):
    X = [rng.normal(size=(9, D)) * 3 + 100 for _ in range(8)]
    Y = [np.stack([x.sum(axis=1), x[:, 0] * 1e3], axis=1) for x in X]
    model = crnn.SequenceRegressor(D, 2, hidden_size=H, loss=loss, scale=scale, pooling=pooling, seed=0)
    model.fit(X, Y if pooling is None else [y[-1] for y in Y], epochs=1, valid=None, progress=False)
    one, several = model.learner(bptt=4), model.learner(bptt=4, streams=8)
    one.freeze()
    several.freeze()
    stream, batch = model.stream(), model.stream_batch(8)
    for t in range(9):
        assert same(one.predict(X[0][t]), stream.step(X[0][t]))
        x, y = np.stack([each[t] for each in X]), np.stack([each[t] for each in Y])
        assert same(several.predict(x), batch.step(x))
        losses = several.learn(y)
        assert losses.shape == (8,)
        assert one.learn(y[0]) == losses[0] > 0
    assert same(one.snapshot().step(X[0][0]), stream.step(X[0][0]))
    assert same(several.snapshot().step(x), batch.step(x))


@pytest.mark.parametrize("options", [{"num_classes": 3}, {"classes": ["a", "b", "c"], "class_weight": [1, 2, 5]}])
@pytest.mark.parametrize("kind", ["SequenceTagger", "SequenceClassifier"])
def test_classes_are_learnt_as_by_the_gradients_of_the_model_to_the_bit(kind, options, rng):
    pooled = {"pooling": "last"} if kind == "SequenceClassifier" else {}
    model = getattr(crnn, kind)(D, hidden_size=H, seed=0, scale=False, **options, **pooled)
    tagger = crnn.SequenceTagger(D, hidden_size=H, seed=0, scale=False, **options)
    tagger.flat_params[:] = model.flat_params
    sgd, learner = crnn.optim.SGD(lr=0.1), model.learner(optimizer="sgd", lr=0.1, bptt=6, clip_norm=None)
    x, y = rng.normal(size=(6, D)).astype(np.float32), rng.integers(0, 3, 6)
    names = options.get("classes", range(3))
    losses = []
    for t in range(6):
        logits = learner.predict(x[t])
        losses.append(learner.learn(names[y[t]]))
    assert learner.labels(logits) in list(names)
    assert abs(learner.probabilities(logits).sum() - 1) < 1e-6
    batch, wanted = tagger.window([x], [[names[each] for each in y]])
    total, _, _ = tagger.loss_and_gradients(batch, wanted)
    assert total == pytest.approx(sum(losses), rel=1e-6)
    sgd.update(tagger.flat_params, tagger.flat_grads)
    assert same(learner.model.flat_params, tagger.flat_params)


def test_independent_classes_and_classes_of_several_streams(rng):
    model = crnn.SequenceTagger(D, 3, hidden_size=H, multilabel=True, seed=0)
    learner = model.learner(bptt=4, streams=2, lr=0.05)
    for t in range(400):
        x = rng.normal(size=(2, D))
        logits = learner.predict(x)
        losses = learner.learn([[x[0, 0] > 0, x[0, 1] > 0, np.nan], None if t % 5 else [x[1, 0] > 0, np.nan, 1]])
        assert losses.shape == (2,)
        assert t % 5 == 0 or losses[1] == 0
    assert learner.labels(logits).tolist() == (learner.probabilities(logits) > 0.5).tolist()
    assert (learner.labels(logits)[:, 0] == (x[:, 0] > 0)).all()
    named = crnn.SequenceTagger(D, classes=["up", "down"], hidden_size=H).learner(streams=2, bptt=3)
    named.predict(np.ones((2, D)))
    for wrong in (["up"], ["up", "left"], "up", 3, [["up", "up"], ["down", "up"]], [2, 3]):
        with pytest.raises((TypeError, ValueError)):
            named.learn(wrong)
    assert named.learn(["up", None])[1] == 0
    for wrong in (np.ones(3), np.ones((2, 2, 2)), "a"):
        with pytest.raises((TypeError, ValueError), match="logits"):
            named.labels(wrong)


def test_wrong_values_are_refused():
    learner = crnn.SequenceRegressor(1, 2, hidden_size=H).learner(bptt=3)
    learner.predict([1.0])
    for wrong in ("a", [1.0], [np.inf, 0.0], [True, False], [1e300, 0], np.ones((1, 2))):
        with pytest.raises((TypeError, ValueError), match="y: expected"):
            learner.learn(wrong)
    assert learner.learn([1.0, np.nan]) > 0
    for wrong in ([np.nan], [1e300], 1.5, [1.0, 2.0], "a", [None]):
        with pytest.raises((TypeError, ValueError), match="x: expected"):
            learner.predict(wrong)


def test_texts_and_embedded_ids_as_inputs_of_sequence_models():
    tagger = crnn.SequenceTagger(num_classes=2, vocab=crnn.Vocab.from_text("abc"), hidden_size=H, seed=0)
    learner, stream = tagger.learner(bptt=3), tagger.stream()
    for id in (0, 2, 1):
        assert same(learner.predict(id), stream.step(id))
        learner.learn(id % 2)
    assert learner.updates == 1
    for scale in (True, False):
        for make in (crnn.SequenceRegressor, crnn.SequenceTagger):
            embedded = make(4, 1, embedding_size=3, hidden_size=H, seed=0, scale=scale)
            assert same(embedded.learner().predict(3), embedded.stream().step(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crnn.SequenceClassifier(D, 2, pooling="mean"), "pooling None or 'last', got 'mean'"),
        (lambda: crnn.SequenceRegressor(D, 1, pooling="flatten", steps=3), "got 'flatten'"),
        (lambda: crnn.SequenceTagger(D, 2, bidirectional=True), "bidirectional=True"),
        (lambda: crnn.SequenceTagger(D, 2).quantize(), "inference"),
        (lambda: crnn.SequenceTagger(), "fit"),
        (lambda: crnn.Forecaster(), "SequenceRegressor learns from a stream"),
    ],
)
def test_sequence_models_that_cannot_learn_from_a_stream_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().learner()


@pytest.mark.parametrize("every", [5, 1])
@pytest.mark.parametrize("streams", [1, 3])
def test_memory_does_not_grow_after_the_first_windows(every, streams, rng):
    options = {"bptt": 5, "every": every, "streams": streams}
    values = crnn.SequenceRegressor(D, 1, hidden_size=H, cell="lstm").learner(**options)
    texts, network = language().learner(**options), crnn.RNN(D, H).learner(**options)
    x, ids = rng.normal(size=(streams, D)), IDS[:streams]
    x, y, token = (x, x[:, 0], ids) if streams > 1 else (x[0], x[0, 0], int(ids[0]))
    dy = np.zeros((streams, H) if streams > 1 else H)

    def run(steps):
        for _ in range(steps):
            values.predict(x)
            values.learn(y)
            texts.step(token)
            network.step(x)
            network.learn(dy)

    run(60)
    tracemalloc.start()
    try:
        run(20)
        before, _ = tracemalloc.get_traced_memory()
        run(400)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2000
    assert peak - before < 20_000
    assert values.updates == 480 // every


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("every", [4, 1])
def test_an_interrupt_at_any_line_leaves_a_learner_that_agrees_with_its_snapshot(every, rng):
    """Whether the interrupted call counts is open; weights, packed weights and states belong together."""
    x, y = rng.normal(size=(40, D)), rng.normal(size=40)
    model = crnn.SequenceRegressor(D, 1, hidden_size=H, cell="lstm", seed=0)
    interrupts = 0
    for line in range(0, 400, 5):
        learner = model.learner(bptt=4, every=every, lr=0.1)

        def steps(first, end, learner=learner):
            for i in range(first, end):
                learner.predict(x[i])
                learner.learn(y[i])

        steps(0, 9)
        interrupts += interrupted_at(line, partial(steps, 9, 13), PACKAGE / "nn/learning", PACKAGE / "models/learners")
        learner.freeze()
        stream = learner.snapshot()
        for i in range(20, 26):
            assert same(learner.predict(x[i]), stream.step(x[i])), line
        learner.unfreeze()
        steps(26, 40)
        assert learner.updates > 3
    assert interrupts > 30


@pytest.mark.parametrize("every", [4, 2, 1])
def test_freezing_and_unfreezing_before_the_first_step_changes_nothing(every, rng):
    net = crnn.RNN(D, H, seed=0, trainable_initial_state=True)
    learner, twin = (net.learner(bptt=4, every=every, lr=0.1) for _ in range(2))
    learner.freeze()
    learner.unfreeze()
    for _ in range(9):
        x, dy = rng.normal(size=D), rng.normal(size=H)
        for each in (learner, twin):
            each.step(x)
            each.learn(dy)
    assert same(learner.model.flat_params, twin.model.flat_params)
    assert learner.model.params["layer0.h0"].any()


def test_none_is_a_missing_target_whatever_the_classes_are_called(rng):
    tagger = crnn.SequenceTagger(D, classes=[-1, 1], hidden_size=H, seed=0)
    text = crnn.LanguageModel(CORPUS.vocab, hidden_size=H, seed=0)
    for model, x in ((tagger, np.ones(D)), (text, 1), (crnn.SequenceRegressor(D, 1, hidden_size=H), np.ones(D))):
        for several in (False, True):
            learner = model.learner(bptt=1, streams=2 if several else 1)
            learner.predict([x, x] if several else x)
            assert not np.any(learner.learn(None))
            assert learner.updates == 0
    learner = tagger.learner(bptt=1)
    learner.predict(np.ones(D))
    assert learner.learn(-1) > 0
    net, weights = crnn.RNN(D, H, seed=0).learner(bptt=1, optimizer="sgd"), crnn.RNN(D, H, seed=0).flat_params
    net.step(np.ones(D))
    net.learn(None)
    assert same(net.model.flat_params, weights)


def test_logits_that_are_not_finite_have_no_label():
    learner = crnn.SequenceTagger(D, num_classes=2, hidden_size=H).learner()
    for wrong in ([np.nan, 0.0], [np.inf, 0.0], [1e300, 0.0]):
        for call in (learner.labels, learner.probabilities):
            with pytest.raises(ValueError, match="logits: expected"):
                call(wrong)
