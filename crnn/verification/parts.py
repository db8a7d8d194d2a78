# SPDX-License-Identifier: MIT
"""The parts of a verification, made from crnn's own lists: rules, optimizers, cells, precisions, kinds, learners."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial

from crnn import optim
from crnn.io import registry
from crnn.models.files import to_bytes
from crnn.nn import init
from crnn.nn.cells import CELLS
from crnn.nn.network import RNN
from crnn.nn.precision import PRECISIONS, TRAINING
from crnn.verification import samples
from crnn.verification.cells import TOGETHER, verify_cell, verify_training
from crnn.verification.digest import Digest
from crnn.verification.kinds import KINDS
from crnn.verification.learners import verify_learners
from crnn.verification.precisions import verify_networks, verify_precision

Part = Callable[[Digest, int], None]  # adds its results; the second argument is the number of threads


def all_parts() -> dict[str, Part]:
    """The parts by name, in the order in which they run."""
    parts: dict[str, Part] = {}
    for rule in init.RULES:
        parts[f"initial weights {rule}"] = partial(initial_weights, rule)
    for schedule in optim.UPDATE_SCHEDULES:  # others only multiply numbers
        parts[f"schedule {schedule}"] = partial(learning_rates, schedule)
    for optimizer in optim.RULES:
        parts[f"optimizer {optimizer}"] = partial(updates, optimizer)
    for cell in CELLS:
        parts[f"cell {cell}"] = partial(verify_cell, cell)
    for precision in PRECISIONS:
        parts[f"precision {precision}"] = partial(verify_precision, precision)
    for training in TRAINING:
        parts[f"training {training}"] = partial(verify_training, training, TOGETHER)
    for cell in CELLS:
        if cell not in TOGETHER:
            parts |= {f"precision {each} {cell}": partial(verify_networks, each, [cell]) for each in PRECISIONS}
            parts |= {f"training {each} {cell}": partial(verify_training, each, [cell]) for each in TRAINING}
    for kind in registry.kinds(package="crnn"):
        parts[f"kind {kind}"] = KINDS.get(kind, partial(no_recipe, kind))
    parts["model file"] = model_file
    parts["learners"] = verify_learners
    return parts


def no_recipe(kind: str, digest: Digest, threads: int) -> None:
    """Stands for a kind that KINDS does not list."""
    raise LookupError(f"{kind}: expected a recipe in crnn/verification/kinds.py, found none")


def initial_weights(rule: str, digest: Digest, threads: int) -> None:
    """The initial weights of a network by one rule."""
    for dtype in "float32", "float64":
        net = RNN(67, 67, recurrent_init=f"0.75*{rule}", input_init=rule, dtype=dtype, seed=4)
        digest.add(dtype, net.flat_params)


def learning_rates(schedule: str, digest: Digest, threads: int) -> None:
    """The factors of a schedule."""
    factor = optim.SCHEDULES[schedule](warmup=7)
    digest.add("factors", [factor(k, 100) for k in range(100)])


def updates(optimizer: str, digest: Digest, threads: int) -> None:
    """Weights after updates by an optimizer with all that it has."""
    rule = optim.RULES[optimizer]
    momentum = {"momentum": 0.5} if "momentum" in inspect.signature(rule).parameters else {}
    for dtype in "float32", "float64":
        update, weights = rule(lr=2.0**-7, weight_decay=2.0**-9, **momentum), samples.numbers(301, seed=1, dtype=dtype)
        for k in range(20):
            gradient = samples.numbers(301, seed=2 + k, dtype=dtype)
            update.update(weights, gradient, factor=0.75, lr_scale=1.0 - k / 32)
        digest.add(dtype, weights)


def model_file(digest: Digest, threads: int) -> None:
    """The bytes of each tensor in a model file, which are little-endian on every machine."""
    content = to_bytes(RNN(5, 7, cell="gru", seed=1, recurrent_init="orthogonal", input_init="glorot"))
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in sorted(json.loads(content[8:start]).items()):
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            digest.add(name, [entry["dtype"], entry["shape"], content[start + first : start + last]])
