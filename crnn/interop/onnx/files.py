# SPDX-License-Identifier: MIT
"""ONNX files: bytes to ModelProto, tensors to arrays, within limits. Independent of models.

A file is hostile input. It is parsed only after its messages have been counted, because an empty one takes two bytes
in the file and a hundred in memory. A tensor becomes an array when it is used, and no more often than once. Values
outside of the file are read only if they lie in its folder, each byte once.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn.checks import Array
from crnn.io import model_file
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import ModelFileError

if TYPE_CHECKING:
    import onnx as onnx_module

METADATA = "crnn"  # the key of metadata_props with the header of a model, as in a model file
LARGEST = (1 << 31) - 1  # bytes of a file: protobuf's limit
MESSAGES = 100_000  # of a file; a graph of recurrent layers has a few hundred
DEPTH = 50  # of messages in each other
FLOATS = {"float32", "float64", "float16", "bfloat16"}
DTYPES = FLOATS | {"int64", "int32", "bool"}
HELPERS = "const."  # prefix, in crnn's files, of initializers that hold no parameters: shapes, axes, names


def onnx() -> Any:
    """The library. Raises ImportError, which says how to install it."""
    try:
        library = importlib.import_module("onnx")
        for name in ("helper", "numpy_helper"):
            importlib.import_module(f"onnx.{name}")
    except ImportError:
        raise ImportError("expected the library onnx to be installed: pip install 'crnn[onnx]'") from None
    return library


def name_of(path: PathLike) -> str:
    """What messages call a file."""
    return os.fsdecode(path)


# ---- files -----------------------------------------------------------------------------------------------------------


def read(path: PathLike) -> tuple[onnx_module.ModelProto, Tensors]:
    """The content of a file, and its tensors. Raises ModelFileError, OSError, and ImportError without onnx."""
    library, name = onnx(), name_of(path)
    content = _content(path)
    try:
        check_messages(content, library.ModelProto.DESCRIPTOR)
        proto = library.ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError has no common name in its implementations
        raise ModelFileError(f"{name}: expected an ONNX file: {error}") from None
    return proto, Tensors(proto, os.path.dirname(os.path.realpath(name)))


def _content(path: PathLike) -> bytes:
    """The bytes of a regular file of at most LARGEST. Raises ModelFileError and OSError."""
    name, status = name_of(path), os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ModelFileError(f"{name}: expected a regular file")
    with open(path, "rb") as file:
        content = file.read(status.st_size) if status.st_size <= LARGEST else b""
    if not content:
        raise ModelFileError(f"{name}: expected an ONNX file of at most {LARGEST} bytes, got {status.st_size}")
    return content


def check_messages(content: bytes, descriptor: Any) -> None:
    """Raise ValueError if a protobuf message holds more than MESSAGES others, or texts that are not UTF-8.

    ``descriptor`` describes its type. Numbers are skipped, so the time is proportional to the number of fields, which
    is limited too. protobuf itself returns such texts as bytes.
    """
    fields = 0
    open_messages = [(0, len(content), descriptor)]
    messages, deepest = 1, [0]
    while open_messages:
        at, end, kind = open_messages.pop()
        depth = deepest.pop()
        while at < end:
            fields += 1
            key, at = _varint(content, at, end)
            number, wire = key >> 3, key & 7
            if wire == 0:
                _, at = _varint(content, at, end)
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            elif wire == 2:
                size, at = _varint(content, at, end)
                field = kind.fields_by_number.get(number)
                if field is not None and field.message_type is not None and size <= end - at:
                    messages += 1
                    open_messages.append((at, at + size, field.message_type))
                    deepest.append(depth + 1)
                elif field is not None and field.type == field.TYPE_STRING:
                    content[at : at + size].decode()
                at += size
            else:
                raise ValueError("got another kind of file, or a damaged one")
            if at > end:
                raise ValueError("got an incomplete one")
            if messages > MESSAGES or fields > 10 * MESSAGES or depth > DEPTH:
                raise ValueError(f"got more than {MESSAGES} messages in it, or more than {DEPTH} in each other")


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where the next one starts."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("got an incomplete one, or another kind of file")


# ---- tensors ---------------------------------------------------------------------------------------------------------


class Tensors:
    """The initializers of a graph, and other tensors in its file, as arrays.

    Parameters
    ----------
    proto : onnx.ModelProto
    folder : str, optional
        Of the file, for values that lie in other files. Without it, such values are refused.
    """

    def __init__(self, proto: onnx_module.ModelProto, folder: str | None = None) -> None:
        self.named: dict[str, Any] = {}
        for tensor in proto.graph.initializer:
            if tensor.name in self.named or not tensor.name:
                raise ValueError(f"initializer {tensor.name!r:.100}: expected a name that no other one has")
            self.named[tensor.name] = tensor
        if len(proto.graph.sparse_initializer):
            raise ValueError("sparse_initializer: expected none, which crnn does not read")
        self._folder = folder
        self._arrays: dict[str, Array] = {}
        self._pieces: dict[tuple[str, int, int], bytes] = {}  # of other files, by name, offset and length
        self._read: dict[str, int] = {}  # bytes that have been read of each of them

    def array(self, name: str) -> Array:
        """An initializer, read-only. Raises ValueError."""
        if name not in self._arrays:
            self._arrays[name] = self.of(self.named[name], f"initializer {name!r:.100}")
        return self._arrays[name]

    def of(self, tensor: Any, name: str) -> Array:
        """Any tensor of the file as an array, read-only. Raises ValueError, which calls it ``name``."""
        library = onnx()
        dtype = dtype_of(tensor.data_type).name
        if tensor.data_type == library.TensorProto.STRING and not len(tensor.external_data):
            if tuple(tensor.dims) != (len(tensor.string_data),):
                raise ValueError(f"{name}: expected a list of texts")
            texts = np.empty(len(tensor.string_data), "U1").astype(object)
            texts[:] = [text.decode() for text in tensor.string_data]
            return texts
        if dtype not in DTYPES:
            raise ValueError(f"{name}: expected one of {', '.join(sorted(DTYPES))}, got {dtype:.100}")
        try:
            if tensor.data_location == library.TensorProto.EXTERNAL:
                flat: Array = np.frombuffer(self._external(tensor), np.dtype(dtype).newbyteorder("<"))
                array = flat.reshape(tuple(tensor.dims)).astype(np.dtype(dtype), copy=False)
            else:
                array = library.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from None
        array.flags.writeable = False
        return array

    def _external(self, tensor: Any) -> bytes:
        """Values that lie in another file of the same folder. Raises ValueError."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise ValueError(f"expected values in the model, got a reference to the file {location!r:.100}; use load")
        if not location or location != os.path.basename(location) or location in (".", "..") or "\0" in location:
            raise ValueError(f"expected values in a file of the same folder, got {location!r:.100}")
        path = os.path.join(self._folder, location)
        try:
            offset = int(entries.get("offset", "0")[:20])
            status = os.lstat(path)
            length = int(entries.get("length", str(status.st_size - offset))[:20])
        except OSError as error:
            raise ValueError(f"values in the file {location!r:.100}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"expected values in a regular file, got {location!r:.100}")
        if offset < 0 or length < 0 or offset + length > status.st_size:
            raise ValueError(f"values in the file {location!r:.100}: expected at most {status.st_size} bytes")
        key = location, offset, length
        if key not in self._pieces:
            self._read[location] = self._read.get(location, 0) + length
            if self._read[location] > status.st_size:
                raise ValueError(f"values in the file {location!r:.100}: expected each byte to be used once")
            with open(path, "rb") as file:
                file.seek(offset)
                self._pieces[key] = file.read(length)
        return self._pieces[key]


def dtype_of(number: int) -> np.dtype[Any]:
    """The dtype of ONNX's number of a type; object for one that NumPy does not have."""
    try:
        dtype: np.dtype[Any] = np.dtype(onnx().helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, ValueError, TypeError):
        return np.dtype(object)
    return dtype


def in_precision(name: str, array: Array) -> Array:
    """A weight in a precision that crnn has: float16 and bfloat16 as float32. Raises ValueError for other dtypes."""
    if array.dtype.name not in FLOATS:
        raise ValueError(f"{name}: expected floating-point numbers, got {array.dtype}")
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


# ---- crnn's own files ------------------------------------------------------------------------------------------------


def digest(proto: onnx_module.ModelProto, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a graph: its nodes, inputs, outputs and initializers, and of the header.

    Not of what tools add without changing what it computes: shapes of intermediate values, notes, where a tensor lies.
    ``arrays`` are the values of the initializers that hold parameters.
    """
    total = sha256()
    helpers = [tensor for tensor in proto.graph.initializer if tensor.name.startswith(HELPERS)]
    for part in [*proto.graph.node, *proto.graph.input, *proto.graph.output, *helpers, *proto.opset_import]:
        content = part.SerializeToString(deterministic=True)
        total.update(len(content).to_bytes(8, "little") + content)
    return model_file.digest(arrays, {**header, "graph": total.hexdigest()})
