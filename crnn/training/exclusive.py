# SPDX-License-Identifier: MIT
"""One training at a time for each model: a second one would change the weights that the first one is working on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["check_not_in_training", "in_training"]

# The thread of the training of a model, and what tells the training from others, by the model's id.
_TRAINING: dict[int, tuple[int, object]] = {}
_LOCK = threading.Lock()


@contextmanager
def in_training(model: Any) -> Iterator[None]:
    """Context manager of a training. Raises ValueError, before anything has happened, if the model is in another."""
    own = object()
    try:  # from here on, because Ctrl-C may come at any time
        with _LOCK:
            check_not_in_training(model, "fit")
            _TRAINING[id(model)] = threading.get_ident(), own
        yield
    finally:
        if _TRAINING.get(id(model), (0, None))[1] is own:
            del _TRAINING[id(model)]


def check_not_in_training(model: Any, what: str) -> None:
    """Raise ValueError, which begins with ``what`` was called, if a model is being trained."""
    training = _TRAINING.get(id(model))
    if training is not None:
        own = training[0] == threading.get_ident()
        where = "a callback of its fit" if own else "another thread while it is in its fit"
        raise ValueError(
            f"{what}: expected a model that is not being trained, got a call in {where}, which continues unchanged; "
            "use a copy, copy.deepcopy(model)"
        )
