# SPDX-License-Identifier: MIT
"""Command: what a run has in addition that a command of the command line starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crnn.training.output import Output

__all__ = ["Command"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """The command that starts a run. Without a terminal its progress is shown as lines from the start.

    Attributes
    ----------
    wording : callable
        Changes a message of the Python API to the words of the command: the names of options.
    output : Output, optional
        Where to write the model when training ends. None on a rank that does not lead.
    options : mapping, optional
        What the user typed and the model depends on, to be saved with it.
    """

    wording: Callable[[str], str]
    output: Output | None = None
    options: Mapping[str, Any] | None = None
