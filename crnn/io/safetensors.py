# SPDX-License-Identifier: MIT
"""The container of model files: safetensors, a JSON header and then the bytes of the tensors, without code.

It is read and written here rather than by the package of that name, which has to be compiled for every Python and is
not for all (free-threaded ones, WebAssembly), and which ends the process if memory runs out. The files are the same,
byte for byte. A file is hostile input: the memory of a header is bounded before it is parsed, and offsets, shapes and
sizes are checked before a tensor is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.io import json_header

__all__ = ["FILE_DTYPES", "HEADER_LIMIT", "Buffer", "Entry", "check_dtype", "check_size", "header_memory", "header_of",
           "parse", "to_array", "to_bytes"]  # fmt: skip

Array = NDArray[Any]
Buffer = bytes | memoryview
Entry = Mapping[str, Any]  # dtype, shape and data of a tensor in a file

HEADER_LIMIT = 64 << 20  # bytes
HEADER_MEMORY = 96 << 20  # bytes that a header may take in memory, and
HEADER_MEMORY_PER_BYTE = 8  # as many for each byte of data: a large vocabulary belongs to large tensors

# safetensors' names of dtypes and NumPy's, in the order in which a file has their tensors; and those of model files.
NUMPY_DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "F16": "<f2",
    "U16": "<u2", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
FILE_DTYPES = {name: NUMPY_DTYPES[name] for name in ("F64", "F32", "U8", "I8")} | {"BF16": "<u2"}
MESSAGE_LIMIT = 200  # characters of a file that a message repeats
LARGEST = 1 << 62  # elements

# Bits of an element of every dtype of the format.
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str], bf16: Collection[str] = ()) -> bytes:
    """The content of a file with arrays and texts. Raises ValueError for an array of a dtype that no file can have.

    ``bf16`` names float32 tensors of which the file holds the upper halves.
    """
    names = {np.dtype(dtype): name for name, dtype in NUMPY_DTYPES.items()}
    ranks = list(names)
    arrays = {name: array.astype(array.dtype.newbyteorder("<"), "C", copy=False) for name, array in tensors.items()}
    for name, array in arrays.items():
        if array.dtype not in names:
            raise ValueError(f"{name}: expected one of {', '.join(map(str, ranks))}, got {array.dtype}")
    for name in bf16:
        arrays[name] = (arrays[name].view("<u4") >> 16).astype("<u2")
    order = sorted(arrays, key=lambda name: (ranks.index(arrays[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        shape = list(arrays[name].shape)
        dtype = "BF16" if name in bf16 else names[arrays[name].dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json_header.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    return b"".join([len(text).to_bytes(8, "little"), text, *(arrays[name].reshape(-1).data for name in order)])


def parse(
    content: Buffer, borrow: bool = False, header: dict[str, Any] | None = None
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries of tensors for `to_array`, by name, and metadata, from the content of any safetensors file.

    With ``borrow`` the tensors are views of the content, which nobody may change; otherwise copies. ``header`` is what
    `header_of` returned, if it is known; it is changed. Memory and time are at most proportional to its size. Raises
    ValueError for a file that is damaged, that has a key twice, or whose header is too large.
    """
    header = header_of(content, len(content)) if header is None else header
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__: expected texts")
    data = memoryview(content)[8 + int.from_bytes(content[:8], "little") :]
    ranges = {name: _range_of(name, entry) for name, entry in header.items()}
    end = 0
    for name in sorted(ranges, key=ranges.__getitem__):
        if ranges[name][0] != end:
            raise ValueError(f"{name:.{MESSAGE_LIMIT}}: expected data that begin at byte {end}, got {ranges[name][0]}")
        end = ranges[name][1]
    if end != len(data):
        raise ValueError(f"its header lists tensors of {end} bytes, got {len(data)}")
    entries: dict[str, Entry] = {}
    for name, (begin, end) in ranges.items():
        part = data[begin:end]
        entries[name] = {**header[name], "data": part if borrow else bytearray(part)}
    return entries, metadata


def _range_of(name: str, entry: Any) -> tuple[int, int]:
    """Where the data of a tensor begin and end. Raises ValueError unless its dtype and shape need as many bytes."""
    name = f"{name:.{MESSAGE_LIMIT}}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{name}: expected dtype, shape and data_offsets, got {entry!r:.100}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{name}: expected a dtype of safetensors, got {dtype!r:.100}")
    for value in shape, offsets:
        if not isinstance(value, list) or not all(type(each) is int and 0 <= each < LARGEST for each in value):
            raise ValueError(f"{name}: expected a list of sizes, got {value!r:.100}")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name}: expected where its data begin and end, got {offsets!r:.100}")
    size = 1
    for length in shape:
        size *= length
        if size >= LARGEST:  # before the product of a long list is itself long
            raise ValueError(f"{name}: expected fewer elements, got shape {shape!r:.100}")
    begin, end = offsets
    if size * BITS[dtype] != 8 * (end - begin):
        raise ValueError(f"{name}: expected {size * BITS[dtype] // 8} bytes for its shape, got {end - begin}")
    return begin, end


def to_array(name: str, entry: Entry, dtypes: Mapping[str, str] = FILE_DTYPES) -> Array:
    """The array of an entry of `parse`, in the machine's byte order, of bfloat16 in float32.

    Raises ValueError for another dtype.
    """
    check_dtype(name, entry["dtype"], dtypes)
    array = np.frombuffer(entry["data"], dtypes[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        wide: Array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return wide
    return array.astype(array.dtype.newbyteorder("="), copy=not array.flags.aligned)


def check_dtype(name: str, dtype: str, dtypes: Mapping[str, str] = FILE_DTYPES) -> None:
    """Raise ValueError, which names the tensor, unless its dtype in the file is one of ``dtypes``."""
    if dtype not in dtypes:
        raise ValueError(f"{name:.{MESSAGE_LIMIT}}: expected one of {', '.join(dtypes)}, got {dtype}")


def header_of(content: Buffer, size: int) -> dict[str, Any]:
    """The header of a file of ``size`` bytes, of which ``content`` is at least the beginning.

    Raises ValueError if it is invalid, or takes too much memory or time.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    if end > min(len(content), 8 + HEADER_LIMIT):
        raise ValueError(f"a header of {end - 8} bytes in {size}, or more than {HEADER_LIMIT}")
    header = json_header.loads(bytes(content[8:end]).decode(), header_memory(size - end))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def check_size(header: Mapping[str, Any], size: int) -> None:
    """Raise ValueError unless the tensors of a header, of unknown content, end after ``size`` bytes."""
    try:
        end = max((header[name]["data_offsets"][1] for name in header if name != "__metadata__"), default=0)
    except (KeyError, IndexError, TypeError):
        raise ValueError("a header without data_offsets") from None
    if end != size:
        raise ValueError(f"its header lists tensors of {end!r:.40} bytes, got {size}")


def header_memory(data: int) -> int:
    """Bytes of memory that the header of a file with ``data`` bytes of tensors may take."""
    return HEADER_MEMORY + HEADER_MEMORY_PER_BYTE * max(data, 0)
