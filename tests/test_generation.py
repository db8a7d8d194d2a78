# SPDX-License-Identifier: MIT
"""generate and iter_generate: what is drawn is what the model predicts; prompts, stops, bytes and words."""

import itertools

import numpy as np
import pytest
from model_tools import language_model, oracle_forward

import crnn
from crnn.text.generation import _until_stop


def greedy(model, prompt, length):
    """The likeliest token again and again, the whole text run through the oracle for each."""
    ids = model.vocab.encode(prompt).tolist()
    for _ in range(length):
        ids.append(int(oracle_forward(model, np.array(ids)[:, None]).y[-1, 0].argmax()))
    return model.vocab.decode(ids[len(ids) - length :])


def writes(model, token):
    """Make a model that always writes this token."""
    model.flat_params.fill(0)
    model.params["b_y"][model.vocab.id(token)] = 50
    return model


def test_temperature_zero_takes_the_likeliest_token():
    model = language_model(H=19, L=2)
    model.flat_params[...] *= 3
    expected = greedy(model, "hello", 30)
    assert len(set(expected)) > 2  # or there is nothing to see
    assert model.generate("hello", 30, temperature=0) == expected
    assert model.generate("hello", 30, top_k=1) == expected
    assert model.generate("hello", 30, top_p=1e-9) == expected


def test_draws_have_the_models_probabilities():
    model = language_model(H=19)
    first = [model.generate("hello", 1, seed=seed) for seed in range(2000)]
    logits = oracle_forward(model, model.vocab.encode("hello")[:, None]).y[-1, 0]
    expected = np.exp(logits) / np.exp(logits).sum()
    counts = np.array([first.count(token) for token in model.vocab.tokens])
    assert counts.sum() == 2000
    chi2 = ((counts - 2000 * expected) ** 2 / (2000 * expected)).sum()
    assert chi2 < 40  # 12 tokens; beyond this by chance once in 10,000 seeds


def test_options_reach_the_sampler():
    model = language_model(H=19)
    logits = oracle_forward(model, model.vocab.encode("hello")[:, None]).y[-1, 0]
    best = [model.vocab.tokens[place] for place in np.argsort(-logits)]
    drawn = {model.generate("hello", 1, top_k=2, temperature=5.0, seed=seed) for seed in range(60)}
    assert drawn == set(best[:2])
    assert {model.generate("hello", 1, temperature=0.01, seed=seed) for seed in range(30)} == {best[0]}


@pytest.mark.parametrize("method", ["generate", "iter_generate", "iter_generate_bytes"])
def test_an_unknown_option_is_named_with_the_one_that_was_meant(method):
    with pytest.raises(TypeError, match=r"^temprature: there is no such option; did you mean temperature\?$"):
        getattr(language_model(H=19), method)("hello", 1, temprature=0.5)


def test_a_seed_repeats_the_text_and_another_does_not():
    model = language_model(H=19)
    texts = [model.generate("hello", 40, seed=seed) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    assert model.generate("hello", 40) != model.generate("hello", 40)  # different every time without one


def test_pieces_come_one_by_one_and_make_up_the_text():
    model = language_model(H=19)
    pieces = list(model.iter_generate("hello", 40, seed=7))
    assert len(pieces) == 40
    assert "".join(pieces) == model.generate("hello", 40, seed=7)
    assert len(list(itertools.islice(model.iter_generate("hello", None, seed=7), 300))) == 300
    assert model.generate("hello", 0) == ""


def test_two_generators_do_not_disturb_each_other_nor_the_model():
    model = language_model(H=19)
    before = model.flat_params.copy()
    alone = model.generate("hello", 20, seed=7)
    pairs = zip(model.iter_generate("hello", 20, seed=7), model.iter_generate("world", 20, seed=8), strict=True)
    assert "".join(one for one, _ in pairs) == alone
    np.testing.assert_array_equal(model.flat_params, before)


@pytest.mark.parametrize("stop", ["o", "ell", "xyzzy"])
def test_generation_ends_before_the_stop(stop):
    model = language_model(H=19)
    whole = model.generate("hello", 300, seed=7)
    assert model.generate("hello", 300, seed=7, stop=stop) == whole.split(stop)[0]


def test_a_stop_across_pieces_is_found_and_nothing_of_it_is_yielded():
    def pieces(text, stop):
        return list(_until_stop(iter(text), stop))

    assert pieces("abcabd!", "abd") == ["abc"]
    assert "".join(pieces("aaab", "aab")) == "a"
    assert "".join(pieces("abab", "abc")) == "abab"  # held back, never completed, given at the end
    assert "".join(pieces("xab", "ab")) == "x"
    assert "".join(pieces(["xa", "bstopc"], "stop")) == "xab"
    assert pieces(["ab"], "ab") == []


def test_what_cannot_be_a_stop_is_given_at_once():
    read = []

    def pieces():
        for letter in "one two":
            read.append(letter)
            yield letter

    got = [(piece, "".join(read)) for piece in _until_stop(pieces(), "two!")]
    assert got == [("o", "o"), ("n", "on"), ("e", "one"), (" ", "one "), ("two", "one two")]
    assert list(_until_stop(iter(["ab", "q"]), "bxyz")) == ["a", "bq"]  # a piece shorter than the stop


def test_an_empty_prime_is_a_newline_where_there_is_one():
    model = language_model(H=19)
    assert model.generate("", 20, seed=7) == model.generate("\n", 20, seed=7)
    spaced = language_model("hello world")
    assert spaced.generate("", 20, seed=7) == spaced.generate(" ", 20, seed=7)
    without = language_model("hello")
    assert without.generate("", 20, seed=7) == without.generate("e", 20, seed=7)  # the first of the vocabulary
    words = language_model("the cat", unit="word")
    assert words.generate(" \t", 3, seed=7) == words.generate("cat ", 3, seed=7)


def test_arguments_are_checked_before_the_first_piece():
    model = language_model()
    for arguments, error, message in [
        ({"prompt": "hey q"}, crnn.VocabError, "'y' at position 2"),
        ({"length": -1}, ValueError, "length: expected an integer of at least 0, or None, got -1"),
        ({"length": 1.5}, ValueError, "length: .*got 1.5"),
        ({"stop": ""}, ValueError, "stop: expected a text of at least one character, or None, got ''"),
        ({"temperature": -1}, ValueError, "temperature: .*got -1"),
        ({"top_k": 0}, ValueError, "top_k: .*got 0"),
        ({"top_p": 1.5}, ValueError, r"top_p: .*got 1\.5"),
        ({"prompt": 3}, TypeError, "int"),
    ]:
        with pytest.raises(error, match=message):
            model.iter_generate(**({"prompt": "hello"} | arguments))


# ---- bytes and words -------------------------------------------------------------------------------------------


def test_bytes_come_as_whole_characters():
    model = language_model(unit="byte")
    euro = "€".encode()
    model.flat_params.fill(0)
    model.params["layer0.W_xh"][euro[0], 0] = model.params["layer0.W_xh"][euro[1], 1] = 9
    model.params["layer0.W_xh"][euro[2], 2] = 9
    for unit, following in enumerate((euro[1], euro[2], euro[0])):
        model.params["W_hy"][unit, following] = 50
    prompt = "€€"
    assert list(model.iter_generate(prompt, 6, temperature=0)) == ["€", "€"]
    assert model.generate(prompt, 5, temperature=0) == "€"  # the last character was not finished
    assert model.generate("€", 9, temperature=0, stop="€€") == ""


def test_bytes_that_are_no_text_are_replaced():
    model = writes(language_model(unit="byte"), b"\xff")
    assert model.generate("", 3, temperature=0) == "\ufffd" * 3


def test_words_are_joined_by_spaces_and_lines_end_without():
    model = language_model("the cat sat\nthe dog\n", unit="word")
    model.flat_params.fill(0)
    chain = ["the", "cat", "<eos>"]
    for unit, (word, following) in enumerate(itertools.pairwise([*chain, "the"])):
        model.params["layer0.W_xh"][model.vocab.id(word), unit] = 9
        model.params["W_hy"][unit, model.vocab.id(following)] = 50
    pieces = list(model.iter_generate("the", 5, temperature=0))
    assert pieces == [" cat", "\n", "the", " cat", "\n"]
    assert model.generate("the cat\n", 2, temperature=0) == "the cat"
    assert model.generate("the ", 2, temperature=0) == "cat\n"  # the prompt brings the space
    assert model.generate("", 2, temperature=0) == "the cat"  # from a line's end
    prompt = "the cat"
    whole = prompt + model.generate(prompt, 3, temperature=0)
    assert whole == "the cat\nthe cat"


# ---- bans, bytes ----------------------------------------------------------------------------------------------


def test_unknown_is_drawn_only_when_it_is_allowed():
    model = writes(language_model("the cat sat\n", unit="word"), "<unk>")
    assert "<unk>" not in model.generate("the", 50, seed=7)
    assert model.generate("the", 2, allow_unknown=True, temperature=0) == " <unk> <unk>"
    stream = model.stream().feed("the")
    assert "<unk>" not in stream.generate(50, seed=7)
    assert stream.generate(1, allow_unknown=True, temperature=0) == " <unk>"


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0.1, "seed": 1}, {"seed": 2}])
def test_banned_tokens_are_never_drawn_and_the_others_keep_their_odds(options):
    model = writes(language_model(), "o")
    model.params["b_y"][model.vocab.id("w")] = 40
    assert model.generate("hello", 20, ban=["o"], **options) == "w" * 20
    assert model.stream().feed("hello").generate(20, ban=["o", ""][:1], **options) == "w" * 20
    assert model.generate("hello", 3, temperature=0) == "ooo"


def test_a_ban_of_what_is_no_token_or_of_all_is_refused():
    model = language_model("ab")
    with pytest.raises(crnn.VocabError, match="ban: expected tokens of the vocabulary, got 'ba'"):
        model.generate("a", ban=["a", "ba"])
    with pytest.raises(crnn.VocabError, match="ban: expected at least one token of the vocabulary that may be drawn"):
        model.generate("a", ban=["a", "b"])
    with pytest.raises(TypeError, match=r"ban: expected several tokens, as in \['a'\], got one"):
        model.generate("a", ban="a")
    sampler = crnn.sampling.Sampler(ban=[3])
    with pytest.raises(ValueError, match="ban: expected ids below 3, got 3"):
        sampler([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="ban: expected ids of at least 0, got -1"):
        crnn.sampling.Sampler(ban=[-1])
    assert crnn.sampling.Sampler(temperature=0, ban=[2])([0.0, 1.0, 2.0]) == 1
    np.testing.assert_array_equal(crnn.sampling.Sampler(ban=[2]).probabilities([1.0, 1.0, 2.0]), [0.5, 0.5, 0.0])


def test_a_model_of_bytes_gives_the_bytes_themselves():
    model = writes(language_model(unit="byte"), b"\xff")
    assert list(model.iter_generate_bytes(b"caf\xc3", 3, temperature=0)) == [b"\xff"] * 3
    model = language_model(unit="byte")
    euro = "€".encode()
    model.flat_params.fill(0)
    for unit, byte in enumerate(euro):
        model.params["layer0.W_xh"][byte, unit] = 9
        model.params["W_hy"][unit, euro[(unit + 1) % 3]] = 50
    assert model.generate(euro[:1], 5, temperature=0) == "\ufffd\ufffd€"  # a prompt that ends within a character
    assert b"".join(model.iter_generate_bytes(euro[:1], 5, temperature=0)) == euro[1:] + euro
    assert b"".join(model.iter_generate_bytes(euro, 9, temperature=0, stop=euro[1:2])) == euro[:1]
    assert model.generate(euro[:1], 9, temperature=0, stop=euro[1:]) == ""
    with pytest.raises(crnn.VocabError, match="vocab: expected one of unit 'byte', got 'char'"):
        language_model().iter_generate_bytes("h")
    with pytest.raises(TypeError, match="stop: expected str, or bytes for unit 'byte', got bytes"):
        language_model().generate("h", stop=b"h")
