# SPDX-License-Identifier: MIT
"""FORMATS: the files of other programs that ``crnn export`` writes and ``crnn import`` reads."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from crnn.cli.configuration import Repeated

__all__ = ["FORMATS", "Format", "add_format_flags", "called", "format_of", "options_of"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Format:
    """A format of model files.

    Attributes
    ----------
    name : str
        For ``--format``.
    suffixes : tuple of str
        How names of its files end, the usual one first.
    read_only : tuple of str
        The suffixes of files that it reads, but does not write.
    module : str
        In ``crnn.interop``.
    save, load : str
        The names of its functions ``save(model, path, **options)`` and ``load(path, **options)``.
    kinds : mapping
        What ``load`` calls a class of models in ``kind=``, if not by its name.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    save: str = "save"
    load: str = "load"
    read_only: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    def function(self, name: str) -> Callable[..., Any]:
        """``save`` or ``load`` of the format."""
        function: Callable[..., Any] = getattr(import_module(f"crnn.interop.{self.module}"), getattr(self, name))
        return function


_TORCH_KINDS = {
    "LanguageModel": "language_model",
    "SequenceClassifier": "classifier",
    "SequenceTagger": "tagger",
    "SequenceRegressor": "regressor",
}
FORMATS = (
    Format("onnx", (".onnx",), "onnx"),
    Format("keras", (".keras", ".weights.h5"), "keras", read_only=(".h5",)),
    Format("torch", (".pt.safetensors",), "torch", "save_file", "load_file", kinds=_TORCH_KINDS),
    Format("rtneural", (".json",), "rtneural"),
    Format("aidax", (".aidax",), "aidax"),
    Format("nam", (".nam",), "nam"),
    Format("guitarml", (".json",), "guitarml"),
)


def add_format_flags(parser: argparse.ArgumentParser, function: str) -> None:
    """Add ``--format`` and ``-O``. ``function``: whose keyword arguments the options are, for the help."""
    names = "; ".join(f"{each.name}: {', '.join(each.suffixes)}" for each in FORMATS)
    parser.add_argument(
        "--format",
        choices=[each.name for each in FORMATS],
        help=f"format of the file, if its name does not tell: {names}",
    )
    parser.add_argument(
        "-O",
        "--option",
        dest="options",
        action=Repeated,
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help=f"argument of the format's function {function} in crnn.interop; may be repeated. The value is JSON, "
        "such as null for None, or else a text",
    )


def _option(text: str) -> tuple[str, Any]:
    """The value of ``-O``."""
    name, is_there, value = text.partition("=")
    if not is_there or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of ``-O``. Raises ValueError for one that is given twice."""
    names = [name for name, _ in arguments.options]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"options: expected each name once, got {twice} twice")
    return dict(arguments.options)


def format_of(option: str, path: Path, name: str | None, *, written: bool) -> Format:
    """The format of this name, or the only one whose files are called so. Raises ValueError, which names ``option``."""
    if name is not None:
        return next(each for each in FORMATS if each.name == name)
    suffixes = {each.name: each.suffixes if written else each.suffixes + each.read_only for each in FORMATS}
    found = [each for each in FORMATS if path.name.lower().endswith(suffixes[each.name])]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"format: expected one of {', '.join(each.name for each in found)} for {path}, got none")
    known = ", ".join(dict.fromkeys(suffix for each in FORMATS for suffix in suffixes[each.name]))
    hint = "" if written or path.suffix != ".safetensors" else "; --format torch reads the weights of PyTorch"
    raise ValueError(f"{option}: expected a name that ends in one of {known}, or --format, got {path}{hint}")


def called(function: Callable[..., Result], *values: Any, options: Mapping[str, Any]) -> Result:
    """What a function of a format returns. Its errors are those of the user: a library that is missing, an option."""
    try:
        return function(*values, **options)
    except (ImportError, TypeError) as error:
        raise ValueError(str(error)) from error
