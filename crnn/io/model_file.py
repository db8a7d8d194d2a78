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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn._core.gemm import aligned_empty
from crnn.array_input import is_finite
from crnn.checks import check_path
from crnn.io import json_header, safetensors
from crnn.io.atomic_write import PathLike, replacing
from crnn.io.digest import Digest
from crnn.io.safetensors import FILE_DTYPES, HEADER_LIMIT, MESSAGE_LIMIT, Buffer, Entry, header_memory

Array = NDArray[Any]
Header = Mapping[str, Any]

FORMAT = 1
PARAMETER_LIMIT = 1 << 31
PART = 1 << 20  # bytes that are read before the second thread gets them for the digest
LARGE = 1 << 23  # bytes of a file from which a second thread saves more time than it takes to start
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
    total = Digest(header)
    for name in sorted(tensors):
        total.add_array(name, tensors[name])
    return total.hexdigest()


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(path: PathLike, name: str | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and the ``crnn`` header of a file. Raises ModelFileError as `opened` does, and OSError."""
    with opened(path, name) as contents:
        return contents


@contextmanager
def opened(path: PathLike, name: str | None = None) -> Iterator[tuple[dict[str, Array], dict[str, Any]]]:
    """Tensors and the ``crnn`` header of a file, for a with-block that makes something of them.

    The tensors are finite. Whether they and the header have the digest that the file names is known only at the end of
    the block, which raises then: it takes the longest, so a second thread computes it in the meantime. Nothing that
    the block makes may be used before. Raises ModelFileError, which calls the file ``name``, and OSError.
    """
    check_path("path", path)
    name = os.fsdecode(path) if name is None else name
    with (
        _open(path, name) as (file, content, begin, header),
        _checked(name, content, True, lambda entry: _read_parts(file, begin, entry), header) as contents,
    ):
        yield contents


def read_content(path: PathLike) -> memoryview:
    """The content of any safetensors file, fresh. Raises ModelFileError and OSError, as `_open` does."""
    with _open(path, os.fsdecode(path)) as (file, content, begin, _):
        file.seek(begin)
        return content[: begin + file.readinto(content[begin:])]


def from_bytes(name: str, content: Buffer, borrow: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and the ``crnn`` header from the content of a file.

    With ``borrow`` the tensors are views of the content, which nobody may change; otherwise copies. They are finite,
    and they and the header have the digest that the file names, if it names one. What they mean is not checked. Raises
    ModelFileError, which calls the file ``name``.
    """
    with _checked(name, content, borrow, lambda entry: [entry["data"]]) as contents:
        return contents


@contextmanager
def _open(path: PathLike, name: str) -> Iterator[tuple[BufferedReader, memoryview, int, dict[str, Any]]]:
    """A file, memory for its content, of which the header has been read, where the tensors begin, and the header.

    Raises OSError, and ModelFileError if it is not a regular file, its header is too long, or its size is not that of
    the tensors in the header. That is checked before memory is allocated, because a sparse file can have any size.

    A file is not memory-mapped: if it were truncated while it is read, that would be a SIGBUS.
    """
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
        beginning = file.read(8 + length)
        try:
            header = safetensors.header_of(beginning, size)
            safetensors.check_size(header, size - 8 - length)
        except ValueError as error:
            raise ModelFileError(f"{name}: expected a safetensors file: {error}") from None
        # NumPy's memory has pages of 2 MB where `bytes` has small ones, of which each costs when it is first touched.
        content = aligned_empty((size,), np.uint8).data
        content[: len(beginning)] = beginning
        yield file, content, len(beginning), header


def _read_parts(file: BufferedReader, begin: int, entry: Entry) -> Iterator[memoryview]:
    """Read the data of a tensor. Each part is yielded when it has been read."""
    data = entry["data"]
    file.seek(begin + entry["data_offsets"][0])
    for start in range(0, len(data), PART):
        part = data[start : start + PART]
        if file.readinto(part) != len(part):
            raise ValueError("expected a complete file, got one that became shorter while it was read")
        yield part


@contextmanager
def _checked(
    name: str,
    content: Buffer,
    borrow: bool,
    parts_of: Callable[[Entry], Iterable[Buffer]],
    outer: dict[str, Any] | None = None,
) -> Iterator[tuple[dict[str, Array], dict[str, Any]]]:
    """What `opened` and `from_bytes` have in common; ``parts_of`` is called once for each tensor, to read its data.

    ``outer`` is the header of the safetensors file, if it is known.
    """
    entries, header = _parsed(name, content, borrow, outer)
    with Digest(header, in_thread=len(content) > LARGE) as digest:
        try:
            for each, entry in entries.items():
                safetensors.check_dtype(each, entry["dtype"])
            tensors = {each: _array(each, entries[each], parts_of, digest) for each in sorted(entries)}
        except ValueError as error:
            raise ModelFileError(f"{name}: {error}") from None
        try:
            check_finite(tensors)
            yield {each: tensors[each] for each in entries}, header
        except ValueError as error:
            check_digest(name, header, digest)  # if the file is damaged, the error says that
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"{name}: {error}") from None
        check_digest(name, header, digest)


def _parsed(
    name: str, content: Buffer, borrow: bool, outer: dict[str, Any] | None
) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The entries of tensors and the ``crnn`` header, from the header of a file. Raises ModelFileError."""
    try:
        entries, metadata = safetensors.parse(content, borrow, outer)
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
    return entries, header


def _array(name: str, entry: Entry, parts_of: Callable[[Entry], Iterable[Buffer]], digest: Digest) -> Array:
    """The array of a tensor, whose data are read and added to the digest."""
    widened = entry["dtype"] == "BF16"  # the digest is that of the float32 values; of other dtypes, of the file's bytes
    if not widened:
        digest.begin(name, np.dtype(FILE_DTYPES[entry["dtype"]]), entry["shape"])
    for part in parts_of(entry):
        if not widened:
            digest.add(part)
    array = safetensors.to_array(name, entry)
    if widened:
        digest.add_array(name, array)
    return array


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_digest(name: str, header: Header, digest: Digest) -> None:
    """Raise ModelFileError, which calls the file ``name``, unless its header has this digest or none."""
    if "sha256" in header and header["sha256"] != digest.hexdigest():
        raise ModelFileError(
            f"{name}: expected tensors and header with the digest that the file names, got damaged ones"
        ) from None


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
