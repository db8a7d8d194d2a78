# SPDX-License-Identifier: MIT
"""The C functions that exported files consist of, and which of them need others: the files of the folder `c`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

# In the order of exported files, in which a piece comes after those that it needs.
FILES = ("arithmetic", "products", "cells", "outputs", "int8", "bf16")
_MARK = re.compile(r"^/\*@ (\w+):([\w ]*)\*/\n", re.MULTILINE)


@cache
def _pieces() -> dict[str, tuple[tuple[str, ...], str]]:
    """For each piece, in the order of exported files: the pieces that it needs, and its text."""
    text = "\n".join((files("crnn.c_export") / "c" / f"{name}.h").read_text("utf-8") for name in FILES)
    _, *rest = _MARK.split(text)
    pieces = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    return {name: (tuple(needs.split()), body.rstrip() + "\n") for name, needs, body in pieces}


def names() -> list[str]:
    """All pieces, those that others need first."""
    return list(_pieces())


def text_of(wanted: Iterable[str]) -> str:
    """The C text of these pieces and of all that they need."""
    pieces = _pieces()
    chosen: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting += pieces[name][0]
    return "\n".join(text for name, (_, text) in pieces.items() if name in chosen)
