# SPDX-License-Identifier: MIT
"""The kinds of models by their names in files. Classes register themselves; this module imports none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from crnn.io.model_file import Header, ModelFileError

# From (header, tensors) to a model; raises TypeError or ValueError for a wrong file.
Builder = Callable[[Header, Mapping[str, NDArray[Any]]], Any]

_builders: dict[str, Builder] = {}
_containers: dict[str, Builder] = {}  # of files that hold a model of another kind, such as checkpoints


def register(kind: str, build: Builder) -> None:
    """Register a kind: ``build`` makes the model of a file whose header has this ``kind``."""
    _builders[kind] = build


def register_container(kind: str, build: Builder) -> None:
    """Register files of this ``kind``, which is no kind of model: ``build`` makes the model that they hold."""
    _containers[kind] = build


def kinds(package: str | None = None) -> list[str]:
    """The names of all registered kinds, or of those whose class is in ``package``, sorted.

    A kind is registered when its module is imported.
    """
    return sorted(kind for kind, build in _builders.items() if package in (None, _package_of(build)))


def _package_of(build: Builder) -> str:
    """The top-level package of a builder: of its class, if it is a class method."""
    module: str = getattr(build, "__self__", build).__module__
    return module.partition(".")[0]


def check_kind(kind: str) -> None:
    """Raise TypeError for a kind that is not registered, such as a user's subclass: its file could not be loaded."""
    if kind not in _builders:
        raise TypeError(f"model: expected one of {', '.join(kinds())}, got {kind}")


def build(name: str, tensors: Mapping[str, NDArray[Any]], header: Header) -> Any:
    """The model that a file holds. Raises ModelFileError, which calls the file ``name``."""
    builder = (_builders | _containers).get(str(header.get("kind")))
    if builder is None:
        raise ModelFileError(f"{name}: expected one of {', '.join(kinds())}, got {header.get('kind')!r:.200}")
    try:
        return builder(header, tensors)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{name}: {error}") from None
