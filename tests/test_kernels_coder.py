# SPDX-License-Identifier: MIT
"""The range coder: frequencies against NumPy's integers, bytes against a coder of Python's integers, which have no
carry to propagate."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from crnn._core.coder import Decoder, Encoder, frequencies

WHOLE, SHARED = 1 << 24, 1 << 10
SIZES = (1, 2, 3, 7, 31, 33, 64, 255, 256)


def frequencies_by_definition(p):
    """Of one row."""
    p = np.where(np.isnan(p), 0, np.clip(p, 0, 1)).astype(np.float64)
    least = SHARED // len(p)
    shares = np.floor(p * WHOLE).astype(np.int64)
    found = least + shares - shares // (WHOLE // SHARED)
    surplus = int(found.sum()) - WHOLE
    if surplus > found.max() - least:
        found = np.full(len(p), WHOLE // len(p))
        surplus = int(found.sum()) - WHOLE
    found[found.argmax()] -= surplus
    return found


def bytes_by_definition(rows, symbols):
    """The archive's number with all its digits."""
    low, width, shifts = 0, (1 << 64) - 1, 0
    for row, symbol in zip(rows, symbols, strict=True):
        unit = width // WHOLE
        low += unit * int(row[:symbol].sum())
        width = unit * int(row[symbol])
        while width < 1 << 56:
            low, width, shifts = low << 8, width << 8, shifts + 1
    last = (low + (1 << 56) - 1) >> 56
    return last.to_bytes(shifts + 1, "big")


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return (e / e.sum(axis=-1, keepdims=True)).astype(np.float32)


def peaked(rng, rows, V):
    """Probabilities of rows, many of them nearly 0 and 1."""
    return softmax(rng.normal(0, 6, (rows, V)))


@pytest.mark.parametrize("V", SIZES)
def test_frequencies_are_those_of_the_definition(V):
    p = peaked(np.random.default_rng(V), 50, V)
    found = frequencies(p)
    assert found.dtype == np.uint32
    for row, expected in zip(found, p, strict=True):
        np.testing.assert_array_equal(row, frequencies_by_definition(expected))


special = [0.0, 1.0, -1.0, 2.0, np.nan, np.inf, -np.inf, 1e-40, 1e-8, 0.5, 3e38]
values = st.sampled_from(special) | st.floats(0, 1, width=32)


@given(st.lists(values, min_size=1, max_size=256))
def test_frequencies_of_any_numbers_are_positive_and_have_their_sum(numbers):
    p = np.array([numbers], np.float32)
    (found,) = frequencies(p)
    assert found.min() >= 1
    assert found.sum(dtype=np.int64) == WHOLE
    np.testing.assert_array_equal(found, frequencies_by_definition(p[0]))


def test_no_probability_is_so_large_that_symbols_cost_nothing():
    for V in SIZES[1:]:
        p = np.zeros((1, V), np.float32)
        p[0, -1] = 1
        assert frequencies(p).max() <= WHOLE - WHOLE // (1 << 15)


def encoded(p, symbols):
    encoder = Encoder()
    for row, symbol in zip(p, symbols, strict=True):
        encoder.encode(row[None], np.array([symbol], np.int32), 1)
    return encoder.finish()


def decoded(content, p):
    decoder = Decoder(content)
    symbols = np.zeros(1, np.int32)
    found = []
    for row in p:
        if not decoder.decode(symbols, row[None], 1):
            return None
        found.append(int(symbols[0]))
    return found, len(content) if decoder.ended() else -1


@pytest.mark.parametrize("V", SIZES)
@pytest.mark.parametrize("choice", ["likely", "any", "least", "first", "last"])
def test_bytes_are_those_of_the_definition_and_are_decoded(V, choice):
    rng = np.random.default_rng(V)
    p = peaked(rng, 400, V)
    symbols = {
        "likely": p.argmax(axis=1),
        "any": rng.integers(0, V, 400),
        "least": p.argmin(axis=1),
        "first": np.zeros(400, int),
        "last": np.full(400, V - 1),
    }[choice]
    content = encoded(p, symbols)
    assert content == bytes_by_definition(frequencies(p), symbols)
    assert decoded(content, p) == (symbols.tolist(), len(content))
    cost = -np.log2(np.take_along_axis(frequencies(p) / WHOLE, symbols[:, None], 1)).sum() / 8
    assert cost <= len(content) <= cost + 2


@given(st.data())
def test_any_symbols_are_decoded(data):
    V = data.draw(st.integers(1, 256))
    symbols = data.draw(st.lists(st.integers(0, V - 1), max_size=60))
    p = peaked(np.random.default_rng(data.draw(st.integers(0, 9))), len(symbols), V)
    content = encoded(p, symbols)
    assert content == bytes_by_definition(frequencies(p) if symbols else [], symbols)
    assert decoded(content, p) == (symbols, len(content))


def test_carries_pass_through_many_bytes():
    """The last symbol of rows leaves the upper end of the interval, where the next carry changes all bytes before."""
    p = np.full((300, 2), 0.5, np.float32)
    p[:, 0] = 1 - 2**-13
    p[:, 1] = 2**-13
    rng = np.random.default_rng(1)
    for seed in range(50):
        symbols = np.ones(300, int)
        symbols[rng.integers(0, 300, 3)] = 0
        content = encoded(p, symbols)
        assert content == bytes_by_definition(frequencies(p), symbols), seed
        assert decoded(content, p)[0] == symbols.tolist()


def test_rows_beyond_those_that_are_coded_are_neither_read_nor_written():
    p = peaked(np.random.default_rng(2), 5, 7)
    symbols = np.array([1, 2, 3, 99, -5], np.int32)
    encoder = Encoder()
    encoder.encode(p, symbols, 3)
    content = encoder.finish()
    assert content == encoded(p[:3], symbols[:3])
    found = np.full(5, 77, np.int32)
    assert Decoder(content).decode(found, p, 3)
    assert found.tolist() == [1, 2, 3, 0, 0]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_decoder_that_is_out_of_bytes_says_so(cut):
    rng = np.random.default_rng(3)
    p = peaked(rng, 200, 11)
    symbols = rng.integers(0, 11, 200)
    content = encoded(p, symbols)
    found = decoded(content[:-cut], p)
    assert found is None or (found[0] != symbols.tolist() and cut < 8)  # zeros in their place may cost less


def test_bytes_that_no_encoder_writes_are_refused():
    p = np.full((1, 3), 1 / 3, np.float32)
    found = np.zeros(1, np.int32)
    assert not Decoder(b"\xff" * 20).decode(found, p, 1)


@pytest.mark.parametrize(
    ("p", "symbols", "rows", "message"),
    [
        (np.ones((2, 3), np.float64), [0, 0], 2, "p: expected C-contiguous float32 array"),
        (np.ones((2, 257), np.float32), [0, 0], 2, "p: expected from 1 to 256 probabilities"),
        (np.ones((2, 0), np.float32), [0, 0], 2, "p: expected from 1 to 256 probabilities"),
        (np.ones((2, 3), np.float32), [0, 3], 2, "symbols: expected from 0 to 2, got 3"),
        (np.ones((2, 3), np.float32), [-1, 0], 2, "symbols: expected from 0 to 2, got -1"),
        (np.ones((2, 3), np.float32), [0], 2, "symbols: expected (writable )?C-contiguous int32 array"),
        (np.ones((2, 3), np.float32), [0, 0], 3, "rows: expected at most 2"),
        (np.ones((2, 3), np.float32), [0, 0], -1, "rows: expected at most 2"),
    ],
)
def test_wrong_arguments_are_refused(p, symbols, rows, message):
    with pytest.raises(ValueError, match=message):
        Encoder().encode(p, np.array(symbols, np.int32), rows)
    if "symbols: expected from" not in message:
        with pytest.raises(ValueError, match=message):
            Decoder(b"abc").decode(np.array(symbols, np.int32), p, rows)


def test_only_the_bytes_that_an_encoder_writes_are_at_their_end():
    rng = np.random.default_rng(4)
    for V in (2, 5, 200):
        p = peaked(rng, 40, V)
        symbols = rng.integers(0, V, 40)
        content = encoded(p, symbols)
        for other in (content + b"\0", *(content[:-1] + bytes([last]) for last in range(256))):
            assert other == content or decoded(other, p) in (None, (symbols.tolist(), -1)) or (
                decoded(other, p)[0] != symbols.tolist()
            )


def test_nothing_is_written_after_the_end():
    encoder = Encoder()
    p = np.ones((1, 1), np.float32)
    first = encoder.finish()
    assert encoder.finish() == first
    with pytest.raises(ValueError, match="before the end"):
        encoder.encode(p, np.zeros(1, np.int32), 1)
