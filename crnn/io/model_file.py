# SPDX-License-Identifier: MIT
"""Model files: named tensors and a JSON header in safetensors, which cannot contain code. Knows no model class.

A model file holds one tensor per parameter under its public name, and the statistics that standardise data. Its
metadata has one key, ``crnn``: a JSON object with ``format`` (a version number), ``kind`` (the class), ``config`` (its
arguments) and what the class adds, such as ``vocab``. A file is hostile input: nothing in it is used before it has been
compared with what the configuration requires. Files are written atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.io.atomic_write import PathLike, replacing

Array = NDArray[Any]
Header = Mapping[str, Any]

FORMAT = 1
HEADER_LIMIT = 64 << 20  # bytes; a large word vocabulary takes a few MB
PARAMETER_LIMIT = 1 << 31


class ModelFileError(ValueError):
    """The file is not a model that crnn can load; the message has its name and what was found."""


def write(path: PathLike, tensors: Mapping[str, Array], header: Header) -> None:
    """Write a file atomically. Raises OSError if it cannot be written."""
    content = to_bytes(tensors, header)
    with replacing(path) as file:
        file.write(content)


def to_bytes(tensors: Mapping[str, Array], header: Header) -> bytes:
    """The content of the file that `write` writes."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return bytes(save(arrays, metadata={"crnn": json.dumps({"format": FORMAT, **header})}))


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and the ``crnn`` header of a file, whose contents are not checked. Raises ModelFileError and OSError."""
    return parse(os.fsdecode(path), *read_content(path))


def from_bytes(name: str, content: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """As `read`, from the content of a file. Errors call it ``name``."""
    return parse(name, content, 8 + int.from_bytes(content[:8], "little"))


def read_content(path: PathLike) -> tuple[bytes, int]:
    """The content of a safetensors file, and the offset at which its header ends.

    Raises ModelFileError if the header is too long, and OSError. Checks nothing else.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            raise ModelFileError(
                f"{os.fsdecode(path)}: expected a safetensors file with a header of at most {HEADER_LIMIT} bytes"
            )
        file.seek(0)
        # Not memory-mapped: if the file is truncated while it is read, that would be a SIGBUS.
        return file.read(os.fstat(file.fileno()).st_size), 8 + length


def parse(name: str, content: bytes, header_end: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and the ``crnn`` header, from a content and the offset at which the safetensors header ends.

    Raises ModelFileError, which calls the file ``name``.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        metadata = json.loads(content[8:header_end]).get("__metadata__", {})
        header = json.loads(metadata["crnn"]) if "crnn" in metadata else None
    except (SafetensorError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        # safetensors' own messages do not name the file
        raise ModelFileError(f"{name}: expected a safetensors file written by crnn: {error}") from None
    if not isinstance(header, dict):
        raise ModelFileError(f"{name}: expected a file written by crnn, got a foreign safetensors file")
    if header.get("format") != FORMAT:
        raise ModelFileError(f"{name}: expected format {FORMAT}, got {header.get('format')!r}")
    return tensors, header


def check_tensor(
    name: str, tensors: Mapping[str, Array], shape: tuple[int, ...], dtype: str, *, finite: bool = True
) -> None:
    """Raise ValueError unless there is a tensor of this name, shape and dtype; ``finite``: without NaN and infinity."""
    if name not in tensors:
        raise ValueError(f"expected a tensor {name!r}, found none")
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}")
    if finite and not np.isfinite(tensor).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def check_no_more(tensors: Mapping[str, Array], expected: Mapping[str, Any]) -> None:
    """Raise ValueError if there is a tensor whose name is not in ``expected``."""
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise ValueError(f"expected no tensor {extra[0]!r}")
