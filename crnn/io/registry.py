# SPDX-License-Identifier: MIT
"""The kinds of models by their names in files. Classes register themselves; this module imports none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from crnn.io.model_file import Header, ModelFileError

# From (header, tensors, whether values must be finite) to a model; raises TypeError or ValueError for a wrong file.
Builder = Callable[[Header, Mapping[str, NDArray[Any]], bool], Any]

_builders: dict[str, Builder] = {}


def register(kind: str, build: Builder) -> None:
    """Register a kind: ``build`` makes the model of a file whose header has this ``kind``."""
    _builders[kind] = build


def kinds() -> list[str]:
    """The names of all registered kinds, sorted. A kind is registered when its module is imported."""
    return sorted(_builders)


def check_kind(kind: str) -> None:
    """Raise TypeError for a kind that is not registered, such as a user's subclass: its file could not be loaded."""
    if kind not in _builders:
        raise TypeError(f"model: expected one of {', '.join(kinds())}, got {kind}")


def build(name: str, tensors: Mapping[str, NDArray[Any]], header: Header, *, finite: bool = True) -> Any:
    """The model that a file holds. Raises ModelFileError, which calls the file ``name``."""
    builder = _builders.get(str(header.get("kind")))
    if builder is None:
        raise ModelFileError(f"{name}: expected one of {', '.join(kinds())}, got {header.get('kind')!r}")
    try:
        return builder(header, tensors, finite)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{name}: {error}") from None
