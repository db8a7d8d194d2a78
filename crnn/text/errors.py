# SPDX-License-Identifier: MIT
"""Errors about texts: what is wrong, and the arguments that may help, which the command line calls by its own names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["Remedy", "TextError", "VocabError", "character_code", "explain"]


class Remedy(NamedTuple):
    """What may help: ``purpose`` is a verb with its object, to be continued by "with" and the argument ``name``.

    ``value`` is the value to give, or None if only the user knows it.
    """

    purpose: str
    name: str
    value: object = None


class _ExplainedError(ValueError):
    """What is wrong, followed by remedies. ``str`` writes both in the words of the Python API."""

    def __init__(self, problem: str, *remedies: Remedy) -> None:
        super().__init__(problem, *remedies)

    @property
    def problem(self) -> str:
        """What is wrong: names the argument, what was expected and what came."""
        return str(self.args[0])

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What may help."""
        return self.args[1:]

    def __str__(self) -> str:
        return explain(self.problem, self.remedies, _in_python)


class TextError(_ExplainedError):
    """A text that cannot be read, or is too short."""


class VocabError(_ExplainedError):
    """A token outside the vocabulary, or an invalid vocabulary."""


def explain(problem: str, remedies: Iterable[Remedy], spell: Callable[[Remedy], str | None]) -> str:
    """The problem and the remedies as one line. ``spell`` writes a remedy's argument; None leaves the remedy out."""
    spelled = ((each.purpose, spell(each)) for each in remedies)
    phrases = [f"{purpose} with {argument}" for purpose, argument in spelled if argument is not None]
    return "; ".join([problem, ", or ".join(phrases)] if phrases else [problem])


def _in_python(remedy: Remedy) -> str:
    return f"{remedy.name}=" if remedy.value is None else f"{remedy.name}={remedy.value!r}"


def character_code(token: Any) -> str | None:
    """The code of a character, as in U+00E9; None for other tokens."""
    return f"U+{ord(token):04X}" if isinstance(token, str) and len(token) == 1 else None
