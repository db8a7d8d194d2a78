# SPDX-License-Identifier: MIT
"""Sequence models of texts: the vocabulary, what becomes of unknown tokens, files, copies and errors."""

import copy
import pickle

import numpy as np
import pytest

import crnn

TEXTS = ["on", "off", "oon", "offf"] * 5
LABELS = ["yes", "no"] * 10
Classifier = crnn.SequenceClassifier
SMALL = {"hidden_size": 4, "epochs": 3, "batch_size": 5}


def _classifier(**options):
    return crnn.SequenceClassifier(vocab="char", **SMALL, **options).fit(TEXTS, LABELS)


def test_fit_learns_the_vocabulary_of_the_texts():
    model = _classifier()
    assert model.vocab.tokens == ("<unk>", "f", "n", "o")
    assert model.n_features_in_ == model.net.input_size == 4
    assert model.get_params()["vocab"] == "char"


@pytest.mark.parametrize("embedding_size", [None, 3])
def test_a_model_of_texts_equals_the_model_of_their_ids(embedding_size):
    model = _classifier(embedding_size=embedding_size)
    same = crnn.SequenceClassifier(4, classes=["no", "yes"], embedding_size=embedding_size, **SMALL)
    rows = same.params["layer0.W_xh" if embedding_size is None else "embedding"]
    rows[0] = 0  # <unk>
    same.fit([model.vocab.encode(text) for text in TEXTS], LABELS)
    assert same.flat_params.tobytes() == model.flat_params.tobytes()


def test_an_unknown_token_says_nothing():
    model = _classifier()
    logits = model.net(model.vocab.encode("?")[:, None])[0]
    zeros = crnn.RNN(4, 4, cell="gru")
    for name, values in zeros.params.items():
        values[...] = model.net.params[name]
    zeros.params["layer0.W_xh"][0] = 0
    assert (model.net.params["layer0.W_xh"][0] == 0).all()
    assert logits.tobytes() == zeros(np.zeros((1, 1), np.int32))[0].tobytes()
    assert model.predict(["o?n"]).shape == (1,)


def test_the_vocabulary_is_in_files_copies_and_pickles(tmp_path):
    model = _classifier()
    model.save(tmp_path / "m.safetensors")
    texts = ["onnn", "of", "?"]
    for other in (crnn.load(tmp_path / "m.safetensors"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.vocab == model.vocab
        assert other.predict_proba(texts).tobytes() == model.predict_proba(texts).tobytes()
    assert model.astype("float64").predict(texts).tolist() == model.predict(texts).tolist()


def test_a_second_fit_learns_the_vocabulary_again_unless_it_continues():
    model = _classifier()
    model.fit([text + "z" for text in TEXTS], LABELS, warm_start=True)
    assert model.vocab.tokens == ("<unk>", "f", "n", "o")
    model.fit([text + "z" for text in TEXTS], LABELS)
    assert model.vocab.tokens == ("<unk>", "f", "n", "o", "z")


def test_a_vocabulary_that_is_given_is_kept():
    vocab = crnn.Vocab.from_text("fno")
    model = crnn.SequenceClassifier(vocab=vocab, **SMALL).fit(TEXTS, LABELS)
    assert model.vocab is vocab
    with pytest.raises(crnn.VocabError, match=r"^X\[1\]: char 'x' at position 2"):
        model.predict(["on", "ofx"])


def test_words_are_strings_or_lists_of_words():
    texts, tags = [["the", "cat"], ["a", "dog", "runs"]] * 6, [["D", "N"], ["D", "N", "V"]] * 6
    split = crnn.SequenceTagger(vocab="word", **SMALL).fit(texts, tags)
    joined = crnn.SequenceTagger(vocab="word", **SMALL).fit([" ".join(words) for words in texts], tags)
    assert split.flat_params.tobytes() == joined.flat_params.tobytes()
    predicted = split.predict(["the dog", ["a", "bird", "runs"]])
    assert [len(each) for each in predicted] == [2, 3]
    assert split.score(texts, tags) == joined.score(texts, tags)


@pytest.mark.interop
def test_arrays_and_series_of_strings_are_texts():
    model = _classifier()
    assert model.predict(np.array(TEXTS)).tolist() == model.predict(TEXTS).tolist()
    tagger = crnn.SequenceTagger(vocab="char", num_classes=2, **SMALL).fit(["ab", "abb"] * 4, [[0, 1], [0, 1, 1]] * 4)
    assert [len(each) for each in tagger.predict(np.array(["ab", "abb"]))] == [2, 3]
    pandas = pytest.importorskip("pandas")
    assert model.predict(pandas.Series(TEXTS)).tolist() == model.predict(TEXTS).tolist()


def test_bytes_and_values():
    model = crnn.SequenceRegressor(vocab="byte", **SMALL).fit([b"aa", "b", b"\xff\x00c"] * 6, [2.0, 1.0, 3.0] * 6)
    assert model.predict([b"\xff"]).shape == (1,)
    assert model.n_features_in_ == 256


def test_streams_take_the_ids_of_the_vocabulary():
    model = _classifier(pooling="last")
    stream = model.stream()
    for id in model.vocab.encode("oon"):
        logits = stream.step(id)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(probabilities, model.predict_proba(["oon"])[0], atol=1e-6)


class Frame:
    """Like a DataFrame of pandas with one column."""

    columns = ("review",)
    iloc = None


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda m: m.predict([np.zeros((3, 2))]), TypeError, r"^X\[0\]: expected str for unit 'char', got ndarray"),
        (lambda m: m.predict(["on", ""]), ValueError, r"^X\[1\]: expected a text of at least one char, got none"),
        (lambda m: m.predict(Frame()), TypeError, r"^X: expected a list of strings, got Frame; write X\['review'\]"),
        (lambda m: m.predict("on"), TypeError, r"^X: expected a list of strings, got str; write \[x\] for one text"),
        (lambda m: m.predict([]), ValueError, r"^X: expected at least one string, got none"),
        (lambda m: Classifier().fit(TEXTS, LABELS), TypeError, r"^X\[0\]: expected numbers, .*vocab='char'"),
        (lambda m: Classifier(2, 2).predict(TEXTS), TypeError, r"^X\[0\]: expected numbers, .*vocab='char'"),
        (lambda m: crnn.SequenceTagger(vocab="chars"), ValueError, r"^vocab: expected a Vocab, or one of char, byte"),
        (lambda m: crnn.SequenceRegressor(vocab=3), TypeError, r"^vocab: expected a Vocab, or one of .*, got int"),
        (lambda m: Classifier(5, vocab="char").fit(TEXTS, LABELS), ValueError, r"^input_size: expected None"),
        (lambda m: Classifier(5, 2, vocab=m.vocab), ValueError, r"^input_size: expected 4, as many as vocab"),
        (lambda m: Classifier(vocab="char").fit(["", ""], ["a", "b"]), ValueError, r"^X: expected at least"),
    ],
)
def test_what_is_no_text_is_refused_by_name(act, error, message):
    model = _classifier()
    before = model.to_bytes()
    with pytest.raises(error, match=message):
        act(model)
    assert model.to_bytes() == before
