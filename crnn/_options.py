# SPDX-License-Identifier: MIT
"""Options declared once: a frozen dataclass whose fields carry check, help text and command-line flag.

    @dataclass(frozen=True, kw_only=True)
    class NetworkConfig:
        dropout: float = option(0.0, check=check_probability, help="Probability of ...", flag="--dropout")

        def __post_init__(self) -> None:
            check_options(self)

From such a class come the signature and the docstring of a function that takes ``**options``, the flags of the command
line, and the types that a file's JSON header may hold.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

if TYPE_CHECKING:  # the command line's alone: `import crnn` does without it
    import argparse

__all__ = [
    "REQUIRED",
    "Check",
    "Option",
    "add_flags",
    "build_config",
    "check_options",
    "from_flags",
    "option",
    "options_of",
    "signature_with",
    "takes_options",
]

Check = Callable[[str, Any], Any]  # (name, value) -> the value as it is stored; raises ValueError or TypeError
C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])

REQUIRED: Any = dataclasses.MISSING  # the default of an option that has none

_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),  # JSON does not distinguish 1.0 from 1
    bool: (bool,),
    str: (str,),
    type(None): (type(None),),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Option:
    """One option, as `option` declared it.

    Attributes
    ----------
    name : str
    type : type
        The resolved annotation. If it admits None, None is not checked further.
    annotation : str
        The same as the source spells it.
    default
        `REQUIRED` where there is none.
    check : callable or None
    help : str
        Sentences for the docstring and for ``--help``.
    flag : str or None
        None: not an option of the command line.
    json_types : tuple of type
        Exact types that a JSON value of this option may have; empty if it is never written to a file.
    """

    name: str
    type: Any
    annotation: str
    default: Any
    check: Check | None
    help: str
    flag: str | None
    json_types: tuple[type, ...]

    @property
    def optional(self) -> bool:
        """Whether None is a value of this option."""
        return type(None) in _alternatives(self.type)

    def checked(self, value: Any) -> Any:
        """The value as it is stored. Raises what the check raises."""
        if self.check is None or (value is None and self.optional):
            return value
        return self.check(self.name, value)

    def has_json_type(self, value: Any) -> bool:
        """Whether a value from a JSON header has one of the exact types of this option (a bool is no int)."""
        return type(value) in self.json_types


def option(
    default: Any = REQUIRED,
    *,
    check: Check | None = None,
    help: str,
    flag: str | None = None,
    json_types: Iterable[type] | None = None,
) -> Any:
    """A dataclass field that is an `Option`. ``json_types``: derived from the annotation if not given."""
    metadata = {"check": check, "help": " ".join(help.split()), "flag": flag, "json_types": json_types}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(config_class: type) -> tuple[Option, ...]:
    """The options that a dataclass declares, in order; fields not made by `option` are left out."""
    return _options_of(config_class)


@functools.cache
def _options_of(config_class: type) -> tuple[Option, ...]:
    hints = get_type_hints(config_class)
    found = []
    for field in dataclasses.fields(config_class):
        if "help" in field.metadata:
            settings = dict(field.metadata)
            given = settings.pop("json_types")
            json_types = _json_types(hints[field.name]) if given is None else tuple(given)
            annotation = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
            found.append(
                Option(
                    name=field.name,
                    type=hints[field.name],
                    annotation=annotation,
                    default=field.default,
                    json_types=json_types,
                    **settings,
                )
            )
    return tuple(found)


def check_options(config: Any) -> None:
    """Check every option of a configuration and store the normalised values; for ``__post_init__``."""
    for each in options_of(type(config)):
        object.__setattr__(config, each.name, each.checked(getattr(config, each.name)))


def build_config(config_class: Callable[..., C], options: Mapping[str, Any]) -> C:
    """A configuration of the ``**options`` of a function. An unknown name is a TypeError that lists the known ones."""
    known = [each.name for each in options_of(cast(type, config_class))]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"{unknown[0]}: expected one of the options {', '.join(known)}; this one is unknown")
    return config_class(**options)


# ---- Python's side: signature and docstring ------------------------------------------------------------------------


def signature_with(function: Callable[..., Any], config_class: type) -> inspect.Signature:
    """The signature of a function with its ``**options`` spelled out; parameters that it names itself stay."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named = {parameter.name for parameter in own}
    spelled = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is REQUIRED else each.default,
            annotation=each.annotation,
        )
        for each in options_of(config_class)
        if each.name not in named
    ]
    return signature.replace(parameters=[*own, *spelled])


def takes_options(config_class: type) -> Callable[[F], F]:
    """Decorator of a function with ``**options``: shows them in its signature, and in place of a docstring's line
    ``{options}`` their numpydoc entries."""

    def decorate(function: F) -> F:
        signature = signature_with(function, config_class)
        function.__signature__ = signature  # type: ignore[attr-defined]
        text = function.__doc__ or ""  # none under python -OO
        place = re.search(r"^( *)\{options\}$", text, re.MULTILINE)
        if place:
            indent = place[1]  # none since Python 3.13, which dedents docstrings
            entries = [entry for name, entry in _numpydoc_entries(config_class) if f"\n{indent}{name} :" not in text]
            function.__doc__ = text.replace(place[0], textwrap.indent("\n".join(entries), indent))
        return function

    return decorate


@functools.cache  # several classes share a list
def _numpydoc_entries(config_class: type) -> list[tuple[str, str]]:
    """By name, what a docstring says of each option."""
    entries = []
    for each in options_of(config_class):
        type_text = each.annotation.removesuffix(" | None") + ", optional" * each.optional
        if get_origin(each.type) is Literal:
            type_text = "{" + ", ".join(f'"{choice}"' for choice in get_args(each.type)) + "}"
        if each.default not in (REQUIRED, None):
            type_text += f", default {each.default!r}"
        help = textwrap.fill(each.help, 116, initial_indent="    ", subsequent_indent="    ")
        entries.append((each.name, f"{each.name} : {type_text}\n{help}"))
    return entries


# ---- the shell's side: flags -----------------------------------------------------------------------------------------


def add_flags(
    parser: argparse._ActionsContainer,
    config_class: type,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add a flag for every option that has one.

    ``overrides``: by an option's name, arguments of ``add_argument`` that differ on the command line, such as another
    default, a help text or choices.
    """
    overrides = overrides or {}
    for each in options_of(config_class):
        if each.flag is not None:
            changes = overrides.get(each.name, {})
            arguments = _flag_arguments(each) | dict(changes)
            if "default" in changes:
                arguments.pop("required", None)
            if "choices" in arguments or "action" in arguments:
                arguments.pop("metavar", None)
            parser.add_argument(each.flag, dest=each.name, **arguments)


def from_flags(namespace: argparse.Namespace, config_class: type) -> dict[str, Any]:
    """The values that `add_flags` made argparse read, by the options' names."""
    return {each.name: getattr(namespace, each.name) for each in options_of(config_class) if each.flag is not None}


def _flag_arguments(each: Option) -> dict[str, Any]:
    assert each.flag is not None
    text = each.help.removesuffix(".").replace("%", "%%")
    if not text[:2].isupper():  # an abbreviation stays
        text = text[:1].lower() + text[1:]
    arguments: dict[str, Any] = {"help": text}
    if each.default is REQUIRED:
        arguments["required"] = True
    else:
        arguments["default"] = each.default
    (kind, *others) = [kind for kind in _alternatives(each.type) if kind is not type(None)]
    if kind is bool:
        from argparse import BooleanOptionalAction

        arguments["action"] = BooleanOptionalAction if each.default is True else "store_true"
    elif get_origin(kind) is Literal:
        arguments["choices"] = list(get_args(kind))
    else:
        arguments["metavar"] = each.flag.lstrip("-").replace("-", "_").upper()
        if kind in (int, float) and not others:
            arguments["type"] = kind
    return arguments


# ---- types -----------------------------------------------------------------------------------------------------------


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _json_types(annotation: Any) -> tuple[type, ...]:
    found: list[type] = []
    for kind in _alternatives(annotation):
        origin = get_origin(kind)
        if origin is Literal:
            found += map(type, get_args(kind))
        elif isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
            found.append(list)
        else:
            found += _JSON_TYPES.get(kind, ())
    return tuple(dict.fromkeys(found))
