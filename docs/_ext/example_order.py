# SPDX-License-Identifier: MIT
"""The order of the examples in the gallery and of the lessons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FIRST = ["text", "log_watching", "gestures", "forecasting", "amp", "piano_roll", "addition"]


class ExampleOrder:
    """Sorts the files of a folder: those that are listed, then the others by name."""

    def __init__(self, folder: Any) -> None:
        pass

    def __call__(self, file: Any) -> tuple[int, str]:
        name = Path(file).stem
        return FIRST.index(name) if name in FIRST else len(FIRST), name
