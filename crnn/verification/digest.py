# SPDX-License-Identifier: MIT
"""Digest: a SHA-256 over named results, of the same bytes on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Result = NDArray[Any] | np.generic | float | int | str | bytes | Sequence["Result"]


class Digest:
    """A SHA-256 over results in the order in which they are added.

    Each result contributes its name, its type, its shape and its elements in C order and little-endian: floats in their
    own precision, integers as int64, text as UTF-8. A list contributes its length and its items.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, name: str, result: Result) -> None:
        """Add a result. Raises FloatingPointError for NaN and infinity, TypeError for other types."""
        if isinstance(result, str | bytes):
            content = result.encode() if isinstance(result, str) else result
            self._add(name, "text", (len(content),), content)
        elif isinstance(result, list | tuple):
            self._add(name, "list", (len(result),), b"")
            for i, item in enumerate(result):
                self.add(f"{name}[{i}]", item)
        else:
            array = np.asarray(result)
            if array.dtype.kind not in "fiu":
                raise TypeError(f"{name}: expected numbers or text, got {array.dtype}")
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{name}: expected finite numbers, got NaN or infinity")
            dtype = np.dtype("<i8") if array.dtype.kind in "iu" else array.dtype.newbyteorder("<")
            self._add(name, dtype.str, array.shape, array.astype(dtype).tobytes())

    def _add(self, name: str, kind: str, shape: tuple[int, ...], content: bytes) -> None:
        self._sha256.update(f"{name}\0{kind}\0{shape}\0".encode())
        self._sha256.update(content)

    def hexdigest(self) -> str:
        """The hash of everything added so far, 64 hexadecimal digits."""
        return self._sha256.hexdigest()


def chained(hashes: Sequence[tuple[str, str]]) -> str:
    """One hash over (name, hash) of all parts, in their order."""
    return hashlib.sha256("".join(f"{name} {each}\n" for name, each in hashes).encode()).hexdigest()
