# SPDX-License-Identifier: MIT
"""--config: options of a command from a TOML file, by the names of their flags. Typed options take precedence."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crnn._options import ELSEWHERE, name_here
from crnn.cli.common import CommandParser, file_or_standard, flag_of
from crnn.cli.typed import Sizes

__all__ = ["OTHERS_NAMES", "Configuration", "Repeated", "given", "stated", "typed_options"]

ONCE = ("config", "help", "resume", "restart")  # options that say what to do this time; a file cannot have them
OTHERS_NAMES = {name: name_here(name) for name in ELSEWHERE}  # of options in other libraries
_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
}


class Repeated(argparse.Action):
    """Action of an option that may be repeated: its values as a list, in place of the default."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        found = getattr(namespace, self.dest, None)
        known = found if isinstance(found, list) and found is not self.default else []
        setattr(namespace, self.dest, [*known, values])


class Configuration:
    """The options in a TOML file.

    Attributes
    ----------
    name : str
        The file, as it was given.
    values : dict
    dests : dict of str to str
        After `apply`: the key of each option, by its name in Python (``dest``).
    """

    name: str
    values: Mapping[str, Any]
    dests: dict[str, str]

    def __init__(self, path: Path) -> None:
        self.name, self.dests = str(path), {}
        self._folder = path.parent if path.is_file() else Path()  # a pipe is in no folder of the user
        try:
            self.values = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # neither TOML nor UTF-8
            raise ValueError(f"{self.name}: expected options in TOML, got a file that is not: {error}") from None

    def apply(self, parser: CommandParser) -> None:
        """Make the options the defaults of the parser. Raises ValueError for a key or value that it does not have."""
        actions = _by_key(parser)
        for key, value in self.values.items():
            if key in ONCE:
                raise ValueError(f"{self.name}: {key}: expected on the command line, got it in a file")
            action = actions.get(key)
            if action is None:
                raise ValueError(f"{self.name}: {_unknown(key, actions, parser.prog)}")
            action.required = False
            parser.set_defaults(**{action.dest: self._checked(key, value, action)})
            self.dests[action.dest] = key
        parser.set_defaults(configuration=self)

    def _checked(self, key: str, value: Any, action: argparse.Action) -> Any:
        """A value of the file as the parser would have made it of a word."""
        if isinstance(action, Repeated) or action.nargs == "+":
            values = value if isinstance(value, list) else [value]
            if not values and action.nargs == "+":
                raise ValueError(f"{self.name}: {key}: expected at least one value, got an empty list")
            return [self._converted(key, each, action) for each in values]
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise ValueError(f"{self.name}: {key}: expected true or false, got {value!r:.200}")
            return value
        if isinstance(action.type, Sizes):
            return self._sizes(key, value)
        return self._converted(key, value, action)

    def _sizes(self, key: str, value: Any) -> int | list[int]:
        """One size, or a list of them."""
        sizes = value if isinstance(value, list) else [value]
        if not sizes or any(type(size) is not int for size in sizes):
            raise ValueError(f"{self.name}: {key}: expected an integer, or a list of integers, got {value!r:.200}")
        return sizes if len(sizes) > 1 else sizes[0]

    def _converted(self, key: str, value: Any, action: argparse.Action) -> Any:
        """One value, checked and converted."""
        start = f"{self.name}: {key}: expected"
        kinds, expected = _KINDS.get(action.type, ((str, int, float), "a string or a number"))
        if isinstance(value, bool) or not isinstance(value, kinds):
            if action.choices is not None:
                expected = f"one of {', '.join(map(str, action.choices))}"
            raise ValueError(f"{start} {expected}, got {value!r:.200}")
        convert: Any = action.type if action.type is not None else str
        try:
            converted = convert(value if action.type in _KINDS else str(value))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{self.name}: {key}: {error}") from None
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{start} {expected}, got {value!r:.200}") from None
        if action.choices is not None and converted not in action.choices:
            raise ValueError(f"{start} one of {', '.join(map(str, action.choices))}, got {value!r:.200}")
        if not isinstance(converted, Path):
            return converted
        if not isinstance(value, str):
            raise ValueError(f"{start} a path, got {value!r:.200}")
        return file_or_standard(value, self._folder)


def _by_key(parser: CommandParser) -> dict[str, argparse.Action]:
    """The options of a parser by their long flags without hyphens in front, and the positional arguments by name."""
    return {flag_of(action).lstrip("-").lower(): action for action in parser._actions}


def _unknown(key: str, actions: Mapping[str, argparse.Action], prog: str) -> str:
    """What to say of a key that is no option."""
    names = {action.dest: name for name, action in actions.items() if name not in ONCE}  # also those of Python
    names |= {theirs: names[ours] for theirs, ours in OTHERS_NAMES.items() if ours in names}
    names |= {name: name for name in names.values()}
    close = difflib.get_close_matches(key.replace("-", "_"), names, 1, 0.7)
    hint = f"; did you mean {names[close[0]]}?" if close else ""
    return f"{key}: expected an option of {prog}, by its name without --; this one is unknown{hint}"


def typed_options(arguments: argparse.Namespace, names: Iterable[str]) -> set[str]:
    """Which of these options (``dest``) were typed, even if as their defaults."""
    untouched = object()
    parsed = argparse.Namespace(**dict.fromkeys(names, untouched))
    words: Sequence[str] = arguments.argv[arguments.argv.index(arguments.command) + 1 :]
    arguments.parser.parse_args(words, parsed)
    return {name for name in names if getattr(parsed, name) is not untouched}


def given(arguments: argparse.Namespace, names: Iterable[str]) -> set[str]:
    """Which of these options (``dest``) were typed, or are in the file of ``--config``."""
    names = list(names)
    configuration: Configuration | None = getattr(arguments, "configuration", None)
    return typed_options(arguments, names) | (set(configuration.dests) if configuration else set()) & set(names)


def stated(arguments: argparse.Namespace, names: Iterable[str]) -> set[str]:
    """Which of these options (``dest``) are `given`, or set by ``--preset``."""
    names = set(names)
    return given(arguments, names) | (names & set(getattr(arguments, "preset_dests", ())))
