# SPDX-License-Identifier: MIT
"""Model files: named tensors and a JSON header in safetensors, which cannot contain code. Independent of model classes.

A model file holds one tensor per parameter under its public name, and the statistics that standardise data. Its
metadata has one key, ``crnn``: a JSON object with ``format`` (a version number), ``kind`` (the class), ``config`` (its
arguments), what the class adds, such as ``vocab``, ``bf16``, the names of the tensors in bfloat16, if there are some,
and ``sha256``, the `digest` of all that. A file is hostile input: nothing in it is used before it has been compared
with what the configuration requires. Files are written atomically.

One rule holds for everything that is written or read here, so for files, pickles, copies and checkpoints: every
floating-point number of a tensor is finite (`check_finite`). What breaks it is refused before a file is touched.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn._core.gemm import aligned_empty
from crnn.array_input import is_finite
from crnn.io import json_header, safetensors
from crnn.io.atomic_write import PathLike, replacing
from crnn.io.safetensors import HEADER_LIMIT, MESSAGE_LIMIT, Buffer, header_memory

Array = NDArray[Any]
Header = Mapping[str, Any]

FORMAT = 1
PARAMETER_LIMIT = 1 << 31
FOREIGN = (".nam", ".aidax", ".json", ".onnx", ".keras", ".h5")  # how names of other programs' files end


class ModelFileError(ValueError):
    """The file is not a model that crnn can load; the message has its name and what was found."""

    def __init__(self, message: str) -> None:
        if len(message) > 1500:  # it repeats what the file holds
            message = f"{message[:1000]} ... {message[-200:]}"
        super().__init__(message)


# ---- writing ---------------------------------------------------------------------------------------------------------


def write(path: PathLike, tensors: Mapping[str, Array], header: Header) -> None:
    """Write a file atomically. Raises OSError if it cannot be written, ValueError as `to_bytes` does."""
    content = to_bytes(tensors, header)
    with replacing(path) as file:
        file.write(content)


def to_bytes(tensors: Mapping[str, Array], header: Header) -> bytes:
    """The content of the file that `write` writes.

    Raises ValueError for tensors that are not finite, and for a header that is too large to be read again.
    """
    # Copies, because another thread may be training the model: what is written is what was checked.
    arrays = {name: np.array(array, order="C") for name, array in tensors.items()}
    check_finite(arrays)
    whole = {"format": FORMAT, **header}
    text = _to_json(whole | {"sha256": digest(arrays, whole)})
    data = sum(array.nbytes for array in arrays.values())
    try:
        json_header.loads(text, header_memory(data))
        content = safetensors.to_bytes(arrays, {"crnn": text}, header.get("bf16", ()))
        safetensors.header_of(content, len(content))
    except ValueError as error:
        raise ValueError(f"expected a smaller vocabulary or log, got {error}") from None
    return content


def _to_json(value: Any) -> str:
    """JSON in which other alphabets are not escaped, and so take a third of the space."""
    text = json_header.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # surrogates, as in a vocabulary of undecodable bytes
        return json_header.dumps(value)
    return text


def digest(tensors: Mapping[str, Array], header: Header) -> str:
    """SHA-256, in hexadecimal, of tensors (name, dtype, shape, little-endian bytes) and of a header without ``sha256``.

    The same on every machine, and for any order of the tensors and of the header's keys.
    """
    import hashlib  # not earlier: `import crnn` does not wait for it

    total = hashlib.sha256()
    total.update(_canonical({key: value for key, value in header.items() if key != "sha256"}))
    for name in sorted(tensors):
        array = tensors[name]
        total.update(_canonical([name, array.dtype.name, array.shape]))
        total.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _canonical(value: Any) -> bytes:
    return json_header.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and the ``crnn`` header of a file. Raises ModelFileError as `from_bytes` does, and OSError."""
    return from_bytes(os.fsdecode(path), read_content(path), borrow=True)


def read_content(path: PathLike, name: str | None = None) -> memoryview:
    """The content of a file, fresh, which errors call ``name``, if that is given.

    Raises OSError, and ModelFileError if it is not a regular file, its header is too long, or its size is not that of
    the tensors in the header. That is checked before the tensors are read, because a sparse file can have any size.

    A file is not memory-mapped: if it were truncated while it is read, that would be a SIGBUS.
    """
    name = os.fsdecode(path) if name is None else name
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a FIFO would wait for its writer
        raise ModelFileError(f"{name}: expected a regular file")
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
        if size < 8 or length > size - 8:
            hint = "; crnn.interop reads files of other programs" if name.lower().endswith(FOREIGN) else ""
            raise ModelFileError(
                f"{name}: expected a safetensors file, got another kind of file, or an incomplete one{hint}"
            )
        longest = min(HEADER_LIMIT, header_memory(size - 8 - length) // json_header.PER_CHARACTER)
        if length > longest:
            raise ModelFileError(
                f"{name}: expected a safetensors file with a header of at most {longest} bytes, got {length}"
            )
        file.seek(0)
        try:
            safetensors.check_size(safetensors.header_of(file.read(8 + length), size), size - 8 - length)
        except ValueError as error:
            raise ModelFileError(f"{name}: expected a safetensors file: {error}") from None
        file.seek(0)
        # NumPy's memory has pages of 2 MB where `bytes` has small ones, of which each costs when it is first touched.
        content = aligned_empty((size,), np.uint8).data
        read = 0
        while read < size and (more := file.readinto(content[read:])):
            read += more
        return content[:read]


def from_bytes(name: str, content: Buffer, borrow: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and the ``crnn`` header from the content of a file.

    With ``borrow`` the tensors are views of the content, which nobody may change; otherwise copies. They are finite,
    and they and the header have the digest that the file names, if it names one. What they mean is not checked. Raises
    ModelFileError, which calls the file ``name``.
    """
    try:
        entries, metadata = safetensors.parse(content, borrow)
        if "crnn" not in metadata:
            weights = any("weight" in each for each in entries)
            hint = "; crnn.interop.torch.load_file reads those of PyTorch" if weights else ""
            raise ValueError(f"got one of another program{hint}")
        data = sum(len(entry["data"]) for entry in entries.values())
        header = json_header.loads(metadata["crnn"], header_memory(data))
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
    except ValueError as error:
        raise ModelFileError(f"{name}: expected a safetensors file written by crnn: {error}") from None
    if header.get("format") != FORMAT:
        raise ModelFileError(f"{name}: expected format {FORMAT}, got {header.get('format')!r:.100}")
    try:
        tensors = {each: safetensors.to_array(each, entry) for each, entry in entries.items()}
        if "sha256" in header and header["sha256"] != digest(tensors, header):
            raise ValueError("expected tensors and header with the digest that the file names, got damaged ones")
        check_finite(tensors)
    except ValueError as error:
        raise ModelFileError(f"{name}: {error}") from None
    return tensors, header


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_finite(tensors: Mapping[str, Array]) -> None:
    """Raise ValueError, which names the tensor, if a floating-point one holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise ValueError(f"{name:.{MESSAGE_LIMIT}}: expected finite values, got NaN or infinity")


def check_tensor(name: str, tensors: Mapping[str, Array], shape: tuple[int, ...], dtype: str) -> None:
    """Raise ValueError unless there is a tensor of this name, shape and dtype."""
    if name not in tensors:
        raise ValueError(f"expected a tensor {name!r}, found none")
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}")


def check_no_more(tensors: Mapping[str, Array], expected: Mapping[str, Any]) -> None:
    """Raise ValueError if there is a tensor whose name is not in ``expected``."""
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise ValueError(f"expected no tensor {extra[0]!r:.{MESSAGE_LIMIT}}")
