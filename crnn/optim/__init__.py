# SPDX-License-Identifier: MIT
"""Optimizers, learning-rate schedules and averages over one flat buffer. Independent of models and text.

`RULES`, `SCHEDULES` and `AVERAGES` list all of them by the names that the command line uses.
"""

from crnn.optim.anchored import AnchoredUpdate
from crnn.optim.averages import ASGD, AVERAGES, EMA, Average
from crnn.optim.optimizers import (
    RULES,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    RMSprop,
    global_norm,
)
from crnn.optim.schedules import (
    EPOCH_SCHEDULES,
    SCHEDULES,
    UPDATE_SCHEDULES,
    EpochSchedule,
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    plateau,
    steps,
)

__all__ = [
    "ASGD",
    "AVERAGES",
    "EMA",
    "EPOCH_SCHEDULES",
    "RULES",
    "SCHEDULES",
    "SGD",
    "UPDATE_SCHEDULES",
    "Adagrad",
    "Adam",
    "AdamW",
    "AnchoredUpdate",
    "Average",
    "EpochSchedule",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "global_norm",
    "linear",
    "plateau",
    "steps",
]
