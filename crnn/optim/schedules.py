# SPDX-License-Identifier: MIT
"""Learning-rate schedules: factors of the learning rate. `SCHEDULES` lists them by the names of the command line.

Most are functions of an update's number and the number of updates of the run. `EpochSchedule` is for those that change
between epochs. All use exact arithmetic, or functions of the C core, so they are bit-identical on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from crnn._attributes import fixed_attributes
from crnn._core.vecmath import exp, log1p
from crnn._float_mode import in_ieee_mode
from crnn.checks import check_count, check_finite, check_flag, check_number, check_size

__all__ = [
    "EPOCH_SCHEDULES",
    "SCHEDULES",
    "UPDATE_SCHEDULES",
    "EpochSchedule",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "linear",
    "plateau",
    "power",
    "schedule_of_epoch",
    "steps",
]

Schedule: TypeAlias = Callable[[int, int], float]  # (update from 0, updates in all) -> factor of the learning rate


# ---- a factor of lr at update k (from 0) of n --------------------------------------------------------------------


@in_ieee_mode
def constant(warmup: int = 0) -> Schedule:
    """Always 1. Every schedule is multiplied by a linear rise to 1 over the first ``warmup`` updates."""
    return _Warmed("constant", _constant, warmup)


@in_ieee_mode
def linear(final: float = 0.0, warmup: int = 0) -> Schedule:
    """From 1 down to ``final`` in a straight line."""
    end = check_finite("final", final)
    return _Warmed(f"linear to {end}", partial(_linear, end), warmup)


@in_ieee_mode
def cosine(final: float = 0.0, warmup: int = 0) -> Schedule:
    """From 1 down to ``final`` along half a cosine. Loshchilov, Hutter 2017.

    Examples
    --------
    >>> schedule = cosine()
    >>> [round(schedule(k, 4), 3) for k in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    end = check_finite("final", final)
    return _Warmed(f"cosine to {end}", partial(_cosine, end), warmup)


@in_ieee_mode
def exponential(final: float = 0.01, warmup: int = 0) -> Schedule:
    """From 1 down to ``final`` exponentially, by the same factor at every update."""
    rate = _log(check_number("final", final, 1e-30))
    return _Warmed(f"exponential to {final}", partial(_exponential, rate), warmup)


# Functions of the module, so that a schedule can be pickled.


def _constant(k: int, n: int) -> float:
    return 1.0


def _linear(end: float, k: int, n: int) -> float:
    return 1.0 + (end - 1.0) * (k / n)


def _cosine(end: float, k: int, n: int) -> float:
    return end + (1.0 - end) * 0.5 * (1.0 + _cos_pi(k / n))


def _exponential(rate: float, k: int, n: int) -> float:
    return _exp(rate * (k / n))


# The C libraries' cos, exp and log differ in the last bit.


_COS_DIVISORS = tuple(float(n * (n - 1)) for n in range(2, 26, 2))  # of each term of the series by the one before


def _cos_pi(x: float) -> float:
    """cos(pi x) for x in [0, 1] by its power series, bit-identical on every machine."""
    if x > 0.5:
        return -_cos_pi(1.0 - x)
    negative = -((math.pi * x) * (math.pi * x))
    total = term = 1.0
    for divisor in _COS_DIVISORS:
        term *= negative / divisor
        total += term
    return total


def _log(x: float) -> float:
    """The natural logarithm of x > 0, bit-identical on every machine."""
    mantissa, exponent = math.frexp(x)
    log = np.empty(1)
    log1p(log, np.array([2.0 * mantissa - 1.0]))
    return float(log[0]) + (exponent - 1) * 0.6931471805599453


def _exp(x: float) -> float:
    """e**x, bit-identical on every machine."""
    power = np.empty(1)
    exp(power, np.array([x]))
    return float(power[0])


def power(x: float, exponent: float) -> float:
    """x**exponent for x > 0, bit-identical on every machine."""
    return _exp(exponent * _log(x))


class _Warmed:
    """A schedule with a warm-up; its ``__name__`` describes it, for messages."""

    schedule: Schedule
    steps: int

    def __init__(self, name: str, schedule: Schedule, warmup: int) -> None:
        self.schedule, self.steps = schedule, check_count("warmup", warmup)
        self.__name__ = f"{name}, warm-up {self.steps}"

    @in_ieee_mode
    def __call__(self, k: int, n: int) -> float:
        rise = min(1.0, (k + 1) / self.steps) if self.steps else 1.0
        return rise * self.schedule(k, n)

    def __repr__(self) -> str:
        return f"<schedule: {self.__name__}>"


# ---- a factor of lr for each epoch -------------------------------------------------------------------------------


@fixed_attributes()
class EpochSchedule:
    """A schedule whose factor is constant within an epoch, and may depend on the validation losses before it.

    `crnn.fit` calls `at_epoch` at the beginning of every epoch. The factor is a function of the epoch and of the losses
    in the log alone, so a resumed run continues with the same rates.

    Attributes
    ----------
    needs_validation : bool
        Whether the factor depends on validation losses.

    Examples
    --------
    >>> schedule = steps(0.5, after=4)
    >>> [schedule.at_epoch(epoch, ())(0, 100) for epoch in range(1, 8)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.25, 0.125]
    """

    needs_validation: bool
    __name__: str

    def __init__(
        self,
        name: str,
        factor: Callable[[int, Sequence[float]], float],
        warmup: int,
        *,
        needs_validation: bool = False,
    ) -> None:
        self._factor, self._label, self.needs_validation = factor, name, needs_validation
        self._warmup = check_count("warmup", warmup)
        self.__name__ = f"{name}, warm-up {self._warmup}"

    @in_ieee_mode
    def at_epoch(self, epoch: int, valid_losses: Sequence[float]) -> Schedule:
        """The schedule of an epoch, counted from 1, after epochs with these validation losses."""
        factor = self._factor(epoch, valid_losses)
        return _Warmed(f"{self._label}, epoch {epoch}", partial(_times, factor), self._warmup)

    def __call__(self, k: int, n: int) -> float:
        """Raise TypeError: the number of an update does not determine the factor."""
        raise TypeError(
            f"schedule: expected at_epoch(epoch, valid_losses)(k, n) for {self.__name__!r}, which depends on the epoch"
        )

    def __repr__(self) -> str:
        return f"<schedule: {self.__name__}>"


def steps(factor: float = 0.5, after: int = 4, every: int = 1, warmup: int = 0) -> EpochSchedule:
    """1 for ``after`` epochs; then multiplied by ``factor`` at the beginning of the next epoch, and of every
    ``every``-th epoch after it.

    ``steps(0.5, after=4)`` is the schedule of Zaremba, Sutskever, Vinyals 2014 for their smallest model.
    """
    value = check_number("factor", factor, 0.0)
    first, period = check_count("after", after), check_size("every", every)
    name = f"steps of {value} after epoch {first}" + (f" every {period} epochs" if period > 1 else "")
    return EpochSchedule(name, partial(_steps, value, first, period), warmup)


def plateau(
    factor: float = 0.5,
    patience: int = 1,
    min_fall: float = 0.0,
    forever: bool = False,
    lowest: float = 0.0,
    warmup: int = 0,
) -> EpochSchedule:
    """1, and multiplied by ``factor`` whenever the validation loss has not fallen for ``patience`` epochs.

    Parameters
    ----------
    factor : float
    patience : int
        At least 1. Epochs in sequence without a loss that is lower than the lowest before by more than ``min_fall``.
    min_fall : float
        In the unit of the loss, such as nats.
    forever : bool
        Once it has been multiplied, multiply it before every further epoch, whatever the loss. With ``factor=0.5``, as
        in RNNLM (Mikolov et al. 2010).
    lowest : float
        The factor never becomes lower.
    warmup : int
        Updates of a linear rise to 1.

    Examples
    --------
    >>> schedule, losses = plateau(0.25), [2.0, 1.5, 1.6, 1.4]
    >>> [schedule.at_epoch(epoch + 1, losses[:epoch])(0, 100) for epoch in range(5)]
    [1.0, 1.0, 1.0, 0.25, 0.25]
    """
    value, least = check_number("factor", factor, 0.0), check_number("lowest", lowest, 0.0)
    epochs, fall = check_size("patience", patience), check_number("min_fall", min_fall, 0.0)
    continues = check_flag("forever", forever)
    name = f"plateau of {value} after {epochs} epochs, min_fall {fall}, forever {continues}, lowest {least}"
    rule = partial(_plateau, value, epochs, fall, continues, least)
    return EpochSchedule(name, rule, warmup, needs_validation=True)


def _times(factor: float, k: int, n: int) -> float:
    return factor


def _steps(factor: float, after: int, every: int, epoch: int, valid_losses: Sequence[float]) -> float:
    value = 1.0
    for _ in range(0, epoch - after, every):
        value *= factor  # the C libraries' pow differ
    return value


def _plateau(
    factor: float,
    patience: int,
    min_fall: float,
    forever: bool,
    lowest: float,
    epoch: int,
    valid_losses: Sequence[float],
) -> float:
    value, best, waited, begun = 1.0, math.inf, 0, False
    for loss in valid_losses:
        if loss < best - min_fall:
            waited = 0
        else:
            waited += 1
        best = min(best, loss)
        if waited == patience or (forever and begun):
            value, waited, begun = max(value * factor, min(value, lowest)), 0, True
    return value


def schedule_of_epoch(schedule: Schedule | None, epoch: int, valid_losses: Sequence[float]) -> Schedule | None:
    """The schedule for the updates of an epoch, counted from 1. A user's own may have a method ``at_epoch`` too.

    Raises TypeError if that method returns no function.
    """
    at_epoch = getattr(schedule, "at_epoch", None)
    if at_epoch is None:
        return schedule
    made: Schedule = at_epoch(epoch, valid_losses)
    if not callable(made):
        raise TypeError(f"schedule: expected a function of (update, updates) from at_epoch, got {type(made).__name__}")
    return made


# Every schedule by name: the choices of ``schedule=`` in `crnn.fit` and of ``crnn train --schedule``.
UPDATE_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
}
EPOCH_SCHEDULES: dict[str, Callable[..., EpochSchedule]] = {"steps": steps, "plateau": plateau}
SCHEDULES: dict[str, Callable[..., Schedule]] = {**UPDATE_SCHEDULES, **EPOCH_SCHEDULES}
