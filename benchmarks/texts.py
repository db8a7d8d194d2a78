# SPDX-License-Identifier: MIT
"""The text that models learn: tinyshakespeare.txt in the folder CRNN_DATA if there, else Python's own documentation."""

from __future__ import annotations

import os
from pathlib import Path


def text() -> tuple[str, str]:
    """A text of about a million characters, and what it is."""
    path = Path(os.environ.get("CRNN_DATA", ""), "tinyshakespeare.txt")
    if path.is_file():
        return path.read_text(encoding="utf-8"), path.name
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)), "pydoc_data.topics"
