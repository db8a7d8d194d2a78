# SPDX-License-Identifier: MIT
"""Vocabularies, corpora, batches: each property against its plain definition, each error by its message."""

import errno
import json
import os
import re
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import crnn.text
import crnn.text.corpus
import crnn.text.reading
import crnn.text.vocab
import crnn.text.windows
from crnn.text.corpus import TextCorpus
from crnn.text.reading import EOS, TextError
from crnn.text.vocab import UNKNOWN, Vocab, VocabError
from crnn.text.windows import IGNORE_INDEX, contiguous_batches

UNITS = ["char", "byte", "word"]
# One to four bytes in UTF-8, a Windows line end, a blank line, words longer than the small chunks below.
MIXED = "Grüße, 世界 😀!\r\nto be or\tnot to be\n\n  Donaudampfschiff  zu\u00a0Wien\nto be"
texts = st.text(st.characters() | st.sampled_from("ab \n\r\té世😀\ud800"), min_size=1)


def plain_ids(vocab, text):
    """Encoding by its definition, one token at a time."""
    tokens = list(text)
    if vocab.unit == "byte":
        tokens = [bytes([value]) for value in text.encode("utf-8", "surrogatepass")]
    elif vocab.unit == "word":
        lines = re.split("(\n)", text)
        tokens = [word for line in lines for word in ([EOS] if line == "\n" else line.split())]
    return [vocab.tokens.index(token if token in vocab.tokens else UNKNOWN) for token in tokens]


def with_chunk(monkeypatch, size):
    monkeypatch.setattr(crnn.text.reading, "CHUNK", size)


# ---- Vocab: what is in it, in which order


def test_characters_are_sorted_by_code_point():
    vocab = Vocab.from_text("b😀a世éb\n")
    assert vocab.tokens == ("\n", "a", "b", "é", "世", "😀")
    assert [vocab.id(token) for token in vocab.tokens] == [0, 1, 2, 3, 4, 5]
    assert vocab.unknown_id is None


def test_words_are_sorted_and_newlines_are_eos_and_unknown_is_first():
    vocab = Vocab.from_text(" no it was \n it is \r\n", "word")
    assert vocab.tokens == (UNKNOWN, EOS, "is", "it", "no", "was")
    assert vocab.unknown_id == 0


def test_bytes_are_all_there_and_the_id_is_the_value():
    vocab = Vocab.from_text(b"ab", "byte")
    assert len(vocab) == 256
    assert [vocab.id(bytes([value])) for value in (0, 97, 255)] == [0, 97, 255]
    assert vocab.encode(b"\x00a\xff").tolist() == [0, 97, 255]
    assert vocab.unknown_id is None


def test_penn_treebank_unknown_is_the_unknown_token():
    text = "the <unk> said N \n the end \n"
    vocab = Vocab.from_text(text, "word")
    assert vocab.tokens.count(UNKNOWN) == 1
    assert vocab.encode("the <unk> whale").tolist() == [vocab.id("the"), 0, 0]
    assert Vocab.from_text(text, "word", unknown=False) == vocab


def test_min_count_leaves_out_rarer_tokens():
    text = "aaabbc"
    assert Vocab.from_text(text, min_count=1).tokens == ("a", "b", "c")
    assert Vocab.from_text(text, min_count=2).tokens == ("a", "b")
    assert Vocab.from_text(text, min_count=3, unknown=True).tokens == (UNKNOWN, "a")
    assert Vocab.from_text(text, min_count=4, unknown=True).tokens == (UNKNOWN,)


def test_max_size_keeps_the_most_frequent_and_of_equals_the_first_sorted():
    text = "dddccbbaa"  # d 3; a, b, c 2 each, met in falling order
    assert Vocab.from_text(text, max_size=3).tokens == ("a", "b", "d")
    assert Vocab.from_text(text, max_size=3, unknown=True).tokens == (UNKNOWN, "a", "d")
    assert Vocab.from_text("z z y x x", "word", max_size=2).tokens == (UNKNOWN, "x")


def test_one_character_text_makes_a_vocabulary_of_one():
    assert Vocab.from_text("x").encode("xx").tolist() == [0, 0]


def test_own_tokens_keep_their_order():
    vocab = Vocab(("b", "a"), "char")
    assert vocab.encode("ab").tolist() == [1, 0]


# ---- Vocab: encode and decode


@pytest.mark.parametrize("unit", UNITS)
@given(text=texts)
def test_encode_follows_the_definition(unit, text):
    vocab = Vocab.from_text(text + "ab", unit)
    ids = vocab.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == plain_ids(vocab, text)


@pytest.mark.parametrize("unit", ["char", "word"])
@given(seen=texts, text=texts)
def test_unseen_tokens_become_unknown(unit, seen, text):
    vocab = Vocab.from_text(seen + "a", unit, unknown=True)
    ids = vocab.encode(text)
    assert ids.tolist() == plain_ids(vocab, text)


@given(text=texts)
def test_characters_come_back_exactly(text):
    vocab = Vocab.from_text(text)
    assert vocab.decode(vocab.encode(text)) == text


@given(data=st.binary(min_size=1))
def test_bytes_come_back_exactly(data):
    vocab = Vocab.from_text(data, "byte")
    assert vocab.decode_bytes(vocab.encode(data)) == data
    assert vocab.decode(vocab.encode(data)) == data.decode("utf-8", errors="replace")


@given(text=texts)
def test_decoded_words_encode_to_the_same_ids(text):
    vocab = Vocab.from_text(text + " a\n", "word")
    ids = vocab.encode(text)
    assert vocab.encode(vocab.decode(ids)).tolist() == ids.tolist()


def test_words_are_joined_by_spaces_and_eos_ends_the_line():
    vocab = Vocab.from_text("to be\nor\n", "word")
    assert vocab.decode(vocab.encode(" to  be \n\n or not\n")) == "to be\n\nor <unk>\n"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("unit", UNITS)
def test_chunk_size_does_not_change_vocabulary_nor_ids(monkeypatch, unit, chunk):
    whole = Vocab.from_text(MIXED, unit)
    ids = whole.encode(MIXED)
    assert len(set(ids.tolist())) > 10
    with_chunk(monkeypatch, chunk)
    assert Vocab.from_text(MIXED, unit) == whole
    assert whole.encode(MIXED).tolist() == ids.tolist()


def test_characters_above_the_highest_known_one_are_found_missing():
    vocab = Vocab.from_text("az")
    assert vocab.encode("za").tolist() == [1, 0]
    for stranger in "{é世😀\U0010ffff":
        with pytest.raises(VocabError, match="position 2 "):
            vocab.encode("az" + stranger)


def test_a_small_vocabulary_has_a_small_table():
    assert Vocab.from_text("the quick")._table.nbytes < 1000


def test_an_empty_text_encodes_to_no_ids_and_back():
    for unit in UNITS:
        vocab = Vocab.from_text("a", unit)
        assert vocab.encode("").shape == (0,)
        assert vocab.decode([]) == ""


def test_unknown_character_names_itself_its_position_and_the_remedy(monkeypatch):
    vocab = Vocab.from_text("ROMEO: o")
    with_chunk(monkeypatch, 4)
    with pytest.raises(VocabError, match=r"^text: char '\\x07' at position 6 is not in .*unknown=True"):
        vocab.encode("ROMEO:\x07")


def test_unknown_word_names_itself_and_its_position(monkeypatch):
    vocab = Vocab(("be", "to"), "word")
    with_chunk(monkeypatch, 3)
    with pytest.raises(VocabError, match="word 'or' at position 4 is not"):
        vocab.encode("to be to be or")


def test_id_and_token_are_inverse_and_refuse_strangers():
    vocab = Vocab.from_text("abc")
    assert [vocab.token(vocab.id(token)) for token in "cab"] == ["c", "a", "b"]
    assert "a" in vocab
    assert "z" not in vocab
    with pytest.raises(VocabError, match="'z' is not in the vocabulary of 3 chars"):
        vocab.id("z")
    for outside in (-1, 3):
        with pytest.raises(VocabError, match=rf"^id: expected 0\.\.2, got {outside}"):
            vocab.token(outside)
    assert Vocab.from_text("abc", unknown=True).id("z") == 0


@pytest.mark.parametrize("unit", UNITS)
def test_decode_refuses_ids_outside_the_vocabulary(unit):
    vocab = Vocab.from_text("a b", unit)
    for outside in (IGNORE_INDEX, len(vocab)):
        with pytest.raises(VocabError, match=rf"expected 0\.\.{len(vocab) - 1}, got {outside} at position 1"):
            vocab.decode([0, outside])
    with pytest.raises(TypeError, match="expected integers, got float64"):
        vocab.decode([0.0])
    with pytest.raises(ValueError, match=r"expected shape \(N,\), got \(1, 2\)"):
        vocab.decode([[0, 0]])


def test_wrong_types_of_text_are_named():
    with pytest.raises(TypeError, match="text: expected str for unit 'char', got bytes"):
        Vocab.from_text(b"abc")
    with pytest.raises(TypeError, match="text: expected str or bytes for unit 'byte', got int"):
        Vocab.from_text(5, "byte")
    with pytest.raises(VocabError, match=r"decode_bytes: expected .*'byte', got 'char'"):
        Vocab.from_text("abc").decode_bytes([0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"unit": "line"}, VocabError, "unit: expected 'char', 'byte' or 'word', got 'line'"),
        ({"min_count": 0}, ValueError, "min_count: expected at least 1, got 0"),
        ({"min_count": 1.5}, TypeError, "min_count: expected an int, got float"),
        ({"min_count": 9}, VocabError, "min_count: expected at most 2 for this text, got 9"),
        ({"max_size": 0}, ValueError, "max_size: expected at least 1, got 0"),
        ({"unit": "byte", "min_count": 2}, VocabError, "not for unit 'byte'"),
        ({"unit": "byte", "max_size": 2}, VocabError, "not for unit 'byte'"),
        ({"unit": "byte", "unknown": True}, VocabError, "not for unit 'byte'"),
    ],
)
def test_bad_vocabulary_options_are_clear(options, error, message):
    with pytest.raises(error, match=message):
        Vocab.from_text("aab", **options)


# ---- Vocab: comparing and saving


def test_vocabularies_are_equal_by_content_and_immutable():
    vocab = Vocab.from_text("hello")
    assert vocab == Vocab.from_text("ehllo")
    assert hash(vocab) == hash(Vocab.from_text("ehllo"))
    assert vocab != Vocab.from_text("help")
    assert vocab != Vocab(vocab.tokens, "word")
    assert repr(vocab) == "Vocab(4 chars)"
    with pytest.raises(AttributeError):
        vocab.unit = "word"


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("unknown", [None, False])
def test_saved_vocabulary_comes_back_through_json(unit, unknown):
    vocab = Vocab.from_text(MIXED + "\ud800", unit, unknown=unknown)
    restored = Vocab.from_dict(json.loads(json.dumps(vocab.to_dict())))
    assert restored == vocab
    assert restored.encode(MIXED).tolist() == vocab.encode(MIXED).tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "expected a dict, got NoneType"),
        ([], "expected a dict, got list"),
        ({}, "unit: expected 'char'"),
        ({"unit": ["char"], "tokens": ["a"]}, "unit: expected 'char'"),
        ({"unit": "char"}, "expected keys"),
        ({"unit": "char", "tokens": ["a"], "more": 1}, "expected keys"),
        ({"unit": "byte", "tokens": ["a"]}, "expected keys"),
        ({"unit": "char", "tokens": "ab"}, "tokens: expected a list, got str"),
        ({"unit": "char", "tokens": {"a": 0}}, "tokens: expected a list, got dict"),
        ({"unit": "char", "tokens": []}, "at least one"),
        ({"unit": "char", "tokens": ["a", 1]}, r"tokens\[1\]: expected str, got int"),
        ({"unit": "char", "tokens": ["a", ["b"]]}, r"tokens\[1\]: expected str, got list"),
        ({"unit": "char", "tokens": ["a", "bc"]}, r"tokens\[1\]: expected one character"),
        ({"unit": "char", "tokens": ["a", ""]}, r"tokens\[1\]: expected one character"),
        ({"unit": "word", "tokens": ["a", ""]}, r"tokens\[1\]: expected a word"),
        ({"unit": "word", "tokens": ["a", "b c"]}, r"tokens\[1\]: expected a word"),
        ({"unit": "word", "tokens": ["a", "b\n"]}, r"tokens\[1\]: expected a word"),
        ({"unit": "char", "tokens": ["a", "b", "a"]}, "all different, got 'a' twice"),
    ],
)
def test_malformed_saved_vocabulary_is_refused(data, message):
    with pytest.raises(VocabError, match=message):
        Vocab.from_dict(data)


# ---- TextCorpus


def test_splits_are_by_position_and_rounded():
    text = "abcdefghijklmnopqrstuvwxyz"
    corpus = TextCorpus.from_text(text, valid=0.1, test=0.2)
    parts = [corpus.vocab.decode(split) for split in (corpus.train, corpus.valid, corpus.test)]
    assert parts == ["abcdefghijklmnopqr", "stu", "vwxyz"]  # round(2.6), round(5.2)


def test_word_splits_are_by_word():
    corpus = TextCorpus.from_text("a bb ccc dddd eeeee f", "word", valid=1 / 6, test=2 / 6)
    assert corpus.vocab.decode(corpus.train) == "a bb ccc"
    assert corpus.vocab.decode(corpus.valid) == "dddd"
    assert corpus.vocab.decode(corpus.test) == "eeeee f"


def test_fraction_zero_gives_an_empty_split():
    corpus = TextCorpus.from_text("hello", valid=0.0, test=0.0)
    assert (corpus.train.size, corpus.valid.size, corpus.test.size) == (5, 0, 0)


@pytest.mark.parametrize(("size", "dtype"), [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)])
def test_ids_have_the_narrowest_type_that_holds_them(tmp_path, size, dtype):
    text = "".join(chr(code) for code in range(40, 40 + size + 0x800) if not 0xD800 <= code < 0xE000)[:size]
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    in_memory = TextCorpus.from_text(text, valid=0.0, test=0.0)
    mapped = TextCorpus.from_file(path, valid=0.0, test=0.0, ids_path=tmp_path / "ids.npy")
    for corpus in (in_memory, mapped):
        assert corpus.train.dtype == dtype
        assert corpus.train.tolist() == list(range(size))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("unit", UNITS)
def test_file_in_chunks_equals_text_as_a_whole(monkeypatch, tmp_path, unit, chunk, mapped):
    path = tmp_path / "text.txt"
    path.write_bytes(MIXED.encode())
    whole = TextCorpus.from_text(MIXED, unit, valid=0.2, test=0.1)
    with_chunk(monkeypatch, chunk)
    ids_path = tmp_path / "ids.npy" if mapped else None
    corpus = TextCorpus.from_file(path, unit, valid=0.2, test=0.1, ids_path=ids_path)
    assert corpus.vocab == whole.vocab
    for split in ("train", "valid", "test"):
        ids, expected = getattr(corpus, split), getattr(whole, split)
        assert expected.size > 0
        assert isinstance(ids, np.memmap) == mapped
        assert ids.dtype == expected.dtype
        assert ids.tolist() == expected.tolist()
        with pytest.raises(ValueError, match="read-only"):
            ids[0] = 0
    files = sorted(entry.name for entry in tmp_path.iterdir())
    assert files == (["ids.npy", "text.txt"] if mapped else ["text.txt"])


@settings(deadline=None)
@given(text=texts.map(lambda text: text.replace("\0", "0").replace("\ud800", "?")), chunk=st.integers(1, 9))
def test_any_text_in_any_encoding_and_chunk_reads_as_it_was_written(tmp_path_factory, text, chunk):
    path = tmp_path_factory.mktemp("any") / "text.txt"
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_chunk(monkeypatch, chunk)
        for encoding in ("utf-8", "utf-16", "utf-32-be", "gb18030"):
            text = text.encode(encoding, "replace").decode(encoding)
            path.write_bytes(text.encode(encoding))
            corpus = TextCorpus.from_file(path, valid=0.0, test=0.0, encoding=encoding)
            assert corpus.vocab.decode(corpus.train) == text


def test_a_byte_order_mark_and_line_ends_stay_as_they_are_in_the_file(tmp_path):
    path = tmp_path / "dos.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    exact = TextCorpus.from_file(path, valid=0.0, test=0.0)
    assert exact.vocab.decode(exact.train) == "\ufeffa\r\nb\rc\n"
    without_mark = TextCorpus.from_file(path, valid=0.0, test=0.0, encoding="utf-8-sig")
    assert without_mark.vocab.decode(without_mark.train) == "a\r\nb\rc\n"


def test_a_mapped_corpus_needs_less_memory_than_its_text(tmp_path):
    path = tmp_path / "long.txt"
    size = 48 << 20
    path.write_bytes((b"The quick brown fox.\n" * (size // 21 + 1))[:size])
    tracemalloc.start()
    try:
        corpus = TextCorpus.from_file(path, ids_path=tmp_path / "ids.npy")
        for x, _ in contiguous_batches(corpus.train, batch_size=32, bptt=64):
            assert x.size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert corpus.train.size == size - 2 * round(0.05 * size)
    assert peak < size // 2  # mostly the table of counts, one int64 for each of the code points


def test_a_given_vocabulary_is_used_and_brings_its_unit(tmp_path):
    vocab = Vocab.from_text("to be or not", "word")
    corpus = TextCorpus.from_text("not to see", vocab=vocab, valid=0.0, test=0.0)
    assert corpus.vocab is vocab
    assert corpus.train.tolist() == [vocab.id("not"), vocab.id("to"), 0]
    with pytest.raises(VocabError, match="unit: expected 'word', that of vocab, got 'char'"):
        TextCorpus.from_text("not", "char", vocab=vocab)
    with pytest.raises(VocabError, match="not together with vocab"):
        TextCorpus.from_text("not", vocab=vocab, max_size=5)
    path = tmp_path / "text.txt"
    path.write_text("abcz")
    with pytest.raises(VocabError, match=r"text\.txt: char 'z' at position 3"):
        TextCorpus.from_file(path, vocab=Vocab.from_text("abc"))


def test_vocabulary_options_reach_the_vocabulary():
    corpus = TextCorpus.from_text("aaabbc", max_size=3, unknown=True, valid=0.0, test=0.0)
    assert corpus.vocab.tokens == (UNKNOWN, "a", "b")
    assert corpus.train.tolist() == [1, 1, 1, 2, 2, 0]


@pytest.mark.parametrize("unit", UNITS)
def test_empty_text_is_refused(tmp_path, unit):
    path = tmp_path / "empty.txt"
    path.write_bytes(b"")
    with pytest.raises(TextError, match=f"^text: expected at least one {unit}, got none"):
        Vocab.from_text("", unit)
    with pytest.raises(TextError, match=f"^text: expected at least one {unit}, got none"):
        TextCorpus.from_text("", unit)
    with pytest.raises(TextError, match=rf"empty\.txt: expected at least one {unit}, got none"):
        TextCorpus.from_file(path, unit)
    with pytest.raises(TextError, match="expected at least one word"):
        TextCorpus.from_text(" \t ", "word")


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize(("data", "offset"), [(b"abc\xffdef", 3), ("aé世".encode() + b"\xf0\x9f", 6), (b"\x89PNG", 0)])
def test_binary_file_says_where_and_what_to_do(monkeypatch, tmp_path, unit, chunk, data, offset):
    path = tmp_path / "data.bin"
    path.write_bytes(data)
    with_chunk(monkeypatch, chunk)
    message = rf"data\.bin: not utf-8 text at byte {offset} \(.*encoding=.*unit='byte'"
    with pytest.raises(TextError, match=message):
        TextCorpus.from_file(path, unit)
    assert TextCorpus.from_file(path, "byte", valid=0.0, test=0.0).train.tolist() == list(data)


def test_utf16_without_a_mark_is_text_when_named_and_a_clear_error_when_not(monkeypatch, tmp_path):
    path = tmp_path / "wide.txt"
    path.write_bytes("hello".encode("utf-16-le"))
    with_chunk(monkeypatch, 3)
    with pytest.raises(TextError, match=r"wide\.txt: NUL at character 1, .*encoding=.*unit='byte'"):
        TextCorpus.from_file(path)
    with pytest.raises(TextError, match="not utf-16 text at byte"):
        TextCorpus.from_file(path, encoding="utf-16")
    corpus = TextCorpus.from_file(path, encoding="utf-16-le", valid=0.0, test=0.0)
    assert corpus.vocab.decode(corpus.train) == "hello"


@pytest.mark.parametrize("chunk", [2, 3, 1000])
def test_a_nul_is_found_at_its_character_not_its_byte(monkeypatch, tmp_path, chunk):
    path = tmp_path / "nul.txt"
    path.write_bytes("éé世b\0c".encode())
    with_chunk(monkeypatch, chunk)
    with pytest.raises(TextError, match="NUL at character 4,"):
        TextCorpus.from_file(path)


def test_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        TextCorpus.from_file(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"valid": -0.1}, r"^valid: expected a fraction in \[0, 1\), got -0.1"),
        ({"test": 1.0}, r"^test: expected a fraction in \[0, 1\), got 1.0"),
        ({"test": float("nan")}, "^test: .* got nan"),
        ({"valid": 0.5, "test": 0.5}, r"^valid \+ test: expected less than 1, got 0.5 \+ 0.5"),
    ],
)
def test_bad_fractions_are_refused(fractions, message):
    with pytest.raises(ValueError, match=message):
        TextCorpus.from_text("hello", **fractions)


def test_the_text_is_never_overwritten_by_its_ids(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("hello")
    with pytest.raises(ValueError, match="ids_path: expected another file than the text"):
        TextCorpus.from_file(path, ids_path=os.path.join(tmp_path, ".", "text.txt"))
    assert path.read_text() == "hello"


def test_a_failed_encoding_leaves_the_old_ids_and_no_debris(tmp_path):
    path, ids_path = tmp_path / "text.txt", tmp_path / "ids.npy"
    path.write_text("abc")
    vocab = TextCorpus.from_file(path, ids_path=ids_path, valid=0.0, test=0.0).vocab
    before = ids_path.read_bytes()
    path.write_text("abcz")
    with pytest.raises(VocabError):
        TextCorpus.from_file(path, vocab=vocab, ids_path=ids_path)
    assert ids_path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ids.npy", "text.txt"]


def test_a_full_disk_is_an_os_error(monkeypatch, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc" * 100_000)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*ids.npy'"):
        TextCorpus.from_file(path, ids_path=tmp_path / "ids.npy")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["text.txt"]


@pytest.mark.parametrize("second", ["hell", "hello!"])
def test_a_file_that_changes_between_the_two_readings_is_noticed(monkeypatch, tmp_path, second):
    path = tmp_path / "text.txt"
    path.write_text("hello")
    count = crnn.text.corpus.count_tokens

    def count_then_change(pieces, unit):
        counts = count(pieces, unit)
        path.write_text(second)
        return counts

    monkeypatch.setattr(crnn.text.corpus, "count_tokens", count_then_change)
    with pytest.raises(TextError, match=r"text\.txt: changed while it was read; 5 tokens"):
        TextCorpus.from_file(path, "byte")


# ---- Batches


def joined(batches):
    """All windows of all streams one after the other: inputs and targets (steps, B)."""
    windows = list(batches)
    assert len(windows) == len(batches)
    for x, y in windows:
        assert x.dtype == y.dtype == np.int32
        assert x.shape == y.shape
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
    assert [len(x) for x, _ in windows[:-1]] == [batches.bptt] * (len(windows) - 1)
    assert 1 <= len(windows[-1][0]) <= batches.bptt
    return np.concatenate([x for x, _ in windows]), np.concatenate([y for _, y in windows])


shapes = {"tokens": st.integers(2, 200), "batch_size": st.integers(1, 20), "bptt": st.integers(1, 40)}


@given(**shapes, block=st.integers(1, 50))
def test_training_streams_are_equal_and_lose_fewer_than_b_predictions(tokens, batch_size, bptt, block):
    batch_size = min(batch_size, tokens - 1)
    ids = np.arange(100, 100 + tokens, dtype=np.uint16)  # all different, so that positions can be read off
    batches = contiguous_batches(ids, batch_size, bptt)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(crnn.text.windows, "_BLOCK", block)
        x, y = joined(batches)
    length = (tokens - 1) // batch_size
    assert x.shape == (length, batch_size) == (batches.steps, batches.batch_size)
    np.testing.assert_array_equal(x.T.ravel(), ids[: length * batch_size])
    np.testing.assert_array_equal(y, x + 1)
    assert batches.predictions == x.size
    assert batches.dropped == tokens - 1 - x.size < batch_size


@given(**shapes, block=st.integers(1, 50))
def test_evaluation_makes_every_prediction_exactly_once(tokens, batch_size, bptt, block):
    batch_size = min(batch_size, tokens - 1)
    ids = np.arange(100, 100 + tokens, dtype=np.uint16)
    batches = contiguous_batches(ids, batch_size, bptt, drop_last=False)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(crnn.text.windows, "_BLOCK", block)
        x, y = joined(batches)
    real = y != IGNORE_INDEX
    assert batches.predictions == np.count_nonzero(real) == tokens - 1
    assert batches.dropped == 0
    np.testing.assert_array_equal(x.T[real.T], ids[:-1])
    np.testing.assert_array_equal(y.T[real.T], ids[1:])
    assert np.isin(x, ids).all()  # a padded input is a valid id too
    assert real[:-1].all()  # so lengths differ by at most one, and padding is at the end


def test_windows_follow_each_other_and_the_last_may_be_short():
    batches = contiguous_batches(np.arange(24), batch_size=2, bptt=4)
    x = [x[:, 1].tolist() for x, _ in batches]
    assert x == [[11, 12, 13, 14], [15, 16, 17, 18], [19, 20, 21]]
    assert (len(batches), batches.steps, batches.dropped) == (3, 11, 1)


def test_batches_can_be_iterated_again_and_windows_stay_valid():
    batches = contiguous_batches(np.arange(50), batch_size=3, bptt=4)
    first = [(x.copy(), y.copy()) for x, y in batches]
    kept = list(batches)
    assert len(first) > 2
    for (x, y), (x_kept, y_kept) in zip(first, kept, strict=True):
        np.testing.assert_array_equal(x, x_kept)
        np.testing.assert_array_equal(y, y_kept)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0][0, 0] = 1


def test_a_text_too_short_for_the_batch_says_the_numbers():
    message = r"ids: expected at least 33 tokens for batch_size=32 .*, got 32"
    for drop_last in (True, False):
        with pytest.raises(TextError, match=message):
            contiguous_batches(np.arange(32), 32, 8, drop_last=drop_last)
        assert contiguous_batches(np.arange(33), 32, 8, drop_last=drop_last).predictions == 32
    with pytest.raises(TextError, match=r"expected at least 2 tokens .*, got 1"):
        contiguous_batches(TextCorpus.from_text("x").train, 1, 25)


@pytest.mark.parametrize(
    ("ids", "batch_size", "bptt", "error", "message"),
    [
        (range(9), 0, 2, ValueError, "batch_size: expected at least 1, got 0"),
        (range(9), 2, 0, ValueError, "bptt: expected at least 1, got 0"),
        (range(9), 2.0, 2, TypeError, "batch_size: expected an int, got float"),
        (range(9), 2, True, TypeError, "bptt: expected an int, got bool"),
        ([[0, 1], [2, 3]], 1, 1, ValueError, r"ids: expected shape \(N,\), got \(2, 2\)"),
        ([0.0, 1.0, 2.0], 1, 1, TypeError, "ids: expected integers, got float64"),
        ([0, 1, 2**32], 1, 1, ValueError, r"ids: expected 0\.\.2147483647, got 0\.\.4294967296"),
        ([0, -1, 2], 1, 1, ValueError, r"ids: expected 0\.\.2147483647, got -1\.\.2"),
        (np.array([0, -1, 2], np.int32), 1, 1, ValueError, r"got -1\.\.2"),
        (np.array([0, 2**32 - 1], np.uint32), 1, 1, ValueError, r"got 0\.\.4294967295"),
    ],
)
def test_bad_batch_arguments_are_clear(ids, batch_size, bptt, error, message):
    with pytest.raises(error, match=message):
        contiguous_batches(ids if isinstance(ids, np.ndarray) else list(ids), batch_size, bptt)


def test_code_points_are_indices_where_those_have_32_bits():
    for chunk in "a\U0010ffff\udc80", b"\xff":
        points = crnn.text.reading.code_points(chunk)
        assert np.can_cast(points.dtype, np.int32, "safe")
        assert [*points] == ([*chunk] if isinstance(chunk, bytes) else [ord(character) for character in chunk])
