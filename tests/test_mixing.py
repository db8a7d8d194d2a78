# SPDX-License-Identifier: MIT
"""What an archive's symbols are predicted with: the mixer against the same in Python's integers, and the network that
learns windows against updates that are written out."""

import math

import numpy as np
import oracle_mixing as oracle
import pytest

import crnn
from crnn._core.coder import Decoder, Encoder, frequencies
from crnn._core.loss import softmax
from crnn.compression.mixing import Mixer, continued
from crnn.compression.network import GIVEN, NEW, Learning, WindowLearner
from crnn.compression.predictor import Predictor, vocabulary_of
from crnn.stream.stream import Stream, StreamWeights


def text(size, seed=0):
    """Lines with words that repeat, numbers in columns, letters of both cases and bytes that are no ASCII."""
    rng = np.random.default_rng(seed)
    words = ["the", "Cat", "sat\n", "on", "mat,", "a\xe9", "\n12 ", "0 7", "under", "tables.", "the mat, the Cat"]
    return " ".join(words[i] for i in rng.integers(0, len(words), size)).encode("latin-1")[:size]


CONTENTS = {
    "text": text(1500),
    "two symbols": (np.random.default_rng(1).random(600) < 0.1).astype(np.uint8).tobytes(),
    "one of each": bytes(range(256)) * 2,
    "noise": np.random.default_rng(2).bytes(500),
    "a period": b"abcdefghijklmnopqrstuvwxyz\n" * 30,
    "halves": b"\x00\xff" * 200,
}


def symbols_of(content):
    alphabet = bytes(sorted(set(content)))
    return alphabet, np.array([alphabet.index(c) for c in content], np.int32)


def model_of(alphabet, **options):
    return crnn.LanguageModel(vocabulary_of(alphabet), **{"cell": "lstm", "hidden_size": 7, "seed": 3} | options)


def stream_of(model):
    return Stream(StreamWeights(model._stream_parts()))


def bytes_by_definition(decisions):
    """The range coder's number with all its digits, from (probability of a 1 in 2^24, bit)."""
    low, width, shifts = 0, (1 << 64) - 1, 0
    for one, bit in decisions:
        unit = width >> 24
        low, width = low + unit * (0 if bit else one), unit * (one if bit else (1 << 24) - one)
        while width < 1 << 56:
            low, width, shifts = low << 8, width << 8, shifts + 1
    return ((low + (1 << 56) - 1) >> 56).to_bytes(shifts + 1, "big")


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_bytes_are_those_of_python_s_integers_and_are_decoded(name, trained):
    alphabet, symbols = symbols_of(CONTENTS[name])
    model = model_of(alphabet)
    mixer, encoder = Mixer(alphabet, len(symbols), trained), Encoder()
    assert mixer.encode(encoder, stream_of(model), 0, symbols, np.empty((1, 14), np.float32), len(symbols))
    archive = encoder.finish()

    stream, before = stream_of(model), 0
    expected = oracle.Mixer(alphabet, line_bits=15, position_bits=12, trained=trained)
    for symbol in symbols:
        p = stream.step(before)[None]
        softmax(p, p)
        expected.code(frequencies(p)[0].tolist(), symbol)
        before = int(symbol)
    assert archive == bytes_by_definition(expected.decisions)

    found = np.empty_like(symbols)
    decoder = Decoder(archive)
    states = np.empty((1, 14), np.float32)
    assert Mixer(alphabet, len(symbols), trained).decode(decoder, stream_of(model), 0, found, states, len(symbols))
    assert np.array_equal(found, symbols)
    assert decoder.ended()


def test_the_tables_of_logits_are_the_logistic_function_s():
    for x, p in oracle.SQUASH.items():
        assert abs(p - 65536 / (1 + math.exp(-x / 256))) < 1.01
    for i, x in enumerate(oracle.STRETCH):
        p = (16 * i + 8) / 65536
        assert abs(x - 256 * math.log(p / (1 - p))) < 2 + 256 / (65536 * p * (1 - p))
    assert len(oracle.HISTORIES) == 251


def test_what_the_network_says_matters():
    """Symbols that it expects take fewer bytes than those that it does not."""
    alphabet, sizes = b"ab", []
    for value in (0, 1):
        model = model_of(alphabet)
        model.params["b_y"][...] = [3, -3]
        encoder = Encoder()
        states = np.empty((1, 14), np.float32)
        Mixer(alphabet, 8).encode(encoder, stream_of(model), 0, np.full(8, value, np.int32), states, 8)
        sizes.append(len(encoder.finish()))
    assert sizes[0] < sizes[1]


def test_the_states_before_each_row_are_the_stream_s():
    alphabet, symbols = symbols_of(CONTENTS["text"])
    model = model_of(alphabet, num_layers=2)
    stream, reader = stream_of(model), stream_of(model)
    states = np.empty((3, 28), np.float32)
    Mixer(alphabet, 50).encode(Encoder(), stream, 2, symbols[:50], states, 20)
    read = [2, *symbols[:50].tolist()]
    for step in range(50):
        if step % 20 == 0:
            h, c = reader.state
            assert np.array_equal(states[step // 20], np.concatenate([h.ravel(), c.ravel()]))
        reader.step(read[step])
    for found, expected in zip(stream.state, reader.state, strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("options", [{}, {"cell": "gru", "num_layers": 2}, {"hidden_size": [5, 9]}], ids=str)
def test_windows_are_learnt_one_later_by_rows_that_begin_with_the_states_of_the_stream(options):
    alphabet, symbols = symbols_of(CONTENTS["text"])
    how = Learning(rows=3, steps=5, lr=0.01, last=0.5, warm_up=4, clip_norm=0.1, replay=0)
    learner = WindowLearner(150, model_of(alphabet, **options), how)
    expected, optimizer = model_of(alphabet, **options), crnn.optim.Adam(lr=0.01)
    mixer, states_before = Mixer(alphabet, 150), []
    for k in range(10):
        window, states = symbols[15 * k : 15 * k + 15], learner.new_states(15)
        assert mixer.encode(Encoder(), learner.stream, learner.before, window, states, 5)
        learner.learn()
        learner.read(window, states)
        states_before.append(states)
        if k == 0:
            continue
        inputs = np.concatenate([[0], symbols])[15 * k - 15 : 15 * k].reshape(3, 5).T
        targets = symbols[15 * k - 15 : 15 * k].reshape(3, 5).T
        state = expected.net.stack.new_state(3)
        state.set_arrays(np.split(states_before[k - 1], np.cumsum([a.shape[1] for a in state.arrays])[:-1], axis=1))
        expected.loss_and_gradients(inputs, targets, state.value)
        factor = min(1.0, 0.1 / crnn.optim.global_norm(expected.flat_grads))
        scale = (1 - 0.5 * (k - 1) / 10) * min(1, k / 4)
        optimizer.update(expected.flat_params, expected.flat_grads, factor=factor, lr_scale=scale)
        expected.flat_grads.fill(0)
        assert np.array_equal(learner.model.flat_params, expected.flat_params)
    following = learner.stream.step(1)
    same = stream_of(expected)
    same.state = learner.stream.state
    assert not np.array_equal(following, same.step(1))  # the state is another one now
    again = continued(learner.stream, StreamWeights(expected._stream_parts()))
    assert np.array_equal(again.step(2), learner.stream.step(2))


def test_earlier_windows_are_learnt_again_and_so_many_are_kept():
    alphabet, symbols = symbols_of(CONTENTS["text"])
    learner = WindowLearner(100, model_of(alphabet), Learning(rows=2, steps=5, replay=2, most_kept=3))
    learnt, update = [], learner._update

    def noted(x, targets, states):
        learnt.append(targets.T.ravel().tolist())
        update(x, targets, states)

    learner._update = noted
    windows = [symbols[10 * k : 10 * k + 10].tolist() for k in range(8)]
    for k, window in enumerate(windows):
        learner.read(np.array(window, np.int32), learner.new_states(10) * 0)
        learner.learn()
        assert learnt[-3] == window
        assert all(again in windows[max(0, k - 2) : k + 1] for again in learnt[-2:])
    assert len(learnt) == 24
    assert len(learner._earlier) == 3
    assert learner._optimizer.updates == 24


def test_weights_that_are_not_finite_are_not_learnt():
    alphabet, symbols = symbols_of(CONTENTS["text"])
    model = model_of(alphabet)
    learner = WindowLearner(80, model, NEW)
    states = learner.new_states(80)
    learner.read(symbols[:80], np.full_like(states, 1e38))
    before = model.flat_params.copy()
    model.flat_params[:] = np.nan
    learner.learn()
    assert np.isnan(model.flat_params).all()
    assert not model.flat_grads.any()
    assert not np.isnan(before).any()


@pytest.mark.parametrize("given", [False, True])
def test_encoder_and_decoder_learn_the_same_with_any_number_of_threads(given):
    alphabet, symbols = symbols_of(text(900, seed=4))

    def predictor(threads):
        model = model_of(alphabet, num_layers=2, cell="gru") if given else None
        return Predictor(len(symbols), alphabet, model=model, threads=threads)

    encoder, encoding = Encoder(), predictor(1)
    for start in range(0, len(symbols), encoding.window):
        encoding.encode(encoder, symbols[start : start + encoding.window])
    archive = encoder.finish()
    for threads in (1, 2, 3):
        decoder, decoding = Decoder(archive), predictor(threads)
        found = []
        for start in range(0, len(symbols), decoding.window):
            window = np.zeros(len(symbols[start : start + decoding.window]), np.int32)
            assert decoding.decode(decoder, window)
            found += window.tolist()
        assert found == symbols.tolist()
        assert decoder.ended()
        weights = [each._network.model.flat_params for each in (encoding, decoding)]
        assert np.array_equal(*weights)
    assert GIVEN.rows == NEW.rows


def test_a_window_that_ends_too_early_is_not_decoded():
    alphabet, symbols = symbols_of(CONTENTS["noise"])
    encoder, states = Encoder(), np.empty((1, 14), np.float32)
    model = model_of(alphabet)
    Mixer(alphabet, 500).encode(encoder, stream_of(model), 0, symbols, states, 500)
    decoder = Decoder(encoder.finish()[:100])
    assert not Mixer(alphabet, 500).decode(decoder, stream_of(model), 0, np.empty_like(symbols), states, 500)


def test_tables_have_a_largest_size():
    assert Mixer(b"ab", 1 << 40).nbytes == Mixer(b"ab", 1 << 30).nbytes < 120e6
    assert Mixer(b"ab", 1).nbytes < 13e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"before": 3}, "symbols: expected from 0 to 2"),
        ({"before": -1}, "symbols: expected from 0 to 2"),
        ({"symbols": np.array([0, 3], np.int32)}, "symbols: expected from 0 to 2"),
        ({"symbols": np.array([-1, 0], np.int32)}, "symbols: expected from 0 to 2"),
        ({"symbols": np.zeros(2, np.int64)}, "symbols"),
        ({"states": np.empty((2, 14), np.float32)}, "states"),
        ({"states": np.empty((1, 13), np.float32)}, "states"),
        ({"states": np.empty((1, 14))}, "states"),
        ({"steps": 0}, "steps"),
        ({"stream": stream_of(model_of(b"abcd"))}, "stream: expected one of 3 outputs in float32"),
        ({"stream": stream_of(model_of(b"abc", dtype="float64"))}, "stream: expected one of 3 outputs in float32"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    arguments = {"stream": stream_of(model_of(b"abc")), "before": 0, "symbols": np.zeros(2, np.int32)}
    arguments |= {"states": np.empty((1, 14), np.float32), "steps": 2} | change
    for coder, method in ((Encoder(), "encode"), (Decoder(b"1234"), "decode")):
        if method == "decode" and "0 to 2" in message and "symbols" in change:
            continue  # they are not read
        with pytest.raises((ValueError, TypeError), match=message):
            getattr(Mixer(b"abc", 2), method)(coder, *arguments.values())


@pytest.mark.parametrize("alphabet", [b"", b"a", b"ba", b"aa"])
def test_alphabets_that_do_not_rise_are_refused(alphabet):
    with pytest.raises(ValueError, match="alphabet: expected from 2 to 256 rising bytes"):
        Mixer(alphabet, 10)


def test_a_stream_does_not_continue_with_the_weights_of_another_network():
    with pytest.raises(ValueError, match="weights: expected those of the network"):
        continued(stream_of(model_of(b"abc")), StreamWeights(model_of(b"abc", hidden_size=8)._stream_parts()))
