# SPDX-License-Identifier: MIT
"""--preset: options of ``crnn train`` from `crnn.presets`. Those of --config, and typed ones, take precedence."""

from __future__ import annotations

import argparse
from typing import Any

from crnn.cli.common import CommandParser
from crnn.cli.configuration import given
from crnn.presets import PRESETS

__all__ = ["add_preset_flag", "apply_preset", "finish_preset"]


def add_preset_flag(parser: CommandParser) -> None:
    """Add ``--preset``."""
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        metavar="PRESET",
        help="settings of a published model or of a well-known program; other options that are given take precedence, "
        f"and with --help the defaults are those of the preset; one of {', '.join(PRESETS)}",
    )


def apply_preset(parser: CommandParser, name: object, zero_is_none: tuple[str, ...]) -> None:
    """Make the settings of a preset the defaults of the parser, if it has the flag and there is one of this name.

    ``zero_is_none``: the options for which a shell has 0 instead of None.
    """
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None or all(action.dest != "preset" for action in parser._actions):  # parsing refuses it
        return
    settings: dict[str, Any] = {**preset.text, **preset.model, **preset.training}
    for option in zero_is_none:
        if option in settings and settings[option] is None:
            settings[option] = 0
    parser.set_defaults(**settings, preset_dests=frozenset(settings))


def finish_preset(arguments: argparse.Namespace) -> None:
    """After parsing: options of a preset that go with others are not used with those that were given.

    An optimizer without a rate has its own, and a list of sizes has as many layers.
    """
    if getattr(arguments, "preset", None) is None:
        return
    if given(arguments, ["optimizer", "lr"]) == {"optimizer"}:
        arguments.lr = None
    if isinstance(arguments.hidden_size, list) and given(arguments, ["hidden_size", "num_layers"]) == {"hidden_size"}:
        arguments.num_layers = None
