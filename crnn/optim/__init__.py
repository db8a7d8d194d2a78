# SPDX-License-Identifier: MIT
"""Optimizers and learning-rate schedules over one flat buffer. Independent of models and text.

`RULES` and `SCHEDULES` list all of them by the names that the command line uses.
"""

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
    "EPOCH_SCHEDULES",
    "RULES",
    "SCHEDULES",
    "SGD",
    "UPDATE_SCHEDULES",
    "Adagrad",
    "Adam",
    "AdamW",
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
