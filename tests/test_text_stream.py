# SPDX-License-Identifier: MIT
"""Streams of text: however a text is cut, its numbers are those of the whole; they write what `generate` writes."""

import copy
import itertools
import pickle
import re
import threading
import time
import tracemalloc

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model as plain_model
from stream_tools import CELLS, language_model

import crnn
from crnn._core import loss
from crnn.text.reading import TextError

cells = pytest.mark.parametrize("cell", CELLS)
TEXT = "hello, new world!\nold row here\nwello hold!"


def softmax(logits):
    p = np.array(logits[None])
    loss.softmax(p, p)
    return p[0]


def forward(model, ids):
    """Logits (N, V) of the whole text at once."""
    return model.forward(np.asarray(ids)[:, None])[0][:, 0]


def all_losses(model, ids):
    """Nats of every token but the first."""
    return model.losses(ids[:-1, None], ids[1:, None])[0][:, 0]


# ---- reading -----------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize(
    "options", [{}, {"embedding_size": 21, "tie_weights": True}, {"trainable_initial_state": True}], ids=str
)
def test_a_text_in_pieces_has_the_bits_of_the_whole(cell, options):
    model = language_model(cell, **options)
    ids = model.vocab.encode(TEXT)
    logits = forward(model, ids)
    stream = model.stream()
    stream.feed(TEXT[:1])
    nats = []
    for start in range(1, len(TEXT), 7):
        nats.append(stream.surprisal(TEXT[start : start + 7]))
        assert_same_bits(stream.next_probabilities(), softmax(logits[min(start + 6, len(TEXT) - 1)]))
    assert_same_bits(np.concatenate(nats), all_losses(model, ids))


def test_every_way_of_reading_leaves_the_stream_at_the_same_place():
    model = language_model("lstm")
    ids = model.vocab.encode("hello")
    ways = {
        "feed": lambda s: s.feed("hello"),
        "letters": lambda s: [s.feed(letter) for letter in "hello"],
        "ids": lambda s: s.feed(ids),
        "list": lambda s: s.feed(ids.tolist()),
        "surprisal": lambda s: s.feed("h").surprisal("ello"),
        "step": lambda s: [s.step(id) for id in ids.tolist()],
        "step out": lambda s: [s.step(id, out=np.empty(12, "f4")) for id in ids],
        "run": lambda s: s.run(ids),
        "mixed": lambda s: [s.feed("he"), s.run(ids[2:3]), s.surprisal("l"), s.step(int(ids[4]))],
        "reset": lambda s: [s.feed("world"), s.reset(), s.feed("hello")],
    }
    expected = model.stream().feed("hello")
    for name, read in ways.items():
        stream = model.stream()
        read(stream)
        assert_same_bits(stream.next_probabilities(), softmax(forward(model, ids)[-1]))
        for mine, theirs in zip(stream.state, expected.state, strict=True):
            assert_same_bits(mine, theirs)
        assert stream.generate(20, seed=3) == expected.generate(20, seed=3), name


def test_steps_and_runs_give_the_logits_of_forward():
    model = language_model("gru", hidden_size=[21, 9])
    ids = model.vocab.encode(TEXT)
    stream, logits, out = model.stream(), forward(model, ids), np.empty(12, "f4")
    for id, expected in zip(ids[:20], logits, strict=False):
        assert stream.step(id, out=out) is out
        assert_same_bits(out, expected)
    assert_same_bits(stream.run(ids[20:]), logits[20:])
    rows = np.empty_like(logits)
    assert model.stream().run(ids, out=rows) is rows
    assert_same_bits(rows, logits)
    kept = stream.step(3)
    before = kept.copy()
    stream.feed("hello")
    assert_same_bits(kept, before)  # the caller's own


def test_feed_returns_the_stream():
    stream = language_model("tanh").stream()
    assert stream.feed("hel").feed("lo") is stream


def test_surprise_agrees_with_score_and_evaluate():
    model = language_model("lstm")
    [score] = model.score(["hello"], prompt="\n")
    nats = model.stream().feed("\n").surprisal("hello")
    assert nats.dtype == np.float32
    assert loss.sum(nats) / 5 == score
    nats = model.stream().feed(TEXT[0]).surprisal(TEXT[1:])
    assert nats.mean(dtype=float) == pytest.approx(model.evaluate(TEXT).nats, rel=1e-6)


def test_a_long_text_is_read_in_little_memory():
    model = language_model("tanh", hidden_size=5)
    ids = np.random.default_rng(0).integers(12, size=150_000).astype(np.int32)
    stream = model.stream().feed(ids[:1])
    tracemalloc.start()
    try:
        nats = stream.copy().surprisal(ids[1:])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6  # all logits at once are 7.2 MB
    assert_same_bits(nats, all_losses(model, ids))
    assert_same_bits(stream.feed(ids[1:]).next_probabilities(), softmax(forward(model, ids)[-1]))


def test_nothing_to_read_changes_nothing():
    stream = language_model("gru").stream()
    for nothing in ("", [], np.empty(0, np.int32)):
        stream.feed(nothing)
        assert stream.surprisal(nothing).shape == (0,)
    with pytest.raises(TextError):
        stream.next_probabilities()
    before = stream.feed("hell").next_probabilities()
    assert_same_bits(stream.feed("").next_probabilities(), before)
    assert stream.run([]).shape == (0, 12)
    assert_same_bits(stream.next_probabilities(), before)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("hey q", crnn.VocabError, "text: char 'y' at position 2 is not in the vocabulary"),
        (b"hello", TypeError, "expected str for unit 'char', got bytes"),
        ([0, 12], ValueError, "text: expected ids from 0 to 11, got 0 to 12"),
        ([0, -1], ValueError, "text: expected ids from 0 to 11, got -1 to 0"),
        (np.array([5] * 99999 + [12], "i4"), ValueError, "text: expected ids from 0 to 11, got 12 at position 99999"),
        ([0.5], TypeError, "text: expected integer ids (N,), got list [0.5]"),
        ([[1, 2]], TypeError, "text: expected integer ids (N,), got list [[1, 2]]"),
        (3, TypeError, "text: expected integer ids (N,), got "),
        (None, TypeError, "text: expected integer ids (N,), got "),
    ],
    ids=lambda value: f"{value!r:.15}",
)
def test_what_cannot_be_read_leaves_the_stream_where_it_is(given, error, message):
    stream = language_model("lstm").stream().feed("he")
    before, state = stream.next_probabilities(), stream.state
    for read in (stream.feed, stream.surprisal):
        with pytest.raises(error, match=re.escape(message)):
            read(given)
    assert_same_bits(stream.next_probabilities(), before)
    for mine, theirs in zip(stream.state, state, strict=True):
        assert_same_bits(mine, theirs)


@pytest.mark.parametrize("id_", [12, -1, 10**30, 1.0, None, "h", True, np.zeros(12, "f4")], ids=lambda v: f"{v!r:.9}")
def test_step_refuses_what_is_no_id(id_):
    stream = language_model("gru").stream().feed("he")
    before = stream.next_probabilities()
    with pytest.raises((TypeError, ValueError), match=r"x: expected an (integer id|id from 0 to 11), got "):
        stream.step(id_)
    for out in (np.empty(11, "f4"), np.empty(12), [0.0] * 12):
        with pytest.raises((TypeError, ValueError), match="out: expected writable C-contiguous float32"):
            stream.step(1, out=out)
    assert_same_bits(stream.next_probabilities(), before)


# ---- what comes next ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["fresh", "reset", "set", "copy", "pickled"])
def test_before_anything_was_fed_nothing_is_expected(made):
    stream = language_model("lstm").stream()
    if made in ("reset", "set"):
        stream.feed("hello")
    if made == "reset":
        stream.reset()
    if made == "set":
        stream.state = stream.state
    stream = {"copy": copy.copy, "pickled": lambda s: pickle.loads(pickle.dumps(s))}.get(made, lambda s: s)(stream)
    uses = [stream.next_probabilities, stream.top_tokens, stream.generate, stream.iter_generate]
    for use in [*uses, lambda: stream.surprisal("h")]:
        with pytest.raises(TextError, match="stream: expected at least one token to continue from, got none"):
            use()
    assert stream.feed("h").next_probabilities().shape == (12,)


def test_next_tokens_are_the_likeliest_first():
    stream = language_model("gru").stream().feed("hello")
    p = stream.next_probabilities()
    assert p.dtype == np.float32
    assert p.sum(dtype=float) == pytest.approx(1, abs=1e-6)
    pairs = stream.top_tokens(99)
    assert [token for token, _ in stream.top_tokens()] == [token for token, _ in pairs][:10]
    assert dict(pairs) == dict(zip(stream.vocab.tokens, p.tolist(), strict=True))
    values = [value for _, value in pairs]
    assert values == sorted(values, reverse=True)
    for count in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="count: expected an integer of at least 1, got"):
            stream.top_tokens(count)
    p[:] = 0  # the caller's own
    assert stream.next_probabilities().any()


# ---- writing -----------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.7, "temperature": 2.0}], ids=str)
def test_a_stream_writes_what_the_model_does_after_the_same_text(cell, options):
    model = language_model(cell)
    stream = model.stream().feed("hel").feed("lo")
    for seed in range(3):
        assert stream.generate(40, seed=seed, **options) == model.generate("hello", 40, seed=seed, **options)
    whole = stream.generate(40, seed=7, **options)
    assert stream.generate(40, seed=7, stop=whole[5:8], **options) == whole[: whole.index(whole[5:8])]


def test_writing_does_not_disturb_the_stream_nor_the_other_way_round():
    stream = language_model("lstm").stream().feed("hello")
    before, expected = stream.next_probabilities(), stream.generate(30, seed=7)
    pieces = stream.iter_generate(30, seed=7)
    first = list(itertools.islice(pieces, 5))
    assert_same_bits(stream.next_probabilities(), before)
    stream.feed(", new world")
    assert "".join(first + list(pieces)) == expected  # from where the stream stood when it was asked
    assert stream.generate(30, seed=7) != expected
    assert len(list(itertools.islice(stream.iter_generate(None, seed=7), 300))) == 300
    assert stream.generate(0) == ""


def test_arguments_are_checked_before_the_first_piece():
    stream = language_model("gru").stream().feed("hello")
    for arguments, message in [
        ({"length": -1}, "length: expected an integer of at least 0, or None, got -1"),
        ({"stop": ""}, "stop: expected a text"),
        ({"temperature": -1}, "temperature: "),
        ({"top_k": 0}, "top_k: "),
        ({"seed": -1}, "seed: "),
    ]:
        with pytest.raises(ValueError, match=message):
            stream.iter_generate(**arguments)


@pytest.mark.parametrize("prompt", ["the cat", "the cat ", "the cat\n", "the", "dog sat on\nthe "])
@pytest.mark.parametrize("way", ["feed", "pieces", "ids"])
def test_words_are_spaced_as_after_the_same_prime(prompt, way):
    model = plain_model("the cat sat on the mat\nthe dog sat\n", H=13, unit="word")
    stream = model.stream()
    if way == "ids":
        prompt = prompt.rstrip(" ")
        for id in model.vocab.encode(prompt):
            stream.step(id)
    else:
        for piece in re.findall(r"\S+|\s+", prompt) if way == "pieces" else [prompt]:
            stream.feed(piece)
    for seed in range(5):
        assert copy.copy(stream).generate(12, seed=seed) == model.generate(prompt, 12, seed=seed)
        assert pickle.loads(pickle.dumps(stream)).generate(12, seed=seed) == model.generate(prompt, 12, seed=seed)


def test_bytes_are_read_as_bytes_and_as_text():
    model = plain_model(unit="byte", H=9)
    one, two = model.stream().feed("né"), model.stream().feed(b"n\xc3").feed(b"\xa9")
    assert_same_bits(one.next_probabilities(), two.next_probabilities())
    assert one.generate(20, seed=1) == two.generate(20, seed=1) == model.generate("né", 20, seed=1)
    assert all(isinstance(token, bytes) for token, _ in one.top_tokens(3))


# ---- copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["method", "copy", "deepcopy", "pickle"])
def test_a_copy_knows_what_comes_next_and_goes_its_own_way(way):
    copies = {
        "method": lambda s: s.copy(),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda s: pickle.loads(pickle.dumps(s)),
    }
    stream = language_model("lstm", hidden_size=[21, 9]).stream().feed("hello")
    other = copies[way](stream)
    assert isinstance(other, crnn.TextStream)
    assert_same_bits(other.next_probabilities(), stream.next_probabilities())
    expected = stream.copy().surprisal(" world")
    other.feed("!!!")
    assert_same_bits(stream.surprisal(" world"), expected)


def test_streams_in_one_pickle_share_weights_and_vocabulary():
    model = language_model("lstm", hidden_size=64)
    streams = [model.stream().feed("hello"[: n % 5 + 1]) for n in range(20)]
    together = pickle.dumps(streams)
    assert len(together) < len(pickle.dumps(streams[0])) + 20 * (2 * 64 * 4 + 12 * 4 + 800)
    others = pickle.loads(together)
    assert len({id(stream.weights) for stream in others}) == 1
    assert all(stream.vocab is others[0].vocab for stream in others)
    assert others[0].vocab == model.vocab
    for one, other in zip(streams, others, strict=True):
        assert_same_bits(one.next_probabilities(), other.next_probabilities())


def test_a_row_of_a_batch_can_go_on_from_a_text_stream():
    model = language_model("lstm")
    stream = model.stream().feed("hello")
    batch = model.stream_batch(1)
    batch.set_state(0, stream)
    batch.add(1, stream)
    ids = model.vocab.encode("oo")
    assert_same_bits(batch.step(ids), np.stack([stream.step(int(ids[0]))] * 2))


def test_what_a_text_stream_says_of_itself():
    model = language_model("lstm")
    stream = model.stream()
    assert repr(stream).startswith("TextStream(LanguageModel, input_size=12, output_size=12, ")
    assert (stream.input_size, stream.output_size) == (12, 12)
    assert stream.vocab is model.vocab
    assert stream.weights is model.stream().weights is model.stream_batch(1).weights
    assert_same_bits(crnn.Stream(stream.weights).step(3), stream.step(3))  # one without a text


def test_a_text_stream_needs_weights_and_a_vocabulary_that_belong_together():
    weights = language_model("gru").stream().weights
    for given in ((), (weights,), (None, None), (3, 4), (weights, None)):
        with pytest.raises(TypeError):
            crnn.TextStream(*given)
    with pytest.raises(ValueError, match=r"vocab: expected 12 tokens, as StreamWeights\(.*\) has, got 2"):
        crnn.TextStream(weights, crnn.Vocab.from_text("ab"))
    with pytest.raises(ValueError, match="vocab: expected 3 tokens"):
        crnn.TextStream(crnn.RNN(3, 4).stream().weights, crnn.Vocab.from_text("abc"))


def test_float64_models_read_and_write_in_float64():
    model = plain_model(H=19, dtype="float64")
    ids = model.vocab.encode("hello")
    stream = model.stream().feed("h")
    assert_same_bits(stream.surprisal("ello"), all_losses(model, ids))
    assert_same_bits(stream.next_probabilities(), softmax(forward(model, ids)[-1]))
    assert stream.next_probabilities().dtype == np.float64
    assert stream.generate(20, seed=7) == model.generate("hello", 20, seed=7)
    other = pickle.loads(pickle.dumps(stream))
    assert_same_bits(other.step(0, out=np.empty(len(model.vocab))), stream.step(0))


# ---- threads -----------------------------------------------------------------------------------------------------


def test_whoever_comes_while_a_text_is_read_is_refused_and_the_text_is_read_to_its_end():
    model = language_model("lstm", hidden_size=256)
    length, refused = 2000, {}
    while len(refused) < 9 and length < 5e6:  # until the reading takes long enough for others to come
        length *= 4
        ids = np.random.default_rng(length).integers(12, size=length).astype(np.int32)
        stream, result = model.stream().feed("h"), []
        reader = threading.Thread(target=lambda s=stream, i=ids, r=result: r.append(s.surprisal(i)))
        uses = {
            "step": lambda s=stream: s.step(0),
            "run": lambda s=stream: s.run([0, 1]),
            "feed": lambda s=stream: s.feed("h"),
            "surprisal": lambda s=stream: s.surprisal("h"),
            "probabilities": stream.next_probabilities,
            "generate": lambda s=stream: s.generate(1),
            "reset": stream.reset,
            "state": lambda s=stream: s.state,
            "copy": stream.copy,
        }
        reader.start()
        time.sleep(0.02)
        refused = {}
        for name, use in uses.items() if reader.is_alive() else ():
            try:
                use()
            except RuntimeError as error:
                refused[name] = str(error)
        reader.join()
    assert set(refused) == set(uses)
    assert all("stream: another thread is using it" in message for message in refused.values())
    alone = model.stream().feed("h")
    assert_same_bits(result[0], alone.surprisal(ids))
    assert_same_bits(stream.next_probabilities(), alone.next_probabilities())
