# SPDX-License-Identifier: MIT
"""Notes for a finished run: that its loss was still falling, or never fell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from crnn.training.log import TrainingLog

__all__ = ["advice", "unlearnt"]

TRAIN_SHARE = 0.1  # of the whole fall of the training loss, in the last quarter: more is still falling
VALID_SHARE = 0.01  # the same of the validation loss, which decides what is kept
UNLEARNT = 0.98  # of the loss at the beginning: a validation loss that is never lower has not fallen
BEGINNING = 0.02  # of all updates
FEWEST = 4  # entries from which a fall of the training loss can be judged


def advice(log: TrainingLog, option: str, value: int) -> list[str]:
    """Notes for a run that has ended because ``option``, which is ``value``, allows no more epochs or updates.

    With validation data a note says that the best epoch is the last; without, that its training loss was still
    falling. A loss falls in proportion to the learning rate, so quarters of a run are those of the summed rate: at the
    end of a cosine, every loss is level.
    """
    more = f"a longer training may give a better model, such as {option}={2 * value}"
    if log.best is None or log.epochs == 1:
        losses = [(float(each["lr"]), float(each["train_loss"])) for each in log.of_kind("train") if "lr" in each]
        falls = len(losses) >= FEWEST and _falls(losses, TRAIN_SHARE)
        return [f"the training loss was still falling: {more}"] if falls else []
    if log.best is log.last and _falls(_by_epoch(log), VALID_SHARE):
        return [f"the best epoch is the last, {log.epochs}: {more}"]
    return []


def unlearnt(log: TrainingLog) -> list[str]:
    """A note for a run whose validation loss was never lower than the training loss at the beginning, or hardly."""
    best, entries = log.best, log.of_kind("train")
    first = [entry for entry in entries if entry["update"] <= BEGINNING * log.updates] or entries[:1]
    targets = sum(int(entry["tokens"]) for entry in first)
    if best is None or not targets:
        return []
    begun = sum(float(entry["train_loss"]) * entry["tokens"] for entry in first) / targets
    lowest = float(best["valid_loss"])
    if not lowest > UNLEARNT * begun > 0:
        return []
    return [
        f"the validation loss was never below {lowest:.4f}, and the training loss at the beginning was {begun:.4f}: "
        "the model may have learnt nothing that holds for other data"
    ]


def _by_epoch(log: TrainingLog) -> list[tuple[float, float]]:
    """Learning rate and validation loss of every epoch."""
    rates = {entry["epoch"]: float(entry["lr"]) for entry in log.of_kind("train") if "lr" in entry}
    epochs = [entry for entry in log.of_kind("epoch") if "valid_loss" in entry]
    return [(rates.get(entry["epoch"], 0.0), float(entry["valid_loss"])) for entry in epochs]


def _falls(losses: list[tuple[float, float]], share: float) -> bool:
    """Whether (rate, loss) fall by more than a share of their whole fall in the last quarter of the summed rates."""
    finite = [(rate, loss) for rate, loss in losses if math.isfinite(loss)]
    whole = sum(rate for rate, _ in finite)
    if len(finite) < 2 or whole <= 0:
        return False
    places = [(passed - rate / 2) / whole for (rate, _), passed in zip(finite, _sums(finite), strict=True)]

    def mean(low: float, high: float) -> float | None:
        found = [loss for place, (_, loss) in zip(places, finite, strict=True) if low <= place < high]
        return sum(found) / len(found) if found else None

    first, third, last = mean(0, 0.25), mean(0.5, 0.75), mean(0.75, 2)
    first = finite[0][1] if first is None else first
    last = finite[-1][1] if last is None else last
    if third is None:  # few epochs
        third = next((loss for place, (_, loss) in zip(places[::-1], finite[::-1], strict=True) if place < 0.75), first)
    return third - last > share * (first - last) > 0


def _sums(losses: list[tuple[float, float]]) -> Iterator[float]:
    """The rates summed up to each of them."""
    return itertools.accumulate(rate for rate, _ in losses)
