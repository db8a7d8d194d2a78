# SPDX-License-Identifier: MIT
"""What is verified of every kind of model: training, evaluation, prediction, files, streams. KINDS lists the kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import optim
from crnn.models.classifier import SequenceClassifier
from crnn.models.files import from_bytes, to_bytes
from crnn.models.forecasting.forecaster import Forecaster
from crnn.models.inputs.data import shuffled
from crnn.models.language_model import LanguageModel
from crnn.models.regressor import SequenceRegressor
from crnn.models.seq2seq import SequenceToSequence
from crnn.models.tagger import SequenceTagger
from crnn.nn.network import RNN
from crnn.text.vocab import Vocab
from crnn.training.fit import fit
from crnn.verification import samples
from crnn.verification.cells import INIT
from crnn.verification.digest import Digest

Recipe = Callable[[Digest, int], None]  # adds the results of a kind; the second argument is the number of threads

COUNT = 24  # sequences


def sequences(D: int) -> list[NDArray[np.float64]]:
    """Sequences of different lengths whose columns have different means and scales."""
    scale, mean = np.ldexp(1.0, np.arange(D)), np.arange(D) - 1.0
    return [samples.numbers(n, D, seed=i) * scale + mean for i, n in enumerate(samples.lengths(COUNT))]


def train(model: Any, X: Any, y: Any, digest: Digest, threads: int, **options: Any) -> Any:
    """Fit a model of sequences, add losses and weights, and return the model as its file restores it."""
    log = model.fit(
        X, y, epochs=2, batch_size=5, clip_norm=0.5, threads=threads, seed=3, patience=None, schedule=None,
        optimizer=optim.Adam(lr=2.0**-6), log_every=1, progress=False, **{"valid": 0.25, **options},
    ).log  # fmt: skip
    digest.add("losses", log.column("train_loss"))
    digest.add("validation losses", log.column("valid_loss", "epoch"))
    digest.add("weights", model.flat_params)
    return from_bytes(to_bytes(model))


def network(digest: Digest, threads: int) -> None:
    """A network that a program trains with its own loop, on numbers and on ids."""
    for inputs in "numbers", "ids":
        net = RNN(7, [23, 17], cell="gru", dropout=0.25, variational_dropout=True, seed=2, **INIT)
        x: NDArray[Any] = samples.numbers(9, 5, 7, seed=8, dtype="float32")
        if inputs == "ids":
            x = samples.integers(7, 9, 5, seed=8)
        optimizer = optim.SGD(lr=2.0**-4, momentum=0.5, nesterov=True, weight_decay=2.0**-10)
        for step in range(4):
            y, _, tape = net.forward(x, threads=threads, dropout_seed=step)
            net.flat_grads[...] = 0
            net.backward(tape, y, threads=threads)  # of half the sum of the squares
            optimizer.update(net.flat_params, net.flat_grads, factor=0.5)
            digest.add(inputs, y)
        digest.add("weights", net.flat_params)
        restored = from_bytes(to_bytes(net))
        digest.add("run", restored.stream().run(x[:, 0]))


def language_model(digest: Digest, threads: int) -> None:
    """Words, and bytes as one-hot vectors, with the state reset every two windows."""
    for unit in "word", "byte":
        corpus = samples.corpus(900, seed=6, unit=unit)
        model = LanguageModel(corpus.vocab, "lstm", 23, dropout=0.25, variational_dropout=True, seed=2, **INIT)
        log = fit(
            model, corpus, epochs=2, batch_size=3, bptt=7, carry=14, clip_norm=0.5, threads=threads, seed=3,
            optimizer=optim.Adam(lr=2.0**-6), schedule=None, reduction="sum", max_updates=20, patience=None,
            log_every=1, progress=False,
        )  # fmt: skip
        digest.add("losses", log.column("train_loss"))
        digest.add("weights", model.flat_params)
        text = corpus.vocab.decode(corpus.valid[:40])
        digest.add("scores", from_bytes(to_bytes(model)).score([text]))


def classifier(digest: Digest, threads: int) -> None:
    """Single labels from the mean of the steps, and independent labels from ids and the last step."""
    X = sequences(3)
    labels = [int(x[0, 0] > x[-1, 0]) + int(x[0, 1] > 0) for x in X]
    model = SequenceClassifier(
        3, classes=["a", "b", "c"], hidden_size=[19, 17], cell="gru", bidirectional=True, pooling="mean", dropout=0.25,
        label_smoothing=0.125, class_weight=[1, 2, 0.5], seed=4, **INIT,
    )  # fmt: skip
    names = ["abc"[label] for label in labels]
    chosen = set(shuffled(np.random.PCG64([4, 0]), COUNT)[: COUNT // 4].tolist())  # not a share of each class
    parts = [([X[i] for i in part], [names[i] for i in part]) for part in (set(range(COUNT)) - chosen, chosen)]
    model = train(model, *parts[0], digest, threads, valid=parts[1])
    digest.add("probabilities", model.predict_proba(X, batch_size=7, threads=threads))
    digest.add("nats", model.evaluate(X, names).nats)
    ids = [samples.integers(9, n, seed=i) for i, n in enumerate(samples.lengths(COUNT))]
    several = np.array([[x[0] > 3, x[-1] > 5] for x in ids], np.float64)
    model = SequenceClassifier(9, 2, 21, cell="lstm", pooling="last", multilabel=True, seed=4, **INIT)
    model = train(model, ids, several, digest, threads)
    digest.add("probabilities", model.predict_proba(ids))
    stream = model.stream()
    digest.add("stream", [stream.step(int(each)).copy() for each in ids[0]])


def tagger(digest: Digest, threads: int) -> None:
    """A label for every step, some of them missing."""
    X = sequences(3)
    y = [np.where(x[:, 1] > 1.5, -1, (x[:, 0] > -1).astype(np.int64)) for x in X]
    model = train(
        SequenceTagger(3, 2, [19, 17], cell="lstm", bidirectional=True, recurrent_dropout=0.25, seed=4, **INIT),
        X, y, digest, threads,
    )  # fmt: skip
    digest.add("probabilities", list(model.predict_proba(X, batch_size=7, threads=threads)))
    digest.add("nats", model.evaluate(X, y).nats)


def regressor(digest: Digest, threads: int) -> None:
    """Values of sequences with each loss, and forecasts."""
    X = sequences(2)
    y = [x[0] for x in X]
    for loss, pooling in ("mse", "last"), ("mae", "mean"), ("huber", "max"):
        model = SequenceRegressor(2, 2, 19, cell="gru", loss=loss, pooling=pooling, dropout=0.25, seed=4, **INIT)
        model = train(model, X, np.array(y), digest, threads)
        digest.add("values", model.predict(X, threads=threads))
    evaluation = model.evaluate(X, np.array(y))
    digest.add("evaluation", [evaluation.loss, evaluation.mse, evaluation.mae])
    model = SequenceRegressor(2, 2, [19, 13], cell="lstm", loss="quantile", pooling=None, seed=4, **INIT)
    model = train(model, X, None, digest, threads)
    digest.add("forecast", model.forecast(X[0], 5))


def forecaster(digest: Digest, threads: int) -> None:
    """Two series with gaps, a season, and columns known so far and ahead; and one whose logarithm is taken."""
    steps = np.arange(90)
    season = np.array([0.0, 1, 3, 2, 1])[steps % 5] + steps / 32
    series = [season[:, None] + samples.numbers(90, 1, seed=i) / 4 for i in range(2)]
    series[0][40:43] = np.nan
    others = [samples.numbers(90, 2, seed=i) for i in (5, 6)]
    model = Forecaster(6, hidden_size=11, dropout=0.25, seed=4, **INIT)
    options: dict[str, Any] = {"epochs": 2, "threads": threads, "progress": False, "lr": 2.0**-6, "schedule": None}
    model.fit(series, others, others, **options)
    digest.add("weights", model.flat_params)
    digest.add("rules", [model.season_, *model.difference_])
    ahead = [samples.numbers(9, 2, seed=i) for i in (7, 8)]
    restored = from_bytes(to_bytes(model))
    digest.add("forecast", restored.forecast(9, future=ahead, quantiles=[0.1, 0.9], threads=threads))
    model = Forecaster(6, hidden_size=11, logarithm=True, gaps="mask", loss="mse", seed=4, **INIT)
    values = np.ldexp(1 + np.abs(series[0][:, 0]), 3)
    digest.add("forecast", model.fit(values, **options).forecast(7))


def sequence_to_sequence(digest: Digest, threads: int) -> None:
    """Texts reversed, with greedy decoding and beam search; and ids from numbers."""
    digits = Vocab.from_text("0123456789")
    source = ["".join(map(str, samples.integers(10, 2 + i % 4, seed=i))) for i in range(COUNT)]
    target = [text[::-1] for text in source]
    model = SequenceToSequence(
        hidden_size=19, num_layers=2, cell="gru", source_vocab=digits, target_vocab=digits, embedding_size=7,
        bidirectional=True, dropout=0.25, seed=4, **INIT,
    )  # fmt: skip
    model = train(model, source, target, digest, threads)
    for beam in 1, 3:
        texts, scores = model.predict(source[:6], beam=beam, scores=True, threads=threads)
        digest.add("texts", texts)
        digest.add("scores", scores)
    ids = [samples.integers(5, i % 3, seed=i) for i in range(COUNT)]
    model = SequenceToSequence(
        2, 5, 19, cell="lstm", real_source=True, reverse_source=True, label_smoothing=0.125, seed=4, **INIT
    )
    model = train(model, sequences(2), ids, digest, threads)
    digest.add("nats", model.evaluate(sequences(2), ids).nats)


KINDS: dict[str, Recipe] = {
    "Forecaster": forecaster,
    "LanguageModel": language_model,
    "RNN": network,
    "SequenceClassifier": classifier,
    "SequenceRegressor": regressor,
    "SequenceTagger": tagger,
    "SequenceToSequence": sequence_to_sequence,
}
