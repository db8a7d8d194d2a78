# SPDX-License-Identifier: MIT
"""fit against the oracle, update by update: windows, carried states, clipping, schedules, reductions. Validation."""

import math

import numpy as np
import oracle
import pytest
from kernel_tools import assert_close, assert_same_bits
from model_tools import as_oracle, language_model, text

import crnn
from crnn.text.windows import contiguous_batches
from crnn.training.config import TrainingConfig
from crnn.training.step import UpdateStep

IDS = np.random.default_rng(8).integers(12, size=104)
# 7 windows an epoch, the last of 4 steps
SETTINGS = {"epochs": 2, "batch_size": 3, "bptt": 5, "schedule": None, "clip_norm": None}


def double():
    return language_model(L=2, dtype="float64")


def oracle_fit(
    model, ids, *, epochs, batch_size, bptt, lr, carry=None, schedule=None, clip_norm=None,
    clip_value=None, reduction="mean", max_updates=None
):  # fmt: skip
    """What `fit` with plain SGD should do: the weights after it, and each update's loss, norm and rate."""
    params, shape = as_oracle(model), (model.net.num_layers, batch_size, model.net.hidden_size)
    windows = list(contiguous_batches(ids, batch_size, bptt))
    total = min(epochs * len(windows), max_updates or math.inf)
    done = []
    for epoch in range(epochs):
        for number, (x, targets) in enumerate(windows):
            if len(done) == total:
                break
            if number == 0 or (carry is not None and (number * bptt) % max(carry, bptt) == 0):
                state = np.zeros(shape)
            tape = oracle.rnn_forward(params, x, state, model.net.cell)
            losses, dy = oracle.cross_entropy(tape.y, targets)
            grads, _, _ = oracle.rnn_backward(params, tape, dy / targets.size if reduction == "mean" else dy)
            if clip_value:
                grads = {name: np.clip(grad, -clip_value, clip_value) for name, grad in grads.items()}
            norm = math.sqrt(sum((grad**2).sum() for grad in grads.values()))
            factor = min(1.0, (clip_norm or math.inf) / norm)
            rate = lr * (schedule(len(done), total) if schedule else 1.0)
            for name in params:
                params[name] = params[name] - rate * factor * grads[name]
            state = tape.state
            done.append({"epoch": epoch + 1, "train_loss": losses.mean(), "grad_norm": norm, "lr": rate})
    return params, done


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"carry": 0},
        {"carry": 5},
        {"carry": 10},
        {"carry": 1000},
        {"clip_norm": 0.3},
        {"clip_norm": 50.0},
        {"clip_value": 0.05},
        {"clip_value": 0.05, "clip_norm": 0.3},
        {"reduction": "sum"},
        {"reduction": "sum", "clip_value": 0.5, "carry": 10},
        {"schedule": crnn.optim.linear(0.2, warmup=4)},
        {"max_updates": 1},
        {"max_updates": 9},
        {"max_updates": 900},
    ],
    ids=repr,
)
def test_every_update_is_the_oracles(options):
    lr = 0.02 if options.get("reduction") == "sum" else 0.3
    model = double()
    params, done = oracle_fit(model, IDS, lr=lr, **(SETTINGS | options))
    log = crnn.fit(model, IDS, optimizer=crnn.optim.SGD(lr), log_every=1, **(SETTINGS | options))
    for name, expected in params.items():
        assert_close(model.params[name], expected)
    for name in done[0]:
        np.testing.assert_allclose(log.column(name), [entry[name] for entry in done], rtol=1e-9)
    assert log.column("update") == list(range(1, len(done) + 1))
    clipped = [entry["grad_norm"] > options.get("clip_norm", 0) for entry in done]
    if options.get("clip_norm") == 0.3 and "clip_value" not in options:
        assert any(clipped)
    if options.get("clip_norm") == 50.0:
        assert not any(clipped)


def test_float32_follows_too():
    model = language_model(L=2)
    params, done = oracle_fit(model, IDS, lr=0.3, **SETTINGS)
    log = crnn.fit(model, IDS, optimizer=crnn.optim.SGD(0.3), log_every=1, threads=2, **SETTINGS)
    np.testing.assert_allclose(log.column("train_loss"), [entry["train_loss"] for entry in done], rtol=2e-6)
    for name, expected in params.items():
        assert_close(model.params[name], expected)


def test_the_default_is_adam():
    model, twin = double(), double()
    crnn.fit(model, IDS, **SETTINGS)
    crnn.fit(twin, IDS, optimizer=crnn.optim.Adam(), **SETTINGS)
    assert_same_bits(model.flat_params, twin.flat_params)


def test_a_schedule_is_told_the_update_and_the_total():
    told = []

    def schedule(update, total):
        told.append((update, total))
        return 1.0

    crnn.fit(double(), IDS, **(SETTINGS | {"schedule": schedule}))
    assert told == [(update, 14) for update in range(14)]
    for limit, total in ((9, 9), (900, 14)):
        told.clear()
        crnn.fit(double(), IDS, max_updates=limit, **(SETTINGS | {"schedule": schedule}))
        assert told == [(update, total) for update in range(total)]


@pytest.mark.parametrize("carry", [7, -5, 2, 12])
def test_a_carry_that_is_no_multiple_of_bptt_is_refused(carry):
    with pytest.raises(ValueError, match=rf"carry: expected 0, a multiple of bptt=5, or None, got {carry}"):
        crnn.fit(double(), IDS, carry=carry, **SETTINGS)


# ---- validation ------------------------------------------------------------------------------------------------


def watched(model, snapshots):
    """on_epoch that keeps every epoch's weights."""
    return lambda progress: snapshots.append(model.flat_params.copy())


def test_validation_is_evaluate_and_the_best_epochs_weights_are_kept():
    corpus = crnn.TextCorpus.from_text(text(600), valid=0.3, test=0)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=9, seed=2)
    snapshots = []
    log = crnn.fit(
        model, corpus, epochs=12, batch_size=9, bptt=9, optimizer=crnn.optim.Adam(0.15),
        on_epoch=watched(model, snapshots),
    )  # fmt: skip
    valid = log.column("valid_loss", "epoch")
    best = int(np.argmin(valid))
    assert 0 < best < 11  # else this shows nothing
    assert log.best["epoch"] == best + 1
    assert_same_bits(model.flat_params, snapshots[best])
    for weights, nats, accuracy in zip(snapshots, valid, log.column("valid_accuracy", "epoch"), strict=True):
        model.flat_params[...] = weights
        result = model.evaluate(corpus.valid, batch_size=8)
        assert (result.nats, result.accuracy) == (nats, accuracy)


def test_without_validation_the_last_weights_stay():
    model, snapshots = double(), []
    log = crnn.fit(model, IDS, on_epoch=watched(model, snapshots), **SETTINGS)
    assert log.best is None
    assert len(snapshots) == 2
    assert_same_bits(model.flat_params, snapshots[-1])
    assert not np.array_equal(*snapshots)


def test_patience_stops_when_nothing_has_improved():
    """With a rate of zero the first epoch stays the best."""
    for patience in (1, 3):
        log = crnn.fit(
            double(), IDS, valid=IDS, epochs=9, batch_size=3, bptt=5, patience=patience, optimizer=crnn.optim.SGD(0)
        )
        assert log.epochs == 1 + patience
    log = crnn.fit(double(), np.tile([0, 1, 2], 40), valid=[0, 1, 2, 0], epochs=4, batch_size=3, bptt=5, patience=1)
    assert log.epochs == 4  # it continues as long as it gets better


def test_given_validation_data_goes_before_the_corpus_own():
    corpus = crnn.TextCorpus.from_text(text(600), valid=0.1, test=0)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=9)
    log = crnn.fit(model, corpus, valid=corpus.train[:50], epochs=1, batch_size=4)
    expected = model.evaluate(corpus.train[:50], batch_size=4)
    assert log.best["valid_loss"] == expected.nats
    corpus = crnn.TextCorpus.from_text(text(600), valid=0, test=0)
    assert crnn.fit(model, corpus, epochs=1).best is None


def test_any_model_of_the_right_shape_can_be_trained():
    """`fit` asks for what `Trainable` says and no more: here a model of one weight whose loss is its square."""

    class FiveWindows(list):
        carries_state = True

        def epoch(self, number):
            return iter(self)

    class OneWeight:
        loss_unit = ""
        flat_params = np.array([2.0])
        flat_grads = np.zeros(1)

        def windows(self, ids, batch_size, bptt):
            return FiveWindows([(np.zeros((1, 1)), np.zeros((1, 1)))] * 5)

        def loss_and_gradients(self, ids, targets, state=None, *, reduction, threads, workspace, dropout_seed):
            self.flat_grads += 2 * self.flat_params
            return float(self.flat_params[0] ** 2), 1, np.zeros(1)

    model = OneWeight()
    log = crnn.fit(model, [], epochs=1, optimizer=crnn.optim.SGD(0.25), schedule=None, clip_norm=None, log_every=1)
    assert log.column("train_loss") == [4, 1, 0.25, 0.0625, 0.015625]
    assert model.flat_params[0] == 0.0625


def test_a_corpus_with_another_vocabulary_is_refused():
    corpus, other = (crnn.TextCorpus.from_text(text * 50) for text in ("abcd", "efgh"))
    with pytest.raises(ValueError, match="data: expected a corpus with the model's vocabulary"):
        crnn.fit(crnn.LanguageModel(corpus.vocab, hidden_size=3), other, batch_size=2, bptt=4)


def test_an_infinite_gradient_is_not_clipped_away_unseen(monkeypatch):
    corpus = crnn.TextCorpus.from_text("abcd" * 50)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=3)
    before = model.flat_params.copy()
    right = crnn.LanguageModel.loss_and_gradients

    def overflowing(self, *args, **kwargs):
        result = right(self, *args, **kwargs)
        self.flat_grads[5] = np.inf
        return result

    monkeypatch.setattr(crnn.LanguageModel, "loss_and_gradients", overflowing)
    with pytest.raises(FloatingPointError, match="gradient's norm is inf at update 1 "):
        crnn.fit(model, corpus, batch_size=2, bptt=4, clip_value=1.0)
    assert model.flat_params.tobytes() == before.tobytes()


class Strided:
    """A user's model, whose gradients are every second number of an array."""

    def __init__(self):
        self.flat_params, self.memory = np.ones(4), np.full((4, 2), np.nan)
        self.flat_grads = self.memory[:, 0]

    def loss_and_gradients(self, x, targets, state, **options):
        self.flat_grads += 2 * self.flat_params
        return float((self.flat_params**2).sum()), 4, None


class Descent(crnn.optim.Optimizer):
    """A user's optimizer, in NumPy."""

    def __init__(self):
        super().__init__(0.25, 0.0, ())

    def _step(self, params, grads, factor, lr, threads):
        params -= lr * factor * grads


def test_gradients_of_a_model_of_the_user_need_not_be_contiguous():
    model = Strided()
    UpdateStep(model, Descent(), TrainingConfig(clip_norm=None), 1)(None, None, None, 0, 1)
    assert model.flat_params.tolist() == [0.5] * 4
    assert np.isnan(model.memory[:, 1]).all()
