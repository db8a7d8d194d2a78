# SPDX-License-Identifier: MIT
"""LearnerConfig: the options of a learner, each declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from crnn._options import check_options, option
from crnn.checks import as_number, check_limit, check_number, check_size, check_threads

if TYPE_CHECKING:
    from crnn.optim import Optimizer

__all__ = ["LearnerConfig", "LearnerOptions"]


class LearnerOptions(TypedDict, total=False):
    """The options of a learner, for type checkers; see `LearnerConfig` for their meaning."""

    optimizer: Optimizer | str
    lr: float | None
    bptt: int
    every: int | None
    clip_norm: float | None
    clip_value: float | None
    decay: float
    max_change: float | None
    streams: int
    threads: int


def _check_optimizer(name: str, value: Any) -> Any:
    from crnn.optim.named import check_optimizer  # not earlier: `import crnn` does not wait for it

    return check_optimizer(name, value)


def _check_decay(name: str, value: Any) -> float:
    number = as_number(value)
    if number is None or not 0 <= number <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r:.200}")
    return number


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """The options of a learner, checked. See `crnn.nn.learning.learner.Learner`."""

    optimizer: str | object = option(  # resolved when `import crnn` has not loaded crnn.optim
        "adam",
        check=_check_optimizer,
        help="A name, with arguments if wanted, as in 'sgd(momentum=0.9)', or an optimizer such as "
        "crnn.optim.Adam(beta2=0.99), of which the learner takes a copy.",
        json_types=(),
        flag="--optimizer",
    )
    lr: float | None = option(
        None,
        check=lambda name, value: check_number(name, value, 0.0),
        help="Learning rate of an optimizer that is given by its name. If not given: the default of its class.",
        flag="--lr",
    )
    bptt: int = option(
        32,
        check=check_size,
        help="Steps of truncated backpropagation through time: an update backpropagates the losses of the last bptt "
        "steps, and no gradient reaches earlier ones.",
        flag="--bptt",
    )
    every: int | None = option(
        None,
        check=check_size,
        help="Steps from one update to the next, at most bptt; bptt if not given. With fewer, the losses of the last "
        "bptt steps count again in each update.",
        flag="--every",
    )
    clip_norm: float | None = option(
        1.0,
        check=check_limit,
        help="Largest 2-norm of the gradient; a larger gradient is scaled down to this norm. None: any.",
        flag="--clip-norm",
    )
    clip_value: float | None = option(
        None,
        check=check_limit,
        help="Elements of the gradient are clipped to [-clip_value, clip_value], before clip_norm. None: they are not.",
        flag="--clip-value",
    )
    decay: float = option(
        0.0,
        check=_check_decay,
        help="After each update the weights move by this part of the way back to those that the learner began with, "
        "as in dynamic evaluation (Krause et al. 2018).",
        flag="--decay",
    )
    max_change: float | None = option(
        None,
        check=check_limit,
        help="Bounds how far the weights may move from those that the learner began with: the 2-norm of the "
        "difference, divided by that of the weights at the beginning. None: any.",
        flag="--max-change",
    )
    streams: int = option(
        1,
        check=check_size,
        help="B: independent streams that are stepped together and share the weights.",
    )
    threads: int = option(
        1,
        check=lambda name, value: check_threads(value),
        help="Threads that the streams and the gradients are split over. The results do not depend on it.",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.every is not None and self.every > self.bptt:
            raise ValueError(f"every: expected at most bptt={self.bptt}, got {self.every}")
        if self.lr is not None and not math.isfinite(self.lr):
            raise ValueError(f"lr: expected a finite number, got {self.lr}")

    @property
    def interval(self) -> int:
        """Steps from one update to the next."""
        return self.bptt if self.every is None else self.every
