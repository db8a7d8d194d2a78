# SPDX-License-Identifier: MIT
"""A text that is part of every Python installation: the prose of the topics that ``help("topics")`` lists."""

from __future__ import annotations

import re


def documentation_prose() -> str:
    """The paragraphs of English prose in the topics, one per line, without code, grammars and tables."""
    from pydoc_data.topics import topics

    paragraphs: dict[str, None] = {}  # an ordered set: some paragraphs occur in several topics
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            text = " ".join(re.sub(r"^\s*[*+-] ", "", block).split())
            if _is_prose(text):
                paragraphs[text] = None
    return "\n".join(paragraphs) + "\n"


def _is_prose(text: str) -> bool:
    """Whether a paragraph looks like English sentences."""
    plain = sum(character.isalpha() or character in " ,.'" for character in text)
    return len(text) > 60 and text[0].isupper() and text[-1] in ".:" and plain > 0.85 * len(text) and text.isascii()
