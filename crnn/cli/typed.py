# SPDX-License-Identifier: MIT
r"""Texts as people type them in a shell: ``--prompt 'one\ntwo'``, ``--stop '\t'``, ``--ban '\xff'``."""

from __future__ import annotations

import argparse
import os
import re
import shlex

__all__ = ["ESCAPES", "Sizes", "escaped", "quoted", "readable", "readable_message", "typed_bytes", "typed_text"]

ESCAPES = r"\n, \t, \r, \xHH (a byte), \uHHHH and \\ stand for characters"  # for help texts

_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
# An escape, a byte of the command line that is not text in the locale's encoding (PEP 383), or another character.
_PARTS = re.compile(
    r"\\x(?P<byte>[0-9a-fA-F]{2})|\\u(?P<code>[0-9a-fA-F]{4})|\\(?P<simple>[ntr0\\])|(?P<raw>[\udc80-\udcff])|(?P<other>.)",
    re.DOTALL,
)
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x80-\x9f\udc80-\udcff]")
_RAW_IN_REPR = re.compile(r"(?<!\\)(?P<backslashes>(?:\\\\)*)\\u(?P<code>dc[89a-f][0-9a-f])")


class Sizes:
    """Type of an option that is one size, or several: ``--hidden 512`` or ``--hidden 512,256``. In a file also a list.
    """

    def __call__(self, text: str) -> int | list[int]:
        try:
            sizes = [int(each) for each in text.split(",")]
        except ValueError:
            expected = "an integer, or integers separated by commas"
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None
        return sizes if len(sizes) > 1 else sizes[0]


def _parts(text: str) -> list[str | bytes]:
    """The characters of an argument, with bytes where a byte was typed. Other backslashes stand for themselves."""
    parts: list[str | bytes] = []
    for found in _PARTS.finditer(text):
        kind, value = found.lastgroup, found[found.lastgroup or 0]
        if kind == "byte":
            parts.append(bytes.fromhex(value))
        elif kind == "raw":
            parts.append(os.fsencode(value))
        else:
            parts.append(chr(int(value, 16)) if kind == "code" else _SIMPLE[value] if kind == "simple" else value)
    return parts


def typed_bytes(text: str) -> bytes:
    """An argument as bytes: characters as the shell passed them, escapes replaced.

    Examples
    --------
    >>> typed_bytes(r"caf\\xc3")
    b'caf\\xc3'
    """
    return b"".join(part if isinstance(part, bytes) else os.fsencode(part) for part in _parts(text))


def typed_text(name: str, text: str, encoding: str) -> str:
    r"""An argument as text: escapes replaced, and bytes decoded. Raises ValueError, which calls it ``name``.

    Examples
    --------
    >>> typed_text("prompt", r"caf\xe9\n", "latin-1")
    'café\n'
    """
    characters, raw = "", b""
    for part in [*_parts(text), ""]:
        if isinstance(part, bytes):
            raw += part
            continue
        try:
            characters += raw.decode(encoding) + part
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: expected {encoding} text, got the bytes {raw!r} ({error.reason})") from None
        raw = b""
    return characters


def escaped(text: str | bytes) -> str:
    r"""A token on one line, as it may be typed.

    Examples
    --------
    >>> print(escaped("a\tb\n"))
    a\tb\n
    """
    if isinstance(text, bytes):
        return "".join(escaped(chr(byte)) if byte < 128 else f"\\x{byte:02x}" for byte in text)
    names = {value: f"\\{name}" for name, value in _SIMPLE.items()}
    return "".join(
        names.get(each) or (each if each.isprintable() else f"\\x{ord(each):02x}" if each < "\x80" else _code(each))
        for each in text
    )


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else character


def readable(text: str) -> str:
    r"""A text whose names of files and columns may have bytes that are no text in the locale's encoding (PEP 383), or
    characters that a terminal takes for commands: these are written as in `quoted`.

    Examples
    --------
    >>> print(readable("wrote caf\udce9.txt"))
    wrote caf\xe9.txt
    >>> print(readable("wrote \x1b[2Ja.txt"))
    wrote \x1b[2Ja.txt
    """
    return _RAW.sub(lambda found: _escaped(found[0]), text)


def readable_message(text: str) -> str:
    r"""A message as `readable`, also where it quotes what was typed by ``repr``, which writes such bytes otherwise.

    Examples
    --------
    >>> print(readable_message("expected an integer, got " + repr("caf\udce9")))
    expected an integer, got 'caf\xe9'
    """
    return _RAW_IN_REPR.sub(lambda found: found["backslashes"] + _escaped(chr(int(found["code"], 16))), readable(text))


def quoted(word: str) -> str:
    """A word as a shell reads it, on one line: control characters and bytes that are no text as bash escapes them."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if character in "'\\":
        return "\\" + character
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
