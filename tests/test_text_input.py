# SPDX-License-Identifier: MIT
"""What a text is read from: files, folders, pipes, compressed files, encodings; and what is said if it is no text."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import pickle
import sys
import threading

import numpy as np
import pytest

import crnn
from crnn.text import corpus as corpus_module
from crnn.text.errors import Remedy, explain

TEXT = "to be or not to be,\nthat is the question\n" * 20


def read(path, **options):
    """The corpus of a file, all of it in ``train``, as text."""
    corpus = crnn.TextCorpus.from_file(path, valid=0.0, test=0.0, **options)
    return corpus.vocab.decode(corpus.train)


# ---- sources ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["text.gz", "text.txt"])
def test_a_compressed_file_is_known_by_its_first_bytes_not_its_name(tmp_path, compress, name):
    (tmp_path / name).write_bytes(compress(TEXT.encode()))
    assert read(tmp_path / name) == TEXT
    assert read(io.BytesIO(compress(TEXT.encode()))) == TEXT


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_a_damaged_compressed_file_is_a_text_error(tmp_path, compress, unit):
    whole = compress(os.urandom(50_000).hex().encode())
    for damaged in (whole[: len(whole) // 2], whole[:2000] + b"\xff" * 50 + whole[2050:]):
        (tmp_path / "text").write_bytes(damaged)
        with pytest.raises(crnn.TextError, match=r"text: damaged (gzip|bz2|lzma) file \("):
            read(tmp_path / "text", unit=unit)


def test_text_that_begins_like_a_compressed_file_is_text(tmp_path):
    (tmp_path / "text").write_text("BZhang is a name")
    assert read(tmp_path / "text") == "BZhang is a name"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_read_once_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(TEXT))
    writer.start()
    assert read(tmp_path / "pipe") == TEXT
    writer.join()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_pipe_that_does_not_fit_into_the_temporary_folder_says_so(monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match=r"No space left on device: 'file, copied into ") as caught:
        read(io.BytesIO(b"hello"))
    assert caught.value.errno == 28


def test_an_open_file_is_read_from_where_it_is(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    with open(tmp_path / "text", "rb") as file:
        file.read(3)
        assert read(file) == TEXT[3:]
    with open(tmp_path / "text") as file, pytest.raises(TypeError, match="path: expected a file opened in binary mode"):
        read(file)


@pytest.mark.parametrize("files", [3, None, 2.5])
def test_what_is_no_file_is_named(files):
    with pytest.raises(TypeError, match="path: expected a path, a binary file, or several, got"):
        read(files)


def test_no_files_are_an_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden").write_text("secret")
    with pytest.raises(crnn.TextError, match="path: expected at least one file, got none"):
        read([])
    with pytest.raises(crnn.TextError, match="folder: expected a folder with at least one file that is not hidden"):
        read(tmp_path / "folder")


def test_a_folder_is_its_files_sorted_without_hidden_ones(tmp_path):
    for name in ("b/1.txt", "a.txt", "b/0.txt", ".git/config", "b/.swp", "c.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(f"({name})\n".encode())
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"(c)\n"))
    os.symlink(tmp_path, tmp_path / "b" / "loop", target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # nobody writes: reading it would never end
    assert read(tmp_path) == "(a.txt)\n(b/0.txt)\n(b/1.txt)\n(c)\n"


def test_the_ids_are_not_written_over_the_text_or_into_its_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(TEXT)
    os.link(tmp_path / "b", tmp_path / "hard")
    files = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ValueError, match="ids_path: expected another file than the text"):
        read(files, ids_path=tmp_path / "b")
    with pytest.raises(ValueError, match="ids_path: expected a file outside of the text's folder"):
        read(tmp_path, ids_path=tmp_path / "new.npy")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "hard"]


# ---- documents -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_documents_are_separated_once(tmp_path, unit):
    contents = ["one two", "three\n", "", "four"]
    files = []
    for number, content in enumerate(contents):
        files.append(tmp_path / str(number))
        files[-1].write_text(content)
    assert read(files, unit=unit) == "one two\nthree\nfour"
    corpus = crnn.TextCorpus.from_text(contents, unit, valid=0.0, test=0.0)
    assert corpus.vocab.decode(corpus.train) == "one two\nthree\nfour"
    assert read(files[::-1], unit=unit) == "four\nthree\none two"


def test_the_border_may_be_any_text_and_none():
    def joined(border):
        corpus = crnn.TextCorpus.from_text(["ab", "cd--", "e"], valid=0.0, test=0.0, border=border)
        return corpus.vocab.decode(corpus.train)

    assert joined("--") == "ab--cd--e"
    assert joined("") == "abcd--e"
    with pytest.raises(TypeError, match="border: expected str, got int"):
        joined(3)


def test_a_vocabulary_without_the_border_does_without():
    vocab = crnn.Vocab.from_text("abc")
    corpus = crnn.TextCorpus.from_text(["ab", "ca"], vocab=vocab, valid=0.0, test=0.0)
    assert vocab.decode(corpus.train) == "abca"
    words = crnn.Vocab(("ab", "ca"), "word")
    corpus = crnn.TextCorpus.from_text(["ab", "ca"], vocab=words, valid=0.0, test=0.0)
    assert corpus.train.tolist() == [0, 1]


def test_cuts_are_moved_to_near_borders_only():
    documents = ["a" * 49 + "\n"] * 20
    corpus = crnn.TextCorpus.from_text(documents, valid=0.13, test=0.12)
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [750, 150, 100]
    far = crnn.TextCorpus.from_text(["a" * 499 + "\n", "b" * 500], valid=0.1, test=0.1)
    assert [len(part) for part in (far.train, far.valid, far.test)] == [800, 100, 100]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_changes_while_it_is_read_is_noticed_even_at_the_same_length(tmp_path, monkeypatch, mapped):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text("hello world")
    count = corpus_module.count_tokens

    def count_then_change(chunks, unit):
        counts = count(chunks, unit)
        files[1].write_text("world hello")
        os.utime(files[1], ns=(1, 1))
        return counts

    monkeypatch.setattr(corpus_module, "count_tokens", count_then_change)
    with pytest.raises(crnn.TextError, match="b: changed while it was read; 23 tokens were counted at first"):
        read(files, ids_path=tmp_path / "ids" if mapped else None)
    files[1].write_text("hello world")
    monkeypatch.setattr(
        corpus_module, "count_tokens", lambda chunks, unit: (count(chunks, unit), files[1].write_text("#!"))[0]
    )
    with pytest.raises(crnn.TextError, match="b: changed while it was read"):  # not: '#' is not in the vocabulary
        read(files)


# ---- encodings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-be", "utf-32", "shift_jis", "iso2022_jp", "cp037"])
def test_characters_across_chunks_are_decoded_in_every_encoding(tmp_path, monkeypatch, encoding):
    text = ("né\n" if encoding in ("latin-1", "cp037") else "日本語 text\n") * 30
    (tmp_path / "text").write_bytes(text.encode(encoding))
    for chunk in (1, 2, 3, 7, 1000):
        monkeypatch.setattr("crnn.text.reading.CHUNK", chunk)
        assert read(tmp_path / "text", encoding=encoding) == text


def test_the_vocabulary_remembers_the_encoding_and_is_the_default_for_further_files(tmp_path):
    (tmp_path / "text").write_bytes("Käse\n".encode("latin-1") * 20)
    vocab = crnn.TextCorpus.from_file(tmp_path / "text", encoding="latin-1").vocab
    assert vocab.encoding == "iso8859-1"
    assert read(tmp_path / "text", vocab=vocab) == "Käse\n" * 20
    model = crnn.LanguageModel(vocab, hidden_size=3)
    model.save(tmp_path / "m")
    for copy in (crnn.load(tmp_path / "m").vocab, pickle.loads(pickle.dumps(vocab)), vocab.extended("!")):
        assert copy.encoding == "iso8859-1"
    assert crnn.load(tmp_path / "m").vocab == vocab == crnn.Vocab(vocab.tokens)
    assert crnn.Vocab("abc", encoding="UTF8").encoding == "utf-8"
    assert "encoding" not in crnn.Vocab.from_text("abc").to_dict()  # as files were before


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "", "utf\x008", "../../x", 3, "undefined", "x" * 99])
def test_encodings_that_are_none_are_refused_also_from_files(tmp_path, encoding):
    message = "encoding: expected a text encoding that Python knows, got"
    (tmp_path / "text").write_text(TEXT)
    with pytest.raises(crnn.VocabError, match=message):
        crnn.Vocab.from_dict({"unit": "char", "tokens": ["a"], "encoding": encoding})
    if encoding:
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "text", encoding=encoding)


# ---- what is said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_errors_say_line_and_code(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("crnn.text.reading.CHUNK", chunk)
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo\nthr\xe9e\n")
    with pytest.raises(crnn.TextError, match=r"text: not utf-8 text at byte 11 \(invalid continuation byte, line 3\)"):
        read(path)
    path.write_bytes(b"one\ntwo\nthr\0e\n")
    with pytest.raises(crnn.TextError, match=r"NUL at character 11, .* not utf-8 \(U\+0000, line 3\)"):
        read(path)
    path.write_text("one\ntwo\nthré\n")
    with pytest.raises(crnn.VocabError, match=r"char 'é' at position 11 is not in the vocabulary \(U\+00E9, line 3\)"):
        read(path, vocab=crnn.Vocab.from_text("onetwthr\n"))
    with pytest.raises(crnn.VocabError, match=r"word 'thré' at position 4 is not in the vocabulary \(line 3\)"):
        read(path, vocab=crnn.Vocab(("one", "two", "<eos>"), "word"))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (codecs.BOM_UTF16_LE + "hello".encode("utf-16-le"), "utf-16"),
        (codecs.BOM_UTF16_BE + "hello".encode("utf-16-be"), "utf-16"),
        ("hello".encode("utf-16-le"), "utf-16-le"),
        ("hello".encode("utf-16-be"), "utf-16-be"),
        ("h\xe9llo".encode("latin-1"), None),
        (b"PK\3\4 some binary \0 thing", None),
    ],
)
def test_the_encoding_of_a_wide_text_is_guessed_in_the_message(tmp_path, content, encoding):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(crnn.TextError) as caught:
        read(tmp_path / "text")
    assert caught.value.remedies[0] == Remedy("name its encoding", "encoding", encoding)
    expected = f"name its encoding with encoding={encoding!r}" if encoding else "name its encoding with encoding="
    assert str(caught.value).endswith(f"; {expected}, or read any file with unit='byte'")
    if encoding:
        assert read(tmp_path / "text", encoding=encoding) == "hello"


def test_the_other_normal_form_is_told():
    with pytest.raises(crnn.VocabError, match=r"\(U\+0301, .* in another normal form, NFC\)"):
        crnn.Vocab.from_text("café").encode("cafe\u0301".replace("e", "é"))
    with pytest.raises(crnn.VocabError, match=r"\(U\+00E9, .* in another normal form, NFD\)"):
        crnn.Vocab.from_text("cafe\u0301").encode("café")


def test_errors_survive_pickling_and_leave_out_what_a_shell_does_not_have():
    error = crnn.TextError("t: bad", Remedy("name its encoding", "encoding"), Remedy("read it", "unit", "byte"))
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "t: bad; name its encoding with encoding=, or read it with unit='byte'"
    assert explain(error.problem, error.remedies, lambda remedy: None) == "t: bad"
    assert str(crnn.VocabError("plain")) == "plain"


def test_a_vocabulary_is_extended_behind_its_tokens():
    vocab = crnn.Vocab.from_text("cab")
    more = vocab.extended("bxay")
    assert more.tokens == ("a", "b", "c", "x", "y")
    assert vocab.extended("abc") == vocab
    with pytest.raises(crnn.VocabError, match="tokens: none can be added for unit 'byte'"):
        crnn.Vocab.from_text("a", unit="byte").extended("b")
    with pytest.raises(crnn.VocabError, match="expected one character"):
        vocab.extended(["xy"])
    np.testing.assert_array_equal(more.encode("abc"), vocab.encode("abc"))


# ---- ids in a file ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be cut short there")
@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_ids_whose_file_is_cut_short_are_an_error_and_not_the_end_of_the_process(tmp_path, dtype):
    (tmp_path / "text").write_text(TEXT * 50)
    corpus = crnn.TextCorpus.from_file(tmp_path / "text", ids_path=tmp_path / "ids")
    ids = corpus.train if dtype == "uint8" else np.memmap(tmp_path / "ids4", dtype, "w+", shape=len(corpus.train))
    windows = iter(crnn.text.contiguous_batches(ids, 4, 8))
    next(windows)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=3)
    os.truncate(tmp_path / ("ids" if dtype == "uint8" else "ids4"), 100)
    message = r"(ids|data): expected a memory-mapped file of \d+ bytes, as it was at first, got 100"
    with pytest.raises(OSError, match=message):
        crnn.text.contiguous_batches(ids, 4, 8)
    with pytest.raises(OSError, match=message):
        model.evaluate(ids)
    with pytest.raises(OSError, match=message):
        crnn.fit(model, ids, epochs=1, checkpoint=tmp_path / "c")


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be cut short there")
def test_ids_that_are_cut_short_between_two_blocks_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("crnn.text.windows._BLOCK", 64)
    (tmp_path / "text").write_text(TEXT * 50)
    corpus = crnn.TextCorpus.from_file(tmp_path / "text", ids_path=tmp_path / "ids")
    windows = iter(crnn.text.contiguous_batches(corpus.train, 4, 8))
    next(windows)
    os.truncate(tmp_path / "ids", 100)
    with pytest.raises(OSError, match="ids: expected a memory-mapped file"):
        list(windows)


# ---- unknown tokens --------------------------------------------------------------------------------------------


def test_texts_of_unknown_words_cost_their_spelling():
    vocab = crnn.Vocab.from_text("the cat sat <unk>\n", unit="word")
    bits = vocab.spelling("the bïrd <unk>\n", vocab.encode("the bïrd <unk>\n")) / np.log(2)
    np.testing.assert_allclose(bits, [0, 8 * 6, 0, 0])
    model = crnn.LanguageModel(vocab, hidden_size=3)
    known, unknown = model.score(["the <unk> sat", "the bïrd sat"])
    assert unknown == pytest.approx(known + 48 * np.log(2) / 2)
    first, second = model.score(["bïrd the", "bïrd the"], prompt="\n")[:2]
    assert first == second == pytest.approx(model.score(["<unk> the"], prompt="\n")[0] + 48 * np.log(2) / 2)
    without_prompt, literal = model.score(["bïrd the", "<unk> the"])
    assert without_prompt == literal  # the first token does not count
    assert not crnn.Vocab.from_text("abc").spelling("abc", [0, 1, 2]).any()
