# SPDX-License-Identifier: MIT
"""The promise of bits, as in test_bits.py, for gated cells, both directions, unequal lengths, dropout and whole
sequences."""

import hashlib
from functools import partial

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import network, text

import crnn
from crnn._core import cells as core
from crnn._core import dispatch
from crnn.nn.state import state_arrays

pytestmark = pytest.mark.thread_unsafe  # the instruction set is the process's

INIT = {"recurrent_init": "orthogonal", "input_init": "glorot"}  # defaults may change, these may not
CELLS = list(core.CELLS)
LENGTHS = [5, 1, 8, 8, 3, 7, 2, 8, 4, 6, 5, 8, 1]


def language_model(cell, threads=1, **options):
    """The weights of two layers after 30 updates with all that can be dropped, tied and learnt."""
    corpus = crnn.TextCorpus.from_text(text(1100), valid=0.05, test=0)
    model = crnn.LanguageModel(
        corpus.vocab, cell, [29, 21], embedding_size=21, tie_weights=True, dropout=0.25,
        recurrent_dropout=0.125 if core.CELLS[cell].recurrent_gates else 0.0,
        trainable_initial_state=True, seed=5, **INIT, **options,
    )  # fmt: skip
    crnn.fit(
        model, corpus, epochs=3, max_updates=30, batch_size=5, bptt=11, clip_norm=0.5, threads=threads, seed=3,
        optimizer=crnn.optim.AdamW(lr=1e-2), schedule=crnn.optim.linear(0.1, warmup=5),
    )  # fmt: skip
    return model.flat_params


def draws(*shape, seed=0):
    """Numbers that are the same in every version of NumPy."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1).reshape(shape)


def task(kind, cell, threads=1, **options):
    """The weights of a bidirectional model of sequences of different lengths after two epochs."""
    lengths = [3 + i % 9 for i in range(40)]
    X = [draws(n, 3, seed=i) for i, n in enumerate(lengths)]
    common = dict(
        hidden_size=[19, 17], cell=cell, bidirectional=True, dropout=0.25, variational_dropout=True, seed=4, **INIT
    )
    if kind == "classifier":
        model = crnn.SequenceClassifier(3, 2, pooling="mean", label_smoothing=0.1, **common, **options)
        y = [int(x[0, 0] > x[-1, 1]) for x in X]
    elif kind == "tagger":
        model = crnn.SequenceTagger(3, 2, multilabel=True, **common, **options)
        y = [(x[:, :2] > 0).astype(int) for x in X]
    else:
        model = crnn.SequenceRegressor(3, 2, loss="huber", pooling="max", **common, **options)
        y = [x[0, :2] for x in X]
    model.fit(
        X, y, epochs=2, batch_size=7, clip_norm=1.0, schedule=None, threads=threads, optimizer=crnn.optim.Adam(lr=1e-2)
    )
    return model.flat_params


TRAININGS = {
    "lstm": partial(language_model, "lstm"),
    "gru": partial(language_model, "gru", variational_dropout=True),
    "original_gru": partial(language_model, "original_gru"),
    "min_gru": partial(language_model, "min_gru"),
    "ln_lstm": partial(language_model, "ln_lstm"),
    "tagger, ln_lstm": partial(task, "tagger", "ln_lstm"),
    "classifier, lstm": partial(task, "classifier", "lstm"),
    "tagger, gru": partial(task, "tagger", "gru"),
    "regressor, original_gru": partial(task, "regressor", "original_gru"),
    "classifier, lstm, float64": partial(task, "classifier", "lstm", dtype="float64"),
}
# See test_bits.py.
PINNED = {
    "lstm": "cbf1975748fb7b80558700b615886b37b849093701c1a418f6fc2e886d688d8f",
    "gru": "9a07e56a34a480a051d4054d572654058ce28af9dc9f27444fc9455229b3b2d4",
    "original_gru": "54bc4c651d5e802c75408c3b107df73342d02fd60e52ae00a1a518a6ab3089f4",
    "min_gru": "da5f1980d74de75236f533a7990a60762ac5001ab92c27b29bc7864eb58701d8",
    "ln_lstm": "dcfef4bb4721507365ed586d47d9badfc9ef8ce3bf5c17ff18430bf56063900d",
    "tagger, ln_lstm": "f8ee749ce4b51d7192b534d9d2a7034fcfb433d5892f4ca8593b7bf6a6d22284",
    "classifier, lstm": "c0d1c05eb479259015616eef930091591bd4bd9d43f93dcfe41e8dfa22ae4a2a",
    "tagger, gru": "3f98f8cbd0e236a744ea2d0eac617bee323e86bc23733c08351860b447150bd8",
    "regressor, original_gru": "4217280d9105098d1bc292864c3094a2f517437dda84cc1207eec235c82c4d95",
    "classifier, lstm, float64": "846903a78f63e94154291df5b40b941821a6e0a8729a412abcd8fbf757388b88",
}
trainings = pytest.mark.parametrize("training", TRAININGS)


@trainings
def test_training_gives_the_pinned_bits(isa, training):
    weights = TRAININGS[training]()
    assert np.isfinite(weights).all()
    little_endian = weights.astype(weights.dtype.newbyteorder("<")).tobytes()
    assert hashlib.sha256(little_endian).hexdigest() == PINNED[training]


@trainings
@pytest.mark.parametrize("threads", [2, 8])
def test_training_does_not_depend_on_threads(training, threads):
    assert_same_bits(TRAININGS[training](threads=threads), TRAININGS[training]())


def pass_through(net, x, lengths, dy, threads=1):
    """Results of a forward and a backward pass, those that have the batch on their second axis."""
    y, state, tape = net.forward(x, lengths=lengths, threads=threads)
    dx, dstate = net.backward(tape, dy, threads=threads)
    return [y, dx, *state_arrays(state), *state_arrays(dstate)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "unequal"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_permuted_batch_gives_permuted_results(rng, isa, dtype, cell, lengths):
    T, B, D, H = 8, 13, 11, 37
    net = network(D, H, 2, cell, dtype.name, bidirectional=True)
    x, dy = rng.normal(size=(T, B, D)).astype(dtype), rng.normal(size=(T, B, 2 * H)).astype(dtype)
    order = rng.permutation(B)
    straight = pass_through(net, x, lengths, dy)
    moved = None if lengths is None else np.array(lengths)[order]
    permuted = pass_through(net, x[:, order], moved, dy[:, order], threads=3)
    for one, other in zip(straight, permuted, strict=True):
        assert_same_bits(one[:, order], other)


@pytest.mark.parametrize("cell", CELLS)
def test_a_short_sequence_has_the_bits_it_has_alone(rng, isa, dtype, cell):
    net = network(5, 37, 2, cell, dtype.name, bidirectional=True)
    x = rng.normal(size=(8, 13, 5)).astype(dtype)
    y, state = net(x, lengths=LENGTHS, threads=2)
    for b, length in enumerate(LENGTHS):
        alone, alone_state = net(x[:length, b : b + 1])
        assert_same_bits(y[:length, b : b + 1], alone)
        for one, other in zip(state_arrays(state), state_arrays(alone_state), strict=True):
            assert_same_bits(one[:, b : b + 1], other)


@pytest.mark.parametrize("window", [1, 3, 14])
@pytest.mark.parametrize("cell", CELLS)
def test_windows_with_the_state_carried_give_the_bits_of_the_whole(rng, isa, dtype, cell, window):
    net = network(11, 37, 2, cell, dtype.name)
    x = rng.normal(size=(14, 3, 11)).astype(dtype)
    whole, _, tape = net.forward(x)
    parts, state = [], None
    for t in range(0, 14, window):
        y, state = net(x[t : t + window], state)
        parts.append(y)
    assert_same_bits(np.concatenate(parts), whole)
    for one, other in zip(state_arrays(state), state_arrays(tape.after.value), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("cell", CELLS)
def test_forward_and_backward_have_the_same_bits_on_every_instruction_set(rng, isas, dtype, cell):
    T, B, D, H = 8, 13, 17, 67
    x, dy = rng.normal(size=(T, B, D)).astype(dtype), rng.normal(size=(T, B, 2 * H)).astype(dtype)
    results = []
    for isa in isas:
        dispatch.use_isa(isa)
        net = network(D, H, 2, cell, dtype.name, bidirectional=True)
        results.append([*pass_through(net, x, LENGTHS, dy, threads=2), net.flat_grads.copy()])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same_bits(one, other)
