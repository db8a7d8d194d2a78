# SPDX-License-Identifier: MIT
"""What a task found, line by line as it is found."""

from __future__ import annotations


def show(what: str, ours: str, beside: str = "") -> None:
    """A line: what was measured, our figure, and the published or baseline figure with its source."""
    print(f"  {what:<30} {ours:<34} {beside}".rstrip(), flush=True)
