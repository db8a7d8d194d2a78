# SPDX-License-Identifier: MIT
"""What all task models promise: of scaling, copies, validation, checkpoints, and what an error leaves behind."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from task_tools import (
    LENGTHS,
    V,
    answers,
    classifier,
    everything,
    id_sequences,
    labels,
    reals,
    regressor,
    tagger,
    values,
)

import crnn
from crnn._core import dispatch
from crnn.models.inputs.held_out import held_out

# ---- scaling belongs to the model -----------------------------------------------------------------------------------


def test_training_a_copy_leaves_the_model_alone(rng):
    model = regressor()
    X = reals(rng)
    y = values(rng, [(2,)] * len(X))
    model.fit(X, y, epochs=1)
    before = everything(model)
    copy = model.astype("float64")
    assert copy.seed == model.seed
    copy.fit([x * 9 + 5 for x in X], y, epochs=1, rescale=True)
    assert_same_bits(everything(model), before)
    assert copy.scalings["x"].mean[0] != model.scalings["x"].mean[0]


BAD_TRAINING = {
    "epochs": {"epochs": 0},
    "threads": {"threads": -1},
    "unknown": {"nonsense": 1},
    "resume": {"resume": True},
    "no such folder": {"log_file": "/no/such/folder/log.jsonl"},
    "a share that is none": {"valid": 0.01},
}


@pytest.mark.parametrize("options", BAD_TRAINING.values(), ids=BAD_TRAINING)
def test_a_refused_fit_leaves_weights_and_scaling_as_they_were(rng, options):
    model, X, y = classifier(), reals(rng), labels(rng)
    model.fit(X, y, epochs=1)
    before = everything(model)
    with pytest.raises((ValueError, TypeError, OSError)):
        model.fit([x + 100 for x in X], y, **options)
    assert_same_bits(everything(model), before)


def test_training_that_breaks_off_keeps_the_scaling_its_weights_were_made_for(rng):
    model, X = classifier(scale=True), reals(rng)

    def stop(progress):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        model.fit(X, labels(rng), epochs=3, on_epoch=stop)
    np.testing.assert_allclose(model.scalings["x"].mean, np.concatenate(X).mean(axis=0))


# ---- which sequences, in which company, does not matter --------------------------------------------------------------


MAKERS = {
    "classifier": (classifier, {}),
    "two ways": (classifier, {"bidirectional": True, "pooling": "max", "num_layers": 2}),
    "mean": (classifier, {"pooling": "mean", "cell": "lstm", "hidden_size": [9, 17]}),
    "questions": (classifier, {"multilabel": True, "cell": "tanh"}),
    "tagger": (tagger, {"bidirectional": True, "cell": "original_gru"}),
    "regressor": (regressor, {"cell": "relu", "trainable_initial_state": True}),
    "every step": (regressor, {"pooling": None, "cell": "lstm"}),
    "embedding": (tagger, {"embedding_size": 4}),
    "ids": (classifier, {}),
}
makers = pytest.mark.parametrize("name", MAKERS)


def inputs(name, rng, lengths=LENGTHS):
    return id_sequences(rng, lengths) if name in ("embedding", "ids") else reals(rng, lengths)


def targets(model, rng, lengths=LENGTHS):
    single, n = model.pooling is not None, len(lengths)
    if isinstance(model, crnn.SequenceRegressor):
        return values(rng, [(2,) if single else (length, 2) for length in lengths])
    if model.multilabel:
        return answers(rng, [(V,) if single else (length, V) for length in lengths])
    return labels(rng, None if single else lengths, n)


def outputs(model, X, **options):
    return [np.asarray(row) for row in getattr(model, "predict_proba", model.predict)(X, **options)]


@makers
def test_batches_threads_and_order_change_no_bits_of_a_prediction(rng, name):
    make, options = MAKERS[name]
    model, X = make(**options), inputs(name, rng, LENGTHS * 3)
    expected, order = outputs(model, X), rng.permutation(len(X))
    for batch_size, threads in ((1, 1), (2, 3), (5, 2), (21, 1), (10**6, 4)):
        for got, wanted in zip(outputs(model, X, batch_size=batch_size, threads=threads), expected, strict=True):
            assert_same_bits(got, wanted)
    shuffled = outputs(model, [X[i] for i in order], batch_size=4)
    for i, got in zip(order, shuffled, strict=True):
        assert_same_bits(got, expected[i])
    y = targets(model, rng, LENGTHS * 3)
    assert len({model.evaluate(X, y, batch_size=size, threads=size) for size in (1, 2, 7)}) == 1


@makers
def test_an_array_trains_and_predicts_as_the_list_of_its_rows(rng, name):
    make, options = MAKERS[name]
    X = np.array(inputs(name, rng, [5] * 7))
    models = [make(**options) for _ in range(3)]
    y = targets(models[0], rng, [5] * 7)
    data = (X, np.asfortranarray(X), list(X))
    for model, given in zip(models, data, strict=True):
        model.fit(given, y, epochs=2, batch_size=3)
    for model, given in zip(models[1:], data[1:], strict=True):
        assert_same_bits(model.flat_params, models[0].flat_params)
        for got, wanted in zip(outputs(model, given), outputs(models[0], X), strict=True):
            assert_same_bits(got, wanted)


@makers
def test_training_does_not_depend_on_threads(rng, name):
    make, options = MAKERS[name]
    models = [make(**options, dropout=0.2, recurrent_dropout=0.1) for _ in range(3)]
    X, y = inputs(name, rng), targets(models[0], rng)
    for threads, model in zip((1, 2, 5), models, strict=True):
        model.fit(X, y, epochs=3, batch_size=3, threads=threads, optimizer=crnn.optim.Adam(0.01))
    for model in models[1:]:
        assert_same_bits(model.flat_params, models[0].flat_params)


@pytest.mark.thread_unsafe
@makers
def test_training_gives_the_same_bits_on_every_instruction_set(rng, isas, name):
    make, options = MAKERS[name]
    X, results = inputs(name, rng), []
    y = targets(make(**options), rng)
    for isa in isas:
        dispatch.use_isa(isa)
        model = make(**options, dropout=0.2, recurrent_dropout=0.1)
        model.fit(X, y, epochs=3, batch_size=3, valid=0.3, optimizer=crnn.optim.Adam(0.01))
        scaling = [part for each in model.scalings.values() for part in (each.mean, each.std)]
        results.append([model.flat_params, *scaling, *outputs(model, X)])
    for result in results[1:]:
        for got, wanted in zip(result, results[0], strict=True):
            assert_same_bits(got, wanted)


def test_a_batch_has_no_padding(rng):
    for make in (classifier, tagger):
        model, X = make(), reals(rng)
        batch, wanted = model.data(X, targets(model, rng)).batch(np.arange(len(X)))
        assert batch.x.shape == (1, sum(LENGTHS), X[0].shape[1])
        assert wanted.shape[:2] == (1, len(X) if model.pooling else sum(LENGTHS))
        assert_same_bits(batch.lengths.unpack(batch.x)[: LENGTHS[3], 3], X[3].astype("f4"))


# ---- validation, patience, checkpoints -------------------------------------------------------------------------------


def watched(model, snapshots):
    return lambda progress: snapshots.append(model.flat_params.copy())


def test_a_share_for_validation_is_chosen_by_the_seed_and_not_trained_on(rng):
    X, y = reals(rng, LENGTHS * 3), labels(rng, n=21)
    y[1] = 0
    model = classifier()
    chosen = held_out(0.25, y, model.seed)
    assert len(set(chosen)) == 5
    assert chosen != held_out(0.25, y, 4)
    rest = [i for i in range(21) if i not in chosen]
    by_hand = classifier()
    log = model.fit(X, y, valid=0.25, epochs=4, batch_size=4).log
    pair = [X[i] for i in chosen], y[chosen]
    other = by_hand.fit([X[i] for i in rest], y[rest], valid=pair, epochs=4, batch_size=4).log
    assert_same_bits(model.flat_params, by_hand.flat_params)
    assert log.column("valid_loss", "epoch") == other.column("valid_loss", "epoch")
    assert sum(log.column("tokens")) == 4 * 16
    np.testing.assert_allclose(model.scalings["x"].mean, np.concatenate([X[i] for i in rest]).mean(axis=0), rtol=1e-12)


@makers
def test_the_weights_of_the_best_epoch_are_kept(rng, name):
    make, options = MAKERS[name]
    model, snapshots = make(**options), []
    X, y = inputs(name, rng, LENGTHS * 2), targets(model, rng, LENGTHS * 2)
    other = inputs(name, np.random.default_rng(8))
    wanted = targets(model, np.random.default_rng(9))
    log = model.fit(
        X, y, valid=(other, wanted), epochs=15, batch_size=4, optimizer=crnn.optim.Adam(0.15),
        on_epoch=watched(model, snapshots),
    ).log  # fmt: skip
    losses = log.column("valid_loss", "epoch")
    best = int(np.argmin(losses))
    assert best < 14  # noise cannot be learnt: else this shows nothing
    assert log.best["epoch"] == best + 1
    assert_same_bits(model.flat_params, snapshots[best])
    result = model.evaluate(other, wanted)
    assert result.loss == losses[best]
    if result.accuracy is not None:
        assert result.accuracy == log.best["valid_accuracy"]


def test_patience_stops_when_nothing_gets_better(rng):
    X, y = reals(rng), labels(rng)
    log = classifier().fit(X, y, valid=0.3, epochs=20, patience=2, optimizer=crnn.optim.SGD(0)).log
    assert log.epochs == 3
    with pytest.raises(ValueError, match="patience: expected validation data with it"):
        classifier().fit(X, y, patience=2)


@makers
@pytest.mark.parametrize("stop", [4, 5, 7])  # three batches an epoch: within the second, at its end, in the third
def test_training_that_is_resumed_gives_the_bits_of_one_run(rng, tmp_path, name, stop):
    make, options = MAKERS[name]
    options = options | {"dropout": 0.3, "recurrent_dropout": 0.2}
    whole, first, second = (make(**options) for _ in range(3))
    X, y = inputs(name, rng), targets(whole, rng)
    settings = {"epochs": 4, "batch_size": 2, "valid": 0.2, "schedule": None, "log_every": 1, "seed": 5}
    expected = whole.fit(X, y, **settings).log
    first.fit(X, y, **settings, max_updates=stop, checkpoint=tmp_path / "c")
    log = second.fit(X, y, **settings, checkpoint=tmp_path / "c", resume=True).log
    assert_same_bits(second.flat_params, whole.flat_params)
    for column in ("train_loss", "grad_norm"):
        assert log.column(column) == expected.column(column)
    assert log.column("valid_loss", "epoch") == expected.column("valid_loss", "epoch")
    for got, wanted in zip(outputs(second, X), outputs(whole, X), strict=True):
        assert_same_bits(got, wanted)


def test_every_epoch_has_every_sequence_once_in_an_order_of_its_own(rng):
    X = reals(rng, LENGTHS * 3)
    data = classifier().data(X, np.arange(21) % V)
    for n, x in enumerate(data.x):
        x[:, 0] = n
    batches = classifier().windows(data, 4, 64)
    assert len(batches) == 6
    epochs = []
    for number in (1, 2, 1):
        seen = [(batch.x[0, : batch.size, 0].astype(int).tolist(), batch) for batch, _ in batches.epoch(number)]
        assert len(seen) == 6
        assert sorted(n for rows, _ in seen for n in rows) == list(range(21))
        for rows, batch in seen:
            lengths = [len(X[n]) for n in rows]
            assert batch.x.shape[0] * batch.x.shape[1] == sum(lengths)  # no padding
            assert max(lengths) - min(lengths) <= 2  # like goes with like
        epochs.append([rows for rows, _ in seen])
    assert epochs[0] == epochs[2] != epochs[1]
    for rows in epochs:  # nor do the short ones come first
        longest = [max(len(X[n]) for n in batch) for batch in rows]
        assert longest not in (sorted(longest), sorted(longest, reverse=True))
