# SPDX-License-Identifier: MIT
"""Flags of what learns while it predicts: those of a learner, with a switch without which they are refused."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crnn._options import add_flags, options_of
from crnn.nn.learning.config import LearnerConfig

# Help that differs from that of the Python option.
HELP = {
    "optimizer": "a name, with arguments if wanted, as in 'sgd(momentum=0.9)'",
    "lr": "learning rate",
    "clip_norm": "largest 2-norm of the gradient; a larger gradient is scaled down to this norm; inf: any",
    "clip_value": "elements of the gradient are clipped to [-CLIP_VALUE, CLIP_VALUE], before --clip-norm",
    "max_change": "bounds how far the weights may move from those of the file: the 2-norm of the difference, divided "
    "by that of the weights of the file",
    "decay": "after each update the weights move by this part of the way back to those of the file",
}

__all__ = ["add_learning_flags", "check_learns", "check_switch", "learning_options"]


def add_learning_flags(
    parser: argparse._ActionsContainer, names: Iterable[str], defaults: Mapping[str, Any] | None = None
) -> None:
    """Add the flags of these options of `LearnerConfig`. ``defaults``: those that differ from a learner's."""
    chosen, values = set(names), defaults or {}
    overrides = {}
    for each in options_of(LearnerConfig):
        default = values.get(each.name, each.default)
        text = HELP.get(each.name) or each.help.removesuffix(".").replace("%", "%%")
        shown = "" if default is None else f"; {default} if not given"
        overrides[each.name] = {"default": None, "help": text[0].lower() + text[1:] + shown}
    without = [each.name for each in options_of(LearnerConfig) if each.name not in chosen]
    add_flags(parser, LearnerConfig, overrides, without=without)


def learning_options(
    arguments: argparse.Namespace, names: Iterable[str], switch: str, more: Iterable[str] = ()
) -> dict[str, Any]:
    """Those of these options that were given, by their names; raises ValueError if some were without ``--switch``.

    ``more``: further arguments that need the switch, which are not part of the result.
    """
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    check_switch(arguments, switch, [*given, *more])
    return given


def check_switch(arguments: argparse.Namespace, switch: str, names: Iterable[str]) -> None:
    """Raise ValueError if one of these arguments was given without ``--switch``."""
    if not getattr(arguments, switch):
        for name in names:
            value = getattr(arguments, name)
            if value != arguments.parser.get_default(name):
                typed = " ".join(map(str, value)) if isinstance(value, list) else value
                got = "" if value is True else f", got {typed} without it"
                raise ValueError(f"{name}: expected with --{switch} only{got}")


def check_learns(name: str, model: Any, path: Path) -> None:
    """Raise ValueError, which calls it ``name``, if the model of a file is quantised, and so cannot be trained."""
    precision = model.config()["precision"]
    if precision is not None:
        raise ValueError(
            f"{name}: expected a model that can learn, got {path}, which is quantised: train first, then crnn quantize"
        )
