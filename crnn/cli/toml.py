# SPDX-License-Identifier: MIT
"""Options as TOML: what ``crnn info --config`` prints and ``crnn train --config`` reads, with the standard library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["to_toml"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(values: Mapping[str, Any]) -> str:
    """A table of strings, numbers, bools and lists of them, one per line. Raises ValueError for other values.

    Examples
    --------
    >>> print(to_toml({"cell": "lstm", "lr": 1e-3, "tie-weights": True, "label": ["a b", "c"]}))
    cell = "lstm"
    lr = 0.001
    tie-weights = true
    label = ["a b", "c"]
    """
    keys = {name: name if _BARE_KEY.fullmatch(name) else _string(name) for name in values}
    return "\n".join(f"{keys[name]} = {_value(name, value)}" for name, value in values.items())


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # also inf and nan, as TOML calls them
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(name, each) for each in value)}]"
    raise ValueError(f"{name}: expected a string, a number, a bool or a list, got {value!r:.200}")


def _string(text: str) -> str:
    """A basic string, whose escapes are those of JSON, but that DEL needs one and half a surrogate pair has none."""
    if re.search("[\ud800-\udfff]", text):
        raise ValueError(f"expected text that is Unicode, got {text!r:.200}")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
