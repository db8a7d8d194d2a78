# SPDX-License-Identifier: MIT
"""Training that starts from another model's weights, with its vocabulary or a larger one."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, text

import crnn
from crnn import VocabError, cli

pytestmark = pytest.mark.thread_unsafe  # standard error is the process's

TINY = ["--epochs", "1", "--batch", "4", "--bptt", "8", "-q"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two texts, the second with more characters, and a model of the first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(text(600), newline="")
    (tmp_path / "b.txt").write_text(text(600, seed=1) + "Q! Z! é\n" * 9, newline="", encoding="utf-8")
    assert run("a.txt", "-o", "m", "--hidden", 6, "--cell", "gru", "--layers", 2, "--embedding", 4) == 0
    return tmp_path


def run(*arguments):
    return cli.main(["train", *map(str, arguments), *TINY])


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run(*arguments) == 1
    return capsys.readouterr().err.splitlines()[-1].removeprefix("crnn train: ")


# ---- the same vocabulary ---------------------------------------------------------------------------------------------


def test_training_starts_from_the_weights_and_takes_the_network_from_the_model(folder):
    assert run("a.txt", "-o", "n", "--init-from", "m", "--lr", 0) == 0
    assert_same_bits(crnn.load("n").flat_params, crnn.load("m").flat_params)
    assert crnn.load("n").config() == crnn.load("m").config()
    corpus = crnn.TextCorpus.from_file("a.txt")
    model = crnn.load("m")
    crnn.fit(
        model, corpus, epochs=1, batch_size=4, bptt=8, optimizer=crnn.optim.Adam(1e-3),
    )  # fmt: skip
    assert run("a.txt", "-o", "o", "--init-from", "m", "--lr", 1e-3) == 0
    assert_same_bits(crnn.load("o").flat_params, model.flat_params)


def test_training_starts_from_the_best_model_of_a_checkpoint_too(folder):
    assert run("a.txt", "-o", "n", "--init-from", "m.checkpoint", "--lr", 0) == 0
    assert_same_bits(crnn.load("n").flat_params, crnn.load("m").flat_params)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hidden", 7], "--hidden: expected 6, as in m, got 7"),
        (["--hidden", 256], "--hidden: expected 6, as in m, got 256"),  # the default, but typed
        (["--cell", "tanh"], "--cell: expected 'gru', as in m, got 'tanh'"),
        (["--layers", 1], "--layers: expected 2, as in m, got 1"),
        (["--embedding", 0], "--embedding: expected 4, as in m, got None"),
        (["--dtype", "float64"], "--dtype: expected 'float32', as in m, got 'float64'"),
        (["--tie-weights"], "--tie-weights: expected False, as in m, got True"),
        (["--dense-layers"], "--dense-layers: expected False, as in m, got True"),
        (["--unit", "word"], "--unit: expected char, as in m, got word"),
        (["--min-count", 2], "--min-count, --max-vocab, --unknown: not together with --init-from"),
    ],
)
def test_another_network_is_refused_by_the_name_of_its_flag(folder, capsys, flags, message):
    assert refused(capsys, "a.txt", "-o", "n", "--init-from", "m", *flags).startswith(message)
    assert not (folder / "n").exists()


def test_a_quantised_model_is_refused_by_the_name_of_its_flag(folder, capsys):
    crnn.load("m").quantize().save("int8")
    message = "--init-from: expected a model that can learn, got int8, which is quantised: train first, "
    assert refused(capsys, "a.txt", "-o", "n", "--init-from", "int8").startswith(message)
    assert not (folder / "n").exists()


def test_what_is_given_as_it_is_in_the_model_is_accepted_and_so_is_another_dropout(folder):
    assert run("a.txt", "-o", "n", "--init-from", "m", "--hidd", 6, "--cell=gru", "--dropout", 0.5, "--lr", 0) == 0
    model = crnn.load("n")
    assert model.config() == crnn.load("m").config() | {"dropout": 0.5}
    assert_same_bits(model.flat_params, crnn.load("m").flat_params)


def test_the_model_is_not_where_the_new_one_is_written(folder, capsys):
    assert "expected different files" in refused(capsys, "a.txt", "-o", "m", "--init-from", "m", "--restart")
    assert "expected different files" in refused(
        capsys, "a.txt", "-o", "n", "--init-from", "m", "--checkpoint", "./m", "--restart"
    )


def test_an_interrupted_run_is_resumed_with_the_same_flags(folder):
    assert run("a.txt", "-o", "n", "--init-from", "m", "--schedule", "constant") == 0
    assert run("a.txt", "-o", "n", "--init-from", "m", "--schedule", "constant", "--resume", "--epochs", 2) == 0
    assert crnn.load("n").config() == crnn.load("m").config()


# ---- a larger one ----------------------------------------------------------------------------------------------------


def test_new_characters_are_refused_and_some_of_them_named(folder, capsys):
    message = refused(capsys, "b.txt", "-o", "n", "--init-from", "m")
    assert message.startswith("text: expected only chars that m has, got '!', 'Q', 'Z', ")
    assert message.endswith("; --extend-vocab adds them to the model")
    (folder / "many.txt").write_text("0123456789" * 20)
    message = refused(capsys, "many.txt", "-o", "n", "--init-from", "m")
    assert "got '0', '1', '2', '3', '4' and 5 more; --extend-vocab" in message


def test_new_characters_are_added_when_asked_for(folder):
    assert run("b.txt", "-o", "n", "--init-from", "m", "--extend-vocab", "--lr", 0) == 0
    old, new = crnn.load("m"), crnn.load("n")
    assert new.vocab.tokens[: len(old.vocab)] == old.vocab.tokens
    assert set(new.vocab.tokens) - set(old.vocab.tokens) == {"Q", "!", "Z", "é"}
    n = len(old.vocab)
    assert_same_bits(new.params["embedding"][:n], old.params["embedding"])
    assert_same_bits(new.params["W_hy"][:, :n], old.params["W_hy"])
    for name in ("layer0.W_xh", "layer0.W_hh", "layer1.W_xh", "layer1.b_h"):
        assert_same_bits(new.params[name], old.params[name])


def test_without_new_characters_nothing_is_extended(folder):
    assert run("a.txt", "-o", "n", "--init-from", "m", "--extend-vocab", "--lr", 0) == 0
    assert crnn.load("n").vocab == crnn.load("m").vocab


def test_extending_needs_a_model(folder, capsys):
    message = "--extend-vocab: expected --init-from MODEL with it, got none"
    assert refused(capsys, "a.txt", "-o", "n", "--extend-vocab") == message


def test_unknown_words_are_unknown_unless_the_vocabulary_is_extended(folder):
    (folder / "w.txt").write_text("red blue cow red blue cow " * 30)
    (folder / "v.txt").write_text("red blue ant red blue cow " * 30)
    assert run("w.txt", "-o", "w", "--unit", "word", "--hidden", 4) == 0
    assert run("v.txt", "-o", "v", "--init-from", "w") == 0
    assert crnn.load("v").vocab == crnn.load("w").vocab
    assert run("v.txt", "-o", "x", "--init-from", "w", "--extend-vocab") == 0
    assert crnn.load("x").vocab.tokens == (*crnn.load("w").vocab.tokens, "ant")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("E", [None, 7])
def test_a_model_of_more_tokens_gives_the_old_ones_the_same_logits(E, tied):
    if tied and E is None:
        pytest.skip("there is no embedding to tie")
    vocab = crnn.Vocab.from_text("hello")
    model = crnn.LanguageModel(vocab, "lstm", 7, embedding_size=E, tie_weights=tied, seed=3)
    model.params["b_y"][...] = [0.5, -1.5, 0.25, 1.0]
    larger = crnn.Vocab(("x", *reversed(vocab.tokens), "y"))
    new = model.extended(larger, seed=5)
    assert new.vocab is larger
    ids, positions = vocab.encode("hello"), [larger.id(token) for token in vocab.tokens]
    logits, _ = model.forward(ids[:, None])
    more, _ = new.forward(larger.encode("hello")[:, None])
    assert_same_bits(more[..., positions], logits)
    assert new.params["b_y"][[0, -1]].tolist() == [-1.5, -1.5]
    fresh = crnn.LanguageModel(larger, "lstm", 7, embedding_size=E, tie_weights=tied, seed=5)
    rows = new.params["layer0.W_xh" if E is None else "embedding"]
    assert_same_bits(rows[[0, -1]], fresh.params["layer0.W_xh" if E is None else "embedding"][[0, -1]])
    before = model.flat_params.copy()
    new.flat_params.fill(0)
    assert_same_bits(model.flat_params, before)


def test_a_vocabulary_that_lacks_a_token_is_refused():
    model = language_model("hello")
    with pytest.raises(VocabError, match=r"^vocab: expected all 4 chars of the model, got .*, without 'h'"):
        model.extended(crnn.Vocab.from_text("elox"))
    with pytest.raises(VocabError, match=r"^vocab: expected all 4 chars"):
        model.extended(crnn.Vocab.from_text("hello", "word"))


def test_a_corpus_can_extend_the_vocabulary_of_a_model():
    vocab = crnn.Vocab.from_text("hello")
    corpus = crnn.TextCorpus.from_text("hold on" * 9, vocab=vocab, extend_vocab=True)
    assert corpus.vocab.tokens == (*vocab.tokens, " ", "d", "n")
    assert corpus.vocab.decode(np.concatenate([corpus.train, corpus.valid, corpus.test])) == "hold on" * 9
    with pytest.raises(VocabError, match="extend_vocab: expected a vocab to extend"):
        crnn.TextCorpus.from_text("hello", extend_vocab=True)
