# SPDX-License-Identifier: MIT
"""The text to train on: tinyshakespeare.txt in the folder CRNN_DATA, or else Python's documentation."""

from __future__ import annotations

import os
from pathlib import Path


def text() -> tuple[str, str]:
    """A text of about a million characters, and its name."""
    path = Path(os.environ.get("CRNN_DATA", ""), "tinyshakespeare.txt")
    if path.is_file():
        return path.read_text(encoding="utf-8"), path.name
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)), "pydoc_data.topics"
