# SPDX-License-Identifier: MIT
"""The optimizer of what learns text while it is used, and its default rate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from crnn.nn.learning.config import LearnerConfig
from crnn.optim.named import optimizer_from
from crnn.optim.optimizers import Optimizer

__all__ = ["fresh_optimizer", "with_defaults"]


def with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options with defaults that are not a learner's. The default rate is for the default optimizer and no other."""
    options = dict(defaults) | dict(given)
    if given.get("optimizer") is not None and "lr" not in given:
        options["lr"] = None
    return options


def fresh_optimizer(config: LearnerConfig) -> Optimizer:
    """The optimizer that these options describe, a copy. Raises TypeError, and ValueError for one that is in use."""
    given = config.optimizer
    if isinstance(given, Optimizer) and config.lr is not None:
        raise ValueError(f"lr: expected none with an optimizer that has its own, got {config.lr}")
    optimizer = optimizer_from("optimizer", given, config.lr)
    if optimizer.updates:
        raise ValueError(
            f"optimizer: expected one that has done no updates, got {optimizer!r} after {optimizer.updates}"
        )
    return copy.deepcopy(optimizer)
