# SPDX-License-Identifier: MIT
"""Model files: named tensors and a JSON header in safetensors, so that no code is ever loaded. Knows no class.

A model file holds one tensor per parameter under its public name, and the statistics that standardise data. Its
metadata has one key, ``crnn``: a JSON object with ``format`` (a version number), ``kind`` (which class), ``config``
(its arguments) and what else that class adds, such as ``vocab``. A file is hostile input: nothing in it is used before
it has been compared with what the configuration demands. Files are written under a temporary name in the same folder,
flushed to the disk and then renamed, so the old file survives any failure.
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
    """A file that is not a model crnn can load."""


def write(path: PathLike, tensors: Mapping[str, Array], header: Header) -> None:
    """Write a file, whole or not at all. Raises OSError where the file system does."""
    content = to_bytes(tensors, header)
    with replacing(path) as file:
        file.write(content)


def to_bytes(tensors: Mapping[str, Array], header: Header) -> bytes:
    """The content of the file that `write` writes."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return bytes(save(arrays, metadata={"crnn": json.dumps({"format": FORMAT, **header})}))


def read(path: PathLike) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and our header, both only as trustworthy as the file. Raises ModelFileError and OSError."""
    return parse(os.fspath(path), *read_content(path))


def from_bytes(name: str, content: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """As `read`, of content that is in memory; errors call it ``name``."""
    return parse(name, content, 8 + int.from_bytes(content[:8], "little"))


def read_content(path: PathLike) -> tuple[bytes, int]:
    """All of a safetensors file, and where its header ends. Checks the length of that header and nothing else."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            raise ModelFileError(
                f"{os.fspath(path)}: expected a safetensors file with a header of at most {HEADER_LIMIT} bytes"
            )
        file.seek(0)
        # Not memory-mapped: a file that is cut short meanwhile would be a SIGBUS.
        return file.read(os.fstat(file.fileno()).st_size), 8 + length


def parse(name: str, content: bytes, header_end: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and our header of a file's content; errors call it ``name``."""
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
    """Raise ValueError unless a tensor of this name, shape and dtype is there; ``finite``: without NaN and infinity."""
    if name not in tensors:
        raise ValueError(f"expected a tensor {name!r}, found none")
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}")
    if finite and not np.isfinite(tensor).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def check_no_more(tensors: Mapping[str, Array], expected: Mapping[str, Any]) -> None:
    """Raise ValueError if there is a tensor that nobody expects."""
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise ValueError(f"expected no tensor {extra[0]!r}")
