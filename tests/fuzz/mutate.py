# SPDX-License-Identifier: MIT
"""Mutations of model files and checkpoints: of bytes, of the safetensors header, of crnn's header, and of numbers.

A mutation that only breaks the syntax is refused by the parser, so most of these keep it and change the meaning.
"""

import hashlib
import json
import operator
import random
import struct
from collections.abc import Callable
from typing import Any

from .mutate_archive import KEPT, MAGIC, RENEWED, mutate_archive

REMOVED = "removed"  # or KEPT or RENEWED: what became of the digest

DEEP = 100_000
SIZES = [0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(2**63)]
NUMBERS = [0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan")]
TEXTS = ["", "\0", "a", "é", "\u2028", "\U0001f600", "\ud800", "../x", "x" * 10_000, "__class__", "lstm", "0.1"]
DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32", "I8", "U8", "BOOL", "C64", "F99", "", None]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-39, 3e38, -3e38, float("inf"), float("-inf"), float("nan")]


def nested(rng: random.Random, opening: str) -> Any:
    """A list in lists, or an object in objects."""
    value: Any = []
    for _ in range(rng.choice([1, 5, 100, 200])):
        value = [value] if opening == "[" else {"a": value}
    return value


def odd(rng: random.Random) -> Any:
    """A value that may be where none like it is expected."""
    return rng.choice(
        [
            lambda: rng.choice(SIZES),
            lambda: rng.choice(NUMBERS),
            lambda: rng.choice(TEXTS),
            lambda: rng.choice([None, True, False, [], {}]),
            lambda: nested(rng, "["),
            lambda: nested(rng, "{"),
            lambda: [rng.choice(SIZES + NUMBERS + TEXTS) for _ in range(rng.randrange(6))],
            lambda: [rng.choice(TEXTS)[:3]] * rng.choice([1, 10, 10_000]),
            lambda: rng.randrange(12),
            lambda: rng.random(),
        ]
    )()


# ---- JSON ------------------------------------------------------------------------------------------------------------


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of everything inside of a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        found += [(container, key) for key in keys]
        waiting += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return found


def holds(value: Any, container: Any) -> bool:
    """Whether a JSON value is, or contains, this container."""
    if not isinstance(value, dict | list):
        return False
    return value is container or any(each is container for each, _ in places(value))


def change_json(rng: random.Random, root: Any) -> None:
    """Change a JSON object in one place."""
    at = places(root)
    if not at:
        root["a"] = odd(rng)
        return
    container, key = rng.choice(at)
    kind = rng.randrange(8)
    if kind <= 2:
        container[key] = odd(rng)
    elif kind == 3:
        del container[key]
    elif kind == 4:
        other, place = rng.choice(at)
        if not (holds(container[key], other) or holds(other[place], container)):  # a value would contain itself
            container[key], other[place] = other[place], container[key]
    elif kind == 5 and isinstance(container, dict):
        container[rng.choice(TEXTS)] = container.pop(key)
    elif kind == 5:
        container.insert(key, container[key])
    elif kind == 6 and isinstance(container[key], int | float) and not isinstance(container[key], bool):
        container[key] = rng.choice([container[key] + 1, container[key] - 1, -container[key], container[key] * 2])
    elif isinstance(container, list):
        rng.shuffle(container)
    else:
        container[rng.choice(TEXTS)] = odd(rng)


def change_text(rng: random.Random, text: str) -> str:
    """Change JSON text in a way that no JSON value can be: keys that are there twice, deep nesting, wrong signs."""
    kind = rng.randrange(5)
    at = rng.randrange(len(text) + 1)
    if kind == 0:
        key = rng.choice(["kind", "config", "format", "vocab", "sha256", "dtype", "shape", "hidden_size", "params"])
        return text.replace(f'"{key}":', f'"{key}": {json.dumps(odd(rng))}, "{key}":', 1)
    if kind == 1:
        number = rng.choice([100, 5_000, DEEP])
        return text[:at] + rng.choice(["[", '{"a":']) * number + rng.choice(["", "]" * number]) + text[at:]
    if kind == 2:
        return text[:at] + rng.choice(["[],", "{},", '"",', "1e999,", "9" * 5_000, "-", "NaN", "\\u0000"]) + text[at:]
    if kind == 3:
        other = rng.randrange(len(text) + 1)
        return text[: min(at, other)] + text[max(at, other) :]
    sign, other = rng.choice(['"', ":", ",", "}", "]"]), rng.choice(["", "'", '"', "[", "\\"])
    return text.replace(sign, other, rng.choice([1, 2]))


# ---- files -----------------------------------------------------------------------------------------------------------


class File:
    """A safetensors file with crnn's header, taken apart."""

    def __init__(self, content: bytes) -> None:
        end = 8 + int.from_bytes(content[:8], "little")
        self.outer: dict[str, Any] = json.loads(content[8:end])
        self.data = bytearray(content[end:])
        self.inner: Any = json.loads(self.outer["__metadata__"]["crnn"])
        self.inner_text: str | None = None
        self.outer_text: str | None = None

    @property
    def entries(self) -> dict[str, Any]:
        return {name: entry for name, entry in self.outer.items() if name != "__metadata__"}

    def to_bytes(self, digest: str) -> bytes:
        """The file, with its digest kept, removed or computed again."""
        if isinstance(self.inner, dict) and digest != KEPT:
            self.inner.pop("sha256", None)
            if digest == RENEWED:
                self.inner["sha256"] = self.sha256()
        if isinstance(self.outer.get("__metadata__"), dict):
            self.outer["__metadata__"]["crnn"] = self.inner_text or json.dumps(self.inner)
        text = (self.outer_text or json.dumps(self.outer)).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(text)) + text + self.data

    def sha256(self) -> str:
        """The digest, as docs/format.md describes it, written from there."""
        names = {"F32": "float32", "F64": "float64", "U8": "uint8", "I8": "int8", "BF16": "float32"}
        total = hashlib.sha256(json.dumps(self.inner, sort_keys=True, separators=(",", ":")).encode())
        for name, entry in sorted(self.entries.items()):
            try:
                begin, end = entry["data_offsets"]
                description = [name, names[entry["dtype"]], entry["shape"]]
                total.update(json.dumps(description, separators=(",", ":")).encode())
                total.update(widened(self.data[begin:end]) if entry["dtype"] == "BF16" else self.data[begin:end])
            except (KeyError, TypeError, ValueError):
                pass  # such an entry is refused before the digest is compared
        return total.hexdigest()


def widened(halves: bytearray) -> bytes:
    """bfloat16 as float32."""
    return b"".join(b"\0\0" + halves[at : at + 2] for at in range(0, len(halves), 2))


def change_numbers(rng: random.Random, file: File) -> None:
    """Change numbers of a tensor."""
    entry = rng.choice(list(file.entries.values()))
    begin, end = map(operator.index, entry["data_offsets"])
    form = {"F32": "<f", "F64": "<d"}.get(entry["dtype"], "B")
    size = struct.calcsize(form)
    for _ in range(rng.choice([1, 1, 3, 1000])):
        at = begin + size * rng.randrange((end - begin) // size) if end - begin >= size else None
        if at is None:
            return
        value = rng.choice(FLOATS) if form != "B" else rng.randrange(256)
        file.data[at : at + size] = struct.pack(form, value)


def change_entry(rng: random.Random, file: File) -> None:
    """Change what the safetensors header says of a tensor, with or without the data that it then needs."""
    name, entry = rng.choice(list(file.entries.items()))
    kind = rng.randrange(9)
    if kind == 0:
        entry["dtype"] = rng.choice(DTYPES)
    elif kind == 1:
        entry["shape"] = rng.choice([entry["shape"][::-1], [*entry["shape"], 1], [], odd(rng), [odd(rng)]])
    elif kind == 2:
        entry["data_offsets"] = [rng.choice([*entry["data_offsets"], odd(rng)]) for _ in range(2)]
    elif kind == 3:
        del file.outer[name]
    elif kind == 4:
        file.outer[rng.choice([*TEXTS, f"{name}\0", name.upper(), f"layer7.{name}"])] = file.outer.pop(name)
    elif kind == 5:
        other = rng.choice(list(file.entries))
        file.outer[name], file.outer[other] = file.outer[other], file.outer[name]
    elif kind == 6:
        file.outer["__metadata__"] = rng.choice([None, [], {}, odd(rng), {"crnn": odd(rng)}, {"crnn": {}}])
    elif kind == 7:  # another tensor, at the end
        count = rng.choice([0, 1, 7])
        end = len(file.data)
        file.data += bytes(4 * count)
        other = rng.choice([*TEXTS, "b_y", "state.9", "log", "scaling.y.mean"])
        file.outer[other] = {"dtype": "F32", "shape": [count], "data_offsets": [end, end + 4 * count]}
    else:
        change_json(rng, file.outer)


def change_bytes(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Change bytes anywhere; ``other`` is another file."""
    changed = bytearray(content)
    header = min(8 + int.from_bytes(content[:8], "little"), len(content))  # of JSON that is no length
    at = rng.randrange(rng.choice([8, header, len(content)]))
    kind = rng.randrange(8)
    if kind <= 1:
        for _ in range(rng.choice([1, 1, 1, 8])):
            changed[rng.randrange(rng.choice([header, len(changed)]))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        changed += rng.randbytes(rng.choice([1, 8, 1000]))
    elif kind == 4:
        del changed[at : at + rng.choice([1, 4, 100])]
    elif kind == 5:
        changed[at:at] = rng.choice([rng.randbytes(4), changed[at : at + 100], b"\0" * 8])
    elif kind == 6:
        changed = changed[:at] + other[rng.randrange(len(other)) :]
    else:
        changed[:8] = struct.pack("<Q", rng.choice([0, 1, 2, header, len(content), 2**24, 2**31, 2**63, 2**64 - 1]))
    return bytes(changed)


def mutate(rng: random.Random, content: bytes, other: bytes) -> tuple[bytes, str]:
    """A mutation of a file, and what became of its digest."""
    if content.startswith(MAGIC):
        return mutate_archive(rng, content, other)
    if rng.randrange(4) == 0:
        content, digest = change_bytes(rng, content, other), KEPT
    else:
        content, digest = change_meaning(rng, content)
    return content, digest if b'\\"sha256\\"' in content else REMOVED


def change_json_file(rng: random.Random, content: bytes) -> bytes:
    """A JSON file, without a digest, whose syntax is mostly right."""
    root = json.loads(content)
    try:
        for _ in range(rng.choice([1, 1, 2, 4])):
            change_json(rng, root)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        pass  # an earlier change has left nothing to change here
    text = json.dumps(root)
    return (change_text(rng, text) if rng.randrange(8) == 0 else text).encode("utf-8", "surrogatepass")


def change_meaning(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """A file whose syntax is mostly right, and what became of its digest."""
    if content.startswith(b"{"):
        return change_json_file(rng, content), REMOVED
    file = File(content)
    changes: list[Callable[[], Any]] = [
        lambda: change_json(rng, file.inner),
        lambda: change_numbers(rng, file),
        lambda: change_entry(rng, file),
    ]
    try:
        for _ in range(rng.choice([1, 1, 2, 4])):
            rng.choice(changes)()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, struct.error):
        pass  # an earlier change has left nothing to change here
    if rng.randrange(8) == 0:
        file.inner_text = change_text(rng, json.dumps(file.inner))
    if rng.randrange(8) == 0:
        file.outer_text = change_text(rng, json.dumps(file.outer))
    digest = rng.choice([KEPT, REMOVED, RENEWED])
    return file.to_bytes(digest), digest
