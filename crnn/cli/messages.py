# SPDX-License-Identifier: MIT
"""Error messages in the words of the command line: ``lr: expected ...`` becomes ``--lr: expected ...``."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from pathlib import Path

import crnn
from crnn.cli.common import CommandParser, flag_of
from crnn.cli.configuration import OTHERS_NAMES, Configuration, typed_options
from crnn.text.errors import Remedy, explain

__all__ = ["described", "in_words_of", "option_names", "unrecognized"]

_NAME = r"[a-z]\w*"
_ALIASES = {"data": "text", "ids": "text"}  # arguments of functions that the command line calls with its text
_NONE = re.compile(r",? or None(?=, got)")  # what only Python can express
# As in "valid + test: ...", or "dynamic: decay: ..."
_SUBJECT = re.compile(rf"{_NAME}(?:(?: \+ |, | and ){_NAME})*(?:(?:\[\d+\])?: {_NAME})*(?=(?:\[\d+\])?:)")


def option_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """What the user types for each argument, by the name that it has in Python (``dest``): the option or the metavar.

    Parsers give an option the ``dest`` that is its name in the Python API, so this is the only list.
    """
    return {action.dest: flag_of(action) for action in parser._actions}


def _names_for(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict[str, str]:
    """`option_names`, with the file of those that were not typed but are in that of ``--config``."""
    names = option_names(parser)
    configuration: Configuration | None = getattr(arguments, "configuration", None)
    if configuration is None:
        return names
    in_file = configuration.dests.keys() - typed_options(arguments, configuration.dests)
    return names | {dest: f"{configuration.dests[dest]} in {configuration.name}" for dest in in_file}


def unrecognized(parser: CommandParser, words: list[str]) -> str:
    """What to say of words that ``parser`` does not know: which option each may have meant, such as Python's name."""
    names = option_names(parser)
    names |= {theirs: names[ours] for theirs, ours in OTHERS_NAMES.items() if ours in names}
    options = {f"--{name.replace('_', '-')}": option for name, option in names.items() if option.startswith("--")}
    options |= {option: option for option in options.values()}
    typed = [word.partition("=")[0] for word in words if word.startswith("--")]
    close = [options[found] for word in typed for found in difflib.get_close_matches(word, options, 1, 0.7)]
    hint = f"; did you mean {' and '.join(dict.fromkeys(close))}?" if close else ""
    if not typed and parser.surplus:
        hint = f"; {parser.surplus}"
    return f"unrecognized arguments: {' '.join(words)}{hint} ({parser.prog} --help lists all)"


def described(parser: argparse.ArgumentParser, error: BaseException, arguments: argparse.Namespace) -> str:
    """An error of the Python API as the user of ``parser`` should read it, in one line."""
    names = option_names(parser)

    def option(remedy: Remedy) -> str | None:
        if remedy.name not in names:
            return None
        return names[remedy.name] if remedy.value in (None, True) else f"{names[remedy.name]} {remedy.value}"

    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
    elif isinstance(error, crnn.TextError | crnn.VocabError):
        text = explain(in_words_of(parser, error.problem, arguments), error.remedies, option)
    else:
        text = in_words_of(parser, str(error), arguments)
    return " ".join(text.split("\n")) or type(error).__name__


def in_words_of(parser: argparse.ArgumentParser, message: str, arguments: argparse.Namespace) -> str:
    """A message of the Python API as the user of ``parser`` should read it.

    The names that a message starts with, before a colon, become options, and those of further differences, as in
    ``cell: expected ..., got ...; dropout: 0.5, got 0.0``. So do ``name=value`` and names with an underscore inside it,
    but not the arguments of a call in Python. What the user typed, such as the name of a file, is not changed.
    """
    names = option_names(parser)
    subject = _SUBJECT.match(message)
    head, rest = (message[: subject.end()], message[subject.end() :]) if subject else ("", message)
    known = (_ALIASES if "text" in names else {}) | _names_for(parser, arguments)
    head = re.sub(_NAME, lambda found: known.get(found[0], found[0]), head)
    rest = _NONE.sub("", rest)
    typed = {str(value) for value in vars(arguments).values() if isinstance(value, str | Path)}
    typed = {text for text in typed if "=" in text or "_" in text}  # others are not mistaken for a name
    keep = "|".join(map(re.escape, sorted(typed, key=len, reverse=True))) or r"(?!)"
    inside = re.compile(
        rf"(?P<kept>{keep}|\w\({_NAME}=[^()]*\))|(?<=; )(?P<other>{_NAME})(?=: [^:;]*, got )"
        rf"|(?<!\w\()\b(?P<assigned>{_NAME})=(?=\S)|\b(?P<name>[a-z]+_\w+)\b"
    )

    def as_option(found: re.Match[str]) -> str:
        if found["kept"]:
            return found[0]
        if found["assigned"]:
            return f"{names[found['assigned']]} " if found["assigned"] in names else found[0]
        if found["other"]:
            return known.get(found["other"], found[0])
        return names.get(found["name"], found[0])

    return head + inside.sub(as_option, rest)
