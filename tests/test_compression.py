# SPDX-License-Identifier: MIT
"""crnn.compress and crnn.decompress: every content comes back, archives do not depend on the machine, and what is
damaged is refused."""

import hashlib
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import crnn
from crnn._core.dispatch import use_isa
from crnn.compression import archive as archives
from crnn.compression.header import Header


def prose(size, seed=0):
    """Words of a few kinds, as bytes."""
    rng = np.random.default_rng(seed)
    words = np.array(["the", "cat", "sat", "on", "mat,", "a", "dog", "ran\n", "under", "tables."])
    return " ".join(words[rng.integers(0, len(words), size)]).encode()[:size]


CONTENTS = {
    "nothing": b"",
    "one byte": b"x",
    "two bytes": b"xy",
    "two equal bytes": b"\0\0",
    "a run": b"\xff" * 70_000,
    "a long run": b"\0" * 600_000,
    "two runs": b"a" * 9000 + b"b" * 9001,
    "all bytes": bytes(range(256)),
    "all bytes often": bytes(range(256)) * 40,
    "all but one": bytes(range(255)) * 12,
    "31 different": bytes(range(100, 131)) * 60,
    "32 different": bytes(range(100, 132)) * 60,
    "random": np.random.default_rng(1).bytes(5000),
    "random bits": np.random.default_rng(2).integers(0, 2, 3000).astype(np.uint8).tobytes(),
    "prose": prose(20_011),
    "short prose": b"Lines end with \r\n and names in UTF-8: \xc3\xa9\xe2\x82\xac.",
    "numbers": np.arange(3000, dtype="<u4").tobytes(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_compressed_comes_back(name):
    content = CONTENTS[name]
    archive = crnn.compress(content)
    assert crnn.decompress(archive) == content
    assert len(archive) <= len(content) + 40


pieces = st.lists(st.sampled_from([b"ab", b"abc", b"\0", b"\xff\xfe"]), max_size=300).map(b"".join)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=600) | pieces)
def test_any_bytes_come_back(content):
    assert crnn.decompress(crnn.compress(content)) == content


def test_what_repeats_becomes_small_and_noise_does_not_grow():
    content = prose(20_011)
    assert len(crnn.compress(content)) < len(content) / 2
    noise = CONTENTS["random"]
    assert len(crnn.compress(noise)) == len(noise) + 21
    assert len(crnn.compress(b"\xff" * 10**6)) < 40


@pytest.mark.parametrize("convert", [bytearray, memoryview, lambda content: np.frombuffer(content, np.uint8)])
def test_everything_like_bytes_is_compressed(convert):
    content = prose(300)
    assert crnn.compress(convert(content)) == crnn.compress(content)
    assert crnn.decompress(convert(crnn.compress(content))) == content


def test_an_archive_does_not_depend_on_threads():
    content = prose(9001)
    archive = crnn.compress(content)
    assert crnn.compress(content, threads=2) == archive
    assert crnn.compress(content, threads=3) == archive
    assert crnn.decompress(archive, threads=2) == content


def test_an_archive_does_not_depend_on_the_instruction_set(isas):
    content = prose(1501)
    made = {}
    for isa in isas:
        use_isa(isa)
        made[isa] = crnn.compress(content, threads=2)
    assert len(set(made.values())) == 1
    use_isa("generic")
    assert crnn.decompress(made[isas[-1]]) == content


def test_an_archive_of_this_version_has_these_bytes():
    """Whoever changes them gives the predictor another number: archives that exist have to be refused then."""
    archive = crnn.compress(prose(5003))
    assert hashlib.sha256(archive).hexdigest()[:16] == ARCHIVE, "crnn/compression/predictor.py: VERSION"


ARCHIVE = "e0f172c94d923e45"


# ---- with a model ----------------------------------------------------------------------------------------------------


def byte_model(content=None, **options):
    content = prose(8000, seed=5) if content is None else content
    corpus = crnn.TextCorpus.from_text(content, unit="byte", valid=0, test=0)
    options = {"hidden_size": 24, "cell": "gru", "seed": 3} | options
    model = crnn.LanguageModel(corpus.vocab, **options)
    crnn.fit(model, corpus, epochs=3, batch_size=8, bptt=16)
    return model


@pytest.fixture(scope="module")
def model():
    return byte_model()


def test_a_model_of_similar_text_makes_archives_smaller(model):
    content = prose(4000)
    archive = crnn.compress(content, model=model)
    assert len(archive) < len(crnn.compress(content))
    assert crnn.decompress(archive, model=model, threads=2) == content


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_size": 6},
        {"tie_weights": True},
        {"cell": "lstm", "num_layers": 2, "trainable_initial_state": True},
        {"dense_layers": True, "cell": "ln_lstm", "num_layers": 3},
        {"dropout": 0.2, "recurrent_dropout": 0.1, "num_layers": 2, "embedding_size": 5, "embedding_dropout": 0.1},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("content", [prose(3001), CONTENTS["all bytes often"][:3000], b"ab" * 200], ids=len)
def test_models_of_all_options_are_starts(options, content):
    model = byte_model(hidden_size=8, **options)
    archive = crnn.compress(content, model=model, threads=2)
    assert crnn.decompress(archive, model=model) == content
    assert Header.read(archive)[0].model or len(set(content)) == 256


def test_the_model_is_not_changed(model):
    before = model.to_bytes()
    crnn.decompress(crnn.compress(prose(3000), model=model), model=model)
    assert model.to_bytes() == before


def test_a_model_that_was_saved_and_loaded_is_the_same(model, tmp_path):
    model.save(tmp_path / "m")
    archive = crnn.compress(prose(3000), model=model)
    assert crnn.decompress(archive, model=crnn.load(tmp_path / "m")) == prose(3000)


def test_another_model_is_refused_by_its_digest(model):
    archive = crnn.compress(prose(3000), model=model)
    digest = Header.read(archive)[0].model.hex()
    with pytest.raises(crnn.ArchiveError, match=f"whose digest is {digest}, got none"):
        crnn.decompress(archive)
    other = byte_model(prose(4000, seed=6))
    with pytest.raises(crnn.ArchiveError, match=f"whose digest is {digest}, got one with"):
        crnn.decompress(archive, model=other)


def test_a_model_that_is_not_needed_is_ignored(model):
    assert crnn.decompress(crnn.compress(b"x", model=model), model=model) == b"x"
    assert crnn.decompress(crnn.compress(b"x" * 999, model=model)) == b"x" * 999
    assert crnn.decompress(crnn.compress(prose(500)), model=model) == prose(500)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=3),
            "unit='byte', got one with unit='char'",
        ),
        (
            lambda: crnn.LanguageModel(crnn.Vocab.from_text(b"ab", "byte"), hidden_size=3, dtype="float64"),
            "dtype='float32', got one with dtype='float64'",
        ),
        (
            lambda: crnn.LanguageModel(crnn.Vocab.from_text(b"ab", "byte"), hidden_size=3).quantize(),
            "precision=None, got one with precision='int8'",
        ),
    ],
    ids=["characters", "float64", "int8"],
)
def test_models_that_cannot_be_a_start_are_refused(make, message):
    for call in (crnn.compress, crnn.decompress):
        with pytest.raises(ValueError, match=message):
            call(b"abc", model=make())


# ---- after a text ----------------------------------------------------------------------------------------------------

def log_of(day, lines):
    rng = np.random.default_rng(day)
    verbs = ["accepted", "closed", "refused", "forwarded", "delayed"]
    rows = zip(rng.integers(0, 3, lines), rng.integers(0, 5, lines), rng.integers(0, 1000, lines), strict=True)
    return "".join(f"2026-11-{day:02} host{host} {verbs[verb]} connection {n}\n" for host, verb, n in rows).encode()


DAY, NEXT_DAY = log_of(5, 150), log_of(6, 60)


def test_after_a_similar_text_archives_are_smaller():
    archive = crnn.compress(NEXT_DAY, after=DAY)
    assert len(archive) < 0.8 * len(crnn.compress(NEXT_DAY))
    assert crnn.decompress(archive, after=bytearray(DAY), threads=2) == NEXT_DAY
    assert crnn.compress(NEXT_DAY, after=DAY, threads=2) == archive


@pytest.mark.parametrize("content", [b"x", b"xy", b"zz" * 500, b"host" * 200, bytes(range(256)), prose(900)], ids=len)
@pytest.mark.parametrize("after", [b"z", b"host1", bytes(range(256)), DAY])
def test_any_text_may_come_before_any_content(content, after):
    archive = crnn.compress(content, after=after)
    assert crnn.decompress(archive, after=after) == content
    assert len(archive) <= len(content) + 40


def test_a_model_and_a_text_are_both_the_start(model):
    archive = crnn.compress(NEXT_DAY, after=DAY, model=model)
    header = Header.read(archive)[0]
    assert header.model
    assert header.after
    assert crnn.decompress(archive, after=DAY, model=model) == NEXT_DAY
    for start in ({"after": DAY}, {"model": model}):
        with pytest.raises(crnn.ArchiveError, match="that it was made with"):
            crnn.decompress(archive, **start)


def test_another_text_is_refused_by_its_digest():
    archive = crnn.compress(NEXT_DAY, after=DAY)
    digest = Header.read(archive)[0].after.hex()
    assert digest == hashlib.blake2b(DAY, digest_size=16).hexdigest()
    for text, came in ((None, "none"), (b"", "none"), (DAY[:-1], "one with ")):
        with pytest.raises(crnn.ArchiveError, match=f"expected the text before it .* digest is {digest}, got {came}"):
            crnn.decompress(archive, after=text)


def test_without_a_text_archives_are_those_of_always():
    archive = crnn.compress(NEXT_DAY)
    assert crnn.compress(NEXT_DAY, after=b"") == archive
    assert crnn.decompress(archive, after=DAY) == NEXT_DAY
    assert not Header.read(archive)[0].after


def test_progress_counts_the_text_too():
    calls = []
    crnn.compress(NEXT_DAY, after=DAY, progress=lambda *call: calls.append(call))
    total = len(DAY) + len(NEXT_DAY)
    assert calls[-1] == (total, total)
    assert {all for _, all in calls} == {total}


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [crnn.compress, crnn.decompress])
@pytest.mark.parametrize("value", ["text", 5, None, [1, 2]])
def test_what_is_not_bytes_is_refused(call, value):
    name = {"compress": "data", "decompress": "archive"}[call.__name__]
    with pytest.raises(TypeError, match=f"^{name}: expected bytes, got {type(value).__name__}"):
        call(value)


RELEASED = memoryview(b"abc")
RELEASED.release()


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (np.array([None, 3]), "ndarray of Python objects"),
        (np.zeros(2, [("a", "i4"), ("b", object)]), "ndarray of Python objects"),
        (np.array(["2020-01-01"], "M8[D]"), "ndarray"),
        (RELEASED, "memoryview"),
    ],
    ids=["objects", "a field of objects", "dates", "released"],
)
def test_buffers_whose_bytes_are_not_their_content_are_refused(value, came):
    for name, call in (
        ("data", lambda: crnn.compress(value)),
        ("after", lambda: crnn.compress(b"abc", after=value)),
        ("archive", lambda: crnn.decompress(value)),
    ):
        with pytest.raises(TypeError, match=f"^{name}: expected bytes, got {came}$"):
            call()


def test_arrays_of_fields_are_compressed():
    rows = np.zeros(2, [("O", "i4"), ("b", "f8")])
    assert crnn.decompress(crnn.compress(rows)) == rows.tobytes()


@pytest.mark.parametrize("content", [b"x", prose(500)], ids=["stored", "predicted"])
def test_a_progress_that_cannot_be_called_is_refused_before_work_starts(content):
    for call, value in ((crnn.compress, content), (crnn.decompress, crnn.compress(content))):
        with pytest.raises(TypeError, match=r"^progress: expected a function, got int"):
            call(value, progress=5)


@pytest.mark.parametrize("alphabet", [b"a", b"ab"])
def test_content_that_does_not_fit_into_memory_is_refused_by_its_size(alphabet, monkeypatch):
    monkeypatch.setattr(archives, "BYTES_PER_BYTE", 1 << 60)  # so that the archive of this test is small
    archive = Header("predicted", archives.VERSION, 1 << 55, bytes(8), alphabet).to_bytes()
    with pytest.raises(MemoryError, match=f"^archive: expected content that fits into memory, got one of {1 << 55:,}"):
        crnn.decompress(archive)


@pytest.mark.parametrize("call", [crnn.compress, crnn.decompress])
def test_wrong_options_are_refused(call):
    with pytest.raises(TypeError, match="model: expected a LanguageModel, got str"):
        call(b"abc", model="m.safetensors")
    with pytest.raises(ValueError, match="threads: expected"):
        call(b"abc", threads=0)
    with pytest.raises(TypeError, match="after: expected bytes, got str"):
        call(b"abc", after="text")


ARCHIVES = {name: crnn.compress(content) for name, content in CONTENTS.items() if len(content) < 300}


def refusal(archive, **options):
    with pytest.raises(crnn.ArchiveError, match=r"^archive: expected ") as error:
        crnn.decompress(archive, **options)
    return str(error.value)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_part_of_an_archive_is_refused(name):
    archive = ARCHIVES[name]
    for size in {*range(min(len(archive), 60)), *range(max(0, len(archive) - 20), len(archive))}:
        refusal(archive[:size])
    refusal(archive + b"\0")


@pytest.mark.parametrize("times", [1, 3])
def test_an_archive_with_another_bit_is_refused(times):
    archive = crnn.compress(CONTENTS["short prose"] * times)
    assert Header.read(archive)[0].method == ("stored" if times == 1 else "predicted")
    for place in range(len(archive)):
        for bit in (1, 16, 128):
            damaged = bytearray(archive)
            damaged[place] ^= bit
            refusal(bytes(damaged))


def test_refusals_say_what_came():
    archive = crnn.compress(prose(500))
    assert "got bytes that begin with b'\\x1f\\x8b\\x08\\x00'" in refusal(b"\x1f\x8b\x08\x00 and so on")
    assert "got bytes that begin with b''" in refusal(b"")
    assert "version 1 of the format, got 9" in refusal(archive[:4] + b"\x09" + archive[5:])
    assert "expected a whole header, got its first 20 bytes" in refusal(archive[:20])
    assert "at most 499 bytes, got one of 500" in refusal(archive, max_size=499)
    assert crnn.decompress(archive, max_size=500) == prose(500)


def sealed(header, payload=b""):
    """An archive with this header, whose check sum is right."""
    return header.to_bytes() + payload


def test_claims_that_cannot_be_true_are_refused_before_memory_is_allocated(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("work has begun")

    monkeypatch.setattr(archives, "Coding", never)
    digest = bytes(8)
    too_large = Header("predicted", archives.VERSION, 1 << 40, digest, b"ab")
    assert f"got 5 bytes for {1 << 40:,}" in refusal(sealed(too_large, b"12345"))
    assert "version" in refusal(sealed(Header("predicted", 99, 10, digest, b"ab"), b"12345"))
    assert "got others" in refusal(sealed(Header("predicted", archives.VERSION, 10, digest, b"a"), b"1"))
    assert "got 0 bytes for 300,000" in refusal(sealed(Header("predicted", archives.VERSION, 300_000, digest, b"a")))
    assert "11 different bytes among 10" in refusal(sealed(Header("predicted", 1, 10, digest, b"abcdefghijk"), b"1"))


def test_alphabets_and_sizes_that_no_header_has_are_refused():
    archive = bytearray(crnn.compress(prose(500)))
    plain = Header.read(bytes(archive))[0]

    def with_fields(size, alphabet):
        head = b"\x8ecrz\x01\x01" + bytes([archives.VERSION]) + size + alphabet + plain.digest
        return head + zlib.crc32(head).to_bytes(4, "little") + b"payload"

    two = b"\x01ab"
    assert "alphabet" in refusal(with_fields(b"\x40", b"\x01ba"))  # falls
    assert "alphabet" in refusal(with_fields(b"\x40", b"\x01aa"))
    assert "alphabet" in refusal(with_fields(b"\x40", b"\x1f" + b"\xff" * 32))  # 32 announced, 256 in the map
    assert "size" in refusal(with_fields(b"\xc0\x00", two))  # could be shorter
    assert "size" in refusal(with_fields(b"\xff" * 9 + b"\x01", two))
    assert "method" in refusal(with_fields(b"\x00", two))


@pytest.mark.parametrize("kind", [0x10, 0x20, 0x30, 0x40, 0x81, 2, 15])
def test_methods_that_do_not_exist_are_refused(kind):
    content = b"content"
    digest = hashlib.blake2b(content, digest_size=8).digest()
    head = b"\x8ecrz\x01" + bytes([kind, kind & 1]) + b"\x07" + b"0123456789abcdef" * (kind >> 4 & 3) + digest
    assert "method" in refusal(head + zlib.crc32(head).to_bytes(4, "little") + content)


def test_an_alphabet_without_the_bytes_of_the_text_is_refused():
    archive = crnn.compress(b"abab" * 50, after=b"abcabc")
    header, place = Header.read(archive)
    assert header.alphabet == b"abc"
    other = Header(header.method, header.predictor, header.size, header.digest, b"ab", after=header.after)
    assert "alphabet" in refusal(other.to_bytes() + archive[place:], after=b"abcabc")


def test_the_digest_of_the_content_is_compared():
    archive = crnn.compress(CONTENTS["random"])
    header, start = Header.read(archive)
    other = archive[:start] + bytes([archive[start] ^ 1]) + archive[start + 1 :]
    assert "another digest" in refusal(other)
    run = Header("predicted", archives.VERSION, 10, header.digest, b"a")
    assert "another digest" in refusal(sealed(run))


def test_an_exception_of_the_callback_ends_the_work():
    class Enough(Exception):
        pass

    calls = []

    def progress(done, total):
        calls.append((done, total))
        if len(calls) == 3:
            raise Enough

    archive = crnn.compress(prose(9001))
    for call, argument in ((crnn.compress, prose(9001)), (crnn.decompress, archive)):
        calls.clear()
        with pytest.raises(Enough):
            call(argument, progress=progress)
        assert [total for _, total in calls] == [9001] * 3
        assert 0 < calls[0][0] < calls[1][0] < calls[2][0] <= 9001


def test_the_last_call_of_progress_has_all_bytes():
    calls = []
    crnn.compress(prose(9001), progress=lambda *call: calls.append(call))
    assert calls[-1] == (9001, 9001)
