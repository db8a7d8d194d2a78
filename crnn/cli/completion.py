# SPDX-License-Identifier: MIT
"""``crnn completion``: a script that completes subcommands, options and their values in bash, zsh or fish."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crnn.cli import command
from crnn.cli.common import CommandParser, show
from crnn.cli.tasks import TASKS

__all__ = ["add_arguments", "run"]


@dataclass(frozen=True)
class Completed:
    """An option: how it is typed, its help, and what follows it: nothing, a choice, a file or another word."""

    flags: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    is_path: bool


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments of ``crnn completion``."""
    parser.description = (
        'Writes a script to standard output. bash: eval "$(crnn completion bash)" in ~/.bashrc; zsh: '
        'eval "$(crnn completion zsh)" in ~/.zshrc, after compinit; fish: crnn completion fish > '
        "~/.config/fish/completions/crnn.fish"
    )
    parser.add_argument("shell", choices=list(SCRIPTS), help="shell that runs the script")


def run(arguments: argparse.Namespace) -> int:
    """Print the script. Returns the exit status."""
    show(SCRIPTS[arguments.shell](_options()))
    return 0


def _options() -> dict[str, list[Completed]]:
    """The options of every subcommand, by its name; ``crnn train`` has those of all tasks."""
    found: dict[str, list[Completed]] = {}
    for subcommand in command.SUBCOMMANDS:
        by_flags: dict[tuple[str, ...], Completed] = {}
        for words in [["--task", task.name] for task in TASKS] if subcommand.name == "train" else [[]]:
            parser = CommandParser(subcommand.name)
            subcommand.complete(parser, words)
            of_parser = [_completed(parser, action) for action in parser._actions]
            by_flags = {each.flags: each for each in of_parser} | by_flags
        found[subcommand.name] = list(by_flags.values())
    return found


def _completed(parser: CommandParser, action: argparse.Action) -> Completed:
    help = "" if action.help is None else " ".join(parser._get_formatter()._expand_help(action).split())
    makes_path = isinstance(action.type, type) and issubclass(action.type, Path)
    returns_path = "Path" in str(getattr(action.type, "__annotations__", {}).get("return", ""))
    choices = tuple(map(str, action.choices or ()))
    return Completed(tuple(action.option_strings), help, action.nargs != 0, choices, makes_path or returns_path)


Options = dict[str, list[Completed]]


def bash(options: Options) -> str:
    """The script for bash 3.2 or later. Where it completes nothing, bash completes names of files."""
    values, flags = [], []
    for name, of_command in options.items():
        for each in of_command:
            if each.flags and each.choices:
                pattern = "|".join(f'"{name} {flag}"' for flag in each.flags)
                values.append(f"        {pattern}) words={shlex.quote(' '.join(each.choices))} ;;")
        positional = [choice for each in of_command if not each.flags for choice in each.choices]
        typed = " ".join(flag for each in of_command for flag in each.flags)
        flags.append(f'        "{name} "-*) words={shlex.quote(typed)} ;;')
        if positional:
            flags.append(f'        "{name} "*) words={shlex.quote(" ".join(positional))} ;;')
    return f"""_crnn() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=
    if [ "$current" = "=" ]; then current=
    elif [ "$previous" = "=" ]; then previous=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    if [ "$COMP_CWORD" -eq 1 ]; then words="{" ".join(options)} --help --version"
    else case "$command $previous" in
{chr(10).join(values)}
        *) case "$command $current" in
{chr(10).join("    " + line for line in flags)}
        esac ;;
    esac; fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _crnn crnn"""


def zsh(options: Options) -> str:
    """The script for zsh."""
    helps = {each.name: each.help for each in command.SUBCOMMANDS}
    described = " ".join(shlex.quote(f"{name}:{helps[name]}") for name in options)
    cases = []
    for name, of_command in options.items():
        specs = []
        for each in of_command:
            values = f"({' '.join(each.choices)})" if each.choices else "_files" if each.is_path else " "
            what = f":value:{values}" if each.takes_value else ""
            help = re.sub(r"([\[\]\\:])", r"\\\1", each.help)
            if each.flags:
                specs += [f"{flag}[{help}]{what}" for flag in each.flags]
            else:
                specs.append(f"*:argument:{values if each.choices else '_files'}")
        cases.append(f"        {name}) _arguments {' '.join(map(shlex.quote, specs))} ;;")
    return f"""#compdef crnn
_crnn() {{
    local -a commands
    commands=({described})
    if (( CURRENT == 2 )); then _describe command commands; return; fi
    local command=$words[2]
    shift words; (( CURRENT-- ))
    case $command in
{chr(10).join(cases)}
    esac
}}
if [ "$funcstack[1]" = _crnn ]; then _crnn "$@"; else compdef _crnn crnn; fi"""


def fish(options: Options) -> str:
    """The script for fish."""
    lines = []
    for subcommand in command.SUBCOMMANDS:
        name, of_command = subcommand.name, options[subcommand.name]
        lines.append(f"complete -c crnn -f -n __fish_use_subcommand -a {name} -d {_fish(subcommand.help)}")
        start = f"complete -c crnn -n '__fish_seen_subcommand_from {name}'"
        for each in of_command:
            words = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in each.flags]
            if each.choices:
                words.append(f"-xa {_fish(' '.join(each.choices))}")
            elif each.flags and each.takes_value:
                words.append("-rF" if each.is_path else "-x")
            if words:
                lines.append(f"{start} {' '.join(words)} -d {_fish(each.help)}")
    return "\n".join(lines)


def _fish(text: str) -> str:
    """A word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[Options], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
