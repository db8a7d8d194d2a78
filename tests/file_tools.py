# SPDX-License-Identifier: MIT
"""Model files and checkpoints taken apart and put together again, with changes and without their digest."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from crnn.io import safetensors


def take_apart(path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and header of a file. The header is without the digest, which any change would contradict."""
    with open(path, "rb") as file:
        content = file.read()
    header = json.loads(outer_header(content)["__metadata__"]["crnn"])
    header.pop("sha256", None)
    return load_file(path), header


def load_file(path) -> dict[str, NDArray[Any]]:
    """The arrays of any safetensors file. test_safetensors.py compares this with the package of that name."""
    entries, _ = safetensors.parse(Path(path).read_bytes())
    return {name: safetensors.to_array(name, entry) for name, entry in entries.items()}


def save_file(tensors: dict[str, NDArray[Any]], path, metadata: dict[str, str] | None = None) -> None:
    Path(path).write_bytes(safetensors.to_bytes(tensors, metadata or {}))


def edit(path, damage: str | Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Rewrite the file with this text for a header, or after damage(tensors, header)."""
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
