# SPDX-License-Identifier: MIT
"""Memory-mapped arrays: reading one whose file was cut short would end the process, so the file is checked before."""

from __future__ import annotations

import mmap
from typing import Any

__all__ = ["check_complete", "mapping_of"]


def mapping_of(array: Any) -> mmap.mmap | None:
    """The memory map that holds the data of an array; None if the array is in memory."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array


def check_complete(name: str, mapping: mmap.mmap | None) -> None:
    """Raise OSError, which calls the array ``name``, if the file of a memory map is shorter than it was."""
    if mapping is not None and mapping.size() < len(mapping):
        raise OSError(
            f"{name}: expected a memory-mapped file of {len(mapping)} bytes, as it was at first, got {mapping.size()}"
        )
