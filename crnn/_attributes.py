# SPDX-License-Identifier: MIT
"""Public attributes that take effect when they are set, or say what to do instead.

What an object has been built from cannot change later: a network that is told ``net.cell = "gru"`` would still compute
with its old cell. `fixed_attributes` makes a class refuse this. Then a public attribute can be set only

- once, if the class declares it by an annotation: that is what constructors do;
- if it is a property with a setter, or is among the ``changeable`` ones, which are checked;
- to a function, if it is a method;
- if it belongs to a user's subclass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from crnn._core.attributes import set_attribute
from crnn._options import Check, did_you_mean

__all__ = ["declared", "fixed_attributes"]

C = TypeVar("C", bound=type)
MISSING = object()
# Arrays that are handed out: their elements may be set.
ARRAYS = {"flat_params": "[...]", "flat_grads": "[...]", "params": "[name]", "grads": "[name]"}


@dataclass(frozen=True)
class Rules:
    """What `fixed_attributes` was told about a class."""

    changeable: Mapping[str, Check] = field(default_factory=dict)
    made_by: str | None = None
    arguments: frozenset[str] = frozenset()
    in_constructor: bool = True


def fixed_attributes(
    changeable: Mapping[str, Check] | None = None,
    *,
    made_by: str | None = None,
    arguments: frozenset[str] = frozenset(),
    in_constructor: bool = True,
) -> Callable[[C], C]:
    """Decorator of a class whose objects refuse to set public attributes where that would be ignored.

    Parameters
    ----------
    changeable : mapping of str to Check, optional
        Attributes that may be set at any time, and what checks them.
    made_by : str, optional
        What makes the objects, for messages, and ``arguments`` its arguments. If not given: the class.
    in_constructor : bool
        Whether constructors set declared attributes; otherwise these are elsewhere, and can never be set.
    """

    def decorated(cls: C) -> C:
        rules = Rules(changeable or {}, made_by, arguments, in_constructor)
        for name, value in {"_attribute_rules": rules, "_checked_attribute": _checked_attribute}.items():
            setattr(cls, name, value)
        setter: Any = cls.__setattr__
        if setter is object.__setattr__:  # otherwise that of a base, which calls this one
            setattr(cls, "__setattr__", set_attribute)  # noqa: B010
        return cls

    return decorated


def _checked_attribute(instance: Any, name: str, value: Any) -> Any:
    """What a public attribute is set to. Raises AttributeError if that would be ignored."""
    cls: Any = type(instance)
    rules: Rules = instance._attribute_rules
    present, own = inspect.getattr_static(cls, name, MISSING), _class_of_crnn(cls)
    if name in rules.changeable:
        return rules.changeable[name](name, value)
    if present.fset is not None if isinstance(present, property) else hasattr(type(present), "__set__"):
        return value
    if callable(present) and callable(value):
        return value
    known = inspect.getattr_static(own, name, MISSING) is not MISSING
    if name not in vars(instance) and rules.in_constructor and not known and name in declared(own):
        return value
    if own is not cls and not known and name not in declared(own) and not _reads(own, instance, name):
        return value
    raise AttributeError(_refusal(cls, own, rules, name, value))


def _reads(cls: type, instance: Any, name: str) -> bool:
    """Whether ``__getattr__`` of the class knows the attribute."""
    try:
        getattr(cls, "__getattr__")(instance, name)  # noqa: B009
    except AttributeError:
        return False
    return True


@cache
def _class_of_crnn(cls: Any) -> type:
    """The class itself, or that of crnn from which a user's class derives."""
    package = __name__.partition(".")[0]
    found: type = next(each for each in cls.__mro__ if each.__module__.partition(".")[0] == package)
    return found


@cache
def declared(cls: Any) -> frozenset[str]:
    """The names that the class and its bases annotate."""
    return frozenset(name for each in cls.__mro__ for name in inspect.get_annotations(each))


def _refusal(cls: type, own: type, rules: Rules, name: str, value: Any) -> str:
    """Why an attribute cannot be set, and what to do."""
    arguments = rules.arguments or set(inspect.signature(own).parameters)
    made_by = rules.made_by or f"{own.__name__}()"
    if name in arguments:
        kind = "argument" if rules.made_by is None else "option"
        return f"{name}: expected an {kind} of {made_by}, which cannot change later, got {value!r:.100}; make a new one"
    if name in ARRAYS:
        return f"{name}: expected new values of its elements, {name}{ARRAYS[name]} = values, got {type(value).__name__}"
    present = name in declared(own) or inspect.getattr_static(own, name, MISSING) is not MISSING
    public = [each for each in dir(own) if not each.startswith("_")]
    methods = [each for each in public if inspect.isfunction(inspect.getattr_static(own, each))]
    takers = [each for each in methods if name in inspect.signature(getattr(own, each)).parameters]
    if not present and takers:
        return f"{name}: expected as an argument of {' or '.join(takers)}, got it as an attribute, {value!r:.100}"
    if present:
        of_class = inspect.getattr_static(own, name, MISSING)
        constant = of_class is not MISSING and not isinstance(of_class, property) and not callable(of_class)
        hint = "; a subclass may have another" if constant else ""
        got = f"got {value!r:.100}{hint}"
        return f"{name}: expected no assignment to this attribute, which {cls.__name__} itself sets, {got}"
    hint = did_you_mean(name, [*public, *arguments])
    return f"{name}: {cls.__name__} has no attribute of this name{hint or '; a subclass may have others'}"
