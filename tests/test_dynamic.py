# SPDX-License-Identifier: MIT
"""Dynamic evaluation against a plain loop written from its definition, and what it leaves unchanged."""

import copy
import math

import numpy as np
import oracle_optim
import pytest
from kernel_tools import assert_same_bits
from model_tools import stir, text

import crnn
from crnn.optim import SGD, Adam
from crnn.text.windows import IGNORE_INDEX, contiguous_batches

TEXT = text(1200, seed=3)
VOCAB = crnn.Vocab.from_text(text(2000))


def a_model(dtype="float64", vocab=VOCAB, **options):
    model = crnn.LanguageModel(vocab, **{"hidden_size": 9, "seed": 1, "dtype": dtype} | options)
    stir(model.flat_params)
    return model


def fresh(model):
    model = copy.deepcopy(model)
    model.flat_grads[...] = 0
    return model


def plain_loop(
    model,
    ids,
    *,
    batch_size=1,
    bptt=96,
    optimizer=None,
    clip_norm=1.0,
    clip_value=None,
    decay=0.02,
    max_change=None,
    factors=1.0,
):
    """The definition: score a window with the weights of now, then learn it. Returns nats, accuracy and the weights."""
    model = fresh(model)
    w, anchor, state = model.flat_params, model.flat_params.copy(), None
    losses, hits = [], []
    for x, y in contiguous_batches(ids, batch_size, bptt, drop_last=False):
        logits, after = model.forward(x, state)
        known = y != IGNORE_INDEX
        top = logits.max(axis=2, keepdims=True)
        log_p = logits - top - np.log(np.exp(logits - top).sum(axis=2, keepdims=True))
        losses += (-np.take_along_axis(log_p, np.maximum(y, 0)[:, :, None], 2)[:, :, 0])[known].tolist()
        hits += (logits.argmax(axis=2) == y)[known].tolist()
        model.flat_grads[...] = 0
        model.loss_and_gradients(x, y, state)
        g = model.flat_grads.copy()
        if clip_value is not None:
            g = np.clip(g, -clip_value, clip_value)
        norm = np.linalg.norm(g)
        if clip_norm is not None and norm > clip_norm:
            g *= clip_norm / norm
        optimizer.update(w, g)
        w[...] = oracle_optim.pull(w, anchor, factors * np.ones(len(w)), decay)
        distance = np.linalg.norm(w - anchor)
        if max_change is not None and distance > max_change * np.linalg.norm(anchor):
            w[...] = anchor + (w - anchor) * max_change * np.linalg.norm(anchor) / distance
        state = after
    return math.fsum(losses) / len(losses), np.mean(hits), w


OPTIONS = [
    {},
    {"bptt": 7},
    {"optimizer": "adam", "lr": 0.01},
    {"optimizer": "sgd", "lr": 0.5, "bptt": 16},
    {"optimizer": "sgd(0.5, momentum=0.9)", "clip_norm": None},
    {"lr": 0.01, "clip_norm": 0.1, "clip_value": 0.02},
    {"lr": 0.01, "decay": 0.0},
    {"lr": 0.05, "max_change": 0.05},
    {"optimizer": SGD(0.3), "decay": 0.05, "max_change": 0.1},
]


def optimizer_of(options):
    made = options.get("optimizer")
    if made is None:
        return Adam(options.get("lr", 1e-3), beta1=0.0)
    if isinstance(made, SGD):
        return SGD(**made.settings())
    if made == "sgd(0.5, momentum=0.9)":
        return SGD(0.5, momentum=0.9)
    return {"adam": Adam, "sgd": SGD}[made](options["lr"])


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("batch_size", [1, 6])
def test_it_is_the_plain_loop(options, batch_size):
    """6 streams of 1199 predictions: the last ones are a step shorter."""
    model, ids = a_model(), VOCAB.encode(TEXT)
    result = model.evaluate(TEXT, batch_size=batch_size, dynamic=options)
    rule = {name: value for name, value in options.items() if name not in ("optimizer", "lr")}
    nats, accuracy, w = plain_loop(model, ids, batch_size=batch_size, optimizer=optimizer_of(options), **rule)
    assert result.nats == pytest.approx(nats, rel=1e-12)
    assert result.accuracy == accuracy
    assert result.count == len(ids) - 1
    assert np.abs(w - model.flat_params).max() > 1e-3
    assert abs(result.nats - model.evaluate(TEXT, batch_size=batch_size).nats) > 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "gru", "num_layers": 2, "embedding_size": 5},
        {"cell": "gru", "tie_weights": True, "trainable_initial_state": True},
        {"dropout": 0.5, "recurrent_dropout": 0.3, "activation_penalty": 2.0},
        {"label_smoothing": 0.2},
        {"dtype": "float32"},
    ],
    ids=repr,
)
def test_every_kind_of_network_is_evaluated_without_dropout_or_penalties(options):
    """What is learnt has smoothed targets, as in training; what is reported has not."""
    model, ids = a_model(**options), VOCAB.encode(TEXT)
    result = model.evaluate(ids, batch_size=3, dynamic={"lr": 0.01})
    nats, _, _ = plain_loop(model, ids, batch_size=3, optimizer=Adam(0.01, beta1=0.0))
    assert result.nats == pytest.approx(nats, rel=1e-5 if model.dtype == "float32" else 1e-12)


WORDS = " ".join(f"w{i * i % 97 % (3 + i % 41)}" for i in range(3000))


@pytest.mark.parametrize("options", [{}, {"adaptive_softmax": [6]}, {"label_smoothing": 0.2}], ids=repr)
def test_large_and_adaptive_softmaxes_are_learnt_too(options, monkeypatch):
    monkeypatch.setattr("crnn.models.outputs.blocks.BLOCK_BYTES", 1 << 11)
    monkeypatch.setattr("crnn.models.outputs.blocks.LEAST_ROWS", 16)
    vocab = crnn.Vocab.from_text(WORDS, "word", order="frequency")
    model = a_model(vocab=vocab, **options)
    ids = vocab.encode(WORDS)[:600]
    result = model.evaluate(ids, batch_size=5, dynamic={"lr": 0.02})
    nats, accuracy, _ = plain_loop(model, ids, batch_size=5, optimizer=Adam(0.02, beta1=0.0))
    assert result.nats == pytest.approx(nats, rel=1e-12)
    assert result.accuracy == accuracy > 0


def test_statistics_are_mean_squares_of_gradients_and_scale_rate_and_decay():
    model, ids, other = a_model(), VOCAB.encode(TEXT), VOCAB.encode(text(700, seed=5))
    result = model.evaluate(ids, dynamic={"statistics": other, "lr": 0.01, "decay": 0.02})

    at, state, squares = fresh(model), None, []
    for x, y in contiguous_batches(other, 32, 96, drop_last=False):
        at.flat_grads[...] = 0
        state = at.loss_and_gradients(x, y, state)[2]
        squares.append(at.flat_grads**2)
    roots = np.sqrt(np.mean(squares, axis=0))

    class Rule(SGD):
        def _step(self, params, grads, factor, lr, threads):
            params -= lr * factor * grads / (roots + 1e-5)

    nats, _, w = plain_loop(model, ids, optimizer=Rule(0.01), decay=0.02, factors=roots / roots.mean())
    assert len(squares) > 0
    assert result.nats == pytest.approx(nats, rel=1e-10)
    assert np.abs(w - model.flat_params).max() > 1e-3
    as_text = model.evaluate(TEXT, dynamic={"statistics": text(700, seed=5), "lr": 0.01, "decay": 0.02})
    assert as_text.nats == result.nats


def test_a_window_is_scored_before_it_is_learnt():
    model = a_model("float32")
    first = TEXT[:97]  # one window
    assert model.evaluate(first, dynamic={"lr": 0.1}) == model.evaluate(first)
    assert model.evaluate(TEXT[:200], dynamic={"lr": 0.1}) != model.evaluate(TEXT[:140])


@pytest.mark.parametrize(("batch_size", "of_many"), [(15, False), (16, True), (20, True)])
def test_many_streams_have_defaults_of_their_own(batch_size, of_many):
    """Shorter windows, as each update is by the tokens of all streams. Statistics keep those of one stream."""
    own = {"lr": 7e-4, "bptt": 32, "decay": 0.005} if of_many else {"lr": 1e-3, "bptt": 96, "decay": 0.02}
    text, model = TEXT * 3, a_model()
    default = model.evaluate(text, batch_size=batch_size, dynamic=True).nats
    assert default == model.evaluate(text, batch_size=batch_size, dynamic=own).nats
    assert default != model.evaluate(text, batch_size=batch_size, dynamic=own | {"bptt": 60}).nats
    rule = {"statistics": TEXT, "bptt": 96, "decay": 0.02}
    by_statistics = model.evaluate(text, batch_size=batch_size, dynamic={"statistics": TEXT}).nats
    assert by_statistics == model.evaluate(text, batch_size=batch_size, dynamic=rule).nats


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_rate_of_zero_is_static_evaluation(batch_size):
    model = a_model("float32")
    dynamic = model.evaluate(TEXT, batch_size=batch_size, dynamic={"lr": 0.0})
    static = model.evaluate(TEXT, batch_size=batch_size)
    assert dynamic.nats == pytest.approx(static.nats, rel=1e-6)
    assert dynamic.accuracy == static.accuracy
    assert dynamic.count == static.count


@pytest.mark.parametrize("given", [False, True])
def test_nothing_of_the_users_changes(given):
    model, optimizer = a_model("float32"), Adam(0.1)
    model.flat_grads[...] = 3
    before, stream = model.flat_params.copy(), model.stream()
    model.evaluate(TEXT, dynamic={"optimizer": optimizer} if given else {"lr": 0.1})
    assert_same_bits(model.flat_params, before)
    assert (model.flat_grads == 3).all()
    assert optimizer.updates == 0
    assert optimizer.arrays == {}
    assert_same_bits(model.stream().feed("ab").next_probabilities(), stream.feed("ab").next_probabilities())


def test_every_evaluation_begins_anew_and_threads_do_not_show():
    model = a_model("float32", hidden_size=33)
    results = [model.evaluate(TEXT, batch_size=6, threads=n, dynamic={"lr": 0.01}) for n in (1, 2, 3, 1)]
    assert len(set(results)) == 1


def test_the_text_is_learnt():
    vocab = crnn.Vocab.from_text("abcdefgh ")
    model = crnn.LanguageModel(vocab, hidden_size=16, seed=2)
    model.fit(vocab.encode("abcd efgh " * 300), epochs=2, batch_size=4, bptt=16, progress=False)
    other = "dcba hgfe " * 150
    options = {"lr": 0.01, "bptt": 16, "decay": 0.0}
    static, dynamic = model.evaluate(other), model.evaluate(other, dynamic=options)
    assert dynamic.bits < 0.5 * static.bits
    assert model.evaluate(other, dynamic=options | {"max_change": 0.01}).bits > dynamic.bits


def test_dynamic_false_is_static():
    model = a_model("float32")
    assert model.evaluate(TEXT, dynamic=False) == model.evaluate(TEXT)
    assert model.evaluate(TEXT, dynamic=True) == model.evaluate(TEXT, dynamic={})


USED = Adam()
USED.update(np.ones(3), np.ones(3))


@pytest.mark.parametrize(
    ("dynamic", "error", "message"),
    [
        ("yes", TypeError, "dynamic: expected True, False, or options .*, got str"),
        (None, TypeError, "dynamic: .*got NoneType"),
        (1, TypeError, "dynamic: .*got int"),
        ({"lr": -1}, ValueError, "dynamic: lr: expected a number of at least 0, got -1"),
        ({"lr": math.nan}, ValueError, "dynamic: lr: .*got nan"),
        ({"bptt": 0}, ValueError, "dynamic: bptt: .*got 0"),
        ({"decay": 2}, ValueError, "dynamic: decay: expected a number from 0 to 1, got 2"),
        ({"max_change": 0}, ValueError, "dynamic: max_change: .*got 0"),
        ({"every": 3}, TypeError, "dynamic: expected options among optimizer, lr, .*, got 'every'"),
        ({"streams": 3}, TypeError, "dynamic: .*got 'streams'"),
        ({"learning_rate": 3}, TypeError, "dynamic: .*got 'learning_rate'"),
        ({"clipnorm": 3}, TypeError, "dynamic: .*did you mean clip_norm"),
        ({"optimizer": "adma"}, ValueError, "dynamic: optimizer: .*got 'adma'"),
        ({"optimizer": Adam(), "lr": 0.1}, ValueError, "dynamic: lr: expected none with an optimizer"),
        ({"optimizer": USED}, ValueError, "dynamic: optimizer: expected one that has done no updates"),
        ({"optimizer": "sgd(lr=0.1)", "lr": 0.1}, ValueError, "dynamic: optimizer: expected lr once"),
        ({"statistics": "ab", "optimizer": "sgd"}, ValueError, "^dynamic: optimizer: expected none with statistics"),
        ({"statistics": "a"}, ValueError, "dynamic: statistics: expected at least 2 tokens, got 1"),
        ({"statistics": [0, 999]}, ValueError, "dynamic: statistics: .*got 999"),
        ({"statistics": [0.5, 1.5]}, TypeError, "dynamic: statistics: .*float64"),
        ({"statistics": "a\x00b"}, ValueError, r"dynamic: statistics: .*\\x00"),
        ({"statistics": np.ones((2, 3))}, ValueError, r"dynamic: statistics: .*shape \(2, 3\)"),
    ],
)
def test_wrong_options_are_named(dynamic, error, message):
    with pytest.raises(error, match=message):
        a_model().evaluate(TEXT, dynamic=dynamic)


def test_a_bool_of_numpy_is_one():
    model = a_model()
    for flag in (True, False):
        assert model.evaluate(TEXT[:100], dynamic=np.bool_(flag)) == model.evaluate(TEXT[:100], dynamic=flag)


def test_a_quantised_model_is_refused_by_name():
    model = a_model("float32").quantize("int8")
    with pytest.raises(ValueError, match=r"dynamic: .*int8"):
        model.evaluate(TEXT, dynamic=True)
    model.evaluate(TEXT)
