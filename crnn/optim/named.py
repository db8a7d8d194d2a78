# SPDX-License-Identifier: MIT
"""Optimizers, schedules and averages given by name, with arguments if wanted: ``"sgd"``, ``"steps(0.5, after=4)"``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from crnn.checks import check_takes
from crnn.optim.averages import AVERAGES, Average
from crnn.optim.optimizers import RULES, Optimizer
from crnn.optim.schedules import SCHEDULES, Schedule

__all__ = [
    "average_from",
    "base_name",
    "called",
    "check_average",
    "check_optimizer",
    "check_schedule",
    "is_listed",
    "listed",
    "optimizer_from",
    "schedule_from",
]

_CALL = re.compile(r"\s*(\w+)\s*(?:\((.*)\)\s*)?", re.DOTALL)
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def optimizer_from(name: str, value: Any, lr: float | None = None) -> Optimizer:
    """An optimizer given as the argument ``name``: one of crnn's, a class of one, or a name in `RULES`.

    A class or a name gives an optimizer with default arguments, except for ``lr`` if it is given, and for those that
    follow the name, as in ``"rmsprop(alpha=0.95)"``. Raises TypeError and ValueError.
    """
    if isinstance(value, Optimizer):
        return value
    given = {} if lr is None else {"lr": lr}
    rule: Callable[..., Optimizer] | None = value if isinstance(value, type) and issubclass(value, Optimizer) else None
    made: Optimizer = (
        called(name, value, RULES, "an optimizer such as crnn.optim.Adam(lr=1e-3)", given)
        if rule is None
        else rule(**given)
    )
    return made


def schedule_from(name: str, value: Any, warmup: int = 0) -> Schedule:
    """A schedule given as the argument ``name``: a function, an object with a method ``at_epoch``, one of this module's
    factories, or a name in `SCHEDULES`.

    A name may have arguments: ``"steps(0.5, after=4)"``. ``warmup`` is for a factory or a name. Raises TypeError and
    ValueError.
    """
    made: Schedule
    if any(value is factory for factory in SCHEDULES.values()):
        made = value(warmup=warmup)
    elif callable(getattr(value, "at_epoch", None)) and not isinstance(value, type):
        check_takes(name, value.at_epoch, 2, "a schedule with a method at_epoch(epoch, valid_losses)")
        made = value
    elif callable(value):
        made = check_takes(name, value, 2, "a schedule, a function of (update, updates)")
    else:
        made = called(name, value, SCHEDULES, "a schedule such as crnn.optim.cosine()", {"warmup": warmup})
    return made


def average_from(name: str, value: Any) -> Average:
    """A rule of an average given as the argument ``name``: an object, a class, or a name in `AVERAGES`.

    Raises TypeError and ValueError.
    """
    if isinstance(value, Average):
        return value
    rule: Callable[..., Average] | None = value if isinstance(value, type) and issubclass(value, Average) else None
    made: Average = called(name, value, AVERAGES, "an average such as crnn.optim.EMA()", {}) if rule is None else rule()
    return made


def check_average(name: str, value: Any) -> Any:
    """``value`` if `average_from` takes it. Raises what that raises."""
    average_from(name, value)
    return value


def check_optimizer(name: str, value: Any) -> Any:
    """``value`` if `optimizer_from` takes it. Raises what that raises."""
    optimizer_from(name, value)
    return value


def check_schedule(name: str, value: Any) -> Any:
    """``value`` if `schedule_from` takes it. Raises what that raises."""
    schedule_from(name, value)
    return value


def is_listed(value: Any, entries: Mapping[str, Callable[..., Any]]) -> bool:
    """Whether ``value`` is a name in `RULES` or `SCHEDULES`, or what is listed there."""
    return isinstance(value, str) or any(value is each for each in entries.values())


# ---- names with arguments ----------------------------------------------------------------------------------------


def base_name(text: str) -> str:
    """The name in ``"name(arguments)"``, in lower case; the text itself if it is neither that nor a name."""
    found = _CALL.fullmatch(text)
    return (found[1] if found else text).lower()


def listed(name: str, value: Any, entries: Mapping[str, Callable[..., Any]], other: str) -> Callable[..., Any]:
    """The entry of a list that ``value`` names, without its arguments. ``other``: what else the argument may be."""
    expected = f"{name}: expected {other}, or one of {', '.join(map(repr, entries))}"
    if not isinstance(value, str):
        raise TypeError(f"{expected}, got {type(value).__name__}")
    if base_name(value) not in entries:
        raise ValueError(f"{expected}, got {value!r:.200}")
    return entries[base_name(value)]


def called(
    name: str, value: Any, entries: Mapping[str, Callable[..., Any]], other: str, given: Mapping[str, Any]
) -> Any:
    """What the entry that ``value`` names makes of the arguments in it and of those ``given`` apart from it.

    Raises TypeError and ValueError, which call the option ``name``.
    """
    entry = listed(name, value, entries, other)
    found = _CALL.fullmatch(value)
    assert found is not None
    positional, named = _arguments(name, value, found[2] or "")
    if not (positional or named):
        return entry(**given)
    inside = {*named, *list(inspect.signature(entry).parameters)[: len(positional)]}
    both = sorted(inside & {each for each, number in given.items() if number})
    if both:
        raise ValueError(f"{name}: expected {both[0]} once, got it in {value!r:.200} and as {both[0]}={given[both[0]]}")
    given = {each: number for each, number in given.items() if each not in inside}
    try:
        inspect.signature(entry).bind(*positional, **{**given, **named})
    except TypeError as error:
        raise ValueError(
            f"{name}: expected arguments of {base_name(value)}({_parameters(entry)}), got {value!r:.200}: {error}"
        ) from None
    try:
        return entry(*positional, **{**given, **named})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {value!r:.200}: {error}") from None


def _parameters(entry: Callable[..., Any]) -> str:
    """The parameters of an entry and their defaults."""
    parameters = inspect.signature(entry).parameters.values()
    return ", ".join(str(each.replace(annotation=inspect.Parameter.empty)) for each in parameters)


def _arguments(name: str, value: str, text: str) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments in the parentheses of ``value``."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for part in text.split(",") if text.strip() else []:
        key, equals, number = part.rpartition("=")
        key, number = key.strip(), number.strip()
        if (equals and (not key.isidentifier() or key in named)) or (named and not equals):
            raise ValueError(f"{name}: expected arguments such as name(1, b=2), got {value!r:.200}")
        if equals:
            named[key] = _number(name, value, number)
        else:
            positional.append(_number(name, value, number))
    return positional, named


def _number(name: str, value: str, text: str) -> Any:
    """An argument in a text: a number, True, False or None."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{name}: expected numbers, True, False or None as arguments, got {text!r:.100} in {value!r:.200}")
