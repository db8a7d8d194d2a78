# SPDX-License-Identifier: MIT
"""``crnn train --task forecast``: the next steps of the series in a table."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crnn
from crnn._options import add_flags, from_flags
from crnn.checks import DTYPES
from crnn.cli.common import CommandParser, file_or_standard, say
from crnn.cli.tables.series import add_series_flags, columns_of, read_series
from crnn.cli.tasks import Prepared
from crnn.models.fitting.training_data import training_data
from crnn.models.forecasting.learning import LEAST_EPOCHS, UPDATES
from crnn.models.inputs.held_out import AUTO
from crnn.nn.cells import CELLS
from crnn.nn.config import NetworkConfig
from crnn.training.config import TrainingConfig

NONE = "none"
DEFAULTS = {name: each.default for name, each in inspect.signature(crnn.Forecaster).parameters.items()}
TRAINING_FLAGS: dict[str, dict[str, Any]] = {
    "batch_size": {"help": "windows of the series in a batch"},
    "epochs": {
        "help": f"passes over the windows; if not given as many as make {UPDATES:,} updates, at least "
        f"{LEAST_EPOCHS}"
    },
}
WITHOUT = ("bptt", "random_bptt", "carry", "sample_every")
# The options of `Forecaster` that are not those of its network.
MODEL_FLAGS: dict[str, dict[str, Any]] = {
    "horizon": {"type": int, "help": "steps that are forecast at once; beyond it forecasts are made from forecasts"},
    "season": {"help": "steps of a season; auto: found in the series; 1: none"},
    "difference": {
        "help": "lags of the differences that are learnt, such as 1 or 12,1; auto: 1 if the last value forecasts "
        "better than the mean; none"
    },
    "logarithm": {"action": "store_true", "help": "take the logarithm of the values, which must be above 0"},
    "gaps": {"choices": ["interpolate", "carry", "mask"], "help": "what missing values are replaced by"},
    "window": {"type": int, "help": "steps that are read before an origin; two seasons if not given, but at least 24"},
    "loss": {"choices": ["mae", "mse", "huber"], "help": "loss of a forecast"},
    "delta": {"type": float, "help": "error beyond which the loss of huber is linear, in standard deviations"},
}


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {name}, got {text!r}") from None


def _season(text: str) -> int | str:
    """The value of ``--season``."""
    return text if text == AUTO else _whole("a number of steps, or auto", text)


def _difference(text: str) -> str:
    """The value of ``--difference``."""
    _lags(text)
    return text


def _lags(text: str) -> str | list[int] | None:
    """The value of ``--difference`` as `Forecaster` takes it."""
    if text in (AUTO, NONE):
        return None if text == NONE else text
    return [_whole("lags, such as 1 or 12,1, auto, or none", each) for each in text.split(",")]


def _share(text: str) -> float | str:
    """The value of ``--valid``."""
    if text in (AUTO, NONE):
        return text
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, {AUTO}, or {NONE}, got {text!r}")
    return share or NONE


TYPES: dict[str, Callable[[str], Any]] = {"season": _season, "difference": _difference}


def add_arguments(parser: CommandParser) -> None:
    """Add the table, and the options of its columns, of the model and its network."""
    parser.usage = "%(prog)s [options] DATA -o OUTPUT"
    parser.add_argument("data", type=file_or_standard, help="table (.csv, .tsv, also compressed); - is standard input")
    data = parser.add_argument_group("data")
    add_series_flags(data)
    data.add_argument(
        "--valid",
        type=_share,
        default=AUTO,
        metavar="SHARE",
        help="share of the steps at the end of each series to validate on; auto: a fifth of those that are long; none",
    )
    model = parser.add_argument_group("model")
    for name, options in MODEL_FLAGS.items():
        default = {} if "action" in options else {"default": DEFAULTS[name], "metavar": name.upper()}
        default |= {"metavar": None} if "choices" in options else {}
        kind = {"type": TYPES[name]} if name in TYPES else {}
        model.add_argument(f"--{name}", **{**default, **kind, **options})
    flags: dict[str, dict[str, Any]] = {
        "hidden_size": {"type": int, "default": DEFAULTS["hidden_size"], "help": "H: units of each layer"},
        "num_layers": {"default": 1, "help": "number of layers"},
        "cell": {"choices": list(CELLS), "default": DEFAULTS["cell"], "help": "kind of recurrent cell"},
        "dtype": {"choices": list(DTYPES), "help": "precision"},
    }
    without = ("embedding_size", "embedding_dropout", "bidirectional")
    add_flags(parser.add_argument_group("network"), NetworkConfig, flags, without=without)


def reads(arguments: argparse.Namespace) -> dict[str, list[Path]]:
    """The table."""
    return {"data": [arguments.data]}


def writes(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """No other files than every run."""
    return {}


def check_start(arguments: argparse.Namespace) -> None:
    """Nothing is known to be wrong before the table is read."""


def prepare(arguments: argparse.Namespace, config: TrainingConfig) -> Prepared:
    """Read the series, make a model for them, and say what was found."""
    table = read_series(arguments.data, columns_of(arguments))
    say(table.describe())
    found = table.columns
    arguments.id, arguments.time = found.id, found.time  # as they were found, so that they are saved with the model
    for name in ("target", "past", "future"):
        setattr(arguments, name, list(getattr(found, name)))
    options = {name: getattr(arguments, name) for name in MODEL_FLAGS} | from_flags(arguments, NetworkConfig)
    options["difference"] = _lags(options["difference"])
    model = crnn.Forecaster(**options, seed=arguments.seed)
    learning = model.learning(*table.given(), valid=None if arguments.valid == NONE else arguments.valid)
    if config.resume and config.checkpoint is not None:
        learning.check_resumed(config.checkpoint)
    settings = {"resume": config.resume, "checkpoint": config.checkpoint}
    data, judged = training_data(
        learning.regressor, learning.X, learning.y, learning.valid, rescale=False, settings=settings
    )
    regressor = learning.regressor
    say(f"{learning.describe()}; cell {regressor.net.cell}, {regressor.num_parameters:,} parameters")

    def whole() -> crnn.Forecaster:
        learning.finish()
        return model

    epochs = learning.epochs(config.batch_size)
    kind = type(model).__name__
    return Prepared(regressor, data, judged, whole=whole, kind=kind, rest=learning.rest, epochs=epochs)


def described(evaluation: Any) -> str:
    """There are no test data; crnn eval tests from several origins."""
    return f"loss {evaluation.loss:.4f}"
