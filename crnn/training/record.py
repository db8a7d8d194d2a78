# SPDX-License-Identifier: MIT
"""The record of a training run that is saved with the model: what it was trained on, how, and how well it did.

It holds nothing that differs between two runs of the same data and settings, such as times or the number of threads, so
that their files are identical.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crnn._version import __version__
from crnn.training.run import Run

__all__ = ["scores_of", "training_record"]

SCORES = ("train_loss", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")
DIGITS = 6  # a resumed run adds up its losses in other groups, which may change the last digits of their mean


def training_record(
    run: Run,
    data: Mapping[str, str | None],
    settings: Mapping[str, Any],
    command: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a run as it is now. JSON-able.

    Parameters
    ----------
    run : Run
    data : dict
        `crnn.training.identity.data_identity` of the run.
    settings : dict
        The options that determine the result, with the optimizer's.
    command : dict, optional
        The same as options of ``crnn train``, if that has trained the model.

    Returns
    -------
    dict
        ``crnn``, the version; ``data`` and ``valid``, the SHA-256 of the data; ``settings``; ``epochs`` and ``updates``
        done; ``best_epoch``, whose weights the model has, None if no epoch was evaluated; ``scores`` of that epoch, or
        of the last one, and on test data; ``unit`` of the losses; ``command``, if there is one.
    """
    record = {
        "crnn": __version__,
        **data,
        "settings": dict(settings),
        "epochs": run.log.epochs,
        "updates": run.update,
        "best_epoch": run.best_epoch if run.judged else None,
        "scores": scores_of(run),
        "unit": run.log.unit,
    }
    return record if command is None else record | {"command": dict(command)}


def scores_of(run: Run) -> dict[str, float]:
    """The scores of the best epoch, or of the last one if none was evaluated, and those on test data."""
    best = run.log.best if run.judged else None
    scored = dict(best or run.log.last or {})
    if run.test is not None:
        scored["test_loss"] = run.test.loss
        scored |= {} if run.test.accuracy is None else {"test_accuracy": run.test.accuracy}
    return {name: float(f"{scored[name]:.{DIGITS}g}") for name in SCORES if name in scored}
