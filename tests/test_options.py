# SPDX-License-Identifier: MIT
"""Options declared once: checks, signatures, docstrings, flags and JSON types come from one dataclass."""

import argparse
import inspect
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import pytest

import crnn
from crnn._options import (
    REQUIRED,
    add_flags,
    check_options,
    from_flags,
    option,
    options_of,
    signature_with,
    takes_options,
)


def check_above(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class Config:
    size: int | Sequence[int] = option(check=lambda name, value: value, help="Units.", flag="--size")
    rate: float = option(0.5, check=check_above, help="GRU: how fast.", flag="--rate")
    limit: float | None = option(None, check=check_above, help="The largest of all; 5 % is usual.", flag="--limit")
    mode: Literal["mean", "sum"] = option("mean", help="Of the losses.", flag="--mode")
    fast: bool = option(False, help="Whether.", flag="--fast")
    safe: bool = option(True, help="Whether not.", flag="--safe")
    hook: object = option(None, help="Called\n    at the end.")
    private: int = 3

    def __post_init__(self) -> None:
        check_options(self)


OPTIONS = {each.name: each for each in options_of(Config)}


def test_options_come_in_the_order_of_the_class_and_only_those():
    assert list(OPTIONS) == ["size", "rate", "limit", "mode", "fast", "safe", "hook"]
    assert OPTIONS["size"].default is REQUIRED
    assert OPTIONS["hook"].help == "Called at the end."


def test_checks_normalise_and_name_the_option():
    config = Config(size=3, rate=2)
    assert isinstance(config.rate, float)
    assert config.limit is None
    with pytest.raises(ValueError, match=r"^rate: expected a number above 0, got -1$"):
        Config(size=3, rate=-1)
    with pytest.raises(ValueError, match=r"^rate: expected a number above 0, got None$"):
        Config(size=3, rate=None)
    with pytest.raises(FrozenInstanceError):
        config.rate = 3.0


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("size", [1, [1, 2]], [True, 1.0, None, (1,)]),
        ("rate", [1.0, 1], [True, None, "1"]),
        ("limit", [1.0, 1, None], [False]),
        ("mode", ["sum"], [1, None]),
        ("fast", [True], [1, 0]),
        ("hook", [], [None, 1]),
    ],
)
def test_json_types_are_exact(name, good, bad):
    assert all(OPTIONS[name].has_json_type(value) for value in good)
    assert not any(OPTIONS[name].has_json_type(value) for value in bad)


def test_a_signature_spells_the_options_out_but_those_the_function_names():
    def function(x, size, *, rate: float = 0.1, **options):
        """Do."""

    signature = signature_with(function, Config)
    assert list(signature.parameters) == ["x", "size", "rate", "limit", "mode", "fast", "safe", "hook"]
    assert signature.parameters["rate"].default == 0.1
    assert signature.parameters["mode"].default == "mean"
    assert signature.parameters["limit"].annotation in ("float | None", float | None)


def test_the_decorator_fills_in_signature_and_docstring():
    @takes_options(Config)
    def function(x, **options):
        """Do.

        Parameters
        ----------
        x : int
        {options}

        Returns
        -------
        None
        """

    class Method:
        @takes_options(Config)
        def __init__(self, x, *, rate=1, **options):
            pass

    def dedented(x, rate=1, **options):
        pass

    dedented.__doc__ = "Do.\n\nParameters\n----------\nx, y : int\nrate : int\n{options}\n"  # as Python 3.13 keeps them
    text = takes_options(Config)(dedented).__doc__
    assert text.count("\nrate :") == 1
    assert "\nlimit : float, optional\n    The largest of all; 5 % is usual.\nmode :" in text

    text = inspect.getdoc(function)
    assert 'mode : {"mean", "sum"}, default \'mean\'\n    Of the losses.\n' in text
    assert "{options}" not in text
    assert "safe" in inspect.signature(function).parameters
    assert list(inspect.signature(Method).parameters)[:4] == ["x", "rate", "size", "limit"]


MODELS = ["RNN", "LanguageModel", "SequenceClassifier", "SequenceTagger", "SequenceRegressor", "SequenceToSequence"]


@pytest.mark.parametrize("name", [*MODELS, "Forecaster", "fit"])
def test_a_docstring_describes_every_parameter_of_the_signature_once(name):
    public = getattr(crnn, name)
    section = inspect.getdoc(public).partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    lines = re.findall(r"^(\w+(?:, \w+)*)(?: :.*)?$", section, re.MULTILINE)
    described = [parameter for line in lines for parameter in line.split(", ")]
    assert sorted(described) == sorted(inspect.signature(public).parameters)


def test_an_option_that_the_model_determines_is_not_an_argument():
    with pytest.raises(TypeError, match="LanguageModel: unexpected argument 'input_size'"):
        crnn.LanguageModel(crnn.Vocab.from_text("abc"), input_size=5)


def test_flags_are_read_back_by_the_options_names():
    parser = argparse.ArgumentParser()
    add_flags(parser, Config, {"rate": {"default": 0.25, "help": "how fast"}})
    arguments = parser.parse_args(["--size", "3", "--mode", "sum", "--no-safe", "--limit", "2"])
    assert from_flags(arguments, Config) == {
        "size": "3", "rate": 0.25, "limit": 2.0, "mode": "sum", "fast": False, "safe": False,
    }  # fmt: skip
    text = parser.format_help()
    assert "5 % is usual" in text
    assert "--limit LIMIT" in text
    assert "how fast" in text
    with pytest.raises(SystemExit):
        parser.parse_args(["--mode", "sum"])  # --size has no default
