# SPDX-License-Identifier: MIT
"""Model files and checkpoints taken apart and put together again, with changes and without their digest."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize
from safetensors.numpy import save_file

LITTLE_ENDIAN = {"F32": "<f4", "F64": "<f8", "U8": "u1"}


def take_apart(path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and header of a file. The header is without the digest, which any change would contradict."""
    with open(path, "rb") as file:
        content = file.read()
    header = json.loads(outer_header(content)["__metadata__"]["crnn"])
    header.pop("sha256", None)
    # Not safetensors.numpy.load, which reads little-endian data in the machine's byte order.
    return {name: native(entry) for name, entry in deserialize(content)}, header


def native(entry: dict[str, Any]) -> NDArray[Any]:
    array = np.frombuffer(entry["data"], LITTLE_ENDIAN[entry["dtype"]]).reshape(entry["shape"])
    return array.astype(array.dtype.newbyteorder("="))


def edit(path, damage: str | Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Write the file anew with this text for a header, or after damage(tensors, header)."""
    tensors, header = take_apart(path)
    if not isinstance(damage, str):
        damage(tensors, header)
        damage = json.dumps(header)
    save_file(tensors, path, {"crnn": damage})


def outer_header(content: bytes) -> dict[str, Any]:
    """The header of any safetensors file: the entries of its tensors, and its metadata."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def with_outer_header(content: bytes, header: dict[str, Any] | bytes) -> bytes:
    """The file with another header of safetensors, as JSON text or to be made into it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + int.from_bytes(content[:8], "little") :]
