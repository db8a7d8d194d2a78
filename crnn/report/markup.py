# SPDX-License-Identifier: MIT
"""Elements of HTML and SVG as text. What is not `Markup` is escaped, so no text of the user's can become an element."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Child", "Markup", "escape", "join", "tag"]

_VOID = {"br", "col", "input", "link", "meta"}
# Not allowed in HTML, no characters at all, or controls that reverse the text that follows; shown as U+FFFD.
_INVALID = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def escape(text: object) -> Markup:
    """A text as HTML shows it, in elements and in attributes. Markup is unchanged."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_INVALID.sub("\N{REPLACEMENT CHARACTER}", str(text))))


def join(children: Child) -> Markup:
    """Children one after the other: texts, elements, lists of them; None is nothing."""
    if children is None:
        return Markup()
    if isinstance(children, str | int | float):
        return escape(children)
    return Markup("".join(map(join, children)))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element with these children.

    Attributes are named as in HTML, with ``_`` for ``-`` and an ``_`` after words of Python; None and False: none.

    Examples
    --------
    >>> tag("p", "a < b", tag("br"), class_="x", data_run=3)
    '<p class="x" data-run="3">a &lt; b<br></p>'
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        written.append(f" {label}" if value is True else f' {label}="{escape(value)}"')
    start = f"<{name}{''.join(written)}>"
    return Markup(start if name in _VOID else f"{start}{join(children)}</{name}>")
