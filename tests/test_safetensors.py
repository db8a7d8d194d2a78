"""The container of model files against the package that defines it, which crnn does not need."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crnn.io import safetensors

pytest.importorskip("safetensors", reason="compared with the package, which not every Python has")
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9).filter(lambda name: name != "__metadata__")
DTYPES = st.sampled_from([*safetensors.NUMPY_DTYPES.values()])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
TENSORS = st.dictionaries(NAMES, arrays.arrays(DTYPES, SHAPES), max_size=5)


@given(TENSORS, NAMES)
def test_files_are_those_of_the_package_byte_for_byte(tensors, text):
    content = safetensors.to_bytes(tensors, {"crnn": text})
    assert content == save(tensors, {"crnn": text})
    entries, metadata = safetensors.parse(content)
    assert metadata == {"crnn": text}
    for name, array in tensors.items():
        again = safetensors.to_array(name, entries[name], safetensors.NUMPY_DTYPES)
        assert again.tobytes() == array.tobytes()
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.flags.writeable


def test_rows_of_columns_and_numbers_of_another_byte_order_are_written_as_values():
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    entries, _ = safetensors.parse(safetensors.to_bytes({"a": array}, {}))
    assert (safetensors.to_array("a", entries["a"]) == array).all()


def test_an_array_of_another_dtype_is_refused_by_name():
    with pytest.raises(ValueError, match=r"ids: expected one of uint64, .*, bool, got <U1"):
        safetensors.to_bytes({"ids": np.array(["a"])}, {})


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED = {
    "a gap": ({"a": tensor(offsets=(4, 12))}, 12),
    "an overlap": ({"a": tensor(), "b": tensor(offsets=(4, 12))}, 12),
    "data that end early": ({"a": tensor()}, 7),
    "data that no tensor has": ({"a": tensor()}, 9),
    "too few bytes for a shape": ({"a": tensor(shape=(3,))}, 8),
    "offsets that go back": ({"a": tensor(shape=(0,), offsets=(8, 0)), "b": tensor()}, 8),
    "negative lengths": ({"a": tensor(shape=(-1, -2))}, 8),
    "lengths beyond all integers": ({"a": tensor(shape=(0, 10**30), offsets=(0, 0))}, 0),
    "a product beyond all integers": ({"a": tensor(shape=[2**40] * 3, offsets=(0, 0))}, 0),
    "an unknown dtype": ({"a": tensor(dtype="F33")}, 8),
    "a dtype that is no text": ({"a": tensor(dtype=["F32"])}, 8),
    "lengths that are no integers": ({"a": tensor(shape=(2.0,))}, 8),
    "true for a length": ({"a": tensor(shape=(True, 2))}, 8),
    "three offsets": ({"a": tensor(offsets=(0, 8, 8))}, 8),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, 8),
    "a tensor that is a list": ({"a": [1]}, 8),
    "metadata that are no texts": ({"__metadata__": {"a": 1}}, 0),
    "metadata that are a list": ({"__metadata__": ["a"]}, 0),
    "half a byte": ({"a": tensor(dtype="F4", shape=(3,), offsets=(0, 1))}, 1),
    "a list": ([1], 0),
    "no JSON": (b"{", 0),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_here_and_by_the_package(what):
    header, size = DAMAGED[what]
    content = with_header(header, bytes(size))
    with pytest.raises(SafetensorError):
        deserialize(content)
    with pytest.raises(ValueError, match=r"expected|lists|header|Expecting"):
        safetensors.parse(content)


def test_a_long_shape_of_a_huge_tensor_takes_no_time():
    content = with_header({"a": tensor(shape=[2**61] * 100_000)}, bytes(8))
    with pytest.raises(ValueError, match="a: expected fewer elements"):
        safetensors.parse(content)


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["F32", "U8", "dtype", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["a", "b", "dtype", "shape", "data_offsets", "__metadata__"]), inner, max_size=3),
)  # fmt: skip
LIKELY = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "U8", "I16"]),
    "shape": st.lists(st.integers(0, 3), max_size=2),
    "data_offsets": st.lists(st.integers(0, 12), min_size=2, max_size=2),
})  # fmt: skip


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), LIKELY | HEADERS, max_size=3), st.integers(0, 12))
def test_what_the_package_accepts_is_accepted_and_nothing_else(header, size):
    content = with_header(header, bytes(size))
    try:
        expected = {name: entry["shape"] for name, entry in deserialize(content)}
    except SafetensorError:
        expected = None
    try:
        found = {name: entry["shape"] for name, entry in safetensors.parse(content)[0].items()}
    except ValueError:
        found = None
    assert found == expected
