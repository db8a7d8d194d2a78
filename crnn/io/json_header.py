# SPDX-License-Identifier: MIT
"""JSON of unknown origin: how deep it is and how much memory it takes is determined before it is parsed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

__all__ = ["PER_CHARACTER", "dumps", "loads", "measure"]

CHUNK = 1 << 20  # bytes
DEEPEST = 100  # lists and objects in each other; repr, comparison and json.dumps are recursive
LONGEST_INTEGER = 4300  # digits; Python's own limit, which a program may have lifted, and int() takes quadratic time

# Upper bounds of what CPython's parser allocates, in bytes, found by parsing texts of nothing else.
PER_CHARACTER = 5  # a copy of the text, and strings of 4 bytes per character
PER_CONTAINER = 112  # a list or an object with its first place
PER_VALUE = 80  # a string of a few characters, and its place
PER_KEY = 200  # a key that no other object has: itself, its place, its place among all keys, a pair for `_unique_keys`

# What each byte adds to the depth: 1, -1 or 0, as int8. A table for `bytes.translate`, because NumPy crashes if memory
# runs out while it converts an array of indices.
STEPS = bytes({"[": 1, "{": 1, "]": 255, "}": 255}.get(chr(byte), 0) for byte in range(256))


def loads(text: str, allowed: int, what: str = "a header") -> Any:
    """The value of a JSON text. Raises ValueError if it is invalid, nested too deep, or takes more memory than that.

    ``what``: the text, in errors.
    """
    needed, depth = measure(text.encode("utf-8", "surrogatepass"))
    if depth > DEEPEST:
        raise ValueError(f"{what} of {depth} lists and objects in each other, more than {DEEPEST}")
    if needed > allowed:
        raise ValueError(f"{what} that takes {needed >> 20} MB in memory, more than {allowed >> 20} MB")
    import json  # not earlier: `import crnn` does not wait for it

    return json.loads(text, parse_int=_parse_int, object_pairs_hook=_unique_keys)


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps`, without an import of json by those who do not call it."""
    import json

    return json.dumps(value, **options)


def measure(text: bytes) -> tuple[int, int]:
    """Upper bound, in bytes, of the memory that `loads` takes for a text in UTF-8, valid or not, and its depth."""
    counts = np.zeros(256, np.int64)  # of each byte outside of strings
    begin, inside, depth, deepest = 0, False, 0, 0
    while begin < len(text):
        end = begin + CHUNK
        backslashes = len(text[begin:end]) - len(text[begin:end].rstrip(b"\\"))
        end += backslashes % 2  # keep an escape sequence together
        chunk = np.frombuffer(text[begin:end].replace(b"\\\\", b"  ").replace(b'\\"', b"  "), np.uint8)
        quotes = np.cumsum(chunk == ord('"'), dtype=np.uint8) + np.uint8(inside)  # odd: inside of a string
        outside = chunk[quotes % 2 == 0]
        depths = depth + np.cumsum(np.frombuffer(outside.tobytes().translate(STEPS), np.int8), dtype=np.int32)
        counts += np.bincount(outside, minlength=256)
        begin, inside = end, bool(quotes[-1] % 2)
        if outside.size:
            depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
    containers, values, keys = (sum(int(counts[ord(sign)]) for sign in signs) for signs in ("[{", ",", ":"))
    memory = PER_CHARACTER * len(text) + PER_CONTAINER * containers + PER_VALUE * values + PER_KEY * keys
    return memory, deepest


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r:.100}: expected once, found several times")
    return values


def _parse_int(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)
