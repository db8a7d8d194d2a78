# SPDX-License-Identifier: MIT
"""Model files and checkpoints taken apart and put together again, with changes and without their digest."""

import json
import struct
from collections.abc import Callable
from typing import Any

from safetensors.numpy import load, save_file


def take_apart(path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and header of a file. The header is without the digest, which any change would contradict."""
    with open(path, "rb") as file:
        content = file.read()
    header = json.loads(outer_header(content)["__metadata__"]["crnn"])
    header.pop("sha256", None)
    return load(content), header


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
