# SPDX-License-Identifier: MIT
"""A text that every Python has: the prose of its own documentation topics, what ``help("topics")`` shows."""

from __future__ import annotations

import re


def documentation_prose() -> str:
    """Paragraphs of English, one a line, without the code, grammars and tables between them."""
    from pydoc_data.topics import topics

    paragraphs: dict[str, None] = {}  # some stand under several topics; this keeps the first of each, in order
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            text = " ".join(re.sub(r"^\s*[*+-] ", "", block).split())
            if _is_prose(text):
                paragraphs[text] = None
    return "\n".join(paragraphs) + "\n"


def _is_prose(text: str) -> bool:
    plain = sum(character.isalpha() or character in " ,.'" for character in text)
    return len(text) > 60 and text[0].isupper() and text[-1] in ".:" and plain > 0.85 * len(text) and text.isascii()
