# SPDX-License-Identifier: MIT
"""Surprisals of many texts at once: the same bits as of each alone, in texts, ids and lines."""

import io

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, text

import crnn
from crnn.cli import score
from crnn.cli.lines import LineReader
from crnn.models.language import scores, surprisals
from crnn.models.outputs import head


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of few steps, so that there are several, and one text takes several windows."""
    monkeypatch.setattr(surprisals, "ROWS", 40)
    monkeypatch.setattr(surprisals, "SMALL_ROWS", 40)
    monkeypatch.setattr(head, "LOGITS", 1)
    monkeypatch.setattr(head, "FEW", 7)
    monkeypatch.setattr(scores, "BLOCK", 150)


def ids_of(model, lengths):
    return [model.vocab.encode(text(4 * n)[:n]) for n in lengths]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "lengths",
    [[9, 2, 30, 2, 17, 5], [7, 7, 7, 7, 7, 7, 7], [9, 8, 9, 8, 9, 8, 9], [130], [3, 41, 42, 200, 4], [2]],
    ids=str,
)
def test_surprisals_are_the_losses_of_each_text_alone(cell, threads, lengths):
    model = language_model(text(500), H=9, L=2, cell=cell)
    sequences = ids_of(model, lengths)
    for ids, nats in zip(sequences, model.surprisals(sequences, threads=threads), strict=True):
        losses, _ = model.losses(ids[:-1, None], ids[1:, None])
        assert_same_bits(nats, losses[:, 0])


def test_batches_of_small_networks_are_larger_and_bounded_by_the_bytes_of_outputs():
    rows = [surprisals._most_rows(language_model("abcd", H=H)._predictor) for H in (4, 64, 96, 1000)]
    assert rows == [16_384, 8192, 2**21 // (4 * 96), 4096]


def test_surprisals_take_integers_of_any_type_and_refuse_what_is_no_text():
    model = language_model("abcd")
    [one], [other] = model.surprisals([[0, 1, 3]]), model.surprisals([np.array([0, 1, 3], np.uint8)])
    assert_same_bits(one, other)
    assert model.surprisals([]) == []
    for wrong in ([2], [], [0.5, 1.0], [[0, 1], [1, 2]]):
        with pytest.raises(ValueError, match=r"sequences\[1\]: expected at least 2 integer ids \(N,\), got"):
            model.surprisals([[0, 1], wrong])
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected ids from 0 to 3, got 0 to 4"):
        model.surprisals([[0, 1], [0, 4]])
    for wrong, shown in (([0, 4], "4 at position 1"), ([-1, 3], "-1 at position 0")):  # as `Vocab` returns ids
        with pytest.raises(ValueError, match=rf"sequences\[1\]: expected ids from 0 to 3, got {shown}"):
            model.surprisals([np.array([0, 1], np.int32), np.array(wrong, np.int32)])
    with pytest.raises(ValueError, match="threads"):
        model.surprisals([[0, 1]], threads=0)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("prompt", [None, "the of "])
def test_scores_of_many_texts_are_those_of_one_after_the_other(prompt):
    model = language_model(text(500))
    texts = [text(60, seed)[: 2 + 7 * seed % 50] for seed in range(30)] + [text(150)]
    alone = [model.score([each], prompt=prompt)[0] for each in texts]
    assert model.score(texts, prompt=prompt) == alone
    assert model.score(iter(texts), prompt=prompt, threads=2) == alone
    assert model.score([]) == []


@pytest.mark.usefixtures("small_batches")
def test_texts_are_read_in_blocks_and_a_short_one_is_named():
    model = language_model(text(500))
    read = []

    def texts():
        for number in range(90):
            read.append(number)
            yield "the of" if number != 37 else "t"

    with pytest.raises(crnn.TextError, match=r"texts\[37\]: expected at least one token with one before it, got 't'"):
        model.score(texts())
    assert len(read) == 51  # two blocks of 150 characters


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_texts_encoded_together_get_the_ids_of_each_alone(unit):
    vocab = crnn.Vocab.from_text("the of and \u00e9\n", unit=unit)
    texts = ["the of", "", "and\nthe", " ", "\u00e9"]
    for ids, each in zip(vocab.encode_each(texts, "texts"), texts, strict=True):
        np.testing.assert_array_equal(ids, vocab.encode(each))
    assert vocab.encode_each([], "texts") == []


@pytest.mark.parametrize(
    ("unit", "wrong", "problem"),
    [
        *[(unit, None, "got NoneType") for unit in ("char", "byte", "word")],
        ("char", "the xyz", "char 'x'"),
        ("word", "the xyz", "word 'xyz'"),
        ("char", b"the", "got bytes"),
    ],
)
def test_of_texts_encoded_together_the_one_that_is_wrong_is_named(unit, wrong, problem):
    vocab = crnn.Vocab.from_text("the of", unit=unit, unknown=False)
    with pytest.raises((TypeError, crnn.VocabError), match=rf"^texts\[8\]: .*{problem}"):
        vocab.encode_each(["the", wrong, "of"], "texts", 7)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("prompt", [None, "the "])
def test_unknown_words_cost_their_spelling_in_texts_that_are_scored_together(prompt):
    model = language_model("the of <unk> and", unit="word")
    texts = ["the of and", "the xyz", "of of of", "xyz the \u00e9 of"]
    together = model.score(texts, prompt=prompt)
    for text_, score_ in zip(texts, together, strict=True):
        ids = model.vocab.encode((prompt or "") + text_)
        [nats] = model.surprisals([ids])
        spelling = model.vocab.spelling((prompt or "") + text_, ids)[1:].sum()
        assert score_ == pytest.approx((float(nats.sum()) + spelling) / len(nats), rel=1e-6)
    assert model.score(["the xyz"])[0] > 4


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
@pytest.mark.parametrize("vocabulary", ["the of and to\n", "the of and to"])
def test_lines_that_arrive_together_get_the_scores_of_single_ones(unit, vocabulary, monkeypatch):
    model = language_model(vocabulary, unit=unit)
    lines = b"the of\nto\n\nand the\r\nof of of of of\n\xff\nxyz the\nt\nto the and"

    def scored(most):
        monkeypatch.setattr(score, "TOGETHER", most)
        out = io.BytesIO()
        score.score_lines(model, io.BytesIO(lines), out, rows=score.token_rows)
        return out.getvalue()

    assert scored(64) == scored(1) == scored(3)


def test_groups_of_lines_wait_for_nothing_more_than_the_first():
    pieces = [b"a\nb\nc", b"d\n", b"e", b"f\ng\nh\ni\nj\nk"]

    class Pipe:
        def read1(self, size):
            return pieces.pop(0) if pieces else b""

        read = read1

    reader = LineReader(Pipe(), "utf-8")
    groups = reader.groups(3)
    assert next(groups) == [b"a\n", b"b\n"]
    assert len(pieces) == 3
    assert list(groups) == [[b"cd\n"], [b"ef\n", b"g\n", b"h\n"], [b"i\n", b"j\n"], [b"k"]]
