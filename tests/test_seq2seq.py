# SPDX-License-Identifier: MIT
"""SequenceToSequence: loss and gradients by the oracle, decoding by a plain loop, and bits that depend on nothing."""

import itertools

import numpy as np
import oracle
import pytest
from kernel_tools import assert_same_bits
from model_tools import padded, stir

import crnn
import crnn.models.seq2seq
from crnn._core import cells, dispatch, gemm
from crnn.models.inputs.data import Batch
from crnn.models.outputs.decoding import Steps, beam_search, log_probabilities
from crnn.models.passes.encoder_decoder import EncoderDecoder
from crnn.models.passes.predictor import Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.stream import StreamWeights

CELLS = list(cells.CELLS)
D, V = 5, 6  # source ids or columns; target tokens, without the mark


def seq2seq(cell="lstm", dtype="float64", hidden_size=(7, 4), **options):
    model = crnn.SequenceToSequence(
        D, V, hidden_size, cell=cell, dtype=dtype, seed=3, **options
    )
    stir(model.flat_params)
    return model


def sequences(rng, n=4, longest=6, *, real=False):
    """Sources and targets of different lengths, an empty target among them."""
    steps = rng.permutation(np.arange(n) % longest) + 1
    X = [rng.normal(size=(T, D)) if real else rng.integers(D, size=T) for T in steps]
    y = [rng.integers(V, size=M) for M in rng.permutation(np.arange(n) % 5)]
    return X, y


def batch_of(model, X, y):
    data = model.data(X, y)
    return data.batch(np.arange(len(data)))


# ---- the oracle ------------------------------------------------------------------------------------------------


def part(model, prefix):
    """Parameters of the encoder, or of the decoder and the head, under the names that the oracle knows."""
    head = ["W_hy", "b_y"] if prefix == "decoder." else []
    chosen = [name for name in model.params if name.startswith(prefix)] + head
    return {name.removeprefix(prefix): model.params[name].astype(np.float64) for name in chosen}


def joined(state, directions):
    """One state of the decoder from the encoder's."""
    if isinstance(state, tuple):
        return tuple(joined(part, directions) for part in state)
    pairs = [np.concatenate(state[i : i + directions], axis=1) for i in range(0, len(state), directions)]
    return pairs if isinstance(state, list) else np.stack(pairs)


def parted(dstate, directions):
    if isinstance(dstate, tuple):
        return tuple(parted(part, directions) for part in dstate)
    halves = [half for layer in dstate for half in np.split(layer, directions, axis=1)]
    return halves if isinstance(dstate, list) else np.stack(halves)


def by_the_oracle(model, batch, targets):
    """Losses (T, B), and the gradients of their sum: two networks chained by the state."""
    x, lengths, targets = padded(batch, targets)
    cell, directions = model.encoder.cell, model.encoder.directions
    encoder, decoder = part(model, "encoder."), part(model, "decoder.")
    reading = oracle.rnn_forward(encoder, x, cell=cell, lengths=lengths)
    fed = np.concatenate([np.full((1, targets.shape[1]), V), targets[:-1]])
    counts = (targets != -1).sum(axis=0)
    writing = oracle.rnn_forward(decoder, fed, joined(reading.state, directions), cell, lengths=counts)
    losses, dy = oracle.cross_entropy(writing.y, targets, ignore=-1)
    of_decoder, _, dstate = oracle.rnn_backward(decoder, writing, dy)
    nothing = np.zeros_like(reading.y)
    of_encoder, _, _ = oracle.rnn_backward(encoder, reading, nothing, parted(dstate, directions))
    grads = {f"encoder.{name}": grad for name, grad in of_encoder.items()}
    grads |= {name if name in model.params else f"decoder.{name}": grad for name, grad in of_decoder.items()}
    return losses, grads


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("embedding_size", [None, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_loss_and_gradients_are_those_of_the_oracle(rng, cell, bidirectional, embedding_size, real):
    model = seq2seq(
        cell, bidirectional=bidirectional, embedding_size=embedding_size, real_source=real, scale=False
    )
    batch, targets = batch_of(model, *sequences(rng, real=real))
    assert batch.lengths is not None
    losses, expected = by_the_oracle(model, batch, targets)
    model.flat_grads.fill(1)  # they are added to
    total, count, state = model.loss_and_gradients(batch, targets, reduction="sum")
    assert (count, state) == (np.count_nonzero(targets != -1), None)
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-12)
    assert set(expected) == set(model.grads)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad - 1, expected[name], rtol=1e-9, atol=1e-11, err_msg=name)
        assert np.abs(expected[name]).max() > 1e-4, name
    summed = model.flat_grads - 1
    model.flat_grads.fill(0)
    model.loss_and_gradients(batch, targets)
    np.testing.assert_allclose(model.flat_grads, summed / count, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("sizes", [7, (7, 4)])
def test_equal_lengths_and_equal_sizes_take_the_other_paths_to_the_same_gradients(rng, equal, sizes):
    model = seq2seq(hidden_size=sizes, bidirectional=True)
    X, y = sequences(rng)
    if equal:
        X, y = rng.integers(D, size=(4, 6)), rng.integers(V, size=(4, 3))
    batch, targets = batch_of(model, X, y)
    assert (batch.lengths is None) == equal
    losses, expected = by_the_oracle(model, batch, targets)
    total, *_ = model.loss_and_gradients(batch, targets, reduction="sum")
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-12)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_label_smoothing_mixes_in_the_mean_over_all_tokens(rng):
    model, smooth = seq2seq(), seq2seq(label_smoothing=0.25)
    batch, targets = batch_of(model, *sequences(rng))
    plain = by_the_oracle(model, batch, targets)[0].sum()
    mean = np.mean([_all_at(model, batch, targets, token) for token in range(V + 1)])
    total, *_ = smooth.loss_and_gradients(batch, targets)
    np.testing.assert_allclose(total, 0.75 * plain + 0.25 * mean, rtol=1e-12)


def _all_at(model, batch, targets, token):
    """The sum of -log p(token) at every step, the decoder being fed with the targets."""
    lengths = {"lengths": batch.lengths, "target_lengths": batch.target_lengths}
    _, head = model._predictor.window(batch.x, targets, Workspace(), WindowOptions(**lengths))
    return oracle.cross_entropy(head.outputs, np.full(targets.shape, token), ignore=-1)[0].sum()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_agree_with_differences(rng, cell, real, bidirectional):
    model = seq2seq(cell, "float32", real_source=real, bidirectional=bidirectional, embedding_size=3)
    check = crnn.gradient_check(model, sequences(rng, real=real), samples=12)
    assert check.largest < 1e-6, str(check)
    states = {"state.h[0]", "state.c[0]"} if cell in oracle.WITH_C else {"state[0]"}
    assert set(check.errors) >= {*model.params, *states} | ({"x"} if real else set())
    assert check.skipped <= (check.checked // 10 if cell == "relu" else 0)


@pytest.mark.parametrize("name", ["encoder.layer0.W_hh", "encoder.layer1.reverse.b_h", "decoder.layer0.W_xh", "W_hy"])
def test_a_wrong_gradient_is_found_and_named(rng, monkeypatch, name):
    original = EncoderDecoder.window

    def spoiled(self, x, targets, workspace, options):
        result = original(self, x, targets, workspace, options)
        if options.scale is not None:
            network, _, parameter = name.partition(".")
            grads = {"encoder": self.encoder.grads, "decoder": self.net.grads, "W_hy": {"": self.head.dw}}
            grads[network][parameter].reshape(-1)[0] *= 1.1
        return result

    monkeypatch.setattr(EncoderDecoder, "window", spoiled)
    model = seq2seq(hidden_size=(3, 2), bidirectional=True)
    errors = crnn.gradient_check(model, sequences(rng), samples=None).errors
    assert errors.pop(name) > 1e-6
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("loss", ["last", "mean"])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_gradient_flow_is_that_of_the_encoder(rng, cell, loss):
    """|dL/dh_t| at the first state is known from the oracle: h0 acts through the first step only."""
    model = seq2seq(cell, hidden_size=7)
    X, y = rng.integers(D, size=(3, 6)), [rng.integers(V, size=M) for M in (2, 0, 3)]
    batch, targets = batch_of(model, X, y)
    _, _, targets = padded(batch, targets)
    flow = crnn.gradient_flow(model, (X, y), loss=loss)
    assert flow.norms.shape == flow.saturation.shape == (1, 6)
    cell_params, decoder = part(model, "encoder."), part(model, "decoder.")
    reading = oracle.rnn_forward(cell_params, batch.x, cell=cell)
    fed = np.concatenate([np.full((1, 3), V), targets[:-1]])
    counts = (targets != -1).sum(axis=0)
    writing = oracle.rnn_forward(decoder, fed, reading.state, cell, lengths=counts)
    _, dy = oracle.cross_entropy(writing.y, targets, ignore=-1)
    if loss == "last":
        dy *= np.arange(1, len(targets) + 1)[:, None, None] == counts[:, None]
    dy /= 3 if loss == "last" else counts.sum()
    _, _, dstate = oracle.rnn_backward(decoder, writing, dy)
    dh = dstate[0] if cell in oracle.WITH_C else dstate
    np.testing.assert_allclose(flow.norms[0, -1], np.linalg.norm(dh), rtol=1e-9)


# ---- decoding --------------------------------------------------------------------------------------------------


def logits_after(model, x, tokens):
    """Logits of what follows, by the oracle from the start, of a single sequence."""
    ids = np.asarray(x)
    ids = ids[::-1] if model.reverse_source else ids
    reading = oracle.rnn_forward(part(model, "encoder."), ids[:, None], cell=model.encoder.cell)
    state = joined(reading.state, model.encoder.directions)
    fed = np.array([V, *tokens])[:, None]
    return oracle.rnn_forward(part(model, "decoder."), fed, state, model.encoder.cell).y[-1, 0]


def log_softmax(y):
    return y - y.max() - np.log(np.exp(y - y.max()).sum())


def plain_greedy(model, x, max_length):
    """Token by token, and the mean log-probability."""
    tokens, total = [], 0.0
    while True:
        y = logits_after(model, x, tokens)
        token = int(y.argmax())
        total += log_softmax(y)[token]
        if token == V:
            return tokens, total / (len(tokens) + 1)
        tokens.append(token)
        if len(tokens) == max_length:
            return tokens, total / max_length


def score_of(model, x, tokens, max_length):
    """Mean log-probability of a sequence and its end, if it came to one."""
    tokens = [*tokens, V] if len(tokens) < max_length else list(tokens)
    logs = [log_softmax(logits_after(model, x, tokens[:i]))[token] for i, token in enumerate(tokens)]
    return sum(logs) / len(logs)


def lively(seed=0, **options):
    """A model whose answers differ in length and content."""
    model = seq2seq(hidden_size=(7,), **options)
    model.flat_params[...] *= 2.5
    model.params["b_y"][-1] += 1 + seed * 0.1
    return model


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("reverse_source", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_greedy_decoding_is_that_of_a_plain_loop(rng, cell, reverse_source, bidirectional):
    model = lively(cell=cell, reverse_source=reverse_source, bidirectional=bidirectional)
    X, _ = sequences(rng, 12)
    answers, scores = model.predict(X, max_length=9, scores=True, batch_size=5)
    for x, answer, score in zip(X, answers, scores, strict=True):
        tokens, expected = plain_greedy(model, x, 9)
        assert answer.tolist() == tokens
        assert answer.dtype == np.int32
        np.testing.assert_allclose(score, expected, rtol=1e-10, atol=1e-12)
    plain = model.predict(X, max_length=9)
    assert [a.tolist() for a in plain] == [a.tolist() for a in answers]


def test_answers_have_all_lengths_that_the_tests_need(rng):
    """Guards the tests above: some answers end by themselves, some are cut off."""
    lengths = {len(a) for a in lively(cell="gru").predict(sequences(rng, 60)[0], max_length=9)}
    assert len(lengths) > 2


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_a_beam_of_one_is_greedy(rng, cell):
    model = lively(cell=cell)
    X, _ = sequences(rng, 20)
    data = model._data(model._sequences("X", X), [np.zeros(1, np.int32)] * len(X))
    batch, _ = data.batch(np.arange(len(X)))
    after = model.encoder.run(batch.x, None, batch.lengths, 1, None, None, keep=False).after
    weights = StreamWeights(model._predictor.stream_parts("decoder"))
    found = beam_search(Steps(weights, model._predictor.decoder_start(after).value, len(X), V), 9, 1)
    answers, scores = model.predict(X, max_length=9, scores=True)
    assert [each.tokens for each in found] == [answer.tolist() for answer in answers]
    assert [each.score for each in found] == scores.tolist()


@pytest.mark.parametrize("beam", [2, 3, 5])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_a_beam_finds_nothing_worse_and_scores_it_rightly(rng, cell, beam):
    model = lively(cell=cell)
    X, _ = sequences(rng, 30)
    _, of_greedy = model.predict(X, max_length=7, scores=True)
    answers, scores = model.predict(X, max_length=7, beam=beam, scores=True, batch_size=7)
    assert (scores >= of_greedy).all()
    assert (scores > of_greedy).any()
    for x, answer, score in zip(X, answers, scores, strict=True):
        np.testing.assert_allclose(score, score_of(model, x, answer, 7), rtol=1e-10)


def test_a_beam_as_wide_as_all_there_is_finds_the_best_of_all(rng):
    model = lively(cell="gru", seed=3)
    X, _ = sequences(rng, 5)
    answers, scores = model.predict(X, max_length=2, beam=100, scores=True)
    everything = [tokens for n in range(3) for tokens in itertools.product(range(V), repeat=n)]
    for x, answer, score in zip(X, answers, scores, strict=True):
        of_all = {tokens: score_of(model, x, tokens, 2) for tokens in everything}
        assert tuple(answer.tolist()) == max(of_all, key=of_all.__getitem__)
        np.testing.assert_allclose(score, max(of_all.values()), rtol=1e-10)


def test_ties_go_to_the_smaller_token():
    model = seq2seq(hidden_size=3)
    model.flat_params.fill(0)
    assert model.predict([[1, 2]], max_length=3)[0].tolist() == [0, 0, 0]
    for beam in (2, 4, 50):  # all scores are -log 7
        answers, scores = model.predict([[1, 2], [3]], max_length=3, beam=beam, scores=True)
        assert [a.tolist() for a in answers] == [[0, 0, 0]] * 2
        np.testing.assert_allclose(scores, -np.log(7), rtol=1e-12)


def test_a_model_with_a_single_target_token_is_decoded_too():
    model = crnn.SequenceToSequence(D, 1, 3, seed=1)
    model.params["b_y"][...] = [0.1, 0]
    for beam in (1, 2, 9):
        assert len(model.predict([[1], [2, 3]], max_length=4, beam=beam)) == 2


def test_log_probabilities_are_those_of_the_oracle(rng, dtype):
    y = (rng.normal(size=(5, 9)) * 10).astype(dtype)
    expected = np.log(oracle.softmax(y.astype(np.float64)))
    np.testing.assert_allclose(log_probabilities(y), expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_an_answer_is_no_longer_than_twice_the_longest_target(rng):
    model = seq2seq(hidden_size=5)
    X, y = sequences(rng)
    with pytest.raises(ValueError, match="max_length: expected an integer of at least 1 for an untrained model, got"):
        model.predict(X)
    model.fit(X, y, epochs=1, valid=(X, [[1] * 20] * 4))
    assert model.longest_target == 3
    model.params["b_y"][-1] = -100
    assert [len(answer) for answer in model.predict(X)] == [6] * 4
    assert [len(answer) for answer in model.predict(X, max_length=2, beam=3)] == [2] * 4
    model.fit(X, [[1] * 8] * 4, epochs=1)
    assert model.longest_target == 8
    model.fit(X, y, epochs=1, warm_start=True)
    assert model.longest_target == 8
    model.fit(X, y, epochs=1)
    assert model.longest_target == 3
    assert crnn.SequenceToSequence(D, V, 5).fit(X, [[]] * 4, epochs=1).log.epochs == 1


# ---- evaluation ------------------------------------------------------------------------------------------------


def test_evaluation_is_that_of_the_oracle_and_of_the_predictions(rng):
    model = lively(cell="gru")
    X, _ = sequences(rng, 40)
    y = model.predict(X, max_length=9)
    y = [ids[:-1] if i % 3 else ids for i, ids in enumerate(y)]
    batch, targets = batch_of(model, X, y)
    losses, *_ = by_the_oracle(model, batch, targets)
    found = model.evaluate(X, y, batch_size=7)
    assert found.count == np.count_nonzero(targets != -1)
    np.testing.assert_allclose(found.nats, losses.sum() / found.count, rtol=1e-12)
    assert found.loss == found.nats
    hits = [int(logits_after(model, x, ids[:i]).argmax()) == token
            for x, ids in zip(X, y, strict=True) for i, token in enumerate([*ids, V])]  # fmt: skip
    assert found.accuracy == np.mean(hits)
    answers = model.predict(X, max_length=20)
    assert found.exact_match == np.mean([a.tolist() == b.tolist() for a, b in zip(answers, y, strict=True)])
    assert 0.1 < found.exact_match < 0.9
    assert model.evaluate(model.data(X, y)) == found


def test_a_score_is_the_negative_of_the_nats(rng):
    model = lively(cell="tanh", dtype="float32")
    X, _ = sequences(rng, 8)
    answers, scores = model.predict(X, max_length=30, scores=True)
    for x, answer, score in zip(X, answers, scores, strict=True):
        if len(answer) < 30:
            np.testing.assert_allclose(model.evaluate([x], [answer]).nats, -score, rtol=1e-5)


# ---- bits ------------------------------------------------------------------------------------------------------


def trained(threads=1, batch_size=8, **options):
    rng = np.random.default_rng(5)
    X, y = sequences(rng, 40)
    model = crnn.SequenceToSequence(
        D, V, 19, 2, "gru", bidirectional=True, embedding_size=4, dropout=0.2, recurrent_dropout=0.1, seed=5
    )
    model.fit(X, y, valid=0.2, epochs=3, batch_size=batch_size, threads=threads, clip_norm=0.5, **options)
    return model


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_training_does_not_depend_on_threads(isa, threads):
    assert_same_bits(trained(threads).flat_params, trained().flat_params)


@pytest.mark.thread_unsafe
def test_training_and_answers_have_the_same_bits_on_every_instruction_set(isas, rng):
    X, y = sequences(rng, 40)
    weights, results = [], set()
    for isa in isas:
        dispatch.use_isa(isa)
        model = trained()
        weights.append(model.flat_params.copy())
        answers, scores = model.predict(X, beam=3, scores=True)
        results.add((tuple(map(bytes, answers)), scores.tobytes(), model.evaluate(X, y)))
    for other in weights[1:]:
        assert_same_bits(other, weights[0])
    assert len(results) == 1


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("real", [False, True])
def test_answers_do_not_depend_on_threads_batches_or_order(rng, real, beam):
    model = lively(dtype="float64" if real else "float32", bidirectional=True, real_source=real)
    X, y = sequences(rng, 29, real=real)
    order = rng.permutation(len(X))
    answers, scores = model.predict(X, max_length=9, beam=beam, scores=True)
    found = model.evaluate(X, y)
    for options in ({"threads": 3}, {"batch_size": 1}, {"batch_size": 7, "threads": 2}):
        again, of_again = model.predict(X, max_length=9, beam=beam, scores=True, **options)
        assert [a.tolist() for a in again] == [a.tolist() for a in answers]
        assert_same_bits(of_again, scores)
        turned, of_turned = model.predict([X[i] for i in order], max_length=9, beam=beam, scores=True, **options)
        assert [a.tolist() for a in turned] == [answers[i].tolist() for i in order]
        assert_same_bits(of_turned, scores[order])
        assert model.evaluate(X, y, **options) == found
        assert model.evaluate([X[i] for i in order], [y[i] for i in order], **options) == found


def test_nothing_is_computed_for_padding(rng):
    model = seq2seq()
    X, y = sequences(rng)
    batch, targets = batch_of(model, X, y)
    lengths = {"lengths": batch.lengths, "target_lengths": batch.target_lengths}
    tapes, head = model._predictor.window(batch.x, targets, Workspace(), WindowOptions(**lengths))
    assert tapes[0].y.shape[:2] == (1, sum(map(len, X)))
    assert tapes[1].y.shape[:2] == head.outputs.shape[:2] == (1, sum(map(len, y)) + len(y))


def test_a_workspace_changes_nothing(rng):
    model, space = seq2seq(bidirectional=True), Workspace()
    for n in (4, 4, 3, 4):
        batch, targets = batch_of(model, *sequences(rng, n))
        results = []
        for workspace in (None, space):
            model.flat_grads.fill(0)
            total, *_ = model.loss_and_gradients(batch, targets, workspace=workspace)
            results.append((total, model.flat_grads.copy()))
        assert results[0][0] == results[1][0]
        assert_same_bits(results[0][1], results[1][1])


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("rubbish", [np.nan, np.inf])
@pytest.mark.parametrize("cell", CELLS)
def test_what_memory_held_before_does_not_matter(rng, monkeypatch, cell, rubbish):
    """Not even as a warning: nothing is computed with what lies beyond the sequences' ends."""
    batch, targets = batch_of(seq2seq(), *sequences(rng, 9))
    results, fresh = [], gemm.aligned_empty

    def spoiled(shape, dtype):
        array = fresh(shape, dtype)
        array.fill(rubbish if array.dtype.kind == "f" else 255)  # bytes of packed weights, of which NaN consists
        return array

    for allocate in (fresh, spoiled):
        recurrent_dropout = 0.2 if cells.CELLS[cell].recurrent_gates else 0.0
        model = seq2seq(cell, embedding_size=3, dropout=0.3, recurrent_dropout=recurrent_dropout)
        monkeypatch.setattr(gemm, "aligned_empty", allocate)
        total, *_ = model.loss_and_gradients(batch, targets, dropout_seed=1, threads=2)
        results.append(np.append(model.flat_grads, total))
        monkeypatch.undo()
    assert_same_bits(results[1], results[0])


def test_dropout_acts_in_encoder_and_decoder_and_only_when_training(rng):
    model = seq2seq(dropout=0.5)
    batch, targets = batch_of(model, *sequences(rng))
    losses = {model.loss_and_gradients(batch, targets, dropout_seed=seed)[0] for seed in (1, 2, [1, 2], None)}
    assert len(losses) == 4
    assert model.loss_and_gradients(batch, targets)[0] == model.loss_and_gradients(batch, targets)[0]
    lengths = {"lengths": batch.lengths, "target_lengths": batch.target_lengths}
    tapes, _ = model._predictor.window(batch.x, targets, Workspace(), WindowOptions(dropout_seed=1, **lengths))
    masks = [tape.layers[1].mask[0] for tape in tapes]
    assert all((mask == 0).any() for mask in masks)
    rows = min(map(len, masks))
    assert not np.array_equal(masks[0][:rows], masks[1][:rows])


# ---- learning --------------------------------------------------------------------------------------------------


def test_it_learns_to_copy_and_strings_and_ids_are_the_same(rng):
    vocab = crnn.Vocab.from_text("abcd")
    texts = ["".join(rng.choice(list("abcd"), rng.integers(1, 6))) for _ in range(300)]
    ids = [vocab.encode(text) for text in texts]
    fit = {"epochs": 25, "batch_size": 16, "optimizer": crnn.optim.Adam(lr=1e-2)}
    of_texts = crnn.SequenceToSequence(hidden_size=24, cell="gru", source_vocab=vocab, target_vocab=vocab)
    log = of_texts.fit(texts, texts, valid=0.1, **fit).log
    fit["optimizer"] = crnn.optim.Adam(lr=1e-2)
    of_ids = crnn.SequenceToSequence(4, 4, 24, cell="gru")
    of_ids.fit(ids, ids, valid=0.1, **fit)
    assert_same_bits(of_texts.flat_params, of_ids.flat_params)
    assert log.column("train_loss")[-1] < 0.2
    assert of_texts.evaluate(texts, texts).exact_match > 0.9
    assert of_texts.evaluate(texts, texts) == of_ids.evaluate(ids, ids)
    assert [vocab.encode(t).tolist() for t in of_texts.predict(texts)] == [a.tolist() for a in of_ids.predict(ids)]


def test_numbers_are_standardised_and_learnt_from(rng):
    """Count the large values, in units that the model has to find out."""
    X = [1e4 + 1e3 * rng.normal(size=(rng.integers(1, 5), 1)) for _ in range(300)]
    y = [[0] * int((x > 1e4).sum()) for x in X]
    model = crnn.SequenceToSequence(1, 1, 16, cell="gru", real_source=True, seed=1)
    model.fit(X, y, valid=None, epochs=30, optimizer=crnn.optim.Adam(lr=1e-2))
    np.testing.assert_allclose(model.scalings["x"].mean, np.concatenate(X).mean(), rtol=1e-9)
    assert model.evaluate(X, y).exact_match > 0.9
    series = [np.rint(x[:, 0]).astype(int) for x in X[:5]]  # integers, and one axis less
    assert len(model.predict(series)) == 5


def test_words_and_bytes_are_tokens_too(rng):
    words = crnn.Vocab.from_text("one two three", unit="word")
    octets = crnn.Vocab.from_text("1", unit="byte")
    model = crnn.SequenceToSequence(hidden_size=16, source_vocab=octets, target_vocab=words, cell="gru")
    model.fit([b"1", b"12", "123"] * 8, ["one", "one two", "one two three"] * 8, epochs=30,
              optimizer=crnn.optim.Adam(lr=2e-2))  # fmt: skip
    assert model.predict(["12", b"123"]) == ["one two", "one two three"]


# ---- bad input -------------------------------------------------------------------------------------------------

VOCAB = crnn.Vocab.from_text("abc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "input_size: expected it or a source_vocab, got neither"),
        ({"input_size": 3}, "output_size: expected it or a target_vocab, got neither"),
        ({"input_size": 0, "output_size": 3}, "input_size: expected an integer of at least 1, got 0"),
        ({"input_size": 3, "output_size": True}, "output_size: expected an integer of at least 1, got True"),
        ({"input_size": 4, "source_vocab": VOCAB, "output_size": 2}, "input_size: expected 3, as many as source_vocab"),
        ({"source_vocab": VOCAB, "output_size": 2, "real_source": True}, "real_source: expected False with"),
        ({"source_vocab": "abc", "output_size": 2}, "source_vocab: expected a Vocab, got str"),
        ({"bidirectional": 1}, "bidirectional: expected True or False, got 1"),
        ({"reverse_source": None}, "reverse_source: expected True or False, got None"),
        ({"cell": "lstmm"}, "cell: expected one of tanh, relu, lstm, gru, "),
        ({"hidden_size": 0}, "hidden_size: expected an integer of at least 1, got 0"),
        ({"embedding_size": -1}, "embedding_size: expected an integer of at least 1, got -1"),
        ({"dropout": 1.0}, "dropout: expected a probability"),
        ({"label_smoothing": 1}, "label_smoothing: expected a number of at least 0 and below 1, got 1"),
        ({"longest_target": 0}, "longest_target: expected an integer of at least 1, got 0"),
        ({"dtype": "int32"}, "dtype: expected float32 or float64, got 'int32'"),
        ({"recurrent_init": "othogonal"}, "recurrent_init: expected one of"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    if arguments and not {"input_size", "output_size"} & set(arguments):
        arguments = {"input_size": 3, "output_size": 3} | arguments
    with pytest.raises((ValueError, TypeError)) as caught:
        crnn.SequenceToSequence(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1, 2]], [[1], [2]], "y: expected one entry for each of 1 sequences, got 2"),
        ([], [], "X: expected at least one sequence, got none"),
        ([[1, 5]], [[1]], r"X[0]: expected ids from 0 to 4, got 1 to 5"),
        ([[1], []], [[1], [2]], "X[1]: expected"),
        ([[0.5]], [[1]], "X[0]: expected integer ids (T,), got float64 of shape (1,)"),
        ([[1]], [[6]], "y[0]: expected ids from 0 to 5, got 6 to 6"),
        ([[1]], [[-1]], "y[0]: expected ids from 0 to 5, got -1 to -1"),
        ([[1], [1]], [[1], 3], "y[1]: expected integer ids (M,), got int64 of shape ()"),
        ([[1]], [[0.5]], "y[0]: expected integer ids (M,), got float64 of shape (1,)"),
        ("abc", [[1]], "X: expected a list of arrays"),
        ([[1]], "abc", "y: expected a list or an array of targets, got str"),
        ([[1]], None, "y: expected targets; this model requires y to be passed, but the target y is None"),
    ],
)
def test_bad_ids_are_named(X, y, message):
    model = seq2seq()
    for call in (model.fit, model.evaluate):
        with pytest.raises((ValueError, TypeError)) as caught:
            call(X, y)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (["ab", "ax"], ["a", "b"], "X[1]: char 'x' at position 1 is not in the vocabulary"),
        (["ab"], ["a!"], "y[0]: char '!' at position 1 is not in the vocabulary"),
        (["ab", ""], ["a", "b"], "X[1]: expected a text of at least one char, got none"),
        (["ab", 3], ["a", "b"], "X[1]: expected str for unit 'char', got int"),
        ("ab", ["a"], "X: expected a list of strings, got str"),
        (["ab"], "a", "y: expected a list or an array of targets, got str"),
        ([], [], "X: expected at least one string, got none"),
        (["ab"], ["a", "b"], "y: expected one entry for each of 1 sequences, got 2"),
    ],
)
def test_bad_strings_are_named(X, y, message):
    model = crnn.SequenceToSequence(hidden_size=3, source_vocab=VOCAB, target_vocab=VOCAB)
    for call in (model.fit, model.evaluate):
        with pytest.raises((ValueError, TypeError)) as caught:
            call(X, y)
        assert message in str(caught.value)


def test_bad_validation_data_are_named():
    model = crnn.SequenceToSequence(hidden_size=3, source_vocab=VOCAB, target_vocab=VOCAB)
    for valid, message in [
        ((["ab", "x"], ["a", "b"]), "valid[0][1]: char 'x' at position 0 is not in the vocabulary"),
        ((["ab"], ["ax"]), "valid[1][0]: char 'x' at position 1 is not in the vocabulary"),
        ((["ab"], ["a", "b"]), "valid[1]: expected one entry for each of 1 sequences, got 2"),
    ]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            model.fit(["ab"], ["a"], valid=valid)
        assert message in str(caught.value)


def test_numbers_are_wanted_where_the_source_is_real():
    model = seq2seq(real_source=True)
    for X, message in [
        ([[1, 2]], "X[0]: expected numbers of shape (T, 5), got int64 of shape (2,)"),
        ([np.zeros((3, 4))], "X[0]: expected numbers of shape (T, 5), got float64 of shape (3, 4)"),
        ([np.full((3, 5), np.nan)], "X[0]: expected finite numbers, got nan at (0, 0)"),
    ]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            model.predict(X, max_length=2)
        assert message in str(caught.value)


def test_targets_of_a_batch_are_tokens_without_padding(rng):
    model = seq2seq()
    batch = Batch(rng.integers(D, size=(3, 2)), None)
    for targets in ([[1, -1], [6, -1]], [[1, -1], [6, 6]], [[1, 2], [-1, 6], [6, -1]]):
        with pytest.raises(ValueError, match="y: expected tokens, got -1"):
            model.loss_and_gradients(batch, np.array(targets))
    for targets in ([[1, 7]], [[-2, 1]]):
        with pytest.raises(ValueError, match="expected ids from 0 to 6"):
            model.loss_and_gradients(batch, np.array(targets))
    for targets in (np.zeros((0, 2), int), np.zeros((2, 3), int), np.zeros((2, 2)), np.zeros(2, int)):
        with pytest.raises(ValueError, match="y: expected integers of shape"):
            model.loss_and_gradients(batch, targets)
    with pytest.raises(ValueError, match="reduction: expected mean or sum, got 'max'"):
        model.loss_and_gradients(batch, np.array([[1, 2]]), reduction="max")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "beam: expected an integer of at least 1, got 0"),
        ({"beam": 1.5}, "beam: expected an integer of at least 1, got 1.5"),
        ({"max_length": 0}, "max_length: expected an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"threads": 0}, "threads: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_options_of_predict_are_named(options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        seq2seq().predict([[1, 2]], **({"max_length": 3} | options))
    assert message in str(caught.value)


def test_fit_wants_its_own_data(rng):
    model = seq2seq()
    with pytest.raises(TypeError, match="data: expected the model's own data, got list; call the model's fit"):
        crnn.fit(model, [[1, 2]])
    X, y = sequences(rng)
    with pytest.raises(TypeError, match="valid: expected the model's own data"):
        crnn.fit(model, model.data(X, y), valid=[1, 2])
