# SPDX-License-Identifier: MIT
"""The options of training that checkpoints record, because the result depends on them. Each option is in one list here.

They may differ when a run is resumed, and a note names the differences, except for those that are `FIXED`.
"""

from __future__ import annotations

from typing import Any

from crnn.training.config import TrainingConfig

__all__ = ["FIXED", "METHODS", "recorded"]

VALUES = ("epochs", "batch_size", "bptt", "carry", "clip_norm", "clip_value", "reduction", "precision", "seed")
METHODS: dict[str, Any] = {"random_bptt": False, "gradient_noise": None}  # recorded if used; with the value if not
MADE = ("optimizer", "lr", "schedule", "warmup", "average", "shards", "comm")  # recorded as what the run makes of them
# The trained model depends on these only in that they end a run, or not at all.
NOT_RECORDED = (
    *("max_updates", "patience", "threads", "resume", "restart"),
    *("checkpoint", "checkpoint_minutes", "checkpoint_updates"),
    *("progress", "log_every", "log_file", "report", "sample_every", "on_update", "on_epoch"),
)
FIXED = ("precision", "shards", "average")  # older files may not have them: None


def recorded(config: TrainingConfig, windows: int, order: int) -> dict[str, Any]:
    """What a checkpoint records of the options besides the optimizer, in a run with so many windows in an epoch.

    ``order``: seed of the order in which sequences are visited.
    """
    schedule = config.new_schedule()
    name = None if schedule is None else getattr(schedule, "__name__", type(schedule).__name__)
    given = {name: getattr(config, name) for name in VALUES}
    more: dict[str, Any] = {} if config.shards is None else {"shards": config.shards}
    more |= {name: getattr(config, name) for name in METHODS if getattr(config, name)}
    more |= {} if config.average is None else {"average": repr(config.new_average())}
    epochs = config.length(windows, judged=False).epochs
    return given | more | {"epochs": epochs, "schedule": name, "order": order}
