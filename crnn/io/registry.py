# SPDX-License-Identifier: MIT
"""The kinds of models, by the names that files give them. Every class registers itself; this module imports none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from crnn.io.model_file import Header, ModelFileError

# (header, tensors, whether values must be finite) -> a model; raises TypeError or ValueError for what it refuses
Builder = Callable[[Header, Mapping[str, NDArray[Any]], bool], Any]

_builders: dict[str, Builder] = {}


def register(kind: str, build: Builder) -> None:
    """Make a kind known: ``build`` makes the model of a file whose header names it."""
    _builders[kind] = build


def kinds() -> list[str]:
    """The names of all kinds whose modules have been imported."""
    return sorted(_builders)


def check_kind(kind: str) -> None:
    """Raise TypeError for a kind that no file could be loaded as, such as a subclass of a user's own."""
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
